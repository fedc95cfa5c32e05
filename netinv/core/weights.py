"""A trained network on disk: ``weights.safetensors`` and ``config.json`` in one folder. Nothing is pickled."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netinv.core.errors import InputError
from netinv.core.reading import read_json

if TYPE_CHECKING:
    from torch import nn


def write_network(folder: Path, network: "nn.Module", config: dict[str, Any]) -> None:
    """Write a network's weights and all that is needed to rebuild it into a folder, which is made."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    # Not save_file: it tells of a full disk with an exception of its own.
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """What a checkpoint's folder says of its network.

    Raises:
        InputError: It says nothing that can be read.
    """
    path = Path(folder) / "config.json"
    config = read_json(path, "train it again")
    if not isinstance(config, dict):
        raise InputError(f"{path} is not a checkpoint configuration: expected an object, got {type(config).__name__}.")
    return config


def read_weights(folder: Path, network: "nn.Module") -> None:
    """Fill a network from its folder.

    Raises:
        InputError: The folder does not hold its weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / "weights.safetensors"
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path} does not hold the weights that config.json describes ({reason}).") from None
