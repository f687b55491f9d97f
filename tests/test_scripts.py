"""The scripts of the paper's tables: what they would run, what they refuse, one real study."""

import json
import shlex
import subprocess

import pytest
from conftest import ROOT

SCRIPTS = ("few_shot", "noise", "full", "transfer", "batch_size", "search")


def script(name, *arguments, timeout=500):
    command = ["bash", f"scripts/{name}.sh", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=timeout)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_dry_run_prints_commands_that_hydra_understands(name, tmp_path):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    result = script(name, "--dry-run", "--draws", 2, "--jobs", 2, "--output", tmp_path / "out, 1")
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())
    commands = [shlex.split(line) for line in result.stdout.splitlines()]
    studies = [command for command in commands if "fairseq_scl.studies.study" in command]
    assert studies
    for command in studies:
        overrides = OverridesParser.create().parse_overrides(command[8:])
        values = {override.key_or_group: override for override in overrides}
        assert values["hydra.launcher.n_jobs"].value() == 2
        assert str(tmp_path / "out, 1") in values["hydra.sweep.dir"].value()
        assert values["task.shots_seed"].input_line[16:] in ("range(1,3)", "1")
    assert any(command[:2] == ["fairseq-scl", "report"] for command in commands)


def test_each_loss_of_a_transfer_starts_from_its_own_model(tmp_path):
    result = script(
        "transfer", "--dry-run", "--output", tmp_path, "--scl-weight", "0.5",
        "--", "optimization.max_update=9",
    )  # fmt: skip
    studies = [shlex.split(line) for line in result.stdout.splitlines() if "transfer" in line]
    starts = [
        (argument, command)
        for command in studies
        for argument in command
        if argument.startswith("checkpoint.finetune") and "checkpoint_best" in argument
    ]
    assert len(starts) == 2
    for start, command in starts:
        [loss] = [argument for argument in command if argument.startswith("criterion.scl_weight")]
        assert loss in start
        assert any(f"hydra.sweep.subdir='{loss}'" in command for command in studies)


@pytest.mark.parametrize("name", SCRIPTS)
def test_overrides_end_the_command(tmp_path, name):
    result = script(name, "--dry-run", "--output", tmp_path, "--", "a.b=1", "c='d e'")
    studies = [shlex.split(line) for line in result.stdout.splitlines() if "--multirun" in line]
    assert studies
    assert all(command[-2:] == ["a.b=1", "c='d e'"] for command in studies)
    assert not result.stderr


def test_glue_comes_from_the_hub_unless_a_folder_is_named(tmp_path):
    for more, folder in {(): False, ("--glue-dir", tmp_path / "glue"): True}.items():
        result = script("full", "--dry-run", "--output", tmp_path, *more)
        commands = [line for line in result.stdout.splitlines() if "--data glue:" in line]
        assert len(commands) == 6
        assert all((f"--glue-dir {tmp_path}/glue" in line) == folder for line in commands)


def test_slurm_is_hydras_launcher(tmp_path):
    result = script("few_shot", "--dry-run", "--slurm", "gpu", "--output", tmp_path)
    assert "hydra/launcher=submitit_slurm hydra.launcher.partition=gpu" in result.stdout
    assert "joblib" not in result.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_lists_every_option(name):
    result = script(name, "--help")
    assert result.returncode == 0
    for option in ("--tasks", "--draws", "--encoder", "--jobs", "--slurm", "--dry-run"):
        assert option in result.stdout
    assert "__TASKS__" not in result.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("few_shot", "--shots 30", "--shots 30 must be one of: 20 100 1000"),
        ("few_shot", "--tasks STS-B", "--tasks STS-B must be one of: sample SST-2"),
        ("few_shot", "--draws many", "--draws many must be a whole number"),
        ("few_shot", "--jobs 0", "--jobs 0 must be a whole number"),
        ("few_shot", "--encoder nowhere", "--encoder nowhere is no folder"),
        ("few_shot", "--batch-sizes 16", "unknown option --batch-sizes"),
        ("few_shot", "sample", "unknown option sample"),
        ("full", "--tasks", "--tasks needs a value"),
        ("noise", "--temperatures hot", "--temperatures hot must be"),
        ("noise", "--forward nowhere.pt", "nowhere.pt is no file"),
        ("batch_size", "--batch-sizes 32", "--batch-sizes 32 must be one of: 16 64 256"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(name, arguments, told, tmp_path):
    result = script(name, "--dry-run", "--output", tmp_path, *arguments.split())
    assert result.returncode == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_small_table_from_nothing(tmp_path):
    arguments = ["--tasks", "sample", "--shots", "20 100", "--draws", "1", "--output", tmp_path]
    short = ["--", "optimization.max_update=2", "dataset.validate_interval_updates=2",
             "lr_scheduler.warmup_updates=1"]  # fmt: skip
    result = script("few_shot", *arguments, *short)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "4/4 runs, 0 skipped, 0 running, 0 failed" in result.stderr
    results = sorted((tmp_path / "few_shot").rglob("result.json"))
    assert len(results) == 4
    assert {json.loads(path.read_text())["config"]["task"]["protocol"] for path in results} == {
        "given"
    }
    for name in ("report.html", "shots.png", "embeddings.png"):
        assert (tmp_path / "few_shot" / name).stat().st_size > 1000
    again = script("few_shot", *arguments, *short)
    assert "4/4 runs, 4 skipped" in again.stderr
