"""What a job asks of a cluster, whether it can ever have it, and on which device it then is."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from draws import torch_rng
from ray_needs import needs

from netinv.core import InputError
from netinv.interpretation import DictionaryConfig, Wanted
from pipeline import interpret
from pipeline.cluster import jobs_per_worker, resources
from pipeline.params import RayParams

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own start-up warns of its future defaults


def test_a_cluster_that_may_grow_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of an autoscaler's have a group, which is a label."""
    import ray

    def node(labels: dict[str, str], **more: float) -> dict[str, Any]:
        return {"Alive": True, "Resources": {"CPU": 4.0, **more}, "Labels": labels}

    def bundle() -> resources.ResourceBundle:
        return resources.ResourceBundle.of(needs(num_gpus=1), 1)

    there = [node({"ray.io/node-id": "0"})]
    monkeypatch.setattr(ray, "nodes", lambda: there)
    with pytest.raises(InputError, match="asks for 1 x 1 CPUs and 1 GPUs"):
        bundle()
    there[0] = node({"ray.io/node-id": "0", "ray.io/node-group": "headgroup"})
    assert "the nodes have 4 CPUs and 0 GPUs" in (bundle().shortage() or "")
    assert jobs_per_worker(9, needs(num_gpus=1)) == 1
    there.append(node({}, GPU=3.0))
    assert bundle().shortage() is None
    assert jobs_per_worker(9, needs(num_gpus=1)) == 3


@pytest.mark.parametrize("gpus", [{}, {"GPU": 1.0}])
@pytest.mark.parametrize("address", [None, "host:6379"])
def test_a_given_cluster_without_a_gpu_is_used_and_named_once(
    address: str | None, gpus: dict[str, float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resources, "_nodes", lambda: [{"CPU": 4.0, **gpus}])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    resources._print_once.cache_clear()
    wanted = needs().model_copy(update={"num_gpus": None})
    assert [resources.ResourceBundle.of(wanted, 1).num_gpus for _ in range(2)] == [len(gpus)] * 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == (1 if address and not gpus else 0)
    assert all("ray.num_gpus=1 waits for GPUs to join" in line for line in told)


GROWING = """
import os, threading
from typing import NamedTuple
import ray
from ray.cluster_utils import Cluster
from pipeline.cluster import run_tasks
from pipeline.params import RayParams

class Told(NamedTuple):
    number: int
    state: bytes | None = None

def work(job, state):
    yield Told(job)

os.environ["RAY_NODE_TYPE_NAME"] = "headgroup"
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
ray.init(address=cluster.address, logging_level="ERROR")
needs = RayParams(num_workers=1, num_cpus=1, num_gpus=1, checkpoint_every=1, storage="unused")
events = []
driver = threading.Thread(target=lambda: events.extend(run_tasks(work, {0: 7}, (), {}, needs)))
driver.start()
driver.join(8)
cluster.add_node(num_cpus=1, num_gpus=1)
driver.join()
print([event.number for _, event in events])
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow  # a cluster of its own, and the patience of 5 s
def test_a_generator_waits_for_the_node_that_can_hold_it() -> None:
    result = subprocess.run([sys.executable, "-c", GROWING], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip().endswith("[7]"), result.stderr[-2000:]
    assert "waiting for a node to join: A training asks for 1 x 1 CPUs and 1 GPUs" in result.stderr


def test_what_a_worker_trains_is_on_the_device_that_it_was_given(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    import ray

    from netinv.classifiers import ConvClassifierConfig, build_classifier
    from netinv.generators import GeneratorConfig
    from netinv.inversion import InversionConfig
    from pipeline.cluster import device
    from pipeline.generators import Job, train_generator
    from pipeline.params import load_params
    from pipeline.tune import train_trial

    given: list[str] = []

    def available() -> bool:  # says torch to the pipeline; what torch tells itself stays true
        name: str = sys._getframe(1).f_globals["__name__"]
        return name.startswith("pipeline.") or name == "netinv.core.devices"

    monkeypatch.setattr(torch.cuda, "is_available", available)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert device() == "cuda"
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": given})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    assert device() == "cpu"
    params = load_params(root / "params.yaml")
    classifier = build_classifier(ConvClassifierConfig(channels=(4,), feature_dim=8), 3, (1, 8, 8), (0.5,), (0.5,))
    architecture = GeneratorConfig(latent_dim=4, hidden_dim=12, width=4, max_width=4)
    config = InversionConfig(steps=1, log_every=1, batch_size=9)
    assert list(train_generator(classifier, 1, Job(0, architecture, config), None))
    tune = params.tune.model_copy(update={"samples_per_class": 2, "attack_steps": 1})
    common = params.for_dataset("digits").invert.common
    assert list(train_trial(classifier, common, config.model_dump(mode="json"), tune, {}))
    rows = {"generated": torch.randn(60, 6, generator=torch_rng(0))}
    dictionary = DictionaryConfig(units=12, active=3, steps=1, batch_size=16)
    assert list(interpret.train(rows, Wanted("a", "generated", "generated", dictionary), None))
    given.append("0")
    assert device() == "cuda"


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        ([{"CPU": 8}], {}, 1),
        ([{"CPU": 8}], {"generators_per_worker": 4}, 4),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8}], {}, 5),  # on two GPUs
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8}], {"num_gpus": 0.5}, 3),  # four workers
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8}], {"num_gpus": 0}, 1),
        ([{"CPU": 8, "GPU": 2}], {"num_workers": 2}, 1),
        ([{"CPU": 64, "GPU": 16}], {}, 1),
    ],
)
def test_generators_share_a_worker_on_gpus_so_that_none_waits(
    nodes: list[dict[str, float]], settings: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_nodes", lambda: nodes)
    defaults = {"num_workers": 1, "num_cpus": 1, "num_gpus": None, "checkpoint_every": 1, "storage": "unused"}
    assert jobs_per_worker(9, RayParams(**defaults | settings)) == expected
