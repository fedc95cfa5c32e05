"""Freed memory is used again."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from netinv.core import trade_memory_for_speed
if {keep}:
    trade_memory_for_speed()
def step():
    return [b"x" * 2**22 for _ in range(24)]  # freed together
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is asked")
def test_freed_memory_is_used_again() -> None:
    def faults(keep: bool) -> int:
        command = [sys.executable, "-c", FAULTS.format(keep=keep)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults(keep=True) < faults(keep=False) / 4
