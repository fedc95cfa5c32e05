"""Experiments beside each other."""

import subprocess
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
    assert "a-n…-column" in text


def test_the_papers_experiments_are_told_apart() -> None:
    """Their names end alike, and one setting differs, whose key has no dot."""
    data = ["mnist", "fashion_mnist", "svhn", "cifar10"]
    rows = [row(f"{name}-20261129-162359", None, 0.5, ("",), datasets=f"['{name}']") for name in data]
    rows.append(row("paper-20261129-162359", None, 0.5, ("",), datasets=str(data)))
    heads, datasets, *_ = compared(rows, (), 120).splitlines()
    assert heads.split() == ["mni…-162359", "fas…-162359", "svh…-162359", "cif…-162359", "pap…-162359"]
    assert datasets.split() == ["datasets", "mnist", "fas…n_mnist", "svhn", "cifar10", "mni…cifar10"]


def test_those_that_are_named_stand_beside_the_commit() -> None:
    rows = [row(None, None, 0.5, ("",)), row("a", 1, 0.25, ("",)), row("b", 2, 0.75, ("",), State="Running")]
    text = compared([*rows, row("c", 3, 0.125, ("",))], ("c",), 80)
    assert text.splitlines()[0].split() == ["main", "c"]
    assert "inversion_accuracy                     0.5       0.125" in text
    with pytest.raises(InputError, match=r"no experiment x: those that there are: main, a, c"):
        compared([*rows, row("c", 3, 0.125, ("",))], ("x",), 80)


def test_what_has_no_numbers_or_began_elsewhere_is_named_below_the_table() -> None:
    states = {"queued": "Queued", "broken": "Failed", "now": "Running", "done": "Success", "again": "Failed"}
    rows = [row(None, None, 0.5, ("",)), *(row(name, 1, 0.25, ("",), State=states[name]) for name in states)]
    rows += [row("again", 2, 0.75, ("",))]
    text = compared(rows, (), 80, ["before"])
    assert text.splitlines()[0].split() == ["main", "done", "again"]
    assert "Not measured: queued (queued), broken (failed), now (running).\n" in text
    assert text.endswith("\n\nBegun from other commits, and shown where they are named: before.\n")
    assert compared(rows, ("done", "now"), 80, ["before"]).endswith("\n\nNot measured: now (running).\n")


def test_a_commit_without_numbers_has_dashes_and_settings_alike_no_table() -> None:
    """As after a first `make repro`, of which nothing is committed."""
    bare = row(None, None, 0.5, FILES) | {f"{FILES[0]}inversion_accuracy": "!"}
    here = row(None, None, 0.5, FILES) | {"rev": "workspace"}
    lines = compared([here, bare], (), 80).splitlines()
    assert lines[0].split() == ["digits-standard", "workspace", "main"]
    assert lines[1].split() == ["inversion_accuracy", "0.5", "-"]


def test_one_that_began_from_an_earlier_commit_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    for part in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{part}_NAME", "tester")
        monkeypatch.setenv(f"GIT_{part}_EMAIL", "tester@localhost")
    subprocess.run(["git", "init", "-q"], check=True)
    (tmp_path / "dvc.yaml").write_text("metrics: [numbers.json]")
    (tmp_path / "numbers.json").write_text('{"leak": 0.25}')
    with Repo.init() as repo:
        subprocess.run("git add -A && git commit -qm first", shell=True, check=True)
        (tmp_path / "numbers.json").write_text('{"leak": 0.5}')
        repo.experiments.save(name="earlier")
    subprocess.run(["git", "commit", "-qam", "second"], check=True)
    bare = CliRunner().invoke(main, catch_exceptions=False).stdout
    assert bare.endswith("\n\nBegun from other commits, and shown where they are named: earlier.\n")
    named = CliRunner().invoke(main, ["earlier"], catch_exceptions=False).stdout.splitlines()
    assert named[0].split()[-1] == "earlier"
    assert named[1].split() == ["leak", "0.5", "0.5", "0.25", "0.5"]  # here, both commits, the experiment


def test_outside_of_a_repository_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main)
    assert result.exit_code == 2
    assert "error: DVC knows of no experiments here" in result.stderr
