"""The precision that layers compute in while something is trained."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch


Precision = Literal["auto", "float32", "bfloat16"]
"""What layers compute in. Weights, images, losses and the optimizer are float32 in any case. ``auto`` is bfloat16 on
processors with instructions for it, else float32."""


def lower_precision(precision: Precision, device: "torch.device") -> bool:
    """Whether layers compute in bfloat16 on a device."""
    import torch

    if precision == "auto" and device.type == "cpu":  # on GPUs it has not been measured
        # A torch too old to know stays at float32.
        can: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    return precision == "bfloat16"


def autocast(precision: Precision, device: "torch.device") -> "torch.autocast":
    """A context in which layers compute in the precision that is asked for."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=lower_precision(precision, device))
