"""The study: rows of a profile, kept when they are there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from prepared_clips import make_prepared

from liveness_utils.config import profile, write_json
from liveness_utils.errors import ModelError
from liveness_utils.network import fusion, study
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


def test_a_row_that_leaves_a_species_out_tells_how_much_of_it_passes():
    kinds = np.repeat(["bona_fide", "flat_print", "soft_mask", "injection"], 20)
    score = np.where(kinds == "bona_fide", 0.8, 0.1) + np.tile(np.arange(20), 4) / 1000
    score[kinds == "soft_mask"] = 0.95
    table = pd.DataFrame(
        {
            "score": score,
            "is_bonafide": (kinds == "bona_fide").astype(int),
            "pai_species": kinds,
            "subject_id": np.tile(np.arange(20), 4).astype(str),
            "clip_id": np.arange(80).astype(str),
        }
    )
    row = study.StudyRow("all", 0, "soft_mask")
    told = study._report({"dev": table, "test": table}, row)
    told = study._flat({**vars(row), "minutes": 0.0, "epochs": 1, **told})
    assert told["left_out_k"] == told["left_out_n"] == 20 and told["apcer_left_out"] == 1.0
    assert told["acer_known"] == 0.0 and told["acer"] == 0.5


def test_a_study_of_other_clips_or_sizes_is_not_this_releases(tmp_path):
    told = {"seed": 0, "clips": "a", "encoder": "b", "epochs": 3, "views": 2}
    fusion.save_checkpoint(tmp_path / "a.pt", fusion.build(fusion.ModelConfig(n_features=4)), training=told)
    assert not study.study_is_of(tmp_path, tmp_path / "a.pt")
    for name in ("clips", "encoder", "epochs", "views"):
        write_json(tmp_path / "all-seed0.json", {"made_of": told | {name: "other"}})
        assert not study.study_is_of(tmp_path, tmp_path / "a.pt"), name
