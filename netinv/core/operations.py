"""How much a network computes for an image, counted from its layers before any work."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

OUTPUTS = 4
"""Copies of a layer's outputs: before and after what follows it, and their gradients."""


def forward_cost(network: "nn.Module", narrow: "nn.Module", *inputs: "torch.Tensor") -> tuple[float, float]:
    """Operations and bytes of outputs of a forward pass, by its convolutions and linear layers.

    Args:
        network: Whose weights count; it may be on the device ``meta``, and is not called.
        narrow: The same layers at any width, to be called: at how many places a layer works does not depend on that.
        inputs: Of one image.
    """
    import torch
    from torch import nn

    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    layers |= {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.ConvTranspose2d)}
    cost = [0.0, 0.0]

    def watch(name: str) -> "Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]":
        def count(module: nn.Module, given: "tuple[torch.Tensor, ...]", output: "torch.Tensor") -> None:
            transposed = isinstance(module, nn.ConvTranspose2d)
            shape, wide = module.get_parameter("weight").shape, layers[name].get_parameter("weight").shape
            places = output.numel() / shape[int(transposed)]
            cost[0] += 2 * wide.numel() * (given[0].numel() / shape[0] if transposed else places)
            cost[1] += OUTPUTS * 4 * places * wide[int(transposed)]

        return count

    handles = [layer.register_forward_hook(watch(n)) for n, layer in narrow.named_modules() if n in layers]
    try:
        with torch.no_grad():
            narrow(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return cost[0], cost[1]
