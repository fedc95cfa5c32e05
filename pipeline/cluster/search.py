"""A search of settings, with Ray Tune: Optuna draws them, and ASHA stops the lesser half of the trials early."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.cluster.resources import ResourceBundle
from pipeline.cluster.tasks import MAX_RETRIES

if TYPE_CHECKING:
    from pipeline.params import Choices, Range, RayParams


class Trial(NamedTuple):
    """One trial of a search."""

    name: str
    settings: dict[str, Any]
    """What was drawn, by key of the space."""
    record: dict[str, float]
    """The last that its task yielded; empty before the first."""
    outcome: str = "running"
    """``running``, ``finished``, ``stopped early`` or ``failed``."""


def search(
    task: Callable[..., Iterator[dict[str, float]]],
    shared: tuple[Any, ...],
    space: "Mapping[str, Range | Choices]",
    objectives: Sequence[str],
    num_trials: int,
    seed: int,
    folder: Path,
    resources: "RayParams",
    on_trial: Callable[[Trial], None],
) -> list[Trial]:
    """Search for settings with which ``task(*shared, settings)`` does best, with Optuna and successive halving (ASHA).

    The task yields records with ``share``, how much of its work is done, each objective, to be made large, and
    ``score``, by which ASHA stops the lesser half of the trials at a quarter and at half of their work.

    Args:
        task: Runs in a worker process, perhaps on another machine.
        shared: The arguments before the settings, the same for all.
        space: What may be drawn, by key.
        objectives: Keys of the records, in whose Pareto front Optuna looks on.
        num_trials: Draws.
        seed: Of the draws. What is drawn depends on which trial ends first as well.
        folder: Keeps the search: where it holds one that was killed or whose trials failed, that one goes on, its
            trials at work and those that failed anew; or begins anew, if it cannot go on.
        resources: What a trial occupies; ``num_workers`` counts as 1.
        on_trial: Called with a trial at its every record and at its end; with its end once more where a search goes on.

    Returns:
        All trials, in order of their names.

    Raises:
        InputError: The cluster can never hold one trial.
    """
    _set_up_tune()
    from ray import tune

    from pipeline.cluster.listener import subscribed

    bundle = ResourceBundle.of(resources, 1)
    keys = {"share", "step", "samples", "score", *objectives}
    known: dict[str, Trial] = {}

    def work(settings: dict[str, Any], shared: tuple[Any, ...]) -> None:
        for record in task(*shared, settings):
            tune.report(record)

    def on_event(trial: Any, running: bool) -> None:
        current = _as_trial(trial, running, keys)
        if current != known.get(current.name):
            known[current.name] = current
            on_trial(current)

    needs = {"CPU": bundle.num_cpus, "GPU": bundle.num_gpus}
    trainable = tune.with_resources(tune.with_parameters(work, shared=shared), needs)
    tuner = _restored(trainable, folder) or _new_tuner(trainable, space, objectives, num_trials, seed, folder)
    if shortage := bundle.shortage():
        print(f"waiting for a node to join: {shortage}", file=sys.stderr)
    with subscribed(on_event):
        tuner.fit()
    return sorted(known.values(), key=lambda trial: trial.name)


def _set_up_tune() -> None:
    """Settings that Tune reads from the environment, before it is imported."""
    verbose = os.environ.get("NETINV_VERBOSE") == "1"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1"
    os.environ["TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S"] = "0"
    os.environ["RAY_AIR_NEW_OUTPUT"] = str(int(verbose))  # the new one prints a table, whatever it is told
    if not verbose:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)


def _restored(trainable: Any, folder: Path) -> Any:
    """The search that was killed, or ``None`` where the folder holds none that can go on; then it is cleared.

    Tune writes itself before its first step, and what it has drawn after that; other versions of Ray or Optuna may read
    neither. So all of it is read here, before :meth:`ray.tune.Tuner.fit` stakes the search on it.
    """
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    if not folder.exists():
        return None
    try:
        # Restarted ones would have names that Optuna does not know; resumed ones begin anew, having no checkpoints.
        tuner = tune.Tuner.restore(str(folder), trainable, resume_unfinished=True, resume_errored=True)
        tuner.get_results()
        OptunaSearch().restore_from_dir(str(folder))
    except Exception as error:  # what is damaged or of another version fails in every possible way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        print(f"warning: The search in {folder} cannot go on ({reason}): it begins anew.", file=sys.stderr)
        shutil.rmtree(folder)
        return None
    return tuner


def _new_tuner(
    trainable: Any,
    space: "Mapping[str, Range | Choices]",
    objectives: Sequence[str],
    num_trials: int,
    seed: int,
    folder: Path,
) -> Any:
    """A search that begins."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    from pipeline.cluster.listener import Listener

    quarter: Any = 0.25  # declared as whole numbers, which shares of the work are not
    return tune.Tuner(
        trainable,
        param_space={key: _drawn(part) for key, part in space.items()},
        tune_config=tune.TuneConfig(
            num_samples=num_trials,
            search_alg=OptunaSearch(metric=list(objectives), mode=["max"] * len(objectives), seed=seed),
            scheduler=ASHAScheduler("share", "score", "max", max_t=1, grace_period=quarter, reduction_factor=2),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=tune.FailureConfig(max_failures=MAX_RETRIES),
            callbacks=[Listener()],
            verbose=int(os.environ.get("NETINV_VERBOSE") == "1"),
        ),
    )


def _as_trial(trial: Any, running: bool, keys: set[str]) -> Trial:
    """A trial in this package's terms."""
    record = {key: value for key, value in (trial.last_result or {}).items() if key in keys}
    outcome = "finished" if record.get("share") == 1 else "stopped early"
    outcome = "failed" if trial.status == "ERROR" else outcome
    return Trial(trial.trial_id, dict(trial.config), record, "running" if running else outcome)


def _drawn(part: "Range | Choices") -> Any:
    """A part of a search space in Tune's terms."""
    from ray import tune

    from pipeline.params import Choices

    if isinstance(part, Choices):
        return tune.choice(list(part.choices))
    return (tune.loguniform if part.log else tune.uniform)(part.low, part.high)
