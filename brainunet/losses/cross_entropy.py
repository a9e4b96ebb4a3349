"""Voxel-wise cross-entropy, and its blend with Tversky: the one steadies early training, the other counts small tumours."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from brainunet.config import LossConfig
from brainunet.losses.tversky import Tversky


@dataclass(frozen=True)
class CrossEntropy:
    """Mean over a sample's voxels of -log p(truth), averaged over samples; ``weights`` one per label, background first."""

    weights: tuple[float, ...] | None = None

    @classmethod
    def from_config(cls, config: LossConfig) -> CrossEntropy:
        return cls(config.weights)

    def __call__(self, logits: Tensor, truth: Tensor) -> Tensor:
        """logits (B, L, X, Y, Z), truth (B, X, Y, Z) of label numbers -> scalar.

        Weighted voxels are divided by their number, not by the sum of their weights, so that a patch without tumour keeps
        its small value instead of being scaled up.
        """
        logits = logits.float()  # before the weights take its type: bfloat16 knows no 0.3
        weight = None if self.weights is None else logits.new_tensor(self.weights)
        voxels = F.cross_entropy(logits, truth.long(), weight=weight, reduction="none")
        return voxels.mean(dim=(1, 2, 3)).mean()


@dataclass(frozen=True)
class TverskyPlusCrossEntropy:
    """(1 - share) * Tversky + share * cross-entropy; the cross-entropy is unweighted."""

    tversky: Tversky
    share: float = 0.5

    @classmethod
    def from_config(cls, config: LossConfig) -> TverskyPlusCrossEntropy:
        return cls(Tversky.from_config(config), config.cross_entropy_share)

    def __call__(self, logits: Tensor, truth: Tensor) -> Tensor:
        """logits (B, L, X, Y, Z), truth (B, X, Y, Z) of label numbers -> scalar."""
        return (1 - self.share) * self.tversky(logits, truth) + self.share * CrossEntropy()(logits, truth)
