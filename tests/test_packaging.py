"""What is shipped: every file is in the wheel, and the wheel works where there is no repository."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from netinv import __version__


def run(*command: str | Path, **environment: str) -> str:
    """Output of a command that must succeed, away from the repository's modules."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(list(map(str, command)), env=clean | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def tracked(root: Path) -> list[str]:
    """The repository's files."""
    return run("git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()


@pytest.fixture(scope="session")
def source(root: Path, tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of them: building leaves folders behind."""
    folder = tmp_path_factory.mktemp("source")
    for name in tracked:
        if (root / name).is_file() and name.split("/")[0] in {
            "netinv",
            "pipeline",
            "pyproject.toml",
            "README.md",
            "LICENSE",
        }:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name)
    return folder


def test_every_file_of_the_packages_is_shipped(source: Path, tracked: list[str]) -> None:
    """By setuptools' own lists, which need no package index."""
    pytest.importorskip("setuptools", minversion="77", reason="builds the list of files")
    script = (
        "import sys, setuptools; sys.argv = ['setup.py', '-q', 'build', '--build-base', 'made']; setuptools.setup()"
    )
    subprocess.run([sys.executable, "-c", script], cwd=source, check=True, capture_output=True)
    shipped = {path.relative_to(source / "made" / "lib").as_posix() for path in (source / "made" / "lib").rglob("*.*")}
    assert shipped == {name for name in tracked if name.startswith(("netinv/", "pipeline/"))}
    assert {"netinv/py.typed", "pipeline/__init__.py"} <= shipped


def test_nothing_of_the_last_build_is_left_for_the_next_wheel(root: Path, tmp_path: Path) -> None:
    old = [tmp_path / name for name in ("build/lib/netinv/gone.py", "dist/network_inversion-0.0-py3-none-any.whl")]
    docs = tmp_path / "build/docs/index.html"
    for path in (*old, docs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    pip = tmp_path / "build/pip/bin/python"
    pip.parent.mkdir(parents=True)
    pip.symlink_to(shutil.which("true") or "")
    run("make", "-C", tmp_path, "-f", root / "Makefile", "wheel", "PYTHON=true")
    assert [path.exists() for path in (*old, docs)] == [False, False, True]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The place of an environment that `make` takes for its own."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.installed").touch()
    return tmp_path / ".venv"


def test_an_environment_that_was_moved_or_copied_is_made_anew(root: Path, installed: Path) -> None:
    made = f"-m venv --clear {installed}"
    for text, anew in (("", False), (f"{installed}\n", False), ("/another/.venv\n", True)):  # older ones say nothing
        (installed / ".installed").write_text(text)
        assert (made in run("make", "--dry-run", "-C", root, "install", f"VENV={installed}")) == anew
    linked = installed.with_name("linked")
    linked.symlink_to(installed)
    (installed / ".installed").write_text(f"{installed.resolve()}\n")
    assert "-m venv" not in run("make", "--dry-run", "-C", root, "install", f"VENV={linked}")


def test_the_paper_has_no_audit_in_an_experiment_without_its_data_set(root: Path, installed: Path) -> None:
    told = run("make", "--dry-run", "-C", root, "paper", f"VENV={installed}", "JOBS=1")
    queued = re.search(r"for name in mnist (?s:.*?)done", told)
    assert queued
    assert "--set-param 'audit.datasets=[]'" in queued[0]
    assert told.count("audit.datasets") == 1


def test_nobody_is_told_to_install_the_other_netinv(root: Path, tracked: list[str]) -> None:
    other = re.compile(r"pip install[^\n]*?[ '\"`]netinv\b(?!/)|package_name=.netinv|version\(.netinv")
    for name in tracked:
        path = root / name
        if (
            path.is_file()
            and path.suffix in {".py", ".md", ".ipynb", ".toml", ".yaml", ".html"}
            and path != Path(__file__)
        ):
            match = other.search(path.read_text())
            assert match is None, f"{name}: {match}"


def test_the_citation_is_of_this_version_and_licence(root: Path) -> None:
    citation = YAML(typ="safe", pure=True).load(root / "CITATION.cff")
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert str(citation["version"]) == __version__
    assert citation["license"] == project["license"] == "Apache-2.0"
    assert citation["preferred-citation"]["title"].startswith("Network Inversion of Convolutional Neural Nets")
    assert "Apache License" in (root / "LICENSE").read_text()


def test_tests_draw_from_the_common_seed(root: Path) -> None:
    own = re.compile(
        r"np\.random\.(default_rng|seed)\(|Generator\(\)\.manual_seed\(|^\s*torch\.manual_seed\(", re.MULTILINE
    )
    for path in (root / "tests").rglob("*.py"):
        assert path.name in {"draws.py", "test_packaging.py"} or not own.search(path.read_text()), path.name


TRAIN = """
import torch
import netinv
from netinv.sampling import OnnxGenerator

torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
config = netinv.InversionConfig(steps=5, batch_size=8)
inversion = netinv.invert(network, image_shape=(1, 8, 8), num_classes=3, config=config)
assert inversion.sample(label=1, num=4).shape == (4, 1, 8, 8)
inversion.save("inversion")
inversion.to_onnx("generator.onnx")
"""
DRAW = """
import importlib.util, sys
import netinv
from netinv.sampling import OnnxGenerator

assert importlib.util.find_spec("torch") is None
images = OnnxGenerator("generator.onnx").sample(8, labels=2, seed=0).images
assert images.shape == (8, 1, 8, 8) and 0 <= images.min() <= images.max() <= 1
assert "site-packages" in netinv.__file__, netinv.__file__
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_works_in_an_empty_environment(root: Path, source: Path, tmp_path: Path) -> None:
    """In the base installation and in that of the library; needs a package index."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"network_inversion-{__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    pythons = {}
    for name, extra in (("full", "[torch]"), ("base", "")):
        venv.create(tmp_path / name, with_pip=True)
        pythons[name] = tmp_path / name / "bin" / "python"
        pip = (pythons[name], "-m", "pip", "install", "--quiet", "--constraint", root / "constraints.txt")
        run(*pip, f"{wheel}{extra}")
    for name, program in (("full", TRAIN), ("base", DRAW)):
        (tmp_path / "program.py").write_text(f"import os\nos.chdir({str(tmp_path)!r})\n{program}")
        run(pythons[name], "-W", "ignore", tmp_path / "program.py")
    command = tmp_path / "base" / "bin" / "netinv"
    assert __version__ in run(command, "--version")
    run(command, "sample", tmp_path / "generator.onnx", "--label", "1", "--num", "4", "--out", tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 100
    done = subprocess.run([command, "export", tmp_path, "--out", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: This needs torch, which is not installed: ")
