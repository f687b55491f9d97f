"""The ways in: train from any folder, the flags it takes, what importing the package loads."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import PACKAGE, configure

from fairseq_scl.cli import main
from fairseq_scl.errors import UserError

BIN = Path(sys.executable).parent


def test_train_is_fairseq_train_from_any_folder(recipe, tmp_path):
    flags = recipe.flags(tmp_path / "run", "--max-update", 1)
    at = flags.index("--user-dir")
    result = subprocess.run(
        [BIN / "fairseq-scl", "train", *flags[:at], *flags[at + 2 :]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "run" / "checkpoint_best.pt").is_file()
    assert "num_updates 1" in result.stdout + result.stderr


def test_train_tells_a_mistake_in_one_line(recipe, tmp_path):
    flags = recipe.flags(tmp_path / "run", "--scl-weight", 2)
    result = subprocess.run([BIN / "fairseq-scl", "train", *flags], capture_output=True, text=True)
    assert result.returncode == 1
    assert "fairseq-scl: error: --scl-weight 2.0 must be in [0, 1]" in result.stderr.splitlines()


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        (
            ("--scl-wieght", 0.5),
            "unrecognized arguments: --scl-wieght 0.5; did you mean --scl-weight?",
        ),
        (("--arch", "sentence_robert"), "'sentence_robert'; did you mean sentence_roberta?"),
        (("--seed", "one"), "argument --seed: invalid int value: 'one'"),
    ],
)
@pytest.mark.parametrize("program", [("fairseq-scl", "train"), ("fairseq-train",)])
def test_a_mistyped_flag_of_training_is_told_in_one_line(recipe, tmp_path, program, flag, told):
    command = [BIN / program[0], *program[1:], *recipe.flags(tmp_path / "run"), *map(str, flag)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith(told)
    assert "usage" not in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("report --bset 2 runs", "unrecognized arguments: --bset"),
        ("predict run --outptu x", "did you mean --output?"),
        ("reprot", "invalid choice: 'reprot'"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_a_mistyped_flag_of_a_command_is_told_in_one_line(arguments, told, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line and line.startswith("fairseq-scl: error: ")


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == version("fairseq-scl")


def test_a_message_is_never_as_long_as_what_it_quotes():
    told = str(UserError(f"no column 'x'; the columns are {'a' * 10**6}, b; name one"))
    assert len(told) < 2000 and told.endswith("b; name one") and " ... " in told


def test_an_empty_text_is_no_value():
    with pytest.raises(UserError, match="nothing is given after --output but an empty text"):
        main(["finetune", "comments.csv", "--output", ""])


def test_flags_with_no_such_word_are_told_in_one_line():
    with pytest.raises(SystemExit, match=r"no flag of the plugin has 'zzz' in its name$"):
        main(["flags", "zzz"])
    with pytest.raises(SystemExit, match="did you mean --scl-weight"):
        main(["flags", "scl-wieght"])


def test_user_dir_is_what_fairseq_and_hydra_take(capsys, tmp_path, recipe):
    main(["user-dir"])
    folder = capsys.readouterr().out.strip()
    assert Path(folder) == PACKAGE
    assert (PACKAGE / "configs" / "finetune.yaml").is_file()
    overrides = (
        f"common.user_dir={folder} encoder=minilm data=sample protocol=few_shot_20 "
        f"data_dir={recipe.data.parent} checkpoint.finetune_from_model={recipe.encoder}/model.pt "
        f"task.data={recipe.data} task.max_positions=64 model._name=sentence_roberta "
        "+model.encoder_layers=2 +model.encoder_embed_dim=32 +model.encoder_ffn_embed_dim=64 "
        "+model.encoder_attention_heads=2 +model.max_positions=64 optimization.max_update=2 "
        "common.cpu=true"
    )
    result = subprocess.run(
        [BIN / "fairseq-hydra-train", "--config-dir", f"{folder}/configs", "--config-name",
         "finetune", f"hydra.run.dir={tmp_path}/run", *overrides.split()],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert list((tmp_path / "run").glob("checkpoint*.pt"))


def test_flags_lists_every_flag_of_the_plugin(capsys, tmp_path):
    main(["flags"])
    printed = capsys.readouterr().out
    cfg = configure(
        f"{tmp_path} --task few_shot_glue --criterion sentence_prediction_scl "
        "--arch minilm_l6 --optimizer fused_adam --max-positions 512".split()
    )
    own = [key for key in cfg.criterion if key.startswith("scl_")]
    own += ["num_shots", "shots_seed", "protocol", "noise", "keep_head", "head_init", "compile"]
    for key in [*own, "pooling", "layernorm_eps", "adam_betas"]:
        assert f"--{key.replace('_', '-')}" in printed
    for stock in ("--num-classes", "--save-dir", "--dropout", "--max-positions"):
        assert f"{stock} " not in printed
    assert printed.count("(default: 0.9)") == 1
    assert "(default: None)" not in printed
    assert "(default: False)" not in printed


def test_flags_can_be_searched_and_train_help_shows_them(capsys):
    main(["flags", "--", "--scl-queue"])
    assert capsys.readouterr().out.count("  --") == 1
    main(["train", "--help"])
    printed = capsys.readouterr().out
    assert f"fairseq-train --user-dir {PACKAGE}" in printed
    assert "--scl-temperature" in printed


def loaded_by(code: str) -> set[str]:
    """The top-level modules that are there after `code`."""
    result = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in result.stdout.split() if "." not in name}


def test_importing_stays_light():
    assert not {"torch", "fairseq", "numpy", "pandas"} & loaded_by("import fairseq_scl")
    loss = loaded_by("from fairseq_scl.loss import supervised_contrastive_loss")
    assert not {"fairseq", "pandas", "sklearn", "pydantic"} & loss


def test_the_plugin_loads_no_library_that_training_does_not_use():
    heavy = {"pandas", "datasets", "seaborn", "matplotlib", "statsmodels", "transformers"}
    heavy |= {"huggingface_hub", "pyarrow", "tokenizers", "tiktoken"}
    by_fairseq = loaded_by("import fairseq")  # pyarrow and, through scikit-learn, pandas
    assert not heavy & (loaded_by("import fairseq_scl.plugin") - by_fairseq)


def test_load_is_at_the_top(tmp_path):
    from fairseq_scl import load
    from fairseq_scl.inference import classifier

    assert load is classifier.load
    with pytest.raises(SystemExit, match="no such file"):
        load(tmp_path)
    import fairseq_scl

    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = fairseq_scl.lode
