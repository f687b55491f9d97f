"""Check that a run used the rows that its manifest says.

A run writes SAVE_DIR/manifest.json: the prepared files with their checksums, the protocol and
seeds, the rows of every split (numbered from 0 in the prepared files), what noise changed, and the
checksum of the encoder that it started from. This command makes all of it but the last again from
DATA and compares.

    fairseq-scl verify checkpoints/run1/manifest.json --data data/sst2
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import from_json

from fairseq_scl.data.rows import Choices, Rows
from fairseq_scl.errors import UserError
from fairseq_scl.files import Digest, parse_model, read_bytes, sha256

NAME = "manifest.json"
Name = Annotated[str, Field(pattern=r"^\w+$")]
NO_DIGEST = "0" * 64  # until it is known
FORM = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Split(BaseModel):
    """Rows of a prepared file, ascending; a run of three or more is `[first, last]`."""

    model_config = FORM
    source: Name
    rows: list[int | tuple[int, int]]

    @field_validator("rows")
    @classmethod
    def _ascend(cls, rows: list[int | tuple[int, int]]) -> list[int | tuple[int, int]]:
        ends = chain.from_iterable((row,) if isinstance(row, int) else row for row in rows)
        if any(later <= earlier for earlier, later in pairwise([-1, *ends])):
            raise ValueError("rows are numbers from 0, ascending")
        return rows

    def __len__(self) -> int:
        """How many rows these are."""
        return sum(1 if isinstance(entry, int) else entry[1] - entry[0] + 1 for entry in self.rows)

    def numbers(self, available: int) -> list[int]:
        """The row numbers, which must be below `available`.

        Raises:
            ValueError: if one is not.
        """
        last = max([-1, *np.ravel(self.rows[-1:]).tolist()])
        if last >= available:
            raise ValueError(f"row {last} is not among 0 to {available - 1}")
        return expand(self.rows)


class Manifest(BaseModel):
    """What `manifest.json` holds; see above.

    Attributes:
        files: the sha256 of each prepared file, by its path in DATA.
        flipped: the noisy label of each training row that has one.
        in_train: of each other split how many of its rows have the tokens of a training row;
            manifests of 0.1 do not count them.
        translations: sha256 of the token ids of back-translations.
        encoder: sha256 of --finetune-from-model.
        sha256: of all the others.
    """

    model_config = FORM
    files: dict[Annotated[str, Field(pattern=r"^\w+(/\w[\w.]*)+$")], Digest]
    choices: Choices
    splits: dict[Name, Split]
    flipped: dict[int, int]
    in_train: dict[Name, int] | None = None
    translations: Digest | None = None
    encoder: Digest | None = None
    sha256: Digest

    @model_validator(mode="after")
    def _belongs_together(self) -> "Manifest":
        choices = self.choices
        if "train" not in self.splits:
            raise ValueError("splits has no 'train'")
        if choices.noise == "back-translation" and not (
            choices.noise_temperature and choices.noise_ratio
        ):
            raise ValueError("back-translation has a noise_temperature and a noise_ratio above 0")
        return self

    def same_examples(self, other: "Manifest") -> bool:
        """Whether both are of the same rows and noise, whatever encoder the runs started from."""
        ignored = {"encoder": None, "sha256": NO_DIGEST}
        return self.model_copy(update=ignored) == other.model_copy(update=ignored)

    def json_text(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(mode="json", exclude_unset=True), indent=1) + "\n"


def make(rows: Rows, splits: list[str], encoder: str | None = None) -> Manifest:
    """The manifest of a run on `rows`, with a checksum of itself."""
    from fairseq_scl.data import stored

    data, choices = rows.data, rows.choices
    found = {split: rows.of(split) for split in splits}
    labels, flipped = rows.training_labels()
    files = [data / "input0" / "dict.txt", data / "label" / "dict.txt"]
    for source in sorted({split.source for split in found.values()}):
        files += stored.split_files(data, source, choices.regression)
    made = Manifest(
        files={str(path.relative_to(data)): sha256(path) for path in files if path.is_file()},
        choices=choices,
        splits={
            name: Split(source=split.source, rows=compact(split.rows))
            for name, split in found.items()
        },
        flipped={int(found["train"].rows[at]): int(labels[at]) for at in flipped.tolist()},
        in_train=in_train(rows, [split for split in found if split != "train"]),
        sha256=NO_DIGEST,
    )
    if choices.noise == "back-translation":
        translations, items = rows.translations()
        ids = hashlib.sha256()
        for item in items:  # in the order of rows
            ids.update(translations.tokens[item].numpy().tobytes())
        made.translations = ids.hexdigest()
    if encoder:
        made.encoder = encoder
    content = made.model_dump(mode="json", exclude_unset=True, exclude={"sha256"})
    made.sha256 = checksum(content)
    return made


def in_train(rows: Rows, splits: list[str]) -> dict[str, int]:
    """How many rows of each split have the tokens of a training row of the run."""
    trained = set(tokens(rows, "train"))
    return {split: sum(row in trained for row in tokens(rows, split)) for split in splits}


def tokens(rows: Rows, split: str) -> Iterator[tuple[bytes, ...]]:
    """The tokens of each row of a split, of one sentence or two."""
    from fairseq_scl.data import stored

    source, numbers = rows.of(split)
    keys = [key for key in ("input0", "input1") if (rows.data / key).is_dir()]
    inputs = [stored.load(rows.data / key / source) for key in keys]
    return (tuple(stored[row].numpy().tobytes() for stored in inputs) for row in numbers.tolist())


def compact(rows: np.ndarray) -> list:
    """Row numbers as a list in which a run of three or more is `(first, last)`."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return [
        entry
        for run in runs
        for entry in ([(int(run[0]), int(run[-1]))] if len(run) > 2 else run.tolist())
    ]


def checksum(content: dict) -> str:
    """sha256 of the manifest's content."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("manifest", metavar="MANIFEST", type=Path)
    parser.add_argument("--data", metavar="DATA", type=Path, required=True, help="prepared data")


def run(args: argparse.Namespace) -> None:
    """Verify `args.manifest`."""
    said = read(args.manifest)
    require_files(said, args.data, args.manifest)
    made = make(Rows(args.data, said.choices), list(said.splits))
    for name, split in said.splits.items():
        if made.splits[name] != split:
            raise UserError(f"{args.manifest}: the rows of '{name}' are not those of its seeds")
    if said.in_train is None:
        made.in_train = None
    if not made.same_examples(said):
        raise UserError(f"{args.manifest}: its noise is not what DATA and the seeds give")
    told = ", ".join(f"{name} {len(split)}" for name, split in said.splits.items())
    print(f"{args.manifest}: verified: {len(said.files)} files, rows: {told}")
    for name, number in (said.in_train or {}).items():
        if number:
            print(f"{number} of {len(said.splits[name])} {name} rows stand in train too")


def require_files(said: Manifest, data: Path, where: Path) -> None:
    """Compare the files in `data` with those of a run.

    Args:
        where: the manifest's path, for the message.

    Raises:
        UserError: naming the first that is missing or another.
    """
    for name, digest in said.files.items():
        path = data / name
        if not path.is_file():
            raise UserError(f"{path} is missing, {where} names it")
        if sha256(path) != digest:
            raise UserError(f"{path} has changed since {where} was written")


def read(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        UserError: if it is not one, or was changed by hand.
    """
    text = read_bytes(path)
    said = parse_model(text, Manifest, path)
    content = from_json(text)
    del content["sha256"]
    if checksum(content) != said.sha256:
        raise UserError(f"{path}: its checksum does not match, it was changed or cut off")
    return said


def expand(rows: list) -> list[int]:
    """The row numbers that `compact` stands for."""
    ends = ((entry, entry) if isinstance(entry, int) else entry for entry in rows)
    return list(chain.from_iterable(range(first, last + 1) for first, last in ends))
