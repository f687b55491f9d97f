"""A t-SNE picture of the test embeddings of the evaluated runs below DIR, one panel a loss.

The runs of the first draw are shown, CE first. Points are test sentences, placed by the cosine
distance of their sentence vectors.

    fairseq-scl plot outputs --output tsne.png
"""

import argparse
from pathlib import Path

import numpy as np

from fairseq_scl.errors import UserError
from fairseq_scl.evaluate import EMBEDDINGS
from fairseq_scl.results import loss_name, read_results

# Okabe and Ito's colours, told apart with every kind of colour vision; markers as well
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = "os^Dv<>P"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="searched for evaluated runs")
    parser.add_argument("--output", type=Path, metavar="FILE", required=True, help=".png or .svg")


def run(args: argparse.Namespace) -> None:
    """Draw `args.output`."""
    if args.output.suffix not in (".png", ".svg"):
        raise UserError(f"--output {args.output}: the name must end in .png or .svg")
    results = read_results(args.folder)
    first = min(result["shots_seed"] for _, result in results)
    shown = [(folder, result) for folder, result in results if result["shots_seed"] == first]
    draw(sorted(shown, key=lambda run: run[1]["scl_weight"]), args.output)
    print(args.output)


def draw(runs: list[tuple[Path, dict]], output: Path) -> None:
    """Draw one panel for each run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = (3.3 * len(runs), 3.6)
    figure, axes = plt.subplots(1, len(runs), figsize=size, squeeze=False, layout="constrained")
    for axis, (folder, result) in zip(axes[0], runs, strict=True):
        stored = np.load(folder / EMBEDDINGS)
        points = tsne(stored["features"])
        for label, name in enumerate(result["classes"]):
            chosen = points[stored["labels"] == label]
            colour, marker = COLOURS[label % 8], MARKERS[label % 8]
            axis.scatter(*chosen.T, s=12, c=colour, marker=marker, label=name, linewidths=0)
        metric = result["best_metric"]
        axis.set_title(f"{loss_name(result)}\ntest {metric} {result['test'][metric]:.1f}", size=10)
        axis.set_xticks([])
        axis.set_yticks([])
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)), fontsize=9)
    temporary = output.with_name(f".{output.name}")
    figure.savefig(temporary, dpi=200, format=output.suffix[1:])
    temporary.replace(output)
    plt.close(figure)


def tsne(features: np.ndarray) -> np.ndarray:
    """Place `(rows, dim)` features in the plane: `(rows, 2)`, the same for the same features."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    model = TSNE(metric="cosine", init="pca", perplexity=perplexity, random_state=0)
    return model.fit_transform(features)
