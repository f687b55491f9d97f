"""Results that the paper prints: accuracy of RoBERTa-large, mean and standard deviation.

Gunel, Du, Conneau and Stoyanov, *Supervised Contrastive Learning for Pre-trained Language Model
Fine-tuning*, ICLR 2021 (arXiv 2011.01403). Few-shot and noise: the three draws of ten that are
best on validation; full data: ten seeds. Its p values are left out, for they do not follow from
these means and standard deviations.
"""

from typing import Any

# protocol, N, noise, loss, and the accuracy on each of the data sets; Amazon-2 and Yelp-2 start
# from the model that was fine-tuned on all of SST-2
PRINTED: dict[tuple[str, ...], list[tuple[Any, ...]]] = {
    ("sst2", "qnli", "mnli"): [
        ("few-shot", 20, "none", "CE", (85.9, 2.1), (65.0, 2.0), (39.3, 2.5)),
        ("few-shot", 20, "none", "CE+SCL", (88.1, 3.3), (75.7, 4.8), (42.7, 4.6)),
        ("few-shot", 100, "none", "CE", (91.1, 1.3), (81.9, 0.4), (59.2, 2.1)),
        ("few-shot", 100, "none", "CE+SCL", (92.8, 1.3), (82.5, 0.4), (61.1, 3.0)),
        ("few-shot", 1000, "none", "CE", (94.0, 0.6), (89.2, 0.6), (81.4, 0.2)),
        ("few-shot", 1000, "none", "CE+SCL", (94.1, 0.5), (89.8, 0.4), (81.5, 0.2)),
        ("few-shot", 100, "back-translation 0.3", "CE", (92.0, 1.3), (81.1, 2.3), (54.0, 1.1)),
        ("few-shot", 100, "back-translation 0.3", "CE+SCL", (92.6, 0.9), (82.7, 1.9), (61.2, 2.3)),
        ("few-shot", 100, "back-translation 0.5", "CE", (91.4, 1.0), (80.0, 2.9), (55.3, 2.4)),
        ("few-shot", 100, "back-translation 0.5", "CE+SCL", (91.5, 1.0), (81.9, 2.5), (62.1, 0.9)),
        ("few-shot", 100, "back-translation 0.7", "CE", (91.7, 1.3), (78.9, 3.7), (54.6, 2.2)),
        ("few-shot", 100, "back-translation 0.7", "CE+SCL", (91.2, 0.6), (81.3, 0.6), (62.3, 1.1)),
        ("few-shot", 100, "back-translation 0.9", "CE", (90.0, 0.5), (75.9, 4.0), (47.0, 1.8)),
        ("few-shot", 100, "back-translation 0.9", "CE+SCL", (91.5, 1.0), (80.1, 2.5), (53.0, 2.1)),
        ("full", "all", "none", "CE", (96.0, 0.4), (90.4, 0.8), (88.4, 1.0)),
        ("full", "all", "none", "CE+SCL", (96.3, 0.4), (93.9, 0.7), (88.6, 0.7)),
    ],
    ("cola", "mrpc", "rte"): [
        ("full", "all", "none", "CE", (86.0, 0.5), (86.4, 2.4), (85.5, 1.8)),
        ("full", "all", "none", "CE+SCL", (86.1, 0.8), (89.5, 0.9), (85.7, 0.5)),
    ],
    ("amazon2", "yelp2"): [
        ("given", 40, "none", "CE", (87.4, 6.4), (90.8, 2.2)),
        ("given", 40, "none", "CE+SCL", (90.3, 0.6), (91.2, 0.4)),
    ],
}


def accuracy(
    data: str, protocol: str, shots: int | str, noise: str, loss: str
) -> tuple[float, float] | None:
    """The printed mean and standard deviation, in percent; None where the paper has none.

    Args:
        data: the data set, in capitals or not, with or without the hyphen: `SST-2` or `sst2`.
        protocol, shots, noise: as in `Run.setting`.
        loss: `CE` or `CE+SCL`.
    """
    return _ACCURACY.get((data.lower().replace("-", ""), protocol, shots, noise, loss))


_ACCURACY = {
    (data, protocol, shots, noise, loss): value
    for names, rows in PRINTED.items()
    for protocol, shots, noise, loss, *values in rows
    for data, value in zip(names, values, strict=True)
}
