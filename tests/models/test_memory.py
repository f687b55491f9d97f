"""What the process does with freed memory."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fairseq_scl.models.memory import give_back_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")


def test_memory_between_what_is_in_use_is_given_back():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    blocks = [bytearray(b"x" * 100_000) for _ in range(1000)]  # below what glibc maps one by one
    kept = blocks[::50]
    del blocks
    before = resident()
    give_back_memory()
    assert before - resident() > 50e6
    assert len(kept) == 20


@pytest.mark.parametrize("keep", [True, False])
def test_a_large_block_is_used_again_instead_of_anew(keep):
    code = f"""
import resource, torch
from fairseq_scl.models.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):  # until the heap has room beside what small objects take of it
    torch.ones(12_000_000)
before = faults()
for _ in range(10):
    torch.ones(12_000_000)
print(faults() - before)
"""
    finished = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pages = 10 * 48e6 / resource.getpagesize()
    share = int(finished.stdout) / pages
    assert share < 0.2 if keep else share > 0.5
