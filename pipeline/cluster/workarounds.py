"""The uses of what Ray does not make public. Each says what for, and has a test that fails when it becomes needless."""


def remove_reservations_of_dead_actors() -> None:
    """Give back what this job's dead actors had reserved for their workers.

    Ray keeps a placement group until its actor and its job have both ended. A group of workers that was lost with its
    controller would take the place of the one that goes on, until the stage ends. Ray Train has a cleaner for this, but
    that needs a dashboard, and does not know of a group whose workers were still starting.

    The public :func:`ray.util.placement_group_table` does not tell who has reserved; the same table in
    ``ray._private.state`` does. Needed in Ray 2.50 to 2.60; tests/test_cluster.py says when it no longer is.
    """
    import ray
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = ray.get_runtime_context().get_job_id()
    for serialized in state._connect_and_get_accessor().get_placement_group_table():
        reserved = PlacementGroupTableData.FromString(serialized)
        removed = reserved.state == PlacementGroupTableData.REMOVED
        if reserved.creator_actor_dead and reserved.creator_job_id.hex() == job and not removed:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(reserved.placement_group_id)))
