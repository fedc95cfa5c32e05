"""A generator from whose images a decoder reads back the noise, with a term that keeps images apart.

Source: Yoo and others, Knowledge Extraction with No Observable Data (2019), equations 6 to 9.
Settings: those that the paper's code has for MNIST, batch 256 and Adam at 0.001, decoder term 1; the diversity term 1,
as it has for SVHN (MNIST 0, Fashion-MNIST 10). Ten latents. The decoder is a perceptron of one hidden layer of 128.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier
from netinv.generators import GeneratorConfig
from peers.embedding import Embedding

ALPHA, BETA = 1.0, 1.0
"""Weights of the decoder's term and of the diversity."""


def diversity_loss(latent: Tensor, images: Tensor) -> Tensor:
    """exp(-mean over all pairs of |z_i - z_j|^2 |x_i - x_j|_1), both distances as means over their entries; a scalar.

    Args:
        latent: (N, Z).
        images: (N, C, H, W).
    """
    flat = images.flatten(1)
    squared = (latent[:, None] - latent[None]).square().mean(dim=2)  # (N, N)
    apart = torch.cdist(flat, flat, p=1) / flat.shape[1]  # (N, N)
    return torch.exp(-(squared * apart).mean())


def kegnet_loss(logits: Tensor, label: Tensor, decoded: Tensor, latent: Tensor, images: Tensor) -> Tensor:
    """Cross-entropy, how badly the noise is read back, and the diversity; a scalar."""
    return F.cross_entropy(logits, label) + ALPHA * F.mse_loss(decoded, latent) + BETA * diversity_loss(latent, images)


class KegNet(Embedding):
    """See the module."""

    batch, rate = 256, 1e-3
    config = GeneratorConfig(conditioning="embedding", latent_dim=10, dropout=0)

    def __init__(self, classifier: AdaptedClassifier, seed: int) -> None:
        torch.manual_seed(seed)
        channels, height, width = classifier.image_shape
        self.decoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * height * width, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, self.config.latent_dim),
        )
        super().__init__(classifier, seed)

    def parameters(self) -> list[Tensor]:
        """Generator and decoder."""
        return [*super().parameters(), *self.decoder.parameters()]

    def loss(self, images: Tensor, label: Tensor, latent: Tensor) -> Tensor:
        """Of a batch, a scalar."""
        return kegnet_loss(self.classifier(images), label, self.decoder(images), latent, images)
