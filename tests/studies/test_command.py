"""`fairseq-scl study`: what it would run, what it refuses, one real study."""

import json
import shlex
import subprocess
import sys

import pytest
from conftest import PACKAGE, ROOT, build_encoder

from fairseq_scl.cli import main
from fairseq_scl.studies.command import STUDIES, Command


@pytest.fixture
def dry(tmp_path, capsys):
    """The commands that a study would run with these options."""

    def printed(name: str, *more: object) -> list[list[str]]:
        main(["study", name, "--dry-run", "--output", str(tmp_path / "out"), *map(str, more)])
        told = capsys.readouterr()
        assert not told.err
        assert not (tmp_path / "out").exists()
        return [shlex.split(line) for line in told.out.splitlines()]

    return printed


def multiruns(commands: list[list[str]]) -> list[list[str]]:
    return [command for command in commands if "--multirun" in command]


@pytest.mark.parametrize("name", STUDIES)
def test_a_dry_run_prints_commands_that_hydra_understands(name, tmp_path, dry):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    output = tmp_path / "it's, 1"
    commands = dry(name, "--draws", 2, "--jobs", 2, "--output", output)
    studies = multiruns(commands)
    assert studies
    for command in studies:
        assert command[:4] == ["python", "-m", "fairseq_scl.studies.study", "--multirun"]
        assert command[4:6] == ["--config-dir", str(PACKAGE / "configs")]
        overrides = OverridesParser.create().parse_overrides(command[8:])
        values = {override.key_or_group: override for override in overrides}
        assert values["hydra.launcher.n_jobs"].value() == 2
        assert str(output) in values["hydra.sweep.dir"].value()
        assert values["common.user_dir"].value() == str(PACKAGE)
        assert values["task.shots_seed"].input_line[16:] in ("range(1,3)", "1")
    assert any(command[:2] == ["fairseq-scl", "report"] for command in commands)


def test_the_few_shot_study_is_every_n_loss_and_draw_of_every_data_set(dry):
    [command] = multiruns(dry("few-shot", "--draws", 3, "--scl-weight", 0.5))
    for override in (
        "data=SST-2,QNLI,MNLI", "protocol=few_shot_20,few_shot_100,few_shot_1000",
        "criterion.scl_weight=0,0.5", "criterion.scl_temperature=0.3",
        "task.shots_seed=range(1,4)", "encoder=minilm",
    ):  # fmt: skip
        assert override in command


def test_lists_are_words_or_one_text(dry):
    for tasks in (["CoLA", "RTE"], ["CoLA RTE"]):
        [command] = multiruns(dry("full", "--tasks", *tasks))
        assert "data=CoLA,RTE" in command


def test_each_loss_of_a_transfer_starts_from_its_own_model(dry):
    studies = multiruns(dry("transfer", "--scl-weight", "0.5", "--", "optimization.max_update=9"))
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


def test_noise_translates_every_temperature_of_every_data_set(dry, tmp_path):
    (tmp_path / "model.pt").write_text("")
    models = ("--forward", tmp_path / "model.pt", "--backward", tmp_path / "model.pt")
    commands = dry("noise", "--temperatures", "0.3 0.5", "--draws", 2, *models)
    translations = [command for command in commands if "back-translate" in command]
    assert len(translations) == 6
    assert all("--shots-seed 1 2 --forward" in shlex.join(command) for command in translations)
    alone, noisy = multiruns(commands)
    assert "protocol=few_shot_100" in alone
    assert {"protocol=noise", "task.noise_temperature=0.3,0.5"} <= set(noisy)
    assert dry("noise")[4] == [
        "bash", f"{ROOT}/scripts/train_translation.sh", f"{tmp_path}/out/translation"
    ]  # fmt: skip


def test_a_search_does_not_read_the_test_set_and_may_sweep_learning_rates(dry):
    commands = multiruns(dry("search", "--learning-rates", "1e-4 2e-4"))
    assert len(commands) == 2
    for command in commands:
        assert {"split=null", "optimization.lr=[1e-4],[2e-4]"} <= set(command)


@pytest.mark.parametrize("name", STUDIES)
def test_overrides_end_the_command(name, dry):
    studies = multiruns(dry(name, "--", "a.b=1", "c='d e'"))
    assert studies
    assert all(command[-2:] == ["a.b=1", "c='d e'"] for command in studies)


def test_glue_comes_from_the_hub_unless_a_folder_is_named(dry, tmp_path):
    for more, named in {(): False, ("--glue-dir", tmp_path / "glue"): True}.items():
        commands = [command for command in dry("full", *more) if "prepare" in command]
        assert len(commands) == 6
        assert all((f"{tmp_path}/glue" in command) == named for command in commands)


def test_slurm_is_hydras_launcher(dry):
    [command] = multiruns(dry("few-shot", "--slurm", "gpu"))
    assert {"hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"} <= set(command)
    assert "joblib" not in str(command)


def test_what_lies_there_is_used_again(tmp_path, capsys):
    output = tmp_path / "out"
    for there in ("encoders/minilm", "data/minilm/SST-2"):
        (output / there).mkdir(parents=True)
    main(["study", "few-shot", "--dry-run", "--tasks", "SST-2", "--output", str(output)])
    printed = capsys.readouterr().out
    assert "import-model" not in printed and "prepare" not in printed


def test_an_imported_encoder_says_which_recipe_it_takes(dry, tmp_path):
    flags = tmp_path / "roberta.large" / "train_flags.txt"
    flags.parent.mkdir()
    for arch, config in (("sentence_roberta", "base"), ("sentence_roberta_large", "large")):
        flags.write_text(f"--arch {arch} --pooling cls")
        commands = dry("full", "--encoder", flags.parent)
        assert f"encoder=roberta_{config}" in multiruns(commands)[0]
        assert not any("import-model" in command for command in commands)
    flags.write_text("--arch bart")
    with pytest.raises(SystemExit, match=r"is a bart; configs/encoder has minilm, mpnet, roberta"):
        dry("full", "--encoder", flags.parent)


@pytest.mark.parametrize(
    ("name", "config"),
    [("minilm", "minilm"), ("mpnet", "mpnet"), ("FacebookAI/roberta-large", "???")],
)
def test_an_encoder_to_be_imported_is_named_as_import_model_names_it(dry, name, config):
    commands = dry("few-shot", "--encoder", name)
    assert commands[0][:3] == ["fairseq-scl", "import-model", name]
    assert commands[0][3].endswith(f"out/encoders/{name.split('/')[-1]}")
    assert f"encoder={config}" in multiruns(commands)[0]


@pytest.mark.parametrize("name", STUDIES)
def test_help_lists_every_option(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["study", name, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for option in ("--tasks", "--draws", "--encoder", "--jobs", "--slurm", "--dry-run"):
        assert option in printed


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("few-shot --shots 30", "--shots: 30 must be one of: 20 100 1000"),
        ("few-shot --tasks STS-B", "--tasks: STS-B must be one of: sample SST-2"),
        ("few-shot --draws many", "--draws: many must be a whole number"),
        ("few-shot --jobs 0", "--jobs: 0 must be a whole number"),
        (
            "few-shot --encoder nowhere",
            "nowhere must be minilm, mpnet, OWNER/NAME on the hub, or a folder",
        ),
        ("few-shot --tsaks CoLA", "unrecognized arguments: --tsaks CoLA; did you mean --tasks?"),
        ("few-shot --scl-weight 2", "--scl-weight: 2 must be a number in [0, 1]"),
        ("full --tasks", "--tasks: expected at least one argument"),
        ("noise --temperatures hot", "--temperatures: hot must be a number above 0"),
        ("noise --forward nowhere.pt", "nowhere.pt must be a file"),
        ("batch-size --batch-sizes 32", "--batch-sizes: 32 must be one of: 16 64 256"),
        ("ful", "ful"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(arguments, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["study", *arguments.split(), "--dry-run"])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line


def test_a_word_that_overrides_nothing_is_told_in_one_line():
    with pytest.raises(SystemExit, match="error: sample must be KEY=VALUE"):
        main(["study", "few-shot", "--dry-run", "--", "sample"])


def test_an_output_that_cannot_be_is_told_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit, match=r"--output .*: .*file is no folder"):
            main(["study", "full", "--output", str(output)])
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(SystemExit, match=r"--output .*new: .* cannot be written"):
        main(["study", "full", "--output", str(tmp_path / "new")])


def test_what_cannot_be_prepared_ends_the_study_with_its_status(tmp_path, capfd):
    encoder = build_encoder(tmp_path / "encoder")
    options = ["--tasks", "SST-2", "--encoder", str(encoder), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        main(["study", "few-shot", *options, "--glue-dir", str(tmp_path)])
    assert stop.value.code == 1
    told = capfd.readouterr()
    assert len(told.out.splitlines()) == 1  # nothing after it
    assert "fairseq-scl: error: " in told.err.splitlines()[-1]
    assert "Traceback" not in told.err


SHORT = ("optimization.max_update=2", "dataset.validate_interval_updates=2",
         "lr_scheduler.warmup_updates=1")  # fmt: skip


def test_after_a_failed_run_the_others_are_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Command, "__call__", lambda self: 1 if "--multirun" in self.words else 0)
    with pytest.raises(SystemExit) as stop:
        main(["study", "few-shot", "--output", str(tmp_path)])
    assert stop.value.code == 1
    assert "fairseq-scl plot embeddings" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.integration
def test_a_small_table_from_nothing_in_any_folder(tmp_path):
    def study():
        command = [
            sys.executable, "-m", "fairseq_scl.cli", "study", "few-shot", "--tasks", "sample",
            "--shots", "20", "100", "--draws", "1", "--output", "my studies", "--", *SHORT,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=500)

    result = study()
    folder = tmp_path / "my studies" / "few_shot"
    assert result.returncode == 0, result.stderr[-3000:]
    assert "4/4 runs, 0 skipped, 0 running, 0 failed" in result.stderr
    results = sorted(folder.rglob("result.json"))
    names = {str(path.parent.relative_to(folder)) for path in results}
    assert len(names) == 4
    assert names >= {
        f"sample/few_shot_{n}/criterion.scl_temperature=0.3,criterion.scl_weight=0.9,"
        f"{','.join(sorted([*SHORT, 'task.shots_seed=1']))}"
        for n in (20, 100)
    }
    assert {json.loads(path.read_text())["config"]["task"]["protocol"] for path in results} == {
        "given"
    }
    for name in ("report.html", "shots.png", "embeddings.png"):
        assert (folder / name).stat().st_size > 1000
    assert "4/4 runs, 4 skipped" in study().stderr
