"""The recipe that a fine-tuning gets from `configs/`."""

from pathlib import Path

import pytest
from conftest import configure
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fairseq_scl.cli import main
from fairseq_scl.errors import UserError
from fairseq_scl.finetuning.recipe import encoder_config, train_flags, updates_for

SCHEDULE = OmegaConf.create(
    {"20": {"updates": 40}, "100": {"updates": 60}, "1000": {"updates": 600}}
)


@pytest.mark.parametrize(
    ("rows", "updates"), [(2, 40), (20, 40), (100, 60), (1000, 600), (3000, 1800), (200, 120)]
)
def test_updates_are_those_of_the_configs_and_between_them_a_line_of_logarithms(rows, updates):
    assert updates_for(rows, 2, SCHEDULE) == updates


@pytest.mark.parametrize(("classes", "updates"), [(1, 60), (2, 60), (8, 120), (50, 300)])
def test_more_classes_get_more_updates(classes, updates):
    assert updates_for(100, classes, SCHEDULE) == updates


@given(st.integers(1, 5000), st.integers(0, 5000), st.integers(2, 90), st.integers(0, 90))
def test_more_rows_or_classes_never_get_fewer_updates(rows, more, classes, others):
    some = updates_for(rows, classes, SCHEDULE)
    assert some <= updates_for(rows + more, classes + others, SCHEDULE)


@pytest.mark.parametrize(
    "arch", ["minilm_l6", "mpnet_base", "sentence_roberta", "sentence_roberta_large"]
)
def test_the_numbers_are_those_that_a_study_has(arch, encoder, tmp_path):
    folder = tmp_path / "encoder"
    folder.mkdir()
    told = f"--arch {arch} --max-positions 512 --init-token 0"
    (folder / "train_flags.txt").write_text(told)
    said = encoder_config(arch)
    flags = train_flags(folder, 100, 2, validate=True, cpu=True)
    cfg = configure([str(tmp_path), *flags, "--save-dir", str(tmp_path)])
    schedule = said.few_shot["100"]
    assert cfg.optimization.max_update == cfg.lr_scheduler.total_num_update == schedule.updates
    assert cfg.lr_scheduler.warmup_updates == schedule.warmup
    assert list(cfg.optimization.lr) == list(said.optimization.lr)
    assert cfg.optimizer._name == said.optimizer._name
    assert cfg.dataset.batch_size == said.dataset.batch_size
    assert cfg.criterion.scl_weight == said.criterion.scl_weight
    assert cfg.criterion.scl_temperature == said.criterion.scl_temperature
    assert not cfg.common.fp16 and cfg.common.cpu


def test_without_validation_only_the_last_state_is_kept(encoder):
    flags = train_flags(encoder, 40, 2, validate=False, cpu=True)
    assert "--disable-validation" in flags and "--validate-interval-updates" not in flags


def test_an_encoder_without_a_recipe_is_told(tmp_path):
    with pytest.raises(UserError, match="has no recipe"):
        encoder_config("bart_large")
    with pytest.raises(UserError, match="import-model"):
        train_flags(Path(tmp_path), 20, 2, True, True)


def test_the_command_prints_what_finetune_uses(encoder, capsys):
    main(["recipe", str(encoder), "20", "--classes", "8", "--validate", "--cpu"])
    assert capsys.readouterr().out.split("\n")[:-1] == train_flags(encoder, 20, 8, True, True)
    with pytest.raises(UserError, match="--classes 1 must be at least 2"):
        main(["recipe", str(encoder), "20", "--classes", "1"])
    with pytest.raises(UserError, match="N 0 must be at least 1"):
        main(["recipe", str(encoder), "0"])
