"""Training speed beside stock fairseq and Hugging Face's Trainer; scripts/benchmark.sh calls this.

Every contender fine-tunes the same weights on the same rows of SST-2's training set, batch 16, for
the same number of updates, in rounds: each round runs all of them one after another, so that a busy
machine slows all. Ratios are taken within a round and quoted as median [smallest, largest]. On a
CPU all compute in float32; on a GPU fairseq in fp16 and Trainer in bf16. The weights of --shape
roberta-large are random, and its vocabulary is MiniLM's. A contender is a command that prints a
line for every update; its clock is ours:

    updates/s    between the tenth and the last update; times 16 in sentences/s
    of floor     updates/s as a share of what the matrix products of the batch's tokens at the
                 machine's rate and the optimizer's traffic at its memory bandwidth would allow
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
BATCH = 16  # sentences
STOCK = "fairseq, sentence_prediction"  # what the others are compared with
FLAGS = """
    --task sentence_prediction --init-token 0 --num-classes 2 --no-epoch-checkpoints --no-save
    --dropout 0.1 --attention-dropout 0.1 --weight-decay 0.1 --adam-betas (0.9,0.98) --adam-eps 1e-6
    --clip-norm 0.0 --lr-scheduler fixed --lr 1e-5 --batch-size 16 --required-batch-size-multiple 1
    --disable-validation --num-workers 0 --log-format json --log-interval 1 --seed 1
"""


class Shape(NamedTuple):
    """What decides over the work of an update; the flags are stock fairseq's."""

    layers: int
    width: int
    parameters: int
    stock: str


SHAPES = {
    # stock fairseq lacks MiniLM's pooling and layer norm's epsilon, which cost nothing
    "minilm": Shape(
        6,
        384,
        22_700_000,
        "--arch roberta_base --encoder-layers 6 --encoder-embed-dim 384 "
        "--encoder-ffn-embed-dim 1536 --encoder-attention-heads 12",
    ),
    "roberta-large": Shape(24, 1024, 335_000_000, "--arch roberta_large"),
}


class Timing(NamedTuple):
    """What was measured of a command."""

    updates_per_second: float
    first: float
    after: float
    mib: float


def fairseq(args, *flags: str) -> list[str]:
    """A fairseq-train command; later flags win."""
    command = [str(Path(sys.executable).with_name("fairseq-train")), str(args.data), *FLAGS.split()]
    command += ["--fp16", "--fp16-init-scale", "128"] if has_gpu() else ["--cpu"]
    if args.shape == "minilm":
        command += (args.encoder / "train_flags.txt").read_text().split()
        command += ["--finetune-from-model", str(args.encoder / "model.pt")]
    else:
        command += ["--arch", "sentence_roberta_large", "--max-positions", "512"]
    return [*command, "--max-update", str(args.updates), *flags]


def has_gpu() -> bool:
    """Whether the contenders will find one."""
    import torch

    return torch.cuda.is_available()


def contenders(args) -> dict[str, list[str]]:
    """The commands by name."""
    here = Path(__file__).resolve().parents[1]
    plugin = ["--user-dir", str(here / "fairseq_scl"), "--task", "few_shot_glue"]
    plugin += ["--criterion", "sentence_prediction_scl", "--optimizer", "fused_adam"]
    stock = SHAPES[args.shape].stock.split()
    stock += ["--criterion", "sentence_prediction", "--optimizer", "adam"]
    stock += ["--user-dir", str(here / "fairseq_scl")]  # or torch refuses the checkpoint
    commands = {
        "fairseq-scl, CE+SCL": fairseq(args, *plugin, "--scl-weight", "0.9"),
        STOCK: fairseq(args, *stock),
        "fairseq-scl, CE": fairseq(args, *plugin, "--scl-weight", "0"),
    }
    if has_gpu():
        compiled = fairseq(args, *plugin, "--scl-weight", "0.9", "--compile")
        commands["fairseq-scl, CE+SCL, --compile"] = compiled
    if args.peers:
        peer = [str(args.peers / "bin" / "python"), str(here / "scripts" / "benchmark_trainer.py")]
        peer += [str(args.model), str(args.rows), str(args.updates)]
        peer += ["--shape", args.shape]
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


def tokens_per_batch(data: Path) -> tuple[float, float]:
    """Real tokens of a batch of 16 rows drawn at random, and padded over real positions."""
    import numpy as np
    from fairseq.data import data_utils

    dataset = data_utils.load_indexed_dataset(str(data / "input0" / "train"))
    sizes = dataset.sizes + 1  # <s>; they are gone with the dataset
    rows = np.random.default_rng(1).permutation(len(sizes))[: len(sizes) // BATCH * BATCH]
    batches = sizes[rows].reshape(-1, BATCH)
    return batches.sum(1).mean(), batches.max(1).sum() * BATCH / batches.sum()


def floor(tokens: float, shape: Shape) -> tuple[float, float, float]:
    """The machine: GFLOP/s of the model's own matrix products, GB/s, and updates/s at these.

    A product is that of a feed-forward layer with the tokens of a batch; a weight takes part in
    three of two operations a token. AdamW reads and writes weights and two moments, and reads
    gradients, which the backward pass has written.
    """
    import torch

    kind = {"device": "cuda", "dtype": torch.half} if has_gpu() else {}
    wait = torch.cuda.synchronize if has_gpu() else lambda: None
    width = shape.width
    a, b = torch.randn(round(tokens), width, **kind), torch.randn(width, 4 * width, **kind)
    memory = [torch.randn(shape.parameters, device=a.device) for _ in range(2)]

    def best(run, repeats: int) -> float:
        times = []
        for _ in range(repeats):
            wait()
            start = time.perf_counter()
            run()
            wait()
            times.append(time.perf_counter() - start)
        return min(times)

    rate = 50 * 2 * a.numel() * 4 * width / best(lambda: [a @ b for _ in range(50)], 10)
    bandwidth = 2 * 4 * shape.parameters / best(lambda: memory[0].copy_(memory[1]), 10)
    operations = 3 * 2 * tokens * shape.layers * 12 * width**2
    seconds = operations / rate + 8 * 4 * shape.parameters / bandwidth
    return rate / 1e9, bandwidth / 1e9, 1 / seconds


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
    default = "roberta-large" if has_gpu() else "minilm"
    parser.add_argument("--shape", choices=SHAPES, default=default, help="default: %(default)s")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    args.data, args.encoder = args.data.resolve(), args.encoder.resolve()
    tokens, padded = tokens_per_batch(args.data)
    gflops, bandwidth, limit = floor(tokens, SHAPES[args.shape])
    commands = contenders(args)
    timings: dict[str, list[Timing]] = {name: [] for name in commands}
    for number in range(args.rounds):
        for name, command in commands.items():
            print(f"round {number + 1} of {args.rounds}: {name}", file=sys.stderr)
            timings[name].append(measure(command, args.updates))
    stock = [timing.updates_per_second for timing in timings[STOCK]]
    print("| | updates/s | tokens/s | times stock | of floor | first s | after s | MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, measured in timings.items():
        speeds = [timing.updates_per_second for timing in measured]
        ratios = [ours / theirs for ours, theirs in zip(speeds, stock, strict=True)]
        first, after = (spread([t[i] for t in measured], 1) for i in (1, 2))
        mib = spread([t.mib for t in measured], 0)
        of_floor = f"{statistics.median(speeds) / limit:.2f}"
        rate = f"{statistics.median(speeds) * tokens:.0f}"
        row = (name, spread(speeds, 2), rate, spread(ratios, 2), of_floor, first, after, mib)
        print(f"| {' | '.join(row)} |")
    print(
        f"\nA batch: {BATCH} rows, {tokens:.0f} tokens, {padded:.2f} times as many if padded."
        f"\nThe machine: matrix products {gflops:.0f} GFLOP/s, memory {bandwidth:.1f} GB/s: "
        f"at most {limit:.1f} updates/s."
    )
    print(json.dumps(timings), file=sys.stderr)


if __name__ == "__main__":
    main()
