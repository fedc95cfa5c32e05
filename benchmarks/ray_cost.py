"""What Ray and tracking cost, parts of ``chaos.py``."""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from projects import change, fresh_project, run
from ray_work import Mode, Row, Work, config_of

from netinv.classifiers import Classifier
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import invert
from pipeline.cluster import cluster

BARE = """
import json, sys
from netinv.classifiers import load_classifier
from netinv.classifiers import freeze
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, invert
import torch
classifier = load_classifier(sys.argv[1])
freeze(classifier)
torch.manual_seed(0)
generator = ConditionedGenerator(GeneratorConfig(**json.loads(sys.argv[2])), 10, classifier.image_shape)
for _ in invert(generator, classifier, InversionConfig(**json.loads(sys.argv[3])), 0):
    pass
"""


def cost_part(classifier: Classifier, trials: int) -> Iterator[tuple[str, Any, Row]]:
    """The stage against the bare loop, both as processes, short and long: the difference is that of the steps."""
    from ruamel.yaml import YAML

    steps, yaml = 2500, YAML()
    with tempfile.TemporaryDirectory() as temporary:
        project = fresh_project(Path(temporary), **{"invert.common.num_generators": 1})
        inversion = yaml.load(project / "params.yaml")["invert"]

        def seconds(command: list[str]) -> float:
            start = time.perf_counter()
            run(project, *command)
            return time.perf_counter() - start

        def stage(steps: int) -> float:
            change(project, yaml, {"invert.standard.steps": steps})
            outputs = ["--out", "out", "--metrics", "m.json", "--plots", "p.csv"]
            arguments = ["digits", "standard", "--model", "models/digits/classifier", *outputs]
            return seconds([sys.executable, "-m", "pipeline.invert", *arguments])

        def bare(steps: int) -> float:
            settings = (
                json.dumps({**inversion["standard"], "steps": steps}),
                json.dumps(inversion["common"]["generator"]),
            )
            return seconds([sys.executable, "-c", BARE, "models/digits/classifier", *settings[::-1]])

        stage(1), bare(1)  # from here on the delivery is at work and files are in memory
        turns = []
        for turn in range(4):
            parts: list[tuple[str, Callable[[int], float]]] = [("stage", stage), ("bare", bare)]
            taken = {f"{name}_{n}": call(n) for name, call in parts[:: 1 if turn % 2 else -1] for n in (1, 1 + steps)}
            turns.append(taken)
            print(f"  {taken}", file=sys.stderr)
    ratios = [
        (turn[f"stage_{1 + steps}"] - turn["stage_1"]) / (turn[f"bare_{1 + steps}"] - turn["bare_1"]) for turn in turns
    ]
    fixed = [turn["stage_1"] for turn in turns]
    ratio = statistics.median(ratios)
    yield (
        "step",
        {"turns_s": turns, "ratios": ratios},
        (
            f"a step with Ray and tracking over the bare loop, {steps} steps",
            "1.05",
            f"{ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            ratio <= 1.05,
        ),
    )
    yield (
        "fixed",
        {"seconds": fixed},
        (
            "a stage of one step, from its start to its end, imports included",
            "20 s",
            f"{statistics.median(fixed):.1f} s ({min(fixed):.1f} to {max(fixed):.1f})",
            statistics.median(fixed) < 20,
        ),
    )


def ensemble_part(classifier: Classifier, trials: int) -> Iterator[tuple[str, Any, Row]]:
    """Four generators on two slots, and in sequence, told of and kept as often as the pipeline does."""
    log_every, checkpoint_every = 25, 100
    mode = Mode(generators=4, num_workers=1, steps=800)
    torch.set_num_threads(1)

    def in_sequence() -> float:
        start = time.perf_counter()
        for seed in range(mode.generators):
            torch.manual_seed(seed)
            generator = ConditionedGenerator(GeneratorConfig(), 10, classifier.image_shape)
            for _ in invert(generator, classifier, config_of(mode.steps, log_every), seed):
                pass
        return time.perf_counter() - start

    turns = []
    with cluster(None):
        Work(classifier, mode._replace(steps=5)).run()
        for turn in range(5):
            contenders: list[tuple[str, Callable[[], float]]] = [
                ("ensemble", lambda: Work(classifier, mode, checkpoint_every, log_every).run().seconds),
                ("sequence", in_sequence),
            ]
            turns.append({name: call() for name, call in contenders[:: 1 if turn % 2 else -1]})
    ratios = [turn["sequence"] / turn["ensemble"] for turn in turns]
    ratio = statistics.median(ratios)
    yield (
        "ensemble",
        {"turns_s": turns, "ratios": ratios},
        (
            "4 generators on 2 slots over 4 in sequence, throughput",
            "1.8",
            f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            ratio >= 1.8,
        ),
    )
