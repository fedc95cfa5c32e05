"""``python -m pipeline.tracking flush``, and the process that a stage starts to deliver its journal."""

import contextlib
import os
import shlex
import sys
import threading
import time
from pathlib import Path

import click

from netinv.core import InputError, redacted
from pipeline.stage import locked, stage_command
from pipeline.tracking.delivery import Deliverer
from pipeline.tracking.journal import delivery_lock, journals
from pipeline.tracking.pending import other_stores, readdress
from pipeline.tracking.store import check_server, tracking_uri

_BEAT_SECONDS = 1.0
_BUSY_SHARE = 0.05
"""Of a processor: on a crowded machine it gets little, and a process that waits for an answer takes next to none."""


@click.group()
def main() -> None:
    """Deliver tracking records to MLflow."""


@main.command()
@click.option("--from", "old", metavar="ADDRESS", help="Deliver here also what waits for this store.")
@stage_command
def flush(old: str | None) -> None:
    """Deliver what an unreachable tracking server, or a kill, has left in the journal."""
    uri = tracking_uri()
    check_server(uri)
    if old is not None:
        with locked(journals() / "deliver.lock"):
            readdress(old, uri)
    deliverer = Deliverer(uri)
    deliverer.deliver(at_once=True)
    deliverer.deliver()  # clears away what is done
    with locked(journals() / "deliver.lock"):
        failed = [folder for folder in deliverer.folders() if (folder / "error").exists()]
        for folder in failed:
            print(f"{folder} could not be delivered: {(folder / 'error').read_text()}", file=sys.stderr)
        others = other_stores(uri)
    for damaged in sorted((journals() / "damaged").glob("*")):
        print(f"{damaged} cannot be delivered, its run.json is damaged: mend it and move it back, or delete it.")
    for other in others:
        print(
            f"There are records for {other} as well: set MLFLOW_TRACKING_URI to it and run this again, or deliver them "
            f"here with `python -m pipeline.tracking flush --from {shlex.quote(other)}`."
        )
    if failed:
        raise InputError(
            f"{len(failed)} runs could not be delivered to {redacted(uri)}: mend what the lines above say and run this "
            "again, or delete a run's folder to give its records up."
        )
    print(f"All records for {redacted(uri)} are delivered.")


@main.command(hidden=True)
def deliver() -> None:
    """Deliver the journal as it grows, and exit when no stage has been at work for a while."""
    # A stage may wait for this process at its end, so it tries again rather than wait MLflow's two minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    uri = tracking_uri()
    threading.Thread(target=_show_work, args=(delivery_lock(uri),), daemon=True).start()
    deliverer = Deliverer(uri)
    while deliverer.work():
        pass
    if deliverer.client.replaced():  # what MLflow knows of the old database ends with its process alone
        os.execv(sys.executable, (sys.executable, "-m", "pipeline.tracking", "deliver"))


def _show_work(lock: Path) -> None:
    """Touch a file while this process computes, as it does for its imports and a new database, and not while it waits.

    So a stage that waits for it can tell a busy machine from a store that does not answer.
    """
    spent = time.process_time()
    while True:
        time.sleep(_BEAT_SECONDS)
        before, spent = spent, time.process_time()
        if spent - before > _BUSY_SHARE * _BEAT_SECONDS:
            with contextlib.suppress(OSError):  # not made yet
                os.utime(lock)


if __name__ == "__main__":
    main()
