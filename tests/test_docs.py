"""The documentation is built without a warning, its notebook runs, and its commands exist."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import click
import pytest
import torch

from netinv.app.command import cli
from netinv.inversion import InversionConfig


def test_every_command_and_option_in_the_documentation_exists(root: Path) -> None:
    found = 0
    for page in sorted((root / "docs").glob("*.md")):
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.split("#")[0].split()
                if not words or words[0] != "netinv":
                    continue
                command = cli.get_command(click.Context(cli), words[1])
                assert command is not None, f"{page.name}: {line}"
                options = {name for parameter in command.params for name in parameter.opts}
                for word in words[2:]:
                    assert not word.startswith("--") or word in options, f"{page.name}: {word} of {line}"
                found += 1
    assert found > 5


def test_every_link_between_pages_leads_somewhere(root: Path) -> None:
    for page in sorted((root / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_documentation_is_built_without_a_warning(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="needs the extra docs")
    pytest.importorskip("myst_parser", reason="needs the extra docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(root / "docs"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in ("index", "method", "bring-your-own", "extending", "responsible-use", "scale-out", "api"):
        assert (tmp_path / f"{page}.html").exists()
    assert "netinv.invert" in (tmp_path / "api.html").read_text()
    for page in tmp_path.glob("*.html"):
        assert not re.search(r'(src|<link[^>]*href)="https?://', page.read_text()), f"{page.name} needs a network"


def test_a_loss_is_added_as_the_page_says(root: Path) -> None:
    """The three pieces of code are put where the page puts them, and the loss has the new term."""
    page = (root / "docs" / "extending.md").read_text()
    function, term, summand = (
        textwrap.dedent(code) for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:3]
    )
    source = (root / "netinv" / "inversion" / "losses.py").read_text()
    source = source.replace("\n    loss = (\n", f"\n    {term.strip()}\n    loss = (\n")
    source = re.sub(
        r"(    loss = \(\n.*?)\n    \)\n", rf"\1\n        {summand.strip()}\n    )\n", source, flags=re.DOTALL
    )
    names: dict[str, Any] = {"__name__": "losses"}
    exec(source + function, names)

    class Config(InversionConfig):
        darkness: float = 0.0

    images, logits = torch.full((4, 1, 2, 2), 0.75), torch.zeros(4, 2)
    vector, label = torch.full((4, 2), 0.5), torch.zeros(4, dtype=torch.long)
    batch = names["Batch"](images, logits, torch.eye(4), torch.zeros(4, 2, 0), vector, label, torch.zeros(4, 1))
    losses = [
        names["inversion_loss"](batch, torch.zeros(1), torch.ones(1), Config(darkness=weight)) for weight in (0.0, 2.0)
    ]
    assert losses[1][1]["darkness"] == 0.25
    assert float(losses[1][0] - losses[0][0]) == pytest.approx(0.5)


@pytest.mark.slow
def test_the_notebook_runs(root: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")
    pytest.importorskip("ipykernel", reason="needs the extra docs")
    import nbformat

    notebook = nbformat.read(root / "docs" / "quickstart.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    printed = "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")
    assert "warning: Normalisation is missing" in printed
    accuracies = [float(value) for value in re.findall(r"inversion accuracy ([\d.]+)", printed)]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.9
    assert (tmp_path / "generator.onnx").exists()
