"""Whole fairseq-train runs."""

import subprocess
import sys
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
    from fairseq_scl import manifest

    said = manifest.read(finished / "manifest.json")
    assert len(manifest.expand(said["splits"]["train"]["rows"])) == 20
    assert said["choices"]["shots_seed"] == 1
    assert list(said["splits"]) == ["train", "valid", "test"]


def test_another_draw_is_refused_in_the_same_folder(finished, recipe):
    with pytest.raises(SystemExit, match="manifest.json is of a run on other examples"):
        train(recipe.flags(finished, "--shots-seed", 2, "--max-update", 12))


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


def two_processes(flags: list[str], folder: Path) -> list[str]:
    """Run fairseq-train in two gloo processes; return what each printed."""
    command = [str(Path(sys.executable).parent / "fairseq-train"), *flags]
    command += (
        "--distributed-world-size 2 --distributed-backend gloo --ddp-backend legacy_ddp "
        f"--distributed-no-spawn --distributed-init-method file://{folder}/rendezvous"
    ).split()
    processes = [
        subprocess.Popen(
            [*command, "--distributed-rank", str(rank)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        logs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], logs[0][-3000:]
    return logs


def test_two_processes_restore_train_save_and_resume(recipe, tmp_path):
    save_dir = tmp_path / "run"
    two_processes(recipe.flags(save_dir, "--max-update", 3), tmp_path)
    (tmp_path / "rendezvous").unlink(missing_ok=True)
    logs = two_processes(recipe.flags(save_dir, "--max-update", 5), tmp_path)
    assert "Loaded checkpoint" in logs[0] and "@ 3 updates" in logs[0]
    assert load(save_dir / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] == 5


def test_two_processes_report_what_one_reports(recipe, tmp_path):
    """99 rows in batches of 8 leave uneven shards and a dummy batch; the model is not moved."""
    still = ("--lr", 0, "--max-update", 1, "--batch-size-valid", 8, "--protocol", "few-shot")
    one = run("fairseq-train", *recipe.flags(tmp_path / "one", *still))
    two = two_processes(recipe.flags(tmp_path / "two", *still), tmp_path)
    a, b = last_validation(one.stdout + one.stderr), last_validation(two[0])
    for key in ("accuracy", "mcc", "f1", "acc_and_f1"):
        assert a[key] == b[key]
    assert a["ce_loss"] == pytest.approx(b["ce_loss"], abs=2e-5)
    assert 0 < a["accuracy"] < 100


def test_two_processes_correlate_as_one_does(recipe, encoder, tmp_path):
    text = "sentence\tlabel\n" + "".join(f"number {i} of {i * i}\t{i / 7}\n" for i in range(30))
    (tmp_path / "scores.tsv").write_text(text)
    files = ("--train", tmp_path / "scores.tsv", "--valid", tmp_path / "scores.tsv")
    data = prepare(tmp_path / "data", encoder, *files, "--regression")
    still = ["--lr", "0", "--max-update", "1", "--scl-weight", "0", "--regression-target"]
    still += ["--best-checkpoint-metric", "spearman"]
    flags = [[str(data), *recipe.flags(tmp_path / name, *still)[1:]] for name in ("one", "two")]
    one = run("fairseq-train", *flags[0])
    two = two_processes(flags[1], tmp_path)
    a, b = last_validation(one.stdout + one.stderr), last_validation(two[0])
    assert a["spearman"] == b["spearman"] != 0
    assert a["pearson"] == pytest.approx(b["pearson"], abs=1e-3)
