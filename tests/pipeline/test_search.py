"""A search on a real Ray that was killed, and goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.params import Range

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own start-up warns of its future defaults


SEARCH = """
import sys, time
from pathlib import Path
from pipeline.cluster import cluster, search
from pipeline.params import Range, RayParams

def task(seconds, settings):
    for share in (0.25, 0.5, 1.0):
        time.sleep(seconds)
        yield {"share": share, "step": share, "samples": share, "score": settings["x"], "a": settings["x"], "b": 1.0}

needs = RayParams(num_workers=1, num_cpus=1, num_gpus=0, checkpoint_every=1, storage="unused")
with cluster(None):
    trials = search(
        task, (float(sys.argv[2]),), {"x": Range(low=0.0, high=1.0)}, ("a", "b"), 4, 0, Path(sys.argv[1]), needs,
        lambda trial: print(trial.name, trial.outcome, flush=True),
    )
print("all", len(trials), *sorted({trial.outcome for trial in trials}))
"""


@pytest.mark.parametrize("state", [None, "", "{", "{}"])
def test_a_search_that_was_killed_before_it_had_drawn_anything_begins_anew(
    state: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray Tune would restore it without its space, and fail at every later call."""
    from ray import tune

    from pipeline.cluster.search import _new_tuner, _restored

    def work(settings: dict[str, Any]) -> None: ...

    folder = tmp_path / "search"
    assert _restored(work, folder) is None
    assert capsys.readouterr().err == ""
    _new_tuner(work, {"x": Range(low=0.0, high=1.0)}, ("a",), 4, 0, folder)
    if state is not None:
        (folder / "experiment_state-2026-01-01_00-00-00.json").write_text(state)
    assert tune.Tuner.can_restore(folder)
    assert _restored(work, folder) is None
    assert not folder.exists()
    assert "cannot go on" in capsys.readouterr().err


@pytest.mark.slow  # two clusters start
def test_a_search_that_is_killed_tells_of_its_trials_when_it_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SEARCH, str(tmp_path / "search")]
    killed = subprocess.Popen([*command, "1.0"], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert killed.stdout is not None
    for line in killed.stdout:
        if not line.endswith("running\n"):
            break
    time.sleep(2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    result = subprocess.run([*command, "0.1"], capture_output=True, text=True, timeout=300)
    lines = result.stdout.splitlines()
    assert lines[-1] == "all 4 finished stopped early", result.stdout + result.stderr[-2000:]
    assert len({line for line in lines if not line.endswith("running")}) == 5  # each trial once, and the last line
    assert result.stderr == ""


FAILING = SEARCH.replace("time.sleep(seconds)", "seconds > 0 or 1 / 0")


@pytest.mark.slow  # two clusters start
def test_a_search_whose_trials_all_failed_trains_them_anew(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FAILING, str(tmp_path / "search")]
    told = [subprocess.run([*command, x], capture_output=True, text=True, timeout=300) for x in ("0", "1")]
    first, again = (run.stdout.splitlines()[-1] for run in told)
    assert first == "all 4 failed", told[0].stderr[-2000:]
    assert again.startswith("all 4 finished"), told[1].stdout + told[1].stderr[-2000:]
