"""The study: rows of a profile, kept when they are there."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from prepared_clips import make_prepared

from liveness_utils.config import profile
from liveness_utils.errors import ModelError
from liveness_utils.network import study
from liveness_utils.network.training import TrainConfig, train


def test_rows_of_the_profiles():
    names = [row.name for row in study.study_rows(profile("study"))]
    assert len(names) == len(set(names)) and {"all-seed2", "video-seed0", "all-without-soft_mask-seed0"} <= set(names)
    assert [row.name for row in study.study_rows(profile("quick"))] == ["video-seed0", "all-seed0"]
    assert set(profile("study").variants) == set(study.ABLATION)
    with pytest.raises(ModelError, match="no row"):
        study.variant_config(TrainConfig("a", "b"), "audio")


@pytest.mark.slow
def test_a_study_keeps_finished_rows_and_takes_the_releases_picture_head(tmp_path):
    prepared = make_prepared(tmp_path / "arrays")
    config = TrainConfig(str(prepared), str(tmp_path / "release"), picture_epochs=1, views=1, epochs=1)
    train(config, progress=False)
    small = replace(profile("quick"), variants=("video", "all"))
    files = study.run_study(small, config, tmp_path / "study", progress=False)
    stamps = [f.stat().st_mtime_ns for f in files]
    again = study.run_study(small, config, tmp_path / "study", progress=False)
    assert [f.stat().st_mtime_ns for f in again] == stamps
    assert not list((tmp_path / "study").glob("trainings/*/pictures.pt"))
    assert study.study_is_of(tmp_path / "study", tmp_path / "release" / "checkpoint.pt")
    table = study.read_study(tmp_path / "study")
    assert len(table) == 2 and table["acer"].between(0, 1).all()
    assert study.by_variant(study.read_study(tmp_path / "none")) == {}
    twice = study.by_variant(pd.concat([table, table.assign(seed=1, acer=table["acer"] + 0.2)]))
    one = float(table[table["variant"] == "video"]["acer"].iloc[0])
    assert twice["video"]["acer"] == pytest.approx(one + 0.1)
    assert twice["video"]["std"]["acer"] == pytest.approx(0.2 / 2**0.5)


def test_a_species_that_is_left_out_has_a_picture_head_of_its_own(tmp_path):
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "checkpoint.pt").write_bytes(b"weights")
    settings = TrainConfig("arrays", str(tmp_path / "release"))
    heads = {
        left: study._row_config(study.StudyRow("all", 0, left), settings, tmp_path, tmp_path / "release/checkpoint.pt")
        for left in ("", "injection", "soft_mask")
    }
    assert heads[""].picture_head and heads["injection"].picture_head and not heads["soft_mask"].picture_head
    assert heads["soft_mask"].exclude == ("soft_mask",)
