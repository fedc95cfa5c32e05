"""Stage ``audit``: the gate of ``netinv audit`` in the pipeline, for the data sets that ``audit.datasets`` names."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netinv.core import best_device
from pipeline.judges import Judges, load_judges
from pipeline.stage import path_option, replaced, stage_command

if TYPE_CHECKING:
    from torch import Tensor

    from netinv.audit import AuditRecord

_PLAIN = re.compile(r"generator-\d+")
"""Names of the exported generators; those of their other forms go on."""


@click.command()
@click.argument("dataset")
@path_option("--data", help="Folder of the data set.")
@path_option("--models", help="Folder of both classifiers.")
@path_option("--onnx", help="Folder of the exported generators.")
@path_option("--out", help="Folder for the record.")
@stage_command
def main(dataset: str, data: Path, models: Path, onnx: Path, out: Path) -> None:
    """Audit the classifier of DATASET and what its generators draw; end with 1 or 3 as audit.stop_at says."""
    from netinv.audit import STATUS, audit, save_audit
    from netinv.data import load_spec, load_split
    from pipeline import tracking
    from pipeline.params import load_params

    params = load_params()
    train = params.for_dataset(dataset).train
    policy = params.audit.policy
    device = best_device()
    inputs = [tracking.lineage_path("train", dataset, model) for model in Judges._fields]
    inputs += [tracking.lineage_path("export", dataset, variant) for variant in params.variants]
    settings = policy.model_dump(mode="json")
    with replaced(out) as folder, tracking.stage_run("audit", dataset, params=settings, inputs=inputs) as run:
        run.log_dataset(load_spec(data), data)
        splits = load_split(data, "train"), load_split(data, "test")
        classifier, evaluator = load_judges(models, train, device)
        samples: dict[str, Tensor] = {
            variant: _drawn(onnx / variant, policy.samples, policy.seed) for variant in params.variants
        }
        record = audit(classifier, *splits, policy, samples, evaluator, name=f"{dataset} classifier")
        save_audit(folder, record, *splits, samples)
        run.log_metrics(_numbers(record))
        run.set_tags({"verdict": record.verdict})
        run.describe("\n".join((f"**{record.verdict}**: {record.summary}\n", *(f"- {line}" for line in record.lines))))
        for path in sorted(folder.iterdir()):
            run.log_artifact(path)
    print("\n".join((*record.lines, f"audit {dataset}: {record.verdict}. {record.summary}")), file=sys.stderr)
    if record.verdict in params.audit.stopping:
        print(f"error: audit.stop_at = {params.audit.stop_at} ends the pipeline here: see {out}.", file=sys.stderr)
        sys.exit(STATUS[record.verdict])


def _drawn(folder: Path, num: int, seed: int) -> "Tensor":
    """Images (N, C, H, W) of a variant at its own sharpness, from each generator as many, and no two by one draw.

    Raises:
        InputError: There are no exported generators.
    """
    import torch

    from netinv.core import InputError
    from netinv.sampling import OnnxGenerator

    files = [path for path in sorted(folder.glob("*.onnx")) if _PLAIN.fullmatch(path.stem)]
    if not files:
        raise InputError(f"{folder} has no exported generators: run the export stage again.")
    each = -(-num // len(files))
    drawn = [torch.from_numpy(OnnxGenerator(path).sample(each, seed=seed + i).images) for i, path in enumerate(files)]
    # In turns, so that what is cut off is not all of one generator.
    return torch.stack(drawn, dim=1).flatten(0, 1)[:num]


def _numbers(record: "AuditRecord") -> dict[str, float]:
    """The numbers that were measured, as ``audit/<check>/<name>``."""
    from netinv.results import Estimate

    return {
        f"audit/{check.name}/{re.sub(r'[^A-Za-z0-9_. -]', '_', number.name)}": number.measure.value
        for check in record.checks
        for number in check.numbers
        if isinstance(number.measure, Estimate)
    }


if __name__ == "__main__":
    main()
