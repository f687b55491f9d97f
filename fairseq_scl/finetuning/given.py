"""The rows that a program hands over, in the forms that scikit-learn's users have them."""

import math
from collections.abc import Collection, Iterable, Mapping, Set

import numpy as np

from fairseq_scl.errors import UserError
from fairseq_scl.preparation.tables import half_character

KINDS = {bool: "True and False", str: "text", int: "numbers", float: "numbers"}


def listed(given: object, what: str) -> list:
    """The elements of a list, array, column or frame of one column.

    Raises:
        UserError: for what has no rows in an order.
    """
    if hasattr(given, "to_numpy"):
        given = given.to_numpy()
    if isinstance(given, np.ndarray) and given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if isinstance(given, str | bytes | Mapping | Set) or not isinstance(given, Iterable):
        raise UserError(f"{what} must be a list, an array or a column, not {type(given).__name__}")
    return list(given)


def sentences(texts: object) -> list[tuple[str, ...]]:
    """The one or two sentences of each row.

    Raises:
        UserError: naming the first row that has no text.
    """
    rows = listed(texts, "texts")
    for number, row in enumerate(rows, 1):
        parts = (row,) if isinstance(row, str) else row
        listing = isinstance(parts, list | tuple | np.ndarray)
        if not listing or not all(isinstance(part, str) for part in parts):
            raise UserError(f"row {number}: {row!r:.60} is no text")
        if len(parts) not in (1, 2):
            raise UserError(f"row {number}: {len(parts)} texts; one, or two of a pair, are allowed")
        if any(map(half_character, parts)):
            raise UserError(f"row {number} holds half a character")
        rows[number - 1] = tuple(map(str, parts))
    return rows


def labels_of(given: object, rows: Collection) -> np.ndarray:
    """The label of each row: text, whole numbers, fractions, or True and False, `(rows,)`.

    Raises:
        UserError: naming the first row that has none; for another number of labels than of rows.
    """
    labels = [
        label.item() if isinstance(label, np.generic) else label
        for label in listed(given, "labels")
    ]
    if len(labels) != len(rows):
        raise UserError(f"{len(rows)} texts, but {len(labels)} labels")
    for number, label in enumerate(labels, 1):
        if type(label) not in KINDS or (isinstance(label, float) and not math.isfinite(label)):
            raise UserError(f"row {number}: {label!r:.60} is no label; text and numbers are")
        if isinstance(label, str) and half_character(label):
            raise UserError(f"row {number}: the label holds half a character")
    kinds = list(dict.fromkeys(KINDS[type(label)] for label in labels))
    if len(kinds) > 1:  # numpy would make one of the other
        raise UserError(f"some labels are {kinds[0]}, and others {kinds[1]}")
    return np.array(labels)
