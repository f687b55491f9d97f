"""A fine-tuned model as a library: sentences in, labels out.

from fairseq_scl.inference.classifier import load

classifier = load("checkpoints/sst2-20-draw1")
for prediction in classifier.predict(["a joy to watch", "two hours I want back"]):
    print(prediction.label, prediction.probabilities)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fairseq_scl.data import beside_checkpoint
from fairseq_scl.encoders.shorten import shortened_lengths
from fairseq_scl.encoders.tokenizers import Tokenizer, load_tokenizer
from fairseq_scl.errors import UserError
from fairseq_scl.inference import calibration
from fairseq_scl.preparation.tables import half_character

END = 2  # </s> of every fairseq dictionary


class Prediction(NamedTuple):
    """What the model says of a sentence, or a pair.

    Attributes:
        label: the most probable class; of a regression, the number.
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
        head: the name of its classification head.
        classes: the labels in the order of their ids; empty for a regression.
        tokenizer: the encoder's own.
        sentences: 1, or 2 for sentence pairs.
        max_length: tokens of the longest row, special tokens included; longer ones are cut as
            `prepare` cuts them.
        before: the special token that stands before each sentence, or None.
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

    def predict(
        self, rows: Sequence[str | Sequence[str]], batch_size: int = 64
    ) -> list[Prediction]:
        """Classify sentences, or pairs of them; the order of the result is that of `rows`.

        Args:
            rows: a string each; for a model of sentence pairs, two strings each.
            batch_size: rows encoded at a time, which decides on memory, not on the result.

        Raises:
            UserError: for a row that is not what the model was trained on, naming it.
        """
        encoded = self.encode(rows)
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        found: list[Prediction] = []
        for start in range(0, len(order), batch_size):
            found += self._run([encoded[i] for i in order[start : start + batch_size]])
        return [found[place] for place in np.argsort(order)]

    def encode(self, rows: Sequence[str | Sequence[str]]) -> list[torch.Tensor]:
        """Token ids of each row, `(length,)` int64, as training saw them."""
        texts = [(row,) if isinstance(row, str) else tuple(row) for row in rows]
        for number, text in enumerate(texts, 1):
            if len(text) != self.sentences or not all(isinstance(part, str) for part in text):
                wanted = "one sentence" if self.sentences == 1 else "two sentences"
                raise UserError(f"row {number}: the model takes {wanted}, not {text!r:.60}")
            if any(map(half_character, text)):
                raise UserError(f"row {number} holds half a character")
        columns = [self.tokenizer([t[i].strip() for t in texts]) for i in range(self.sentences)]
        room = self.max_length - 2 * self.sentences
        encoded = []
        for parts in zip(*columns, strict=True):
            kept = shortened_lengths(tuple(map(len, parts)), room)
            ids: list[int] = []
            for before, part, length in zip(self.before, parts, kept, strict=True):
                ids += [*([] if before is None else [before]), *part[:length].tolist(), END]
            encoded.append(torch.tensor(ids))
        return encoded

    def _run(self, rows: list[torch.Tensor]) -> list[Prediction]:
        from fairseq_scl.criterions.sentence_prediction_scl import seen_by

        pad = self.model.encoder.dictionary.pad()
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        device = next(self.model.parameters()).device
        with torch.inference_mode(), seen_by(self.model.classification_heads[self.head]) as seen:
            self.model(tokens.to(device), features_only=True, classification_head_name=self.head)
        logits, embeddings = (seen[key].float().cpu() for key in ("logits", "encoder"))
        if not self.classes:
            labels = logits[:, 0].tolist()
            shares: list[dict[str, float]] = [{} for _ in rows]
        else:
            labels = [self.classes[i] for i in logits.argmax(1)]
            probabilities = (logits / self.temperature).softmax(1).tolist()
            shares = [dict(zip(self.classes, row, strict=True)) for row in probabilities]
        return list(map(Prediction, labels, shares, embeddings.numpy(), logits.numpy()))


def load(path: str | Path, cpu: bool = False) -> Classifier:
    """Load a fine-tuned model.

    Args:
        path: a run's folder, whose best checkpoint is taken (the last one of a run with
            `--disable-validation`), or a checkpoint in it. What training put beside it,
            `inference/`, must come along if it was moved.
        cpu: leave a GPU alone.

    Raises:
        UserError: if something is missing or does not fit together.
    """
    from fairseq_scl import plugin  # noqa: F401
    from fairseq_scl.models import saved

    path = Path(path)
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
    if torch.cuda.is_available() and not cpu:
        model.cuda()
    pair = (folder / "input1").is_dir()
    fitted = calibration.read(checkpoint) if task.class_names else None
    first, second = cfg.task.init_token, cfg.task.separator_token
    return Classifier(
        run=checkpoint.parent,
        model=model.eval(),
        head=cfg.criterion.classification_head_name,
        classes=task.class_names,
        tokenizer=load_tokenizer(
            folder / beside_checkpoint.TOKENIZER, task.source_dictionary.symbols
        ),
        sentences=2 if pair else 1,
        max_length=prepared.max_length,
        before=(first, second) if pair else (first,),
        temperature=fitted.temperature if fitted else 1.0,
    )
