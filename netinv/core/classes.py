"""Whose labels mean the same classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from unicodedata import normalize

from netinv.core.errors import InputError, listed
from netinv.core.numbers import whole


def check_same_classes(orders: Mapping[str, Sequence[str]]) -> None:
    """Refuse to compare things whose labels mean different classes.

    Classes that are only numbered may have any names elsewhere, but not the same numbers in another order.

    Args:
        orders: Names of the classes in label order, by whose they are.

    Raises:
        InputError: Two differ; names both orders.

    Example:
        >>> check_same_classes({"model": ("0", "1"), "data": ("red", "blue"), "inversion": ("red", "blue")})
    """
    # Systems write one name in several forms, which look the same.
    orders = {owner: [normalize("NFC", name) for name in classes] for owner, classes in orders.items()}
    for owner, classes in orders.items():
        for other, others in orders.items():
            if len(classes) != len(others):
                raise InputError(
                    f"{owner} knows {len(classes)} classes, but {other} {len(others)}: give what belongs together."
                )
            free = (_numbered(classes) or _numbered(others)) and {*classes} != {*others}
            if tuple(classes) != tuple(others) and not free:
                hint = ""
                if {*classes} == {*others}:
                    hint = " (those of folders are in alphabetic order: rename the folders, such as 00, 01 and so on)"
                raise InputError(
                    f"The classes of {owner} are {listed(classes)}, in this order, but those of {other} are "
                    f"{listed(others)}: give both the same names in the same order{hint}."
                )


def check_class_names(classes: Any, where: str = "classes") -> None:
    """Make sure that every class can be named: what is given is a sequence of texts, and each is another one.

    Raises:
        InputError: It is none, or a name is empty or there twice.
    """
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise InputError(f"{where} is a {type(classes).__name__}: give names in label order, such as ('red', 'blue').")
    if others := [name for name in classes if not isinstance(name, str)]:
        raise InputError(f"{where}: {others[0]!r} is no text: give names in label order, such as ('0', '1').")
    if "" in classes:
        raise InputError(f"{where}: name {list(classes).index('') + 1} of {len(classes)} is empty: name each class.")
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise InputError(f"{where}: {listed(twice)} stands there more than once: give each class a name of its own.")


def class_number(given: int | str, classes: Sequence[str]) -> int:
    """The label that a person means by a class's name or its number; a name comes first.

    Args:
        given: It.
        classes: Names of the classes in label order.

    Raises:
        InputError: There is no such class; lists those there are.
    """
    if isinstance(given, str) and given not in classes:
        given = normalize("NFC", given)  # the form of a folder's classes, whatever the system writes
    if not isinstance(given, str):
        number = whole(given, "A label")
    elif given in classes:
        number = classes.index(given)
    else:
        number = int(given) if given.isascii() and given.isdigit() else -1
    if not 0 <= number < len(classes):
        known = listed([f"{i} ({name})" for i, name in enumerate(classes)])
        raise InputError(f"Label {given} does not exist: the classes are {known}.")
    return number


def is_misnumbered(classes: Sequence[str]) -> bool:
    """Whether the names are the numbers from 0 on, but not in their order, as those of folders in alphabetic order."""
    return not _numbered(classes) and {*classes} == {str(label) for label in range(len(classes))}


def _numbered(classes: Sequence[str]) -> bool:
    return list(classes) == [str(label) for label in range(len(classes))]
