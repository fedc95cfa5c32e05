"""Every setting of the pipeline's own reaches what it is for, without a cluster and without MLflow."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import pytest
import torch
from draws import seed_torch, torch_rng
from repositories import set_params
from torch import nn

from netinv import classifiers, evaluation
from netinv.classifiers import Classifier, ConvClassifierConfig, build_classifier, save_classifier
from netinv.core import InputError
from netinv.data import LabelledImages, load_spec, load_split, save_dataset
from pipeline import ablation, cluster, driver, invert, tracking, train, tune
from pipeline.cluster import resources, tasks
from pipeline.cluster.search import _drawn
from pipeline.driver import Followed, Plan
from pipeline.generators import Job
from pipeline.params import Choices, ModelParams, Params, Range, RayParams, load_params
from pipeline.stage import SCRATCH, locked

NODES = [{"CPU": 8.0, "GPU": 4.0}]


class Reached(Exception):
    """A stage has come to what a test looks at, and need not go on."""


class Asked(NamedTuple):
    """What a function was called with."""

    values: tuple[Any, ...]


def asked(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Any:
    """Have a function tell its arguments, and end what calls it."""

    def tell(*values: Any, **named: Any) -> Any:
        raise Reached(Asked((*values, *named.values())))

    monkeypatch.setattr(owner, name, tell)


def told(function: Any, *arguments: Any) -> tuple[Any, ...]:
    """What the function that ``asked`` replaced was called with; of a command, its function itself is called."""
    with pytest.raises(Reached) as reached:
        getattr(getattr(function, "callback", function), "__wrapped__", function)(*arguments)
    found: Asked = reached.value.args[0]
    return found.values


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings, 8 x 8 images of ten classes, and networks that read them; nothing is told to MLflow or Ray."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shutil.copy(root / "params.yaml", tmp_path)

    @contextlib.contextmanager
    def stage_run(*_: Any, **__: Any) -> Iterator[MagicMock]:
        yield MagicMock()

    monkeypatch.setattr(tracking, "stage_run", stage_run)
    monkeypatch.setattr(cluster, "cluster", lambda address: contextlib.nullcontext())
    rng = torch_rng(0)
    images = torch.randint(0, 256, (80, 1, 8, 8), generator=rng, dtype=torch.uint8)
    split = LabelledImages(images, torch.arange(80) % 10)
    (tmp_path / "data/digits").mkdir(parents=True)
    save_dataset(tmp_path / "data/digits", "digits", tuple("0123456789"), split, split, "", "")
    for name in ("classifier", "evaluator"):
        save_classifier(tmp_path / "models/digits" / name, network())
    return tmp_path


def network() -> Classifier:
    seed_torch(0)
    architecture = ConvClassifierConfig(channels=(4,), feature_dim=8, batch_norm=False)
    return build_classifier(architecture, 10, (1, 8, 8), (0.5,), (0.3,))


# ---- ModelParams


def test_a_model_has_its_seed_its_architecture_and_its_training(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, data = load_spec(Path("data/digits")), load_split(Path("data/digits"), "train")
    architecture = {"kind": "conv", "channels": [4], "feature_dim": 8}

    def trained(seed: int) -> Classifier:
        training = {"epochs": 2, "batch_size": 20}
        params = ModelParams.parse({"seed": seed, "architecture": architecture, "training": training})
        classifier, history = train._trained("train", params, spec, data, MagicMock(), Path("checkpoint"))
        assert [record["epoch"] for record in history] == [1, 2]
        return classifier

    first, again, other = (trained(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert any(not torch.equal(other[name], first[name]) for name in first)
    assert trained(3).config == ConvClassifierConfig(channels=(4,), feature_dim=8)
    records = [{"epoch": epoch, "loss": 1.0, "accuracy": 0.5, "samples": 80} for epoch in (1, 2)]
    monkeypatch.setattr(classifiers, "train_classifier", lambda *_: iter(records))
    assert not torch.equal(trained(3).head.weight, trained(4).head.weight)  # at the beginning, too


def test_a_source_is_taken_in_place_of_a_training(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_params(project, **{"train.classifier.source": {"model": "mine:net"}})
    asked(monkeypatch, train, "_taken")
    arguments = ("digits", "classifier", Path("data/digits"), Path("out"), Path("m.json"), Path("p.csv"))
    assert told(train.main, *arguments)[1].model == "mine:net"
    asked(monkeypatch, train, "_trained")
    set_params(project, **{"train.classifier.source": None})
    assert told(train.main, *arguments)[1].source is None


# ---- GeneratorParams


def planned(project: Path, **over: Any) -> Plan:
    set_params(project, **{f"invert.common.{key.replace('__', '.')}": value for key, value in over.items()})
    params = load_params()
    model = project / "models/digits/classifier"
    return invert.plan_generators("digits", "robust", params.for_dataset("digits").invert, params.ray, model)


def test_generators_are_as_many_and_their_seeds_count_up(project: Path) -> None:
    plan = planned(project, num_generators=2, seed=5, generator__width=8, robust_generator__bending=0.01)
    assert [job.seed for job in plan.jobs.values()] == [5, 6]
    assert {(job.architecture.width, job.architecture.bending) for job in plan.jobs.values()} == {(8, 0.01)}
    assert planned(project, seed=6).fingerprint != plan.fingerprint
    assert planned(project, seed=5).fingerprint == plan.fingerprint
    assert planned(project, robust_generator__bending=0.02).fingerprint != plan.fingerprint


def test_attempts_are_those_of_each_generator(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_params(project, **{"invert.common.attempts": 7})
    asked(monkeypatch, invert, "train_with_retries")
    outputs = (Path("out"), Path("m.json"), Path("p.csv"))
    assert told(invert.main, "digits", "robust", Path("models/digits/classifier"), *outputs)[1] == 7


# ---- RayParams


def ray_params(**over: Any) -> RayParams:
    defaults = {"num_workers": 1, "num_cpus": 1, "num_gpus": 0, "checkpoint_every": 10, "storage": "kept"}
    return RayParams.parse(defaults | over)


def test_workers_and_what_each_has_are_what_a_job_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_nodes", lambda: NODES)
    asked(monkeypatch, tasks, "_Tasks")
    for over, expected in (
        ({"num_workers": 3, "num_cpus": 2.0}, (2.0, 0.0, 3)),
        ({"num_gpus": 0.25}, (1.0, 0.25, 1)),
        ({"num_gpus": None}, (1.0, 1.0, 1)),
    ):
        bundle = told(lambda needs: next(cluster.run_tasks(MagicMock(), {}, (), {}, needs)), ray_params(**over))[4]
        assert (bundle.num_cpus, bundle.num_gpus, bundle.num_workers) == expected


def test_generators_share_a_worker_and_keep_their_states_as_often(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(project, num_generators=4)
    asked(monkeypatch, cluster, "run_tasks")
    followed = [MagicMock(spec=Followed, state=None, step=0) for _ in plan.jobs]
    for together, groups in ((None, 4), (2, 2)):
        needs = ray_params(generators_per_worker=together, checkpoint_every=17)
        monkeypatch.setattr(resources, "_nodes", lambda: NODES)
        own = Plan(plan.title, plan.classifier, plan.jobs, needs, plan.fingerprint)
        _, jobs, shared, _, resources_asked = told(driver.consume, own, followed)
        assert len(jobs) == groups
        assert shared[1] == 17
        assert resources_asked == needs


def test_states_are_kept_in_the_storage(project: Path) -> None:
    plan = Plan("invert it", network(), {"a": MagicMock(spec=Job)}, ray_params(storage="elsewhere"), "key")
    plan.checkpoints().save_history("0", [{"step": 1.0}])
    assert [path for path in (project / "elsewhere").rglob("*") if path.is_file()]


# ---- AblationParams and ConditionParams


def test_conditions_are_run_from_as_many_seeds_for_so_many_steps(project: Path) -> None:
    changes = {"generator": {"width": 8}, "inversion": {"gamma": 0.75}}
    conditions = {"plain": {"variant": "standard"}, "changed": {"variant": "robust", **changes}}
    over = {"num_seeds": 2, "steps": 33, "conditions": conditions}
    set_params(project, **{f"ablation.{key}": value for key, value in over.items()}, **{"invert.common.seed": 4})
    plan, names = ablation.plan_conditions("digits", load_params(), network(), project / "models/digits/classifier")
    assert names == ["plain", "plain", "changed", "changed"]
    assert [job.seed for job in plan.jobs.values()] == [4, 5, 4, 5]
    assert {job.config.steps for job in plan.jobs.values()} == {33}
    plain, _, changed, _ = plan.jobs.values()
    assert (plain.architecture.width, plain.config.gamma, plain.config.perturbation) == (16, 0.1, "none")
    assert (changed.architecture.width, changed.config.gamma, changed.config.perturbation) == (8, 0.75, "pgd")


def test_the_ablation_is_measured_by_its_own_evaluation_on_the_best_device(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_params(project, **{"ablation.evaluate.num_samples": 321})
    asked(monkeypatch, evaluation, "evaluate")
    monkeypatch.setattr(driver, "resume", lambda *_: [])
    monkeypatch.setattr(driver, "consume", lambda *_: None)
    monkeypatch.setattr(ablation, "measure", lambda *arguments: arguments[-1]([nn.Linear(1, 1)], (1.0, 1.0)))
    monkeypatch.setattr(ablation, "best_device", lambda: "meta")
    generators, classifier, evaluator, *_, config, _ = told(ablation.main, "digits", None, None, Path("ablation"))
    assert {next(one.parameters()).device.type for one in (*generators, classifier, evaluator)} == {"meta"}
    assert config == load_params().ablation.evaluate
    assert config.num_samples == 321


@pytest.mark.parametrize(
    ("main", "arguments", "work"),
    [
        (ablation.main, ("digits", None, None), (driver, "resume")),
        (tune.main, ("digits", "robust", None), (cluster, "search")),
    ],
)
def test_two_of_a_data_set_keep_out_of_each_others_states(
    project: Path, main: Any, arguments: tuple[Any, ...], work: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(monkeypatch, *work)
    set_params(project, **{"tune.robust": {"gamma": {"low": 0.1, "high": 0.2}}})
    name = "ablation-digits" if main is ablation.main else "digits-robust"
    refused = pytest.raises(InputError, match=f"is still at work on {name}: wait for it, or end it")
    with locked(SCRATCH / f"checkpoints-{name}.lock"), refused:
        told(main, *arguments, Path("elsewhere"))


# ---- Range, Choices and TuneParams


def test_parts_of_a_space_are_drawn_as_they_say() -> None:
    for log in (False, True):
        drawn = _drawn(Range(low=0.5, high=2.0, log=log))
        assert (drawn.lower, drawn.upper) == (0.5, 2.0)
        assert ("log" in type(drawn.sampler).__name__.lower()) == log
    assert list(_drawn(Choices(choices=(8, 16))).categories) == [8, 16]


@pytest.mark.parametrize("variant", ["standard", "robust"])
def test_a_search_has_its_trials_its_seed_and_its_space(
    project: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"gamma": {"low": 0.1, "high": 0.2}}
    set_params(project, **{"tune.num_trials": 5, "tune.seed": 11, f"tune.{variant}": space})
    asked(monkeypatch, cluster, "search")
    _, shared, drawn, _, num_trials, seed, *_ = told(tune.main, "digits", variant, None, None)
    assert (num_trials, seed) == (5, 11)
    assert drawn == {"gamma": Range(low=0.1, high=0.2)}
    assert shared[-1] == load_params().tune


def test_a_trial_is_measured_as_the_search_says(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_params(project, **{"tune.samples_per_class": 3, "tune.epsilon": 0.07, "tune.attack_steps": 2})
    params: Params = load_params()
    asked(monkeypatch, tune, "objectives")
    common = params.for_dataset("digits").invert.common
    config = params.for_dataset("digits").invert.standard.model_copy(update={"steps": 1, "batch_size": 4})
    trial = tune.train_trial(network(), common, config.model_dump(mode="json"), params.tune, {})
    assert told(next, trial)[3:] == (3, 0.07, 2)
