"""Inversion written in the obvious way, as papers' repositories do it: what the library is measured against.

Eager, float32, channels first, resize before convolving, dropout of single values, all pairs of the cosine term, PGD
of three steps, plain Adam. The sizes of its layers are the library's defaults.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Generator(nn.Module):
    """Linear layer, transposed convolution to K x K, hot matrix, up-convolutions to H x W."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], latent_dim: int = 64) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.num_classes, self.latent_dim = num_classes, latent_dim
        self.condition = nn.Linear(num_classes, 64)
        self.first = nn.Sequential(
            nn.ConvTranspose2d(64 + latent_dim, 64, num_classes), nn.BatchNorm2d(64), nn.LeakyReLU(0.2)
        )
        self.up = nn.Sequential(
            nn.Upsample((height // 2, width // 2), mode="bilinear"),
            nn.Conv2d(64 + 1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.2),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.2),
            nn.Conv2d(16, channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, latent: Tensor, vector: Tensor) -> Tensor:
        """Images (N, C, H, W) from latent (N, Z) and condition vector (N, K)."""
        label = vector.argmax(dim=1)
        hot = F.one_hot(label, self.num_classes).float()
        matrix = torch.maximum(hot[:, :, None], hot[:, None, :])[:, None]  # (N, 1, K, K)
        x = torch.cat([self.condition(vector), latent], dim=1)[:, :, None, None]
        images: Tensor = self.up(torch.cat([self.first(x), matrix], dim=1))
        return images


def invert(
    generator: Generator,
    classifier: nn.Module,
    steps: int,
    batch_size: int,
    robust: bool,
    epsilon: float = 0.2,
    attack_steps: int = 3,
) -> Iterator[int]:
    """Train in place; yields the number of steps done after each."""
    optimizer = torch.optim.Adam(generator.parameters(), lr=2e-3)
    generator.train()
    device = next(generator.parameters()).device
    for step in range(1, steps + 1):
        sharpness = 3.0 if robust else 1.0
        vector = torch.softmax(sharpness * torch.randn(batch_size, generator.num_classes, device=device), dim=1)
        label = vector.argmax(dim=1)
        images = generator(torch.randn(batch_size, generator.latent_dim, device=device), vector)
        seen = images
        if robust:
            bound = epsilon * min(1.0, 2 * step / steps)
            delta = torch.zeros_like(images)
            for _ in range(attack_steps):
                moved = (images.detach() + delta).requires_grad_()
                (gradient,) = torch.autograd.grad(F.cross_entropy(classifier(moved), label), moved)
                delta = (delta + bound / 2 * gradient.sign()).clamp(-bound, bound)
            seen = (images + delta).clamp(0, 1)
        logits, features = classifier(seen, return_features=True)
        kl = F.kl_div(F.log_softmax(logits, dim=1), vector, reduction="batchmean")
        cosine = F.cosine_similarity(features[:, None], features[None], dim=2)  # (N, N)
        cosine = (cosine.sum() - cosine.diagonal().sum()) / (batch_size * (batch_size - 1))
        loss = (0.1 if robust else 1.0) * kl + F.cross_entropy(logits, label) + 0.1 * cosine
        if robust:
            down, across = images.diff(dim=2).abs().mean(), images.diff(dim=3).abs().mean()
            loss = loss + 0.3 * (down + across)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield step
