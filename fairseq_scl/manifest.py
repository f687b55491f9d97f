"""Check that a run used the rows that its manifest says.

A run writes SAVE_DIR/manifest.json: the prepared files with their checksums, the protocol and
seeds, the rows of every split (numbered from 0 in the prepared files) and what noise changed.
This command makes all of it again from DATA and compares.

    fairseq-scl verify checkpoints/run1/manifest.json --data data/sst2
"""

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fairseq_scl import noise, protocols, sampling
from fairseq_scl.errors import UserError

NAME = "manifest.json"


@dataclass(frozen=True)
class Choices:
    """Everything that decides which examples a run sees."""

    protocol: str = "given"
    num_shots: int | None = None
    shots_seed: int = 1
    shots_sampling: str = "stratified"
    noise: str = "none"
    label_noise: float = 0.0
    token_noise: float = 0.0
    noise_temperature: float | None = None
    noise_ratio: int = 0
    noise_replace: bool = False
    regression: bool = False


class Rows:
    """The rows of each split, and the training labels, that `choices` make of `data`.

    Raises:
        UserError: if the data is damaged, or the choices cannot be had from it.
    """

    def __init__(self, data: Path, choices: Choices):
        from fairseq_scl.data import stored

        self.data, self.choices = data, choices
        self.labels = cache(lambda split: stored.read_labels(data, split, choices.regression))

    def of(self, split: str) -> protocols.Split:
        """Source file and rows of a split; of `train` only those drawn."""
        choices = self.choices
        found = protocols.split(choices.protocol, split, self.labels)
        if split != "train" or choices.num_shots is None:
            return found
        try:
            drawn = sampling.draw(
                self.labels(found.source)[found.rows],
                choices.num_shots,
                choices.shots_seed,
                choices.shots_sampling,
            )
        except ValueError as error:
            raise UserError(f"--num-shots {choices.num_shots} of {self.data}: {error}") from None
        return protocols.Split(found.source, found.rows[drawn])

    def training_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels of the training rows, noisy if so chosen, and the positions that were flipped."""
        train = self.of("train")
        labels = self.labels(train.source)[train.rows]
        if self.choices.noise != "label":
            return labels, np.zeros(0, dtype=np.int64)
        classes = int(self.labels(train.source).max()) + 1
        try:
            return noise.flip_labels(
                labels, classes, self.choices.label_noise, self.choices.shots_seed
            )
        except ValueError as error:
            raise UserError(f"--label-noise {self.choices.label_noise}: {error}") from None

    def translations(self, examples=None, init_token=None, separator_token=None):
        """What is stored of back-translations, and which of it belongs to the training rows.

        Raises:
            UserError: if it does not suffice.
        """
        from fairseq_scl.data.noise import BackTranslations

        stored = BackTranslations(
            self.data, self.choices.noise_temperature, examples, init_token, separator_token
        )
        return stored, stored.chosen(self.of("train").rows, self.choices.noise_ratio)


def make(data: Path, choices: Choices, splits: list[str]) -> dict:
    """The manifest of a run on `data`, with a checksum of itself."""
    from fairseq_scl.data import stored

    rows = Rows(data, choices)
    found = {split: rows.of(split) for split in splits}
    labels, flipped = rows.training_labels()
    sources = sorted({split.source for split in found.values()})
    files = [data / "input0" / "dict.txt", data / "label" / "dict.txt"]
    for source in sources:
        files += stored.split_files(data, source, choices.regression)
    content = {
        "files": {str(path.relative_to(data)): sha256(path) for path in files if path.is_file()},
        "choices": asdict(choices),
        "splits": {
            name: {"source": split.source, "rows": compact(split.rows)}
            for name, split in found.items()
        },
        "flipped": {int(found["train"].rows[at]): int(labels[at]) for at in flipped.tolist()},
    }
    if choices.noise == "back-translation":
        translations, items = rows.translations()
        digest = hashlib.sha256()
        for item in items:
            digest.update(translations.tokens(item).numpy().tobytes())
        content["translations"] = digest.hexdigest()  # of the token ids, in the order of rows
    # through JSON, for keys as a file has them
    content = json.loads(json.dumps(content))
    return {**content, "sha256": checksum(content)}


def compact(rows: np.ndarray) -> list:
    """Row numbers as a list in which a run of three or more is `[first, last]`."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return [
        entry
        for run in runs
        for entry in ([[int(run[0]), int(run[-1])]] if len(run) > 2 else run.tolist())
    ]


def checksum(content: dict) -> str:
    """sha256 of the manifest's content."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def sha256(path: Path) -> str:
    """sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("manifest", metavar="MANIFEST", type=Path)
    parser.add_argument("--data", metavar="DATA", type=Path, required=True, help="prepared data")


def run(args: argparse.Namespace) -> None:
    """Verify `args.manifest`."""
    said = read(args.manifest)
    choices = Choices(**said["choices"])
    for name, digest in said["files"].items():
        path = args.data / name
        if not path.is_file():
            raise UserError(f"{path} is missing, {args.manifest} names it")
        if sha256(path) != digest:
            raise UserError(f"{path} has changed since {args.manifest} was written")
    made = make(args.data, choices, list(said["splits"]))
    for name, split in said["splits"].items():
        if made["splits"][name] != split:
            raise UserError(f"{args.manifest}: the rows of '{name}' are not those of its seeds")
    if made != said:
        raise UserError(f"{args.manifest}: its noise is not what DATA and the seeds give")
    told = ", ".join(f"{name} {count(split['rows'])}" for name, split in said["splits"].items())
    print(f"{args.manifest}: verified: {len(said['files'])} files, rows: {told}")


def read(path: Path) -> dict:
    """Read a manifest.

    Raises:
        UserError: if it is not one, or was changed by hand.
    """
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        content = {key: value for key, value in said.items() if key != "sha256"}
        whole = said["sha256"] == checksum(content)
        Choices(**said["choices"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no manifest ({error})") from None
    if not whole:
        raise UserError(f"{path}: its checksum does not match, it was changed or cut off")
    return said


def count(rows: list) -> int:
    """How many rows `compact` stands for."""
    return sum(entry[1] - entry[0] + 1 if isinstance(entry, list) else 1 for entry in rows)
