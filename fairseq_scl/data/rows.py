"""Which examples a run sees, as a function of the prepared data and a few choices."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from fairseq_scl.data import corruption, protocols, sampling
from fairseq_scl.errors import UserError


@dataclass(frozen=True)
class Choices:
    """Everything that decides which examples a run sees; a manifest's are held to the bounds."""

    protocol: Annotated[str, Field(pattern=f"^({'|'.join(protocols.PROTOCOLS)})$")] = "given"
    num_shots: int | None = None
    shots_seed: int = 1
    shots_sampling: Annotated[str, Field(pattern=f"^({'|'.join(sampling.SAMPLING)})$")] = (
        "stratified"
    )
    noise: Annotated[str, Field(pattern="^(none|label|tokens|back-translation)$")] = "none"
    label_noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    token_noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    noise_temperature: Annotated[float, Field(gt=0)] | None = None
    noise_ratio: Annotated[int, Field(ge=0)] = 0
    noise_replace: bool = False
    regression: bool = False
    fold: Annotated[str, Field(pattern=protocols.FOLD)] | None = None


class Rows:
    """The rows of each split, and the training labels, that `choices` make of `data`.

    Raises:
        UserError: if the data is damaged, or the choices cannot be had from it.
    """

    def __init__(self, data: Path, choices: Choices):
        from fairseq_scl.data import stored

        self.data, self.choices = data, choices
        self.labels = cache(lambda split: stored.read_labels(data, split, choices.regression))
        self.of = cache(self._of)

    def _of(self, split: str) -> protocols.Split:
        """Source file and rows of a split; of `train` only those drawn."""
        choices = self.choices
        try:
            found = protocols.split(choices.protocol, split, self.labels, choices.fold)
        except ValueError as error:
            raise UserError(f"--fold {choices.fold} of {self.data}: {error}") from None
        if split != "train" or choices.num_shots is None:
            return found
        try:
            drawn = sampling.draw(
                self.labels(found.source)[found.rows],
                choices.num_shots,
                choices.shots_seed,
                choices.shots_sampling,
            )
        except ValueError as error:
            raise UserError(f"--num-shots {choices.num_shots} of {self.data}: {error}") from None
        return protocols.Split(found.source, found.rows[drawn])

    def training_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels of the training rows, noisy if so chosen, and the positions that were flipped."""
        train = self.of("train")
        labels = self.labels(train.source)[train.rows]
        if self.choices.noise != "label":
            return labels, np.zeros(0, dtype=np.int64)
        classes = int(self.labels(train.source).max()) + 1
        try:
            return corruption.flip_labels(
                labels, classes, self.choices.label_noise, self.choices.shots_seed
            )
        except ValueError as error:
            raise UserError(f"--label-noise {self.choices.label_noise}: {error}") from None

    def translations(self, examples=None, init_token=None, separator_token=None):
        """What is stored of back-translations, and which of it belongs to the training rows.

        Raises:
            UserError: if it does not suffice.
        """
        from fairseq_scl.data.noise import BackTranslations

        stored = BackTranslations(
            self.data, self.choices.noise_temperature, examples, init_token, separator_token
        )
        return stored, stored.chosen(self.of("train").rows, self.choices.noise_ratio)
