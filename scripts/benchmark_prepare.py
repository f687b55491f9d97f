"""Seconds and memory of 'fairseq-scl prepare' beside fairseq's own GLUE preprocessing.

    .venv/bin/python scripts/benchmark_prepare.py ENCODER glue/MNLI/train.tsv --rows 392702

ENCODER holds GPT-2's encoder.json and vocab.bpe, and dict.txt. Both turn the same sentence pairs
into binarized data on all cores. fairseq's way is that of its preprocess_GLUE_tasks.sh: the BPE
script for each sentence of a pair, then fairseq-preprocess for each and for the labels. A file with
fewer rows is repeated, which spares both of them, as both remember words that they have met.
"""

import argparse
import csv
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COLUMNS = ("sentence1", "sentence2", "gold_label")


def main() -> None:
    """Run the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder", type=Path)
    parser.add_argument("table", type=Path, help="MNLI's train.tsv")
    parser.add_argument("--rows", type=int, default=392702, help="default: %(default)s")
    args = parser.parse_args()
    with args.table.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        rows = [[row[column] for column in COLUMNS] for row in table]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many = list(itertools.islice(itertools.cycle(rows), args.rows))
        write(folder / "train.tsv", many)
        write(folder / "valid.tsv", rows[:100])
        for i, column in enumerate(COLUMNS):
            (folder / column).write_text("".join(f"{row[i]}\n" for row in many), "utf-8")
        print(f"{args.rows:,} pairs, {os.cpu_count()} cores\n")
        print("| | seconds | peak MiB of a process |\n|---|---|---|", flush=True)
        ours = timed("fairseq-scl prepare", [prepare(args.encoder, folder)])
        theirs = timed("fairseq", list(fairseqs(args.encoder, folder)))
        print(f"\nfairseq takes {theirs / ours:.1f} times as long.")


def write(path: Path, rows: list[list[str]]) -> None:
    """Write a table with a header."""
    path.write_text("".join("\t".join(row) + "\n" for row in [COLUMNS, *rows]), "utf-8")


def prepare(encoder: Path, folder: Path) -> list[str]:
    """Our command."""
    command = [program("fairseq-scl"), "prepare", str(folder / "ours"), "--encoder", str(encoder)]
    command += ["--train", str(folder / "train.tsv"), "--valid", str(folder / "valid.tsv")]
    return [*command, "--sentence", COLUMNS[0], "--sentence2", COLUMNS[1], "--label", COLUMNS[2]]


def fairseqs(encoder: Path, folder: Path):
    """Its commands."""
    workers = ["--workers", str(os.cpu_count())]
    binarize = [program("fairseq-preprocess"), "--only-source", *workers]
    for i, column in enumerate(COLUMNS[:2]):
        bpe, vocabulary = str(encoder / "encoder.json"), str(encoder / "vocab.bpe")
        script = [sys.executable, "-m", "fairseq.examples.roberta.multiprocessing_bpe_encoder"]
        script += ["--encoder-json", bpe, "--vocab-bpe", vocabulary, "--keep-empty", *workers]
        tokens = str(folder / f"{column}.bpe")
        yield [*script, "--inputs", str(folder / column), "--outputs", tokens]
        given = ["--trainpref", tokens, "--srcdict", str(encoder / "dict.txt")]
        yield [*binarize, *given, "--destdir", str(folder / f"input{i}")]
    yield [*binarize, "--trainpref", str(folder / COLUMNS[2]), "--destdir", str(folder / "label")]


def timed(name: str, commands: list[list[str]]) -> float:
    """Run commands one after another; print and return their seconds."""
    start, peak = time.perf_counter(), 0
    for command in commands:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"benchmark_prepare: {' '.join(command)} failed")
        peak = max(peak, usage.ru_maxrss)
    seconds = time.perf_counter() - start
    print(f"| {name} | {seconds:.0f} | {peak / 2**10:.0f} |", flush=True)
    return seconds


def program(name: str) -> str:
    """A command of this environment."""
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    main()
