"""What the commands print of a check, an inversion, a measure."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netinv.app.inversions import Inversion
    from netinv.classifiers import CheckReport
    from netinv.results import Measure, Results


def tell_inversion(inversion: "Inversion", out: Path, as_json: bool) -> None:
    """What came of an inversion; ends with status 3 if a class is missing."""
    from netinv.inversion import told_missing

    worst = min(inversion.class_accuracy)
    if as_json:
        told = {"out": str(out), "accuracy": inversion.accuracy, "worst_class": worst, "missing": inversion.missing}
        print(json.dumps(told | {"steps": inversion.config.steps, "last": inversion.history[-1]}))
    else:
        print(
            f"{out}: inversion accuracy {inversion.accuracy:.3f}, worst class {worst:.2f}, after "
            f"{inversion.config.steps} steps; see {out / 'grid.png'}"
        )
    if inversion.missing:
        print(f"warning: {told_missing(inversion.classes, inversion.class_accuracy)}", file=sys.stderr)
        sys.exit(3)


def told(model: str, report: "CheckReport") -> str:
    """A check's report for people."""
    lines = [f"classifier  {model}, {report.parameters:,} parameters"]
    if report.output_range is not None:
        low, high = report.output_range
        layer = f"the input of {report.feature_layer}" if report.feature_layer else "the logits themselves"
        lines += [
            f"images      {report.image_shape}, given to the network as {report.input_shape}",
            f"outputs     {report.num_classes} classes, {report.output}, from {low:.3g} to {high:.3g}",
            f"features    {report.feature_dim}, {layer}",
        ]
    if report.accuracy is not None:
        lines.append(f"accuracy    {report.accuracy:.3f} on {report.num_images} images")
    if report.images_per_second is not None:
        lines.append(f"speed       {report.images_per_second:.0f} images a second, forward and backward")
    lines += [f"{finding.severity}: {finding.message}" for finding in report.findings]
    return "\n".join(lines)


def measured(measure: "Measure") -> str:
    """A measure in a few characters, or why there is none."""
    from netinv.results import Estimate

    if isinstance(measure, Estimate):
        return f"{measure.value:.3f}  ({measure.low:.3f} to {measure.high:.3f})"
    return f"not measured: {measure.not_measured}"


def tell_evaluation(results: "Results", vendi: list[float]) -> None:
    """The headline of an evaluation for people, and the diversity within the classifier's own features."""
    for name, value in results.headline.items():
        print(f"{name.replace('_', ' '):28} {measured(value)}")
    print(f"{'vendi, classifier features':28} {', '.join(f'{value:.2f}' for value in vendi)}")
    print(results.verdict)
