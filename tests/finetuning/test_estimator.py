"""`SclClassifier`: fine-tuning as scikit-learn has it."""

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import PACKAGE
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, normalize

from fairseq_scl import SclClassifier, load
from fairseq_scl.finetuning.finetune import finetune
from fairseq_scl.preparation.tables import Columns, Table, read_file

ROWS = read_file(PACKAGE / "sample_data" / "train.tsv", Columns(("sentence",), "label"))[:24]
TEXTS = [row.sentences[0] for row in ROWS]
LABELS = [row.label for row in ROWS]
NEW = ["a joy to watch", "two hours I want back"]


@pytest.fixture(scope="module")
def untrained(encoder):
    return SclClassifier(encoder=str(encoder), updates=4, batch_size=8, learning_rate=1e-3)


@pytest.fixture(scope="module")
def fitted(untrained):
    return clone(untrained).fit(TEXTS, LABELS)


@pytest.mark.integration
def test_it_says_what_the_command_says(untrained, fitted, tmp_path):
    rows = [row._replace(line=i) for i, row in enumerate(ROWS, 1)]
    finetune(
        {"train": Table("rows", lambda: rows)}, tmp_path / "run", encoder=untrained.encoder,
        folds=0, more=untrained._flags(), verbose=False,
    )  # fmt: skip
    said = load(tmp_path / "run").predict(NEW)
    assert [one.label for one in said] == fitted.predict(NEW).tolist()
    probabilities = [[one.probabilities[name] for name in fitted.classes_] for one in said]
    np.testing.assert_allclose(fitted.predict_proba(NEW), probabilities, rtol=1e-6)
    vectors = np.stack([one.embedding for one in said])
    np.testing.assert_allclose(fitted.transform(NEW), vectors, rtol=1e-5)


def test_what_is_not_fitted_says_so(untrained, tmp_path):
    for use in (untrained.predict, untrained.predict_proba, untrained.transform):
        with pytest.raises(NotFittedError):
            use(NEW)
    with pytest.raises(NotFittedError):
        untrained.save(tmp_path / "model")


@pytest.mark.integration
def test_probabilities_belong_to_the_labels(fitted):
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.shape == (24, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert (fitted.classes_[probabilities.argmax(1)] == fitted.predict(TEXTS)).all()
    right = sum(said == label for said, label in zip(fitted.predict(TEXTS), LABELS, strict=True))
    assert fitted.score(TEXTS, LABELS) == right / 24


@pytest.mark.integration
def test_copies_pickles_and_what_was_saved_say_the_same(fitted, tmp_path):
    said = fitted.predict_proba(NEW)
    fitted.save(tmp_path / "saved")
    others = [
        copy.deepcopy(fitted),
        pickle.loads(pickle.dumps(fitted)),
        SclClassifier.load(tmp_path / "saved"),
    ]
    for other in others:
        assert other.get_params() == fitted.get_params()
        np.testing.assert_array_equal(other.classes_, fitted.classes_)
        np.testing.assert_array_equal(other.predict_proba(NEW), said)
    assert [one.label for one in load(tmp_path / "saved").predict(NEW)] == list(fitted.predict(NEW))
    with pytest.raises(FileExistsError):
        fitted.save(tmp_path / "saved")


@pytest.mark.integration
def test_the_refitted_head_is_kept_with_the_model(untrained, fitted, tmp_path):
    refitted = clone(untrained).set_params(head="refit").fit(TEXTS, LABELS)
    vectors = normalize(refitted.transform(TEXTS))
    np.testing.assert_allclose(refitted.transform(NEW), fitted.transform(NEW), rtol=1e-5)
    C = json.loads(refitted.files_["refit.json"])["C"]
    regression = LogisticRegression(C=C, max_iter=10_000).fit(vectors, LABELS)
    expected = regression.predict_proba(normalize(refitted.transform(NEW)))
    np.testing.assert_allclose(refitted.predict_proba(NEW), expected, atol=1e-4)
    refitted.save(tmp_path / "saved")
    for other in (SclClassifier.load(tmp_path / "saved"), load(tmp_path / "saved")):
        said = other.predict(NEW)
        assert [getattr(one, "label", one) for one in said] == list(refitted.predict(NEW))
    np.testing.assert_array_equal(
        SclClassifier.load(tmp_path / "saved").predict_proba(NEW), refitted.predict_proba(NEW)
    )


@pytest.mark.integration
def test_a_search_and_a_pipeline_run_over_it(untrained):
    grid = {"scl_weight": [0.0, 0.9], "scl_temperature": [0.3]}
    search = GridSearchCV(untrained, grid, cv=2, error_score="raise").fit(TEXTS, LABELS)
    assert len(search.cv_results_["mean_test_score"]) == 2
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    numbers = np.array([1 if label == "positive" else 0 for label in LABELS])
    pipeline = make_pipeline(lower, untrained)
    scores = cross_val_score(pipeline, pd.Series(TEXTS), numbers, cv=2, error_score="raise")
    assert scores.shape == (2,) and ((scores >= 0) & (scores <= 1)).all()
    assert pipeline.fit(np.array(TEXTS), numbers).predict(NEW).dtype.kind == "i"


@pytest.mark.parametrize(
    ("texts", "labels", "told"),
    [
        (["a", "b"], ["x"], "2 texts, but 1 labels"),
        (["a", None], ["x", "y"], "row 2: None is no text"),
        (["a", float("nan")], ["x", "y"], "row 2: nan is no text"),
        (["a", "b"], ["x", float("nan")], "some labels are text, and others not"),
        (["a", "b", "c"], [1.0, 2.0, float("nan")], "row 3: nan is no label"),
        (["a", "b"], [None, None], "row 1: None is no label"),
        (["a", "b"], ["1", 2], "some labels are text, and others not"),
        (["a", "b"], ["x", "x"], "class"),
        ([], [], "no rows"),
    ],
)
def test_mistakes_are_value_errors_of_one_line(untrained, texts, labels, told):
    with pytest.raises(ValueError, match=told) as raised:
        clone(untrained).fit(texts, labels)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.integration
def test_training_that_fails_is_a_value_error(untrained):
    wrong = clone(untrained).set_params(scl_temperature=-1.0)
    with pytest.raises(ValueError, match="training failed: .*scl-temperature"):
        wrong.fit(TEXTS, LABELS)


@pytest.mark.integration
def test_fitting_and_predicting_print_nothing(untrained):
    code = (
        f"from fairseq_scl import SclClassifier\nc = SclClassifier(**{untrained.get_params()!r})\n"
        f"c.fit({TEXTS!r}, {LABELS!r}).predict(['fine'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")


def test_a_head_that_is_none_is_told(untrained):
    with pytest.raises(ValueError, match="head 'best' must be one of trained, refit"):
        clone(untrained).set_params(head="best").fit(TEXTS, LABELS)


def test_what_is_no_saved_estimator_is_told(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        SclClassifier.load(tmp_path)
    (tmp_path / "estimator.json").write_text('{"parameters": {"depth": 3}, "classes": ["a"]}')
    with pytest.raises(ValueError, match="no parameter 'depth'"):
        SclClassifier.load(tmp_path)


def test_importing_the_package_stays_light():
    code = "import fairseq_scl, sys; print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
