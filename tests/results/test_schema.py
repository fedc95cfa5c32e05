"""What a results file may say."""

import pytest

from netinv.core import InputError
from netinv.results import Row


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", ".hidden", "/etc/passwd", "a\\b", "", "a\0b", "a\n"])
def test_a_row_is_named_by_no_path(name: str) -> None:
    """Pictures of a row are found by its name."""
    with pytest.raises(InputError, match="name: "):
        Row.parse({"name": name})


@pytest.mark.parametrize("name", ["generator 0", "ensemble", "real_test", "noise"])
def test_the_names_that_the_evaluation_gives(name: str) -> None:
    with pytest.raises(InputError) as raised:  # of what else is missing
        Row.parse({"name": name})
    assert "name: " not in str(raised.value)
