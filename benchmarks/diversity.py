"""Ways to more than one picture of a class, each against the preset, which is not bent: ``benchmarks/diversity.md``.

``python benchmarks/diversity.py mnist --project DIR`` takes the classifier and the training images from a folder in
which the pipeline has trained, and trains one generator for each way and seed. What is measured is a *selector*'s
word, a network of another kind that is trained here on training images, and real images are training images: evaluator
and test images take no part. Rows are added to the JSON lines of ``--out``, so that several processes can share the
work, and the table of all of them is written beside it.
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean, stdev
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    InvertibleClassifier,
    build_classifier,
    freeze,
    load_classifier,
    save_classifier,
    train_classifier,
)
from netinv.core import write_text
from netinv.data import LabelledImages, channel_statistics, load_split
from netinv.evaluation import EvaluationConfig, measure_images
from netinv.generators import ConditionedGenerator, GeneratorConfig, draw_images
from netinv.inversion import InversionConfig, invert
from netinv.results import Estimate
from pipeline.params import load_params

Batch = Any
"""The library's batch of a step: images, logits, features, label, latent."""
Term = Callable[[Batch], Tensor]
"""What a way adds to the loss, with its weight."""


def field_of(latent: Tensor, side: int) -> Tensor:
    """The latent field, (N, 1, side, side)."""
    return latent[:, -(side**2) :].reshape(-1, 1, side, side)


def following(difference: Tensor, field: Tensor, wanted: float, weight: float) -> Tensor:
    """How far differences, (N, S), are from following their fields, (N, S)."""
    cosine = F.cosine_similarity(difference - difference.mean(dim=0), field.flatten(1), dim=1)
    return weight * F.relu(wanted - cosine).mean()


def raw_field(threshold: float) -> Callable[..., Term]:
    """The field against each pixel, not pooled."""

    def term(batch: Batch) -> Tensor:
        images = batch.images
        difference = F.softshrink(images - images.mean(dim=0), threshold).mean(dim=1, keepdim=True)
        field = F.interpolate(field_of(batch.latent, 4), size=images.shape[2:], mode="bilinear")
        return following(difference.flatten(1), field, 0.35, 2.0)

    return lambda classifier: term


def pooled_field(side: int, threshold: float, wanted: float, weight: float) -> Callable[..., Term]:
    """The product's own term at another size, threshold or correlation."""

    def term(batch: Batch) -> Tensor:
        images = batch.images
        difference = F.softshrink(images - images.mean(dim=0), threshold).mean(dim=1, keepdim=True)
        cells = F.adaptive_avg_pool2d(difference, side).flatten(1)
        return following(cells, field_of(batch.latent, side), wanted, weight)

    return lambda classifier: term


def layer_field(classifier: Classifier) -> Term:
    """The field against what the first layer makes of the images."""
    first = next(module for module in classifier.body.modules() if isinstance(module, nn.Conv2d))

    def term(batch: Batch) -> Tensor:
        seen = first((batch.images - classifier.mean) / classifier.std).abs().mean(dim=1, keepdim=True)
        cells = F.adaptive_avg_pool2d(F.softshrink(seen - seen.mean(dim=0), 0.2), 4).flatten(1)
        return following(cells, field_of(batch.latent, 4), 0.5, 2.0)

    return term


class Watched:
    """What the classifier's last convolution made of the images that the loss is of, (N, C): means over its maps."""

    def __init__(self, classifier: Classifier) -> None:
        last = [module for module in classifier.body.modules() if isinstance(module, nn.Conv2d)][-1]
        last.register_forward_hook(lambda module, given, out: setattr(self, "maps", out))
        self.maps = torch.empty(0)

    def features(self) -> Tensor:
        """Of unit length."""
        features: Tensor = F.normalize(self.maps.float().mean(dim=(2, 3)), dim=1)
        return features


def memory(weight: float, size: int = 4096, temperature: float = 0.1) -> Callable[..., Term]:
    """Contrast with earlier samples of the same class (CMI, Fast-Datafree), on the last convolution's channel means."""

    def build(classifier: Classifier) -> Term:
        watched = Watched(classifier)
        kept: list[Tensor] = []
        labels: list[Tensor] = []

        def term(batch: Batch) -> Tensor:
            features = watched.features()
            bank = torch.cat([features.detach(), *kept])
            of = torch.cat([batch.label, *labels])
            same = batch.label[:, None] == of[None, :]
            same[:, : len(features)].fill_diagonal_(False)
            cosine = (features @ bank.T / temperature).masked_fill(~same, -torch.inf)
            near = torch.logsumexp(cosine, dim=1) - same.sum(dim=1).clamp(min=1).log()
            kept.insert(0, features.detach())
            labels.insert(0, batch.label)
            del kept[size // len(features) :], labels[size // len(features) :]
            term: Tensor = weight * temperature * near[same.any(dim=1)].mean()
            return term

        return term

    return build


def asked_less(weight: float, floor: float) -> Callable[..., Term]:
    """No more is asked than 0.95, and a floor on the distance from the class's mean feature (IntraQ)."""

    def build(classifier: Classifier) -> Term:
        means = torch.zeros(classifier.num_classes, classifier.head.in_features)

        def term(batch: Batch) -> Tensor:
            each = F.cross_entropy(batch.logits, batch.label, reduction="none")
            less = F.relu(each - 0.05).mean() - each.mean()  # in place of the loss's own term, whose weight is 1
            with torch.no_grad():
                for label, features in zip(batch.label, batch.features.detach(), strict=True):
                    means[label].lerp_(features, 0.05)
            centre = means[batch.label]
            distance = (batch.features - centre).norm(dim=1) / centre.norm(dim=1).clamp(min=1e-6)
            return less + weight * F.relu(floor - distance).mean()

        return term

    return build


def within_slack(weight: float, slack: float) -> Callable[..., Term]:
    """The batch norms' statistics count only where they are further off than a slack (DSG)."""

    def term(batch: Batch) -> Tensor:
        mean, square = batch.moments.mean(dim=0)
        spread = (square - mean.square()).clamp(min=1e-6).sqrt()
        over = F.relu(mean.abs() - slack).square() + F.relu((spread - 1).abs() - slack).square()
        return weight * over.mean()

    return lambda classifier: term


class Experts(nn.Module):
    """A first layer of its own for each of so many values of a discrete code: the arg-max of the first latents."""

    def __init__(self, layer: nn.Linear, latent_dim: int, number: int) -> None:
        super().__init__()
        self.hidden, self.number = layer.in_features - latent_dim, number
        self.layers = nn.ModuleList(nn.Linear(layer.in_features, layer.out_features, False) for _ in range(number))

    def forward(self, x: Tensor) -> Tensor:
        """(N, hidden + Z) to (N, out)."""
        code = x[:, self.hidden : self.hidden + self.number].argmax(dim=1)
        return torch.stack([layer(x) for layer in self.layers])[code, torch.arange(len(x))]


def experts(generator: ConditionedGenerator) -> None:
    """Eight first layers."""
    layer = generator.project[0]
    assert isinstance(layer, nn.Linear)
    generator.project[0] = Experts(layer, generator.config.latent_dim, 8)


def swapping(generator: ConditionedGenerator) -> None:
    """Half of the channels behind the first layer are of another sample of the same class (SpaceshipNet)."""
    asked: list[Tensor] = []
    generator.register_forward_pre_hook(lambda module, given: asked.insert(0, given[1].argmax(dim=1)))

    def swap(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        order = torch.argsort(asked.pop(), stable=True)
        sorted_of = torch.empty_like(order)
        sorted_of[order[1:]] = order[:-1]
        sorted_of[order[0]] = order[0]  # neighbours by class: nearly all partners are of the same one
        half = out.shape[1] // 2
        return torch.cat([out[:, :half], out[sorted_of, half:]], dim=1)

    generator.project_norm.register_forward_hook(swap)


def refined(noise: float, rate: float, steps: int) -> Callable[..., Tensor]:
    """Drawn images after some steps down the cross-entropy, with noise (Langevin) or without."""

    def change(images: Tensor, label: Tensor, classifier: InvertibleClassifier) -> Tensor:
        rng = torch.Generator().manual_seed(3)
        parts = []
        for part, wanted in zip(torch.split(images, 500), torch.split(label, 500), strict=True):
            x = part.clone()
            for _ in range(steps):
                x.requires_grad_()
                (slope,) = torch.autograd.grad(F.cross_entropy(classifier(x), wanted, reduction="sum"), x)
                slope = slope / slope.flatten(1).norm(dim=1).clamp(min=1e-9)[:, None, None, None]
                x = (x.detach() - rate * slope + noise * torch.randn(x.shape, generator=rng)).clamp(0, 1)
            parts.append(x)
        return torch.cat(parts)

    return change


class Evidence:
    """The classifier as it is with a share of its penultimate features alone, other ones for each latent.

    Attack and loss see no more than them, so that an image's class has to rest on the features that its latent chose.
    """

    def __init__(self, classifier: Classifier, latent: Tensor, share: float) -> None:
        self.classifier, self.mean, self.std = classifier, classifier.mean, classifier.std
        self.device, self.num_classes = classifier.device, classifier.num_classes
        self.image_shape = classifier.image_shape
        rng = torch.Generator().manual_seed(5)
        planes = torch.randn(latent.shape[1], classifier.head.in_features, generator=rng)
        order = (latent @ planes).argsort(dim=1, descending=True).argsort(dim=1)
        self.kept = (order < share * planes.shape[1]).float() / share

    def __call__(self, images: Tensor, return_features: bool = False) -> Any:
        """As the classifier's own."""
        features = self.classifier(images, return_features=True)[1]
        logits = self.classifier.head(features * self.kept)
        return (logits, features) if return_features else logits


def evidence(share: float) -> Callable[..., InvertibleClassifier]:
    """Sub-networks of a share of the features."""
    return lambda classifier, latent: Evidence(classifier, latent, share)


def bent_afterwards(images: Tensor, label: Tensor, classifier: InvertibleClassifier) -> Tensor:
    """Images of a generator that was trained straight, bent as they are drawn."""
    channels, height, width = images.shape[1:]
    torch.manual_seed(3)
    config = GeneratorConfig(bending=0.04, width=1, max_width=1)
    bend = ConditionedGenerator(config, classifier.num_classes, (channels, height, width)).bend
    assert bend is not None
    bent: Tensor = bend(images, torch.randn(len(images), config.latent_dim))
    return bent


class Way(NamedTuple):
    """What differs from the preset."""

    settings: Mapping[str, Any] = MappingProxyType({})
    generator: Mapping[str, Any] = MappingProxyType({})
    term: Callable[..., Term] | None = None
    prepare: Callable[[ConditionedGenerator], None] | None = None
    drawn: Callable[..., Tensor] | None = None
    view: Callable[..., InvertibleClassifier] | None = None


NO_FIELD = {"latent_field": 0.0}
WAYS = {
    "preset": Way(),
    "no field": Way(NO_FIELD),
    "no field, one attack step": Way({**NO_FIELD, "attack_steps": 1}),
    "field against each pixel": Way(NO_FIELD, term=raw_field(0.2)),
    "field against the first layer": Way(NO_FIELD, term=layer_field),
    "field without threshold": Way(NO_FIELD, term=pooled_field(4, 0.0, 0.5, 2.0)),
    "field 6 x 6": Way(NO_FIELD, term=pooled_field(6, 0.2, 0.4, 2.0)),
    "field 3 x 3": Way(NO_FIELD, term=pooled_field(3, 0.2, 0.5, 2.0)),
    "field, cosine 0.7": Way(NO_FIELD, term=pooled_field(4, 0.2, 0.7, 2.0)),
    "memory, no field": Way(NO_FIELD, term=memory(1.0)),
    "memory": Way(term=memory(1.0)),
    "asked for 0.95, floor on the distance": Way(term=asked_less(2.0, 0.5)),
    "halves of the channels swapped": Way(prepare=swapping),
    "eight first layers, no field": Way(NO_FIELD, prepare=experts),
    "eight first layers": Way(prepare=experts),
    "evidence by the latent, half, no field": Way(NO_FIELD, view=evidence(0.5)),
    "evidence by the latent, a quarter, no field": Way(NO_FIELD, view=evidence(0.25)),
    "evidence by the latent, a quarter": Way(view=evidence(0.25)),
    "bent by the latent, no field": Way(NO_FIELD, {"bending": 0.04}),
    "bent by the latent": Way(generator={"bending": 0.04}),
    "bent by half as much": Way(generator={"bending": 0.02}),
    "bent by half as much again": Way(generator={"bending": 0.06}),
    "bent afterwards alone": Way(drawn=bent_afterwards),
    "noise in place of the gradient": Way({"perturbation": "noise"}),
    "1,200 steps": Way({"steps": 1200}),
    "Langevin afterwards": Way(drawn=refined(0.03, 0.3, 10)),
    "descent afterwards": Way(drawn=refined(0.0, 0.3, 10)),
}
OTHERS = {
    "transposed convolutions": Way(generator={"upsampling": "transposed"}),
    "resize": Way(generator={"upsampling": "resize"}),
    "resize, bent by the latent": Way(generator={"upsampling": "resize", "bending": 0.04}),
    "resize, field": Way({"latent_field": 2.0}, {"upsampling": "resize"}),
    "resize, two attack steps": Way({"attack_steps": 2, "attack_step_size": 0.75}, {"upsampling": "resize"}),
    "resize, two attack steps, field": Way(
        {"attack_steps": 2, "attack_step_size": 0.75, "latent_field": 2.0}, {"upsampling": "resize"}
    ),
    "field": Way({"latent_field": 2.0}),
    "bent by the latent, field": Way({"latent_field": 2.0}, {"bending": 0.04}),
    "softened": Way(generator={"softening": 1.0}),
    "bent by the latent, field, softened": Way({"latent_field": 2.0}, {"bending": 0.04, "softening": 1.0}),
    "layer statistics": Way({"layer_statistics": 5.0}),
    "layer statistics within slack": Way({"layer_statistics": 1e-9}, term=within_slack(5.0, 0.3)),
}
"""For presets with transposed convolutions or without a field, and for classifiers with batch norm."""


def selector_of(folder: Path, train: LabelledImages, epochs: int) -> Classifier:
    """The network that ways are chosen by, trained where the folder does not have it yet."""
    if not (folder / "selector").exists():
        torch.manual_seed(7)
        channels, height, width = train.images.shape[1:]
        config = ConvClassifierConfig(channels=(16, 32, 64))
        network = build_classifier(
            config, int(train.labels.max()) + 1, (channels, height, width), *channel_statistics(train.images)
        )
        settings = ClassifierTrainingConfig(epochs=epochs, batch_size=128)
        for record in train_classifier(network, train, settings, 7):
            print(f"selector: epoch {record['epoch']:.0f}, accuracy {record['accuracy']:.4f}", flush=True)
        save_classifier(folder / "selector", network)
    return load_classifier(folder / "selector")


def trained(way: Way, preset: Any, classifier: Classifier, seed: int) -> tuple[ConditionedGenerator, float]:
    """A generator, and the processor seconds that it took."""
    config = InversionConfig.model_validate({**preset.robust.model_dump(), **way.settings})
    torch.manual_seed(seed)
    architecture = preset.common.generator.model_copy(update={"bending": 0.0, "softening": 0.0, **way.generator})
    generator = ConditionedGenerator(architecture, classifier.num_classes, classifier.image_shape)
    if way.prepare:
        way.prepare(generator)
    term = way.term(classifier) if way.term else None
    loop = importlib.import_module("netinv.inversion.loop")
    plain = loop.inversion_loss

    def weighed(batch: Batch, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = plain(batch, *arguments)
        return (loss + term(batch) if term else loss), terms

    step = loop.step_batch

    def seen(generate: Any, network: Classifier, config: InversionConfig, draws: Any, *arguments: Any) -> Batch:
        view = way.view(network, draws.latent) if way.view else network
        return step(generate, view, config, draws, *arguments)

    begun = time.process_time()
    with mock.patch.multiple(loop, inversion_loss=weighed, step_batch=seen):
        for _ in invert(generator, classifier, config, seed):
            pass
    return generator, time.process_time() - begun


MEASURES = {
    "inversion_accuracy": "own",
    "evaluator_accuracy": "selector",
    "vendi_centred_ratio": "centred",
    "vendi_pixels_ratio": "pixels",
    "density": "density",
    "coverage": "coverage",
    "student_accuracy": "student",
}


def measured(
    images: Tensor, label: Tensor, classifier: Classifier, selector: Classifier, real: LabelledImages
) -> dict[str, float]:
    """The measures by the selector, with a student that sees images shifted and distorted."""
    student = ClassifierTrainingConfig(epochs=20, batch_size=128, shift=2, distortion=0.3)
    config = EvaluationConfig(
        num_samples=2000, epsilons=(0.0,), robust_epsilon=0.0, resamples=100, distillation=None, student=student
    )
    row = measure_images({"way": (images, label)}, classifier, selector, real, config)["way"]
    values = {name: value.value for name in MEASURES if isinstance(value := row.measures[name], Estimate)}
    with torch.no_grad():
        read = torch.cat([selector(part).argmax(dim=1) for part in torch.split(images, 500)])
    return values | {"worst": min(float((read[label == k] == k).float().mean()) for k in range(classifier.num_classes))}


def told(rows: list[dict[str, Any]]) -> str:
    """A Markdown table, mean and standard deviation over the seeds."""
    columns = ["inversion_accuracy", "evaluator_accuracy", "worst", *list(MEASURES)[2:], "cpu_seconds"]
    names = [
        MEASURES.get(column, {"worst": "worst class", "cpu_seconds": "CPU s"}.get(column, "")) for column in columns
    ]
    lines = [f"| data | way | seeds | {' | '.join(names)} |", "|---" * (len(names) + 3) + "|"]
    for data, way in dict.fromkeys((row["data"], row["way"]) for row in rows):
        some = [row for row in rows if (row["data"], row["way"]) == (data, way)]
        cells = []
        for column in columns:
            values = [row[column] for row in some]
            places = 0 if column == "cpu_seconds" else 3
            cells.append(f"{mean(values):.{places}f}" + (f" ± {stdev(values):.{places}f}" if len(values) > 1 else ""))
        lines.append(f"| {data} | {way} | {len(some)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train and measure what was asked for, and write the table of all that there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--project", type=Path, required=True, help="folder in which the pipeline has trained")
    parser.add_argument("--ways", nargs="+", choices=WAYS | OTHERS, default=[*WAYS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--epochs", type=int, default=3, help="of the selector's training")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; rows are added")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = options.project / "models" / options.dataset
    preset = load_params().for_dataset(options.dataset).invert
    train = load_split(options.project / "data" / options.dataset, "train")
    selector = selector_of(options.out.parent / options.dataset, train, options.epochs)
    some = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))[:2000]
    real = LabelledImages(train.images[some], train.labels[some])
    freeze(selector)
    for seed in options.seeds:
        for name in options.ways:
            way, classifier = (WAYS | OTHERS)[name], load_classifier(models / "classifier")  # anew: a way may watch it
            freeze(classifier)
            generator, seconds = trained(way, preset, classifier, seed)
            images, vector = draw_images(generator, 2000, seed=99, sharpness=preset.robust.sharpness)
            label = vector.argmax(dim=1)
            if way.drawn:
                images = way.drawn(images, label, classifier)
            row = {"data": options.dataset, "way": name, "seed": seed, "cpu_seconds": seconds}
            row |= measured(images, label, classifier, selector, real)
            with options.out.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(
                {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True
            )
    rows = list(map(json.loads, options.out.read_text().splitlines()))
    write_text(options.out.with_suffix(".md"), told(rows))
    print(told(rows))


if __name__ == "__main__":
    main()
