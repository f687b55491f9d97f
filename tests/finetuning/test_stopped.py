"""Ctrl-C, kill, a closed terminal: `finetune` ends in a line, with what it started, and goes on."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_finetune import SHORT, write

STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def heed_signals() -> None:
    """Tests that run under nohup or in the background hand on that these are ignored."""
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL)


def start(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "fairseq_scl.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def at_work(folder: Path) -> list[int]:
    """The processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder) in path.read_text(errors="replace"):
                found.append(int(path.parent.name))
        except OSError:  # it has just ended
            continue
    return found


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("number", STOPS)
def test_a_stopped_finetuning_leaves_no_process_and_goes_on(encoder, tmp_path, number):
    model, table = tmp_path / "model", write(tmp_path / "comments.csv")
    arguments = ("finetune", table, "--output", model, "--encoder", encoder, "--folds", 2)
    process = start(*arguments, *SHORT)
    wait_for(model / "folds" / "1" / "train.log", process)
    process.send_signal(number)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == f"fairseq-scl: stopped by {number.name}"
    assert "Traceback" not in err
    deadline = time.monotonic() + 30
    while at_work(model) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert at_work(model) == []

    process = start(*arguments, *SHORT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "2-fold cross-validation over 40 rows" in out


@pytest.mark.parametrize("number", STOPS)
def test_what_is_ignored_stays_ignored(number):
    """As SIGHUP under nohup, SIGINT of a job in the background."""
    code = f"""
import os, signal
signal.signal({int(number)}, signal.SIG_IGN)
from fairseq_scl.errors import tidy_end
with tidy_end():
    os.kill(os.getpid(), {int(number)})
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "went on\n"


def test_a_stopped_study_stops_its_command_first(tmp_path):
    """The command has three seconds to end by itself, then it is told to."""
    code = """
from fairseq_scl.errors import tidy_end
from fairseq_scl.studies.command import Command
with tidy_end():
    Command(["bash", "-c", "trap 'touch told; kill $!; exit' TERM; touch began; sleep 60 & wait"])()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        preexec_fn=heed_signals,
    )
    wait_for(tmp_path / "began", process)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert (tmp_path / "told").exists()
