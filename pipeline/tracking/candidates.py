"""Exported generators as candidates for the model registry."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from netinv.core import InputError
from netinv.results import Estimate, Results
from netinv.sampling import OnnxGenerator
from pipeline.tracking.cards import front_matter, model_card
from pipeline.tracking.lineage import read_lineage
from pipeline.tracking.registry import GUARDS, PRIMARY, Candidate, Standing

if TYPE_CHECKING:
    from netinv.classifiers import ClassifierSource
    from netinv.data import DatasetSpec


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

    made = read_lineage(run_file)
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
        key = made.children.get(row.name)
        metadata = OnnxGenerator(file, num_threads=1).metadata
        card = model_card(name, row, metadata, results, classifier, spec)
        run = f"journal:{key}" if key else made.run_id
        front = front_matter(name, row, metadata)
        candidates.append(Candidate(file=file, generator=row.name, run=run, standing=standing, card=card, front=front))
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
