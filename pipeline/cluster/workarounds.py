"""The uses of what Ray does not make public. Each says what for, and has a test that fails when it becomes needless."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def remove_reservations_of_dead_actors() -> None:
    """Give back what this job's dead actors had reserved for their workers.

    Ray keeps a placement group until its actor and its job have both ended. A group of workers that was lost with its
    controller would take the place of the one that goes on, until the stage ends. Ray Train has a cleaner for this, but
    that needs a dashboard, and does not know of a group whose workers were still starting.

    The public :func:`ray.util.placement_group_table` does not tell who has reserved; the same table in
    ``ray._private.state`` does. Its mark of dead actors is not enough: an actor that is told to die, because its owner
    has died, may reserve a moment later. So the table of actors is asked, too. Needed in Ray 2.50 to 2.60;
    tests/pipeline/test_cluster.py says when it no longer is.
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
    2.60; tests/pipeline/test_cluster.py ends a stage by the signal.
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
