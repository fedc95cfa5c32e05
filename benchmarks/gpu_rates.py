"""How fast a GPU is, and how near that is to what it can do, parts of ``gpu.py``."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import baseline
import torch
from gpu_common import CONFIGS, Options, Row, endless, several, tf32_allowed
from measuring import Arithmetic, fresh_classifier, synchronize, timed
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from netinv.core import OutOfMemory
from netinv.inversion import JointTraining


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


def rates(options: Options) -> Iterator[Row]:
    """Samples a second of the plain loop, of one generator, and of several as one program."""
    shapes = ((1, 28, 28),) if options.small else ((1, 28, 28), (3, 32, 32), (3, 64, 64))
    for shape in shapes:
        classifier = fresh_classifier(shape, options.device)
        for variant, usual in CONFIGS.items():
            config = endless(usual.model_copy(update={"batch_size": 8}) if options.small else usual)
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
                    trainings = several(options, config, classifier, size)
                    work = iter(JointTraining(trainings)) if size > 1 else iter(trainings[0])
                    rate = _rate(partial(next, work), size * samples, options)
                except (torch.OutOfMemoryError, OutOfMemory):
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
        with tf32_allowed(tf32, tf32):
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
            work = iter(JointTraining(several(options, config, classifier, size)))
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
