"""The statistics of a report: the best draws and paired comparisons."""

from typing import NamedTuple

import numpy as np
from pandas import DataFrame, Series
from scipy import stats
from statsmodels.stats.multitest import multipletests

CONFIDENCE = 0.95


class Comparison(NamedTuple):
    """A paired comparison; None where a statistic is undefined.

    Attributes:
        pairs: the number of draws that both sides have.
        mean: the mean difference, None without a pair.
        low, high: the 95 % interval of the mean difference by Student's t.
        p_t: two-sided p of the paired t-test.
        p_wilcoxon: two-sided p of Wilcoxon's signed-rank test.
    """

    pairs: int | None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p_t: float | None = None
    p_wilcoxon: float | None = None


def best(runs: DataFrame, by: list[str], count: int) -> DataFrame:
    """The `count` runs of each group that are best on validation, best first.

    Of runs that are equally good, the earlier row comes first.
    """
    rank = runs["validation"].where(~runs["maximize"].astype(bool), -runs["validation"])
    ordered = runs.assign(rank=rank).sort_values("rank", kind="stable")
    return ordered.groupby(by, sort=False).head(count)


def compare(ours: Series, baseline: Series) -> Comparison:
    """Compare `ours - baseline` over the draws, their index, that both have.

    Neither test is defined for fewer than two pairs, for differences that are all zero, or where
    one is not finite; the t-test and its interval not for differences that are all equal either.
    Wilcoxon's test leaves out differences of zero and gives ties their mean rank; it is exact for
    up to 50 pairs, with zeros or ties up to 13 (`scipy.stats.wilcoxon`).

    Returns:
        The comparison, its p values not corrected.
    """
    ours, baseline = ours.align(baseline, join="inner")
    # an accuracy is a rounded quotient: equal differences must stay equal, for ranks have ties
    differences = np.round(ours.to_numpy(float) - baseline.to_numpy(float), 9)
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


def holm(p_values: Series) -> Series:
    """Correct p values for their number (Holm 1979); NaN stays NaN and does not count."""
    known = p_values.dropna()
    if len(known):
        known[:] = multipletests(known, method="holm")[1]
    return known.reindex(p_values.index)
