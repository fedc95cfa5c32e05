"""Workers that share a batch against one that has all of it: real processes, real gloo."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from draws import seed_torch, torch_rng
from torch import Tensor

from netinv.classifiers import Classifier, ConvClassifierConfig, build_classifier, freeze
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import GlobalBatch, InversionConfig, InversionTraining
from netinv.inversion.parallel import _sum

NUM_WORKERS = 2
EVERYTHING = InversionConfig(
    steps=4,
    batch_size=12,
    sharpness=(1.0, 5.0),
    gamma=1.0,
    delta=1.0,
    total_variation=0.3,
    pixel_statistics=1.0,
    latent_field=1.0,
    layer_statistics=1.0,
    shift=1,
    distortion=0.2,
    epsilon_ramp=0.0,
    precision="float32",
    log_every=1,
)
CASES = {
    "plain": InversionConfig(steps=4, batch_size=12, precision="float32", log_every=1),
    "noise": EVERYTHING.model_copy(update={"perturbation": "noise", "epsilon": 0.1}),
    "pgd": EVERYTHING.model_copy(update={"perturbation": "pgd", "epsilon": 0.1, "attack_steps": 2}),
    "l2": EVERYTHING.model_copy(update={"perturbation": "pgd", "epsilon": 0.5, "norm": "l2"}),
    "own bounds": EVERYTHING.model_copy(update={"perturbation": "pgd", "epsilon": 0.1, "survival": 0.02}),
}


def networks(dtype: torch.dtype) -> tuple[ConditionedGenerator, Classifier]:
    seed_torch(0)
    classifier = build_classifier(ConvClassifierConfig(channels=(8,), feature_dim=16), 3, (1, 9, 8), (0.5,), (0.3,))
    architecture = GeneratorConfig(
        latent_dim=8, hidden_dim=16, width=8, max_width=16, bending=0.05, softening=0.5, toning=0.5
    )
    generator = ConditionedGenerator(architecture, 3, (1, 9, 8))
    freeze(classifier)
    return generator.to(dtype), classifier.to(dtype)


Result = tuple[Tensor, dict[str, float], Tensor]
Trained = tuple[Tensor, list[float]]
Workers = list[tuple[dict[tuple[str, str], Result], list[Trained]]]


def first_step(config: InversionConfig, dtype: torch.dtype, shared: GlobalBatch | None) -> Result:
    """Gradients, the record, and the statistics of batch norm after one step."""
    torch.set_default_dtype(dtype)
    generator, classifier = networks(dtype)
    record = next(iter(InversionTraining(generator, classifier, config, 3, shared)))
    torch.set_default_dtype(torch.float32)
    gradient = torch.cat([p.grad.flatten() for p in generator.parameters() if p.grad is not None])
    return gradient, record, torch.cat([b.flatten().double() for b in generator.buffers()])


def all_steps(config: InversionConfig, shared: GlobalBatch | None, interrupted: bool) -> Trained:
    """Final weights and the losses, perhaps with another training that takes over in the middle."""
    generator, classifier = networks(torch.float32)
    training = InversionTraining(generator, classifier, config, 3, shared)
    records = iter(training)
    losses = [next(records)["loss"] for _ in range(2)]
    if interrupted:
        state = training.state_dict()
        generator, _ = networks(torch.float32)
        training = InversionTraining(generator, classifier, config, 99, shared)
        training.load_state_dict(state)
        records = iter(training)
    losses += [record["loss"] for record in records]
    return torch.cat([p.detach().flatten() for p in generator.parameters()]), losses


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=NUM_WORKERS)
    shared = GlobalBatch(12)
    results = {}
    for name, config in CASES.items():
        for dtype in (torch.float32, torch.float64):
            results[name, str(dtype)] = first_step(config, dtype, shared)
    weights = [all_steps(CASES["own bounds"], shared, interrupted) for interrupted in (False, True)]
    torch.save((results, weights), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Workers:
    """What each worker computed."""
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, args=(port, str(folder)), nprocs=NUM_WORKERS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(NUM_WORKERS)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_one_worker(workers: Workers, name: str, dtype: torch.dtype) -> None:
    gradient, record, statistics = first_step(CASES[name], dtype, None)
    tolerance = 1e-3 if dtype is torch.float32 else 1e-12  # the latter is the sharp one, and no draw rounds near it
    for results, _ in workers:
        shared_gradient, shared_record, shared_statistics = results[name, str(dtype)]
        assert (shared_gradient - gradient).norm() < tolerance * gradient.norm()
        assert (shared_statistics - statistics).norm() < tolerance * statistics.norm()
        assert shared_record == pytest.approx(record, rel=tolerance, abs=tolerance)


def test_workers_stay_alike_and_resume_bit_for_bit(workers: Workers) -> None:
    (_, ((weights, losses), (resumed, same))), (_, ((others, _), _)) = workers
    assert torch.equal(weights, others)
    assert torch.equal(weights, resumed)
    assert losses == same


LONG = CASES["own bounds"].model_copy(update={"steps": 60, "log_every": 60})


def long_training(dtype: torch.dtype, shared: GlobalBatch | None) -> Trained:
    """Weights after sixty steps, and the last loss."""
    torch.set_default_dtype(dtype)
    try:
        generator, classifier = networks(dtype)
        losses = [record["loss"] for record in InversionTraining(generator, classifier, LONG, 3, shared)]
    finally:
        torch.set_default_dtype(torch.float32)
    return torch.cat([p.detach().flatten().double() for p in generator.parameters()]), losses


def long_work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=NUM_WORKERS)
    found = [long_training(dtype, GlobalBatch(LONG.batch_size)) for dtype in (torch.float32, torch.float64)]
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_rounding_alone_tells_two_workers_from_one(tmp_path: Path) -> None:
    """What grows over sixty steps in float32 is gone in float64: the two compute the same."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(long_work, args=(port, str(tmp_path)), nprocs=NUM_WORKERS)
    workers = torch.load(tmp_path / "0.pt", weights_only=True)
    apart = []
    for dtype, (weights, losses) in zip((torch.float32, torch.float64), workers, strict=True):
        alone, alone_losses = long_training(dtype, None)
        apart.append(((weights - alone).abs().max().item(), abs(losses[-1] - alone_losses[-1])))
    print("largest difference of a weight, and of the loss:", apart)
    single, double = apart
    assert double[0] < 1e-9
    assert double[1] < 1e-9
    assert double[0] < 1e-4 * single[0]  # by how much finer float64 rounds, and more


@pytest.fixture
def lone_group() -> Iterator[None]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("lone_group")
def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    with pytest.raises(ValueError, match="3 workers share equally, got 4"):
        GlobalBatch(4)


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    """A process group in this process, whose only member has the whole batch."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("case", CASES)
def test_a_group_of_one_does_the_work_alone(case: str, group_of_one: None) -> None:
    expected = first_step(CASES[case], torch.float64, None)
    found = first_step(CASES[case], torch.float64, GlobalBatch(12))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_group_of_one_gathers_and_sums_what_it_has(group_of_one: None) -> None:
    shared = GlobalBatch(7)
    assert (shared.rank, shared.num_workers) == (0, 1)
    rows = torch.rand(7, 2, 3, generator=torch_rng(0)).transpose(1, 2).requires_grad_()
    assert torch.equal(shared.own_rows(rows), rows)
    gathered = shared.gather(rows)
    assert torch.equal(gathered, rows)
    weights = torch.rand(7, 3, 2, generator=torch_rng(1))
    (gradient,) = torch.autograd.grad((gathered * weights).sum(), rows)
    assert torch.equal(gradient, weights)
    (gradient,) = torch.autograd.grad((_sum(rows) * weights).sum(), rows)
    assert torch.equal(gradient, weights)
    parameters = [torch.zeros(2, 3), torch.zeros(4), torch.zeros(1)]
    for parameter in parameters[:2]:
        parameter.grad = torch.ones_like(parameter)
    shared.sum_gradients(parameters)
    assert [parameter.grad is None or parameter.grad.tolist() for parameter in parameters] == [
        [[1.0] * 3] * 2,
        [1.0] * 4,
        True,
    ]
