"""Search the settings of a variant: many generators with Ray Tune, most of them not trained to their end.

The objectives are those of :mod:`netinv.evaluation`. The best trial is that of their Pareto front with the largest
product, by which trials are stopped as well.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netinv.core import VARIANTS, InputError, NotFinite, save_csv, write_text
from netinv.evaluation import OBJECTIVES, objectives
from pipeline.stage import SCRATCH, path_option, replaced, stage_command, verbose_option

if TYPE_CHECKING:
    from netinv.classifiers import AdaptedClassifier, Classifier
    from netinv.inversion import InversionConfig
    from pipeline.checkpoints import Checkpoints
    from pipeline.cluster import Trial
    from pipeline.driver import Followed
    from pipeline.params import GeneratorParams, Params, TuneParams
    from pipeline.tracking import Run

SHARES = (0.25, 0.5, 1.0)
"""Of a trial's steps, after which it is measured, and perhaps stopped."""
SEARCHES = SCRATCH / "tune"
"""Searches at work."""


def train_trial(
    classifier: "Classifier | AdaptedClassifier",
    common: "GeneratorParams",
    variant: dict[str, Any],
    tune: "TuneParams",
    settings: dict[str, Any],
) -> Iterator[dict[str, float]]:
    """Train a generator with some of its settings replaced, and measure it now and then.

    Yields:
        ``share`` and ``step`` of the training, ``samples`` drawn, the objectives, and their product as ``score``. A
        training that does not stay finite is worth nothing.
    """
    import torch

    from netinv.classifiers import freeze
    from netinv.generators import ConditionedGenerator
    from netinv.inversion import InversionTraining, variant_of
    from pipeline.cluster import device

    common, config = _merged(common, variant, settings)
    here = device()
    freeze(classifier).to(here)
    torch.manual_seed(common.seed)
    architecture = common.architecture(variant_of(config))
    generator = ConditionedGenerator(architecture, classifier.num_classes, classifier.image_shape).to(here)
    due = list(SHARES)
    try:
        for record in InversionTraining(generator, classifier, config, common.seed):
            share = record["step"] / config.steps
            if share >= due[0]:
                measured = objectives(
                    generator, classifier, config.sharpness, tune.samples_per_class, tune.epsilon, tune.attack_steps
                )
                measured["score"] = math.prod(measured.values())
                due = [later for later in due if later > share]
                yield {"share": share, **{key: record[key] for key in ("step", "samples")}, **measured}
    except (FloatingPointError, NotFinite):  # it diverges, or the classifier gives no numbers for what it draws
        nothing = dict.fromkeys((*OBJECTIVES, "score"), 0.0)
        yield {"share": 1.0, "step": config.steps, "samples": config.steps * config.batch_size, **nothing}


def _merged(
    common: "GeneratorParams", variant: dict[str, Any], settings: dict[str, Any]
) -> "tuple[GeneratorParams, InversionConfig]":
    """The settings of a variant with others in place of some.

    Raises:
        InputError: They are no settings, or impossible ones.
    """
    from netinv.inversion import InversionConfig
    from pipeline.params import GeneratorParams

    shared = common.model_dump(mode="json")
    generator, robust = shared["generator"], shared["robust_generator"]
    values = dict(variant)
    for key, value in settings.items():
        if key.startswith("generator."):
            name = key.removeprefix("generator.")
            generator[name] = value
            if name in robust:  # which would overrule it
                robust[name] = value
        else:
            values[key] = [value, value] if key == "sharpness" else value
    return GeneratorParams.parse(shared, where="common"), InversionConfig.parse(values, where="variant")


def check_space(params: "Params", dataset: str, variant: str, classifier: "Classifier | AdaptedClassifier") -> None:
    """See that all ends of the search space are possible settings, of a classifier that fits them.

    Raises:
        InputError: Names the key.
    """
    from pipeline.driver import check_settings
    from pipeline.layers import at
    from pipeline.params import Choices

    invert = params.for_dataset(dataset).invert
    space = getattr(params.tune, variant)
    if not space:
        raise InputError(f"tune.{variant} names nothing to search.")
    general = params.invert  # as written: a value of ``none`` is set, too
    for key, part in space.items():
        for place in (_place(variant, key), f"common.{key}"):
            if at(general, place) is not None:
                raise InputError(
                    f"tune.{variant}.{key}: invert.{place} is set for every data set and would overrule what is found: "
                    "set it to null."
                )
        for value in part.choices if isinstance(part, Choices) else (part.low, part.high):
            try:
                common, config = _merged(invert.common, getattr(invert, variant).model_dump(mode="json"), {key: value})
                check_settings(f"invert.{variant}", common.architecture(variant), config, params.ray, classifier)
            except InputError as error:
                raise InputError(f"tune.{variant}.{key}: {error}") from None


def overrides(dataset: str, variant: str, settings: dict[str, Any]) -> list[str]:
    """Settings as arguments of ``dvc exp run``, into the data set's preset: none of them is set for every data set.

    >>> overrides("digits", "robust", {"gamma": 0.5, "generator.width": 8, "sharpness": 3.0})[0]
    '--set-param=++presets.digits.invert.robust.gamma=0.5'
    """
    lines = []
    for key, value in settings.items():
        text = f"[{value},{value}]" if key == "sharpness" else value
        lines.append(f"--set-param=++presets.{dataset}.invert.{_place(variant, key)}={text}")
    return lines


def _place(variant: str, key: str) -> str:
    """Where a searched setting stands below ``invert``."""
    from pipeline.params import RobustGenerator

    name = key.removeprefix("generator.")
    if variant == "robust" and name != key and name in RobustGenerator.model_fields:
        return f"common.robust_generator.{name}"
    return f"{variant if name == key else 'common'}.{key}"


def front(trials: "list[Trial]") -> "list[Trial]":
    """The trials trained to their end than which no other one is better in an objective and as good in the rest.

    The one with the largest score comes first.
    """

    def beaten(trial: "Trial") -> bool:
        mine = [trial.record[key] for key in OBJECTIVES]
        others = ([other.record[key] for key in OBJECTIVES] for other in ended)
        return any(all(o >= m for o, m in zip(other, mine, strict=True)) and other != mine for other in others)

    ended = [trial for trial in trials if trial.outcome == "finished"]
    return sorted((trial for trial in ended if not beaten(trial)), key=lambda trial: -trial.record["score"])


class _TrialRuns:
    """A run for each trial, below that of the search. What a killed search logged of a trial is not logged again."""

    def __init__(self, title: str, run: "Run", checkpoints: "Checkpoints", num_trials: int) -> None:
        from pipeline.progress import Progress

        self._run, self._checkpoints = run, checkpoints
        self._open: dict[str, tuple[AbstractContextManager[Run], Followed]] = {}
        self._best = 0.0
        self._progress = Progress(title, num_trials, "trial")

    def __call__(self, trial: "Trial") -> None:
        """Log a trial's record, once, and end its run when it has ended."""
        from pipeline.driver import Followed

        if trial.name not in self._open:
            key = f"{self._checkpoints.run}-{trial.name}"
            context = self._run.child(f"trial {trial.name}", trial.settings, key=key)
            self._open[trial.name] = context, Followed(trial.name, self._checkpoints, context.__enter__(), "tune")
        child, followed = self._open[trial.name]
        if trial.record:
            told = ("samples", *OBJECTIVES, "score", "step")
            followed.take({key: trial.record[key] for key in told})
        if trial.outcome != "running":
            followed.run.set_tags({"outcome": trial.outcome})
            del self._open[trial.name]
            child.__exit__(RuntimeError if trial.outcome == "failed" else None, None, None)
            score = trial.record.get("score", 0)
            self._best = max(self._best, score if trial.outcome == "finished" else 0)
            note = f"one {trial.outcome} with score {score:.3f}, best {self._best:.3f}"
            self._progress.advance(1, note, at_once=True)

    def close(self, *error: Any) -> None:
        """End the runs that are left, as the search ends."""
        self._progress.close()
        for child, _ in self._open.values():
            with suppress(BaseException):  # the block that it stands for raises again
                child.__exit__(*error)


def write_trials(folder: Path, dataset: str, variant: str, trials: "list[Trial]", best: "list[Trial]") -> None:
    """Write all trials as a table, and the settings of the best as DVC takes them."""
    write_text(folder / "best.txt", "\n".join(overrides(dataset, variant, best[0].settings)) + "\n")
    names = {trial.name for trial in best}
    rows = [
        {"trial": trial.name, "outcome": trial.outcome, "front": int(trial.name in names)}
        | {key: trial.record.get(key, "") for key in ("step", *OBJECTIVES, "score")}
        | trial.settings
        for trial in trials
    ]
    save_csv(folder / "trials.csv", rows)


def _failed(trials: "list[Trial]") -> str:
    """How many failed, as a clause."""
    count = sum(trial.outcome == "failed" for trial in trials)
    return f", {count} failed" if count else ""


@click.command()
@click.argument("dataset")
@click.argument("variant", type=click.Choice(VARIANTS))
@path_option("--model", required=False, help="Checkpoint of the classifier.  [default: models/DATASET/classifier]")
@path_option(
    "--out",
    required=False,
    help="Folder for the trials and the best settings.  [default: tune/DATASET-VARIANT]",
)
@verbose_option
@stage_command
def main(dataset: str, variant: str, model: Path | None, out: Path | None) -> None:
    """Search the settings of VARIANT (standard or robust) on DATASET; params.yaml says where, under tune."""
    from netinv.classifiers import load_checkpoint
    from pipeline import cluster, tracking
    from pipeline.checkpoints import Checkpoints
    from pipeline.driver import fingerprint
    from pipeline.params import load_params

    model = model or Path("models") / dataset / "classifier"
    out = out or Path("tune") / f"{dataset}-{variant}"
    params = load_params()
    tune, space = params.tune, getattr(params.tune, variant)
    invert = params.for_dataset(dataset).invert
    config = getattr(invert, variant)
    classifier = load_checkpoint(model, params.for_dataset(dataset).train.classifier.source)
    check_space(params, dataset, variant, classifier)
    address = os.environ.get("RAY_ADDRESS")
    cluster.check_address(address)
    settings = [f"{dataset} {variant}", *(part.model_dump_json() for part in (invert.common, config, tune))]
    title, stage = f"tune {dataset} {variant}", f"{dataset}-{variant}"
    with ExitStack() as stack:
        folder = stack.enter_context(replaced(out))
        key = fingerprint(settings, model, __file__)
        checkpoints = Checkpoints(str(SEARCHES), stage, key)
        search = (SEARCHES / stage / key / "search").absolute()
        if search.exists():
            print(f"{title}: goes on with the search that did not come to its end", file=sys.stderr)
        run = stack.enter_context(
            tracking.stage_run(
                "tune",
                dataset=dataset,
                variant=variant,
                params={"tune": tune.model_dump(mode="json", exclude={*map(str, VARIANTS)} - {variant})},
                inputs=[tracking.lineage_path("train", dataset, "classifier")],
            )
        )
        trial_runs = _TrialRuns(title, run, checkpoints, tune.num_trials)
        stack.push(trial_runs.close)
        stack.enter_context(cluster.cluster(address))
        shared = (classifier, invert.common, config.model_dump(mode="json"), tune)
        trials = cluster.search(
            train_trial, shared, space, OBJECTIVES, tune.num_trials, tune.seed, search, params.ray, trial_runs
        )
        if not (best := front(trials)):
            raise InputError(
                f"None of the {len(trials)} trials came to its end{_failed(trials)}: see their runs in MLflow, mend "
                "that, and run this again, which trains anew those that failed."
            )
        run.log_metrics({f"tune/{key}": best[0].record[key] for key in (*OBJECTIVES, "score")})
        write_trials(folder, dataset, variant, trials, best)
        for path in sorted(folder.iterdir()):
            run.log_artifact(path)
    checkpoints.remove()
    measured = ", ".join(f"{key} {best[0].record[key]:.3f}" for key in (*OBJECTIVES, "score"))
    print(f"{title}: the best of {len(trials)} trials has {measured}{_failed(trials)}", file=sys.stderr)
    print(f"To train with its settings: xargs dvc exp run < {out / 'best.txt'}", file=sys.stderr)


if __name__ == "__main__":
    main()
