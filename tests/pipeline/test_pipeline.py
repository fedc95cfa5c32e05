"""The real thing, small: a fresh repository, `dvc repro`, real Ray, real MLflow, real images."""

import csv
import json
import re
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from repositories import executed, run, set_params
from ruamel.yaml import YAML

from netinv.results import HEADLINE, load_interpretation
from netinv.sampling import OnnxGenerator


@pytest.mark.slow
def test_no_altered_file_ends_a_reader_in_a_trace(root: Path, project: Path) -> None:
    """The smallest campaign of ``make torture``: every kind of file that the pipeline or a person brings."""
    fuzz = [sys.executable, str(root / "benchmarks/fuzz.py"), "--project", str(project)]
    result = run(root, *fuzz, "--settings", "100", "--files", "300", PYTHONPATH=str(root), check=False)
    assert result.returncode == 0, result.stderr[-5000:]
    tried = [int(line.split("|")[2]) for line in result.stdout.splitlines() if re.search(r"\| \d+ \|", line)]
    assert len(tried) == 16
    assert sum(tried) > 350


def test_every_output_is_there(project: Path) -> None:
    for variant in ("standard", "robust"):
        for i in range(2):
            with (project / f"generators/digits/{variant}/{i}/history.csv").open() as file:
                steps = [int(row["step"]) for row in csv.DictReader(file)]
            assert steps == sorted(set(steps))
            exported = OnnxGenerator(project / f"onnx/digits/{variant}/generator-{i}.onnx")
            assert exported.metadata.field_side == (4 if variant == "robust" else 0)  # as params.yaml has it
            assert (project / f"cards/digits/{variant}/generator-{i}.md").read_text().startswith("---\n")
    assert (project / "onnx/digits/classifiers/classifier.onnx").is_file()
    found = load_interpretation(project / "interpretation/digits")
    assert {row.source for row in found.dictionaries} >= {"generated", "standard", "robust", "real", "noise"}
    assert len(found.units) == 4
    page = (project / "report/index.html").read_text()
    assert "<html" in page
    assert "What the classifier has learned" in page
    assert not re.search(r"(src|href)=[\"']https?://", page)
    assert {path.suffix for path in (project / ".stage").rglob("*") if path.is_file()} == {".lock"}


def test_second_repro_runs_nothing(project: Path) -> None:
    assert executed(run(project, "dvc", "repro").stdout) == []


def test_robust_epsilon_concerns_only_the_robust_variant(project: Path) -> None:
    set_params(project, **{"invert.robust.epsilon": 0.0625})
    try:
        plan = executed(run(project, "dvc", "repro", "--dry").stdout)
    finally:
        run(project, "git", "checkout", "params.yaml")
    assert plan[0] == "invert@digits-robust"
    assert not [stage for stage in plan if "standard" in stage or stage.startswith(("fetch", "train"))]


STATUS = """
import json, sys
from pathlib import Path
from dvc.repo import Repo

found = {}
repo = Repo()
for path in sorted(Path("netinv").rglob(sys.argv[1])):
    if "__pycache__" not in path.parts and len(path.parts) > 2:
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        found[path.as_posix()] = sorted(repo.status())
        path.write_bytes(before)
print(json.dumps([found, repo.status()]))
"""


@pytest.mark.parametrize(
    ("files", "least"), [("lo*.py", 2), pytest.param("*.*", 60, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_change_in_any_file_of_the_library_runs_the_stages_that_use_its_package(
    project: Path, files: str, least: int
) -> None:
    """What they use, ``test_house`` reads from their imports; here DVC is asked, file by file."""
    found, untouched = json.loads(run(project, sys.executable, "-c", STATUS, files).stdout.splitlines()[-1])
    assert untouched == {}
    stages = YAML(typ="safe", pure=True).load(project / "dvc.yaml")["stages"]
    del stages["audit"]  # no data set of these settings is audited
    assert len(found) >= least
    for path, again in found.items():
        package = "/".join(path.split("/")[:2])
        assert {stage.split("@")[0] for stage in again} == {n for n, s in stages.items() if package in s["deps"]}, path


def test_metrics_are_there_for_dvc(project: Path) -> None:
    metrics = json.loads(run(project, "dvc", "metrics", "show", "--json").stdout)
    files = metrics[""]["data"]
    assert set(files) == {f"metrics/evaluate/digits-{variant}.json" for variant in ("standard", "robust")}
    for file in files.values():
        assert {*file["data"]} == {*HEADLINE, "leak"}
        assert len(file["data"]) <= 10
        assert 0 <= file["data"]["inversion_accuracy"] <= 1
    folders = [f"evaluation/digits/{variant}" for variant in ("standard", "robust")]
    code = "from netinv.app import main; main()"
    summary = run(project, sys.executable, "-c", code, "summary", *folders, "--width", "80").stdout
    assert "Inversion accuracy" in summary
    assert "standard" in summary.splitlines()[0]
    assert all(len(line) <= 80 for line in summary.splitlines())
    with (project / "plots/evaluate/digits-standard/confusion_evaluator.csv").open(newline="") as file:
        counts = list(csv.DictReader(file))
    assert {c["actual"] for c in counts} == {c["predicted"] for c in counts} == {*"0123456789"}


def test_plots_are_drawn_without_a_network(project: Path, browser: Any) -> None:
    address = run(project, "dvc", "plots", "show").stdout.strip()
    assert address.endswith("index.html")
    page = browser.new_page()
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_function("document.querySelectorAll('canvas.marks').length === 15")
    folder = address.removesuffix("index.html")
    assert all(url.startswith((folder, "data:", "blob:")) for url in requests), requests
    assert errors == []


def test_every_stage_run_is_in_mlflow(project: Path) -> None:
    with sqlite3.connect(project / "mlflow.db") as store:
        runs = dict(store.execute("select run_uuid, status from runs where lifecycle_stage = 'active'"))
        tags = store.execute("select run_uuid, key, value from tags").fetchall()
        (points,) = store.execute("select count(*) from metrics where key = 'invert/accuracy'").fetchone()
    assert set(runs.values()) == {"FINISHED"}
    by_stage: dict[str, int] = {}
    for run_id, key, value in tags:
        if key == "stage" and run_id in runs:
            by_stage[value] = by_stage.get(value, 0) + 1
    assert by_stage["train"] == 2
    assert by_stage["fetch"] == by_stage["interpret"] == 1
    assert by_stage["invert"] in {2, 6}  # the stages, and perhaps their generators under the same tag
    assert points >= 4
    recorded = json.loads((project / "runs/invert/digits-robust.json").read_text())["run_id"]
    assert recorded in runs
    evaluate = json.loads((project / "runs/evaluate/digits-robust.json").read_text())["run_id"]
    assert (evaluate, "input.invert.digits-robust", recorded) in tags
    with sqlite3.connect(project / "mlflow.db") as store:
        params = dict(store.execute("select key, value from params where run_uuid = ?", (evaluate,)))
        generators = store.execute(
            "select name, key from params join runs using (run_uuid) where name like 'generator % of digits robust%'"
        ).fetchall()
    assert {key for _, key in generators} == {"seed"}  # what tells one from another
    assert len(generators) == 2
    assert params["invert.steps"] == "10"  # what led to these measures, under names that all variants share
    assert params["train.classifier.training.epochs"] == "3"


def test_every_generator_is_in_the_registry(project: Path) -> None:
    with sqlite3.connect(project / "mlflow.db") as store:
        versions = store.execute("select name, run_id, description from model_versions").fetchall()
        aliases = store.execute("select name, alias from registered_model_aliases").fetchall()
        names = dict(store.execute("select run_uuid, name from runs"))
    models = {f"netinv-digits-{variant}" for variant in ("standard", "robust")}
    assert sorted(name for name, _, _ in versions) == sorted([*models, *models])
    assert {(name, "champion") for name in models} <= set(aliases)
    assert {names[run_id].partition(" (")[0] for _, run_id, _ in versions} == {
        f"generator {i} of digits {variant}" for i in range(2) for variant in ("standard", "robust")
    }
    assert all("evaluator_accuracy" in card and "CC BY 4.0" in card for _, _, card in versions)


@pytest.mark.slow
def test_generators_of_one_worker_come_out_as_of_workers_of_their_own(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "project"
    shutil.copytree(project, copy, symlinks=True)
    set_params(copy, **{"ray.generators_per_worker": 2})
    command = (sys.executable, "-m", "pipeline.invert", "digits", "robust", "--model", "models/digits/classifier")
    run(copy, *command, "--out", "together", "--metrics", "together.json", "--plots", "together.csv")
    for i in range(2):
        alone, together = (
            [{name: float(value) for name, value in row.items()} for row in csv.DictReader(text.splitlines())]
            for text in (
                (copy / folder / str(i) / "history.csv").read_text()
                for folder in ("generators/digits/robust", "together")
            )
        )
        assert together == [pytest.approx(record, rel=0.02, abs=0.02) for record in alone]
    assert {path.suffix for path in (copy / ".stage").rglob("*") if path.is_file()} == {".lock"}


@pytest.mark.slow
def test_generators_that_lack_a_class_are_trained_again(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "project"
    shutil.copytree(project, copy, symlinks=True)
    set_params(copy, **{"invert.common.attempts": 2, "invert.robust.steps": 2})
    command = (sys.executable, "-m", "pipeline.invert", "digits", "robust", "--model", "models/digits/classifier")
    result = run(copy, *command, "--out", "again", "--metrics", "again.json", "--plots", "again.csv")
    assert "generator 0, generator 1 cannot draw a class: attempt 2 of 2" in result.stderr
    assert "Of the classes" in result.stderr  # two steps were not enough at the second attempt, either
    assert sorted(path.name for path in (copy / "again").iterdir()) == ["0", "1"]
    with sqlite3.connect(copy / "mlflow.db") as store:
        seeds = dict(
            store.execute(
                "select runs.name, params.value from runs join params using (run_uuid)"
                " where params.key = 'seed' and runs.name like '%, attempt 2%'"
            ).fetchall()
        )
    assert {name[: len("generator 0, attempt 2")]: seed for name, seed in seeds.items()} == {
        "generator 0, attempt 2": "2",
        "generator 1, attempt 2": "3",
    }
    assert {path.suffix for path in (copy / ".stage").rglob("*") if path.is_file()} == {".lock"}


@pytest.mark.parametrize(
    "environment",
    [
        {"RAY_ADDRESS": "127.0.0.1:9"},
        pytest.param({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, marks=pytest.mark.slow),
    ],
)
def test_unreachable_server_or_cluster_is_refused_before_work(project: Path, environment: dict[str, str]) -> None:
    command = (sys.executable, "-m", "pipeline.invert", "digits", "standard", "--model", "models/digits/classifier")
    outputs = ("--out", "elsewhere", "--metrics", "elsewhere.json", "--plots", "elsewhere.csv")
    result = run(project, *command, *outputs, check=False, **environment)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (project / "elsewhere").exists()


@pytest.mark.slow
def test_an_ablation_is_a_table_of_the_report_and_runs_of_mlflow(project: Path) -> None:
    conditions = {
        "all of it": {"variant": "standard"},
        "no cosine": {"variant": "robust", "inversion": {"gamma": 0.0, "steps": 10}},
    }
    set_params(project, **{"ablation.conditions": conditions, "ablation.num_seeds": 2, "ablation.steps": 20})
    try:
        run(project, sys.executable, "-m", "pipeline.ablation", "digits")
    finally:
        run(project, "git", "checkout", "params.yaml")
    with (project / "ablation/digits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["condition"], row["seed"]) for row in rows] == [(name, s) for name in conditions for s in ("0", "1")]
    assert all(0 <= float(row["evaluator_accuracy"]) <= 1 for row in rows)
    with sqlite3.connect(project / "mlflow.db") as store:
        names = [name for (name,) in store.execute("select name from runs")]
        steps = store.execute("select max(step) from metrics where key = 'evaluate/inversion_accuracy'").fetchall()
    assert {f"{name}, seed {seed}" for name in conditions for seed in (0, 1)} <= set(names)
    assert steps[0][0] >= 20 * 64
    run(project, "dvc", "repro", "report")
    assert "no cosine" in (project / "report/index.html").read_text()


@pytest.mark.slow
def test_a_network_from_elsewhere_goes_through_all_stages(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "project"
    shutil.copytree(project, copy, symlinks=True)
    (copy / "my_models.py").write_text(
        "import torch\n\n\ndef build():\n    torch.manual_seed(0)\n"
        "    convolution = torch.nn.Conv2d(1, 8, 3, stride=2)\n"
        "    return torch.nn.Sequential(convolution, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(392, 10))\n"
    )
    source = {"model": "my_models:build", "adapter": {"mean": [0.3], "std": [0.3]}}
    set_params(copy, **{"presets.digits.train": {"classifier": {"source": source}}})
    ran = executed(run(copy, "dvc", "repro").stdout)
    assert ran[0] == "train@digits-classifier"
    assert ran[-1] == "report"
    assert (copy / "onnx/digits/classifiers/classifier.onnx").is_file()
    # The experiment in the copied database keeps its files where it was made.
    cards = [path.read_text() for path in (project / "mlartifacts").rglob("model_card.md")]
    assert any("A Sequential of 4,010 parameters, brought from elsewhere to digits" in card for card in cards)
