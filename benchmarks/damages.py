"""What hands, disks and enemies do to files: for ``fuzz.py``, which draws it, and ``torture.py``."""

import copy
import functools
import io
import json
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

SCALARS = st.one_of(
    st.sampled_from(
        [None, True, False, "", "x", "../../x", "\0", "os:system", 0, -1, 1, 2**31, 2**63, 2**64, 10**30, 10**400]
    ),
    st.sampled_from([math.inf, -math.inf, math.nan, 1e308, 1e-308, -0.0, 0.5]),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
SNIPPETS = (
    "!!python/object/apply:os.system ['true']",
    "!!binary aGVsbG8=",
    "&a [*a]",
    "[" * 5000,
    "{a: " * 2000,
    "9" * 6000,
    "&a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]",
    "\t- x",
    "? : ?",
    "<<: *nothing",
    ".inf",
    "1e400",
    "0x" + "f" * 40,
    "2001-02-30",
    "'",
    "---\nx: 1",
    "\ufeff",
    "datasets: digits",
)
HOW = ("cut", "flipped", "emptied", "gone", "garbage", "longer", "a folder", "a pipe", "a link to itself")
HOLES = "1 TB of holes"
DEVICES = ("/dev/zero", "/dev/full", "/dev/tty")


class Damage(NamedTuple):
    """One change of one file."""

    told: str
    do: Callable[[], Any]


def spoil(path: Path, how: str, rng: random.Random) -> None:
    """Damage a file, or put something else in its place."""
    content = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(content[: rng.randrange(max(1, len(content)))])
    elif how == "flipped" and content:
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes((content[place] ^ 1 << rng.randrange(8),)) + content[place + 1 :])
    elif how == "garbage":
        path.write_bytes(rng.randbytes(rng.randrange(1, 5000)))
    elif how == "longer":
        path.write_bytes(content + rng.randbytes(rng.randrange(1, 5000)))
    elif how == "a folder":
        path.mkdir()
    elif how == "a pipe":
        os.mkfifo(path)
    elif how == "a link to itself":
        path.symlink_to(path.name)
    elif how == HOLES:
        path.touch()
        os.truncate(path, 10**12)
    elif how in DEVICES:
        path.symlink_to(how)
    elif how != "gone":
        path.touch()


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Keys and indices of everything in nested values."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [place for key, value in items for place in [(*path, key), *places(value, (*path, key))]]


def changed(draw: st.DrawFn, values: Any) -> tuple[Any, str]:
    """Nested values with one to three of them others, gone or more."""
    told = []
    for _ in range(draw(st.integers(1, 3))):
        found = places(values)
        if not found:
            break
        *parents, last = draw(st.sampled_from(found))
        node = values
        for key in parents:
            node = node[key]
        kind = draw(st.sampled_from(["other", "scaled", "scaled", "gone", "more", "deep"]))
        name = ".".join(map(str, (*parents, last)))
        if kind == "gone":
            del node[last]
        elif kind == "more" and isinstance(node, dict):
            node[draw(st.text(max_size=8))] = draw(VALUES)
        elif kind == "deep":
            node[last] = [node[last]]
        elif kind == "scaled" and type(node[last]) in (int, float):
            node[last] = type(node[last])(node[last] * 10.0 ** draw(st.integers(-4, 12))) + draw(st.integers(-1, 1))
        else:
            node[last] = draw(VALUES)
        told.append(f"{name} {kind}: {str(node.get(last) if isinstance(node, dict) else node[:3])[:60]!r}")
    return values, "; ".join(told)


def spoiled(draw: st.DrawFn, path: Path) -> Damage:
    """A file cut, flipped, or something else in its place."""
    how = draw(st.sampled_from([*HOW, HOLES, *DEVICES]))
    rng = random.Random(draw(st.integers(0, 2**32)))
    return Damage(how, lambda: spoil(path, how, rng))


def text_of(draw: st.DrawFn, content: str) -> tuple[str, str]:
    """Text with a line another, with something put in, or cut."""
    lines = content.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    how = draw(st.sampled_from(["value", "line", "cut", "twice", "indented"]))
    snippet = draw(st.sampled_from(SNIPPETS))
    if how == "value":
        lines[at] = f"{lines[at].partition(':')[0]}: {snippet}"
    elif how == "line":
        lines.insert(at, snippet)
    elif how == "cut":
        lines[at:] = [lines[at][: draw(st.integers(0, 40))]]
    elif how == "twice":
        lines.insert(at, lines[at])
    else:
        lines[at] = " " * draw(st.integers(1, 9)) + lines[at]
    return "\n".join(lines) + "\n", f"line {at + 1} {how}: {snippet[:30]!r}"


@st.composite
def damages(draw: st.DrawFn, root: Path, patterns: tuple[str, ...]) -> Damage:
    """A change of one of the files."""
    path = draw(st.sampled_from(sorted(p for pattern in patterns for p in root.glob(pattern) if p.is_file())))
    name = path.relative_to(root)
    kind = draw(st.sampled_from(["values", "values", "values", "bytes"]))
    if kind == "values" and path.suffix in {".json", ".onnx"}:
        from google.protobuf.message import DecodeError

        try:
            return _values_of(draw, path, f"{name}: ")
        except DecodeError:
            pass
    if kind == "values" and path.suffix in {".yaml", ".yml", ".csv", ".jsonl"}:
        if path.suffix == ".yaml" and draw(st.booleans()):
            values, told = changed(draw, _yaml(path))
            return Damage(f"{name}: {told}", lambda: write_yaml(path, values))
        content, told = text_of(draw, path.read_text())
        return Damage(f"{name}: {told}", lambda: path.write_bytes(content.encode(errors="surrogatepass")))
    damage = spoiled(draw, path)
    return Damage(f"{name} is {damage.told}", damage.do)


def _values_of(draw: st.DrawFn, path: Path, told: str) -> Damage:
    if path.suffix == ".json":
        values, what = changed(draw, json.loads(path.read_text()))
        return Damage(told + what, lambda: path.write_text(json.dumps(values)))
    import onnx

    model = onnx.load(path)
    if draw(st.booleans()):
        prop = draw(st.sampled_from(list(model.metadata_props)))
        prop.value = json.dumps(draw(VALUES)) if draw(st.booleans()) else draw(st.text(max_size=30))
        told += f"metadata {prop.key} = {prop.value[:60]!r}"
    else:
        node = draw(st.sampled_from(list(model.graph.node)))
        kind = draw(st.sampled_from(["gone", "another operator", "another input", "no attributes"]))
        if kind == "gone":
            model.graph.node.remove(node)
        elif kind == "another operator":
            node.op_type = draw(st.sampled_from(["Relu", "Loop", "Identity", "Nonsense", "Concat", "Expand"]))
        elif kind == "another input" and node.input:
            node.input[0] = draw(st.sampled_from(["latent", "condition", "nothing", node.output[0]]))
        else:
            del node.attribute[:]
        told += f"node {node.name} {kind}"
    content = model.SerializeToString()
    return Damage(told, lambda: path.write_bytes(content))


def _yaml(path: Path) -> Any:
    return copy.deepcopy(_parsed(path.read_text()))


@functools.cache
def _parsed(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)


def write_yaml(path: Path, values: Any) -> None:
    from ruamel.yaml import YAML

    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(values, stream)
    path.write_bytes(stream.getvalue().encode(errors="surrogatepass"))
