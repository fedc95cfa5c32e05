"""Generators trained as one program against each trained alone."""

import copy
import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytest
import torch
from draws import seed_torch
from torch.utils._python_dispatch import TorchDispatchMode

from netinv.classifiers import Classifier, ConvClassifierConfig, build_classifier, freeze
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, InversionTraining, JointTraining

SEEDS = (3, 7, 8)
SMALL = GeneratorConfig(latent_dim=8, hidden_dim=16, width=8, max_width=16, bending=0.05, softening=0.5, toning=0.5)
STANDARD = InversionConfig(steps=8, batch_size=12, sharpness=(1.0, 5.0), precision="float32", log_every=2)
ROBUST = InversionConfig(
    steps=8,
    batch_size=12,
    sharpness=(10.0, 10.0),
    gamma=1.0,
    delta=0.5,
    total_variation=0.3,
    pixel_statistics=1.0,
    latent_field=1.0,
    layer_statistics=1.0,
    shift=2,
    distortion=0.2,
    perturbation="pgd",
    epsilon=0.1,
    attack_steps=2,
    precision="float32",
    log_every=2,
)
OWN_BOUNDS = ROBUST.model_copy(update={"survival": 0.02})
CASES = {
    "standard": (SMALL, STANDARD),
    "label embedding": (SMALL.model_copy(update={"conditioning": "embedding"}), STANDARD),
    "no dropout": (SMALL.model_copy(update={"dropout": 0.0}), STANDARD),
    "robust": (SMALL, ROBUST),
    "noise": (SMALL, ROBUST.model_copy(update={"perturbation": "noise"})),
    "l2": (SMALL, ROBUST.model_copy(update={"norm": "l2", "epsilon": 0.5})),
    "own bounds": (SMALL, OWN_BOUNDS),
}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    seed_torch(0)
    network = build_classifier(ConvClassifierConfig(channels=(8,), feature_dim=16), 3, (1, 9, 8), (0.5,), (0.3,))
    freeze(network)
    return network


@pytest.fixture
def exact(classifier: Classifier) -> Iterator[Classifier]:
    """All in float64, where rounding neither turns the sign of an attack nor grows through Adam's division."""
    torch.set_default_dtype(torch.float64)
    yield copy.deepcopy(classifier).double()
    torch.set_default_dtype(torch.float32)


def losses(record: dict[str, float]) -> dict[str, float]:
    """All but what counts samples: rounding may turn the answer to one."""
    return {name: value for name, value in record.items() if name not in {"accuracy", "worst_class"}}


def trainings(
    classifier: Classifier, architecture: GeneratorConfig, config: InversionConfig, seeds: Sequence[int] = SEEDS
) -> list[InversionTraining]:
    """Fresh ones, of the classifier's precision."""
    result = []
    for seed in seeds:
        seed_torch(seed)
        generator = ConditionedGenerator(architecture, 3, (1, 9, 8)).to(classifier.mean.dtype)
        result.append(InversionTraining(generator, classifier, config, seed))
    return result


@pytest.mark.parametrize("name", CASES)
def test_each_is_trained_as_it_would_be_alone(exact: Classifier, name: str) -> None:
    alone, together = (trainings(exact, *CASES[name]) for _ in range(2))
    expected = [list(training) for training in alone]
    records = list(JointTraining(together))
    for i, training in enumerate(alone):
        state = together[i].generator.state_dict()
        for key, tensor in training.generator.state_dict().items():
            torch.testing.assert_close(state[key], tensor, rtol=1e-8, atol=1e-10, msg=f"generator {i}, {key}")
        assert [record[i] for record in records] == [pytest.approx(record, rel=1e-8) for record in expected[i]]
        assert not together[i].generator.training
    weights = [training.generator.project[0].weight for training in together]
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.15)])
def test_lower_precisions_agree_too(
    classifier: Classifier, precision: Literal["float32", "bfloat16"], tolerance: float
) -> None:
    config = STANDARD.model_copy(update={"precision": precision})
    alone, together = (trainings(classifier, SMALL, config) for _ in range(2))
    expected = [list(training) for training in alone]
    records = list(JointTraining(together))
    for i, training in enumerate(alone):
        got = [losses(record[i]) for record in records]
        assert got == [pytest.approx(losses(record), rel=tolerance, abs=tolerance) for record in expected[i]]
        for key, tensor in training.generator.state_dict().items():
            error = (together[i].generator.state_dict()[key] - tensor).abs().max()
            assert error <= tolerance * (1 + tensor.abs().max()), key


def resumed(classifier: Classifier, states: list[dict[str, Any]]) -> list[InversionTraining]:
    """Trainings that were saved as a pipeline does, and loaded."""
    others = trainings(classifier, SMALL, OWN_BOUNDS)[::-1]  # nothing of them stays
    for training, state in zip(others, states, strict=True):
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        training.load_state_dict(torch.load(file, weights_only=True))
    return others


def test_a_state_goes_on_together_bit_for_bit_and_alone_up_to_rounding(exact: Classifier) -> None:
    undisturbed = trainings(exact, SMALL, OWN_BOUNDS)
    records = list(JointTraining(undisturbed))
    interrupted = JointTraining(trainings(exact, SMALL, OWN_BOUNDS))
    first = [next(iter(interrupted))]
    states = interrupted.state_dicts()
    list(interrupted)  # what is done afterwards does not reach the states
    together, alone = resumed(exact, states), resumed(exact, states)
    assert first + list(JointTraining(together)) == records
    for i, training in enumerate(alone):
        rest = [record[i] for record in records[1:]]
        assert list(training) == [pytest.approx(record, rel=1e-8) for record in rest]
        expected = undisturbed[i].generator.state_dict()
        for key, tensor in together[i].generator.state_dict().items():
            assert torch.equal(tensor, expected[key]), key
            torch.testing.assert_close(training.generator.state_dict()[key], tensor, rtol=1e-8, atol=1e-10)


def test_the_state_of_one_trained_alone_goes_on_together(exact: Classifier) -> None:
    alone = trainings(exact, SMALL, OWN_BOUNDS)
    states = []
    for training in alone:
        next(iter(training))
        states.append(training.state_dict())
    joint = JointTraining(resumed(exact, states))
    assert joint.step == 2
    records = list(joint)
    for i, training in enumerate(alone):
        assert list(training) == [pytest.approx(record[i], rel=1e-8) for record in records]


def test_trainings_after_different_numbers_of_steps_are_refused(classifier: Classifier) -> None:
    several = trainings(classifier, SMALL, STANDARD)
    next(iter(several[1]))
    with pytest.raises(ValueError, match=r"same number of steps, got \[0, 2, 0\]"):
        JointTraining(several)


def test_a_loss_that_is_not_finite_stops_and_names_the_step(classifier: Classifier) -> None:
    config = STANDARD.model_copy(update={"beta": 1e39, "log_every": 1})
    with pytest.raises(FloatingPointError, match=r"at step 1;"):
        list(JointTraining(trainings(classifier, SMALL, config)))


def test_one_alone_may_be_a_joint_training(classifier: Classifier) -> None:
    """And asks for all terms only where it is told to. In float32: torch has no such gradient in float64 on a CPU."""
    alone, together = (trainings(classifier, SMALL, ROBUST)[:1] for _ in range(2))
    record, (found,) = next(iter(alone[0])), next(iter(JointTraining(together)))
    assert losses(found) == pytest.approx(losses(record), rel=1e-2)
    fresh = JointTraining(trainings(classifier, SMALL, STANDARD.model_copy(update={"gamma": 0.0}))[:1])
    assert "cosine" not in fresh.loss(fresh.draw())[1]
    assert "cosine" in fresh.loss(fresh.draw(), every_term=True)[1]


class Operations(TorchDispatchMode):
    """Counts what a device is asked to compute."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, and pass on; views compute nothing."""
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["standard", "own bounds"])
def test_sixteen_generators_start_no_more_operations_than_two(classifier: Classifier, name: str) -> None:
    """Their own random numbers aside."""
    started = []
    for num in (2, 16):
        joint = JointTraining(trainings(classifier, *CASES[name], seeds=range(num)))
        draws = joint.draw()
        with Operations() as operations:
            loss, _ = joint.loss(draws, every_term=True)
            torch.autograd.backward(loss.sum())
            joint.optimizer.step()
        started.append(operations.count)
    assert started[1] == started[0] > 100
