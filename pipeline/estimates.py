"""What a training would take, estimated before it begins: what would take days, or more than the memory, is refused.

Operations are those of convolutions and products of matrices on each image; memory is what is kept of each image for
the gradients, and copies of the weights, of their gradients and moments. Both are rough: they are there for a digit too
many, not for plans.
"""

import os
import sys
from typing import TYPE_CHECKING

from netinv.core import InputError, best_device

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netinv.classifiers import AdaptedClassifier, Classifier
    from netinv.data import DatasetSpec
    from netinv.generators import GeneratorConfig
    from netinv.inversion import InversionConfig
    from pipeline.params import ModelParams

PER_SECOND = {"cpu": 5e10, "cuda": 1e13}
"""Floating-point operations that a machine is taken to do."""
COPIES = 4
"""Of weights: with their gradients and two moments."""
MAX_DAYS = 3.0
LARGE = "NETINV_LARGE"
"""Set to 1, nothing is refused for its size."""


def forward_cost(network: "nn.Module", *inputs: "Tensor") -> tuple[float, float]:
    """Operations of a forward pass, and the bytes that it keeps for the gradients, for each row of its inputs.

    Args:
        network: It is called; on the device ``meta`` that computes nothing.
        inputs: Where the network is. Of two rows or more, since batch norm and an adapter treat one row differently.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def memory(*tensors: "Tensor") -> "set[torch.UntypedStorage]":
        dense = (tensor for tensor in tensors if tensor.layout == torch.strided)  # others have no storage
        return {tensor.untyped_storage() for tensor in dense}

    def keep(tensor: "Tensor") -> "Tensor":
        kept.update(memory(tensor))
        return tensor

    kept = memory()
    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        network(*(value.requires_grad_() for value in inputs))
    kept -= memory(*network.parameters(), *network.buffers())
    rows = len(inputs[0])
    return counter.get_total_flops() / rows, sum(part.nbytes() for part in kept) / rows


def check_effort(where: str, operations: float, size: float, keys: str, on_cluster: bool = False) -> None:
    """Refuse a training that would take days, or more memory than there is.

    On a cluster of other machines, of which nothing is known here, it is a warning.

    Args:
        where: What is trained, for the message.
        operations: Floating-point operations of all of it.
        size: Bytes that it holds at once.
        keys: The settings that make it smaller.
        on_cluster: Whether it runs on the cluster at ``RAY_ADDRESS``, where that is set.

    Raises:
        InputError: Tells the estimate and the way round.
    """
    if os.environ.get(LARGE) == "1":
        return
    import psutil
    import torch

    device = best_device()
    days = operations / PER_SECOND[device] / 86_400
    memory = torch.cuda.mem_get_info()[1] if device == "cuda" else psutil.virtual_memory().total
    told = []
    if days > MAX_DAYS:
        told.append(f"some {days:,.0f} days ({operations:.1g} operations at {PER_SECOND[device]:.0g} a second)")
    if size > memory:
        told.append(f"some {size / 2**30:,.0f} GiB of memory, and there are {memory / 2**30:,.0f}")
    if told and on_cluster and os.environ.get("RAY_ADDRESS"):
        machine = f"a machine like this one ({device}, {memory / 2**30:,.0f} GiB)"
        print(
            f"warning: {where} would take {' and '.join(told)} on {machine}; the cluster's may differ.", file=sys.stderr
        )
    elif told:
        raise InputError(
            f"{where} would take {' and '.join(told)}: lower {keys}, or set {LARGE}=1 to try it all the same."
        )


def check_classifier_training(where: str, params: "ModelParams", spec: "DatasetSpec") -> None:
    """Refuse, before the work, settings that do not fit the data set or the machine.

    Args:
        where: The settings' key, such as ``train.classifier``.
        params: The settings, of a network that is trained here.
        spec: The data set.

    Raises:
        InputError: Names the key.
    """
    import torch

    from netinv.classifiers import build_classifier
    from netinv.perturbations import check_shift

    training = params.training
    check_shift(training.shift, spec.image_shape, f"{where}.training.shift")
    if training.batch_size > spec.num_train:
        raise InputError(
            f"{where}.training.batch_size is {training.batch_size}, but {spec.name} has {spec.num_train} training "
            "images: lower it."
        )
    channels = spec.image_shape[0]
    about = spec.num_classes, spec.image_shape, (0.5,) * channels, (0.5,) * channels
    with torch.device("meta"):
        network = build_classifier(params.architecture, *about)
    operations, size = forward_cost(network, torch.zeros(2, *spec.image_shape, device="meta"))
    passes = 3 * (2 if training.epsilon else 1)  # forward, and backward for twice as much
    check_effort(
        where,
        operations * passes * spec.num_train * training.epochs,
        size * training.batch_size + COPIES * _bytes_of(network),
        "its architecture, epochs or batch_size",
    )


def check_inversion(
    where: str, generator: "GeneratorConfig", config: "InversionConfig", classifier: "Classifier | AdaptedClassifier"
) -> None:
    """Likewise for one generator.

    Raises:
        InputError: Names the key.
    """
    import torch

    from netinv.generators import ConditionedGenerator
    from netinv.perturbations import check_shift

    check_shift(config.shift, classifier.image_shape, f"{where}.shift")
    with torch.device("meta"):
        network = ConditionedGenerator(generator, classifier.num_classes, classifier.image_shape)
    labels = torch.zeros(2, classifier.num_classes, device="meta")
    operations, size = forward_cost(network, torch.zeros(2, generator.latent_dim, device="meta"), labels)
    judged, held = _cost_of_judging(where, classifier)
    at_once = min(config.images_at_once or config.batch_size, config.batch_size)
    operations += judged * (1 + (config.attack_steps if config.perturbation == "pgd" else 0))
    check_effort(
        where,
        3 * operations * config.batch_size * config.steps,
        size * config.batch_size + held * at_once + COPIES * _bytes_of(network),
        "steps, batch_size or the generator's width",
        on_cluster=True,
    )


def _cost_of_judging(where: str, classifier: "Classifier | AdaptedClassifier") -> tuple[float, float]:
    """As :func:`forward_cost`, for an image under a classifier; nothing where its work cannot be counted."""
    import torch

    from netinv.classifiers import AdaptedClassifier

    num = classifier.least_batch if isinstance(classifier, AdaptedClassifier) else 2
    try:
        return forward_cost(classifier, torch.zeros(num, *classifier.image_shape, device=classifier.device))
    except InputError:  # such as that of a network that takes gradients by torch.func
        print(
            f"warning: {where}: what the classifier computes cannot be counted, and is left out of the estimate.",
            file=sys.stderr,
        )
        return 0.0, 0.0


def _bytes_of(network: "nn.Module") -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
