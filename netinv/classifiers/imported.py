"""Classifiers from elsewhere as checkpoints: where the network comes from, and a copy of its weights beside it.

The folder is all that later stages and other machines need, apart from the code of a factory.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from netinv.classifiers.adapters import DEFAULT, AdaptedClassifier
from netinv.classifiers.archives import is_program
from netinv.classifiers.calls import bare
from netinv.classifiers.checkpoints import load_classifier
from netinv.classifiers.inputs import probe_images
from netinv.classifiers.loading import OWN, PROGRAM, WEIGHTS, imported_source, load_network, settled
from netinv.classifiers.networks import Classifier
from netinv.classifiers.sources import ClassifierSource
from netinv.core import InputError, read_config


class ImportedClassifier(AdaptedClassifier):
    """An adapted network that knows the files it can be built from again, and so travels to other processes."""

    files: dict[str, bytes]
    named: ClassifierSource | None
    """What the settings of the machine that read it say of it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_files, (self.files, self.named)


def import_classifier(source: ClassifierSource, folder: Path) -> ImportedClassifier:
    """Load a classifier from anywhere and write it into a folder, from where :func:`load_checkpoint` reads it.

    Args:
        source: Where it comes from; the folder keeps all that the source leads to.
        folder: An existing folder.

    Raises:
        InputError: The source cannot be read, its weights do not fit, the network does not fit the images, or it is
            another one at each call of its factory.
    """
    network = load_network(source)
    origin = settled(source)
    if Path(source.model).is_dir():
        origin = imported_source(Path(source.model), source) or source
    kept: dict[str, Any] = {
        "image_shape": network.image_shape,
        "num_classes": network.num_classes,
        "adapter": network.adapter.model_dump(mode="json"),
    }
    own: dict[str, Any] = {}
    if is_program(Path(origin.model)):
        shutil.copyfile(origin.model, folder / PROGRAM)
        given = source.adapter if source.adapter != DEFAULT else origin.adapter  # without the marks of this loading
        kept |= {"model": PROGRAM, "adapter": given.model_dump(mode="json")}
    else:
        state = {
            name: tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in bare(network.module).state_dict().items()
            if isinstance(tensor, Tensor)  # and not the extra state of modules, which the factory gives again
        }
        (folder / WEIGHTS).write_bytes(save(state))
        if Path(origin.model).is_dir():
            own = read_config(Path(origin.model))
            kept |= {"model": OWN}
        else:
            kept |= {"model": origin.model, "arguments": origin.arguments, "weights": WEIGHTS, "weights_prefix": ""}
    config = own | {
        "network": "imported",
        "source": ClassifierSource.parse(kept).model_dump(mode="json", exclude={"factory"}),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    classifier = _of_folder(folder, source)
    _expect_same(AdaptedClassifier(*network), classifier, source.model)
    return classifier


@torch.no_grad()
def _expect_same(first: AdaptedClassifier, second: AdaptedClassifier, model: str) -> None:
    """Refuse a network that is another one when it is built again: what differs is not among its weights.

    Raises:
        InputError: The second gives other scores than the first, which gives the same ones twice.
    """
    images = probe_images(first.image_shape)
    once, again, other = first(images), first(images), second(images)
    close = 1e-3 * float(once.abs().mean()) + 1e-9
    if torch.allclose(once, again, atol=close) and not torch.allclose(once, other, atol=close):
        raise InputError(
            f"{model} gives another network at each call: register all that it draws as parameters, modules (in an "
            "nn.ModuleList, not a list) or persistent buffers, or seed what draws it."
        )


def load_checkpoint(folder: Path, named: ClassifierSource | None = None) -> Classifier | ImportedClassifier:
    """Read a classifier from its folder, one of this library's own or an imported one, in evaluation mode.

    Args:
        folder: Its folder, which alone makes no code run.
        named: Where the caller's own settings say that it comes from: a factory is called only if they name it.

    Raises:
        InputError: The folder does not hold a classifier, holds a damaged one, or asks for a factory that is not named.
    """
    source = imported_source(folder, named)
    if source is None:
        return load_classifier(folder)
    classifier = ImportedClassifier(*load_network(source))
    classifier.named = named
    classifier.files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    return classifier


def _of_folder(folder: Path, named: ClassifierSource | None) -> ImportedClassifier:
    classifier = load_checkpoint(folder, named)
    assert isinstance(classifier, ImportedClassifier)
    return classifier


def _from_files(files: dict[str, bytes], named: ClassifierSource | None) -> ImportedClassifier:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return _of_folder(Path(folder), named)
