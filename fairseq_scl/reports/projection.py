"""Sentence vectors as points in the plane."""

import math
import zipfile
from pathlib import Path

import numpy as np

from fairseq_scl.errors import UserError, first_line
from fairseq_scl.reports.results import LIMIT

METHODS = {"tsne": "t-SNE", "pca": "principal components"}
MAX_ROWS = 2000  # t-SNE takes minutes and the points hide each other beyond


def read(path: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read `test_embeddings.npz`.

    Returns:
        Sentence vectors `(rows, dim)`, floating, of two rows and dimensions at least, and the ids
        of their classes `(rows,)`.

    Raises:
        UserError: if it holds something else; arrays larger than the file are not read.
    """
    try:
        if not path.is_file():
            raise ValueError("not a regular file")
        with zipfile.ZipFile(path) as archive:
            size = path.stat().st_size
            features, labels = (array(archive, name, size) for name in ("features", "labels"))
    except Exception as error:  # damaged bytes end in whatever reads them
        raise UserError(
            f"{path} cannot be read ({first_line(error)}); run 'fairseq-scl evaluate'"
        ) from None
    if features.ndim != 2 or features.dtype.kind != "f" or min(features.shape) < 2:
        wrong = f"features: {features.dtype} {features.shape}, not floating numbers (rows, dim)"
    elif not np.abs(features).max() <= LIMIT:
        wrong = f"features: not all are numbers up to {LIMIT:g}"
    elif labels.dtype.kind not in "iu" or labels.shape != features.shape[:1]:
        wrong = f"labels: {labels.dtype} {labels.shape}, not a whole number for each row"
    elif labels.min() < 0 or labels.max() >= classes:
        wrong = f"labels: not all are from 0 to {classes - 1}, the run's classes"
    else:
        return features, labels
    raise UserError(f"{path}: {wrong}; run 'fairseq-scl evaluate'")


def array(archive: zipfile.ZipFile, name: str, limit: int) -> np.ndarray:
    """An array of an uncompressed archive; its header is believed up to `limit` bytes."""
    with archive.open(f"{name}.npy") as file:
        np.lib.format.read_magic(file)
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
        if math.prod(shape) * kind.itemsize > limit:
            raise ValueError(f"{name}: {shape} is larger than the file")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def some_rows(count: int) -> np.ndarray:
    """Which of `count` rows to show: all, or `MAX_ROWS` of them, ascending, always the same."""
    return np.sort(np.random.default_rng(0).permutation(count)[:MAX_ROWS])


def project(features: np.ndarray, method: str) -> np.ndarray:
    """Place vectors in the plane by their cosine distance.

    By their first two principal components, or by t-SNE (van der Maaten and Hinton 2008) begun at
    these. Between unit vectors the squared Euclidean distance, which t-SNE uses, is twice the
    cosine's.

    Args:
        features: `(rows, dim)`.
        method: one of `METHODS`.

    Returns:
        `(rows, 2)`, the same for the same features.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(lengths, 1e-12)
    if (unit == unit[0]).all():  # there is no direction; t-SNE would crash
        return np.zeros((len(unit), 2))
    if method == "pca":
        return PCA(2, svd_solver="full").fit_transform(unit)
    perplexity = min(30.0, (len(unit) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(unit)
