"""(1 - lambda) cross-entropy + lambda supervised contrastive loss, as a fairseq criterion."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.sentence_prediction import (
    SentencePredictionConfig,
    SentencePredictionCriterion,
)
from fairseq.dataclass import ChoiceEnum
from fairseq.distributed.utils import get_data_parallel_group, get_data_parallel_world_size
from fairseq.logging import metrics as fairseq_metrics
from fairseq.models.roberta.model import RobertaClassificationHead
from torch import Tensor
from torch.nn.functional import log_softmax, nll_loss

from fairseq_scl.criterions import metrics
from fairseq_scl.criterions.class_weights import CLASS_WEIGHTS, balanced
from fairseq_scl.criterions.gather import gather
from fairseq_scl.criterions.queue import EmbeddingQueue
from fairseq_scl.errors import UserError
from fairseq_scl.loss import Candidates, supervised_contrastive_loss

logger = logging.getLogger(__name__)

FEATURES = ("encoder", "head")
REDUCTIONS = ("mean", "sum")
KINDS = ("positive", "negative")  # of pairs


@dataclass
class SentencePredictionSclConfig(SentencePredictionConfig):
    """Options of the criterion, beside those of `sentence_prediction`."""

    scl_weight: float = field(
        default=0.9,
        metadata={"help": "lambda: weight of the contrastive loss in [0, 1]; 0 is plain CE"},
    )
    scl_temperature: float = field(
        default=0.3, metadata={"help": "tau: temperature of the contrastive loss, above 0"}
    )
    scl_features: ChoiceEnum(FEATURES) = field(  # type: ignore[valid-type]
        default="encoder",
        metadata={
            "help": "what is contrasted: 'encoder', the sentence vector before the classification "
            "head, or 'head', what enters the head's last projection"
        },
    )
    scl_reduction: ChoiceEnum(REDUCTIONS) = field(  # type: ignore[valid-type]
        default="mean",
        metadata={
            "help": "'mean' divides the contrastive loss by the batch size, as cross-entropy is; "
            "'sum' does not (as printed in the paper)"
        },
    )
    scl_views: int = field(
        default=1,
        metadata={
            "help": "encode every training batch V times under different dropout, so that each "
            "example has a positive; costs V times the work"
        },
    )
    scl_no_gather: bool = field(
        default=False,
        metadata={"help": "with several workers, contrast each one's batch apart from the others'"},
    )
    scl_chunk_size: Optional[int] = field(  # noqa: UP045  (fairseq reads the annotation)
        default=None,
        metadata={
            "help": "encode C sentences of a training batch at a time, and again in the backward "
            "pass: less memory, more time, the same gradients"
        },
    )
    scl_queue: int = field(
        default=0,
        metadata={
            "help": "contrast with the last Q embeddings of earlier training batches as well, "
            "without gradient, once there are Q (default: 0, none)"
        },
    )
    class_weights: ChoiceEnum(CLASS_WEIGHTS) = field(  # type: ignore[valid-type]
        default="none",
        metadata={
            "help": "'balanced' multiplies the cross-entropy of each training row by n / (K n_k), "
            "where n_k of the n training rows are of its class and K is the number of classes; "
            "neither the contrastive loss nor validation is weighted; 'none': all rows alike"
        },
    )


@register_criterion("sentence_prediction_scl", dataclass=SentencePredictionSclConfig)
class SentencePredictionSclCriterion(SentencePredictionCriterion):
    """fairseq's sentence prediction with a contrastive term over each batch.

    Features:
        * with several workers the batch that is contrasted is that of all of them, and the result
          that of one process;
        * features and logits come from the one forward pass of the stock criterion;
        * `--scl-weight 0` is exactly the stock criterion;
        * losses are logged in nats per sentence; accuracy, MCC, F1, Pearson and Spearman come
          from sums, unrounded, and so are right for any number of processes.

    Raises:
        UserError: for lambda outside [0, 1], tau not above 0, or a regression target with a
            contrastive term or class weights.
    """

    def __init__(self, cfg: SentencePredictionSclConfig, task):
        super().__init__(cfg, task)
        if not 0 <= cfg.scl_weight <= 1:
            raise UserError(f"--scl-weight {cfg.scl_weight} must be in [0, 1]")
        if cfg.scl_weight == 1:
            logger.warning(
                "--scl-weight 1 never trains the head, whose labels are those of chance; "
                "predict --neighbours goes by the sentence vectors alone"
            )
        if not cfg.scl_temperature > 0:
            raise UserError(f"--scl-temperature {cfg.scl_temperature} must be above 0")
        if cfg.regression_target and cfg.scl_weight > 0:
            raise UserError(
                "--regression-target has no classes to contrast; it needs --scl-weight 0"
            )
        if cfg.scl_views < 1:
            raise UserError(f"--scl-views {cfg.scl_views} must be at least 1")
        self.scl_views = cfg.scl_views
        self.scl_weight = cfg.scl_weight
        self.scl_temperature = cfg.scl_temperature
        self.scl_features = str(cfg.scl_features)
        self.scl_reduction = str(cfg.scl_reduction)
        self.scl_no_gather = cfg.scl_no_gather
        if cfg.scl_chunk_size is not None and cfg.scl_chunk_size < 1:
            raise UserError(f"--scl-chunk-size {cfg.scl_chunk_size} must be at least 1")
        self.scl_chunk_size = cfg.scl_chunk_size
        if cfg.scl_queue < 0:
            raise UserError(f"--scl-queue {cfg.scl_queue} must be at least 0")
        self.class_weights = str(cfg.class_weights)
        if self.class_weights != "none":
            if cfg.regression_target:
                raise UserError("--class-weights: --regression-target has no classes to weigh")
            if not hasattr(task, "rows"):
                raise UserError("--class-weights needs --task few_shot_glue, which counts them")
        self.queue = None
        if cfg.scl_queue and cfg.scl_weight > 0:
            if not hasattr(task, "queue_memory"):
                raise UserError("--scl-queue needs --task few_shot_glue, which saves it")
            if cfg.scl_no_gather:
                raise UserError("--scl-queue is common to all workers, --scl-no-gather is not")
            self.queue = EmbeddingQueue(cfg.scl_queue, task.queue_memory)
        self.keep_pred_and_targ = False  # lists do not sum over processes

    @property
    def validation_metrics(self) -> dict[str, bool | None]:
        """What `reduce_metrics` logs, and of each whether more is better; None: who knows."""
        if self.regression_target:
            correlations = ("pearson", "spearman", "pearson_and_spearman")
            return {"loss": False, **dict.fromkeys(correlations, True)}
        return {
            **dict.fromkeys(("loss", "ce_loss", "scl_loss"), False),
            **{metric.__name__: True for metric in metrics.CLASSIFICATION},
            **dict.fromkeys(("anchors_with_positive", *map("{}_similarity".format, KINDS))),
        }

    def forward(self, model, sample, reduce=True):
        """Compute the loss of a batch.

        Returns:
            `(loss, sample_size, logging_output)`: the loss summed over sentences, the number of
            sentences, and sums that `reduce_metrics` turns into metrics. Sentences are as many as
            targets, 0 for a worker that only keeps the others company.
        """
        if "target" not in sample:
            raise UserError("this split has no labels")
        if model.training and self.scl_views > 1:
            sample = repeat_batch(sample, self.scl_views)
        if model.training and self.scl_chunk_size:
            sample = in_chunks(sample, model, self.scl_chunk_size)
        heads = getattr(model, "classification_heads", {})
        if self.classification_head_name not in heads:
            raise UserError(f"the model has no head '{self.classification_head_name}'")
        targets = sample["target"].view(-1)
        with seen_by(heads[self.classification_head_name], len(targets)) as seen:
            ce_loss, sample_size, logging_output = super().forward(model, sample, reduce)
        logging_output.pop("ncorrect", None)
        if self.regression_target:
            logging_output |= regression_sums(seen["logits"].detach(), targets)
            if not model.training and "num_rows" in sample:
                logging_output["_by_row"] = by_row(seen["logits"].detach(), sample)
            return ce_loss, sample_size, logging_output

        if model.training and self.class_weights == "balanced":
            # added to fairseq's loss, which may hold more than cross-entropy
            weights = self.balanced_weights.to(targets.device) - 1
            said = log_softmax(seen["logits"], dim=-1, dtype=torch.float32)
            ce_loss = ce_loss + nll_loss(said, targets, weights, reduction="sum")
        features = seen[self.scl_features]
        # without gradient where the contrastive loss is only watched
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.scl_weight > 0):
            pool, ids = self.global_batch(features, targets, sample)
            candidates = pool
            if model.training and self.queue is not None:
                candidates = self.queue.extend(pool, ids)
                self.queue.push(pool, ids)
            scl_loss = supervised_contrastive_loss(
                features, targets, self.scl_temperature, "sum", candidates
            )
        loss = ce_loss
        if self.scl_weight > 0:
            loss = (1 - self.scl_weight) * ce_loss + self.scl_weight * scl_loss * (
                len(pool.labels) if self.scl_reduction == "sum" else 1
            )
        with torch.no_grad():
            logits = seen["logits"]
            logging_output |= {
                "loss": loss.detach(),
                "ce_loss": ce_loss.detach(),
                "scl_loss": scl_loss.detach(),
                "confusion": metrics.confusion_matrix(logits.argmax(1), targets, logits.size(1)),
                **metrics.pair_statistics(features, targets, candidates),
            }
        return loss, sample_size, logging_output

    @cached_property
    def balanced_weights(self) -> Tensor:
        """Of the training rows drawn, with the labels that they are trained on."""
        labels, _ = self.task.rows.training_labels()
        return balanced(torch.from_numpy(labels), len(self.task.class_names))

    def global_batch(
        self, features: Tensor, targets: Tensor, sample: dict
    ) -> tuple[Candidates, Tensor]:
        """The examples of all workers, and which they are.

        Raises:
            UserError: for the batches of another task, which do not tell a worker without examples.
        """
        if self.scl_no_gather or get_data_parallel_world_size() == 1:
            return Candidates.of_batch(features, targets), sample["id"]
        if "num_rows" not in sample:
            raise UserError("several workers need --task few_shot_glue, or --scl-no-gather")
        return gather(features, targets, sample["id"], get_data_parallel_group())

    @staticmethod
    def reduce_metrics(logging_outputs) -> None:
        """Turn summed logging outputs into fairseq's meters."""
        total = {
            key: sum(log[key] for log in logging_outputs if key in log)
            for key in (logging_outputs[0] if logging_outputs else ())
        }
        sentences = total.get("sample_size", 0)
        if not sentences > 0:
            return
        for key in ("loss", "ce_loss", "scl_loss"):
            if key in total:
                fairseq_metrics.log_scalar(key, total[key] / sentences, sentences, round=5)
        if "confusion" in total:
            log_classification(total, sentences)
        else:
            log_regression(total)


def repeat_batch(sample: dict, views: int) -> dict:
    """The batch `views` times over; dropout makes each copy another view."""

    def repeat(value):
        return torch.cat([value] * views)

    return {
        **sample,
        "id": repeat(sample["id"]),
        "target": repeat(sample["target"]),
        "net_input": {key: repeat(value) for key, value in sample["net_input"].items()},
        "ntokens": sample["ntokens"] * views,
    }


def in_chunks(sample: dict, model, chunk_size: int) -> dict:
    """The batch with the wish that the model encode it in chunks.

    Raises:
        UserError: for a model that cannot.
    """
    if not getattr(model, "encodes_in_chunks", False):
        raise UserError("--scl-chunk-size needs --arch sentence_roberta, or one built on it")
    return {**sample, "net_input": {**sample["net_input"], "chunk_size": chunk_size}}


@contextmanager
def seen_by(
    head: RobertaClassificationHead, sentences: int | None = None
) -> Iterator[dict[str, Tensor]]:
    """Record what passes through a RoBERTa classification head in a forward pass.

    Hooks, because calling the encoder or the head outside the wrapped model's forward would
    leave DistributedDataParallel without its gradient synchronisation.

    Args:
        sentences: let only so many of the batch through, by default all.

    Yields:
        A dictionary to be filled with `encoder` `(sentences, dim)`, the sentence vector, `head`
        `(sentences, inner_dim)`, the input of the last projection, and `logits`
        `(sentences, classes)`.
    """
    seen: dict[str, Tensor] = {}

    def on_head(_, inputs, logits):
        seen["encoder"] = inputs[0][:sentences, 0]
        seen["logits"] = logits[:sentences]
        return seen["logits"]

    def on_projection(_, inputs):
        seen["head"] = inputs[0][:sentences]

    hooks = (
        head.register_forward_hook(on_head),
        head.out_proj.register_forward_pre_hook(on_projection),
    )
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def log_classification(total: dict, sentences) -> None:
    """Log what follows from the summed confusion matrix and pair statistics."""
    log = fairseq_metrics
    log.log_scalar("anchors_with_positive", total["anchors"] / sentences, sentences, round=4)
    for kind in KINDS:
        pairs = total[f"{kind}_pairs"]
        mean = total[f"{kind}_similarity"] / (pairs + (pairs == 0))
        log.log_scalar(f"{kind}_similarity", mean, pairs, round=4)

    def derived(function):
        return lambda meters: function(_array(meters["_confusion"].sum))

    log.log_scalar_sum("_confusion", total["confusion"])
    for function in metrics.CLASSIFICATION:
        log.log_derived(function.__name__, derived(function))


MOMENTS = ("_n", "_x", "_y", "_xx", "_yy", "_xy")


def regression_sums(predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Moments of predictions and targets, for Pearson."""
    x, y = predictions.reshape(-1).double(), targets.double()
    moments = (torch.ones_like(x), x, y, x * x, y * y, x * y)
    return {key: moment.sum() for key, moment in zip(MOMENTS, moments, strict=True)}


def by_row(predictions: Tensor, sample: dict) -> Tensor:
    """Counts, predictions and targets at their row numbers: unlike ranks, these add up.

    Returns:
        `(3, rows of the split)` float64.
    """
    x, y = predictions.reshape(-1).double(), sample["target"].view(-1).double()
    rows = torch.zeros(3, sample["num_rows"], dtype=torch.double, device=x.device)
    rows[:, sample["id"]] = torch.stack((torch.ones_like(x), x, y))
    return rows


def log_regression(total: dict) -> None:
    """Log Pearson and Spearman, exact over everything that was summed."""
    log = fairseq_metrics
    for key in (*MOMENTS, "_by_row"):
        if key in total:
            log.log_scalar_sum(key, total[key])

    def pearson(meters):
        return metrics.pearson(*(float(meters[key].sum) for key in MOMENTS))

    def spearman(meters):
        count, x, y = _array(meters["_by_row"].sum)
        seen = count > 0
        return metrics.spearman(x[seen] / count[seen], y[seen] / count[seen])

    log.log_derived("pearson", pearson)
    if "_by_row" in total:
        log.log_derived("spearman", spearman)
        log.log_derived("pearson_and_spearman", lambda m: (pearson(m) + spearman(m)) / 2)


def _array(sums: Tensor):
    return sums.cpu().numpy()
