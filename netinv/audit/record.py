"""What an audit found, as types: ``audit.json``, by the published schema ``docs/audit.schema.json``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from netinv.core import Config, read_json
from netinv.results import Estimate, Measure

Outcome = Literal["pass", "investigate", "fail", "skipped"]
Verdict = Literal["pass", "investigate", "fail"]

STATUS: dict[Verdict, int] = {"pass": 0, "investigate": 3, "fail": 1}
"""Exit status of each verdict; 2 is an error, as everywhere."""

GRAVITY: tuple[Outcome, ...] = ("skipped", "pass", "investigate", "fail")
"""Outcomes, the gravest last."""


class Number(Config):
    """A measured number with its interval, and what the policy says of it."""

    name: str
    meaning: str
    """What it is, for people."""
    measure: Measure
    at_most: float | None = None
    """The policy's limit: a pass needs the whole interval at or below it."""
    at_least: float | None = None
    """Likewise at or above it."""

    @property
    def outcome(self) -> Outcome:
        """Decided on the ends of the interval; a number without a limit, or that was not measured, decides nothing."""
        if self.at_most is None and self.at_least is None:
            return "skipped"
        if not isinstance(self.measure, Estimate):
            return "investigate"
        if self.at_most is not None:
            within, beyond = self.measure.high <= self.at_most, self.measure.low > self.at_most
        else:
            assert self.at_least is not None
            within, beyond = self.measure.low >= self.at_least, self.measure.high < self.at_least
        return "pass" if within else "fail" if beyond else "investigate"


class Check(Config):
    """One question, its answer, and the numbers behind it."""

    name: Literal["strangers", "leak", "reconstruction", "membership", "robustness", "agreement"]
    outcome: Outcome
    finding: str
    """The answer in a sentence or two."""
    numbers: tuple[Number, ...] = ()


class Recognised(Config):
    """A training image and the sample that shows it best, with the control beside them."""

    flagged: bool
    """Whether it is named, at the policy's rate of false alarms or as a copy; else it is only the closest there is."""
    train: int
    """Index in the training split."""
    samples: str
    """Name of the set of samples."""
    sample: int
    """Index in the whole of it, as it was given to the audit."""
    distance: float
    """1 - SSIM of the two, or Euclidean for images smaller than 7 x 7."""
    p_value: float
    """Share of test images that are shown as well by some sample."""
    control: int
    """Index in the test split of the test image that is shown best after as many others as the training image."""
    control_sample: int
    """Index in the whole set of samples ``control_samples`` of what shows the control."""
    control_samples: str
    control_distance: float


class Files(Config):
    """What was audited, so that it can be told from anything else."""

    name: str
    sha256: str
    """Of its values, not of a file: sorted by name, each with type, shape and bytes."""
    num: int
    """Parameters of a model, or images."""


class AuditRecord(Config):
    """Everything that an audit found and what it was made of."""

    format: Literal["netinv audit 1"] = "netinv audit 1"
    """Changes when a reader of the file would have to."""
    made: str
    """When, in UTC."""
    verdict: Verdict
    summary: str
    """The verdict in a sentence."""
    checks: tuple[Check, ...]
    recognised: tuple[Recognised, ...]
    """Training images that are named, the most evident first, then the closest of the others."""
    num_recognised: int
    model: Files
    architecture: str
    adapter: dict[str, Any]
    """What the model takes and gives, as it was used."""
    evaluator: Files | None
    train: Files
    test: Files
    samples: tuple[Files, ...]
    """Of each set what was looked at: all of it, or as many as the policy bounds, chosen at random."""
    policy: dict[str, Any]
    shadow_models: str
    """What the shadow models were, and how accurate; empty without them."""
    versions: dict[str, str]
    limits: tuple[str, ...]
    """What this audit cannot tell."""
    seconds: float
    threads: PositiveInt

    @property
    def lines(self) -> list[str]:
        """What each check found, for a terminal."""
        return [f"{check.outcome:12} {check.name:15} {check.finding}" for check in self.checks]


def gravest(outcomes: Iterable[Outcome]) -> Outcome:
    """The gravest of some outcomes; ``skipped`` of none."""
    return max(outcomes, key=GRAVITY.index, default="skipped")


def load_audit(path: Path) -> AuditRecord:
    """Read ``audit.json``.

    Raises:
        InputError: The file is missing or is no audit.
    """
    return AuditRecord.parse(read_json(path, "audit again"), where=str(path))
