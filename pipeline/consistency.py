"""What in params.yaml must fit together, beyond what each setting says of itself."""

from pathlib import Path
from typing import TYPE_CHECKING

from netinv.core import VARIANTS, InputError
from netinv.data import BUILT_IN

if TYPE_CHECKING:
    from pipeline.params import Params


def check_consistency(params: "Params", path: Path) -> None:
    """See that all of the settings can be used, before any work.

    Args:
        params: The settings.
        path: Of their file, for messages.

    Raises:
        InputError: Names the keys.
    """
    known = {*BUILT_IN, *params.fetch.folders}
    for name in params.datasets:
        if name not in known:
            raise InputError(
                f"{path}: datasets: unknown data set {name!r}; known are {', '.join(sorted(known))}, "
                "and fetch.folders adds more."
            )
    if unknown := sorted({*params.audit.datasets} - {*params.datasets}):
        raise InputError(f"{path}: audit.datasets: {', '.join(unknown)} is none of datasets.")
    if unknown := sorted({*params.presets} - known - {"default"}):
        raise InputError(
            f"{path}: presets: {', '.join(unknown)} is no data set; there are {', '.join(sorted(known))}, and default."
        )
    for name in {*params.presets, *params.datasets}:
        params.for_dataset(name)
    for name in params.datasets:
        _expect_preset(params, name, path)
        params.ablation_of(name)
        for variant in VARIANTS:
            batch = getattr(params.for_dataset(name).invert, variant).batch_size
            expect_equal_shares(batch, params.ray.num_workers, f"{path}: {name}, {variant}: ")


def _expect_preset(params: "Params", name: str, path: Path) -> None:
    """DVC ends at a stage that depends on a key that is not there, even one that would say nothing."""
    preset = params.presets.get(name, {})
    invert = preset.get("invert") or {}
    if "train" not in preset or not {"common", *VARIANTS} <= invert.keys():
        empty = "{train: {}, invert: {" + ", ".join(f"{part}: {{}}" for part in ("common", *VARIANTS)) + "}}"
        raise InputError(
            f"{path}: presets.{name} lacks keys that DVC looks for: give it train and invert, with all of their parts; "
            f"one without settings of its own is `{name}: {empty}`."
        )


def expect_equal_shares(batch_size: int, num_workers: int, where: str = "") -> None:
    """See that the workers of one generator can share its batch.

    Raises:
        InputError: They cannot.
    """
    if batch_size % num_workers:
        raise InputError(
            f"{where}{num_workers} workers (ray.num_workers) cannot share a batch of {batch_size} equally: choose "
            "another of the two."
        )
