"""Stage ``export``: generators and classifiers as ONNX files that need no torch, checked against it."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netinv.core import VARIANTS, InputError, write_text
from pipeline.judges import load_judges
from pipeline.stage import path_option, replaced, stage_command

if TYPE_CHECKING:
    from netinv.data import DatasetSpec


@click.group()
def main() -> None:
    """Export networks to ONNX."""


@main.command()
@click.argument("dataset")
@click.argument("variant", type=click.Choice(VARIANTS))
@path_option("--data", help="Folder of the data set.")
@path_option("--models", help="Folder of both classifiers.")
@path_option("--generators", "trained", help="Folder of the generators.")
@path_option("--out", help="Folder for the ONNX files.")
@path_option("--metrics", help="JSON file for the metrics.")
@stage_command
def generators(dataset: str, variant: str, data: Path, models: Path, trained: Path, out: Path, metrics: Path) -> None:
    """Export the generators of VARIANT, in all forms that params.yaml names."""
    from netinv.data import load_spec
    from netinv.export import export_generators
    from netinv.generators import field_side, has_dropout, load_generators
    from netinv.sampling import Metadata
    from pipeline import tracking
    from pipeline.params import load_params

    params = load_params()
    train = params.for_dataset(dataset).train
    inversion = getattr(params.for_dataset(dataset).invert, variant)
    spec = load_spec(data)
    networks = load_generators(trained)
    run_file = tracking.lineage_path("invert", dataset, variant)
    metadata = Metadata(
        kind="generator",
        variant=variant,
        latent_dim=(latent_dim := networks[0].config.latent_dim),
        field_side=field_side(latent_dim, *networks[0].image_shape[1:]) if inversion.latent_field else 0,
        sharpness=inversion.sharpness,
        **_origin(spec, run_file),
    )
    config = params.export
    if "stochastic" in config.forms and not all(has_dropout(network) for network in networks):
        print(f"export {dataset} {variant}: without dropout there is no stochastic form.", file=sys.stderr)
        config = config.model_copy(update={"forms": tuple(form for form in config.forms if form != "stochastic")})
    judges = load_judges(models, train, "cpu")._asdict()
    for network in (*networks, *judges.values()):
        _expect_of(spec, network)
    with (
        replaced(out, metrics) as folder,
        tracking.stage_run(
            "export",
            dataset=dataset,
            variant=variant,
            params=params.export.model_dump(mode="json"),
            inputs=[run_file],
        ) as run,
    ):
        measures = export_generators(folder, networks, judges, metadata, config)
        run.log_metrics({f"export/{name}": value for name, value in measures.items()})
        for i in range(len(networks)):  # the other forms follow from these
            run.log_artifact(folder / f"generator-{i}.onnx", folder="onnx")
        write_text(metrics, json.dumps(measures, indent=2) + "\n")
        names = sorted(path.name for path in folder.iterdir())
    print(f"export {dataset} {variant}: {', '.join(names)}", file=sys.stderr)
    for form in params.export.forms:
        if refused := int(measures.get(f"{form}/refused", 0)):
            print(
                f"export {dataset} {variant}: the {form} form of {refused} of {len(networks)} generators loses more "
                f"accuracy than export.max_accuracy_loss = {params.export.max_accuracy_loss:g} and was not written.",
                file=sys.stderr,
            )


@main.command()
@click.argument("dataset")
@path_option("--data", help="Folder of the data set.")
@path_option("--models", help="Folder of both classifiers.")
@path_option("--out", help="Folder for the ONNX files.")
@path_option("--metrics", help="JSON file for the metrics.")
@stage_command
def classifiers(dataset: str, data: Path, models: Path, out: Path, metrics: Path) -> None:
    """Export the classifier and the evaluator."""
    from netinv.data import load_spec
    from netinv.export import export_classifier
    from netinv.sampling import Metadata
    from pipeline import tracking
    from pipeline.params import load_params

    train = load_params().for_dataset(dataset).train
    spec, judges = load_spec(data), load_judges(models, train, "cpu")._asdict()
    run_files = {name: tracking.lineage_path("train", dataset, name) for name in judges}
    with (
        replaced(out, metrics) as folder,
        tracking.stage_run("export", dataset=dataset, variant="classifiers", inputs=[*run_files.values()]) as run,
    ):
        measures: dict[str, float] = {}
        reasons: dict[str, str] = {}
        for name, network in judges.items():
            metadata = Metadata(kind="classifier", variant=name, **_origin(spec, run_files[name]))
            _expect_of(spec, network)
            try:
                difference = export_classifier(folder / f"{name}.onnx", network, metadata)
            except (InputError, FloatingPointError) as error:
                # A network from elsewhere may be beyond ONNX; its generators are not.
                reasons[f"{name}/max_difference"] = f"not exported: {error}"
                continue
            measures[f"{name}/max_difference"] = difference
            run.log_artifact(folder / f"{name}.onnx", folder="onnx")
        run.log_metrics({f"export/{name}": value for name, value in measures.items()})
        write_text(metrics, json.dumps(measures | reasons, indent=2) + "\n")
        names = sorted(path.name for path in folder.iterdir())
    print(f"export {dataset}: {', '.join(names)}", file=sys.stderr)
    for name, reason in reasons.items():
        print(f"export {dataset}: {name.partition('/')[0]} {reason}", file=sys.stderr)


def _expect_of(spec: "DatasetSpec", network: Any) -> None:
    """Refuse a network of other data, whose file would name the wrong classes.

    Raises:
        InputError: It is one.
    """
    if (network.num_classes, tuple(network.image_shape)) != (spec.num_classes, spec.image_shape):
        raise InputError(
            f"A {type(network).__name__} knows {network.num_classes} classes of images {tuple(network.image_shape)}, "
            f"but {spec.name} has {spec.num_classes} of {spec.image_shape}: run the stages train and invert again."
        )


def _origin(spec: "DatasetSpec", run_file: Path) -> dict[str, Any]:
    """The metadata that tell where a network came from."""
    from netinv.export import versions
    from pipeline.tracking import read_lineage

    return {
        "dataset": spec.name,
        "classes": spec.classes,
        "image_shape": spec.image_shape,
        "run_id": read_lineage(run_file).run_id or "",
        "licence": f"Trained on {spec.name}: {spec.licence}",
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
