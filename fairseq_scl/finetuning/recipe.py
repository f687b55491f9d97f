"""The flags of fairseq-train that fine-tune an encoder on so many rows, a word a line.

    fairseq-scl train data/sample --save-dir checkpoints/first --num-shots 20 --shots-seed 1 \\
        $(fairseq-scl recipe encoders/minilm 20 --validate)

The numbers stand in configs/: finetune.yaml has what all runs share, encoder/NAME.yaml what depends
on the encoder, each with where it comes from. 'finetune', the quickstart and the studies use them.
Flags that follow win.
"""

import argparse
import math
import shlex
from pathlib import Path
from typing import cast

import numpy as np
from omegaconf import DictConfig, OmegaConf

from fairseq_scl.encoders import encoder_folder
from fairseq_scl.encoders.encoder_folder import CONFIGS
from fairseq_scl.errors import UserError

SECTIONS = ("common", "criterion", "dataset", "optimizer", "lr_scheduler", "optimization", "model")
#: flags that name what a section configures
NAMED = {"criterion": "--criterion", "optimizer": "--optimizer", "lr_scheduler": "--lr-scheduler"}
OWN = ("_name", "tensorboard_logdir")  # told otherwise
WARMUP = 0.06  # of the updates (fairseq's GLUE recipe)
VALIDATIONS = 4  # while training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    told = "a folder made by import-model"
    parser.add_argument("encoder", metavar="ENCODER", type=Path, help=told)
    parser.add_argument("rows", metavar="N", type=int, help="training rows")
    told = "more of them are learned with more updates (default: %(default)s)"
    parser.add_argument("--classes", metavar="K", type=int, default=2, help=told)
    told = "keep the best of a few states by accuracy on validation; default: the last"
    parser.add_argument("--validate", action="store_true", help=told)
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")


def run(args: argparse.Namespace) -> None:
    """Print the flags."""
    import torch

    if args.rows < 1:
        raise UserError(f"N {args.rows} must be at least 1")
    if args.classes < 2:
        raise UserError(f"--classes {args.classes} must be at least 2")
    cpu = args.cpu or not torch.cuda.is_available()
    print(*train_flags(args.encoder, args.rows, args.classes, args.validate, cpu), sep="\n")


def train_flags(
    encoder: Path, rows: int, classes: int, validate: bool, cpu: bool, loss: str = "ce+scl"
) -> list[str]:
    """The flags of fairseq-train for this encoder and so many training rows and classes.

    Args:
        encoder: a folder as 'fairseq-scl import-model' makes it.
        validate: choose the best of a few validations; else the last state counts.
        cpu: leave a GPU alone, and train in single precision.
        loss: `ce` is cross-entropy alone, with everything else the same.

    Raises:
        UserError: if the folder does not say what encoder it is, or no recipe is known for it.
    """
    path = encoder / encoder_folder.TRAIN_FLAGS
    if not path.is_file():
        raise UserError(f"{path} is missing; 'fairseq-scl import-model' makes such folders")
    own = shlex.split(path.read_text(encoding="utf-8"))
    config = encoder_config(own[own.index("--arch") + 1] if "--arch" in own else "")
    updates = updates_for(rows, classes, config.few_shot)
    config.lr_scheduler.warmup_updates = math.ceil(WARMUP * updates)
    config.lr_scheduler.total_num_update = config.optimization.max_update = updates
    config.common.cpu = cpu
    if loss == "ce":
        config.criterion.scl_weight = 0
    config.common.fp16 = config.common.get("fp16", False) and not cpu
    interval = max(1, updates // VALIDATIONS)
    metric = config.checkpoint.best_checkpoint_metric
    checkpoints = [
        *("--best-checkpoint-metric", metric, "--maximize-best-checkpoint-metric"),
        *("--no-epoch-checkpoints", "--no-save-optimizer-state"),
    ]
    if validate:
        checkpoints += [
            *("--validate-interval-updates", str(interval)),
            *("--save-interval-updates", str(interval), "--keep-interval-updates", "1"),
            *("--save-interval", "1000000", "--no-last-checkpoints"),
        ]
    else:
        checkpoints.append("--disable-validation")
    return [
        *("--task", "few_shot_glue", *own),
        *("--finetune-from-model", str(encoder / encoder_folder.MODEL)),
        *(flag for name in SECTIONS for flag in section_flags(name, config[name])),
        *checkpoints,
    ]


def encoder_config(arch: str) -> DictConfig:
    """The recipe for the encoders of an architecture."""
    path = encoder_folder.recipes().get(arch)
    if path is None:
        raise UserError(f"--encoder is a '{arch}', for which {CONFIGS / 'encoder'} has no recipe")
    parts = (OmegaConf.load(part) for part in (CONFIGS / "finetune.yaml", path))
    return cast(DictConfig, OmegaConf.merge(*parts))


def updates_for(rows: int, classes: int, schedule: DictConfig) -> int:
    """How many updates: between the numbers of rows of `few_shot` on a straight line of logarithms.

    Below the smallest it is the smallest's, beyond the largest as many epochs as the largest has.
    The numbers are for two classes; K classes get sqrt(K / 2) times as many, by validation on
    questions of 11 topics (docs/get_started.md).
    """
    points = sorted((int(str(size)), entry.updates) for size, entry in schedule.items())
    sizes, updates = np.log(points).T
    between = math.exp(np.interp(math.log(rows), sizes, updates))
    return round(between * max(1.0, rows / points[-1][0]) * math.sqrt(max(classes, 2) / 2))


def section_flags(name: str, section: DictConfig) -> list[str]:
    """A section of fairseq's configuration as flags; what refers to elsewhere is left out."""
    flags = [NAMED[name], section._name] if name in NAMED else []
    for key in map(str, section):
        if key in OWN or OmegaConf.is_interpolation(section, key):
            continue
        value = section[key]
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            flags += [flag] * value
        else:
            value = value[0] if OmegaConf.is_list(value) else value
            flags += [flag, str(value)]
    return flags
