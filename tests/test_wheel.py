"""The built wheel, alone: it holds what it needs, and prepares, trains, evaluates and predicts."""

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the source distribution of a copy of the tracked files."""
    source, dist = (tmp_path_factory.mktemp(name) for name in ("source", "dist"))
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, files):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to(os.readlink(ROOT / name))
        elif (ROOT / name).is_file():
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, source]
    subprocess.run(command, check=True, capture_output=True)
    [path] = dist.glob("*.whl")
    return path


def test_the_wheel_holds_configs_sample_data_and_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    packaged = [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("fairseq_scl/sample_data/*")]
    packaged += [ROOT / "fairseq_scl" / "py.typed", *ROOT.glob("fairseq_scl/**/*.py")]
    for path in packaged:
        name = path.relative_to(ROOT).as_posix()
        assert (f"fairseq_scl/{name}" if name.startswith("configs/") else name) in names
    assert not [name for name in names if name.startswith(("tests", "scripts", "docs"))]
    assert f"-{importlib.metadata.version('fairseq-scl')}-" in wheel.name


def test_the_wheel_alone_goes_from_sentences_to_labels(wheel, encoder, tmp_path):
    """In an environment of its own, which borrows this one's libraries but not its fairseq-scl."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(wheel)], check=True, capture_output=True)
    # a path in a .pth does not bring the editable install that lies there
    site = tmp_path / "env" / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    folder = tmp_path / "work"
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*arguments: object, stdin: str | None = None) -> str:
        command = [python.with_name("fairseq-scl"), *map(str, arguments)]
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env=environment, input=stdin
        )
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout

    assert Path(run("user-dir").strip()) == site / "fairseq_scl"
    assert str(site / "fairseq_scl" / "configs") in run("study", "full", "--dry-run")
    run("prepare", "data", "--encoder", encoder, "--data", "sample")
    flags = (encoder / "train_flags.txt").read_text().split()
    flags += f"""--task few_shot_glue --num-shots 20 --criterion sentence_prediction_scl
        --finetune-from-model {encoder / "model.pt"} --optimizer fused_adam --lr 1e-3
        --max-update 2 --batch-size 8 --best-checkpoint-metric accuracy --cpu
        --maximize-best-checkpoint-metric --no-epoch-checkpoints --save-dir run""".split()
    run("train", "data", *flags)
    code = (
        "import importlib.resources as r\n"
        "assert (r.files('fairseq_scl') / 'configs' / 'finetune.yaml').is_file()"
    )
    command = [python, "-c", code]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment)
    run("evaluate", "run")
    assert "CE+SCL" in run("report", "run")
    prediction = json.loads(run("predict", "run", stdin="a joy to watch\n"))
    assert prediction["label"] in ("negative", "positive")
