"""What is reckoned of many GPUs against what workers that share a batch do."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from draws import seed_torch

from netinv.classifiers import ConvClassifierConfig, build_classifier, freeze
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import GlobalBatch, InversionConfig, InversionTraining


@pytest.fixture
def placement(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import placement

    yield placement
    sys.modules.pop("placement", None)


def test_the_exchange_is_that_of_a_step(placement: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a group of one every call is made, and what is gathered or summed has its whole size."""
    calls: list[str] = []
    gathered, summed = 0, 0
    gather, reduce = dist.all_gather, dist.all_reduce

    def watched_gather(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        nonlocal gathered
        calls.append("gather")
        gathered += own.numel() * own.element_size()
        gather(parts, own)

    def watched_reduce(own: torch.Tensor) -> None:
        nonlocal summed
        calls.append("sum")
        summed += own.numel() * own.element_size() if own.numel() > 64 else 0  # but for the statistics of channels
        reduce(own)

    seed_torch(0)
    classifier = build_classifier(ConvClassifierConfig(channels=(4,), feature_dim=6), 10, (1, 28, 28), (0.4,), (0.2,))
    freeze(classifier)
    generator = ConditionedGenerator(GeneratorConfig(), 10, (1, 28, 28))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        config = InversionConfig(steps=2, batch_size=8, log_every=1, precision="float32")
        training = InversionTraining(generator, classifier, config, 0, GlobalBatch(8))
        monkeypatch.setattr(dist, "all_gather", watched_gather)
        monkeypatch.setattr(dist, "all_reduce", watched_reduce)
        next(iter(training))
    finally:
        dist.destroy_process_group()
    half = placement.exchanged((1, 28, 28), 10, 6, batch=8, workers=2)
    assert len(calls) == half.calls
    assert gathered + 2 * summed == 2 * half.received  # of two workers each receives half, and gradients go round twice


def test_a_table_of_the_reckoned_is_made_for_up_to_a_thousand(placement: Any) -> None:
    rows = [(figures, row) for _, figures, row in placement.reckoned()]
    assert len(rows) == 6
    received = [figures["bytes"] for figures, _ in rows]
    assert received == sorted(received)
    assert rows[2][1][0].endswith("1000 GPUs")
