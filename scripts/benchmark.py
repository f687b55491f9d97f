"""Training speed beside stock fairseq and Hugging Face's Trainer; scripts/benchmark.sh calls this.

Every contender fine-tunes the same weights on the same rows of SST-2's training set, batch 16, in
float32, for the same number of updates, in rounds: each round runs all of them one after another,
so that a busy machine slows all. Ratios are taken within a round and quoted as median [smallest,
largest]. A contender is a command that prints a line for every update; its clock is ours:

    updates/s    between the tenth and the last update
    first        seconds from the command's start to its first update
    after        seconds from the last update to the command's end
    MiB          peak memory of its process (Linux)
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

WARM_UP = 10  # updates that do not count
STOCK = "fairseq, sentence_prediction"  # what the others are compared with
FLAGS = """
    --task sentence_prediction --init-token 0 --num-classes 2 --no-epoch-checkpoints --no-save
    --dropout 0.1 --attention-dropout 0.1 --weight-decay 0.1 --adam-betas (0.9,0.98) --adam-eps 1e-6
    --clip-norm 0.0 --lr-scheduler fixed --lr 1e-5 --batch-size 16 --required-batch-size-multiple 1
    --disable-validation --num-workers 0 --log-format json --log-interval 1 --cpu --seed 1
"""


class Timing(NamedTuple):
    """What was measured of a command."""

    updates_per_second: float
    first: float
    after: float
    mib: float


def fairseq(args, *flags: str) -> list[str]:
    """A fairseq-train command; later flags win."""
    program = str(Path(sys.executable).with_name("fairseq-train"))
    encoder = (args.encoder / "train_flags.txt").read_text().split()
    start = ["--finetune-from-model", str(args.encoder / "model.pt")]
    updates = ["--max-update", str(args.updates)]
    return [program, str(args.data), *FLAGS.split(), *encoder, *start, *updates, *flags]


def contenders(args) -> dict[str, list[str]]:
    """The commands by name."""
    here = Path(__file__).resolve().parents[1]
    plugin = ["--user-dir", str(here / "fairseq_scl"), "--task", "few_shot_glue"]
    plugin += ["--criterion", "sentence_prediction_scl", "--optimizer", "fused_adam"]
    # stock fairseq lacks MiniLM's pooling and layer norm's epsilon, which cost nothing
    stock = ["--arch", "roberta_base", "--encoder-layers", "6", "--encoder-embed-dim", "384"]
    stock += ["--encoder-ffn-embed-dim", "1536", "--encoder-attention-heads", "12"]
    stock += ["--criterion", "sentence_prediction", "--optimizer", "adam"]
    stock += ["--user-dir", str(here / "fairseq_scl")]  # or torch refuses the checkpoint
    commands = {
        "fairseq-scl, CE+SCL": fairseq(args, *plugin, "--scl-weight", "0.9"),
        STOCK: fairseq(args, *stock),
        "fairseq-scl, CE": fairseq(args, *plugin, "--scl-weight", "0"),
    }
    if args.peers:
        peer = [str(args.peers / "bin" / "python"), str(here / "scripts" / "benchmark_trainer.py")]
        peer += [str(args.model), str(args.rows), str(args.updates)]
        commands["Trainer"] = peer
        commands["Trainer, group_by_length"] = [*peer, "--group-by-length"]
    return commands


def measure(command: list[str], updates: int) -> Timing:
    """Run a command and time the lines that it prints for its updates."""
    start, stamps, tail = time.perf_counter(), [], []
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
            env=environment,
        )  # fmt: skip
        for line in process.stdout:
            tail = [*tail[-20:], line]
            if re.search(r'"num_updates": |^update ', line) and "train_loss" not in line:
                stamps.append(time.perf_counter() - start)
        _, status, usage = os.wait4(process.pid, 0)
    if status or len(stamps) < updates:
        sys.exit(f"benchmark: {' '.join(command)} failed:\n{''.join(tail)}")
    end = time.perf_counter() - start
    seconds = stamps[updates - 1] - stamps[WARM_UP - 1]
    return Timing(
        (updates - WARM_UP) / seconds, stamps[0], end - stamps[updates - 1], usage.ru_maxrss / 2**10
    )


def floor() -> tuple[float, float]:
    """The machine: GFLOP/s of the model's own matrix products, GB/s of an optimizer's pass.

    Products are those of a feed-forward layer on the tokens of 16 sentences, 210 of them.
    """
    import torch

    a, b = torch.randn(210, 384), torch.randn(384, 1536)
    parameters = [torch.randn(22_000_000) for _ in range(2)]

    def best(run, repeats: int) -> float:
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times)

    products = best(lambda: [a @ b for _ in range(50)], 10) / 50
    copies = best(lambda: parameters[0].copy_(parameters[1]), 10)
    return 2 * 210 * 384 * 1536 / products / 1e9, 2 * 4 * 22e6 / copies / 1e9


def spread(values: list[float], decimals: int) -> str:
    """Median [smallest, largest]."""
    low, middle, high = (
        f"{value:.{decimals}f}" for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} [{low}, {high}]"


def main() -> None:
    """Run the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="prepared SST-2")
    parser.add_argument("--encoder", type=Path, required=True, help="imported encoder")
    parser.add_argument("--model", type=Path, help="the same encoder as a Hugging Face folder")
    parser.add_argument("--rows", type=Path, help="SST-2's train.tsv, for the peers")
    parser.add_argument("--peers", type=Path, help="virtual environment of the peers")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    args.data, args.encoder = args.data.resolve(), args.encoder.resolve()
    commands = contenders(args)
    timings: dict[str, list[Timing]] = {name: [] for name in commands}
    for number in range(args.rounds):
        for name, command in commands.items():
            print(f"round {number + 1} of {args.rounds}: {name}", file=sys.stderr)
            timings[name].append(measure(command, args.updates))
    stock = [timing.updates_per_second for timing in timings[STOCK]]
    print("| | updates/s | times stock | first s | after s | MiB |\n|---|---|---|---|---|---|")
    for name, measured in timings.items():
        speeds = [timing.updates_per_second for timing in measured]
        ratios = [ours / theirs for ours, theirs in zip(speeds, stock, strict=True)]
        first, after = (spread([t[i] for t in measured], 1) for i in (1, 2))
        mib = spread([t.mib for t in measured], 0)
        row = (name, spread(speeds, 2), spread(ratios, 2), first, after, mib)
        print(f"| {' | '.join(row)} |")
    gflops, bandwidth = floor()
    print(f"\nmatrix products {gflops:.0f} GFLOP/s, memory {bandwidth:.1f} GB/s")
    print(json.dumps(timings), file=sys.stderr)


if __name__ == "__main__":
    main()
