"""Whether a GPU computes what it should, a part of ``gpu.py``."""

import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from gpu_common import CONFIGS, Options, Row, fresh_generator, several, tf32_allowed
from measuring import fresh_classifier
from torch import Tensor

from netinv.inversion import GlobalBatch, InversionTraining, JointTraining


class Mode(NamedTuple):
    """A way to compute a step, and how far from float64 on the CPU it may be."""

    name: str
    dtype: torch.dtype
    precision: str
    tf32: bool
    """In convolutions, as torch's default is; never in products."""
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


def _one_step(variant: str, device: torch.device, mode: Mode, batch_size: int) -> tuple[Tensor, Tensor]:
    """Loss and terms of one step, and its gradient, of the same weights and draws on any device."""
    torch.set_default_dtype(torch.float64)
    try:
        generator = fresh_generator((1, 28, 28), 0, torch.device("cpu"))
        classifier = fresh_classifier((1, 28, 28), torch.device("cpu"))
        config = CONFIGS[variant].model_copy(update={"precision": mode.precision, "batch_size": batch_size})
        draws = InversionTraining(generator, classifier, config, seed=1).draw()
    finally:
        torch.set_default_dtype(torch.float32)
    classifier, generator = classifier.to(device, mode.dtype), generator.to(device, mode.dtype).train()
    training = InversionTraining(generator, classifier, config, seed=1)
    training.step = config.steps // 2
    draws = type(draws)(*(d.to(device, mode.dtype if d.is_floating_point() else d.dtype) for d in draws))
    with tf32_allowed(mode.tf32, products=False):
        loss, terms = training.loss(draws, every_term=True)
        loss.backward()
    counts = {"accuracy", "worst_class", "broken"}
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
        alone, together = (several(options, config, classifier, 3, torch.float64) for _ in range(2))
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
    torch.set_default_dtype(torch.float64)  # in float32 four steps of Adam make half a per cent of a rounding
    try:
        config = CONFIGS["standard"].model_copy(update={"steps": 4, "batch_size": 16, "precision": "float32"})
        classifier = fresh_classifier((1, 28, 28), options.device)
        (alone,), (shared,) = (several(options, config, classifier, 1, torch.float64) for _ in range(2))
        list(alone)
        with tempfile.TemporaryDirectory() as folder:
            dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
            try:
                shared = InversionTraining(shared.generator, classifier, config, 0, GlobalBatch(config.batch_size))
                list(shared)
            finally:
                dist.destroy_process_group()
    finally:
        torch.set_default_dtype(torch.float32)
    pairs = [(_weights(shared), _weights(alone))]
    return _agreement(f"standard, a {backend} group of one against none, 4 steps in float64", pairs, 1e-6)
