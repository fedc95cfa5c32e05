"""The only package that imports ray. Independent jobs in, an interleaved stream of their events out.

A job occupies one worker, or several that share its batch. Both are streaming tasks whose events come to the driver,
the states in which a job can be resumed among them. So nothing needs a file system that machines share, and a job whose
worker or node is gone is started again from its last state, wherever the cluster has resources for it.

| module | what it holds |
|---|---|
| `connection` | connects to a cluster or starts a local one |
| `resources` | what a worker takes of a cluster, and whether the cluster can hold it |
| `tasks` | jobs as streaming tasks, started again when a worker dies |
| `worker_group` | one job on several workers, with Ray Train |
| `search`, `listener` | a search of settings, with Ray Tune |
| `workarounds` | the uses of what Ray does not make public |
"""

from pipeline.cluster.connection import check_address, cluster
from pipeline.cluster.resources import device, jobs_per_worker
from pipeline.cluster.search import Trial, search
from pipeline.cluster.tasks import run_tasks

__all__ = ["Trial", "check_address", "cluster", "device", "jobs_per_worker", "run_tasks", "search"]
