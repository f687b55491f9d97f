"""`SclClassifier`: fine-tuning as scikit-learn has it."""

import copy
import json
import pickle
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import PACKAGE
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, normalize

from fairseq_scl import SclClassifier, load
from fairseq_scl.finetuning import training
from fairseq_scl.finetuning.estimator import flags
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
        folds=0, more=flags(untrained._parameters()), verbose=False,
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
        (["a", "b"], ["x", float("nan")], "row 2: nan is no label"),
        (["a", "b", "c"], [1.0, 2.0, float("nan")], "row 3: nan is no label"),
        (["a", "b"], [1.0, float("inf")], "row 2: inf is no label"),
        (["a", "b"], [None, None], "row 1: None is no label"),
        (["a", "b"], ["x", pd.NA], "row 2: <NA> is no label"),
        (["a", "b"], [b"x", b"y"], "row 1: b'x' is no label"),
        (["a", "b"], [date(2020, 1, 1), date(2021, 1, 1)], "row 1: datetime.date.* is no label"),
        (["a", "b"], np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]"), "is no label"),
        (["a", "b"], [["x"], ["y"]], "row 1: .'x'. is no label"),
        (["a", "b"], np.array([["x", "y"], ["x", "y"]]), "row 1: array.* is no label"),
        (["a", "b"], ["1", 2], "some labels are text, and others numbers"),
        (["a", "b"], [0, True], "some labels are numbers, and others True and False"),
        (["a", "b"], ["x", "\ud800"], "row 2: the label holds half a character"),
        (["a", "\ud800"], ["x", "y"], "row 2 holds half a character"),
        ("ab", ["x", "y"], "texts must be a list, an array or a column, not str"),
        ({"a": 1, "b": 2}, ["x", "y"], "texts must be .* not dict"),
        ({"a", "b"}, ["x", "y"], "texts must be .* not set"),
        (["a", "b"], "xy", "labels must be .* not str"),
        (["a", "b"], None, "labels must be .* not NoneType"),
        ([("a",) * 3] * 2, ["x", "y"], "row 1: 3 texts; one, or two of a pair"),
        ([(), ()], ["x", "y"], "row 1: 0 texts"),
        (pd.DataFrame({"a": ["a", "b"], "b": ["x", "y"]}), ["x", "y"], "second text .* its label"),
        (["a", ("b", "c")], ["x", "y"], "row 2: 2 sentences, the first row has 1"),
        (["a", "b"], ["x", "x"], "class"),
        ([], [], "no rows"),
    ],
)
def test_mistakes_are_value_errors_of_one_line(untrained, texts, labels, told):
    with pytest.raises(ValueError, match=told) as raised:
        clone(untrained).fit(texts, labels)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"scl_weight": 2}, "scl_weight: Input should be less than or equal to 1"),
        ({"scl_weight": float("nan")}, "scl_weight"),
        ({"scl_weight": "much"}, "scl_weight: Input should be a valid number"),
        ({"scl_temperature": 0}, "scl_temperature: Input should be greater than 0"),
        ({"class_weights": "some"}, "class_weights: Input should be 'none' or 'balanced'"),
        ({"head": "best"}, "head: Input should be 'trained' or 'refit'"),
        ({"updates": 0}, "updates: Input should be greater than 0"),
        ({"updates": 1.5}, "updates: Input should be a valid integer"),
        ({"learning_rate": float("inf")}, "learning_rate: Input should be a finite number"),
        ({"batch_size": 0}, "batch_size: Input should be greater than 0"),
        ({"random_state": None}, "random_state: Input should be a valid integer"),
        ({"random_state": 1 << 32}, "random_state: Input should be less than"),
        ({"cpu": "yes"}, "cpu: Input should be a valid boolean"),
        ({"encoder": None}, "encoder: Input should be a valid string"),
    ],
)
def test_parameters_are_checked_before_anything_is_trained(untrained, parameters, told):
    with pytest.raises(ValueError, match=f"SclClassifier: {told}") as raised:
        clone(untrained).set_params(**parameters).fit(TEXTS, LABELS)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.integration
def test_training_that_fails_leaves_what_was_there(untrained, fitted, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(training, "start", lambda *_: subprocess.Popen(
        [sys.executable, "-c", "print('no luck')\nraise SystemExit(3)"],
        stdout=subprocess.PIPE, text=True,
    ))  # fmt: skip
    first, again = clone(untrained), copy.deepcopy(fitted)
    for classifier in (first, again):
        with pytest.raises(ValueError, match="^training failed: no luck$"):
            classifier.fit(TEXTS, [f"class {i % 3}" for i in range(24)])
    with pytest.raises(NotFittedError):
        first.predict(NEW)
    np.testing.assert_array_equal(again.classes_, fitted.classes_)
    np.testing.assert_array_equal(again.predict_proba(NEW), fitted.predict_proba(NEW))


@pytest.mark.integration
@pytest.mark.parametrize(
    "pair",
    [(False, True), (np.float32(0.1), np.float32(0.2)), (1, 2.5), (-1, 2**70), ("a\\", "=1+1")],
    ids=str,
)
def test_labels_of_every_kind_come_back(untrained, tmp_path, pair):
    labels = [pair[label == "positive"] for label in LABELS]
    shaped = {"texts": pd.DataFrame({"text": TEXTS}), "labels": pd.DataFrame({"label": labels})}
    trained = clone(untrained).set_params(updates=np.int64(1), encoder=Path(untrained.encoder))
    trained.fit(**shaped)
    trained.save(tmp_path / "saved")
    other = SclClassifier.load(tmp_path / "saved")
    assert set(other.predict(TEXTS)) <= set(pair)
    assert other.classes_.tolist() == trained.classes_.tolist() == sorted(pair)
    np.testing.assert_array_equal(other.predict_proba(NEW), trained.predict_proba(NEW))
    assert other.get_params() == trained.get_params() | {"encoder": untrained.encoder}


@pytest.mark.integration
def test_nothing_to_predict_is_nothing(fitted):
    assert fitted.predict([]).shape == (0,)
    assert fitted.predict_proba([]).shape == (0, 2)
    assert fitted.transform([]).shape == (0, fitted.transform(NEW).shape[1])


@pytest.mark.integration
def test_new_texts_are_read_as_those_of_fit(fitted):
    said = fitted.predict_proba(NEW)
    for texts in (np.array(NEW), pd.Series(NEW, index=[7, 5]), pd.DataFrame({"text": NEW})):
        np.testing.assert_array_equal(fitted.predict_proba(texts), said)
    for texts, told in (("fine", "not str"), ([1], "row 1: 1 is no text"), (3, "not int")):
        with pytest.raises(ValueError, match=told):
            fitted.predict(texts)


@pytest.mark.integration
def test_probabilities_can_be_calibrated(untrained):
    calibrated = CalibratedClassifierCV(untrained, cv=2).fit(TEXTS, LABELS)
    probabilities = calibrated.predict_proba(NEW)
    assert probabilities.shape == (2, 2) and np.allclose(probabilities.sum(1), 1)


@pytest.mark.integration
def test_folds_can_run_side_by_side(untrained):
    search = GridSearchCV(untrained, {"scl_weight": [0.0, 0.9]}, cv=2, n_jobs=2)
    scores = search.fit(TEXTS, LABELS).cv_results_["mean_test_score"]
    alone = [
        cross_val_score(clone(untrained).set_params(scl_weight=weight), TEXTS, LABELS, cv=2).mean()
        for weight in (0.0, 0.9)
    ]
    assert scores.tolist() == alone


@pytest.mark.integration
def test_what_fit_does_can_be_seen(untrained, capfd):
    clone(untrained).set_params(verbose=True).fit(TEXTS, LABELS)
    told = capfd.readouterr()
    assert "fairseq-train " in told.out and "train: 100%" in told.err


@pytest.mark.integration
def test_fitting_and_predicting_print_nothing(untrained):
    code = (
        f"from fairseq_scl import SclClassifier\nc = SclClassifier(**{untrained.get_params()!r})\n"
        f"c.fit({TEXTS!r}, {LABELS!r}).predict(['fine'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")


def test_what_is_no_saved_estimator_is_told(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        SclClassifier.load(tmp_path)
    (tmp_path / "estimator.json").write_text('{"parameters": {"depth": 3}, "classes": ["a"]}')
    with pytest.raises(ValueError, match="estimator.json: parameters"):
        SclClassifier.load(tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize("classes", [["a", "b"], ["negative"], ["negative"] * 2, [0, 1], []])
def test_classes_that_are_not_the_models_are_told(fitted, tmp_path, classes):
    fitted.save(tmp_path / "saved")
    described = tmp_path / "saved" / "estimator.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"classes": classes}))
    with pytest.raises(ValueError, match="estimator.json: classes: not those of the model"):
        SclClassifier.load(tmp_path / "saved")


def test_importing_the_package_stays_light():
    code = "import fairseq_scl, sys; print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.mark.parametrize("use", ["load('nowhere')", "SclClassifier().fit(['a'], [])"])
def test_the_logging_of_a_program_stays_as_it_was(use):
    code = (
        "import logging, sys\nfrom fairseq_scl import SclClassifier, load\n"
        f"try: {use}\nexcept (SystemExit, ValueError): print('fairseq' in sys.modules)\n"
        "print(logging.root.level == logging.WARNING, logging.root.handlers, logging.root.disabled)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("True\nTrue [] False\n", "")
