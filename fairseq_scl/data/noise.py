"""Noise applied to training examples, which are dictionaries as fairseq collates them."""

from pathlib import Path

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset, ConcatSentencesDataset, PrependTokenDataset

from fairseq_scl.data import stored
from fairseq_scl.data.corruption import corrupt_tokens
from fairseq_scl.data.translations import FOLDER, INDEX, load_augmented
from fairseq_scl.errors import UserError


def with_tokens(example: dict, tokens: torch.Tensor) -> dict:
    """The example with other tokens, `(length,)` int64."""
    changed = {"net_input.src_tokens": tokens, "ntokens": len(tokens)}
    return {**example, **changed, "net_input.src_lengths": len(tokens)}


class Relabelled(BaseWrapperDataset):
    """Examples of which some have another label.

    Args:
        examples: the whole split.
        labels: class id for each row number that has another label.
    """

    def __init__(self, examples, labels: dict[int, int]):
        super().__init__(examples)
        self.labels = labels

    def __getitem__(self, row):
        example = self.dataset[row]
        if row in self.labels:
            example = {**example, "target": torch.tensor([self.labels[row]])}
        return example


class NoisyTokens(BaseWrapperDataset):
    """Examples whose tokens are corrupted, in another way every epoch.

    Args:
        examples: the whole split.
        probability, mask, special: see `corrupt_tokens`.
        seed: with the row and the epoch it decides what happens.
    """

    def __init__(self, examples, probability: float, mask: int, special: int, seed: int):
        super().__init__(examples)
        self.probability, self.mask, self.special, self.seed = probability, mask, special, seed
        self.epoch = 1

    def set_epoch(self, epoch):
        """Called by fairseq before every epoch."""
        super().set_epoch(epoch)
        self.epoch = epoch

    def __getitem__(self, row):
        example = self.dataset[row]
        rng = np.random.default_rng([self.seed, row, self.epoch])
        tokens = example["net_input.src_tokens"].numpy()
        noisy = corrupt_tokens(tokens, self.probability, self.mask, self.special, rng)
        return with_tokens(example, torch.from_numpy(noisy))


class BackTranslations(BaseWrapperDataset):
    """What `fairseq-scl back-translate` stored for one temperature, labelled as its source.

    Args:
        data: folder of prepared data.
        temperature: of the translation's sampling.
        examples: the whole training split.
        init_token, separator_token: as for the split itself; None for none.

    Raises:
        UserError: if nothing is stored for this temperature.
    """

    def __init__(self, data: Path, temperature, examples, init_token=None, separator_token=None):
        super().__init__(examples)
        self.folder = data / FOLDER / f"T{temperature:g}"
        self.items = load_augmented(self.folder)
        self.rows = {item: row for row, items in self.items.items() for item in items}
        indices = sorted(self.folder.glob("input*.idx"))
        inputs = [stored.load(path.with_suffix("")) for path in indices]
        if not inputs or any(len(sentences) != len(self.rows) for sentences in inputs):
            raise UserError(f"{self.folder / INDEX} is not of the sentences that lie beside it")
        starts = (init_token, separator_token)
        #: `<s> A </s>` or `<s> A </s> </s> B </s>`, `(length,)` int64
        self.tokens = ConcatSentencesDataset(*map(PrependTokenDataset, inputs, starts))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, item):
        return with_tokens(self.dataset[self.rows[item]], self.tokens[item])

    @property
    def sizes(self):
        """`(n,)` tokens of each item."""
        return self.tokens.sizes

    def chosen(self, rows: np.ndarray, ratio: int) -> np.ndarray:
        """The first `ratio` translations of each of `rows`, `(len(rows) * ratio,)`.

        Raises:
            UserError: if a row has fewer.
        """
        for row in rows.tolist():
            stored = len(self.items.get(row, ()))
            if stored < ratio:
                raise UserError(
                    f"{self.folder}: row {row} has {stored} translations, --noise-ratio {ratio} "
                    "needs more; run 'fairseq-scl back-translate' again"
                )
        return np.array([item for row in rows.tolist() for item in self.items[row][:ratio]])
