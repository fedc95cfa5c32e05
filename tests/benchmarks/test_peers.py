"""The methods that this library is measured against: each loss by hand, and the harness on untrained networks."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from draws import seed_torch, torch_rng
from safetensors.torch import save_file
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier, AdapterConfig
from netinv.core import InputError
from netinv.evaluation import measure_images

SHAPE = (1, 16, 16)


@pytest.fixture
def harness(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``benchmarks/compare_peers.py``; the folder of benchmarks is no package."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import compare_peers

    return compare_peers


@pytest.fixture
def peers(harness: Any) -> Any:
    """The package of the methods, of which ``peers.name`` is a module."""
    import peers

    return peers


@pytest.fixture
def network() -> AdaptedClassifier:
    """Untrained, with one batch norm that has seen something."""
    seed_torch(0)
    norm = nn.BatchNorm2d(3)
    assert norm.running_mean is not None
    norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.0]))
    layers = nn.Sequential(
        nn.Conv2d(1, 3, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10)
    )
    return AdaptedClassifier(layers.eval(), SHAPE, 10, AdapterConfig(mean=(0.2,), std=(0.4,)))


def cross_entropy(logits: Tensor, label: Tensor) -> float:
    """By its definition."""
    return sum(
        math.log(sum(math.exp(v) for v in row)) - row[k] for row, k in zip(logits.tolist(), label.tolist(), strict=True)
    ) / len(label)


def test_per_image_loss_is_cross_entropy_and_the_differences_of_neighbours(peers: Any) -> None:
    logits, label = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0])
    images = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    # Down: 0.5, 0.5, 0, 0; across: 1, 0, 0, 0.
    expected = cross_entropy(logits, label) + 0.3 * (1 / 4 + 1 / 4)
    assert float(peers.per_image.image_loss(logits, label, images, 0.3)) == pytest.approx(expected)


def test_color_shift_is_made_where_the_network_normalises(peers: Any) -> None:
    images = torch.tensor([0.6]).view(1, 1, 1, 1)
    shifted = peers.per_image.color_shift(
        images, torch.tensor(2.0), torch.tensor(0.5), torch.tensor(0.2), torch.tensor(0.4)
    )
    # (0.6 - 0.2) / 0.4 = 1; twice that less a half is 1.5; times 0.4 plus 0.2.
    assert float(shifted) == pytest.approx(0.8)


def test_batch_norm_statistics_are_lengths_of_differences(peers: Any) -> None:
    norm = nn.BatchNorm1d(2).eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(torch.tensor([1.0, 0.0]))
    norm.running_var.copy_(torch.tensor([1.0, 4.0]))
    statistics = peers.base.BatchNormStatistics(nn.Sequential(norm))
    norm(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
    # Means 3 and 4, variances 4 and 1: differences (2, 4) and (3, -3).
    assert float(statistics.loss()) == pytest.approx(math.sqrt(20) + math.sqrt(18))
    assert float(peers.base.BatchNormStatistics(nn.Linear(1, 1)).loss()) == 0


def test_statistics_of_a_network_follow_the_images_and_have_gradients(peers: Any, network: AdaptedClassifier) -> None:
    statistics = peers.base.BatchNormStatistics(network)
    images = torch.rand(4, *SHAPE, generator=torch_rng(1)).requires_grad_()
    network(images)
    convolution, norm = network.network[0], network.network[1]
    seen = convolution((images - 0.2) / 0.4).permute(1, 0, 2, 3).flatten(1)  # (3, pixels)
    apart = (seen.mean(1) - norm.running_mean).norm() + (seen.var(1, correction=0) - norm.running_var).norm()
    assert float(statistics.loss().detach()) == pytest.approx(float(apart.detach()), rel=1e-5)
    (gradient,) = torch.autograd.grad(statistics.loss(), images)
    assert float(gradient.abs().max()) > 0


def test_embedding_loss_is_cross_entropy_alone(peers: Any, network: AdaptedClassifier) -> None:
    method = peers.embedding.Embedding(network, 0)
    images, label = torch.rand(3, *SHAPE, generator=torch_rng(2)), torch.tensor([1, 4, 4])
    found = method.loss(images, label, torch.zeros(3, 64))
    assert float(found.detach()) == pytest.approx(cross_entropy(network(images), label), rel=1e-5)


def test_kegnet_loss(peers: Any) -> None:
    logits, label = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0])
    latent, decoded = torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    images = torch.tensor([[[[0.0, 1.0]]], [[[0.5, 0.5]]]])
    # Two of the four pairs are apart: by 4 / 2 in the noise and by 1 / 2 in the image.
    diversity = math.exp(-(2 * (2 * 0.5)) / 4)
    assert float(peers.kegnet.diversity_loss(latent, images)) == pytest.approx(diversity)
    expected = cross_entropy(logits, label) + 1 / 4 + diversity
    assert float(peers.kegnet.kegnet_loss(logits, label, decoded, latent, images)) == pytest.approx(expected)


def test_kegnet_brings_each_image_to_the_mean_and_deviation_of_training(peers: Any) -> None:
    images = torch.tensor([[[[0.0, 0.2, 0.4]]], [[[0.5, 0.5, 0.5]]]])
    found = peers.kegnet.normalised(images).flatten(1).tolist()
    assert found == [pytest.approx([-1, 0, 1]), [0, 0, 0]]


def test_contrast_counts_batch_and_memory_alike(peers: Any) -> None:
    local, whole = torch.eye(3), torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0.6, 0.8]])
    logits = (local @ whole.T / 0.1).tolist()
    losses = [math.log(sum(math.exp(v) for v in row)) - row[i] for i, row in enumerate(logits)]
    found = float(peers.contrast.contrast_loss(local, whole, 2))
    assert found == pytest.approx((losses[0] + losses[1]) / 2 + losses[2], rel=1e-5)
    alone = peers.contrast.contrast_loss(local[:2], whole[:2], 2)
    assert float(alone) == pytest.approx(math.log1p(math.exp(-10)), rel=1e-3)


def test_a_landscape_is_descended_along_its_gradient(peers: Any, network: AdaptedClassifier) -> None:
    method = peers.landscape.Landscape(network, 0)
    method.generator.eval()
    latent, label = torch.randn(2, 64, generator=torch_rng(3)), torch.tensor([3, 7])
    moved = method.descended(latent, label)
    direction = nn.functional.normalize(latent - moved, dim=1)  # the steepest: across it little but rounding is left
    step = 0.1
    with torch.no_grad():
        up, down = (method.losses(latent + s * direction, label).double() for s in (step, -step))
    slope = (up - down) / (2 * step)
    along = ((latent - moved) * direction).sum(dim=1) / peers.landscape.STEP
    torch.testing.assert_close(along.double(), slope, rtol=0.05, atol=1e-5)


def test_fitness_is_cross_entropy_and_closeness(harness: Any) -> None:
    pytest.importorskip("cma", reason="the evolutionary method is by the package cma")
    from peers.evolution import CLOSENESS, fitness

    logits = torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    closest = math.exp(-math.sqrt(1 / 2))
    expected = [cross_entropy(row[None], torch.tensor([0])) + CLOSENESS * closest for row in logits]
    assert fitness(logits, torch.zeros(3, dtype=torch.long), points).tolist() == pytest.approx(expected)


def test_a_maker_gives_the_first_of_each_class(peers: Any) -> None:
    maker = peers.base.Maker()
    maker.images, maker.label = torch.arange(4.0).view(4, 1, 1, 1).requires_grad_(), torch.tensor([0, 1, 0, 1])
    images, _ = maker.sample(torch.tensor([1, 1]), 0)
    assert (images.flatten().tolist(), maker.made) == ([1, 3], 0)
    maker.finish()
    maker.images, maker.label = torch.arange(4.0, 6).view(2, 1, 1, 1), torch.tensor([1, 0])
    maker.finish()
    images, labels = maker.sample(torch.tensor([0, 1, 1, 1, 1, 2]), 0)
    assert images.flatten().tolist() == [0, 1, 3, 4]
    assert labels.tolist() == [0, 1, 1, 1]
    assert maker.made == 6


def test_every_method_works_and_gives_images(harness: Any, network: AdaptedClassifier) -> None:
    label = torch.tensor([0, 1, 1])
    for name, start in harness.PEERS.items():
        method = start(network, 0)
        assert method.work(), name
        images, labels = method.sample(label, seed=1)
        assert images.shape[1:] == SHAPE, name
        assert len(images) == len(labels), name
        assert 0 <= float(images.min()) <= float(images.max()) <= 1, name
        assert not images.requires_grad, name
        assert name == "evolution" or labels.bincount().tolist() == [1, 2], name  # one class after the other


def test_batch_norm_statistics_need_batch_norm(peers: Any) -> None:
    plain = AdaptedClassifier(nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), SHAPE, 10)
    with pytest.raises(InputError, match="no batch norms"):
        peers.PEERS["per image, batch norm"](plain, 0)


class Improving:
    """Draws class 0 alone, and from its third piece of work on all classes."""

    made: int | None = None

    def __init__(self, until: int) -> None:
        self.pieces, self.until = 0, until

    def work(self) -> bool:
        self.pieces += 1
        return self.pieces < self.until

    def sample(self, label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        wanted = label if self.pieces >= 3 else torch.zeros_like(label)
        return wanted.float().view(-1, 1, 1, 1).expand(-1, *SHAPE) / 10, label


class Reader(nn.Module):
    """Reads what :class:`Improving` draws."""

    def forward(self, images: Tensor) -> Tensor:
        classes = (images[:, 0, 0, 0] * 10).round().long()
        return nn.functional.one_hot(classes, 10).float()


def test_a_run_is_judged_along_its_way(harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_000))
    monkeypatch.setattr(harness.time, "process_time", lambda: next(clock))  # each piece takes a second
    done = harness.run(Improving(until=100), {"judge": Reader()}, budget=8.0)
    assert done["history"] == [(1, pytest.approx(0.1)), (2, pytest.approx(0.1))] + [
        (s, pytest.approx(1)) for s in (3, 4, 6, 8)
    ]
    assert (done["best"], done["seconds_to_best"], done["seconds"]) == (pytest.approx(1), 3, 8)
    assert not done["ended"]
    ended = harness.run(Improving(until=5), {"judge": Reader()}, budget=8.0)
    assert (ended["ended"], ended["seconds"]) == (True, 5)


def test_a_batch_under_way_costs_no_image_anything(harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Single(Improving):
        def work(self) -> bool:
            more = super().work()
            self.made = 100 * (self.pieces // 3)
            return more

    clock = iter(range(1_000))
    monkeypatch.setattr(harness.time, "process_time", lambda: next(clock))
    single = Single(until=100)
    done = harness.run(single, {"judge": Reader()}, budget=8.0)  # 200 images after six seconds, and two of the next
    assert harness.costs(single, done) == {"first_image": 3, "next_10000": 10_000 * 6 / 200}


def test_a_class_without_an_image_counts_as_wrong(harness: Any) -> None:
    images = torch.full((2, *SHAPE), 0.3)
    assert harness.judged({"judge": Reader()}, images, torch.tensor([3, 3]))["judge"] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]


def test_the_reading_says_who_is_ahead_and_when(harness: Any) -> None:
    def row(method: str, *history: tuple[float, float]) -> dict[str, Any]:
        best = max(value for _, value in history)
        reached = next(seconds for seconds, value in history if value == best)
        told = {"data": "d", "network": "n", "budget": 9, "method": method, "history": history}
        told |= {"judges": {"wide": best, "strange": 0.1}, "one_answer": [] if "netinv" in method else ["strange"]}
        return told | {"best": best, "seconds_to_best": reached}

    peers = [row("a peer", (1, 0.5), (9, 0.4)), row("another", (1, 0.2), (9, 0.3))]
    ahead, wide, strange = harness.reading([*peers, row("netinv robust", (1, 0.1), (3, 0.495), (9, 0.9))])
    assert "netinv robust 0.900, ahead of a peer 0.500" in ahead
    assert "after 3.0 s; the peer after 1.0 s" in ahead
    assert wide == "  - At the end wide reads 0.900 of netinv robust and 0.500 of a peer."
    assert strange.endswith("It has one answer for everything of a peer, another.")
    behind, *_ = harness.reading([*peers, row("netinv robust", (1, 0.1), (9, 0.3))])
    assert "behind" in behind
    assert "never" in behind
    assert harness.reading(peers) == []


@pytest.fixture
def models(harness: Any, tmp_path: Path) -> Path:
    """Untrained networks and judges of digits."""
    import zoo

    folder = tmp_path / "models" / "digits"
    folder.mkdir(parents=True)
    seed_torch(0)
    for name, build in (zoo.NETWORKS | zoo.JUDGES).items():
        network = build(*SHAPE[:2])
        number = "-0" if name in zoo.NETWORKS else ""
        save_file(network.state_dict(), folder / f"{name}{number}.safetensors")
    (folder / "about.json").write_text(json.dumps({"image_shape": SHAPE, "mean": [0.3], "std": [0.3]}))
    return folder.parent


def test_one_command_makes_a_table_and_goes_on_where_it_was(
    harness: Any, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "LESSON", 64)
    out = tmp_path / "not/there/peers.jsonl"

    def call(methods: str) -> str:
        arguments = ["--methods", methods, "--networks", "lenet5-0", "--budget", "0.01", "--per-class", "10"]
        paths = ["--models", str(models), "--out", str(out), "--seeds", "1"]
        monkeypatch.setattr(sys, "argv", ["compare_peers.py", "digits", *paths, *arguments])
        harness.main()
        return capsys.readouterr().out

    call("per image")
    told = call("per image;per image, batch norm;netinv standard")
    assert "per image, batch norm is left out" in told
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["method"] for row in rows] == ["real images", "per image", "netinv standard"]
    assert all(0 <= row[name] <= 1 for row in rows for name in ("inversion", "worst_class", "robust_accuracy"))
    assert all(len(row["judges"]) == 3 for row in rows)
    assert [row["images"] for row in rows] == [100] * 3
    assert rows[1]["next_10000"] is None  # no batch was finished
    assert rows[2]["next_10000"] > 0
    table = out.with_suffix(".md").read_text().splitlines()
    assert "| centred diversity of 100 | coverage of 100 | student | robust of 100 |" in table[0]
    assert len({line.count("|") for line in table[:5]}) == 1
    assert [line.split(" | ")[2] for line in table[2:5]] == ["real images", "per image", "netinv standard"]
    assert "netinv standard" in table[6]


def test_as_many_images_of_each_class_are_compared_whoever_made_more(
    harness: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = sys.modules["zoo"]
    where = {"mirror": None, "folder": None, "image_shape": "", "models": models}
    data = zoo.read_data(argparse.Namespace(dataset="digits", **where))
    setting = harness.Setting(models / "digits", ["judge-lenet"], 1.0, 12, data, 0.1)
    labels = torch.arange(10).repeat_interleave(15)
    chosen = harness.chosen(labels, setting.compared)
    assert labels[chosen].bincount().tolist() == [12] * 10
    assert (chosen.view(10, 12) - 15 * torch.arange(10)[:, None]).sort(dim=1).values.ne(torch.arange(12)).any()
    assert harness.chosen(labels[1:-4], setting.compared) is None
    monkeypatch.setattr(harness, "LESSON", 64)
    images = torch.rand(150, *SHAPE, generator=torch_rng(3))
    seen: list[dict[str, tuple[Tensor, Tensor]]] = []

    def watched(sets: dict[str, tuple[Tensor, Tensor]], *arguments: Any) -> Any:
        seen.append(sets)
        return measure_images(sets, *arguments)

    monkeypatch.setattr(harness, "measure_images", watched)
    row = harness.measured(setting, "lenet5-0", images, labels)
    assert all(torch.equal(*pair) for pair in zip(seen[0]["compared"], (images[chosen], labels[chosen]), strict=True))
    assert torch.equal(seen[0]["all"][0], images)
    assert None not in [row[name] for name in harness.MEASURES]
    fewer = harness.measured(setting, "lenet5-0", images[:-4], labels[:-4])
    assert [name for name in harness.MEASURES if fewer[name] is not None] == ["student_accuracy"]


@pytest.mark.slow
def test_every_method_inverts_a_trained_network(harness: Any, tmp_path: Path) -> None:
    """Far above chance after a few seconds, each by its own means."""
    import zoo

    where = {"mirror": None, "folder": None, "image_shape": "", "models": tmp_path, "epochs": 3, "seeds": 1}
    options = argparse.Namespace(dataset="digits", networks="mlp-bn-0", **where)
    folder = tmp_path / "digits"
    zoo.train_all(options, folder)
    label = torch.arange(10).repeat_interleave(harness.LOOKED)
    for name, start in harness.PEERS.items():
        method = start(zoo.adapted(folder, "mlp-bn-0"), 0)
        harness.run(method, {"own": zoo.adapted(folder, "mlp-bn-0")}, budget=12.0)
        images, labels = method.sample(label, seed=1)
        assert harness.accuracy(harness.judged({"own": zoo.adapted(folder, "mlp-bn-0")}, images, labels)) > 0.5, name
