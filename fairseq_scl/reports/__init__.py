"""What runs say: `frame` as a table, `report` and `plot` on the command line."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(folder: str | Path) -> "DataFrame":
    """All runs below `folder`, a row each; see `fairseq_scl.reports.results.read_runs`."""
    from fairseq_scl.reports.results import read_runs  # pandas only for who wants it

    return read_runs(Path(folder))
