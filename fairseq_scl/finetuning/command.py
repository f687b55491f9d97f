"""From a table of labelled sentences to a model, an honest estimate of it and its predictions.

    fairseq-scl finetune comments.csv --output model
    fairseq-scl predict model new.csv --output labelled.csv

TRAIN is anything that 'prepare' reads with named columns (.csv, .tsv, .jsonl, .json, .parquet); the
columns of sentences and labels are found where there is no doubt. Learning rate, updates and batch
size are chosen by encoder and number of rows ('fairseq-scl recipe' prints them); the fairseq-train
command that runs is printed. Flags of fairseq-train after '--' win.

With --test, the model is tested on it, once. Without, cross-validation says how good such a model
is to be expected: the rows are split into K parts, and each part is tested by a model that was
trained on the others; then the model is trained on all rows. With --valid, the state that is best
on it is kept, of four during the training; without, the last one counts. A second call goes on
where the first was stopped. Where a logistic regression on the encoder before training does better
on the same rows, a line says so.

40 rows take two to three minutes on two free cores, most of it for cross-validation: --folds 0
leaves that out. DIR/folds holds the models of cross-validation; it may be removed at the end.
"""

import argparse
import shlex
from itertools import islice
from pathlib import Path

import numpy as np

from fairseq_scl.data.beside_checkpoint import HEADS
from fairseq_scl.errors import UserError, printable
from fairseq_scl.finetuning.estimate import MANY, Estimate, picture
from fairseq_scl.finetuning.finetune import FOLDS, LOSSES, MISTAKES, Found, finetune
from fairseq_scl.inference.labelled_csv import cell
from fairseq_scl.preparation.find_columns import label_column, text_column
from fairseq_scl.preparation.records import read_records
from fairseq_scl.preparation.sources import delimiter_named
from fairseq_scl.preparation.tables import UTF8, Columns, Table, check_encoding, file_table

CONFUSION = "confusion.png"
WIDEST = 200  # characters of a label or a sentence
FIRST_ROWS = 100  # in which columns are looked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("train", metavar="TRAIN", type=Path, help="table of labelled sentences")
    parser.add_argument("--valid", type=Path, metavar="FILE", help="to choose the best state by")
    parser.add_argument("--test", type=Path, metavar="FILE", help="to test the model on")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", required=True, help="receives the model"
    )
    parser.add_argument(
        "--sentence",
        metavar="COLUMN",
        help="default: found; in doubt the command stops and lists the columns",
    )
    parser.add_argument("--sentence2", metavar="COLUMN", help="for sentence pairs")
    parser.add_argument("--label", metavar="COLUMN", help="default: found, as --sentence")
    parser.add_argument(
        "--delimiter", metavar="C", help="between the fields of a .csv, or 'tab' (default: ,)"
    )
    parser.add_argument(
        "--encoding", metavar="NAME", default=UTF8, help="of text files, such as cp1252"
    )
    parser.add_argument(
        "--encoder",
        metavar="NAME",
        default="minilm",
        help="'minilm' or 'mpnet', both for English, a Hugging Face, fairseq or imported folder, "
        "or a name on the hub (default: %(default)s)",
    )
    parser.add_argument(
        "--loss",
        choices=LOSSES,
        default=LOSSES[0],
        help="'ce' is the baseline (default: %(default)s)",
    )
    parser.add_argument(
        "--head",
        choices=HEADS,
        default=HEADS[0],
        help="'refit' labels by a logistic regression on the tuned vectors; a second call changes "
        "the head without training (default: %(default)s)",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help=f"parts of cross-validation, 0 for none (default: {FOLDS} without --valid and --test, "
        "fewer if a class has fewer rows)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="default: %(default)s")
    parser.add_argument(
        "--jobs", type=int, metavar="J", help="trainings at once (default: the cores; 1 on a GPU)"
    )
    parser.add_argument("--cpu", action="store_true", default=None, help="leave a GPU alone")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the fairseq-train commands, train nothing"
    )


def run(args: argparse.Namespace) -> None:
    """Fine-tune on `args.train` and say how good the model is."""
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs {args.jobs} must be at least 1")
    if not 0 <= args.seed < 1 << 32:
        raise UserError(f"--seed {args.seed} must be at least 0 and below 2^32")
    if args.output.exists() and not args.output.is_dir():
        raise UserError(f"--output {args.output} is not a folder")
    found = finetune(
        read_tables(args),
        args.output,
        encoder=args.encoder,
        loss=args.loss,
        head=args.head,
        folds=args.folds,
        seed=args.seed,
        jobs=args.jobs,
        cpu=args.cpu,
        more=args.rest,
        dry_run=args.dry_run,
    )
    if not args.dry_run:
        print(told(found))


def read_tables(args: argparse.Namespace) -> dict[str, Table]:
    """The user's files, by split, with the columns that --sentence and --label name or that fit."""
    check_encoding(args.encoding)
    delimiter = None if args.delimiter is None else delimiter_named(args.delimiter)
    files = {"train": args.train, "valid": args.valid, "test": args.test}
    sentence, label = args.sentence, args.label
    if sentence is None or label is None:
        header, records = read_records(args.train, delimiter, args.encoding)
        rows = [
            dict(zip(header, map(cell, values), strict=False))
            for _, values in islice(records, FIRST_ROWS)
        ]
        sentence = sentence or text_column(args.train, header, rows)
        label = label or label_column(args.train, header, rows, sentence)
        if label is None:
            told = f"no column of labels; the columns are {', '.join(header)}"
            raise UserError(f"{args.train}: {told}; name one: --label NAME")
    names = (sentence, *([args.sentence2] if args.sentence2 else []))
    if len({*names, label}) <= len(names):
        raise UserError("--sentence, --sentence2 and --label must name different columns")
    columns = Columns(names, label, must_have_label=True)
    return {
        split: file_table(path, columns, delimiter, args.encoding)
        for split, path in files.items()
        if path is not None
    }


def told(found: Found) -> str:
    """What the command ends with."""
    predict = f"fairseq-scl predict {shlex.quote(str(found.run))} FILE.csv --output labelled.csv"
    end = f"model: {found.run}\npredict: {predict}"
    if found.estimate is None:
        return f"{found.basis}\n\n{end}"
    picture(found.estimate, found.run / CONFUSION)
    low, high = found.estimate.interval
    percent = f"{found.estimate.accuracy:.1%} [95 % interval {low:.1%} to {high:.1%}]"
    return "\n\n".join(
        [
            f"accuracy {percent}, {found.basis}",
            *better_untrained(found),
            per_class(found.estimate),
            confusion(found.estimate),
            mistakes(found),
            f"{end}\npicture: {found.run / CONFUSION}",
        ]
    )


def better_untrained(found: Found) -> list[str]:
    """That the encoder does better without fine-tuning, in a line, if it does."""
    if found.estimate is None or found.probe is None:
        return []
    accuracy = found.estimate.accuracy + 1e-9  # shares of the same rows, summed in another order
    if found.probe <= accuracy:
        return []
    line = f"without fine-tuning, a logistic regression on the encoder is better: {found.probe:.1%}"
    if found.refit is not None and found.refit > accuracy:
        line += f"; with --head refit the tuned model has {found.refit:.1%}"
    return [line]


def per_class(estimate: Estimate) -> str:
    """The figures of the classes; of many those with the lowest F1."""
    table = estimate.per_class().rename(index=shown)
    title = ""
    if len(table) > MANY:
        title = f"the {MANY} classes of {len(table)} with the lowest F1 (result.json has all):\n"
        table = table.sort_values("F1", kind="stable").head(MANY)
    return title + table.to_string(float_format=lambda number: f"{number:.2f}")


def confusion(estimate: Estimate) -> str:
    """The confusion matrix as text; of many classes the pairs that are confused most."""
    import pandas as pd

    names = list(map(shown, estimate.classes))
    if len(names) <= MANY:
        index, columns = pd.Index(names, name="true"), pd.Index(names, name="predicted")
        return pd.DataFrame(estimate.confusion, index=index, columns=columns).to_string()
    wrong = estimate.confusion - np.diag(np.diag(estimate.confusion))
    pairs = [divmod(int(at), len(names)) for at in np.argsort(-wrong, axis=None, kind="stable")]
    lines = [
        f"  {wrong[truth, said]} {names[truth]}, labelled {names[said]}"
        for truth, said in pairs[:MISTAKES]
        if wrong[truth, said]
    ]
    return "\n".join(["confused most often (rows, in truth, by the model):", *lines])


def shown(text: str) -> str:
    """A label or a sentence as a terminal may have it: one line, no escape sequences, not long."""
    printed = printable(text)
    return printed if len(printed) <= WIDEST else f"{printed[:WIDEST]}..."


def mistakes(found: Found) -> str:
    """The most confident mistakes, a line each."""
    estimate = found.estimate
    if estimate is None or not (rows := estimate.mistakes(MISTAKES)):
        return "no mistakes"
    lines = [
        f"  {estimate.probabilities[row]:.2f} {shown(estimate.classes[estimate.said[row]])}, in "
        f"truth {shown(estimate.classes[estimate.labels[row]])}: "
        + " | ".join(map(shown, found.sentences[row]))
        for row in rows
    ]
    return "\n".join(["most confident mistakes:", *lines])
