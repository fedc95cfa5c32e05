"""What ``gpu.py`` measures, a part each: generators of rows, which stop by themselves when their time is up."""

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import baseline
import torch
from inversion import Arithmetic, fresh_classifier, synchronize, timed
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from netinv.classifiers import (
    Classifier,
    ClassifierConfig,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    ResidualClassifierConfig,
    build_classifier,
    freeze,
    predict,
    train_classifier,
)
from netinv.data import Dataset, FetchConfig, channel_statistics, fetch_dataset
from netinv.generators import ConditionedGenerator, GeneratorConfig, draw_images
from netinv.inversion import GlobalBatch, InversionConfig, InversionTraining, JointTraining, variant_config

MNIST_ROBUST: dict[str, Any] = {
    "epsilon": 0.2,
    "gamma": 1.0,
    "latent_field": 2.0,
    "survival": 0.0,
    "attack_steps": 2,
    "attack_step_size": 1.0,
}
"""MNIST's preset over the general robust values."""
CONFIGS = {
    "standard": variant_config("standard"),
    "robust": variant_config("robust").model_copy(update=MNIST_ROBUST),
}
BLOCK = 10
"""Steps between two looks at the clock, and between two records."""


class Row(NamedTuple):
    """A line of the table."""

    name: str
    value: str
    beside: str
    """What it is compared with."""
    figures: dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How much is measured, and until when."""

    small: bool
    mirror: Path | None
    end: float
    """By ``time.monotonic``."""

    @property
    def device(self) -> torch.device:
        """The GPU, if there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def left(self) -> float:
        """Seconds until its time is up."""
        return self.end - time.monotonic()


Part = Callable[[Options], Iterator[Row]]


def _generator(
    shape: tuple[int, int, int], seed: int, device: torch.device, num_classes: int = 10
) -> ConditionedGenerator:
    torch.manual_seed(seed)
    return ConditionedGenerator(GeneratorConfig(), num_classes, shape).to(device)


# ---- is it right?


class Mode(NamedTuple):
    """A way to compute a step, and how far from float64 on the CPU it may be."""

    name: str
    dtype: torch.dtype
    precision: str
    tf32: bool
    limits: dict[str, tuple[float, float]]
    """By variant: of the loss and its terms, relative to the largest, and of the gradient, relative to its length."""


MODES = (
    Mode("float64", torch.float64, "float32", False, {"standard": (1e-9, 1e-7), "robust": (1e-6, 1e-3)}),
    Mode("float32", torch.float32, "float32", False, {"standard": (1e-4, 1e-2), "robust": (1e-2, 0.1)}),
    Mode(
        "float32, tf32 in convolutions",
        torch.float32,
        "float32",
        True,
        {"standard": (1e-2, 0.1), "robust": (0.05, 0.5)},
    ),
    Mode("bfloat16", torch.float32, "bfloat16", True, {"standard": (0.05, 0.3), "robust": (0.1, 0.8)}),
)
"""A robust step takes signs of gradients, which any rounding can turn: only float64 agrees closely there."""


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _one_step(variant: str, device: torch.device, mode: Mode, batch_size: int) -> tuple[Tensor, Tensor]:
    """Loss and terms of one step, and its gradient, of the same weights and draws on any device."""
    torch.set_default_dtype(torch.float64)
    try:
        generator = _generator((1, 28, 28), 0, torch.device("cpu"))
        classifier = fresh_classifier((1, 28, 28), torch.device("cpu"))
        config = CONFIGS[variant].model_copy(update={"precision": mode.precision, "batch_size": batch_size})
        draws = InversionTraining(generator, classifier, config, seed=1).draw()
    finally:
        torch.set_default_dtype(torch.float32)
    classifier, generator = classifier.to(device, mode.dtype), generator.to(device, mode.dtype).train()
    training = InversionTraining(generator, classifier, config, seed=1)
    training.step = config.steps // 2
    draws = type(draws)(*(d.to(device, mode.dtype if d.is_floating_point() else d.dtype) for d in draws))
    with _tf32(mode.tf32):
        loss, terms = training.loss(draws, every_term=True)
        loss.backward()
    counts = {"accuracy", "worst_class"}
    values = [loss, *(terms[name] for name in sorted(terms.keys() - counts))]
    gradient = [parameter.grad.flatten() for parameter in generator.parameters() if parameter.grad is not None]
    return torch.stack([v.detach().double().cpu() for v in values]), torch.cat(gradient).double().cpu()


def correctness(options: Options) -> Iterator[Row]:
    """One step in every precision against float64 on the CPU, one program against each alone, a group of one."""
    batch_size = 16 if options.small else 64
    for variant in CONFIGS:
        values, gradient = _one_step(variant, torch.device("cpu"), MODES[0], batch_size)
        for mode in MODES:
            got, got_gradient = _one_step(variant, options.device, mode, batch_size)
            loss_error = float(((got - values).abs() / values.abs().clamp(min=1e-3)).max())
            gradient_error = float((got_gradient - gradient).norm() / gradient.norm())
            limits = mode.limits[variant]
            right = loss_error <= limits[0] and gradient_error <= limits[1]
            yield Row(
                f"{variant}, {mode.name}: largest relative error of loss and terms, of the gradient",
                f"{loss_error:.1e}, {gradient_error:.1e}",
                f"{'within' if right else 'BEYOND'} {limits[0]:g}, {limits[1]:g}",
                {"loss": loss_error, "gradient": gradient_error, "limits": limits, "right": right},
            )
        yield _joint_against_alone(options, variant)
    yield _group_of_one(options)


def _several(
    options: Options, config: InversionConfig, classifier: Classifier, size: int, dtype: torch.dtype = torch.float32
) -> list[InversionTraining]:
    """Fresh trainings."""
    return [
        InversionTraining(
            _generator(classifier.image_shape, seed, options.device, classifier.num_classes).to(dtype),
            classifier,
            config,
            seed,
        )
        for seed in range(size)
    ]


def _weights(training: InversionTraining) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in training.generator.parameters()])


def _agreement(name: str, pairs: Sequence[tuple[Tensor, Tensor]], limit: float) -> Row:
    error = max(float((one - other).norm() / other.norm()) for one, other in pairs)
    told = f"{'within' if error <= limit else 'BEYOND'} {limit:g}"
    return Row(
        f"{name}: relative error of the weights", f"{error:.1e}", told, {"error": error, "right": error <= limit}
    )


def _joint_against_alone(options: Options, variant: str) -> Row:
    """In float64, where rounding does not grow in a few steps."""
    torch.set_default_dtype(torch.float64)
    try:
        config = CONFIGS[variant].model_copy(update={"steps": 4, "batch_size": 16, "precision": "float32"})
        classifier = fresh_classifier((1, 28, 28), options.device)
        alone, together = (_several(options, config, classifier, 3, torch.float64) for _ in range(2))
        for training in alone:
            list(training)
        list(JointTraining(together))
    finally:
        torch.set_default_dtype(torch.float32)
    pairs = [(_weights(one), _weights(other)) for one, other in zip(together, alone, strict=True)]
    return _agreement(f"{variant}, 3 generators as one program against each alone, 4 steps in float64", pairs, 1e-6)


def _group_of_one(options: Options) -> Row:
    """A process group with one member computes what a process without one does: the plumbing of NCCL, or of gloo."""
    import torch.distributed as dist

    backend = "nccl" if options.device.type == "cuda" else "gloo"
    config = CONFIGS["standard"].model_copy(update={"steps": 4, "batch_size": 16})
    classifier = fresh_classifier((1, 28, 28), options.device)
    (alone,), (shared,) = (_several(options, config, classifier, 1) for _ in range(2))
    list(alone)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            shared = InversionTraining(shared.generator, classifier, config, 0, GlobalBatch(config.batch_size))
            list(shared)
        finally:
            dist.destroy_process_group()
    return _agreement(
        f"standard, a {backend} group of one against none, 4 steps", [(_weights(shared), _weights(alone))], 1e-3
    )


# ---- how fast is it?


def _rate(block: Callable[[], Any], samples: int, options: Options) -> dict[str, float]:
    """Samples a second of a repeated block: median and extremes of at least three, over about a second and a half."""
    block(), block()  # what the first ones pay for
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 1.5 and len(times) < 50 and not options.small):
        times.append(timed(block, options.device))
        if options.left < 0:
            break
    return {
        "median": samples / statistics.median(times),
        "low": samples / max(times),
        "high": samples / min(times),
        "blocks": len(times),
    }


def _endless(config: InversionConfig) -> InversionConfig:
    """Settings of a training that outlasts any measurement."""
    return config.model_copy(update={"steps": 100_000, "log_every": 2 if config.batch_size < 64 else BLOCK})


def rates(options: Options) -> Iterator[Row]:
    """Samples a second of the plain loop, of one generator, and of several as one program."""
    shapes = ((1, 28, 28),) if options.small else ((1, 28, 28), (3, 32, 32), (3, 64, 64))
    for shape in shapes:
        classifier = fresh_classifier(shape, options.device)
        for variant, usual in CONFIGS.items():
            config = _endless(usual.model_copy(update={"batch_size": 8}) if options.small else usual)
            samples = config.log_every * config.batch_size
            name = f"{variant}, {shape[1]}x{shape[2]}x{shape[0]}"
            plain = baseline.Generator(10, shape).to(options.device)
            steps = baseline.invert(plain, classifier, 10**6, config.batch_size, variant == "robust")
            obvious = _rate(partial(_take, steps, config.log_every), samples, options)
            one: float | None = None
            for size in (1, 2) if options.small else (1, 4, 16, 64):
                if options.left < 0:
                    yield Row(f"{name}: {size} generators", "not measured", "time was up", {})
                    continue
                try:
                    trainings = _several(options, config, classifier, size)
                    work = iter(JointTraining(trainings)) if size > 1 else iter(trainings[0])
                    rate = _rate(partial(next, work), size * samples, options)
                except torch.OutOfMemoryError:
                    yield Row(f"{name}: {size} generators as one program", "does not fit", "", {"fits": False})
                    continue
                one = one or rate["median"]
                over = rate["median"] / (one if size > 1 else obvious["median"])
                yield Row(
                    f"{name}: {size} generator{'s as one program' if size > 1 else ''}, samples (steps) a second",
                    f"{rate['median']:,.0f} ({rate['median'] / config.batch_size:,.1f})",
                    f"{over:.2f} times {'one after the other' if size > 1 else 'the plain loop'}",
                    {"samples_per_second": rate, "plain_loop": obvious, "ratio": over, "generators": size},
                )


def _take(steps: Iterator[Any], num: int) -> None:
    for _ in range(num):
        next(steps)


# ---- how near is that to what the chip can do?


class Traffic(TorchDispatchMode):
    """Counts operations, and the bytes that they read and write if none is fused with another."""

    operations, bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, and pass on; views move nothing."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operations += 1
            tensors = [t for t in (*_flat(args), *_flat(out)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _chip(options: Options) -> dict[str, float]:
    """Highest measured rates: matrix products in Tflop/s, copies in GB/s."""
    side, words = (512, 2**20) if options.small else (8192, 2**28)
    found = {}
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bfloat16", torch.bfloat16, True),
    ):
        a, b = (torch.randn(side, side, device=options.device, dtype=dtype) for _ in range(2))
        with _tf32(tf32):
            times = [timed(partial(torch.mm, a, b), options.device) for _ in range(5)]
        found[f"{name}_tflops"] = 2 * side**3 / min(times) / 1e12
    source = torch.randn(words, device=options.device)
    target = torch.empty_like(source)
    times = [timed(partial(target.copy_, source), options.device) for _ in range(5)]
    return found | {"copy_gb_per_second": 2 * 4 * words / min(times) / 1e9}


def _launches(step: Callable[[], Any], options: Options) -> int | None:
    """Kernels that a GPU is asked to start; ``None`` without one."""
    if options.device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        step()
        synchronize(options.device)
    return sum(event.count for event in seen.key_averages() if "LaunchKernel" in event.key)


def shares(options: Options) -> Iterator[Row]:
    """Which share of the chip's arithmetic and bandwidth a step is, and how many operations it starts."""
    chip = _chip(options)
    yield Row(
        "the chip: Tflop/s of a matrix product in float32, tf32, bfloat16; GB/s of a copy",
        ", ".join(f"{chip[f'{name}_tflops']:.2f}" for name in ("float32", "tf32", "bfloat16"))
        + f"; {chip['copy_gb_per_second']:,.0f}",
        "",
        chip,
    )
    classifier = fresh_classifier((1, 28, 28), options.device)
    for variant, usual in CONFIGS.items():
        of_one = 0.0
        for size in (1, 2) if options.small else (1, 16, 64):
            config = usual.model_copy(update={"batch_size": 8}) if options.small else usual
            config = config.model_copy(update={"steps": 100_000, "log_every": 1})
            work = iter(JointTraining(_several(options, config, classifier, size)))
            for _ in range(3):
                next(work)
            if not of_one:  # torch counts the gradients of grouped convolutions, those of several, too high
                with Arithmetic() as arithmetic:
                    next(work)
                of_one = arithmetic.total
            with Traffic() as traffic:
                next(work)
            launches = _launches(partial(next, work), options)
            seconds = statistics.median(timed(partial(next, work), options.device) for _ in range(5))
            flops, moved = size * of_one / seconds / 1e12, traffic.bytes / seconds / 1e9
            yield Row(
                f"{variant}, generators {size}: ms of a step with its record, operations, kernels started",
                f"{1000 * seconds:.2f}, {traffic.operations}, {launches if launches is not None else '-'}",
                f"{flops / chip['float32_tflops']:.1%} of float32 products, "
                f"{moved / chip['copy_gb_per_second']:.1%} of copies, if nothing stayed in a cache",
                {
                    "seconds": seconds,
                    "operations": traffic.operations,
                    "launches": launches,
                    "gflop": size * of_one / 1e9,
                    "gigabytes": traffic.bytes / 1e9,
                    "tflops": flops,
                    "gb_per_second": moved,
                },
            )


# ---- how soon is it good?


def _trained(
    architecture: ClassifierConfig, data: Dataset, config: ClassifierTrainingConfig, options: Options
) -> tuple[Classifier, list[dict[str, float]]]:
    """A classifier, and after each epoch the seconds of training and its test accuracy."""
    mean, std = channel_statistics(data.train.images)
    torch.manual_seed(0)
    shape = (int(data.train.images.shape[1]), int(data.train.images.shape[2]), int(data.train.images.shape[3]))
    classifier = build_classifier(architecture, len(data.classes), shape, mean, std).to(options.device)
    epochs = train_classifier(classifier, data.train, config, seed=0)
    seconds, history = 0.0, []
    for _ in range(config.epochs):
        seconds += timed(partial(next, epochs), options.device)
        logits, _ = predict(classifier.eval(), data.test.images)
        right = (logits.argmax(dim=1).cpu() == data.test.labels).float().mean()
        history.append({"seconds": seconds, "test_accuracy": float(right)})
    freeze(classifier)
    return classifier, history


def goals(options: Options) -> Iterator[Row]:
    """MNIST: seconds until a classifier is trained, until it and a stranger read what is asked for."""
    data = fetch_dataset("digits" if options.small else "mnist", FetchConfig(mirror=_mirror(options)))
    epochs = (1, 1) if options.small else (5, 2)
    networks = []
    for name, architecture, config in (
        (
            "classifier",
            ConvClassifierConfig(channels=(16, 32), batch_norm=False),
            ClassifierTrainingConfig(epochs=epochs[0], batch_size=128, shift=1, epsilon=0.15),
        ),
        ("evaluator", ResidualClassifierConfig(), ClassifierTrainingConfig(epochs=epochs[1], batch_size=128)),
    ):
        network, history = _trained(architecture, data, config, options)
        networks.append(network)
        goal = next((record["seconds"] for record in history if record["test_accuracy"] >= 0.99), None)
        yield Row(
            f"{name}: seconds to 0.99 test accuracy; all {config.epochs} epochs",
            (f"{goal:.1f}" if goal else "not reached") + f"; {history[-1]['seconds']:.1f}",
            f"test accuracy {history[-1]['test_accuracy']:.4f}",
            {"history": history, "seconds_to_0.99": goal},
        )
    classifier, evaluator = networks
    wanted = (("standard", 0.99, classifier, "inversion", 2), ("robust", 0.95, evaluator, "evaluator", 4))
    for variant, goal, judge, judged, target in wanted:
        runs = []
        for seed in range(1 if options.small else 3):
            if options.left < 0:
                break
            runs.append(_time_to(goal, CONFIGS[variant], classifier, judge, seed, options))
        best = ", ".join(f"{run['best']:.3f}" for run in runs)
        told = [f"{run['reached']:.2f}" if run["reached"] else f"not in {run['trained']:.1f}" for run in runs]
        yield Row(
            f"{variant}: seconds to {goal} {judged} accuracy, a seed each",
            ", ".join(told) or "time was up",
            f"best {best}; wanted on a GPU: {target} s",
            {"goal": goal, "runs": runs},
        )


def _mirror(options: Options) -> str | None:
    return str(options.mirror) if options.mirror else os.environ.get("NETINV_MIRROR")


def _time_to(
    goal: float, usual: InversionConfig, classifier: Classifier, judge: nn.Module, seed: int, options: Options
) -> dict[str, float | None]:
    """Seconds of training until a judge reads so many of 1,000 fresh images as asked; looks are not counted."""
    config = usual.model_copy(update={"log_every": 10, **({"steps": 20, "batch_size": 8} if options.small else {})})
    generator = _generator(classifier.image_shape, seed, options.device)
    records = iter(InversionTraining(generator, classifier, config, seed))
    seconds, best, reached = 0.0, 0.0, None
    for _ in range(config.steps // config.log_every):
        seconds += timed(partial(next, records), options.device)
        images, wanted = draw_images(generator, 1000, seed=1, sharpness=config.sharpness)
        with torch.no_grad():
            read = judge(images.to(options.device)).argmax(dim=1).cpu()
        best = max(best, float((read == wanted.argmax(dim=1).cpu()).float().mean()))
        if best >= goal:
            reached = seconds
            break
        if options.left < 0:
            break
    return {"reached": reached, "trained": seconds, "best": best}


# ---- what could make it faster


def fast(options: Options) -> Iterator[Row]:
    """Candidates that are off by default, of one generator: steps a second, and what the training comes to.

    ``compiled`` is ``torch.compile`` in the mode ``reduce-overhead``, which records CUDA graphs, of the generator and
    of the classifier's layers; the loss and the optimizer stay as they are.
    """
    data = fetch_dataset("digits" if options.small else "mnist", FetchConfig(mirror=_mirror(options)))
    training = ClassifierTrainingConfig(epochs=1 if options.small else 2, batch_size=128, shift=1, epsilon=0.15)
    network, _ = _trained(ConvClassifierConfig(channels=(16, 32), batch_norm=False), data, training, options)
    backend = {"backend": "eager"} if options.small else {"mode": "reduce-overhead"}
    usual: float | None = None
    for name, precision, tf32, compiled in (
        ("float32", "float32", False, False),
        ("tf32", "float32", True, False),
        ("bfloat16", "bfloat16", True, False),
        ("tf32, compiled", "float32", True, True),
        ("bfloat16, compiled", "bfloat16", True, True),
    ):
        if options.left < 0:
            yield Row(name, "not measured", "time was up", {})
            continue
        changes = {"precision": precision, "log_every": BLOCK} | (
            {"steps": 20, "batch_size": 8} if options.small else {}
        )
        config = CONFIGS["standard"].model_copy(update=changes)
        classifier = copy.deepcopy(network)
        generator = _generator(classifier.image_shape, 0, options.device)
        if compiled:
            generator.compile(**backend)
            classifier.body.compile(**backend)
        with _tf32(tf32):
            work = iter(InversionTraining(generator, classifier, config, seed=0))
            next(work)  # compiles, too
            rest = config.steps - BLOCK
            seconds = timed(partial(list, work), options.device)
        usual = usual or seconds
        with torch.no_grad():
            images, wanted = draw_images(_bare(generator), 1000, seed=1, sharpness=config.sharpness)
            read = network(images.to(options.device)).argmax(dim=1).cpu()
        accuracy = float((read == wanted.argmax(dim=1)).float().mean())
        yield Row(
            f"standard, {name}: steps a second, accuracy at the end",
            f"{rest / seconds:,.1f}, {accuracy:.3f}",
            f"{usual / seconds:.2f} times float32",
            {"steps_per_second": rest / seconds, "accuracy": accuracy, "ratio": usual / seconds},
        )


def _bare(generator: ConditionedGenerator) -> ConditionedGenerator:
    """The same weights, not compiled."""
    plain = _generator(generator.image_shape, 0, next(generator.parameters()).device)
    plain.load_state_dict(generator.state_dict())
    return plain.eval()


# ---- with Ray


def ray(options: Options) -> Iterator[Row]:
    """Four generators of a stage: a GPU each, a quarter each, and as the pipeline has them by default."""
    from pipeline.cluster import cluster, jobs_per_worker, run_tasks
    from pipeline.generators import Job, train_generator, train_generators

    config = CONFIGS["standard"]
    if options.small:
        config = config.model_copy(update={"steps": 10, "batch_size": 8})
    jobs = {seed: Job(seed, GeneratorConfig(), config) for seed in range(4)}
    shared = (fresh_classifier((1, 28, 28), torch.device("cpu")), config.steps)
    gpu = options.device.type == "cuda"

    def resources(num_gpus: float | None) -> Any:
        return SimpleNamespace(
            num_workers=1, num_cpus=1.0, num_gpus=num_gpus, generators_per_worker=None, checkpoint_every=config.steps
        )

    def seconds(task: Any, work: dict[int, Any], needs: Any) -> tuple[float, float, int]:
        start, first, events = time.perf_counter(), 0.0, 0
        for _, _ in run_tasks(task, work, shared, {}, needs):
            first, events = first or time.perf_counter() - start, events + 1
        return time.perf_counter() - start, first, events

    begun = time.perf_counter()
    with cluster(None):
        yield Row("a local cluster: seconds to start", f"{time.perf_counter() - begun:.1f}", "", {})
        for num_gpus in (1.0, 0.25) if gpu else (0.0,):
            whole, first, events = seconds(train_generator, jobs, resources(num_gpus))
            yield Row(
                f"4 generators with num_gpus {num_gpus:g} each: seconds in all, to the first event",
                f"{whole:.1f}, {first:.1f}",
                f"{events} events",
                {"seconds": whole, "first_event": first, "events": events},
            )
        together = jobs_per_worker(len(jobs), resources(None if gpu else 0.0))
        if together > 1:
            whole, first, events = seconds(train_generators, {0: tuple(jobs.values())}, resources(None))
            yield Row(
                "the default, all as one program on one worker: seconds in all, to the first event",
                f"{whole:.1f}, {first:.1f}",
                f"{together} generators",
                {"seconds": whole, "first_event": first, "events": events},
            )
        else:
            yield Row("the default", "one generator on each worker", "as on any CPU", {"together": together})


PARTS: dict[str, tuple[Part, float]] = {
    "correctness": (correctness, 70.0),
    "shares": (shares, 50.0),
    "rates": (rates, 110.0),
    "goals": (goals, 100.0),
    "ray": (ray, 80.0),
    "fast": (fast, 60.0),
}
"""Each with the seconds it may take."""
