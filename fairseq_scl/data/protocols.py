"""Which rows of the prepared files make up train, valid and test."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fairseq_scl.data import sampling

PROTOCOLS = ("given", "few-shot", "full", "folds")
FOLD = r"^[1-9]\d*/[1-9]\d*$"
# the splits are the same for every draw, loss and model
SPLIT_SEED = 2021
MAX_DEV_ROWS = 500


class Split(NamedTuple):
    """Rows `(n,)`, ascending, of the prepared file `source`."""

    source: str
    rows: np.ndarray


def split(
    protocol: str, name: str, labels: Callable[[str], np.ndarray], fold: str | None = None
) -> Split:
    """The rows of a split under a protocol.

    Args:
        protocol: `"given"` takes the splits as prepared. GLUE's test labels are not public, so the
            paper tests on the validation set: with `"few-shot"` on a stratified half of it, and
            `valid` is at most `MAX_DEV_ROWS` rows of the other half; with `"full"` on all of it,
            and `valid` is carved out of `train`, stratified and as large (at most half of it).
            `test1` is the same of `valid1`, MNLI's mismatched set. With `"folds"`, for data that
            has nothing but `train`, `test` is one fold of it, `train` the others.
        name: `train`, `valid`, `test`, ...
        labels: gives the class ids `(rows,)` of a prepared file.
        fold: of `"folds"`, `"2/5"` is the second of five.

    Raises:
        ValueError: for an unknown protocol, or a class with fewer rows than folds.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if protocol == "folds":
        tested = held_out(labels("train"), *map(int, str(fold).split("/")))
        rest = np.setdiff1d(np.arange(len(labels("train"))), tested)
        return Split("train", tested if name == "test" else rest)
    if name in ("test", "test1") and protocol != "given":
        source = name.replace("test", "valid")
        share = 1 if protocol == "full" else 2
        return Split(source, _part(labels(source), len(labels(source)) // share))
    if name == "valid" and protocol == "few-shot":
        test = split(protocol, "test", labels).rows
        rest = np.setdiff1d(np.arange(len(labels("valid"))), test)
        return Split("valid", rest[_part(labels("valid")[rest], MAX_DEV_ROWS)])
    if name in ("train", "valid") and protocol == "full":
        train = labels("train")
        dev = _part(train, min(len(labels("valid")), len(train) // 2))
        rest = np.setdiff1d(np.arange(len(train)), dev)
        return Split("train", dev if name == "valid" else rest)
    return Split(name, np.arange(len(labels(name))))


def held_out(labels: np.ndarray, fold: int, folds: int) -> np.ndarray:
    """The rows of a fold (from 1), ascending: each class, and all rows, as evenly as it goes.

    Raises:
        ValueError: if a class has fewer rows than there are folds.
    """
    counts = np.unique(labels, return_counts=True)[1]
    if counts.min() < folds:
        raise ValueError(f"a class has {counts.min()} rows, fewer than {folds} folds")
    shuffled = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(by_class[fold - 1 :: folds])


def _part(labels: np.ndarray, rows: int) -> np.ndarray:
    return sampling.stratified_part(labels, min(rows, len(labels)), SPLIT_SEED)
