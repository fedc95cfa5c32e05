"""What several files of these tests share."""

from pathlib import Path

import pytest
from repositories import executed, fresh, run


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh repository after its first `dvc repro`."""
    project = fresh(root, tmp_path_factory.mktemp("project"))
    result = run(project, "dvc", "repro", HOME="/proc")  # as in a container, an account whose home cannot be written
    assert len(executed(result.stdout)) == 14
    return project


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
