"""One generator with an embedding of the label, trained by cross-entropy alone.

Source: what Suhail and Sethi, Network Inversion of Convolutional Neural Nets, start from and compare with (section 2).
Settings: batch 64, Adam at 0.002 all along, 64 latents, dropout 0.2: this library's defaults.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier
from netinv.generators import ConditionedGenerator, GeneratorConfig

BATCH, RATE = 64, 2e-3


class Embedding:
    """See the module. Others build on it: a batch of another size, another loss."""

    made = None
    batch, rate = BATCH, RATE
    config = GeneratorConfig(conditioning="embedding")

    def __init__(self, classifier: AdaptedClassifier, seed: int) -> None:
        torch.manual_seed(seed)
        self.classifier = classifier
        self.rng = torch.Generator().manual_seed(seed)
        self.generator = self.built()
        self.optimizer = torch.optim.Adam(self.parameters(), lr=self.rate)

    def built(self) -> nn.Module:
        """Maps latents (N, Z) and one-hot labels (N, K) to images."""
        return ConditionedGenerator(self.config, self.classifier.num_classes, self.classifier.image_shape)

    def parameters(self) -> list[Tensor]:
        """Whatever is trained."""
        return list(self.generator.parameters())

    def draw(self, latent: Tensor, label: Tensor) -> Tensor:
        """Images (N, C, H, W) of latents (N, Z) and labels (N,)."""
        images: Tensor = self.generator(latent, F.one_hot(label, self.classifier.num_classes).float())
        return images

    def loss(self, images: Tensor, label: Tensor, latent: Tensor) -> Tensor:
        """Of a batch, a scalar."""
        return F.cross_entropy(self.classifier(images), label)

    def work(self) -> bool:
        """A step of the generator."""
        self.generator.train()
        label = torch.randint(self.classifier.num_classes, (self.batch,), generator=self.rng)
        latent = torch.randn(self.batch, self.config.latent_dim, generator=self.rng)
        loss = self.loss(self.draw(latent, label), label, latent)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return True

    @torch.no_grad()
    def sample(self, label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Fresh images without dropout."""
        self.generator.eval()
        latent = torch.randn(len(label), self.config.latent_dim, generator=torch.Generator().manual_seed(seed))
        parts = zip(latent.split(100), label.split(100), strict=True)
        return torch.cat([self.draw(*part) for part in parts]), label
