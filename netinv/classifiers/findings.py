"""What shows of a network on a few made-up images: the usual mistakes in plain words."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from netinv.classifiers.adapters import AdaptedClassifier, AdapterConfig
from netinv.classifiers.calls import first_tensor
from netinv.classifiers.inputs import PROBES, probe_images
from netinv.classifiers.networks import InvertibleClassifier
from netinv.core import Config, InputError, reason

Severity = Literal["error", "warning", "note"]
Code = Literal[
    "unusable",
    "num_classes",
    "output",
    "gradients",
    "constant",
    "pixel_range",
    "normalisation",
    "channel_order",
    "train_mode",
    "random",
    "batch_dependent",
    "batch_size",
    "accuracy",
    "untrained",
    "features",
    "data",
]


class Finding(Config):
    """One thing that a check found."""

    severity: Severity
    """An error makes inversion fail or mean nothing, a warning makes it doubtful, a note is good to know."""
    code: Code
    message: str
    """What is so, and what to do about it."""


def as_found(network: nn.Module, config: AdapterConfig) -> Iterator[Finding]:
    """What can be seen without running the network."""
    if any(module.training for module in network.modules() if isinstance(module, _MODAL)):
        yield Finding(
            severity="note",
            code="train_mode",
            message="The network came in training mode; here it is evaluated in evaluation mode, and left as it was.",
        )
    if next(network.parameters(), next(network.buffers(), None)) is None:
        yield Finding(
            severity="note",
            code="untrained",
            message="It has no weights that torch knows of, so that none are stored or compared with others: register "
            "them as parameters, modules (in an nn.ModuleList, not a list) or buffers.",
        )
    elif hidden := _in_lists(network):
        yield Finding(
            severity="note",
            code="train_mode",
            message=f"Modules stand in a plain list ({hidden[0]}), where torch does not find them: they keep their "
            "mode and gradients here, and their weights are not stored or compared. Put them into an nn.ModuleList.",
        )
    if config.mean is not None:
        inside = [name for name, module in network.named_modules() if type(module).__name__ == "Normalize"]
        inside += [
            name
            for name, buffer in network.named_buffers()
            if name.rpartition(".")[2] in ("mean", "pixel_mean", "_mean") and buffer.numel() == len(config.mean)
        ]
        if inside:
            yield Finding(
                severity="warning",
                code="normalisation",
                message=f"Double normalisation? The network normalises by itself ({inside[0]}), the adapter "
                "does so once more: leave out mean and std.",
            )


def _in_lists(network: nn.Module) -> list[str]:
    """Names of lists, tuples and dictionaries with modules that are not registered anywhere."""
    known, found = set(network.modules()), []
    for name, module in network.named_modules():
        for key, value in vars(module).items():
            parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
            if any(isinstance(part, nn.Module) and part not in known for part in parts):
                found.append(f"{name}.{key}" if name else key)
    return found


BATCH = 64
"""Images that an inversion gives at once, where its settings say nothing else."""
_MODAL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.MultiheadAttention)
"""Modules that do something else in training mode."""


def behaviour(classifier: AdaptedClassifier, at_once: int = BATCH) -> Iterator[Finding]:
    """What shows on a few made-up images, without any data.

    Args:
        classifier: Is tried out.
        at_once: Images that it is to be given at once.
    """
    if (wrong := _output_finding(classifier)) is not None:
        yield wrong
        return  # what follows would judge the wrong numbers
    images = probe_images(classifier.image_shape).to(classifier.device)
    with torch.no_grad():
        logits = classifier(images)
        again = classifier(images)
        fewer = classifier(images[::2])
    scale = float(logits.abs().mean()) + 1e-6
    constant = float(logits.std(dim=0).max()) < 1e-6 * scale
    if not constant:
        yield from _sigmoid_findings(classifier)
    for finding in _gradient_findings(classifier, images, constant):
        yield finding
        if finding.severity == "error":
            return
    if constant:
        yield Finding(
            severity="error",
            code="constant",
            message="The classifier gives the same scores for every made-up image: its weights are not loaded, its "
            "input is overwritten, its activations are dead, or a ReLU or a threshold at its end cuts all scores off "
            "(have it give those before that).",
        )
        return
    if not torch.allclose(logits, again, atol=1e-3 * scale):
        yield Finding(
            severity="warning",
            code="random",
            message="The same images get other scores the second time, even in evaluation mode: some dropout or noise "
            "does not heed the mode (F.dropout without training=self.training?), it keeps state from call to call, or "
            "it was exported in training mode (export it after eval()).",
        )
    elif not torch.allclose(logits[::2], fewer, atol=1e-2 * scale):
        yield Finding(
            severity="warning",
            code="batch_dependent",
            message="An image's scores depend on the other images of its batch, and hold for mixed batches alone: its "
            "batch norm keeps no running statistics (train or load it with them), or it was exported in training mode "
            "(export it after eval()).",
        )
    yield from _batch_findings(classifier, at_once)
    yield from _flat_findings(classifier)
    yield from _scale_findings(classifier, images)
    if classifier.feature_layer is None:
        yield Finding(
            severity="note",
            code="features",
            message="No linear layer was found that sees one row for each image, so that the logits stand in for the "
            "features: name a feature_layer.",
        )


def _output_finding(classifier: AdaptedClassifier) -> Finding | None:
    """The kind of output that is believed in against the one that shows; ``None`` where they may be one."""
    believed, shown = classifier.output, classifier.detected_output
    low, high = classifier.output_range
    if believed == "logits" and shown == "probabilities":
        message = (
            "Probabilities are taken for logits: the outputs are not negative and each row sums to 1, and a second "
            "soft-max would flatten them. Set output to probabilities, or remove the network's soft-max."
        )
    elif believed == "probabilities" and shown != "probabilities":
        kind = "Log-probabilities" if shown == "log_probabilities" else "Logits"
        message = (
            f"{kind} are taken for probabilities: the outputs reach from {low:.3g} to {high:.3g}. "
            f"Set output to {shown}, or to auto."
        )
    elif believed == "log_probabilities" and shown == "probabilities":
        message = "Probabilities are taken for log-probabilities. Set output to probabilities, or to auto."
    else:
        return None
    return Finding(severity="error", code="output", message=message)


def _sigmoid_findings(classifier: AdaptedClassifier) -> Iterator[Finding]:
    """Whether scores that are taken for logits look as if they came after a sigmoid."""
    low, high = classifier.output_range
    within = classifier.detected_output == "logits" and classifier.config.output != "sigmoid" and low >= 0 and high <= 1
    # A few logits lie there by chance.
    if within and classifier.sigmoid_or_logits(torch.tensor([low, high])) == "sigmoid":
        yield Finding(
            severity="warning",
            code="output",
            message="All outputs lie in [0, 1] but no row sums to 1: a sigmoid for each class? They are taken for "
            "logits; set output to sigmoid.",
        )


def _gradient_findings(classifier: AdaptedClassifier, images: Tensor, constant: bool) -> Iterator[Finding]:
    """Whether the scores tell the images which way to go."""
    advice = "Look for no_grad, detach, argmax, rounding or conversion to numpy in its forward."
    if isinstance(classifier.network, torch.jit.ScriptModule):
        advice = "Give the script as it was before torch.jit.optimize_for_inference. Or else: " + advice
    if any(isinstance(module, torch.fx.GraphModule) for module in classifier.network.modules()):
        advice = "An export keeps no backward pass of one's own (autograd.Function): give a factory. Or else: " + advice
    try:
        # Twice in a row, as in training, and for one tensor, so that what is kept of the first call would be met again.
        images = images.detach().requires_grad_()
        gradients = [_gradient(classifier, images) for _ in range(2)]
    except Exception as error:  # its backward pass may be its author's own code
        message = str(error) if isinstance(error, InputError) else _failure(error)
        yield Finding(severity="error", code="gradients", message=message)
        return
    if not all(depends for depends, _ in gradients):
        message = f"Gradients are blocked: the scores do not depend on the images as far as torch knows. {advice}"
        yield Finding(severity="error", code="gradients", message=message)
        return
    gradient = gradients[-1][1]
    if gradient is None or not bool(gradient.any()):
        if classifier.saturated and classifier.output in ("probabilities", "sigmoid"):
            message = (
                "Gradients are blocked: its soft-max or sigmoid is saturated, all scores are exactly 0 or 1. Have it "
                "give the scores before that."
            )
            yield Finding(severity="error", code="gradients", message=message)
        elif not constant:
            message = f"Gradients are blocked: they are 0 for every image. {advice}"
            yield Finding(severity="error", code="gradients", message=message)
    elif not bool(gradient.isfinite().all()):
        message = (
            "Gradients of the scores are not finite: look for a root, a logarithm or a division at 0 in its forward, "
            "and keep it away from 0, as in x.clamp(min=1e-6).sqrt()."
        )
        yield Finding(severity="error", code="gradients", message=message)


def _batch_findings(classifier: AdaptedClassifier, wanted: int) -> Iterator[Finding]:
    """Whether it works on batches as large as it will be given."""
    if (most := largest_batch(classifier, wanted)) < wanted:
        yield Finding(
            severity="warning",
            code="batch_size",
            message=f"It takes {most} images at once and not {wanted}: wrap it so that it takes its batches in parts, "
            f"torch.cat([network(part) for part in images.split({most})]) in a module. For an inversion alone it will "
            f"do to set images_at_once to {most}.",
        )


@torch.no_grad()
def largest_batch(classifier: InvertibleClassifier, wanted: int) -> int:
    """The largest batch, up to `wanted` images, on which a classifier does not fail."""

    def bears(num: int) -> bool:
        try:
            classifier(probe_images(classifier.image_shape, num).to(classifier.device))
        except InputError:
            return False
        return True

    if wanted <= PROBES or bears(wanted):
        return wanted
    most, too_many = PROBES, wanted  # the adapter has been tried with the first
    while too_many - most > 1:
        middle = (most + too_many) // 2
        most, too_many = (middle, too_many) if bears(middle) else (most, middle)
    return most


def _flat_findings(classifier: AdaptedClassifier) -> Iterator[Finding]:
    """Whether it fails on constant images: what a fresh generator draws is almost that."""
    level = torch.arange(PROBES) % 3 / 2  # black, grey, white
    images = level.to(classifier.device)[:, None, None, None].repeat(1, *classifier.image_shape).requires_grad_()
    try:
        logits = classifier(images)
        (gradient,) = torch.autograd.grad(logits.sum(), images)
        sound = bool(logits.isfinite().all() & gradient.isfinite().all())
    except Exception:  # of its author's own code
        sound = False
    if not sound:
        yield Finding(
            severity="warning",
            code="gradients",
            message="It fails on constant images, black, grey or white, or its scores or their gradients there are "
            "not finite. Inversion fails where it meets one: look for a root, a logarithm or a division at 0.",
        )


def _gradient(classifier: AdaptedClassifier, images: Tensor) -> tuple[bool, Tensor | None]:
    """Whether the scores depend on the images, and how a sum of theirs does."""
    logits, features = classifier(images, return_features=True)
    if not logits.requires_grad:
        return False, None
    weights = torch.linspace(-1, 1, logits.shape[1], device=logits.device)
    total = (logits * weights).sum() + 0 * features.sum()  # inversion asks for both
    return True, torch.autograd.grad(total, images, allow_unused=True)[0]


def _failure(error: Exception) -> str:
    """Why gradients cannot be had, in words."""
    what = f"Gradients fail ({reason(error)})"
    if "use_reentrant=True" in str(error):
        return "Gradients of its images fail in torch.utils.checkpoint: call it with use_reentrant=False."
    if "second time" in str(error):
        return f"{what}: the network keeps tensors from call to call; detach them, or begin each call without."
    if "inplace" in str(error):
        return f"{what}: it changes in place what gradients need; write x = x + y in place of x += y."
    return f"{what}: try its backward pass by itself."


def _scale_findings(classifier: AdaptedClassifier, images: Tensor) -> Iterator[Finding]:
    """Activations at the first batch norm against its running statistics, which remember the training images."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    norms = [m for m in classifier.network.modules() if isinstance(m, kinds) and m.running_var is not None]
    if not norms or norms[0].running_var is None:
        return
    seen: list[Tensor] = []
    handle = norms[0].register_forward_pre_hook(lambda _, *call: seen.extend(first_tensor(*call)), with_kwargs=True)
    try:
        with torch.no_grad():
            classifier(images)
    finally:
        handle.remove()
    if not seen or norms[0].num_batches_tracked is None or not int(norms[0].num_batches_tracked):
        return
    values = seen[0].transpose(0, 1).flatten(1)  # (C, N x pixels)
    ratio = float((values.var(dim=1) / norms[0].running_var.clamp(min=1e-12)).sqrt().median())
    if ratio < 0.03:
        yield Finding(
            severity="warning",
            code="pixel_range",
            message=f"Was it trained on pixels in 0..255? Its first batch norm remembers inputs {1 / ratio:.0f} times "
            "as strong as these. If so, set mean to 0 and std to 1/255 for each channel.",
        )
    elif ratio > 30:
        yield Finding(
            severity="warning",
            code="pixel_range",
            message=f"Its first batch norm sees inputs {ratio:.0f} times as strong as in training: images are "
            "in [0, 1] here, and so are mean and std.",
        )
