"""Which rows a few-shot run trains on. Change the sampling here; nothing else knows how it works.

A draw first decides class by class in which order seats are given out (`stratified_order`, or in
turn), then fills the seats from a seeded shuffle of each class. Both are independent of N, so
draws nest: the 20 rows of a seed are among its 100.
"""

from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np

SAMPLING = ("stratified", "balanced", "random")


def draw(labels: np.ndarray, num_shots: int, seed: int, sampling: str = "stratified") -> np.ndarray:
    """Draw rows without replacement.

    Args:
        labels: `(rows,)` int class ids from 0; every class up to the largest id counts.
        num_shots: rows to draw, in total.
        seed: the draw's own seed; nothing else is random.
        sampling: `"stratified"` keeps the label distribution of `labels`, each class within one
            row of its exact share; `"balanced"` takes equally many of each class, give or take
            one; `"random"` does not look at labels.

    Returns:
        `(num_shots,)` int64 row numbers, ascending.

    Raises:
        ValueError: if the rows do not suffice or, unless random, a class would get none.
    """
    counts = np.bincount(labels)
    if num_shots > len(labels):
        raise ValueError(f"{num_shots} rows asked for, but the data has {len(labels)}")
    if num_shots < len(counts):
        raise ValueError(f"{num_shots} rows asked for, fewer than the {len(counts)} classes")
    if sampling == "random":
        return np.sort(np.random.default_rng(seed).permutation(len(labels))[:num_shots])
    if not counts.all():
        raise ValueError(f"class {int(np.argmin(counts))} has no row")
    if sampling not in SAMPLING:
        raise ValueError(f"sampling must be one of {', '.join(SAMPLING)}, got {sampling!r}")
    order = stratified_order(counts) if sampling == "stratified" else cycle(range(len(counts)))
    seats = _count_seats(order, len(counts), num_shots)
    if (seats > counts).any():
        label = int(np.argmin(counts))
        raise ValueError(
            f"class {label} has {counts[label]} rows, too few for {seats.max()} of each class"
        )
    if not seats.all():
        label = int(np.argmin(seats))
        raise ValueError(
            f"class {label} is too rare ({counts[label]} of {len(labels)} rows) to get one of "
            f"{num_shots}; draw more, or draw balanced"
        )
    return _fill_seats(labels, seats, seed)


def stratified_part(labels: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Split off `rows` rows that keep the label distribution; a rare class may get none.

    Args:
        labels: `(n,)` class ids; rows: at most `n`.

    Returns:
        `(rows,)` int64 row numbers, ascending.
    """
    counts = np.bincount(labels)
    return _fill_seats(labels, _count_seats(stratified_order(counts), len(counts), rows), seed)


def _count_seats(order: Iterator[int], classes: int, seats: int) -> np.ndarray:
    return np.bincount(list(islice(order, seats)), minlength=classes)


def _fill_seats(labels: np.ndarray, seats: np.ndarray, seed: int) -> np.ndarray:
    shuffled = [
        np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        for label in range(len(seats))
    ]
    return np.sort(np.concatenate([rows[:n] for rows, n in zip(shuffled, seats, strict=True)]))


def stratified_order(counts: np.ndarray) -> Iterator[int]:
    """Yield a class per seat so that any number of seats is within one of each class's share.

    This is Balinski and Young's quota method (1975), the apportionment that stays within the
    quota and never takes a seat away as seats are added.
    """
    total, seats = int(counts.sum()), [0] * len(counts)
    for house in range(1, total + 1):
        eligible = (c for c, n in enumerate(seats) if n * total < int(counts[c]) * house)
        winner = max(eligible, key=lambda c: (counts[c] / (seats[c] + 1), -c))
        seats[winner] += 1
        yield winner
