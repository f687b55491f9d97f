"""SetFit on the very rows of a study's runs: accuracy on their test rows, and seconds.

    fairseq-scl study few-shot --tasks SST-2 --shots 20 100 --jobs 1
    .venv-peers/bin/python scripts/benchmark_setfit.py studies/few_shot/SST-2 \\
        --model MINILM_FOLDER --rows glue/SST-2

The second command runs in the environment that scripts/benchmark.sh makes, which calls it. SetFit
has its own defaults, and the seed of the draw. Its seconds are those from loading the model to the
end of training, as those of a run. Accuracy is in percent; a difference is that of the runs to
SetFit by draw, with its 95 % interval.
"""

import argparse
import csv
import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import scipy.stats
from datasets import Dataset, disable_progress_bars
from setfit import SetFitModel, Trainer, TrainingArguments
from tqdm import tqdm


class Outcome(NamedTuple):
    """Test accuracy in percent, and seconds of training."""

    accuracy: float
    seconds: float


def main() -> None:
    """Run the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="folder of runs on SST-2")
    parser.add_argument("--model", required=True, help="MiniLM as a sentence-transformers folder")
    parser.add_argument("--rows", type=Path, required=True, help="folder of train.tsv and dev.tsv")
    args = parser.parse_args()
    rows = {"train": read(args.rows / "train.tsv"), "valid": read(args.rows / "dev.tsv")}
    disable_progress_bars()
    runs, peer, manifests = defaultdict(dict), defaultdict(dict), {}
    for path in sorted(args.study.rglob("result.json")):
        result = json.loads(path.read_text())
        task, weight = result["config"]["task"], result["config"]["criterion"]["scl_weight"]
        shots, draw = task["num_shots"], task["shots_seed"]
        runs[shots, weight][draw] = Outcome(result["test"]["accuracy"], result["seconds"])
        manifests[shots, draw] = path.with_name("manifest.json")
    if not runs:
        sys.exit(f"benchmark_setfit: {args.study} has no result.json")
    for (shots, draw), path in tqdm(manifests.items(), unit="run"):
        splits = json.loads(path.read_text())["splits"]
        train, test = (
            [rows[splits[name]["source"]][row] for row in expand(splits[name]["rows"])]
            for name in ("train", "test")
        )
        outcome = peer[shots][draw] = setfit(args.model, train, test, draw)
        tqdm.write(f"N {shots}, draw {draw}: {outcome}", file=sys.stderr)
    print("| N | | draws | test | seconds | difference [95 %] |\n|---|---|---|---|---|---|")
    for shots in sorted(peer):
        print(f"| {shots} | SetFit | {len(peer[shots])} | {spread(peer[shots])} | |")
        for weight in sorted(weight for some, weight in runs if some == shots):
            ours = runs[shots, weight]
            name = f"CE+SCL, lambda {weight}" if weight else "CE"
            gap = difference([ours[d].accuracy - peer[shots][d].accuracy for d in ours])
            print(f"| {shots} | {name} | {len(ours)} | {spread(ours)} | {gap} |")


def expand(rows: list) -> list[int]:
    """The row numbers of a manifest, where `[first, last]` stands for three or more."""
    ranges = [range(r[0], r[1] + 1) if isinstance(r, list) else [r] for r in rows]
    return [row for some in ranges for row in some]


def read(path: Path) -> list[tuple[str, int]]:
    """Sentence and label of every row."""
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["sentence"], int(row["label"])) for row in table]


def setfit(model: str, train: list, test: list, seed: int) -> Outcome:
    """Fine-tune on `train` and classify `test`."""
    start = time.perf_counter()
    sentences, labels = zip(*train, strict=True)
    fitted = SetFitModel.from_pretrained(model, device="cpu")
    data = Dataset.from_dict({"text": sentences, "label": labels})
    options = TrainingArguments(
        seed=seed, report_to="none", show_progress_bar=False, save_strategy="no"
    )
    Trainer(model=fitted, args=options, train_dataset=data).train()
    seconds = time.perf_counter() - start
    sentences, labels = zip(*test, strict=True)
    predicted = fitted.predict(list(sentences)).tolist()
    right = sum(p == label for p, label in zip(predicted, labels, strict=True))
    return Outcome(100 * right / len(labels), seconds)


def spread(outcomes: dict[int, Outcome]) -> str:
    """Mean and standard deviation of accuracy and of seconds, as two cells."""
    columns = zip(*outcomes.values(), strict=True)
    return " | ".join(f"{statistics.mean(c):.1f} ± {statistics.stdev(c):.1f}" for c in columns)


def difference(by_draw: list[float]) -> str:
    """Mean and 95 % interval."""
    mean = statistics.mean(by_draw)
    error = statistics.stdev(by_draw) / len(by_draw) ** 0.5
    half = error * scipy.stats.t.ppf(0.975, len(by_draw) - 1)
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


if __name__ == "__main__":
    main()
