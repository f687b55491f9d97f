"""Dropout that is quick on a CPU."""

import torch
import torch.nn.functional as F
from fairseq.modules import FairseqDropout
from torch import Tensor, nn

LEVELS = 2**16


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element with probability `p` and divide the others by `1 - p`.

    On a CPU torch draws a number in double precision for every element, six times the work of the
    16 random bits of its generator that decide here; `p` is rounded to a multiple of 2^-16.
    Elsewhere this is torch's dropout.
    """
    dropped = round(p * LEVELS)
    if x.device.type != "cpu" or dropped == LEVELS:
        return F.dropout(x, p)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    keep = words.view(torch.int16)[: x.numel()] >= dropped - LEVELS // 2
    return x * keep.to(x.dtype).mul_(LEVELS / (LEVELS - dropped)).view(x.shape)


class QuickDropout(FairseqDropout):
    """fairseq's dropout module with this function."""

    def forward(self, x, inplace=False):
        """As in fairseq."""
        if self.p > 0 and (self.training or self.apply_during_inference):
            return dropout(x, self.p)
        return x


def use_quick_dropout(model: nn.Module) -> None:
    """Replace fairseq's dropout modules in a model."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is FairseqDropout:
                setattr(module, name, QuickDropout(child.p, child.module_name))
