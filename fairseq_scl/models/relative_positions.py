"""MPNet's relative positions: for each head a number by how far apart two tokens are.

It is added to the logits of attention, the same in all layers (Song et al., *MPNet*, 2020); the
buckets are T5's (Raffel et al., 2020), 16 for what comes before and 16 for what comes after.
"""

import torch
from torch import Tensor, nn

# distances at which the next bucket starts: every one up to 8, then 8 * 2^(i/2), rounded up
STARTS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91)
SIDE = len(STARTS) + 1  # buckets of one direction


def buckets(distances: Tensor) -> Tensor:
    """The bucket of each distance, int64 of the same shape.

    Args:
        distances: int64, the place of a key less that of the query.
    """
    starts = torch.tensor(STARTS, device=distances.device)
    far = (distances.abs().unsqueeze(-1) >= starts).sum(-1)
    return far + SIDE * (distances > 0)


class RelativePositions(nn.Embedding):
    """A number for each bucket and head."""

    def __init__(self, heads: int):
        super().__init__(2 * SIDE, heads)

    def forward(self, length: int) -> Tensor:  # type: ignore[override]
        """What is added to the logits of sentences of `length` tokens: `(heads, length, length)`.

        Its second dimension are queries, its third keys.
        """
        places = torch.arange(length, device=self.weight.device)
        return super().forward(buckets(places - places.unsqueeze(1))).permute(2, 0, 1)
