"""Tracking against real MLflow: real SQLite, and real delivery processes."""

import json
import re
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from netinv.core import InputError
from netinv.data import DatasetSpec
from pipeline import tracking
from pipeline.tracking import delivery, journal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own

    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

from tracked import REPOSITORY, SETTINGS, artifacts, children, deliveries, environment, history, run_of, start, wait_for

# SQLAlchemy's words to MLflow.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository whose very first eight stages started at once, on no database."""
    root = tmp_path_factory.mktemp("workspace")
    code = """
        with tracking.stage_run("train", "digits", f"model-{number}", {"number": number}) as run:
            for step in range(1200):
                run.log_metrics({"train/loss": 1.0 / (1 + step)}, step=step)
    """
    stages = [start(f"number = {number}\n{textwrap.dedent(code)}", root) for number in range(8)]
    for stage in stages:
        output, errors = stage.communicate(timeout=300)
        assert (stage.returncode, output, errors) == (0, "", "")
    yield root
    for process in deliveries(root):
        process.kill()


@pytest.fixture
def store(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The default store, with the current folder beside it."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(workspace)
    return MlflowClient(f"sqlite:///{workspace}/mlflow.db")


def test_import_is_cheap() -> None:
    code = "import sys, pipeline.tracking; print({'mlflow', 'torch', 'numpy', 'pandas'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr


def test_eight_first_uses_at_once_lose_nothing(store: MlflowClient) -> None:
    expected = [(step, 1.0 / (1 + step)) for step in range(1200)]
    for number in range(8):
        run = run_of(store, f"runs/train/digits-model-{number}.json")
        assert run.info.status == "FINISHED"
        assert run.data.params == {"number": str(number)}
        assert history(store, run, "train/loss") == expected
    assert store.get_experiment_by_name("netinv").artifact_location == str(Path.cwd() / "mlartifacts")
    assert len(deliveries(Path.cwd())) == 1


def test_stage_run_is_complete_when_it_ends(store: MlflowClient, tmp_path: Path) -> None:
    spec = DatasetSpec(
        name="digits",
        classes=("0", "1"),
        image_shape=(1, 16, 16),
        num_train=10,
        num_test=5,
        source="test",
        licence="none",
        checksums={"train.safetensors": "1" * 64, "test.safetensors": "2" * 64},
    )
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "models" / "one").mkdir(parents=True)
    (tmp_path / "models" / "one" / "weights").write_bytes(b"\x00")
    params = {"invert": {"robust": {"epsilon": 0.25, "bands": [1, 2]}}, "seed": None}
    with tracking.stage_run("invert", "digits", "robust", params) as run:
        for step in (10, 20):
            run.log_metrics({"invert/accuracy": step / 100, "invert/loss": float("nan")}, step=step)
            run.log_image(np.full((8, 300, 3), step, np.uint8), "samples/grid", step=step)
        run.log_artifact(tmp_path / "table.csv", folder="tables")
        run.log_artifact(tmp_path / "models")
        (tmp_path / "table.csv").write_text("changed after it was logged")
        run.log_dataset(spec, Path("data/digits"))
        run.describe("What was found.")
        run.set_tags({"device": "cuda:7"})
        for i in range(2):
            with run.child(f"generator {i}", {"seed": i}) as child:
                child.log_metrics({"invert/accuracy": 0.5 + i}, step=1)

    found = run_of(store, "runs/invert/digits-robust.json")
    assert found.info.run_name == "invert digits robust"
    assert found.info.status == "FINISHED"
    assert found.info.end_time >= found.info.start_time > 1.7e12
    assert found.data.params == {"invert.robust.epsilon": "0.25", "invert.robust.bands": "[1, 2]", "seed": "None"}
    tags = found.data.tags
    assert (tags["stage"], tags["dataset"], tags["variant"], tags["device"]) == ("invert", "digits", "robust", "cuda:7")
    assert tags["host"]
    assert "mlflow.parentRunId" not in tags
    assert history(store, found, "invert/accuracy") == [(10, 0.1), (20, 0.2)]
    assert [step for step, value in history(store, found, "invert/loss") if np.isnan(value)] == [10, 20]

    assert artifacts(store, found) == ["images", "models", "tables"]
    downloaded = Path(store.download_artifacts(found.info.run_id, "tables/table.csv", str(tmp_path)))
    assert downloaded.read_text() == "a,b\n"
    assert artifacts(store, found, "models/one") == ["models/one/weights"]
    assert len(artifacts(store, found, "images")) == 4
    picture, text = found.data.tags["mlflow.note.content"].split("\n\n")
    assert text == "What was found."
    path, run_id = re.findall(r"!\[samples/grid\]\(get-artifact\?path=(.*)&run_uuid=(.*)\)", picture)[0]
    assert run_id == found.info.run_id
    with Image.open(store.download_artifacts(run_id, unquote(path), str(tmp_path))) as shown:
        assert (shown.size, shown.getpixel((0, 0))) == ((300, 8), (20, 20, 20))

    (dataset,) = (entry.dataset for entry in found.inputs.dataset_inputs)
    assert (dataset.name, len(dataset.digest)) == ("digits", 16)
    assert json.loads(dataset.source) == {"uri": "data/digits"}
    assert json.loads(dataset.profile)["num_train"] == 10

    first, second = sorted(children(store, found), key=lambda run: run.info.run_name)
    assert (first.info.run_name, second.info.run_name) == (
        "generator 0 of digits robust",
        "generator 1 of digits robust",
    )
    assert second.data.params == {"seed": "1"}
    assert second.data.tags["variant"] == "robust"
    assert second.info.status == "FINISHED"
    assert history(store, second, "invert/accuracy") == [(1, 1.5)]


def test_a_key_continues_the_run_that_has_it(store: MlflowClient) -> None:
    """As when a killed stage goes on: what it logged before is not logged again."""
    for steps in ((1, 2), (3,)):
        with (
            tracking.stage_run("invert", "digits", "again") as run,
            run.child("generator 0", {"seed": 0}, key="work-0") as child,
        ):
            for step in steps:
                child.log_metrics({"loss": step / 2}, step=step)
    second = run_of(store, "runs/invert/digits-again.json")
    (found,) = children(store, second)
    assert history(store, found, "loss") == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert found.info.status == "FINISHED"
    assert len(store.search_runs([second.info.experiment_id], "tags.journal = 'work-0'")) == 1


def test_a_run_that_is_gone_gets_its_earlier_points_again_and_one_that_is_there_does_not(store: MlflowClient) -> None:
    for number in range(3):
        with (
            tracking.stage_run("invert", "digits", "lost") as run,
            run.child("generator 0", {"seed": 0}, key="lost-0") as child,
        ):
            for point in range(number):  # what the checkpoints tell of it
                child.log_earlier_metrics({"loss": float(point)}, step=point)
            child.log_metrics({"loss": float(number)}, step=number)
        (found,) = children(store, run_of(store, "runs/invert/digits-lost.json"))
        assert history(store, found, "loss") == [(point, float(point)) for point in range(number + 1)]
        if number == 1:
            store.delete_run(found.info.run_id)


def test_a_record_that_cannot_be_written_is_told_before_the_work(store: MlflowClient) -> None:
    Path("runs").mkdir(exist_ok=True)
    Path("runs/blocked").write_text("a file where a folder is needed")
    with pytest.raises(InputError, match="runs/blocked"), tracking.stage_run("blocked", "digits"):
        pytest.fail("the work has begun")


def test_image_names_are_those_of_mlflow(store: MlflowClient, tmp_path: Path) -> None:
    image = np.zeros((4, 4), np.uint8)
    with tracking.stage_run("evaluate", "digits", "names") as run:
        run.log_image(image, "samples/grid", step=3)
    found = run_of(store, "runs/evaluate/digits-names.json")
    reference = store.create_run(found.info.experiment_id)
    store.log_image(reference.info.run_id, image, key="samples/grid", step=3)

    def shapes(run: Run) -> list[str]:
        moment = r"timestamp\+\d+\+[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        return sorted(re.sub(moment, "moment", name) for name in artifacts(store, run, "images"))

    assert shapes(found) == shapes(reference)
    assert len(shapes(found)) == 2
    name = next(name for name in artifacts(store, found, "images") if name.endswith(".png"))
    with Image.open(store.download_artifacts(found.info.run_id, name, str(tmp_path))) as shown:
        assert shown.size == (512, 512)  # of four pixels by four
    logged = "mlflow.loggedImages"
    assert found.data.tags[logged] == store.get_run(reference.info.run_id).data.tags[logged]


def test_second_delivery_leaves_no_trace(store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.tracking_uri())
    monkeypatch.chdir(tmp_path)  # a journal of its own, that no delivery knows
    folder = journal.journals() / "once"
    folder.mkdir(parents=True)
    run = tracking.Run(folder, "twice", {"stage": "test"}, {"a": 1})
    for step in range(50):
        run.log_metrics({"loss": step / 2, "nan": float("nan")}, step=step)
    run.log_image(np.zeros((4, 4), np.uint8), "grid", step=1)
    deliverer = delivery.Deliverer(tracking.tracking_uri())
    seen = []
    for forgotten in ({"offset": 0, "done": False}, {"offset": 0, "done": False, "run_id": None}, {}):
        deliverer.deliver(at_once=True)
        state = json.loads((folder / "run.json").read_text())
        assert state["done"]
        found = store.get_run(state["run_id"])
        seen.append((state["run_id"], history(store, found, "loss"), artifacts(store, found, "images")))
        assert len(history(store, found, "nan")) == 50
        (folder / "run.json").write_text(json.dumps(state | forgotten))  # as if the answer had been lost
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][1] == [(step, step / 2) for step in range(50)]
    deliverer.deliver()
    assert not folder.exists()


def test_runs_of_a_pipeline_are_grouped_and_linked(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETINV_PIPELINE_RUN", "repro of today")
    with tracking.stage_run("fetch", "digits"):
        pass
    inputs = [Path("runs/fetch/digits.json"), Path("runs/train/absent.json")]
    with pytest.raises(ZeroDivisionError), tracking.stage_run("evaluate", "digits", "robust", inputs=inputs):
        raise ZeroDivisionError
    assert not Path("runs/evaluate/digits-robust.json").exists()  # it made nothing

    fetch = run_of(store, "runs/fetch/digits.json")
    parent = fetch.data.tags["mlflow.parentRunId"]
    wait_for(lambda: store.get_run(parent).info.status == "FAILED")
    pipeline = store.get_run(parent)
    assert pipeline.info.run_name == "repro of today"
    names = [run.info.run_name for run in children(store, pipeline)]
    assert names == ["fetch digits (repro of today)", "evaluate digits robust (repro of today)"]
    evaluate = children(store, pipeline)[1]
    assert evaluate.info.status == "FAILED"
    links = {key: value for key, value in evaluate.data.tags.items() if key.startswith("input.")}
    assert links == {"input.fetch.digits": fetch.info.run_id}


def test_a_pipeline_shows_what_its_last_stage_says_for_all(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NETINV_PIPELINE_RUN", "repro twice")
    (tmp_path / "index.html").write_text("<p>report</p>")
    for epsilon, accuracy in ((0.1, 0.8), (0.2, 0.9)):
        with tracking.stage_run("report", "all", params={"epsilon": epsilon, "steps": 9}, for_pipeline=True) as run:
            run.log_metrics({"digits/robust/evaluator_accuracy": accuracy})
            run.log_artifact(tmp_path / "index.html")
            run.describe(f"accuracy {accuracy}")
        report = run_of(store, "runs/report/all.json")
        parent = report.data.tags["mlflow.parentRunId"]
        wait_for(lambda parent=parent: store.get_run(parent).info.status == "FINISHED")
        pipeline = store.get_run(parent)
        for found in (report, pipeline):
            assert found.data.metrics["digits/robust/evaluator_accuracy"] == accuracy
            assert found.data.tags["mlflow.note.content"] == f"accuracy {accuracy}"
            assert artifacts(store, found) == ["index.html"]
        assert pipeline.data.tags["stage"] == "pipeline"
        # A parameter is written once; what the second pipeline of this name had is a tag.
        assert pipeline.data.params == {"epsilon": "0.1", "steps": "9"}
        assert pipeline.data.tags.get("epsilon") == (None if epsilon == 0.1 else "0.2")
        assert "steps" not in pipeline.data.tags


def test_a_long_description_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tracking.Run(tmp_path, "evaluate digits", {}, {})
    run.describe("a line of text\n" * 1000)
    last = json.loads((tmp_path / "records.jsonl").read_text().splitlines()[-1])["tags"]["mlflow.note.content"]
    assert 7000 < len(last) < 8000
    assert last.endswith("a line of text\n\n(cut)")


def latest(store: MlflowClient, variant: str) -> Run | None:
    experiment = store.get_experiment_by_name("netinv").experiment_id
    runs = store.search_runs([experiment], f"tags.variant = '{variant}'")
    return runs[0] if runs else None


def test_interrupt_and_kill_are_told_apart_from_failure(store: MlflowClient, workspace: Path) -> None:
    with pytest.raises(KeyboardInterrupt), tracking.stage_run("train", "digits", "interrupted"):
        raise KeyboardInterrupt
    wait_for(lambda: (run := latest(store, "interrupted")) and run.info.status == "KILLED")

    code = """
        with tracking.stage_run("train", "digits", "killed") as run:
            run.log_metrics({"loss": 1.0}, step=1)
            print("logged", flush=True)
            time.sleep(60)
    """
    stage = start(code, workspace)
    assert stage.stdout is not None
    assert stage.stdout.readline() == "logged\n"
    stage.kill()
    stage.communicate()
    killed = wait_for(lambda: (run := latest(store, "killed")) and run.info.status == "KILLED" and run)
    assert history(store, killed, "loss") == [(1, 1.0)]
    wait_for(lambda: not list(Path(".mlflow-journal").glob("*/run.json")))


def test_stage_ends_before_the_delivery_is_done(store: MlflowClient, workspace: Path) -> None:
    code = """
        with tracking.stage_run("train", "digits", "quick") as run:
            run.log_metrics({"loss": 1.0}, step=1)
            while run.id is None:
                time.sleep(0.1)
            print("known", flush=True)
            sys.stdin.readline()
            run.log_metrics({"loss": 2.0}, step=2)
    """
    stage = start(code, workspace)
    assert stage.stdout is not None
    assert stage.stdout.readline() == "known\n"
    (process,) = deliveries(workspace)
    process.suspend()
    try:
        begin = time.monotonic()
        output, errors = stage.communicate("go on\n", timeout=60)
        assert (stage.returncode, output, errors) == (0, "", "")
        assert time.monotonic() - begin < 5
    finally:
        process.resume()
    assert history(store, run_of(store, "runs/train/digits-quick.json"), "loss") == [(1, 1.0), (2, 2.0)]


def test_delivery_goes_home_only_when_nobody_counts_on_it(
    store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that begins between the delivery's last round and its end finds it at work, and starts no other one."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.tracking_uri())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(delivery, "_IDLE_SECONDS", 0.01)  # one round
    deliverer = delivery.Deliverer(tracking.tracking_uri())
    folder = journal.journals() / "late"

    def last_round() -> bool:
        folder.mkdir(parents=True)
        tracking.Run(folder, "late", {"stage": "test"}, {}).log_metrics({"loss": 1.0}, step=1)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(deliverer, "deliver", last_round)
        assert deliverer.work()
    assert not deliverer.work()
    state = json.loads((folder / "run.json").read_text())
    assert history(store, store.get_run(state["run_id"]), "loss") == [(1, 1.0)]


def test_names_that_the_store_would_refuse_are_refused_at_once(store: MlflowClient) -> None:
    with tracking.stage_run("train", "digits", "names") as run:
        with pytest.raises(ValueError, match="got 'loss!'"):
            run.log_metrics({"loss!": 1.0})
        with pytest.raises(ValueError, match="got 'a:b'"):
            run.log_image(np.zeros((4, 4), np.uint8), "a:b")


@pytest.mark.parametrize("forgotten", ["log_batch", "set_terminated"])
def test_a_run_is_done_when_its_records_are_there(
    forgotten: str, store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that a server answers and forgets, all is sent again; none comes twice."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.tracking_uri())
    monkeypatch.chdir(tmp_path)  # a journal of its own, that no delivery knows
    folder = journal.journals() / f"forgotten-{forgotten}"
    folder.mkdir(parents=True)
    run = journal.Run(folder, forgotten, {}, {"seed": 1})
    with run.ending():
        for step in range(3):
            run.log_metrics({"invert/accuracy": step / 3}, step=step)
    deliverer = delivery.Deliverer(tracking.tracking_uri())
    with monkeypatch.context() as patch:
        patch.setattr(type(deliverer.client.connect()), forgotten, lambda *_: None)
        deliverer.deliver(at_once=True)
    assert "has not kept" in (folder / "error").read_text()
    deliverer.deliver(at_once=True)
    assert json.loads((folder / "run.json").read_text())["done"]
    experiment = store.get_experiment_by_name("netinv")
    assert experiment is not None
    (found,) = store.search_runs([experiment.experiment_id], f"tags.journal = '{run.key}'")
    assert found.info.status == "FINISHED"
    assert history(store, found, "invert/accuracy") == [(step, step / 3) for step in range(3)]


def test_a_run_whose_making_was_not_answered_is_found(
    store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.tracking_uri())
    monkeypatch.chdir(tmp_path)  # a journal of its own, that no delivery knows
    folder = journal.journals() / "unanswered"
    folder.mkdir(parents=True)
    run = journal.Run(folder, "unanswered", {}, {"seed": 1})
    with run.ending():
        run.log_metrics({"loss": 1.0}, step=1)
    deliverer = delivery.Deliverer(tracking.tracking_uri())
    make = type(deliverer.client.connect()).create_run

    def unanswered(*arguments: Any) -> None:
        make(*arguments)
        raise ConnectionError("lost on its way")

    monkeypatch.setattr(type(deliverer.client.connect()), "create_run", unanswered)
    deliverer.deliver(at_once=True)
    assert json.loads((folder / "run.json").read_text())["done"]
    experiment = store.get_experiment_by_name("netinv")
    assert experiment is not None
    assert len(store.search_runs([experiment.experiment_id], f"tags.journal = '{run.key}'")) == 1
