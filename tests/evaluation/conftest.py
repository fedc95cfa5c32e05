"""What several files of these tests share."""

import pytest
from worlds import World, make_world


@pytest.fixture(scope="session")
def world() -> World:
    """Trained once."""
    return make_world()
