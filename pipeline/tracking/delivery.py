"""Delivery of the journals to MLflow. What it needs of the network is tried again until it is through.

``journal.py`` tells how records get here. The process that a stage starts and ``flush`` have a deliverer each.
"""

import collections
import contextlib
import json
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netinv.core import listed, write_text
from pipeline.stage import locked
from pipeline.tracking.client import Client, denies, reason, refuses_credentials
from pipeline.tracking.journal import (
    DESCRIPTION,
    OWN_ID,
    append_record,
    delivery_lock,
    journals,
    now,
    read_json,
    read_record,
)
from pipeline.tracking.pending import pending

if TYPE_CHECKING:
    from mlflow.entities import Metric

_POLL_SECONDS = 0.1
_DELIVERY_SECONDS = 5.0
"""Between two deliveries of running stages of up to four runs; of more runs, in proportion longer."""
_METRICS_PER_CALL = 1000
"""MLflow takes no more at once."""
_CALLS_PER_MINUTE = 60
"""Bound on the calls with metrics in them; the other ones are few."""
_IDLE_SECONDS = 30.0
"""How long the delivery waits for the next stage: longer than DVC and the imports take between two stages."""
_DAMAGED = "warning: Some records of this run were damaged on disk and are left out; all others are delivered."
_DELETED = "warning: This run was deleted in MLflow before all of it was there; what it says after that is left out."


class Deliverer:
    """Takes journals to one store; the background process and ``flush`` each have one."""

    def __init__(self, uri: str) -> None:
        self.client = Client(uri)
        self._seen: set[Path] = set()
        self._refused = False
        self._attempts: dict[tuple[Path, bool], float] = {}
        self._calls: collections.deque[float] = collections.deque(maxlen=_CALLS_PER_MINUTE)
        self._monitor: Any = None

    def folders(self) -> list[Path]:
        """Journals for this store, oldest first."""
        return pending(self.client.uri)

    def deliver(self, at_once: bool = False) -> bool:
        """Deliver what is due; returns whether any stage is still at work."""
        with locked(journals() / "deliver.lock"):  # against a flush at the same time
            folders = self.folders()
            runs = sum(1 + len(list((folder / "children").glob("*"))) for folder in folders)
            seconds = 0.0 if at_once else _DELIVERY_SECONDS * max(1, runs / 4)
            at_work = [self._deliver_journal(folder, seconds) for folder in folders]
        return any(at_work)

    def work(self) -> bool:
        """Deliver until no stage has been at work for a while; returns whether one has come after that.

        Ends early where another database lies in the place of this one, or the server refuses the credentials: the
        stage at its end, or the next one, starts a delivery with the environment that it has itself.
        """
        with locked(delivery_lock(self.client.uri), wait=False) as alone:
            if not alone:
                return False
            busy = time.monotonic()
            while time.monotonic() < busy + _IDLE_SECONDS:
                seen = self.folders()
                if self.deliver():
                    busy = time.monotonic()
                if self._refused or self.client.replaced():
                    return False
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
                self._try(folder, over, orphan, wait=seconds == 0)
                self._attempts[attempt] = time.monotonic()
            return not orphan

    def _try(self, folder: Path, over: bool, orphan: bool, wait: bool, again: bool = True) -> None:
        """Deliver a journal, or write down why that fails; where its run is gone, try again with a new one."""
        try:
            if not over:
                self._sample_system(folder)
            self._deliver_run(folder, None, orphan, wait)
            (folder / "error").unlink(missing_ok=True)
        except Exception as error:  # whatever MLflow or a network raises: the stage goes on
            if again and denies(error) and self._forget_lost(folder):
                self._try(folder, True, orphan, wait, again=False)
                return
            write_text(folder / "error", reason(error))
            self._refused |= refuses_credentials(error)

    def _forget_lost(self, folder: Path) -> bool:
        """Have those runs of a journal looked for again that are lost; returns whether there are any."""
        with contextlib.suppress(Exception):  # the store may be away by now: then this is for the next time
            folders = {folder, *folder.glob("children/*")} & self._seen
            ids = {each: read_json(each / "run.json")["run_id"] for each in folders}
            lost = {each for each, run_id in ids.items() if run_id and self.client.stage(run_id) != "active"}
            self._seen -= folders if folder in lost else lost
            return bool(lost)
        return False

    def _sample_system(self, folder: Path) -> None:
        """Add the machine's load to the records of a stage at work, under the names of MLflow's view of it."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        first = self._monitor is None
        if first:
            self._monitor = SystemMetricsMonitor("", tracking_uri=self.client.uri)
        self._monitor.collect_metrics()
        load = self._monitor.aggregate_metrics()
        for monitor in self._monitor.monitors:
            monitor.clear_metrics()
        if first:  # the load is that since the last look
            return
        moment = now()
        seconds = (moment - read_json(folder / "run.json")["start_time"]) // 1000
        metrics = [[f"system/{name}", float(value), moment, seconds] for name, value in load.items()]
        append_record(folder, {"metrics": metrics})

    def _deliver_run(self, folder: Path, parent: str | None, orphan: bool, wait: bool) -> bool:
        """Deliver what a run has written by now; returns whether that is all it will ever write.

        Where the server has had its share of calls, wait for it to have another, or leave the rest for later.
        """
        path = folder / "run.json"
        state = read_json(path)
        if state["run_id"] is None or (folder not in self._seen and (parent is not None or not state["done"])):
            self._find_run(state, parent)
            write_text(path, json.dumps(state))
            self._seen.add(folder)
        if state["done"]:
            return True
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
        self.client.connect().set_terminated(run_id, ended["status"], ended["end_time"])
        self._expect_there(run_id, folder, state, ended["status"])
        if parent is None and state["pipeline"] is not None:
            group = self._pipeline_run(state)
            self.client.connect().set_terminated(group, ended["status"], ended["end_time"])
        state["done"] = True
        write_text(path, json.dumps(state))
        return True

    def _end(self, folder: Path, orphan: bool) -> Any:
        """How a run ended, or ``None`` while it goes on. A stage that is gone without a word was killed."""
        if (folder / "ended.json").exists():
            return read_json(folder / "ended.json")
        last_word = (folder / "records.jsonl").stat().st_mtime
        return {"status": "KILLED", "end_time": int(last_word * 1000)} if orphan else None

    def _find_run(self, state: dict[str, Any], parent: str | None) -> None:
        """Find the run of a journal that this process has not seen, or make it, and have all of it sent.

        What was sent before may be missing: the database may be another one now, or an earlier copy of itself. A run
        that somebody has deleted in MLflow stays deleted.
        """
        if state["run_id"] is not None and self.client.stage(state["run_id"]) == "deleted":
            self.client.experiment(state["experiment"])  # raises where this is deleted: its runs come back with it
            state |= {"done": True, "told": [_DELETED]}
            return
        state["run_id"], new = self._create_run(state, parent)
        state |= {"new": new or state.get("new", False), "offset": 0, "done": False, "told": []}

    def _create_run(self, state: dict[str, Any], parent: str | None) -> tuple[str, bool]:
        """The run of a journal's key, and whether it is a new one."""
        experiment = self.client.experiment(state["experiment"])
        if parent is None and state["pipeline"] is not None:
            parent = self._pipeline_run(state)
        tags = {name: self.client.resolve(experiment, value) for name, value in state["tags"].items()}
        tags |= {"mlflow.parentRunId": parent} if parent else {}
        # The answer to an earlier request may have been lost on its way, or the work goes on after a restart.
        run_id = self.client.find_run(experiment, "journal", tags["journal"])
        if run_id is None:
            return self.client.make_run(experiment, state, tags, "journal"), True
        self.client.connect().update_run(run_id, "RUNNING")
        if parent:
            self.client.connect().set_tag(run_id, "mlflow.parentRunId", parent)
        return run_id, False

    def _pipeline_run(self, state: dict[str, Any]) -> str:
        """The run that stands for a whole pipeline; it has the status of the stage that ended last."""
        experiment = self.client.experiment(state["experiment"])
        code = ("host", "dvc.exp_name", "mlflow.source.git.commit", "mlflow.source.git.dirty")
        tags = {name: state["tags"][name] for name in code if name in state["tags"]}
        tags |= {"stage": "pipeline", "pipeline": state["pipeline"]}
        pipeline = {"start_time": state["start_time"], "name": state["pipeline"]}
        return self.client.find_run(experiment, "pipeline", tags["pipeline"]) or self.client.make_run(
            experiment, pipeline, tags, "pipeline"
        )

    def _send_records(self, run_id: str, folder: Path, state: dict[str, Any]) -> bool:
        """Send the next records of the journal, as many as go into one call; returns whether there were any.

        A damaged line is skipped, since it can never be delivered, and reported once.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

        records: list[dict[str, Any]] = []
        metrics: list[Metric] = []
        with (folder / "records.jsonl").open("rb") as file:
            file.seek(state["offset"])
            for line in file:
                if not line.endswith(b"\n"):  # still being written
                    break
                more = read_record(line)
                if more is None:
                    more = {}
                    if _DAMAGED not in state["told"]:
                        state["told"].append(_DAMAGED)
                points = [Metric(*metric) for metric in _metrics(more, state)]
                if records and len(metrics) + len(points) > _METRICS_PER_CALL:
                    break
                records.append(more)
                metrics += points
                state["offset"] += len(line)
        params = {name: value for record in records for name, value in record.get("params", {}).items()}
        tags = {name: value for record in records for name, value in record.get("tags", {}).items()}
        files = [
            (str(folder / "files" / record["files"][0]), record["files"][1]) for record in records if "files" in record
        ]
        self._send(run_id, metrics, params, tags, files)
        if state.get("for_pipeline") and state["pipeline"] is not None:
            group = self._pipeline_run(state)
            own = [metric for metric in metrics if not metric.key.startswith("system/")]
            # A parameter is written once in MLflow: what another pipeline of this name had otherwise becomes a tag.
            known = self.client.connect().get_run(group).data.params
            changed = {name: value for name, value in params.items() if known.get(name, value) != value}
            new = {name: value for name, value in params.items() if name not in known}
            self._send(group, own, new, tags | changed, files)
        for record in records:
            if "dataset" in record:
                context = [InputTag("mlflow.data.context", "pipeline")]
                self.client.connect().log_inputs(run_id, [DatasetInput(Dataset(**record["dataset"]), context)])
            if "models" in record:
                state["told"] += self._register(run_id, folder, state["experiment"], record["models"])
        return bool(records)

    def _send(
        self,
        run_id: str,
        metrics: "list[Metric]",
        params: dict[str, str],
        tags: dict[str, str],
        files: list[tuple[str, str | None]],
    ) -> None:
        from mlflow.entities import Param, RunTag

        if metrics or params or tags:
            self._calls.append(time.monotonic())
            own = [RunTag(name, str(value).replace(OWN_ID, run_id)) for name, value in tags.items()]
            self.client.connect().log_batch(run_id, metrics, [Param(*item) for item in params.items()], own)
        for source, target in files:
            self.client.connect().log_artifacts(run_id, source, target)

    def _register(self, run_id: str, folder: Path, experiment: str, models: dict[str, Any]) -> list[str]:
        """Offer generators to the model registry; returns what happened, a sentence each, as the run then says, too."""
        from pipeline.tracking.registry import Candidate
        from pipeline.tracking.versions import Versions

        files = [str(folder / "files" / offer["file"] / "model.onnx") for offer in models["candidates"]]
        offers = zip(models["candidates"], files, strict=True)
        candidates = [Candidate.parse(offer | {"file": file}) for offer, file in offers]
        told = Versions(self.client).register(self.client.experiment(experiment), run_id, models["name"], candidates)
        versions = "\n".join(f"- {sentence.removeprefix(models['name'] + ': ')}" for sentence in told)
        about = f"Registered as [{models['name']}](#/models/{models['name']}):\n\n{versions}"
        self.client.connect().set_tag(run_id, DESCRIPTION, about)
        return told

    def _expect_there(self, run_id: str, folder: Path, state: dict[str, Any], status: str) -> None:
        """Ask for the run, before its journal is forgotten: an answer alone does not tell that anything was kept.

        A store that was put back from a back-up lacks points in the middle: those are looked for of one metric, the
        one with most.

        Raises:
            ConnectionError: Something is not there; all of it, and of the runs below, will be sent again.
        """
        run = self.client.connect().get_run(run_id)
        missing = set() if (run.info.run_id, run.info.status) == (run_id, status) else {"its end"}
        points: dict[str, set[tuple[int, int]]] = {}
        with (folder / "records.jsonl").open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and (record := read_record(line)):
                    for name, _, moment, step in _metrics(record, state):
                        points.setdefault(name, set()).add((moment, step))
                    missing |= record.get("params", {}).keys() - run.data.params.keys()
                    missing |= record.get("tags", {}).keys() - run.data.tags.keys()
        missing |= points.keys() - run.data.metrics.keys()
        if points:
            most = max(points, key=lambda name: len(points[name]))
            there = self.client.connect().get_metric_history(run_id, most)
            missing |= {most} if points[most] - {(point.timestamp, point.step) for point in there} else set()
        if missing:
            self._seen -= {folder, *folder.glob("children/*")}
            raise ConnectionError(f"the tracking server has not kept {listed(sorted(missing), most=3)}")

    def _left(self, folder: Path, state: dict[str, Any]) -> bool:
        """Whether records are undelivered; what a kill left of a last one does not count."""
        with (folder / "records.jsonl").open("rb") as file:
            file.seek(state["offset"])
            return file.readline().endswith(b"\n")

    def _may_call(self, wait: bool) -> bool:
        """Whether the server has not had its share of the last minute."""
        if not self.client.uri.startswith("http") or len(self._calls) < _CALLS_PER_MINUTE:
            return True
        left = self._calls[0] + 60 - time.monotonic()
        if left > 0 and wait:
            time.sleep(left)
        return left <= 0 or wait


def _metrics(record: dict[str, Any], state: dict[str, Any]) -> list[Any]:
    """Those of a record; what an earlier run of the same key had already, only where that one is gone."""
    return [*record.get("metrics", ()), *(record.get("earlier", ()) if state.get("new") else ())]
