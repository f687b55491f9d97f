"""Turn labelled sentences into fairseq's binarized data, with the encoder's own tokenizer.

    fairseq-scl prepare data/sst2 --encoder encoders/minilm --data glue:SST-2 --glue-dir ~/glue
    fairseq-scl prepare data/mine --encoder encoders/minilm \\
        --train a.csv --valid b.csv --test c.csv --sentence text --label class

OUTPUT receives input0/ (and input1/ for sentence pairs), label/, text/ (the sentences themselves,
a JSON list a row), tokenizer/ and prepared.json, which lists the source files with their checksums.
Class ids follow the sorted labels of the training data. Files end in .tsv (unquoted), .csv or
.jsonl. Spaces around a field are dropped. GLUE's files are compared with the published numbers.
Of Amazon-2 and Yelp-2, which have no validation set, 5 % of train (stratified, at most 2,000)
becomes one.
"""

import argparse
import importlib.resources
import json
import math
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fairseq_scl import encoder_folder, inference
from fairseq_scl.errors import UserError
from fairseq_scl.files import new_folder, sha256
from fairseq_scl.hugging_face import SPECIALS
from fairseq_scl.reviews import REVIEWS, read_reviews
from fairseq_scl.shorten import shortened_lengths
from fairseq_scl.tables import (
    GLUE,
    Columns,
    Row,
    read_file,
    read_glue,
    unlike_published,
)
from fairseq_scl.tokenizers import Tokenizer, load_tokenizer

CHUNK = 4096  # rows tokenized at a time
Splits = dict[str, tuple[Path, list[Row]]]


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
        f"or glue:TASK of {', '.join(GLUE)}",
    )
    parser.add_argument(
        "--glue-dir", type=Path, metavar="DIR", help="where DIR/TASK/train.tsv lies"
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
    splits, regression = read_splits(args)
    classes = None if regression else class_names(*splits["train"])
    for split, (path, rows) in splits.items():
        check_labels(path, rows, classes, required=not split.startswith("test"))
    task = glue_task(args.data)
    if task:
        compare_with_published(task, splits, classes)

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
    with new_folder(args.output) as folder:
        keys = [f"input{i}" for i in range(len(splits["train"][1][0].sentences))]
        for key in keys:
            (folder / key).mkdir()
            shutil.copyfile(dictionary_path, folder / key / "dict.txt")
        for name in ("label", "text", inference.TOKENIZER):
            (folder / name).mkdir()
        encoder_folder.copy_tokenizer(args.encoder, folder / inference.TOKENIZER)
        told = {}
        for split, (path, rows) in splits.items():
            stems = [folder / key / split for key in keys]
            shortened = write_sentences(rows, tokenizer, len(symbols), max_length, stems, split)
            write_labels(rows, classes, folder / "label", split)
            write_text(rows, folder / "text" / f"{split}.jsonl")
            told[split] = describe(path, rows, shortened)
            if task:
                told[split]["published_rows"] = GLUE[task].published_rows[split]
        if classes is not None:
            counts = Counter(row.label for row in splits["train"][1])
            (folder / "label" / "dict.txt").write_text(
                "".join(f"{name} {counts[name]}\n" for name in classes), encoding="utf-8"
            )
        (folder / "prepared.json").write_text(
            json.dumps({"max_length": max_length, "classes": classes, "splits": told}, indent=1)
            + "\n",
            encoding="utf-8",
        )
    summary = ", ".join(f"{split} {entry['rows']}" for split, entry in told.items())
    print(f"{args.output}: {summary} rows, classes: {', '.join(classes or ['(regression)'])}")


def glue_task(data: str | None) -> str | None:
    """TASK of `--data glue:TASK`."""
    return data.removeprefix("glue:") if data and data.startswith("glue:") else None


def read_splits(args: argparse.Namespace) -> tuple[Splits, bool]:
    """Read what the command line names; also tell whether labels are numbers to predict."""
    own = {split: getattr(args, split) for split in ("train", "valid", "test")}
    if bool(args.data) == any(own.values()):
        raise UserError("give either --data, or --train and --valid")
    if args.data == "sample":
        folder = importlib.resources.files("fairseq_scl") / "sample_data"
        own = {split: Path(str(folder / f"{split}.tsv")) for split in own}
        wanted = Columns(("sentence",), "label")
    elif (task := glue_task(args.data)) is not None:
        if args.glue_dir is None:
            raise UserError(f"--data {args.data} needs --glue-dir")
        return read_glue(task, args.glue_dir), task in GLUE and GLUE[task].regression
    elif args.data in REVIEWS:
        if args.data_dir is None:
            raise UserError(f"--data {args.data} needs --data-dir")
        return read_reviews(args.data, args.data_dir), False
    elif args.data:
        known = ", ".join(REVIEWS)
        raise UserError(f"--data {args.data}: it must be 'sample', {known} or glue:TASK")
    else:
        if not (args.train and args.valid):
            raise UserError("both --train and --valid are needed")
        wanted = columns(args, args.label)
    files = {split: path for split, path in own.items() if path}
    return {
        split: (path, read_file(path, wanted)) for split, path in files.items()
    }, args.regression


def columns(args: argparse.Namespace, label: str) -> Columns:
    """The columns of a user's file: those that --sentence and --sentence2 name, and `label`."""
    names = (args.sentence, args.sentence2) if args.sentence2 else (args.sentence,)
    return Columns(names, label)


def class_names(path: Path, rows: list[Row]) -> list[str]:
    """The labels of the training data, sorted; by value if all are integers."""
    for row in rows:
        if not row.label:
            raise UserError(f"{path}, row {row.line}: no label")
        if re.search(r"[\r\n\0]", row.label):
            raise UserError(f"{path}, row {row.line}: a label must be one line of text")
        if row.label in SPECIALS or row.label.startswith("madeupword"):
            raise UserError(f"{path}, row {row.line}: label '{row.label}' is fairseq's own")
    names = {row.label for row in rows if row.label}
    numeric = all(re.fullmatch(r"-?\d{1,9}", name) for name in names)
    return sorted(names, key=lambda name: (int(name) if numeric else 0, name))


def check_labels(path: Path, rows: list[Row], classes: list[str] | None, required: bool) -> None:
    """Refuse a label that cannot be used, naming file and row."""
    if not required and all(row.label is None for row in rows):
        return
    known = set(classes or ())
    for row in rows:
        where = f"{path}, row {row.line}"
        if row.label is None:
            raise UserError(f"{where}: no label")
        if classes is None:
            try:
                usable = math.isfinite(float(row.label))
            except ValueError:
                usable = False
            if not usable:
                raise UserError(f"{where}: label '{row.label}' is not a number")
        elif row.label not in known:
            raise UserError(
                f"{where}: label '{row.label}' does not occur in the training data "
                f"({first_ten(classes)})"
            )


def compare_with_published(task: str, splits: Splits, classes: list[str] | None) -> None:
    """Refuse another number of labels than the GLUE task has; warn of other numbers of rows."""
    expected = len(GLUE[task].labels)
    if classes is not None and len(classes) != expected:
        raise UserError(
            f"{splits['train'][0]}: {len(classes)} labels ({first_ten(classes)}), "
            f"the published {task} has {expected}"
        )
    for split, (path, rows) in splits.items():
        if told := unlike_published(task, split, len(rows)):
            print(f"{path}: warning: {told}", file=sys.stderr)


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


def write_sentences(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    vocabulary_size: int,
    max_length: int,
    stems: list[Path],
    split: str,
) -> int:
    """Write `STEM.bin` and `STEM.idx` for each sentence of a row, `</s>` at the end of each.

    Returns:
        How many rows were shortened.
    """
    from fairseq.data.indexed_dataset import make_builder

    # <s> A </s>, or <s> A </s> </s> B </s>
    room = max_length - 2 * len(stems)
    eos = torch.tensor([2], dtype=torch.int32)
    builders = [make_builder(f"{stem}.bin", "mmap", vocabulary_size) for stem in stems]
    shortened = 0
    with tqdm(total=len(rows), desc=f"tokenize {split}", unit="rows", file=sys.stderr) as progress:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            encoded = [tokenizer([row.sentences[i] for row in chunk]) for i in range(len(stems))]
            for sentences in zip(*encoded, strict=True):
                lengths = tuple(len(sentence) for sentence in sentences)
                kept = shortened_lengths(lengths, room)
                shortened += kept != lengths
                for builder, sentence, length in zip(builders, sentences, kept, strict=True):
                    builder.add_item(torch.cat([torch.from_numpy(sentence[:length]), eos]))
            progress.update(len(chunk))
    for builder, stem in zip(builders, stems, strict=True):
        builder.finalize(f"{stem}.idx")
    return shortened


def write_labels(rows: Sequence[Row], classes: list[str] | None, folder: Path, split: str) -> None:
    """Write class ids as fairseq's label data, or numbers as `SPLIT.label`; none if unlabelled."""
    from fairseq.data.indexed_dataset import make_builder

    labels = [row.label for row in rows if row.label is not None]
    if not labels:
        return
    if classes is None:
        text = "".join(f"{label}\n" for label in labels)
        (folder / f"{split}.label").write_text(text, encoding="utf-8")
        return
    first = 4  # after <s>, <pad>, </s>, <unk> of the label dictionary
    index = {name: first + i for i, name in enumerate(classes)}
    builder = make_builder(str(folder / f"{split}.bin"), "mmap", first + len(classes))
    for label in labels:
        builder.add_item(torch.from_numpy(np.array([index[label], 2], dtype=np.int32)))
    builder.finalize(str(folder / f"{split}.idx"))


def write_text(rows: Sequence[Row], path: Path) -> None:
    """Write the sentences of each row as a JSON list on a line of its own."""
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row.sentences, ensure_ascii=False) + "\n")


def describe(path: Path, rows: list[Row], shortened: int) -> dict:
    """The entry of a split in `prepared.json`; warns of empty sentences."""
    empty = sum(not all(row.sentences) for row in rows)
    if empty:
        print(f"{path}: warning: {empty} rows have an empty sentence (kept)", file=sys.stderr)
    return {
        "file": path.name,
        "sha256": sha256(path),
        "rows": len(rows),
        "labelled": rows[0].label is not None,
        "empty": empty,
        "shortened": shortened,
    }
