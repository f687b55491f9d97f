"""RoBERTa-large's command and configuration, with its real tokenizer and random weights."""

import pytest
from conftest import PACKAGE, SHARED, prepare, run

pytestmark = pytest.mark.needs_shared_data


@pytest.fixture(scope="module")
def roberta_data(tmp_path_factory):
    """SST-2 as RoBERTa reads it."""
    folder = tmp_path_factory.mktemp("roberta")
    tokenizer = SHARED / "gpt2_bpe"
    return prepare(
        folder / "sst2", tokenizer, "--data", "glue:SST-2", "--glue-dir", SHARED / "glue"
    )


RECIPE = """
    --user-dir {package} --task few_shot_glue --protocol few-shot --num-shots 20 --shots-seed 1
    --criterion sentence_prediction_scl --scl-weight 0.9 --scl-temperature 0.3
    --arch sentence_roberta_large --max-positions 512 --init-token 0 --separator-token 2
    --dropout 0.1 --attention-dropout 0.1 --weight-decay 0.1
    --optimizer fused_adam --adam-betas (0.9,0.98) --adam-eps 1e-06 --clip-norm 0.0
    --lr-scheduler polynomial_decay --lr 1e-05 --warmup-updates 1
    --total-num-update 2 --max-update 2
    --batch-size 16 --max-tokens 4400 --required-batch-size-multiple 1
    --no-epoch-checkpoints
    --best-checkpoint-metric accuracy --maximize-best-checkpoint-metric
    --no-save --num-workers 0 --log-format simple --log-interval 1 --cpu
"""


def train_large(data, folder, *more):
    flags = [flag.format(package=PACKAGE) for flag in RECIPE.split()]
    result = run("fairseq-train", data, *flags, "--save-dir", folder, *more, timeout=580)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout + result.stderr


def test_the_recipe_with_two_of_its_layers(roberta_data, tmp_path):
    log = train_large(roberta_data, tmp_path, "--encoder-layers", 2, "--disable-validation")
    assert "num_updates=2" in log
    assert "train: 20 rows of train's 67349" in log


@pytest.mark.slow
def test_the_recipe_at_full_size(roberta_data, tmp_path):
    log = train_large(roberta_data, tmp_path, "--disable-validation")
    assert "num. shared model params: 356,4" in log
    assert "num_updates=2" in log


def test_the_hydra_config_with_two_layers(roberta_data, tmp_path):
    result = run(
        "fairseq-hydra-train", "--config-dir", "configs", "--config-name", "finetune",
        "encoder=roberta_large", "data_dir=.", f"task.data={roberta_data}",
        "checkpoint.finetune_from_model=null",
        "+model.encoder_layers=2", "common.cpu=true", "common.fp16=false",
        "optimization.max_update=2", "dataset.disable_validation=true", "checkpoint.no_save=true",
        f"hydra.run.dir={tmp_path}", "lr_scheduler.warmup_updates=1", timeout=580,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    log = (tmp_path / "run.log").read_text()
    assert "num_updates: 2 >= max_update: 2" in log
