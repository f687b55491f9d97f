"""What a checkpoint says of its model, read through a schema before anything is built from it."""

import json
from argparse import Namespace
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import torch
from fairseq import checkpoint_utils
from omegaconf import OmegaConf
from pydantic import AliasPath, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from fairseq_scl.errors import NOT_FINITE, UserError, first_line
from fairseq_scl.files import parse_model
from fairseq_scl.repairs.checkpoints import one_line_errors

BEST, LAST = "checkpoint_best.pt", "checkpoint_last.pt"
ENCODERS = ("encoder.sentence_encoder.", "decoder.sentence_encoder.", "encoder.")  # old, or BART's


class Part(BaseModel):
    """A part of a checkpoint; what else stands there is fairseq's to check."""

    model_config = ConfigDict(strict=True)


class EncoderOptions(Part):
    """What tells one encoder from another; None is the architecture's default."""

    arch: Annotated[str, Field(pattern=r"^\w+$")] | None = None
    encoder_layers: PositiveInt | None = None
    encoder_embed_dim: PositiveInt | None = None
    encoder_ffn_embed_dim: PositiveInt | None = None
    encoder_attention_heads: PositiveInt | None = None
    activation_fn: Annotated[str, Field(pattern=r"^\w+$")] | None = None
    layernorm_eps: Annotated[float, Field(gt=0, lt=1)] | None = None
    pooling: Literal["cls", "mean"] | None = None
    max_positions: PositiveInt | None = None


def _config(*path: str, default: Any = ...) -> Any:
    """A key of fairseq's configuration."""
    return Field(default, validation_alias=AliasPath("cfg", *path))


class PreTrained(Part):
    """A checkpoint of an encoder."""

    model: EncoderOptions = _config("model")


class Updates(Part):
    """An entry of fairseq's list of optimizers."""

    num_updates: NonNegativeInt


class ExtraState(Part):
    """`best` is there once the run was validated."""

    best: float | None = None


class FineTuned(PreTrained):
    """A checkpoint of a run of this plugin."""

    task: Literal["few_shot_glue"] = _config("task", "_name")
    data: str = _config("task", "data")
    init_token: NonNegativeInt | None = _config("task", "init_token", default=None)
    separator_token: NonNegativeInt | None = _config("task", "separator_token", default=None)
    head: str = _config("criterion", "classification_head_name")
    tensorboard_logdir: str | None = _config("common", "tensorboard_logdir", default=None)
    cpu: bool = _config("common", "cpu")
    metric: str = _config("checkpoint", "best_checkpoint_metric")
    disable_validation: bool = _config("dataset", "disable_validation", default=False)
    optimizer_history: Annotated[list[Updates], Field(min_length=1)]
    extra_state: ExtraState


class Loaded(NamedTuple):
    """A fine-tuned model and what it was trained by; see `load`."""

    model: Any
    cfg: Any
    task: Any
    criterion: Any
    saved: FineTuned


Saved = TypeVar("Saved", bound=PreTrained)


def checkpoint_of(run: Path) -> Path:
    """The checkpoint that a run is judged and used by.

    Args:
        run: its folder.

    Returns:
        The best one; of a run with `--disable-validation`, which knows none, the last.

    Raises:
        UserError: if there is neither, or the run has not been validated yet.
    """
    if (run / BEST).is_file():
        return run / BEST
    last = run / LAST
    if not last.is_file():
        raise UserError(f"{run / BEST}: no such file, and no {LAST}; train into {run} first")
    if not describe(read_lazily(str(last)), FineTuned, last).disable_validation:
        raise UserError(
            f"{run}: {LAST}, but no {BEST}: the run was not validated yet; train on, or give the "
            "checkpoint itself to predict or export"
        )
    return last


@one_line_errors
def read_lazily(path: str) -> dict:
    """A checkpoint whose weights stay on the disk."""
    return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True))


def load(path: Path, data: Path | None = None) -> Loaded:
    """Load a fine-tuned model.

    Args:
        data: where its dictionaries lie; None: where they lay in training.

    Raises:
        UserError: if it is no checkpoint of this plugin, its data is gone, it does not fit the
            dictionaries, or holds weights that are not finite.
    """
    overrides = None if data is None else {"data": str(data)}
    state = checkpoint_utils.load_checkpoint_to_cpu(str(path), overrides)
    told = f"{path}: not a checkpoint of this plugin"
    saved = describe(state, FineTuned, path)
    if not Path(saved.data).is_dir():
        raise UserError(
            f"{path}: there is no {saved.data}; say with --data where its data lies now"
        )
    require_sizes(saved.model, state["model"], path)
    if saved.model.max_positions is None:
        raise UserError(f"{told}: cfg.model.max_positions: missing")
    try:
        [model], cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], state=state)
        criterion = task.build_criterion(cfg.criterion)
    except Exception as error:  # fairseq and omegaconf raise whatever they like
        raise UserError(f"{told}: {first_line(error)}") from None
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise UserError(f"{path}: {NOT_FINITE}")
    if saved.head not in getattr(model, "classification_heads", ()):
        raise UserError(f"{told}: the model has no head named '{saved.head}'")
    for name in ("init_token", "separator_token"):
        token = getattr(saved, name)
        if token is not None and token >= len(task.source_dictionary):
            raise UserError(f"{told}: cfg.task.{name} {token} is not in the dictionary")
    return Loaded(model, cfg, task, criterion, saved)


def describe(state: dict, schema: type[Saved], path: Path) -> Saved:
    """Read a loaded checkpoint, but for its weights, through a schema.

    Raises:
        UserError: if it does not fit, or its configuration refers to something outside itself.
    """
    told = f"{path}: not a checkpoint of this plugin"
    parts = {key: state.get(key) for key in ("cfg", "optimizer_history", "extra_state")}
    try:
        if OmegaConf.is_config(parts["cfg"]):
            parts["cfg"] = OmegaConf.to_container(parts["cfg"], resolve=False, enum_to_str=True)
        text = json.dumps(parts, default=_plain)
    except Exception as error:  # as many as there are kinds of objects
        raise UserError(f"{told}: {first_line(error)}") from None
    if "${" in text:  # fairseq saves what interpolations stood for
        raise UserError(f"{told}: its configuration refers to values that it does not hold")
    return parse_model(text, schema, told)


def require_sizes(options: EncoderOptions, weights: Mapping[str, torch.Tensor], path: Path) -> int:
    """Compare sizes with the weights, before anything of those sizes is allocated.

    Returns:
        The positions that the encoder has.

    Raises:
        UserError: naming the first that differs.
    """
    told = f"{path}: not a checkpoint of this plugin"
    prefix = next((p for p in ENCODERS if f"{p}embed_tokens.weight" in weights), None)
    if prefix is None:
        raise UserError(f"{told}: its model holds no encoder")

    def size(name: str, dimension: int) -> int:
        shape = weights[f"{prefix}{name}"].shape if f"{prefix}{name}" in weights else ()
        return shape[dimension] if len(shape) == 2 else 0

    found = {
        "encoder_layers": next(i for i in count() if not size(f"layers.{i}.fc1.weight", 0)),
        "encoder_embed_dim": size("embed_tokens.weight", 1),
        "encoder_ffn_embed_dim": size("layers.0.fc1.weight", 0),
        "max_positions": size("embed_positions.weight", 0) - 2,  # before them fairseq pads
    }
    for name, has in found.items():
        said = getattr(options, name)
        if said not in (None, has) or has < 1:
            raise UserError(f"{told}: cfg.model.{name} is {said}, the weights have {has}")
    return found["max_positions"]


def _plain(value: object) -> object:
    """A namespace as the mapping that it is; of metrics only that they are there."""
    return vars(value) if isinstance(value, Namespace) else str(type(value))
