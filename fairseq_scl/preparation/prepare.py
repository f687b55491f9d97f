"""Turn labelled sentences into fairseq's binarized data, with the encoder's own tokenizer.

    fairseq-scl prepare data/sst2 --encoder encoders/minilm --data glue:SST-2
    fairseq-scl prepare data/trec --encoder encoders/minilm --data hf:SetFit/TREC-QC
    fairseq-scl prepare data/mine --encoder encoders/minilm \\
        --train a.csv --valid b.csv --test c.csv --sentence text --label class

OUTPUT receives input0/ (and input1/ for sentence pairs), label/, text/ (the sentences themselves,
a JSON list a row), tokenizer/ and prepared.json, which lists the source files with their checksums.
Class ids follow the sorted labels of the training data. Files end in .tsv (unquoted), .csv, .jsonl,
.json (an array of objects) or .parquet, text also in .gz. Spaces around a field are dropped. What
comes from the hub is kept in its cache; HF_ENDPOINT names a mirror. GLUE is compared with the
published numbers. Of Amazon-2 and Yelp-2, which have no validation set, 5 % of train (stratified,
at most 2,000) becomes one.
"""

import argparse
import array
import importlib.resources
import json
import math
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fairseq_scl.data import beside_checkpoint
from fairseq_scl.data.beside_checkpoint import Prepared
from fairseq_scl.encoders import encoder_folder
from fairseq_scl.encoders.hugging_face import SPECIALS
from fairseq_scl.encoders.tokenizers import Tokenizer, load_tokenizer
from fairseq_scl.errors import UserError
from fairseq_scl.files import new_folder, sha256
from fairseq_scl.preparation.hub import SPLITS as HUB_SPLITS
from fairseq_scl.preparation.hub import glue_hub_tables, hub_tables
from fairseq_scl.preparation.reviews import REVIEWS, review_tables
from fairseq_scl.preparation.tables import (
    GLUE,
    UTF8,
    Columns,
    Row,
    Table,
    file_kind,
    file_table,
    glue_tables,
    unlike_published,
)

NUMBER = "a number"  # stands for all labels of a regression
UNKNOWN = 3  # <unk> in fairseq's dictionaries
MANY_CLASSES = 1000

#: by kind of data, the flags that not all kinds heed
HEEDED: dict[str, tuple[str, ...]] = {
    "files": ("delimiter", "encoding", "regression", "unlabelled"),
    "hf": (*(f"{split}_split" for split in HUB_SPLITS), "regression", "unlabelled"),
    "glue": ("glue_dir",),
    **dict.fromkeys(REVIEWS, ("data_dir",)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to make")
    parser.add_argument(
        "--encoder",
        type=Path,
        required=True,
        metavar="DIR",
        help="encoder folder with dict.txt and the tokenizer (see import-model)",
    )
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
    parser.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="shorten rows to N tokens, special tokens included, the longer sentence of a pair "
        "first (default: the encoder's positions)",
    )


def run(args: argparse.Namespace) -> None:
    """Prepare `args.output`."""
    if args.output.exists():
        raise UserError(f"{args.output} exists already")
    tables, regression = read_tables(args)
    found = {split: look_through(table, regression) for split, table in tables.items()}
    train = tables["train"].path
    classes = None if regression else class_names(train, found["train"].first_rows)
    for split, table in tables.items():
        check_labels(table.path, found[split], classes, required=not split.startswith("test"))
    task = glue_task(args.data)
    if task:
        compare_with_published(task, tables, found, classes)
    if classes is not None:
        check_number_of_classes(train, classes)

    from fairseq_scl.data.stored import load_dictionary

    dictionary_path = args.encoder / encoder_folder.DICTIONARY
    if not dictionary_path.is_file():
        raise UserError(f"{dictionary_path} is missing; --encoder takes an encoder folder")
    symbols = load_dictionary(dictionary_path).symbols
    tokenizer = load_tokenizer(args.encoder, symbols)
    positions = encoder_positions(args.encoder)
    max_length = positions if args.max_length is None else args.max_length
    if max_length < 8:
        raise UserError(f"--max-length {max_length} must be at least 8")
    if max_length > positions:
        raise UserError(f"--max-length {max_length} is beyond the encoder's {positions} positions")

    from fairseq_scl.preparation.binarize import write_sentences

    with new_folder(args.output) as folder:
        keys = [f"input{i}" for i in range(found["train"].sentences)]
        for key in keys:
            (folder / key).mkdir()
            shutil.copyfile(dictionary_path, folder / key / "dict.txt")
        for name in ("label", "text", beside_checkpoint.TOKENIZER):
            (folder / name).mkdir()
        encoder_folder.copy_tokenizer(args.encoder, folder / beside_checkpoint.TOKENIZER)
        told = {}
        for split, table in tables.items():
            rows = storing(table, found[split].labelled, classes, folder, split)
            stems = [folder / key / split for key in keys]
            counting = Counting(tokenizer)
            shortened = write_sentences(
                rows, found[split].rows, counting, len(symbols), max_length, stems, split
            )
            told[split] = describe(table, found[split], shortened, counting)
            if split != "train":
                told[split]["in_train"] = in_common(found[split], found["train"])
            warn(split, table.path, told[split], max_length)
            if task:
                told[split]["published_rows"] = GLUE[task].published_rows[split]
        if classes is not None:
            counts = found["train"].labels
            (folder / "label" / "dict.txt").write_text(
                "".join(f"{name} {counts[name]}\n" for name in classes), encoding="utf-8"
            )
        prepared = Prepared.model_validate(
            {"max_length": max_length, "classes": classes, "splits": told}
        )
        (folder / beside_checkpoint.PREPARED).write_text(
            json.dumps(prepared.model_dump(exclude_unset=True), indent=1) + "\n", encoding="utf-8"
        )
    summary = ", ".join(f"{split} {entry['rows']}" for split, entry in told.items())
    print(f"{args.output}: {summary} rows, classes: {first_ten(classes or ['(regression)'])}")


def glue_task(data: str | None) -> str | None:
    """TASK of `--data glue:TASK`."""
    return data.removeprefix("glue:") if data and data.startswith("glue:") else None


def read_tables(args: argparse.Namespace) -> tuple[dict[str, Table], bool]:
    """What the command line names, by split; also whether labels are numbers to predict."""
    own = {split: getattr(args, split) for split in ("train", "valid", "test")}
    if bool(args.data) == any(own.values()):
        raise UserError("give either --data, or --train and --valid")
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
    if not (args.train and args.valid):
        raise UserError("both --train and --valid are needed")
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
    wanted = columns(args, args.label)
    label = "" if args.unlabelled else wanted.label
    test = Columns(wanted.sentences, label, must_have_label=bool(label))
    return {"train": wanted, "valid": wanted, "test": test}


def columns(args: argparse.Namespace, label: str) -> Columns:
    """The columns of a user's file: those that --sentence and --sentence2 name, and `label`."""
    names = (args.sentence, args.sentence2) if args.sentence2 else (args.sentence,)
    if len({*names, label}) <= len(names):
        raise UserError("--sentence, --sentence2 and --label must name different columns")
    return Columns(names, label)


class Found(NamedTuple):
    """What is known of a table after a first pass over it.

    Attributes:
        sentences: sentences of a row.
        empty: rows with an empty sentence.
        labels: how often each label occurs, in the order of their first rows; None is no label.
        first_rows: the row of the file in which each label occurs first.
        hashes: of each row's sentences.
    """

    rows: int
    sentences: int
    empty: int
    labels: dict[str | None, int]
    first_rows: dict[str | None, int]
    hashes: array.array

    @property
    def labelled(self) -> bool:
        """Whether any row has a label."""
        return any(self.labels)


def look_through(table: Table, regression: bool) -> Found:
    """Read a table once.

    Raises:
        UserError: naming file and row, for whatever cannot be read, or a label that should be a
            number.
    """
    rows = sentences = empty = 0
    labels: Counter[str | None] = Counter()
    first_rows: dict[str | None, int] = {}
    hashes = array.array("q")
    for row in tqdm(table, desc=f"read {Path(table.path).name}", unit="rows", leave=False):
        rows += 1
        sentences = len(row.sentences)
        empty += not all(row.sentences)
        hashes.append(hash(row.sentences))
        label = row.label
        if regression and label:
            check_number(label, f"{table.path}, row {row.line}")
            label = NUMBER  # as there may be as many as rows
        labels[label] += 1
        first_rows.setdefault(label, row.line)
    return Found(rows, sentences, empty, labels, first_rows, hashes)


def in_common(some: Found, others: Found) -> int:
    """How many of some rows have the sentences of one of the others."""
    return int(np.isin(np.array(some.hashes), np.array(others.hashes)).sum())


def check_number(label: str, where: str) -> None:
    """Refuse what is no finite number."""
    if finite(label) is None:
        raise UserError(f"{where}: label '{label}' is not a number")


def finite(text: str) -> float | None:
    """The number that a text is, unless it is none or not finite."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def class_names(path: Path | str, first_rows: Mapping[str | None, int]) -> list[str]:
    """The labels of the training data, sorted; by value if all are integers."""
    names = []
    numbers: dict[float, str] = {}
    for name, line in first_rows.items():
        if not name:
            raise UserError(f"{path}, row {line}: no label")
        if re.search(r"[\r\n\0]", name):
            raise UserError(f"{path}, row {line}: a label must be one line of text")
        if name in SPECIALS or name.startswith("madeupword"):
            raise UserError(f"{path}, row {line}: label '{name}' is fairseq's own")
        names.append(name)
        if (number := finite(name)) is not None and numbers.setdefault(number, name) != name:
            raise UserError(
                f"{path}, row {line}: labels '{numbers[number]}' and '{name}' are the same number; "
                "are they one class? write them alike"
            )
    numeric = all(re.fullmatch(r"-?\d{1,9}", name) for name in names)
    return sorted(names, key=lambda name: (int(name) if numeric else 0, name))


def check_labels(path: Path | str, found: Found, classes: list[str] | None, required: bool) -> None:
    """Refuse labels that cannot be used, naming file and row."""
    if not required and not found.labelled:
        return
    for label, line in found.first_rows.items():
        where = f"{path}, row {line}"
        if not label:
            raise UserError(f"{where}: no label")
        if classes is not None and label not in classes:
            raise UserError(
                f"{where}: label '{label}' does not occur in the training data "
                f"({first_ten(classes)})"
            )


def compare_with_published(
    task: str, tables: dict[str, Table], found: dict[str, Found], classes: list[str] | None
) -> None:
    """Refuse another number of labels than the GLUE task has; warn of other numbers of rows."""
    expected = len(GLUE[task].labels)
    if classes is not None and len(classes) != expected:
        raise UserError(
            f"{tables['train'].path}: {len(classes)} labels ({first_ten(classes)}), "
            f"the published {task} has {expected}"
        )
    for split, table in tables.items():
        if told := unlike_published(task, split, found[split].rows):
            print(f"{table.path}: warning: {told}", file=sys.stderr)


def check_number_of_classes(path: Path | str, classes: list[str]) -> None:
    """Refuse a single class; warn of very many."""
    if len(classes) == 1:
        raise UserError(f"{path}: only one class ({classes[0]}), there is nothing to learn")
    if len(classes) > MANY_CLASSES:
        told = f"{len(classes):,} classes ({first_ten(classes)})"
        print(f"{path}: warning: {told}: is --label the right column?", file=sys.stderr)


def first_ten(names: list[str]) -> str:
    """As much of a list as an error message bears."""
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def encoder_positions(folder: Path) -> int:
    """The longest input of an encoder, from its `train_flags.txt`; 512 where it has none."""
    path = folder / encoder_folder.TRAIN_FLAGS
    try:
        flags = path.read_text(encoding="utf-8").split() if path.is_file() else []
        return int(flags[flags.index("--max-positions") + 1]) if "--max-positions" in flags else 512
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None


def storing(
    table: Table, labelled: bool, classes: list[str] | None, folder: Path, split: str
) -> Iterator[Row]:
    """The rows of a table, whose sentences and labels are stored in `folder` on the way.

    Class ids become fairseq's label data, numbers go into `SPLIT.label`.
    """
    from fairseq_scl.preparation.binarize import writing_labels, writing_lines

    to_json = json.JSONEncoder(ensure_ascii=False).encode
    text = folder / "text" / f"{split}.jsonl"
    rows = writing_lines(table, text, lambda row: to_json(row.sentences))
    if not labelled:
        return rows
    if classes is None:
        return writing_lines(rows, folder / "label" / f"{split}.label", lambda row: row.label)
    return writing_labels(rows, table.path, classes, folder / "label" / split)


class Counting:
    """A tokenizer that counts the tokens it gives, and those of them that are unknown."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.tokens = self.unknown = 0

    def __call__(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each sentence."""
        encoded = self.tokenizer(sentences)
        tokens = np.concatenate(encoded)
        self.tokens += len(tokens)
        self.unknown += int((tokens == UNKNOWN).sum())
        return encoded


def describe(table: Table, found: Found, shortened: int, counted: Counting) -> dict:
    """The entry of a split in `prepared.json`."""
    path = table.path
    of_hub = {"file": path, "revision": table.revision}
    source = {"file": path.name, "sha256": sha256(path)} if isinstance(path, Path) else of_hub
    return {
        **source,
        "rows": found.rows,
        "labelled": found.labelled,
        "empty": found.empty,
        "shortened": shortened,
        "tokens": counted.tokens,
        "unknown": counted.unknown,
    }


def warn(split: str, path: Path | str, told: dict, max_length: int) -> None:
    """Say what may be amiss with a split."""
    rows = f"of {told['rows']:,} {split} rows"
    share = told["unknown"] / max(told["tokens"], 1)
    notes = {
        f"warning: {told['empty']} rows have an empty sentence (kept)": told["empty"],
        f"{told['shortened']:,} {rows} were shortened to {max_length} tokens": told["shortened"],
        f"{share:.1%} of the tokens are unknown to the encoder": told["unknown"],
        f"{told.get('in_train', 0):,} {rows} stand in train too": told.get("in_train"),
    }
    for note, matters in notes.items():
        if matters:
            print(f"{path}: {note}", file=sys.stderr)
