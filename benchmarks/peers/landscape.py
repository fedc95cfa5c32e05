"""A network that bends the space which is descended in, so that few steps from any noise reach an image of a class.

Source: Liu and others, Landscape Learning for Neural Network Inversion (2022): latents z descend the classifier's loss
through theta; theta is trained by the sum of the losses along their paths, which are drawn from a buffer that keeps
paths at all of their stages (their coordinated optimisation with experience replay).
Settings: paths of 10 steps at a rate of 10, a buffer of 512 paths, batches of 64, Adam at 0.002; theta is this
library's generator of 64 latents, which is told no label. The paper's own are for StyleGAN and larger images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from netinv.classifiers import AdaptedClassifier
from netinv.generators import GeneratorConfig
from peers.base import balanced
from peers.embedding import Embedding

PATH, STEP, BUFFER = 10, 10.0, 512


class Landscape(Embedding):
    """See the module."""

    config = GeneratorConfig(conditioning="embedding", dropout=0)

    def __init__(self, classifier: AdaptedClassifier, seed: int) -> None:
        super().__init__(classifier, seed)
        self.latent = torch.randn(BUFFER, self.config.latent_dim, generator=self.rng)
        self.label = balanced(BUFFER, classifier.num_classes)
        self.stage = torch.zeros(BUFFER, dtype=torch.long)

    def losses(self, latent: Tensor, label: Tensor) -> Tensor:
        """Of each latent (N, Z), the cross-entropy of its image to the label, (N,)."""
        return F.cross_entropy(self.classifier(self.draw(latent, torch.zeros_like(label))), label, reduction="none")

    def descended(self, latent: Tensor, label: Tensor) -> Tensor:
        """Latents (N, Z) after a step down the loss."""
        latent = latent.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.losses(latent, label).sum(), latent)
        return latent.detach() - STEP * gradient

    def work(self) -> bool:
        """Some paths a step further, and theta trained where they are then."""
        self.generator.train()
        rows = torch.randint(BUFFER, (self.batch,), generator=self.rng).unique()
        latent, label = self.descended(self.latent[rows], self.label[rows]), self.label[rows]
        loss = self.losses(latent, label).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        stage = (self.stage[rows] + 1) % PATH
        fresh = torch.randn(latent.shape, generator=self.rng)
        self.latent[rows] = torch.where((stage == 0)[:, None], fresh, latent)
        self.stage[rows] = stage
        return True

    def sample(self, label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Fresh noise, led down a whole path."""
        self.generator.eval()
        rng = torch.Generator().manual_seed(seed)
        images = []
        for part in label.split(100):
            latent = torch.randn(len(part), self.config.latent_dim, generator=rng)
            for _ in range(PATH):
                latent = self.descended(latent, part)
            with torch.no_grad():
                images.append(self.draw(latent, torch.zeros_like(part)))
        return torch.cat(images), label
