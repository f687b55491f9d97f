"""Check that a run used the rows that its manifest says.

A run writes SAVE_DIR/manifest.json: the prepared files with their checksums, the protocol and
seeds, the rows of every split (numbered from 0 in the prepared files) and what noise changed.
This command makes all of it again from DATA and compares.

    fairseq-scl verify checkpoints/run1/manifest.json --data data/sst2
"""

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fairseq_scl.data.rows import Choices, Rows
from fairseq_scl.errors import UserError
from fairseq_scl.files import sha256

NAME = "manifest.json"


def make(rows: Rows, splits: list[str]) -> dict:
    """The manifest of a run on `rows`, with a checksum of itself."""
    from fairseq_scl.data import stored

    data, choices = rows.data, rows.choices
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
    made = make(Rows(args.data, choices), list(said["splits"]))
    for name, split in said["splits"].items():
        if made["splits"][name] != split:
            raise UserError(f"{args.manifest}: the rows of '{name}' are not those of its seeds")
    if made != said:
        raise UserError(f"{args.manifest}: its noise is not what DATA and the seeds give")
    told = ", ".join(
        f"{name} {len(expand(split['rows']))}" for name, split in said["splits"].items()
    )
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


def expand(rows: list) -> list[int]:
    """The row numbers that `compact` stands for."""
    return [
        row
        for entry in rows
        for row in (range(entry[0], entry[1] + 1) if isinstance(entry, list) else [entry])
    ]
