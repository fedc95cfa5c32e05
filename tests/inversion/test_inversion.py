"""Inversion of a small classifier: it reaches its goal, is reproducible, and does what its settings say."""

import io
import math
from typing import Any, Literal

import pytest
import torch
from draws import seed_torch, torch_rng
from pydantic import ValidationError
from torch import nn

from netinv.classifiers import AdaptedClassifier, Classifier, ConvClassifierConfig, adapt, build_classifier, freeze
from netinv.core import InputError
from netinv.core.precision import lower_precision
from netinv.generators import ConditionedGenerator, GeneratorConfig, condition_of, draw_condition
from netinv.inversion import InversionConfig, InversionTraining, JointTraining, invert
from netinv.inversion.step import dropout_at
from netinv.perturbations import robust_accuracy

SMALL = GeneratorConfig(latent_dim=8, hidden_dim=16, width=8, max_width=16)


def bright_third(batch_norm: bool) -> Classifier:
    """Three classes: the bright third of a 9 x 8 image; hardly any training needed to tell them."""
    seed_torch(0)
    config = ConvClassifierConfig(channels=(8,), feature_dim=16, batch_norm=batch_norm)
    network = build_classifier(config, 3, (1, 9, 8), (0.5,), (0.3,))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        label = torch.randint(3, (64,))
        images = 0.5 * torch.rand(64, 1, 9, 8)
        images[torch.arange(64), 0, 3 * label + 1] += 0.5
        loss = torch.nn.functional.cross_entropy(network(images), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.zero_grad()
    freeze(network)
    return network


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return bright_third(batch_norm=False)


@pytest.fixture(scope="module")
def with_batch_norm() -> Classifier:
    return bright_third(batch_norm=True)


def inverted(
    classifier: Classifier, config: InversionConfig, seed: int = 0
) -> tuple[ConditionedGenerator, list[dict[str, float]]]:
    seed_torch(seed)
    generator = ConditionedGenerator(SMALL, 3, (1, 9, 8))
    return generator, list(invert(generator, classifier, config, seed))


@torch.no_grad()
def samples(generator: ConditionedGenerator, config: InversionConfig) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch_rng(99)
    condition = condition_of(*draw_condition(500, 3, config.sharpness, rng), config.sharpness)
    return generator(torch.randn(500, 8, generator=rng), condition.vector), condition.label


PRECISIONS = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


@PRECISIONS
def test_reaches_its_goal(classifier: Classifier, precision: Literal["float32", "bfloat16"]) -> None:
    config = InversionConfig(steps=150, batch_size=32, lr=5e-3, sharpness=(3.0, 3.0), precision=precision, log_every=60)
    generator, records = inverted(classifier, config)
    assert [record["step"] for record in records] == [60, 120, 150]
    assert records[-1]["samples"] == 150 * 32
    assert not generator.training
    images, label = samples(generator, config)
    assert (classifier(images).argmax(dim=1) == label).float().mean() > 0.97


@pytest.mark.parametrize(("shape", "upsampling"), [((1, 2, 48), "transposed"), ((1, 40, 2), "resize")])
def test_draws_what_is_fine_along_the_long_side_of_a_thin_image(
    shape: tuple[int, int, int], upsampling: Literal["resize", "transposed"]
) -> None:
    """Three classes: four, seven and ten waves. A generator that cannot draw waves comes to two of the three."""
    seed_torch(0)
    places = torch.arange(max(shape)).view(1, -1, 1) / max(shape)
    waves = torch.sin(2 * math.pi * torch.tensor([4, 7, 10]).view(3, 1, 1) * places)  # down, (3, H, 1)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(shape), 3, bias=False))
    rows = (waves if shape[1] > shape[2] else waves.mT).expand(3, *shape[1:])
    network[1].weight.data = rows.flatten(1)
    classifier = AdaptedClassifier(network, shape)
    freeze(classifier)
    generator = ConditionedGenerator(SMALL.model_copy(update={"upsampling": upsampling}), 3, shape)
    config = InversionConfig(steps=60, batch_size=32, lr=5e-3, sharpness=(10.0, 10.0))
    assert list(invert(generator, classifier, config, seed=0))
    images, label = samples(generator, config)
    assert (classifier(images).argmax(dim=1) == label).float().mean() > 0.85


def test_robust_samples_survive_what_standard_ones_do_not(classifier: Classifier) -> None:
    standard = InversionConfig(steps=150, batch_size=32, lr=5e-3, sharpness=(5.0, 5.0))
    robust = standard.model_copy(update={"alpha": 0.1, "perturbation": "pgd", "epsilon": 0.2, "shift": 1})
    kept = {}
    for name, config in (("standard", standard), ("robust", robust)):
        images, label = samples(inverted(classifier, config)[0], config)
        kept[name] = robust_accuracy(classifier, images, label, epsilon=0.15, steps=10)
    assert kept["robust"] > kept["standard"] + 0.1


@pytest.mark.parametrize("perturbation", ["none", "noise", "pgd"])
def test_a_seed_reproduces_bit_for_bit(classifier: Classifier, perturbation: str) -> None:
    settings = {"perturbation": perturbation, "epsilon": 0.1 if perturbation != "none" else 0.0, "shift": 1}
    config = InversionConfig.parse({"steps": 5, "batch_size": 8, **settings})
    (first, records), (again, same), (other, _) = (inverted(classifier, config, seed) for seed in (3, 3, 4))
    assert records == same
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("stop", [1, 4, 7])
@PRECISIONS
def test_a_resumed_training_ends_as_the_undisturbed_one_bit_for_bit(
    classifier: Classifier, precision: Literal["float32", "bfloat16"], stop: int
) -> None:
    config = InversionConfig(
        steps=7,
        batch_size=8,
        sharpness=(1, 5),
        perturbation="pgd",
        epsilon=0.1,
        shift=1,
        distortion=0.2,
        precision=precision,
        log_every=1,
    )
    undisturbed, records = inverted(classifier, config, seed=3)
    seed_torch(3)
    interrupted = InversionTraining(ConditionedGenerator(SMALL, 3, (1, 9, 8)), classifier, config, seed=3)
    first = [record for _, record in zip(range(stop), interrupted, strict=False)]
    saved = io.BytesIO()
    torch.save(interrupted.state_dict(), saved)
    list(interrupted)  # what is done afterwards does not reach the state
    saved.seek(0)
    resumed = InversionTraining(ConditionedGenerator(SMALL, 3, (1, 9, 8)), classifier, config, seed=99)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    assert first + list(resumed) == records
    expected, got = undisturbed.state_dict(), resumed.generator.state_dict()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_state_of_another_kind_of_device_is_refused_and_changes_nothing(classifier: Classifier) -> None:
    """A GPU's random state has 16 bytes. After the last step nothing is drawn any more, and it is of no matter."""
    config = InversionConfig(steps=3, batch_size=8, log_every=1)
    _, records = inverted(classifier, config, seed=3)
    seed_torch(3)
    training = InversionTraining(ConditionedGenerator(SMALL, 3, (1, 9, 8)), classifier, config, seed=3)
    other = InversionTraining(ConditionedGenerator(SMALL, 3, (1, 9, 8)), classifier, config, seed=4)
    foreign = {"rng": torch.zeros(16, dtype=torch.uint8)}
    next(iter(other))
    with pytest.raises(InputError, match="from another kind of device than cpu"):
        training.load_state_dict(other.state_dict() | foreign)
    assert list(training) == records
    training.load_state_dict(training.state_dict() | foreign)
    assert list(training) == []


@pytest.mark.parametrize("perturbation", ["none", "noise", "pgd"])
def test_precisions_differ_by_rounding_and_keep_all_but_the_layers(classifier: Classifier, perturbation: str) -> None:
    settings = {"perturbation": perturbation, "epsilon": 0.1 if perturbation != "none" else 0.0, "shift": 1}
    config = InversionConfig.parse({"steps": 10, "batch_size": 32, "log_every": 1, **settings})
    (exact, expected), (rounded, records) = (
        inverted(classifier, config.model_copy(update={"precision": precision}))
        for precision in ("float32", "bfloat16")
    )
    assert records != expected
    for record in (*records, *expected):
        del record["accuracy"], record["worst_class"]  # count samples, and rounding may turn the answer to one
    assert records[0] == pytest.approx(expected[0], rel=0.03, abs=0.03)  # of the same weights
    assert records == [pytest.approx(record, rel=0.1, abs=0.1) for record in expected]
    assert {weight.dtype for weight in rounded.parameters()} == {torch.float32}
    distance = torch.cat([(a - b).flatten() for a, b in zip(exact.parameters(), rounded.parameters(), strict=True)])
    start = torch.cat(
        [p.flatten() for p in inverted(classifier, config.model_copy(update={"steps": 1}))[0].parameters()]
    )
    moved = torch.cat([p.flatten() for p in exact.parameters()]) - start
    assert distance.norm() < 0.4 * moved.norm()  # 0.07 to 0.17 were seen


@pytest.mark.parametrize(
    ("precision", "device", "can", "lower"),
    [
        ("auto", "cpu", {"avx512_bf16": True}, True),
        ("auto", "cpu", {"avx512_bf16": False, "amx_bf16": True}, True),
        ("auto", "cpu", {"avx512_bf16": False}, False),
        ("auto", "cpu", {}, False),
        ("auto", "meta", {"avx512_bf16": True}, False),
        ("float32", "cpu", {"avx512_bf16": True}, False),
        ("bfloat16", "cpu", {}, True),
    ],
)
def test_the_precision_is_chosen_by_the_processor_unless_it_is_set(
    precision: Any, device: str, can: dict[str, bool], lower: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    assert lower_precision(precision, torch.device(device)) is lower


def test_dropout_is_gone_at_the_end() -> None:
    """Images are drawn without it, and a generator trained with it to the end may be read wrong then."""
    config = InversionConfig(steps=5)
    assert [dropout_at(step, config, 0.2) for step in range(1, 6)] == pytest.approx([0.2, 0.2, 0.16, 0.08, 0.0])


def test_between_records_and_after_an_early_end_networks_are_as_for_drawing(classifier: Classifier) -> None:
    seed_torch(0)
    generator = ConditionedGenerator(SMALL, 3, (1, 9, 8))
    latent, vector = torch.randn(4, 8), torch.eye(3)[[0, 1, 2, 0]]
    drawn = []
    for _ in InversionTraining(generator, classifier, InversionConfig(steps=6, batch_size=8, log_every=2), seed=0):
        assert not any(module.training for module in (*generator.modules(), *classifier.modules()))
        drawn.append(generator(latent, vector))
        assert torch.equal(generator(latent, vector), drawn[-1])  # drawing leaves no trace, and drops nothing
        if len(drawn) == 2:
            break
    assert not torch.equal(*drawn)
    assert not any(module.training for module in (*generator.modules(), *classifier.modules()))
    assert {module.p for module in generator.modules() if isinstance(module, torch.nn.Dropout2d)} == {0.2}


def test_logging_changes_nothing_and_reports_every_term(with_batch_norm: Classifier) -> None:
    config = InversionConfig(
        steps=6,
        batch_size=8,
        delta=0.5,
        total_variation=0.3,
        pixel_statistics=0.2,
        layer_statistics=0.4,
        latent_field=0.7,
    )
    often, records = inverted(with_batch_norm, config.model_copy(update={"log_every": 1}))
    seldom, _ = inverted(with_batch_norm, config.model_copy(update={"log_every": 6}))
    assert all(torch.equal(a, b) for a, b in zip(often.parameters(), seldom.parameters(), strict=True))
    weights = {
        "kl": 1,
        "cross_entropy": 1,
        "cosine": 0.1,
        "orthogonality": 0.5,
        "total_variation": 0.3,
        "pixel_statistics": 0.2,
        "layer_statistics": 0.4,
        "latent_field": 0.7,
    }
    for record in records:
        assert record["loss"] == pytest.approx(sum(weight * record[name] for name, weight in weights.items()), rel=1e-5)
        assert all(math.isfinite(value) for value in record.values())


@pytest.mark.parametrize(
    ("term", "weights"),
    [
        ("cosine", {"gamma": 3.0}),
        ("orthogonality", {"delta": 3.0}),
        ("total_variation", {"total_variation": 5.0}),
        ("pixel_statistics", {"pixel_statistics": 5.0}),
        ("latent_field", {"latent_field": 5.0}),
    ],
)
def test_a_weight_lowers_its_term(classifier: Classifier, term: str, weights: dict[str, float]) -> None:
    plain = InversionConfig(steps=60, batch_size=32, lr=5e-3, gamma=0)
    _, without = inverted(classifier, plain)
    _, weighted = inverted(classifier, plain.model_copy(update=weights))
    assert weighted[-1][term] < without[-1][term]


def test_layer_statistics_come_nearer_to_those_of_training(with_batch_norm: Classifier) -> None:
    plain = InversionConfig(steps=60, batch_size=32, lr=5e-3, gamma=0, layer_statistics=1e-6)
    _, without = inverted(with_batch_norm, plain)
    _, weighted = inverted(with_batch_norm, plain.model_copy(update={"layer_statistics": 5.0}))
    assert weighted[-1]["layer_statistics"] < without[-1]["layer_statistics"]


def test_layer_statistics_of_a_classifier_without_batch_norm_are_refused(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match="needs a classifier with batch norm"):
        inverted(classifier, InversionConfig(steps=2, batch_size=8, layer_statistics=1.0))


def test_the_classifier_is_left_alone(classifier: Classifier) -> None:
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    inverted(classifier, InversionConfig(steps=3, batch_size=8, perturbation="pgd", epsilon=0.1))
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())
    assert all(weight.grad is None for weight in classifier.parameters())


class Lapsing(nn.Module):
    """Gives no numbers the third time that it is asked, and after it numbers for whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.asked = nn.Linear(72, 3), -2  # twice by the adapter

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return self.layer(images.flatten(1)) * (torch.nan if self.asked == 3 else 1)


@pytest.mark.parametrize("several", [False, True])
def test_scores_that_are_not_finite_are_told_as_the_classifier_s(several: bool) -> None:
    """Also where they were so some steps before the record, and the generator draws nothing sound any more."""
    classifier = adapt(Lapsing(), (1, 9, 8))
    config = InversionConfig(steps=8, batch_size=8, log_every=5)
    trainings = [InversionTraining(ConditionedGenerator(SMALL, 3, (1, 9, 8)), classifier, config, s) for s in (0, 1)]
    told = "^The classifier's scores are not finite for some generated images, by step 5: mend it there"
    with pytest.raises(InputError, match=told):
        list(JointTraining(trainings) if several else trainings[0])


def test_a_loss_that_is_not_finite_stops_and_names_the_step(classifier: Classifier) -> None:
    with pytest.raises(FloatingPointError, match=r"at step 1;"):
        inverted(classifier, InversionConfig(steps=3, batch_size=8, log_every=1).model_copy(update={"beta": 1e39}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sharpness": (3.0, 1.0)}, "low <= high"),
        ({"epsilon": 0.1}, "perturbation"),
        ({"perturbation": "pgd"}, "epsilon above 0"),
        ({"alpha": 0.0, "beta": 0.0}, "alpha or beta"),
        ({"batch_size": 1}, "greater than or equal to 2"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        InversionConfig.model_validate(settings)
