"""What runs wrote: `result.json` of `fairseq-scl evaluate`, `failed.json` of a study."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fairseq_scl.errors import UserError

RESULT = "result.json"
FAILED = "failed.json"
EMBEDDINGS = "test_embeddings.npz"
PERCENT = ("accuracy", "mcc", "f1", "acc_and_f1", "pearson", "spearman")
Draw = tuple[int, int]

# Options that change a run and have no column of their own, with their defaults.
TASK_OPTIONS = {
    "shots_sampling": "stratified",
    "samples_per_class": None,
    "noise_ratio": 3,
    "noise_replace": False,
}
CRITERION_OPTIONS = {"scl_views": 1}
SCL_OPTIONS = {"scl_features": "encoder", "scl_reduction": "mean", "scl_queue": 0}  # not for CE


@dataclass(frozen=True)
class Run:
    """A run and what it left.

    Attributes:
        folder: where it is.
        result: the content of its `result.json`, or of its `failed.json`: `config` and `error`.
    """

    folder: Path
    result: dict

    @property
    def failed(self) -> bool:
        """Whether it ended with an error."""
        return "error" in self.result

    @property
    def setting(self) -> dict[str, str | int | float]:
        """What it was run on, how and by what measure; other losses and draws share it."""
        config = self.result["config"]
        task = config["task"]
        return {
            "data": Path(task["data"]).name,
            "encoder": config["model"]["_name"],
            "protocol": task["protocol"],
            "N": task["num_shots"] or "all",
            "noise": noise_name(task),
            "batch size": config["dataset"]["batch_size"],
            "learning rate": config["optimization"]["lr"][0],
            "updates": config["optimization"]["max_update"],
            "options": " ".join(
                changed(task, TASK_OPTIONS) + changed(config["criterion"], CRITERION_OPTIONS)
            )
            or "none",
            "metric": self.metric,
        }

    @property
    def temperature(self) -> float | None:
        """At which its training rows were back-translated; None if they were not."""
        task = self.result["config"]["task"]
        return task["noise_temperature"] if task["noise"] == "back-translation" else None

    @property
    def draw(self) -> Draw:
        """Seeds of the drawn rows and of everything else; runs of one draw are paired."""
        config = self.result["config"]
        return config["task"]["shots_seed"], config["common"]["seed"]

    @property
    def loss(self) -> str:
        """`CE`, or `CE+SCL` with its hyper-parameters."""
        criterion = self.result["config"]["criterion"]
        if criterion["scl_weight"] == 0:
            return "CE"
        numbers = f"λ {criterion['scl_weight']:g}, τ {criterion['scl_temperature']:g}"
        return f"CE+SCL ({', '.join([numbers, *changed(criterion, SCL_OPTIONS)])})"

    @property
    def metric(self) -> str:
        """What the best checkpoint was chosen by."""
        return self.result["config"]["checkpoint"]["best_checkpoint_metric"]

    @property
    def maximize(self) -> bool:
        """Whether more of the metric is better."""
        return self.result["config"]["checkpoint"]["maximize_best_checkpoint_metric"]

    @property
    def valid(self) -> float:
        """The metric on the validation set."""
        return self.result["valid"]

    @property
    def test(self) -> float | None:
        """The metric on the test set, if it was tested."""
        return self.result["test"] and self.result["test"][self.metric]

    @property
    def mismatched(self) -> float | None:
        """The metric on MNLI's mismatched test set, if it was tested."""
        mismatched = self.result.get("test1")
        return mismatched and mismatched[self.metric]

    @property
    def knn(self) -> float | None:
        """The metric on the test set of what the nearest training rows say, if it was measured."""
        knn = self.result.get("knn")
        return knn[self.metric] if knn and self.metric in knn else None


def changed(config: dict, defaults: dict) -> list[str]:
    """The options that are not at their defaults, as flags of fairseq-train."""
    flags = []
    for name, default in defaults.items():
        value = config.get(name, default)
        if value != default:
            flag = "--" + name.replace("_", "-")
            flags.append(flag if value is True else f"{flag} {value}")
    return flags


def noise_name(task: dict) -> str:
    """The noise of a task's configuration with its parameter, or `none`."""
    noise = task["noise"]
    parameter = {
        "label": task["label_noise"],
        "tokens": task["token_noise"],
        "back-translation": task["noise_temperature"],
    }
    return f"{noise} {parameter[noise]:g}" if noise in parameter else "none"


def by_draw(runs: Iterable[Run]) -> dict[Draw, Run]:
    """The runs of one setting and loss by their draws, in order.

    Raises:
        UserError: if two runs are of one draw: they would count twice.
    """
    draws: dict[Draw, Run] = {}
    for run in sorted(runs, key=lambda run: run.draw):
        other = draws.setdefault(run.draw, run)
        if other is not run:
            raise UserError(
                f"{other.folder} and {run.folder} are the same draw of {run.loss} at "
                f"N = {run.setting['N']}; give a folder that holds one of them"
            )
    return draws


def read_runs(folder: Path) -> list[Run]:
    """All evaluated and failed runs below `folder`, sorted by path.

    Raises:
        UserError: if there is none, or one is damaged.
    """
    runs = []
    for path in sorted([*folder.rglob(RESULT), *folder.rglob(FAILED)]):
        try:
            run = Run(path.parent, json.loads(path.read_text(encoding="utf-8")))
            _ = run.setting, run.loss, run.draw
            _ = run.failed or (run.maximize, run.valid, run.test, run.mismatched, run.knn)
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        except (KeyError, TypeError, IndexError) as error:
            raise UserError(f"{path}: not what this version writes ({error!r})") from None
        runs.append(run)
    if not runs:
        raise UserError(f"{folder}: no {RESULT} below it; run 'fairseq-scl evaluate' first")
    return runs
