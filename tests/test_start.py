"""What a command imports before it has work to do: nothing that takes seconds."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "fairseq", "pandas", "sklearn", "scipy", "matplotlib", "transformers", "datasets")


@pytest.mark.parametrize(
    "command",
    ["", "finetune", "prepare", "predict", "export", "study", "recipe", "flags", "verify"],
)
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys\nfrom fairseq_scl import cli\n"
        f"try: cli.main([*{command.split()}, '--help'])\n"
        f"except SystemExit: print([name for name in {HEAVY} if name in sys.modules])"
    )
    told = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert told.startswith("usage: fairseq-scl") and told.endswith("\n[]\n")
