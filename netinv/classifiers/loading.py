"""Classifiers from anywhere: torchvision, a factory of one's own, an exported program, a checkpoint of this library.

No file is unpickled, and none decides what code runs: a factory does, so that only settings and command lines name one.
"""

import copy
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from netinv.classifiers.adapters import DEFAULT, AdaptedClassifier
from netinv.classifiers.archives import entries, is_program
from netinv.classifiers.calls import bare
from netinv.classifiers.checkpoints import load_classifier
from netinv.classifiers.programs import read_program
from netinv.classifiers.sources import ClassifierSource, Network, check_known, check_named, check_whole, shape_of
from netinv.classifiers.weights import held, load_weights, read_tensors, renamed
from netinv.core import InputError, expect_regular, listed, read_config

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

PROGRAM, WEIGHTS = "network.pt2", "weights.safetensors"
"""What the folder of an imported classifier holds beside its configuration: one of the two."""
OWN = "."
"""Model of an imported classifier that is one of this library's own: the configuration tells its architecture, too."""

_FETCHING = {"weights", "pretrained", "weights_backbone", "pretrained_backbone"}
"""Arguments by which torchvision's builders fetch files."""


def load_classifier_from(source: ClassifierSource | str, device: str | torch.device = "cpu") -> AdaptedClassifier:
    """Load a classifier and adapt it.

    Args:
        source: Where it comes from; a text is the ``model`` of one.
        device: Where it is to be.

    Raises:
        InputError: The source cannot be read, its weights do not fit, or the network does not fit the images.
    """
    if isinstance(source, str):
        source = ClassifierSource.parse({"model": source}, "source")
    return AdaptedClassifier(*load_network(ClassifierSource.expect(source, "source"), device))


def load_network(source: ClassifierSource, device: str | torch.device = "cpu") -> Network:
    """Load a classifier's network as it is, frozen, to check it or to adapt it.

    Raises:
        InputError: The source cannot be read, or its weights do not fit.
    """
    path = Path(source.model)
    if source.model.startswith("torchvision:"):
        network = _torchvision(source)
    elif is_program(path):
        network = read_program(path, source)
    elif path.suffix == ".onnx":
        raise InputError(
            f"{path}: no maintained converter brings ONNX files back to torch, where gradients are; export the network "
            "with torch.export to a .pt2 file, or name a factory that builds or converts it."
        )
    elif path.is_dir() and (path / "config.json").exists() and _is_own(path):
        network = _from_folder(path, source)
    elif path.is_file() or (path / "config.json").exists():
        raise InputError(_no_model(path))
    elif ":" in source.model:
        network = _from_factory(source)
    else:
        raise InputError(
            f"{source.model} is no model: expected torchvision:NAME, package.module:function, a .pt2 file or a folder "
            "with a checkpoint (config.json and weights.safetensors)."
        )
    for part in network.module.modules():
        if hasattr(part, "training"):  # torch.jit.freeze takes it away
            part.training = False  # and not through eval(), which exported programs refuse
    for parameter in network.module.parameters():
        parameter.requires_grad_(False)
    return network._replace(module=network.module.to(device))


def _is_own(folder: Path) -> bool:
    """Whether a configuration is this library's: that of timm has an architecture, too, which is a name."""
    config = read_config(folder)
    return "network" in config or isinstance(config.get("architecture"), dict)


def _no_model(path: Path) -> str:
    """Why a file, or a folder, is no model by itself, and what to do about it."""
    factory = "name the factory that builds the network as the model, package.module:function or torchvision:NAME"
    if path.is_dir():  # such as those that Hugging Face's libraries write
        return f"{path} is no folder of this library: {factory}, and {held(path)} as its weights."
    try:
        expect_regular(path)
    except OSError as error:
        return f"{path} cannot be read ({error})."
    if "constants.pkl" in entries(path):
        return (
            f"{path} is a TorchScript archive: name as the model a factory of yours, package.module:function, that "
            "gives torch.jit.load(path)."
        )
    if path.suffix == ".py":
        return (
            f"{path} is code: name the function in it that builds the network, {path.stem}:FUNCTION, from its folder."
        )
    try:
        read_tensors(path)
    except InputError as error:
        return f"{error} Then {factory}, and that file as its weights."
    return f"{path} holds no architecture: {factory}, and this file as its weights."


def _from_folder(folder: Path, source: ClassifierSource) -> Network:
    """A checkpoint's network: one of this library's own, or an imported one with the adapter that it came with."""
    check_whole(source)
    kept = imported_source(folder, source)
    if kept is None or kept.model == str(folder):
        classifier = load_classifier(folder)
        adapter = DEFAULT if kept is None else kept.adapter
        network = Network(classifier, classifier.image_shape, classifier.num_classes, adapter)
    else:
        network = load_network(kept)
    check_known(source, network.image_shape, network.num_classes)
    if source.adapter != DEFAULT:
        network = network._replace(adapter=source.adapter)
    return network._replace(num_classes=network.num_classes or source.num_classes)


def imported_source(folder: Path, named: ClassifierSource | None) -> ClassifierSource | None:
    """Where the network of an imported classifier's folder comes from; ``None`` for a folder of another kind.

    Args:
        folder: May come from anywhere.
        named: What the settings of this machine say of the network.

    Raises:
        InputError: The folder is damaged, or would run code that is not named.
    """
    config = read_config(folder)
    if config.get("network") != "imported":
        return None
    source = ClassifierSource.parse(config.get("source", {}), where=f"{folder}/config.json: source")
    if source.model in (PROGRAM, OWN):
        return source.model_copy(update={"model": str(folder / PROGRAM if source.model == PROGRAM else folder)})
    check_named(source, named, folder)
    return source.model_copy(update={"weights": str(folder / WEIGHTS)})


def _published(source: ClassifierSource) -> "WeightsEnum | None":
    """The weights of torchvision's own that a source names; ``None`` where it names a file, or nothing.

    Raises:
        InputError: torchvision has no such classifier.
    """
    from torchvision import models

    name = source.model.removeprefix("torchvision:")
    # It knows others, for pixels, boxes and videos, whose builders fetch and unpickle weights by themselves.
    if name.lower() not in (known := models.list_models(module=models)):
        raise InputError(f"torchvision has no classifier {name!r}; it has: {', '.join(known)}.")
    members = models.get_model_weights(name).__members__
    return members.get((source.weights or "").rpartition(".")[2])


def settled(source: ClassifierSource) -> ClassifierSource:
    """A source with the arguments that torchvision's builders set by themselves where they fetch weights.

    They are not given ``weights``, since they would unpickle them.
    """
    entry = _published(source) if source.model.startswith("torchvision:") else None
    name, own = source.model.removeprefix("torchvision:"), {}
    if entry is not None and name in ("googlenet", "inception_v3"):
        own = {"transform_input": True, "init_weights": False}
    elif entry is not None and name.startswith("vit_"):
        own = {"image_size": entry.meta["min_size"][0]}
    return source.model_copy(update={"arguments": {**own, **source.arguments}})


def _torchvision(source: ClassifierSource) -> Network:
    """A model of torchvision's registry, with weights of its own, of a file, or fresh."""
    from torchvision import models

    name, entry = source.model.removeprefix("torchvision:"), _published(source)
    settings = dict(settled(source).arguments)
    if fetching := _FETCHING & settings.keys():
        raise InputError(
            f"{source.model} takes no argument {', '.join(sorted(fetching))}: give `weights` in its place."
        )
    if entry is None and source.num_classes is not None:
        settings["num_classes"] = source.num_classes
    module: nn.Module = _call(source.model, models.get_model_builder(name), settings)
    if entry is None:
        if source.weights is not None:
            load_weights(module, Path(source.weights), source.weights_prefix)
        return Network(module, shape_of(source), source.num_classes, source.adapter)
    try:
        state = entry.get_state_dict(check_hash=True, weights_only=True, map_location="cpu", progress=False)
    except Exception as error:  # reading fails in many ways; torch gives no heed to the sum of a file that it has
        file = Path(torch.hub.get_dir(), "checkpoints", Path(entry.url).name)
        if file.exists() and not isinstance(error, OSError):
            raise InputError(
                f"{file}, which has the weights of {name}, is damaged: delete it, so that it is downloaded again."
            ) from None
        also = f", {listed([f'{key}={json.dumps(value)}' for key, value in settings.items()])} as arguments"
        raise InputError(
            f"The weights of {name} cannot be downloaded ({error}): fetch {entry.url} yourself, give that file as the "
            f"weights{also if settings else ''}, and mean and std to the adapter."
        ) from None
    try:
        module.load_state_dict(renamed(state, module.state_dict()))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            f"The weights {entry} do not fit {name} with {settings or 'no arguments'} ({reason})."
        ) from None
    preset = entry.transforms()
    adapter = source.adapter
    if adapter.mean is None:
        adapter = adapter.model_copy(update={"mean": tuple(preset.mean), "std": tuple(preset.std)})
    if adapter.input_shape is None and source.image_shape is not None:
        adapter = adapter.model_copy(update={"input_shape": (3, preset.crop_size[0], preset.crop_size[0])})
    image_shape = source.image_shape or (3, preset.crop_size[0], preset.crop_size[0])
    return Network(module, image_shape, source.num_classes, adapter)


def _from_factory(source: ClassifierSource) -> Network:
    """What a function of the user's gives, or a copy of a module that stands in its place.

    It is found from the current folder as well as among installed packages.
    """
    module_name, _, function_name = source.model.partition(":")
    with _its_own_program(source.model, module_name):
        try:
            found = getattr(importlib.import_module(module_name), function_name)
        except Exception as error:  # it is code of the user's, which may fail in any way
            why = f"{type(error).__name__}: {error}" if not isinstance(error, ImportError) else error
            file = Path(module_name)
            way = "check its name and the folder"
            if file.suffix == ".py" or "/" in module_name:  # a path in the place of a name
                way = f"write {file.name.removesuffix('.py')}:{function_name}, in the folder {file.parent.absolute()}"
            raise InputError(f"{source.model} cannot be imported ({why}): {way}.") from error
        if isinstance(found, nn.Module):  # built already; what is filled in and frozen here is a copy
            if source.arguments:
                raise InputError(
                    f"{source.model} is a module, not a function: leave out {listed(list(source.arguments))}."
                )
            module = _call(source.model, copy.deepcopy, {"x": found})
        else:
            module = _call(source.model, found, source.arguments) if callable(found) else found
    if not isinstance(module, nn.Module):
        how = "gives" if callable(found) else "is"
        raise InputError(
            f"{source.model} {how} a {type(module).__name__}, not a torch.nn.Module: name a function that builds the "
            "module, and give its weights as a file."
        )
    if source.weights is not None:
        load_weights(bare(module), Path(source.weights), source.weights_prefix)
    return Network(module, shape_of(source), source.num_classes, source.adapter)


@contextmanager
def _its_own_program(name: str, module_name: str) -> Iterator[None]:
    """A block for the user's code, as if it ran by itself: from its folder, without the words of this command.

    What it prints goes to standard error, since standard output has what this program was asked for.

    Raises:
        InputError: It ends the program.
    """
    folder, words = str(Path.cwd()), sys.argv
    sys.path.insert(0, folder)
    sys.argv = [module_name]
    try:
        with redirect_stdout(sys.stderr):
            yield
    except SystemExit as end:
        if type(end) is not SystemExit:  # a signal's, which ends this program
            raise
        raise InputError(
            f"{name} ends the program ({end}) where it is imported or called: keep what runs as a program under "
            "if __name__ == '__main__', or the network in a file of its own."
        ) from end
    finally:
        sys.argv = words
        sys.path.remove(folder)


def _call(name: str, factory: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return factory(**arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name} fails ({type(error).__name__}: {error}).") from error
