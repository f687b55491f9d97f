"""The scripts of the paper's tables install, then call the command with what they were given."""

import os
import shutil
import subprocess
import sys
import venv

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


@pytest.fixture
def bare(tmp_path):
    """A copy of what `setup.sh` reads, with an environment that holds an interpreter only."""
    (tmp_path / "scripts").mkdir()
    for name in ("setup.sh", "constraints.txt"):
        (tmp_path / "scripts" / name).write_text((ROOT / "scripts" / name).read_text())
    shutil.copytree(ROOT / "scripts" / "fairseq_build", tmp_path / "scripts" / "fairseq_build")
    (tmp_path / "setup.py").write_text("")
    venv.create(tmp_path / ".venv")
    return tmp_path


def test_without_a_compiler_a_line_says_what_to_install(bare):
    result = subprocess.run(
        ["bash", bare / "scripts" / "setup.sh"], capture_output=True, text=True,
        env=os.environ | {"CXX": "no-such-compiler -O2"},
    )  # fmt: skip
    assert result.returncode == 1 and result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("setup: no C++ compiler (no-such-compiler) to build fairseq with")
    assert not list((bare / ".venv").glob("installed-*"))


def test_fairseq_is_built_without_what_is_compiled_against_torch():
    code = (
        "from setuptools import Distribution, Extension\n"
        "from torch.utils.cpp_extension import BuildExtension, CppExtension\n"
        "made = BuildExtension(Distribution({'ext_modules': [Extension('a', []), "
        "CppExtension('b', [])]}))\n"
        "made.ensure_finalized()\n"
        "made.build_extension = lambda one: print(one.name)\n"
        "made.build_extensions()"
    )
    path = {"PYTHONPATH": str(ROOT / "scripts" / "fairseq_build")}
    told = subprocess.check_output([sys.executable, "-c", code], text=True, env=os.environ | path)
    assert told == "a\n"
