"""The statistics of a report: spreads over draws and paired comparisons, plain numpy and scipy."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fairseq_scl.reports.results import Draw

CONFIDENCE = 0.95


class Spread(NamedTuple):
    """Mean and sample standard deviation; None where there are too few values."""

    mean: float | None
    std: float | None


class Comparison(NamedTuple):
    """A paired comparison; None where a statistic is undefined.

    Attributes:
        pairs: the number of draws that both sides have.
        mean: the mean difference, None without a pair.
        low, high: the 95 % interval of the mean difference by Student's t.
        p_t: two-sided p of the paired t-test.
        p_wilcoxon: two-sided p of Wilcoxon's signed-rank test.
    """

    pairs: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p_t: float | None = None
    p_wilcoxon: float | None = None


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation (n - 1); the latter needs two values."""
    return Spread(
        float(np.mean(values)) if len(values) else None,
        float(np.std(values, ddof=1)) if len(values) > 1 else None,
    )


def best(validation: Mapping[Draw, float], count: int, maximize: bool) -> list[Draw]:
    """The `count` draws that are best on validation, best first.

    Of draws that are equally good, the one with the lower number comes first.
    """
    sign = -1 if maximize else 1
    return sorted(validation, key=lambda draw: (sign * validation[draw], draw))[:count]


def compare(ours: Mapping[Draw, float], baseline: Mapping[Draw, float]) -> Comparison:
    """Compare `ours - baseline` over the draws that both have.

    Neither test is defined for fewer than two pairs, for differences that are all zero, or where
    one is not finite; the t-test and its interval not for differences that are all equal either.
    Wilcoxon's test leaves out differences of zero and gives ties their mean rank; it is exact for
    up to 50 pairs, with zeros or ties up to 13 (`scipy.stats.wilcoxon`).

    Returns:
        The comparison, its p values not corrected.
    """
    # an accuracy is a rounded quotient: equal differences must stay equal, for ranks have ties
    differences = np.round([ours[draw] - baseline[draw] for draw in ours if draw in baseline], 9)
    if not len(differences):
        return Comparison(0)
    mean = float(differences.mean())
    if len(differences) < 2 or not differences.any() or not np.isfinite(differences).all():
        return Comparison(len(differences), mean)
    p_wilcoxon = float(stats.wilcoxon(differences).pvalue)
    if np.ptp(differences) == 0:
        return Comparison(len(differences), mean, p_wilcoxon=p_wilcoxon)
    test = stats.ttest_1samp(differences, 0)
    low, high = map(float, test.confidence_interval(CONFIDENCE))
    return Comparison(len(differences), mean, low, high, float(test.pvalue), p_wilcoxon)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for their number; None stays None and does not count.

    Source: Holm, *A simple sequentially rejective multiple test procedure*, 1979.
    """
    ordered = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(ordered):
        largest = min(1.0, max(largest, (len(ordered) - rank) * p))
        corrected[index] = largest
    return corrected
