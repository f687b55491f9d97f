"""Statistics of a report against scipy and slow references."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame, Series
from scipy import stats

from fairseq_scl.reports import statistics
from fairseq_scl.reports.statistics import Comparison, compare

pytestmark = pytest.mark.filterwarnings("error")
relaxed = settings(deadline=None, max_examples=60)
percents = st.integers(0, 436).map(lambda correct: 100 * correct / 436)
draws = st.tuples(st.integers(1, 5), st.integers(1, 5))
pairs = st.lists(st.tuples(percents, percents), min_size=2, max_size=8)


def best(validation, count, maximize):
    """The best draws of a dictionary of validation metrics by draw."""
    columns = ["validation", "draw", "maximize", "all"]
    rows = [(value, draw, maximize, 1) for draw, value in sorted(validation.items())]
    return statistics.best(DataFrame(rows, columns=columns), ["all"], count)["draw"].tolist()


def holm(p_values):
    """The corrected values of a list, None for what is undefined."""
    corrected = statistics.holm(Series(p_values, dtype=float))
    return [None if math.isnan(p) else p for p in corrected]


def compare_pairs(pairs):
    ours, baseline = zip(*pairs, strict=True)
    return compare(Series(ours), Series(baseline))


@relaxed
@given(st.dictionaries(draws, st.integers(0, 3), max_size=8), st.integers(0, 4), st.booleans())
def test_best_are_no_worse_than_the_rest(validation, count, maximize):
    chosen = best(validation, count, maximize)
    assert len(chosen) == min(count, len(validation))
    for draw, other in itertools.product(chosen, validation.keys() - set(chosen)):
        worse, better = sorted([validation[draw], validation[other]])
        assert validation[draw] == (better if maximize else worse)
        assert worse < better or draw < other


def test_ties_on_validation_go_to_the_lower_draw():
    validation = {(10, 1): 5.0, (2, 1): 5.0, (1, 2): 5.0, (3, 1): 6.0}
    assert best(validation, 3, maximize=True) == [(3, 1), (1, 2), (2, 1)]
    assert best(validation, 3, maximize=False) == [(1, 2), (2, 1), (10, 1)]


@relaxed
@given(pairs)
def test_t_test_and_interval_equal_scipys(pairs):
    ours, baseline = map(np.array, zip(*pairs, strict=True))
    result = compare_pairs(pairs)
    assert result.mean == pytest.approx(np.mean(ours - baseline), abs=1e-6)
    if np.ptp(ours - baseline) < 1e-6:
        assert (result.low, result.high, result.p_t) == (None, None, None)
        return
    expected = stats.ttest_rel(ours, baseline)
    assert result.p_t == pytest.approx(expected.pvalue, abs=1e-6)
    interval = expected.confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx(tuple(interval), abs=1e-6)
    # by hand: the mean ± the quantile of Student's t times the standard error
    margin = stats.t.ppf(0.975, len(pairs) - 1) * stats.sem(ours - baseline)
    assert (result.high - result.low) / 2 == pytest.approx(margin, abs=1e-6)


def signed_rank_p(differences):
    """The share of all sign patterns whose rank sums are as uneven as the observed."""
    ranks = stats.rankdata(np.abs(differences))
    sums = [abs(ranks @ np.array(signs)) for signs in itertools.product([-1, 1], repeat=len(ranks))]
    observed = abs(ranks @ np.sign(differences))
    return float(np.mean([value >= observed - 1e-9 for value in sums]))


@relaxed
@given(st.lists(st.tuples(st.integers(-6, 6).filter(bool), percents), min_size=2, max_size=8))
def test_wilcoxon_counts_sign_patterns_with_ties(pairs):
    """The baselines make equal differences differ in their last bits, as accuracies do."""
    p = compare_pairs([(base + d / 7, base) for d, base in pairs]).p_wilcoxon
    assert p == pytest.approx(signed_rank_p([d for d, _ in pairs]))


def test_equal_differences_are_ties_although_their_last_bits_differ():
    pairs = [(100 * (c + d) / 436, 100 * c / 436) for c, d in ((400, 2), (3, 2), (77, -2), (5, 1))]
    assert compare_pairs(pairs).p_wilcoxon == pytest.approx(signed_rank_p([2, 2, -2, 1]))


def test_differences_of_zero_do_not_count_for_wilcoxon():
    p = compare_pairs([(60, 50), (52, 50), (50, 50), (51, 50)]).p_wilcoxon
    assert p == pytest.approx(signed_rank_p([10, 2, 1])) == pytest.approx(0.25)


@relaxed
@given(pairs)
def test_a_comparison_turned_round_changes_its_sign_only(pairs):
    there, back = compare_pairs(pairs), compare_pairs([pair[::-1] for pair in pairs])
    assert there.mean == pytest.approx(-back.mean)
    assert there.p_t == pytest.approx(back.p_t)
    assert there.p_wilcoxon == pytest.approx(back.p_wilcoxon)
    if there.low is not None:
        assert there.low == pytest.approx(-back.high)


def test_only_common_draws_are_compared():
    ours = Series({"1/1": 60.0, "2/1": 62.0, "3/1": 70.0, "9/9": 0.0})
    baseline = Series({"3/1": 61.0, "4/1": 99.0, "2/1": 59.0, "1/1": 60.0})
    assert compare(ours, baseline) == compare_pairs([(60, 60), (62, 59), (70, 61)])
    assert compare(ours, baseline).pairs == 3


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(60, 58)], Comparison(1, 2)),
        ([(60, 60), (61, 61)], Comparison(2, 0)),
        ([(60, 58), (61, 59)], Comparison(2, 2, p_wilcoxon=0.5)),
        ([(0.1 + 0.2, 0.0), (0.3, 0.0)], Comparison(2, 0.3, p_wilcoxon=0.5)),
    ],
)
def test_what_is_undefined_is_none_without_a_warning(pairs, expected):
    assert compare_pairs(pairs) == expected


def test_no_pair_and_no_number_have_no_p():
    assert compare(Series({"1/1": 5.0}), Series({"2/1": 5.0})) == Comparison(0)
    nan = compare_pairs([(math.nan, 1), (2, 1)])
    assert (nan.pairs, nan.p_t, nan.p_wilcoxon) == (2, None, None)


p_values = st.lists(st.none() | st.floats(0, 1), max_size=7)


@relaxed
@given(p_values)
def test_holm_is_the_closure_of_bonferronis_test(ps):
    """A hypothesis is rejected when Bonferroni rejects every intersection it is part of."""
    known = [i for i, p in enumerate(ps) if p is not None]
    subsets = [s for k in range(1, len(known) + 1) for s in itertools.combinations(known, k)]
    for index, corrected in enumerate(holm(ps)):
        if ps[index] is None:
            assert corrected is None
        else:
            bonferroni = [min(1, len(s) * min(ps[j] for j in s)) for s in subsets if index in s]
            assert corrected == pytest.approx(max(bonferroni))


def test_holm_of_an_example():
    corrected = [0.03, None, 0.06, 0.06, 0.02]
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx(corrected)
