"""Exported generators as candidates for the model registry, each with its model card."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netinv.core import InputError
from netinv.results import Estimate, Measure, Results, Row, findings
from netinv.sampling import Metadata, OnnxGenerator
from pipeline.tracking.registry import GUARDS, PRIMARY, Candidate, Standing, show

if TYPE_CHECKING:
    from netinv.classifiers import AdaptedClassifier, Classifier, ClassifierSource
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


def find_candidates(
    name: str,
    variant: str,
    onnx: Path,
    results: Results,
    models: Path,
    spec: "DatasetSpec",
    run_file: Path,
    named: "ClassifierSource | None" = None,
) -> list[Candidate]:
    """The exported generators of a variant, the best by the primary measure first.

    Args:
        name: Of the registered model.
        variant: ``standard`` or ``robust``.
        onnx: Folder of the exported generators.
        results: What the evaluation found.
        models: Folder of the classifier and the evaluator.
        spec: The data set.
        run_file: Lineage of the invert stage; it may be missing.
        named: Where the settings say that the classifier comes from, if it was not trained here.

    Raises:
        InputError: A file is missing.
    """
    from netinv.classifiers import load_checkpoint

    made: dict[str, Any] = json.loads(run_file.read_text()) if run_file.exists() else {"run_id": None}
    measured_by = _digest(results, models, spec)
    classifier = load_checkpoint(models / "classifier", named)
    primary, guards = PRIMARY[variant], GUARDS[variant]
    candidates = []
    for row in results.rows:
        if row.kind != "generator":
            continue
        file = onnx / f"{row.name.replace(' ', '-')}.onnx"
        if not file.exists():
            raise InputError(f"{file} is missing: run the export stage again.")
        standing = Standing(
            primary=primary,
            guards=guards,
            measures={measure: row.measures[measure] for measure in (primary, *guards)},
            memorised=row.audit.memorised if row.audit else None,
            measured_by=measured_by,
        )
        key = made.get("children", {}).get(row.name)
        card = model_card(name, row, OnnxGenerator(file, num_threads=1).metadata, results, classifier, spec)
        run = f"journal:{key}" if key else made["run_id"]
        candidates.append(Candidate(file=file, generator=row.name, run=run, standing=standing, card=card))
    return sorted(candidates, key=_rank)


def _rank(candidate: Candidate) -> float:
    measure = candidate.standing.measures[candidate.standing.primary]
    return -measure.value if isinstance(measure, Estimate) else 1.0


def _digest(results: Results, models: Path, spec: "DatasetSpec") -> str:
    """What must be the same for two measures to compare."""
    settings = json.dumps([results.settings, results.sharpness, spec.checksums], sort_keys=True)
    folder = models / "evaluator"
    weights = folder / "weights.safetensors"  # an exported program has its weights in a file of its own
    files = [weights] if weights.exists() else sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(settings.encode() + b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


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
    test = show(real.measures["inversion_accuracy"])
    said = "\n".join(f"- {finding.told}" for finding in findings(results, row))
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
    rows: Sequence[str] = [f"| {name} | {show(measure)} |" for name, measure in measures.items()]
    return "\n".join(["| measure | value |", "|---|---|", *rows])
