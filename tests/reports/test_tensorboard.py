"""What a user of TensorBoard sees of evaluated runs; the last tests look through a browser."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import train
from PIL import Image
from tensorboard import program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from fairseq_scl.cli import main
from fairseq_scl.reports.tensorboard import SUFFIX

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def study(recipe, tmp_path_factory) -> Path:
    """Two draws of both losses, logged beside their checkpoints, and evaluated."""
    folder = tmp_path_factory.mktemp("study")
    for loss, weight in {"ce": 0, "scl": 0.9}.items():
        for draw in (1, 2):
            run = folder / loss / f"draw{draw}"
            flags = ("--scl-weight", weight, "--shots-seed", draw, "--seed", draw)
            train(recipe.flags(run, *flags, "--tensorboard-logdir", run / "tensorboard"))
    main(["evaluate", *map(str, sorted(folder.glob("*/*")))])
    return folder


@pytest.fixture
def run(study, tmp_path) -> Path:
    """A copy of one of the runs."""
    return shutil.copytree(study / "scl" / "draw1", tmp_path / "run")


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


def evaluate_again(run: Path) -> None:
    """As after more training."""
    (run / "result.json").unlink()
    main(["evaluate", str(run)])


def test_metrics_are_scalars_of_the_run_itself(run):
    result = json.loads((run / "result.json").read_text())
    written = events(run / "tensorboard")
    for tag, value in {"validation": result["valid"], "test": result["test"]["accuracy"]}.items():
        [event] = written.Scalars(tag)
        assert event.step == result["updates"]
        assert event.value == pytest.approx(value)


def test_a_session_holds_the_hyperparameters(run):
    written = events(run / "tensorboard").summary_metadata
    content = written["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    read = {key: value.number_value or value.string_value for key, value in values.items()}
    assert read == {
        "data": "sample", "encoder": "sentence_roberta", "protocol": "given", "N": 20,
        "noise": "none", "batch size": 8, "learning rate": 1e-3, "updates": 8, "lambda": 0.9,
        "tau": pytest.approx(0.3), "draw": 1, "seed": 1, "metric": "accuracy", "options": "none",
    }  # fmt: skip
    assert "_hparams_/session_end_info" in written


def test_n_is_a_number_for_all_rows_too(recipe, tmp_path):
    logs = tmp_path / "run" / "tensorboard"
    flags = ("--tensorboard-logdir", logs, "--max-update", 1)
    arguments = recipe.flags(tmp_path / "run", *flags)
    at = arguments.index("--num-shots")
    train(arguments[:at] + arguments[at + 2 :])
    main(["evaluate", str(tmp_path / "run")])
    content = events(logs).summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["N"].number_value == 450


def test_the_projector_has_the_test_set_with_its_classes(run):
    logs = run / "tensorboard"
    assert '"00000/test/tensors.tsv"' in (logs / "projector_config.pbtxt").read_text()
    stored = np.load(run / "test_embeddings.npz")
    vectors = np.loadtxt(logs / "00000" / "test" / "tensors.tsv")
    assert vectors == pytest.approx(stored["features"], abs=1e-4)
    classes = (logs / "00000" / "test" / "metadata.tsv").read_text().split()
    assert classes == [("negative", "positive")[label] for label in stored["labels"]]


def test_evaluating_again_replaces_what_was_written(run):
    logs = run / "tensorboard"
    before = {path.name for path in logs.iterdir()}
    curves = {path: path.stat().st_mtime_ns for path in logs.glob("*/events*")}
    evaluate_again(run)
    after = {path.name for path in logs.iterdir()}
    assert len(before) == len(after) == 6  # train, train_inner, valid; events; projector's two
    assert before != after
    assert len(events(logs).Scalars("test")) == 1
    assert {path: path.stat().st_mtime_ns for path in logs.glob("*/events*")} == curves


def test_a_run_that_did_not_log_gets_no_folder(recipe, tmp_path):
    train(recipe.flags(tmp_path / "run", "--max-update", 1))
    main(["evaluate", str(tmp_path / "run")])
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_log_folder_elsewhere_is_read_and_left_as_it_is(recipe, tmp_path):
    logs = tmp_path / "logs"
    train(recipe.flags(tmp_path / "run", "--tensorboard-logdir", logs))
    others = logs / f"events.out.tfevents.1{SUFFIX}"
    others.write_text("of somebody else")
    before = {path: path.stat().st_mtime_ns for path in logs.rglob("*")}
    main(["evaluate", str(tmp_path / "run")])
    assert {path: path.stat().st_mtime_ns for path in logs.rglob("*")} == before
    assert events(tmp_path / "run" / "tensorboard").Scalars("validation")
    evaluate_again(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["curves"]["train_inner"]


def test_logged_metrics_have_the_names_that_the_readme_tells(run):
    for group in ("train", "train_inner", "valid"):
        assert {"loss", "ce_loss", "scl_loss", "accuracy", "positive_similarity"} <= set(
            events(run / "tensorboard" / group).Tags()["scalars"]
        )


@pytest.fixture(scope="module")
def address(study) -> str:
    """Of a TensorBoard that serves the study from a thread of this process."""
    server = program.TensorBoard()
    arguments = ("--host", "127.0.0.1", "--port", "0", "--load_fast", "false")
    server.configure(argv=["tensorboard", "--logdir", str(study), *arguments])
    return server.launch()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium, which draws WebGL in software and calls nobody."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "headless", "no-sandbox", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "use-angle=swiftshader",
        "enable-unsafe-swiftshader", "window-size=1600,1000", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


FIND = """
const found = [];
const visit = root => root.querySelectorAll("*").forEach(element => {
  if (element.matches(arguments[0])) found.push(element);
  if (element.shadowRoot) visit(element.shadowRoot);
});
visit(document);
return found"""
TEXTS = f"{FIND}.map(element => element.textContent.trim())"


def waiting(browser):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60)


def wait_for(browser, selector: str, wanted):
    """The texts of all such elements, in shadow trees as well, once they are as `wanted`."""

    def texts(browser):
        found = browser.execute_script(TEXTS, selector)
        return found if wanted(found) else None

    return waiting(browser).until(texts)


def test_the_hparams_table_lists_every_run_with_its_values(browser, address, study):
    browser.get(f"{address}#hparams")
    cells = wait_for(browser, ".table-cell", lambda found: found.count("sample") == 4)
    assert [cell for cell in cells[:9] if cell != "Show Metrics"] == [
        "Trial ID", "N", "data", "lambda", "noise", "tau", "validation", "test",
    ]  # fmt: skip
    for run in sorted(study.glob("*/*")):
        result = json.loads((run / "result.json").read_text())
        start = cells.index(f"{run.relative_to(study)}/tensorboard")
        _, shots, data, weight, noise, temperature, *metrics = cells[start + 1 : start + 9]
        assert (data, noise) == ("sample", "none")
        assert (float(shots), float(temperature)) == (20, 0.3)
        assert float(weight) == (0.9 if run.parent.name == "scl" else 0)
        expected = [result["valid"], result["test"]["accuracy"]]
        assert [float(metric) for metric in metrics] == pytest.approx(expected, rel=1e-4)


def test_the_projector_draws_the_test_set(browser, address):
    browser.get("about:blank")  # a new fragment alone would not load the page again
    browser.get(f"{address}#projector")
    for _ in range(2):  # the plugin is a frame in a frame
        wait_for(browser, "iframe", len)
        browser.switch_to.frame(browser.execute_script(FIND, "iframe")[0])
    wait_for(browser, ".numDataPoints", lambda found: found == ["200"])
    assert wait_for(browser, "canvas", len)
    browser.switch_to.default_content()
    waiting(browser).until(lambda browser: blue_pixels(browser) > 1000)


def blue_pixels(browser) -> int:
    """How many there are on the screen; TensorBoard itself is orange, points are blue."""
    screen = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    red, green, blue = np.moveaxis(np.asarray(screen).astype(int), 2, 0)
    return int(((blue > red + 60) & (blue > green + 60)).sum())
