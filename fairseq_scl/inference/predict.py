"""Label sentences with a fine-tuned model.

INPUT is a .tsv, .csv, .jsonl, .json or .parquet with named columns, a .txt (or a name without
ending) with a sentence a line (for pairs, a tab between the two), or '-', standard input. Each row
becomes a JSON object on a line of its own, in the order of the input: {"label": ...,
"probabilities": {...}}. Rows are read and written 1,024 at a time.

    echo "a joy to watch" | fairseq-scl predict checkpoints/sst2-20-draw1
    fairseq-scl predict checkpoints/sst2-20-draw1 reviews.csv --sentence text --output labels.jsonl
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
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from fairseq_scl.errors import UserError
from fairseq_scl.files import new_file
from fairseq_scl.inference.classifier import Classifier, Prediction, load
from fairseq_scl.inference.neighbours import Neighbour, Neighbours
from fairseq_scl.preparation.findings import check_labels, look_through
from fairseq_scl.preparation.glue import SUBMISSIONS, labels_of, read_glue_test
from fairseq_scl.preparation.sources import columns
from fairseq_scl.preparation.tables import Table, decoded, lines, read_file

WINDOW = 1024  # rows


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
        "--sentence", metavar="COLUMN", default="sentence", help="default: %(default)s"
    )
    parser.add_argument("--sentence2", metavar="COLUMN", help="for sentence pairs")
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
    if args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size} must be at least 1")
    if args.glue_submission is not None:
        submit(args)
        return
    if (args.neighbours is None) != (args.labelled is None):
        raise UserError("--neighbours and --labelled need each other")
    if args.neighbours is not None and args.neighbours < 1:
        raise UserError(f"--neighbours {args.neighbours} must be at least 1")
    rows = read_rows(args)
    classifier = load(args.model, args.cpu)
    neighbours = None if args.labelled is None else read_labelled(args, classifier)
    windows = predict(classifier, rows, args.input, args.batch_size)
    told = entries(windows, args.embedding, neighbours, args.neighbours)
    if args.output is None:
        write(told, sys.stdout)
        return
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with new_file(args.output) as temporary, open(temporary, "w", encoding="utf-8") as file:
        write(told, file)


def read_rows(args: argparse.Namespace) -> Iterable[tuple[str, ...]]:
    """The sentences of each row of `args.input`."""
    if args.input == "-":
        return (tuple(text.split("\t")) for _, text in decoded(sys.stdin.buffer, "standard input"))
    path = Path(args.input)
    if path.suffix.lower() in ("", ".txt"):
        return [tuple(text.split("\t")) for _, text in lines(path)]
    return [row.sentences for row in read_file(path, columns(args, label=""))]


def read_labelled(args: argparse.Namespace, classifier: Classifier) -> Neighbours:
    """The sentences of `args.labelled`, encoded.

    Raises:
        UserError: naming file and row, for a label or sentences that the model does not know, or
            if there are fewer rows than neighbours.
    """
    path = args.labelled
    rows = read_file(path, columns(args, args.label))
    found = look_through(Table(path, lambda: rows), regression=not classifier.classes)
    check_labels(path, found, classifier.classes or None, required=True)
    if args.neighbours > found.rows:
        raise UserError(f"--neighbours {args.neighbours}: {path} has only {found.rows} rows")
    sentences = [row.sentences for row in rows]
    labels = [str(row.label) for row in rows]
    windows = predict(classifier, sentences, path, args.batch_size)
    return Neighbours(
        list(itertools.chain.from_iterable(windows)),
        sentences,
        labels if classifier.classes else list(map(float, labels)),
    )


def predict(
    classifier: Classifier, rows: Iterable[tuple[str, ...]], where: object, batch_size: int
) -> Iterator[list[Prediction]]:
    """Predictions in the order of `rows`, a window at a time; `where` they are from, for errors."""
    total = len(rows) if isinstance(rows, list) else None
    source, done = iter(rows), 0
    with tqdm(total=total, desc="predict", unit="row") as progress:
        while window := list(itertools.islice(source, WINDOW)):
            for number, row in enumerate(window, done + 1):
                if len(row) != classifier.sentences:
                    wanted = "a sentence" if classifier.sentences == 1 else "two sentences"
                    raise UserError(
                        f"{where}, row {number}: {len(row)} fields, the model takes {wanted}"
                    )
            yield classifier.predict(window, batch_size)
            done += len(window)
            progress.update(len(window))


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
        file.write(json.dumps(one, ensure_ascii=False) + "\n")
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
        windows = predict(classifier, sentences, path, args.batch_size)
        labels = [prediction.label for window in windows for prediction in window]
        with new_file(args.output / f"{name}.tsv") as temporary:
            text = "".join(f"{i}\t{shown(label)}\n" for i, label in enumerate(labels))
            temporary.write_text("index\tprediction\n" + text, encoding="utf-8")


def shown(label: str | float) -> str:
    """A label as in GLUE's submissions: STS-B's similarity lies in 0 to 5."""
    return label if isinstance(label, str) else f"{min(max(label, 0.0), 5.0):.3f}"
