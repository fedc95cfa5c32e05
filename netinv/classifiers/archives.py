"""Archives of exported programs, read before torch reads them: what they would have it import, call or unpickle.

Torch's loader takes them for the work of a friend: it looks any dotted name up as a function to be called, has texts of
formulas evaluated as Python, and imports modules that a structure names. Here only tensors and torch's own operations
pass.
"""

import io
import json
import operator
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from netinv.core import InputError, expect_regular, listed

_PLAIN = frozenset(
    "add sub mul truediv floordiv mod pow neg pos abs eq ne lt le gt ge and_ or_ not_ getitem".split()  # noqa: SIM905
)
_HIGHER = {"wrap_with_set_grad_enabled", "wrap_with_autocast", "cond"}
_UNSAFE = {"from_file"}
"""Operations on tensors that open files."""
_RECORDS = {"stack_trace", "from_node"}
"""Texts on where an operation comes from, which torch keeps and never acts on."""
_SYMBOLS = re.compile(r"[A-Za-z_]\w*")
_QUOTED = re.compile(r"'(\w+(?:\.\d+)?)'")
_SYMBOL = re.compile(r"[a-z]{1,4}\d+")
_FORMULA = re.compile(r"[\w\s+\-*/%(),.<>=&|~!]{0,1000}")
_FUNCTIONS = frozenset(
    """
    Max Min FloorDiv ModularIndexing Where PythonMod Mod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift
    PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat Identity
    Eq Ne Lt Le Gt Ge And Or Not True False true false oo int_oo Abs ceiling floor Rational Integer
    Symbol Float Add Mul Pow positive nonnegative integer precision evaluate
    """.split()  # noqa: SIM905
)
"""Of sympy's and torch's, what formulas of sizes consist of."""


def entries(path: Path) -> set[str]:
    """Names in an archive of torch's, without the folder that it packs them into; none where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            # Of a program that was cut, the end of an archive within it is found, after bytes that are none of its own.
            starts = min((member.header_offset for member in archive.infolist()), default=0)
            return {name.partition("/")[2] for name in archive.namelist()} if starts == 0 else set()
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError):
        return set()


def is_program(path: Path) -> bool:
    """Whether a file is, or by its name should be, an exported program; weights and TorchScript never are."""
    names = entries(path) if path.is_file() else set()
    return "archive_format" in names or (path.suffix == ".pt2" and "data.pkl" not in names)


def check_archive(path: Path) -> None:
    """Refuse an archive that holds more than tensors and torch's own operations on them.

    Raises:
        InputError: It cannot be read, or would have Python code run.
    """
    try:
        expect_regular(path)
        with zipfile.ZipFile(path) as archive:
            code = [*_found(archive)]
    except pickle.UnpicklingError:
        code = ["sample_inputs"]
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} is not a readable exported program ({reason}): export it again.") from None
    if code:
        raise InputError(
            f"{path} holds pickled objects or compiled code ({listed([part[:80] for part in code], 3)}), which are not "
            "loaded: save program.run_decompositions({}), which consists of plain operations, in place of the program."
        )


def _found(archive: zipfile.ZipFile) -> Iterator[str]:
    """What must not be loaded."""
    names = [name.lower() for name in archive.namelist()]  # torch's reader takes MODEL.JSON for model.json
    yield from (name for name in set(names) if names.count(name) > 1)  # of two, it might take the other one
    for name in archive.namelist():
        place = name.lower()
        if "/aotinductor/" in place or "/custom_obj" in place or "/opaque_obj" in place:
            yield name
        elif place.endswith(".json"):
            content = json.loads(archive.read(name))
            yield from _foreign(content)
            entries = content.get("config", {}) if place.endswith("_config.json") else {}
            yield from (key for key, entry in entries.items() if entry.get("use_pickle"))
        elif "/sample_inputs/" in place:
            torch.load(io.BytesIO(archive.read(name)), weights_only=True)


def _foreign(value: Any, key: str = "") -> Iterator[str]:
    """Names and texts by which a program would have torch import or evaluate something, at any depth."""
    if isinstance(value, dict):
        if "__enum__" in value or "default_factory_module" in value:
            yield f"a module: {json.dumps(value)}"
        ranges = value.get("range_constraints")
        yield from (name for name in (ranges if isinstance(ranges, dict) else ()) if not _is_formula(name))
        for name, part in value.items():
            yield from _foreign(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _foreign(part, key)
    elif isinstance(value, str):
        if (key == "target" and not _is_operation(value)) or (key == "expr_str" and not _is_formula(value)):
            yield value
        elif key not in _RECORDS and value.lstrip().startswith(("{", "[")):  # a structure, as JSON within JSON
            try:
                inner = json.loads(value)
            except ValueError:
                return
            yield from _foreign(inner, key)


def _is_operation(name: str) -> bool:
    """Whether a name is that of an operation on tensors or numbers, and not of any function that can be found."""
    match name.split("."):
        case ["torch", "ops", "aten", packet, overload] if packet not in _UNSAFE:
            found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
            return isinstance(found, torch._ops.OpOverload)
        case ["torch", "ops", "higher_order", kind]:
            return kind in _HIGHER
        case ["_operator", function]:
            return function in _PLAIN and hasattr(operator, function)
        case ["math", function]:
            return function.isalnum()
        case ["torch", function]:
            return re.fullmatch(r"_?sym_\w+", function) is not None
    return False


def _is_formula(text: str) -> bool:
    """Whether a text is a formula of sizes, and nothing that would do more when sympy evaluates it."""
    text = _QUOTED.sub(r"\1", text)  # as in Symbol('s0')
    names = _SYMBOLS.findall(text)
    attribute = re.search(r"\.\s*[A-Za-z_]", text)
    return (
        _FORMULA.fullmatch(text) is not None
        and attribute is None
        and all(name in _FUNCTIONS or _SYMBOL.fullmatch(name) for name in names)
    )
