"""A classification head that starts as a logistic regression on the encoder's sentence vectors.

Fitting the head before all is tuned keeps a random one from distorting the encoder (Kumar et al.,
*Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution*, 2022).
"""

import torch
from fairseq import utils
from fairseq.distributed.utils import get_data_parallel_group, get_data_parallel_world_size
from fairseq.models.roberta.model import RobertaClassificationHead
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fairseq_scl.criterions.sentence_prediction_scl import seen_by
from fairseq_scl.data.rows_dataset import RowsDataset

STRENGTH = 10.0  # C of the regression (docs/how_it_works.md)
SPREAD = 0.3  # of what enters tanh; less makes each change of the dense layer weigh more
BATCH = 32  # sentences encoded at a time


@torch.no_grad()
def start_head(model, name: str, dataset: RowsDataset) -> None:
    """Fit the head called `name` to the encoder's vectors of `dataset`; on all workers alike.

    The dense layer becomes a multiple of the identity that brings the vectors' components to about
    `SPREAD`, where tanh is nearly linear. The last projection is the regression on what then enters
    it, scaled to vectors of about length 1, so the head's logits are exactly the regression's.
    """
    head = model.classification_heads[name]
    vectors, labels = vectors_of(model, head, name, dataset)
    length = SPREAD * vectors.size(1) ** 0.5
    mean = vectors.float().norm(dim=1).mean().clamp(min=1e-6)
    nn.init.eye_(head.dense.weight).mul_(length / mean)
    nn.init.zeros_(head.dense.bias)
    entering = head.activation_fn(head.dense(vectors)) / length
    weight, bias = logistic_regression(entering, labels, head.out_proj.out_features)
    head.out_proj.weight.copy_(weight / length)
    head.out_proj.bias.copy_(bias)
    if get_data_parallel_world_size() > 1:  # other devices may round in another way
        for parameter in head.parameters():
            torch.distributed.broadcast(parameter.data, 0, get_data_parallel_group())


def vectors_of(
    model, head: RobertaClassificationHead, name: str, dataset: RowsDataset
) -> tuple[Tensor, Tensor]:
    """The sentence vectors `(rows, dim)`, without dropout, and the labels `(rows,)` int64."""
    was_training, device = model.training, head.dense.weight.device
    model.eval()
    dataset.set_epoch(1)  # of noise that changes, the first epoch's
    vectors, labels = [], []
    for rows in torch.arange(len(dataset)).split(BATCH):
        batch = dataset.collater([dataset[int(row)] for row in rows])
        batch = utils.move_to_cuda(batch, device) if device.type == "cuda" else batch
        with seen_by(head) as seen:
            model(**batch["net_input"], features_only=True, classification_head_name=name)
        vectors.append(seen["encoder"])
        labels.append(batch["target"].view(-1))
    model.train(was_training)
    return torch.cat(vectors), torch.cat(labels)


def logistic_regression(
    vectors: Tensor, labels: Tensor, classes: int, strength: float = STRENGTH
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: cross-entropy summed over rows + |W, b|² / (2 C).

    The bias is penalised too, so that there is one answer whatever classes have rows.

    Args:
        vectors: `(rows, dim)`.
        labels: `(rows,)` int64, below `classes`.
        strength: C, as scikit-learn's.

    Returns:
        W `(classes, dim)` and b `(classes,)`, float64 on the CPU.
    """
    inputs = nn.functional.pad(vectors.double().cpu(), (0, 1), value=1.0)
    labels = labels.cpu()
    weights = inputs.new_zeros(classes, inputs.size(1), requires_grad=True)
    search = torch.optim.LBFGS(
        [weights],
        max_iter=1000,
        tolerance_grad=1e-6,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        search.zero_grad()
        fit = cross_entropy(inputs @ weights.T, labels, reduction="sum")
        total = fit + weights.square().sum() / (2 * strength)
        total.backward()
        return total

    with torch.enable_grad():
        search.step(loss)
    found = weights.detach()
    return found[:, :-1], found[:, -1]
