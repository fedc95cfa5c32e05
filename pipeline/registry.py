"""What the model registry is told of a generator: its standing, its model card, and the rule for the champion.

The rule: a version becomes ``champion`` when the 95 % interval of its primary measure lies wholly above that of the
champion, none of its guard measures lies wholly below the champion's, and the privacy audit found no memorised training
images. Both must have been measured alike (data, evaluator and settings); otherwise a person decides. The best version
of a run that does not become champion becomes ``challenger``.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netinv.core import Config, InputError
from netinv.results import Estimate, Measure, NotMeasured, Results, Row
from netinv.sampling import Metadata, OnnxGenerator

if TYPE_CHECKING:
    from netinv.data import DatasetSpec

PRIMARY = {"standard": "inversion_accuracy", "robust": "evaluator_accuracy"}
"""What each variant is for: to be read by the inverted classifier, or by networks that it never saw."""
GUARDS = {
    "standard": ("vendi_centred_ratio",),
    "robust": ("inversion_accuracy", "robust_accuracy", "vendi_centred_ratio"),
}
"""What a better primary measure must not cost."""

_INTENDED = """\
To see what this classifier reads as each class, to compare it with other classifiers, to find shortcuts and mixed-up
classes, to test defences against inversion, and to teach."""
_MISUSE = """\
Not evidence of what the training data hold: the images are inputs that a network reads in some way. Not a substitute
for the data, nor a way around their licence. Where the data are personal, an audit that finds nothing bounds the risk
and proves no absence: do not publish the generator without the consent that publishing the data would need."""
_VARIANTS = {
    "standard": "asks only that the classifier sees the wanted class: its images are mostly noise to everybody else",
    "robust": "asks that the class survives a bounded perturbation: its images resemble the training data",
}


class Standing(Config):
    """What the rule looks at."""

    primary: str
    """Name of the primary measure."""
    guards: tuple[str, ...]
    measures: dict[str, Measure]
    """The primary measure and the guards."""
    memorised: bool | None
    """Whether the audit found memorised training images; ``None`` if it could not tell."""
    measured_by: str
    """Digest of the data, the evaluator and the settings behind the measures."""


class Candidate(Config):
    """A generator to be registered."""

    file: Path
    """Its ONNX file."""
    generator: str
    """Its name, as in ``generator 0``."""
    run: str | None
    """Run that made it, by its id or as ``journal:<key>``; ``None`` if that is not known."""
    standing: Standing
    card: str
    """The model card, Markdown."""


def better(candidate: Standing, champion: Standing | None) -> tuple[bool, str]:
    """Whether a candidate becomes champion, and why, as a clause."""
    name = candidate.primary.replace("_", " ")
    new = candidate.measures[candidate.primary]
    if candidate.memorised:
        return False, "the privacy audit found memorised training images"
    if not isinstance(new, Estimate):
        return False, f"{name} was not measured: {new.not_measured}"
    if champion is None:
        return True, f"the first with {name} {show(new)}"
    if candidate.measured_by != champion.measured_by:
        return False, "measured with other data, another evaluator or other settings than the champion: you decide"
    old = champion.measures[champion.primary]
    if isinstance(old, Estimate) and new.low <= old.high:
        return False, f"{name} {show(new)} is not beyond the champion's {show(old)}"
    if champion.memorised is False and candidate.memorised is None:
        return False, "the champion passed the privacy audit, which this one could not be put to"
    for guard in candidate.guards:
        was, now = champion.measures[guard], candidate.measures[guard]
        if isinstance(was, Estimate) and (not isinstance(now, Estimate) or now.high < was.low):
            return False, f"{guard.replace('_', ' ')} {show(now)} is worse than the champion's {show(was)}"
    return True, f"{name} {show(new)} is beyond the last champion's {show(old)}, and no guard is worse"


def show(measure: Measure) -> str:
    """A measure with its interval, or why there is none."""
    if isinstance(measure, NotMeasured):
        return f"not measured: {measure.not_measured}"
    return f"{measure.value:.4g} ({measure.low:.4g} to {measure.high:.4g})"


def find_candidates(
    name: str, variant: str, onnx: Path, results: Results, models: Path, spec: "DatasetSpec", run_file: Path
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

    Raises:
        InputError: A file is missing.
    """
    made: dict[str, Any] = json.loads(run_file.read_text()) if run_file.exists() else {"run_id": None}
    measured_by = _digest(results, models, spec)
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
        card = model_card(name, row, OnnxGenerator(file, num_threads=1).metadata, results, models, spec)
        run = f"journal:{key}" if key else made["run_id"]
        candidates.append(Candidate(file=file, generator=row.name, run=run, standing=standing, card=card))
    return sorted(candidates, key=_rank)


def _rank(candidate: Candidate) -> float:
    measure = candidate.standing.measures[candidate.standing.primary]
    return -measure.value if isinstance(measure, Estimate) else 1.0


def _digest(results: Results, models: Path, spec: "DatasetSpec") -> str:
    """What must be the same for two measures to compare."""
    settings = json.dumps([results.settings, results.sharpness, spec.checksums], sort_keys=True)
    evaluator = (models / "evaluator" / "weights.safetensors").read_bytes()
    return hashlib.sha256(settings.encode() + evaluator).hexdigest()[:16]


def model_card(name: str, row: Row, metadata: Metadata, results: Results, models: Path, spec: "DatasetSpec") -> str:
    """The model card of one generator, Markdown."""
    from netinv.classifiers import ImportedClassifier, load_checkpoint

    classifier = load_checkpoint(models / "classifier")
    kind, origin = type(classifier).__name__, "trained on"
    if isinstance(classifier, ImportedClassifier):
        kind, origin = type(classifier.network).__name__, "brought from elsewhere to"
    real = next(other for other in results.rows if other.name == "real_test")
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    classes = ", ".join(metadata.classes[:20]) + (", ..." if len(metadata.classes) > 20 else "")
    channels, height, width = metadata.image_shape
    test = show(real.measures["inversion_accuracy"])
    audit = row.audit.verdict if row.audit else "There was no privacy audit."
    return f"""# {name}, {row.name}

Draws images that an image classifier reads as a wanted class. The {metadata.variant} variant
{_VARIANTS[metadata.variant]}.

## What was inverted
A {kind} of {parameters:,} parameters, {origin} {spec.name} ({spec.num_train:,} training images of \
{len(metadata.classes)} classes: {classes}). Its accuracy on real test images: {test}.

## Measures
95 % intervals in brackets; {row.samples:,} images, what each measure means stands in docs/measures.md.

{_table(row.measures)}

{audit}

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
