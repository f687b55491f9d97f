"""A Markdown table of all evaluated runs below DIR: mean ± std over draws.

fairseq-scl report outputs
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

from fairseq_scl.results import loss_name, read_results

HEADER = ("N", "loss", "draws", "validation", "test", "seconds a run")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="searched for evaluated runs")


def run(args: argparse.Namespace) -> None:
    """Print the table of `args.folder`."""
    print(table([result for _, result in read_results(args.folder)]))


def table(results: list[dict]) -> str:
    """One row for each data set, N and loss; the metric is the one of checkpoint selection."""
    groups = defaultdict(list)
    for result in results:
        shots = result["num_shots"] or "all"
        groups[result["data"], shots, result["best_metric"], loss_name(result)].append(result)
    lines = []
    previous = None
    for (data, shots, metric, loss), runs in sorted(groups.items(), key=str):
        if (data, metric) != previous:
            lines += [f"{Path(data).name}, {metric}", "", row(HEADER), row(["---"] * len(HEADER))]
            previous = (data, metric)
        cells = (
            shots,
            loss,
            len(runs),
            mean_and_std([result["valid"] for result in runs]),
            mean_and_std([result["test"][metric] for result in runs]),
            mean_and_std([result["seconds"] for result in runs if result["seconds"] is not None]),
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
