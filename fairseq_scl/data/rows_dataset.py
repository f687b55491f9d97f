"""Some rows of a split, batched anew every epoch."""

from collections.abc import Callable

import numpy as np
from fairseq.data import FairseqDataset

from fairseq_scl.batching import class_balanced_order


class RowsDataset(FairseqDataset):
    """The given rows of a split.

    Features:
        * With an `order`, which examples share a batch changes from epoch to epoch. (fairseq's
          `sentence_prediction` draws batches once, so an example would meet the same
          neighbours in every epoch, which starves a contrastive loss.) fairseq asks for the
          order under a seed of its own for each epoch, so a run can be repeated and resumed.
        * Without, they are sorted by length, which wastes the least padding.
        * Batches carry `num_rows`, the size of the whole split; with `id`, the row number in
          it, predictions of several processes can be put together.

    Args:
        split: the whole split, a fairseq dataset of dictionaries.
        sizes: `(len(split),)` tokens of each of its examples.
        rows: `(n,)` row numbers in it.
        order: gives the positions in `rows` in the order in which they fill batches, drawn from
            numpy's global generator.
    """

    def __init__(
        self,
        split,
        sizes: np.ndarray,
        rows: np.ndarray,
        order: Callable[[], np.ndarray] | None = None,
    ):
        super().__init__()
        self.split = split
        self.rows = rows
        self.sizes = sizes[rows]
        self.order = order

    def __getitem__(self, index):
        return self.split[int(self.rows[index])]

    def __len__(self):
        return len(self.rows)

    def num_tokens(self, index):
        """Tokens of one example, what `--max-tokens` counts."""
        return int(self.sizes[index])

    def num_tokens_vec(self, indices):
        """Tokens of several examples."""
        return self.sizes[indices]

    def size(self, index):
        """Tokens of one example, what `--max-positions` limits."""
        return self.num_tokens(index)

    def ordered_indices(self):
        """The order in which examples fill batches."""
        if self.order is not None:
            return self.order()
        return np.argsort(self.sizes, kind="stable")

    def collater(self, samples):
        """Collate as the split does, and add `num_rows`."""
        batch = self.split.collater(samples)
        if batch:
            batch["num_rows"] = len(self.split)
        return batch

    def set_epoch(self, epoch):
        """Tell the split, whose noise may depend on it."""
        super().set_epoch(epoch)
        self.split.set_epoch(epoch)

    @property
    def can_reuse_epoch_itr_across_epochs(self):
        """Whether fairseq may keep the batches of the first epoch."""
        return self.order is None


def balanced(labels: np.ndarray, batch_size: int, per_class: int) -> np.ndarray:
    """`class_balanced_order`, drawn from numpy's global generator."""
    rng = np.random.default_rng(np.random.randint(2**31))
    return class_balanced_order(labels, batch_size, per_class, rng)
