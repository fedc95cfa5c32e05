"""Several generators trained as one program, for a device that one of them leaves idle.

A small generator occupies a GPU for as long as it takes to start its operations, not to compute them. Here each
operation is that of all generators: their weights are stacked, and the classifier sees all images as one batch.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.overrides import TorchFunctionMode

from netinv.core import autocast
from netinv.generators import Condition, sample_condition
from netinv.inversion.loop import (
    InversionTraining,
    classify,
    dropout_at,
    load_optimizer,
    loss_terms,
    optimization,
    perturbed,
)

Tensors = dict[str, Tensor]


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
        """Steps done by each."""
        if any(training.step != self.step for training in trainings):
            raise ValueError(f"Expected trainings after the same number of steps, got {[t.step for t in trainings]}")
        self.classifier, self.config = first.classifier, first.config
        self.stacked: tuple[Tensors, Tensors] = stack_module_state([t.generator for t in trainings])
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

    def __iter__(self) -> Iterator[list[dict[str, float]]]:
        """Do the steps that are left.

        Yields:
            When a training alone would yield a record: those of all generators.

        Raises:
            FloatingPointError: The loss of a generator is not finite; names the step.
        """
        classifier, config = self.classifier, self.config
        generators, rngs = [t.generator for t in self.trainings], [t.rng for t in self.trainings]
        first, rng = generators[0], rngs[0]  # these stand for all
        num, size = len(generators), len(generators) * config.batch_size
        weights = {name: weight for name, weight in config.weights.items() if weight}

        def each(tensor: Tensor) -> Tensor:
            return tensor.reshape(num, config.batch_size, *tensor.shape[1:])  # (G N, ...) -> (G, N, ...)

        for generator in generators:
            generator.train()
        while self.step < config.steps:
            self.step += 1
            first.set_dropout(dropout_at(self.step, first, config))
            with OwnDraws(rngs), autocast(config.precision, rng.device):
                condition = sample_condition(size, classifier.num_classes, rng, config.sharpness)
                latent = torch.randn(size, first.config.latent_dim, generator=rng, device=rng.device)  # (G N, Z)
                dropped = torch.rand(size, first.noise_dim, generator=rng, device=rng.device)  # (G N, U)
                inputs = map(each, (latent, condition.vector, dropped))
                images = vmap(self._generate)(self.stacked, *inputs).flatten(0, 1).to(latent.dtype)  # (G N, C, H, W)
                seen = perturbed(images, condition, classifier, config, self.step, rng)
                logits, features, moments = classify(seen, classifier, config)  # (G N, K), (G N, D), (G N, 2, S)
            condition = Condition(*map(each, condition))
            batch = each(images), each(logits), each(features), each(moments), condition
            values = self._values(list(weights), batch)
            loss = torch.stack([weights[name] * value for name, value in values.items()]).sum(dim=0)  # (G,)
            self.optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()
            if self.step % config.log_every == 0 or self.step == config.steps:
                others = [name for name in config.weights if name not in weights]
                with torch.no_grad():
                    values |= self._values(others, batch)
                accuracy = (each(logits).argmax(dim=2) == condition.label).float().mean(dim=1)
                yield self._records({"accuracy": accuracy} | {n: values[n] for n in config.weights} | {"loss": loss})
        for generator in generators:
            generator.eval().set_dropout(generator.config.dropout)

    def _generate(self, stacked: tuple[Tensors, Tensors], *inputs: Tensor) -> Tensor:
        """Images of one generator, (N, C, H, W); ``vmap`` makes it all of them."""
        with _WideNorm():
            images: Tensor = functional_call(self.trainings[0].generator, stacked, inputs)
        return images

    def _values(self, names: list[str], batch: tuple[Tensor, Tensor, Tensor, Tensor, Condition]) -> Tensors:
        """Terms of the loss by name, each (G,), of images (G, N, C, H, W), and what goes with them likewise."""

        def of_one(images: Tensor, logits: Tensor, features: Tensor, moments: Tensor, condition: Condition) -> Tensors:
            terms = loss_terms(images, logits, features, moments, condition, self.classifier)
            return {name: terms[name]() for name in names}

        values: Tensors = vmap(of_one)(*batch) if names else {}
        return values

    def _records(self, values: Tensors) -> list[dict[str, float]]:
        """What a training alone yields, of each generator."""
        table = torch.stack(list(values.values()), dim=1).tolist()  # one transfer from the device
        records = [dict(zip(values, row, strict=True)) for row in table]
        for record in records:
            if not math.isfinite(record["loss"]):
                raise FloatingPointError(f"The inversion loss is {record['loss']} at step {self.step}; lower the lr.")
        samples = self.step * self.config.batch_size
        return [{"step": self.step, "samples": samples} | record for record in records]

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
        return [training.state_dict() for training in self.trainings]


class OwnDraws(TorchFunctionMode):
    """A context in which dimension 0 of a random draw is the batches of several generators, each from its own state."""

    def __init__(self, rngs: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.rngs = rngs

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Draw from each, and pass on what draws nothing."""
        kwargs = kwargs or {}
        if kwargs.get("generator") is None:
            return func(*args, **kwargs)
        if func not in (torch.rand, torch.randn, torch.randint):
            raise NotImplementedError(f"{func.__name__} would draw the same for every generator")
        *bounds, shape = args if isinstance(args[-1], Sequence) else [args]
        own = (shape[0] // len(self.rngs), *shape[1:])
        return torch.cat([func(*bounds, own, **{**kwargs, "generator": rng}) for rng in self.rngs])


class _WideNorm(TorchFunctionMode):
    """A context in which batch norm computes in the precision of its statistics: ``vmap`` cannot mix the two."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.batch_norm:
            return func(*args, **kwargs or {})
        x, running_mean, *others = args
        return func(x.to(running_mean.dtype), running_mean, *others, **kwargs or {}).to(x.dtype)
