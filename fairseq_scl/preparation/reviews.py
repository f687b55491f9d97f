"""Reading Amazon-2 and Yelp-2, the review sets of Zhang, Zhao and LeCun (NIPS 2015), as published.

Each is published as a CSV without header (`"1","title","review"`; Yelp-2 has no title) and as
fastText's `__label__1 title: review`, also compressed. Label 1 is negative, 2 positive. There is no
validation set: 5 % of the training rows, at most 2,000, are set apart as one.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from fairseq_scl.data.sampling import draw
from fairseq_scl.errors import UserError
from fairseq_scl.preparation.tables import Columns, Row, Table, lines, read_csv

#: what the CSV holds beside the label
REVIEWS = {"amazon-2": ("title", "review"), "yelp-2": ("review",)}
FASTTEXT = (".ft.txt", ".ft.txt.bz2")
LABELS = ("1", "2")
VALID_DIVISOR, MAX_VALID_ROWS, VALID_SEED = 20, 2000, 1


def review_tables(name: str, folder: Path) -> dict[str, Table]:
    """A set's training, validation and test rows; the first form of a file that is found counts.

    Args:
        name: a key of `REVIEWS`.
        folder: holds `train` and `test` with `.ft.txt`, `.ft.txt.bz2` or `.csv`.

    Raises:
        UserError: for a missing or damaged file, or too few rows to set a validation set apart.
    """
    rows, test = (_split(name, folder, split) for split in ("train", "test"))
    train, valid = _set_apart(rows)
    return {"train": train, "valid": valid, "test": test}


def _split(name: str, folder: Path, split: str) -> Table:
    for suffix in (*FASTTEXT, ".csv"):
        path = folder / f"{split}{suffix}"
        if path.is_file():
            if suffix in FASTTEXT:
                return Table(path, partial(_read_fasttext, path))
            return Table(path, partial(_read_csv, path, REVIEWS[name]))
    raise UserError(f"{folder} holds no {split}.ft.txt, {split}.ft.txt.bz2 or {split}.csv")


def _read_fasttext(path: Path) -> Iterator[Row]:
    for number, line in lines(path):
        if line:
            label, _, text = line.partition(" ")
            if label not in ("__label__1", "__label__2"):
                raise UserError(
                    f"{path}, row {number}: it must begin with __label__1 or __label__2"
                )
            yield Row(number, (text.strip(),), label[-1])


def _read_csv(path: Path, texts: tuple[str, ...]) -> Iterator[Row]:
    for row in read_csv(path, Columns(texts, "label"), headless=("label", *texts)):
        if row.label not in LABELS:
            raise UserError(f"{path}, row {row.line}: label '{row.label}' must be 1 or 2")
        sentence = ": ".join(text for text in row.sentences if text)
        yield row._replace(sentences=(_unescape(sentence),))


def _unescape(text: str) -> str:
    r"""Undo the backslash before a line's end and, in Yelp-2, before a quote."""
    return text.replace("\\n", "\n").replace('\\"', '"').strip()


def _set_apart(rows: Table) -> tuple[Table, Table]:
    """Divide rows into those to train on and a stratified validation set, always the same."""
    labels = np.fromiter((LABELS.index(str(row.label)) for row in rows), dtype=np.int64)
    try:
        chosen = draw(labels, min(len(labels) // VALID_DIVISOR, MAX_VALID_ROWS), VALID_SEED)
    except ValueError as error:
        raise UserError(f"{rows.path}: no validation set can be set apart ({error})") from None
    apart = set(chosen.tolist())
    valid = {i: row for i, row in enumerate(rows) if i in apart}
    in_order = [valid[i] for i in chosen.tolist()]

    def train() -> Iterator[Row]:
        return (row for i, row in enumerate(rows) if i not in apart)

    return Table(rows.path, train), Table(rows.path, lambda: in_order)
