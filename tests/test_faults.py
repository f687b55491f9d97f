"""Full disks, few open files, terminals of ASCII and names that are not UTF-8."""

import io
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PACKAGE, train

from fairseq_scl.cli import main
from fairseq_scl.inference.predict import write

SAMPLE = PACKAGE / "sample_data" / "test.tsv"
LIMIT = 2000  # bytes a file may have; beyond them writing fails as on a full disk


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    """An evaluated run."""
    run = tmp_path_factory.mktemp("faults") / "run"
    train(recipe.flags(run))
    main(["evaluate", str(run)])
    return run


def commands(recipe, run: Path, output: Path) -> dict[str, list]:
    """Of each command a call that writes into `output`."""
    again = output / "again"
    shutil.copytree(run, again, ignore=shutil.ignore_patterns("result.json", "test_embeddings.npz"))
    flags = recipe.flags(output / "trained", "--tensorboard-logdir", output / "trained" / "logs")
    flags.remove("--user-dir")
    flags.remove(str(PACKAGE))
    return {
        "import-model": [recipe.encoder, output / "encoder"],
        "prepare": [output / "data", "--encoder", recipe.encoder, "--data", "sample"],
        "train": flags,
        "evaluate": [again],
        "predict": [run, SAMPLE, "--output", output / "labels.csv"],
        "report": [run.parent, "--format", "html", "--output", output / "report.html"],
        "plot": ["embeddings", run, "--output", output / "points.png"],
        "export": [run, output / "exported"],
        "finetune": [
            SAMPLE, "--output", output / "model", "--encoder", recipe.encoder, "--folds", 0,
            "--", "--max-update", 2,
        ],
    }  # fmt: skip


def limited(
    arguments: list, limits: dict[int, int] | None = None, environment: dict | None = None
) -> subprocess.CompletedProcess:
    """Call `fairseq-scl` with limits of the system."""

    def limit() -> None:
        for kind, most in (limits or {}).items():
            resource.setrlimit(kind, (most, most))

    return subprocess.run(
        [sys.executable, "-m", "fairseq_scl.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        env=os.environ | (environment or {}),
        preexec_fn=limit,
    )


def test_a_terminal_of_ascii_shows_what_it_can(recipe, tmp_path):
    path = tmp_path / "menu.csv"
    path.write_text("comment,topic\n" + "Kalte Suppe ☃,Küche\nZwei Tore,Sport\n" * 4, "utf-8")
    arguments = ["finetune", path, "--output", tmp_path / "model", "--encoder", recipe.encoder]
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = limited([*arguments, "--dry-run"], environment=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "K\\xfcche 4, Sport 4" in ended.stdout


def test_json_for_a_terminal_of_ascii_is_still_json():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    write([{"label": "Küche ☃ 🍲"}], file)
    assert json.loads(file.buffer.getvalue()) == {"label": "Küche ☃ 🍲"}


def test_a_folder_whose_name_is_not_utf_8_is_told_in_a_line(recipe, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path / "caf") + b"\xe9"))
    arguments = ["finetune", SAMPLE, "--output", folder, "--encoder", recipe.encoder]
    ended = limited([*arguments, "--folds", 0, "--", "--max-update", 2])
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("fairseq-scl: error: ") and "rename such files and folders" in last


def contents(folder: Path) -> set[Path]:
    """Everything in a folder but locks and logs, which grow as long as there is room."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if not path.name.endswith((".lock", ".log"))}


NAMES = [
    "import-model", "prepare", "train", "evaluate", "predict", "report", "plot", "export",
    "finetune",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_told_in_a_line_and_leaves_no_half_file(recipe, finished, tmp_path, name):
    arguments = commands(recipe, finished, tmp_path)[name]
    before = contents(tmp_path)
    ended = limited([name, *arguments], {resource.RLIMIT_FSIZE: LIMIT})
    assert ended.returncode == 1, ended.stderr[-2000:]
    assert "Traceback" not in ended.stdout + ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("fairseq-scl: error: ") and str(tmp_path) in last
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_64_open_files_are_enough(recipe, finished, tmp_path, name):
    arguments = commands(recipe, finished, tmp_path)[name]
    ended = limited([name, *arguments], {resource.RLIMIT_NOFILE: 64})
    assert ended.returncode == 0, ended.stderr[-2000:]
