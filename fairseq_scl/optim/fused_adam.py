"""torch's fused AdamW as an optimizer of fairseq."""

from ast import literal_eval
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II

from fairseq_scl.errors import UserError


@dataclass
class FusedAdamConfig(FairseqDataclass):
    """Options of the optimizer; those that it shares with fairseq's `adam` mean the same."""

    adam_betas: Any = field(
        default="(0.9, 0.999)", metadata={"help": "decay of the gradient's two moments"}
    )
    adam_eps: float = field(default=1e-8, metadata={"help": "added to the second moment's root"})
    weight_decay: float = field(default=0.0, metadata={"help": "decoupled weight decay"})
    lr: list[float] = II("optimization.lr")  # noqa: RUF009


@register_optimizer("fused_adam", dataclass=FusedAdamConfig)
class FusedAdam(FairseqOptimizer):
    """AdamW (Loshchilov and Hutter, 2019) in one pass over the parameters, on CPU or GPU.

    fairseq's `adam` makes about ten passes. The two differ in that fairseq adds eps before the
    bias correction of the second moment; with eps = 1e-6 that is below what rounding does.

    Raises:
        UserError: for betas that are not two numbers, or parameters in half precision.
    """

    supports_flat_params = True  # for --fp16

    def __init__(self, cfg: FusedAdamConfig, params):
        super().__init__(cfg)
        if any(parameter.dtype != torch.float32 for parameter in params):
            raise UserError(
                "--optimizer fused_adam would keep half-precision moments; "
                "--memory-efficient-fp16 and --memory-efficient-bf16 need --optimizer adam"
            )
        self._optimizer = torch.optim.AdamW(params, fused=True, **self.optimizer_config)

    @property
    def optimizer_config(self) -> dict:
        """What the command line sets, also where a run goes on from a checkpoint."""
        lr, betas = self.cfg.lr, self.cfg.adam_betas
        try:
            first, second = literal_eval(betas) if isinstance(betas, str) else betas
        except (ValueError, SyntaxError, TypeError):
            raise UserError(f"--adam-betas {betas} must be two numbers, as (0.9, 0.98)") from None
        return {
            "lr": lr if isinstance(lr, float) else lr[0],
            "betas": (float(first), float(second)),
            "eps": self.cfg.adam_eps,
            "weight_decay": self.cfg.weight_decay,
        }
