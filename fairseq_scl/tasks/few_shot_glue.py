"""The task: fairseq's sentence prediction with few-shot draws and batches regrouped every epoch."""

import logging
import os
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from fairseq.data import ConcatDataset, SortDataset
from fairseq.dataclass import ChoiceEnum
from fairseq.distributed.utils import get_global_rank, get_global_world_size
from fairseq.tasks import register_task
from fairseq.tasks.sentence_prediction import SentencePredictionConfig, SentencePredictionTask
from omegaconf import II

from fairseq_scl.data import beside_checkpoint, manifest, protocols, sampling, stored
from fairseq_scl.data.noise import NoisyTokens, Relabelled
from fairseq_scl.data.rows import Choices, Rows
from fairseq_scl.data.rows_dataset import RowsDataset, balanced
from fairseq_scl.errors import UserError
from fairseq_scl.files import lock_for_life, sha256, write_text
from fairseq_scl.models.compiling import compile_layers
from fairseq_scl.repairs.precision import require_device
from fairseq_scl.repairs.workers import failing_together, seed_apart
from fairseq_scl.tasks.head_start import start_head

logger = logging.getLogger(__name__)

NOISE = ("none", "label", "tokens", "back-translation")
NOISE_OPTIONS = {
    "label_noise": "label",
    "token_noise": "tokens",
    "noise_temperature": "back-translation",
    "noise_ratio": "back-translation",
    "noise_replace": "back-translation",
}
HEAD_INITS = ("random", "probe")
SPLITS = ("train", "valid", "test", "test1")
LAST_CHECKPOINT = "checkpoint_last.pt"
LOCK = ".train.lock"
QUEUE = "scl_queue."


@dataclass
class FewShotGlueConfig(SentencePredictionConfig):
    """Options of the task, beside those of `sentence_prediction`."""

    num_shots: Optional[int] = field(  # noqa: UP045  (fairseq reads the annotation)
        default=None, metadata={"help": "train on N rows in total, drawn at random (default: all)"}
    )
    shots_seed: int = field(
        default=1, metadata={"help": "seed of the draw and of the noise, apart from --seed"}
    )
    shots_sampling: ChoiceEnum(sampling.SAMPLING) = field(  # type: ignore[valid-type]
        default="stratified",
        metadata={
            "help": "'stratified' keeps the label distribution, 'balanced' takes equally many rows "
            "of each class, 'random' does not look at labels"
        },
    )
    protocol: ChoiceEnum(protocols.PROTOCOLS) = field(  # type: ignore[valid-type]
        default="given",
        metadata={
            "help": "'given': the splits as prepared; 'few-shot' (the paper's): 'test' is a "
            f"stratified half of the validation set, 'valid' at most {protocols.MAX_DEV_ROWS} rows "
            "of the other half; 'full' (the paper's): 'test' is the validation set, 'valid' is "
            "carved out of the training set; 'folds': 'test' is one fold of the training set, and "
            "there is no 'valid' (--disable-validation)"
        },
    )
    fold: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "K/N of --protocol folds: test on the K-th of N stratified parts"},
    )
    noise: ChoiceEnum(NOISE) = field(  # type: ignore[valid-type]
        default="none", metadata={"help": "noise in the training rows, never in valid or test"}
    )
    label_noise: float = field(
        default=0.0, metadata={"help": "share of training labels that --noise label flips"}
    )
    token_noise: float = field(
        default=0.1,
        metadata={"help": "probability that --noise tokens drops, swaps or masks a token"},
    )
    noise_temperature: Optional[float] = field(  # noqa: UP045
        default=None,
        metadata={"help": "T of the translations that --noise back-translation adds"},
    )
    noise_ratio: int = field(
        default=3, metadata={"help": "translations added for each training row (paper: about 3)"}
    )
    noise_replace: bool = field(
        default=False, metadata={"help": "train on the translations without their originals"}
    )
    samples_per_class: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={"help": "each batch holds K rows of each of --batch-size / K classes"},
    )
    keep_head: bool = field(
        default=False,
        metadata={"help": "keep the classification head of the model that training starts from"},
    )
    head_init: ChoiceEnum(HEAD_INITS) = field(  # type: ignore[valid-type]
        default="random",
        metadata={
            "help": "how a new classification head starts: 'random', or 'probe', as a logistic "
            "regression on the encoder's vectors of the training rows"
        },
    )
    compile: bool = field(
        default=False,
        metadata={
            "help": "compile the encoder's layers with torch.compile, which takes a minute; for "
            "GPUs, a CPU gains nothing"
        },
    )
    batch_size: Optional[int] = II("dataset.batch_size")  # noqa: UP045
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")  # noqa: UP045
    reset_optimizer: bool = II("checkpoint.reset_optimizer")
    fp16: bool = II("common.fp16")
    amp: bool = II("common.amp")
    cpu: bool = II("common.cpu")


@register_task("few_shot_glue", dataclass=FewShotGlueConfig)
class FewShotGlueTask(SentencePredictionTask):
    """Sentence classification or regression from a few labelled rows.

    Features:
        * Which rows make up train, valid and test is settled by `Rows`, and written to
          `SAVE_DIR/manifest.json`, which 'fairseq-scl verify' checks.
        * Which examples share a batch changes every epoch (see `RowsDataset`).
        * The number of classes and their order come from `DATA/label/dict.txt`.
    """

    def __init__(self, cfg, data_dictionary, label_dictionary):
        super().__init__(cfg, data_dictionary, label_dictionary)
        self.datasets: dict[str, RowsDataset] = {}
        self.data = Path(cfg.data)
        self.class_names = [] if cfg.regression_target else stored.class_names(self.data)
        self.manifest_is_written = False
        self.queue_memory: dict[str, torch.Tensor] = {}  # of --scl-queue; saved with the model
        self.rows = Rows(self.data, choices(cfg))

    @classmethod
    def load_dictionary(cls, filename):
        """As in fairseq, but a damaged file is told in one line."""
        return stored.load_dictionary(Path(filename))

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """Load the dictionaries and settle `cfg.num_classes`.

        Raises:
            UserError: for a missing dictionary or another number of classes than the data has.
        """
        data = Path(cfg.data)
        found = 1 if cfg.regression_target else len(stored.class_names(data))
        if cfg.num_classes not in (-1, found):
            raise UserError(f"--num-classes {cfg.num_classes}, but {data} has {found}")
        cfg.num_classes = found
        return super().setup_task(cfg, **kwargs)

    def build_model(self, cfg, from_checkpoint=False):
        """Build the model with its head; it will refuse a checkpoint that does not fit.

        Raises:
            UserError: if a checkpoint to start from is missing, the model has no such head, a CPU
                is to train in --fp16, there is no compiler for --compile, or --head-init cannot be.
        """
        if not from_checkpoint:
            require_device(self.cfg.fp16, self.cfg.amp, self.cfg.cpu)
            self._require_starting_checkpoint()
            self._require_head_to_start()
        try:
            model = super().build_model(cfg, from_checkpoint)
        except AttributeError as error:
            if "register_classification_head" not in str(error):
                raise
            raise UserError("this --arch has no classification head; RoBERTa's have") from None
        if not from_checkpoint and self._starts_afresh():
            model.register_load_state_dict_pre_hook(self._settle_head)
            if self.cfg.head_init == "probe":  # once the encoder is there, before any optimizer
                model.register_load_state_dict_post_hook(self._start_head)
        freeze_language_model_head(model)
        if self.cfg.compile and not from_checkpoint:
            compile_layers(model.encoder.sentence_encoder.layers)
        model.register_load_state_dict_pre_hook(self._require_fitting_checkpoint)
        # fairseq saves a task's state but does not restore it
        model.register_state_dict_post_hook(partial(self._save_queue))  # a method takes no mark
        model.register_load_state_dict_pre_hook(self._restore_queue)
        return model

    def load_dataset(self, split, combine=False, **kwargs):
        """Load a split; of `train` only the rows drawn, with the noise that was asked for.

        Raises:
            UserError: if the data is damaged, a row is too long, or the draw cannot be made.
        """
        source, rows = self.rows.of(split)
        others = dict(self.datasets)
        whole = super().load_dataset(source, combine=combine, **kwargs)
        self.datasets = others
        if isinstance(whole, SortDataset):
            whole = whole.dataset  # in the order of the file
        sizes = whole.sizes[0]
        self._require_short_rows(sizes, source)
        stored.require_known_tokens(self.data, source, len(self.dictionary))
        if split == "train":
            self.datasets[split] = self._training_set(whole, sizes, rows)
        else:
            self.datasets[split] = RowsDataset(whole, sizes, rows)
        logger.info(f"{split}: {len(self.datasets[split])} rows of {source}'s {len(whole)}")
        return self.datasets[split]

    def get_batch_iterator(self, *args, **kwargs):
        """As in fairseq; the batches that workers take in the same update stay together.

        Shuffled one by one, they would make up other global batches than one process has.
        """
        return super().get_batch_iterator(*args, **{**kwargs, "grouped_shuffling": True})

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """As in fairseq, with dropout of this worker's own.

        Raises:
            UserError: if one of several workers is out of memory.
        """
        seed_apart(get_global_rank())
        with failing_together(get_global_rank(), get_global_world_size()):
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def valid_step(self, sample, model, criterion):
        """As in fairseq.

        Raises:
            UserError: if one of several workers is out of memory.
        """
        with failing_together(get_global_rank(), get_global_world_size()):
            return super().valid_step(sample, model, criterion)

    def begin_epoch(self, epoch, model):
        """Called by the trainer only: put beside the checkpoints what goes with them.

        Raises:
            UserError: if the folder already holds the run of other examples, or another process
                trains into it.
        """
        super().begin_epoch(epoch, model)
        if self.manifest_is_written or get_global_rank() != 0:
            return
        path = Path(self.cfg.save_dir, manifest.NAME)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_for_life(path.with_name(LOCK))
        before = manifest.read(path) if path.exists() else None
        splits = [split for split in SPLITS if self.has_split(split)]
        made = manifest.make(self.rows, splits, self._started_from(before))
        if before and not made.same_examples(before):
            raise UserError(f"{path} is of a run on other examples; choose another --save-dir")
        beside_checkpoint.keep(self.data, path.parent)
        write_text(path, made.json_text())
        self.manifest_is_written = True

    def has_split(self, split: str) -> bool:
        """Whether the prepared data has this split under the protocol."""
        if self.cfg.protocol == "folds":
            return split in ("train", "test")
        if self.cfg.protocol != "given":
            split = split.replace("test", "valid")
        return (self.data / "input0" / f"{split}.idx").is_file()

    def _training_set(self, whole, sizes: np.ndarray, rows: np.ndarray) -> RowsDataset:
        cfg = self.cfg
        labels, flipped = self.rows.training_labels()
        examples = whole
        if cfg.noise == "label":
            examples = Relabelled(whole, {int(rows[i]): int(labels[i]) for i in flipped})
        elif cfg.noise == "tokens":
            if not 0 <= cfg.token_noise <= 1:
                raise UserError(f"--token-noise {cfg.token_noise} must be in [0, 1]")
            mask, special = self.dictionary.index("<mask>"), self.dictionary.nspecial
            examples = NoisyTokens(whole, cfg.token_noise, mask, special, cfg.shots_seed)
        elif cfg.noise == "back-translation":
            added, chosen = self.rows.translations(whole, cfg.init_token, cfg.separator_token)
            examples = ConcatDataset([whole, added])
            sizes = np.concatenate([sizes, added.sizes])
            translated = np.repeat(labels, cfg.noise_ratio)
            originals = slice(0, 0) if cfg.noise_replace else slice(None)
            rows = np.concatenate([rows[originals], len(whole) + chosen])
            labels = np.concatenate([labels[originals], translated])
        return RowsDataset(examples, sizes, rows, self._order(labels))

    def _order(self, labels: np.ndarray):
        """How training examples fill batches; see `RowsDataset`."""
        cfg = self.cfg
        if cfg.samples_per_class is None:
            return None if cfg.no_shuffle else partial(np.random.permutation, len(labels))
        order = partial(balanced, labels, cfg.batch_size or 0, cfg.samples_per_class)
        try:
            order()
        except ValueError as error:
            raise UserError(f"--samples-per-class {cfg.samples_per_class}: {error}") from None
        return order

    def _require_short_rows(self, sizes: np.ndarray, source: str) -> None:
        if sizes.max(initial=0) > self.max_positions():
            row = int(sizes.argmax())
            raise UserError(
                f"{self.data}, split '{source}', row {row + 1}: {sizes[row]} tokens, more "
                f"than --max-positions {self.max_positions()}; shorten with 'fairseq-scl prepare "
                f"--max-length {self.max_positions()}'"
            )

    def _starts_afresh(self) -> bool:
        """Whether weights are loaded to start from, not to go on with a run."""
        last = Path(self.cfg.save_dir, LAST_CHECKPOINT)
        tuned = self.cfg.finetune_from_model is not None and not last.is_file()
        return tuned or self.cfg.reset_optimizer

    def _started_from(self, before: manifest.Manifest | None) -> str | None:
        """The checksum of the encoder, by the run's own manifest where it goes on."""
        path = self.cfg.finetune_from_model
        if path and self._starts_afresh():
            return sha256(Path(path))
        return before.encoder if before else None

    def _require_starting_checkpoint(self) -> None:
        restored = self.cfg.restore_file
        starting = {
            "--finetune-from-model": self.cfg.finetune_from_model,
            "--restore-file": None if restored == LAST_CHECKPOINT else restored,
        }
        for flag, path in starting.items():
            if not path:
                continue
            if not os.path.isfile(path):
                raise UserError(f"{flag} {path}: no such file")
            theirs = Path(path).with_name("dict.txt")
            ours = self.data / "input0" / "dict.txt"
            if theirs.is_file() and theirs.read_bytes() != ours.read_bytes():
                raise UserError(
                    f"{ours} is not {theirs}; prepare the data with the checkpoint's own dict.txt"
                )

    def _require_head_to_start(self) -> None:
        if self.cfg.head_init == "random":
            return
        told = f"--head-init {self.cfg.head_init}"
        if self.cfg.regression_target:
            raise UserError(f"{told} is for classes, not for --regression-target")
        if self.cfg.keep_head:
            raise UserError(f"{told} fits a new head, --keep-head keeps the old one")
        if not (self._starts_afresh() or Path(self.cfg.save_dir, LAST_CHECKPOINT).is_file()):
            raise UserError(
                f"{told} needs an encoder to start from: --finetune-from-model, or --restore-file "
                "with --reset-optimizer"
            )

    def _start_head(self, model, _) -> None:
        start_head(model, self.cfg.classification_head_name, self.load_dataset("train"))

    def _save_queue(self, model, state_dict, prefix, *_) -> None:
        for name, rows in self.queue_memory.items():
            state_dict[f"{prefix}{QUEUE}{name}"] = rows

    def _restore_queue(self, model, state_dict, *_) -> None:
        for name in [name for name in state_dict if name.startswith(QUEUE)]:
            rows = state_dict.pop(name)
            if not self._starts_afresh():
                self.queue_memory[name.removeprefix(QUEUE)] = rows

    def _settle_head(self, model, state_dict, *_) -> None:
        """Start with a new head, whose classes another task's head does not know, or keep it."""
        fresh = model.state_dict()
        heads = [name for name in fresh if name.startswith("classification_heads.")]
        if not self.cfg.keep_head:
            state_dict.update({name: fresh[name] for name in heads})
        elif all(torch.equal(state_dict[name], fresh[name]) for name in heads):
            # fairseq fills in the model's own head where the checkpoint has none that fits
            raise UserError(
                f"--keep-head: the checkpoint has no head of {self.cfg.num_classes} classes named "
                f"'{self.cfg.classification_head_name}'"
            )

    def _require_fitting_checkpoint(self, model, state_dict, *_) -> None:
        """Run by torch before it copies `state_dict` into the model."""
        embedding = "encoder.sentence_encoder.embed_tokens.weight"
        for name, tensor in model.state_dict().items():
            if name.startswith(QUEUE):
                continue
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


def choices(cfg: FewShotGlueConfig) -> Choices:
    """What of the configuration decides on the examples; noise that is not used is left out."""
    require_fold(str(cfg.protocol), cfg.fold, cfg.regression_target)
    noise = str(cfg.noise)
    for name, kind in NOISE_OPTIONS.items():
        if noise != kind and getattr(cfg, name) != getattr(FewShotGlueConfig, name):
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} {getattr(cfg, name)} needs --noise {kind}")
    translated = noise == "back-translation"
    if translated and not (cfg.noise_temperature and cfg.noise_temperature > 0):
        raise UserError(f"--noise-temperature {cfg.noise_temperature} must be above 0")
    if translated and cfg.noise_ratio < 1:
        raise UserError(f"--noise-ratio {cfg.noise_ratio} must be at least 1")
    return Choices(
        protocol=str(cfg.protocol),
        num_shots=cfg.num_shots,
        shots_seed=cfg.shots_seed,
        shots_sampling=str(cfg.shots_sampling),
        noise=noise,
        label_noise=cfg.label_noise if noise == "label" else 0.0,
        token_noise=cfg.token_noise if noise == "tokens" else 0.0,
        noise_temperature=cfg.noise_temperature if translated else None,
        noise_ratio=cfg.noise_ratio if translated else 0,
        noise_replace=cfg.noise_replace if translated else False,
        regression=cfg.regression_target,
        fold=cfg.fold,
    )


def require_fold(protocol: str, fold: str | None, regression: bool) -> None:
    """Refuse folds that cannot be, or that nobody asked for."""
    if (protocol == "folds") != (fold is not None):
        raise UserError("--fold and --protocol folds need each other")
    if fold is None:
        return
    if regression:
        raise UserError("--protocol folds is for classes, not for --regression-target")
    number, folds = map(int, fold.split("/")) if re.match(protocols.FOLD, fold) else (0, 0)
    if not 1 <= number <= folds or folds < 2:
        raise UserError(f"--fold {fold} must be K/N, the K-th of at least 2 folds, such as 1/5")


def freeze_language_model_head(model) -> None:
    """Take RoBERTa's language model head out of the training, which does not use it.

    Several processes would give it gradients of zero and so decay it, one process does not; and
    DistributedDataParallel waits for every parameter that may train.
    """
    head = getattr(getattr(model, "encoder", None), "lm_head", None)
    for name, parameter in head.named_parameters() if head else ():
        parameter.requires_grad_(name == "weight")  # the embedding's
