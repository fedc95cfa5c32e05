"""Results in sentences. Each follows from stated bars and from the controls beside the number, whatever was measured.

A number counts by where it lies on the way from a control that is worth nothing (noise, chance, one picture of each
class that is bent) to real images: noise is praised for nothing there, and real images for everything. The accuracy of
the inverted classifier, under attack or not, counts as it is: real images fall short where the classifier does.
``docs/report.md`` has the bars as a table.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from netinv.core import listed
from netinv.results.estimates import MIN_SAMPLES, Estimate, Measure, NotMeasured
from netinv.results.numbers import number, percentage
from netinv.results.schema import Results, Row

Grade = Literal["good", "fair", "bad", "unknown"]

HEADLINE = (
    "inversion_accuracy",
    "evaluator_accuracy",
    "robust_accuracy",
    "density",
    "coverage",
    "vendi_centred_ratio",
    "student_accuracy",
    "distilled_accuracy",
    "membership_auc",
)
"""The measures that people compare."""


class Bar(NamedTuple):
    """From where on a number is good, and fair."""

    good: float
    fair: float

    def grade(self, value: float) -> Grade:
        return "good" if value >= self.good else "fair" if value >= self.fair else "bad"


BARS = {
    "inversion_accuracy": Bar(0.98, 0.9),
    "evaluator_accuracy": Bar(0.9, 0.5),
    "robust_accuracy": Bar(0.8, 0.4),
    "density": Bar(0.5, 0.2),
    "coverage": Bar(0.5, 0.2),
    "vendi_centred": Bar(0.7, 0.3),
    "student_accuracy": Bar(0.9, 0.6),
    "distilled_accuracy": Bar(0.9, 0.6),
}
"""Of the whole: of a share, or of its place on the way from the control worth nothing to real images."""
WORST = {"inversion_accuracy": Bar(0.9, 0.5), "evaluator_accuracy": Bar(0.5, 0.25)}
"""Of the worst class, as a share of what real images of it get: one class that is missing spoils the mark of all."""
WORTHLESS = ("one_picture", "noise")
"""Rows of images that show nothing new."""
ORDER: tuple[Grade, ...] = ("bad", "unknown", "fair", "good")


MARKS: dict[Grade, str] = {"good": "Good", "fair": "Fair", "bad": "Poor", "unknown": "Open"}
"""The grades, for people."""


class Finding(NamedTuple):
    """One sentence, and whether it is good news."""

    grade: Grade
    text: str

    @property
    def line(self) -> str:
        """The sentence after its grade."""
        return f"{MARKS[self.grade]}: {self.text}"


def findings(results: Results, row: Row) -> list[Finding]:
    """How well generated images did: a sentence for each question that people ask, privacy last.

    Args:
        results: All that was found, with its controls.
        row: The ensemble, or one generator.
    """
    measures = dict(row.measures)
    if row.kind == "ensemble":
        measures["distilled_accuracy"] = results.headline["distilled_accuracy"]
    judge = _Judge(results, row)

    def said(title: str, name: str, sentence: Callable[[float], Finding]) -> Finding:
        measure = measures[name]
        if isinstance(measure, NotMeasured):
            return Finding("unknown", f"{title} was {measure}.")
        return sentence(measure.value)

    found = [
        said("Inversion accuracy", "inversion_accuracy", judge.read),
        said("Evaluator accuracy", "evaluator_accuracy", judge.recognised),
        said("Robust accuracy", "robust_accuracy", judge.survives),
        said("Density", "density", judge.among_real),
        said("Coverage", "coverage", judge.covering),
        said("Diversity", "vendi_centred", judge.diverse),
        said("Student accuracy", "student_accuracy", judge.teaching),
    ]
    if "distilled_accuracy" in measures:
        found.append(said("Distilled student's accuracy", "distilled_accuracy", judge.distilling))
    leak, verdict = (
        (results.leak, results.verdict) if row.kind == "ensemble" else (row.audit.memorised, row.audit.verdict)
    )
    privacy = Finding("unknown" if leak is None else "bad" if leak else "good", verdict)
    return [*found, privacy]


class _Judge:
    """The sentences on one row, with the controls that they need."""

    def __init__(self, results: Results, row: Row) -> None:
        self.results, self.row = results, row
        self.references = {other.name: other for other in results.rows if other.kind == "reference"}
        self.real, self.noise, self.one = (
            self.references[name].measures for name in ("real_test", "noise", "one_picture")
        )

    def read(self, share: float) -> Finding:
        grade, worst = self._worst("inversion_accuracy", BARS["inversion_accuracy"].grade(share))
        return Finding(grade, f"The classifier reads {percentage(share)} as the class asked for{worst}.")

    def recognised(self, share: float) -> Finding:
        real = self.real["evaluator_accuracy"]
        whole = self._recognition(share)
        grade, worst = self._worst("evaluator_accuracy", whole)
        own = self.row.measures["inversion_accuracy"]
        # Said of most images only where it is most of them: those read as asked, less those that others recognise; and
        # of an evaluator that reads as many more real images, or it would be true of these as well.
        most = min(_known(own, 0.0).value, _known(real, 1.0).value)
        alone = whole == "bad" and most - share > 0.5
        reading = ": most are inputs that only the inverted classifier reads so" if alone else ""
        return Finding(
            grade,
            f"An independent network recognises {percentage(share)}{_aside({'real images': real})}{reading}{worst}.",
        )

    def _recognition(self, share: float) -> Grade:
        chance, real = _exactly(1 / len(self.results.classes)), _known(self.real["evaluator_accuracy"], 1.0)
        if real.low <= chance.value:  # then it says as little of images that it does not read
            return "unknown"
        return _placed("evaluator_accuracy", share, chance, real)

    def survives(self, share: float) -> Finding:
        controls = {"real images": self.real["robust_accuracy"], "noise": self.noise["robust_accuracy"]}
        epsilon = f"{self.results.settings['robust_epsilon']:g}"
        return Finding(
            BARS["robust_accuracy"].grade(share),
            f"{percentage(share)} keep their class under attack, ε = {epsilon}{_aside(controls)}.",
        )

    def among_real(self, density: float) -> Finding:
        real, noise = self.references["real_train"].measures["density"], self.noise["density"]
        grade = _placed("density", density, _known(noise, 0.0), _known(real, 1.0))
        places = {"good": "among", "fair": "near"}
        aside = _aside({"real images": real, "noise": noise}, number)
        where = f"They lie {places.get(grade, 'apart from')} real images in the evaluator's eyes"
        if grade == "unknown":
            where = "Whether they lie among real images cannot be told from these controls"
        return Finding(grade, f"{where}: density {number(density)}{aside}.")

    def covering(self, share: float) -> Finding:
        real, one, noise = (self.references[name].measures["coverage"] for name in ("real_train", *WORTHLESS))
        grade = _placed("coverage", share, _most(one, noise), _known(real, 1.0))
        amounts = {"good": "most", "fair": "a part"}
        aside = _aside({"of real images": real, "of one real picture a class, bent": one, "of noise": noise})
        shown = f"They show {amounts.get(grade, 'little')} of what real images look like"
        if grade == "unknown":
            shown = "How much they show of what real images look like cannot be told from these controls"
        return Finding(grade, f"{shown}: {percentage(share)} of those have one of these nearby{aside}.")

    def diverse(self, score: float) -> Finding:
        real, one, noise = (source["vendi_centred"] for source in (self.real, self.one, self.noise))
        text = f"Within a class they are as diverse as {number(score)} distinct images"
        text += f"{_aside({'real images': real, 'one real picture, bent': one, 'noise': noise}, number)}"
        if not isinstance(real, Estimate):
            return Finding("unknown", f"{text}; that of real images was {real}.")
        grade = _placed("vendi_centred", score, _exactly(1.0), real)
        if grade == "bad":
            return Finding(grade, f"{text}: hardly more than one picture a class{self._least()}.")
        accuracy, density, coverage = (
            self.row.measures[name] for name in ("evaluator_accuracy", "density", "coverage")
        )
        recognised = isinstance(accuracy, Estimate) and self._recognition(accuracy.value) != "bad"
        if recognised and isinstance(coverage, Estimate) and self.covering(coverage.value).grade == "bad":
            return Finding("bad", f"{text}: such variety as one picture gives that is bent, not that of real images.")
        lost = [] if recognised else ["are not recognised"]
        if not isinstance(density, Estimate) or self.among_real(density.value).grade == "bad":
            lost.append("lie apart from real images")
        if lost:
            return Finding("unknown", f"{text}; this counts for little while they {' and '.join(lost)}.")
        return Finding(grade, f"{text}{self._least()}.")

    def _least(self) -> str:
        """The class of the least diversity next to real images."""
        ours, theirs = (source.by_class.get("vendi", ()) for source in (self.row, self.references["real_test"]))
        known = [
            (mine.value / real.value, name)
            for mine, real, name in zip(ours, theirs, self.results.classes, strict=False)
            if isinstance(mine, Estimate) and isinstance(real, Estimate)
        ]
        if not known:
            return ""
        among = f" of the {len(known)} that can be compared" if len(known) < len(self.results.classes) else ""
        return f"; least so in class {min(known)[1]}{among}"

    def teaching(self, share: float) -> Finding:
        sentence = "A fresh network trained on them alone reads {} of real test images right"
        return self._taught("student", sentence, share, self.one["student_accuracy"])

    def distilling(self, share: float) -> Finding:
        sentence = "One that is taught the classifier's answers to them reads {} right"
        return self._taught("distilled", sentence, share, self.results.headline["distilled_one_picture_accuracy"])

    def _taught(self, student: str, sentence: str, share: float, one: Measure) -> Finding:
        noise, real = (self.results.headline[f"{student}_{control}_accuracy"] for control in ("noise", "real"))
        worthless = {"on one real picture a class, bent": one, "on noise": noise}
        grade = _placed(f"{student}_accuracy", share, _most(*worthless.values()), _known(real, 1.0))
        return Finding(grade, f"{sentence.format(percentage(share))}{_aside({'on real images': real, **worthless})}.")

    def _worst(self, name: str, grade: Grade) -> tuple[Grade, str]:
        """The grade as the worst class leaves it, next to real images of that class, and a clause on it.

        Nothing is good of which some classes have no number, or none to compare with.
        """
        unknown = (NotMeasured(not_measured="no real images were given"),) * len(self.results.classes)
        ours, real = (source.by_class.get(name, unknown) for source in (self.row, self.references["real_test"]))
        few, num = sum(isinstance(share, NotMeasured) for share in ours), len(ours)
        more = f": draw more samples, {20 * num:,} or so (num_samples)"  # 1 in 200 has below 10 where 20 are expected
        if few == num:
            return _lower(grade, "unknown"), f"; no class has the {MIN_SAMPLES} images that a share needs{more}"
        grade = _lower(grade, "fair") if few else grade
        unjudged = f"; {few} of {num} classes have too few images to be judged{more}" if few else ""
        known, unread = [], []
        for label, share, of_real in zip(self.results.classes, ours, real, strict=True):
            whole = _known(of_real, 1.0).value
            if isinstance(share, Estimate) and share.value < 1 and whole > 1 / num:
                known.append((share.value / whole, share, of_real, label))
            elif isinstance(share, Estimate) and WORST[name].grade(share.value) != "good":
                unread.append(label)
        if unread:
            grade = _lower(grade, "fair")
            unjudged += f"; {len(unread)} of {num} classes cannot be judged, as real images of them are read by chance "
            unjudged += f"at best ({listed(unread, 3)})"
        if not known:
            return grade, unjudged
        ratio, share, of_real, label = min(known, key=lambda each: each[0])
        of_worst = WORST[name].grade(ratio)
        gone = [each[-1] for each in known if WORST[name].grade(each[0]) == "bad"]
        clause = f"class {label} is as good as missing" if gone else f"worst is class {label}"
        if len(gone) > 1:
            clause = f"{len(gone)} classes are as good as missing ({listed(gone, 3)}), the worst is class {label}"
        aside = _aside({"real images": of_real})
        return _lower(grade, of_worst), f"; {clause}, {percentage(share.value)}{aside}{unjudged}"


def _lower(first: Grade, second: Grade) -> Grade:
    return min(first, second, key=ORDER.index)


def _placed(name: str, value: float, nothing: Estimate, real: Estimate) -> Grade:
    """The grade of a place on the way from a control worth nothing to real images, if their intervals lie apart."""
    if value < nothing.low:
        return "bad"
    if real.low <= nothing.high:
        return "unknown"
    return BARS[name].grade((value - nothing.value) / (real.value - nothing.value))


def _known(measure: Measure, otherwise: float) -> Estimate:
    """A measure, or else a number without doubt."""
    return measure if isinstance(measure, Estimate) else _exactly(otherwise)


def _most(*controls: Measure) -> Estimate:
    """The largest of controls worth nothing."""
    return max((_known(control, 0.0) for control in controls), key=lambda control: control.value)


def _exactly(number: float) -> Estimate:
    return Estimate(value=number, low=number, high=number, n=1)


def _aside(controls: Mapping[str, Measure], show: Callable[[float], str] = percentage) -> str:
    """Numbers to compare with, in brackets; those that were not measured are left out."""
    known = [f"{name}: {show(control.value)}" for name, control in controls.items() if isinstance(control, Estimate)]
    return f" ({', '.join(known)})" if known else ""
