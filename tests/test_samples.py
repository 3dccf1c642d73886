"""The sample clips that the repository ships, and the rule that chooses them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest

from liveness_utils import clips, config
from liveness_utils.errors import ClipError

SCRIPT = config.repo_root() / "scripts" / "make_samples.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_samples", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def data_set(root, rows):
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    imu = clips.Imu(np.arange(5) / 100, np.ones((5, 3), np.float32), np.zeros((5, 3), np.float32))
    for row in rows:
        clips.write_clip(root, clips.Clip(clip_id=row["clip_id"], frames=frames, t=np.arange(3) / 10, imu=imu))
    clips.write_manifest(root, rows)
    return clips.read_manifest(root)


def row(clip_id, species=None, **changes):
    held = {"clip_id": clip_id, "is_bonafide": species is None, "pai_species": species, "split": "test"}
    return held | {"motion_kind": "sweep", "illuminance_lux": 300.0} | changes


def test_light_comes_before_motion_and_training_clips_stay_out(script, tmp_path):
    rows = [
        row("a", illuminance_lux=10.0), row("b", motion_kind="stand"), row("c", split="train"),
        row("d", "flat_print", motion_kind="stand"), row("e", "flat_print"),
    ]  # fmt: skip
    chosen = script.choose(data_set(tmp_path, rows), tmp_path)
    assert set(chosen["clip_id"]) == {"b", "e"}


def test_a_copy_is_a_data_set_without_truth(script, tmp_path):
    table = data_set(tmp_path / "in", [row("a"), row("e", "flat_print")])
    script.copy(script.choose(table, tmp_path / "in"), tmp_path / "in", tmp_path / "out")
    assert clips.load_clip(tmp_path / "out", "e").imu is not None
    assert not list((tmp_path / "out").rglob("truth.npz"))


def test_a_species_without_a_small_clip_is_an_error(script, tmp_path, monkeypatch):
    table = data_set(tmp_path, [row("a")])
    monkeypatch.setattr(script, "MAX_BYTES", 1)
    with pytest.raises(ClipError, match="bona_fide"):
        script.choose(table, tmp_path)


def test_the_shipped_clips_are_small_valid_and_of_every_species():
    root = config.samples_dir()
    if not (root / "manifest.parquet").is_file():
        pytest.skip("data/samples holds no clips yet")
    table = clips.read_manifest(root)
    assert set(table["split"]) == {"test"}
    assert len(pd.unique(table["pai_species"].fillna("bona_fide"))) == len(table) == 9
    for clip_id in table["clip_id"]:
        assert clips.validate_clip(clips.load_clip(root, clip_id)) == []
        assert sum(p.stat().st_size for p in (root / "clips" / clip_id).iterdir()) <= 300_000
