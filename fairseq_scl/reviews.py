"""Reading Amazon-2 and Yelp-2, the review sets of Zhang, Zhao and LeCun (NIPS 2015), as published.

Each is published as a CSV without header (`"1","title","review"`; Yelp-2 has no title) and as
fastText's `__label__1 title: review`, also compressed. Label 1 is negative, 2 positive. There is no
validation set: 5 % of the training rows, at most 2,000, are set apart as one.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fairseq_scl.errors import UserError
from fairseq_scl.sampling import draw
from fairseq_scl.tables import Columns, Row, lines, read_csv

#: what the CSV holds beside the label
REVIEWS = {"amazon-2": ("title", "review"), "yelp-2": ("review",)}
FASTTEXT = (".ft.txt", ".ft.txt.bz2")
LABELS = ("1", "2")
VALID_DIVISOR, MAX_VALID_ROWS, VALID_SEED = 20, 2000, 1


def read_reviews(name: str, folder: Path) -> dict[str, tuple[Path, list[Row]]]:
    """Read a set's training and test file; the first form found counts.

    Args:
        name: a key of `REVIEWS`.
        folder: holds `train` and `test` with `.ft.txt`, `.ft.txt.bz2` or `.csv`.

    Returns:
        For each of train, valid and test its file and rows.

    Raises:
        UserError: for a missing or damaged file, or too few rows to set a validation set apart.
    """
    (train_path, rows), test = (_read_split(name, folder, split) for split in ("train", "test"))
    train, valid = _set_apart(train_path, rows)
    return {"train": (train_path, train), "valid": (train_path, valid), "test": test}


def _read_split(name: str, folder: Path, split: str) -> tuple[Path, list[Row]]:
    for suffix in (*FASTTEXT, ".csv"):
        path = folder / f"{split}{suffix}"
        if path.is_file():
            reader = _read_fasttext(path) if suffix in FASTTEXT else _read_csv(path, REVIEWS[name])
            if rows := list(reader):
                return path, rows
            raise UserError(f"{path} has no rows")
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


def _set_apart(path: Path, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Divide rows into those to train on and a stratified validation set, always the same."""
    labels = np.array([LABELS.index(str(row.label)) for row in rows], dtype=np.int64)
    try:
        chosen = draw(labels, min(len(rows) // VALID_DIVISOR, MAX_VALID_ROWS), VALID_SEED)
    except ValueError as error:
        raise UserError(f"{path}: no validation set can be set apart ({error})") from None
    kept = np.ones(len(rows), dtype=bool)
    kept[chosen] = False
    return [rows[i] for i in np.flatnonzero(kept)], [rows[i] for i in chosen]
