"""The rule for the champion, the model card, and a real registry: versions, aliases, a second delivery, serving."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from netinv.core import InputError
from netinv.results import Estimate, Measure, NotMeasured
from pipeline import tracking
from pipeline.register import main
from pipeline.tracking import journal, registry
from pipeline.tracking.delivery import Deliverer
from pipeline.tracking.registry import Candidate, Standing, better

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own
    import mlflow.onnx
    import onnx
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
    from mlflow.tracking import MlflowClient

if TYPE_CHECKING:
    from conftest import Exported

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's, in its own process otherwise

NAME = "netinv-shapes-robust"


def about(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01, n=100)


def standing(primary: Measure, memorised: bool | None = False, by: str = "alike", **guards: Measure) -> Standing:
    names = registry.GUARDS["robust"]
    measures = {"evaluator_accuracy": primary} | {name: about(0.5) for name in names} | guards
    return Standing(primary="evaluator_accuracy", guards=names, measures=measures, memorised=memorised, measured_by=by)


WHY_NOT = NotMeasured(not_measured="too few")


@pytest.mark.parametrize(
    ("candidate", "champion", "expected"),
    [
        (standing(about(0.1)), None, True),
        (standing(WHY_NOT), None, False),
        (standing(about(0.9), memorised=True), None, False),
        (standing(about(0.9)), standing(about(0.8)), True),
        (standing(about(0.815)), standing(about(0.8)), False),  # better, within the interval
        (standing(about(0.7)), standing(about(0.8)), False),
        (standing(about(0.9), by="otherwise"), standing(about(0.8)), False),
        (standing(about(0.9), robust_accuracy=about(0.45)), standing(about(0.8)), False),
        (standing(about(0.9), robust_accuracy=about(0.49)), standing(about(0.8)), True),  # worse, within the interval
        (standing(about(0.9), robust_accuracy=WHY_NOT), standing(about(0.8)), False),
        (standing(about(0.9)), standing(about(0.8), robust_accuracy=WHY_NOT), True),
        (standing(about(0.9), memorised=None), standing(about(0.8)), False),
        (standing(about(0.9)), standing(WHY_NOT), True),
        (standing(about(0.5)), standing(about(0.8), memorised=True), True),  # no leaking model holds off a clean one
        (standing(WHY_NOT), standing(about(0.8), memorised=True), False),
    ],
)
def test_rule_for_the_champion(candidate: Standing, champion: Standing | None, expected: bool) -> None:
    promoted, why = better(candidate, champion)
    assert promoted is expected, why
    assert why


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, with a journal of its own that no delivery knows."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "NETINV_PIPELINE_RUN", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offer(
    exported: "Exported",
    measures: list[float],
    number: int = 0,
    memorised: Sequence[bool] = (False, False),
    by: str = "alike",
    first: int = 0,
) -> list[str]:
    """One register stage, with an invert stage before it; returns what it tells."""
    deliverer = Deliverer(tracking.tracking_uri())
    made: list[str] = []
    for stage in ("invert", "register"):
        path = journal.journals() / f"{stage}-{number}"
        path.mkdir(parents=True)
        run = journal.Run(
            path, f"{stage} shapes robust", {"stage": stage, "dataset": "shapes", "variant": "robust"}, {}
        )
        with run.ending():
            if stage == "invert":
                for i in range(first, first + len(measures)):
                    with run.child(f"generator {i}", {"seed": i}):
                        pass
                made = [f"journal:{key}" for key in run.children.values()]
            else:
                run.log_models(
                    NAME,
                    [
                        Candidate(
                            file=exported.folder / f"generator-{i}.onnx",
                            generator=f"generator {i}",
                            run=made[i - first],
                            standing=standing(about(measure), memorised=memorised[i - first], by=by),
                            card=f"# Card of {i}",
                        )
                        for i, measure in enumerate(measures, first)
                    ],
                )
        deliverer.deliver(at_once=True)
        assert not (path / "error").exists(), (path / "error").read_text()
    state = json.loads((path / "run.json").read_text())
    assert state["done"]
    told: list[str] = state["told"]
    return told


def aliases(store: MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in store.get_registered_model(NAME).aliases.items()}


def test_registered_model_has_everything_and_is_registered_once(exported: "Exported", folder: Path) -> None:
    told = offer(exported, [0.8, 0.7])
    first = "version 1, champion: the first with evaluator accuracy 0.8 (0.79 to 0.81)."
    assert told[0] == f"{NAME}: generator 0 is {first}"
    assert told[1].startswith(f"{NAME}: generator 1 is version 2, not champion: ")
    registered = json.loads((folder / ".mlflow-journal/register-0/run.json").read_text())["run_id"]
    said = MlflowClient(tracking.tracking_uri()).get_run(registered).data.tags["mlflow.note.content"]
    assert said.startswith(f"Registered as [{NAME}](#/models/{NAME}):\n\n- generator 0 is {first}\n- generator 1 is")

    store = MlflowClient(tracking.tracking_uri())
    assert aliases(store) == {"champion": "1", "challenger": "2"}
    version = store.get_model_version_by_alias(NAME, "champion")
    assert version.description == "# Card of 0"
    assert version.tags["evaluator_accuracy"] == "0.8 (0.79 to 0.81)"
    run = store.get_run(version.run_id)
    assert (run.info.run_name, run.data.params["seed"]) == ("generator 0 of shapes robust", "0")

    mlflow.set_tracking_uri(tracking.tracking_uri())
    model = mlflow.models.get_model_info(f"models:/{NAME}@champion")
    assert model.flavors["onnx"]["providers"] == ["CPUExecutionProvider"]
    assert sorted(model.signature.inputs.input_names()) == ["condition", "latent"]
    assert model.signature.outputs.input_names() == ["images"]
    served = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    example = served.input_example
    images = served.predict(example)["images"]
    expected = exported.generators[0]
    assert images.shape == (2, *expected.image_shape)
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1"))
    assert (files / "extra_files" / "model_card.md").read_text() == "# Card of 0"
    loaded = mlflow.onnx.load_model(f"models:/{NAME}/1")
    assert loaded == onnx.load(exported.folder / "generator-0.onnx")

    # As if the answer to the first delivery had been lost, and later as another stage's offer of the same files.
    state = journal.journals() / "register-0" / "run.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"offset": 0, "done": False}))
    Deliverer(tracking.tracking_uri()).deliver(at_once=True)
    assert offer(exported, [0.8, 0.7], number=1) == [
        f"{NAME}: generator 0 is version 1 already.",
        f"{NAME}: generator 1 is version 2 already.",
    ]
    assert len(store.search_model_versions(f"name = '{NAME}'")) == 2
    experiment = store.get_experiment_by_name("netinv").experiment_id
    assert len(store.search_logged_models([experiment])) == 2

    # Measured again, and better.
    told = offer(exported, [0.8, 0.95], number=2)
    assert aliases(store) == {"champion": "2"}, told
    assert store.get_model_version(NAME, "2").tags["previous_champion"] == "1"

    back = CliRunner().invoke(main, ["promote", NAME, "1", "--why", "regression in production"])
    assert back.output == f"{NAME}: version 1 is champion, in place of version 2.\n"
    assert store.get_model_version(NAME, "1").tags["decision"] == "regression in production"
    lines = list(tracking.trace(NAME, "champion"))
    assert lines[0] == f"{NAME} version 1: regression in production"
    assert lines[1].startswith(f"  generator 0 of shapes robust: run {version.run_id}, commit ")
    assert lines[2].startswith("  invert shapes robust: run ")
    with pytest.raises(InputError, match="no version 9 of a model"):
        list(tracking.trace(NAME, "9"))


def test_a_champion_that_memorised_is_champion_no_more(exported: "Exported", folder: Path) -> None:
    offer(exported, [0.8, 0.7])
    store = MlflowClient(tracking.tracking_uri())
    assert aliases(store)["champion"] == "1"
    told = offer(exported, [0.8, 0.7], number=1, memorised=(True, False))
    assert "not champion: it was the champion, until the privacy audit found memorised training images." in told[0]
    assert "memorised" in store.get_model_version(NAME, "1").tags["decision"]
    assert aliases(store)["champion"] == "2"  # which is clean, and was held off by it
    # One that somebody made the champion in MLflow's page may have no measures.
    store.delete_model_version_tag(NAME, "2", "standing")
    told = offer(exported, [0.95], number=3)
    assert "not champion: the champion, version 2, has no measures of this pipeline: you decide" in told[0]
    assert aliases(store)["champion"] == "2"


def test_who_may_not_delete_an_alias_is_told_who_may(
    exported: "Exported", folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server with accounts everybody may set aliases, and only a model's maker and administrators delete them."""
    offer(exported, [0.8, 0.7])
    store = MlflowClient(tracking.tracking_uri())

    def forbid(*_: Any) -> None:
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    with monkeypatch.context() as forbidden:
        forbidden.setattr(MlflowClient, "delete_registered_model_alias", forbid)
        told = CliRunner().invoke(main, ["promote", NAME, "2", "--why", "tried out"])
        stays = "stays until an administrator, or who made the model, deletes it."
        assert told.output == f"{NAME}: version 2 is champion, in place of version 1; its alias challenger {stays}\n"
        tags = store.get_model_version(NAME, "2").tags
        assert (tags["decision"], tags["previous_champion"]) == ("tried out", "1")
        said = offer(exported, [0.8, 0.7], number=1, memorised=(True, True))
        assert said[0].endswith(f"found memorised training images; its alias champion {stays}")
        assert "memorised" in store.get_model_version(NAME, "2").tags["standing"]
        assert aliases(store)["champion"] == "2"
    offer(exported, [0.8, 0.7], number=2, memorised=(True, True))  # by somebody who may
    assert "champion" not in aliases(store)


def test_who_overrules_the_audit_is_not_overruled_by_the_next_registration(
    exported: "Exported", folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where its files are gone, and another version takes the place."""
    offer(exported, [0.8, 0.7], memorised=(True, False))
    store = MlflowClient(tracking.tracking_uri())
    assert aliases(store)["champion"] == "2"
    CliRunner().invoke(main, ["promote", NAME, "1", "--why", "licensed images"], catch_exceptions=False)
    told = offer(exported, [0.8, 0.7], number=1, memorised=(True, False))
    assert "version 1 already" in told[0]
    assert aliases(store)["champion"] == "1"
    assert store.get_model_version(NAME, "1").tags["decision"] == "licensed images"
    assert "is version 2" not in next(iter(tracking.trace(NAME, "latest")))

    shutil.rmtree(folder / "mlartifacts")

    def lose(*_: Any, **__: Any) -> None:
        raise ConnectionError("the server went away")

    with monkeypatch.context() as away:
        away.setattr(MlflowClient, "create_model_version", lose)
        with pytest.raises(AssertionError, match="the server went away"):
            offer(exported, [0.8], number=2, memorised=[True])
    Deliverer(tracking.tracking_uri()).deliver(at_once=True)
    state = json.loads((journal.journals() / "register-2" / "run.json").read_text())
    assert state["told"] == [f"{NAME}: generator 0 is version 3, in place of version 1, whose files are gone."]
    assert aliases(store)["champion"] == "3"
    assert store.get_model_version(NAME, "3").tags["decision"] == "licensed images"
    mlflow.set_tracking_uri(tracking.tracking_uri())
    assert mlflow.onnx.load_model(f"models:/{NAME}@champion") == onnx.load(exported.folder / "generator-0.onnx")
    assert len(store.search_logged_models([store.get_experiment_by_name("netinv").experiment_id])) == 3

    # A champion that nobody can load holds off no other.
    shutil.rmtree(folder / "mlartifacts")
    (told,) = offer(exported, [0.7], number=3, first=1)
    assert f"{NAME}: generator 1 is version 4, champion: the first" in told


def test_the_champion_is_looked_at_first(exported: "Exported", folder: Path) -> None:
    """Whatever the order of the candidates: the others are compared with what is known of it now."""
    offer(exported, [0.8, 0.7])
    store = MlflowClient(tracking.tracking_uri())
    told = offer(exported, [0.9, 0.95], number=1, by="another evaluation")
    assert "it was the champion, and was measured again" in told[0]
    assert f"{NAME}: generator 1 is version 2, champion" in told[1]
    assert aliases(store) == {"champion": "2"}
    told = offer(exported, [0.9, 0.95], number=2, memorised=(False, True), by="a third")
    assert "until the privacy audit found memorised training images" in told[0]
    assert aliases(store)["champion"] == "1"
    # Where there is no champion, what is known already is looked at again.
    store.delete_registered_model_alias(NAME, "champion")
    offer(exported, [0.9, 0.95], number=3, memorised=(False, True), by="a third")
    assert aliases(store)["champion"] == "1"


def test_what_is_not_known_of_a_version_is_said(exported: "Exported", folder: Path) -> None:
    offer(exported, [0.8])
    store = MlflowClient(tracking.tracking_uri())
    run = str(store.get_model_version(NAME, "1").run_id)
    with contextlib.suppress(MlflowException):  # a folder in no repository has none
        store.delete_tag(run, "mlflow.source.git.commit")
    lines = list(tracking.trace(NAME, "1"))
    assert ", commit not known" in lines[1]
    assert lines[-1].startswith("Its commit is not known")
    store.delete_tag(run, "variant")
    assert list(tracking.trace(NAME, "1"))[-1].startswith("Nothing more is known of it")
    by_hand = store.create_model_version(NAME, (exported.folder / "generator-0.onnx").as_uri())
    assert not by_hand.run_id
    assert list(tracking.trace(NAME, "2"))[1:] == [
        "Nothing more is known of it: it has no run of this pipeline that is still in this store."
    ]


@pytest.mark.parametrize("call", ["get_model_version", "set_model_version_tag", "get_run"])
def test_a_registry_that_fails_is_not_taken_for_one_that_lacks_something(
    call: str, exported: "Exported", folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(exported, [0.8])

    def fail(*_: Any) -> None:
        raise MlflowException("the database is away, password=hunter2")

    monkeypatch.setattr(MlflowClient, call, fail)
    for command in ("promote", "trace"):
        if (command, call) in (("promote", "get_run"), ("trace", "set_model_version_tag")):
            continue
        told = CliRunner().invoke(main, [command, NAME, "1"])
        assert told.exit_code == 2, told.exception
        assert "does not do what it is asked (the database is away" in told.output
        assert "hunter2" not in told.output
    with pytest.raises(InputError, match="has no version nobody of a model"):
        list(tracking.trace(NAME, "nobody"))
    with pytest.raises(InputError, match="has no version champion of a model absent"):
        tracking.promote("absent", "champion", "")


@pytest.mark.slow  # a server has to start
def test_a_registered_generator_is_served(exported: "Exported", folder: Path) -> None:
    from mlflow.models import get_model_info
    from tracked import answers, environment, free_port, wait_for

    from netinv.sampling import OnnxGenerator, draw

    offer(exported, [0.8])
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"models:/{NAME}@champion"]
    command += ["--env-manager", "local", "--port", str(port)]
    uri = tracking.tracking_uri()
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=environment(MLFLOW_TRACKING_URI=uri), stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/ping"), seconds=180)
        model = get_model_info(f"models:/{NAME}@champion").metadata
        latent, condition = draw(3, **model, seed=1, labels=[2, 2, 2])
        body = json.dumps({"inputs": {"latent": latent.tolist(), "condition": condition.tolist()}}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            served: Any = json.loads(answer.read())["predictions"]["images"]
        generator = OnnxGenerator(exported.folder / "generator-0.onnx")
        drawn = generator(latent, condition)
        assert np.array_equal(condition, generator.sample(3, seed=1, labels=2).condition)  # at its own sharpness
        assert abs(drawn - served).max() < 1e-6
    finally:
        os.killpg(server.pid, 9)
        server.wait()
