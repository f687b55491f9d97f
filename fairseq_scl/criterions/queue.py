"""Cross-batch memory: embeddings of earlier batches as further candidates (plain torch).

After Wang et al., *Cross-Batch Memory for Embedding Learning*, CVPR 2020.
"""

import torch
from torch import Tensor

from fairseq_scl.loss import Candidates, widen


class EmbeddingQueue:
    """The last `size` embeddings, without gradient.

    Args:
        size: how many are kept; above 0.
        memory: where they are kept, to be saved and restored from outside: `features`
            `(kept, dim)` float32 or better, `labels` and `ids` `(kept,)` int64, the oldest first;
            or empty.
    """

    def __init__(self, size: int, memory: dict[str, Tensor]):
        self.size = size
        self.memory = memory

    @property
    def is_full(self) -> bool:
        """Whether it holds `size` embeddings; before, too little is known to contrast with."""
        return len(self.memory.get("ids", ())) == self.size

    def extend(self, candidates: Candidates, ids: Tensor) -> Candidates:
        """Add what is kept, once it is full, but for examples that are candidates already.

        Args:
            candidates: those of the present batch.
            ids: `(candidates,)` int64, which examples they are.
        """
        if not self.is_full:
            return candidates
        kept = {name: rows.to(ids.device) for name, rows in self.memory.items()}
        others = ~torch.isin(kept["ids"], ids)
        return candidates._replace(
            features=torch.cat([candidates.features, kept["features"][others]]),
            labels=torch.cat([candidates.labels, kept["labels"][others]]),
        )

    def push(self, candidates: Candidates, ids: Tensor) -> None:
        """Keep these embeddings, but for any with a NaN or an infinity, and drop the oldest."""
        finite = candidates.features.isfinite().all(1)
        new = {
            "features": widen(candidates.features.detach())[finite],
            "labels": candidates.labels[finite],
            "ids": ids[finite],
        }
        for name, rows in new.items():
            kept = self.memory.get(name, rows[:0]).to(rows.device)
            self.memory[name] = torch.cat([kept, rows])[-self.size :].clone()
