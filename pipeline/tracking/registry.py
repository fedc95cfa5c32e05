"""What the model registry is told of a generator, and the rule for the champion.

The rule: a version becomes ``champion`` when the 95 % interval of its primary measure lies wholly above that of the
champion, none of its guard measures lies wholly below the champion's, and the privacy audit found no memorised training
images. Both must have been measured alike (data, evaluator and settings); otherwise a person decides. The best version
of a run that does not become champion becomes ``challenger``.
"""

from pathlib import Path

from netinv.core import Config
from netinv.results import Estimate, Measure

PRIMARY = {"standard": "inversion_accuracy", "robust": "evaluator_accuracy"}
"""What each variant is for: to be read by the inverted classifier, or by networks that it never saw."""
GUARDS = {
    "standard": ("vendi_centred_ratio",),
    "robust": ("inversion_accuracy", "robust_accuracy", "vendi_centred_ratio"),
}
"""What a better primary measure must not cost."""


class Standing(Config):
    """What the rule looks at."""

    primary: str
    """Name of the primary measure."""
    guards: tuple[str, ...]
    measures: dict[str, Measure]
    """The primary measure and the guards."""
    memorised: bool | None
    """Whether the audit found memorised training images; ``None`` if it could not tell."""
    measured_by: str
    """Digest of the data, the evaluator and the settings behind the measures."""


class Candidate(Config):
    """A generator to be registered."""

    file: Path
    """Its ONNX file."""
    generator: str
    """Its name, as in ``generator 0``."""
    run: str | None
    """Run that made it, by its id or as ``journal:<key>``; ``None`` if that is not known."""
    standing: Standing
    card: str
    """The model card, Markdown."""
    front: str = ""
    """What stands above it for a hub of models, YAML between lines of dashes."""


def better(candidate: Standing, champion: Standing | None) -> tuple[bool, str]:
    """Whether a candidate becomes champion, and why, as a clause."""
    name = candidate.primary.replace("_", " ")
    new = candidate.measures[candidate.primary]
    if candidate.memorised:
        return False, "the privacy audit found memorised training images"
    if not isinstance(new, Estimate):
        return False, f"{name} was {new}"
    if champion is None:
        return True, f"the first with {name} {new}"
    if candidate.measured_by != champion.measured_by:
        return False, "measured with other data, another evaluator or other settings than the champion: you decide"
    if champion.memorised:
        return True, "the champion's privacy audit found memorised training images"
    old = champion.measures[champion.primary]
    if isinstance(old, Estimate) and new.low <= old.high:
        return False, f"{name} {new} is not beyond the champion's {old}"
    if champion.memorised is False and candidate.memorised is None:
        return False, "the champion passed the privacy audit, which this one could not be put to"
    for guard in candidate.guards:
        was, now = champion.measures[guard], candidate.measures[guard]
        if isinstance(was, Estimate) and (not isinstance(now, Estimate) or now.high < was.low):
            return False, f"{guard.replace('_', ' ')} {now} is worse than the champion's {was}"
    return True, f"{name} {new} is beyond the last champion's {old}, and no guard is worse"
