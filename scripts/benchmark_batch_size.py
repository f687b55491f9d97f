"""Memory and time of a training step over the contrastive batch size, plain and in chunks.

    .venv/bin/python scripts/benchmark_batch_size.py data/minilm/SST-2 --encoder encoders/minilm

Each step is that of CE+SCL: forward, contrastive loss over the whole batch, backward. Peak memory
is that of the process (on Linux) in MiB, each case in a process of its own; parameters, gradients
and libraries are in it, and stand in the first row alone.
"""

import argparse
import logging
import multiprocessing
import os
import time
import warnings
from pathlib import Path

SIZES = (16, 64, 256, 1024, 4096)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="prepared data, as for fairseq-train")
    parser.add_argument("--encoder", type=Path, required=True, help="imported encoder folder")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--chunk-size", type=int, default=16, metavar="C")
    parser.add_argument("--steps", type=int, default=3, help="the fastest counts")
    parser.add_argument(
        "--plain-up-to", type=int, default=1024, metavar="N", help="larger ones in chunks only"
    )
    args = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore"
    print("| batch | plain MiB | in chunks MiB | plain s | in chunks s | ratio |")
    print("|---|---|---|---|---|---|", flush=True)
    base, _ = in_a_process(args, 0, None)
    print(f"| 0 | {base:.0f} | | | | |", flush=True)
    for size in args.sizes:
        memory, seconds = in_a_process(args, size, args.chunk_size)
        row = ("", f"{memory:.0f}", "", f"{seconds:.2f}", "")
        if size <= args.plain_up_to:
            plain, plain_seconds = in_a_process(args, size, None)
            ratio = seconds / plain_seconds
            row = (f"{plain:.0f}", row[1], f"{plain_seconds:.2f}", row[3], f"{ratio:.2f}")
        print(f"| {size} | {' | '.join(row)} |", flush=True)


def in_a_process(args: argparse.Namespace, size: int, chunk_size: int | None):
    """`measure`, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (args, size, chunk_size))


def measure(args: argparse.Namespace, size: int, chunk_size: int | None):
    """Peak MiB and seconds of a step with `size` rows; with 0 rows, of the gradients alone."""
    logging.disable()
    warnings.simplefilter("ignore")
    import numpy as np
    import torch
    from fairseq import checkpoint_utils, options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import fairseq_scl.plugin  # noqa: F401
    from fairseq_scl.studies.study import peak_memory_mib, reset_peak_memory

    flags = f"""{args.data} --task few_shot_glue --criterion sentence_prediction_scl --cpu
        {(args.encoder / "train_flags.txt").read_text()} --optimizer fused_adam --batch-size 16"""
    flags += f" --scl-chunk-size {chunk_size}" if chunk_size else ""
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), flags.split())
    )
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model).train(), task.build_criterion(cfg.criterion)
    state = checkpoint_utils.load_checkpoint_to_cpu(str(args.encoder / "model.pt"))["model"]
    model.load_state_dict(state, strict=False)
    del state
    dataset = task.load_dataset("train")
    rows = np.random.default_rng(1).permutation(len(dataset))[:size]
    if not size:  # a step makes its own
        gradients = [torch.zeros_like(parameter) for parameter in model.parameters()]  # noqa: F841
    reset_peak_memory()
    seconds = []
    if size:
        batch = dataset.collater([dataset[int(row)] for row in rows])
        for _ in range(args.steps):
            model.zero_grad()
            start = time.perf_counter()
            loss, count, _ = criterion(model, batch)
            (loss / count).backward()
            seconds.append(time.perf_counter() - start)
    return peak_memory_mib(), min(seconds, default=0.0)


if __name__ == "__main__":
    main()
