"""Few labels a class and no validation set, as in SetFit's table: probe, CE, CE+SCL and SetFit.

    python scripts/benchmark_few_shot.py few_shot/CR few_shot/AG-News --labels 8 --draws 10

Each folder holds train.csv and test.csv with the columns sentence and label. A draw takes K random
rows of each class; both losses train on them as 'fairseq-scl finetune' does, with the recipe's
numbers and the last state, and are tested on all of test.csv. Runs that are there already are not
made again. --setfit PYTHON lets the SetFit of another environment (scripts/benchmark.sh makes one)
train on the same rows, with its own defaults; --model is then its sentence-transformers folder.

The first table has accuracy in percent, or MCC where one of two classes has less than a fifth of
the test rows, and the seconds of a training; the second compares CE+SCL with the others by draw.
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from fairseq_scl.errors import quiet
from fairseq_scl.files import write_text
from fairseq_scl.finetuning.finetune import LOSSES, finetune
from fairseq_scl.preparation.tables import Columns, Row, Table, read_file
from fairseq_scl.reports.statistics import compare, holm

COLUMNS = Columns(("sentence",), "label", must_have_label=True)
RARE = 0.2
SETFIT = """
import csv, json, sys, time
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
model, train, test, seed = sys.argv[1:]
def read(path):
    rows = list(csv.DictReader(open(path, encoding="utf-8", newline="")))
    return [row["sentence"] for row in rows], [row["label"] for row in rows]
texts, labels = read(train)
start = time.perf_counter()
fitted = SetFitModel.from_pretrained(model, device="cpu", labels=sorted(set(labels)))
ids = [fitted.labels.index(label) for label in labels]
options = TrainingArguments(
    seed=int(seed), report_to="none", show_progress_bar=False, save_strategy="no"
)
data = Dataset.from_dict({"text": texts, "label": ids})
Trainer(model=fitted, args=options, train_dataset=data).train()
seconds = time.perf_counter() - start
print(json.dumps({"said": list(fitted.predict(read(test)[0])), "seconds": seconds}))
"""


def main() -> None:
    """Run the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--labels", type=int, default=8, metavar="K", help="rows of each class")
    parser.add_argument("--draws", type=int, default=10, metavar="N")
    parser.add_argument("--test-rows", type=int, metavar="N", help="random; default: all")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--output", type=Path, default=Path("outputs/few_labels"))
    parser.add_argument("--setfit", metavar="PYTHON")
    parser.add_argument("--model", help="for --setfit")
    args = parser.parse_args()
    found = []
    for folder in args.data:
        known, tested = (read_file(folder / f"{name}.csv", COLUMNS) for name in ("train", "test"))
        if args.test_rows:
            tested = [tested[i] for i in np.random.default_rng(0).permutation(len(tested))]
            tested = tested[: args.test_rows]
        for draw in tqdm(range(1, args.draws + 1), desc=folder.name, unit="draw"):
            where = (
                args.output
                / Path(args.encoder).name
                / f"{folder.name}-{args.labels}"
                / f"draw{draw}"
            )
            rows = drawn(known, args.labels, draw)
            for loss in args.losses:
                with quiet():
                    scores = ours(rows, tested, where / loss, args.encoder, loss, draw)
                found += [{"data": folder.name, "draw": draw} | one for one in scores]
            if args.setfit:
                one = setfit(args.setfit, args.model, rows, tested, where / "setfit", draw)
                found.append({"data": folder.name, "draw": draw} | one)
    table = pd.DataFrame(found).drop_duplicates(["data", "draw", "method"])  # one probe of two
    scores = table.groupby(["data", "method"], sort=False)[["score", "seconds"]].agg(spread)
    print(scores.reset_index().to_markdown(index=False))
    print("\n" + differences(table).to_markdown(index=False))


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """CE+SCL less each other method by draw: mean, 95 % interval, p of the t-test after Holm."""
    rows = []
    for data, own in table.groupby("data", sort=False):
        by_method = own.pivot(index="draw", columns="method", values="score")
        for other in by_method.columns.drop("ce+scl", errors="ignore"):
            if "ce+scl" in by_method:
                found = compare(by_method["ce+scl"], by_method[other])
                rows.append({"data": data, "CE+SCL less": other} | found._asdict())
    told = pd.DataFrame(rows)
    if len(told):
        told["p, Holm"] = holm(told["p_t"].astype(float))
    return told.round({"mean": 1, "low": 1, "high": 1, "p, Holm": 3}).drop(
        columns=["p_t", "p_wilcoxon"], errors="ignore"
    )


def drawn(rows: list[Row], count: int, draw: int) -> list[Row]:
    """So many random rows of each class."""
    order = np.random.default_rng(draw).permutation(len(rows))
    labels = sorted({str(row.label) for row in rows})
    return [
        row
        for label in labels
        for row in [rows[i] for i in order if rows[i].label == label][:count]
    ]


def ours(rows, tested, run: Path, encoder: str, loss: str, seed: int) -> list[dict]:
    """What a run, its refitted head and the probe score."""
    if not (run / "result.json").is_file():
        tables = {
            "train": Table("the draw", lambda: rows),
            "test": Table("the test set", lambda: tested),
        }
        finetune(tables, run, encoder=encoder, loss=loss, seed=seed, cpu=True, verbose=False)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    metric = metric_of(tested)
    return [
        {"method": "probe", "score": result["probe"]["test"][metric]},
        {"method": loss, "score": result["test"][metric], "seconds": result["seconds"]},
        {"method": f"{loss}, refit", "score": result["refit"]["test"][metric]},
    ]


def setfit(python: str, model: str, rows, tested, folder: Path, seed: int) -> dict:
    """What SetFit scores, and the seconds from loading the model to the end of training."""
    path = folder / "said.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for name, some in (("train", rows), ("test", tested)):
            table = pd.DataFrame([(row.sentences[0], row.label) for row in some])
            table.to_csv(folder / f"{name}.csv", index=False, header=["sentence", "label"])
        files = (str(folder / "train.csv"), str(folder / "test.csv"))
        command = [python, "-c", SETFIT, model, *files, str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        write_text(path, done.stdout.splitlines()[-1])
    told = json.loads(path.read_text(encoding="utf-8"))
    return {
        "method": "SetFit",
        "score": score([row.label for row in tested], told["said"], metric_of(tested)),
        "seconds": told["seconds"],
    }


def metric_of(tested: list[Row]) -> str:
    """What tells more than accuracy where a class is rare."""
    shares = pd.Series([row.label for row in tested]).value_counts(normalize=True)
    return "mcc" if shares.min() < RARE and len(shares) == 2 else "accuracy"


def score(labels: list[str], said: list[str], metric: str) -> float:
    """In percent."""
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    return 100 * {"accuracy": accuracy_score, "mcc": matthews_corrcoef}[metric](labels, said)


def spread(values: pd.Series) -> str:
    """Mean and standard deviation; nothing without values."""
    return f"{values.mean():.1f} ± {values.std():.1f}" if values.notna().any() else ""


if __name__ == "__main__":
    main()
