"""The supervised contrastive loss (Gunel et al., ICLR 2021, equation 3)."""

import torch
from torch import Tensor

# A shorter vector has no direction: it counts as similar to nothing and gets no gradient.
MIN_NORM = 1e-6


def unit_vectors(features: Tensor) -> Tensor:
    """L2-normalise rows, in float32 or better; rows shorter than `MIN_NORM` become zero.

    Args:
        features: `(batch, dim)`, any floating dtype.

    Returns:
        `(batch, dim)`, float64 for float64 input and float32 for everything else.
    """
    if features.dtype != torch.float64:
        features = features.float()
    norms = features.norm(dim=-1, keepdim=True)
    has_direction = norms > MIN_NORM
    return torch.where(has_direction, features, 0) / torch.where(has_direction, norms, 1)


def supervised_contrastive_loss(
    features: Tensor, labels: Tensor, temperature: float = 0.3, reduction: str = "mean"
) -> Tensor:
    r"""Pull together what shares a label, push apart the rest of the batch.

    .. math:: L = \sum_i \frac{-1}{N_{y_i}-1} \sum_{j \ne i,\, y_j = y_i}
              \log \frac{\exp(z_i \cdot z_j / \tau)}{\sum_{k \ne i} \exp(z_i \cdot z_k / \tau)}

    with :math:`z` the L2-normalised features. An anchor `i` without a positive (no
    other example of its class in the batch) adds 0 and still counts in the mean.

    Args:
        features: `(batch, dim)`, any floating dtype; computed in float32 (float64 stays).
        labels: `(batch,)`, integer class ids.
        temperature: tau, above 0.
        reduction: `"mean"` divides the sum over anchors by the batch size, `"sum"` is
            the sum as printed in the paper.

    Returns:
        The loss in nats, a scalar; 0 for a batch in which no label occurs twice.

    Raises:
        ValueError: for wrong shapes, a temperature not above 0 or an unknown reduction.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> supervised_contrastive_loss(features, torch.tensor([0, 0, 1]), temperature=1.0)
        tensor(0.2088)
    """
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            "features must be (batch, dim) and labels (batch,), "
            f"got {tuple(features.shape)} and {tuple(labels.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")

    with torch.autocast(features.device.type, enabled=False):
        z = unit_vectors(features)
        if len(z) < 2:  # nothing to compare with
            return z.sum() * 0
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        logits = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
        log_prob = logits - logits.logsumexp(dim=1, keepdim=True)
        positives = (labels[:, None] == labels[None, :]) & ~itself
        per_anchor = -torch.where(positives, log_prob, 0).sum(1) / positives.sum(1).clamp(min=1)
        return per_anchor.mean() if reduction == "mean" else per_anchor.sum()
