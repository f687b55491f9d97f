"""Metrics against scikit-learn, scipy and explicit loops."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics
from torch import tensor

from fairseq_scl.criterions import metrics

relaxed = settings(deadline=None, max_examples=80)
scores = st.integers(0, 40).map(lambda eighths: eighths / 8)  # sums of products stay exact
score_pairs = st.lists(st.tuples(scores, scores), min_size=1, max_size=40).map(np.array)


@st.composite
def classifications(draw, min_size=1):
    """Number of classes, targets and predictions; now and then all of one class."""
    num_classes = draw(st.integers(2, 8))
    size = draw(st.integers(min_size, 40))
    label = st.integers(0, num_classes - 1)
    rows = st.lists(label, min_size=size, max_size=size)
    labels = rows | label.map(lambda only: [only] * size)
    return num_classes, draw(labels), draw(labels)


def confusion_of(num_classes, targets, predictions):
    targets, predictions = tensor(targets, dtype=int), tensor(predictions, dtype=int)
    return metrics.confusion_matrix(predictions, targets, num_classes)


def moments(x, y):
    return np.array([len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])


def parts_of(rows, data):
    """Cut rows, after shuffling them, into up to five parts, some maybe empty."""
    order = data.draw(st.permutations(range(len(rows))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    edges = [0, *cuts, len(rows)]
    shuffled = [rows[i] for i in order]
    return [shuffled[start:end] for start, end in itertools.pairwise(edges)]


def quietly(function, *args):
    """The reference's value without its warnings about undefined cases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args)


@relaxed
@given(classifications())
def test_confusion_matrix_equals_sklearn(example):
    num_classes, targets, predictions = example
    expected = sklearn_metrics.confusion_matrix(targets, predictions, labels=range(num_classes))
    ours = confusion_of(*example)
    assert ours.dtype == torch.int64
    np.testing.assert_array_equal(ours.numpy(), expected)


def test_rows_are_targets_and_columns_predictions():
    assert confusion_of(2, [1, 1, 1], [0, 0, 1]).tolist() == [[0, 0], [2, 1]]


@relaxed
@given(classifications(), st.data())
def test_confusion_matrices_add_up(example, data):
    num_classes, targets, predictions = example
    parts = parts_of(list(zip(targets, predictions, strict=True)), data)
    summed = sum(
        confusion_of(num_classes, [t for t, _ in part], [p for _, p in part]) for part in parts
    )
    assert torch.equal(summed, confusion_of(*example))


@relaxed
@given(classifications())
def test_accuracy_equals_sklearn(example):
    _, targets, predictions = example
    expected = 100 * sklearn_metrics.accuracy_score(targets, predictions)
    assert metrics.accuracy(confusion_of(*example).numpy()) == pytest.approx(expected, abs=1e-9)


@relaxed
@given(classifications())
def test_mcc_equals_sklearn(example):
    _, targets, predictions = example
    expected = 100 * quietly(sklearn_metrics.matthews_corrcoef, targets, predictions)
    assert metrics.mcc(confusion_of(*example).numpy()) == pytest.approx(expected, abs=1e-9)


@relaxed
@given(classifications())
def test_f1_equals_sklearn(example):
    num_classes, targets, predictions = example
    if num_classes == 2:
        how = {"average": "binary", "pos_label": 1}
    else:
        how = {"average": "macro", "labels": range(num_classes)}
    expected = 100 * sklearn_metrics.f1_score(targets, predictions, zero_division=0, **how)
    assert metrics.f1(confusion_of(*example).numpy()) == pytest.approx(expected, abs=1e-9)


def test_mcc_of_a_large_data_set_does_not_overflow():
    """Products of four counts would leave int64 from about 55 thousand examples."""
    confusion = np.array([[200_000, 50_000], [50_000, 200_000]])
    assert metrics.mcc(confusion) == pytest.approx(60)


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.mcc, metrics.f1])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_no_example_scores_zero(metric, num_classes):
    assert metric(np.zeros((num_classes, num_classes), dtype=np.int64)) == 0


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("constant", ["targets", "predictions", "both"])
def test_mcc_with_one_class_only_is_zero(num_classes, constant):
    varied, same = list(range(num_classes)) * 2, [0] * num_classes * 2
    targets = varied if constant == "predictions" else same
    predictions = varied if constant == "targets" else same
    assert metrics.mcc(confusion_of(num_classes, targets, predictions).numpy()) == 0


@relaxed
@given(score_pairs, st.data())
def test_pearson_of_summed_moments_equals_scipy(pairs, data):
    parts = [np.array(part).reshape(-1, 2) for part in parts_of(list(pairs), data)]
    ours = metrics.pearson(*sum(moments(*part.T) for part in parts))
    x, y = pairs.T
    undefined = np.ptp(x) == 0 or np.ptp(y) == 0
    expected = 0 if undefined else 100 * stats.pearsonr(x, y).statistic
    assert ours == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([2.5], [1.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 4.0]), ([1.0, 2.0], [3.0, 3.0])],
    ids=["no example", "one example", "constant x", "constant y"],
)
def test_undefined_correlations_are_zero(x, y):
    x, y = np.array(x), np.array(y)
    assert metrics.pearson(*moments(x, y)) == 0
    assert metrics.spearman(x, y) == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("constant", [0.1, 0.3, 2.91])
def test_pearson_of_one_constant_is_almost_zero_in_spite_of_rounding(constant):
    """The constant's spread is a rounding error, which may also be negative."""
    for n in range(1, 50):
        x, y = np.full(n, constant), np.linspace(0, 5, n)
        assert abs(metrics.pearson(*moments(x, y))) < 1e-3


@pytest.mark.parametrize("constant", [0.1, 0.3, 2.91])
def test_pearson_of_two_constants_is_zero_in_spite_of_rounding(constant):
    for n in range(1, 50):
        x, y = np.full(n, constant), np.full(n, 3.85)
        assert abs(metrics.pearson(*moments(x, y))) < 1e-3


@relaxed
@given(score_pairs)
def test_spearman_equals_scipy(pairs):
    x, y = pairs.T
    expected = np.nan_to_num(quietly(stats.spearmanr, x, y).statistic) if len(x) > 1 else 0
    assert metrics.spearman(x, y) == pytest.approx(100 * expected, abs=1e-9)


def test_spearman_sees_ranks_only():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.spearman(x, np.exp(5 * x)) == pytest.approx(100)
    assert metrics.spearman(x, -np.exp(5 * x)) == pytest.approx(-100)


def cosine(a, b):
    lengths = math.sqrt(sum(v * v for v in a)) * math.sqrt(sum(v * v for v in b))
    return sum(v * w for v, w in zip(a, b, strict=True)) / lengths if lengths else 0.0


def slow_pair_statistics(features, labels):
    sums = dict.fromkeys(
        ["positive_pairs", "positive_similarity", "negative_pairs", "negative_similarity"], 0
    )
    anchors = set()
    for i, a in enumerate(features):
        for j, b in enumerate(features):
            if i == j:
                continue
            kind = "positive" if labels[i] == labels[j] else "negative"
            sums[f"{kind}_pairs"] += 1
            sums[f"{kind}_similarity"] += cosine(a, b)
            if kind == "positive":
                anchors.add(i)
    return {"anchors": len(anchors), **sums}


@relaxed
@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 2), st.integers(0, 10**6))
def test_pair_statistics_equal_loops(size, num_classes, zeros, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(size, 5, generator=generator, dtype=torch.float64)
    features[:zeros] = 0
    labels = torch.randint(num_classes, (size,), generator=generator)
    ours = metrics.pair_statistics(features, labels)
    expected = slow_pair_statistics(features.tolist(), labels.tolist())
    assert {name: value.item() for name, value in ours.items()} == pytest.approx(expected)


def test_a_batch_of_one_has_no_pairs():
    ours = metrics.pair_statistics(tensor([[1.0, 2.0]]), tensor([0]))
    assert len(ours) == 5
    assert all(value == 0 and value.shape == () for value in ours.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_pair_statistics_of_half_precision_are_float32(dtype):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(8, 5, generator=generator).to(dtype)
    labels = torch.arange(8) % 3
    ours = metrics.pair_statistics(features, labels)
    expected = slow_pair_statistics(features.tolist(), labels.tolist())
    assert ours["positive_similarity"].dtype == torch.float32
    assert {name: value.item() for name, value in ours.items()} == pytest.approx(expected, abs=1e-4)
