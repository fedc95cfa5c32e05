"""Audits of any module, as the page shows one: behind an adapter, and left as it was found."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from draws import seed_torch, torch_rng
from torch import nn

import netinv
from netinv.audit import STATUS, MembershipPolicy, Policy, audit, load_audit
from netinv.classifiers import AdaptedClassifier
from netinv.core import InputError
from netinv.data import LabelledImages, load_digits, to_float
from netinv.generators import ConditionedGenerator

QUICK = Policy(membership=MembershipPolicy(shadows=None))


@pytest.fixture(scope="module")
def split() -> LabelledImages:
    return load_digits().train


@pytest.fixture
def network(split: LabelledImages) -> nn.Module:
    """What somebody trained on normalised images, in training mode."""
    seed_torch(0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(256, 10), nn.Dropout(0.5))
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    for index in torch.randperm(700, generator=torch_rng(0)).repeat(3).split(70):
        optimizer.zero_grad()
        images = (to_float(split.images[index]) - 0.3) / 0.4
        nn.functional.cross_entropy(made(images), split.labels[index]).backward()
        optimizer.step()
    return made


def test_the_lines_of_the_page_work(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: nn.Module, split: LabelledImages
) -> None:
    """Those of audit.md, as they stand."""
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (root / "docs/audit.md").read_text(), re.DOTALL)
    generator = ConditionedGenerator(netinv.GeneratorConfig(width=4, max_width=4), 10, (1, 16, 16)).eval()
    classes = tuple("0123456789")
    names: dict[str, Any] = {
        "network": network,
        "inversion": netinv.Inversion(generator, netinv.InversionConfig(), [], classes, 0.5),
        "train_images": to_float(split.images[:700]),
        "train_labels": split.labels[:700],
        "test_images": split.images[700:],
        "test_labels": split.labels[700:],
    }
    exec(block, names)
    record = load_audit(tmp_path / "my-network/audit.json")
    assert record == names["record"]
    assert record.verdict in STATUS
    assert record.architecture == "Sequential"
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_what_a_network_takes_is_told_as_everywhere(network: nn.Module, split: LabelledImages) -> None:
    train, test = (LabelledImages(split.images[a:b], split.labels[a:b]) for a, b in ((0, 500), (500, 1000)))
    adapter = netinv.AdapterConfig(mean=(0.3,), std=(0.4,))
    adapted = AdaptedClassifier(network, (1, 16, 16), 10, adapter)
    found = audit(network, train, test, QUICK, evaluator=adapted, adapter=adapter)
    assert found.adapter == adapter.model_dump(mode="json")
    assert found.checks == audit(adapted, train, test, QUICK, evaluator=adapted).checks
    assert found.checks != audit(network, train, test, QUICK, evaluator=adapted).checks
    assert audit(adapted, train, test, QUICK, evaluator=network).evaluator == found.evaluator  # the same weights
    with pytest.raises(InputError, match="adapted already, with adapter"):
        audit(adapted, train, test, QUICK, adapter=netinv.AdapterConfig(output="logits"))
    small = LabelledImages(split.images[:, :, :8, :8], split.labels)
    for other, words in ((network, "fails"), (adapted, r"takes images of shape \(1, 16, 16\), but the training split")):
        with pytest.raises(InputError, match=words):
            audit(other, small, small, QUICK)
