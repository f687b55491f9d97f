"""Few-shot draws: exact, repeatable, nested, and fair to the classes."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fairseq_scl.data.sampling import SAMPLING, draw, stratified_order

relaxed = settings(deadline=None, max_examples=80)
seeds = st.integers(0, 2**31)
class_counts = st.lists(st.integers(1, 60), min_size=1, max_size=20) | st.lists(
    st.sampled_from([3, 30, 900]), min_size=1, max_size=6
)


def shuffled_labels(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels)


def enough_for(counts, sampling):
    """The sizes from and up to which a draw surely succeeds."""
    if sampling == "balanced":
        return len(counts), min(counts) * len(counts)
    return -(-sum(counts) // min(counts)), sum(counts)


@st.composite
def draws(draw_from, sampling, sizes=1):
    """Labels and ascending sizes of draws, most of which succeed."""
    counts = draw_from(class_counts)
    labels = shuffled_labels(counts, draw_from(st.integers(0, 99)))
    sure = st.integers(*enough_for(counts, sampling))
    size = sure | sure | st.integers(len(counts), len(labels))
    return labels, sorted(draw_from(size) for _ in range(sizes))


def draw_if_possible(*args):
    try:
        return draw(*args)
    except ValueError:
        assume(False)


any_sampling = pytest.mark.parametrize("sampling", SAMPLING)


@any_sampling
@relaxed
@given(data=st.data(), seed=seeds)
def test_draws_as_many_different_rows_as_asked_in_order(sampling, data, seed):
    labels, (size,) = data.draw(draws(sampling))
    rows = draw_if_possible(labels, size, seed, sampling)
    assert rows.dtype == np.int64
    assert len(rows) == size
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < len(labels)


@any_sampling
@relaxed
@given(data=st.data(), seed=seeds)
def test_larger_draws_contain_the_smaller(sampling, data, seed):
    labels, (fewer, more) = data.draw(draws(sampling, sizes=2))
    small = draw_if_possible(labels, fewer, seed, sampling)
    large = draw_if_possible(labels, more, seed, sampling)
    assert set(small) <= set(large)


@relaxed
@given(draws("stratified"), seeds)
def test_stratified_keeps_each_class_within_one_row_of_its_share(example, seed):
    """In whole numbers, as |got - size * count / total| < 1 could be lost to rounding."""
    labels, (size,) = example
    counts = np.bincount(labels)
    got = np.bincount(labels[draw_if_possible(labels, size, seed)], minlength=len(counts))
    assert (abs(got * len(labels) - size * counts) < len(labels)).all()
    assert (got > 0).all()


@relaxed
@given(st.lists(st.integers(1, 8), min_size=1, max_size=19), st.integers(1, 200))
def test_stratified_order_keeps_the_shares_at_every_seat(few, many):
    """Rare classes next to a frequent one are where simpler rules overshoot."""
    counts = np.array([many, *few])
    seats = np.zeros_like(counts)
    for taken, label in enumerate(stratified_order(counts), start=1):
        seats[label] += 1
        assert (abs(seats * counts.sum() - taken * counts) < counts.sum()).all()
    assert np.array_equal(seats, counts)


def test_a_class_whose_share_is_a_whole_number_gets_just_that():
    labels = shuffled_labels([32, 3, 2, 2, 4, 3])
    assert np.bincount(labels[draw(labels, 23, 0)]).tolist() == [16, 2, 1, 1, 2, 1]


@relaxed
@given(draws("balanced"), seeds)
def test_balanced_classes_differ_by_at_most_one(example, seed):
    labels, (size,) = example
    got = np.bincount(labels[draw_if_possible(labels, size, seed, "balanced")])
    assert len(got) == labels.max() + 1
    assert got.max() - got.min() <= 1


@relaxed
@given(draws("stratified"), seeds)
def test_stratified_is_refused_only_where_a_share_is_below_one(example, seed):
    labels, (size,) = example
    try:
        draw(labels, size, seed)
    except ValueError:
        assert (size * np.bincount(labels) < len(labels)).any()


@relaxed
@given(draws("balanced"), seeds)
def test_balanced_is_refused_only_where_a_class_lacks_rows(example, seed):
    labels, (size,) = example
    try:
        draw(labels, size, seed, "balanced")
    except ValueError:
        counts = np.bincount(labels)
        seats = [len(range(label, size, len(counts))) for label in range(len(counts))]
        assert (seats > counts).any()


@any_sampling
def test_the_same_seed_draws_the_same_rows(sampling):
    labels = shuffled_labels([300, 200, 100])
    assert np.array_equal(draw(labels, 60, 7, sampling), draw(labels.copy(), 60, 7, sampling))


@any_sampling
def test_other_seeds_draw_other_rows(sampling):
    labels = shuffled_labels([300, 200, 100])
    assert len({tuple(draw(labels, 20, seed, sampling)) for seed in range(100)}) == 100


def test_stratified_is_the_default():
    labels = shuffled_labels([300, 100])
    assert np.array_equal(draw(labels, 40, 3), draw(labels, 40, 3, "stratified"))
    assert np.bincount(labels[draw(labels, 40, 3)]).tolist() == [30, 10]


def test_rows_of_a_class_are_equally_likely():
    """400 draws of half the rows: 200 each, with a standard deviation of 10."""
    labels = np.zeros(20, dtype=np.int64)
    hits = np.bincount(np.concatenate([draw(labels, 10, seed) for seed in range(400)]))
    assert hits.min() > 150
    assert hits.max() < 250


def test_classes_are_shuffled_independently():
    """Rows alternate between two classes; drawing the same places of both would show."""
    labels = np.arange(200) % 2
    rows = [draw(labels, 20, seed) for seed in range(20)]
    assert not any(np.array_equal(r[r % 2 == 0] + 1, r[r % 2 == 1]) for r in rows)


@any_sampling
def test_global_seeds_neither_matter_nor_change(sampling):
    labels = shuffled_labels([50, 40])
    results = []
    for seed in (1, 2):
        np.random.seed(seed)
        torch.manual_seed(seed)
        results.append(draw(labels, 20, 0, sampling))
        after = np.random.random(), torch.rand(()).item()
        np.random.seed(seed)
        torch.manual_seed(seed)
        assert after == (np.random.random(), torch.rand(()).item())
    assert np.array_equal(*results)


@any_sampling
def test_all_rows_can_be_drawn(sampling):
    labels = shuffled_labels([10, 10, 10])
    assert np.array_equal(draw(labels, 30, 0, sampling), np.arange(30))


@pytest.mark.parametrize(
    ("counts", "size", "sampling", "message"),
    [
        ([5, 5], 11, "stratified", "11 rows asked for, but the data has 10"),
        ([5, 5], 11, "balanced", "11 rows asked for, but the data has 10"),
        ([5, 5, 5], 2, "stratified", "2 rows asked for, fewer than the 3 classes"),
        ([5, 5, 5], 2, "balanced", "2 rows asked for, fewer than the 3 classes"),
        ([5, 0, 5], 6, "stratified", "class 1 has no row"),
        ([5, 0, 5], 6, "balanced", "class 1 has no row"),
        ([99, 1], 20, "stratified", r"class 1 is too rare \(1 of 100 rows\) to get one of 20"),
        ([99, 2], 6, "balanced", "class 1 has 2 rows, too few for 3 of each class"),
        ([5, 5], 4, "first", "one of stratified, balanced, random, got 'first'"),
    ],
)
def test_impossible_draws_are_refused(counts, size, sampling, message):
    with pytest.raises(ValueError, match=message):
        draw(shuffled_labels(counts), size, 0, sampling)


def test_balanced_needs_no_more_rows_of_a_class_than_it_takes():
    """Five rows of two classes are three and two, so two rows of the second suffice."""
    labels = shuffled_labels([9, 2])
    assert np.bincount(labels[draw(labels, 5, 0, "balanced")]).tolist() == [3, 2]
