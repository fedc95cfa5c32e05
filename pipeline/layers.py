"""Settings that lie over one another: what is known, what is given, and the lower ones under the upper."""

from collections.abc import Iterator
from typing import Any, get_args

from netinv.core import Config


def unknown(values: dict[str, Any], kinds: list[type[Config]], where: str = "") -> Iterator[str]:
    """Keys that none of the kinds of settings has, those of null among them, which say nothing and are dropped."""
    for key, value in values.items():
        found = [kind.model_fields[key].annotation for kind in kinds if key in kind.model_fields]
        below = [part for one in found for part in (get_args(one) or (one,)) if isinstance(part, type)]
        configs = [part for part in below if issubclass(part, Config)]
        if not found:
            yield f"{where}{key}"
        elif isinstance(value, dict) and configs:
            yield from unknown(value, configs, f"{where}{key}.")


def given(values: dict[str, Any]) -> dict[str, Any]:
    """What is not null, mapping by mapping."""
    parts = {key: given(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in parts.items() if value is not None and value != {}}


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
