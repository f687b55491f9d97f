"""A fine-tuned model as a library: sentences in, labels out.

from fairseq_scl.inference.classifier import load

classifier = load("checkpoints/sst2-20-draw1")
for prediction in classifier.predict(["a joy to watch", "two hours I want back"]):
    print(prediction.label, prediction.probabilities)
"""

import itertools
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fairseq_scl.data import beside_checkpoint
from fairseq_scl.encoders.shorten import shortened_lengths
from fairseq_scl.encoders.tokenizers import Tokenizer, load_tokenizer
from fairseq_scl.errors import NOT_FINITE, UserError
from fairseq_scl.preparation.tables import half_character

if TYPE_CHECKING:  # what takes a second to import, and a command's --help does without
    from fairseq_scl.inference.onnx import OnnxClassifier

UNSURE = "unsure"  # the label below a threshold
END = 2  # </s> of every fairseq dictionary
ONNX_MODEL = "model.onnx"


class Prediction(NamedTuple):
    """What the model says of a sentence, or a pair.

    Attributes:
        label: the most probable class, `UNSURE` below a threshold; of a regression, the number.
        probabilities: of every class, summing to 1; empty for a regression.
        embedding: `(dim,)` float32, the sentence vector before the classification head.
        logits: `(classes,)` float32, as the head gives them, without the temperature.
    """

    label: str | float
    probabilities: dict[str, float]
    embedding: np.ndarray
    logits: np.ndarray = np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class Classifier:
    """A fine-tuned model with everything that stands between text and label; see `load`.

    Attributes:
        run: the folder of the checkpoint.
        model: fairseq's model, in evaluation mode.
        head: the name of its classification head, be it refitted (see `refitted_head`).
        classes: the labels in the order of their ids; empty for a regression.
        tokenizer: the encoder's own.
        sentences: 1, or 2 for sentence pairs.
        max_length: tokens of the longest row, special tokens included; longer ones are cut as
            `prepare` cuts them.
        before: the special token that stands before each sentence, or None.
        end: the one that stands after each.
        temperature: what logits are divided by for probabilities; see `calibration`.
    """

    run: Path
    model: Any
    head: str
    classes: list[str]
    tokenizer: Tokenizer
    sentences: int
    max_length: int
    before: tuple[int | None, ...]
    temperature: float = 1.0
    end: int = END

    def predict(
        self,
        rows: Iterable[str | Sequence[str]],
        batch_size: int = 64,
        threshold: float | None = None,
        long: str = "cut",
    ) -> list[Prediction]:
        """Classify sentences, or pairs of them; the order of the result is that of `rows`.

        Args:
            rows: a string each, as a list, a pandas Series or an array of NumPy; for a model of
                sentence pairs, two strings each.
            batch_size: rows encoded at a time, which decides on memory, not on the result.
            threshold: in (0, 1]; where no class is as probable, the label is `UNSURE`.
            long: what becomes of a text beyond `max_length`, "cut" or "windows": as few windows as
                hold it, without overlap and of equal length to a token, whose logits and
                embeddings are averaged. Windows are for single sentences.

        Raises:
            UserError: for a row that is not what the model was trained on, naming it; for other
                arguments that cannot be; if the model's outputs are not finite.
        """
        if not isinstance(batch_size, numbers.Integral) or batch_size < 1:
            raise UserError(f"batch_size {batch_size} must be a whole number, at least 1")
        self.check_threshold(threshold)
        cut = self.windows(rows, long)
        encoded = list(itertools.chain.from_iterable(cut))
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        outputs: list[tuple[np.ndarray, np.ndarray]] = []
        for start in range(0, len(order), batch_size):
            batch = self._run([encoded[i] for i in order[start : start + batch_size]])
            if not all(np.isfinite(part).all() for part in batch):
                raise UserError(f"{self.run}: {NOT_FINITE}")
            outputs += zip(*batch, strict=True)
        sorted_back = iter([outputs[place] for place in np.argsort(order)])
        found = []
        for windows in cut:
            of_row = zip(*itertools.islice(sorted_back, len(windows)), strict=True)
            logits, embedding = (np.mean(each, axis=0) for each in of_row)
            found.append(self._prediction(logits, embedding, threshold))
        return found

    @property
    def dim(self) -> int:
        """The length of a sentence vector."""
        return self.model.args.encoder_embed_dim

    def check_threshold(self, threshold: float | None) -> None:
        """Refuse a threshold that is no probability, or that this model cannot have."""
        if threshold is None:
            return
        if not 0 < threshold <= 1:
            raise UserError(f"threshold {threshold} must be above 0 and at most 1")
        if not self.classes:
            raise UserError(f"{self.run} is a regression, which has no threshold")
        if UNSURE in self.classes:
            raise UserError(f"{self.run} has a class '{UNSURE}', which a threshold would give too")

    def encode(self, rows: Iterable[str | Sequence[str]]) -> list[np.ndarray]:
        """Token ids of each row, `(length,)` int64, as training saw them."""
        return [ids for [ids] in self.windows(rows, "cut")]

    def windows(self, rows: Iterable[str | Sequence[str]], long: str) -> list[list[np.ndarray]]:
        """Token ids of each row's windows, at least one; see `predict`."""
        if long not in ("cut", "windows"):
            raise UserError(f"long '{long}' must be cut or windows")
        if long == "windows" and self.sentences == 2:
            raise UserError(f"long windows are for single sentences, {self.run} takes pairs")
        texts = self._texts(rows)
        columns = [self.tokenizer([t[i].strip() for t in texts]) for i in range(self.sentences)]
        room = self.max_length - 2 * self.sentences
        if long == "windows":
            [tokens] = columns
            split = [np.array_split(row, max(1, math.ceil(len(row) / room))) for row in tokens]
            return [[self._framed((window,)) for window in windows] for windows in split]
        framed = []
        for parts in zip(*columns, strict=True):
            kept = shortened_lengths(tuple(map(len, parts)), room)
            cut = (part[:length] for part, length in zip(parts, kept, strict=True))
            framed.append([self._framed(cut)])
        return framed

    def _texts(self, rows: Iterable[str | Sequence[str]]) -> list[tuple[str, ...]]:
        """The sentences of each row, checked."""
        # a dictionary or a data frame would give the names of its columns
        if isinstance(rows, str | bytes | Mapping) or hasattr(rows, "columns"):
            raise UserError(f"predict takes a list of sentences, not {type(rows).__name__}")
        try:
            given = list(rows)
        except TypeError:
            raise UserError(f"predict takes a list of sentences, not {rows!r:.60}") from None
        texts = []
        for number, row in enumerate(given, 1):
            text = tuple(row) if isinstance(row, list | tuple | np.ndarray) else (row,)
            if len(text) != self.sentences or not all(isinstance(part, str) for part in text):
                wanted = "one sentence" if self.sentences == 1 else "two sentences"
                raise UserError(f"row {number}: the model takes {wanted}, not {row!r:.60}")
            if any(map(half_character, text)):
                raise UserError(f"row {number} holds half a character")
            texts.append(text)
        return texts

    def _framed(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """One row's ids, with the special tokens around its sentences."""
        ids: list[int] = []
        for before, part in zip(self.before, parts, strict=True):
            ids += [*([] if before is None else [before]), *part.tolist(), self.end]
        return np.array(ids)

    def _run(self, rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Logits and sentence vectors, `(rows, classes)` and `(rows, dim)` float32."""
        import torch

        from fairseq_scl.criterions.sentence_prediction_scl import seen_by

        tokens = torch.from_numpy(padded(rows, self.model.encoder.dictionary.pad()))
        device = next(self.model.parameters()).device
        with torch.inference_mode(), seen_by(self.model.classification_heads[self.head]) as seen:
            self.model(tokens.to(device), features_only=True, classification_head_name=self.head)
        logits, embeddings = (seen[key].float().cpu().numpy() for key in ("logits", "encoder"))
        return logits, embeddings

    def _prediction(
        self, logits: np.ndarray, embedding: np.ndarray, threshold: float | None
    ) -> Prediction:
        if not self.classes:
            return Prediction(logits[0].item(), {}, embedding, logits)
        divided = logits.astype(np.float64) / self.temperature
        powers = np.exp(divided - divided.max())
        probabilities = (powers / powers.sum()).tolist()
        label = self.classes[int(logits.argmax())]
        if threshold is not None and max(probabilities) < threshold:
            label = UNSURE
        shares = dict(zip(self.classes, probabilities, strict=True))
        return Prediction(label, shares, embedding, logits)


def padded(rows: list[np.ndarray], padding: int) -> np.ndarray:
    """Rows of ids as one array, `(rows, length)` int64, with padding on the right."""
    batch = np.full((len(rows), max(map(len, rows))), padding)
    for row, ids in zip(batch, rows, strict=True):
        row[: len(ids)] = ids
    return batch


def load(path: str | Path, cpu: bool = False) -> "Classifier | OnnxClassifier":
    """Load a fine-tuned model.

    Args:
        path: a run's folder, whose best checkpoint is taken (the last one of a run with
            `--disable-validation`), or a checkpoint in it. What training put beside it,
            `inference/`, must come along if it was moved, and so must `calibration.json` and
            `refit.json` if there are any. Or a folder that `export --format onnx` made, or the
            model.onnx in it, for which neither torch nor fairseq is imported.
        cpu: leave a GPU alone.

    Raises:
        UserError: if something is missing or does not fit together.
    """
    path = Path(path)
    if path.suffix == ".onnx" or (path / ONNX_MODEL).is_file():
        from fairseq_scl.inference import onnx

        return onnx.load(path.parent if path.suffix == ".onnx" else path, cpu)
    return load_run(path, cpu)


def load_run(path: Path, cpu: bool = False) -> Classifier:
    """Load a run; see `load`."""
    import torch

    from fairseq_scl import plugin  # noqa: F401
    from fairseq_scl.inference import calibration, refitted_head
    from fairseq_scl.models import saved

    checkpoint = saved.checkpoint_of(path) if path.is_dir() else path
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: no such file")
    folder = checkpoint.parent / beside_checkpoint.FOLDER
    if not (folder / beside_checkpoint.TOKENIZER).is_dir():
        raise UserError(
            f"{folder} is missing, with the dictionary and the tokenizer; training writes it for "
            "data made by this version of 'fairseq-scl prepare'"
        )
    model, cfg, task, *_ = saved.load(checkpoint, folder)
    prepared = beside_checkpoint.read_prepared(folder)
    if prepared.max_length > model.max_positions():
        raise UserError(
            f"{folder / beside_checkpoint.PREPARED}: max_length {prepared.max_length} is beyond "
            f"the model's {model.max_positions()} positions"
        )
    if (prepared.classes or []) != task.class_names:
        raise UserError(f"{folder}: label/dict.txt has not the classes of prepared.json, in order")
    head = cfg.criterion.classification_head_name
    if task.class_names:
        refitted_head.use(checkpoint, model, head, len(task.class_names))
    if torch.cuda.is_available() and not cpu:
        model.cuda()
    pair = (folder / "input1").is_dir()
    fitted = calibration.read(checkpoint) if task.class_names else None
    first, second = cfg.task.init_token, cfg.task.separator_token
    return Classifier(
        run=checkpoint.parent,
        model=model.eval(),
        head=head,
        classes=task.class_names,
        tokenizer=load_tokenizer(
            folder / beside_checkpoint.TOKENIZER, task.source_dictionary.symbols
        ),
        sentences=2 if pair else 1,
        max_length=prepared.max_length,
        before=(first, second) if pair else (first,),
        temperature=fitted.temperature if fitted else 1.0,
    )
