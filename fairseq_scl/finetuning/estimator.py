"""A scikit-learn estimator that fine-tunes: sentences in, labels out.

from fairseq_scl import SclClassifier

classifier = SclClassifier().fit(texts, labels)
classifier.predict(["a joy to watch"])
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from fairseq_scl.errors import UserError, quiet
from fairseq_scl.files import new_folder, read_model

if TYPE_CHECKING:
    from fairseq_scl.inference.classifier import Classifier

PARAMETERS = "estimator.json"
Label = Annotated[str, Field(strict=True)] | Annotated[int, Field(strict=True)] | float


class Saved(BaseModel):
    """What `estimator.json` holds: the parameters, and the labels in the order of their ids."""

    model_config = ConfigDict(extra="forbid")
    parameters: dict[str, str | int | float | bool | None]
    classes: list[Label]


@contextmanager
def as_library() -> Iterator[None]:
    """A mistake ends a command; a program that calls a library must go on, and hear no chatter."""
    try:
        with quiet():
            yield
    except UserError as error:
        raise ValueError(str(error).removeprefix("fairseq-scl: error: ")) from None


def checked(texts: Iterable, labels: Iterable) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """The sentences of each row and its label, `(rows,)`.

    Raises:
        UserError: naming the first row that has no text or no label.
    """
    sentences = [(text,) if isinstance(text, str) else text for text in texts]
    given = list(labels)
    if len(sentences) != len(given):
        raise UserError(f"{len(sentences)} texts, but {len(given)} labels")
    if len({isinstance(label, str) for label in given}) > 1:
        raise UserError("some labels are text, and others not")  # numpy makes text of all
    for number, (parts, label) in enumerate(zip(sentences, given, strict=True), 1):
        if not isinstance(parts, Sequence | np.ndarray) or not all(
            isinstance(part, str) for part in parts
        ):
            raise UserError(f"row {number}: {parts!r:.60} is no text")
        if label is None or label != label:
            raise UserError(f"row {number}: {label} is no label")
    return [tuple(parts) for parts in sentences], np.asarray(given)


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

    Attributes:
        classes_: the labels, `(classes,)`, sorted.
    """

    def __init__(
        self,
        encoder: str = "minilm",
        scl_weight: float = 0.9,
        scl_temperature: float = 0.3,
        class_weights: str | None = None,
        head: str = "trained",
        updates: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        random_state: int = 1,
        cpu: bool | None = None,
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

    def fit(self, texts: Iterable, labels: Iterable) -> "SclClassifier":
        """Fine-tune.

        Args:
            texts: `(rows,)` strings, or `(rows, 2)` for pairs.
            labels: `(rows,)` of any kind that sorts; at least two different ones.

        Raises:
            ValueError: in one line, for whatever cannot be used, or if training fails.
        """
        with tempfile.TemporaryDirectory() as folder, as_library():
            from fairseq_scl.finetuning.finetune import finetune
            from fairseq_scl.inference import refitted_head
            from fairseq_scl.models import saved
            from fairseq_scl.preparation.tables import Row, Table

            if self.head not in refitted_head.HEADS:
                allowed = ", ".join(refitted_head.HEADS)
                raise UserError(f"head {self.head!r} must be one of {allowed}")
            sentences, found = checked(texts, labels)
            self.classes_ = np.unique(found)
            rows = [
                Row(number, parts, str(label))
                for number, (parts, label) in enumerate(zip(sentences, found, strict=True), 1)
            ]
            run = Path(folder, "run")
            finetune(
                {"train": Table("the rows to fit", lambda: rows)},
                run,
                encoder=self.encoder,
                head=self.head,
                folds=0,
                seed=self.random_state,
                cpu=self.cpu,
                more=self._flags(),
                verbose=False,
            )
            kept = [saved.checkpoint_of(run), run / refitted_head.NAME]
            kept += sorted((run / "inference").rglob("*"))
            self._hold({str(at.relative_to(run)): at.read_bytes() for at in kept if at.is_file()})
        return self

    def predict(self, texts: Iterable) -> np.ndarray:
        """The most probable label of each, `(rows,)`."""
        said = self.predict_proba(texts).argmax(1)
        return self.classes_[said]

    def predict_proba(self, texts: Iterable) -> np.ndarray:
        """The probability of each class, in the order of `classes_`: `(rows, classes)` float64."""
        check_is_fitted(self)
        names = [str(label) for label in self.classes_]
        said = self._predictions(texts)
        return np.array([[one.probabilities[name] for name in names] for one in said]).reshape(
            len(said), len(names)
        )

    def transform(self, texts: Iterable) -> np.ndarray:
        """The sentence vectors before the head, `(rows, dim)` float32."""
        return np.stack([one.embedding for one in self._predictions(texts)])

    def save(self, path: str | Path) -> None:
        """Write a folder that `load` and 'fairseq-scl predict' take.

        Raises:
            FileExistsError: if there is something of that name.
        """
        check_is_fitted(self)
        described = Saved(parameters=self.get_params(), classes=self.classes_.tolist())
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
            names = set(cls._get_param_names())
            if unknown := sorted(set(described.parameters) - names):
                raise UserError(f"{folder / PARAMETERS}: no parameter {unknown[0]!r}")
            made = cls(**described.parameters)  # type: ignore[arg-type]
            made.classes_ = np.array(described.classes)
            own = [at for at in sorted(folder.rglob("*")) if at.name != PARAMETERS]
            made._hold({str(at.relative_to(folder)): at.read_bytes() for at in own if at.is_file()})
            made._loaded()
        return made

    def __getstate__(self) -> dict:
        """The weights are kept as the files that hold them."""
        return super().__getstate__() | ({"_model": None} if hasattr(self, "_model") else {})

    def __sklearn_tags__(self):
        """Texts, not numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags

    def _flags(self) -> list[str]:
        numbers: dict[str, Any] = {
            "--scl-weight": self.scl_weight,
            "--scl-temperature": self.scl_temperature,
            "--class-weights": self.class_weights,
            "--lr": self.learning_rate,
            "--batch-size": self.batch_size,
            "--max-update": self.updates,
            "--total-num-update": self.updates,
        }
        if self.updates is not None:
            numbers["--warmup-updates"] = max(1, self.updates * 6 // 100)
        return [
            part
            for flag, value in numbers.items()
            if value is not None
            for part in (flag, str(value))
        ]

    def _hold(self, files: dict[str, bytes]) -> None:
        self.files_ = files
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
            return self._loaded().predict(texts)
