"""A run started again in its folder: by its own settings, by others, in one process and in two."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import train

from fairseq_scl.repairs import resuming


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    """A run of 4 updates."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(recipe.flags(folder, "--max-update", 4))
    return folder


@pytest.fixture
def begun(finished, tmp_path) -> Path:
    """A copy of it that a test may go on with."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def checkpoints(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.pt")}


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--max-update", 6, "--total-num-update", 6, "--max-epoch", 9, "--patience", 5),
        ("--log-interval", 3, "--num-workers", 1, "--batch-size-valid", 16, "--scl-chunk-size", 4),
        ("--scl-weight", "0.90", "--scl-temperature", "3e-1"),
    ],
)
def test_the_same_settings_go_on(recipe, begun, more):
    train(recipe.flags(begun, *more))
    updates = 6 if "--max-update" in more else 8
    state = torch.load(begun / "checkpoint_last.pt", weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == updates


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--scl-weight", 0), "--scl-weight 0.9, not 0.0"),
        (("--scl-temperature", 0.1), "--scl-temperature 0.3, not 0.1"),
        (("--scl-queue", 16), "--scl-queue 0, not 16"),
        (("--criterion", "sentence_prediction"), "--criterion sentence_prediction_scl, not"),
        (("--lr", "2e-3"), "--lr 0.001, not 0.002"),
        (("--seed", 2), "--seed 1, not 2"),
        (("--batch-size", 4), "--batch-size 8, not 4"),
        (("--update-freq", 2), "--update-freq 1, not 2"),
        (("--optimizer", "fused_adam"), "--optimizer adam, not fused_adam"),
        (("--weight-decay", 0.1), "--weight-decay 0.0, not 0.1"),
        (("--warmup-updates", 4), "--warmup-updates 2, not 4"),
        (("--pooling", "mean"), "--pooling cls, not mean"),
        (("--dropout", 0.3), "--dropout 0.1, not 0.3"),
        (("--shots-seed", 2), "--shots-seed 1, not 2"),
        (("--best-checkpoint-metric", "mcc"), "--best-checkpoint-metric accuracy, not mcc"),
        (("--finetune-from-model", "other.pt"), "model.pt, not"),
    ],
)
@pytest.mark.parametrize("updates", [4, 6])  # finished, and to go on
def test_other_settings_are_refused_in_one_line(
    recipe, finished, monkeypatch, tmp_path, more, told, updates
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(recipe.encoder / "model.pt", "other.pt")
    before = checkpoints(finished)
    with pytest.raises(SystemExit) as stop:
        train(recipe.flags(finished, "--max-update", updates, *more))
    [line] = str(stop.value).splitlines()
    assert line.startswith(f"fairseq-scl: error: {finished} holds a run with --")
    assert told in line
    assert checkpoints(finished) == before


def test_an_optimizer_of_other_parameters_is_told_in_one_line(recipe, begun):
    """As a version that also trained what no loss reaches has left it."""
    path = begun / "checkpoint_last.pt"
    state = torch.load(path, weights_only=True)
    state["last_optimizer_state"]["param_groups"][0]["params"].append(999)
    torch.save(state, path)
    with pytest.raises(SystemExit, match=r"run holds a run whose optimizer has other parameters"):
        train(recipe.flags(begun))


def test_the_best_checkpoint_tells_where_there_is_no_last_one(recipe, tmp_path):
    train(recipe.flags(tmp_path, "--max-update", 2, "--no-last-checkpoints"))
    with pytest.raises(SystemExit, match=r"holds a run with --scl-weight 0.9, not 0.5"):
        train(recipe.flags(tmp_path, "--max-update", 2, "--scl-weight", 0.5))
    train(recipe.flags(tmp_path, "--max-update", 2, "--no-last-checkpoints"))


def test_a_report_names_the_settings_of_the_training(recipe, begun, capsys):
    from fairseq_scl.cli import main

    main(["evaluate", str(begun)])
    with pytest.raises(SystemExit):
        train(recipe.flags(begun, "--max-update", 4, "--scl-weight", 0))
    main(["evaluate", str(begun)])
    capsys.readouterr()
    main(["report", str(begun)])
    assert "CE+SCL (λ 0.9, τ 0.3)" in capsys.readouterr().out


def test_the_flags_of_an_architecture_are_those_it_adds():
    names = resuming.architecture_options("sentence_roberta")
    assert {"pooling", "encoder_layers", "dropout"} <= names
    assert not {"save_dir", "log_interval"} & names
    assert resuming.architecture_options("unknown") == set()
