"""Label sentences with a fine-tuned model.

INPUT is a .tsv, .csv, .jsonl, .json or .parquet with named columns, a .txt (or a name without
ending) with a sentence a line (for pairs, a tab between the two), or '-', standard input. Each row
becomes a JSON object on a line of its own, in the order of the input: {"label": ...,
"probabilities": {...}}. With --output NAME.csv it is a spreadsheet: all columns of the input, then
label and probability (predicted_label and predicted_probability if the input has one of them).
Rows are read and written 1,024 at a time.

    echo "a joy to watch" | fairseq-scl predict checkpoints/sst2-20-draw1
    fairseq-scl predict checkpoints/sst2-20-draw1 reviews.csv --sentence text --output labels.jsonl
    fairseq-scl predict checkpoints/sst2-20-draw1 reviews.csv --output labelled.csv --threshold 0.8
    fairseq-scl predict checkpoints/sst2-20-draw1 --neighbours 3 --labelled train.tsv
    fairseq-scl predict checkpoints/mnli --glue-submission MNLI --glue-dir glue --output submission

--neighbours shows what a prediction resembles: "neighbours": [{"sentence": ..., "label": ...,
"similarity": ...}, ...] (of pairs "sentences": [..., ...]), the K labelled sentences of FILE whose
vectors are nearest by their cosine, the nearest first. FILE has named columns, the same
--sentence columns and a --label, one of the model's classes; all of it is encoded before INPUT.

The last form writes submission/MNLI-m.tsv and MNLI-mm.tsv as gluebenchmark.com takes them (AX: the
diagnostic set, with a model of MNLI).
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from os.path import samestat
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tqdm import tqdm

from fairseq_scl.errors import UserError
from fairseq_scl.files import new_file
from fairseq_scl.inference.classifier import UNSURE, Classifier, Prediction, load
from fairseq_scl.inference.labelled_csv import added_columns, cell, write_csv
from fairseq_scl.inference.neighbours import Neighbour, Neighbours
from fairseq_scl.preparation.find_columns import text_column
from fairseq_scl.preparation.findings import check_labels, look_through
from fairseq_scl.preparation.glue import SUBMISSIONS, labels_of, read_glue_test
from fairseq_scl.preparation.records import Records, read_records
from fairseq_scl.preparation.sources import columns, delimiter_named
from fairseq_scl.preparation.tables import (
    SPREADSHEETS,
    UTF8,
    Columns,
    Table,
    check_encoding,
    column_indices,
    decoded,
    file_kind,
    file_table,
    half_character,
    lines,
)

WINDOW = 1024  # rows
FIRST_ROWS = 100  # in which columns are looked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a run's folder or a checkpoint")
    parser.add_argument(
        "input", metavar="INPUT", nargs="?", default="-", help="default: %(default)s"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: standard output; a folder for GLUE"
    )
    parser.add_argument(
        "--sentence",
        metavar="COLUMN",
        help="default: 'sentence', or found as 'finetune' finds it",
    )
    parser.add_argument("--sentence2", metavar="COLUMN", help="for sentence pairs")
    parser.add_argument(
        "--delimiter", metavar="C", help="between the fields of a .csv, or 'tab' (default: ,)"
    )
    parser.add_argument(
        "--encoding", metavar="NAME", help="of text files, such as cp1252 (default: UTF-8)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help=f"label '{UNSURE}' where no class has this probability",
    )
    parser.add_argument(
        "--long",
        choices=("cut", "windows"),
        default="cut",
        help="what becomes of a text that is too long for the model: cut, or split into windows "
        "over which the outputs are averaged (default: %(default)s)",
    )
    parser.add_argument("--embedding", action="store_true", help="add the sentence vector")
    parser.add_argument(
        "--neighbours", type=int, metavar="K", help="add the K nearest sentences of --labelled"
    )
    parser.add_argument("--labelled", type=Path, metavar="FILE", help="for --neighbours")
    parser.add_argument(
        "--label", metavar="COLUMN", default="label", help="of --labelled; default: %(default)s"
    )
    parser.add_argument(
        "--glue-submission", metavar="TASK", help=f"one of {', '.join(SUBMISSIONS)}"
    )
    parser.add_argument("--glue-dir", type=Path, metavar="DIR", help="where DIR/TASK/test.tsv lies")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")


def run(args: argparse.Namespace) -> None:
    """Predict what the command line names."""
    check(args)
    if args.glue_submission is not None:
        submit(args)
        return
    source = read_input(args)
    classifier = load(args.model, args.cpu)
    classifier.check_threshold(args.threshold)
    neighbours = None if args.labelled is None else read_labelled(args, classifier)
    as_csv = args.output is not None and is_csv(args.output)
    added = added_columns(args.input, source.header, classifier.classes) if as_csv else []
    # a tee holds what one side is ahead, here a window
    rows, kept = itertools.tee(source.rows) if as_csv else (source.rows, iter(()))
    sentences = (row.sentences for row in rows)
    windows = predict(classifier, sentences, args.input, args.batch_size, args.threshold, args.long)
    if args.output is None:
        write(entries(windows, args.embedding, neighbours, args.neighbours), sys.stdout)
        return
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with (
        new_file(args.output) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        if as_csv:
            values = ((row.number, row.values) for row in kept)
            predictions = itertools.chain.from_iterable(windows)
            delimiter = delimiter_named(args.delimiter or ",")
            write_csv(file, args.input, source.header, added, values, predictions, delimiter)
        else:
            write(entries(windows, args.embedding, neighbours, args.neighbours), file)


def check(args: argparse.Namespace) -> None:
    """Refuse flags that cannot be, alone or together."""
    if not args.model.exists():
        raise UserError(f"{args.model}: no such file or folder")
    if args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size} must be at least 1")
    if args.threshold is not None and not 0 < args.threshold <= 1:
        raise UserError(f"--threshold {args.threshold} must be above 0 and at most 1")
    if args.glue_submission is not None:
        for flag in ("threshold", "delimiter", "encoding"):
            if getattr(args, flag) is not None:
                raise UserError(f"--{flag} means nothing for --glue-submission")
        return
    if (args.neighbours is None) != (args.labelled is None):
        raise UserError("--neighbours and --labelled need each other")
    if args.neighbours is not None and args.neighbours < 1:
        raise UserError(f"--neighbours {args.neighbours} must be at least 1")
    files = [Path(args.input), *([args.labelled] if args.labelled else [])]
    if args.delimiter is not None and ".csv" not in map(file_kind, files):
        raise UserError("--delimiter is for a .csv")
    if args.output is None:
        return
    if args.output.suffix.lower() in (".tsv", ".gz", ".json", ".parquet", *SPREADSHEETS):
        raise UserError(f"--output {args.output}: the name must end in .csv or .jsonl")
    read = [path.stat() for path in files if path.exists()]
    if args.input == "-":
        with suppress(OSError):  # a stream in memory has no number
            read.append(os.fstat(sys.stdin.fileno()))
    if args.output.is_file() and any(samestat(args.output.stat(), one) for one in read):
        raise UserError(f"--output {args.output} is what is read; choose another name")
    if is_csv(args.output) and (args.embedding or args.neighbours):
        raise UserError(f"--output {args.output}: --embedding and --neighbours need a .jsonl")


def is_csv(output: Path) -> bool:
    """Whether the output is to be a spreadsheet."""
    return output.suffix.lower() == ".csv"


class Example(NamedTuple):
    """A row of the input: its number, all of its values, and its sentences."""

    number: int
    values: Sequence[Any]
    sentences: tuple[str, ...]


class Source(NamedTuple):
    """The input: the names of its columns, and its rows in a stream."""

    header: list[str]
    rows: Iterator[Example]


def read_input(args: argparse.Namespace) -> Source:
    """What `args.input` names.

    Raises:
        UserError: naming file and row, for whatever cannot be read, also while it is read.
    """
    path, encoding = Path(args.input), args.encoding or UTF8
    if args.input != "-" and path.suffix.lower() not in ("", ".txt"):
        return read_table(path, args)
    for flag in ("sentence", "sentence2"):
        if getattr(args, flag) is not None and args.labelled is None:  # whose columns it may name
            told = "is for files with named columns, .csv, .tsv, .jsonl, .json and .parquet"
            raise UserError(f"--{flag} {told}; {args.input} has a sentence a line")
    check_encoding(encoding)
    if args.input == "-":
        texts = decoded(sys.stdin.buffer, "standard input", encoding)
    else:
        texts = lines(path, encoding)
    split = ((number, tuple(text.split("\t"))) for number, text in texts)
    rows = (Example(number, sentences, sentences) for number, sentences in split)
    first = next(rows, Example(0, (), ("",)))
    names = ["sentence"] if len(first.sentences) == 1 else ["sentence1", "sentence2"]
    return Source(names, itertools.chain([first] if first.number else [], rows))


def read_table(path: Path, args: argparse.Namespace) -> Source:
    """A file with named columns, at least one row of it."""
    header, records = open_records(path, args)
    first = list(itertools.islice(records, FIRST_ROWS))
    if not first:
        raise UserError(f"{path} has no rows")
    wanted = named_columns(path, header, first, args)
    indices, _ = column_indices(path, header, wanted)
    for name in wanted.sentences:
        if header.count(name) > 1:
            raise UserError(f"{path}: {header.count(name)} columns '{name}'")

    def sentences(number: int, values: Sequence[Any]) -> tuple[str, ...]:
        if len(values) <= max(indices):
            told = f"{len(values)} fields, at least {max(indices) + 1} are needed"
            raise UserError(f"{path}, row {number}: {told}")
        for i in indices:
            if not isinstance(values[i], str):
                raise UserError(f"{path}, row {number}: '{header[i]}' must be a string")
            if half_character(values[i]):
                raise UserError(f"{path}, row {number}: '{header[i]}' holds half a character")
        return tuple(values[i].strip() for i in indices)

    rows = itertools.chain(first, records)
    return Source(header, (Example(number, row, sentences(number, row)) for number, row in rows))


def open_records(path: Path, args: argparse.Namespace) -> Records:
    """The file, as `--delimiter` and `--encoding` have it."""
    delimiter = None if args.delimiter is None else delimiter_named(args.delimiter)
    return read_records(path, delimiter, args.encoding or UTF8)


def named_columns(
    path: Path,
    header: Sequence[str],
    first: Iterable[tuple[int, Sequence[Any]]],
    args: argparse.Namespace,
    label: str = "",
) -> Columns:
    """The columns that `--sentence` and `--sentence2` name, or where there is no doubt."""
    sentence = args.sentence or ("sentence" if args.sentence2 else None)
    if sentence is None:
        rows = [dict(zip(header, map(cell, values), strict=False)) for _, values in first]
        sentence = text_column(path, header, rows)
        if sentence != "sentence":
            print(f"{path}: the sentences are in column '{sentence}'", file=sys.stderr)
    return columns(argparse.Namespace(sentence=sentence, sentence2=args.sentence2), label)


def read_labelled(args: argparse.Namespace, classifier: Classifier) -> Neighbours:
    """The sentences of `args.labelled`, encoded.

    Raises:
        UserError: naming file and row, for a label or sentences that the model does not know, or
            if there are fewer rows than neighbours.
    """
    path = args.labelled
    header, records = open_records(path, args)
    first = itertools.islice(records, FIRST_ROWS)
    wanted = named_columns(path, header, first, args, args.label)
    delimiter = None if args.delimiter is None else delimiter_named(args.delimiter)
    rows = list(file_table(path, wanted, delimiter, args.encoding or UTF8))
    found = look_through(Table(path, lambda: rows), regression=not classifier.classes)
    check_labels(path, found, classifier.classes or None, required=True)
    if args.neighbours > found.rows:
        raise UserError(f"--neighbours {args.neighbours}: {path} has only {found.rows} rows")
    sentences = [row.sentences for row in rows]
    labels = [str(row.label) for row in rows]
    windows = predict(classifier, sentences, path, args.batch_size, long=args.long)
    return Neighbours(
        list(itertools.chain.from_iterable(windows)),
        sentences,
        labels if classifier.classes else list(map(float, labels)),
    )


def predict(
    classifier: Classifier,
    rows: Iterable[tuple[str, ...]],
    where: object,
    batch_size: int,
    threshold: float | None = None,
    long: str = "cut",
) -> Iterator[list[Prediction]]:
    """Predictions in the order of `rows`, a window at a time; `where` they are from, for errors."""
    total = len(rows) if isinstance(rows, list) else None
    source, done, empty = iter(rows), 0, 0
    with tqdm(total=total, desc="predict", unit="row") as progress:
        while window := list(itertools.islice(source, WINDOW)):
            for number, row in enumerate(window, done + 1):
                if len(row) != classifier.sentences:
                    wanted = "a sentence" if classifier.sentences == 1 else "two sentences"
                    raise UserError(
                        f"{where}, row {number}: {len(row)} fields, the model takes {wanted}"
                    )
            yield classifier.predict(window, batch_size, threshold, long)
            done += len(window)
            empty += sum(not all(map(str.strip, row)) for row in window)
            progress.update(len(window))
    if empty:
        told = f"{where}: {empty:,} of {done:,} rows have an empty sentence"
        print(f"{told}; their labels mean nothing", file=sys.stderr)


def entries(
    windows: Iterable[list[Prediction]],
    embedding: bool,
    neighbours: Neighbours | None,
    k: int | None,
) -> Iterator[dict]:
    """What is told of each prediction; of its `k` neighbours, if any are wanted."""
    for window in windows:
        told = [entry(prediction, embedding) for prediction in window]
        if neighbours and k:
            for one, nearest in zip(told, neighbours.of(window, k), strict=True):
                one["neighbours"] = list(map(neighbour_entry, nearest))
        yield from told


def entry(prediction: Prediction, embedding: bool) -> dict:
    """What is told of a prediction, without its neighbours."""
    told: dict = {"label": prediction.label}
    if prediction.probabilities:
        told["probabilities"] = prediction.probabilities
    if embedding:
        told["embedding"] = prediction.embedding.tolist()
    return told


def neighbour_entry(neighbour: Neighbour) -> dict:
    """What is told of a neighbour."""
    row, label, similarity = neighbour
    told = {"sentence": row[0]} if len(row) == 1 else {"sentences": row}
    return {**told, "label": label, "similarity": similarity}


def write(told: Iterable[dict], file: TextIO) -> None:
    """Write each as a line of JSON."""
    for one in told:
        file.write(json.dumps(one, ensure_ascii=file.encoding.lower() != "utf-8") + "\n")
        file.flush()


def submit(args: argparse.Namespace) -> None:
    """Write the files that GLUE's site takes: `index` and `prediction` of every test row."""
    if args.glue_submission not in SUBMISSIONS:
        raise UserError(
            f"--glue-submission {args.glue_submission} must be one of {', '.join(SUBMISSIONS)}"
        )
    if args.glue_dir is None or args.output is None:
        raise UserError("--glue-submission needs --glue-dir and --output")
    tests = read_glue_test(args.glue_submission, args.glue_dir)
    classifier = load(args.model, args.cpu)
    wanted = sorted(labels_of(args.glue_submission))
    if sorted(classifier.classes) != wanted:
        raise UserError(
            f"{args.model} says {' or '.join(classifier.classes) or 'a number'}, "
            f"{args.glue_submission} wants {' or '.join(wanted) or 'a number'}"
        )
    args.output.mkdir(parents=True, exist_ok=True)
    for name, (path, rows) in tests.items():
        sentences = [row.sentences for row in rows]
        windows = predict(classifier, sentences, path, args.batch_size, long=args.long)
        labels = [prediction.label for window in windows for prediction in window]
        with new_file(args.output / f"{name}.tsv") as temporary:
            text = "".join(f"{i}\t{shown(label)}\n" for i, label in enumerate(labels))
            temporary.write_text("index\tprediction\n" + text, encoding="utf-8")


def shown(label: str | float) -> str:
    """A label as in GLUE's submissions: STS-B's similarity lies in 0 to 5."""
    return label if isinstance(label, str) else f"{min(max(label, 0.0), 5.0):.3f}"
