"""A trained network on disk: ``weights.safetensors`` and ``config.json`` in one folder. Nothing is pickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from netinv.core.errors import InputError, listed
from netinv.core.reading import expect_regular, read_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

Network = TypeVar("Network", bound="nn.Module")


def write_network(folder: Path, network: "nn.Module", config: dict[str, Any]) -> None:
    """Write a network's weights and all that is needed to rebuild it into a folder, which is made."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    # Not save_file: it tells of a full disk with an exception of its own.
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def digest(tensors: "Mapping[str, Tensor]") -> str:
    """SHA-256 of tensors by name, whatever their order, device and place in memory."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return total.hexdigest()


def network_digest(network: "nn.Module") -> str:
    """SHA-256 of a network's weights and buffers; other objects that its state may hold are left out."""
    import torch

    state = network.state_dict().items()
    plain = {
        name: value
        for name, value in state
        if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized
    }
    return digest(plain)


def read_config(folder: Path) -> dict[str, Any]:
    """What a checkpoint's folder says of its network.

    Raises:
        InputError: It says nothing that can be read.
    """
    path = Path(folder) / "config.json"
    config = read_json(path, "get the folder again")
    if not isinstance(config, dict):
        raise InputError(f"{path} is not a checkpoint configuration: expected an object, got {type(config).__name__}.")
    return config


def read_network(folder: Path, build: "Callable[[], Network]") -> "Network":
    """Build a network and fill it from its folder, in evaluation mode.

    Args:
        folder: Its folder.
        build: Makes it with fresh weights. It is called on the device ``meta`` first, so that what a file says of vast
            layers takes no memory.

    Raises:
        InputError: The folder does not hold its weights.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / "weights.safetensors"
    try:
        expect_regular(path)
        weights = load_file(path)
        with torch.device("meta"):
            expected = {name: tensor.shape for name, tensor in build().state_dict().items()}
        found = {name: tensor.shape for name, tensor in weights.items()}
        if unlike := [name for name in {**expected, **found} if found.get(name) != expected.get(name)]:
            raise ValueError(f"they differ in {listed(unlike, 3)}")
        if broken := [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]:
            raise ValueError(f"they are not finite in {listed(broken, 3)}")
        network = build()
        network.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).strip().splitlines()[-1].strip()
        raise InputError(
            f"{path} does not hold the weights that config.json describes ({reason}): get the folder again."
        ) from None
    return network.eval()
