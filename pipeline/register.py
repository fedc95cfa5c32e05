"""Stage ``register``: exported generators into the model registry, and commands to promote one and to trace it."""

from pathlib import Path

import click

from netinv.core import VARIANTS, write_text
from pipeline.stage import path_option, replaced, stage_command


@click.group()
def main() -> None:
    """Register generators, promote them, trace them."""


@main.command()
@click.argument("dataset")
@click.argument("variant", type=click.Choice(VARIANTS))
@path_option("--data", help="Folder of the data set.")
@path_option("--models", help="Folder of both classifiers.")
@path_option("--onnx", help="Folder of the ONNX files.")
@path_option("--evaluation", help="Folder of results.json.")
@path_option("--cards", help="Folder for the model cards.")
@stage_command
def generators(dataset: str, variant: str, data: Path, models: Path, onnx: Path, evaluation: Path, cards: Path) -> None:
    """Offer the generators of VARIANT to the registry, as versions of netinv-DATASET-VARIANT, and write their cards."""
    from netinv.data import load_spec
    from netinv.results import Estimate, load_results
    from pipeline import tracking
    from pipeline.params import load_params

    named = load_params().for_dataset(dataset).train.classifier.source
    name = f"netinv-{dataset}-{variant}"
    run_file = tracking.lineage_path("invert", dataset, variant)
    results = load_results(evaluation / "results.json")
    candidates = tracking.find_candidates(name, variant, onnx, results, models, load_spec(data), run_file, named)
    inputs = [run_file, *(tracking.lineage_path(stage, dataset, variant) for stage in ("export", "evaluate"))]
    standing = candidates[0].standing
    with (
        replaced(cards) as folder,
        tracking.stage_run("register", dataset=dataset, variant=variant, inputs=inputs, wait=True) as run,
    ):
        for candidate in candidates:
            card = folder / f"{candidate.file.stem}.md"
            write_text(card, candidate.front + candidate.card)
            run.log_artifact(card, folder="cards")
        found = {name: measure.value for name, measure in standing.measures.items() if isinstance(measure, Estimate)}
        run.log_metrics({f"register/best_{measure}": value for measure, value in found.items()})
        run.log_models(name, candidates)
    best = standing.measures[standing.primary]
    print(f"register {dataset} {variant}: {candidates[0].generator} has the best {standing.primary}, {best}")


@main.command()
@click.argument("name")
@click.argument("version")
@click.option("--why", default="by hand", show_default=True, help="Reason, kept with the version.")
@stage_command
def promote(name: str, version: str, why: str) -> None:
    """Make VERSION (a number, or challenger) of the model NAME the champion: to overrule the rule, or to roll back."""
    from pipeline import tracking

    print(tracking.promote(name, version, why))


@main.command()
@click.argument("name")
@click.argument("version", default="champion")
@stage_command
def trace(name: str, version: str) -> None:
    """Tell where VERSION (a number, champion or challenger) of the model NAME comes from, and how to make it again."""
    from pipeline import tracking

    for line in tracking.trace(name, version):
        print(line)


if __name__ == "__main__":
    main()
