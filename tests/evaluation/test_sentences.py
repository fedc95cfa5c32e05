"""What people are told of sources that are known: noise, copies, one picture a class, a class missing, real images."""

import pytest
import torch
from draws import seed_torch, torch_rng
from torch import Tensor
from worlds import CONFIG, QUICK, SHAPE, Replay, World, run

from netinv.classifiers import ClassifierTrainingConfig, build_classifier, freeze, train_classifier
from netinv.data import LabelledImages, channel_statistics
from netinv.generators import Bend, ConditionedGenerator, GeneratorConfig
from netinv.results import Estimate, Finding, NotMeasured, Results, findings

TITLES = ("read", "recognised", "survives", "density", "coverage", "diversity", "student", "distilled", "privacy")
GRADES = {
    "noise": "bad bad bad bad bad unknown bad poor *",
    "real": "fair good * good open good * * *",
    "replay": "fair good * good open fair * * bad",
    "one picture": "* * * * bad bad * * *",
    "one picture, bent": "* * * * bad poor poor * *",
    "class missing": "bad bad * good * good * * *",
}
"""What each source must be told at least, in the order of the titles: good and fair may be better. ``open`` and
``poor`` are the answers where a few hundred images may not tell one picture from real ones, nor noise from noise.
Of what is no copy the audit may be alarmed, once in a hundred draws."""
BETTER = {
    "fair": ("fair", "good"),
    "open": ("unknown", "fair", "good"),
    "poor": ("bad", "unknown"),
    "*": ("good", "fair", "bad", "unknown"),
}


class Bent(Replay):
    """A fake generator that bends what it shows by its latents."""

    def __init__(self, data: LabelledImages) -> None:
        super().__init__(data)
        self.bending = Bend(0.04, 4, SHAPE[1:])

    def forward(self, latent: Tensor, vector: Tensor) -> Tensor:
        return self.bending(super().forward(latent, vector), latent).clamp(0, 1)


class Noise(ConditionedGenerator):
    """A fake generator of uniform pixels."""

    def __init__(self) -> None:
        super().__init__(GeneratorConfig(width=2, latent_dim=4, dropout=0), 10, SHAPE)

    def forward(self, latent: Tensor, vector: Tensor) -> Tensor:
        return torch.rand(len(latent), *SHAPE, generator=torch_rng(int(latent.abs().sum() * 1e4)))


UNASKED = {
    "one picture": CONFIG.model_copy(update={"distillation": None}),
    "one picture, bent": CONFIG.model_copy(update={"distillation": None}),
    "class missing": QUICK,
}
"""Students take most of the time, and these sources are not told what comes of all of them."""


@pytest.fixture(scope="module")
def found(world: World) -> dict[str, Results]:
    """Each source measured by networks that know the digits well."""
    networks = []
    for seed, network in enumerate((world.classifier, world.evaluator)):
        seed_torch(seed)
        better = build_classifier(network.config, 10, SHAPE, *channel_statistics(world.train.images))
        assert list(train_classifier(better, world.train, ClassifierTrainingConfig(epochs=15, batch_size=32), seed))
        freeze(better)
        networks.append(better)
    sound = World(world.train, world.test, world.unseen, *networks)
    unseen = world.unseen
    first = torch.stack([torch.nonzero(unseen.labels == k)[0, 0] for k in range(10)])
    missing = Replay(unseen)
    missing.members[7] = missing.members[1]
    single = LabelledImages(unseen.images[first], unseen.labels[first])
    sources = {
        "noise": Noise(),
        "real": Replay(unseen),
        "replay": Replay(world.train),
        "one picture": Replay(single),
        "one picture, bent": Bent(single),
        "class missing": missing,
    }
    return {name: run(sound, source, config=UNASKED.get(name, CONFIG)).results for name, source in sources.items()}


def told(results: Results) -> dict[str, Finding]:
    said = findings(results, next(row for row in results.rows if row.kind == "ensemble"))
    return dict(zip(TITLES, said, strict=True))


@pytest.mark.parametrize("name", GRADES)
def test_each_source_is_told_what_it_is(found: dict[str, Results], name: str) -> None:
    said = told(found[name])
    for title, grade in zip(TITLES, GRADES[name].split(), strict=True):
        assert said[title].grade in BETTER.get(grade, (grade,)), said[title]


def test_sentences_name_what_is_wrong(found: dict[str, Results]) -> None:
    said = {name: {title: finding.text for title, finding in told(found[name]).items()} for name in found}
    assert "apart from real images" in said["noise"]["density"]
    assert (
        "counts for little while they are not recognised and lie apart from real images" in said["noise"]["diversity"]
    )
    # It is read by neither, so that nobody reads it alone.
    assert "inputs that only the inverted classifier reads so" not in said["noise"]["recognised"]
    assert "show little of what real images look like" in said["noise"]["coverage"]
    for title in ("read", "recognised"):
        assert "class 7 is as good as missing, " in said["class missing"][title]
        assert "missing" not in said["real"][title]
    assert "hardly more than one picture a class" in said["one picture"]["diversity"]
    bent = said["one picture, bent"]["diversity"]
    assert "such variety as one picture gives that is bent" in bent or "counts for little" in bent or "hardly" in bent
    for name in ("one picture", "one picture, bent"):
        assert "show little of what real images look like" in said[name]["coverage"]
    assert "Training images leak" in said["replay"]["privacy"]
    assert findings(found["replay"], found["replay"].rows[0])[-1].text == found["replay"].rows[0].audit.verdict
    for title in ("density", "coverage", "diversity"):
        assert "hardly" not in said["real"][title] + said["replay"][title]
        assert "little" not in said["real"][title] + said["replay"][title]
        assert "apart" not in said["real"][title] + said["replay"][title]


def test_where_the_controls_meet_nothing_is_claimed(found: dict[str, Results]) -> None:
    results = found["real"]
    drawn = next(row for row in results.rows if row.kind == "ensemble")
    controls = [
        row.model_copy(update={"measures": drawn.measures} if row.kind == "reference" else {}) for row in results.rows
    ]
    said = told(results.model_copy(update={"rows": tuple(controls)}))
    for title in ("density", "coverage"):
        assert said[title].grade == "unknown"
        assert "cannot be told from these controls" in said[title].text


@pytest.mark.parametrize(("own", "others", "alone"), [(1.0, 0.1, True), (1.0, 0.45, True), (0.6, 0.1, False)])
def test_only_what_most_images_are_is_said_of_most(
    found: dict[str, Results], own: float, others: float, alone: bool
) -> None:
    results = found["noise"]
    changes = {"inversion_accuracy": known(own), "evaluator_accuracy": known(others)}
    drawn = next(row for row in results.rows if row.kind == "ensemble")
    text = findings(results, drawn.model_copy(update={"measures": drawn.measures | changes}))[1].text
    assert ("most are inputs that only the inverted classifier reads so" in text) == alone


def known(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value, n=400)


def test_what_was_not_measured_is_open_and_says_why(found: dict[str, Results]) -> None:
    results = found["real"]
    why = NotMeasured(not_measured="no evaluator was given")
    rows = [
        row.model_copy(update={"measures": dict.fromkeys(row.measures, why), "by_class": {}}) for row in results.rows
    ]
    changes = {"rows": tuple(rows), "headline": dict.fromkeys(results.headline, why)}
    *numbers, privacy = findings(results.model_copy(update=changes), rows[1])
    assert {finding.grade for finding in numbers} == {"unknown"}
    assert all(finding.text.endswith(" was not measured: no evaluator was given.") for finding in numbers)
    assert privacy.text == results.verdict
