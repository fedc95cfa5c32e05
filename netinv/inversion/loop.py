"""The inversion loop: iterate over it, stop whenever you like, and go on from its state, elsewhere and later."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from netinv.classifiers import BatchNormInputs, InvertibleClassifier
from netinv.core import autocast
from netinv.generators import Condition, ConditionedGenerator, sample_condition
from netinv.inversion.config import InversionConfig
from netinv.inversion.losses import (
    cosine_loss,
    kl_loss,
    layer_statistics_loss,
    orthogonality_loss,
    pixel_statistics_loss,
    total_variation_loss,
)
from netinv.inversion.parallel import GlobalBatch
from netinv.perturbations import augment, noise, pgd


def dropout_at(step: int, generator: ConditionedGenerator, config: InversionConfig) -> float:
    """Probability of dropout in a step: the generator's own, and over the second half of the steps down to 0."""
    return generator.config.dropout * min(1.0, 2 * (1 - step / config.steps))


def perturbed(
    images: Tensor,
    condition: Condition,
    classifier: InvertibleClassifier,
    config: InversionConfig,
    step: int,
    rng: torch.Generator,
) -> Tensor:
    """What the classifier gets to see in a step, (N, C, H, W)."""
    epsilon = config.epsilon * min(1.0, step / max(1.0, config.epsilon_ramp * config.steps))
    seen = augment(images, config.shift, False, rng, config.distortion)
    if config.perturbation == "noise":
        return seen + noise(seen.detach(), epsilon, config.norm, rng)
    if config.perturbation == "pgd":
        attack_steps, step_size = config.attack_steps, config.attack_step_size
        return seen + pgd(classifier, seen, condition.label, epsilon, attack_steps, step_size, config.norm, rng)
    return seen


def classify(
    images: Tensor, classifier: InvertibleClassifier, config: InversionConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """What the classifier says of images, in their precision.

    Returns:
        Logits (N, K), features (N, D), and of its batch norms the moments (N, 2, S) of
        :class:`netinv.classifiers.BatchNormInputs`, with S = 0 where the loss does not ask for them.

    Raises:
        ValueError: The loss asks for the moments, and the classifier has no batch norm.
    """
    with BatchNormInputs() if config.layer_statistics else nullcontext() as inputs:
        logits, features = classifier(images, return_features=True)
    moments = inputs.moments(images) if inputs else images.new_zeros(len(images), 2, 0)
    if inputs and not moments.shape[2]:
        raise ValueError("layer_statistics needs a classifier with batch norm")
    return logits.to(images.dtype), features.to(images.dtype), moments.to(images.dtype)


def loss_terms(
    images: Tensor,
    logits: Tensor,
    features: Tensor,
    moments: Tensor,
    condition: Condition,
    classifier: InvertibleClassifier,
) -> dict[str, Callable[[], Tensor]]:
    """Every term of the loss of a batch, unweighted, to be called: one without a weight is seldom wanted.

    That of the layers' statistics is among them only where there are moments.
    """
    layers = {"layer_statistics": partial(layer_statistics_loss, moments)} if moments.shape[-1] else {}
    return {
        **layers,
        "kl": partial(kl_loss, logits, condition.vector),
        "cross_entropy": partial(F.cross_entropy, logits, condition.label),
        "cosine": partial(cosine_loss, features),
        "orthogonality": partial(orthogonality_loss, features),
        "total_variation": partial(total_variation_loss, images),
        "pixel_statistics": partial(pixel_statistics_loss, images, classifier.mean, classifier.std),
    }


def optimization(
    parameters: Iterable[Tensor], config: InversionConfig
) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.OneCycleLR]:
    """The optimizer of some parameters, and its schedule."""
    optimizer = torch.optim.Adam(parameters, lr=config.lr, betas=(0.9, 0.99), fused=True)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps)


def load_optimizer(optimizer: torch.optim.Adam, state: dict[str, Any]) -> None:
    """Load a state of Adam, its moments laid out in memory as the parameters: the fused step takes that for granted."""
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            values[name] = torch.empty_like(parameter).copy_(values[name])


class InversionTraining:
    """Trains a generator in place against a frozen classifier, both on the classifier's device.

    Iterating does the work. Between two records, :meth:`state_dict` is all that the rest of the work depends on: given
    to another one of the same settings it ends, on a CPU of the same kind, with the same weights bit for bit.

    Dropout falls to 0 over the second half of the steps: images are drawn without it, and a generator that never went
    without may be read right only with it.

    The four lines of the method: draw a condition, generate, classify, weigh the losses. Under a perturbation the
    classifier sees the perturbed images only, so that the label must survive it.

    Args:
        generator: To be trained.
        classifier: Frozen.
        config: The loss and its optimisation.
        seed: Fixes every draw.
        shared: Set in each of several workers, which then do together what one alone would do.
    """

    def __init__(
        self,
        generator: ConditionedGenerator,
        classifier: InvertibleClassifier,
        config: InversionConfig,
        seed: int,
        shared: GlobalBatch | None = None,
    ) -> None:
        self.generator, self.classifier, self.config, self.shared = generator, classifier, config, shared
        self.rng = torch.Generator(classifier.device).manual_seed(seed)
        self.optimizer, self.schedule = optimization(generator.parameters(), config)
        self.step = 0
        """Steps done."""

    def __iter__(self) -> Iterator[dict[str, float]]:
        """Do the steps that are left.

        Yields:
            Every ``log_every`` steps and after the last: ``step``, ``samples`` drawn so far, ``accuracy`` on the batch,
            ``loss`` and each of its terms, unweighted, whether or not its weight is 0 (but for ``layer_statistics``).

        Raises:
            FloatingPointError: The loss is not finite; names the step.
        """
        generator, classifier, config, rng, shared = (
            self.generator,
            self.classifier,
            self.config,
            self.rng,
            self.shared,
        )
        size = shared.local_size if shared else config.batch_size
        weights = config.weights
        generator.train()
        while self.step < config.steps:
            self.step += 1
            generator.set_dropout(dropout_at(self.step, generator, config))
            with shared or nullcontext(), autocast(config.precision, rng.device):
                condition = sample_condition(size, classifier.num_classes, rng, config.sharpness)
                latent = torch.randn(size, generator.config.latent_dim, generator=rng, device=rng.device)  # (N, Z)
                dropped = torch.rand(size, generator.noise_dim, generator=rng, device=rng.device)  # (N, U)
                images = generator(latent, condition.vector, dropped).to(latent.dtype)  # (N, C, H, W)
                seen = perturbed(images, condition, classifier, config, self.step, rng)
                logits, features, moments = classify(seen, classifier, config)  # (N, K), (N, D), (N, 2, S)
            if shared:  # the losses are of the whole batch
                images, logits, features, moments = map(shared.gather, (images, logits, features, moments))
                condition = Condition(*map(shared.gather, condition))
            terms = loss_terms(images, logits, features, moments, condition, classifier)
            values = {name: terms[name]() for name, weight in weights.items() if weight}
            loss = torch.stack([weights[name] * value for name, value in values.items()]).sum()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if shared:
                shared.sum_gradients(generator.parameters())
            self.optimizer.step()
            self.schedule.step()
            if self.step % config.log_every == 0 or self.step == config.steps:
                with torch.no_grad():  # terms without a weight are only worth computing here
                    record = {name: float(values[name] if name in values else term()) for name, term in terms.items()}
                record["loss"] = float(loss.detach())
                if not math.isfinite(record["loss"]):
                    raise FloatingPointError(
                        f"The inversion loss is {record['loss']} at step {self.step}; lower the lr."
                    )
                accuracy = (logits.argmax(dim=1) == condition.label).float().mean()
                samples = self.step * config.batch_size
                yield {"step": self.step, "samples": samples, "accuracy": float(accuracy)} | record
        generator.eval().set_dropout(generator.config.dropout)

    def state_dict(self) -> dict[str, Any]:
        """The state as tensors on the CPU, numbers, lists and dictionaries; a copy, not a view."""
        state: dict[str, Any] = {
            "step": self.step,
            "generator": self.generator.state_dict(),  # its parameters, and the statistics of batch norm
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": self.rng.get_state(),
        }
        return {name: _on_cpu(value) for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of a training with the same settings."""
        self.step = state["step"]
        self.generator.load_state_dict(state["generator"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.rng.set_state(state["rng"])


def _on_cpu(value: Any) -> Any:
    """A deep copy with all tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    return [_on_cpu(item) for item in value] if isinstance(value, list) else value


def invert(
    generator: ConditionedGenerator, classifier: InvertibleClassifier, config: InversionConfig, seed: int
) -> Iterator[dict[str, float]]:
    """Train a generator from its beginning to its end; see :class:`InversionTraining`, whose records it yields."""
    yield from InversionTraining(generator, classifier, config, seed)
