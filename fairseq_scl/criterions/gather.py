"""The global batch: the examples of all workers, in plain torch.distributed."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import pad

from fairseq_scl.loss import Candidates, widen


def gather(
    features: Tensor, labels: Tensor, ids: Tensor, group: dist.ProcessGroup | None = None
) -> tuple[Candidates, Tensor]:
    """Gather what every worker is to be compared with.

    Let each worker take the summed loss of its own examples against these candidates. The sum of
    the workers' gradients is then that of one process with the whole batch.

    Args:
        features: `(batch, dim)`, any floating dtype; batch may differ between workers and be 0.
        labels: `(batch,)`, integer class ids.
        ids: `(batch,)` int64, which examples they are.
        group: the workers, by default all processes. Each of them must call this, and either all
            or none must go backward through its result.

    Returns:
        The examples of all workers in the order of their ranks, and their ids; features in float32
        or better, with a gradient that reaches the worker they come from.
    """
    sizes = all_gather(torch.tensor([len(labels)], device=labels.device), group).flatten().tolist()
    start = sum(sizes[: dist.get_rank(group)])

    def whole(rows: Tensor) -> Tensor:
        missing = max(1, *sizes) - len(rows)  # workers can only exchange equal shapes
        padded = pad(rows, (0,) * (2 * rows.dim() - 1) + (missing,))
        parts = all_gather(padded, group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    own = torch.arange(start, start + len(labels), device=labels.device)
    return Candidates(whole(widen(features)), whole(labels), own), whole(ids)


def all_gather(tensor: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Stack the equally shaped tensors of all workers, `(workers, *shape)`; differentiable."""
    return AllGather.apply(tensor, group)


class AllGather(Function):
    """A worker's gradient is the sum of what all workers say of its part."""

    @staticmethod
    def forward(ctx, tensor, group):
        """See `all_gather`."""
        ctx.group = group
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, tensor.contiguous(), group=group)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx, gradient):
        """Sum over the workers, and take this one's part."""
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient, group=ctx.group)
        return gradient[dist.get_rank(ctx.group)], None
