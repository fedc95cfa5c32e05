"""The folders that the stages leave behind, and the page made of them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_results import HOSTILE, Folders, results, write_variant

from netinv import report
from netinv.core import save_csv
from netinv.report import read_ablations
from pipeline.params import Params, load_params
from pipeline.report import collect


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of two data sets in two variants, to be copied: drawing their pictures takes a while."""
    root = tmp_path_factory.mktemp("written")
    folders = Folders(*(root / name for name in Folders._fields))
    for dataset in ("digits", "mnist"):
        for variant, accuracy in (("standard", 0.31), ("robust", 0.93)):
            write_variant(folders, dataset, variant, results(("cat", HOSTILE), accuracy))
        for model in ("classifier", "evaluator"):
            history = [{"epoch": epoch, "samples": 100, "loss": 1.0, "accuracy": 0.9} for epoch in (1, 2)]
            save_csv(folders.plots / "train" / f"{dataset}-{model}.csv", history)
    return root


@pytest.fixture
def folders(written: Path, tmp_path: Path) -> Folders:
    """Two data sets in two variants."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return Folders(*(tmp_path / name for name in Folders._fields))


@pytest.fixture
def params(root: Path) -> Params:
    """The repository's own, for two data sets."""
    return load_params(root / "params.yaml").model_copy(update={"datasets": ("digits", "mnist")})


@pytest.fixture
def render(folders: Folders, params: Params) -> Callable[..., str]:
    def page(tracking_uri: str = "sqlite:///mlflow.db", **changes: Any) -> str:
        *stages, ablation = folders
        inverted = collect(params.model_copy(update=changes), *stages, tracking_uri=tracking_uri)
        return report.render(inverted, read_ablations(ablation), on_server=tracking_uri.startswith("http"))

    return page
