"""The tables of ``benchmarks/zoo.py``, from rows made by hand."""

from pathlib import Path

import pytest


def test_tables_name_the_worst_network_and_the_worst_class(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import zoo

    def row(network: str, own: list[float], **judges: list[float]) -> dict[str, object]:
        key = {"data": "mnist", "network": network, "variant": "robust", "seed": 0}
        return key | {"own": own, "judges": judges, "cpu_seconds": 61.4}

    rows = [
        row("lenet5-0", [1.0, 0.9], a=[1.0, 0.5], b=[0.5, 0.5]),
        row("conv2-0", [1.0, 1.0], a=[1.0, 1.0], b=[0.0, 0.5]),
    ]
    networks, _, summary = zoo.tables(rows).partition("\n\n")
    assert networks.splitlines()[2:] == [
        "| mnist | lenet5-0 | robust | 0 | 0.950 | 0.90 | 0.625 | 0.750 / 0.500 | 61 |",
        "| mnist | conv2-0 | robust | 0 | 1.000 | 1.00 | 0.625 | 1.000 / 0.250 | 61 |",
    ]
    assert summary.splitlines()[2:] == ["| mnist | robust | 2 | 0.950 | 0.90 | 0.625 | 0.625 |"]
