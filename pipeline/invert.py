"""Stage ``invert``: train the generators of a variant as independent Ray work."""

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netinv.core import VARIANTS, InputError, save_csv, write_text
from pipeline.stage import replaced, stage_command, verbose_option

if TYPE_CHECKING:
    from netinv.classifiers import AdaptedClassifier, Classifier, ClassifierSource
    from netinv.generators import GeneratorConfig
    from netinv.inversion import InversionConfig
    from pipeline.driver import Followed, Plan
    from pipeline.params import InvertParams, RayParams
    from pipeline.tracking import Run


def plan_generators(
    dataset: str,
    variant: str,
    inversion: "InvertParams",
    ray: "RayParams",
    model: Path,
    named: "ClassifierSource | None" = None,
) -> "Plan":
    """The generators of a variant of the classifier in the folder ``model``, and ``named`` is what settings say of it.

    Raises:
        InputError: The settings do not fit each other or the classifier.
    """
    from netinv.classifiers import load_checkpoint
    from pipeline.driver import Plan, fingerprint
    from pipeline.generators import Job

    common, config = inversion.common, getattr(inversion, variant)
    classifier = load_checkpoint(model, named)
    check_settings(variant, common.generator, config, ray, classifier)
    seeds = enumerate(range(common.seed, common.seed + common.num_generators))
    settings = [f"{dataset} {variant}", common.model_dump_json(), config.model_dump_json()]
    return Plan(
        title=f"invert {dataset} {variant}",
        classifier=classifier,
        jobs={f"generator {i}": Job(seed, common.generator, config) for i, seed in seeds},
        ray=ray,
        fingerprint=fingerprint(settings, model, __file__),
    )


def check_settings(
    variant: str,
    generator: "GeneratorConfig",
    config: "InversionConfig",
    ray: "RayParams",
    classifier: "Classifier | AdaptedClassifier",
) -> None:
    """Refuse what would fail in a worker.

    Raises:
        InputError: Names the key.
    """
    from netinv.classifiers import check_statistics
    from pipeline.estimates import check_inversion

    if config.batch_size % ray.num_workers:
        raise InputError(
            f"{ray.num_workers} workers (ray.num_workers) cannot share a batch of {config.batch_size} equally: "
            f"choose another of the two."
        )
    check_inversion(f"invert.{variant}", generator, config, classifier)
    check_statistics(config.pixel_statistics, config.layer_statistics, classifier, where=f"invert.{variant}.")


def write_generators(plan: "Plan", followed: "list[Followed]", run: "Run", folder: Path) -> dict[str, float]:
    """Save the generators with their histories, and say which of the classes one of them cannot draw.

    Returns:
        The stage's metrics: mean accuracy on the last batch, the worst accuracy of any class of any generator on fresh
        images, and the number of generators.
    """
    from netinv.generators import save_generator
    from netinv.inversion import class_accuracies, missing_classes, told_missing
    from pipeline.generators import trained

    classes = [str(label) for label in range(plan.classifier.num_classes)]
    by_class = []
    for index, ((name, job), one) in enumerate(zip(plan.jobs.items(), followed, strict=True)):
        assert one.state is not None
        generator = trained(plan.classifier, job, one.state)
        save_generator(folder / str(index), generator)
        by_class.append(class_accuracies(generator, plan.classifier, job.config.sharpness))
        if missing_classes(classes, by_class[-1]):
            print(f"warning: {plan.title}, {name}: {told_missing(classes, by_class[-1])}", file=sys.stderr)
        one.run.log_artifact(folder / str(index), folder="checkpoint")
        save_csv(folder / str(index) / "history.csv", one.history)
    last = [one.history[-1]["accuracy"] for one in followed]
    samples = int(followed[0].history[-1]["samples"])
    worst = min(min(one) for one in by_class)
    run.log_metrics({"invert/accuracy": sum(last) / len(last), "invert/worst_class_accuracy": worst}, step=samples)
    return {"batch_accuracy": sum(last) / len(last), "worst_class_accuracy": worst, "generators": len(last)}


@click.command()
@click.argument("dataset")
@click.argument("variant", type=click.Choice(VARIANTS))
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Checkpoint of the classifier.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the generators.")
@click.option("--metrics", type=click.Path(path_type=Path), required=True, help="JSON file for the metrics.")
@click.option("--plots", type=click.Path(path_type=Path), required=True, help="CSV file for the training curves.")
@verbose_option
@stage_command
def main(dataset: str, variant: str, model: Path, out: Path, metrics: Path, plots: Path) -> None:
    """Invert the classifier of DATASET with the generators of VARIANT (standard or robust)."""
    from pipeline import cluster, driver, tracking
    from pipeline.params import load_params

    params = load_params()
    settings = params.for_dataset(dataset)
    inversion = settings.invert
    plan = plan_generators(dataset, variant, inversion, params.ray, model, settings.train.classifier.source)
    cluster.check_address(os.environ.get("RAY_ADDRESS"))
    logged = {"common": inversion.common, variant: getattr(inversion, variant)}
    with ExitStack() as stack:
        folder = stack.enter_context(replaced(out))
        checkpoints = plan.checkpoints()
        run = stack.enter_context(
            tracking.stage_run(
                "invert",
                dataset=dataset,
                variant=variant,
                params={name: part.model_dump(mode="json") for name, part in logged.items()},
                inputs=[Path("runs/train") / f"{dataset}-classifier.json"],
            )
        )
        followed = driver.resume(plan, checkpoints, run, stack)
        driver.consume(plan, followed)
        measured = write_generators(plan, followed, run, folder)
        curves = [{"generator": i, **record} for i, one in enumerate(followed) for record in one.history]
        save_csv(plots, curves)
        write_text(metrics, json.dumps(measured) + "\n")
    checkpoints.remove()
    print(
        f"{plan.title}: {len(followed)} generators, batch accuracy {measured['batch_accuracy']:.3f}, "
        f"worst class {measured['worst_class_accuracy']:.3f}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
