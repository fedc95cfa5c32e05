"""The uses of what Ray does not make public; elsewhere ``_temp_dir`` of ``ray.init`` is the only one.

tests/pipeline/test_cluster.py has a test for each: that of a workaround fails when it becomes needless, that of a name
when Ray gives it up.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NEEDED = ("gcs_server", "raylet")
"""Names of the processes that a local cluster cannot do without."""
CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""What a head answers, and no other server of Ray's."""
LATE = "timed out during startup"
"""Words of the error of a node that has not come up in 30 s; it has no class of its own."""
LOST = ("Failed to start GCS", "Failed to connect to GCS")
"""Words of the errors of a head process that has died while the cluster was starting."""
NO_NODE = "No node info found matching attributes"
"""Words of the error where no node of a cluster is on the driver's machine, after 60 s."""


def stay_on_this_machine() -> None:
    """Have a local cluster that is started by this process listen on 127.0.0.1 alone.

    Ray's processes listen on every interface otherwise, and who reaches them can run code. Ray has no public way but to
    give the node this address, as it does on Windows and macOS; it reads this when it is imported.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def remove_reservations_of_dead_actors() -> None:
    """Give back what this job's dead actors had reserved for their workers.

    Ray keeps a placement group until its actor and its job have both ended. A group of workers that was lost with its
    controller would take the place of the one that goes on, until the stage ends. Ray Train has a cleaner for this, but
    that needs a dashboard, and does not know of a group whose workers were still starting.

    The public :func:`ray.util.placement_group_table` does not tell who has reserved; the same table in
    ``ray._private.state`` does. Its mark of dead actors is not enough: an actor that is told to die, because its owner
    has died, may reserve a moment later. So the table of actors is asked, too. Needed in Ray 2.50 to 2.60.
    """
    import ray
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = ray.get_runtime_context().get_job_id()
    for serialized in state._connect_and_get_accessor().get_placement_group_table():
        reserved = PlacementGroupTableData.FromString(serialized)
        if reserved.creator_job_id.hex() != job or reserved.state == PlacementGroupTableData.REMOVED:
            continue
        creator = reserved.creator_actor_id.hex()  # empty where no actor has reserved
        if creator and state.actor_table(creator).get("State", "DEAD") == "DEAD":  # dead ones are forgotten some day
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(reserved.placement_group_id)))


@contextmanager
def signals_kept() -> Iterator[None]:
    """Keep SIGTERM as it is while Ray starts or stops in this process.

    Ray sets three handlers of its own: two in Python, by which a stage would end as if it had failed, after half a
    minute, and one in C++, which prints a stack and aborts. When it stops it leaves none at all. Needed in Ray 2.50 to
    2.60.
    """
    from ray._private import utils

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    theirs, ours = utils.set_sigterm_handler, signal.getsignal(signal.SIGTERM)
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = theirs
        signal.signal(signal.SIGTERM, ours)
