"""Which run made a stage's output, and from which settings: what a stage leaves under ``runs/`` for those after it."""

from pathlib import Path

from pydantic import Field

from netinv.core import Config, InputError, read_json

_MOST = 16 * 2**20
"""Bytes of such a file: a thousand generators have their keys in it."""


class Lineage(Config):
    """The run behind a stage's output."""

    run_id: str | None = Field(None, pattern=r"^[\w-]{1,64}$")
    """MLflow's id of it; ``None`` where it was not known yet."""
    experiment: str = ""
    journal: str = ""
    """What finds the run in the store: its tag of that name."""
    children: dict[str, str] = Field(default_factory=dict)
    """The same of the runs below it, by name."""
    params: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Its settings and those of the stages before it, by stage and variant, flat."""


def lineage_path(stage: str, dataset: str, variant: str | None = None) -> Path:
    """Where a stage tells which run made its output of a data set, and of a variant or model where it is about one."""
    return Path("runs") / stage / f"{'-'.join(filter(None, (dataset, variant)))}.json"


def read_lineage(path: Path) -> Lineage:
    """The run behind a stage's output; nothing is known where the stage has not run.

    Raises:
        InputError: The file holds something else; names it and the key.
    """
    if not path.exists():
        return Lineage()
    mend = "run its stage again"
    values = read_json(path, mend, _MOST)
    try:
        return Lineage.parse(values, where=str(path))
    except InputError as error:
        raise InputError(f"{error}: {mend}.") from None
