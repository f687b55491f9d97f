"""What runs wrote: the schemas of `result.json` and `failed.json`, and all runs as a table."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AliasPath, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from fairseq_scl.data.protocols import FOLD
from fairseq_scl.errors import UserError
from fairseq_scl.files import read_model

if TYPE_CHECKING:
    from pandas import DataFrame

RESULT = "result.json"
FAILED = "failed.json"
EMBEDDINGS = "test_embeddings.npz"
PERCENT = ("accuracy", "mcc", "f1", "acc_and_f1", "pearson", "spearman")
SETTING = (
    "data", "protocol", "N", "noise", "encoder", "batch size", "learning rate", "updates",
    "options", "metric",
)  # fmt: skip
MEASURES = (
    "validation", "test", "knn", "probe", "refit", "mismatched", "ECE before", "ECE after",
    "seconds", "updates/s", "peak MiB", "temperature",
)  # fmt: skip

# what else decides on the outcome of a run, by its section of fairseq's configuration
RECIPE = {
    "optimizer": ("_name", "adam_betas", "adam_eps", "weight_decay"),
    "lr_scheduler": ("_name", "warmup_updates"),
    "optimization": ("clip_norm", "update_freq"),
    "model": ("dropout", "attention_dropout", "activation_dropout", "pooler_dropout", "pooling"),
}

Whole = Annotated[int, Field(ge=-(10**18), le=10**18)]
LIMIT = 1e15  # whose squares can still be summed
Number = Annotated[float, Field(ge=-LIMIT, le=LIMIT, allow_inf_nan=False)]


def _config(*path: str | int, default: Any = ...) -> Any:
    """A key of the configuration."""
    return Field(default, validation_alias=AliasPath("config", *path))


class Outcome(BaseModel):
    """What results and failures share: as much of fairseq's configuration as is read.

    No text counts as a number; keys that nobody reads may hold anything.
    """

    model_config = ConfigDict(strict=True)

    data: str = _config("task", "data")
    protocol: str = _config("task", "protocol")
    num_shots: Whole | None = _config("task", "num_shots")
    shots_seed: Whole = _config("task", "shots_seed")
    fold: Annotated[str, Field(pattern=FOLD)] | None = _config("task", "fold", default=None)
    shots_sampling: str = _config("task", "shots_sampling", default="stratified")
    samples_per_class: Whole | None = _config("task", "samples_per_class", default=None)
    noise: str = _config("task", "noise")
    label_noise: float = _config("task", "label_noise")
    token_noise: float = _config("task", "token_noise")
    noise_temperature: Number | None = _config("task", "noise_temperature")
    noise_ratio: Whole = _config("task", "noise_ratio", default=3)
    noise_replace: bool = _config("task", "noise_replace", default=False)
    no_shuffle: bool = _config("task", "no_shuffle", default=False)
    keep_head: bool = _config("task", "keep_head", default=False)
    head_init: str = _config("task", "head_init", default="random")
    scl_weight: float = _config("criterion", "scl_weight")
    scl_temperature: float = _config("criterion", "scl_temperature")
    scl_views: Whole = _config("criterion", "scl_views", default=1)
    scl_features: str = _config("criterion", "scl_features", default="encoder")
    scl_reduction: str = _config("criterion", "scl_reduction", default="mean")
    scl_queue: Whole = _config("criterion", "scl_queue", default=0)
    scl_no_gather: bool = _config("criterion", "scl_no_gather", default=False)
    class_weights: str = _config("criterion", "class_weights", default="none")
    encoder: str = _config("model", "_name")
    batch_size: Whole | None = _config("dataset", "batch_size")
    lr: Number = _config("optimization", "lr", 0)
    max_update: Whole = _config("optimization", "max_update")
    disable_validation: bool = _config("dataset", "disable_validation", default=False)
    seed: Whole = _config("common", "seed")
    metric: str = _config("checkpoint", "best_checkpoint_metric")
    maximize: bool = _config("checkpoint", "maximize_best_checkpoint_metric")
    split: str | None = _config("split", default=None)
    head: str = "trained"
    config: dict[str, Any] = Field(repr=False)

    @property
    def setting(self) -> dict[str, str | int | float | None]:
        """What it was run on, how and by what measure; other losses and draws share it."""
        options = self._changed(
            "shots_sampling", "samples_per_class", "noise_ratio", "noise_replace", "scl_views",
            "class_weights", "disable_validation", "no_shuffle", "keep_head", "head_init",
        )  # fmt: skip
        if self.fold is not None:
            options.append(f"--fold K/{self.fold.partition('/')[2]}")
        if self.split not in (None, "test"):
            options.append(f"--split {self.split}")
        if self.head != "trained":
            options.append(f"--head {self.head}")
        parameter = {
            "label": self.label_noise,
            "tokens": self.token_noise,
            "back-translation": self.noise_temperature,
        }.get(self.noise)
        return {
            "data": Path(self.data).name,
            "protocol": self.protocol,
            "N": self.num_shots or "all",
            "noise": self.noise if parameter is None else f"{self.noise} {parameter:g}",
            "encoder": self.encoder,
            "batch size": self.batch_size,
            "learning rate": self.lr,
            "updates": self.max_update,
            "options": " ".join(options) or "none",
            "metric": self.metric,
        }

    @property
    def loss(self) -> str:
        """`CE`, or `CE+SCL` with its hyper-parameters."""
        if self.scl_weight == 0:
            return "CE"
        numbers = f"λ {self.scl_weight:g}, τ {self.scl_temperature:g}"
        more = self._changed("scl_features", "scl_reduction", "scl_queue", "scl_no_gather")
        return f"CE+SCL ({', '.join([numbers, *more])})"

    @property
    def row(self) -> dict[str, Any]:
        """The columns of `read_runs`, but for the folder."""
        return {
            **self.setting,
            "loss": self.loss,
            "draw": "/".join(map(str, self.draw)),
            "temperature": self.noise_temperature if self.noise == "back-translation" else None,
            "maximize": self.maximize,
            "recipe": self.recipe,
        }

    @property
    def recipe(self) -> dict[str, str]:
        """The options of `RECIPE` and their values; runs of one setting should have the same."""
        found = {}
        for section, names in RECIPE.items():
            options = self.config.get(section)
            if not isinstance(options, dict):
                continue
            for name in names:
                flag = f"--{(section if name == '_name' else name).replace('_', '-')}"
                found[flag] = str(options.get(name))
        return found

    @property
    def draw(self) -> list[int]:
        """The seeds of rows and of training; of `--fold 2/5` also the 2."""
        fold = [] if self.fold is None else [int(self.fold.partition("/")[0])]
        return [self.shots_seed, self.seed, *fold]

    @property
    def order(self) -> tuple:
        """To sort by: numbers by value and before words, `none` before other words."""
        setting = [
            (0, value, "") if isinstance(value, int | float) else (1, value != "none", str(value))
            for value in self.setting.values()
        ]
        return setting, self.loss, self.draw

    def _changed(self, *names: str) -> list[str]:
        """Those options that are not at their defaults, as flags of fairseq-train."""
        changed = self.model_dump(include=set(names), exclude_defaults=True)
        return [
            f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            for name, value in changed.items()
        ]


class ClassScores(BaseModel):
    """How well a class is found, in percent; `support` is how many rows of it were tested."""

    model_config = ConfigDict(strict=True)
    precision: Number
    recall: Number
    f1: Number
    support: Whole


class Calibration(BaseModel):
    """Temperature scaling (see `fairseq_scl.inference.calibration`), and what it did.

    Attributes:
        ece_before, ece_after: the expected calibration error of the tested split without and with
            it, from 0 to 1; None where nothing was tested but the rows that it was fitted on.
        brier_before, brier_after: likewise the Brier score, from 0 to 2.
    """

    model_config = ConfigDict(strict=True)
    temperature: Number
    fitted_on: str
    rows: Whole
    ece_before: Number | None = None
    ece_after: Number | None = None
    brier_before: Number | None = None
    brier_after: Number | None = None


class Probe(BaseModel):
    """Logistic regression on frozen sentence vectors (see `fairseq_scl.studies.probe`).

    Attributes:
        C: its inverse regularisation strength.
        valid, test: metrics by name, of the validation set and of the tested split.
    """

    model_config = ConfigDict(strict=True)
    C: Number
    valid: dict[str, Number] | None
    test: dict[str, Number] | None


class Result(Outcome):
    """`result.json` of `fairseq-scl evaluate`.

    Attributes:
        checkpoint: sha256 of the tested one; None if an earlier version tested it.
        valid: the best checkpoint's metric on the validation set; None without validation.
        split: what `test` was measured on; None if nothing was tested.
        test, test1, knn: metrics by name: of the test set, of MNLI's mismatched one, and of what
            the nearest training rows say.
        probe, refit: what a logistic regression makes of the sentence vectors before and after
            training.
        per_class: of the tested split, by the class's name; None for a regression.
        confusion: its rows by true and, in each, by predicted class, in the order of `classes`.
        calibration: None for a regression, or where no rows were held out.
        seconds, updates_per_second, peak_memory_mib: of the training.
        curves: `[[update, value], ...]` by `train_inner` or `valid` and by metric; a value that
            training could not represent is NaN or infinite.
    """

    checkpoint: str | None = None
    updates: Whole | None = None
    valid: Number | None
    split: str | None = None
    test: dict[str, float] | None
    test1: dict[str, float] | None = None
    knn: dict[str, Number] | None = None
    probe: Probe | None = None
    refit: Probe | None = None
    classes: list[str] | None = None
    per_class: dict[str, ClassScores] | None = None
    confusion: list[list[Whole]] | None = None
    calibration: Calibration | None = None
    seconds: Number | None = None
    updates_per_second: Number | None = None
    peak_memory_mib: Number | None = None
    curves: dict[str, dict[str, list[tuple[Whole, float]]]] = {}

    @field_validator("test", "test1")
    @classmethod
    def _holds_the_metric(cls, found: dict | None, info: ValidationInfo) -> dict | None:
        metric = info.data.get("metric")
        if found is not None and metric and not abs(found.get(metric, math.nan)) <= LIMIT:
            raise ValueError(f"must hold {metric!r}, a number up to {LIMIT:g}")
        return found

    @property
    def row(self) -> dict[str, Any]:
        """The columns of `read_runs`, but for the folder."""
        return super().row | {
            "validation": self.valid,
            "test": (self.test or {}).get(self.metric),
            "knn": (self.knn or {}).get(self.metric),
            "probe": self.probe and (self.probe.test or {}).get(self.metric),
            "refit": self.refit and (self.refit.test or {}).get(self.metric),
            "mismatched": (self.test1 or {}).get(self.metric),
            "ECE before": self.calibration and self.calibration.ece_before,
            "ECE after": self.calibration and self.calibration.ece_after,
            "per class": self.model_dump(include={"per_class"})["per_class"],
            "seconds": self.seconds,
            "updates/s": self.updates_per_second,
            "peak MiB": self.peak_memory_mib,
        }


class Failed(Outcome):
    """`failed.json` of a study: why the run ended."""

    error: str

    @property
    def row(self) -> dict[str, Any]:
        """The columns of `read_runs`, but for the folder."""
        return super().row | {"error": next(iter(self.error.splitlines()), "")}


SCHEMAS: dict[str, type[Outcome]] = {RESULT: Result, FAILED: Failed}


def read_runs(folder: Path) -> "DataFrame":
    """All evaluated and failed runs below a folder; one that has both files is evaluated.

    Returns:
        A run a row, sorted by data, protocol, N, noise, the rest of the setting, loss and draw:

        folder: where it is.
        `SETTING`: what it was run on, how and by what measure; N is `all` without a choice of rows.
        loss: `CE`, or `CE+SCL` with its hyper-parameters.
        draw: `3/1` is --shots-seed 3 --seed 1, `3/1/2` also --fold 2/K; runs of one draw are
            paired.
        `MEASURES`: float64, the metric in percent (`PERCENT`) or as it is; NaN where not measured.
            The temperature is that of the back-translations trained on; ECE, of the test set before
            and after scaling, is between 0 and 1.
        per class: precision, recall, f1 and support by class, a dictionary; missing where unknown.
        maximize: whether more of the metric is better.
        recipe: further options of training by their flags, a dictionary.
        error: of a failed run, in one line; missing otherwise.

    Raises:
        UserError: if there is no run, or one is damaged.
    """
    import pandas as pd

    paths = {path.parent: path for name in (FAILED, RESULT) for path in folder.rglob(name)}
    if not paths:
        raise UserError(f"{folder}: no {RESULT} below it; run 'fairseq-scl evaluate' first")
    found = [(at, read_model(path, SCHEMAS[path.name])) for at, path in sorted(paths.items())]
    found.sort(key=lambda pair: pair[1].order)
    rows = [{"folder": at} | outcome.row for at, outcome in found]
    columns = ["folder", *SETTING, "loss", "draw", *MEASURES, "per class", "maximize"]
    columns += ["recipe", "error"]
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    return table.astype(dict.fromkeys(MEASURES, float))


def refuse_twins(runs: "DataFrame", *columns: str) -> None:
    """Refuse evaluated runs that are the same draw of what the columns tell apart.

    Raises:
        UserError: naming two: they would count twice.
    """
    keys = [*columns, "loss", "draw"]
    runs = runs[runs["error"].isna()]
    for _, same in runs[runs.duplicated(keys, keep=False)].groupby(keys, sort=False, dropna=False):
        first, second = same.to_dict("records")[:2]
        raise UserError(
            f"{first['folder']} and {second['folder']} are the same draw of {first['loss']} at "
            f"N = {first['N']}; give a folder that holds one of them"
        )


def numbered(runs: "DataFrame", *columns: str):
    """Number the combinations of the columns' values, in the order in which they come up."""
    return runs.groupby(list(columns), sort=False, dropna=False).ngroup()


def plain(text: str) -> str:
    """Text with its control characters but the line feed spelled out: terminals obey them."""
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)
