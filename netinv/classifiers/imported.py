"""Classifiers from elsewhere as checkpoints: where the network comes from, and a copy of its weights beside it.

The folder is all that later stages and other machines need, apart from the code of a factory.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save

from netinv.classifiers.adapters import AdaptedClassifier
from netinv.classifiers.checkpoints import load_classifier
from netinv.classifiers.loading import load_network
from netinv.classifiers.networks import Classifier
from netinv.classifiers.sources import ClassifierSource
from netinv.core import read_config

PROGRAM, WEIGHTS = "network.pt2", "weights.safetensors"


class ImportedClassifier(AdaptedClassifier):
    """An adapted network that knows the files it can be built from again, and so travels to other processes."""

    files: dict[str, bytes]

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_files, (self.files,)


def import_classifier(source: ClassifierSource, folder: Path) -> ImportedClassifier:
    """Load a classifier from anywhere and write it into a folder, from where :func:`load_checkpoint` reads it.

    Args:
        source: Where it comes from; the folder keeps all that the source leads to.
        folder: An existing folder.

    Raises:
        InputError: The source cannot be read, its weights do not fit, or the network does not fit the images.
    """
    network = load_network(source)
    kept: dict[str, Any] = {
        "image_shape": network.image_shape,
        "num_classes": network.num_classes,
        "adapter": network.adapter.model_dump(mode="json"),
    }
    if source.model.endswith(".pt2"):
        shutil.copyfile(source.model, folder / PROGRAM)
        kept |= {"model": PROGRAM, "adapter": source.adapter.model_dump(mode="json")}
    else:
        state = {name: tensor.detach().clone() for name, tensor in network.module.state_dict().items()}
        (folder / WEIGHTS).write_bytes(save(state))
        kept |= {"model": source.model, "arguments": source.arguments, "weights": WEIGHTS, "weights_prefix": ""}
    config = {"network": "imported", "source": ClassifierSource.parse(kept).model_dump(mode="json")}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return _load_imported(folder)


def load_checkpoint(folder: Path) -> Classifier | ImportedClassifier:
    """Read a classifier from its folder, one of this library's own or an imported one, in evaluation mode.

    Raises:
        InputError: The folder does not hold a classifier, or holds a damaged one.
    """
    if read_config(folder).get("network") == "imported":
        return _load_imported(folder)
    return load_classifier(folder)


def _load_imported(folder: Path) -> ImportedClassifier:
    source = ClassifierSource.parse(read_config(folder).get("source", {}), where=f"{folder}/config.json: source")
    if source.model == PROGRAM:
        source = source.model_copy(update={"model": str(folder / PROGRAM)})
    else:
        source = source.model_copy(update={"weights": str(folder / WEIGHTS)})
    classifier = ImportedClassifier(*load_network(source))
    classifier.files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    return classifier


def _from_files(files: dict[str, bytes]) -> ImportedClassifier:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return _load_imported(Path(folder))
