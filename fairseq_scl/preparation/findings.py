"""What a first pass over the tables finds: rows, labels and what stands in them twice."""

import array
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fairseq_scl.encoders.families import SPECIALS
from fairseq_scl.errors import UserError, short
from fairseq_scl.preparation.glue import GLUE, unlike_published
from fairseq_scl.preparation.tables import Table, file_kind

NUMBER = "a number"  # stands for all labels of a regression
DELAY = 1.0  # seconds before a bar shows that there is something to wait for
MANY_CLASSES = 1000
FEW_CLASSES = 10  # which a table of a few rows may have
MANY_NUMBERS = 50  # as classes; so are numbers of which half of the rows have one of their own


class Found(NamedTuple):
    """What is known of a table after a first pass over it.

    Attributes:
        sentences: sentences of a row.
        empty: rows with an empty sentence.
        quoted: rows of a .tsv with a sentence in a CSV's quotes, which a .tsv keeps.
        labels: how often each label occurs, in the order of their first rows; None is no label.
        first_rows: the row of the file in which each label occurs first.
        hashes: of each row's sentences.
        labelled_hashes: of each row's sentences with its label.
    """

    rows: int
    sentences: int
    empty: int
    quoted: int
    labels: dict[str | None, int]
    first_rows: dict[str | None, int]
    hashes: array.array
    labelled_hashes: array.array

    @property
    def labelled(self) -> bool:
        """Whether any row has a label."""
        return any(self.labels)


def look_through(table: Table, regression: bool, sentences: int | None = None) -> Found:
    """Read a table once.

    Args:
        sentences: how many a row must have; default: as many as the first.

    Raises:
        UserError: naming file and row, for whatever cannot be read, or a label that should be a
            number.
    """
    rows = empty = quoted = 0
    is_tsv = isinstance(table.path, Path) and file_kind(table.path) == ".tsv"
    labels: Counter[str | None] = Counter()
    first_rows: dict[str | None, int] = {}
    hashes, labelled_hashes = array.array("q"), array.array("q")
    desc = f"read {Path(table.path).name}"
    for row in tqdm(table, desc=desc, unit="rows", leave=False, delay=DELAY):
        rows += 1
        sentences = sentences or len(row.sentences)
        if len(row.sentences) != sentences:
            told = f"{len(row.sentences)} sentences, the first row has {sentences}"
            raise UserError(f"{table.path}, row {row.line}: {told}")
        empty += not all(row.sentences)
        quoted += is_tsv and any(map(in_csv_quotes, row.sentences))
        label: str | None = row.label
        value: object = label
        if regression and label:
            value = checked_number(label, f"{table.path}, row {row.line}")
            label = NUMBER  # as there may be as many as rows
        hashes.append(hash(row.sentences))
        labelled_hashes.append(hash((row.sentences, value)))
        labels[label] += 1
        first_rows.setdefault(label, row.line)
    return Found(rows, sentences or 0, empty, quoted, labels, first_rows, hashes, labelled_hashes)


def in_csv_quotes(text: str) -> bool:
    """Whether a text is quoted as a CSV is, with the quotes in it doubled."""
    inside = text[1:-1]
    return text[:1] == text[-1:] == '"' and '""' in inside and '"' not in inside.replace('""', "")


def in_common(some: Found, others: Found) -> int:
    """How many of some rows have the sentences of one of the others."""
    return int(np.isin(np.array(some.hashes), np.array(others.hashes)).sum())


def repeated(found: Found) -> tuple[int, int]:
    """How many rows have the sentences of an earlier one, and how many such with another label."""
    _, group, counts = np.unique(np.array(found.hashes), return_inverse=True, return_counts=True)
    _, labelled = np.unique(np.array(found.labelled_hashes), return_index=True)
    contradicting = np.bincount(group[labelled]) > 1  # sentences that have several labels
    return found.rows - len(counts), int(counts[contradicting].sum())


def describe(found: Mapping[str, Found], split: str, classes: list[str] | None) -> dict:
    """What `prepared.json` tells of a split's rows."""
    of = found[split]
    told: dict = {"rows": of.rows, "labelled": of.labelled, "empty": of.empty, "quoted": of.quoted}
    if classes is not None and of.labelled:
        told["counts"] = [of.labels.get(name, 0) for name in classes]
    if split == "train":
        told["duplicates"], told["contradicting"] = repeated(of)
    else:
        told["in_train"] = in_common(of, found["train"])
    return told


def checked_number(label: str, where: str) -> float:
    """The finite number that a label must be."""
    if (number := finite(label)) is None:
        raise UserError(f"{where}: label '{short(label)}' is not a number")
    return number


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
    known = set(classes or ())
    for label, line in found.first_rows.items():
        where = f"{path}, row {line}"
        if not label:
            raise UserError(f"{where}: no label")
        if classes is not None and label not in known:
            raise UserError(
                f"{where}: label '{short(label)}' does not occur in the training data "
                f"({first_ten([*map(short, classes)])})"
            )


def compare_with_published(
    task: str, tables: dict[str, Table], found: dict[str, Found], classes: list[str] | None
) -> None:
    """Refuse another number of labels than the GLUE task has; warn of other numbers of rows."""
    expected = len(GLUE[task].labels)
    if classes is not None and len(classes) != expected:
        raise UserError(
            f"{tables['train'].path}: {len(classes)} labels ({first_ten([*map(short, classes)])}), "
            f"the published {task} has {expected}"
        )
    for split, table in tables.items():
        if told := unlike_published(task, split, found[split].rows):
            print(f"{table.path}: warning: {told}", file=sys.stderr)


def check_number_of_classes(path: Path | str, classes: list[str], rows: int) -> None:
    """Refuse a single class, and numbers that cannot be classes; warn of what may be wrong."""
    if len(classes) == 1:
        raise UserError(f"{path}: only one class ({classes[0]}), there is nothing to learn")
    if len(classes) > MANY_CLASSES:
        told = f"{len(classes):,} classes ({first_ten([*map(short, classes)])})"
        print(f"{path}: warning: {told}: is --label the right column?", file=sys.stderr)
    if len(classes) > min(MANY_NUMBERS, rows / 2) and None not in map(finite, classes):
        told = f"{len(classes):,} classes in {rows:,} rows are all numbers"
        if len(classes) > max(FEW_CLASSES, rows / 2):
            remedy = "is it a regression? 'fairseq-scl prepare --regression' takes numbers"
            raise UserError(f"{path}: {told}; {remedy}")
        print(f"{path}: warning: {told}: --regression predicts numbers", file=sys.stderr)


def first_ten(names: list[str]) -> str:
    """As much of a list as a message bears."""
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
