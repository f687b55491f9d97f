"""What the nearest training rows make of the test set: a vote by hand, and real runs."""

import json

import numpy as np
import pytest
from conftest import PACKAGE, train
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_scl.cli import main
from fairseq_scl.data import manifest
from fairseq_scl.inference.classifier import load
from fairseq_scl.preparation.tables import Columns, read_file
from fairseq_scl.studies import evaluate

TRAIN = read_file(PACKAGE / "sample_data" / "train.tsv", Columns(("sentence",), "label"))


def vote(known, classes, features):
    """The class of most of the five most similar rows, the lowest of those that tie."""
    said = []
    for vector in features:
        lengths = np.linalg.norm(known, axis=1) * np.linalg.norm(vector)
        nearest = np.argsort(-(known @ vector) / lengths)[:5]
        votes = [int(classes[row]) for row in nearest]
        said.append(max(sorted(set(votes)), key=votes.count))
    return np.array(said)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_the_vote_is_that_of_the_five_nearest(rows, count, seed):
    rng = np.random.default_rng(seed)
    known, features = rng.normal(size=(rows, 6)), rng.normal(size=(20, 6))
    classes, labels = rng.integers(count, size=rows), rng.integers(count, size=20)
    said = evaluate.knn_metrics(known, classes, features, labels, count)
    assert said["k"] == min(5, rows)
    assert said["accuracy"] == pytest.approx(
        100 * np.mean(vote(known, classes, features) == labels)
    )
    assert said.keys() == {"k", "accuracy", "mcc", "f1", "acc_and_f1"}
    assert said["acc_and_f1"] == pytest.approx((said["accuracy"] + said["f1"]) / 2)


@pytest.mark.parametrize(
    ("flags", "flipped"),
    [
        ((), 0),
        (("--noise", "label", "--label-noise", 0.3), 6),
        (("--num-shots", 3), 0),
        (("--samples-per-class", 4), 0),  # of which batches may repeat rows
    ],
)
def test_it_asks_each_training_row_once_with_the_label_it_was_trained_on(
    recipe, tmp_path, monkeypatch, flags, flipped
):
    train(recipe.flags(tmp_path, "--max-update", 2, *flags))
    asked = []
    measured = evaluate.knn_metrics
    monkeypatch.setattr(evaluate, "knn_metrics", lambda *a: asked.extend(a) or measured(*a))
    main(["evaluate", str(tmp_path)])
    said = json.loads((tmp_path / manifest.NAME).read_text())
    assert len(said["flipped"]) == flipped
    classifier = load(tmp_path)
    rows = manifest.expand(said["splits"]["train"]["rows"])
    vectors = [classifier.predict([TRAIN[row].sentences])[0].embedding for row in rows]
    clean = [classifier.classes.index(TRAIN[row].label) for row in rows]
    classes = [said["flipped"].get(str(row), label) for row, label in zip(rows, clean, strict=True)]
    known, known_classes, features, labels, _ = asked
    np.testing.assert_allclose(known, vectors, atol=1e-5)
    assert known_classes.tolist() == classes
    test = np.load(tmp_path / "test_embeddings.npz")
    np.testing.assert_array_equal(features, test["features"])
    np.testing.assert_array_equal(labels, test["labels"])
    right = vote(known, classes, features) == labels
    knn = json.loads((tmp_path / "result.json").read_text())["knn"]
    assert knn["k"] == min(5, len(rows))
    assert knn["accuracy"] == pytest.approx(100 * np.mean(right), abs=0.51)  # one near tie of 200


def test_a_large_training_set_is_not_encoded(recipe, tmp_path, monkeypatch):
    train(recipe.flags(tmp_path, "--max-update", 2))
    monkeypatch.setattr(evaluate, "MAX_TRAINING_ROWS", 19)
    main(["evaluate", str(tmp_path)])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["knn"] is None
    assert result["test"]["accuracy"] > 0
