"""evaluate: runs without a validation set, and what it makes of classes and probabilities."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import PACKAGE, prepare, train

from fairseq_scl import load
from fairseq_scl.cli import main
from fairseq_scl.errors import UserError
from fairseq_scl.inference import calibration
from fairseq_scl.models import saved
from fairseq_scl.preparation.tables import Columns, read_file
from fairseq_scl.reports import frame

ROWS = read_file(PACKAGE / "sample_data" / "test.tsv", Columns(("sentence",), "label"))


def result_of(run) -> dict:
    return json.loads((run / "result.json").read_text())


@pytest.fixture(scope="module")
def unvalidated(recipe, tmp_path_factory):
    """An evaluated run without a validation set, in a folder of its own."""
    run = tmp_path_factory.mktemp("unvalidated") / "run"
    train(recipe.flags(run, "--disable-validation", "--scl-weight", 0))
    main(["evaluate", str(run)])
    return run


@pytest.fixture(scope="module")
def validated(recipe, tmp_path_factory):
    """The same with one."""
    run = tmp_path_factory.mktemp("validated") / "run"
    train(recipe.flags(run, "--scl-weight", 0))
    main(["evaluate", str(run)])
    return run


def test_a_run_without_validation_is_used_as_its_last_checkpoint_is(unvalidated, tmp_path):
    assert not (unvalidated / saved.BEST).exists()
    told = result_of(unvalidated)
    assert told["valid"] is None and told["test"]["accuracy"] > 0
    sentences = [row.sentences[0] for row in ROWS[:5]]
    by_folder, by_file = load(unvalidated), load(unvalidated / saved.LAST)
    for one, other in zip(by_folder.predict(sentences), by_file.predict(sentences), strict=True):
        assert one.probabilities == other.probabilities
    output = tmp_path / "labels.jsonl"
    (tmp_path / "in.txt").write_text("\n".join(sentences) + "\n")
    main(["predict", str(unvalidated), str(tmp_path / "in.txt"), "--output", str(output)])
    assert len(output.read_text().splitlines()) == 5
    main(["export", str(unvalidated), str(tmp_path / "exported")])
    assert (tmp_path / "exported" / "model.safetensors").is_file()


@pytest.mark.integration
def test_it_is_evaluated_by_a_process_of_its_own(unvalidated, tmp_path):
    run = shutil.copytree(unvalidated, tmp_path / "run")
    (run / "result.json").unlink()
    command = [sys.executable, "-m", "fairseq_scl.cli", "evaluate", str(run)]
    subprocess.run(command, check=True, capture_output=True)
    assert result_of(run)["test"] == result_of(unvalidated)["test"]


def test_what_was_measured_is_printed(unvalidated, capsys):
    main(["evaluate", str(unvalidated)])
    accuracy = json.loads((unvalidated / "result.json").read_text())["test"]["accuracy"]
    told = capsys.readouterr().out
    assert told.startswith(f"{unvalidated}: test: accuracy {accuracy:.1f}, mcc ")


def test_a_report_of_runs_without_validation_has_no_top_3(unvalidated, tmp_path, capsys):
    shutil.copytree(unvalidated, tmp_path / "run")
    main(["report", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "options --disable-validation" in printed and " – |" in printed
    assert "top 3" not in printed
    [one] = frame(tmp_path).to_dict("records")
    assert np.isnan(one["validation"]) and one["test"] > 0


def test_classes_are_counted_as_by_hand(validated):
    told = result_of(validated)
    said = [p.label for p in load(validated).predict([row.sentences[0] for row in ROWS])]
    true = [row.label for row in ROWS]
    pairs = list(zip(true, said, strict=True))
    names = told["classes"]
    assert told["confusion"] == [[pairs.count((t, p)) for p in names] for t in names]
    assert list(told["per_class"]) == names
    for name, scores in told["per_class"].items():
        hits = pairs.count((name, name))
        precision = hits / said.count(name) if name in said else 0
        recall = hits / true.count(name)
        assert scores["support"] == true.count(name)
        assert scores["precision"] == pytest.approx(100 * precision)
        assert scores["recall"] == pytest.approx(100 * recall)
        mean = 2 * precision * recall / (precision + recall) if hits else 0
        assert scores["f1"] == pytest.approx(100 * mean)


def test_the_temperature_is_that_of_the_validation_set(validated):
    rows = read_file(PACKAGE / "sample_data" / "valid.tsv", Columns(("sentence",), "label"))
    classifier = load(validated)

    def of(rows):
        logits = np.array([p.logits for p in classifier.predict([r.sentences[0] for r in rows])])
        return logits, np.array([classifier.classes.index(row.label) for row in rows])

    written = json.loads((validated / calibration.NAME).read_text())
    expected = calibration.fit_temperature(*of(rows))
    assert classifier.temperature == written["temperature"] == pytest.approx(expected, rel=1e-3)
    told = result_of(validated)["calibration"]
    assert (told["fitted_on"], told["rows"]) == ("valid", len(rows))
    logits, labels = of(ROWS)
    for name, temperature in (("before", 1), ("after", classifier.temperature)):
        said = calibration.probabilities_of(logits, temperature)
        error = calibration.expected_calibration_error(said, labels)
        assert told[f"ece_{name}"] == pytest.approx(error, abs=1e-2)  # rows at a bin's edge
        assert told[f"brier_{name}"] == pytest.approx(calibration.brier_score(said, labels))


def test_probabilities_are_scaled_only_by_the_checkpoints_own_temperature(
    unvalidated, tmp_path, caplog
):
    run = shutil.copytree(unvalidated, tmp_path / "run")
    assert result_of(run)["calibration"] is None and not (run / calibration.NAME).exists()
    before = load(run).predict(["a joy to watch"])[0]
    (run / "result.json").unlink()
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=50)
    made = calibration.calibrate(run / saved.LAST, rng.normal(size=(50, 2)), labels, "folds")
    after = load(run).predict(["a joy to watch"])[0]
    expected = calibration.probabilities_of(before.logits[None], made.temperature)
    assert list(after.probabilities.values()) == pytest.approx(expected[0].tolist(), abs=1e-6)
    assert list(after.probabilities.values()) != list(before.probabilities.values())
    assert after.label == before.label
    main(["evaluate", str(run)])
    told = result_of(run)["calibration"]
    assert (told["fitted_on"], told["rows"], told["temperature"]) == (
        "folds", 50, made.temperature
    )  # fmt: skip
    assert told["ece_before"] != told["ece_after"]
    shutil.copy(run / saved.LAST, run / "another.pt")
    with open(run / "another.pt", "ab") as file:
        file.write(b"\0")
    assert calibration.read(run / "another.pt") is None
    assert "is of another checkpoint than another.pt, and is ignored" in caplog.text


def test_rows_that_a_temperature_was_fitted_on_do_not_judge_it(validated, tmp_path):
    run = shutil.copytree(validated, tmp_path / "run")
    (run / "result.json").unlink()
    main(["evaluate", str(run), "--split", "valid"])
    told = result_of(run)["calibration"]
    assert told["temperature"] > 0 and "ece_after" not in told


@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_a_run_that_is_not_validated_yet_is_told(validated, tmp_path, command):
    shutil.copytree(validated, tmp_path / "run")
    (tmp_path / "run" / saved.BEST).unlink()
    (tmp_path / "in.txt").write_text("fine\n")
    more = {"predict": ["in.txt"], "export": ["out"]}.get(command, [])
    with pytest.raises(UserError, match=r"run: checkpoint_last.pt, but no checkpoint_best.pt: "):
        main([command, str(tmp_path / "run"), *(str(tmp_path / name) for name in more)])
    (tmp_path / "run" / saved.LAST).unlink()
    with pytest.raises(UserError, match=r"checkpoint_best.pt: no such file, and no checkpoint_l"):
        main([command, str(tmp_path / "run"), *(str(tmp_path / name) for name in more)])


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02N.", b"{}"])
def test_a_damaged_last_checkpoint_is_told_in_one_line(tmp_path, content):
    (tmp_path / saved.LAST).write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint_last.pt: not a whole fairseq checkpoint"):
        main(["evaluate", str(tmp_path)])


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ([], r"run: the split 'test' of .*data is missing; prepare the data with it"),
        (["--test", "bare.tsv"], r"run: the split 'test' of .*data has no labels to compare with"),
    ],
)
def test_a_split_that_cannot_be_tested_is_told(recipe, tmp_path, monkeypatch, test, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare.tsv").write_text("sentence\nfine\nawful\n")
    names = {split: PACKAGE / "sample_data" / f"{split}.tsv" for split in ("train", "valid")}
    files = [part for split, path in names.items() for part in (f"--{split}", path)]
    unlabelled = ["--unlabelled"] if test else []
    data = prepare(tmp_path / "data", recipe.encoder, *files, *test, *unlabelled)
    run = tmp_path / "run"
    train([str(data), *recipe.flags(run, "--max-update", 2)[1:]])
    with pytest.raises(UserError, match=told):
        main(["evaluate", str(run)])
    assert not (run / "result.json").exists()
    main(["evaluate", str(run), "--split", "valid"])
    assert result_of(run)["test"]["accuracy"] > 0


def test_data_that_moved_is_found_by_a_flag(validated, recipe, tmp_path, capsys):
    run, data = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(validated, run)
    (run / "result.json").unlink()
    state = torch.load(run / saved.BEST, weights_only=True)
    state["cfg"]["task"]["data"] = gone = str(tmp_path / "gone")
    torch.save(state, run / saved.BEST)
    with pytest.raises(SystemExit, match=f"there is no {gone}; say with --data where its data"):
        main(["evaluate", str(run)])
    shutil.copytree(recipe.data, data)
    main(["evaluate", str(run), "--data", str(data)])
    assert result_of(run)["test"] == result_of(validated)["test"]


def test_other_data_than_the_runs_is_refused(validated, recipe, tmp_path):
    run, data = tmp_path / "run", tmp_path / "other"
    shutil.copytree(validated, run)
    (run / "result.json").unlink()
    shutil.copytree(recipe.data, data)
    labels = data / "label" / "test.bin"
    labels.write_bytes(labels.read_bytes()[::-1])
    with pytest.raises(SystemExit, match=r"label/test.bin has changed since .*manifest.json was"):
        main(["evaluate", str(run), "--data", str(data)])
    assert not (run / "result.json").exists()


def test_a_result_is_of_one_checkpoint_and_split_whatever_the_clock_says(validated, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(validated, run)
    of_test, told = result_of(run), run / "result.json"

    def evaluated_again(*more: str) -> bool:
        os.utime(told, (0, 0))
        main(["evaluate", str(run), *more])
        return told.stat().st_mtime > 0

    assert not evaluated_again()
    assert evaluated_again("--split", "valid")
    assert result_of(run)["split"] == "valid"
    assert evaluated_again()
    state = torch.load(run / saved.BEST, weights_only=True)
    head = "classification_heads.sentence_classification_head.out_proj.bias"
    state["model"][head].add_(torch.tensor([100.0, 0.0]))
    torch.save(state, run / saved.BEST)
    os.utime(run / saved.BEST, (0, 0))  # older than the result, but another
    main(["evaluate", str(run)])
    assert result_of(run)["checkpoint"] != of_test["checkpoint"]
    assert result_of(run)["confusion"] != of_test["confusion"]
