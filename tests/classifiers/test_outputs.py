"""What networks give: scores in objects and entries, one score for two classes, and what is refused."""

from argparse import Namespace
from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from draws import seed_torch, torch_rng
from foreign_networks import ByView, K, OneScore, Segmentation
from inverting import SHAPE, refused, usable
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier, AdapterConfig, behaviour, check_classifier
from netinv.classifiers.calls import frozen
from netinv.core import InputError

# Most are trained for a step or two only, and say so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Of the classes"),
    pytest.mark.filterwarnings("ignore:Was it trained"),
]

Pair = namedtuple("Pair", ["features", "logits"])


def wrap(container: Callable[[Tensor], Any]) -> nn.Module:
    class Wrapped(ByView):
        def forward(self, images: Tensor) -> Any:
            return container(super().forward(images))

    return Wrapped()


@pytest.mark.parametrize(
    ("container", "entry"),
    [
        (lambda x: SimpleNamespace(logits=x, loss=None), None),
        (lambda x: Namespace(logits=x, other=x[:, :3]), "logits"),
        (lambda x: Pair(x[:, :3], x), "logits"),
        (lambda x: Pair(x[:, :3], x), 1),
        (lambda x: (x[:, :3], x), 1),
    ],
)
def test_scores_in_objects(container: Callable[[Tensor], Any], entry: Any) -> None:
    seed_torch(0)
    network = wrap(container)
    images = torch.rand(3, *SHAPE, generator=torch_rng(0))
    with frozen(network):
        expected = ByView.forward(network, images)
    torch.testing.assert_close(
        AdaptedClassifier(network, SHAPE, K, AdapterConfig(output_entry=entry))(images), expected
    )


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Segmentation(), r"shape \(8, 10, 16, 16\); if those are .* segmentation, .* output.mean\(dim=\(2, 3\)\)\.$"),
        (
            Segmentation(lambda x: {"out": x, "size": 3}),
            r"No entry .*, of out \(8, 10, 16, 16\), size a int; if .* output\['out'\]\.mean\(dim=\(2, 3\)\)\.$",
        ),
        (wrap(lambda x: torch.stack([x, x])), r"shape \(2, 8, 10\); .* an ensemble, .* output\.mean\(dim=0\)\.$"),
        (
            wrap(lambda x: torch.stack([x] * 8)),
            r"\(8, 8, 10\); .* tokens, .*\.mean\(dim=1\), and if .*\.mean\(dim=0\)\.$",
        ),
        (wrap(lambda x: {"a": torch.stack([x, x], dim=1)}), r"tokens, .* output\['a'\]\.mean\(dim=1\)\.$"),
        (wrap(lambda x: Pair(x, x)), r"2 entries .* features \(8, 10\), logits \(8, 10\): name one with output_entry"),
        (wrap(lambda x: x.argmax(dim=1)), r"gives a tensor of shape \(8,\) of int64"),
        (wrap(lambda x: x.view(-1, 5)), r"16 rows of scores for 8 images of shape \(3, 16, 16\)"),
        (wrap(lambda x: x.mean(dim=0).expand(8, K)), "8 rows of scores for 2 images"),
        (OneScore(), "one score for each image: set output to sigmoid"),
        (OneScore(squeeze=True), "one score for each image: set output to sigmoid"),
    ],
)
def test_outputs_that_are_refused(network: nn.Module, message: str) -> None:
    refused(network, message)


def test_where_no_entry_has_the_classes_none_is_to_be_named() -> None:
    network = wrap(lambda x: (torch.cat([x, x[:, :1]], dim=1), x[:, :4]))
    with pytest.raises(InputError, match=r"No entry .* scores for 10 classes .*, of 0 \(8, 11\), 1 \(8, 4\)\.$"):
        AdaptedClassifier(network, SHAPE, K)


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_one_score_is_two_classes(sigmoid: bool, squeeze: bool) -> None:
    network = OneScore(sigmoid, squeeze)
    with torch.no_grad():
        network.out.weight.mul_(0.3)
        network.out.bias.fill_(0.5)  # all scores of plain images lie in [0, 1]
    adapted = AdaptedClassifier(network, SHAPE, 2, AdapterConfig(output="sigmoid"))
    images = torch.rand(3, *SHAPE, generator=torch_rng(0))
    with frozen(network):
        scores = network.out(network.embed(images)).squeeze(1)
    logits = adapted(images)
    assert adapted.num_classes == 2
    assert adapted.output == ("sigmoid" if sigmoid else "logits")
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1], scores.sigmoid(), atol=1e-5, rtol=1e-4)
    usable(network, output="sigmoid")


def test_a_sigmoid_for_each_class() -> None:
    network = wrap(torch.sigmoid)
    report = check_classifier(network, SHAPE)
    assert "set output to sigmoid" in " ".join(finding.message for finding in report.findings)
    # Logits, those of the probes in [0, 1].
    by_chance = AdaptedClassifier(wrap(lambda scores: 0.5 + 0.1 * scores), SHAPE)
    assert 0 <= by_chance.output_range[0] < by_chance.output_range[1] <= 1
    assert "output" not in {finding.code for finding in behaviour(by_chance)}
    images = torch.rand(3, *SHAPE, generator=torch_rng(0))
    logits = AdaptedClassifier(network, SHAPE, K, AdapterConfig(output="sigmoid"))(images)
    with frozen(network):
        torch.testing.assert_close(logits, ByView.forward(network, images), atol=1e-5, rtol=1e-4)
    usable(network, output="sigmoid")
