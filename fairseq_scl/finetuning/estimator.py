"""A scikit-learn estimator that fine-tunes: sentences in, labels out.

from fairseq_scl import SclClassifier

classifier = SclClassifier().fit(texts, labels)
classifier.predict(["a joy to watch"])
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from fairseq_scl.errors import UserError, quiet
from fairseq_scl.files import new_folder, read_model, validated
from fairseq_scl.finetuning import given
from fairseq_scl.finetuning.training import LOG

if TYPE_CHECKING:
    from fairseq_scl.inference.classifier import Classifier

PARAMETERS = "estimator.json"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Parameters(BaseModel):
    """What `SclClassifier` is made with; there they are explained."""

    model_config = ConfigDict(extra="forbid", strict=True)
    encoder: str
    scl_weight: Annotated[float, Field(ge=0, le=1)]
    scl_temperature: Positive
    class_weights: Literal["none", "balanced"] | None
    head: Literal["trained", "refit"]
    updates: PositiveInt | None
    learning_rate: Positive | None
    batch_size: PositiveInt | None
    random_state: Annotated[int, Field(ge=0, lt=1 << 32)]
    cpu: bool | None
    verbose: bool = False


class Saved(BaseModel):
    """What `estimator.json` holds: the parameters, and the labels in the order of their ids."""

    model_config = ConfigDict(extra="forbid", strict=True)
    parameters: Parameters
    classes: list[bool] | list[int] | list[float] | list[str]


@contextmanager
def as_library(unsaid: str = "") -> Iterator[None]:
    """A mistake ends a command; a program that calls a library must go on, and hear no chatter.

    Args:
        unsaid: what a message leaves out.
    """
    try:
        with quiet():
            yield
    except UserError as error:
        told = str(error).removeprefix("fairseq-scl: error: ").replace(unsaid, "")
        raise ValueError(told) from None


class SclClassifier(ClassifierMixin, TransformerMixin, BaseEstimator):
    """Fine-tunes an encoder with (1 - λ) cross-entropy + λ supervised contrastive loss.

    The same run as 'fairseq-scl finetune' makes, on all rows, in a process of its own. Texts are a
    list, array or column of strings; for pairs of sentences, two strings a row.

    Args:
        encoder: `"minilm"`, `"mpnet"`, a folder, or a name on the Hugging Face hub.
        scl_weight: λ in [0, 1]; 0 is cross-entropy alone.
        scl_temperature: τ > 0.
        class_weights: `"balanced"` weighs the cross-entropy against the frequency of classes.
        head: `"trained"`, or `"refit"`, a logistic regression on the tuned vectors in its place.
        updates, learning_rate, batch_size: default: the recipe's, by encoder and number of rows.
        random_state: the seed of the head, the dropout and the order of batches.
        cpu: leave a GPU alone; default: where there is none.
        verbose: print the command that trains, and show its progress.

    Attributes:
        classes_: the labels, `(classes,)`, sorted.
    """

    def __init__(
        self,
        encoder: str | Path = "minilm",
        scl_weight: float = 0.9,
        scl_temperature: float = 0.3,
        class_weights: str | None = None,
        head: str = "trained",
        updates: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        random_state: int = 1,
        cpu: bool | None = None,
        verbose: bool = False,
    ):
        self.encoder = encoder
        self.scl_weight = scl_weight
        self.scl_temperature = scl_temperature
        self.class_weights = class_weights
        self.head = head
        self.updates = updates
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.random_state = random_state
        self.cpu = cpu
        self.verbose = verbose

    def fit(self, texts: Iterable, labels: Iterable) -> "SclClassifier":
        """Fine-tune.

        Args:
            texts: `(rows,)` strings, or `(rows, 2)` for pairs.
            labels: `(rows,)` of text, of numbers, or of True and False; at least two classes.

        Raises:
            ValueError: in one line, for whatever cannot be used, or if training fails.
        """
        with tempfile.TemporaryDirectory() as folder, as_library(f" ({folder}/run/{LOG})"):
            from fairseq_scl.finetuning.finetune import finetune
            from fairseq_scl.inference import refitted_head
            from fairseq_scl.models import saved
            from fairseq_scl.preparation.tables import Row, Table

            chosen = self._parameters()
            sentences = given.sentences(texts)
            found = given.labels_of(labels, sentences)
            rows = [
                Row(number, parts, str(label))
                for number, (parts, label) in enumerate(zip(sentences, found, strict=True), 1)
            ]
            if rows and all(row.sentences[1:] == (row.label,) for row in rows):
                raise UserError("the second text of each row is its label; give the texts alone")
            run = Path(folder, "run")
            finetune(
                {"train": Table("the rows to fit", lambda: rows)},
                run,
                encoder=chosen.encoder,
                head=chosen.head,
                folds=0,
                seed=chosen.random_state,
                cpu=chosen.cpu,
                more=flags(chosen),
                verbose=chosen.verbose,
            )
            kept = [saved.checkpoint_of(run), run / refitted_head.NAME]
            kept += sorted((run / "inference").rglob("*"))
            self._hold(np.unique(found), run, kept)
        return self

    def predict(self, texts: Iterable) -> np.ndarray:
        """The most probable label of each, `(rows,)`."""
        said = self.predict_proba(texts).argmax(1)
        return self.classes_[said]

    def predict_proba(self, texts: Iterable) -> np.ndarray:
        """The probability of each class, in the order of `classes_`: `(rows, classes)` float64.

        As the model gives it: a temperature, as the command fits on the parts of cross-validation,
        is scikit-learn's `CalibratedClassifierCV` to fit.
        """
        check_is_fitted(self)
        names = [str(label) for label in self.classes_]
        said = self._predictions(texts)
        return np.array([[one.probabilities[name] for name in names] for one in said]).reshape(
            len(said), len(names)
        )

    def transform(self, texts: Iterable) -> np.ndarray:
        """The sentence vectors before the head, `(rows, dim)` float32."""
        vectors = [one.embedding for one in self._predictions(texts)]
        return np.stack(vectors) if vectors else np.empty((0, self._loaded().dim), np.float32)

    def save(self, path: str | Path) -> None:
        """Write a folder that `load` and 'fairseq-scl predict' take.

        Raises:
            FileExistsError: if there is something of that name.
        """
        check_is_fitted(self)
        with as_library():
            described = Saved(parameters=self._parameters(), classes=self.classes_.tolist())
        with new_folder(Path(path)) as folder:
            self._write(folder)
            (folder / PARAMETERS).write_text(described.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "SclClassifier":
        """What `save` wrote.

        Raises:
            ValueError: in one line, if it is something else, or damaged.
        """
        folder = Path(path)
        with as_library():
            described = read_model(folder / PARAMETERS, Saved)
            made = cls(**described.parameters.model_dump())
            own = [at for at in sorted(folder.rglob("*")) if at.name != PARAMETERS]
            made._hold(np.unique(described.classes), folder, own)
            if sorted(map(str, made.classes_.tolist())) != sorted(made._loaded().classes):
                raise UserError(f"{folder / PARAMETERS}: classes: not those of the model")
        return made

    def __getstate__(self) -> dict:
        """The weights are kept as the files that hold them."""
        return super().__getstate__() | ({"_model": None} if hasattr(self, "_model") else {})

    def __sklearn_tags__(self):
        """Texts, not numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags

    def _parameters(self) -> Parameters:
        """The parameters as they stand, checked; numbers of NumPy as Python's own."""
        plain: dict[str, object] = {}
        for name, value in self.get_params().items():
            value = value.item() if isinstance(value, np.generic) else value
            plain[name] = str(value) if isinstance(value, Path) else value
        return validated(plain, Parameters, "SclClassifier")

    def _hold(self, classes: np.ndarray, folder: Path, files: Iterable[Path]) -> None:
        """Keep what was trained; here alone, so that nothing of it is there before all is."""
        self.files_ = {
            str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()
        }
        self.classes_ = classes
        self._model: Classifier | None = None

    def _write(self, folder: Path) -> None:
        for name, content in self.files_.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def _loaded(self) -> "Classifier":
        from fairseq_scl.inference.classifier import load

        check_is_fitted(self)
        if self._model is None:
            with tempfile.TemporaryDirectory() as folder:
                self._write(Path(folder))
                self._model = load(folder, bool(self.cpu))
        return self._model

    def _predictions(self, texts: Iterable) -> list:
        with as_library():
            return self._loaded().predict(given.sentences(texts))


def flags(chosen: Parameters) -> list[str]:
    """The flags of fairseq-train that say what was chosen; the recipe says the rest."""
    numbers = {
        "--scl-weight": chosen.scl_weight,
        "--scl-temperature": chosen.scl_temperature,
        "--class-weights": chosen.class_weights,
        "--lr": chosen.learning_rate,
        "--batch-size": chosen.batch_size,
        "--max-update": chosen.updates,
        "--total-num-update": chosen.updates,
        "--warmup-updates": chosen.updates and max(1, chosen.updates * 6 // 100),
    }
    return [
        part for flag, value in numbers.items() if value is not None for part in (flag, str(value))
    ]
