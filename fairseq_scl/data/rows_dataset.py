"""Some rows of a split, batched anew every epoch."""

import numpy as np
from fairseq.data import FairseqDataset


class RowsDataset(FairseqDataset):
    """The given rows of a split.

    Features:
        * `shuffle=True`: which examples share a batch changes from epoch to epoch. (fairseq's
          `sentence_prediction` draws batches once, so an example would meet the same
          neighbours in every epoch, which starves a contrastive loss.) fairseq calls
          `ordered_indices` under a seed of its own for each epoch, so a run can be repeated
          and resumed.
        * `shuffle=False`: sorted by length, which wastes the least padding.
        * Batches carry `num_rows`, the size of the whole split; with `id`, the row number in
          it, predictions of several processes can be put together.

    Args:
        split: the whole split, a fairseq dataset of dictionaries.
        sizes: `(len(split),)` tokens of each of its examples.
        rows: `(n,)` row numbers in it.
        shuffle: see above.
    """

    def __init__(self, split, sizes: np.ndarray, rows: np.ndarray, shuffle: bool):
        super().__init__()
        self.split = split
        self.rows = rows
        self.sizes = sizes[rows]
        self.shuffle = shuffle

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
        if self.shuffle:
            return np.random.permutation(len(self))
        return np.argsort(self.sizes, kind="stable")

    def collater(self, samples):
        """Collate as the split does, and add `num_rows`."""
        batch = self.split.collater(samples)
        if batch:
            batch["num_rows"] = len(self.split)
        return batch

    @property
    def can_reuse_epoch_itr_across_epochs(self):
        """Whether fairseq may keep the batches of the first epoch."""
        return not self.shuffle
