"""evaluate: runs without a validation set, and what it makes of classes and probabilities."""

import json
import shutil

import numpy as np
import pytest
from conftest import PACKAGE, prepare, train

from fairseq_scl import load
from fairseq_scl.cli import main
from fairseq_scl.errors import UserError
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


def test_a_report_of_runs_without_validation_has_no_top_3(unvalidated, tmp_path, capsys):
    shutil.copytree(unvalidated, tmp_path / "run")
    main(["report", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "options --disable-validation" in printed and " – |" in printed
    assert "top 3" not in printed
    [one] = frame(tmp_path).to_dict("records")
    assert np.isnan(one["validation"]) and one["test"] > 0


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
