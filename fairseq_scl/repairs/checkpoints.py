"""fairseq's checkpoints: read safely on torch >= 2.6, and written whole or not at all.

fairseq calls `torch.load` with its safe default (`weights_only=True`). The classes below are all
that its checkpoints hold, or that rank 0 sends to the other ranks in one; anything else in a
pickle is refused before any of it runs.
"""

import argparse
import collections
import functools
import pickle
import re
import shutil
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from fairseq import checkpoint_utils
from fairseq.distributed.utils import _TensorPlaceholder
from fairseq.file_io import PathManager
from omegaconf import DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode

from fairseq_scl.errors import UserError, first_line
from fairseq_scl.files import new_file

SAFE_CLASSES = [
    argparse.Namespace,  # options in checkpoints older than fairseq's Hydra configuration
    _TensorPlaceholder,  # what broadcast_object sends in a tensor's place
    # the configuration, as fairseq holds it in memory and broadcasts it
    DictConfig,
    ListConfig,
    ContainerMetadata,
    Metadata,
    AnyNode,
    typing.Any,
    collections.defaultdict,
    dict,
    list,
    int,
]


def install() -> None:
    """Allow-list `SAFE_CLASSES`; make fairseq tell in one line what it cannot read or write."""
    torch.serialization.add_safe_globals(SAFE_CLASSES)
    checkpoint_utils.load_checkpoint_to_cpu = one_line_errors(
        checkpoint_utils.load_checkpoint_to_cpu
    )
    checkpoint_utils.torch_persistent_save = save_or_explain
    PathManager.copy = staticmethod(copy_whole)


def save_or_explain(content, path: str, async_write: bool = False) -> None:
    """Save to a temporary file, then rename it to `path`; an older file there survives a full disk.

    Raises:
        UserError: if it cannot be written.
    """
    with new_checkpoint(path) as temporary:
        torch.save(content, temporary)


def copy_whole(source: str, target: str, overwrite: bool = False) -> bool:
    """Copy a checkpoint likewise; as fairseq's `PathManager.copy`."""
    with new_checkpoint(target) as temporary:
        shutil.copyfile(source, temporary)
    return True


@contextmanager
def new_checkpoint(path: str) -> Iterator[Path]:
    """`new_file`, and a `UserError` if it cannot be written."""
    try:
        with new_file(Path(path)) as temporary:
            yield temporary
    except (OSError, RuntimeError) as error:  # torch's writer raises the latter
        raise UserError(f"{path} could not be saved ({_reason(error)})") from None


def one_line_errors(load):
    """Wrap fairseq's `load_checkpoint_to_cpu(path, ...)` so that a bad file is a `UserError`."""

    @functools.wraps(load)
    def load_or_explain(path, *args, **kwargs):
        try:
            state = load(path, *args, **kwargs)
        except FileNotFoundError:
            raise UserError(f"{path}: no such checkpoint") from None
        except Exception as error:  # damaged bytes end in whatever reads them
            if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
                raise UserError(f"{path}: refused: {_reason(error)}") from None
            raise UserError(f"{path}: not a whole fairseq checkpoint ({_reason(error)})") from None
        require_weights(state.get("model"), path)
        return state

    return load_or_explain


def require_weights(weights: object, path: str) -> None:
    """Look at what a checkpoint gives for weights.

    Raises:
        UserError: if they are no dense tensors of real numbers that the file really holds.
    """
    told = f"{path}: not a fairseq checkpoint: model"
    if not isinstance(weights, dict):
        raise UserError(f"{told}: not a mapping of names to weights")
    for name, tensor in weights.items():
        if not isinstance(name, str):
            raise UserError(f"{told}: the name {name!r} is not a string")
        if (
            not isinstance(tensor, torch.Tensor)
            or tensor.layout != torch.strided
            or tensor.is_complex()
            or tensor.is_quantized
            or tensor.is_meta
        ):
            raise UserError(f"{told}.{name}: not a dense tensor of real numbers")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{told}.{name}: larger than what is stored of it")


def _reason(error: Exception) -> str:
    """What torch's long message means, without its advice to load unsafely."""
    text = str(error)
    if found := re.search(r"GLOBAL (\S+)", text):
        return f"it holds {found[1]}, which is not among the classes a checkpoint needs"
    if found := re.search(r"WeightsUnpickler error: (.+)", text):
        return found[1]
    return first_line(error)
