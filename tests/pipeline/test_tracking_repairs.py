"""What tracking mends: torn records, names with quotes, databases put back, servers with a certificate of their own."""

import contextlib
import datetime
import ipaddress
import json
import os
import re
import resource
import shutil
import sqlite3
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.exc import OperationalError

from netinv.core import InputError
from pipeline import tracking
from pipeline.stage import locked
from pipeline.tracking import client, delivery, journal, runs
from pipeline.tracking.__main__ import main
from pipeline.tracking.pending import pending
from pipeline.tracking.store import check_server, pipeline_name

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own

    from mlflow.tracking import MlflowClient

from tracked import SETTINGS, answering, children, history

# SQLAlchemy's words to MLflow.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store in a file, of which the first use takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    client.Client(uri).connect()
    return uri


@pytest.fixture
def deliverer(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> delivery.Deliverer:
    """Of an empty journal to that store."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.chdir(tmp_path)
    return delivery.Deliverer(database)


def begun(name: str, **options: Any) -> tuple[Path, journal.Run]:
    """A run with one number, and the folder of its journal, whose key no other test has."""
    folder = journal.journals() / f"{Path.cwd().name}-{name}"
    folder.mkdir(parents=True)
    run = journal.Run(folder, name, {"stage": name}, {"seed": 1}, **options)
    run.log_metrics({"loss": 0.5}, step=0)
    return folder, run


def delivered(deliverer: delivery.Deliverer, folder: Path) -> tuple[MlflowClient, Any, list[str]]:
    """The store, the run there, and what its stage is told of it."""
    deliverer.deliver(at_once=True)
    assert not (folder / "error").exists(), (folder / "error").read_text()
    state = json.loads((folder / "run.json").read_text())
    assert state["done"]
    store = deliverer.client.connect()
    return store, store.get_run(state["run_id"]), state["told"]


def test_a_disk_that_fills_under_the_delivery_tears_no_record(deliverer: delivery.Deliverer) -> None:
    folder, run = begun("full")
    before = (folder / "records.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with locked(folder / "lock"):
        deliverer._sample_system(folder)  # the first look only measures
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                deliverer._sample_system(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (folder / "records.jsonl").read_bytes() == before
        with run.ending():
            run.log_metrics({"loss": 0.25}, step=1)
        store, found, told = delivered(deliverer, folder)
    assert (history(store, found, "loss"), told) == ([(0, 0.5), (1, 0.25)], [])


@pytest.mark.parametrize("torn", [b'{"metrics": [["lo', b'{"metrics": [["lo{"metrics": []}\n', b"\xff\x00\n[]\n"])
def test_a_torn_record_is_left_out_and_said_so(torn: bytes, deliverer: delivery.Deliverer) -> None:
    """As a kill leaves it, glued to the next one as it once was, and of a disk that failed."""
    folder, run = begun("torn")
    with (folder / "records.jsonl").open("ab") as file:
        file.write(torn)
    with run.ending():
        run.log_metrics({"loss": 0.25}, step=1)
    store, found, told = delivered(deliverer, folder)
    assert history(store, found, "loss") == [(0, 0.5), (1, 0.25)]
    assert (found.info.status, found.data.params) == ("FINISHED", {"seed": "1"})
    assert told == [delivery._DAMAGED]


@pytest.mark.parametrize(
    ("name", "kept"),
    [("Ada's run", "Ada's run"), ('say "hi"', 'say "hi"'), ('Ada\'s "first" -- run;', "Ada's 'first' -- run;")],
)
def test_runs_of_a_pipeline_have_one_group_whatever_its_quotes(
    name: str, kept: str, deliverer: delivery.Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETINV_PIPELINE_RUN", name)
    assert pipeline_name() == kept
    for stage in ("fetch", "train", "report"):
        folder, run = begun(stage, for_pipeline=stage == "report")
        with run.ending():
            pass
        store, found, _ = delivered(deliverer, folder)
    groups = [run for run in store.search_runs([found.info.experiment_id]) if run.data.tags.get("pipeline") == kept]
    (group,) = groups
    assert (group.info.run_name, group.data.metrics) == (kept, {"loss": 0.5})
    assert len(children(store, group)) == 3


@pytest.mark.parametrize(
    ("copied", "lives"), [("before the run", True), ("before the run", False), ("amid the run", True)]
)
def test_a_database_that_was_put_back_has_all_of_a_run_that_had_not_ended(
    copied: str, lives: bool, deliverer: delivery.Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery.Deliverer, "_sample_system", lambda *_: None)  # what is missing are points alone
    database = Path(deliverer.client.uri.removeprefix("sqlite:///"))
    before = database.read_bytes()
    folder, run = begun("put-back")
    with locked(folder / "lock"), run.ending():
        with run.child("generator", {"seed": 2}) as child:
            child.log_metrics({"accuracy": 0.5}, step=1)
            deliverer.deliver(at_once=True)
            before = before if copied == "before the run" else database.read_bytes()
            child.log_metrics({"accuracy": 0.75}, step=2)
        run.log_metrics({"loss": 0.25}, step=1)
        deliverer.deliver(at_once=True)
        assert not (folder / "error").exists()
        database.write_bytes(before)
        run.log_metrics({"loss": 0.125}, step=2)
    deliverer = deliverer if lives else delivery.Deliverer(deliverer.client.uri)
    if copied == "amid the run":  # no call fails there, and the end finds what is missing
        deliverer.deliver(at_once=True)
        assert (folder / "error").read_text() == "the tracking server has not kept loss"
    store, found, told = delivered(deliverer, folder)
    assert (history(store, found, "loss"), told) == ([(0, 0.5), (1, 0.25), (2, 0.125)], [])
    (below,) = children(store, found)
    assert (history(store, below, "accuracy"), below.data.params) == ([(1, 0.5), (2, 0.75)], {"seed": "2"})
    assert {run.info.status for run in (found, below)} == {"FINISHED"}


@pytest.mark.parametrize("lives", [True, False])
def test_a_run_that_somebody_deletes_stays_deleted_and_holds_up_nothing(
    lives: bool, deliverer: delivery.Deliverer
) -> None:
    folder, run = begun("deleted")
    with locked(folder / "lock"), run.ending():
        deliverer.deliver(at_once=True)
        run_id = run.id
        assert run_id is not None
        deliverer.client.connect().delete_run(run_id)
        run.log_metrics({"loss": 0.25}, step=1)
    store, found, told = delivered(deliverer if lives else delivery.Deliverer(deliverer.client.uri), folder)
    assert (found.info.run_id, found.info.lifecycle_stage, told) == (run_id, "deleted", [delivery._DELETED])
    assert store.search_runs([found.info.experiment_id], f"tags.journal = '{run.key}'") == []


def test_a_deleted_experiment_is_named_with_the_way_back(
    deliverer: delivery.Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of ada")
    folder, run = begun("experiment")
    store = deliverer.client.connect()
    with locked(folder / "lock"), run.ending():
        deliverer.deliver(at_once=True)
        store.delete_experiment(deliverer.client.experiment("of ada"))
        run.log_metrics({"loss": 0.25}, step=1)
    deliverer.deliver(at_once=True)
    told = re.search(r"of ada was deleted .*restore --experiment-id (\d+)` brings it", (folder / "error").read_text())
    assert told is not None
    store.restore_experiment(told[1])
    store, found, _ = delivered(deliverer, folder)
    assert history(store, found, "loss") == [(0, 0.5), (1, 0.25)]


def test_records_for_an_address_that_leads_nowhere_are_delivered_elsewhere(
    database: str, deliverer: delivery.Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://typo:5000")
    _, run = begun("typo")
    with run.ending(), run.child("generator"):
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert "records for http://typo:5000 as well" in CliRunner().invoke(main, ["flush"]).output
    assert len(deliverer.folders()) == 0
    result = CliRunner().invoke(main, ["flush", "--from", "http://ada:SECRET@typo:5000"])
    assert (result.exit_code, result.output) == (0, f"All records for {database} are delivered.\n")
    store = deliverer.client.connect()
    found = store.get_run(str(deliverer.client.find_run(deliverer.client.experiment("netinv"), "journal", run.key)))
    assert history(store, found, "loss") == [(0, 0.5)]
    assert len(children(store, found)) == 1
    result = CliRunner().invoke(main, ["flush", "--from", "http://typo:5000"])
    assert (result.exit_code, result.output[:48]) == (2, "error: There are no records for http://typo:5000")


def test_flush_names_every_journal_that_fails_and_the_file_that_is_damaged(deliverer: delivery.Deliverer) -> None:
    folders = []
    for name, content in (("ended", b""), ("records", b"[" * 100_000)):
        folder, run = begun(name)
        with run.ending(), run.child("generator"):
            pass
        folders.append(folder)
        damaged = folder / "ended.json" if name == "ended" else next(folder.glob("children/*/ended.json"))
        damaged.write_bytes(content)
    result = CliRunner().invoke(main, ["flush"])
    *told, last = result.output.splitlines()
    assert (result.exit_code, last[:40]) == (2, "error: 2 runs could not be delivered to ")
    for folder, line in zip(folders, told, strict=True):
        assert re.match(rf"{folder} could not be delivered: {folder}/\S*ended\.json is damaged \(.+\): mend it", line)
    shutil.rmtree(folders[0])
    (damaged.parent / "ended.json").write_text((folders[1] / "ended.json").read_text())
    assert CliRunner().invoke(main, ["flush"]).exit_code == 0


@pytest.mark.parametrize("later", ["gone", "another"])
def test_a_delivery_begins_afresh_where_another_database_lies_in_its_place(
    later: str, database: str, tmp_path: Path, deliverer: delivery.Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, old = tmp_path / "mlflow.db", tmp_path / "old.db"
    shutil.copyfile(database.removeprefix("sqlite:///"), mine)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mine}")
    began: list[tuple[str, ...]] = []

    def look(deliverer: delivery.Deliverer) -> list[Path]:
        folders = pending(f"sqlite:///{mine}")
        if not folders and not old.exists():  # the run has been delivered
            mine.rename(old)
            if later == "another":
                shutil.copyfile(old, mine)
        return folders

    _, run = begun("renamed")
    with run.ending():
        pass
    monkeypatch.setattr(delivery.Deliverer, "folders", look)
    monkeypatch.setattr(os, "execv", lambda program, words: began.append(words))
    begin = time.monotonic()
    assert CliRunner().invoke(main, ["deliver"]).exit_code == 0
    assert time.monotonic() - begin < delivery._IDLE_SECONDS
    assert [words[1:] for words in began] == [("-m", "pipeline.tracking", "deliver")]


def test_a_delivery_with_credentials_that_are_refused_ends_and_the_stage_starts_its_own(
    deliverer: delivery.Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with answering(refuse) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        folder, run = begun("refused")
        with locked(folder / "lock"), run.ending():  # at work
            assert not delivery.Deliverer(uri).work()
        assert "refuses the credentials: correct MLFLOW_TRACKING_TOKEN" in (folder / "error").read_text()

        def start(uri: str) -> None:
            state = json.loads((folder / "run.json").read_text())
            (folder / "run.json").write_text(json.dumps(state | {"done": True, "told": ["all of it"]}))

        monkeypatch.setattr(runs, "_start_delivery", start)
        monkeypatch.setattr(runs, "_RESTART_SECONDS", 60.0)
        begin = time.monotonic()
        runs._hand_over(folder, uri, wait=False)
        assert time.monotonic() - begin < 5


QUESTIONS = [lambda: list(tracking.trace("a", "1")), lambda: tracking.promote("a", "1", "")]


@pytest.mark.parametrize("ask", QUESTIONS)
def test_a_question_makes_no_database(ask: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match=r"mlflow\.db is not there, .*: run the stage register, or name"):
        ask()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("ask", QUESTIONS)
def test_a_database_of_another_version_is_refused_in_a_sentence(
    ask: Callable[[], Any],
    database: str,
    tmp_path: Path,
    deliverer: delivery.Deliverer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = tmp_path / "mlflow.db"
    shutil.copyfile(database.removeprefix("sqlite:///"), mine)
    with contextlib.closing(sqlite3.connect(mine)) as connection, connection:
        connection.execute("update alembic_version set version_num = 'of old'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mine}")
    with pytest.raises(InputError, match=r"mlflow.db does not do what it is asked \(.*: mend that, and ask again"):
        ask()


def test_what_a_database_says_is_told_without_its_statement() -> None:
    error = OperationalError(
        "INSERT INTO metrics", {}, sqlite3.OperationalError("attempt to write a readonly database")
    )
    assert client.reason(error) == "(sqlite3.OperationalError) attempt to write a readonly database"


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A server that answers by HTTPS, and the file of the certificate that it has given itself."""
    for name in ("SERVER_CERT_PATH", "CLIENT_CERT_PATH", "INSECURE_TLS", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "of its own")])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=9))
    builder = builder.add_extension(address, critical=False)
    certificate, file = builder.sign(key, hashes.SHA256()), tmp_path / "server.pem"
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*private))
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"experiment": {"experiment_id": "7", "name": "netinv"}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, tmp_path / "key.pem")
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}", file
        server.shutdown()


@pytest.mark.parametrize(
    "setting",
    ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "MLFLOW_TRACKING_INSECURE_TLS"],
)
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_server_is_believed_where_mlflows_client_believes_it(
    setting: str, certified: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, file = certified
    with pytest.raises(InputError, match=r"does not answer \(.*CERTIFICATE_VERIFY_FAILED"):
        check_server(uri)
    monkeypatch.setenv(setting, "True" if setting.endswith("TLS") else str(file))
    check_server(uri)
    found = client.Client(uri).connect().get_experiment_by_name("netinv")
    assert found is not None
    assert found.experiment_id == "7"


def test_certificates_that_cannot_be_read_are_named(
    certified: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, file = certified
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
    (tmp_path / "empty.pem").touch()
    for name in ("MLFLOW_TRACKING_CLIENT_CERT_PATH", "MLFLOW_TRACKING_SERVER_CERT_PATH"):  # the latter goes first
        for path in ("absent.pem", "empty.pem"):
            monkeypatch.setenv(name, str(tmp_path / path))
            with pytest.raises(InputError, match=rf"{name} names .*{path}, which holds no certificate .*: correct it"):
                check_server(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "1")
    with pytest.raises(InputError, match="INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH are both set: unset one"):
        check_server(uri)
