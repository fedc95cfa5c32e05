"""The units of a dictionary that carry the classes, each as numbers and as a picture."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from netinv.interpretation.autoencoder import SparseAutoencoder
from netinv.interpretation.concepts import Pool, answers, carriers, heat_maps, make_images, shares, switch_off
from netinv.interpretation.config import InterpretationConfig
from netinv.interpretation.images import Drawn
from netinv.interpretation.measures import Seen, monosemanticity
from netinv.interpretation.sites import Site
from netinv.results import Unit

FEW = 3
"""Images that must fire a unit before it is said how alike they are."""


class Picture(NamedTuple):
    """What people look at to learn what a unit stands for. Images (N, C, H, W) in [0, 1]."""

    made: Tensor
    """The image made for it, (C, H, W)."""
    generated: Tensor
    """Those that fire it most, strongest first."""
    real: Tensor
    """The same of real images; none where there are none, or none fires it."""
    heat: Tensor
    """Where it looks in the first of ``generated``, (H, W) in [0, 1]."""


def look_at_units(
    site: Site,
    model: SparseAutoencoder,
    variants: Mapping[str, Drawn],
    pool: Pool,
    real: Seen | None,
    strengths: Mapping[str, Tensor],
    config: InterpretationConfig,
) -> tuple[tuple[Unit, ...], tuple[Picture, ...]]:
    """Numbers and pictures of the units that carry the classes.

    Args:
        site: Where the activations are.
        model: The dictionary.
        variants: The generators.
        pool: Generated images that it was not trained on.
        real: Real ones, where there are any.
        strengths: How strongly each kind of images fires each unit, (N, U).
        config: How many units, images and steps.
    """
    strength, num_classes = strengths["generated"], site.classifier.num_classes
    chosen = carriers(strength, pool.seen.label, num_classes, config.concepts)
    if not chosen:
        return (), ()
    generators = [generator for drawn in variants.values() for generator in drawn.generators]
    made = make_images(site, model, generators, pool, strength, chosen, config.ascent_steps)
    best = strength[:, chosen].argmax(dim=0)  # the image that fires each most
    with torch.no_grad():
        parts = torch.split(pool.seen.images[best], site.batch)
        strongest = torch.cat([answers(site, model, part).cpu() for part in parts])
    purity = strongest.gather(1, torch.tensor(chosen)[:, None])[:, 0] / strongest.sum(dim=1).clamp(min=1e-12)
    grey = pool.seen.images.mean(dim=(0, 2, 3))[:, None, None]
    heat = heat_maps(site, model, pool.seen.images[best], chosen, grey)
    per_class = torch.bincount(pool.seen.label, minlength=num_classes)
    units, pictures = [], []
    for n, unit in enumerate(chosen):
        own = strength[:, unit]
        effect = switch_off(site, model, unit, pool.seen, own)
        theirs = strengths["real"][:, unit] if real is not None else torch.zeros(0)
        units.append(
            Unit(
                unit=unit,
                fires=float((own > 0).float().mean()),
                labels=tuple(shares(own, pool.seen.label, num_classes).tolist()),
                real_labels=tuple(shares(theirs, real.label, num_classes).tolist())
                if real is not None and bool((theirs > 0).any())
                else (),
                monosemanticity=_alike(own, pool.seen.features),
                effect=tuple(effect.logits.tolist()),
                accuracy_lost=tuple(
                    lost / count if count else None
                    for lost, count in zip(effect.lost.tolist(), per_class.tolist(), strict=True)
                ),
                made_strength=float(made.strength[n] / own.max()),
                made_purity=float(made.purity[n]),
                strongest_purity=float(purity[n]),
            )
        )
        pictures.append(
            Picture(
                made.images[n],
                _strongest(pool.seen.images, own, config.examples),
                _strongest(real.images, theirs, config.examples) if real is not None else pool.seen.images[:0],
                heat[n],
            )
        )
    return tuple(units), tuple(pictures)


def _strongest(images: Tensor, strength: Tensor, num: int) -> Tensor:
    """The images that fire a unit most, strongest first; those that do not fire it are none."""
    order = strength.argsort(descending=True)[:num]
    return images[order[strength[order] > 0]]


def _alike(strength: Tensor, features: Tensor | None) -> float | None:
    """Monosemanticity of one unit, where enough images fire it."""
    if features is None or int((strength > 0).sum()) < FEW:
        return None
    value = float(monosemanticity(strength[:, None], features)[0])
    return value if math.isfinite(value) else None
