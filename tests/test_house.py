"""Rules of the house that a program can check."""

import ast
import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML


def _imports(path: Path) -> set[str]:
    """Top-level packages that a module imports, wherever in the module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_the_science_knows_no_pipeline_tool(root: Path) -> None:
    for path in (root / "netinv").rglob("*.py"):
        assert not _imports(path) & {"ray", "mlflow", "dvc", "pipeline"}, path


@pytest.mark.parametrize(("tool", "home"), [("ray", "cluster"), ("mlflow", "tracking")])
def test_one_package_knows_each_tool(root: Path, tool: str, home: str) -> None:
    folder = root / "pipeline"
    assert {path.parent for path in folder.rglob("*.py") if tool in _imports(path)} == {folder / home}


@pytest.mark.parametrize("package", ["cluster", "tracking"])
def test_packages_of_the_pipeline_are_entered_by_the_front_door(root: Path, package: str) -> None:
    home = root / "pipeline" / package
    for path in (*(root / "pipeline").rglob("*.py"), *(root / "benchmarks").glob("*.py")):
        if path.parent != home:
            assert f"pipeline.{package}." not in path.read_text().replace(f"pipeline.{package}.__main__", ""), path


def test_the_folder_mlflow_does_not_shadow_the_library(root: Path) -> None:
    assert not list((root / "mlflow").rglob("*.py"))
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    assert not Path(spec.origin).is_relative_to(root / "mlflow")


def test_folders_of_the_pipeline_do_not_change_how_imports_are_sorted(root: Path) -> None:
    # Else `make test` would fail after `make repro`: a folder of a library's name counts as the project's own.
    stages = YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"]
    outputs = {out.split("/")[0] for stage in stages.values() for out in map(str, stage.get("outs", []))}
    imported = set().union(*(_imports(path) for path in root.glob("*/*.py"))) - {"netinv", "pipeline"}
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["isort"]
    assert outputs & imported <= set(settings["known-third-party"])
    assert outputs & imported


def test_every_path_and_parameter_of_the_pipeline_exists(root: Path) -> None:
    yaml = YAML(typ="safe", pure=True)
    stages = yaml.load(root / "dvc.yaml")["stages"]
    params = yaml.load(root / "params.yaml")
    assert set(stages) == {"fetch", "train", "invert", "evaluate", "export", "export-classifiers", "register", "report"}
    for name, stage in stages.items():
        assert stage["outs"], name
        for path in stage["deps"]:
            if path.endswith((".py", ".html")):
                assert (root / path).is_file(), f"{name}: {path}"
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


def test_invert_depends_on_the_losses_and_train_does_not(root: Path) -> None:
    stages = YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"]
    assert "netinv/losses.py" in stages["invert"]["deps"]
    assert "netinv/losses.py" not in stages["train"]["deps"]
    assert "netinv/training.py" not in stages["invert"]["deps"]


def test_no_machine_path_and_no_registry_in_committed_files(root: Path) -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    forbidden = re.compile(r"/root/|/home/\w|/work/|index-url|pypi\.org|files\.pythonhosted|registry\.npmjs")
    for name in listing.splitlines():
        if name != "tests/test_house.py" and (root / name).suffix not in {".png", ".jpg"}:
            match = forbidden.search((root / name).read_text())
            assert match is None, f"{name}: {match}"


def _library_modules(root: Path, module: Path) -> set[Path]:
    """The modules of the library that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "netinv":
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {root / f"{name.replace('.', '/')}.py" for name in names}
    return {path for path in found if path.is_file()}


def test_training_stages_depend_on_all_that_trains(root: Path) -> None:
    """A change of the science runs them again; what reads files and settings is left out."""
    yaml = YAML(typ="safe", pure=True)
    stages = yaml.load(root / "dvc.yaml")["stages"]
    plumbing = {f"netinv/{name}.py" for name in ("checkpoint", "config", "data", "errors", "files", "sources")}
    for stage, start in (("train", "training"), ("invert", "inversion"), ("invert", "joint")):
        known, ahead = set(), [root / f"netinv/{start}.py"]
        while ahead:
            module = ahead.pop()
            if module not in known:
                known.add(module)
                ahead += _library_modules(root, module)
        needed = {path.relative_to(root).as_posix() for path in known} - plumbing
        assert not needed - set(stages[stage]["deps"]), stage
