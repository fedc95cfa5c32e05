"""Ways to more than one picture of a class, which ``diversity.py`` compares."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netinv.classifiers import Classifier, ConvClassifierConfig, InvertibleClassifier, build_classifier
from netinv.generators import ConditionedGenerator, GeneratorConfig

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


def competing(weight: float) -> Callable[..., Term]:
    """A student learns the classifier's answers to the images, which are asked to be what it does not know yet.

    1 - JS(classifier, student), as DeepInversion's "adaptive" form (Yin and others 2020, equation 8).
    """

    def build(classifier: Classifier) -> Term:
        channels, height, width = classifier.image_shape
        shape = ConvClassifierConfig(channels=(8, 16, 32))
        student = build_classifier(
            shape,
            classifier.num_classes,
            (channels, height, width),
            tuple(classifier.mean.flatten().tolist()),
            tuple(classifier.std.flatten().tolist()),
        )
        adam = torch.optim.Adam(student.parameters(), 2e-3)

        def term(batch: Batch) -> Tensor:
            said, images = batch.logits.float(), batch.images
            student.train().requires_grad_(True)
            adam.zero_grad()
            with torch.enable_grad():
                learned = F.kl_div(
                    student(images.detach().contiguous()).log_softmax(dim=1),
                    said.detach().softmax(dim=1),
                    reduction="batchmean",
                )
                learned.backward()
            adam.step()
            student.eval().requires_grad_(False)
            known, mine = said.softmax(dim=1), student(images).softmax(dim=1)
            middle = ((known + mine) / 2).clamp(min=1e-8).log()
            apart = F.kl_div(middle, known, reduction="batchmean") + F.kl_div(middle, mine, reduction="batchmean")
            term: Tensor = weight * (1 - apart / 2)
            return term

        return term

    return build


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
    "softened, field": Way({"latent_field": 2.0}, {"softening": 1.0}),
    "softened, total variation 1": Way({"total_variation": 1.0}, {"softening": 1.0}),
    "total variation 1": Way({"total_variation": 1.0}),
    "layer statistics, softened": Way({"layer_statistics": 5.0}, {"softening": 1.0}),
    "toned": Way(generator={"toning": 0.7}),
    "toned, negatives": Way(generator={"toning": 0.7, "negatives": True}),
    "softened by 4": Way(generator={"softening": 4.0}),
    "toned by 0.5, softened": Way(generator={"toning": 0.5, "softening": 1.0}),
    "toned, softened by 2": Way(generator={"toning": 0.7, "softening": 2.0}),
    "toned by 0.85, softened by 4": Way(generator={"toning": 0.85, "softening": 4.0}),
    "toned, softened by 4": Way(generator={"toning": 0.7, "softening": 4.0}),
    "toned, negatives, softened by 4": Way(generator={"toning": 0.7, "negatives": True, "softening": 4.0}),
    "toned by 0.85, negatives, softened by 4": Way(generator={"toning": 0.85, "negatives": True, "softening": 4.0}),
    "toned by 0.85, negatives, softened by 8": Way(generator={"toning": 0.85, "negatives": True, "softening": 8.0}),
    "student in competition": Way(term=competing(1.0)),
    "layer statistics": Way({"layer_statistics": 5.0}),
    "layer statistics within slack": Way({"layer_statistics": 1e-9}, term=within_slack(5.0, 0.3)),
}
"""For presets with transposed convolutions or without a field, and for classifiers with batch norm."""
