"""fairseq's precision flags on machines without the device that they take for granted."""

import functools
import importlib.util

import torch
from fairseq import options

from fairseq_scl.errors import UserError


def install() -> None:
    """Let fairseq-train's `--bf16` run on GPUs and CPUs."""
    options.parse_args_and_arch = bf16_without_tpu(options.parse_args_and_arch)


def bf16_without_tpu(parse):
    """Wrap fairseq's parser of flags, to which `--bf16` means `--tpu`, where there can be none."""

    @functools.wraps(parse)
    def parse_and_reset(*args, **kwargs):
        parsed = parse(*args, **kwargs)
        flags = parsed[0] if isinstance(parsed, tuple) else parsed
        if getattr(flags, "bf16", False) and importlib.util.find_spec("torch_xla") is None:
            flags.tpu = False
        return parsed

    return parse_and_reset


def require_device(fp16: bool, amp: bool, cpu: bool) -> None:
    """Refuse to train on a CPU in what fairseq's optimizers can do on GPUs only.

    Raises:
        UserError: for fp16 or amp without a GPU.
    """
    for flag, wanted in (("--fp16", fp16), ("--amp", amp)):
        if wanted and (cpu or not torch.cuda.is_available()):
            raise UserError(f"{flag} needs a GPU; on a CPU train in float32 or with --bf16")
