"""The pipeline and one of its stages as jobs of a running cluster of two nodes, submitted as docs/scale-out.md says."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from test_experiments import activatable, bash
from test_pipeline import executed, fresh, set_params
from test_tracking import answers, environment, free_port, wait_for

pytestmark = [
    pytest.mark.slow,  # a cluster starts, and the pipeline runs in it
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # SQLAlchemy's words to MLflow
]

MAX_SHIPPED_MIB = 3.0


class Nodes(NamedTuple):
    """A head and one more node, with one CPU each."""

    jobs: str
    """URL of the job server."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    port, dashboard = free_port(), free_port()
    log = tmp_path_factory.mktemp("ray") / "log"
    ray = str(Path(sys.executable).parent / "ray")
    common = ["--num-cpus=1", "--disable-usage-stats", "--block"]
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    second = [f"--address=127.0.0.1:{port}", f"--dashboard-agent-listen-port={free_port()}"]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    url = f"http://127.0.0.1:{dashboard}"
    started = []
    with log.open("w") as file, tempfile.TemporaryDirectory(prefix="ray") as short:  # sockets have short names only
        for number, arguments in enumerate((head, second)):
            command = [ray, "start", *arguments, *common, f"--temp-dir={short}/{number}"]
            started.append(subprocess.Popen(command, env={**environment(), "PATH": programs}, stdout=file, stderr=file))
            wait_for(lambda: answers(f"{url}/api/version"), seconds=120)
        try:
            wait_for(lambda: _num_nodes(f"127.0.0.1:{port}") == 2, seconds=120)
            yield Nodes(url)
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait(60)


def _num_nodes(address: str) -> int:
    status = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address], capture_output=True, text=True
    )
    return len(re.findall(r"^ 1 node_", status.stdout, re.MULTILINE))


def test_jobs_as_the_page_says(root: Path, nodes: Nodes, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    text = (root / "docs/scale-out.md").read_text()
    page = text[text.index("## Jobs") :]
    remote, pipeline, stage = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)[:3]
    repository = activatable(fresh(root, tmp_path / "project"), tmp_path)
    told = {
        "RAY_API_SERVER_ADDRESS": nodes.jobs,
        "NETINV_REMOTE": str(tmp_path / "store"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }

    output = bash(repository, remote + pipeline, **told)
    print(output)
    assert "succeeded" in output
    shipped = re.search(r"_ray_pkg_\w+\.zip' \(([\d.]+)MiB\)", output)
    assert shipped is not None, output
    assert float(shipped[1]) < MAX_SHIPPED_MIB
    in_the_job, _, at_home = output.partition("succeeded")
    assert len(executed(in_the_job)) == 13
    assert executed(at_home) == []
    assert (repository / "report/index.html").is_file()
    assert _nodes_of_generators(nodes) == 2

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
    assert [run.data.params["gamma"] for run in generators].count("0.25") == 2


def _nodes_of_generators(nodes: Nodes) -> int:
    """On how many nodes generators were trained."""
    from ray.util.state import list_tasks

    tasks = list_tasks(address=nodes.jobs, filters=[("name", "=", "train_generator")])
    return len({task.node_id for task in tasks})
