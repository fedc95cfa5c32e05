"""The GPU script on a CPU: its parts run, and what goes wrong in one is written down and ends nothing else."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def scripts(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The folder of benchmarks is no package: its scripts find each other beside themselves."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import gpu
    import gpu_parts

    yield gpu, gpu_parts
    for name in (
        "gpu",
        *(f"gpu_{part}" for part in ("common", "correctness", "goals", "parts", "rates")),
        "measuring",
        "baseline",
    ):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param("correctness", marks=pytest.mark.slow),
        "shares",
        "rates",
        "goals",
        pytest.param("fast", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch.compile's own making
def test_every_part_runs_on_a_few_images(scripts: Any, part: str) -> None:
    _, parts = scripts
    measure, _ = parts.PARTS[part]
    rows = list(measure(parts.Options(small=True, mirror=None, end=time.monotonic() + 600)))
    json.dumps([row._asdict() for row in rows])
    if part == "correctness":
        assert len(rows) == 11
        assert not [row.name for row in rows if not row.figures["right"]]
    if part == "shares":
        assert all(row.figures["operations"] > 100 for row in rows[1:])
        assert [row.figures["launches"] is None for row in rows[1:]] == [not torch.cuda.is_available()] * 4
    if part == "rates":
        assert [row.figures["generators"] for row in rows] == [1, 2, 1, 2]
        assert all(row.figures["samples_per_second"]["median"] > 0 for row in rows)
    if part == "goals":
        assert len(rows) == 4
    if part == "fast":
        assert [row.figures["steps_per_second"] > 0 for row in rows] == [True] * 6
        assert rows[0].figures["ratio"] == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_nothing_is_compiled_while_a_compiled_training_is_timed(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    _, parts = scripts
    goals = sys.modules["gpu_goals"]
    timed, compiled = goals.timed, []

    def watched(*arguments: Any) -> float:
        before = counters["stats"]["unique_graphs"]
        seconds: float = timed(*arguments)
        compiled.append(counters["stats"]["unique_graphs"] - before)
        return seconds

    monkeypatch.setattr(goals, "timed", watched)
    list(parts.PARTS["fast"][0](parts.Options(small=True, mirror=None, end=time.monotonic() + 600)))
    assert counters["stats"]["unique_graphs"] > 0
    assert compiled == [0] * len(compiled)


def test_a_part_that_fails_or_takes_too_long_is_written_down_with_the_rows_it_came_to(
    scripts: Any, tmp_path: Path
) -> None:
    gpu, _ = scripts
    row = {"name": "a", "value": "1", "beside": "", "figures": {}}
    write = f"open({str(tmp_path / 'lines')!r}, 'a').write({json.dumps(row)!r} + chr(10))\n"

    def ended(code: str, budget: float) -> dict[str, Any]:
        (tmp_path / "lines").unlink(missing_ok=True)
        found: dict[str, Any] = gpu.supervise([sys.executable, "-c", write + code], tmp_path / "lines", budget)
        return found

    failed = ended("raise ValueError('no such kernel')", 60)
    assert failed["ended"] == "failed: ValueError: no such kernel"
    assert failed["stderr"].startswith("Traceback")
    assert failed["stderr"].endswith("ValueError: no such kernel")
    talkative = ended("import sys; sys.exit('a' + 5000 * 'b' + 'c')", 60)
    assert talkative["stderr"] == 3999 * "b" + "c"
    assert ended("import os; os._exit(7)", 60)["ended"] == "failed: status 7"
    slow = ended("import sys, time; print('at work', file=sys.stderr, flush=True); time.sleep(600)", 3)
    assert (slow["ended"], slow["stderr"]) == ("stopped after its 3 s", "at work")
    assert slow["seconds"] < 60
    whole = ended("import sys; print('a warning', file=sys.stderr)", 60)
    assert (whole["ended"], whole["stderr"]) == ("whole", "")
    there = dict.fromkeys(("gpu", "processor", "cores", "threads", "torch", "cuda", "python"), "x")
    parts = {"first": failed, "second": slow}
    told = gpu.table({"date": "2026-01-01", "command": "gpu.py", "machine": there, "parts": parts})
    assert failed["rows"] == [row]
    assert told.count("| a | 1 |  |") == 2
    assert "failed: ValueError: no such kernel." in told


def test_what_there_is_no_time_for_is_not_begun(
    scripts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu, _ = scripts
    gpu.main(["--small", "--seconds", "0", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert {part["ended"] for part in results["parts"].values()} == {"not begun, for want of time"}
    assert "no GPU" in capsys.readouterr().out or results["machine"]["gpu"]
