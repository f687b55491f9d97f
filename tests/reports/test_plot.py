"""plot: which runs are in a picture, their means and spread, and the files."""

import json
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from pandas import DataFrame

from fairseq_scl.cli import main
from fairseq_scl.reports import figures, plot, projection
from fairseq_scl.reports.plot import common_draw, evaluated, learning_curve, names


def write_run(folder: Path, draw=1, weight=0.9, test=80.0, points=40, **changes) -> Path:
    """A run's result as evaluate writes it; `changes` of the task's configuration and `lr`."""
    task = {
        "data": "data/sst2", "protocol": "few-shot", "num_shots": 20, "shots_seed": draw,
        "noise": "none", "label_noise": 0.0, "token_noise": 0.1, "noise_temperature": None,
    }  # fmt: skip
    lr = changes.pop("lr", 1e-4)
    result = {
        "config": {
            "task": task | changes,
            "model": {"_name": "minilm_l6"},
            "criterion": {"scl_weight": weight, "scl_temperature": 0.3},
            "dataset": {"batch_size": 16},
            "optimization": {"lr": [lr], "max_update": 60},
            "common": {"seed": draw},
            "checkpoint": {
                "best_checkpoint_metric": "accuracy",
                "maximize_best_checkpoint_metric": True,
            },
        },
        "valid": 80.0,
        "test": {"accuracy": test, "mcc": test - 20},
        "classes": ["negative", "positive"],
        "curves": {
            "valid": {"accuracy": [[20, test - 10], [40, test]], "mcc": [[20, 1.0], [40, 2.0]]},
            "train_inner": {"loss": [[10, 2.0], [20, 1.0]]},
        },
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    if points:
        rng = np.random.default_rng(draw)
        features = rng.normal(size=(points, 8)).astype(np.float32)
        np.savez(
            folder / "test_embeddings.npz", features=features, labels=rng.integers(0, 2, points)
        )
    return folder


@pytest.fixture
def study(tmp_path) -> Path:
    """Two draws of both losses at N = 20, 100 and all, and on back-translations of the 100."""
    folder = tmp_path / "study"
    for shots in (20, 100, None):
        for draw in (1, 2):
            for weight in (0, 0.9):
                place = folder / str(shots) / str(weight) / str(draw)
                write_run(place, draw, weight, 80.0 + draw, num_shots=shots)
                for temperature in (0.3, 0.9) if shots == 100 else ():
                    write_run(
                        place / f"T{temperature}", draw, weight, 70.0 + draw, num_shots=shots,
                        noise="back-translation", noise_temperature=temperature,
                    )  # fmt: skip
    failed = write_run(folder / "failed", 3, 0, 0.0) / "result.json"
    config = json.loads(failed.read_text())["config"]
    failed.with_name("failed.json").write_text(
        json.dumps({"config": config, "error": "out of memory"})
    )
    failed.unlink()
    return folder


def drawn(kind: str, folder: Path, **flags):
    """The figure that a kind of plot makes."""
    return getattr(plot, kind)(evaluated(folder), Namespace(folder=folder, **flags))


def panel_titles(figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes]


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("kind", ["embeddings --method pca", "curves", "shots", "noise"])
def test_every_kind_writes_both_formats(study, tmp_path, kind, suffix):
    output = tmp_path / f"picture.{suffix}"
    kind, *flags = kind.split()
    main(["plot", kind, str(study), "--output", str(output), *flags])
    content = output.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert len(content) > 10_000
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [output.name]


def test_the_same_runs_give_the_same_file(study, tmp_path):
    for name in ("a.svg", "b.svg"):
        main(["plot", "shots", str(study), "--output", str(tmp_path / name)])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_text_is_large_enough_for_a_page_and_inside_it(study, tmp_path):
    with matplotlib.rc_context(figures.STYLE):
        for kind in ("curves", "shots", "noise", "embeddings"):
            figure = drawn(kind, study, metric=None, method="pca")
            figures.save(figure, tmp_path / "picture.png")
            assert figure.get_figwidth() in (3.3, 5.5)
            assert min(text.get_fontsize() for text in figure.findobj(Text)) >= 8
            box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
            assert box.x0 >= 0 and box.x1 <= figure.get_figwidth()
            assert box.y0 >= 0 and box.y1 <= figure.get_figheight()


def test_embeddings_have_a_row_for_each_n_and_a_column_for_each_loss(study):
    figure = drawn("embeddings", study, method="pca")
    rows = ["sst2, all data", "", "sst2, N = 100", "", "sst2, N = 20", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == rows
    assert panel_titles(figure)[:3] == [
        "CE\ntest accuracy 81.0", "CE+SCL (λ 0.9, τ 0.3)\ntest accuracy 81.0", "test accuracy 81.0",
    ]  # fmt: skip
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["negative", "positive"]
    for axis in figure.axes:
        assert sum(len(points.get_offsets()) for points in axis.collections) == 40


def test_embeddings_show_the_first_draw_that_all_have(tmp_path):
    for weight, draws in {0: (1, 2, 3), 0.9: (2, 3)}.items():
        for draw in draws:
            write_run(tmp_path / f"{weight}-{draw}", draw, weight, 80.0 + draw)
    titles = panel_titles(drawn("embeddings", tmp_path, method="pca"))
    assert all("test accuracy 82.0" in title for title in titles)


def test_embeddings_without_a_common_draw(tmp_path):
    write_run(tmp_path / "a", draw=1, weight=0)
    write_run(tmp_path / "b", draw=2)
    with pytest.raises(SystemExit, match="no draw .* with every loss and setting"):
        drawn("embeddings", tmp_path, method="pca")


def test_a_cell_that_was_not_run_says_so(tmp_path):
    write_run(tmp_path / "a", weight=0)
    write_run(tmp_path / "b", weight=0, num_shots=100)
    write_run(tmp_path / "c", weight=0.9, num_shots=100)
    assert panel_titles(drawn("embeddings", tmp_path, method="pca"))[3] == "not run"


def test_curves_are_means_over_draws(study):
    figure = drawn("curves", study / "20", metric=None)
    validation, training = figure.axes
    assert (validation.get_ylabel(), training.get_ylabel()) == (
        "validation accuracy (%)", "training loss (nats)",
    )  # fmt: skip
    for line in validation.lines:
        assert line.get_xydata().tolist() == [[20, 71.5], [40, 81.5]]
    assert figure.get_supxlabel() == "mean ± standard deviation over 2 draws"
    other = drawn("curves", study / "20", metric="mcc")
    assert other.axes[0].lines[0].get_ydata().tolist() == [1, 2]


def test_shots_are_joined_but_for_all(study):
    [axis] = drawn("shots", study).axes
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["20", "100", "all"]
    joined = [line for line in axis.lines if len(line.get_xdata()) == 2]
    assert [line.get_xydata().tolist() for line in joined] == [[[20, 81.5], [100, 81.5]]] * 2


def test_noise_begins_with_the_runs_without(study):
    [axis] = drawn("noise", study).axes
    assert axis.get_title() == "sst2, N = 100"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["none", "0.3", "0.9"]
    joined = [line for line in axis.lines if len(line.get_xdata()) == 2]
    assert [line.get_ydata().tolist() for line in joined] == [[71.5, 71.5]] * 2


def test_a_panel_for_each_data_set(tmp_path):
    for data in ("sst2", "qnli"):
        for shots in (20, 100):
            write_run(tmp_path / f"{data}{shots}", data=f"data/{data}", num_shots=shots, points=0)
    assert panel_titles(drawn("shots", tmp_path)) == ["qnli", "sst2"]


def test_a_panel_has_the_ticks_of_its_own_runs_and_room_for_their_markers(tmp_path):
    for data, sizes in {"sst2": (20, 100, None), "qnli": (50, 1000)}.items():
        for shots in sizes:
            write_run(tmp_path / f"{data}{shots}", data=f"data/{data}", num_shots=shots, points=0)
    figure = drawn("shots", tmp_path)
    ticks = [[label.get_text() for label in axis.get_xticklabels()] for axis in figure.axes]
    assert ticks == [["50", "1000"], ["20", "100", "all"]]
    for axis in figure.axes:
        places = axis.transAxes.inverted().transform(axis.transData.transform(axis.dataLim))[:, 0]
        assert places.min() > 0.05 and places.max() < 0.95


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("embeddings", "no run below it on classes without noise has test_embeddings.npz"),
        ("curves", "--tensorboard-logdir SAVE_DIR/tensorboard, then run 'fairseq-scl evaluate'"),
        ("shots", "no tested runs without noise at two or more N"),
        ("noise", "no tested run with --noise back-translation"),
    ],
)
def test_what_a_tree_lacks_is_told_in_one_line(tmp_path, kind, told):
    path = write_run(tmp_path / "run", points=0) / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"test": None, "curves": {}}))
    with pytest.raises(SystemExit) as stop:
        main(["plot", kind, str(tmp_path), "--output", str(tmp_path / "x.png")])
    assert told in str(stop.value) and str(tmp_path) in str(stop.value)
    assert len(str(stop.value).splitlines()) == 1


def test_an_unlogged_metric_is_refused_with_those_logged(study):
    with pytest.raises(SystemExit, match="no validation 'f2' was logged, but accuracy, mcc"):
        drawn("curves", study, metric="f2")
    run = write_run(study / "more", points=0) / "result.json"
    result = json.loads(run.read_text())
    run.write_text(json.dumps(result | {"curves": {"train_inner": {"loss": [[1, 2.0]]}}}))
    with pytest.raises(SystemExit, match="no validation 'accuracy' was logged, but nothing"):
        drawn("curves", study / "more", metric=None)


def test_another_kind_of_file_is_refused(study, tmp_path):
    with pytest.raises(SystemExit, match=r"tsne.gif: the name must end in .png or .svg"):
        main(["plot", "embeddings", str(study), "--output", str(tmp_path / "tsne.gif")])


def test_two_runs_of_one_draw_are_not_averaged(tmp_path):
    for shots in (20, 100):
        write_run(tmp_path / f"{shots}", num_shots=shots, points=0)
    write_run(tmp_path / "sweep", lr=1e-3, points=0)
    with pytest.raises(SystemExit, match="are the same draw of CE.SCL .* at N = 20"):
        drawn("shots", tmp_path)


def test_more_losses_than_a_picture_tells_apart(tmp_path):
    for i in range(9):
        write_run(tmp_path / str(i), weight=(i + 1) / 10)
    with pytest.raises(SystemExit, match="tells 8 losses apart, not 9"):
        drawn("curves", tmp_path, metric=None)


def test_a_small_picture_names_all_its_losses(tmp_path):
    for i in range(8):
        for shots in (20, 100):
            folder = tmp_path / f"{i}-{shots}"
            write_run(folder, weight=(i + 1) / 10, num_shots=shots, points=0)
    with matplotlib.rc_context(figures.STYLE):
        figure = drawn("shots", tmp_path)
    assert figure.get_figwidth() == 3.3
    assert len(figure.legends[0].get_texts()) == 8


def test_lines_are_means_with_the_sample_standard_deviation():
    values = DataFrame({"x": [100, 20, 100, 100], "value": [1.0, 3.0, 2.0, 4.0]})
    data = values.assign(loss="CE", panel=0, apart=False, title="", y_name="")
    figure = figures.line_grid(data, 1, "N")
    [axis] = figure.axes
    assert axis.lines[0].get_xydata() == pytest.approx(np.array([[20, 3], [100, 7 / 3]]))
    std = np.std([1, 2, 4], ddof=1)
    [band] = axis.collections
    edges = band.get_paths()[0].vertices
    assert edges[:, 1].min() == pytest.approx(7 / 3 - std)
    assert edges[:, 1].max() == pytest.approx(7 / 3 + std)
    assert figure.get_supxlabel() == "mean ± standard deviation over 1–3 draws"


def test_learning_curves_meet_at_common_updates():
    found = learning_curve([[[10, 1.0], [20, 5.0], [20, 2.0], [30, 3.0]], [[20, 4.0], [30, 5.0]]])
    means = found.groupby("x")["value"].mean()
    assert means.index.tolist() == [20, 30]
    assert means.tolist() == [3, 4]  # what was logged twice counts as it was last
    with pytest.raises(SystemExit, match="no common update"):
        learning_curve([[[10, 1.0]], [[20, 1.0]]])


def test_names_hold_what_tells_settings_apart():
    same = {"data": "sst2", "encoder": "minilm_l6", "noise": "none"}
    settings = DataFrame([same | {"N": "all", "updates": 400}, same | {"N": 20, "updates": 60}])
    assert names(settings, list(settings)) == ["sst2, all data", "sst2, N = 20"]
    settings = DataFrame([same | {"N": 20, "learning rate": rate} for rate in (1e-5, 1e-4)])
    assert names(settings, list(settings)) == [
        "sst2, N = 20, learning rate 1e-05", "sst2, N = 20, learning rate 0.0001",
    ]  # fmt: skip


def test_draws_are_in_order(tmp_path):
    for draw in (10, 2):
        write_run(tmp_path / str(draw), draw)
    write_run(tmp_path / "other", 10, weight=0)
    runs = evaluated(tmp_path)
    assert runs["draw"].tolist() == ["10/10", "2/2", "10/10"]
    assert common_draw(runs)["draw"].tolist() == ["10/10"] * 2


@pytest.mark.parametrize("method", projection.METHODS)
def test_projections_keep_groups_apart_and_ignore_length(method):
    rng = np.random.default_rng(0)
    centres = np.eye(2, 8)[rng.integers(0, 2, 60)]
    features = (centres + rng.normal(size=(60, 8)) / 10) * rng.uniform(1, 9, (60, 1))
    points = projection.project(features.astype(np.float32), method)
    first, second = points[centres[:, 0] == 1], points[centres[:, 0] == 0]
    within = max(np.linalg.norm(group - group.mean(0), axis=1).mean() for group in (first, second))
    assert points.shape == (60, 2)
    assert np.linalg.norm(first.mean(0) - second.mean(0)) > 2 * within
    assert np.array_equal(points, projection.project(features.astype(np.float32), method))


def test_many_rows_are_thinned_always_alike():
    assert projection.some_rows(5).tolist() == [0, 1, 2, 3, 4]
    rows = projection.some_rows(5000)
    assert len(set(rows.tolist())) == projection.MAX_ROWS
    assert np.array_equal(rows, projection.some_rows(5000))


def with_classes(folder: Path, classes: list[str], rows=200) -> Path:
    """A run on these classes."""
    run = write_run(folder / "run", points=0)
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"classes": classes}))
    features = np.random.default_rng(0).normal(size=(rows, 8)).astype(np.float32)
    np.savez(run / "test_embeddings.npz", features=features, labels=np.arange(rows) % len(classes))
    return folder


@pytest.mark.parametrize(("count", "fits"), [(9, True), (64, False), (300, False)])
def test_a_legend_fits_or_is_left_out(tmp_path, count, fits):
    with matplotlib.rc_context(figures.STYLE):
        folder = with_classes(tmp_path, [f"a class {i}" for i in range(count)])
        figure = drawn("embeddings", folder, method="pca")
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        for legend in figure.legends:
            box = legend.get_window_extent(renderer)
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
            assert box.height < figure.bbox.height / 3
        caption = figure._supxlabel.get_window_extent(renderer)
        assert caption.x0 >= 0 and caption.x1 <= figure.bbox.x1
        assert len(figure.legends) == fits
        assert (f"; {count} classes" in figure.get_supxlabel()) != fits
        assert figure.axes[0].get_window_extent(renderer).height > figure.bbox.height / 3


def test_each_list_of_classes_has_a_legend_above_its_own_panels(tmp_path):
    write_run(tmp_path / "a", data="data/sst2")
    write_run(tmp_path / "b", data="data/qnli")
    path = with_classes(tmp_path, ["one", "two", "three"]) / "run" / "result.json"
    result = json.loads(path.read_text())
    result["config"]["task"]["data"] = "data/trec"
    path.write_text(json.dumps(result))
    with matplotlib.rc_context(figures.STYLE):
        figure = drawn("embeddings", tmp_path, method="pca")
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
    parts = figure.subfigs
    names = [[text.get_text() for text in part.legends[0].get_texts()] for part in parts]
    assert names == [["negative", "positive"], ["one", "two", "three"]]
    assert [len(part.axes) for part in parts] == [2, 1]
    for part in parts:
        bottom = part.legends[0].get_window_extent(renderer).y0
        assert bottom > max(axis.get_tightbbox(renderer).y1 for axis in part.axes)
    first = [axis.collections[0].get_facecolors()[0].tolist() for axis in figure.axes]
    assert first[0] == first[1] == first[2]  # colours start anew


def test_names_are_text_and_no_formulas(tmp_path):
    names = ["$a$", r"$\frac{$", "cost $5 or $6", "_hidden", "a\tb"]
    with matplotlib.rc_context(figures.STYLE):
        figure = drawn("embeddings", with_classes(tmp_path, names), method="pca")
        figures.save(figure, tmp_path / "picture.png")
    [legend] = figure.legends
    shown = {text.get_text() for text in legend.get_texts()}
    assert shown == {*names[:-1], "a\\tb"}


@pytest.mark.filterwarnings("error")  # matplotlib warns of boxes
def test_letters_come_from_an_installed_font_that_has_them(tmp_path):
    names = [
        "\N{LATIN SMALL LETTER D WITH PALATAL HOOK}",
        "\N{CIRCLED LATIN CAPITAL LETTER A}",
        "سلبي",
        "πλ",
    ]
    with matplotlib.rc_context(figures.STYLE):
        figure = drawn("embeddings", with_classes(tmp_path, names), method="pca")
        figures.save(figure, tmp_path / "picture.png")
    assert figures.fonts("plain") == ["DejaVu Sans"]
    assert len(figures.fonts("".join(names))) > 1


def test_letters_that_no_font_has_are_told(tmp_path):
    folder = with_classes(tmp_path, ["plain", "\N{TANGUT COMPONENT-001}"])
    with pytest.raises(SystemExit, match="no installed font has \N{TANGUT COMPONENT-001} of the"):
        drawn("embeddings", folder, method="pca")


FEATURES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1] * 3)


@pytest.mark.parametrize(
    ("features", "labels", "told"),
    [
        (FEATURES.astype(str), LABELS, "features: <U"),
        (FEATURES.astype(object), LABELS, "Object arrays cannot be loaded"),
        (FEATURES.astype(int), LABELS, "features: int64"),
        (FEATURES[:1], LABELS[:1], r"features: float32 \(1, 4\)"),
        (FEATURES[:, :1], LABELS, r"features: float32 \(6, 1\)"),
        (FEATURES[0], LABELS, r"features: float32 \(4,\)"),
        (FEATURES[None], LABELS, r"features: float32 \(1, 6, 4\)"),
        (FEATURES * np.nan, LABELS, "features: not all are numbers up to 1e"),
        (FEATURES * np.float64(1e300), LABELS, "features: not all are numbers up to 1e"),
        (FEATURES, LABELS[:4], r"labels: int64 \(4,\), not a whole number for each row"),
        (FEATURES, LABELS * 0.5, "labels: float64"),
        (FEATURES, LABELS.astype(str), "labels: <U"),
        (FEATURES, LABELS + 1, "labels: not all are from 0 to 1"),
        (FEATURES, LABELS - 1, "labels: not all are from 0 to 1"),
    ],
)
def test_other_arrays_are_refused_in_one_line(tmp_path, features, labels, told):
    path = write_run(tmp_path / "run", points=0) / "test_embeddings.npz"
    np.savez(path, features=features, labels=labels)
    with pytest.raises(SystemExit, match=f"test_embeddings.npz.*{told}") as stop:
        drawn("embeddings", tmp_path, method="pca")
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize("shape", [(10**9, 10**6), (-5, -(10**6)), (10**5, 10)])
def test_arrays_are_not_as_large_as_their_header_says(tmp_path, shape):
    path = write_run(tmp_path / "run", points=0) / "test_embeddings.npz"
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("features.npy", "labels.npy"):
            with archive.open(name, "w") as file:
                np.lib.format.write_array_header_1_0(file, header)
                file.write(bytes(4 * 10**6))  # a thousandth of it, compressed
    with pytest.raises(SystemExit, match=r"features: \(.*\) is larger than the file"):
        drawn("embeddings", tmp_path, method="pca")


@pytest.mark.parametrize("method", projection.METHODS)
def test_embeddings_that_are_all_the_same_are_drawn_without_a_word(tmp_path, method):
    path = write_run(tmp_path / "run") / "test_embeddings.npz"
    np.savez(path, features=FEATURES * 0, labels=LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = drawn("embeddings", tmp_path, method=method)
    assert panel_titles(figure) == ["CE+SCL (λ 0.9, τ 0.3)\ntest accuracy 80.0"]


def test_what_training_could_not_represent_is_a_gap(tmp_path):
    path = write_run(tmp_path / "run", points=0) / "result.json"
    result = json.loads(path.read_text())
    result["curves"]["train_inner"]["loss"] = [[10, 2.0], [20, np.nan], [30, np.inf], [40, 1.0]]
    path.write_text(json.dumps(result))
    training = drawn("curves", tmp_path, metric=None).axes[1]
    assert training.lines[0].get_xydata().tolist() == [[10, 2.0], [40, 1.0]]
