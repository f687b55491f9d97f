"""Some rows of a split, batched anew every epoch."""

from collections.abc import Callable

import numpy as np
from fairseq.data import FairseqDataset
from fairseq.distributed.utils import get_data_parallel_world_size

from fairseq_scl.data.batching import class_balanced_order


class RowsDataset(FairseqDataset):
    """The given rows of a split.

    Features:
        * With an `order`, which examples share a batch changes from epoch to epoch. (fairseq's
          `sentence_prediction` draws batches once, so an example would meet the same
          neighbours in every epoch, which starves a contrastive loss.) fairseq asks for the
          order under a seed of its own for each epoch, so a run can be repeated and resumed.
        * Without, they are sorted by length, which wastes the least padding.
        * Workers get equally many batches, some of which may be empty; see `collater`.
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
        """Tokens of one example, what `--max-tokens` counts and `--max-positions` limits."""
        return int(self.sizes[index])

    size = num_tokens

    def num_tokens_vec(self, indices):
        """Tokens of several examples."""
        return self.sizes[indices]

    def ordered_indices(self):
        """The order in which examples fill batches."""
        return self.order() if self.order else np.argsort(self.sizes, kind="stable")

    def batch_by_size(self, indices, *args, **kwargs):
        """As in fairseq, but for the last rows, which it drops unless they fill a multiple.

        Empty batches follow until each worker has equally many.
        """
        batches = list(super().batch_by_size(indices, *args, **kwargs))
        rest = indices[sum(map(len, batches)) :]
        batches += [rest] if len(rest) else []
        return batches + [[]] * (-len(batches) % get_data_parallel_world_size())

    def collater(self, samples):
        """Collate as the split does, and add `num_rows`.

        Without samples, no `id` and no `target`, but a row in `net_input`: a worker that is out
        of examples still has to run the model. (fairseq itself would repeat its first batch and
        in validation not tell the criterion.)
        """
        batch = self.split.collater(samples or [self[0]])
        batch["num_rows"] = len(self.split)
        if not samples:
            batch |= {key: batch[key][:0] for key in ("id", "target") if key in batch}
            batch |= {"nsentences": 0, "ntokens": 0}
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
