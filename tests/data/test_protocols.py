"""Which rows make up train, valid and test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_scl.data.protocols import MAX_DEV_ROWS, split


@st.composite
def stored(draw):
    """Labels of the prepared files, of any imbalance."""
    classes = draw(st.integers(1, 6))
    weights = np.array([draw(st.integers(1, 40)) for _ in range(classes)], float)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    sizes = {"train": draw(st.integers(40, 900)), "valid": draw(st.integers(20, 1500))}
    sizes["valid1"] = draw(st.integers(20, 300))
    return {
        name: np.r_[np.arange(classes), rng.choice(classes, rows, p=weights / weights.sum())]
        for name, rows in sizes.items()
    }


def rows_of(protocol, name, files):
    return split(protocol, name, files.__getitem__)


def keeps_shares(part, whole) -> bool:
    exact = np.bincount(whole) * len(part) / len(whole)
    return bool((abs(np.bincount(part, minlength=len(exact)) - exact) < 1).all())


@given(stored())
def test_few_shot_halves_the_validation_set(files):
    test, valid = (rows_of("few-shot", name, files) for name in ("test", "valid"))
    assert test.source == valid.source == "valid"
    assert not np.intersect1d(test.rows, valid.rows).size
    total = len(files["valid"])
    assert len(test.rows) == total // 2
    assert len(valid.rows) == min(MAX_DEV_ROWS, total - total // 2)
    assert keeps_shares(files["valid"][test.rows], files["valid"])
    rest = np.delete(files["valid"], test.rows)
    assert keeps_shares(files["valid"][valid.rows], rest)


@given(stored())
def test_full_carves_validation_out_of_train(files):
    train, valid, test = (rows_of("full", name, files) for name in ("train", "valid", "test"))
    assert train.source == valid.source == "train"
    assert np.array_equal(np.union1d(train.rows, valid.rows), np.arange(len(files["train"])))
    assert len(train.rows) + len(valid.rows) == len(files["train"])
    assert len(valid.rows) == min(len(files["valid"]), len(files["train"]) // 2)
    assert keeps_shares(files["train"][valid.rows], files["train"])
    assert test.source == "valid"
    assert np.array_equal(test.rows, np.arange(len(files["valid"])))


@given(stored())
def test_few_shot_trains_on_the_whole_training_file(files):
    train = rows_of("few-shot", "train", files)
    assert (train.source, len(train.rows)) == ("train", len(files["train"]))


@given(stored())
def test_the_mismatched_set_is_treated_as_the_matched_one(files):
    half, whole = (rows_of(protocol, "test1", files) for protocol in ("few-shot", "full"))
    assert half.source == whole.source == "valid1"
    assert len(half.rows) == len(files["valid1"]) // 2
    assert len(whole.rows) == len(files["valid1"])


@given(stored(), st.randoms(use_true_random=False))
def test_a_split_does_not_depend_on_the_order_of_another(files, random):
    shuffled = dict(files)
    shuffled["train"] = np.array(random.sample(files["train"].tolist(), len(files["train"])))
    for name in ("test", "valid"):
        before, after = (rows_of("few-shot", name, f) for f in (files, shuffled))
        assert np.array_equal(before.rows, after.rows)


@given(stored())
def test_given_takes_files_as_they_are(files):
    for name, labels in files.items():
        found = rows_of("given", name, files)
        assert (found.source, found.rows.tolist()) == (name, list(range(len(labels))))


def test_another_protocol_is_refused():
    with pytest.raises(ValueError, match="one of given, few-shot, full, folds, got 'half'"):
        split("half", "test", {}.__getitem__)


@given(st.lists(st.integers(2, 30), min_size=1, max_size=5), st.integers(2, 6))
def test_every_row_is_tested_in_one_fold_and_every_class_evenly(counts, folds):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    files = {"train": labels}
    if min(counts) < folds:
        with pytest.raises(ValueError, match=f"a class has {min(counts)} rows, fewer than {folds}"):
            split("folds", "test", files.__getitem__, f"1/{folds}")
        return
    tested = []
    for fold in range(1, folds + 1):
        test, train = (
            split("folds", name, files.__getitem__, f"{fold}/{folds}") for name in ("test", "train")
        )
        assert test.source == train.source == "train"
        assert np.array_equal(np.union1d(test.rows, train.rows), np.arange(len(labels)))
        assert not np.intersect1d(test.rows, train.rows).size
        share = np.bincount(labels[test.rows], minlength=len(counts)) - np.array(counts) / folds
        assert (abs(share) < 1).all()
        assert abs(len(test.rows) - len(labels) / folds) < 1
        tested += test.rows.tolist()
    assert sorted(tested) == list(range(len(labels)))
