"""A generator from whose images a decoder reads back the noise, with a term that keeps images apart.

Source: Yoo and others, Knowledge Extraction with No Observable Data (2019), equations 6 to 9.
Settings: those that the paper's code has for MNIST, Adam at 0.001, ten latents, decoder term 1, a decoder of two hidden
layers of 120; the diversity term 1, as it has for SVHN (MNIST 0, Fashion-MNIST 10). Generator and decoder are theirs,
and each image is brought to the mean and deviation of training images; here it is cut to [0, 1] then. The batch is 64
in place of 256, with which judges read fewer of the images after the same half a minute.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier
from netinv.generators import GeneratorConfig
from peers.embedding import Embedding

ALPHA, BETA = 1.0, 1.0
"""Weights of the decoder's term and of the diversity."""
UNITS = 120
"""Width of the decoder."""


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


def normalised(images: Tensor) -> Tensor:
    """Each channel of each image (N, C, H, W) less its mean and over its deviation."""
    deviation, mean = torch.std_mean(images, dim=(2, 3), keepdim=True)
    return (images - mean) / deviation.clamp(min=1e-6)


def kegnet_loss(logits: Tensor, label: Tensor, decoded: Tensor, latent: Tensor, images: Tensor) -> Tensor:
    """Cross-entropy, how badly the noise is read back, and the diversity; a scalar."""
    return F.cross_entropy(logits, label) + ALPHA * F.mse_loss(decoded, latent) + BETA * diversity_loss(latent, images)


class Generator(nn.Module):
    """Two linear layers, then transposed convolutions from 1 x 1 to 32 x 32, of which the middle is taken."""

    def __init__(self, latent_dim: int, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.image_shape = image_shape
        layers: list[nn.Module] = []
        for into, out in pairwise((latent_dim + num_classes, 256, 128)):
            layers += [nn.Linear(into, out), nn.BatchNorm1d(out), nn.ReLU()]
        layers.append(nn.Unflatten(1, (128, 1, 1)))
        for into, out in pairwise((128, 64, 16, 4)):
            first = nn.ConvTranspose2d(into, out, 4, 2, 0 if into == 128 else 1, bias=False)
            layers += [first, nn.BatchNorm2d(out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(4, image_shape[0], 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, latent: Tensor, hot: Tensor) -> Tensor:
        """Images (N, C, H, W), each of mean 0 and deviation 1, of latents (N, Z) and one-hot labels (N, K)."""
        images: Tensor = self.layers(torch.cat([latent, hot], dim=1))
        height, width = self.image_shape[1:]
        top, left = (32 - height) // 2, (32 - width) // 2
        return normalised(images[:, :, top : top + height, left : left + width])


class KegNet(Embedding):
    """See the module."""

    rate = 1e-3
    config = GeneratorConfig(conditioning="embedding", latent_dim=10, dropout=0)

    def __init__(self, classifier: AdaptedClassifier, seed: int) -> None:
        torch.manual_seed(seed)
        channels, height, width = classifier.image_shape
        layers: list[nn.Module] = [nn.Flatten()]
        for into in (channels * height * width, UNITS):
            layers += [nn.Linear(into, UNITS), nn.ELU(), nn.BatchNorm1d(UNITS)]
        self.decoder = nn.Sequential(*layers, nn.Linear(UNITS, self.config.latent_dim))
        super().__init__(classifier, seed)

    def built(self) -> nn.Module:
        """Its own generator, which is lighter than this library's."""
        return Generator(self.config.latent_dim, self.classifier.num_classes, self.classifier.image_shape)

    def parameters(self) -> list[Tensor]:
        """Generator and decoder."""
        return [*super().parameters(), *self.decoder.parameters()]

    def draw(self, latent: Tensor, label: Tensor) -> Tensor:
        """Images (N, C, H, W) of latents (N, Z) and labels (N,), each of the mean and deviation of training images."""
        normal = super().draw(latent, label)
        return (normal * self.classifier.std + self.classifier.mean).clamp(0, 1)

    def loss(self, images: Tensor, label: Tensor, latent: Tensor) -> Tensor:
        """Of a batch, a scalar; decoder and diversity see images as the network's normalisation has them."""
        normal = (images - self.classifier.mean) / self.classifier.std
        return kegnet_loss(self.classifier(images), label, self.decoder(normal), latent, normal)
