"""Experiments as their users run them: DVC's commands, its remotes, the pages of MLflow, the commands of the docs."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from repositories import activatable, bash, executed, run, set_params
from tracked import answers, environment, free_port, wait_for

from netinv.audit import STATUS, load_audit

pytestmark = [
    pytest.mark.slow,  # each experiment takes most of a minute
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # SQLAlchemy's words to MLflow
]

COMMIT = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm")


@pytest.fixture(scope="module")
def first(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after its first `dvc repro`, with the result committed."""
    copy = Path(shutil.copytree(project, tmp_path_factory.mktemp("first") / "repository", symlinks=True))
    run(copy, "git", "add", "dvc.lock")
    run(copy, *COMMIT, "digits")
    return copy


@pytest.fixture
def copy(first: Path, tmp_path: Path) -> Path:
    """Another one like it."""
    return Path(shutil.copytree(first, tmp_path / "repository", symlinks=True))


def test_experiments_from_the_queue(copy: Path) -> None:
    # What the command line sets wins over what the data set's preset has.
    set_params(copy, **{"presets.digits.invert.robust": {"gamma": 0.75}})
    run(copy, "git", "add", "params.yaml")
    run(copy, *COMMIT, "a preset")
    for name, gamma in (("one", 0.5), ("two", 0.25)):
        run(copy, "dvc", "exp", "run", "--queue", "--name", name, "-S", f"invert.robust.gamma={gamma}")
    run(copy, "dvc", "exp", "run", "--run-all", "--jobs", "2")
    shown = json.loads(run(copy, "dvc", "exp", "show", "--json").stdout)
    found = {e["name"]: e["revs"][-1]["data"] for e in shown[-1]["experiments"]}
    gammas = {name: data["params"]["params.yaml"]["data"]["invert"]["robust"]["gamma"] for name, data in found.items()}
    assert gammas == {"one": 0.5, "two": 0.25}
    for data in found.values():
        measured = data["metrics"]["metrics/evaluate/digits-robust.json"]["data"]
        assert 0 <= measured["inversion_accuracy"] <= 1
    trained = json.loads((copy / "metrics/invert/digits-robust.json").read_text())
    assert 0 <= trained["batch_accuracy"] <= 1
    assert 0 <= trained["worst_class_accuracy"] <= 1
    changes = json.loads(run(copy, "dvc", "params", "diff", "one", "two", "--json").stdout)
    assert changes["params.yaml"]["invert.robust.gamma"] == {"old": 0.5, "new": 0.25, "diff": -0.25}
    difference = json.loads(run(copy, "dvc", "metrics", "diff", "HEAD", "one", "--json").stdout)
    assert "metrics/evaluate/digits-robust.json" in difference
    assert not [path for path in difference if "standard" in path or "train" in path]
    page = run(copy, "dvc", "plots", "diff", "HEAD", "one", "two").stdout.strip()
    text = (copy / "dvc_plots" / "index.html").read_text()
    assert page.endswith("index.html")
    assert "Inversion of digits, robust" in text

    # Both are in one store, each as a group of its own, and linked to the classifier that they share.
    from mlflow.tracking import MlflowClient

    store = MlflowClient(f"sqlite:///{copy}/mlflow.db")
    experiment = store.get_experiment_by_name("netinv").experiment_id
    classifier = json.loads((copy / "runs/train/digits-classifier.json").read_text())["run_id"]
    for name in ("one", "two"):
        runs = store.search_runs([experiment], f"tags.`dvc.exp_name` = '{name}'")
        stages = {run.data.tags["stage"]: run for run in runs if not run.info.run_name.startswith("generator")}
        assert {"invert", "evaluate", "export", "register"} <= set(stages)
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert stages["invert"].data.tags["input.train.digits-classifier"] == classifier  # restored from the cache
        parent = store.get_run(stages["invert"].data.tags["mlflow.parentRunId"])
        assert parent.info.run_name == name
        assert stages["evaluate"].data.params["invert.gamma"] == str(gammas[name])


def check_remote(first: Path, tmp_path: Path, url: str, *settings: tuple[str, str], **environment: str) -> None:
    """Push, then clone and pull: all is there and nothing is run."""
    repository = Path(shutil.copytree(first, tmp_path / "repository", symlinks=True))
    run(repository, "dvc", "remote", "add", "--default", "store", url)
    for key, value in settings:
        run(repository, "dvc", "remote", "modify", "store", key, value)
    run(repository, "git", "add", ".dvc/config")
    run(repository, *COMMIT, "remote")
    assert "pushed" in run(repository, "dvc", "push", **environment).stdout
    clone = tmp_path / "clone"
    run(repository, "git", "clone", "-q", ".", str(clone))
    run(clone, "dvc", "pull", **environment)
    assert (clone / "report/index.html").read_bytes() == (repository / "report/index.html").read_bytes()
    assert (clone / "onnx/digits/robust/generator-0.onnx").is_file()
    assert executed(run(clone, "dvc", "repro", **environment).stdout) == []
    made = json.loads((clone / "runs/invert/digits-robust.json").read_text())
    assert made["run_id"] == json.loads((first / "runs/invert/digits-robust.json").read_text())["run_id"]


def test_clone_and_pull_from_a_folder(first: Path, tmp_path: Path) -> None:
    check_remote(first, tmp_path, str(tmp_path / "store"))


def test_what_a_variant_has_left_trains_nothing_in_a_clone(copy: Path, tmp_path: Path) -> None:
    """Its files lie on after it was taken out of params.yaml, and go to no remote."""
    set_params(copy, variants=["standard"])
    assert executed(run(copy, "dvc", "repro").stdout) == ["interpret@digits", "report"]
    assert (copy / "generators/digits/robust").is_dir()
    run(copy, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    run(copy, "git", "add", "-A")
    run(copy, *COMMIT, "standard alone")
    run(copy, "dvc", "push")
    run(copy, "git", "clone", "-q", ".", str(tmp_path / "clone"))
    run(tmp_path / "clone", "dvc", "pull")
    assert executed(run(tmp_path / "clone", "dvc", "repro", "--dry").stdout) == ["report"]


def test_clone_and_pull_from_s3(first: Path, tmp_path: Path) -> None:
    pytest.importorskip("dvc_s3", reason="needs the extra s3")
    boto3 = pytest.importorskip("boto3", reason="needs the extra s3")
    program = shutil.which("moto_server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("needs moto[server]")
    url = f"http://127.0.0.1:{free_port()}"
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([program, "-p", url.rpartition(":")[2]], stdout=log, stderr=log)
    keys = {"AWS_ACCESS_KEY_ID": "some", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        wait_for(lambda: answers(f"{url}/moto-api/"), seconds=120)
        bucket = boto3.client(
            "s3", "us-east-1", endpoint_url=url, aws_access_key_id="some", aws_secret_access_key="secret"
        )
        bucket.create_bucket(Bucket="bucket")
        check_remote(first, tmp_path, "s3://bucket/netinv", ("endpointurl", url), **keys)
        assert bucket.list_objects_v2(Bucket="bucket")["KeyCount"] > 20
    finally:
        server.terminate()
        server.wait()


def test_pages_of_mlflow(root: Path, first: Path, tmp_path: Path) -> None:
    """The table of runs, sample images, the comparison and a registered model, in a browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    specification = importlib.util.spec_from_file_location("screenshots", root / "docs" / "mlflow_screenshots.py")
    assert specification is not None
    assert specification.loader is not None
    screenshots = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(screenshots)
    if screenshots.CHROMIUM is None:
        pytest.skip("needs Debian's package chromium")
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", "sqlite:///mlflow.db", "--workers", "1"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", uri.rpartition(":")[2]],
            cwd=first,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(lambda: answers(f"{uri}/health"), seconds=180)
        with playwright.sync_playwright() as browsers:
            browser = browsers.chromium.launch(executable_path=screenshots.CHROMIUM, args=screenshots.FLAGS)
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            seen = {name: page.inner_text("body") for name in screenshots.pages(page, uri)}
            browser.close()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert list(seen) == ["runs", "images", "compare", "versions", "model"]
    assert "evaluate digits robust" in seen["runs"]
    assert "generator 0" in seen["images"]
    assert "Comparing" in seen["compare"]
    assert "netinv-digits-robust" in seen["versions"]
    assert "evaluator_accuracy" in seen["model"]
    assert "Intended" in seen["model"]


@pytest.mark.timeout(1800)
def test_commands_of_the_page_run_as_written(root: Path, project: Path, tmp_path: Path) -> None:
    repository = activatable(project, tmp_path)
    blocks = re.findall(r"```bash\n(.*?)```", (root / "docs" / "experiments.md").read_text(), re.DOTALL)
    assert len(blocks) > 6
    output = bash(repository, "\n".join(blocks))
    assert "netinv-digits-robust: version" in output
    assert "To make it again: " in output
    assert len(json.loads((repository / "answer.json").read_text())["predictions"]["images"]) == 1
    assert (tmp_path / "clone/report/index.html").is_file()


@pytest.mark.timeout(1800)
def test_commands_of_the_readme_run_as_written(root: Path, project: Path, tmp_path: Path) -> None:
    """After the first `make repro` of a fresh clone, of which nothing was committed."""
    repository = activatable(project, tmp_path)
    blocks = re.findall(r"```bash\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    output = bash(repository, "\n".join(blocks), PYTHONPATH=str(repository))
    assert "64 images in threes.png" in output
    assert output.count("Leak of training images") == 2
    assert re.search(r"metrics/evaluate/digits-robust\.json +\w+ +[\d.-]+ +[\d.-]+", output)  # what differs, by name
    assert "Data and pipelines are up to date" in output
    assert "dvc_plots/index.html" in output


@pytest.mark.timeout(1800)
def test_blocks_of_the_other_pages_run_as_written(root: Path, project: Path, tmp_path: Path) -> None:
    """Those of audit.md, onnx.md and mlflow/README.md. Networks that hardly learned may be given any verdict."""
    repository = activatable(project, tmp_path)
    found = {page: (root / page).read_text() for page in ("docs/audit.md", "docs/onnx.md", "mlflow/README.md")}
    shell = {page: re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for page, text in found.items()}
    command, stage = (f"{block.strip()} || test $? -lt 4\n" for block in shell["docs/audit.md"])
    output = bash(repository, "".join([command, stage, *shell["mlflow/README.md"]]), PYTHONPATH=str(repository))
    for folder in ("my-audit", "audit/digits"):
        assert load_audit(repository / folder / "audit.json").verdict in STATUS, output[-3000:]
    assert "All records for" in output
    (onnx,) = re.findall(r"```python\n(.*?)```", found["docs/onnx.md"], re.DOTALL)
    (repository / "block.py").write_text(onnx.replace("1_000_000", "100"))
    bash(repository, "python block.py", PYTHONPATH=str(repository))


@pytest.mark.timeout(1800)
def test_the_paper_experiment(first: Path, tmp_path: Path) -> None:
    """Four data sets by one command, two at a time, and the last experiment finds all their stages done."""
    mirror = os.environ.get("NETINV_TEST_DATA")
    if not mirror:
        pytest.skip("needs the real data sets: set NETINV_TEST_DATA to a folder in torchvision's layout")
    repository = activatable(first, tmp_path)
    names = ("mnist", "fashion_mnist", "svhn", "cifar10")
    small = {"architecture": {"kind": "conv", "channels": [4], "feature_dim": 8}, "training": {"epochs": 1}}
    set_params(repository, **{f"presets.{name}.train": {"classifier": small, "evaluator": small} for name in names})
    run(repository, "git", "add", "params.yaml")
    run(repository, *COMMIT, "tiny")
    output = bash(repository, "make paper JOBS=2", NETINV_MIRROR=mirror)
    last = output[output.rindex("dvc exp run --name paper-") :]
    assert executed(last) == ["report"], executed(last)
    page = (repository / "report/index.html").read_text()
    assert all(name in page for name in names)
