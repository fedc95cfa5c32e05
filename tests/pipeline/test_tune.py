"""The search: what it may draw, what it measures, which trial is the best; and (slow) a real one that is killed."""

import copy
import csv
import itertools
import json
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from draws import seed_torch
from repositories import fresh, run, set_params

from netinv.classifiers import Classifier, ConvClassifierConfig, build_classifier
from netinv.core import InputError, OutOfMemory
from netinv.evaluation import OBJECTIVES
from pipeline.cluster import Trial
from pipeline.estimates import PER_SECOND
from pipeline.layers import at
from pipeline.params import Params, load_params
from pipeline.tune import _merged, check_space, front, overrides, train_trial


@pytest.fixture
def params(root: Path) -> Params:
    return load_params(root / "params.yaml")


def searching(params: Params, **space: Any) -> Params:
    tune = params.tune.model_dump(mode="json") | {"robust": space, "standard": space}
    return params.model_copy(update={"tune": type(params.tune).parse(tune)})


PLAIN = ConvClassifierConfig(channels=(4,), feature_dim=8, batch_norm=False)


@pytest.fixture(scope="module")
def digits() -> Classifier:
    """A classifier of images as those of digits, without batch norm."""
    seed_torch(0)
    return build_classifier(PLAIN, 10, (1, 8, 8), (0.5,), (0.3,)).eval()


@pytest.mark.parametrize("variant", ["standard", "robust"])
def test_the_repositorys_own_space_is_possible(params: Params, digits: Classifier, variant: str) -> None:
    check_space(params, "digits", variant, digits)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"gamme": {"low": 0.1, "high": 1.0}}, r"tune\.standard\.gamme: variant\.gamme is not a known key"),
        ({"gamma": {"low": -1.0, "high": 1.0}}, r"tune\.standard\.gamma: .*gamma: expected greater than or equal to 0"),
        ({"epsilon": {"low": 0.1, "high": 0.2}}, r"tune\.standard\.epsilon: .*a perturbation needs an epsilon"),
        ({"generator.width": {"low": 8.5, "high": 9.5}}, r"tune\.standard\.generator\.width: .* integer"),
        ({}, r"tune\.standard names nothing"),
        (
            {"shift": {"choices": [0, 9]}},
            r"tune\.standard\.shift: invert\.standard\.shift is 9, but",
        ),
        (
            {"layer_statistics": {"low": 0.0, "high": 1.0}},
            r"layer_statistics needs a classifier with batch norm",
        ),
        (
            {"batch_size": {"choices": [62, 63]}},
            r"tune\.standard\.batch_size: .* cannot share a batch of 63",
        ),
        ({"steps": {"choices": [10, 1_000_000]}}, r"tune\.standard\.steps: invert\.standard would take some \d+ days"),
    ],
)
def test_an_impossible_space_is_refused(
    params: Params, digits: Classifier, space: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PER_SECOND, "cpu", 5e6)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    params = params.model_copy(update={"ray": params.ray.model_copy(update={"num_workers": 2})})
    with pytest.raises(InputError, match=words):
        check_space(searching(params, **space), "digits", "standard", digits)


@pytest.mark.parametrize(
    ("key", "set_above"),
    [
        ("gamma", {"robust": {"gamma": 0.5}}),
        ("generator.bending", {"common": {"robust_generator": {"bending": 0.0}}}),
        ("generator.bending", {"common": {"robust_generator": {"bending": "none"}}}),
        ("generator.bending", {"common": {"generator": {"bending": 0.1}}}),
    ],
)
def test_what_a_general_setting_would_overrule_is_not_searched(
    params: Params, digits: Classifier, key: str, set_above: dict[str, Any]
) -> None:
    general = params.model_copy(update={"invert": {"robust": None, "standard": None, "common": None} | set_above})
    space = {key: {"low": 0.0, "high": 0.2}}
    with pytest.raises(InputError, match=rf"tune\.robust\.{key}: invert\.[a-z_.]+ is set for every data set") as error:
        check_space(searching(general, **space), "digits", "robust", digits)
    place = re.findall(r"(invert\.[a-z_.]+) is set", str(error.value))[0]
    assert at({"invert": set_above}, place) is not None
    check_space(searching(params, **space), "digits", "robust", digits)


@pytest.mark.parametrize("name", ["bending", "softening", "toning"])
def test_what_robust_generators_have_of_their_own_is_searched_there(params: Params, name: str) -> None:
    invert = params.for_dataset("digits").invert
    for value in (0.0, 0.1):
        common, _ = _merged(invert.common, invert.robust.model_dump(mode="json"), {f"generator.{name}": value})
        assert getattr(common.architecture("robust"), name) == value
    key = f"++presets.digits.invert.common.robust_generator.{name}=0.1"
    assert overrides("digits", "robust", {f"generator.{name}": 0.1}) == [f"--set-param={key}"]
    key = f"++presets.digits.invert.common.generator.{name}=0.1"
    assert overrides("digits", "standard", {f"generator.{name}": 0.1}) == [f"--set-param={key}"]


def trial(name: str, *measured: float, outcome: str = "finished") -> Trial:
    record = dict(zip(OBJECTIVES, measured, strict=True))
    return Trial(name, {}, record | {"score": measured[0] * measured[1] * measured[2]}, outcome)


def test_the_front_holds_what_nothing_beats_and_begins_with_the_best_product() -> None:
    trials = [
        trial("one-sided", 1.0, 0.1, 0.1),
        trial("balanced", 0.9, 0.8, 0.5),
        trial("beaten", 0.9, 0.8, 0.4),
        trial("promising", 1.0, 1.0, 1.0, outcome="stopped early"),
        trial("diverse", 0.5, 0.5, 0.9),
    ]
    assert [t.name for t in front(trials)] == ["balanced", "diverse", "one-sided"]
    assert front([trials[3]]) == []


def test_overrides_name_the_keys_of_the_preset() -> None:
    settings = {"gamma": 0.5, "sharpness": 3.0, "generator.width": 8}
    assert overrides("mnist", "robust", settings) == [
        "--set-param=++presets.mnist.invert.robust.gamma=0.5",
        "--set-param=++presets.mnist.invert.robust.sharpness=[3.0,3.0]",
        "--set-param=++presets.mnist.invert.common.generator.width=8",
    ]


def test_a_trial_is_measured_at_a_quarter_at_half_and_at_its_end(exported: Any, params: Params) -> None:
    invert = params.for_dataset("digits").invert
    tune = params.tune.model_copy(update={"samples_per_class": 4, "attack_steps": 1})
    variant = invert.robust.model_copy(update={"steps": 40, "log_every": 5, "batch_size": 8}).model_dump(mode="json")
    settings = {"gamma": 0.5, "sharpness": 5.0, "generator.width": 8}
    records = list(train_trial(exported.classifier, invert.common, variant, tune, settings))
    assert [record["share"] for record in records] == [0.25, 0.5, 1.0]
    assert [record["samples"] for record in records] == [80, 160, 320]
    for record in records:
        assert record["score"] == pytest.approx(math.prod(record[name] for name in OBJECTIVES))
    broken = copy.deepcopy(exported.classifier)
    torch.nn.init.constant_(broken.head.bias, math.inf)
    hopeless = list(train_trial(broken, invert.common, variant, tune, {}))
    assert hopeless[-1]["share"] == 1
    assert hopeless[-1]["score"] == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "backward", _out_of_memory)
        with pytest.raises(OutOfMemory):  # which is a failure, and no score
            list(train_trial(exported.classifier, invert.common, variant, tune, settings))


def _out_of_memory(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("no room")


TINY = {
    "invert.robust.steps": 300,
    "invert.robust.log_every": 25,
    "tune.num_trials": 6,
    "tune.samples_per_class": 8,
    "tune.attack_steps": 2,
}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_search_that_is_killed_goes_on_and_its_best_is_an_experiment(root: Path, tmp_path: Path) -> None:
    copy = fresh(root, tmp_path / "project")
    set_params(copy, **TINY)
    run(copy, "dvc", "repro", "train@digits-classifier")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "RAY_", "NETINV_"))}
    search = subprocess.Popen(
        [sys.executable, "-m", "pipeline.tune", "digits", "robust"],
        cwd=copy,
        env={**environment, "PATH": path},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert search.stderr is not None
    ended = itertools.count(1)
    for line in search.stderr:
        if "trials, one" in line and next(ended) == 2:
            break
    time.sleep(3)
    os.killpg(search.pid, signal.SIGKILL)
    search.communicate()
    assert not (copy / "tune/digits-robust").exists()

    result = run(copy, sys.executable, "-m", "pipeline.tune", "digits", "robust")
    assert "goes on with the search that did not come to its end" in result.stderr
    assert result.stderr.count("trials, one") == 6
    assert "A new study" not in result.stdout + result.stderr
    assert not [path for path in (copy / ".stage/tune").rglob("*") if path.is_file()]
    with (copy / "tune/digits-robust/trials.csv").open() as file:
        trials = {row["trial"]: row for row in csv.DictReader(file)}
    assert len(trials) == 6
    assert {row["outcome"] for row in trials.values()} <= {"finished", "stopped early"}

    run(copy, sys.executable, "-m", "pipeline.tracking", "flush")
    parent = json.loads((copy / "runs/tune/digits-robust.json").read_text())["run_id"]
    with sqlite3.connect(copy / "mlflow.db") as store:
        children = dict(
            store.execute(
                "select name, r.run_uuid from runs r join tags t on t.run_uuid = r.run_uuid "
                "where t.key = 'mlflow.parentRunId' and t.value = ?",
                (parent,),
            )
        )
        steps = {
            name: [
                s for (s,) in store.execute("select step from metrics where key = 'tune/score' and run_uuid = ?", (i,))
            ]
            for name, i in children.items()
        }
        status = dict(store.execute("select run_uuid, status from runs"))
        names = [name for (name,) in store.execute("select name from runs where name like 'trial %'")]
    title = "trial {} of digits robust"
    assert set(children) == {title.format(name) for name in trials}
    assert {status[run_id] for run_id in children.values()} == {"FINISHED"}
    for name, row in trials.items():
        logged = steps[title.format(name)]
        assert sorted(set(logged)) == sorted(logged)
        assert max(logged) == int(float(row["step"])) * 64
    assert len(names) == len(set(names))

    # The best one is an experiment, with the command that the search told.
    command = result.stderr.strip().splitlines()[-1].partition(": ")[2]
    assert command == "xargs dvc exp run < tune/digits-robust/best.txt"
    assert f"```bash\n{command}\n```" in (root / "docs/scale-out.md").read_text()
    experiment = run(copy, "bash", "-c", f"{command} --name best invert@digits-robust")
    assert "Running stage 'invert@digits-robust'" in experiment.stdout
    shown = json.loads(run(copy, "dvc", "params", "diff", "HEAD", "best", "--json").stdout)["params.yaml"]
    leading = [row for row in trials.values() if row["front"] == "1"]
    best = max(leading, key=lambda row: float(row["score"]))
    assert best["outcome"] == "finished"
    for key in ("alpha", "gamma", "epsilon"):
        assert shown[f"presets.digits.invert.robust.{key}"]["new"] == pytest.approx(float(best[key]))
