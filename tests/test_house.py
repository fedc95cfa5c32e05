"""Rules of the house that a program can check."""

import ast
import importlib
import importlib.util
import re
import statistics
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from netinv.core import VARIANTS
from netinv.core.errors import EXTRA

FLOORS = (
    "app",
    "report",
    "export",
    "audit",
    "interpretation",
    "evaluation",
    "inversion",
    "generators",
    "classifiers",
    "sampling",
    "results",
    "perturbations",
    "data",
    "core",
)
"""The packages of the library, from the front of the house to its ground."""
SHARED = {"ending", "estimates", "progress", "stage", "tracking"}
"""Modules of the pipeline that every stage uses, and no output depends on."""
SETTINGS = {"layers", "params"}
"""Those that make settings of parameters: they name those of all packages, and a stage reads its own."""


def _imports(path: Path) -> set[str]:
    """Top-level packages that a module imports, wherever in the module."""
    return {name.split(".")[0] for name, _ in _imported(path)}


@cache
def _imported(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Modules that a module imports, wherever in it, each with the names that it takes from there."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            found.append((node.module or "", tuple(alias.name for alias in node.names)))
    return found


def _rooms(path: Path) -> set[str]:
    """Packages of the library that a module imports from."""
    rooms = set()
    for name, taken in _imported(path):
        if name == "netinv":
            rooms |= {part for part in taken if part in FLOORS}
        elif name.startswith("netinv."):
            rooms.add(name.split(".")[1])
    return rooms


def _below(root: Path, rooms: set[str]) -> set[str]:
    """Packages together with all that they stand on."""
    whole = set(rooms)
    for room in FLOORS:  # imports go down, so that one pass is enough
        if room in whole:
            whole |= set().union(*(_rooms(path) for path in (root / "netinv" / room).glob("*.py")))
    return whole


def _sources(root: Path) -> Iterator[Path]:
    for folder in ("netinv", "pipeline"):
        yield from sorted((root / folder).rglob("*.py"))


def _stages(root: Path) -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"]
    return stages


def _outs(stage: dict[str, Any]) -> Iterator[str]:
    """Paths of a stage's outputs of every kind."""
    for entry in (entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])):
        yield from [entry] if isinstance(entry, str) else entry


def test_no_output_persists(root: Path) -> None:
    """DVC has no run cache of a stage with an output that does: what a job made would not come home."""
    for name, stage in _stages(root).items():
        for entry in (entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])):
            assert isinstance(entry, str) or not any("persist" in options for options in entry.values()), name


def test_every_package_of_the_library_has_its_floor(root: Path) -> None:
    assert {path.name for path in (root / "netinv").iterdir() if (path / "__init__.py").exists()} == set(FLOORS)
    assert [path.name for path in (root / "netinv").glob("*.py")] == ["__init__.py"]


def test_nothing_in_the_library_imports_from_its_top(root: Path) -> None:
    for path in (root / "netinv").glob("*/*.py"):
        taken = {name for module, names in _imported(path) if module == "netinv" for name in names}
        assert taken <= set(FLOORS), path


def test_imports_go_down_only(root: Path) -> None:
    for height, room in enumerate(FLOORS):
        for path in (root / "netinv" / room).rglob("*.py"):
            assert _rooms(path) <= set(FLOORS[height:]), path


def test_nobody_imports_past_a_front_door(root: Path) -> None:
    benchmarks = [*(root / "benchmarks").rglob("*.py"), *(root / "docs").glob("*.py")]
    for path in [*_sources(root), *benchmarks]:
        own = path.parent.name if path.is_relative_to(root / "netinv") else ""
        for name, taken in _imported(path):
            parts = name.split(".")
            if parts[0] == "netinv" and len(parts) > 1 and parts[1] != own:
                assert len(parts) == 2, f"{path} imports {name}"
                doors = importlib.import_module(name).__all__
                assert set(taken) <= set(doors), f"{path} imports {set(taken) - set(doors)} of {name}"
            if parts[0] == "pipeline" and len(parts) > 1 and (root / "pipeline" / parts[1]).is_dir():
                # Benchmarks that break things on purpose reach inside.
                if path in benchmarks or path.is_relative_to(root / "pipeline" / parts[1]):
                    continue
                assert len(parts) == 2, f"{path} imports {name}"
                doors = importlib.import_module(name).__all__
                assert set(taken) <= set(doors), f"{path} imports {set(taken) - set(doors)} of {name}"


def test_no_two_modules_import_each_other(root: Path) -> None:
    modules = {path.relative_to(root).with_suffix("").as_posix().replace("/", "."): path for path in _sources(root)}
    ahead = {
        name: {
            other
            for module, taken in _imported(path)
            for other in (module, *(f"{module}.{part}" for part in taken))
            if other in modules and other != name
        }
        for name, path in modules.items()
    }
    while ahead:
        free = {name for name, others in ahead.items() if not others & ahead.keys()}
        assert free, f"a cycle among {sorted(ahead)}"
        ahead = {name: others for name, others in ahead.items() if name not in free}


def test_the_science_knows_no_pipeline_tool(root: Path) -> None:
    for path in (root / "netinv").rglob("*.py"):
        assert not _imports(path) & {"ray", "mlflow", "dvc", "pipeline"}, path


def test_one_module_imports_onnxruntime(root: Path) -> None:
    """It sees to it that nothing is reported, which has to be before."""
    knowing = {path for path in (root / "netinv").rglob("*.py") if "onnxruntime" in _imports(path)}
    assert knowing == {root / "netinv/sampling/sessions.py"}


def test_every_module_of_the_extra_torch_is_known_by_name(root: Path) -> None:
    """An error names them, with the way to install them."""
    base = {"netinv", "PIL", "click", "gradio", "lazy_loader", "numpy", "onnxruntime", "pydantic"}
    imported = set().union(*(_imports(path) for path in (root / "netinv").rglob("*.py")))
    assert imported - base - sys.stdlib_module_names == {name for name in EXTRA if "." not in name}


def test_tensors_are_written_as_other_files_are(root: Path) -> None:
    """``save_file`` tells of a full disk with an exception of its own, and only its owner can read the file."""
    for path in _sources(root):
        assert not {name for _, names in _imported(path) for name in names} & {"save_file", "save_model"}, path


def test_sampling_knows_no_torch(root: Path) -> None:
    for room in ("sampling", "core"):
        tree = [ast.parse(path.read_text()) for path in (root / "netinv" / room).glob("*.py")]
        at_once = [node for module in tree for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [node for node in at_once if "torch" in ast.unparse(node)], room


def test_names_of_tests_and_benchmarks_are_unique(root: Path) -> None:
    """All are imported by their bare names, so that two of one name would hide each other."""
    names = Counter(path.stem for path in (root / "tests").rglob("*.py") if path.name != "conftest.py")
    names += Counter(path.stem for path in (root / "benchmarks").glob("*.py"))
    names += Counter(path.parent.name for path in (root / "benchmarks").glob("*/__init__.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_helper_of_the_tests_is_explained(root: Path) -> None:
    modules = {path.relative_to(root).as_posix() for path in (root / "tests").rglob("*.py")}
    listed = re.findall(r"^\| `(\S+)` \| \S", (root / "tests/README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path for path in modules if not re.search(r"/(test_\w+|conftest)\.py$", path))


@pytest.mark.parametrize(("tool", "home"), [("ray", "cluster"), ("mlflow", "tracking")])
def test_one_package_knows_each_tool(root: Path, tool: str, home: str) -> None:
    knowing = {path for path in (root / "pipeline").rglob("*.py") if tool in _imports(path)}
    assert knowing
    assert {path.relative_to(root / "pipeline").parts[0] for path in knowing} == {home}


@pytest.mark.parametrize(
    ("words", "home"),
    [("cuda.is_available() else", "netinv/core/devices.py"), ('Path("runs', "pipeline/tracking/lineage.py")],
)
def test_one_module_knows_the_best_device_and_where_runs_are_told(root: Path, words: str, home: str) -> None:
    assert [path for path in _sources(root) if words in path.read_text()] == [root / home]


def test_one_file_uses_what_ray_does_not_make_public(root: Path) -> None:
    inner = re.compile(r"ray\._private|ray\.core\.generated|/ray\.rpc|RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER|gcs_server")
    using = [path for path in (root / "pipeline").rglob("*.py") if inner.search(path.read_text())]
    assert using == [root / "pipeline/cluster/workarounds.py"]


def test_the_folder_mlflow_does_not_shadow_the_library(root: Path) -> None:
    assert not list((root / "mlflow").rglob("*.py"))
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    assert not Path(spec.origin).is_relative_to(root / "mlflow")


def test_folders_of_the_pipeline_do_not_change_how_imports_are_sorted(root: Path) -> None:
    # Else `make test` would fail after `make repro`: a folder of a library's name counts as the project's own.
    outputs = {out.split("/")[0] for stage in _stages(root).values() for out in _outs(stage)}
    imported = set().union(*(_imports(path) for path in _sources(root))) - {"netinv", "pipeline"}
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["isort"]
    assert outputs & imported <= set(settings["known-third-party"])
    assert outputs & imported


def test_every_path_and_parameter_of_the_pipeline_exists(root: Path) -> None:
    stages = _stages(root)
    params = YAML(typ="safe", pure=True).load(root / "params.yaml")
    assert set(stages) == {
        "fetch",
        "train",
        "invert",
        "evaluate",
        "interpret",
        "export",
        "export-classifiers",
        "audit",
        "register",
        "report",
    }
    for name, stage in stages.items():
        assert stage["outs"], name
        for path in stage["deps"]:
            if path.startswith(("netinv/", "pipeline/")):
                assert (root / path).exists(), f"{name}: {path}"
        for dataset in params["presets"]:
            for key in stage.get("params", []):
                for variant in ("standard", "robust"):
                    for model in ("classifier", "evaluator"):
                        value = params
                        filled = key.replace("${item.dataset}", dataset)
                        filled = filled.replace("${item.variant}", variant).replace("${item.model}", model)
                        for part in filled.split("."):
                            assert part in value, f"{name}: {filled}"
                            value = value[part]


def test_a_stage_depends_on_the_packages_that_it_uses_and_on_no_others(root: Path) -> None:
    for name, stage in _stages(root).items():
        own = [root / path for path in stage["deps"] if path.startswith("pipeline/")]
        assert root / "pipeline" / f"{name.partition('-')[0]}.py" in own
        files = [file for path in own for file in ([path] if path.is_file() else path.glob("*.py"))]
        used = _below(root, set().union(*(_rooms(file) for file in files if file.stem not in SETTINGS)))
        assert {path for path in stage["deps"] if path.startswith("netinv/")} == {f"netinv/{room}" for room in used}
        others = {part.split(".")[1] for file in files for part, _ in _imported(file) if part.startswith("pipeline.")}
        assert others - SHARED <= {path.stem for path in own}, name


def test_every_output_of_a_stage_is_tried_before_its_work(root: Path) -> None:
    """``replaced`` tries what it is given; an output that the block alone knows of could cost all of its work."""
    for name, stage in _stages(root).items():
        outs = [*_outs(stage)]
        options = dict(re.findall(r"--(\w+) (\S+)", stage["cmd"]))
        written = {option for option, path in options.items() if any(f"{out}/".startswith(f"{path}/") for out in outs)}
        module, command = re.findall(r"-m pipeline\.(\w+) (\w*)", stage["cmd"])[0]
        tree = ast.parse((root / "pipeline" / f"{module}.py").read_text())
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        calls = [node for node in ast.walk(functions.get(command, functions["main"])) if isinstance(node, ast.Call)]
        tried = {ast.unparse(part) for call in calls if ast.unparse(call.func) == "replaced" for part in call.args}
        assert written, name
        assert written <= tried, name


def test_no_machine_path_and_no_registry_in_committed_files(root: Path) -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    forbidden = re.compile(r"/root/|/home/\w|/work/|index-url|pypi\.org|files\.pythonhosted|registry\.npmjs")
    for name in listing.splitlines():
        if name != "tests/test_house.py" and (root / name).suffix not in {".png", ".jpg"} and (root / name).exists():
            match = forbidden.search((root / name).read_text())
            assert match is None, f"{name}: {match}"


def test_files_and_functions_are_short(root: Path) -> None:
    """Of the product: no file over 350 lines, functions of 8 lines in the middle, and none over 60."""
    lengths = []
    for path in _sources(root):
        text = path.read_text()
        assert len(text.splitlines()) <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lengths.append((_length(node), f"{path.name}:{node.name}"))
    for path in (path for folder in ("netinv", "pipeline") for path in (root / folder).rglob("*")):
        assert path.suffix not in {".html", ".css", ".js"} or len(path.read_text().splitlines()) <= 350, path
    lengths.sort(reverse=True)
    numbers = [length for length, _ in lengths]
    assert numbers[0] <= 60, lengths[:5]
    assert statistics.quantiles(numbers, n=10)[-1] <= 30
    assert statistics.median(numbers) <= 8


def _length(node: ast.FunctionDef) -> int:
    """Lines of a function from its name to its end, its docstring not counted."""
    assert node.end_lineno is not None
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if documented and first.end_lineno is not None else 0
    return node.end_lineno - node.lineno + 1 - docstring


def _tree(root: Path) -> re.Match[str]:
    """The README's list of the library's files."""
    tree = re.search(r"```\nnetinv/.*?```", (root / "README.md").read_text(), re.DOTALL)
    assert tree is not None
    return tree


def test_every_line_of_the_tree_in_the_readme_stands_alone(root: Path) -> None:
    """A search shows one line without those above it."""
    first_words = re.findall(r"^ +[\w.]+/? +(\S+)", _tree(root).group(), re.MULTILINE)
    assert len(first_words) > 100
    assert not set(first_words) & {"and", "how", "it", "its", "that", "their", "them", "they", "this", "what", "who"}


def test_the_main_path_comes_before_the_tree_in_the_readme(root: Path) -> None:
    before = _tree(root).string[: _tree(root).start()]
    for path in (
        "data/dataset.py",
        "classifiers/networks.py",
        "generators/conditioning.py",
        "generators/network.py",
        "inversion/step.py",
        "inversion/losses.py",
        "inversion/loop.py",
    ):
        assert path in before
        assert (root / "netinv" / path).exists()


def test_the_tree_in_the_readme_is_that_of_the_folders(root: Path) -> None:
    """Every module of the library stands there with a line of its own, below its package."""
    told: dict[str, list[str]] = {}
    room = ""
    for line in _tree(root).group().splitlines()[2:-1]:
        if package := re.match(r"  (\w+)/ ", line):
            room = package[1]
            told[room] = []
        elif module := re.match(r"    (\w+\.\w+) +\S", line):
            told[room].append(module[1])
    there = {
        room: sorted(
            path.name for path in (root / "netinv" / room).iterdir() if path.is_file() and path.name != "__init__.py"
        )
        for room in FLOORS
    }
    assert list(told) == list(FLOORS)
    assert {room: sorted(names) for room, names in told.items()} == there


def test_all_that_a_variant_needs_is_listed(root: Path) -> None:
    """Files with a key, a field or a colour for each variant, which one more would need too."""
    paths = (path for room in ("netinv", "pipeline") for path in (root / room).rglob("*.*"))
    texts = {path: path.read_text() for path in paths if path.suffix in (".py", ".css")}
    keys = [rf'^\s*(--)?"?{variant}"?: ' for variant in VARIANTS]
    holding = {path for path, text in texts.items() if all(re.search(key, text, re.MULTILINE) for key in keys)}
    recipe = (root / "CONTRIBUTING.md").read_text().partition("- A variant: ")[2].partition("\n- ")[0]
    assert len(holding) > 1
    assert {path.relative_to(root).as_posix() for path in holding} <= set(re.findall(r"`(\S+)`", recipe))
