"""From token features to the one sentence vector that the head and the contrastive loss share."""

import torch
from torch import Tensor

POOLING = ("cls", "mean")


def pool(features: Tensor, is_token: Tensor, pooling: str) -> Tensor:
    """Pool token features to sentence vectors.

    Args:
        features: `(batch, length, dim)`, the encoder's last hidden states.
        is_token: `(batch, length)` bool, False at padding.
        pooling: `"cls"` takes the first token (`<s>`), `"mean"` averages over all tokens
            that are not padding, `<s>` and `</s>` included.

    Returns:
        `(batch, dim)`, dtype of `features`; never depends on what stands at padding.

    Raises:
        ValueError: for another `pooling`.
    """
    if pooling == "cls":
        return features[:, 0]
    if pooling == "mean":
        total = features.dtype if features.dtype == torch.float64 else torch.float32
        kept = torch.where(is_token.unsqueeze(-1), features.to(total), 0)
        return (kept.sum(1) / is_token.sum(1, keepdim=True).clamp(min=1)).type_as(features)
    raise ValueError(f"pooling must be one of {', '.join(POOLING)}, got {pooling!r}")
