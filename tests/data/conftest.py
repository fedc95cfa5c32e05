"""Real data where they are at hand, and a machine without a network."""

import os
import socket
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data(root: Path) -> Path:
    """A folder with mnist/, fashion-mnist/, svhn/ and cifar10/ as people have them on disk."""
    folder = Path(os.environ.get("NETINV_TEST_DATA") or root.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data: NETINV_TEST_DATA names no folder, and ../shared/data does not exist")
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to connect is an error of its own kind."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
