"""Versions of registered models: where the rule for the champion meets MLflow's registry."""

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from netinv.core import InputError, redacted
from pipeline.tracking.client import Client, reason
from pipeline.tracking.journal import JOURNAL
from pipeline.tracking.registry import Candidate, Standing, better
from pipeline.tracking.store import check_server, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_MAX_DESCRIPTION = 5000
"""Characters of a version's description in MLflow's tables; the whole model card is a file of the model."""
LEAKED = "it was the champion, until the privacy audit found memorised training images"
"""Decision on a champion that is one no more."""
_SERVING = ("mlflow", "numpy", "onnx", "onnxruntime", "pandas")
"""What `mlflow models serve` needs for a generator."""


class Versions:
    """The registry of one store."""

    def __init__(self, store: Client) -> None:
        self._store, self.uri = store, store.uri
        self.client = store.connect()

    def register(self, experiment: str, run_id: str, name: str, candidates: list[Candidate]) -> list[str]:
        """Make candidates versions of a registered model, move its aliases; returns what happened, a sentence each."""
        client = self.client
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name, description="Generators; each version has its model card.")
        told = []
        challenger = None
        offered = [(candidate, self._version(experiment, run_id, name, candidate)) for candidate in candidates]
        champion = self.alias(name, "champion")
        gone = champion is not None and self._is_lost(name, champion)  # it holds off no version that can be loaded
        # The champion first: the others are compared with what is known of it now, and not with what was.
        for candidate, version in sorted(offered, key=lambda pair: str(pair[1].version) != champion):
            number = str(version.version)
            standing = candidate.standing.model_dump_json()
            leader = self.alias(name, "champion")
            leader = None if gone and leader == champion else leader
            overruled = version.tags.get("standing") == standing and version.tags.get("decision") != LEAKED
            leaks = leader == number and candidate.standing.memorised and not overruled
            if version.tags.get("standing") == standing and leader is not None and not leaks:
                last = version.tags.get("in_place_of")
                instead = f", in place of version {last}, whose files are gone" if last else " already"
                told.append(f"{name}: {candidate.generator} is version {number}{instead}.")
                continue
            if leaks:
                promoted, why = False, LEAKED
            elif leader == number:
                promoted, why = True, "it was the champion, and was measured again"
            else:
                promoted, why = self._against(name, leader, candidate.standing)
            left = ""
            if promoted:
                _, left = self.lead(name, number, why)
            else:
                challenger = challenger or number
                client.set_model_version_tag(name, number, "decision", why)
                if leaks:
                    left = self._drop(name, "champion")
            client.set_model_version_tag(name, number, "standing", standing)  # last: now all of it is done
            told.append(
                f"{name}: {candidate.generator} is version {number}, {'' if promoted else 'not '}champion: {why}{left}."
            )
        if challenger is not None:
            client.set_registered_model_alias(name, "challenger", challenger)
        return told

    def _against(self, name: str, leader: str | None, standing: Standing) -> tuple[bool, str]:
        """Whether a candidate takes the champion's place, and why."""
        if leader is None:
            return better(standing, None)
        tags = self.client.get_model_version(name, leader).tags
        if "standing" not in tags:  # somebody made it the champion by hand
            return False, f"the champion, version {leader}, has no measures of this pipeline: you decide"
        return better(standing, Standing.parse(json.loads(tags["standing"])))

    def _version(self, experiment: str, run_id: str, name: str, candidate: Candidate) -> "ModelVersion":
        """The version with a candidate's ONNX file, which may be in the registry already.

        Where the files of one are gone, another takes its place, with its tags and aliases.
        """
        client = self.client
        digest = hashlib.sha256(candidate.file.read_bytes()).hexdigest()
        card = candidate.card[:_MAX_DESCRIPTION]
        same = f"tags.onnx_sha256 = '{digest}'"
        found = client.search_model_versions(f"name = '{name}' and {same}", order_by=["version_number DESC"])
        version = next((one for one in found if self._holds(f"{name}/{one.version}")), None)
        if version is None:
            origin = self._store.resolve(experiment, candidate.run or run_id)
            origin = run_id if origin.startswith(JOURNAL) else origin
            # There is a model already if an end came between the two calls. MLflow's databases find none by its status.
            logged = [one.model_id for one in client.search_logged_models([experiment], same) if one.status == "READY"]
            model_id = next(filter(self._holds, logged), None)
            model_id = model_id or self._log_model(experiment, origin, name, digest, candidate)
            tags = found[0].tags | {"in_place_of": str(found[0].version)} if found else {}
            tags |= {measure: str(value) for measure, value in candidate.standing.measures.items()}
            tags |= {"onnx_sha256": digest, "generator": candidate.generator, "registered_by": run_id}
            source = f"models:/{model_id}"
            version = client.create_model_version(name, source, origin, tags, None, card, model_id=model_id)
        else:
            client.update_model_version(name, version.version, card)
        others = {str(one.version) for one in found} - {str(version.version)}
        for alias, number in client.get_registered_model(name).aliases.items() if others else ():
            if str(number) in others:
                client.set_registered_model_alias(name, alias, str(version.version))
        return version

    def _is_lost(self, name: str, number: str) -> bool:
        """Whether the files of a version of this pipeline are gone."""
        ours = "standing" in self.client.get_model_version(name, number).tags
        return ours and not self._holds(f"{name}/{number}")

    def _holds(self, model: str) -> bool:
        """Whether the store has the file of a model or version: a disk may be lost, or a bucket emptied."""
        import mlflow.artifacts

        mlflow.set_tracking_uri(self.uri)
        return any(file.path == "model.onnx" for file in mlflow.artifacts.list_artifacts(f"models:/{model}"))

    def _log_model(self, experiment: str, run_id: str, name: str, digest: str, candidate: Candidate) -> str:
        """Log a candidate's ONNX file as a model of the run that made it."""
        import mlflow.onnx
        import onnx
        from mlflow.models import infer_signature

        from netinv.sampling import OnnxGenerator, draw

        generator = OnnxGenerator(candidate.file, num_threads=1)
        latent, condition = draw(2, **generator.metadata.draws, seed=0)
        inputs = {"latent": latent, "condition": condition}
        mlflow.set_tracking_uri(self._store.uri)
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
            metadata=generator.metadata.draws,
        )
        model_id: str = logged.model_id
        return model_id

    def lead(self, name: str, version: str, why: str) -> tuple[str | None, str]:
        """Make a version the champion; returns whose place it took, and what :meth:`_drop` leaves."""
        client = self.client
        last = self.alias(name, "champion")
        if last not in (None, version):
            client.set_model_version_tag(name, version, "previous_champion", str(last))
        client.set_model_version_tag(name, version, "decision", why)
        if last != version:
            client.set_registered_model_alias(name, "champion", version)
        return last, self._drop(name, "challenger") if self.alias(name, "challenger") == version else ""

    def _drop(self, name: str, alias: str) -> str:
        """Take an alias away; where the server's accounts forbid that, a clause says so and who may.

        MLflow asks for more to delete an alias than to set one.
        """
        from mlflow.exceptions import MlflowException

        try:
            self.client.delete_registered_model_alias(name, alias)
        except MlflowException as error:
            if error.error_code != "PERMISSION_DENIED":
                raise
            return f"; its alias {alias} stays until an administrator, or who made the model, deletes it"
        return ""

    def alias(self, name: str, alias: str) -> str | None:
        """The number of the version that has an alias."""
        version = self.client.get_registered_model(name).aliases.get(alias)
        return None if version is None else str(version)


def promote(name: str, version: str, why: str) -> str:
    """Make a version of a registered model the champion, whatever the rule says; returns what happened.

    Raises:
        InputError: There is no such model or version, or no server.
    """
    versions, found = _find_version(name, version)
    number = str(found.version)
    with _asked(versions.uri):
        last, left = versions.lead(name, number, why)
    place = f", in place of version {last}" if last not in (None, number) else ""
    return f"{name}: version {number} is champion{place}{left}."


def trace(name: str, version: str) -> Iterator[str]:
    """Where a version of a registered model comes from: its runs, their commit and data, and how to make it again.

    Raises:
        InputError: There is no such model or version, or no server.
    """
    versions, found = _find_version(name, version)
    client = versions.client
    yield f"{name} version {found.version}: {found.tags.get('decision', '')}"
    made: dict[str, str] = {}
    waiting, seen = [str(found.run_id)] if found.run_id else [], set()
    while waiting:
        run_id = waiting.pop(0)
        if run_id in seen:
            continue
        seen.add(run_id)
        try:
            with _asked(versions.uri):
                run = client.get_run(run_id)
        except LookupError:  # deleted, or known to another store alone
            yield f"  run {run_id} is not in this store"
            continue
        tags = run.data.tags
        if run_id == found.run_id:
            made = tags
        if tags.get("stage") == "pipeline":
            continue
        changed = " with changes" if tags.get("mlflow.source.git.dirty") == "True" else ""
        experiment = f", DVC experiment {tags['dvc.exp_name']}" if "dvc.exp_name" in tags else ""
        commit = tags.get("mlflow.source.git.commit", "not known")
        yield f"  {run.info.run_name}: run {run_id}, commit {commit}{changed}{experiment}"
        for data in run.inputs.dataset_inputs if run.inputs else ():
            yield f"    data set {data.dataset.name}, digest {data.dataset.digest}"
        waiting += [tags[key] for key in sorted(tags) if key == "mlflow.parentRunId" or key.startswith("input.")]
    if not made.keys() >= {"dataset", "variant"}:
        yield "Nothing more is known of it: it has no run of this pipeline that is still in this store."
        return
    stage = f"register@{made['dataset']}-{made['variant']}"
    if "dvc.exp_name" in made:
        yield f"To make it again: dvc exp apply {made['dvc.exp_name']} && dvc repro {stage}"
    elif made.get("mlflow.source.git.dirty") == "True":
        yield "Code or settings were changed after that commit and not kept: it cannot be made again exactly."
    elif "mlflow.source.git.commit" not in made:
        yield f"Its commit is not known, as of a job's: check out what was submitted, and dvc repro {stage}"
    else:
        yield f"To make it again: git checkout {made['mlflow.source.git.commit']} && dvc repro {stage}"


def _find_version(name: str, version: str) -> tuple[Versions, "ModelVersion"]:
    uri = tracking_uri()
    check_server(uri)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():  # MLflow would make one
        raise InputError(
            f"{redacted(uri)} is not there, and so no registry: run the stage register, or name in MLFLOW_TRACKING_URI "
            "the store where it ran."
        )
    try:
        with _asked(uri):
            versions = Versions(Client(uri))
            if version.lower() == "latest":  # an alias of every model that stands in none
                return versions, versions.client.get_model_version_by_alias(name, version)
            number = version if version.isdigit() else versions.alias(name, version)
            if number is not None:
                return versions, versions.client.get_model_version(name, number)
            raise LookupError
    except LookupError:
        raise InputError(
            f"{redacted(uri)} has no version {version} of a model {name}: the registered models are listed under "
            "Models in MLflow's page."
        ) from None


@contextlib.contextmanager
def _asked(uri: str) -> Iterator[None]:
    """What the store answers, in two kinds.

    Raises:
        LookupError: It has no such thing.
        InputError: It refuses, or fails; tells its reason.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        if isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise LookupError from None
        raise InputError(
            f"{redacted(uri)} does not do what it is asked ({reason(error)}): mend that, and ask again."
        ) from None
