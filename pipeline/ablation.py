"""The ablation: what each part of the method does. ``python -m pipeline.ablation mnist``, after the stage ``train``.

Every condition of ``ablation`` in ``params.yaml`` changes some settings of a variant and is run from the same seeds.
One row for each of them goes to ``ablation/<dataset>.csv``, which the report shows, and one run to MLflow.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from pipeline.invert import Event, load_state, train_generator
from pipeline.stage import stage_command, verbose_option, write_csv

if TYPE_CHECKING:
    from netinv.adapters import AdaptedClassifier
    from netinv.classifiers import Classifier
    from netinv.generator import GeneratorConfig
    from netinv.inversion import InversionConfig

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


class Job(NamedTuple):
    """One generator of a condition."""

    condition: str
    seed: int
    architecture: "GeneratorConfig"
    config: "InversionConfig"


def train_job(
    classifier: "Classifier | AdaptedClassifier", checkpoint_every: int, job: Job, state: bytes | None
) -> Iterator[Event]:
    """Train the generator of a job; see :func:`pipeline.invert.train_generator`."""
    yield from train_generator(classifier, job.architecture, job.config, checkpoint_every, job.seed, state)


@click.command()
@click.argument("dataset")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the data set; data/DATASET if not given.")
@click.option("--models", type=click.Path(path_type=Path), help="Folder of its networks; models/DATASET if not given.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("ablation"), help="Folder for DATASET.csv.")
@verbose_option
@stage_command
def main(dataset: str, data: Path | None, models: Path | None, out: Path) -> None:
    """Run every condition of the ablation on DATASET, each with several seeds."""
    from tqdm import tqdm

    from netinv.classifiers import freeze
    from netinv.data import load_spec, load_split
    from netinv.estimates import Estimate
    from netinv.evaluation import evaluate
    from netinv.generator import ConditionedGenerator
    from netinv.imported import load_checkpoint
    from pipeline import cluster, tracking
    from pipeline.params import load_params

    params = load_params()
    data, models = data or Path("data") / dataset, models or Path("models") / dataset
    conditions = params.ablation_of(dataset)
    spec = load_spec(data)
    classifier, evaluator = (load_checkpoint(models / name) for name in ("classifier", "evaluator"))
    freeze(classifier), freeze(evaluator)
    address = os.environ.get("RAY_ADDRESS")
    cluster.check_address(address)
    seeds = range(params.invert.common.seed, params.invert.common.seed + params.ablation.num_seeds)
    jobs = [Job(name, seed, *settings) for name, settings in conditions.items() for seed in seeds]
    generators: dict[int, ConditionedGenerator] = {}
    with ExitStack() as stack:
        run = stack.enter_context(
            tracking.stage_run(
                "ablation",
                dataset=dataset,
                params=params.ablation.model_dump(mode="json"),
                inputs=[Path("runs/train") / f"{dataset}-{model}.json" for model in ("classifier", "evaluator")],
            )
        )
        children = []
        for job in jobs:
            settings = {"generator": job.architecture.model_dump(mode="json"), **job.config.model_dump(mode="json")}
            child = run.child(f"{job.condition}, seed {job.seed}", params={"condition": job.condition, **settings})
            children.append(stack.enter_context(child))
        total = sum(job.config.steps for job in jobs)
        bar = stack.enter_context(tqdm(total=total, desc=f"ablation {dataset}", unit="step", disable=None))
        done = dict.fromkeys(range(len(jobs)), 0)
        with cluster.cluster(address):
            shared = (classifier, params.ray.checkpoint_every)
            for index, event in cluster.run_tasks(train_job, dict(enumerate(jobs)), shared, {}, params.ray):
                job, record = jobs[index], event.record
                if record["step"] <= done[index]:  # a worker died, and it is known already
                    continue
                bar.update(int(record["step"]) - done[index])
                done[index] = int(record["step"])
                terms = {f"invert/{name}": value for name, value in record.items() if name != "samples"}
                children[index].log_metrics(terms, step=int(record["samples"]))
                if event.grid is not None:
                    children[index].log_image(event.grid, key="samples", step=int(record["samples"]))
                if done[index] == job.config.steps and event.state is not None:
                    generator = ConditionedGenerator(job.architecture, spec.num_classes, spec.image_shape)
                    generator.load_state_dict(load_state(event.state)["generator"])
                    generators[index] = generator.eval()
                    told = f"{job.condition}, seed {job.seed}: batch accuracy {record['accuracy']:.3f}"
                    print(f"ablation {dataset}: {told} ({len(generators)} of {len(jobs)})", file=sys.stderr)
        train, test = load_split(data, "train"), load_split(data, "test")
        records: list[dict[str, object]] = []
        for name, (_, config) in conditions.items():
            chosen = [index for index, job in enumerate(jobs) if job.condition == name]
            evaluation = evaluate(
                [generators[index] for index in chosen],
                classifier,
                evaluator,
                spec.classes,
                train,
                test,
                params.ablation.evaluate,
                config.sharpness,
            )
            for index, row in zip(chosen, evaluation.results.rows, strict=False):  # the generators come first
                found = {name: row.measures[name] for name in MEASURES}
                found |= {f"{name}_dropout": row.dropout[name] for name in WITH_DROPOUT}
                values = {name: m.value if isinstance(m, Estimate) else None for name, m in found.items()}
                records.append({"dataset": dataset, "condition": name, "seed": jobs[index].seed, **values})
                numbers = {f"evaluate/{name}": value for name, value in values.items() if value is not None}
                children[index].log_metrics(numbers, step=config.steps * config.batch_size)
            print(f"ablation {dataset}: {name} is measured", file=sys.stderr)
        write_csv(out / f"{dataset}.csv", records)


if __name__ == "__main__":
    main()
