"""Studies: many runs through Hydra's multirun, killed and started again."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, run
from hypothesis import given
from hypothesis import strategies as st

from fairseq_scl.reports import frame
from fairseq_scl.studies.progress import number_of_runs


def overrides(recipe, folder, *more):
    """A study of the tiny encoder: 4 updates on 20 sample sentences."""
    return [
        "--multirun", "--config-dir", "configs", "--config-name", "finetune",
        f"hydra.sweep.dir={folder}", "data=sample", f"data_dir={recipe.data.parent}",
        f"checkpoint.finetune_from_model={recipe.encoder / 'model.pt'}",
        "model._name=sentence_roberta", "+model.encoder_layers=2", "+model.encoder_embed_dim=32",
        "+model.encoder_ffn_embed_dim=64", "+model.encoder_attention_heads=2",
        "task.max_positions=64", "+task.separator_token=2", "optimization.max_update=4",
        "lr_scheduler.warmup_updates=1", "dataset.validate_interval_updates=2",
        "common.log_interval=1", "optimization.lr=[1e-3]",
        "hydra.sweep.subdir='weight${criterion.scl_weight}/draw${task.shots_seed}'",
        *more,
    ]  # fmt: skip


def study(recipe, folder, *more):
    return run("python", "-m", "fairseq_scl.studies.study", *overrides(recipe, folder, *more))


GRID = ("criterion.scl_weight=0,0.9", "task.shots_seed=1,2")


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """A study that nothing disturbed."""
    folder = tmp_path_factory.mktemp("study") / "finished"
    result = study(recipe, folder, *GRID)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def outcomes(folder):
    """Each run's metrics; what depends on the clock is left out."""
    return {
        str(path.parent.relative_to(folder)): {
            key: json.loads(path.read_text())[key]
            for key in ("valid", "test", "manifest", "updates")
        }
        for path in folder.rglob("result.json")
    }


def test_a_study_makes_every_run(finished):
    runs = frame(finished)
    assert [(loss[:6], draw) for loss, draw in zip(runs["loss"], runs["draw"], strict=True)] == [
        ("CE", "1/1"), ("CE", "2/2"), ("CE+SCL", "1/1"), ("CE+SCL", "2/2")
    ]  # fmt: skip
    for folder in runs["folder"]:
        assert not list(folder.glob("*.pt"))  # tested, so no longer needed
        result = json.loads((folder / "result.json").read_text())
        assert result["updates"] in (2, 4)
        assert result["seconds"] > 0
        assert result["peak_memory_mib"] > 50
        steps = [step for step, _ in result["curves"]["train_inner"]["ce_loss"]]
        assert steps == [1, 2, 3, 4]  # and nothing of the run before it in the same process


def test_a_run_in_a_study_is_a_run_of_fairseq_hydra_train(recipe, finished, tmp_path):
    arguments = overrides(recipe, tmp_path, "criterion.scl_weight=0.9", "task.shots_seed=2")
    result = run("fairseq-hydra-train", *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    [folder] = tmp_path.glob("*/*/checkpoint_best.pt")
    assert run("fairseq-scl", "evaluate", folder.parent).returncode == 0
    assert outcomes(tmp_path)["weight0.9/draw2"] == outcomes(finished)["weight0.9/draw2"]


def test_what_is_finished_is_skipped_and_its_test_not_read_again(recipe, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("result.json")}
    result = study(recipe, finished, *GRID)
    assert result.returncode == 0
    assert "4/4 runs, 4 skipped, 0 running, 0 failed" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("result.json")} == before


def test_another_configuration_does_not_pass_for_a_finished_run(recipe, finished):
    before = outcomes(finished)
    result = study(recipe, finished, *GRID, "optimization.lr=[2e-3]")
    assert result.returncode == 1
    assert result.stderr.count("choose another hydra.sweep.dir") == 4
    assert "'lr': [0.001]" in result.stderr
    assert outcomes(finished) == before


def test_a_failed_run_is_told_and_does_not_stop_the_others(recipe, tmp_path):
    choices = ("criterion.scl_weight=0,1.5,0.9", "task.shots_seed=1")
    result = study(recipe, tmp_path, *choices)
    assert result.returncode == 1
    assert "3/3 runs, 0 skipped, 0 running, 1 failed" in result.stderr
    assert "draw1: failed: fairseq-scl: error: --scl-weight 1.5 must be in [0, 1]" in result.stderr
    assert "Traceback" not in result.stderr
    assert frame(tmp_path)["error"].notna().tolist() == [False, False, True]
    failed = json.loads((tmp_path / "weight1.5" / "draw1" / "failed.json").read_text())
    assert failed["config"]["criterion"]["scl_weight"] == 1.5
    report = run("fairseq-scl", "report", tmp_path)
    assert "--scl-weight 1.5 must be in [0, 1]" in report.stdout


def test_a_search_does_not_read_the_test_set(recipe, tmp_path):
    assert study(recipe, tmp_path, "split=null", "criterion.scl_weight=0.9").returncode == 0
    [one] = frame(tmp_path).to_dict("records")
    assert all(math.isnan(one[name]) for name in ("test", "knn", "probe", "refit"))
    assert one["validation"] > 0
    assert not (one["folder"] / "test_embeddings.npz").exists()


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_launchers_give_the_same_results(recipe, finished, tmp_path, launcher):
    more = {
        "joblib": ["hydra.launcher.n_jobs=2"],
        "submitit_local": ["hydra.launcher.timeout_min=5"],
    }[launcher]
    result = study(recipe, tmp_path, *GRID, f"hydra/launcher={launcher}", *more)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "4/4 runs" in result.stderr
    assert outcomes(tmp_path) == outcomes(finished)


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_study_killed_again_and_again_ends_as_an_undisturbed_one(
    recipe, finished, tmp_path, kills
):
    command = [sys.executable, "-m", "fairseq_scl.studies.study"]
    command += overrides(
        recipe, tmp_path, *GRID, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    chance = random.Random(3)
    for _ in range(kills):
        process = subprocess.Popen(
            command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(7, 16))  # start-up takes about 7
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path in tmp_path.rglob("result.json"):  # none half-written
            json.loads(path.read_text())
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert outcomes(tmp_path) == outcomes(finished)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_the_number_of_runs_is_the_product_of_the_choices(sizes):
    choices = [f"a{i}={','.join(map(str, range(size)))}" for i, size in enumerate(sizes)]
    expected = 1
    for size in sizes:
        expected *= size
    assert number_of_runs([*choices, "b=1", "c='x,y'", "d=[1,2]"]) == expected
    assert number_of_runs([*choices, "e=range(1,11)"]) == 10 * expected
