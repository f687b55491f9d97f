"""A logistic regression on the tuned sentence vectors in place of the trained head.

refit.json beside a checkpoint holds it as numbers; whoever loads the checkpoint for its answers
then uses it, with the same doors as the trained one: `(batch, 1, dim)` in, logits out.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from fairseq_scl.data.beside_checkpoint import OfCheckpoint, read_fitted
from fairseq_scl.errors import UserError
from fairseq_scl.files import sha256, write_text

NAME = "refit.json"


class Refit(OfCheckpoint):
    """What `refit.json` holds.

    Attributes:
        C: the inverse regularisation strength that it was fitted with.
        weight, bias: `(classes, dim)` and `(classes,)`, of vectors of length 1.
        checkpoint: sha256 of the checkpoint whose vectors it was fitted to.
    """

    C: Annotated[float, Field(gt=0)]
    weight: list[list[float]]
    bias: list[float]


class RefittedHead(nn.Module):
    """What stands in for fairseq's RobertaClassificationHead."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.out_proj = nn.Linear(weight.size(1), weight.size(0))
        with torch.no_grad():
            self.out_proj.weight.copy_(weight)
            self.out_proj.bias.copy_(bias)

    def forward(self, features: Tensor, **_: Any) -> Tensor:
        """Logits `(batch, classes)` of the first position of `(batch, positions, dim)`."""
        return self.out_proj(normalize(features[:, 0]))


def write(checkpoint: Path, C: float, weight: np.ndarray, bias: np.ndarray) -> None:
    """Keep scikit-learn's logistic regression beside a checkpoint.

    Args:
        weight, bias: its `coef_` and `intercept_`; of two classes it has those of the second only.
    """
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    made = Refit(C=C, weight=weight.tolist(), bias=bias.tolist(), checkpoint=sha256(checkpoint))
    write_text(checkpoint.with_name(NAME), made.model_dump_json() + "\n")


def read(checkpoint: Path) -> Refit | None:
    """The refitted head of this very checkpoint; see `read_fitted`."""
    return read_fitted(checkpoint, NAME, Refit)


def use(checkpoint: Path, model: Any, head: str, classes: int) -> bool:
    """Put the refitted head, if there is one, in the place of the one named `head`.

    Raises:
        UserError: if the file is damaged, or of other sizes than the model.
    """
    found = read(checkpoint)
    if found is None:
        return False
    dim, path = model.args.encoder_embed_dim, checkpoint.with_name(NAME)
    if len(found.weight) != classes or {len(row) for row in found.weight} != {dim}:
        raise UserError(f"{path}: weight: must be {classes} rows of {dim} numbers")
    if len(found.bias) != classes:
        raise UserError(f"{path}: bias: must be {classes} numbers")
    made = RefittedHead(torch.tensor(found.weight), torch.tensor(found.bias))
    model.classification_heads[head] = made.eval()
    return True
