"""Does the audit catch what leaks, and let through what does not? Controls on digits, over repetitions, as a table.

    python benchmarks/audit_controls.py --repetitions 20 --out controls.jsonl

Each repetition has its own split of the digits, seeds, classifiers and generator. A line of the file is one control of
one repetition, so that a run which is cut short says how far it came; started again it goes on.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from netinv.audit import AuditRecord, Policy, audit
from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    build_classifier,
    freeze,
    train_classifier,
)
from netinv.data import LabelledImages, channel_statistics, load_digits, to_float
from netinv.generators import ConditionedGenerator, GeneratorConfig, draw_images
from netinv.inversion import invert, variant_config

TINY = ConvClassifierConfig(channels=(8, 16), feature_dim=64)
STEPS = 150
"""Of the inversion."""
POSITIVE = ("overfitted on 200 images", "a replaying generator", "20 of 300 replayed")
NEGATIVE = ("a trained generator", "real test images")


def split(seed: int) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """700 training images, 700 test images, and 397 that no audit is told of."""
    data = load_digits()
    images, labels = (torch.cat(tensors) for tensors in zip(data.train, data.test, strict=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    parts = (order[:700], order[700:1400], order[1400:])
    train, test, other = (LabelledImages(images[i], labels[i]) for i in parts)
    return train, test, other


def trained(data: LabelledImages, epochs: int, dropout: float, seed: int) -> Classifier:
    """A classifier with fresh weights, trained on some images."""
    torch.manual_seed(seed)
    architecture = TINY.model_copy(update={"dropout": dropout})
    classifier = build_classifier(architecture, 10, (1, 16, 16), *channel_statistics(data.images))
    for _ in train_classifier(classifier, data, ClassifierTrainingConfig(epochs=epochs, batch_size=64), seed):
        pass
    freeze(classifier)
    return classifier


def drawn(classifier: Classifier, seed: int) -> Tensor:
    """300 images of a generator trained on a classifier."""
    torch.manual_seed(seed)
    generator = ConditionedGenerator(GeneratorConfig(width=8, max_width=32), 10, (1, 16, 16))
    config = variant_config("robust").model_copy(update={"steps": STEPS, "batch_size": 32, "pixel_statistics": 0.0})
    for _ in invert(generator, classifier, config, seed):
        pass
    return draw_images(generator.eval(), 300, seed=seed, sharpness=config.sharpness)[0]


def audits(seed: int) -> Iterator[tuple[str, AuditRecord]]:
    """Every control of one repetition: its name, and its audit by the default policy."""
    policy = Policy(seed=seed)
    train, test, other = split(seed)
    few = LabelledImages(train.images[:200], train.labels[:200])
    yield POSITIVE[0], audit(trained(few, 100, 0.0, seed), few, test, policy)
    classifier = trained(train, 10, 0.25, seed)
    fresh, replayed = to_float(other.images[:300]), to_float(train.images[:300])
    yield NEGATIVE[0], audit(classifier, train, test, policy, {"samples": drawn(classifier, seed)})
    # The classifier is the same one, whose checks would only be done again.
    samples_only = policy.model_copy(update={"membership": None, "robustness": None})
    yield NEGATIVE[1], audit(classifier, train, test, samples_only, {"samples": fresh})
    yield POSITIVE[1], audit(classifier, train, test, samples_only, {"samples": replayed})
    rare = torch.cat([fresh[:280], replayed[:20]])
    yield POSITIVE[2], audit(classifier, train, test, samples_only, {"samples": rare})


def table(lines: list[dict[str, str]]) -> str:
    """Verdicts of each control, counted."""
    rows = [
        "| control | must | runs | fail | investigate | pass | checks that failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in (*POSITIVE, *NEGATIVE):
        own = [line for line in lines if line["control"] == name]
        verdicts = Counter(line["verdict"] for line in own)
        by = Counter(check for line in own for check in line["failed"].split())
        told = ", ".join(f"{check} {num}" for check, num in by.items()) or "none"
        counts = " | ".join(str(verdicts[verdict]) for verdict in ("fail", "investigate", "pass"))
        rows.append(f"| {name} | {'fail' if name in POSITIVE else 'not fail'} | {len(own)} | {counts} | {told} |")
    return "\n".join(rows)


def main() -> None:
    """Run what the file does not hold yet, and print the table of all that it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = Counter(line["seed"] for line in lines)
    for seed in range(options.repetitions):
        if done[str(seed)] == len(POSITIVE) + len(NEGATIVE):
            continue
        lines = [line for line in lines if line["seed"] != str(seed)]
        began = time.monotonic()
        for name, record in audits(seed):
            failed = [check.name for check in record.checks if check.outcome == "fail"]
            line = {"seed": str(seed), "control": name, "verdict": record.verdict, "failed": " ".join(failed)}
            lines.append(line)
            findings = "; ".join(c.finding for c in record.checks if c.outcome in ("fail", "investigate"))
            print(f"{seed} {name}: {record.verdict}. {findings}", flush=True)
            options.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
        print(f"{seed}: {time.monotonic() - began:.0f} s", flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
