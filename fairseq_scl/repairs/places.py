"""Where a run is written: fairseq ends in a traceback where that cannot be done."""

import functools
import os
from pathlib import Path

from fairseq import checkpoint_utils

from fairseq_scl.errors import UserError


def install() -> None:
    """Make fairseq-train tell it in one line before it trains."""
    checkpoint_utils.verify_checkpoint_directory = of_a_folder(
        checkpoint_utils.verify_checkpoint_directory
    )
    checkpoint_utils.load_checkpoint = with_logs(checkpoint_utils.load_checkpoint)


def of_a_folder(verify):
    """Wrap fairseq's `verify_checkpoint_directory(save_dir)`, which precedes the model."""

    @functools.wraps(verify)
    def make_and_verify(save_dir):
        require_folder("--save-dir", save_dir)
        verify(save_dir)

    return make_and_verify


def with_logs(load):
    """Wrap fairseq's `load_checkpoint(cfg.checkpoint, trainer, ...)`, which precedes training."""

    @functools.wraps(load)
    def make_and_load(cfg, trainer, **more):
        if trainer.cfg.common.tensorboard_logdir:
            require_folder("--tensorboard-logdir", trainer.cfg.common.tensorboard_logdir)
        return load(cfg, trainer, **more)

    return make_and_load


def require_folder(flag: str, name: str) -> None:
    """Make a folder unless it is there.

    Raises:
        UserError: if there is something else, or it cannot be made or written.
    """
    path = Path(name)
    if not name or (os.path.lexists(path) and not path.is_dir()):
        raise UserError(f"{flag} '{name}' must be a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {name}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {name}: Permission denied")
