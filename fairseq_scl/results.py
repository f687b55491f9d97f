"""Reading what `fairseq-scl evaluate` wrote."""

import json
from pathlib import Path

from fairseq_scl.errors import UserError
from fairseq_scl.evaluate import RESULT


def read_results(folder: Path) -> list[tuple[Path, dict]]:
    """All results below `folder`, with their runs' folders, sorted by path.

    Raises:
        UserError: if there is none, or one is damaged.
    """
    results = []
    for path in sorted(folder.rglob(RESULT)):
        try:
            results.append((path.parent, json.loads(path.read_text(encoding="utf-8"))))
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
    if not results:
        raise UserError(f"{folder}: no {RESULT} below it; run 'fairseq-scl evaluate' first")
    return results


def loss_name(result: dict) -> str:
    """`CE`, or `CE+SCL` with its hyper-parameters."""
    if result["scl_weight"] == 0:
        return "CE"
    return f"CE+SCL (λ {result['scl_weight']:g}, τ {result['scl_temperature']:g})"
