"""The refitted head: what scikit-learn says, through every door that the trained head has."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import train
from sklearn.linear_model import LogisticRegression
from test_probe import ROWS, blobs, parts_of

from fairseq_scl import load
from fairseq_scl.cli import main
from fairseq_scl.errors import UserError
from fairseq_scl.inference import calibration, refitted_head
from fairseq_scl.models import saved
from fairseq_scl.studies.probe import fitted, normalised, probe_metrics
from fairseq_scl.studies.refit import use_head

SENTENCES = [row.sentences[0] for row in ROWS["test"]]


@pytest.mark.parametrize("count", [2, 3])
def test_its_probabilities_are_scikit_learns(count, tmp_path):
    vectors, classes = blobs(40, 1, count)
    known = LogisticRegression(C=10).fit(normalised(vectors), classes)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(b"weights")
    refitted_head.write(checkpoint, 10.0, known.coef_, known.intercept_)
    found = refitted_head.read(checkpoint)
    assert found.C == 10
    head = refitted_head.RefittedHead(torch.tensor(found.weight), torch.tensor(found.bias))
    with torch.no_grad():
        said = head(torch.from_numpy(vectors)[:, None]).softmax(1).numpy()
    np.testing.assert_allclose(said, known.predict_proba(normalised(vectors)), atol=1e-6)


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    """An evaluated run."""
    run = tmp_path_factory.mktemp("refit") / "run"
    train(recipe.flags(run, "--lr", "1e-2"))
    main(["evaluate", str(run)])
    return run


@pytest.fixture(scope="module")
def refitted(trained, tmp_path_factory):
    """The same with a refitted head, and evaluated with it."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("refitted") / "run")
    use_head(run, "refit", 64)
    assert not (run / "result.json").exists() and not (run / calibration.NAME).exists()
    main(["evaluate", str(run)])
    return run


def result_of(run):
    return json.loads((run / "result.json").read_text())


def test_a_run_answers_by_logistic_regression_on_its_own_vectors(trained, refitted):
    parts = list(parts_of(trained))
    known, held_out, _ = parts
    strength, regression = fitted(known, held_out)
    said = load(refitted).predict(SENTENCES)
    vectors = normalised(np.stack([one.embedding for one in said]))
    told = json.loads((refitted / refitted_head.NAME).read_text())
    assert told["C"] == strength
    logits = np.stack([one.logits for one in said])
    found = calibration.probabilities_of(logits)
    np.testing.assert_allclose(found, regression.predict_proba(vectors), atol=1e-3)
    right = [one.label == row.label for one, row in zip(said, ROWS["test"], strict=True)]
    result = result_of(refitted)
    assert result["head"] == "refit" and result_of(trained)["head"] == "trained"
    assert result["test"]["accuracy"] == pytest.approx(100 * np.mean(right))
    assert result["test"]["accuracy"] == pytest.approx(result["refit"]["test"]["accuracy"], abs=0.6)
    assert result["refit"] == result_of(trained)["refit"]
    assert result["probe"] == result_of(trained)["probe"]
    expected = probe_metrics(*parts, 2)["test"]["accuracy"]
    assert result["test"]["accuracy"] == pytest.approx(expected, abs=0.6)  # a near tie


def test_its_temperature_is_of_its_own_logits(trained, refitted):
    said = load(refitted).predict([row.sentences[0] for row in ROWS["valid"]])
    classes = load(refitted).classes
    labels = np.array([classes.index(row.label) for row in ROWS["valid"]])
    expected = calibration.fit_temperature(np.stack([one.logits for one in said]), labels)
    found = calibration.read(saved.checkpoint_of(refitted))
    assert found.temperature == pytest.approx(expected, rel=1e-3) and found.refit is not None
    shares = calibration.probabilities_of(said[0].logits[None], found.temperature)
    assert list(said[0].probabilities.values()) == pytest.approx(shares[0].tolist(), abs=1e-6)
    assert calibration.read(saved.checkpoint_of(trained)).refit is None


def test_a_temperature_of_the_other_head_is_ignored(trained, refitted, tmp_path, caplog):
    run = shutil.copytree(refitted, tmp_path / "run")
    (run / refitted_head.NAME).unlink()
    assert load(run).temperature == 1
    assert "calibration.json is of another head than the one in use, and is ignored" in caplog.text
    use_head(run, "refit", 64)
    use_head(run, "trained", 64)
    assert not {refitted_head.NAME, calibration.NAME, "result.json"} & {
        path.name for path in run.iterdir()
    }
    for one, other in zip(*(load(at).predict(SENTENCES) for at in (run, trained)), strict=True):
        assert np.array_equal(one.logits, other.logits)


def test_it_is_of_one_checkpoint(refitted, trained, tmp_path, caplog):
    run = shutil.copytree(refitted, tmp_path / "run")
    with open(saved.checkpoint_of(run), "ab") as file:
        file.write(b"\0")
    assert refitted_head.read(saved.checkpoint_of(run)) is None
    assert "refit.json is of another checkpoint" in caplog.text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weight": [[1.0], [2.0]]}, "refit.json: weight: must be 2 rows of 32 numbers"),
        ({"bias": [0.0]}, "refit.json: bias: must be 2 numbers"),
        ({"weight": "code"}, "refit.json: weight: Input should be a valid array"),
        ({"C": 0}, "refit.json: C: Input should be greater than 0"),
        ({"more": 1}, "refit.json: more: Extra inputs are not permitted"),
    ],
)
def test_a_damaged_one_is_told_in_one_line(refitted, tmp_path, change, told):
    run = shutil.copytree(refitted, tmp_path / "run")
    path = run / refitted_head.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=told):
        load(run)


def test_an_export_that_cannot_hold_it_is_refused(refitted, tmp_path):
    with pytest.raises(UserError, match="refit.json holds its head, .* --format onnx or setfit"):
        main(["export", str(refitted), str(tmp_path / "out"), "--format", "transformers"])
    assert not (tmp_path / "out").exists()


def test_onnx_computes_it(refitted, tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("test_export_onnx")
    run = refitted
    exported = onnx.export(run, tmp_path / "exported")
    onnx.assert_same(run, exported, SENTENCES[:20])


def test_a_report_tells_it_from_the_trained_head(refitted, capsys):
    main(["report", str(refitted)])
    assert "--head refit" in capsys.readouterr().out


def test_a_class_without_training_rows_is_told(recipe, tmp_path):
    noise = ("--noise", "label", "--label-noise", 0.5)  # flips one of two rows
    train(recipe.flags(tmp_path / "run", "--max-update", 1, "--num-shots", 2, *noise))
    with pytest.raises(UserError, match="--head refit needs rows of every class, '.*' has none"):
        use_head(tmp_path / "run", "refit", 64)
    assert not (tmp_path / "run" / refitted_head.NAME).exists()
