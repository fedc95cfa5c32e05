"""The work of the stage ``invert`` in one process: generators alone and together, from their beginning or a state."""

import shutil
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from draws import seed_torch
from torch import nn

from netinv.classifiers import Classifier, ConvClassifierConfig, build_classifier, save_classifier
from netinv.core import InputError
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig
from pipeline import ablation, driver, invert
from pipeline.checkpoints import Checkpoints
from pipeline.generators import Event, Job, _saved, groups, load_state, train_generator, train_generators
from pipeline.invert import Trained
from pipeline.params import ConditionParams, RayParams, load_params

if TYPE_CHECKING:
    from pipeline.tracking import Run

ARCHITECTURE = GeneratorConfig(latent_dim=8, hidden_dim=16, width=8, max_width=16)
CONFIG = InversionConfig(steps=10, batch_size=12, precision="float32", log_every=2)
CHECKPOINT_EVERY = 4


@pytest.fixture
def classifier() -> Classifier:
    seed_torch(0)
    return build_classifier(
        ConvClassifierConfig(channels=(8,), feature_dim=16, batch_norm=False), 3, (1, 9, 8), (0.5,), (0.3,)
    )


def test_only_those_of_one_kind_are_trained_together() -> None:
    assert groups([0] * 5, size=2) == [(0, 1), (2, 3), (4,)]
    assert groups([0] * 5, size=8) == [(0, 1, 2, 3, 4)]
    assert groups([100, 0, 100, 0, 100], size=2) == [(0, 2), (4,), (1, 3)]


def close(together: Event, alone: Event) -> None:
    """The same of both, up to rounding, which Adam's first steps make much of where a gradient is next to nothing."""
    assert together.record == pytest.approx(alone.record, rel=1e-2, abs=1e-3)
    assert (together.grid is None) == (alone.grid is None)
    if together.grid is not None and alone.grid is not None:
        assert np.abs(together.grid.astype(int) - alone.grid.astype(int)).max() <= 3
    assert (together.state is None) == (alone.state is None)
    if together.state is not None and alone.state is not None:
        got, expected = (load_state(state) for state in (together.state, alone.state))
        assert got.keys() == expected.keys()
        assert got["step"] == expected["step"]
        assert torch.equal(got["rng"], expected["rng"])
        for name, tensor in expected["generator"].items():
            torch.testing.assert_close(got["generator"][name], tensor, rtol=1e-2, atol=1e-2)


def test_together_they_tell_what_each_would_tell_alone(classifier: Classifier) -> None:
    jobs = (Job(3, ARCHITECTURE, CONFIG), Job(7, ARCHITECTURE, CONFIG))
    together = list(train_generators(classifier, CHECKPOINT_EVERY, jobs, None))
    assert [events.state is not None for events in together] == [False, True, False, True, True]
    for i, job in enumerate(jobs):
        alone = list(train_generator(classifier, CHECKPOINT_EVERY, job, None))
        assert len(alone) == len(together)
        for events, event in zip(together, alone, strict=True):
            close(events.each[i], event)


def test_what_was_kept_together_goes_on_together_or_alone(classifier: Classifier) -> None:
    jobs = (Job(3, ARCHITECTURE, CONFIG), Job(7, ARCHITECTURE, CONFIG))
    whole = list(train_generators(classifier, CHECKPOINT_EVERY, jobs, None))
    kept = whole[1].state
    assert kept is not None
    rest = list(train_generators(classifier, CHECKPOINT_EVERY, jobs, kept))
    assert [[e.record for e in events.each] for events in rest] == [[e.record for e in w.each] for w in whole[2:]]
    for i, job in enumerate(jobs):
        alone = list(train_generator(classifier, CHECKPOINT_EVERY, job, kept[i]))
        for events, event in zip(rest, alone, strict=True):
            close(events.each[i], event)


@pytest.mark.parametrize("together", [1, 2])
def test_a_state_of_another_kind_of_device_is_told_and_the_training_begins_anew(
    classifier: Classifier,
    together: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of three generators the first has kept a state of its worker's kind, the others one of another kind."""
    jobs = {name: Job(seed, ARCHITECTURE, CONFIG) for seed, name in enumerate("abc")}
    states, records = [], []
    for job in jobs.values():
        events = list(train_generator(classifier, CHECKPOINT_EVERY, job, None))
        records.append([event.record for event in events])
        states.append(events[1].state)
    assert states[0] is not None

    class Known(driver.Followed):
        def __init__(self, state: bytes | None) -> None:
            self.history, self.state, self.taken = [], state, list[dict[str, float]]()

        def take(self, record: dict[str, float], *_: Any, **__: Any) -> int:
            self.taken.append(record)
            return 1

        def begin_anew(self) -> int:
            assert not self.taken
            return 0

    def local(task: Any, jobs: Any, shared: Any, states: Any, _: Any) -> Any:
        for index, job in jobs.items():
            for event in task(*shared, job, states.get(index)):
                yield index, event

    monkeypatch.setattr(driver.cluster, "cluster", nullcontext)
    monkeypatch.setattr(driver.cluster, "jobs_per_worker", lambda *_: together)
    monkeypatch.setattr(driver.cluster, "run_tasks", local)
    foreign = [_saved(load_state(state) | {"rng": torch.zeros(16, dtype=torch.uint8)}) for state in states if state]
    followed = [Known(state) for state in (states[0], *foreign[1:])]
    ray = RayParams(num_workers=1, num_cpus=1, num_gpus=None, checkpoint_every=CHECKPOINT_EVERY, storage=str(tmp_path))
    driver.consume(driver.Plan("invert it", classifier, jobs, ray, "key"), cast("list[driver.Followed]", followed))
    for one, expected in zip(followed, (records[0][2:], *records[1:]), strict=True):
        assert one.taken == [pytest.approx(record, rel=1e-3, abs=1e-4) for record in expected]
    told = capsys.readouterr().err
    assert [f"checkpoint of {name} is from another kind of device" in told for name in jobs] == [False, True, True]
    assert told.count("begins anew") == 2


def test_a_training_that_begins_anew_leaves_nothing_of_the_one_before(tmp_path: Path) -> None:
    logged: list[dict[str, float]] = []
    run = cast(
        "Run", SimpleNamespace(log_earlier_metrics=lambda *_: None, log_metrics=lambda m, step: logged.append(m))
    )
    checkpoints = Checkpoints(str(tmp_path), "stage", "key")
    checkpoints.save_history(0, [{"step": float(step), "samples": 4.0 * step, "accuracy": 0.9} for step in (1, 2)])
    followed = driver.Followed(0, checkpoints, run, "invert")
    assert followed.begin_anew() == 2
    record = {"step": 1.0, "samples": 4.0, "accuracy": 0.5}
    assert followed.take(record) == 1
    assert followed.history == checkpoints.load(0)[0] == [record]
    assert logged == [{"invert/step": 1.0, "invert/accuracy": 0.5}]


def test_what_is_done_already_tells_nothing_more(classifier: Classifier) -> None:
    jobs = (Job(3, ARCHITECTURE, CONFIG),)
    done = list(train_generators(classifier, CHECKPOINT_EVERY, jobs, None))[-1].state
    assert list(train_generators(classifier, CHECKPOINT_EVERY, jobs, done)) == []


def generator(by_class: tuple[float, ...], key: str = "") -> Trained:
    followed = cast("driver.Followed", SimpleNamespace(run=SimpleNamespace(key=key)))
    return Trained(followed, ConditionedGenerator(ARCHITECTURE, 3, (1, 9, 8)), by_class)


def test_the_attempt_that_lacks_the_fewest_classes_counts(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, weak = generator((1.0, 0.9, 0.95), "whole"), generator((1.0, 1.0, 0.2), "weak")
    none = generator((0.5, 0.5, 0.5), "none")
    attempts = [{"a": weak, "b": whole, "c": weak}, {"a": none, "c": none}, {"a": whole, "c": weak}]
    asked = []

    def trained(plan: driver.Plan, *_: Any) -> dict[str, Trained]:
        asked.append({name: job.seed for name, job in plan.jobs.items()})
        return attempts[len(asked) - 1]

    monkeypatch.setattr(invert, "_trained", trained)
    ray = RayParams(num_workers=1, num_cpus=1, num_gpus=None, checkpoint_every=10, storage=str(tmp_path))
    jobs = {name: Job(seed, ARCHITECTURE, CONFIG) for seed, name in enumerate("abc")}
    plan = driver.Plan("invert it", classifier, jobs, ray, "key")
    run = cast("Run", SimpleNamespace(children={}))
    found = invert.train_with_retries(plan, 3, plan.checkpoints(), run, ExitStack())
    assert found == [whole, whole, weak]
    assert run.children == {"a": "whole", "b": "whole", "c": "weak"}  # what the registry takes for a generator's run
    assert asked == [
        {"a": 0, "b": 1, "c": 2},
        {"a, attempt 2": 3, "c, attempt 2": 5},
        {"a, attempt 3": 6, "c, attempt 3": 8},
    ]
    assert "invert it: a, c cannot draw a class: attempt 2 of 3" in capsys.readouterr().err
    assert plan.again(["a", "c"], 2).keys == ("0-2", "2-2")  # the same, whoever else was lacking


def test_generators_are_measured_on_the_best_device_and_come_back(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a GPU, where there is one; a worker of the next attempt may have none."""
    ray = RayParams(num_workers=1, num_cpus=1, num_gpus=None, checkpoint_every=10, storage=str(tmp_path))
    plan = driver.Plan("invert it", classifier, {"a": Job(0, ARCHITECTURE, CONFIG)}, ray, "key")
    network = generator(()).network
    places: dict[nn.Module, str] = {}
    measured: list[str] = []

    def measure(*networks: Any) -> tuple[float, ...]:
        measured.extend(places[network] for network in networks[:2])
        return 1.0, 0.95, 1.0

    monkeypatch.setattr("pipeline.progress.LINE_SECONDS", 0)
    monkeypatch.setattr(nn.Module, "to", lambda self, place: places.update({self: place}) or self)
    monkeypatch.setattr(nn.Module, "cpu", lambda self: self.to("cpu"))
    monkeypatch.setattr(driver, "resume", lambda *_: [SimpleNamespace(state=b"")])
    monkeypatch.setattr(driver, "consume", lambda *_: None)
    monkeypatch.setattr("pipeline.generators.trained", lambda *_: network)
    monkeypatch.setattr("netinv.inversion.class_accuracies", measure)
    monkeypatch.setattr(invert, "best_device", lambda: "cuda")
    run = cast("Run", SimpleNamespace())
    invert._trained(plan, plan.checkpoints(), run, ExitStack())
    assert measured == ["cuda", "cuda"]
    assert places == {classifier: "cpu", network: "cpu"}
    assert (
        "invert it, each class: 1 of 1 generators, the worst of a 0.950" in capsys.readouterr().err
    )  # it may be hours


def test_robust_generators_alone_are_bent_and_softened(classifier: Classifier, tmp_path: Path, root: Path) -> None:
    save_classifier(tmp_path, classifier)
    params = load_params(root / "params.yaml")
    for variant, expected in (("standard", (0.0, 0.0)), ("robust", (0.04, 1.0))):
        plan = invert.plan_generators("digits", variant, params.for_dataset("digits").invert, params.ray, tmp_path)
        architectures = [job.architecture for job in plan.jobs.values()]
        assert [(a.bending, a.softening) for a in architectures] == [expected] * 3


def test_what_is_told_of_generators_says_what_it_was_measured_on() -> None:
    generators = [generator((1.0, 0.9, 0.95)), generator((1.0, 1.0, 0.25))]
    assert invert.summary_line("it", generators) == "it: 2 generators, accuracy 0.850, worst class 0.250"
    attacked = CONFIG.model_copy(update={"epsilon": 0.1, "perturbation": "noise"})
    jobs = [Job(3, ARCHITECTURE, config) for config in (attacked, attacked, CONFIG)]
    followed = cast("list[driver.Followed]", [SimpleNamespace(history=h) for h in ([{"accuracy": 0.5}], [], [])])
    assert driver._standing(jobs[:2], followed[:2]) == "accuracy under attack 0.500 -"
    assert driver._standing(jobs, followed) == "accuracy 0.500 - -"


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"layer_statistics": 1.0}, r"layer_statistics needs a classifier with batch norm layers"),
        ({"batch_size": 63}, r"batch_size: 2 workers \(ray\.num_workers\) cannot share a batch of 63"),
        ({"shift": 20}, r"shift is 20, but the images have 9 x 8 pixels"),
    ],
)
def test_what_would_fail_in_a_worker_is_refused_before_there_is_one(
    classifier: Classifier, tmp_path: Path, root: Path, over: dict[str, float], words: str
) -> None:
    """In the plan of the stage, and in that of the ablation in each of its conditions."""
    save_classifier(tmp_path, classifier)
    params = load_params(root / "params.yaml")
    params = params.model_copy(update={"ray": params.ray.model_copy(update={"num_workers": 2})})
    above = params.model_copy(update={"invert": {"robust": over}})
    with pytest.raises(InputError, match=rf"^invert\.robust\.{words}"):
        invert.plan_generators("digits", "robust", above.for_dataset("digits").invert, params.ray, tmp_path)
    for name in ("robust", "no KL"):
        condition = ConditionParams.parse({"variant": params.ablation.conditions[name].variant, "inversion": over})
        conditions = {**params.ablation.conditions, name: condition}
        changed = params.model_copy(update={"ablation": params.ablation.model_copy(update={"conditions": conditions})})
        with pytest.raises(InputError, match=rf"^ablation\.conditions\.{name}\.inversion\.{words}"):
            ablation.plan_conditions("digits", changed, classifier, tmp_path)


def test_the_table_of_the_ablation_is_tried_before_its_work(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(root / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("ablation").write_text("mine")
    main: Any = ablation.main.callback
    with pytest.raises(InputError, match=r"ablation/digits\.csv cannot be written"):
        main.__wrapped__("digits", None, None, Path("ablation"))


def test_whoever_draws_all_classes_is_trained_once(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generator((1.0, 0.9, 0.95))
    monkeypatch.setattr(invert, "_trained", lambda *_: {"a": whole})
    ray = RayParams(num_workers=1, num_cpus=1, num_gpus=None, checkpoint_every=10, storage=str(tmp_path))
    plan = driver.Plan("invert it", classifier, {"a": Job(0, ARCHITECTURE, CONFIG)}, ray, "key")
    run = cast("Run", SimpleNamespace(children={}))
    assert invert.train_with_retries(plan, 9, plan.checkpoints(), run, ExitStack()) == [whole]


def test_a_change_of_any_file_of_the_library_or_of_the_stage_is_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, model, stage = tmp_path / "netinv", tmp_path / "model", tmp_path / "stage.py"
    files = [
        library / "__init__.py",
        library / "losses.py",
        library / "deep" / "er" / "kl.py",
        model / "weights",
        stage,
    ]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    monkeypatch.setattr(driver.netinv, "__file__", str(library / "__init__.py"))
    found = {driver.fingerprint(["settings"], model, str(stage))}
    for path in files:
        path.write_text("another")
        found.add(driver.fingerprint(["settings"], model, str(stage)))
    assert len(found) == 1 + len(files)
    assert driver.fingerprint(["others"], model, str(stage)) not in found
