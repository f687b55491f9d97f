"""Sentence vectors as points in the plane."""

import numpy as np

METHODS = ("tsne", "pca")
MAX_ROWS = 2000  # t-SNE takes minutes and the points hide each other beyond


def some_rows(count: int) -> np.ndarray:
    """Which of `count` rows to show: all, or `MAX_ROWS` of them, ascending, always the same."""
    return np.sort(np.random.default_rng(0).permutation(count)[:MAX_ROWS])


def project(features: np.ndarray, method: str) -> np.ndarray:
    """Place vectors in the plane by their cosine distance.

    Args:
        features: `(rows, dim)`.
        method: one of `METHODS`.

    Returns:
        `(rows, 2)`, the same for the same features.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(lengths, 1e-12)
    return pca(unit) if method == "pca" else tsne(unit)


def pca(features: np.ndarray) -> np.ndarray:
    """The first two principal components, `(rows, 2)`."""
    from sklearn.decomposition import PCA

    return PCA(2, svd_solver="full").fit_transform(features)


def tsne(features: np.ndarray) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton 2008) of unit vectors, begun at their PCA, `(rows, 2)`.

    Between unit vectors the squared Euclidean distance, which t-SNE uses, is twice the cosine's.
    """
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(features)
