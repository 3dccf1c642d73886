"""What training minimises: liveness, relief, species, and whether an IMU record belongs to a video."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from liveness_utils.instruments import SPECIES

INJECTION = SPECIES.index("injection")
UNKNOWN = -1.0


def liveness_loss(logit: Tensor, label: Tensor, weight: Tensor, positive: float) -> Tensor:
    """Binary cross-entropy; `positive` balances the classes, `weight` (n,) the clips."""
    losses = functional.binary_cross_entropy_with_logits(
        logit, label, reduction="none", pos_weight=logit.new_tensor(positive)
    )
    return (losses * weight).sum() / weight.sum().clamp(min=1.0)


def depth_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 on relief plus contrastive depth loss, where the target is known.

    The second term compares each cell with its right and lower neighbour, so that a map that is
    right but for its level still learns shape.

    Args:
        predicted, target: (..., 14, 14) in inter-ocular distances, target NaN where unknown.

    Source: Wang et al., Deep Spatial Gradient and Temporal Depth Learning for Face
        Anti-Spoofing, CVPR 2020, arXiv 2003.08061 (contrastive depth).
    """
    level = _masked_l1(predicted, target)
    across = _masked_l1(predicted.diff(dim=-1), target.diff(dim=-1))
    down = _masked_l1(predicted.diff(dim=-2), target.diff(dim=-2))
    return level + across + down


def _masked_l1(predicted: Tensor, target: Tensor) -> Tensor:
    known = torch.isfinite(target)
    gap = torch.where(known, predicted - torch.nan_to_num(target), torch.zeros_like(predicted))
    return functional.smooth_l1_loss(gap, torch.zeros_like(gap), beta=0.2, reduction="sum") / known.sum().clamp(min=1)


def species_loss(logits: Tensor, species: Tensor) -> Tensor:
    """Cross-entropy over the clips whose species is in the table (others are −1)."""
    known = (species >= 0).float()
    losses = functional.cross_entropy(logits, species.clamp(min=0), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1.0)


def consistency_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Does the IMU belong to this video? 1 yes, 0 no, −1 not known (not counted)."""
    known = (target >= 0).float()
    losses = functional.binary_cross_entropy_with_logits(logit, target.clamp(min=0), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1.0)


def consistency_target(species: Tensor, presence: Tensor) -> Tensor:
    """1 where the phone that measured is the one that filmed, 0 for injections, −1 without IMU."""
    target = (species != INJECTION).float()
    return torch.where(presence[:, 2] > 0, target, torch.full_like(target, UNKNOWN))


def unobservable(species: Tensor, presence: Tensor) -> Tensor:
    """(n,) bool: injections whose IMU is masked; their pixels are bona fide."""
    return (species == INJECTION) & (presence[:, 2] == 0)
