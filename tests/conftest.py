"""A tiny encoder, prepared sample data and ways to run fairseq-train."""

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"  # tiny models, and several processes on two cores
os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for the hub; some have one of their own
settings.register_profile("untimed", deadline=None)  # a first call may import a library
settings.load_profile("untimed")
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
PACKAGE = ROOT / "fairseq_scl"
PROGRAMS = (
    "test_distributed", "test_export", "test_export_onnx", "test_export_setfit", "test_memory",
    "test_hub", "test_hub_model", "test_roberta_large", "test_scripts",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Skip what needs the shared data where it is absent; tell what trains or makes a model."""
    for item in items:
        if {"encoder", "recipe"} & set(item.fixturenames) or item.path.stem in PROGRAMS:
            item.add_marker("integration")
        if item.get_closest_marker("needs_shared_data") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"{SHARED} is absent"))


def build_encoder(folder: Path, **options) -> Path:
    """A randomly initialised two-layer RoBERTa with a byte-level BPE of the sample sentences."""
    from tokenizers import ByteLevelBPETokenizer

    from fairseq_scl.encoders import hugging_face
    from fairseq_scl.preparation.tables import Columns, read_file

    folder.mkdir(parents=True)
    rows = read_file(PACKAGE / "sample_data" / "train.tsv", Columns(("sentence",), "label"))
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        (row.sentences[0] for row in rows),
        vocab_size=400,
        special_tokens=list(hugging_face.SPECIALS),
        show_progress=False,
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = hugging_face.vocabulary(folder, "roberta", tokenizer.get_vocab_size())
    order = hugging_face.dictionary_order(tokens, hugging_face.SPECIALS, folder)
    (folder / "dict.txt").write_text(
        "".join(f"{tokens[i]} 1\n" for i in order[4:-1]), encoding="utf-8"
    )
    return build_model(folder, **options)


def build_model(folder: Path, **options) -> Path:
    """A randomly initialised two-layer RoBERTa for the dictionary in `folder`."""
    import torch

    from fairseq_scl.encoders import import_model

    values = {
        "arch": "sentence_roberta",
        "encoder_layers": 2,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 64,
        "encoder_attention_heads": 2,
        "max_positions": 64,
    }
    namespace = argparse.Namespace(**(values | options))
    torch.manual_seed(1)
    model = import_model.build(namespace, folder / "dict.txt")
    for parameter in model.parameters():  # far enough apart for sentences to differ
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    import_model.save_checkpoint(model, namespace, folder / "model.pt")
    import_model.write_flags(namespace, separator=True, folder=folder)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """An encoder folder with a tiny model, pooling `cls`."""
    return build_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="session")
def data(tmp_path_factory, encoder) -> Path:
    """The sample sentences, prepared for the tiny encoder."""
    return prepare(tmp_path_factory.mktemp("data") / "sample", encoder, "--data", "sample")


def prepare(output: Path, encoder: Path, *arguments: object) -> Path:
    """Run `fairseq-scl prepare` in this process."""
    from fairseq_scl.cli import main

    main(["prepare", str(output), "--encoder", str(encoder), *map(str, arguments)])
    return output


@dataclass
class Recipe:
    """A short fine-tuning of the tiny encoder on 20 sample sentences."""

    data: Path
    encoder: Path

    def flags(self, save_dir: Path, *more: object) -> list[str]:
        """Arguments of fairseq-train; `more` comes last and so wins."""
        flags = f"""
            {self.data} --user-dir {PACKAGE} --task few_shot_glue --num-shots 20
            --criterion sentence_prediction_scl
            {(self.encoder / "train_flags.txt").read_text()}
            --finetune-from-model {self.encoder / "model.pt"}
            --optimizer adam --lr 1e-3 --lr-scheduler polynomial_decay --warmup-updates 2
            --total-num-update 8 --max-update 8 --batch-size 8 --required-batch-size-multiple 1
            --best-checkpoint-metric accuracy --maximize-best-checkpoint-metric
            --no-epoch-checkpoints --num-workers 0 --log-format simple --log-interval 1 --cpu
            --save-dir {save_dir}
        """
        return flags.split() + [str(flag) for flag in more]


@pytest.fixture(scope="session")
def recipe(data, encoder) -> Recipe:
    """See `Recipe`."""
    return Recipe(data, encoder)


def configure(flags: list[str]):
    """fairseq's configuration for these flags of fairseq-train."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import fairseq_scl.plugin  # noqa: F401

    args = options.parse_args_and_arch(options.get_training_parser(), flags)
    return convert_namespace_to_omegaconf(args)


def build(flags: list[str]):
    """Task, model and criterion for these flags of fairseq-train; the tiny encoder's weights."""
    from fairseq import checkpoint_utils, tasks, utils

    cfg = configure(flags)
    task = tasks.setup_task(cfg.task)
    utils.set_torch_seed(cfg.common.seed)
    model = task.build_model(cfg.model)
    if cfg.model.arch in ("sentence_roberta", "mpnet_base"):
        path = cfg.checkpoint.finetune_from_model
        model.load_state_dict(checkpoint_utils.load_checkpoint_to_cpu(path)["model"])
    return task, model, task.build_criterion(cfg.criterion)


def batch_of(task, split: str, rows) -> dict:
    """These rows of a split as a batch."""
    dataset = task.load_dataset(split)
    return dataset.collater([dataset[i] for i in rows])


def train(flags: list[str]) -> None:
    """Run fairseq-train in this process, without what it remembers of earlier runs."""
    from fairseq_cli import train as fairseq_train

    from fairseq_scl.studies.study import forget_the_last_run

    forget_the_last_run()
    fairseq_train.main(configure(flags))


def run(*command: object, timeout: float = 240) -> subprocess.CompletedProcess:
    """Run a program of this environment to its end and keep what it prints."""
    program = Path(sys.executable).parent / str(command[0])
    return subprocess.run(
        [program, *map(str, command[1:])],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
    )


def last_validation(log: str, split: str = "valid") -> dict[str, float]:
    """The numbers of the last validation that fairseq logged."""
    line = [line for line in log.splitlines() if f"INFO | {split} |" in line][-1]
    return {key: float(value) for key, value in re.findall(r"\| (\w+) ([-+.e\d]+)(?= |$)", line)}
