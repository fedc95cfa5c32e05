"""The ablation: what each part of the method does. ``python -m pipeline.ablation mnist``, after the stage ``train``.

Every condition of ``ablation`` in ``params.yaml`` changes some settings of a variant and is run from the same seeds.
One row for each of them goes to ``ablation/<dataset>.csv``, which the report shows, and one run to MLflow.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netinv.core import best_device, check_file, save_csv
from pipeline.judges import Judges, load_judges
from pipeline.stage import path_option, stage_command, verbose_option

if TYPE_CHECKING:
    from netinv.classifiers import AdaptedClassifier, Classifier
    from netinv.evaluation import Evaluation
    from netinv.generators import ConditionedGenerator
    from pipeline.driver import Followed, Plan
    from pipeline.params import Params

    Measured = Callable[[Sequence[ConditionedGenerator], tuple[float, float]], Evaluation]

MEASURES = (
    "inversion_accuracy",
    "inversion_accuracy_gap",
    "evaluator_accuracy",
    "kl",
    "vendi_centred_ratio",
    "vendi_pixels_ratio",
    "cosine_within",
    "coverage",
    "robust_accuracy",
)
"""Of a row of the evaluation; with dropout left on, ``..._dropout`` of the two of ``WITH_DROPOUT`` as well."""
WITH_DROPOUT = ("inversion_accuracy", "vendi_centred_ratio")


def plan_conditions(
    dataset: str, params: "Params", classifier: "Classifier | AdaptedClassifier", model: Path
) -> "tuple[Plan, list[str]]":
    """The generators of all conditions, and the condition of each.

    Raises:
        InputError: The settings of a condition do not fit each other or the classifier.
    """
    from pipeline.driver import Plan, check_settings, fingerprint
    from pipeline.generators import Job

    first = params.for_dataset(dataset).invert.common.seed
    seeds = range(first, first + params.ablation.num_seeds)
    conditions = params.ablation_of(dataset)
    for name, (generator, config) in conditions.items():
        check_settings(f"ablation.conditions.{name}.inversion", generator, config, params.ray, classifier)
    names = [name for name in conditions for _ in seeds]
    jobs = {f"{name}, seed {seed}": Job(seed, *conditions[name]) for name in conditions for seed in seeds}
    settings = [name + repr(job) for name, job in jobs.items()]
    plan = Plan(f"ablation {dataset}", classifier, jobs, params.ray, fingerprint(settings, model, __file__))
    return plan, names


def measure(
    dataset: str, plan: "Plan", names: list[str], followed: "list[Followed]", measure_one: "Measured"
) -> list[dict[str, object]]:
    """Evaluate the generators of each condition together; returns a record of each generator, and logs it."""
    from pipeline.generators import trained

    records: list[dict[str, object]] = []
    jobs = list(plan.jobs.values())
    for name in dict.fromkeys(names):
        chosen = [index for index, other in enumerate(names) if other == name]
        networks = [trained(plan.classifier, jobs[i], followed[i].state or b"") for i in chosen]
        config = jobs[chosen[0]].config
        rows = measure_one(networks, config.sharpness).results.rows
        for index, row in zip(chosen, rows, strict=False):  # the generators come first
            found = {name: row.measures[name] for name in MEASURES}
            found |= {f"{name}_dropout": row.dropout[name] for name in WITH_DROPOUT}
            values = {name: m.value for name, m in found.items()}
            records.append({"dataset": dataset, "condition": name, "seed": jobs[index].seed, **values})
            numbers = {f"evaluate/{name}": value for name, value in values.items() if value is not None}
            followed[index].run.log_metrics(numbers, step=config.steps * config.batch_size)
        print(f"{plan.title}: {name} is measured", file=sys.stderr)
    return records


@click.command()
@click.argument("dataset")
@path_option("--data", required=False, help="Folder of the data set.  [default: data/DATASET]")
@path_option("--models", required=False, help="Folder of its networks.  [default: models/DATASET]")
@path_option("--out", required=False, default=Path("ablation"), show_default=True, help="Folder for DATASET.csv.")
@verbose_option
@stage_command
def main(dataset: str, data: Path | None, models: Path | None, out: Path) -> None:
    """Run every condition of the ablation on DATASET, each with several seeds."""
    from netinv.classifiers import freeze
    from netinv.data import load_spec, load_split
    from netinv.evaluation import evaluate
    from pipeline import cluster, driver, tracking
    from pipeline.params import load_params

    params = load_params()
    table = out / f"{dataset}.csv"
    check_file(table)
    data, models = data or Path("data") / dataset, models or Path("models") / dataset
    spec = load_spec(data)
    train = params.for_dataset(dataset).train
    classifier, evaluator = load_judges(models, train, "cpu")  # from where the classifier goes to every worker
    freeze(classifier), freeze(evaluator)
    plan, names = plan_conditions(dataset, params, classifier, models / "classifier")
    cluster.check_address(os.environ.get("RAY_ADDRESS"))
    train_images, test = load_split(data, "train"), load_split(data, "test")

    def measured(networks: "Sequence[ConditionedGenerator]", sharpness: tuple[float, float]) -> "Evaluation":
        settings, device = params.ablation.evaluate, best_device()
        generators = [network.to(device) for network in networks]
        judges = classifier.to(device), evaluator.to(device)
        return evaluate(generators, *judges, spec.classes, train_images, test, settings, sharpness)

    with ExitStack() as stack:
        checkpoints = plan.checkpoints()
        run = stack.enter_context(
            tracking.stage_run(
                "ablation",
                dataset=dataset,
                params=params.ablation.model_dump(mode="json"),
                inputs=[tracking.lineage_path("train", dataset, model) for model in Judges._fields],
            )
        )
        followed = driver.resume(plan, checkpoints, run, stack)
        driver.consume(plan, followed)
        save_csv(table, measure(dataset, plan, names, followed, measured))
    checkpoints.remove()


if __name__ == "__main__":
    main()
