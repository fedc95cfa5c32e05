"""Delivery of the journals to MLflow, and the model registry. The only module that imports mlflow.

``journal.py`` tells how records get here. Stages use the names of ``__all__``; the courier and ``flush`` deliver.
"""

import collections
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netinv.core import InputError
from pipeline.journal import (
    JOURNAL,
    Run,
    check_server,
    courier_lock,
    flatten,
    journals,
    locked,
    now,
    read_json,
    redacted,
    stage_run,
    tracking_uri,
)
from pipeline.stage import stage_command, write_text

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

    from pipeline.registry import Candidate

__all__ = ["Run", "flatten", "promote", "redacted", "stage_run", "trace", "tracking_uri"]

_POLL_SECONDS = 0.1
_DELIVERY_SECONDS = 5.0
"""Between two deliveries of running stages of up to four runs; of more runs, in proportion longer."""
_METRICS_PER_CALL = 1000
"""MLflow takes no more at once."""
_CALLS_PER_MINUTE = 60
"""Bound on the calls with metrics in them; the other ones are few."""
_MAX_DESCRIPTION = 5000
"""Characters of a version's description in MLflow's tables; the whole model card is a file of the model."""
_SERVING = ("mlflow", "numpy", "onnx", "onnxruntime", "pandas")
"""What `mlflow models serve` needs for a generator."""
_IDLE_SECONDS = 30.0
"""How long the courier waits for the next stage: longer than DVC and the imports take between two stages."""


class _Deliverer:
    """Takes journals to one store; the courier and ``flush`` each have one."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient | None = None
        self._attempts: dict[tuple[Path, bool], float] = {}
        self._calls: collections.deque[float] = collections.deque(maxlen=_CALLS_PER_MINUTE)
        self._monitor: Any = None

    def folders(self) -> list[Path]:
        """Journals for this store, oldest first."""
        found = [(state, path.parent) for path in journals().glob("*/run.json") if (state := read_json(path))]
        ours = [(state["start_time"], folder) for state, folder in found if state["uri"] == redacted(self.uri)]
        return [folder for _, folder in sorted(ours)]

    def deliver(self, at_once: bool = False) -> bool:
        """Deliver what is due; returns whether any stage is still at work."""
        with locked(journals() / "deliver.lock"):  # against a flush at the same time
            folders = self.folders()
            runs = sum(1 + len(list((folder / "children").glob("*"))) for folder in folders)
            seconds = 0.0 if at_once else _DELIVERY_SECONDS * max(1, runs / 4)
            at_work = [self._deliver_journal(folder, seconds) for folder in folders]
        return any(at_work)

    def work(self) -> bool:
        """Deliver until no stage has been at work for a while; returns whether one has come after that."""
        with locked(courier_lock(self.uri), wait=False) as alone:
            if not alone:
                return False
            busy = time.monotonic()
            while time.monotonic() < busy + _IDLE_SECONDS:
                seen = self.folders()
                if self.deliver():
                    busy = time.monotonic()
                time.sleep(_POLL_SECONDS)
        return not set(self.folders()) <= set(seen)

    def _deliver_journal(self, folder: Path, seconds: float) -> bool:
        """Deliver a journal every so many seconds, and its end at once; returns whether its stage is at work."""
        with locked(folder / "lock", wait=False) as orphan:
            if orphan and read_json(folder / "run.json")["done"]:
                shutil.rmtree(folder)
                return False
            over = orphan or (folder / "ended.json").exists()
            attempt = (folder, over)
            if time.monotonic() >= self._attempts.get(attempt, -math.inf) + seconds:
                try:
                    if not over:
                        self._sample_system(folder)
                    self._deliver_run(folder, None, orphan, wait=seconds == 0)
                    (folder / "error").unlink(missing_ok=True)
                except Exception as error:  # whatever MLflow or a network raises: the stage goes on
                    reason = redacted(" ".join(str(error).split()))[:500]
                    write_text(folder / "error", reason or type(error).__name__)
                self._attempts[attempt] = time.monotonic()
            return not orphan

    def _sample_system(self, folder: Path) -> None:
        """Add the machine's load to the records of a stage at work, under the names of MLflow's view of it."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        first = self._monitor is None
        if first:
            self._monitor = SystemMetricsMonitor("", tracking_uri=self.uri)  # type: ignore[no-untyped-call]
        self._monitor.collect_metrics()
        load = self._monitor.aggregate_metrics()
        for monitor in self._monitor.monitors:
            monitor.clear_metrics()
        if first:  # the load is that since the last look
            return
        moment = now()
        seconds = (moment - read_json(folder / "run.json")["start_time"]) // 1000
        metrics = [[f"system/{name}", float(value), moment, seconds] for name, value in load.items()]
        with (folder / "records.jsonl").open("a") as file:
            file.write(json.dumps({"metrics": metrics}) + "\n")

    def _deliver_run(self, folder: Path, parent: str | None, orphan: bool, wait: bool) -> bool:
        """Deliver what a run has written by now; returns whether that is all it will ever write.

        Where the server has had its share of calls, wait for it to have another, or leave the rest for later.
        """
        path = folder / "run.json"
        state = read_json(path)
        if state["done"]:
            return True
        if state["run_id"] is None:
            state["run_id"] = self._create_run(state, parent)
            write_text(path, json.dumps(state))
        run_id = state["run_id"]
        ended = self._end(folder, orphan)  # read before the records, so that none can come after those
        written = (folder / "records.jsonl").stat().st_size  # more may come, faster than calls can take them away
        while state["offset"] < written and self._may_call(wait) and self._send_records(run_id, folder, state):
            write_text(path, json.dumps(state))
        children = [
            self._deliver_run(child.parent, run_id, orphan, wait) for child in folder.glob("children/*/run.json")
        ]
        if ended is None or not all(children) or self._left(folder, state):
            return False
        self._connect().set_terminated(run_id, ended["status"], ended["end_time"])
        if parent is None and state["pipeline"] is not None:
            group = self._pipeline_run(state)
            self._connect().set_terminated(group, ended["status"], ended["end_time"])
        state["done"] = True
        write_text(path, json.dumps(state))
        return True

    def _end(self, folder: Path, orphan: bool) -> Any:
        """How a run ended, or ``None`` while it goes on. A stage that is gone without a word was killed."""
        if (folder / "ended.json").exists():
            return read_json(folder / "ended.json")
        last_word = (folder / "records.jsonl").stat().st_mtime
        return {"status": "KILLED", "end_time": int(last_word * 1000)} if orphan else None

    def _create_run(self, state: dict[str, Any], parent: str | None) -> str:
        experiment = self._experiment(state["experiment"])
        if parent is None and state["pipeline"] is not None:
            parent = self._pipeline_run(state)
        tags = {name: self._resolve(experiment, value) for name, value in state["tags"].items()}
        tags |= {"mlflow.parentRunId": parent} if parent else {}
        # The answer to an earlier request may have been lost on its way, or the work goes on after a restart.
        run_id = self._find_run(experiment, "journal", tags["journal"])
        if run_id is None:
            return self._new_run(experiment, state, tags)
        self._connect().update_run(run_id, "RUNNING")
        if parent:
            self._connect().set_tag(run_id, "mlflow.parentRunId", parent)
        return run_id

    def _resolve(self, experiment: str, value: str) -> str:
        """The id of a run, from its journal's key where that stands for it."""
        if not value.startswith(JOURNAL):
            return value
        return self._find_run(experiment, "journal", value.removeprefix(JOURNAL)) or value

    def _pipeline_run(self, state: dict[str, Any]) -> str:
        """The run that stands for a whole pipeline; it has the status of the stage that ended last."""
        experiment = self._experiment(state["experiment"])
        tags = {"stage": "pipeline", "pipeline": state["pipeline"]}
        pipeline = {"start_time": state["start_time"], "name": state["pipeline"]}
        return self._find_run(experiment, "pipeline", tags["pipeline"]) or self._new_run(experiment, pipeline, tags)

    def _find_run(self, experiment: str, tag: str, value: str) -> str | None:
        quoted = value.replace("'", "")  # the filter language has no escape
        runs = self._connect().search_runs([experiment], f"tags.{tag} = '{quoted}'", max_results=1)
        return runs[0].info.run_id if runs else None

    def _new_run(self, experiment: str, state: dict[str, Any], tags: dict[str, str]) -> str:
        run = self._connect().create_run(experiment, state["start_time"], tags, state["name"])
        run_id: str = run.info.run_id
        return run_id

    def _send_records(self, run_id: str, folder: Path, state: dict[str, Any]) -> bool:
        """Send the next records of the journal, as many as go into one call; returns whether there were any."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        from pipeline.registry import Candidate

        records: list[dict[str, Any]] = []
        metrics: list[Metric] = []
        with (folder / "records.jsonl").open("rb") as file:
            file.seek(state["offset"])
            for line in file:
                more = json.loads(line) if line.endswith(b"\n") else None  # still being written
                if more is None or (records and len(metrics) + len(more.get("metrics", ())) > _METRICS_PER_CALL):
                    break
                records.append(more)
                metrics += [Metric(*metric) for metric in more.get("metrics", ())]
                state["offset"] += len(line)
        params = [Param(*item) for record in records for item in record.get("params", {}).items()]
        tags = {name: value for record in records for name, value in record.get("tags", {}).items()}
        if metrics or params or tags:
            self._calls.append(time.monotonic())
            self._connect().log_batch(run_id, metrics, params, [RunTag(*item) for item in tags.items()])
        for record in records:
            if "files" in record:
                source, target = record["files"]
                path = folder / "files" / source
                self._connect().log_artifacts(run_id, str(path), target)
            if "dataset" in record:
                context = [InputTag("mlflow.data.context", "pipeline")]
                self._connect().log_inputs(run_id, [DatasetInput(Dataset(**record["dataset"]), context)])
            if "models" in record:
                offers = record["models"]["candidates"]
                files = [str(folder / "files" / offer["file"] / "model.onnx") for offer in offers]
                candidates = [Candidate.parse(o | {"file": file}) for o, file in zip(offers, files, strict=True)]
                experiment = self._experiment(state["experiment"])
                state["told"] += self._register(experiment, run_id, record["models"]["name"], candidates)
        return bool(records)

    def _left(self, folder: Path, state: dict[str, Any]) -> bool:
        """Whether records are undelivered; what a kill left of a last one does not count."""
        with (folder / "records.jsonl").open("rb") as file:
            file.seek(state["offset"])
            return file.readline().endswith(b"\n")

    def _may_call(self, wait: bool) -> bool:
        """Whether the server has not had its share of the last minute."""
        if not self.uri.startswith("http") or len(self._calls) < _CALLS_PER_MINUTE:
            return True
        left = self._calls[0] + 60 - time.monotonic()
        if left > 0 and wait:
            time.sleep(left)
        return left <= 0 or wait

    def _experiment(self, name: str) -> str:
        client = self._connect()
        experiment = client.get_experiment_by_name(name)
        experiment_id: str = (
            experiment.experiment_id if experiment else client.create_experiment(name, self._artifact_location())
        )
        return experiment_id

    def _artifact_location(self) -> str | None:
        """A server knows its own place for artifacts; without one they lie beside the database."""
        if not self.uri.startswith("sqlite:///"):
            return None
        return str(Path(self.uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts")

    def _register(self, experiment: str, run_id: str, name: str, candidates: list["Candidate"]) -> list[str]:
        """Make candidates versions of a registered model, move its aliases; returns what happened, a sentence each."""
        from pipeline.registry import Standing, better

        client = self._connect()
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name, description="Generators; each version has its model card.")
        told = []
        challenger = None
        for candidate in candidates:
            version = self._version(experiment, run_id, name, candidate)
            number = str(version.version)
            standing = candidate.standing.model_dump_json()
            if version.tags.get("standing") == standing:
                told.append(f"{name}: {candidate.generator} is version {number} already.")
                continue
            leader = self._alias(name, "champion")
            if leader == number:
                promoted, why = True, "it was the champion, and was measured again"
            else:
                tags = client.get_model_version(name, leader).tags if leader else {}
                champion = Standing.parse(json.loads(tags["standing"])) if leader else None
                promoted, why = better(candidate.standing, champion)
            if promoted:
                self.lead(name, number, why)
            else:
                challenger = challenger or number
                client.set_model_version_tag(name, number, "decision", why)
            client.set_model_version_tag(name, number, "standing", standing)  # last: now all of it is done
            told.append(
                f"{name}: {candidate.generator} is version {number}, {'' if promoted else 'not '}champion: {why}."
            )
        if challenger is not None:
            client.set_registered_model_alias(name, "challenger", challenger)
        return told

    def _version(self, experiment: str, run_id: str, name: str, candidate: "Candidate") -> "ModelVersion":
        """The version with a candidate's ONNX file, which may be in the registry already."""
        from pipeline.registry import show

        client = self._connect()
        digest = hashlib.sha256(candidate.file.read_bytes()).hexdigest()
        card = candidate.card[:_MAX_DESCRIPTION]
        found = client.search_model_versions(f"name = '{name}' and tags.onnx_sha256 = '{digest}'")
        if found:
            client.update_model_version(name, found[0].version, card)
            return found[0]
        origin = self._resolve(experiment, candidate.run or run_id)
        origin = run_id if origin.startswith(JOURNAL) else origin
        logged = client.search_logged_models([experiment], f"tags.onnx_sha256 = '{digest}' and status = 'READY'")
        # There is one already if an end came between the two calls.
        model_id = logged[0].model_id if logged else self._log_model(experiment, origin, name, digest, candidate)
        tags = {measure: show(value) for measure, value in candidate.standing.measures.items()}
        tags |= {"onnx_sha256": digest, "generator": candidate.generator, "registered_by": run_id}
        return client.create_model_version(name, f"models:/{model_id}", origin, tags, None, card, model_id=model_id)

    def _log_model(self, experiment: str, run_id: str, name: str, digest: str, candidate: "Candidate") -> str:
        """Log a candidate's ONNX file as a model of the run that made it."""
        import mlflow.onnx
        import onnx
        from mlflow.models import infer_signature

        from netinv.sampling import OnnxGenerator, draw

        generator = OnnxGenerator(candidate.file, num_threads=1)
        latent, condition = draw(2, latent_dim=generator.metadata.latent_dim, num_classes=generator.num_classes, seed=0)
        inputs = {"latent": latent, "condition": condition}
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_experiment(experiment_id=experiment)
        logged = mlflow.onnx.log_model(
            onnx.load(candidate.file),
            name=f"{name}-{candidate.generator.replace(' ', '-')}",
            run_id=run_id,
            signature=infer_signature(inputs, {"images": generator(latent, condition)}),
            input_example=inputs,
            onnx_execution_providers=["CPUExecutionProvider"],
            pip_requirements=[f"{library}=={importlib.metadata.version(library)}" for library in _SERVING],
            save_as_external_data=False,
            extra_files=[str(candidate.file.with_name("model_card.md"))],
            tags={"onnx_sha256": digest},
        )
        model_id: str = logged.model_id
        return model_id

    def lead(self, name: str, version: str, why: str) -> str | None:
        """Make a version the champion; returns whose place it took."""
        client = self._connect()
        last = self._alias(name, "champion")
        if last != version:
            client.set_registered_model_alias(name, "champion", version)
            if last is not None:
                client.set_model_version_tag(name, version, "previous_champion", last)
        client.set_model_version_tag(name, version, "decision", why)
        if self._alias(name, "challenger") == version:
            client.delete_registered_model_alias(name, "challenger")
        return last

    def _alias(self, name: str, alias: str) -> str | None:
        version = self._connect().get_registered_model(name).aliases.get(alias)
        return None if version is None else str(version)

    def _connect(self) -> "MlflowClient":
        if self._client is None:
            os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
            os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # the journal is the retry
            os.environ["MLFLOW_LOGGING_LEVEL"] = "CRITICAL"
            os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
            os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # with the password in it
            from mlflow.tracking import MlflowClient

            database = Path(self.uri.removeprefix("sqlite:///"))
            if self.uri.startswith("sqlite:///") and not database.exists():
                # A new database takes seconds of migrations: an end among them must not leave half of one.
                fresh = database.with_name(f".{database.name}.new")
                fresh.unlink(missing_ok=True)
                MlflowClient(f"sqlite:///{fresh}").search_experiments(max_results=1)
                fresh.rename(database)
            self._client = MlflowClient(self.uri)
        return self._client


def promote(name: str, version: str, why: str) -> str:
    """Make a version of a registered model the champion, whatever the rule says; returns what happened.

    Raises:
        InputError: There is no such model or version, or no server.
    """
    deliverer, found = _find_version(name, version)
    number = str(found.version)
    last = deliverer.lead(name, number, why)
    return f"{name}: version {number} is champion" + (
        f", in place of version {last}." if last not in (None, number) else "."
    )


def trace(name: str, version: str) -> Iterator[str]:
    """Where a version of a registered model comes from: its runs, their commit and data, and how to make it again.

    Raises:
        InputError: There is no such model or version, or no server.
    """
    from mlflow.exceptions import MlflowException

    deliverer, found = _find_version(name, version)
    client = deliverer._connect()
    yield f"{name} version {found.version}: {found.tags.get('decision', '')}"
    made = client.get_run(str(found.run_id)).data.tags
    waiting, seen = [str(found.run_id)], set()
    while waiting:
        run_id = waiting.pop(0)
        if run_id in seen:
            continue
        seen.add(run_id)
        try:
            run = client.get_run(run_id)
        except MlflowException:  # deleted, or known to another store alone
            yield f"  run {run_id} is not in this store"
            continue
        tags = run.data.tags
        if tags.get("stage") == "pipeline":
            continue
        name = run.info.run_name if run_id != found.run_id else f"{run.info.run_name} of {made['dataset']}"
        changed = " with changes" if tags.get("mlflow.source.git.dirty") == "True" else ""
        experiment = f", DVC experiment {tags['dvc.exp_name']}" if "dvc.exp_name" in tags else ""
        yield f"  {name}: run {run_id}, commit {tags.get('mlflow.source.git.commit')}{changed}{experiment}"
        for data in run.inputs.dataset_inputs if run.inputs else ():
            yield f"    data set {data.dataset.name}, digest {data.dataset.digest}"
        waiting += [tags[key] for key in sorted(tags) if key == "mlflow.parentRunId" or key.startswith("input.")]
    stage = f"register@{made['dataset']}-{made['variant']}"
    if "dvc.exp_name" in made:
        yield f"To make it again: dvc exp apply {made['dvc.exp_name']} && dvc repro {stage}"
    elif made.get("mlflow.source.git.dirty") == "True":
        yield "Code or settings were changed after that commit and not kept: it cannot be made again exactly."
    else:
        yield f"To make it again: git checkout {made.get('mlflow.source.git.commit')} && dvc repro {stage}"


def _find_version(name: str, version: str) -> tuple[_Deliverer, "ModelVersion"]:
    uri = tracking_uri()
    check_server(uri)
    deliverer = _Deliverer(uri)
    client = deliverer._connect()
    from mlflow.exceptions import MlflowException

    try:
        if version.isdigit():
            return deliverer, client.get_model_version(name, version)
        return deliverer, client.get_model_version_by_alias(name, version)
    except MlflowException:
        raise InputError(
            f"{redacted(uri)} has no version {version} of a model {name}: the registered models are listed under "
            "Models in MLflow's page."
        ) from None


@click.group()
def main() -> None:
    """Deliver tracking records to MLflow."""


@main.command()
@stage_command
def flush() -> None:
    """Deliver what an unreachable tracking server, or a kill, has left in the journal."""
    uri = tracking_uri()
    check_server(uri)
    deliverer = _Deliverer(uri)
    deliverer.deliver(at_once=True)
    deliverer.deliver()  # clears away what is done
    with locked(journals() / "deliver.lock"):
        errors = [(folder / "error").read_text() for folder in deliverer.folders() if (folder / "error").exists()]
        others = {read_json(path)["uri"] for path in journals().glob("*/run.json")} - {redacted(uri)}
    for other in sorted(others):
        print(f"There are records for {other} as well: set MLFLOW_TRACKING_URI to it and run this again.")
    if errors:
        raise InputError(f"{len(errors)} runs could not be delivered to {redacted(uri)}: {errors[0]}")
    print(f"All records for {redacted(uri)} are delivered.")


@main.command(hidden=True)
def courier() -> None:
    """Deliver the journal as it grows, and go home when no stage has been at work for a while."""
    # A stage may wait for the courier at its end, so it tries again rather than wait MLflow's two minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    deliverer = _Deliverer(tracking_uri())
    while deliverer.work():
        pass


if __name__ == "__main__":
    main()
