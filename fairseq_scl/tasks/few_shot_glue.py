"""The task: fairseq's sentence prediction with few-shot draws and batches regrouped every epoch."""

import hashlib
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np
from fairseq.data import Dictionary, SortDataset, data_utils
from fairseq.dataclass import ChoiceEnum
from fairseq.distributed.utils import get_global_rank
from fairseq.tasks import register_task
from fairseq.tasks.sentence_prediction import SentencePredictionConfig, SentencePredictionTask
from omegaconf import II

from fairseq_scl import sampling
from fairseq_scl.data.rows_dataset import RowsDataset
from fairseq_scl.errors import UserError
from fairseq_scl.files import write_text

logger = logging.getLogger(__name__)

PROTOCOLS = ("given", "few-shot")
HALVING_SEED = 2021  # the test half is the same for every draw, loss and model
MAX_DEV_ROWS = 500
LAST_CHECKPOINT = "checkpoint_last.pt"


@dataclass
class FewShotGlueConfig(SentencePredictionConfig):
    """Options of the task, beside those of `sentence_prediction`."""

    num_shots: Optional[int] = field(  # noqa: UP045  (fairseq reads the annotation)
        default=None, metadata={"help": "train on N rows in total, drawn at random (default: all)"}
    )
    shots_seed: int = field(default=1, metadata={"help": "seed of the draw, apart from --seed"})
    shots_sampling: ChoiceEnum(sampling.SAMPLING) = field(  # type: ignore[valid-type]
        default="stratified",
        metadata={"help": "keep the label distribution, or take equally many rows of each class"},
    )
    protocol: ChoiceEnum(PROTOCOLS) = field(  # type: ignore[valid-type]
        default="given",
        metadata={
            "help": "'given': the splits as prepared; 'few-shot': the paper's, where 'test' is a "
            f"stratified half of the validation set and 'valid' at most {MAX_DEV_ROWS} rows of "
            "the other half"
        },
    )
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")  # noqa: UP045


@register_task("few_shot_glue", dataclass=FewShotGlueConfig)
class FewShotGlueTask(SentencePredictionTask):
    """Sentence classification or regression from a few labelled rows.

    Features:
        * `--num-shots` rows are drawn from the prepared training data when it is loaded; the
          draw is written to `SAVE_DIR/draw.json` with a checksum of its examples.
        * Which examples share a batch changes every epoch (see `RowsDataset`).
        * The number of classes and their order come from `DATA/label/dict.txt`.
    """

    def __init__(self, cfg, data_dictionary, label_dictionary):
        super().__init__(cfg, data_dictionary, label_dictionary)
        self.datasets: dict[str, RowsDataset] = {}
        self.draw: dict | None = None  # what draw.json holds
        self.class_names = (
            [] if cfg.regression_target else read_class_names(Path(cfg.data, "label", "dict.txt"))
        )

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """Load the dictionaries and settle `cfg.num_classes`.

        Raises:
            UserError: for a missing dictionary or another number of classes than the data has.
        """
        label_dict = None if cfg.regression_target else Path(cfg.data, "label", "dict.txt")
        for path in filter(None, (Path(cfg.data, "input0", "dict.txt"), label_dict)):
            if not path.is_file():
                raise UserError(f"{path} is missing; make the data with 'fairseq-scl prepare'")
        num_classes = len(read_class_names(label_dict)) if label_dict else 1
        if cfg.num_classes not in (-1, num_classes):
            raise UserError(
                f"--num-classes {cfg.num_classes}, but {label_dict or 'a regression target'} "
                f"has {num_classes}"
            )
        cfg.num_classes = num_classes
        return super().setup_task(cfg, **kwargs)

    def build_model(self, cfg, from_checkpoint=False):
        """Build the model with its head; it will refuse a checkpoint that does not fit.

        Raises:
            UserError: if a checkpoint to start from is missing, or the model has no such head.
        """
        if not from_checkpoint:
            self._require_starting_checkpoint()
        try:
            model = super().build_model(cfg, from_checkpoint)
        except AttributeError as error:
            if "register_classification_head" not in str(error):
                raise
            raise UserError("this --arch has no classification head; RoBERTa's have") from None
        model.register_load_state_dict_pre_hook(self._require_fitting_checkpoint)
        return model

    def load_dataset(self, split, combine=False, **kwargs):
        """Load a split; of `train` only the rows drawn.

        Raises:
            UserError: if files are missing, lengths disagree, a row is too long, a label is not
                in the dictionary, or the draw cannot be made.
        """
        halved = self.cfg.protocol == "few-shot" and split in ("valid", "test")
        stored = "valid" if halved else split
        self._require_files(stored)
        others = dict(self.datasets)
        whole = super().load_dataset(stored, combine=combine, **kwargs)
        self.datasets = others
        if isinstance(whole, SortDataset):
            whole = whole.dataset  # in the order of the file
        sizes = whole.sizes[0]
        if sizes.max(initial=0) > self.max_positions():
            row = int(sizes.argmax())
            raise UserError(
                f"{self.cfg.data}, split '{stored}', row {row + 1}: {sizes[row]} tokens, more "
                f"than --max-positions {self.max_positions()}; shorten with 'fairseq-scl prepare "
                f"--max-length {self.max_positions()}'"
            )
        labels = self._labels(whole, stored)
        if halved:
            rows = half_of_validation(split, labels)
        elif split == "train" and self.cfg.num_shots is not None:
            rows = self._draw(labels)
            self.draw = self._describe_draw(whole, labels, rows)
        else:
            rows = np.arange(len(whole))
        shuffle = split == "train" and not self.cfg.no_shuffle
        self.datasets[split] = RowsDataset(whole, sizes, rows, shuffle)
        logger.info(f"{split}: {len(rows)} of {len(whole)} rows")
        return self.datasets[split]

    def begin_epoch(self, epoch, model):
        """Called by the trainer only: put the draw beside the checkpoints.

        Raises:
            UserError: if the folder already holds the run of another draw.
        """
        super().begin_epoch(epoch, model)
        if self.draw is None or get_global_rank() != 0:
            return
        path, text = Path(self.cfg.save_dir, "draw.json"), json.dumps(self.draw, indent=1) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise UserError(f"{path} holds another draw; choose another --save-dir")
        write_text(path, text)

    def _draw(self, labels: np.ndarray) -> np.ndarray:
        cfg = self.cfg
        try:
            return sampling.draw(labels, cfg.num_shots, cfg.shots_seed, str(cfg.shots_sampling))
        except ValueError as error:
            raise UserError(f"--num-shots {cfg.num_shots} of {cfg.data}: {error}") from None

    def _describe_draw(self, whole, labels: np.ndarray, rows: np.ndarray) -> dict:
        digest = hashlib.sha256()
        for row in rows:
            digest.update(whole[int(row)]["net_input.src_tokens"].numpy().tobytes())
            digest.update(labels[row].tobytes())
        return {
            "num_shots": len(rows),
            "shots_seed": self.cfg.shots_seed,
            "shots_sampling": str(self.cfg.shots_sampling),
            "rows": rows.tolist(),  # from 0, in the order of the training file
            "sha256": digest.hexdigest(),  # of the rows' token ids and class ids
        }

    def _labels(self, whole, split: str) -> np.ndarray:
        """Class ids of a split; zeros where there are none (regression, an unlabelled test set)."""
        if self.cfg.regression_target or "target" not in whole.defn:
            return np.zeros(len(whole), dtype=np.int64)
        targets = whole.defn["target"]
        labels = np.fromiter((int(label) for label in targets), np.int64, count=len(targets))
        wrong = np.flatnonzero((labels < 0) | (labels >= self.cfg.num_classes))
        if len(wrong):
            raise UserError(
                f"{self.cfg.data}/label/{split}.bin, row {wrong[0] + 1}: a label that is not in "
                f"{self.cfg.data}/label/dict.txt"
            )
        missing = np.setdiff1d(np.arange(self.cfg.num_classes), labels)
        if split == "train" and len(missing):
            name = self.class_names[missing[0]]
            raise UserError(f"{self.cfg.data}: class '{name}' has no example in 'train'")
        return labels

    def _require_files(self, split: str) -> None:
        lengths = {}
        for key in ("input0", "input1", "label"):
            stem = Path(self.cfg.data, key, split)
            if key == "label" and self.cfg.regression_target:
                continue
            if key == "input1" and not Path(self.cfg.data, key).is_dir():
                continue
            if key == "label" and split.startswith("test") and not _exists(stem, "idx"):
                continue  # an unlabelled test set
            for suffix in ("idx", "bin"):
                if not _exists(stem, suffix):
                    raise UserError(
                        f"{stem}.{suffix} is missing; make the data with 'fairseq-scl prepare'"
                    )
            lengths[key] = len(data_utils.load_indexed_dataset(str(stem)))
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} {rows}" for key, rows in lengths.items())
            raise UserError(f"{self.cfg.data}, split '{split}': rows differ: {told}")

    def _require_starting_checkpoint(self) -> None:
        starting = {
            "--finetune-from-model": self.cfg.finetune_from_model,
            "--restore-file": None
            if self.cfg.restore_file == LAST_CHECKPOINT
            else self.cfg.restore_file,
        }
        for flag, path in starting.items():
            if not path:
                continue
            if not os.path.isfile(path):
                raise UserError(f"{flag} {path}: no such file")
            theirs = Path(path).with_name("dict.txt")
            ours = Path(self.cfg.data, "input0", "dict.txt")
            if theirs.is_file() and theirs.read_bytes() != ours.read_bytes():
                raise UserError(
                    f"{ours} is not {theirs}; prepare the data with the checkpoint's own dict.txt"
                )

    def _require_fitting_checkpoint(self, model, state_dict, *_) -> None:
        """Run by torch before it copies `state_dict` into the model."""
        embedding = "encoder.sentence_encoder.embed_tokens.weight"
        for name, tensor in model.state_dict().items():
            if name not in state_dict:
                raise UserError(f"the checkpoint lacks {name}; does --arch match it?")
            theirs, ours = tuple(state_dict[name].shape), tuple(tensor.shape)
            if theirs == ours:
                continue
            if name == embedding and theirs[1:] == ours[1:]:
                raise UserError(
                    f"the checkpoint has {theirs[0]} tokens, {self.cfg.data}/input0/dict.txt "
                    f"gives {ours[0]}; prepare the data with the checkpoint's own dict.txt"
                )
            raise UserError(
                f"{name} is {theirs} in the checkpoint and {ours} in the model; "
                "do --arch and --max-positions match it?"
            )


def read_class_names(label_dict: Path) -> list[str]:
    """The classes of a fairseq label dictionary, in the order of their ids."""
    dictionary = Dictionary.load(str(label_dict))
    # fairseq-preprocess fills up dictionaries with such entries
    names = dictionary.symbols[dictionary.nspecial :]
    return [name for name in names if not name.startswith("madeupword")]


def half_of_validation(split: str, labels: np.ndarray) -> np.ndarray:
    """The paper's few-shot `test` (half of GLUE's validation set) or `valid` (of the other half).

    Args:
        labels: `(rows,)` class ids of the validation set.

    Returns:
        Row numbers, ascending; both splits keep the label distribution and are disjoint.
    """
    test = sampling.draw(labels, len(labels) // 2, HALVING_SEED)
    if split == "test":
        return test
    rest = np.setdiff1d(np.arange(len(labels)), test)
    return rest[sampling.draw(labels[rest], min(MAX_DEV_ROWS, len(rest)), HALVING_SEED)]


def _exists(stem: Path, suffix: str) -> bool:
    return Path(f"{stem}.{suffix}").is_file()
