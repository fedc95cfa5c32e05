"""The files of rows that benchmarks keep: each table is what its rows give, and no row is made or counted twice."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _siblings(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))


def of_diversity(path: Path) -> str:
    import diversity
    import measuring

    return diversity.told(measuring.read_rows(path))


def of_peers(path: Path) -> str:
    import compare_peers

    return compare_peers.table(compare_peers.rows_of(path))


def of_zoo(path: Path) -> str:
    import zoo

    return zoo.tables(json.loads(path.read_text()))


def of_ensembles(path: Path) -> str:
    import ensembles

    return ensembles.told(json.loads(path.read_text()))


MADE = {"diversity.jsonl": of_diversity, "ensembles.json": of_ensembles, "peers.jsonl": of_peers, "zoo.json": of_zoo}


@pytest.mark.parametrize("name", MADE)
def test_tables_that_are_checked_in_are_those_of_their_rows(root: Path, name: str) -> None:
    table: Callable[[Path], str] = MADE[name]
    path = root / "benchmarks" / name
    assert path.with_suffix(".md").read_text() == table(path)


def way(seed: int, student: float, settings: dict[str, Any] | None) -> dict[str, Any]:
    import diversity

    row = dict.fromkeys([*diversity.MEASURES, "worst", "cpu_seconds"], student) | {"data": "digits", "way": "preset"}
    return row | {"seed": seed} | ({} if settings is None else {"settings": settings})


def test_ways_of_other_settings_are_lines_of_their_own() -> None:
    import diversity

    old, plain, field = None, {"latent_field": 0.0, "steps": 5}, {"latent_field": 1.0, "steps": 5}
    rows = [way(10, 0.1, old), way(10, 0.2, plain), way(11, 0.4, plain)]

    def told() -> list[list[str]]:
        lines = [line.split(" | ") for line in diversity.told(rows).splitlines()[2:]]
        return [[name, seeds, last] for _, name, seeds, *_, last, _ in lines]

    both = [["preset (settings not kept)", "1", "0.100"], ["preset", "2", "0.300 ± 0.141"]]
    assert told() == both
    rows.append(way(10, 0.5, field))
    both[1][0] = "preset (latent_field 0.0)"
    assert told() == [*both, ["preset (latent_field 1.0)", "1", "0.500"]]
    assert len({json.dumps(diversity.key(row)) for row in rows}) == 4


def test_a_line_that_was_cut_off_is_left_out_and_the_next_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from measuring import add_row, read_rows

    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == []
    for i in range(2):
        add_row(path, {"seed": i})
    path.write_text(path.read_text()[:-4])
    assert read_rows(path) == [{"seed": 0}]
    add_row(path, {"seed": 2})
    assert read_rows(path) == [{"seed": 0}, {"seed": 2}]
    assert "cut off" in capsys.readouterr().out


def test_an_inversion_made_again_takes_the_place_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zoo

    calls = []

    def inverted(folder: Path, names: list[str], variant: str, seed: int, grids: object) -> list[dict[str, Any]]:
        calls.append(variant)
        key = {"data": folder.name, "network": names[0], "variant": variant, "seed": seed}
        return [key | {"own": [1.0], "judges": {"a": [len(calls) / 10]}, "cpu_seconds": 1.0}]

    monkeypatch.setattr(zoo, "invert_all", inverted)
    out = tmp_path / "zoo.json"
    for variant in ("robust", "standard", "robust"):
        arguments = ["invert", "mnist", "--models", str(tmp_path), "--networks", "lenet5-0", "--variant", variant]
        monkeypatch.setattr(sys, "argv", ["zoo.py", *arguments, "--out", str(out)])
        zoo.main()
    networks, _, summary = out.with_suffix(".md").read_text().partition("\n\n")
    shown = [line.split(" | ")[2::4] for line in networks.splitlines()[2:]]
    assert shown == [["robust", "0.300"], ["standard", "0.200"]]
    assert [line.split(" | ")[1:3] for line in summary.splitlines()[2:]] == [["robust", "1"], ["standard", "1"]]
    with pytest.raises(SystemExit, match=r"There is no network lenet5-0 .*: train it first .*--networks lenet5-0"):
        zoo.adapted(tmp_path / "mnist", "lenet5-0")
