"""Which attack gives the most in the same time: one generator for each attack and seed, everything else the preset's.

``python benchmarks/attacks.py mnist --models models/mnist`` (what ``make repro DATASETS=mnist`` leaves) prints a
Markdown table. The steps of each are set by hand so that all take the processor time of ``pgd, 1 step``, which the
table shows; another machine or network may want others. To choose settings by it, name as ``--judge`` a network that
takes no part in what is reported.
"""

import argparse
import time
from pathlib import Path
from statistics import mean, stdev

import torch

from netinv.classifiers import freeze, load_classifier, predict
from netinv.generators import ConditionedGenerator
from netinv.inversion import InversionConfig, invert
from netinv.perturbations import robust_accuracy
from netinv.sampling import draw
from pipeline.params import load_params

ATTACKS = {  # steps, settings
    "pgd, 1 step": (600, {"attack_steps": 1, "attack_step_size": 1.0}),
    "pgd, 2 steps": (505, {"attack_steps": 2, "attack_step_size": 0.75}),
    "pgd, 3 steps": (424, {"attack_steps": 3, "attack_step_size": 0.5}),
    "noise": (750, {"perturbation": "noise"}),
}


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--models", type=Path, required=True, help="folder of its classifier and evaluator")
    parser.add_argument("--judge", type=Path, help="another classifier's folder, in place of the evaluator's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--scale", type=float, default=1.0, help="of all steps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    params = load_params().for_dataset(arguments.dataset).invert
    architecture = params.common.architecture("robust")
    classifier = load_classifier(arguments.models / "classifier")
    judge = load_classifier(arguments.judge or arguments.models / "evaluator")
    for network in (classifier, judge):
        freeze(network)
    print("| attack | steps | inversion accuracy | judge's accuracy | under PGD-20 | CPU seconds |")
    print("|---|---|---|---|---|---|")
    for name, (steps, settings) in ATTACKS.items():
        steps = round(steps * arguments.scale)
        config = InversionConfig.model_validate(params.robust.model_dump() | settings | {"steps": steps})
        rows = []
        for seed in arguments.seeds:
            torch.manual_seed(seed)
            generator = ConditionedGenerator(architecture, classifier.num_classes, classifier.image_shape)
            start = time.process_time()
            for _ in invert(generator, classifier, config, seed):
                pass
            seconds = time.process_time() - start
            latent, vector = draw(
                2000,
                latent_dim=generator.config.latent_dim,
                num_classes=classifier.num_classes,
                seed=99,
                sharpness=config.sharpness,
            )
            with torch.no_grad():
                images = generator(torch.from_numpy(latent), torch.from_numpy(vector))
            label = torch.from_numpy(vector).argmax(dim=1)
            read = [
                (predict(net, images)[0].argmax(dim=1) == label).float().mean().item() for net in (classifier, judge)
            ]
            attacked = robust_accuracy(classifier, images[:1000], label[:1000], config.epsilon)
            rows.append((*read, attacked, seconds))
        cells = [
            f"{mean(column):.{places}f}" + (f" ± {stdev(column):.{places}f}" if len(rows) > 1 else "")
            for column, places in zip(zip(*rows, strict=True), (4, 3, 3, 1), strict=True)
        ]
        print(f"| {name} | {steps} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
