"""Batches in which every example has a positive."""

import numpy as np


def class_balanced_order(
    labels: np.ndarray, batch_size: int, per_class: int, rng: np.random.Generator
) -> np.ndarray:
    """Order examples so that each batch holds `per_class` of each of several classes.

    Every example occurs. A class whose examples do not fill its groups of `per_class`, or which
    has fewer groups than there are batches, is filled up with its own examples again, so that
    rare classes are oversampled and no batch is short.

    Args:
        labels: `(n,)` class ids.
        batch_size: a multiple of `per_class`; `batch_size // per_class` classes share a batch.
        per_class: at least 2, for an anchor to have a positive.

    Returns:
        `(batches * batch_size,)` positions in `labels`; each `batch_size` in a row are a batch.

    Raises:
        ValueError: if `batch_size` is no such multiple, or there are fewer classes than that.
    """
    present = np.unique(labels)
    if per_class < 2:
        raise ValueError(f"{per_class} of a class leave an anchor without a positive; 2 or more do")
    at_once = batch_size // per_class
    if batch_size % per_class or not at_once:
        raise ValueError(f"a batch of {batch_size} is no multiple of {per_class}")
    if at_once > len(present):
        raise ValueError(
            f"a batch of {batch_size} holds {per_class} of each of {at_once} classes, "
            f"the data has {len(present)}"
        )
    groups = {label: _groups(np.flatnonzero(labels == label), per_class, rng) for label in present}
    total = sum(len(of_class) for of_class in groups.values())
    batches = max(-(-total // at_once), max(len(of_class) for of_class in groups.values()))
    # Each batch takes the classes with most groups left, in a random order among equals, so that
    # no class is left to fill the last batches alone.
    left = {label: len(of_class) for label, of_class in groups.items()}
    order = []
    for _ in range(batches):
        ranked = sorted(present, key=lambda label: (-left[label], rng.random()))
        for label in ranked[:at_once]:
            of_class = groups[label]
            order.append(of_class[-left[label] if left[label] > 0 else rng.integers(len(of_class))])
            left[label] -= 1
    by_batch = np.concatenate(order).reshape(batches, batch_size)
    return rng.permutation(by_batch).ravel()


def _groups(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Shuffle a class's rows into groups; the last is filled up with rows of the others."""
    shuffled = rng.permutation(rows)
    missing = -len(rows) % size
    return np.concatenate([shuffled, np.resize(shuffled, missing)]).reshape(-1, size)
