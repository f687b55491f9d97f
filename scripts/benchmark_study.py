"""Compare a study with the same runs made another way; scripts/benchmark_study.sh calls this."""

import argparse
from pathlib import Path

from fairseq_scl.reports import frame
from fairseq_scl.reports.statistics import compare


def main() -> None:
    """Run the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fast", type=Path)
    parser.add_argument("slow", type=Path, help="folder of runs with a file 'seconds' each")
    parser.add_argument("--seconds", type=float, required=True, help="what all of FAST took")
    args = parser.parse_args()
    fast, slow = (frame(folder).set_index("draw") for folder in (args.fast, args.slow))
    print("| N | loss | draws | fast | slow | difference [95 %] |\n|---|---|---|---|---|---|")
    for (shots, loss), theirs in slow.groupby(["N", "loss"], sort=False):
        ours = fast[(fast["N"] == shots) & (fast["loss"] == loss)].loc[theirs.index]
        found = compare(ours["test"], theirs["test"])
        interval = f"{found.mean:+.1f}"
        if found.low is not None:  # more than one draw
            interval += f" [{found.low:+.1f}, {found.high:+.1f}]"
        means = [f"{runs['test'].mean():.1f}" for runs in (ours, theirs)]
        print(f"| {' | '.join(map(str, (shots, loss, found.pairs, *means, interval)))} |")
    seconds = slow["folder"].map(lambda folder: float((folder / "seconds").read_text()))
    total = fast["N"].map(seconds.groupby(slow["N"]).mean()).sum()
    print(
        f"\n{len(fast)} runs: {args.seconds:.0f} s, tests included; one fairseq-train after another"
    )
    print(f"{total:.0f} s (from {len(slow)} of them): {total / args.seconds:.2f} times as long.")


if __name__ == "__main__":
    main()
