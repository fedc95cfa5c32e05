"""The pipeline and one of its stages as jobs of a running cluster of two nodes, submitted as docs/scale-out.md says."""

import json
import re
import shutil
import socket
import subprocess
import tempfile
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from repositories import activatable, bash, executed, fresh, run, set_params
from tracked import environment, free_port, wait_for

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # SQLAlchemy's words to MLflow

MAX_SHIPPED_MIB = 3.0
ACCESS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex + uuid.uuid4().hex}


@pytest.fixture(scope="module")
def job_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the job server of a head and one more node, with one CPU each."""
    port, dashboard = free_port(), free_port()
    log = tmp_path_factory.mktemp("ray") / "log"
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}"]
    second = [f"--address=127.0.0.1:{port}", f"--dashboard-agent-listen-port={free_port()}"]
    common = ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--disable-usage-stats", "--block"]
    started = []
    with log.open("w") as file, tempfile.TemporaryDirectory(prefix="ray") as short:  # sockets have short names only
        try:
            for number, arguments in enumerate((head, second)):
                command = ["ray", "start", *arguments, *common, f"--temp-dir={short}/{number}"]
                started.append(subprocess.Popen(command, env=environment(**ACCESS), stdout=file, stderr=file))
                wait_for(lambda: listens(dashboard), seconds=120)
            wait_for(lambda: num_nodes(f"127.0.0.1:{port}") == 2, seconds=120)
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait(60)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def num_nodes(address: str) -> int:
    command = ["ray", "status", "--address", address]
    status = subprocess.run(command, env=environment(**ACCESS), capture_output=True, text=True)
    return len(re.findall(r"^ 1 node_", status.stdout, re.MULTILINE))


def shipped_mib(repository: Path, package: Path) -> float:
    """Size of what ``ray job submit --working-dir`` sends."""
    from ray._private.runtime_env.packaging import create_package
    from ray._private.runtime_env.working_dir import upload_working_dir_if_needed

    def keep(folder: str, excludes: list[str] | None) -> None:
        create_package(folder, package, include_gitignore=True, excludes=excludes)

    upload_working_dir_if_needed({"working_dir": str(repository)}, include_gitignore=True, upload_fn=keep)
    return package.stat().st_size / 2**20


def test_what_travels_is_small(root: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for name in run(root, "git", "ls-files").stdout.splitlines():
        target = repository / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, target)
    (repository / "data").mkdir()
    (repository / "data" / "images").write_bytes(bytes(2**23))
    assert shipped_mib(repository, tmp_path / "package.zip") < MAX_SHIPPED_MIB
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        folders = {name.partition("/")[0] for name in package.namelist()}
    assert {"netinv", "pipeline", "dvc.yaml", "params.yaml", ".dvc"} <= folders
    assert not {"docs", "tests", "benchmarks", "data"} & folders


@pytest.mark.slow  # a cluster starts, and the pipeline runs in it
def test_jobs_as_the_page_says(root: Path, job_server: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    text = (root / "docs/scale-out.md").read_text()
    page = text[text.index("## Jobs") :]
    remote, pipeline, stage = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)[:3]
    repository = activatable(fresh(root, tmp_path / "project"), tmp_path)
    told = {
        **ACCESS,
        "RAY_API_SERVER_ADDRESS": job_server,
        "NETINV_REMOTE": str(tmp_path / "store"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }

    output = bash(repository, remote + pipeline, **told)
    print(output)
    assert "succeeded" in output
    in_the_job, _, at_home = output.partition("succeeded")
    assert len(executed(in_the_job)) == 14
    assert executed(at_home) == []
    assert (repository / "report/index.html").is_file()
    tasks = json.loads(bash(repository, "ray list tasks --filter name=train_generator --format json", **told))
    assert len({task["node_id"] for task in tasks}) == 2

    assert shipped_mib(repository, tmp_path / "package.zip") < MAX_SHIPPED_MIB  # with data and caches around

    set_params(repository, **{"invert.robust.gamma": 0.25})
    output = bash(repository, stage, **told)
    print(output)
    in_the_job, _, at_home = output.partition("succeeded")
    assert executed(in_the_job) == ["invert@digits-robust"]
    assert executed(at_home) == []

    store = MlflowClient(told["MLFLOW_TRACKING_URI"])
    experiment = store.get_experiment_by_name("netinv").experiment_id
    runs = store.search_runs([experiment])
    assert {run.info.status for run in runs} == {"FINISHED"}
    generators = [run for run in runs if run.info.run_name.startswith("generator")]
    assert len(generators) == 6  # two of each variant, and again two robust ones
