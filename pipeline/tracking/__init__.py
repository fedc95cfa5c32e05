"""The only package that imports mlflow: what stages tell of their runs, its delivery, and the model registry.

The README beside this file states what is guaranteed. A stage pays for no import of MLflow: only the process that
delivers does, and who asks the registry.

| module | what it holds |
|---|---|
| `runs` | a stage as a run, from its beginning to its end |
| `journal` | what a run says, on disk |
| `pending` | which journals wait, and for which store |
| `lineage` | which run made a stage's output |
| `store` | where MLflow's store is, and whether it answers |
| `client`, `bounds` | the client of one store, and the end that a server's answers have |
| `delivery` | the journal on its way to the store |
| `registry`, `candidates` | the rule for the champion; generators as candidates |
| `cards` | their model cards, for MLflow and for a hub of models |
| `versions` | candidates as versions in MLflow's registry |
"""

from typing import TYPE_CHECKING

import lazy_loader

from pipeline.tracking.journal import Run, flatten
from pipeline.tracking.lineage import lineage_path, read_lineage
from pipeline.tracking.runs import stage_run
from pipeline.tracking.store import in_repository, tracking_uri

if TYPE_CHECKING:
    from pipeline.tracking.candidates import find_candidates
    from pipeline.tracking.versions import promote, trace

__all__ = [
    "Run",
    "find_candidates",
    "flatten",
    "in_repository",
    "lineage_path",
    "promote",
    "read_lineage",
    "stage_run",
    "trace",
    "tracking_uri",
]

# What needs numpy or MLflow is imported when it is first used.
__getattr__, *_ = lazy_loader.attach(
    __name__,
    submod_attrs={"candidates": ["find_candidates"], "versions": ["promote", "trace"]},
)
