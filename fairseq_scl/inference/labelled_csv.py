"""A spreadsheet with what the model says of each row."""

import csv
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from fairseq_scl.errors import UserError
from fairseq_scl.inference.classifier import Prediction
from fairseq_scl.preparation.findings import finite

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet program may run


def added_columns(where: object, header: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The names of what is added: `label` and `probability`; of a regression, only `label`.

    If the file has one of them already, whatever the case, both are `predicted_...`.

    Raises:
        UserError: if it has one of those, too.
    """
    added = ["label", "probability"] if classes else ["label"]
    taken = {name.casefold() for name in header}
    if taken & {*added}:
        added = [f"predicted_{name}" for name in added]
    for name in added:
        if name in taken:
            raise UserError(f"{where}: there is a column '{name}' already; rename it")
    return added


def write_csv(
    file: TextIO,
    where: object,
    header: Sequence[str],
    added: Sequence[str],
    rows: Iterable[tuple[int, Sequence[Any]]],
    predictions: Iterable[Prediction],
    delimiter: str = ",",
) -> None:
    """Write the rows as they are, each with its label and the probability of the likeliest class.

    Args:
        where: the file that the rows are from.
        added: see `added_columns`.
        rows: number and values of each; missing ones at the end are empty.

    Raises:
        UserError: for a row that has more values than there are columns.
    """
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow([*header, *added])
    for (number, values), prediction in zip(rows, predictions, strict=True):
        if len(values) > len(header):
            told = f"{len(values)} fields, there are {len(header)} columns"
            raise UserError(f"{where}, row {number}: {told}")
        cells = itertools.chain(map(cell, values), itertools.repeat(""))
        sure = max(prediction.probabilities.values(), default=None)
        said = [harmless(prediction.label), *([] if sure is None else [f"{sure:.4f}"])]
        writer.writerow([*itertools.islice(cells, len(header)), *said])
        file.flush()


def cell(value: Any) -> str:
    """A value as the text of a cell: JSON for what JSON has, empty for null and NaN."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def harmless(label: str | float) -> str | float:
    """A label that no spreadsheet program takes for a formula: with an apostrophe before it."""
    if isinstance(label, str) and label.startswith(FORMULA) and finite(label) is None:
        return f"'{label}"
    return label
