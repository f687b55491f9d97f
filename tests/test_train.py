"""Whole fairseq-train runs."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT, last_validation, prepare, run, train


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def same_weights(a: Path, b: Path) -> bool:
    ours, theirs = load(a)["model"], load(b)["model"]
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    """A run of 8 updates (epochs of 3), not interrupted."""
    save_dir = tmp_path_factory.mktemp("finished")
    train(recipe.flags(save_dir))
    return save_dir


def test_the_command_trains_and_says_what_it_optimises(recipe, tmp_path):
    result = run("fairseq-train", *recipe.flags(tmp_path))
    assert result.returncode == 0, result.stderr[-3000:]
    logged = last_validation(result.stdout + result.stderr)
    for key in (
        "loss", "ce_loss", "scl_loss", "accuracy", "mcc", "f1",
        "anchors_with_positive", "positive_similarity", "negative_similarity",
    ):  # fmt: skip
        assert key in logged
    assert logged["loss"] == pytest.approx(0.1 * logged["ce_loss"] + 0.9 * logged["scl_loss"], 1e-4)
    assert (tmp_path / "checkpoint_best.pt").is_file()
    assert "nll_loss" not in logged


def test_the_draw_lies_beside_the_checkpoint(finished):
    from fairseq_scl.data import manifest

    said = manifest.read(finished / "manifest.json")
    assert len(said.splits["train"]) == 20
    assert said.choices.shots_seed == 1
    assert list(said.splits) == ["train", "valid", "test"]


def test_other_examples_are_refused_in_the_same_folder(finished, recipe, tmp_path):
    with pytest.raises(SystemExit, match="holds a run with --shots-seed 1, not 2"):
        train(recipe.flags(finished, "--shots-seed", 2, "--max-update", 12))
    data = prepare(tmp_path / "data", recipe.encoder, "--data", "sample", "--max-length", 12)
    with pytest.raises(SystemExit, match="manifest.json is of a run on other examples"):
        train([str(data), *recipe.flags(finished, "--max-update", 12)[1:]])


def test_the_same_seed_gives_the_same_weights_bit_for_bit(finished, recipe, tmp_path):
    train(recipe.flags(tmp_path))
    assert same_weights(finished / "checkpoint_last.pt", tmp_path / "checkpoint_last.pt")


def test_another_seed_gives_other_weights(finished, recipe, tmp_path):
    train(recipe.flags(tmp_path, "--seed", 2))
    assert not same_weights(finished / "checkpoint_last.pt", tmp_path / "checkpoint_last.pt")


@pytest.mark.parametrize("stop_at", range(1, 8))
def test_resuming_after_any_update_ends_where_an_undisturbed_run_ends(
    finished, recipe, tmp_path, stop_at
):
    train(recipe.flags(tmp_path, "--max-update", stop_at))
    assert load(tmp_path / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] == stop_at
    train(recipe.flags(tmp_path))
    assert same_weights(finished / "checkpoint_last.pt", tmp_path / "checkpoint_last.pt")


def test_a_finished_run_started_again_is_left_as_it_is(recipe, tmp_path):
    train(recipe.flags(tmp_path, "--max-update", 4))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")}
    train(recipe.flags(tmp_path, "--max-update", 4))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")} == before
    train(recipe.flags(tmp_path, "--max-update", 6))
    state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 6


def test_fairseq_validate_loads_what_a_run_writes(finished, recipe):
    result = run(
        "fairseq-validate", recipe.data, "--user-dir", ROOT / "fairseq_scl", "--cpu",
        "--path", finished / "checkpoint_best.pt", "--task", "few_shot_glue",
        "--criterion", "sentence_prediction_scl",
        "--valid-subset", "test", "--batch-size", 64, "--log-format", "simple",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert "accuracy" in result.stdout + result.stderr


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_hub_loads_what_a_run_writes(recipe, tmp_path, pooling):
    from fairseq_scl.models.sentence_roberta import SentenceRobertaModel

    train(recipe.flags(tmp_path, "--pooling", pooling, "--max-update", 2))
    hub = SentenceRobertaModel.from_pretrained(
        str(tmp_path), "checkpoint_best.pt", str(recipe.data)
    ).eval()
    assert hub.model.args.pooling == pooling
    tokens = torch.tensor([[0, 10, 11, 2, 1, 1], [0, 12, 13, 14, 15, 2]])
    log_probabilities = hub.predict("sentence_classification_head", tokens)
    assert log_probabilities.exp().sum(1).allclose(torch.ones(2))
    alone = hub.predict("sentence_classification_head", tokens[0, :4])
    assert torch.allclose(alone[0], log_probabilities[0], atol=1e-6)


def test_the_best_checkpoint_is_chosen_on_the_unrounded_metric(recipe, tmp_path):
    train(recipe.flags(tmp_path, "--best-checkpoint-metric", "mcc"))
    best = load(tmp_path / "checkpoint_best.pt")["extra_state"]["best"]
    assert best != round(best, 3)
