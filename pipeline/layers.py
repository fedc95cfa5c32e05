"""Settings that lie over one another: what is known, what is given, and the lower ones under the upper."""

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from netinv.core import MAX_LISTED, Config, InputError, listed

NONE = "none"
"""What is written for null where a null says nothing."""


def expect_known(values: dict[str, Any], kinds: list[type[Config]]) -> None:
    """Refuse keys that none of the kinds of settings has, those of null among them, which say nothing and are dropped.

    Raises:
        InputError: Names them, the first ten of many; beside a single one those that there are.
    """
    if strange := [*_unknown(values, kinds)]:
        told = "; ".join(f"{key} is not a known key" for key, _ in strange[:MAX_LISTED])
        raise InputError(told + (f" (there are: {listed(strange[0][1], 40)})" if len(strange) == 1 else ""))


def _unknown(values: dict[str, Any], kinds: list[type[Config]], where: str = "") -> Iterator[tuple[str, list[str]]]:
    """The dotted names of such keys, each with the names of the keys that there are in its place."""
    for key, value in values.items():
        types = [*_types(key, kinds)]
        configs = _configs(types)
        if not types:
            yield f"{where}{key}", [*dict.fromkeys(name for kind in kinds for name in kind.model_fields)]
        elif isinstance(value, dict) and configs:
            yield from _unknown(value, configs, f"{where}{key}.")


def given(values: dict[str, Any], kinds: list[type[Config]]) -> dict[str, Any]:
    """What is not null, mapping of settings by mapping; ``none`` is null for a key that can be null."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        types = [*_types(key, kinds)]
        configs = _configs(types)
        if isinstance(value, dict) and configs:
            if below := given(value, configs):
                found[key] = below
        elif value is not None:
            found[key] = None if value == NONE and type(None) in types else value
    return found


def overlaid(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` with the values of ``over`` laid over it, mappings key by key."""
    result = dict(base)
    for key, value in over.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            # An architecture of another kind is replaced whole: the keys of one kind mean nothing to the other.
            another_kind = "kind" in value and value["kind"] != below.get("kind")
            result[key] = value if another_kind else overlaid(below, value)
        else:
            result[key] = value
    return result


def at(values: Any, place: str) -> Any:
    """What stands at a dotted place; ``None`` if nothing does."""
    for name in place.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _types(key: str, kinds: list[type[Config]]) -> Iterator[Any]:
    """What a key may hold, by the kinds of settings that have it."""
    for kind in kinds:
        if key in kind.model_fields:
            annotation = kind.model_fields[key].annotation
            yield from get_args(annotation) or (annotation,)


def _configs(types: Iterable[Any]) -> list[type[Config]]:
    return [part for part in types if isinstance(part, type) and issubclass(part, Config)]
