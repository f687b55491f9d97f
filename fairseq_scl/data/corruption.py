"""Noise in the training data: flipped labels and corrupted tokens."""

import numpy as np


def flip_labels(
    labels: np.ndarray, num_classes: int, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Give a share of the examples another label, each other class as likely.

    Args:
        labels: `(n,)` class ids.
        share: of the examples, in [0, 1]; the nearest whole number of them is flipped.

    Returns:
        New labels `(n,)`, and the positions that were flipped, ascending.

    Raises:
        ValueError: for a share outside [0, 1] or a single class.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of flipped labels must be in [0, 1], got {share}")
    if num_classes < 2:
        raise ValueError("one class has no other label to flip to")
    rng = np.random.default_rng([seed, 1])
    flipped = np.sort(rng.permutation(len(labels))[: round(share * len(labels))])
    noisy = labels.copy()
    noisy[flipped] = (labels[flipped] + rng.integers(1, num_classes, len(flipped))) % num_classes
    return noisy, flipped


def corrupt_tokens(
    tokens: np.ndarray, probability: float, mask: int, special: int, rng: np.random.Generator
) -> np.ndarray:
    """Drop, swap with the next, or mask each word piece, a third of `probability` each.

    Args:
        tokens: `(length,)` dictionary ids.
        probability: that a piece is hit, in [0, 1].
        mask: id of `<mask>`.
        special: ids below it (`<s>`, `<pad>`, `</s>`, `<unk>`) stay where they are.

    Returns:
        Ids, at most `length`. A sentence never loses its last piece.
    """
    fate = np.where(tokens < special, 1.0, rng.random(len(tokens)) / max(probability, 1e-12))
    noisy = tokens.copy()
    noisy[(fate >= 2 / 3) & (fate < 1)] = mask
    for i in np.flatnonzero((fate >= 1 / 3) & (fate < 2 / 3)):
        if i + 1 < len(noisy) and noisy[i + 1] >= special:
            noisy[i], noisy[i + 1] = noisy[i + 1], noisy[i]
    dropped = fate < 1 / 3
    borders = np.flatnonzero(tokens < special)
    for start, end in zip(np.r_[-1, borders], np.r_[borders, len(tokens)], strict=True):
        if end - start > 1 and dropped[start + 1 : end].all():
            dropped[start + 1] = False
    return noisy[~dropped]
