"""The red team changes one thing at a time, and what it finds is kept."""

from __future__ import annotations

import numpy as np
import pytest

from liveness_utils import simulate
from liveness_utils.errors import SimulationError
from liveness_utils.instruments import instrument
from studies import redteam


def first(species):
    return next(s for s in simulate.plan("quick", 0) if s.species == species and s.split == "test")


def test_a_knob_turns_clips_of_its_own_species_only():
    with pytest.raises(SimulationError, match="soft_mask"):
        redteam.turned(first("video_replay"), redteam.KNOBS["expression"], 1.0)


def test_relative_levels_are_factors_on_the_instruments_own_value():
    spec = first("video_replay")
    own = instrument(spec.species, spec.instrument).grid_contrast
    doubled = redteam.turned(spec, redteam.KNOBS["moiré"], 2.0)
    assert simulate._tool(doubled).grid_contrast == pytest.approx(2 * own)
    assert simulate._tool(spec).grid_contrast == own


def test_an_injection_with_the_true_motion_carries_the_imu_of_the_camera():
    spec = redteam.chosen(simulate.plan("full", 0), redteam.KNOBS["IMU"], 1)[0]
    knob = redteam.KNOBS["IMU"]
    device = simulate.DEVICES[spec.device]
    camera = simulate.motion.camera_trajectory("sweep", np.random.default_rng(3), 0.4)

    def gyro(share):
        rng = np.random.default_rng(5)
        imu, _ = simulate._motion_data(redteam.turned(spec, knob, share), camera, device, rng, 0.01)
        _, true = simulate.motion.specific_force_and_rate(camera, imu.t - 0.01, device.facing)
        return float(np.sqrt(np.mean((imu.gyro - true) ** 2)))

    assert gyro(1.0) < 0.25 * gyro(0.0)


def test_the_plan_itself_holds_no_changes():
    assert all(s.changes == () for s in simulate.plan("quick", 0))
    assert "changes" not in simulate.spec_table(simulate.plan("quick", 0)[:2])
