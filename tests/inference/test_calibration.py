"""Temperature scaling beside the slow and obvious way."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from fairseq_scl.errors import UserError
from fairseq_scl.inference import calibration
from fairseq_scl.inference.calibration import (
    HIGHEST,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    probabilities_of,
)


@st.composite
def some_logits(draw, most=40):
    """Logits `(n, C)` that say something of their labels `(n,)`, or nothing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, classes = draw(st.integers(1, most)), draw(st.integers(2, 5))
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += draw(st.floats(-1, 5))
    return draw(st.floats(0.1, 20)) * logits, labels


def likelihood(logits, labels, temperature):
    """The negative log-likelihood of the smoothed targets, a row and a class at a time."""
    n, classes = logits.shape
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        said = log_softmax(row / temperature)
        for k in range(classes):
            total -= ((n * (k == label) + 1) / (n + classes)) * said[k]
    return total / n


@settings(deadline=None, max_examples=60)
@given(some_logits())
def test_no_other_temperature_is_more_likely(given_rows):
    logits, labels = given_rows
    found = fit_temperature(logits, labels)
    best = likelihood(logits, labels, found)
    grid = found * np.geomspace(0.01, 1, 40)
    for other in [*grid, *(found / grid if found < np.ptp(logits) else [])]:
        assert best <= likelihood(logits, labels, other) + 1e-9


@settings(deadline=None, max_examples=60)
@given(some_logits(), st.floats(1e-3, 1e3))
def test_it_scales_as_the_logits_and_leaves_the_labels(given_rows, factor):
    logits, labels = given_rows
    found = fit_temperature(logits, labels)
    assert 0 < found < np.inf
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor * found, rel=1e-5)
    shifted = logits + np.arange(len(logits))[:, None]
    assert fit_temperature(shifted, labels) == pytest.approx(found, rel=1e-5)
    said = probabilities_of(logits, found)
    chosen = logits.argmax(1)
    np.testing.assert_allclose(said[np.arange(len(said)), chosen], said.max(1))
    np.testing.assert_allclose(said.sum(1), 1)


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_simulated_logits_give_back_their_temperature(true):
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=2, size=(20_000, 3))
    share = probabilities_of(logits)
    labels = (rng.random((len(share), 1)) > share.cumsum(1)).sum(1)
    assert fit_temperature(true * logits, labels) == pytest.approx(true, rel=0.03)
    assert expected_calibration_error(share, labels) < 0.01
    assert expected_calibration_error(probabilities_of(logits, 0.3), labels) > 0.05


def test_rows_that_are_all_right_do_not_make_the_model_certain():
    logits = np.array([[3.0, 0], [0, 3.0], [3.0, 0], [0, 3.0]])
    said = probabilities_of(logits, fit_temperature(logits, np.array([0, 1, 0, 1])))
    np.testing.assert_allclose(said.max(1), 5 / 6, rtol=1e-6)  # (n + 1) / (n + C)


def test_logits_that_say_nothing_become_alike():
    logits = np.array([[3.0, 0], [0, 3.0]])
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(1.5 * HIGHEST)
    assert fit_temperature(np.ones((4, 3)), np.array([0, 1, 2, 0])) == 1
    for wrong in (np.empty((0, 2)), np.array([[np.nan, 1]])):
        with pytest.raises(ValueError, match="finite"):
            fit_temperature(wrong, np.zeros(len(wrong), dtype=int))


@settings(deadline=None, max_examples=100)
@given(some_logits(), st.integers(1, 20))
def test_the_errors_are_those_counted_by_hand(given_rows, bins):
    logits, labels = given_rows
    probabilities = probabilities_of(logits)
    error = 0.0
    for part in range(bins):
        inside = [
            i for i, row in enumerate(probabilities) if part / bins < max(row) <= (part + 1) / bins
        ]
        if inside:
            right = np.mean([np.argmax(probabilities[i]) == labels[i] for i in inside])
            sure = np.mean([max(probabilities[i]) for i in inside])
            error += len(inside) / len(labels) * abs(right - sure)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(error, abs=1e-9)
    squares = [
        sum((row[k] - (k == label)) ** 2 for k in range(len(row)))
        for row, label in zip(probabilities, labels, strict=True)
    ]
    assert brier_score(probabilities, labels) == pytest.approx(np.mean(squares))


def test_it_is_written_for_one_checkpoint(tmp_path):
    checkpoint = tmp_path / "checkpoint_best.pt"
    checkpoint.write_bytes(b"weights")
    assert calibration.read(checkpoint) is None
    logits, labels = np.array([[2.0, 0], [0, 2.0], [1.0, 0]]), np.array([0, 1, 1])
    made = calibration.calibrate(checkpoint, logits, labels, "folds")
    told = json.loads((tmp_path / calibration.NAME).read_text())
    assert (told["rows"], told["fitted_on"]) == (3, "folds")
    assert told["temperature"] == made.temperature == fit_temperature(logits, labels)
    assert calibration.read(checkpoint) == made
    checkpoint.write_bytes(b"other weights")
    assert calibration.read(checkpoint) is None
    for key, value in (
        ("temperature", 0),
        ("temperature", 1e-300),
        ("temperature", "1"),
        ("fitted_on", "test"),
    ):
        (tmp_path / calibration.NAME).write_text(json.dumps(told | {key: value}))
        with pytest.raises(UserError, match=rf"calibration.json: {key}: "):
            calibration.read(checkpoint)
