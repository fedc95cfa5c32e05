"""Make docs/images/counterfactuals.png: ``python docs/counterfactual_picture.py docs/images/counterfactuals.png``.

The embedded digits, and a classifier trained as the pipeline trains theirs. The upper row has test images that it reads
rightly, the lower one the nearest images that it reads as another class.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

import netinv
from netinv.classifiers import ClassifierTrainingConfig, ConvClassifierConfig, build_classifier, train_classifier
from netinv.data import channel_statistics, load_digits, to_float
from netinv.sampling import to_pixels

PAIRS = ((7, 1), (3, 8), (5, 6), (4, 9), (1, 7), (9, 5), (2, 3), (0, 6))
"""What they are, and what they are to become."""
EPSILON = 5.0


def main(out: Path) -> None:
    """Train, search, draw."""
    digits = load_digits()
    torch.manual_seed(0)
    mean, std = channel_statistics(digits.train.images)
    config = ConvClassifierConfig(channels=(16, 32), batch_norm=False)
    classifier = build_classifier(config, 10, (1, 16, 16), mean, std)
    training = ClassifierTrainingConfig(epochs=20, batch_size=64, shift=1, epsilon=0.05, distortion=0.2)
    for _ in train_classifier(classifier, digits.train, training, seed=0):
        pass
    classifier.eval()
    images, labels = to_float(digits.test.images), digits.test.labels
    with torch.no_grad():
        right = classifier(images).argmax(dim=1) == labels
    print(f"test accuracy {float(right.float().mean()):.4f}")
    first = [int(torch.nonzero(right & (labels == source))[0]) for source, _ in PAIRS]
    goals = torch.tensor([goal for _, goal in PAIRS])
    found = netinv.refine(images[first], classifier, goals, epsilon=EPSILON, eight_bit=True)
    for (source, goal), distance, hit in zip(PAIRS, found.distance.tolist(), found.succeeded.tolist(), strict=True):
        print(f"{source} to {goal}: {distance:.2f}" if hit else f"{source} to {goal}: not within {EPSILON}")
    upper, lower = (
        torch.cat([F.pad(x, (1, 1, 1, 1), value=0.5) for x in part], dim=2) for part in (images[first], found.images)
    )
    rows = torch.cat([upper, lower], dim=1)  # (1, 36, 144)
    Image.fromarray(to_pixels(rows[None].numpy(), scale=4)[0, 0]).save(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
