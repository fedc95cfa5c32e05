"""Several generators trained as one program, for a device that one of them leaves idle.

A small generator occupies a GPU for as long as it takes to start its operations, not to compute them. Here each
operation is that of all generators: their weights are stacked, and the classifier sees all images as one batch.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from netinv.generators import ConditionedGenerator
from netinv.inversion.bounds import ClassBounds
from netinv.inversion.loop import InversionTraining, Record, load_optimizer, optimization, train
from netinv.inversion.losses import Batch, inversion_loss
from netinv.inversion.step import StepDraws, Terms, draw_step, step_batch


class JointTraining:
    """Does the work of several trainings, up to rounding.

    Nothing couples them: each draws its own random numbers, its batch norm and its losses see its own samples, and its
    state is that of a training alone, in which either can go on.

    Args:
        trainings: Alike but for the seed, of generators of one architecture, all after the same number of steps. The
            tensors of their generators become parts of the stacked ones.

    Raises:
        ValueError: They are not after the same number of steps.
    """

    def __init__(self, trainings: Sequence[InversionTraining]) -> None:
        self.trainings, first = list(trainings), trainings[0]
        self.step = first.step
        if any(training.step != self.step for training in trainings):
            raise ValueError(f"Expected trainings after the same number of steps, got {[t.step for t in trainings]}")
        self.classifier, self.config = first.classifier, first.config
        self.stacked: tuple[Terms, Terms] = stack_module_state([t.generator for t in trainings])
        """Parameters and buffers of all generators, each (G, ...)."""
        tensors = self.stacked[0] | self.stacked[1]
        for i, training in enumerate(trainings):
            for name, tensor in training.generator.state_dict(keep_vars=True).items():
                tensor.data = tensors[name].detach()[i]
        self.optimizer, self.schedule = optimization(self.stacked[0].values(), self.config)
        states = [training.optimizer.state_dict() for training in trainings]
        moments = {
            key: {
                name: value if name == "step" else torch.stack([state["state"][key][name] for state in states])
                for name, value in values.items()
            }
            for key, values in states[0]["state"].items()
        }
        load_optimizer(self.optimizer, states[0] | {"state": moments})
        self.schedule.load_state_dict(first.schedule.state_dict())
        bounds = [training.bounds.state_dict() for training in trainings]
        self.bounds = ClassBounds(self.config, first.generator.num_classes, first.classifier.device)
        self.bounds.load_state_dict({name: torch.stack([own[name] for own in bounds]) for name in bounds[0]})

    @property
    def generators(self) -> Sequence[ConditionedGenerator]:
        """Those of all trainings."""
        return [training.generator for training in self.trainings]

    def __iter__(self) -> Iterator[list[Record]]:
        """Do the steps that are left; see :func:`netinv.inversion.loop.train`."""
        return train(self)

    def draw(self) -> StepDraws:
        """The random numbers of a step of all generators, each from its own state: (G N, ...)."""
        draws = [draw_step(self.config, training.generator, training.rng) for training in self.trainings]
        return StepDraws(*map(torch.cat, zip(*draws, strict=True)))

    def loss(self, draws: StepDraws, every_term: bool = False) -> tuple[Tensor, Terms]:
        """The loss of the step ``step`` of each generator, (G,), its terms and accuracies likewise."""
        classifier, config = self.classifier, self.config
        dropout = self.trainings[0].generator.config.dropout
        # Generators run under vmap; the classifier sees all their images as one batch.
        bounds = self.bounds.of_samples(config.batch_size)
        batch = step_batch(self._generate, classifier, config, draws, self.step, dropout, bounds)
        weigh = partial(inversion_loss, mean=classifier.mean, std=classifier.std, config=config, every_term=every_term)
        each = Batch(*map(self._each, batch))
        worst = self.bounds.follow(each)
        loss, terms = vmap(weigh)(each)
        accuracy, broken = vmap(lambda batch: (batch.accuracy, batch.broken))(each)
        return loss, {"accuracy": accuracy, "worst_class": worst, "broken": broken, **terms}

    def combine_gradients(self) -> None:
        """Nothing to do: the gradients are those of each generator's own batch."""

    def _each(self, tensor: Tensor) -> Tensor:
        """(G N, ...) -> (G, N, ...)."""
        return tensor.reshape(len(self.trainings), self.config.batch_size, *tensor.shape[1:])

    def _generate(self, latent: Tensor, vector: Tensor, noise: Tensor, dropout: float) -> Tensor:
        """Images of all generators, (G N, C, H, W)."""

        def of_one(stacked: tuple[Terms, Terms], *inputs: Tensor) -> Tensor:
            images: Tensor = functional_call(self.trainings[0].generator, stacked, (*inputs, dropout))
            return images

        inputs = map(self._each, (latent, vector, noise))
        images: Tensor = vmap(of_one)(self.stacked, *inputs)
        return images.flatten(0, 1)

    def state_dicts(self) -> list[dict[str, Any]]:
        """The state of each training."""
        state = self.optimizer.state_dict()
        for i, training in enumerate(self.trainings):
            training.step = self.step
            moments = {
                key: {name: value if name == "step" else value[i] for name, value in values.items()}
                for key, values in state["state"].items()
            }
            training.optimizer.load_state_dict(state | {"state": moments})
            training.schedule.load_state_dict(self.schedule.state_dict())
            training.bounds.load_state_dict({name: value[i] for name, value in self.bounds.state_dict().items()})
        return [training.state_dict() for training in self.trainings]
