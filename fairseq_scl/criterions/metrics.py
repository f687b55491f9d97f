"""Classification and regression metrics from sums.

Everything here is a function of counts or moments that add up over batches and
processes, so that the value over a whole data set is exact however it was split.
All results are in percent, as GLUE reports them.
"""

import numpy as np
import torch
from torch import Tensor

from fairseq_scl.loss import Candidates, compare


def confusion_matrix(predictions: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Count predictions: entry `[t, p]` = examples of class `t` predicted as `p`.

    Args:
        predictions, targets: `(batch,)` int64 in `[0, num_classes)`.

    Returns:
        `(num_classes, num_classes)` int64.
    """
    cells = torch.bincount(targets * num_classes + predictions, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


def accuracy(confusion: np.ndarray) -> float:
    """Share of correct predictions, in percent; 0 for no example."""
    return _percent(np.trace(confusion), confusion.sum())


def mcc(confusion: np.ndarray) -> float:
    """Matthews' correlation for any number of classes (Gorodkin 2004), in percent.

    0 where it is undefined (one class only, or one class predicted), as in scikit-learn.
    """
    confusion = confusion.astype(float)
    truth, predicted, total = confusion.sum(1), confusion.sum(0), confusion.sum()
    covariance = np.trace(confusion) * total - truth @ predicted
    spread = (total**2 - truth @ truth) * (total**2 - predicted @ predicted)
    return _percent(covariance, np.sqrt(spread))


def f1(confusion: np.ndarray) -> float:
    """F1 in percent: of class 1 when there are two classes, else the mean over classes.

    A class that neither occurs nor is predicted counts 0 (scikit-learn's `zero_division=0`
    with all labels given).
    """
    confusion = confusion.astype(float)
    hits, total = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    per_class = [_percent(2 * h, t) for h, t in zip(hits, total, strict=True)]
    return per_class[1] if len(per_class) == 2 else float(np.mean(per_class))


def acc_and_f1(confusion: np.ndarray) -> float:
    """The mean of accuracy and F1, in percent: GLUE's measure of MRPC and QQP."""
    return (accuracy(confusion) + f1(confusion)) / 2


CLASSIFICATION = (accuracy, mcc, f1, acc_and_f1)  # each from the confusion matrix


def classification(confusion: np.ndarray) -> dict[str, float]:
    """All of them by name."""
    return {metric.__name__: metric(confusion) for metric in CLASSIFICATION}


def pearson(n: float, x: float, y: float, xx: float, yy: float, xy: float) -> float:
    """Pearson's r in percent from the count and the sums of x, y, x*x, y*y and x*y.

    0 where it is undefined (a constant).
    """
    spreads = n * xx - x * x, n * yy - y * y
    if spreads[0] <= 1e-12 * n * xx or spreads[1] <= 1e-12 * n * yy:
        return 0.0  # a constant, up to rounding
    return _percent(n * xy - x * y, np.sqrt(spreads[0] * spreads[1]))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation in percent; 0 where it is undefined."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    from scipy import stats  # takes a while, and hardly any run is a regression

    return 100.0 * float(stats.spearmanr(x, y).statistic)


def pair_statistics(
    features: Tensor, labels: Tensor, candidates: Candidates | None = None
) -> dict[str, Tensor]:
    """What the contrastive loss has to work with, as sums over pairs of anchor and candidate.

    Args:
        features: `(batch, dim)`; labels: `(batch,)`.
        candidates: as in `supervised_contrastive_loss`.

    Returns:
        `anchors` (examples with a positive), `positive_pairs`, `positive_similarity`,
        `negative_pairs`, `negative_similarity` (summed cosines), each a scalar tensor.
    """
    with torch.autocast(features.device.type, enabled=False):
        similarity, same, itself = compare(features, labels, candidates)
    positives, negatives = same & ~itself, ~same
    return {
        "anchors": positives.any(1).sum(),
        "positive_pairs": positives.sum(),
        "positive_similarity": torch.where(positives, similarity, 0).sum(),
        "negative_pairs": negatives.sum(),
        "negative_similarity": torch.where(negatives, similarity, 0).sum(),
    }


def _percent(part: float, whole: float) -> float:
    return 100.0 * float(part) / float(whole) if whole > 0 else 0.0
