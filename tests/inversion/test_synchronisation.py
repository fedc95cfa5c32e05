"""Between two records nothing waits for the device: no step asks for a value that the host needs to go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from draws import seed_torch
from torch.utils._python_dispatch import TorchDispatchMode

from netinv.classifiers import ConvClassifierConfig, build_classifier, freeze
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, InversionTraining, JointTraining, variant_config
from netinv.inversion import loop as training_loop

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL = GeneratorConfig(latent_dim=8, hidden_dim=8, width=4, max_width=8, bending=0.05, softening=0.5, toning=0.5)
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique_dim", "_unique2"}
"""Operations whose result, or its shape, the host has to know."""
CASES = {
    "standard": variant_config("standard"),
    "robust": variant_config("robust").model_copy(update={"latent_field": 1.0, "layer_statistics": 1.0}),
    "l2": variant_config("robust").model_copy(update={"norm": "l2"}),
    "noise": variant_config("robust").model_copy(update={"perturbation": "noise"}),
}


class Watch(TorchDispatchMode):
    """Notes operations that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        masks = [part for part in args[1] if part is not None] if name in {"index", "index_put_"} else []
        if name in WAITING or any(part.dtype == torch.bool for part in masks):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def nobody_waits() -> Iterator[None]:
    """Fail on any wait; on a GPU torch itself sees to it."""
    with Watch() as watch:
        if DEVICE.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if DEVICE.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    assert watch.seen == []


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [1, 2])
def test_no_step_waits(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config: InversionConfig = CASES[name].model_copy(update={"steps": 6, "batch_size": 8, "log_every": 3})
    seed_torch(0)
    classifier = build_classifier(ConvClassifierConfig(channels=(4,), feature_dim=6), 3, (1, 9, 8), (0.4,), (0.2,))
    freeze(classifier.to(DEVICE))
    trainings = [
        InversionTraining(ConditionedGenerator(SMALL, 3, (1, 9, 8)).to(DEVICE), classifier, config, seed)
        for seed in range(size)
    ]
    work = iter(JointTraining(trainings) if size > 1 else trainings[0])
    next(work)  # the optimizer's state is made in the first step
    monkeypatch.setattr(training_loop, "_records", lambda training, values: [{}])
    with nobody_waits():
        next(work)


def test_a_wait_is_seen() -> None:
    for wait in (lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool((x > 0).all()), lambda x: x.nonzero()):
        with pytest.raises((AssertionError, RuntimeError)), nobody_waits():
            wait(torch.ones(3, device=DEVICE))
