"""What training minimises."""

import torch

from liveness_utils.instruments import SPECIES
from liveness_utils.network import losses


def test_depth_loss_ignores_what_is_unknown():
    target = torch.full((1, 1, 14, 14), torch.nan)
    predicted = torch.zeros(1, 1, 14, 14, requires_grad=True)
    loss = losses.depth_loss(predicted, target)
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(predicted.grad).all()
    target[..., :7, :] = 1.0
    assert losses.depth_loss(predicted, target) > 0.5


def test_an_injection_is_known_by_its_imu_alone():
    injection, presence = torch.full((2,), SPECIES.index("injection")), torch.tensor([[1.0, 1, 1], [1, 1, 0]])
    assert losses.consistency_target(injection, presence).tolist() == [0.0, -1.0]
    assert losses.unobservable(injection, presence).tolist() == [False, True]
    assert losses.consistency_loss(torch.tensor([-20.0, 9.0]), torch.tensor([0.0, -1.0])) < 1e-6


def test_what_has_no_species_of_the_table_does_not_count():
    logits = torch.zeros(2, len(SPECIES))
    logits[0, 1] = 30.0
    assert losses.species_loss(logits, torch.tensor([1, -1])) < 1e-6
