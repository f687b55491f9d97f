"""The scripts of the paper's tables install, then call the command with what they were given."""

import subprocess

import pytest
from conftest import ROOT

STUDIES = ("few-shot", "noise", "full", "transfer", "batch-size", "search")


@pytest.mark.parametrize("study", STUDIES)
def test_a_script_installs_and_calls_the_command(study, tmp_path):
    clone = tmp_path / "a clone"
    (clone / "scripts").mkdir(parents=True)
    (clone / ".venv" / "bin").mkdir(parents=True)
    script = clone / "scripts" / f"{study.replace('-', '_')}.sh"
    script.write_text((ROOT / "scripts" / script.name).read_text())
    (clone / "scripts" / "setup.sh").write_text("echo installed")
    command = clone / ".venv" / "bin" / "fairseq-scl"
    command.write_text("#!/bin/sh\nprintf '%s|' \"$@\"; exit 3")
    command.chmod(0o755)
    result = subprocess.run(
        ["bash", script, "--tasks", "SST-2 QNLI", "--", "a='b c'"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert result.stderr == "installed\n"
    assert result.stdout == f"study|{study}|--tasks|SST-2 QNLI|--|a='b c'|"
    assert result.returncode == 3
