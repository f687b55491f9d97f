"""What every form of `fairseq-scl export` starts from: a model and its tokenizer, framed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairseq_scl.data import beside_checkpoint
from fairseq_scl.encoders.encoder_folder import TOKENIZER_JSON
from fairseq_scl.encoders.families import BERT, MPNET, ROBERTA, Family
from fairseq_scl.encoders.tokenizers import hugging_face_tokenizer
from fairseq_scl.errors import UserError
from fairseq_scl.files import read_model
from fairseq_scl.inference.classifier import Classifier
from fairseq_scl.reports.results import RESULT, Result


@dataclass(frozen=True)
class Exportable:
    """A fine-tuned model with a tokenizer that can be taken elsewhere; see `read`.

    Attributes:
        classifier: the model.
        tokenizer: one of the tokenizers library, which puts special tokens where training had them.
        order: `(tokens,)` int64, fairseq's id for each of the tokenizer's.
        family: that which computes the encoder elsewhere.
    """

    classifier: Classifier
    tokenizer: Any
    order: torch.Tensor
    family: Family

    @property
    def head(self) -> Any:
        """The classification head."""
        return self.classifier.model.classification_heads[self.classifier.head]

    @property
    def pooling(self) -> str:
        """What the sentence vector is; fairseq's own RoBERTa knows the first token only."""
        return getattr(self.classifier.model.args, "pooling", "cls")

    @property
    def max_length(self) -> int:
        """Tokens of the longest row, special tokens included."""
        # prepare leaves room for a separator in pairs, which BERT's do not have
        return self.classifier.max_length - (self.classifier.before[1:] == (None,))

    @property
    def labels(self) -> dict[str, Any]:
        """How `config.json` tells the classes; a regression has one by transformers' name."""
        classes = self.classifier.classes
        names = classes or ["LABEL_0"]
        return {
            "problem_type": "single_label_classification" if classes else "regression",
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
        }

    @property
    def special_ids(self) -> list[int]:
        """The tokenizer's ids of beginning, padding and end."""
        return [self.tokenizer.token_to_id(name) for name in self.family.specials[:3]]


def scaled(classifier: Classifier) -> Classifier:
    """Divide the head's last projection by the temperature, so that its softmax needs none."""
    head = classifier.model.classification_heads[classifier.head]
    with torch.no_grad():
        for parameter in head.out_proj.parameters():
            parameter /= classifier.temperature
    return replace(classifier, temperature=1.0)


def read(classifier: Classifier) -> Exportable:
    """Take the tokenizer that lies beside a model.

    Raises:
        UserError: if it cannot become a tokenizer.json that gives what training gave the model.
    """
    folder = classifier.run / beside_checkpoint.FOLDER / beside_checkpoint.TOKENIZER
    found = hugging_face_tokenizer(folder, classifier.model.encoder.dictionary.indices)
    if found is None:
        raise UserError(
            f"{folder} has no {TOKENIZER_JSON}; import the encoder from a folder that has one"
        )
    tokenizer, order = found
    family = family_of(classifier, tokenizer, order)
    specials = family.specials
    if missing := [name for name in specials[:3] if tokenizer.token_to_id(name) is None]:
        raise UserError(f"{folder}: the tokenizer lacks {', '.join(missing)}")
    if classifier.before not in ((0,), (0, None), (0, 2)):
        raise UserError(
            f"{classifier.run} cannot be exported: it was trained without --init-token 0, or with "
            "a --separator-token other than 2"
        )
    frame(tokenizer, specials, separated=classifier.before[1:] == (2,))
    return Exportable(classifier, tokenizer, torch.from_numpy(order).long(), family)


def family_of(classifier: Classifier, tokenizer: Any, order: np.ndarray) -> Family:
    """The family of encoders that computes what a model's does."""
    if getattr(classifier.model.args, "relative_positions", False):
        return MPNET
    first = tokenizer.token_to_id("[CLS]")  # MPNet's vocabulary, say, has it too, unused
    beginning = classifier.model.encoder.dictionary.bos()
    return BERT if first is not None and order[first] == beginning else ROBERTA


def frame(tokenizer, specials: Sequence[str], separated: bool) -> None:
    """Have the tokenizer put special tokens around sentences, twice the end between `separated`."""
    from tokenizers.processors import TemplateProcessing

    start, _, end = specials[:3]
    tokenizer.post_processor = TemplateProcessing(
        single=[start, "$A", end],
        pair=[start, "$A", end, *([end] if separated else []), "$B", end],
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (start, end)],
    )


def card(classifier: Classifier, library: str, use: str) -> str:
    """The model card in Markdown, for a model that `library` runs as the lines `use` do."""
    text = f"---\nlibrary_name: {library}\npipeline_tag: text-classification\n---\n\n"
    text += (
        "Fine-tuned with fairseq-scl, supervised contrastive fine-tuning (Gunel et al., 2021).\n"
    )
    if classifier.classes:
        text += f"\nLabels: {', '.join(classifier.classes)}.\n"
    text += f"\nIn this folder:\n\n```python\n{use}```\n"
    path = classifier.run / RESULT
    if path.is_file():
        result = read_model(path, Result)
        measured = {"valid", "test", "test1", "knn", "seconds"}
        recipe = result.setting | {"loss": result.loss, "shots-seed/seed": result.row["draw"]}
        recipe |= result.model_dump(include=measured, exclude_none=True)
        text += f"\nThe run:\n\n```json\n{json.dumps(recipe, indent=1, ensure_ascii=False)}\n```\n"
    return text


def write_json(path: Path, content: object) -> None:
    """Write `content`, readably."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
