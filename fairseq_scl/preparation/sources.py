"""The tables that the command line of `prepare` names."""

import argparse
import importlib.resources
from dataclasses import replace
from pathlib import Path

from fairseq_scl.errors import UserError
from fairseq_scl.preparation.glue import GLUE, glue_tables
from fairseq_scl.preparation.hub import SPLITS as HUB_SPLITS
from fairseq_scl.preparation.hub import glue_hub_tables, hub_tables
from fairseq_scl.preparation.reviews import REVIEWS, review_tables
from fairseq_scl.preparation.tables import UTF8, Columns, Table, file_kind, file_table

#: by kind of data, the flags that not all kinds heed
HEEDED: dict[str, tuple[str, ...]] = {
    "files": ("delimiter", "encoding", "regression", "unlabelled"),
    "hf": (*(f"{split}_split" for split in HUB_SPLITS), "regression", "unlabelled"),
    "glue": ("glue_dir",),
    **dict.fromkeys(REVIEWS, ("data_dir",)),
}


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that name data."""
    parser.add_argument(
        "--data",
        metavar="NAME",
        help="'sample' (sentences shipped with the package), amazon-2, yelp-2, "
        f"glue:TASK of {', '.join(GLUE)}, or hf:NAME[:CONFIG] of the Hugging Face hub (NAME may be "
        "a folder that holds such a data set)",
    )
    parser.add_argument(
        "--glue-dir",
        type=Path,
        metavar="DIR",
        help="where DIR/TASK/train.tsv lies, GLUE's own files (default: from the hub)",
    )
    for split in HUB_SPLITS:
        parser.add_argument(
            f"--{split}-split",
            metavar="NAME",
            help=f"the hub's name for the {split} data, or a part of one such as 'train[90%%:]' "
            f"(default: {' or '.join(HUB_SPLITS[split])})",
        )
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="where amazon-2 or yelp-2 lies as train and test with .ft.txt, .ft.txt.bz2 or .csv",
    )
    for split in ("train", "valid", "test"):
        parser.add_argument(f"--{split}", type=Path, metavar="FILE", help=f"your own {split} data")
    parser.add_argument(
        "--sentence", metavar="COLUMN", default="sentence", help="default: %(default)s"
    )
    parser.add_argument("--sentence2", metavar="COLUMN", help="for sentence pairs")
    parser.add_argument("--label", metavar="COLUMN", default="label", help="default: %(default)s")
    parser.add_argument(
        "--unlabelled", action="store_true", help="the test data has no column of labels"
    )
    parser.add_argument(
        "--delimiter", metavar="C", help="between the fields of a .csv, or 'tab' (default: ,)"
    )
    parser.add_argument(
        "--encoding", metavar="NAME", help="of text files, such as cp1252 (default: UTF-8)"
    )
    parser.add_argument("--regression", action="store_true", help="labels are numbers to predict")


def glue_task(data: str | None) -> str | None:
    """TASK of `--data glue:TASK`."""
    return data.removeprefix("glue:") if data and data.startswith("glue:") else None


def read_tables(args: argparse.Namespace) -> tuple[dict[str, Table], bool]:
    """What the command line names, by split; also whether labels are numbers to predict."""
    own = {split: getattr(args, split) for split in ("train", "valid", "test")}
    if bool(args.data) == any(own.values()):
        raise UserError("give either --data, or --train and what else there is")
    refuse_unheeded(args)
    if args.data == "sample":
        folder = importlib.resources.files("fairseq_scl") / "sample_data"
        wanted = Columns(("sentence",), "label")
        files = {split: Path(str(folder / f"{split}.tsv")) for split in own}
        return {split: file_table(path, wanted) for split, path in files.items()}, False
    if (task := glue_task(args.data)) is not None:
        return read_glue(task, args.glue_dir), task in GLUE and GLUE[task].regression
    if args.data in REVIEWS:
        if args.data_dir is None:
            raise UserError(f"--data {args.data} needs --data-dir")
        return review_tables(args.data, args.data_dir), False
    if args.data and args.data.startswith("hf:"):
        chosen = {split: getattr(args, f"{split}_split") for split in HUB_SPLITS}
        return hub_tables(args.data[3:], split_columns(args), chosen), args.regression
    if args.data:
        known = ", ".join(REVIEWS)
        raise UserError(f"--data {args.data}: it must be 'sample', {known}, glue:TASK or hf:NAME")
    if not args.train:
        raise UserError("--train is needed")
    return own_tables(args, {split: path for split, path in own.items() if path}), args.regression


def refuse_unheeded(args: argparse.Namespace) -> None:
    """Refuse flags that this kind of data would ignore."""
    kind = args.data.partition(":")[0] if args.data else "files"
    for flag in sorted({flag for flags in HEEDED.values() for flag in flags}):
        if getattr(args, flag) not in (None, False) and flag not in HEEDED.get(kind, ()):
            of = f"--data {args.data}" if args.data else "your own files"
            raise UserError(f"--{flag.replace('_', '-')} means nothing for {of}")


def read_glue(task: str, folder: Path | None) -> dict[str, Table]:
    """A GLUE task of GLUE's own files, or of the hub."""
    if folder is None and task in GLUE:
        return glue_hub_tables(task)
    return glue_tables(task, folder or Path())


def own_tables(args: argparse.Namespace, files: dict[str, Path]) -> dict[str, Table]:
    """A user's own files."""
    if args.delimiter is not None and ".csv" not in map(file_kind, files.values()):
        raise UserError("--delimiter is for a .csv")
    delimiter = None if args.delimiter is None else delimiter_named(args.delimiter)
    wanted = split_columns(args)
    return {
        split: file_table(path, wanted[split], delimiter, args.encoding or UTF8)
        for split, path in files.items()
    }


def delimiter_named(name: str) -> str:
    """The character that `--delimiter` names."""
    character = "\t" if name in ("tab", "\\t") else name
    if len(character) != 1 or character in ' "\r\n':
        raise UserError(f"--delimiter {name!r}: it must be one character, or tab")
    return character


def split_columns(args: argparse.Namespace) -> dict[str, Columns]:
    """The columns of each split; a test set without labels must be meant."""
    wanted = replace(columns(args, args.label), must_have_label=True)
    test = Columns(wanted.sentences, "") if args.unlabelled else wanted
    return {"train": wanted, "valid": wanted, "test": test}


def columns(args: argparse.Namespace, label: str) -> Columns:
    """The columns of a user's file: those that --sentence and --sentence2 name, and `label`."""
    names = (args.sentence, args.sentence2) if args.sentence2 else (args.sentence,)
    if len({*names, label}) <= len(names):
        raise UserError("--sentence, --sentence2 and --label must name different columns")
    return Columns(names, label)
