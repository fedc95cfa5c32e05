"""The team's server of mlflow/: accounts, PostgreSQL and an S3 store, all real, as the compose file starts it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tracked import answers, deliveries, environment, free_port, start, wait_for

pytestmark = pytest.mark.slow  # the servers take half a minute to start

SECRETS = {
    "POSTGRES_PASSWORD": "of-the-database",
    "S3_PASSWORD": "of-the-files",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "of-the-administrator",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-sessions",
}
ADMIN = ("admin", SECRETS["MLFLOW_AUTH_ADMIN_PASSWORD"])
STAGE = """
    with tracking.stage_run("invert", "digits", "robust", {"seed": 1}) as run:
        for step in range(100):
            run.log_metrics({"invert/accuracy": step / 100}, step=step)
        run.log_image(np.zeros((4, 4), np.uint8), "samples", step=7)
        with run.child("generator 0", {"seed": 2}) as child:
            child.log_metrics({"invert/accuracy": 0.5}, step=3)
"""


class Started:
    """Processes that end with the test."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, command: list[str], log: Path, **options: Any) -> None:
        with log.open("w") as file:
            self.processes.append(
                subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, **options)
            )

    def end(self) -> None:
        for process in reversed(self.processes):
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def started() -> Iterator[Started]:
    processes = Started()
    yield processes
    processes.end()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "repository"
    folder.mkdir()
    yield folder
    for process in deliveries(folder):
        process.kill()


def ask(uri: str, path: str, account: tuple[str, str], /, **body: Any) -> Any:
    """One call of MLflow's REST API."""
    request = urllib.request.Request(
        f"{uri}/api/2.0/mlflow/{path}",
        json.dumps(body).encode() if body else None,
        {"Content-Type": "application/json"},
    )
    password_manager = urllib.request.HTTPPasswordMgrWithPriorAuth()
    password_manager.add_password(None, uri, *account, is_authenticated=True)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(password_manager))
    with opener.open(request, timeout=30) as answer:
        return json.loads(answer.read())


def check_stage(repository: Path, uri: str, account: tuple[str, str]) -> Any:
    """A stage without and with the wrong credentials, then with the right ones; returns its run."""
    user, password = account
    for given, sentence in (
        ({}, "asks for credentials: set MLFLOW_TRACKING_USERNAME"),
        (
            {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": "guessed"},
            "refuses the credentials: correct MLFLOW",
        ),
    ):
        stage = start(STAGE, repository, MLFLOW_TRACKING_URI=uri, **given)
        _, errors = stage.communicate(timeout=120)
        assert stage.returncode != 0
        assert sentence in errors
    stage = start(
        STAGE,
        repository,
        MLFLOW_TRACKING_URI=uri,
        MLFLOW_TRACKING_USERNAME=user,
        MLFLOW_TRACKING_PASSWORD=password,
    )
    output, errors = stage.communicate(timeout=300)
    assert (stage.returncode, output, errors) == (0, "", "")
    wait_for(lambda: not list(repository.glob(".mlflow-journal/*/*")))  # the delivery clears up behind it
    assert not [path for path in repository.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    run_id = json.loads((repository / "runs/invert/digits-robust.json").read_text())["run_id"]
    history = ask(uri, f"metrics/get-history?run_id={run_id}&metric_key=invert/accuracy", account)["metrics"]
    assert [(metric["step"], metric["value"]) for metric in history] == [(step, step / 100) for step in range(100)]
    run = ask(uri, f"runs/get?run_id={run_id}", account)["run"]
    assert run["info"]["status"] == "FINISHED"
    return run


def test_stage_on_a_server_with_accounts(tmp_path: Path, repository: Path, started: Started) -> None:
    pytest.importorskip("flask_wtf", reason="needs mlflow[auth]")
    server = tmp_path / "server"
    server.mkdir()
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", "sqlite:///mlflow.db"]
    command += ["--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    secrets = {name: SECRETS[name] for name in ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")}
    started(command, server / "log", cwd=server, env=environment(**secrets))
    wait_for(lambda: answers(f"{uri}/health"), seconds=180)
    run = check_stage(repository, uri, ADMIN)
    assert len(list((server / "mlartifacts").rglob("samples+step+7+*.png"))) == 1
    assert {tag["key"]: tag["value"] for tag in run["data"]["tags"]}["dataset"] == "digits"


def test_compose_file_works_with_postgresql_and_s3(
    root: Path, tmp_path: Path, repository: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its services' images are not to be had in a test; its command and settings are run on the same programs."""
    pytest.importorskip("flask_wtf", reason="needs mlflow[auth]")
    pytest.importorskip("psycopg2", reason="needs psycopg2-binary")
    boto3 = pytest.importorskip("boto3", reason="needs dvc[s3]")
    moto_server = shutil.which("moto_server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    programs = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    if not programs or moto_server is None:
        pytest.skip("needs Debian's package postgresql and moto[server]")

    service = YAML(typ="safe").load(root / "mlflow" / "compose.yaml")["services"]["mlflow"]
    port, s3 = free_port(), f"http://127.0.0.1:{free_port()}"
    uri = f"http://127.0.0.1:{port}"
    data = Path(tempfile.mkdtemp())
    user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses root
    if user:
        shutil.chown(data, user)
    try:
        password = data / "password"
        password.write_text(SECRETS["POSTGRES_PASSWORD"])
        password.chmod(0o644)
        options: dict[str, Any] = {"user": user, "group": user, "extra_groups": [], "cwd": data} if user else {}
        init = [str(programs[-1] / "initdb"), "-D", str(data / "db"), "-U", "mlflow", "-A", "scram-sha-256"]
        subprocess.run([*init, f"--pwfile={password}"], check=True, capture_output=True, **options)
        database = free_port()
        command = [str(programs[-1] / "postgres"), "-D", str(data / "db"), "-p", str(database), "-k", str(data)]
        started([*command, "-h", "127.0.0.1"], tmp_path / "postgres.log", **options)
        started([moto_server, "-p", s3.rpartition(":")[2]], tmp_path / "moto.log")
        values = {**SECRETS, "MLFLOW_ALLOWED_HOSTS": f"127.0.0.1:{port}"}

        def filled(text: str) -> str:
            for name, value in values.items():
                text = text.replace(f"${{{name}:?}}", value)
            assert "${" not in text
            return text

        settings = {name: filled(value) for name, value in service["environment"].items()}
        settings |= {"PGHOST": "127.0.0.1", "PGPORT": str(database), "MLFLOW_S3_ENDPOINT_URL": s3}
        settings |= {"MLFLOW_AUTH_CONFIG_PATH": str(root / "mlflow" / "basic_auth.ini")}
        import psycopg2

        def create() -> bool:
            try:
                connection = psycopg2.connect(
                    host="127.0.0.1",
                    port=database,
                    user="mlflow",
                    password=SECRETS["POSTGRES_PASSWORD"],
                    dbname="postgres",
                )
            except psycopg2.OperationalError:
                return False
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("create database mlflow")
            connection.close()
            return True

        wait_for(create)
        wait_for(lambda: answers(f"{s3}/moto-api/"), seconds=120)
        credentials = (settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"])
        bucket = boto3.client("s3", "us-east-1", endpoint_url=s3, aws_access_key_id=credentials[0],
                              aws_secret_access_key=credentials[1])  # fmt: skip
        bucket.create_bucket(Bucket="mlflow")

        command = [filled(word) for word in service["command"]]
        command = [word.replace("0.0.0.0", "127.0.0.1").replace("port=5000", f"port={port}") for word in command]
        assert command[0] == "mlflow"
        started(
            [sys.executable, "-m", *command],
            tmp_path / "mlflow.log",
            cwd=tmp_path,
            env=environment(**settings, AWS_DEFAULT_REGION="us-east-1"),
        )
        wait_for(lambda: answers(f"{uri}/health"), seconds=240)
        check_stage(repository, uri, ADMIN)
        keys = [item["Key"] for item in bucket.list_objects_v2(Bucket="mlflow")["Contents"]]
        assert len([key for key in keys if "samples+step+7+" in key or "samples%2Bstep" in key]) == 2

        # A second member of the team adds to the same experiment.
        ada = ("ada", "a long password of ada's")
        ask(uri, "users/create", ADMIN, username=ada[0], password=ada[1])
        shutil.rmtree(repository / "runs")
        check_stage(repository, uri, ada)
    finally:
        started.end()
        started.processes.clear()
        shutil.rmtree(data)
