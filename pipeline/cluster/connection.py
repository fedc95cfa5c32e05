"""A connection to a Ray cluster: a running one by its address, or a local one that lives as long as the stage."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from netinv.core import InputError

STARTS = 3
"""How often a local cluster that does not come up in time is started."""
_ADDRESS = re.compile(r"(?:ray://)?(?:\[(?P<ipv6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:/]+)):(?P<port>\d+)")


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connect to the cluster at ``address``, or start a local one and stop it afterwards.

    Raises:
        InputError: The cluster refuses the connection, see also :func:`check_address`.
    """
    verbose = os.environ.get("NETINV_VERBOSE") == "1"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not verbose:  # log_to_driver does not cover what Ray reports of dead workers; read when ray is imported
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    import ray

    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": "INFO" if verbose else "ERROR"}
    if address is None:
        _start_local(include_dashboard=False, **options)
    else:
        check_address(address)
        import netinv
        import pipeline

        # A remote worker has neither our code nor our files, so the code travels with the job. It travels as folders,
        # because within a submitted job Ray copies the environment, and modules cannot be copied.
        code = [module.__path__[0] for module in (netinv, pipeline)]
        try:
            ray.init(address=address, runtime_env={"py_modules": code}, **options)
        except (ConnectionError, RuntimeError) as error:
            raise InputError(f"The Ray cluster at RAY_ADDRESS={address} refused the connection: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _start_local(**options: Any) -> None:
    """Start a cluster on this machine. Ray gives its processes 30 s to come up, and a busy machine may need longer."""
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            # Without "local" Ray follows the address file of some other cluster, which may be dead.
            ray.init(address="local", **options)
            return
        except Exception as error:  # Ray raises no narrower one
            ray.shutdown()
            if "timed out during startup" not in str(error) or attempt == STARTS:
                raise


def check_address(address: str | None) -> None:
    """Fail within seconds where Ray would try for minutes.

    Raises:
        InputError: The address is malformed, or nothing answers there.
    """
    if address is None or address == "auto":
        return
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise InputError(
            f"RAY_ADDRESS={address} is no address: give host:port, [IPv6]:port, ray://host:port or auto, or unset it."
        )
    try:
        socket.create_connection((parts["ipv6"] or parts["host"], int(parts["port"])), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"No Ray cluster answers at RAY_ADDRESS={address} ({error}): start it, or unset RAY_ADDRESS to run locally."
        ) from None
