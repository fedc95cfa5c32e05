"""A classifier interpreted: dictionaries of its activations, their worth beside controls, and their units as pictures.

The question of the whole: how much of a dictionary of real images is found by one that saw generated images only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from netinv.classifiers import AdaptedClassifier, Classifier, frozen
from netinv.core import InputError
from netinv.data import LabelledImages, expect_fit, labelled
from netinv.interpretation.autoencoder import SparseAutoencoder
from netinv.interpretation.config import InterpretationConfig
from netinv.interpretation.images import Drawn, draw_pool, noise_images, real_images
from netinv.interpretation.measures import (
    Ablated,
    Fidelity,
    Seen,
    ablate,
    fidelity_measures,
    matched_cosines,
    monosemanticity,
    rebuild,
    relative_recovery,
)
from netinv.interpretation.record import Interpretation
from netinv.interpretation.sites import Site
from netinv.interpretation.training import DictionaryConfig, train_dictionary
from netinv.interpretation.units import look_at_units
from netinv.results import Bootstrap, DictionaryRow, InterpretationResults, Match, Measure, NotMeasured

MAX_ROWS = 200_000
"""Activations of one kind that are kept for training."""
FOUND = 0.7
"""Cosine from which on a direction counts as found in another dictionary."""
OFTEN = 0.01
"""Share of images that a unit must fire on before it counts in the mean of how alike those are."""
CONTROLS = ("random", "untrained")
"""Dictionaries of directions by chance, to which only an encoder was fitted, and of activations drawn by chance."""
NO_TRAIN, NO_TEST = "no real training images were given", "no real test images were given"


class Wanted(NamedTuple):
    """One dictionary to be trained."""

    name: str
    source: str
    """Of the activations: a variant, ``generated``, ``real`` or ``noise``; or ``random`` or ``untrained``."""
    rows: str
    """Whose activations it is trained on."""
    config: DictionaryConfig


Trainer = Callable[[Mapping[str, Tensor], Sequence[Wanted]], Iterable[tuple[str, SparseAutoencoder]]]
"""Trains dictionaries on activations (N, D) by kind of images, wherever it likes, in any order."""


def in_turn(rows: Mapping[str, Tensor], wanted: Sequence[Wanted]) -> Iterable[tuple[str, SparseAutoencoder]]:
    """Train one dictionary after another, here."""
    for one in wanted:
        yield one.name, train_dictionary(rows[one.rows], one.config, one.source)


def interpret(
    classifier: Classifier | AdaptedClassifier,
    variants: Mapping[str, Drawn],
    classes: Sequence[str],
    config: InterpretationConfig | None = None,
    *,
    evaluator: Classifier | AdaptedClassifier | None = None,
    train: LabelledImages | None = None,
    test: LabelledImages | None = None,
    trained: Trainer | None = None,
) -> Interpretation:
    """Interpret a classifier by its own generated images, and by real ones where there are any.

    Args:
        classifier: In evaluation mode.
        variants: Its generators, by variant.
        classes: Names of the K classes.
        config: What is trained and looked at.
        evaluator: Another network, in whose features images are alike or not; without it that is not measured.
        train: Real images to train dictionaries on; without them those are left out.
        test: Real images to measure all dictionaries on, likewise.
        trained: Trains the dictionaries; ``None`` does so here, one after another.

    Raises:
        InputError: There is no such layer, its activations are constant, or there are too few of them; or real images
            are none, or of another shape or other classes than the classifier's.
    """
    config = config or InterpretationConfig()
    train = None if train is None else labelled(train, "The training images")
    test = None if test is None else labelled(test, "The test images")
    for data, what in ((train, "The training images"), (test, "The test images")):
        if data is not None:
            expect_fit(data, what, classifier.image_shape, classifier.num_classes)
    site = Site(classifier, config.layer)
    rows = _rows(site, variants, train, config)
    constant = int((rows["generated"].std(dim=0) <= 1e-6 * rows["generated"].abs().amax().clamp(min=1e-12)).sum())
    if constant == site.dim:
        raise InputError(f"All {site.dim} numbers of {site.name} are constant over images: name another layer.")
    if len(rows["generated"]) < config.dictionary.units:
        raise InputError(
            f"{len(rows['generated'])} activations are too few for {config.dictionary.units} units: take more images "
            "or fewer units."
        )
    wanted = [one for one in _wanted(config, list(variants)) if one.rows in rows]
    dictionaries = dict((trained or in_turn)(rows, wanted))
    pool = draw_pool(variants, config.measured, config.seed + 1, evaluator)
    seen = {"generated": pool.seen}
    if test is not None:
        seen["real"] = real_images(test, config.measured, config.seed, evaluator)
    measured = _measure(site, wanted, dictionaries, seen, config)
    matches = _matches(dictionaries, measured)
    strengths = measured.strengths("generated")
    with frozen(classifier):
        units, pictures = look_at_units(
            site, dictionaries["generated"], variants, pool, seen.get("real"), strengths, config
        )
    results = InterpretationResults(
        classes=tuple(classes),
        image_shape=classifier.image_shape,
        layer=site.name,
        dim=site.dim,
        positions=site.positions,
        constant=constant,
        settings=config.model_dump(mode="json"),
        headline=_headline(measured, matches, NO_TRAIN if train is None else None),
        neurons=_neurons(site, pool.seen, measured.bootstrap),
        dictionaries=tuple(measured.rows),
        matches=tuple(matches),
        units=units,
    )
    return Interpretation(results, dictionaries, pictures)


def _rows(
    site: Site, variants: Mapping[str, Drawn], train: LabelledImages | None, config: InterpretationConfig
) -> dict[str, Tensor]:
    """Activations (N, D) to train on, by kind of images; kinds with fewer of them than units are left out."""
    rows = {}
    for name, pixels in _images(site.classifier.image_shape, variants, train, config):
        positions = None if site.positions * len(pixels) <= MAX_ROWS else max(1, MAX_ROWS // len(pixels))
        kept = site.read(pixels, positions, config.seed).flatten(0, 1)
        del pixels  # before the next kind of images is drawn
        if name == "generated" or (len(kept) >= config.dictionary.units and bool((kept != kept[0]).any())):
            rows[name] = kept
    return rows


def _images(
    shape: tuple[int, int, int],
    variants: Mapping[str, Drawn],
    train: LabelledImages | None,
    config: InterpretationConfig,
) -> Iterator[tuple[str, Tensor]]:
    """Images (N, C, H, W) to train on, one kind after another: none is held once the next is asked for."""
    num, seed = config.images, config.seed
    yield "generated", draw_pool(variants, num, seed).seen.images
    if len(variants) > 1:
        for name, drawn in variants.items():
            yield name, draw_pool({name: drawn}, num, seed).seen.images
    if train is not None:
        yield "real", real_images(train, num, seed).images
    yield "noise", noise_images(shape, num, seed)


def _wanted(config: InterpretationConfig, variants: Sequence[str]) -> list[Wanted]:
    """Every dictionary: of each kind of images, again with another seed, the controls, the sweep of sparsity."""
    base = config.dictionary
    again = base.model_copy(update={"seed": base.seed + 1})
    several = variants if len(variants) > 1 else []
    return [
        *(Wanted(name, name, name, base) for name in ("generated", *several, "real", "noise")),
        *(Wanted(f"{name}, again", name, name, again) for name in ("generated", "real")),
        *(Wanted(name, name, "generated", base) for name in CONTROLS),
        *(
            Wanted(f"generated, {active} active", "generated", "generated", base.model_copy(update={"active": active}))
            for active in config.sweep
        ),
    ]


@dataclass(frozen=True)
class _Measured:
    """What was measured of every dictionary."""

    rows: list[DictionaryRow]
    fidelity: dict[tuple[str, str], Fidelity]
    """By the dictionary's name and the kind of images."""
    without: dict[str, Ablated]
    """By the kind of images."""
    bootstrap: Bootstrap

    def strengths(self, name: str) -> dict[str, Tensor]:
        """How strongly images fire the units of a dictionary, (N, U), by the kind of images."""
        return {kind: found.strength for (of, kind), found in self.fidelity.items() if of == name}

    def of(self, name: str, kind: str, measure: str) -> Measure:
        """One measure of one dictionary."""
        row = next((row for row in self.rows if row.name == name), None)
        if row is None or kind not in row.on:
            return NotMeasured(not_measured=NO_TEST if kind == "real" else f"too few {name} images for a dictionary")
        return row.on[kind][measure]

    def living(self, name: str) -> Tensor:
        """Units of a dictionary that any image fires, (U,), bool."""
        return torch.stack([(s > 0).any(dim=0) for s in self.strengths(name).values()]).any(dim=0)


def _measure(
    site: Site,
    wanted: Sequence[Wanted],
    dictionaries: Mapping[str, SparseAutoencoder],
    seen: Mapping[str, Seen],
    config: InterpretationConfig,
) -> _Measured:
    bootstrap = Bootstrap(config.seed, config.resamples)
    without = {kind: ablate(site, images) for kind, images in seen.items()}
    rows, fidelity = [], {}
    for one in wanted:
        on = {}
        for kind, images in seen.items():
            found = fidelity[one.name, kind] = rebuild(site, images, dictionaries[one.name])
            on[kind] = fidelity_measures(found, without[kind], bootstrap)
            on[kind]["monosemanticity"] = alike(found.strength, images.features, bootstrap)
        rows.append(
            DictionaryRow(name=one.name, source=one.source, active=one.config.active, seed=one.config.seed, on=on)
        )
    return _Measured(rows, fidelity, without, bootstrap)


def alike(strength: Tensor, features: Tensor | None, bootstrap: Bootstrap) -> Measure:
    """Monosemanticity, mean over the units that fire on 1 % of the images: rarer ones seem alike by chance."""
    if features is None:
        return NotMeasured(not_measured="there is no evaluator")
    often = (strength > 0).double().mean(dim=0) >= OFTEN
    scores = monosemanticity(strength[:, often], features)
    return bootstrap.mean(scores[torch.isfinite(scores)].numpy())


def _neurons(site: Site, seen: Seen, bootstrap: Bootstrap) -> Measure:
    """The same of the activations' own numbers, each from its smallest value on."""
    rows = torch.cat([rows.amax(dim=1).cpu() for _, rows in site.batches(seen.images)])
    return alike(rows - rows.amin(dim=0), seen.features, bootstrap)


def _matches(dictionaries: Mapping[str, SparseAutoencoder], measured: _Measured) -> list[Match]:
    """How much of a dictionary of real images, or of generated ones where there are none, the others hold."""
    found = []
    base = "real" if "real" in dictionaries else "generated"
    others = [name for name in dictionaries if name != base and not name.endswith(" active")]
    pairs = [(base, name) for name in others] + [("generated", "generated, again")] * (base == "real")
    for wanted, among in pairs:
        living = dictionaries[wanted].directions[measured.living(wanted)]
        cosines = matched_cosines(living, dictionaries[among].directions)
        found.append(
            Match(
                wanted=wanted,
                among=among,
                cosine=measured.bootstrap.mean(cosines),
                found=measured.bootstrap.mean(cosines >= FOUND),
            )
        )
    return found


def _headline(measured: _Measured, matches: Sequence[Match], no_real: str | None) -> dict[str, Measure]:
    """The numbers that people compare; ``no_real`` says why there is no dictionary of real images, if not too few."""
    known = {row.name for row in measured.rows}

    def missing(*names: str) -> Measure:
        """Why there is no number of these dictionaries, of which one at least was not trained."""
        source = next(name for name in names if name not in known).removesuffix(", again")
        why = f"too few {source} images for a dictionary"
        return NotMeasured(not_measured=no_real if source == "real" and no_real else why)

    def cosine(wanted: str, among: str) -> Measure:
        match = next((m for m in matches if m.wanted == wanted and m.among == among), None)
        return missing(wanted, among) if match is None else match.cosine

    def transfer(name: str) -> Measure:
        """Loss on real images that a dictionary recovers, over what that of real images does."""
        if "real" not in measured.without:
            return NotMeasured(not_measured=NO_TEST)
        theirs, own = (measured.fidelity.get((one, "real")) for one in (name, "real"))
        if theirs is None or own is None:
            return missing("real", name)
        return relative_recovery(theirs, own, measured.without["real"], measured.bootstrap)

    return {
        **{
            name: measured.of("generated", "generated", name)
            for name in ("explained_variance", "accuracy_recovered_mean", "loss_recovered_mean", "dead_units")
        },
        "monosemanticity": measured.of("generated", "generated", "monosemanticity"),
        "monosemanticity_random": measured.of("random", "generated", "monosemanticity"),
        "stability": cosine("generated", "generated, again"),
        "transfer": transfer("generated"),
        **{f"transfer_{name}": transfer(name) for name in ("noise", *CONTROLS)},
        "found": cosine("real", "generated"),
        "found_ceiling": cosine("real", "real, again"),
        **{f"found_{name}": cosine("real", name) for name in ("noise", *CONTROLS)},
    }
