"""Where back-translations are stored beside prepared data, and how they are found again."""

import json
from collections import defaultdict
from pathlib import Path

from fairseq_scl.errors import UserError

FOLDER = "back-translation"
INDEX = "index.json"


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
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        pairs = list(zip(index["rows"], index["copies"], strict=True))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is missing or damaged; make it with 'fairseq-scl back-translate'"
        ) from None
    items = defaultdict(list)
    for number in sorted(range(len(pairs)), key=pairs.__getitem__):
        items[pairs[number][0]].append(number)
    return dict(items)
