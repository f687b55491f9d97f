"""A model that `export --format onnx` made: from text to label with neither torch nor fairseq."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, NonNegativeInt, PositiveInt

from fairseq_scl.encoders.encoder_folder import TOKENIZER_JSON
from fairseq_scl.encoders.tokenizers import read_tokenizer
from fairseq_scl.errors import UserError, first_line
from fairseq_scl.files import read_model
from fairseq_scl.inference.classifier import ONNX_MODEL, Classifier, padded

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CONFIG = "config.json"


class Config(BaseModel):
    """What `config.json` of the folder tells, beside what transformers would read in it.

    Attributes:
        problem_type: "regression", or a classification.
        id2label: the classes by their ids.
        max_length: tokens of the longest row, special tokens included.
        before: the tokenizer's special token before each sentence, or null; two of them for pairs.
        end, padding: its tokens after each sentence and in place of none.
    """

    problem_type: str
    id2label: dict[NonNegativeInt, str]
    max_length: PositiveInt
    before: list[NonNegativeInt | None]
    end: NonNegativeInt
    padding: NonNegativeInt


@dataclass(frozen=True)
class OnnxClassifier(Classifier):
    """As `Classifier`, on ONNX Runtime; `model` is its session.

    Attributes:
        padding: the token that fills up a batch.
    """

    padding: int = 1

    @property
    def dim(self) -> int:
        """The length of a sentence vector."""
        return self.model.get_outputs()[1].shape[1]

    def _run(self, rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        ids = padded(rows, self.padding)
        lengths = np.array(list(map(len, rows)))
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        logits, embeddings = self.model.run(None, {"input_ids": ids, "attention_mask": mask})
        return logits, embeddings


def load(folder: Path, cpu: bool = False) -> OnnxClassifier:
    """Load an exported folder.

    Raises:
        UserError: if a file is missing or damaged, or ONNX Runtime is.
    """
    config = read_model(folder / CONFIG, Config)
    names = [config.id2label.get(label, "") for label in range(len(config.id2label))]
    if sorted(config.id2label) != list(range(len(names))) or len(config.before) not in (1, 2):
        raise UserError(f"{folder / CONFIG}: id2label or before is not as export writes it")
    tokenizer = read_tokenizer(folder / TOKENIZER_JSON)
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def ids(texts: Sequence[str]) -> list[np.ndarray]:
        encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(row.ids, dtype=np.int64) for row in encoded]

    return OnnxClassifier(
        run=folder,
        model=session(folder / ONNX_MODEL, cpu),
        head="",
        classes=[] if config.problem_type == "regression" else names,
        tokenizer=ids,
        sentences=len(config.before),
        max_length=config.max_length,
        before=tuple(config.before),
        end=config.end,
        padding=config.padding,
    )


def session(path: Path, cpu: bool) -> "InferenceSession":
    """ONNX Runtime with this graph, on a GPU if its package is for one.

    Raises:
        UserError: if it is not installed, or the file is no graph for it.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(f"{path} needs: pip install 'fairseq-scl[onnx]'")
    import onnxruntime

    providers = ["CPUExecutionProvider"] if cpu else onnxruntime.get_available_providers()
    try:
        return onnxruntime.InferenceSession(path, providers=providers)
    except Exception as error:  # the library raises its own, of no common kind
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None
