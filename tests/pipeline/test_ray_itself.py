"""What Ray itself does and says, and what is told of it: each works without a cluster, or in a process of its own."""

import inspect
import subprocess
import sys

import pytest

from pipeline.cluster import tasks, workarounds

SIGNALS = """
import signal
import ray

def ours(*_): ...

signal.signal(signal.SIGTERM, ours)
ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
print(signal.getsignal(signal.SIGTERM) is ours)
ray.shutdown()
print(signal.getsignal(signal.SIGTERM) is ours)
"""


@pytest.mark.slow  # a cluster of its own
def test_the_workaround_for_signals_is_still_needed() -> None:
    """Once Ray leaves a program's handlers alone, `signals_kept` can go."""
    command = [sys.executable, "-W", "ignore", "-c", SIGNALS]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["False", "False"], result.stderr[-2000:]


def test_ray_still_says_that_a_node_is_late_in_the_words_that_are_looked_for() -> None:
    from ray._private import node

    assert workarounds.LATE in inspect.getsource(node)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("OutOfMemoryError", "lower batch_size or images_at_once, or raise ray.num_cpus"),
        ("NodeDiedError", "it was full"),
    ],
)
def test_why_a_worker_died_is_told_without_rays_counters(kind: str, words: str) -> None:
    import ray

    told = tasks.reason(getattr(ray.exceptions, kind)("it was full\n\n" + "counter 1\n" * 500))
    assert words in told
    assert "it was full counter 1" in told
    assert "\n" not in told
    assert len(told) < 500


@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_ends_with_one_sentence_and_no_output_of_rays() -> None:
    code = (
        "import os, signal\nfrom typing import NamedTuple\nfrom pipeline.cluster import cluster, run_tasks\n"
        "from pipeline.params import RayParams\n"
        "def die(job, state): os.kill(os.getpid(), signal.SIGKILL); yield\n"
        "needs = RayParams(num_workers=1, num_cpus=1, num_gpus=0, checkpoint_every=1, storage='unused')\n"
        "with cluster(None):\n    list(run_tasks(die, {0: 0}, (), {}, needs))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert result.stdout == ""
    assert "InputError: The worker of training 0 died 4 times in a row" in result.stderr
