"""Compare a study with the same runs made another way; scripts/benchmark_study.sh calls this."""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from fairseq_scl.reports.results import Run, read_runs
from fairseq_scl.reports.statistics import compare


def accuracies(runs: list[Run]) -> dict:
    """Test accuracy in percent by (N, loss) and draw."""
    found: dict = defaultdict(dict)
    for run in runs:
        found[run.setting["N"], run.loss][run.draw] = run.test
    return found


def main() -> None:
    """Run the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fast", type=Path)
    parser.add_argument("slow", type=Path, help="folder of runs with a file 'seconds' each")
    parser.add_argument("--seconds", type=float, required=True, help="what all of FAST took")
    args = parser.parse_args()
    fast, slow = read_runs(args.fast), read_runs(args.slow)
    ours, theirs = accuracies(fast), accuracies(slow)
    print("| N | loss | draws | fast | slow | difference [95 %] |\n|---|---|---|---|---|---|")
    for key, runs in sorted(theirs.items()):
        found = compare(ours[key], runs)
        means = [np.mean([way[key][draw] for draw in runs]) for way in (ours, theirs)]
        interval = f"{found.mean:+.1f}"
        if found.low is not None:  # more than one draw
            interval += f" [{found.low:+.1f}, {found.high:+.1f}]"
        cells = (*key, found.pairs, f"{means[0]:.1f}", f"{means[1]:.1f}", interval)
        print(f"| {' | '.join(map(str, cells))} |")
    seconds = defaultdict(list)
    for run in slow:
        seconds[run.setting["N"]].append(float((run.folder / "seconds").read_text()))
    total = sum(np.mean(seconds[run.setting["N"]]) for run in fast)
    print(
        f"\n{len(fast)} runs: {args.seconds:.0f} s, tests included; one fairseq-train after another"
    )
    print(f"{total:.0f} s (from {len(slow)} of them): {total / args.seconds:.2f} times as long.")


if __name__ == "__main__":
    main()
