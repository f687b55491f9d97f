"""A run started again with other settings: fairseq would go on with it, or find it finished.

Either way its checkpoints would then name the new settings, which are not those it was trained by.
"""

import argparse
import functools
import os
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.models import ARCH_MODEL_REGISTRY
from omegaconf import OmegaConf

from fairseq_scl.errors import UserError

CHECKPOINTS = ("checkpoint_last.pt", "checkpoint_best.pt")
SECTIONS = {  # whose options all decide on the outcome, and the flag that chooses among them
    "criterion": "criterion",
    "task": "task",
    "model": "arch",
    "optimizer": "optimizer",
    "lr_scheduler": "lr-scheduler",
}
OTHERS = {  # those that do so in sections where most do not
    "common": ("seed",),
    "dataset": ("batch_size", "max_tokens", "train_subset", "curriculum"),
    "optimization": ("lr", "clip_norm", "update_freq", "sentence_avg"),
    "checkpoint": (
        "finetune_from_model", "best_checkpoint_metric", "maximize_best_checkpoint_metric",
    ),
}  # fmt: skip
FREE = {  # where the data lies, whose content the manifest holds; device, memory and length
    "data", "save_dir", "restore_file", "reset_optimizer", "cpu", "tpu", "fp16", "bf16", "amp",
    "memory_efficient_fp16", "memory_efficient_bf16", "compile", "scl_chunk_size",
    "total_num_update",
}  # fmt: skip


def install() -> None:
    """Make fairseq-train refuse a folder that holds a run with other settings."""
    checkpoint_utils.load_checkpoint = by_the_same_settings(checkpoint_utils.load_checkpoint)


def by_the_same_settings(load):
    """Wrap fairseq's `load_checkpoint(cfg.checkpoint, trainer, ...)`, which precedes training."""

    @functools.wraps(load)
    def compare_and_load(cfg, trainer, **more):
        folder = Path(cfg.save_dir)
        if (saved := saved_config(folder)) is not None:
            now: Any = OmegaConf.to_container(trainer.cfg, resolve=True, enum_to_str=True)
            require_same(settings(saved), settings(now), folder)
        try:
            return load(cfg, trainer, **more)
        except ValueError as error:
            if "parameter group" not in str(error):
                raise
            told = "holds a run whose optimizer has other parameters, such as one of version 0.2.0"
            raise UserError(f"{folder} {told}; choose another --save-dir") from None

    return compare_and_load


def saved_config(folder: Path) -> dict | None:
    """The configuration in a run's folder; None if no checkpoint tells, a damaged one neither."""
    for path in map(folder.joinpath, CHECKPOINTS):
        try:
            config = torch.load(path, weights_only=True, mmap=True, map_location="cpu")["cfg"]
        except Exception:  # as many as there are kinds of damage; fairseq's loading tells of it
            continue
        if isinstance(config, dict):
            return config
    return None


def settings(config: dict) -> dict[str, Any]:
    """The flags of `config` that decide on a run's outcome, and their values."""
    found = {}
    for section, flag in SECTIONS.items():
        options = options_of(config.get(section))
        name = options.get("_name") or options.get("arch")
        keys = architecture_options(name) if section == "model" else options.keys() - {"_name"}
        found[flag] = name
        found |= {key.replace("_", "-"): options.get(key) for key in sorted(keys - FREE)}
    for section, others in OTHERS.items():
        options = options_of(config.get(section))
        found |= {key.replace("_", "-"): options.get(key) for key in others}
    if start := found["finetune-from-model"]:
        found["finetune-from-model"] = os.path.abspath(start)
    return found


def options_of(section: object) -> dict[str, Any]:
    """A section of a configuration, which for older parts of fairseq is a namespace."""
    if isinstance(section, argparse.Namespace):
        return vars(section)
    return section if isinstance(section, dict) else {}


def architecture_options(name: object) -> set[str]:
    """What an architecture's options are called; its namespace holds all flags."""
    parser = argparse.ArgumentParser(add_help=False)
    if name in ARCH_MODEL_REGISTRY:
        ARCH_MODEL_REGISTRY[name].add_args(parser)
    return {action.dest for action in parser._actions}


def require_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Compare settings.

    Raises:
        UserError: with the first flag that differs.
    """
    for flag, value in now.items():
        if flag in before and before[flag] != value:
            raise UserError(
                f"{folder} holds a run with --{flag} {shown(before[flag])}, not {shown(value)}; "
                "choose another --save-dir"
            )


def shown(value: Any) -> str:
    """A value as on the command line."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
