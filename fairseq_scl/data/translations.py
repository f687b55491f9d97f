"""Where back-translations are stored beside prepared data, and how they are found again."""

from collections import defaultdict
from itertools import count
from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeInt, model_validator

from fairseq_scl.errors import UserError
from fairseq_scl.files import read_model

FOLDER = "back-translation"
INDEX = "index.json"


class Index(BaseModel):
    """Which training row each stored item paraphrases, and the number of its copy, from 0."""

    model_config = ConfigDict(strict=True, extra="forbid")
    rows: list[NonNegativeInt]
    copies: list[NonNegativeInt]

    @model_validator(mode="after")
    def _once_each(self) -> "Index":
        if len(self.rows) != len(self.copies):
            raise ValueError("rows and copies are equally many")
        if len(set(zip(self.rows, self.copies, strict=True))) < len(self.rows):
            raise ValueError("a copy of a row stands there twice")
        return self


def load_augmented(folder: Path) -> dict[int, list[int]]:
    """Which items of `folder`/input0 paraphrase which training row.

    Args:
        folder: one temperature's, `DATA/back-translation/T0.5`.

    Returns:
        For each row that has any, its item numbers in the order of their copies.

    Raises:
        UserError: if the folder is not finished.
    """
    path = folder / INDEX
    if not path.exists():
        raise UserError(f"{path} is missing; make it with 'fairseq-scl back-translate'")
    index = read_model(path, Index)
    items = defaultdict(list)
    for row, _, number in sorted(zip(index.rows, index.copies, count(), strict=False)):
        items[row].append(number)
    return dict(items)
