"""Whose labels mean the same classes."""

import pytest

from netinv.core import InputError, class_number
from netinv.core.classes import check_same_classes

NUMBERS = tuple(str(label) for label in range(12))
AS_FOLDERS = tuple(sorted(NUMBERS))  # 0, 1, 10, 11, 2, ...


def test_numbered_classes_may_have_any_names_elsewhere() -> None:
    check_same_classes({"model": ("0", "1"), "data": ("red", "blue")})
    check_same_classes({"model": NUMBERS, "data": NUMBERS})


def test_names_in_another_unicode_form_are_the_same() -> None:
    check_same_classes({"inversion": ("caf\u00e9", "tea"), "data": ("cafe\u0301", "tea")})
    assert class_number("cafe\u0301", ("tea", "caf\u00e9")) == 1
    assert class_number("cafe\u0301", ("tea", "cafe\u0301")) == 1  # an older file's


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("red", "blue"), ("blue", "red")),
        (("red", "blue"), ("red", "green")),
        (("0", "1"), ("1", "0")),
        (NUMBERS, AS_FOLDERS),
        (AS_FOLDERS, NUMBERS),
    ],
)
def test_the_same_names_in_another_order_are_refused(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    way_out = r" \(those of folders .*: rename the folders, such as 00, 01 and so on\)" if {*one} == {*other} else ""
    with pytest.raises(InputError, match=rf"give both the same names in the same order{way_out}\.$"):
        check_same_classes({"inversion": one, "data": other})


def test_other_numbers_of_classes_are_refused() -> None:
    with pytest.raises(InputError, match="model knows 2 classes, but data 3"):
        check_same_classes({"model": ("0", "1"), "data": ("a", "b", "c")})
