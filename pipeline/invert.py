"""Stage ``invert``: train the generators of a variant as independent Ray work."""

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from netinv.core import VARIANTS, best_device, save_csv, write_text
from pipeline.stage import path_option, replaced, stage_command, verbose_option

if TYPE_CHECKING:
    from netinv.classifiers import ClassifierSource
    from netinv.generators import ConditionedGenerator
    from pipeline.checkpoints import Checkpoints
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
    from pipeline.driver import Plan, check_settings, fingerprint
    from pipeline.generators import Job

    common, config = inversion.common, getattr(inversion, variant)
    classifier = load_checkpoint(model, named)
    architecture = common.architecture(variant)
    check_settings(f"invert.{variant}", architecture, config, ray, classifier)
    seeds = range(common.seed, common.seed + common.num_generators)
    jobs = {f"generator {i}": Job(seed, architecture, config) for i, seed in enumerate(seeds)}
    settings = [f"{dataset} {variant}", *map(repr, jobs.items())]
    return Plan(f"invert {dataset} {variant}", classifier, jobs, ray, fingerprint(settings, model, __file__))


class Trained(NamedTuple):
    """A generator at the end of its training."""

    followed: "Followed"
    network: "ConditionedGenerator"
    by_class: tuple[float, ...]
    """Its inversion accuracy on fresh images of each class."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes that it cannot draw."""
        from netinv.inversion import missing_classes

        return missing_classes(self.classes, self.by_class)

    @property
    def classes(self) -> list[str]:
        """All of them, by number."""
        return [str(label) for label in range(len(self.by_class))]


def train_with_retries(
    plan: "Plan", attempts: int, checkpoints: "Checkpoints", run: "Run", stack: ExitStack
) -> list[Trained]:
    """Train the generators of a plan, each as often as it lacks a class and attempts are left; the best one counts.

    Args:
        plan: Of the first attempt.
        attempts: At least 1.
        checkpoints: Of all attempts.
        run: Of the stage.
        stack: Ends the generators' runs.
    """
    best = _trained(plan, checkpoints, run, stack)
    for attempt in range(2, attempts + 1):
        if not (lacking := [name for name, one in best.items() if one.missing]):
            break
        print(
            f"{plan.title}: {', '.join(lacking)} cannot draw a class: attempt {attempt} of {attempts}", file=sys.stderr
        )
        again = _trained(plan.again(lacking, attempt), checkpoints, run, stack)
        for name, one in zip(lacking, again.values(), strict=True):
            best[name] = max(best[name], one, key=lambda trained: (-len(trained.missing), sum(trained.by_class)))
    for name, one in best.items():  # what follows takes the run of the attempt that counts for the generator's
        run.children[name] = one.followed.run.key
    return list(best.values())


def _trained(plan: "Plan", checkpoints: "Checkpoints", run: "Run", stack: ExitStack) -> dict[str, Trained]:
    """The generators of a plan by name, trained from their seeds or from where a killed stage stopped."""
    from netinv.inversion import class_accuracies
    from pipeline import driver
    from pipeline.generators import trained
    from pipeline.progress import Progress

    followed = driver.resume(plan, checkpoints, run, stack)
    driver.consume(plan, followed)
    found, device = {}, best_device()
    classifier = plan.classifier.to(device)
    progress = Progress(f"{plan.title}, each class", len(plan.jobs), "generator")
    for (name, job), one in zip(plan.jobs.items(), followed, strict=True):
        assert one.state is not None
        network = trained(classifier, job, one.state).to(device)
        by_class = class_accuracies(network, classifier, job.config)
        found[name] = Trained(one, network.cpu(), by_class)
        progress.advance(1, f"the worst of {name} {min(by_class):.3f}")
    progress.close()
    classifier.cpu()  # from where it goes to the workers of another attempt
    return found


def write_generators(plan: "Plan", generators: list[Trained], run: "Run", folder: Path) -> dict[str, float]:
    """Save the generators with their histories, and say which of the classes one of them cannot draw.

    Returns:
        The stage's metrics: mean accuracy on the last batch, the worst accuracy of any class of any generator on fresh
        images, and the number of generators.
    """
    from netinv.generators import save_generator
    from netinv.inversion import missing_message

    for index, (name, one) in enumerate(zip(plan.jobs, generators, strict=True)):
        save_generator(folder / str(index), one.network)
        if one.missing:
            print(f"warning: {plan.title}, {name}: {missing_message(one.classes, one.by_class)}", file=sys.stderr)
        one.followed.run.log_artifact(folder / str(index), folder="checkpoint")
        save_csv(folder / str(index) / "history.csv", one.followed.history)
    last = [one.followed.history[-1] for one in generators]
    accuracy = sum(record["accuracy"] for record in last) / len(last)
    worst = min(min(one.by_class) for one in generators)
    found = {"invert/accuracy": accuracy, "invert/worst_class_accuracy": worst}
    run.log_metrics(found, step=int(last[0]["samples"]))
    return {"batch_accuracy": accuracy, "worst_class_accuracy": worst, "generators": len(last)}


def summary_line(title: str, generators: list[Trained]) -> str:
    """A line on the generators of a stage, on fresh images of each class: the mean of all, and the worst of any."""
    accuracies = [accuracy for one in generators for accuracy in one.by_class]
    mean = sum(accuracies) / len(accuracies)
    return f"{title}: {len(generators)} generators, accuracy {mean:.3f}, worst class {min(accuracies):.3f}"


@click.command()
@click.argument("dataset")
@click.argument("variant", type=click.Choice(VARIANTS))
@path_option("--model", help="Checkpoint of the classifier.")
@path_option("--out", help="Folder for the generators.")
@path_option("--metrics", help="JSON file for the metrics.")
@path_option("--plots", help="CSV file for the training curves.")
@verbose_option
@stage_command
def main(dataset: str, variant: str, model: Path, out: Path, metrics: Path, plots: Path) -> None:
    """Invert the classifier of DATASET with the generators of VARIANT (standard or robust)."""
    from pipeline import cluster, tracking
    from pipeline.params import load_params

    params = load_params()
    settings = params.for_dataset(dataset)
    inversion = settings.invert
    plan = plan_generators(dataset, variant, inversion, params.ray, model, settings.train.classifier.source)
    cluster.check_address(os.environ.get("RAY_ADDRESS"))
    logged = {"common": inversion.common, variant: getattr(inversion, variant)}
    with ExitStack() as stack:
        folder = stack.enter_context(replaced(out, metrics, plots))
        checkpoints = plan.checkpoints()
        run = stack.enter_context(
            tracking.stage_run(
                "invert",
                dataset=dataset,
                variant=variant,
                params={name: part.model_dump(mode="json") for name, part in logged.items()},
                inputs=[tracking.lineage_path("train", dataset, "classifier")],
            )
        )
        generators = train_with_retries(plan, inversion.common.attempts, checkpoints, run, stack)
        measured = write_generators(plan, generators, run, folder)
        curves = [{"generator": i, **record} for i, one in enumerate(generators) for record in one.followed.history]
        save_csv(plots, curves)
        write_text(metrics, json.dumps(measured) + "\n")
    checkpoints.remove()
    print(summary_line(plan.title, generators), file=sys.stderr)


if __name__ == "__main__":
    main()
