"""What several files of these tests share."""

import pytest
from once import made_once
from worlds import World, read_world, train_networks


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Trained once."""
    return read_world(made_once(tmp_path_factory, "world", train_networks))
