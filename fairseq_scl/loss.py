"""The supervised contrastive loss (Gunel et al., ICLR 2021, equation 3)."""

from typing import NamedTuple

import torch
from torch import Tensor

# A shorter vector has no direction: it counts as similar to nothing and gets no gradient.
MIN_NORM = 1e-6


class Candidates(NamedTuple):
    """What anchors are compared with.

    features: `(candidates, dim)`, any floating dtype, on the anchors' device.
    labels: `(candidates,)`, integer class ids.
    own: `(batch,)` int64, the place of each anchor among them, where it is not compared.
    """

    features: Tensor
    labels: Tensor
    own: Tensor

    @classmethod
    def of_batch(cls, features: Tensor, labels: Tensor) -> "Candidates":
        """The batch itself: each anchor is compared with all others."""
        return cls(features, labels, torch.arange(len(labels), device=labels.device))


def widen(features: Tensor) -> Tensor:
    """The features in float32; float64 stays."""
    return features if features.dtype == torch.float64 else features.float()


def unit_vectors(features: Tensor) -> Tensor:
    """L2-normalise rows, in float32 or better; rows shorter than `MIN_NORM` become zero.

    A row that is not finite becomes NaN; however long a finite one is, it has a direction.

    Args:
        features: `(batch, dim)`, any floating dtype.

    Returns:
        `(batch, dim)`, float64 for float64 input and float32 for everything else.
    """
    features = widen(features)
    norms = features.norm(dim=-1, keepdim=True)
    # where the squares overflow, those of the row divided by its largest entry do not
    largest = torch.where(norms.isinf(), features.detach().abs().amax(-1, keepdim=True), 1)
    features = features / largest
    norms = features.norm(dim=-1, keepdim=True)
    has_none = norms <= MIN_NORM  # false for NaN, which must not turn into numbers
    return torch.where(has_none, 0, features) / torch.where(has_none, 1, norms)


def compare(
    features: Tensor, labels: Tensor, candidates: Candidates | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare every anchor with every candidate.

    Args:
        features: `(batch, dim)`; labels: `(batch,)`.
        candidates: the batch itself by default.

    Returns:
        Cosines in float32 or better, which pairs share a label, and which are an anchor with
        itself, each `(batch, candidates)`.
    """
    if candidates is None:
        candidates = Candidates.of_batch(features, labels)
    z = unit_vectors(features)
    others = z if candidates.features is features else unit_vectors(candidates.features)
    similarity = z @ others.T
    places = torch.arange(len(candidates.labels), device=z.device)
    same = labels[:, None] == candidates.labels[None, :]
    return similarity, same, candidates.own[:, None] == places[None, :]


def supervised_contrastive_loss(
    features: Tensor,
    labels: Tensor,
    temperature: float = 0.3,
    reduction: str = "mean",
    candidates: Candidates | None = None,
) -> Tensor:
    """Pull together what shares a label, push apart the rest of the batch.

        L = Σ_i −1 / (N_yi − 1) Σ_{j ≠ i, y_j = y_i} log p_ij
        p_ij = exp(z_i · z_j / τ) / Σ_{k ≠ i} exp(z_i · z_k / τ)

    with `z` the L2-normalised features. `i` runs over the batch, `j` and `k` over the
    candidates, `N_y` of which are of class `y`. An anchor `i` without a positive (no other
    candidate of its class) adds 0 and still counts in the mean.

    Args:
        features: `(batch, dim)`, any floating dtype; computed in float32 (float64 stays).
        labels: `(batch,)`, integer class ids.
        temperature: tau, above 0.
        reduction: `"mean"` divides the sum over anchors by the batch size, `"sum"` is
            the sum as printed in the paper.
        candidates: what the anchors are compared with, by default the batch itself.

    Returns:
        The loss in nats, a scalar; 0 for a batch in which no label occurs twice, NaN where a
        feature is NaN or infinite.

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
        similarity, same, itself = compare(features, labels, candidates)
        if len(similarity) == 0 or similarity.size(1) < 2:  # nothing to compare with
            return similarity.sum() * 0
        logits = (similarity / temperature).masked_fill(itself, -torch.inf)
        log_prob = logits - logits.logsumexp(dim=1, keepdim=True)
        positives = same & ~itself
        counted = positives | log_prob.isnan()  # NaN in, NaN out, without positives too
        per_anchor = -torch.where(counted, log_prob, 0).sum(1) / positives.sum(1).clamp(min=1)
        return per_anchor.mean() if reduction == "mean" else per_anchor.sum()
