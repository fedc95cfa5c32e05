"""What the stage ``interpret`` says at its end."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netinv.core import InputError
from netinv.generators import ConditionedGenerator, GeneratorConfig, save_generator
from netinv.results import Estimate, NotMeasured
from pipeline import interpret
from pipeline.params import load_params


def test_what_was_not_measured_is_not_told_as_nothing() -> None:
    headline = {
        "explained_variance": Estimate(value=0.75, low=0.7, high=0.8, n=100),
        "transfer": NotMeasured(not_measured="no real images were given"),
    }
    found: Any = SimpleNamespace(results=SimpleNamespace(headline=headline, units=()))
    assert interpret._summary_line("digits", found) == (
        "interpret digits: explained variance 0.750, loss recovered on real images not measured, 0 units"
    )


def test_generators_are_those_in_numbered_folders_and_their_lack_is_told(root: Path, tmp_path: Path) -> None:
    params = load_params(root / "params.yaml")
    params = params.model_copy(update={"variants": ("standard",)})
    with pytest.raises(InputError, match="standard holds no generators"):
        interpret._drawn(params, "digits", tmp_path, "cpu")
    network = ConditionedGenerator(GeneratorConfig(width=4, max_width=4), 3, (1, 8, 8))
    for name in ("0", "1", "best"):
        save_generator(tmp_path / "standard" / name, network)
    assert len(interpret._drawn(params, "digits", tmp_path, "cpu")["standard"].generators) == 2


def test_the_cluster_is_looked_for_before_anything_is_drawn(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    main: Any = interpret.main.callback
    with pytest.raises(InputError, match="RAY_ADDRESS=nonsense is no address"):
        main.__wrapped__("digits", *[tmp_path / "absent"] * 6)
