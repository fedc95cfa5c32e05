"""Experiments beside each other."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from netinv.core import InputError
from netinv.results import HEADLINE
from pipeline.compare import compared, main


def row(name: str | None, gamma: float | None, accuracy: float, files: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """As DVC tells of an experiment, or of the commit ``main``."""
    about = {"Experiment": name, "rev": "main", "State": None, "data/digits": f"{accuracy}"}
    settings = {"invert.robust.gamma": str(gamma), "invert.robust.epsilon": "None"}
    measures = {f"{file}{measure}": accuracy for file in files for measure in (*HEADLINE, "leak")}
    return about | settings | measures | more


FILES = ("metrics/evaluate/digits-standard.json:", "metrics/evaluate/digits-robust.json:")


@pytest.mark.parametrize("width", [40, 80, 160])
def test_what_was_set_and_every_headline_number_fit_the_terminal(width: int) -> None:
    names = ["gamma-up", "gamma-down", "a-name-that-is-longer-than-a-column", "d", "e"]
    rows = [row(None, None, 0.5, FILES), *(row(name, i, 0.1 * i, FILES) for i, name in enumerate(names))]
    text = compared(rows, (), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= max(width, 42)
    room = max(1, (width - 30) // 12)
    assert sum(line.startswith("digits-robust") for line in lines) == -(-len(rows) // room)
    for measure in HEADLINE:
        assert sum(line.startswith(measure) for line in lines) == 2 * -(-len(rows) // room)
    assert "invert.robust.gamma" in text
    assert "epsilon" not in text  # alike everywhere
    assert "data/digits" not in text
    assert "…than-a-column"[-10:] in text


def test_those_that_are_named_stand_beside_the_commit() -> None:
    rows = [row(None, None, 0.5, ("",)), row("a", 1, 0.25, ("",)), row("b", 2, 0.75, ("",), State="Running")]
    text = compared([*rows, row("c", 3, 0.125, ("",))], ("c",), 80)
    assert text.splitlines()[0].split() == ["main", "c"]
    assert "inversion_accuracy                     0.5       0.125" in text
    with pytest.raises(InputError, match=r"no experiment x: those that there are: main, a, c"):
        compared([*rows, row("c", 3, 0.125, ("",))], ("x",), 80)


def test_a_commit_without_numbers_has_dashes_and_settings_alike_no_table() -> None:
    """As after a first `make repro`, of which nothing is committed."""
    bare = row(None, None, 0.5, FILES) | {f"{FILES[0]}inversion_accuracy": "!"}
    here = row(None, None, 0.5, FILES) | {"rev": "workspace"}
    lines = compared([here, bare], (), 80).splitlines()
    assert lines[0].split() == ["digits-standard", "workspace", "main"]
    assert lines[1].split() == ["inversion_accuracy", "0.5", "-"]


def test_outside_of_a_repository_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main)
    assert result.exit_code == 2
    assert "error: DVC knows of no experiments here" in result.stderr
