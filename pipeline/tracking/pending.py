"""Journals that wait on disk: which there are for a store, and those of an address that leads nowhere."""

import contextlib
import json
from pathlib import Path
from typing import Any

from netinv.core import InputError, listed, redacted, write_text
from pipeline.stage import locked
from pipeline.tracking.journal import journals, read_json

_KEYS = {"uri", "experiment", "pipeline", "name", "tags", "start_time", "run_id", "offset", "done", "told"}
"""What a run.json has."""


def pending(uri: str) -> list[Path]:
    """Journals for a store, oldest first; one that cannot be read is set aside, and holds up no other."""
    found = [(state, path.parent) for path in journals().glob("*/run.json") if (state := _state(path))]
    ours = [(state["start_time"], folder) for state, folder in found if state["uri"] == redacted(uri)]
    return [folder for _, folder in sorted(ours)]


def other_stores(uri: str) -> list[str]:
    """Addresses of other stores that journals wait for."""
    return sorted({read_json(path)["uri"] for path in journals().glob("*/run.json")} - {redacted(uri)})


def readdress(old: str, new: str) -> None:
    """Have the journals for one store go to another, where their runs are made anew.

    Raises:
        InputError: There are none, or a stage is still writing one.
    """
    folders = pending(old)
    if not folders:
        others = other_stores(new)
        raise InputError(
            f"There are no records for {redacted(old)}: give --from "
            f"{listed(others) if others else 'an address that records wait for, of which there is none'}."
        )
    for folder in folders:
        with locked(folder / "lock", wait=False) as orphan:
            if not orphan:
                raise InputError(f"A stage is still writing records for {redacted(old)}: wait for its end.")
            state = read_json(folder / "run.json") | {"uri": redacted(new)}
            write_text(folder / "run.json", json.dumps(state))


def _state(path: Path) -> dict[str, Any] | None:
    """What a journal's run.json says; ``None`` for one that says nothing, which goes to ``damaged``."""
    try:
        state = read_json(path)
        if isinstance(state, dict) and state.keys() >= _KEYS and isinstance(state["start_time"], int):
            return state
    except FileNotFoundError:
        return None  # delivered by another process just now
    except (OSError, InputError):
        pass
    aside = journals() / "damaged" / path.parent.name
    aside.parent.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rename(aside)
    return None
