"""The inversion loop: iterate over it, stop whenever you like, and go on from its state, elsewhere and later."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from netinv.classifiers import InvertibleClassifier
from netinv.core import InputError, NotFinite, backward_pass
from netinv.generators import ConditionedGenerator
from netinv.inversion.bounds import ClassBounds
from netinv.inversion.config import InversionConfig
from netinv.inversion.losses import Batch, inversion_loss
from netinv.inversion.parallel import GlobalBatch
from netinv.inversion.step import StepDraws, Terms, draw_step, step_batch

Record = dict[str, float]
Schedule = torch.optim.lr_scheduler.OneCycleLR


class Training(Protocol):
    """One generator, or several as one program, on the way through the loop."""

    config: InversionConfig
    step: int
    """Steps done."""
    optimizer: torch.optim.Adam
    schedule: Schedule

    @property
    def generators(self) -> Sequence[ConditionedGenerator]:
        """Those that are trained."""

    def draw(self) -> StepDraws:
        """The random numbers of a step."""

    def loss(self, draws: StepDraws, every_term: bool) -> tuple[Tensor, Terms]:
        """Loss of the step, its terms by name, ``accuracy``, ``worst_class`` and ``broken``, whether the classifier is.

        A function of weights, draws, class bounds.
        """

    def combine_gradients(self) -> None:
        """Called after each backward pass."""


def optimization(parameters: Iterable[Tensor], config: InversionConfig) -> tuple[torch.optim.Adam, Schedule]:
    """The optimizer of some parameters, and its schedule."""
    optimizer = torch.optim.Adam(parameters, lr=config.lr, betas=(0.9, 0.99), fused=True)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps)


def train(training: Training) -> Iterator[list[Record]]:
    """Do the steps that are left. Between two records the generators are in evaluation mode.

    Yields:
        Every ``log_every`` steps and after the last, of each generator: ``step``, ``samples`` drawn so far,
        ``accuracy`` on the batch, ``worst_class`` (the smallest accuracy of a class, over about its last 64 samples),
        ``loss`` and each of its terms, unweighted, whether or not its weight is 0 (but for ``layer_statistics``).

    Raises:
        NotFinite: The loss is not finite since the classifier's scores are not.
        FloatingPointError: It is not finite for another reason; names the step.
    """
    config = training.config
    while training.step < config.steps:
        due = min(config.steps, (training.step // config.log_every + 1) * config.log_every)
        for generator in training.generators:
            generator.train()
        broken: Tensor | bool = False  # in any step: the weights are lost with it, and later images say nothing
        try:
            while training.step < due:
                training.step += 1
                loss, terms = training.loss(training.draw(), every_term=training.step == due)
                broken = terms.pop("broken") | broken
                training.optimizer.zero_grad(set_to_none=True)
                with backward_pass():
                    torch.autograd.backward(loss.sum())
                training.combine_gradients()
                training.optimizer.step()
                training.schedule.step()
        finally:
            for generator in training.generators:
                generator.eval()
        yield _records(training, {**terms, "loss": loss, "broken": torch.as_tensor(broken, device=loss.device)})


def _records(training: Training, values: Terms) -> list[Record]:
    """Numbers of each generator, ``values`` being scalars of one or (G,) of several."""
    columns = [value.detach().reshape(-1).to(values["loss"]) for value in values.values()]
    table = torch.stack(columns, dim=1).tolist()  # one transfer
    done = {"step": training.step, "samples": training.step * training.config.batch_size}
    records = [{**done, **dict(zip(values, row, strict=True))} for row in table]
    for record in records:
        broken = record.pop("broken")
        if not math.isfinite(record["loss"]):
            if broken:
                raise NotFinite(
                    f"The classifier's scores are not finite for some generated images, by step {training.step}: mend "
                    "it there, such as a logarithm, a root or a division at 0."
                )
            raise FloatingPointError(
                f"The inversion loss is {record['loss']} at step {training.step}; lower the lr, or mend the "
                "classifier if its gradients are not finite."
            )
    return records


class InversionTraining:
    """Trains a generator in place against a frozen classifier, both on the classifier's device.

    Iterating does the work. Between two records, :meth:`state_dict` is all that the rest of the work depends on: given
    to another one of the same settings it ends, on a CPU of the same kind, with the same weights bit for bit.

    Dropout falls to 0 over the second half of the steps: images are drawn without it, and a generator that never went
    without may be read right only with it.

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
        self.bounds = ClassBounds(config, generator.num_classes, classifier.device)
        if shared:
            shared.join_batch_norm(generator)

    @property
    def generators(self) -> Sequence[ConditionedGenerator]:
        """The one that is trained."""
        return (self.generator,)

    def __iter__(self) -> Iterator[Record]:
        """Do the steps that are left; see :func:`train`, of whose records this yields the only one."""
        for (record,) in train(self):
            yield record

    def draw(self) -> StepDraws:
        """The random numbers of a step; of a shared batch this worker's rows."""
        draws = draw_step(self.config, self.generator, self.rng)
        return StepDraws(*map(self.shared.own_rows, draws)) if self.shared else draws

    def loss(self, draws: StepDraws, every_term: bool = False) -> tuple[Tensor, Terms]:
        """The loss of the step ``step``, of the whole batch, its terms, and the accuracy."""
        classifier, config = self.classifier, self.config
        bounds = self.bounds.of_samples(len(draws.latent))
        batch = step_batch(self.generator, classifier, config, draws, self.step, self.generator.config.dropout, bounds)
        if self.shared:
            batch = Batch(*map(self.shared.gather, batch))
        worst = self.bounds.follow(batch)
        loss, terms = inversion_loss(batch, classifier.mean, classifier.std, config, every_term)
        return loss, {"accuracy": batch.accuracy, "worst_class": worst, "broken": batch.broken, **terms}

    def combine_gradients(self) -> None:
        """Make the gradients of this worker's rows those of the whole batch."""
        if self.shared:
            self.shared.sum_gradients(self.generator.parameters())

    def state_dict(self) -> dict[str, Any]:
        """The state as tensors on the CPU, numbers, lists and dictionaries; a copy, not a view."""
        state: dict[str, Any] = {
            "step": self.step,
            "generator": self.generator.state_dict(),  # its parameters, and the statistics of batch norm
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": self.rng.get_state(),
            "bounds": self.bounds.state_dict(),
        }
        return {name: _on_cpu(value) for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of a training with the same settings.

        Raises:
            InputError: Steps are left, and the state is from another kind of device, whose random numbers are others.
                Nothing is changed then.
        """
        fits = len(state["rng"]) == self.rng.get_state().numel()
        if state["step"] < self.config.steps and not fits:
            kind = self.rng.device.type
            raise InputError(f"The state is from another kind of device than {kind}: go on there, or begin anew.")
        self.step = state["step"]
        self.generator.load_state_dict(state["generator"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if fits:
            self.rng.set_state(state["rng"])
        self.bounds.load_state_dict(state["bounds"])


def load_optimizer(optimizer: torch.optim.Adam, state: dict[str, Any]) -> None:
    """Load a state of Adam, its moments laid out in memory as the parameters: the fused step takes that for granted."""
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            values[name] = torch.empty_like(parameter).copy_(values[name])


def _on_cpu(value: Any) -> Any:
    """A deep copy with all tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    return [_on_cpu(item) for item in value] if isinstance(value, list) else value


def invert(
    generator: ConditionedGenerator, classifier: InvertibleClassifier, config: InversionConfig, seed: int
) -> Iterator[Record]:
    """Train a generator from its beginning to its end; see :class:`InversionTraining`, whose records it yields."""
    yield from InversionTraining(generator, classifier, config, seed)
