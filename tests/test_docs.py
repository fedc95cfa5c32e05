"""The documentation is built without a warning, its notebook runs, and its commands exist."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from draws import torch_rng
from PIL import Image
from torch import nn

import netinv
from netinv.app.command import cli
from netinv.inversion import InversionConfig
from pipeline import ablation, tune


def test_every_command_and_option_in_the_documentation_exists(root: Path) -> None:
    found = 0
    for page in sorted((root / "docs").glob("*.md")):
        for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(), re.DOTALL):
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


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_help_of_every_command_says_what_its_arguments_are(name: str) -> None:
    command = cli.commands[name]
    for argument in command.params:
        if isinstance(argument, click.Argument):
            assert argument.human_readable_name in str(command.help)
    if "weights" in {parameter.name for parameter in command.params}:
        assert "MODEL is torchvision:NAME" in str(command.help)


@pytest.mark.parametrize("command", [tune.main, ablation.main])
def test_the_help_of_what_is_typed_tells_every_default(command: click.Command) -> None:
    context = click.Context(command)
    for option in command.params:
        if isinstance(option, click.Option) and isinstance(option.type, click.Path):
            _, told = option.get_help_record(context) or ("", "")
            assert "[default: " in told, option.name


def test_the_reference_has_every_name_that_the_library_offers(root: Path) -> None:
    modules = re.findall(r"automodule:: (\S+)", (root / "docs/api.md").read_text())
    for name in set(netinv.__all__) - {"__version__"}:
        assert getattr(netinv, name).__module__ in modules, name


def test_files_that_pages_name_exist(root: Path) -> None:
    """The log and the changelog tell of other days."""
    pages = {path for pattern in ("*.md", "*/*.md", "pipeline/*/*.md") for path in root.glob(pattern)}
    for page in pages - {root / "CHANGELOG.md", root / "docs/LOG.md"}:
        for path in re.findall(r"(?<![\w./-])(?:netinv|pipeline|tests)/[\w/-]*\.\w+", page.read_text()):
            assert (root / path).exists(), f"{page.name}: {path}"


def test_the_readme_names_every_module_of_the_pipeline(root: Path) -> None:
    readme = (root / "README.md").read_text()
    for path in (root / "pipeline").glob("[!_]*.py"):
        assert f"`{path.name}`" in readme, path.name


RUN_BY = {
    "README.md": {"app/test_api.py": 1, "pipeline/test_experiments.py": 2},
    "docs/audit.md": {"audit/test_own_networks.py": 1, "pipeline/test_experiments.py": 2},
    "docs/bring-your-own.md": {"test_docs.py": 3},
    "docs/counterfactuals.md": {"app/test_refining.py": 1},
    "docs/experiments.md": {"pipeline/test_experiments.py": 9},
    "docs/extending.md": {"test_docs.py": 3},
    "docs/index.md": {"app/test_api.py": 1},
    "docs/interpretation.md": {"test_docs.py": 2},
    "docs/onnx.md": {"pipeline/test_experiments.py": 1},
    "docs/scale-out.md": {"pipeline/test_jobs.py": 3, "pipeline/test_tune.py": 1},
    "mlflow/README.md": {"pipeline/test_experiments.py": 2},
}
"""The tests that run the blocks of each page, and how many."""


def test_every_block_that_a_machine_can_run_has_a_test(root: Path) -> None:
    """By the fence: what no test can run (servers, downloads, pseudo-code) is ``sh`` or ``py``."""
    pages = [
        *(root / "docs").glob("*.md"),
        *(root / name for name in ("README.md", "CONTRIBUTING.md", "mlflow/README.md")),
    ]
    found = {
        page.relative_to(root).as_posix(): re.findall(r"^ *```(?:bash|python)$", page.read_text(), re.M)
        for page in pages
    }
    assert {page: len(blocks) for page, blocks in found.items() if blocks} == {
        page: sum(tests.values()) for page, tests in RUN_BY.items()
    }
    for page, tests in RUN_BY.items():
        for name in tests:
            assert page.rpartition("/")[2] in (root / "tests" / name).read_text(), f"{name} runs no blocks of {page}"


COMMAND = 'netinv() { python -c "from netinv.app import main; main()" "$@"; }'
"""This repository's, whatever is installed."""
MODULE = """
from torch import nn

def classifier():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.LeakyReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.LeakyReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )
"""


LOADED = """
import netinv, torch
from my_models import classifier
network = classifier()
network.load_state_dict(torch.load("last.ckpt", weights_only=True))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_commands_for_a_network_of_ones_own_run_as_written(root: Path, tmp_path: Path) -> None:
    """With one that tells three colours apart; those of interpretation.md go on where bring-your-own.md ends."""
    (tmp_path / "my_models.py").write_text(MODULE)
    names: dict[str, Any] = {}
    exec(MODULE, names)
    network = names["classifier"]()
    rng = torch_rng(0)
    labels = torch.arange(3).repeat(40)
    images = 0.3 * torch.rand(120, 3, 32, 32, generator=rng)
    images[torch.arange(120), labels] += 0.5
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    torch.save(network.state_dict(), tmp_path / "last.ckpt")
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "my-images" / ("train" if i % 4 else "test") / f"colour-{label}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image).byte().permute(1, 2, 0).numpy()).save(path)
    pages = [(root / "docs" / name).read_text() for name in ("bring-your-own.md", "interpretation.md")]
    blocks = [block for page in pages for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)]
    (lines,) = re.findall(r"```python\n(.*?)```", pages[1], re.DOTALL)
    (tmp_path / "lines.py").write_text(LOADED + lines)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", "\n".join((COMMAND, *blocks, "python lines.py"))],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 classes, logits" in done.stdout
    assert (tmp_path / "inversion/weights.safetensors").exists()
    assert "<html" in (tmp_path / "report.html").read_text()
    for name in ("learned", "learned-again"):
        assert (tmp_path / name / "units.png").exists()


def test_every_link_between_pages_leads_somewhere(root: Path) -> None:
    for page in (*sorted((root / "docs").glob("*.md")), *(root / f"{name}.md" for name in ("README", "CONTRIBUTING"))):
        for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^):]*))?\)", page.read_text()):
            path = page.parent / target if target else page
            assert path.exists(), f"{page.name}: {target}"
            if heading:
                titles = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
                assert heading in anchors, f"{page.name}: {target}#{heading}"


def test_the_front_page_leads_to_every_page_in_the_order_of_the_menu(root: Path) -> None:
    text = (root / "docs/index.md").read_text()
    menu = [name for names in re.findall(r":caption: .*\n\n((?:\S+\n)+)```", text) for name in names.split()]
    pages = {path.stem for pattern in ("*.md", "*.ipynb") for path in (root / "docs").glob(pattern)}
    assert sorted(menu) == sorted(pages - {"index"})
    guide = text[text.index("## Where to start") : text.index("## In a notebook")]
    assert re.findall(r"\]\(([\w-]+)\.\w+\)", guide) == menu


@pytest.mark.slow
def test_the_documentation_is_built_without_a_warning(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="needs the extra docs")
    pytest.importorskip("myst_parser", reason="needs the extra docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(root / "docs"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in (
        "index",
        "method",
        "bring-your-own",
        "extending",
        "responsible-use",
        "scale-out",
        "tracking",
        "cluster",
        "api",
    ):
        assert (tmp_path / f"{page}.html").exists()
    reference = (tmp_path / "api.html").read_text()
    assert "netinv.invert" in reference
    assert "Type<span" not in reference, "a sentence was taken for a type"
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


def executed(path: Path, folder: Path) -> tuple[str, int]:
    """What a notebook prints when it is run anew in a folder, and how many pictures it shows."""
    nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")
    pytest.importorskip("ipykernel", reason="needs the extra docs")
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")
    return printed, sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_the_first_notebook_runs(root: Path, tmp_path: Path) -> None:
    printed, pictures = executed(root / "docs/quickstart.ipynb", tmp_path)
    assert pictures == 2
    assert "warning: Normalisation is missing" in printed
    accuracies = [float(value) for value in re.findall(r"inversion accuracy ([\d.]+)", printed)]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.9
    assert (tmp_path / "generator.onnx").exists()


@pytest.mark.slow
def test_the_notebook_on_what_was_learned_runs(root: Path, tmp_path: Path) -> None:
    printed, pictures = executed(root / "docs/concepts.ipynb", tmp_path)
    assert pictures == 2
    measures = {name: float(value) for name, value in re.findall(r"^(\w+) +([\d.]+)$", printed, re.MULTILINE)}
    assert measures["explained_variance"] > 0.9
    assert measures["transfer"] > measures["transfer_random"]
    assert len(re.findall(r"^unit +\d+: fires on", printed, re.MULTILINE)) == 6


@pytest.mark.parametrize("name", ["quickstart", "concepts"])
def test_notebooks_hold_the_outputs_of_their_last_run(root: Path, name: str) -> None:
    """The documentation shows them without running anything."""
    cells = [c for c in json.loads((root / f"docs/{name}.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    assert not any(output.get("name") == "stderr" for output in outputs)
    for shown in ("".join(output.get("data", {}).get("text/plain", "")) for output in outputs):
        assert not shown.startswith("Inversion(") or re.fullmatch(r"Inversion\((standard|robust), .*\)", shown)
