"""Batches of several examples of each of several classes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_scl.data.batching import class_balanced_order


@st.composite
def settings(draw):
    """Labels with every class, a batch size and a number per class."""
    classes = draw(st.integers(2, 80))
    per_class = draw(st.integers(2, 8))
    at_once = draw(st.integers(1, min(classes, 8)))
    sizes = [draw(st.integers(1, 30)) for _ in range(classes)]
    labels = np.repeat(np.arange(classes), sizes)
    return labels, at_once * per_class, per_class, draw(st.integers(0, 99))


def batches(labels, batch_size, per_class, seed):
    order = class_balanced_order(labels, batch_size, per_class, np.random.default_rng(seed))
    return order.reshape(-1, batch_size)


@given(settings())
def test_every_example_occurs(chosen):
    assert np.array_equal(np.unique(batches(*chosen)), np.arange(len(chosen[0])))


@given(settings())
def test_every_batch_holds_so_many_of_so_many_classes(chosen):
    labels, batch_size, per_class, _ = chosen
    for batch in batches(*chosen):
        counts = Counter(labels[batch].tolist())
        assert set(counts.values()) == {per_class}
        assert len(counts) == batch_size // per_class


@given(settings())
def test_no_more_batches_than_the_largest_class_or_the_whole_needs(chosen):
    labels, batch_size, per_class, _ = chosen
    groups = [-(-n // per_class) for n in Counter(labels.tolist()).values()]
    needed = max(max(groups), -(-sum(groups) * per_class // batch_size))
    assert len(batches(*chosen)) == needed


def test_seventy_seven_classes():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(77), 13))
    found = batches(labels, 64, 4, seed=1)
    together = {tuple(sorted(set(labels[batch]))) for batch in found}
    assert len(together) > 1
    assert len(np.unique(found)) == 77 * 13


def test_balanced_classes_are_not_repeated():
    labels = np.repeat([0, 1], 40)
    assert batches(labels, 16, 8, seed=0).size == 80


def test_membership_changes_with_the_generator():
    labels = np.repeat([0, 1], 40)
    one, again, other = (
        {frozenset(batch) for batch in batches(labels, 16, 8, seed)} for seed in (0, 0, 1)
    )
    assert one == again != other


@pytest.mark.parametrize(
    ("batch_size", "per_class", "message"),
    [
        (16, 1, "without a positive"),
        (16, 3, "a batch of 16 is no multiple of 3"),
        (4, 8, "a batch of 4 is no multiple of 8"),
        (16, 4, "4 of each of 4 classes, the data has 2"),
    ],
)
def test_impossible_batches_are_refused(batch_size, per_class, message):
    with pytest.raises(ValueError, match=message):
        class_balanced_order(np.repeat([0, 1], 40), batch_size, per_class, np.random.default_rng(0))
