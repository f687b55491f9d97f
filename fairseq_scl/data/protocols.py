"""Which rows of the prepared files make up train, valid and test."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fairseq_scl.data import sampling

PROTOCOLS = ("given", "few-shot", "full")
# the splits are the same for every draw, loss and model
SPLIT_SEED = 2021
MAX_DEV_ROWS = 500


class Split(NamedTuple):
    """Rows `(n,)`, ascending, of the prepared file `source`."""

    source: str
    rows: np.ndarray


def split(protocol: str, name: str, labels: Callable[[str], np.ndarray]) -> Split:
    """The rows of a split under a protocol.

    Args:
        protocol: `"given"` takes the splits as prepared. GLUE's test labels are not public, so the
            paper tests on the validation set: with `"few-shot"` on a stratified half of it, and
            `valid` is at most `MAX_DEV_ROWS` rows of the other half; with `"full"` on all of it,
            and `valid` is carved out of `train`, stratified and as large (at most half of it).
            `test1` is the same of `valid1`, MNLI's mismatched set.
        name: `train`, `valid`, `test`, ...
        labels: gives the class ids `(rows,)` of a prepared file.

    Raises:
        ValueError: for an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
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


def _part(labels: np.ndarray, rows: int) -> np.ndarray:
    return sampling.stratified_part(labels, min(rows, len(labels)), SPLIT_SEED)
