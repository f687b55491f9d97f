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
from fairseq_scl.results import Run, read_runs

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
    runs = [run for run in read_runs(args.folder) if (run.folder / EMBEDDINGS).is_file()]
    first = min((run.draw for run in runs), default=None)
    draw([run for run in runs if run.draw == first], args.output)
    print(args.output)


def draw(runs: list[Run], output: Path) -> None:
    """Draw one panel for each run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = (3.3 * len(runs), 3.6)
    figure, axes = plt.subplots(1, len(runs), figsize=size, squeeze=False, layout="constrained")
    for axis, run in zip(axes[0], sorted(runs, key=lambda run: run.loss), strict=True):
        stored = np.load(run.folder / EMBEDDINGS)
        points = tsne(stored["features"])
        for label, name in enumerate(run.result["classes"]):
            chosen = points[stored["labels"] == label]
            colour, marker = COLOURS[label % 8], MARKERS[label % 8]
            axis.scatter(*chosen.T, s=12, c=colour, marker=marker, label=name, linewidths=0)
        axis.set_title(f"{run.loss}\ntest {run.metric} {run.test:.1f}", size=10)
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
