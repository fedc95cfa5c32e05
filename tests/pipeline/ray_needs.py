"""What a stage asks of Ray."""

from pipeline.params import RayParams


def needs(num_workers: int = 1, num_cpus: float = 1, num_gpus: float = 0) -> RayParams:
    return RayParams(
        num_workers=num_workers, num_cpus=num_cpus, num_gpus=num_gpus, checkpoint_every=1, storage="unused"
    )
