"""Model cards of generators: one text, under MLflow's registry and, below a front matter, for a hub of models.

The front matter is that of Hugging Face's model cards: YAML between two lines of dashes, with the measures as
``model-index``.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netinv.results import Estimate, Measure, Results, Row, findings
from netinv.sampling import Metadata

if TYPE_CHECKING:
    from netinv.classifiers import AdaptedClassifier, Classifier
    from netinv.data import DatasetSpec

_INTENDED = """\
To see what this classifier reads as each class, to compare it with other classifiers, to find shortcuts and mixed-up
classes, to test defences against inversion, and to teach."""
_MISUSE = """\
Not evidence of what the training data hold: the images are inputs that a network reads in some way. Not a substitute
for the data, nor a way around their licence. Where the data are personal, an audit that finds nothing bounds the risk
and proves no absence: do not publish the generator without the consent that publishing the data would need."""
_VARIANTS = {
    "standard": "asks only that the classifier sees the wanted class",
    "robust": "asks that the class survives a bounded perturbation, too",
}


def model_card(
    name: str,
    row: Row,
    metadata: Metadata,
    results: Results,
    classifier: "AdaptedClassifier | Classifier",
    spec: "DatasetSpec",
) -> str:
    """The model card of one generator, Markdown."""
    from netinv.classifiers import ImportedClassifier

    kind, origin = type(classifier).__name__, "trained on"
    if isinstance(classifier, ImportedClassifier):
        kind, origin = type(classifier.network).__name__, "brought from elsewhere to"
    real = next(other for other in results.rows if other.name == "real_test")
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    classes = ", ".join(metadata.classes[:20]) + (", ..." if len(metadata.classes) > 20 else "")
    channels, height, width = metadata.image_shape
    test = real.measures["inversion_accuracy"]
    said = "\n".join(f"- {finding.line}" for finding in findings(results, row))
    return f"""# {name}, {row.name}

Draws images that an image classifier reads as a wanted class. The {metadata.variant} variant
{_VARIANTS[metadata.variant]}.

## What was inverted
A {kind} of {parameters:,} parameters, {origin} {spec.name} ({spec.num_train:,} training images of \
{len(metadata.classes)} classes: {classes}). Its accuracy on real test images: {test}.

## What was found
By the bars of docs/report.md, beside real images and noise:

{said}

## Measures
95 % intervals in brackets; {row.samples:,} images, what each measure means stands in docs/measures.md.

{_table(row.measures)}

## Use
Inputs: `latent` (N, {metadata.latent_dim}), standard normal, and `condition` (N, {len(metadata.classes)}), wanted class
probabilities; output `images` (N, {channels}, {height}, {width}) in [0, 1]. All float32.

Intended: {_INTENDED}

Misuse: {_MISUSE}

## Data and licence
{spec.source}. {metadata.licence}

Written by {", ".join(f"{library} {version}" for library, version in sorted(metadata.versions.items()))}.
"""


def _table(measures: Mapping[str, Measure]) -> str:
    rows: Sequence[str] = [f"| {name} | {measure} |" for name, measure in measures.items()]
    return "\n".join(["| measure | value |", "|---|---|", *rows])


def front_matter(name: str, row: Row, metadata: Metadata) -> str:
    """What a hub of models reads of one generator, above its card; measures have no intervals there."""
    from ruamel.yaml import YAML

    dataset = {"name": metadata.dataset, "type": metadata.dataset}
    task = {"type": "image-generation", "name": "Class-conditional images by network inversion"}
    metrics: list[dict[str, Any]] = [
        {"type": measure, "name": measure.replace("_", " "), "value": found.value}
        for measure, found in row.measures.items()
        if isinstance(found, Estimate)
    ]
    result = {"task": task, "dataset": dataset, "metrics": metrics}
    values = {
        "license": "other",
        "license_name": metadata.licence,
        "library_name": "onnx",
        "tags": ["network-inversion", "image-generation", metadata.variant],
        "datasets": [metadata.dataset],
        "model-index": [{"name": f"{name}, {row.name}", "results": [result]}],
    }
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(values, text)
    return f"---\n{text.getvalue()}---\n\n"
