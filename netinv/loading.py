"""Classifiers from anywhere: torchvision, a factory of one's own, an exported program, a checkpoint of this library.

No file is unpickled. A factory runs its author's code and an exported program is one: take them from people you trust.
"""

import importlib
import io
import json
import os
import pickle  # for the name of the error that weights-only loading raises
import sys
import zipfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, fx, nn

from netinv.adapters import AdaptedClassifier, AdapterConfig
from netinv.checkpoint import load_classifier
from netinv.config import Config
from netinv.errors import InputError

HARMLESS: tuple[Any, ...] = (
    Namespace,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "bool")),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
)
"""What training checkpoints often hold beside tensors (options, numpy's numbers), and weights-only loading refuses."""
MARK = "netinv_features"
"""Name of the identity that marks the features of an exported program."""


class ClassifierSource(Config):
    """Where a classifier comes from, what it takes and what it gives."""

    model: str = Field(min_length=1)
    """``torchvision:NAME``, a factory ``package.module:function``, a ``.pt2`` exported program, or the folder of a
    checkpoint that this library wrote."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the factory or of torchvision's model."""
    weights: str | None = None
    """File of weights, safetensors or ``torch.save`` of tensors; for torchvision also a name such as ``DEFAULT``."""
    weights_prefix: str | None = None
    """Where in that file the network's names begin, such as ``state_dict.module``; ``None`` looks for it."""
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """(C, H, W) of the images to be generated; ``None`` where the source knows it."""
    num_classes: PositiveInt | None = None
    """K; ``None`` is what the network gives."""
    adapter: AdapterConfig = AdapterConfig()


class Network(NamedTuple):
    """A network with what is known about it, ready for :class:`~netinv.adapters.AdaptedClassifier`."""

    module: nn.Module
    image_shape: tuple[int, int, int]
    num_classes: int | None
    adapter: AdapterConfig


def load_classifier_from(source: ClassifierSource, device: str | torch.device = "cpu") -> AdaptedClassifier:
    """Load a classifier and adapt it.

    Raises:
        InputError: The source cannot be read, its weights do not fit, or the network does not fit the images.
    """
    return AdaptedClassifier(*load_network(source, device))


def load_network(source: ClassifierSource, device: str | torch.device = "cpu") -> Network:
    """Load a classifier's network as it is, in evaluation mode, to check it or to adapt it.

    Raises:
        InputError: The source cannot be read, or its weights do not fit.
    """
    path = Path(source.model)
    if source.model.startswith("torchvision:"):
        network = _torchvision(source)
    elif path.suffix == ".pt2":
        network = _exported_program(path, source)
    elif path.suffix == ".onnx":
        raise InputError(
            f"{path}: no maintained converter brings ONNX files back to torch, where gradients are; export the network "
            "with torch.export to a .pt2 file, or name a factory that builds or converts it."
        )
    elif path.is_dir():
        classifier = load_classifier(path)
        network = Network(classifier, classifier.image_shape, classifier.num_classes, source.adapter)
    elif path.is_file():
        raise InputError(
            f"{path} holds no architecture: name the factory that builds the network as the model, "
            "package.module:function or torchvision:NAME, and this file as its weights."
        )
    elif ":" in source.model:
        network = _from_factory(source)
    else:
        raise InputError(
            f"{source.model} is no model: expected torchvision:NAME, package.module:function, a .pt2 file or a folder "
            "with a checkpoint."
        )
    for part in network.module.modules():
        part.training = False  # and not through eval(), which exported programs refuse
    return network._replace(module=network.module.to(device))


def _shape(source: ClassifierSource) -> tuple[int, int, int]:
    if source.image_shape is None:
        raise InputError(f"{source.model} does not tell the shape of its images: give image_shape.")
    return source.image_shape


def _torchvision(source: ClassifierSource) -> Network:
    """A model of torchvision's registry, with weights of its own, of a file, or fresh."""
    from torchvision import models

    name = source.model.removeprefix("torchvision:")
    try:
        members = models.get_model_weights(name).__members__
    except ValueError:
        known = ", ".join(models.list_models(module=models))
        raise InputError(f"torchvision has no classifier {name!r}; it has: {known}.") from None
    entry = members.get((source.weights or "").rpartition(".")[2])
    settings = dict(source.arguments)
    if entry is None and source.num_classes is not None:
        settings["num_classes"] = source.num_classes
    module: nn.Module = _call(source.model, models.get_model_builder(name), settings)
    if entry is None:
        if source.weights is not None:
            load_weights(module, Path(source.weights), source.weights_prefix)
        return Network(module, _shape(source), source.num_classes, source.adapter)
    try:
        state = entry.get_state_dict(check_hash=True, weights_only=True, map_location="cpu", progress=False)
    except OSError as error:
        raise InputError(
            f"The weights of {name} cannot be downloaded ({error}): fetch {entry.url} yourself, give that file as the "
            "weights, and mean and std to the adapter."
        ) from None
    module.load_state_dict(state)
    preset = entry.transforms()
    adapter = source.adapter
    if adapter.mean is None:
        adapter = adapter.model_copy(update={"mean": tuple(preset.mean), "std": tuple(preset.std)})
    if adapter.input_shape is None and source.image_shape is not None:
        adapter = adapter.model_copy(update={"input_shape": (3, preset.crop_size[0], preset.crop_size[0])})
    image_shape = source.image_shape or (3, preset.crop_size[0], preset.crop_size[0])
    return Network(module, image_shape, source.num_classes, adapter)


def _from_factory(source: ClassifierSource) -> Network:
    """What a function of the user's gives, found from the current folder as well as among installed packages."""
    module_name, _, function_name = source.model.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        try:
            factory = getattr(importlib.import_module(module_name), function_name)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"{source.model} cannot be imported ({error}): check its name and the folder.") from error
        module = _call(source.model, factory, source.arguments)
    finally:
        sys.path.remove(folder)
    if not isinstance(module, nn.Module):
        raise InputError(f"{source.model} gives a {type(module).__name__}, not a torch.nn.Module.")
    if source.weights is not None:
        load_weights(module, Path(source.weights), source.weights_prefix)
    return Network(module, _shape(source), source.num_classes, source.adapter)


def _call(name: str, factory: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return factory(**arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name} fails ({type(error).__name__}: {error}).") from error


def load_weights(network: nn.Module, path: Path, prefix: str | None = None) -> None:
    """Fill a network from a file of weights.

    Args:
        network: In place.
        path: Safetensors, or tensors in mappings written by ``torch.save``; other entries are passed over.
        prefix: Where the network's names begin, dots between the keys of nested mappings; ``None`` looks for the one
            place where every name of the network is found with its shape.

    Raises:
        InputError: The file cannot be read without unpickling, or no place or several places fit.
    """
    tensors = read_tensors(path)
    wanted = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    places = _places(tensors, wanted)
    if prefix is not None:
        places = [prefix.removesuffix(".") + "." if prefix else ""]
    misfits = {place: _misfit(tensors, wanted, place) for place in places}
    fitting = [place for place, misfit in misfits.items() if not misfit]
    if len(fitting) > 1:
        names = ", ".join(place.removesuffix(".") or "(top level)" for place in fitting)
        raise InputError(
            f"{path} holds weights that fit in {len(fitting)} places: name one as weights_prefix: {names}."
        )
    if not fitting:
        best = places[0] if places else ""
        reason = misfits.get(best) or f"it has {_some(tensors)} where the network has {_some(wanted)}"
        where = f" (under {best.removesuffix('.')})" if best else ""
        raise InputError(f"{path} does not hold the weights of this network{where}: {reason}.")
    # Batch counters are the one thing that a file may lack.
    network.load_state_dict(
        {name: tensors.get(fitting[0] + name, value) for name, value in wanted.items()}, strict=False
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, dots between the keys of nested mappings, on the CPU.

    Raises:
        InputError: The file is missing or damaged, or holds more than tensors and plain values.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(list(HARMLESS)):
            return _flatten(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds Python objects, which are not unpickled: save just its weights, where it was made, "
            "by torch.save(model.state_dict(), path)."
        ) from None
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} is not a readable file of weights ({reason}).") from None


def _flatten(value: Any, name: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {name: value}
    if not isinstance(value, Mapping):
        return {}
    tensors: dict[str, Tensor] = {}
    for key, item in value.items():
        tensors |= _flatten(item, f"{name}.{key}" if name else str(key))
    return tensors


def _places(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Every prefix under which at least one wanted name is found, the richest first."""
    found: Counter[str] = Counter()
    for name in tensors:
        starts = [0, *(i + 1 for i, character in enumerate(name) if character == ".")]
        found.update(name[:start] for start in starts if name[start:] in wanted)
    return [place for place, _ in found.most_common()]


def _misfit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: str) -> str:
    """Why the tensors under a prefix are not the wanted ones, in words; empty if they are."""
    given = {name.removeprefix(place): tensor for name, tensor in tensors.items() if name.startswith(place)}
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in wanted and not name.endswith("num_batches_tracked")]
    other = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    reasons = [f"it lacks {_some(missing)}"] if missing else []
    reasons += [f"it has {_some(unknown)}, which the network has not"] if unknown else []
    reasons += [f"{name} is {tuple(given[name].shape)}, not {tuple(wanted[name].shape)}" for name in other[:2]]
    return ", and ".join(reasons)


def _some(names: Any) -> str:
    """The first of many names."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "nothing"


def _exported_program(path: Path, source: ClassifierSource) -> Network:
    """A program of ``torch.export``, with its features marked and its batch set free."""
    if source.weights is not None:
        raise InputError(f"{path} holds its own weights: leave out {source.weights}.")
    with _no_unpickling(path):
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise InputError(f"{path} is not a readable exported program ({str(error).splitlines()[0]}).") from error
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1:
        raise InputError(f"{path} takes {len(inputs)} inputs, and a classifier takes one: images.")
    batch, *shape = inputs[0].meta["val"].shape
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    adapter = source.adapter
    if adapter.feature_layer is None and _mark_features(module):
        adapter = adapter.model_copy(update={"feature_layer": MARK})
    known = tuple(shape) if all(isinstance(side, int) for side in shape) else None
    if known is not None and adapter.input_shape is None and known != source.image_shape:
        adapter = adapter.model_copy(update={"input_shape": known})
    image_shape = source.image_shape or (known if known is not None and len(known) == 3 else _shape(source))
    network: nn.Module = module
    if isinstance(batch, int):
        network = InParts(module, batch, fixed=True)
    else:
        limit = program.range_constraints[batch.node.expr].upper
        if limit.is_Integer:
            network = InParts(module, int(limit), fixed=False)
    if network is not module and adapter.feature_layer is not None:
        adapter = adapter.model_copy(update={"feature_layer": f"network.{adapter.feature_layer}"})
    return Network(network, image_shape, source.num_classes, adapter)


@contextmanager
def _no_unpickling(path: Path) -> Iterator[None]:
    """Refuse an archive with pickled objects or compiled code, and force torch to load the rest as plain tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            code = [name for name in names if "/aotinductor/" in name or "/custom_obj" in name or "/opaque_obj" in name]
            for name in names:
                if name.endswith("_config.json"):
                    entries = json.loads(archive.read(name)).get("config", {})
                    code += [key for key, entry in entries.items() if entry.get("use_pickle")]
                if "/sample_inputs/" in name:
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
    except pickle.UnpicklingError:
        code = ["sample_inputs"]
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a readable exported program ({error}).") from None
    if code:
        raise InputError(f"{path} holds pickled objects or compiled code ({_some(code)}), which are not loaded.")
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before


def _mark_features(program: fx.GraphModule) -> bool:
    """Send the input of the last linear operation through an identity, where an adapter can read it."""
    places = {torch.ops.aten.linear.default: 0, torch.ops.aten.addmm.default: 1}
    for node in reversed(program.graph.nodes):
        place = places.get(node.target)
        if place is not None:
            program.add_submodule(MARK, nn.Identity())
            with program.graph.inserting_before(node):
                marked = program.graph.call_module(MARK, (node.args[place],))
            node.update_arg(place, marked)
            program.recompile()
            return True
    return False


class InParts(nn.Module):
    """A network that takes a fixed or bounded batch, for any batch.

    Args:
        network: Images to scores.
        size: Images that it takes at once.
        fixed: It takes no fewer either; the last part is filled up with copies of its last image.
    """

    def __init__(self, network: nn.Module, size: int, fixed: bool) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.fixed = fixed

    def forward(self, images: Tensor) -> Any:
        """What the network gives, put together."""
        num = len(images)
        short = -num % self.size
        if self.fixed and short:
            images = torch.cat([images, images[-1:].expand(short, *images.shape[1:])])
        return _joined([self.network(part) for part in torch.split(images, self.size)], num)


def _joined(parts: list[Any], num: int) -> Any:
    """Outputs of one structure as one output of ``num`` rows."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)[:num] if first.ndim else first
    if isinstance(first, Mapping):
        return {key: _joined([part[key] for part in parts], num) for key in first}
    if isinstance(first, (tuple, list)):
        return [_joined(list(column), num) for column in zip(*parts, strict=True)]
    return first
