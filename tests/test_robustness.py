"""Perturbations, their curves, and the views into the network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from prepared_clips import G, make_prepared

from liveness_utils import dataset as ds
from liveness_utils import metrics
from liveness_utils.clips import Clip, Imu
from liveness_utils.network.fusion import FusionNet, ModelConfig, count_parameters
from studies import explain, robustness


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> ds.Prepared:
    return ds.open_prepared(make_prepared(tmp_path_factory.mktemp("prepared") / "arrays", n=16))


@pytest.fixture(scope="module")
def net() -> FusionNet:
    torch.manual_seed(0)
    return FusionNet(ModelConfig(n_features=G, imu_columns=(G - 1,))).eval()


def _clip(n: int = 30) -> Clip:
    rng = np.random.default_rng(0)
    frames = rng.integers(40, 200, (n, 64, 64, 3), np.uint8)
    t = np.arange(n) / 12.0
    imu = Imu(np.arange(260) / 100, np.full((260, 3), 9.8, np.float32), np.zeros((260, 3), np.float32))
    return Clip("a", frames, t, imu)


@pytest.mark.parametrize("name", [n for n, k in robustness.KINDS.items() if k.touches == "pixels"])
def test_pixels_change_and_nothing_else(name):
    clip, kind = _clip(), robustness.KINDS[name]
    changed = kind.function(clip, kind.levels[-1], np.random.default_rng(0))
    assert changed.frames.shape == clip.frames.shape and changed.frames.dtype == np.uint8
    assert np.abs(changed.frames.astype(int) - clip.frames).mean() > 1
    assert changed.imu is clip.imu and np.array_equal(changed.t, clip.t)


def test_stops_are_powers_of_two_of_light():
    clip = replace(_clip(), frames=np.full((2, 4, 4, 3), 100, np.uint8))
    darker = robustness.exposed(clip, -1.0, np.random.default_rng(0)).frames[0, 0, 0, 0]
    assert darker == round(100 * 2 ** (-1 / 2.2))


def test_dropped_frames_keep_the_ends():
    keep = robustness.dropped(_clip(), 0.5, np.random.default_rng(0))
    assert keep[0] == 0 and keep[-1] == 29 and len(keep) == 16 and np.all(np.diff(keep) > 0)


def test_frames_are_dated_wrongly_but_in_order():
    clip = replace(_clip(3000), t=np.arange(3000) / 30)
    for sigma in (0.005, 0.2):  # the second throws frames past one another
        t = robustness.misdated(clip, sigma, np.random.default_rng(0))
        assert t[0] == clip.t[0] and np.all(np.diff(t) > 0.9e-3)
    t = robustness.misdated(clip, 0.005, np.random.default_rng(0))
    assert 0.004 < np.std(t - clip.t) < 0.006


@pytest.mark.slow
def test_conditions_are_added_to_those_that_are_there(tmp_path, monkeypatch):
    from liveness_utils import clips, config

    samples, checkpoint = config.samples_dir(), config.released_bundle() / "checkpoint.pt"
    rows = clips.read_manifest(samples).head(1)
    first, more = [("frame times", 0.02)], [robustness.CLEAN, ("frame times", 0.02), ("IMU absent", 1.0)]
    options = {"workers": 1, "progress": False}
    alone = robustness.measure(checkpoint, samples, rows, tmp_path / "a", wanted=first, **options)
    asked = []
    real = robustness.perturbed_inputs
    monkeypatch.setattr(robustness, "perturbed_inputs", lambda c, w, *a: asked.extend(w) or real(c, w, *a))
    both = robustness.measure(checkpoint, samples, rows, tmp_path / "a", wanted=more, **options)
    assert asked == [more[0], more[2]] and list(both["kind"]) == [k for k, _ in more]
    assert both["score"].iloc[1] == alone["score"].iloc[0] != both["score"].iloc[0]
    again = robustness.measure(checkpoint, samples, rows, tmp_path / "b", wanted=more, **options)
    assert np.allclose(again["score"], both["score"], atol=1e-6)


def test_imu_is_delayed_disturbed_or_gone():
    imu, rng = _clip().imu, np.random.default_rng(0)
    assert np.allclose(robustness.delayed_imu(imu, 0.1, rng).t - imu.t, 0.1)
    noisy = robustness.noisy_imu(imu, 0.1, rng)
    assert 0.08 < noisy.gyro.std() < 0.12 and 0.8 < (noisy.accel - imu.accel).std() < 1.2
    assert robustness.absent_imu(imu, 1.0, rng) is None


def test_refused_inputs_have_no_score(net, prepared):
    from liveness_utils.inputs import ClipInputs

    arrays = (prepared.crops[0], prepared.features[0], prepared.imu[0], prepared.presence[0])
    seen = ClipInputs(*(np.array(a) for a in arrays), np.arange(25) / 10, np.ones((25, 5)), np.arange(25))
    out = robustness.scores(net, [(seen, ""), (seen, "too dark")])
    assert 0 < out[0] < 1 and np.isnan(out[1])


def test_scores_after_all_frames_are_the_clip_s(net, prepared):
    rows = np.array([0, 5])
    table = robustness.after_frames(net, prepared, rows, seen=(5, 25))
    with torch.inference_mode():
        whole = torch.sigmoid(net(*explain.clip_tensors(net, prepared, rows))["logit"]).numpy()
    assert np.allclose(table.loc[table["level"] == 2.4, "score"], whole, atol=1e-4)
    assert set(table["pai_species"]) <= set(prepared.species_names)


def test_error_curve_counts_by_condition():
    table = pd.DataFrame(
        {"kind": "blur", "level": [1.0] * 4, "score": [0.9, 0.1, 0.8, np.nan], "is_bonafide": [1, 1, 0, 0]}
    )
    row = robustness.error_curve(table, 0.5).iloc[0]
    assert (row["apcer"], row["bpcer"], row["no_decision"]) == (0.5, 0.5, 0.25)


def test_a_sample_holds_every_species(prepared):
    rows = robustness.sample(prepared.manifest, 3)
    assert set(rows["pai_species"]) == set(prepared.species_names[prepared.rows("test")])


def test_block_table_names_every_weight_but_the_missing_vector(net):
    table = explain.block_table(net)
    loose = net.missing.numel() + net.pair_norm.numel()
    assert table["parameters"].sum() + loose == count_parameters(net)
    assert table.loc["picture.depth", "output"] == "25 × 1 × 14 × 14"


def test_maps_have_their_shapes(net, prepared):
    assert explain.attention_maps(net, prepared, 0, np.array([3, 4])).shape == (2, 14, 14)
    assert explain.saliency(net, prepared, 0).shape == (25, 112, 112)
    assert set(explain.examples(prepared, "train")) == set(prepared.species_names[prepared.rows("train")])


def test_relief_of_a_known_map():
    true = np.full((1, 25, 14, 14), np.nan)
    true[..., 3:5, 3:5] = 0.5
    found = explain.relief(true, np.full((1, 25, 14, 14), 0.2)).iloc[0]
    assert found.round(6).tolist() == [0.5, 0.2, 0.3]


def test_worst_errors_are_errors_furthest_first():
    table = pd.DataFrame({"score": [0.9, 0.8, 0.2, np.nan, 0.95], "is_bonafide": [0, 0, 1, 1, 1]})
    worst = metrics.worst_errors(table, 0.5, 3)
    assert worst.index.tolist() == [3, 0, 2] or worst.index.tolist() == [3, 0, 1]
    assert metrics.worst_errors(table, 0.5, 12).index.tolist()[0] == 3
    assert len(metrics.worst_errors(table.iloc[4:], 0.5)) == 0


def test_a_situation_without_imu_leaves_injections_out_of_the_choice():
    dev = pd.DataFrame(
        {
            "score": [0.9, 0.8, 0.1, 0.95],
            "is_bonafide": [1, 1, 0, 0],
            "pai_species": ["bona_fide", "bona_fide", "flat_print", "injection"],
        }
    )
    row = metrics.presence_row(dev, dev)
    assert row["BPCER"].k == 0 and row["APCER injection"].k == 1 and row["worst species"] == "flat_print"


def test_too_few_attacks_fall_back_on_the_equal_error_point():
    few = pd.DataFrame({"score": [0.9, 0.4, 0.8, 0.1], "is_bonafide": [1, 1, 0, 0], "pai_species": ["", "", "a", "a"]})
    assert metrics.operating_threshold(few).target is None
    many = pd.concat([few[few["is_bonafide"] == 1]] + [few[few["is_bonafide"] == 0]] * 20)
    assert metrics.operating_threshold(many, 0.1).target == 0.1
