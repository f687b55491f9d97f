"""Sentences labelled in a second: a run, its ONNX exports, and what people deploy otherwise.

    python scripts/benchmark_predict.py RUN SENTENCES.txt --encoder FOLDER --peers PYTHON

RUN is a run of MiniLM without pairs, FOLDER its sentence-transformers folder, PYTHON that of an
environment with sentence-transformers, transformers and SetFit (scripts/benchmark.sh makes one).
Each program starts anew, loads its model, labels a few sentences to warm up, and then all; the
programs take turns. The table has the median of the rounds and their range, the ratio to the run
within a round, and the largest memory of a process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from benchmark import spread
from tqdm import tqdm

START = """
import json, resource, sys, time
model, file = sys.argv[1:]
rows = open(file, encoding="utf-8").read().splitlines()
"""
END = """
label(rows[:100])
start = time.perf_counter()
label(rows)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "MiB": peak}))
"""
OURS = """
from fairseq_scl import load
label = load(model, cpu=True).predict
"""
SENTENCE_TRANSFORMERS = """
from functools import partial
from sentence_transformers import SentenceTransformer
label = partial(SentenceTransformer(model, device="cpu").encode, batch_size=64)
"""
SETFIT = """
from setfit import SetFitModel
label = SetFitModel.from_pretrained(model, device="cpu").predict
"""
PIPELINE = """
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
label = pipeline(
    "text-classification", model=AutoModelForSequenceClassification.from_pretrained(model),
    tokenizer=AutoTokenizer.from_pretrained(model), batch_size=64, device=-1, truncation=True,
)
"""


def main() -> None:
    """Run the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("sentences", type=Path, metavar="FILE", help="a sentence a line")
    parser.add_argument("--encoder", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--peers", required=True, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        exported = {name: Path(scratch, name) for name in ("onnx", "int8", "setfit")}
        for name, folder in exported.items():
            form = ["--format", "onnx", "--int8"] if name == "int8" else ["--format", name]
            export = [sys.executable, "-m", "fairseq_scl.cli", "export"]
            subprocess.run([*export, args.run, folder, *form], check=True, stdout=sys.stderr)
        programs = {
            "fairseq-scl, the run": (sys.executable, OURS, args.run),
            "fairseq-scl, its ONNX": (sys.executable, OURS, exported["onnx"]),
            "fairseq-scl, its ONNX in int8": (sys.executable, OURS, exported["int8"]),
            "sentence-transformers": (args.peers, SENTENCE_TRANSFORMERS, args.encoder),
            "SetFit": (args.peers, SETFIT, exported["setfit"]),
            "transformers' pipeline": (args.peers, PIPELINE, args.encoder),
        }
        found = [
            {"program": name, "round": number} | measured(*program, args.sentences)
            for number in tqdm(range(args.rounds), unit="round")
            for name, program in programs.items()
        ]
    with open(args.sentences, encoding="utf-8") as file:
        count = sum(1 for _ in file)
    print(table(pd.DataFrame(found), count).to_markdown(index=False))


def measured(python: str, code: str, model: Path, sentences: Path) -> dict:
    """Seconds for all sentences, and the peak of memory."""
    command = [python, "-c", START + code + END, str(model), str(sentences)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{code}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(found: pd.DataFrame, count: int) -> pd.DataFrame:
    """A row for each program."""
    seconds = found.pivot(index="round", columns="program", values="seconds")
    rows = []
    for name in found["program"].unique():
        taken, times = seconds[name], seconds[name] / seconds["fairseq-scl, the run"]
        peak = found.loc[found["program"] == name, "MiB"].max()
        rows.append(
            {
                "program": name,
                "sentences/s": f"{count / taken.median():.0f}",
                "seconds": spread(list(taken), 1),
                "times the run's": spread(list(times), 2),
                "MiB": f"{peak:.0f}",
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
