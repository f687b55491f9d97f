"""A Markdown table of all evaluated runs below DIR: mean ± std over draws.

fairseq-scl report outputs
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

from fairseq_scl.results import Run, read_runs

HEADER = ("N", "loss", "draws", "validation", "test", "seconds a run")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="searched for evaluated runs")


def run(args: argparse.Namespace) -> None:
    """Print the table of `args.folder`."""
    print(table([run for run in read_runs(args.folder) if not run.failed]))


def table(runs: list[Run]) -> str:
    """One row for each data set, N and loss; the metric is the one of checkpoint selection."""
    groups = defaultdict(list)
    for run in runs:
        groups[run.setting["data"], run.metric, run.setting["N"], run.loss].append(run)
    lines = []
    previous = None
    for (data, metric, shots, loss), group in sorted(groups.items(), key=str):
        if (data, metric) != previous:
            lines += [f"{data}, {metric}", "", row(HEADER), row(["---"] * len(HEADER))]
            previous = (data, metric)
        cells = (
            shots,
            loss,
            len(group),
            mean_and_std([run.valid for run in group]),
            mean_and_std([run.test for run in group if run.test is not None]),
            mean_and_std([run.result["seconds"] for run in group if run.result["seconds"]]),
        )
        lines.append(row(cells))
    return "\n".join(lines)


def row(cells) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def mean_and_std(values: list[float]) -> str:
    """Mean ± sample standard deviation, the latter only where there are two values."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"
