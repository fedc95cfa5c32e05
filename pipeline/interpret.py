"""Stage ``interpret``: sparse dictionaries of a classifier's activations, trained side by side with Ray."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from netinv.core import best_device, save_csv, write_text
from pipeline.judges import Judges, load_judges
from pipeline.stage import path_option, replaced, stage_command

if TYPE_CHECKING:
    from torch import Tensor

    from netinv.interpretation import Drawn, Interpretation, SparseAutoencoder, Trainer, Wanted
    from pipeline.params import Params, RayParams


SMALL = 5e11
"""Operations of all trainings together below which they are done in this process: a core does them in less than half a
minute, in which the processes of a local cluster would hardly have come up."""


class Trained(NamedTuple):
    """What training a dictionary tells, at its end."""

    state: bytes
    """Its weights, as safetensors."""


@click.command()
@click.argument("dataset")
@path_option("--data", help="Folder of the data set.")
@path_option("--models", help="Folder of classifier and evaluator.")
@path_option("--generators", help="Folder of all variants.")
@path_option("--out", help="Folder for numbers and pictures.")
@path_option("--metrics", help="JSON file for the headline numbers.")
@path_option("--plots", help="CSV file: fidelity by sparsity.")
@stage_command
def main(dataset: str, data: Path, models: Path, generators: Path, out: Path, metrics: Path, plots: Path) -> None:
    """Interpret the classifier of DATASET by the images of all its generators."""
    from netinv.data import load_spec, load_split
    from netinv.interpretation import interpret
    from pipeline import cluster, tracking
    from pipeline.params import load_params

    params = load_params()
    cluster.check_address(os.environ.get("RAY_ADDRESS"))
    spec, settings = load_spec(data), params.for_dataset(dataset)
    device = best_device()
    inputs = [
        *(tracking.lineage_path("train", dataset, model) for model in Judges._fields),
        *(tracking.lineage_path("invert", dataset, variant) for variant in params.variants),
    ]
    with (
        replaced(out, metrics, plots) as folder,
        tracking.stage_run(
            "interpret", dataset=dataset, params=params.interpret.model_dump(mode="json"), inputs=inputs
        ) as run,
    ):
        run.log_dataset(spec, data)
        classifier, evaluator = load_judges(models, settings.train, device)
        found = interpret(
            classifier,
            _drawn(params, dataset, generators, device),
            spec.classes,
            params.interpret,
            evaluator=evaluator,
            train=load_split(data, "train"),
            test=load_split(data, "test"),
            trained=_trainer(params.ray),
        )
        found.write(folder)
        numbers = {name: measure.value for name, measure in found.results.headline.items()}
        save_csv(plots, _curve(found))
        run.log_metrics({f"interpret/{name}": value for name, value in numbers.items() if value is not None})
        for name in ("interpretation.json", "units.png"):
            run.log_artifact(folder / name)
        write_text(metrics, json.dumps(numbers, indent=2) + "\n")
    print(_summary_line(dataset, found), file=sys.stderr)


def _drawn(params: "Params", dataset: str, generators: Path, device: str) -> "dict[str, Drawn]":
    """The generators of all variants, as they were trained to be asked."""
    from netinv.generators import load_generators
    from netinv.interpretation import Drawn

    inversion = params.for_dataset(dataset).invert
    drawn: dict[str, Drawn] = {}
    for variant in params.variants:
        networks = [network.to(device).eval() for network in load_generators(generators / variant)]
        drawn[variant] = Drawn(networks, getattr(inversion, variant).sharpness)
    return drawn


def _trainer(ray: "RayParams") -> "Trainer":
    """Trains what is small here, and all else on the cluster: at ``RAY_ADDRESS``, or one of this machine's own."""

    def trained(rows: "Mapping[str, Tensor]", wanted: "Sequence[Wanted]") -> "Iterator[tuple[str, SparseAutoencoder]]":
        from netinv.interpretation import in_turn
        from pipeline.progress import Progress

        address = os.environ.get("RAY_ADDRESS")
        here = address is None and sum(_operations(rows, one) for one in wanted) < SMALL
        progress = Progress("interpret", len(wanted), "training")
        for name, model in in_turn(rows, wanted) if here else _on_cluster(ray, address, rows, wanted):
            progress.advance(1, name)
            yield name, model
        progress.close()

    return trained


def _operations(rows: "Mapping[str, Tensor]", wanted: "Wanted") -> float:
    """Of one training: two products of matrices forwards and three backwards at every step."""
    config = wanted.config
    return 10.0 * config.steps * config.batch_size * config.units * rows[wanted.rows].shape[1]


def _on_cluster(
    ray: "RayParams", address: str | None, rows: "Mapping[str, Tensor]", wanted: "Sequence[Wanted]"
) -> "Iterator[tuple[str, SparseAutoencoder]]":
    """Train each dictionary as a task of its own; one whose worker dies is trained again."""
    from pipeline import cluster

    one_worker = ray.model_copy(update={"num_workers": 1})
    with cluster.cluster(address):
        for index, event in cluster.run_tasks(train, dict(enumerate(wanted)), (dict(rows),), {}, one_worker):
            yield wanted[index].name, _loaded(event.state, rows[wanted[index].rows].shape[1], wanted[index])


def train(rows: "dict[str, Tensor]", wanted: "Wanted", state: bytes | None) -> Iterator[Trained]:
    """One dictionary, on a GPU if this worker was given one. Runs on any node, needs no file."""
    from safetensors.torch import save

    from netinv.interpretation import train_dictionary
    from pipeline.cluster import device

    if state is None:
        model = train_dictionary(rows[wanted.rows].to(device()), wanted.config, wanted.source)
        yield Trained(save({name: value.contiguous().cpu() for name, value in model.state_dict().items()}))


def _loaded(weights: bytes, dim: int, wanted: "Wanted") -> "SparseAutoencoder":
    from safetensors.torch import load

    from netinv.interpretation import SparseAutoencoder

    model = SparseAutoencoder(dim, wanted.config.units, wanted.config.active)
    model.load_state_dict(load(weights))
    return model.eval().requires_grad_(False)


def _curve(found: "Interpretation") -> list[dict[str, object]]:
    """Rows of the DVC plot: what is kept at each sparsity, on generated and on real images."""
    rows = [row for row in found.results.dictionaries if row.source == "generated" and not row.name.endswith("again")]
    return [
        {"active": row.active, "source": f"{measure.replace('_', ' ')}, {kind}", "kept": value}
        for row in sorted(rows, key=lambda row: row.active)
        for kind, measures in row.on.items()
        for measure in ("explained_variance", "loss_recovered_mean", "accuracy_recovered_mean")
        if (value := measures[measure].value) is not None
    ]


def _summary_line(dataset: str, found: "Interpretation") -> str:
    """What matters most, in a line."""
    told = []
    for title, name in (("explained variance", "explained_variance"), ("loss recovered on real images", "transfer")):
        measure = found.results.headline[name]
        told.append(f"{title} not measured" if measure.value is None else f"{title} {measure.value:.3f}")
    return f"interpret {dataset}: {', '.join(told)}, {len(found.results.units)} units"


if __name__ == "__main__":
    main()
