"""A stage with a body of the test's, in a process of its own."""

import os
import subprocess
import sys


def start_stage(code: str, first: str = "", **environment: str) -> subprocess.Popen[str]:
    """A process that runs a stage with the given body, and some code before."""
    script = f"""
{first}
import time
from pathlib import Path
from netinv.core import InputError
from pipeline.stage import replaced, stage_command
@stage_command
def main():
    {code}
main()
"""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
