"""The base of every configuration: typed, frozen, strict, and able to say what is wrong with its input."""

import json
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from netinv.core.errors import InputError, listed

MAX_LISTED, MAX_QUOTED = 10, 80
"""Keys that one message names, and characters that it quotes of what was given for each."""


class Config(BaseModel):
    """A frozen set of settings. Unknown keys, wrong types and impossible values are refused on construction."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    def __init__(self, **values: Any) -> None:
        """Validate settings by name. A path counts as its text, as in :meth:`parse`.

        Raises:
            InputError: Names every offending key, what was expected and what was given.
        """
        try:
            super().__init__(**{name: str(v) if isinstance(v, PurePath) else v for name, v in values.items()})
        except ValidationError as error:
            raise InputError(explain(error, type(self).__name__, type(self))) from None

    # Pydantic's own mark, without a public name: where it validates a mapping, it then asks its validators, not us.
    vars(__init__)["__pydantic_base_init__"] = True

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Validate a plain mapping (from YAML or JSON), strictly: the string "3" is no number, and a list no mapping.

        Args:
            values: The mapping.
            where: Prefix for key names in messages, such as ``invert.robust``.

        Raises:
            InputError: Names every offending key, what was expected and what was given.
        """
        try:
            # Through JSON, since only there does strict validation take a list for a tuple.
            return cls.model_validate_json(json.dumps(values, default=str), strict=True)
        except ValidationError as error:
            raise InputError(explain(error, where, cls)) from None

    @classmethod
    def expect(cls, value: Any, what: str) -> Self:
        """What is given as these settings, if it is that.

        Args:
            value: It. It is checked once more, since pydantic's ``model_copy`` checks nothing.
            what: What it is called in the error.

        Raises:
            InputError: It is something else, such as a mapping, or has keys or values that these settings have not.
        """
        if not isinstance(value, cls):
            package = ".".join(cls.__module__.split(".")[:2])
            raise InputError(f"{what} is a {type(value).__name__}: give {package}.{cls.__name__}(...).")
        try:
            return type(value).model_validate(vars(value))
        except ValidationError as error:
            raise InputError(explain(error, what, cls)) from None


def explain(error: ValidationError, where: str = "", config: type[BaseModel] | None = None) -> str:
    """A clause for each offending key, the first ten of many: its dotted name, what was expected, what was given.

    Args:
        error: What pydantic says.
        where: Prefix for key names.
        config: What was to be constructed, whose keys are listed beside one that it does not know.
    """
    clauses = []
    items = error.errors(include_url=False)
    # What is wrong within a list is left out of it before it is counted.
    within = {item["loc"][:depth] for item in items for depth in range(len(item["loc"]))}
    items = [item for item in items if item["loc"] not in within]
    for item in items[:MAX_LISTED]:
        key = ".".join((*filter(None, [where]), *map(_name, item["loc"]))) or "the file"
        if item["type"] == "missing":
            clauses.append(f"{key} is required, but was not given")
        elif item["type"] == "extra_forbidden":
            there = _known_keys(config, item["loc"][:-1]) if len(items) == 1 else []  # once is enough
            clauses.append(f"{key} is not a known key" + (f" (there are: {listed(there, 40)})" if there else ""))
        else:
            message = item["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
            message = re.sub(r"^\w+ should have (at \w+ \d+ \w+).*", r"expected \1", message)
            message = message.replace("expected a valid array", "expected a list")
            whole = item["type"] == "value_error" and isinstance(item["input"], Mapping)
            clauses.append(f"{key}: {message}" + ("" if whole else f", got {_quoted(item['input'])}"))
    return "; ".join(clauses) + (f"; and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else "")


def _name(part: int | str) -> str:
    """A key as it is; an overlong or unprintable one is quoted, without line breaks."""
    text = str(part)
    return text if text.isprintable() and len(text) <= MAX_QUOTED else _quoted(text)


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."


def _known_keys(config: type[BaseModel] | None, place: tuple[int | str, ...]) -> list[str]:
    """Names of the settings at a place within a configuration; none where that is no one configuration."""
    kind: Any = config
    for name in place:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            continue
        field = _keys(kind).get(str(name))
        kind = field.annotation if field else None
    return [*_keys(kind)]


def _keys(kind: Any) -> dict[str, FieldInfo]:
    """The settings of a configuration, or of one that may be null."""
    configs = [part for part in (get_args(kind) or (kind,)) if isinstance(part, type) and issubclass(part, BaseModel)]
    return configs[0].model_fields if len(configs) == 1 else {}
