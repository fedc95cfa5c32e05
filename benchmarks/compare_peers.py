"""This library beside what people would use in its place: one command, one table.

``python benchmarks/zoo.py train mnist --mirror DIR --models build/zoo`` trains the networks and their judges, and
``python benchmarks/compare_peers.py mnist --mirror DIR --models build/zoo --out build/peers.jsonl`` inverts them by
each method of ``peers/``: the same frozen network, the same processor time on one thread, the same judges. Each result
is a line of that file, which a later call goes on with: what is there is not made again. Of all lines it writes a table
beside it. What depends on the number of images is measured of equally many of each class, and of no method that made
fewer.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import zoo
from measuring import add_row, read_rows
from peers import PEERS, Inversion
from torch import Tensor

from netinv.classifiers import AdaptedClassifier, ClassifierTrainingConfig
from netinv.core import InputError
from netinv.data import Dataset, to_float
from netinv.evaluation import EvaluationConfig, measure_images
from netinv.results import Estimate

MARKS = tuple(2 ** (-i / 2) for i in range(14, -1, -1))
"""Shares of the budget after which the judges look: from a 128th on, each 1.4 times the last."""
LOOKED = 20
"""Images of each class that they look at then, and that are compared at the end."""
NEAR = 0.01
"""What is this near to the best accuracy of all marks counts as reaching it."""
DRAWN = 1_000
"""Images drawn at once to see what the next 10,000 cost."""
LESSON = 12_800
"""Images that a student sees, those that there are again and again."""
MEASURES = ("vendi_centred_ratio", "coverage", "student_accuracy", "robust_accuracy")
HEADER = (
    "data | network | method | budget, s | images | inversion | judges: {judges} | mean (worst class) | best | "
    "seconds to it | "
    "centred diversity of {compared} | coverage of {compared} | student | robust of {compared} | "
    "first image, s | next 10,000, s"
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What all methods are given."""

    folder: Path
    """Of the networks of a data set."""
    judges: list[str]
    """The last one gives the features, too."""
    budget: float
    """Seconds of processor time."""
    per_class: int
    """Images of each class that are measured at most."""
    data: Dataset
    epsilon: float
    """Of the attack on images."""

    @property
    def compared(self) -> int:
        """Images of each class that are compared."""
        return min(LOOKED, self.per_class)


def config_of(setting: Setting, num: int) -> EvaluationConfig:
    """How so many finished images are measured: ``LOOKED`` of each class behind a Vendi score, whoever made more."""
    return EvaluationConfig(
        num_samples=2000,
        vendi_samples=LOOKED,
        epsilons=(setting.epsilon,),
        robust_epsilon=setting.epsilon,
        resamples=100,
        # About as many steps for each, however many images there are.
        student=ClassifierTrainingConfig(epochs=math.ceil(LESSON / num), batch_size=128, shift=2),
    )


def judged(judges: dict[str, AdaptedClassifier], images: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Of each judge the share of each class that it reads as asked; 0 of a class of which there is no image."""
    read = {name: zoo.read(judge, images, labels) for name, judge in judges.items()}
    return {name: [0.0 if math.isnan(share) else share for share in shares] for name, shares in read.items()}


def accuracy(read: dict[str, list[float]]) -> float:
    """Over judges and classes."""
    return mean(mean(shares) for shares in read.values())


def run(inversion: Inversion, judges: dict[str, AdaptedClassifier], budget: float) -> Row:
    """Let a method work for so much processor time, and look at what it has along the way.

    Returns:
        Its ``seconds``, whether it ``ended`` by itself, after how many the ``first`` batch and the last that was
        ``finished`` were there, the ``history`` of seconds and accuracy under the judges, the ``best`` of those, and
        when it was reached.
    """
    wanted = torch.arange(10).repeat_interleave(LOOKED)
    seconds, first, more, history, made, finished = 0.0, None, True, [], None, 0.0
    marks = iter([budget * share for share in MARKS])
    due: float | None = next(marks)
    while more and due is not None:
        begun = time.process_time()
        more = inversion.work()
        seconds += time.process_time() - begun
        if first is None and inversion.made:
            first = seconds
        if inversion.made != made:
            made, finished = inversion.made, seconds
        if seconds >= due or not more:
            history.append((seconds, accuracy(judged(judges, *inversion.sample(wanted, seed=5)))))
            due = next((mark for mark in marks if mark > seconds), None)
    best = max(value for _, value in history)
    reached = next(when for when, value in history if value >= best - NEAR)
    return {
        "seconds": seconds,
        "ended": not more,
        "first": first,
        "finished": finished,
        "history": history,
        "best": best,
        "seconds_to_best": reached,
    }


def costs(inversion: Inversion, done: Row) -> Row:
    """Seconds until there is a first image, and of the next 10,000 (reckoned from the rate of what is made singly)."""
    if inversion.made is not None:
        rate = done["finished"] / inversion.made if inversion.made else None  # a batch under way is no image yet
        return {"first_image": done["first"], "next_10000": rate and 10_000 * rate}
    labels = torch.arange(DRAWN) % 10
    begun = time.process_time()
    inversion.sample(labels[:1], seed=6)
    middle = time.process_time()
    inversion.sample(labels, seed=7)
    end = time.process_time()
    return {"first_image": done["seconds"] + middle - begun, "next_10000": (end - middle) * 10_000 / DRAWN}


def chosen(labels: Tensor, per_class: int) -> Tensor | None:
    """Places of so many images of each class, chosen at random; none where a class has fewer."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(9))
    places = [order[labels[order] == label][:per_class] for label in range(10)]
    return torch.cat(places) if min(map(len, places)) == per_class else None


def measured(setting: Setting, network: str, images: Tensor, labels: Tensor) -> Row:
    """What finished images are worth."""
    classifier = zoo.adapted(setting.folder, network)
    judges = {name: zoo.adapted(setting.folder, name) for name in setting.judges}
    read = judged(judges, images, labels)
    by_class = [mean(shares) for shares in zip(*read.values(), strict=True)]
    evaluator = judges[setting.judges[-1]]
    sets, some = {"all": (images, labels)}, chosen(labels, setting.compared)
    if some is not None:
        sets["compared"] = images[some], labels[some]
    rows = measure_images(sets, classifier, evaluator, setting.data.test, config_of(setting, len(labels)))
    of = {name: rows.get("all" if name == "student_accuracy" else "compared") for name in MEASURES}
    found = {name: None if row is None else row.measures[name] for name, row in of.items()}
    return {
        "images": len(labels),
        "inversion": mean(judged({"own": classifier}, images, labels)["own"]),
        "judges": {name: mean(shares) for name, shares in read.items()},
        # A judge that gives all images one answer tells that they are strange to it, and of the method no more.
        "one_answer": [name for name, shares in read.items() if sum(share > 0 for share in shares) == 1],
        "worst_class": min(by_class),
    } | {name: value.value if isinstance(value, Estimate) else None for name, value in found.items()}


def real_row(setting: Setting, network: str) -> Row:
    """The same of real training images, which no method has."""
    images, labels = setting.data.train
    rows = torch.cat([(labels == label).nonzero()[: setting.per_class, 0] for label in range(10)])
    return measured(setting, network, to_float(images[rows]), labels[rows])


def method_row(setting: Setting, network: str, method: str, seed: int) -> Row:
    """One method on one network."""
    # A network of its own: some methods leave hooks in it.
    inversion = PEERS[method](zoo.adapted(setting.folder, network), seed)
    judges = {name: zoo.adapted(setting.folder, name) for name in setting.judges}
    done = run(inversion, judges, setting.budget)
    wanted = torch.arange(10).repeat_interleave(setting.per_class)
    return done | costs(inversion, done) | measured(setting, network, *inversion.sample(wanted, seed=8))


def rows_of(path: Path) -> list[Row]:
    """The lines that are there, without those of an older form, which do not say all of ``KEY``."""
    return [row for row in read_rows(path) if row.keys() >= set(KEY)]


KEY = ("data", "network", "method", "seed", "budget", "per_class", "compared", "epsilon", "looked_at_by")
"""What makes two lines the same."""


def key(row: Row) -> str:
    """Of a line."""
    return json.dumps([row.get(name) for name in KEY])


def all_rows(setting: Setting, networks: list[str], methods: list[str], seeds: int, path: Path) -> Iterator[Row]:
    """Every row that is not there yet; each is written down before the next is begun."""
    there = {key(row) for row in rows_of(path)}
    for network in networks:
        for method in ["real images", *methods]:
            for seed in range(1 if method == "real images" else seeds):
                values = (setting.folder.name, network, method, seed, setting.budget, setting.per_class)
                measured_with = (10 * setting.compared, setting.epsilon, setting.judges)
                row: Row = dict(zip(KEY, (*values, *measured_with), strict=True))
                if key(row) in there:
                    continue
                try:
                    row |= (
                        real_row(setting, network)
                        if method == "real images"
                        else method_row(setting, network, method, seed)
                    )
                except InputError as error:
                    print(f"{network}: {method} is left out. {error}", flush=True)
                    continue
                add_row(path, row)
                yield row


def told(values: list[Any], digits: int = 2) -> str:
    """Mean of what was measured over the seeds; empty for nothing."""
    known = [value for value in values if value is not None]
    return f"{mean(known):.{digits}f}" if known else ""


def line(rows: list[Row]) -> str:
    """The row of the table of a method on a network, of all its seeds."""
    one = rows[0]

    def of(name: str, digits: int = 3) -> str:
        return told([row.get(name) for row in rows], digits)

    judges = [told([row["judges"][name] for row in rows], 3) for name in one["judges"]]
    both = told([mean(row["judges"].values()) for row in rows], 3)
    cells = [one["data"], one["network"], one["method"], of("budget", 0), of("images", 0), of("inversion")]
    cells += [" / ".join(judges), f"{both} ({of('worst_class', 2)})", of("best"), of("seconds_to_best", 1)]
    cells += [*map(of, MEASURES), of("first_image", 1), of("next_10000", 1)]
    return f"| {' | '.join(cells)} |"


def reading(rows: list[Row]) -> list[str]:
    """Of each network who is ahead, and when this library arrives where its best peer ends: mean over the seeds."""
    lines = []
    groups = grouped([row for row in rows if "history" in row], ("data", "network", "budget"))
    for (data, network, _), group in groups.items():
        best = {name: mean(r["best"] for r in own) for (name,), own in grouped(group, ("method",)).items()}
        others = {name: value for name, value in best.items() if not name.startswith("netinv")}
        own = {name: value for name, value in best.items() if name not in others}
        if not others or not own:
            continue
        peer, ours = max(others, key=lambda name: others[name]), max(own, key=lambda name: own[name])
        verdict = "ahead of" if own[ours] > others[peer] else "behind"
        lines.append(f"- {data}, {network}: {ours} {own[ours]:.3f}, {verdict} {peer} {others[peer]:.3f}.")
        goal = others[peer] - NEAR
        arrived = [
            next((seconds for seconds, value in row["history"] if value >= goal), None)
            for row in group
            if row["method"] == ours
        ]
        theirs = mean(row["seconds_to_best"] for row in group if row["method"] == peer)
        when = "never" if None in arrived else f"after {told(arrived, 1)} s"
        lines[-1] += f" It is as good as that peer gets {when}; the peer after {theirs:.1f} s."
        lines += [f"  - {by_judge(group, ours, judge)}" for judge in group[0]["judges"]]
    return lines


def by_judge(rows: list[Row], ours: str, judge: str) -> str:
    """What one judge reads at the end, of a network's finished images: the means hide which of them sees nothing."""
    read = {name: mean(row["judges"][judge] for row in own) for (name,), own in grouped(rows, ("method",)).items()}
    peer = max((name for name in read if not name.startswith("netinv")), key=lambda name: read[name])
    strange = sorted({row["method"] for row in rows if judge in row.get("one_answer", ())})
    sentence = f"At the end {judge} reads {read[ours]:.3f} of {ours} and {read[peer]:.3f} of {peer}."
    return sentence + (f" It has one answer for everything of {', '.join(strange)}." if strange else "")


def grouped(rows: list[Row], names: tuple[str, ...]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows of the same values, in the order of their first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def table(rows: list[Row]) -> str:
    """All of it as Markdown."""
    groups = grouped(rows, ("data", "network", "method", "budget", "per_class"))
    counts = sorted({row["compared"] for row in rows})
    header = HEADER.format(judges=" / ".join(rows[0]["judges"]), compared=" or ".join(map(str, counts)))
    lines = [f"| {header} |", "|" + "---|" * (header.count("|") + 1), *map(line, groups.values())]
    return "\n".join([*lines, "", *reading(rows), ""])


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    zoo.add_data_options(parser)
    parser.add_argument("--networks", help="names, such as lenet5-0,conv2-0 (one of each kind)")
    parser.add_argument("--methods", help=f"of these, separated by ; (all): {'; '.join(PEERS)}")
    parser.add_argument(
        "--judges", default="judge-lenet,judge-resnet,judge-wide", help="the last one's features are compared"
    )
    parser.add_argument("--budget", type=float, default=40, help="seconds of processor time for each method")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-class", type=int, default=100, help="images of each class that are measured at most")
    parser.add_argument("--epsilon", type=float, default=0.1, help="L-infinity bound of the attack on images")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; a table is written beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1)])  # the first one imports for seconds, which no method shall pay
    networks = options.networks.split(",") if options.networks else [f"{name}-0" for name in zoo.NETWORKS]
    methods = options.methods.split(";") if options.methods else list(PEERS)
    if unknown := [name for name in methods if name not in PEERS]:
        raise SystemExit(f"There is no method {unknown[0]!r}; there are: {'; '.join(PEERS)}.")
    if "evolution" not in PEERS:
        print("evolution is left out: it needs the package cma (pip install cma).", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    folder, judges = options.models / options.dataset, options.judges.split(",")
    for name in [*networks, *judges]:
        zoo.adapted(folder, name)  # one that was not trained is told before anything is measured
    setting = Setting(
        folder,
        judges,
        options.budget,
        options.per_class,
        zoo.read_data(options),
        options.epsilon,
    )
    others = {name for row in rows_of(options.out) for name in row["judges"]} ^ set(setting.judges)
    if options.out.exists() and others:
        raise SystemExit(f"{options.out} holds lines of other judges ({', '.join(sorted(others))}): name another file.")
    for row in all_rows(setting, networks, methods, options.seeds, options.out):
        print(line([row]), flush=True)
    options.out.with_suffix(".md").write_text(table(rows_of(options.out)))
    print("\n" + table(rows_of(options.out)))


if __name__ == "__main__":
    main()
