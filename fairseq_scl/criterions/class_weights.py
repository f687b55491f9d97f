"""Weights that let rare classes count as much as frequent ones."""

import torch
from torch import Tensor

CLASS_WEIGHTS = ("none", "balanced")


def balanced(labels: Tensor, classes: int) -> Tensor:
    """n / (K n_k) for each class k, of n rows and K classes that have any; they average to 1 a row.

    As scikit-learn's `class_weight="balanced"`.

    Args:
        labels: `(n,)` int64, below `classes`.

    Returns:
        `(classes,)` float32, 0 for a class without rows.
    """
    counts = torch.bincount(labels, minlength=classes)
    weights = len(labels) / (counts.count_nonzero() * counts)
    return weights.masked_fill(counts == 0, 0)
