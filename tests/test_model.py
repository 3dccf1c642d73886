"""The network, its data and its training, on a small synthetic set of prepared arrays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from liveness_utils import bundle, motion, training
from liveness_utils import dataset as ds
from liveness_utils import model as m
from liveness_utils.config import profile, released_bundle, shipped_encoder
from liveness_utils.cues import FRAME_FEATURES
from liveness_utils.devices import DEVICES
from liveness_utils.errors import BundleError, DatasetError, ModelError

G = 6


def make_prepared(folder: Path, n: int = 48, seed: int = 0, names: tuple[str, ...] = ()) -> Path:
    """Arrays in which colour tells prints from faces, and only the IMU tells injections."""
    rng = np.random.default_rng(seed)
    names = names or tuple(f"feature_{k}" for k in range(G))
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ["bona_fide", "bona_fide", "flat_print", "injection"]
    species = np.array([kinds[k % 4] for k in range(n)])
    crops = rng.integers(90, 110, (n, 25, 112, 112, 3), np.uint8)
    crops[species == "flat_print", ..., 0] += 60
    turn = np.cumsum(rng.normal(0, 0.3, (n, 25)), axis=1)
    imu = rng.normal(0, 0.05, (n, 25, 32, 6)).astype(np.float32)
    rate = np.gradient(turn, axis=1)
    other = np.roll(rate, 1, axis=0)
    imu[..., 4] += np.where((species == "injection")[:, None], other, rate)[..., None]
    features = rng.normal(size=(n, 25, len(names))).astype(np.float32)
    features[..., 0] = turn
    features[::7, 3:5] = np.nan
    depth = np.where((species == "flat_print")[:, None, None, None], 0.0, 0.5)
    arrays = {
        "crops": crops,
        "features": features,
        "imu": imu,
        "presence": np.ones((n, 3), np.float32),
        "depth": np.broadcast_to(depth, (n, 25, 14, 14)).astype(np.float16),
        "quality_rows": np.ones((n, 25, 5)),
        "decoy_features": np.repeat(features[:, None], 2, axis=1),
        "decoy_imu": np.stack([np.roll(imu, 2, axis=0), np.roll(imu, 3, axis=0)], axis=1),
        "decoy_valid": np.ones((n, 2), np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    splits = np.array(["train", "validation", "dev", "test"])[np.minimum(np.arange(n) // (n // 6), 5) % 4]
    ids = [f"clip{k:04d}" for k in range(n)]
    table = pd.DataFrame(
        {
            "clip_id": ids,
            "subject_id": [f"s{k // 4}" for k in range(n)],
            "is_bonafide": (species == "bona_fide").astype(int),
            "pai_species": np.where(species == "bona_fide", None, species),
            "split": splits,
        }
    )
    table.to_parquet(folder / "manifest.parquet")
    reasons = ["no face in 25 of 25 frames" if k == n - 1 else "" for k in range(n)]
    pd.DataFrame({"clip_id": ids, "reasons": reasons}).to_parquet(folder / "quality.parquet")
    pd.DataFrame({"clip_id": ids}).to_parquet(folder / "cues.parquet")
    index = {"version": ds.VERSION, "clip_ids": ids, "feature_names": names, "imu_columns": [len(names) - 1]}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("prepared") / "arrays")


@pytest.fixture(scope="module", params=[False, True], ids=["one encoder", "two"])
def net(request) -> m.LivenessNet:
    torch.manual_seed(0)
    shape = {"fovea": request.param, "veto": request.param}
    return m.LivenessNet(m.ModelConfig(n_features=G, imu_columns=(G - 1,), **shape)).eval()


def _batch(n: int = 2) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    return (
        torch.rand(n, 25, 112, 112, 3, generator=g),
        torch.randn(n, 25, G, generator=g),
        torch.randn(n, 25, 32, 6, generator=g),
        torch.ones(n, 3),
    )


@torch.inference_mode()
def test_an_injection_that_is_left_out_is_not_taught_by_another_door():
    config = training.TrainConfig("prepared", "out")
    assert training._teaches_injection(config)
    assert not training._teaches_injection(replace(config, exclude=("injection",)))
    assert not training._teaches_injection(replace(config, modalities=("video", "landmarks")))


def test_steps_equal_the_clip_model(net):
    frames, features, imu, presence = _batch()
    clip = net(frames, features, imu, presence)
    h, c = net.initial_state(2)
    for t in range(25):
        out = net.step(frames[:, t], features[:, t], imu[:, t], presence, h, c)
        h, c = out["h"], out["c"]
        torch.testing.assert_close(out["depth"], clip["depth"][:, t], atol=1e-4, rtol=0)
    for name in ("logit", "species", "consistency"):
        torch.testing.assert_close(out[name], clip[name], atol=1e-4, rtol=0)
    assert tuple(out) == ("logit", "species", "consistency", "depth", "h", "c")


@torch.inference_mode()
@pytest.mark.parametrize("k", [1, 2])
def test_a_masked_modality_cannot_be_seen(net, k):
    inputs_ = list(_batch())
    inputs_[3] = inputs_[3].clone()
    inputs_[3][:, k] = 0
    before = net(*inputs_)["logit"]
    inputs_[k] = inputs_[k] * 3 + 1
    if k == 2:  # features that the IMU has part in go with it
        inputs_[1] = inputs_[1].clone()
        inputs_[1][..., G - 1] += 2
    torch.testing.assert_close(net(*inputs_)["logit"], before)


@torch.inference_mode()
def test_every_modality_matters_when_present(net):
    for k in range(3):
        changed = list(_batch())
        changed[k] = 0.3 * changed[k]
        assert not torch.equal(net(*changed)["logit"], net(*_batch())["logit"])


@torch.inference_mode()
def test_holding_every_frame_changes_nothing(net):
    frames, features, imu, presence = _batch()
    hold = torch.arange(50).reshape(2, 25)
    a, b = net(frames, features, imu, presence), net(frames, features, imu, presence, hold)
    torch.testing.assert_close(a["logit"], b["logit"], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_foveated_pictures_have_an_encoder_of_their_own_and_are_asked_where_there_is_more_than_pictures():
    torch.manual_seed(0)
    net = m.build(m.ModelConfig(n_features=G, fovea=True, veto=True)).eval()
    frames, *rest, _ = _batch(1)
    for told in ([1.0, 0, 0], [1.0, 1, 0], [1.0, 1, 1]):
        presence = torch.tensor([told])
        before = net(frames, *rest, presence)["logit"]
        for first, name in ((0, "frame"), (1, "fovea")):
            other = frames.clone()
            other[:, first::2] *= torch.linspace(0, 1, 112).view(112, 1, 1)
            changed = m.build(net.config).eval()
            changed.load_state_dict(net.state_dict())
            torch.nn.init.normal_(getattr(changed, name).embed.weight)
            silent = name == "fovea" and told == [1.0, 0, 0]
            assert torch.equal(net(other, *rest, presence)["logit"], before) == silent
            assert torch.equal(changed(frames, *rest, presence)["logit"], before) == silent


def test_pictures_are_sampled_and_held_so_that_every_second_one_is_foveated():
    rng = np.random.default_rng(0)
    for k in (2, 3, 8, 25):
        chosen = ds.sample_by_turns(25, k, rng)
        hold = ds.hold_of(chosen, 25)
        assert len(set(chosen)) == k and (chosen % 2 == np.arange(k) % 2).all() and 0 <= min(chosen) <= max(chosen) < 25
        assert (chosen[hold] % 2 == np.arange(25) % 2).all() and np.abs(chosen[hold] - np.arange(25)).max() <= 75 / k
    assert (ds.hold_of(np.zeros(1, int), 25) == 0).all()  # a still


def test_an_encoder_learns_from_its_own_kind_of_crops(prepared, tmp_path):
    data = ds.open_prepared(prepared)
    config = training.TrainConfig(str(prepared), str(tmp_path))
    deal = lambda kind: ds.PictureDataset(data, np.arange(4), each=5, foveated=kind)  # noqa: E731
    seen = {kind: {int(n) for n in np.atleast_1d(deal(kind)._numbers)} for kind in (None, False, True)}
    assert seen[False] == set(range(0, 25, 2)) and seen[True] == set(range(1, 25, 2)) and len(seen[None]) == 25
    net = m.build(m.ModelConfig(n_features=4, fovea=True))
    before = {n: [p.clone() for p in part.parameters()] for n, part in training.encoder_parts(net).items()}
    training.learn_pictures(net, data, replace(config, progress=False), None, steps=1, kind=training.FOVEATED)
    moved = {
        n: any(not torch.equal(a, b) for a, b in zip(before[n], p.parameters(), strict=True))
        for n, p in training.encoder_parts(net).items()
    }
    assert moved == {"frame": False, "glance": False, "fovea": True, "fovea_glance": True}


@torch.inference_mode()
def test_attention_is_a_map_of_weights(net):
    weights = net.attention(_batch(1)[0][0])
    assert weights.shape == (25, 14, 14)
    assert 0 < weights.min() and weights.max() < 1


@pytest.mark.parametrize(
    ("side", "stride", "layout"),
    [(4, 1, torch.channels_last), (4, 2, torch.contiguous_format), (3, 1, torch.contiguous_format)],
)
def test_a_small_map_is_convolved_alike_in_training_and_out_of_it(side, stride, layout, monkeypatch):
    plain, asked = torch.nn.Conv2d.forward, []
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda self, x: asked.append(self.training) or plain(self, x))
    torch.manual_seed(3)
    conv = m.SmallDepthwise(6, 6, 5, stride, 2, groups=6, bias=False)
    x, found = torch.randn(3, 6, side, side).to(memory_format=layout).requires_grad_(True), []
    with torch.inference_mode():
        conv(x.detach())  # what is kept from a look must do for a lesson
    for learning in (True, False):
        conv.train(learning).zero_grad()
        x.grad = None
        y = conv(x)
        (y * torch.linspace(0, 1, y.numel()).view_as(y)).sum().backward()
        found.append((y.detach(), x.grad.clone(), conv.weight.grad.clone()))
    assert asked == [False]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    layers = [k for k in m.build(m.ModelConfig(n_features=G)).modules() if isinstance(k, m.SmallDepthwise)]
    assert len(layers) == 8 and all(k.kernel_size == (5, 5) for k in layers)


@torch.inference_mode()
def test_watch_follows_the_statistics_of_a_clip():
    watch = m.Watch((3, 4, 5, 3), (2, 3, 1, 2), (1, 0, 0, 2))  # of plain crops, of every frame, of foveated crops
    x = torch.randn(2, 25, watch.width, generator=torch.Generator().manual_seed(0)) + 3.0
    sums, count = torch.zeros(2, 6 * watch.width), torch.zeros(2, 1)
    foveated = torch.zeros(2, 1)
    for t in range(25):
        turn = torch.full((2, 1), float(t % 2))
        sums, count, foveated = watch.advance(sums, x[:, t], count, foveated, turn), count + 1.0, foveated + turn
        if t in (0, 1, 23, 24):
            got = watch.statistics(sums, count, foveated).reshape(2, 5, watch.width).numpy()
            torch.testing.assert_close(sums, watch.gather(x[:, : t + 1]), rtol=1e-5, atol=1e-5)
            seen = x[:, : t + 1].double().numpy()
            for first, rhythm, columns in ((0, 2, slice(0, 2)), (0, 1, slice(2, 6)), (1, 2, slice(6, 8))):
                part = seen[:, first::rhythm, columns]
                if not part.shape[1]:
                    assert (got[:, [0, 2, 3, 4], columns] == 0).all()  # nothing seen yet
                    continue
                change = np.abs(np.diff(part, axis=1)).sum(1) / max(part.shape[1] - 1, 1)
                wanted = (part.mean(1), np.sqrt(part.var(1) + 1e-4), part.min(1), part.max(1), change)
                np.testing.assert_allclose(got[..., columns], np.stack(wanted, 1), atol=2e-3)
    visible = watch.visible(torch.tensor([[1.0, 0.0, 1.0, 1.0]])).reshape(5, 8)
    assert visible.tolist() == [[1, 1, 0, 0, 0, 1, 1, 1]] * 5


def test_the_judge_is_the_same_folded():
    judge = m.Judge(20, 8, drop=0.0)
    for _ in range(3):
        judge(3.0 + 5.0 * torch.randn(64, 20))
    judge.eval()
    x = torch.randn(4, 20)
    unfolded = torch.nn.functional.hardswish(judge.linear(judge.norm(x)))
    torch.testing.assert_close(judge(x), unfolded, atol=1e-5, rtol=1e-5)


def test_pictures_are_judged_by_themselves_in_training_only(net):
    inputs_ = _batch()
    assert "glance" not in net(*inputs_)
    training_net = m.LivenessNet(net.config).train()
    assert training_net(*inputs_)["glance"].shape == (2, 25, 9)


def test_an_injection_shows_a_bona_fide_face():
    bona_fide, injection = (ds.SPECIES.index(n) for n in ("bona_fide", "injection"))
    logits = torch.zeros(3, 4, len(ds.SPECIES))
    logits[..., bona_fide] = 20.0
    shown = torch.tensor([bona_fide, injection, -1])
    assert training.glance_loss(logits, shown).item() < 1e-6
    assert training.glance_loss(logits, torch.full((3,), ds.SPECIES.index("flat_print"))).item() > 10


def test_size(net):
    assert 0.8e6 < m.count_parameters(net) < 1.5e6


def test_checkpoint_round_trip_and_refusal(net, tmp_path):
    m.save_checkpoint(tmp_path / "a.pt", net, note="x")
    again, extra = m.load_checkpoint(tmp_path / "a.pt")
    torch.testing.assert_close(again(*_batch(1))["logit"], net(*_batch(1))["logit"])
    assert extra["note"] == "x"
    (tmp_path / "b.pt").write_bytes(b"nonsense")
    for name in ("b.pt", "missing.pt"):
        with pytest.raises(ModelError, match=name):
            m.load_checkpoint(tmp_path / name)


def test_a_checkpoint_keeps_in_half_floats_what_they_hold_and_loses_nothing(tmp_path):
    net = m.build(m.ModelConfig(n_features=G)).eval()
    net.frame.half().float()
    m.save_checkpoint(tmp_path / "a.pt", net)
    held = torch.load(tmp_path / "a.pt", weights_only=True)["state"]
    kinds = {inside: {v.dtype for k, v in held.items() if k.startswith("frame.") == inside} for inside in (True, False)}
    assert torch.float32 not in kinds[True] and torch.float32 in kinds[False]
    again = m.load_checkpoint(tmp_path / "a.pt")[0].state_dict()
    for name, value in net.state_dict().items():
        assert again[name].dtype == value.dtype and torch.equal(again[name], value), name


def test_a_checkpoint_from_before_motion_had_a_veto_judges_as_it_did(tmp_path):
    torch.manual_seed(0)
    net = m.build(m.ModelConfig(n_features=G, veto=True)).eval()
    m.save_checkpoint(tmp_path / "new.pt", net)
    held = torch.load(tmp_path / "new.pt", weights_only=True)
    for name in ("motion_gain", "motion_shift"):
        held["state"].pop(name)
    torch.save(held, tmp_path / "old.pt")
    old, _ = m.load_checkpoint(tmp_path / "old.pt")
    with torch.no_grad():
        net.motion_shift.fill_(1e3)  # no objection
    with torch.inference_mode():
        torch.testing.assert_close(old(*_batch())["logit"], net(*_batch())["logit"])


def test_networks_and_bundles_of_other_crops_are_refused(net, tmp_path, monkeypatch):
    m.save_checkpoint(tmp_path / "a.pt", net)
    m.load_checkpoint(tmp_path / "a.pt"), bundle.load(released_bundle())
    monkeypatch.setattr(m, "FOVEATED", False), monkeypatch.setattr(bundle, "FOVEATED", False)
    with pytest.raises(ModelError, match="crops of another kind"):
        m.load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(BundleError, match="crops of another kind"):
        bundle.load(released_bundle())


def test_what_was_trained_before_there_was_a_setting_had_its_default(prepared, tmp_path):
    config = training.TrainConfig(str(prepared), str(tmp_path))
    held = {k: v for k, v in training._fingerprint(config).items() if k not in ("views", "veto", "encoder_start")}
    assert training._made_as(held, config)
    assert not training._made_as(held, replace(config, views=2)) and not training._made_as({}, config)


def test_depth_loss_ignores_what_is_unknown():
    target = torch.full((1, 1, 14, 14), torch.nan)
    predicted = torch.zeros(1, 1, 14, 14, requires_grad=True)
    loss = training.depth_loss(predicted, target)
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(predicted.grad).all()
    target[..., :7, :] = 1.0
    assert training.depth_loss(predicted, target) > 0.5


def test_swapped_imus_are_injections_only_where_that_can_be_told(prepared):
    data = ds.open_prepared(prepared)
    rows = np.arange(4)
    dealt = ds.LivenessDataset(data, rows, ds.scaling_of(data, rows), frames=4, augment=True)
    batch = torch.utils.data.default_collate([dealt[k] for k in range(4)])
    batch["presence"] = torch.tensor([[1.0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]])
    batch["imu"][0], batch["decoy_imu"][0] = 0.0, 0.0  # two phones at rest
    twice = training.swap_imu(batch)
    assert twice["consistency"].tolist() == [1, 1, 1, -1, -1, 0, 0, -1]
    assert twice["weight"].tolist() == [1, 1, 1, 1, 0, 0.5, 0, 0]
    assert len(twice["frames"]) == 4 and len(twice["imu"]) == 8


def test_split_is_disjoint_and_excludes(prepared):
    data = ds.open_prepared(prepared)
    train, test = data.rows("train"), data.rows("test")
    assert not set(train) & set(test)
    kept = data.species[data.rows("train", ("injection",))]
    assert {ds.SPECIES[k] for k in kept} == {"bona_fide", "flat_print"}


def test_augmentation_repeats_for_a_seed_and_changes_with_the_epoch(prepared):
    data = ds.open_prepared(prepared)
    rows = data.rows("train")
    one = ds.LivenessDataset(data, rows, ds.scaling_of(data, rows), frames=8, augment=True, seed=3)
    first, again = one[0], one[0]
    np.testing.assert_array_equal(first["frames"], again["frames"])
    one.epoch = 1
    assert not np.array_equal(first["frames"], one[0]["frames"])
    assert first["frames"].shape == (8, 112, 112, 3)
    assert all(np.isfinite(first[k]).all() for k in ("features", "imu", "presence"))


def test_mirroring_twice_changes_nothing_and_names_exist():
    mirror = ds.mirror_of(FRAME_FEATURES)
    values = np.random.default_rng(0).normal(size=(4, 25, len(FRAME_FEATURES)))
    np.testing.assert_allclose(mirror.features(mirror.features(values)), values)
    assert not np.allclose(mirror.features(values), values)
    assert set(ds._ODD) | set(ds._SIDES) | set(ds._SIDES.values()) <= set(FRAME_FEATURES)
    assert ds.mirror_of(["feature_0"]) is None


def test_a_mirrored_clip_is_mirrored_in_every_modality(tmp_path):
    data = ds.open_prepared(make_prepared(tmp_path, n=12, names=FRAME_FEATURES))
    dealt = ds.LivenessDataset(data, np.arange(2), ds.scaling_of(data, np.arange(12)), frames=4, augment=True)
    item = dealt[0]
    turned = dealt._mirrored(item)
    np.testing.assert_array_equal(turned["frames"], item["frames"][:, :, ::-1])
    np.testing.assert_array_equal(turned["depth"], item["depth"][:, :, ::-1])
    k = FRAME_FEATURES.index("gyro_rate_y")
    np.testing.assert_array_equal(turned["features"][:, k], -item["features"][:, k])
    np.testing.assert_array_equal(turned["imu"][..., 4], -item["imu"][..., 4])
    np.testing.assert_array_equal(turned["decoy_imu"][..., 1], item["decoy_imu"][..., 1])


def test_modality_dropout_leaves_one(prepared):
    data = ds.open_prepared(prepared)
    rows = data.rows("train")
    video = ds.LivenessDataset(data, rows, ds.scaling_of(data, rows), frames=1, augment=True, modalities=("video",))
    seen = {tuple(video[k]["presence"]) for k in range(len(rows))}
    assert seen == {(1.0, 0.0, 0.0)}


def _held_clip(split: str) -> SimpleNamespace:
    rng, phone = np.random.default_rng(5), DEVICES["rear_a"]
    path = motion.camera_trajectory("natural", rng, 0.4)
    imu = motion.imu_from_trajectory(path, motion.imu_times(phone.imu, rng), phone.imu, rng, phone.facing)
    meta = {"device_id": "rear_a", "split": split}
    return SimpleNamespace(imu=imu, t=np.arange(26) / 10, camera_facing=phone.facing, clip_id="a", meta=meta)


def test_made_up_records_follow_the_video_or_rest():
    clip = _held_clip("train")
    forged, rest = ds._made_up_imus(clip)
    t = np.arange(0.1, 2.4, 0.01)
    own, told, still = (
        np.stack([np.interp(t, imu.t, column) for column in imu.gyro.T]) for imu in (clip.imu, forged, rest)
    )
    slow = np.ones(15) / 15
    likeness = [
        np.corrcoef(np.convolve(a, slow, "valid"), np.convolve(b, slow, "valid"))[0, 1]
        for a, b in zip(own, told, strict=True)
    ]
    assert max(likeness) > 0.5 and not np.allclose(own, told, atol=1e-3)
    assert still.std() < 0.3 * own.std()
    assert np.linalg.norm(forged.accel, axis=1).mean() == pytest.approx(9.81, abs=0.5)


@pytest.mark.parametrize("change", [{"split": "test"}, {"device_id": "my phone"}])
def test_no_record_is_made_up_for_a_test_clip_or_a_real_phone(change):
    clip = _held_clip("train")
    clip.meta |= change
    assert ds._made_up_imus(clip) == []


def test_the_path_of_a_record_turns_as_its_gyroscope_says():
    clip = _held_clip("train")
    path = ds.path_of_record(clip.imu, clip.camera_facing, 2.5)
    t = np.linspace(0.2, 2.3, 50)
    _, rate = motion.specific_force_and_rate(path, t, clip.camera_facing)
    own = np.stack([np.interp(t, clip.imu.t, column) for column in clip.imu.gyro.T], axis=1)
    assert np.corrcoef(rate.ravel(), own.ravel())[0, 1] > 0.9


def test_unfinished_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="prepare"):
        ds.open_prepared(tmp_path)


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory) -> tuple[training.TrainConfig, Path]:
    config = training.TrainConfig(
        str(prepared), str(tmp_path_factory.mktemp("run")), epochs=2, batch_size=8, frames=2, progress=False
    )
    return config, training.train(config)


def test_training_leaves_checkpoint_log_and_scores(prepared, trained):
    _, path = trained
    log = training.training_log(path)
    assert {"train_loss", "val_loss", "val_eer"} <= set(log.columns) and len(log) == 2
    table = training.score(path, prepared, split=["dev", "test"])
    assert table["raw_score"].between(0, 1).all()
    assert {"clip_id", "score", "is_bonafide", "pai_species", "split"} <= set(table.columns)


def test_a_gated_clip_has_no_score(prepared, trained):
    data = ds.open_prepared(prepared)
    table = training.score(trained[1], data, rows=np.array([len(data) - 2, len(data) - 1]))
    assert np.isfinite(table["score"][0]) and np.isnan(table["score"][1])
    assert table["reasons"][1].startswith("no face")


def test_a_finished_training_is_not_repeated_and_a_changed_one_is(trained):
    config, path = trained
    stamp = path.stat().st_mtime_ns
    assert training.train(config).stat().st_mtime_ns == stamp
    changed = training.train(replace(config, seed=1, epochs=1))
    assert changed.stat().st_mtime_ns != stamp


@pytest.mark.slow
def test_the_encoder_learns_first_and_is_kept(prepared, tmp_path):
    config = training.TrainConfig(
        str(prepared), str(tmp_path), encoder_epochs=3, epochs=1, batch_size=8, frames=2, progress=False
    )
    path = training.train(config)
    log = training.encoder_log(path)
    assert list(log["walk"]) == [0, 0, 0, 1, 2, 3] and list(log["epoch"]) == [0, 1, 2, 3, 3, 3]
    assert log["glance"].iloc[2] < log["glance"].iloc[0]
    stamp = (tmp_path / "encoder.pt").stat().st_mtime_ns
    path.unlink()
    training.train(config)  # the fusion anew, the encoder from where it was kept
    assert (tmp_path / "encoder.pt").stat().st_mtime_ns == stamp
    assert training.encoder_log(training.train(replace(config, out=str(tmp_path / "none"), encoder_epochs=0))).empty


def test_an_encoder_that_is_shipped_goes_on_learning_and_is_known_by_what_it_is(prepared, tmp_path):
    config = training.TrainConfig(
        str(prepared),
        str(tmp_path),
        encoder_epochs=6,
        encoder_walks=1,
        epochs=1,
        batch_size=8,
        frames=2,
        progress=False,
    )
    net = m.build(m.ModelConfig(n_features=ds.open_prepared(prepared).features.shape[-1]))
    lessons = {"kind": ["plain"], "walk": [0], "epoch": [0], "glance": [1.5], "depth": [0.1]}
    training.save_encoders(tmp_path / "here.pt", net, lessons)
    shutil.copyfile(tmp_path / "here.pt", tmp_path / "there.pt")
    begun = replace(config, encoder_start=str(tmp_path / "here.pt"))
    taught, told = m.load_checkpoint(training.train(begun))
    assert training.encoder_log(tmp_path / "checkpoint.pt").empty  # it is taken as it is
    assert training.encoder_log(tmp_path / "checkpoint.pt", tmp_path / "here.pt").to_dict("list") == lessons
    assert all(
        torch.equal(a.half(), b.half()) for a, b in zip(net.frame.parameters(), taught.frame.parameters(), strict=True)
    )
    assert str(tmp_path) not in str(told["training"])
    assert training._fingerprint(begun) == training._fingerprint(
        replace(begun, encoder_start=str(tmp_path / "there.pt"))
    )
    assert training._fingerprint(begun) != training._fingerprint(config)
    assert training._encoder_mark(begun) != training._encoder_mark(config)
    assert training.variant_config(begun, "video").encoder_start == ""  # an ablation without depth
    with pytest.raises(ModelError, match="gone.pt cannot be read"):
        training.train(replace(begun, encoder_start=str(tmp_path / "gone.pt")))
    (tmp_path / "gone.pt").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="gone.pt is no file of encoders"):
        training.train(replace(begun, encoder_start=str(tmp_path / "gone.pt")))


def test_what_a_file_of_encoders_does_not_hold_has_a_lesson(prepared, tmp_path, monkeypatch):
    width = ds.open_prepared(prepared).features.shape[-1]
    one, two = (m.build(m.ModelConfig(n_features=width, fovea=fovea)) for fovea in (False, True))
    for name, net in (("one", one), ("two", two)):
        training.save_encoders(tmp_path / f"{name}.pt", net)
    config = training.TrainConfig(
        str(prepared), str(tmp_path / "out"), encoder_epochs=1, encoder_walks=1, fovea=True, progress=False
    )
    begun = {name: replace(config, encoder_start=str(tmp_path / f"{name}.pt")) for name in ("one", "two")}
    assert training._untaught(config, True) == training.ENCODERS and training._untaught(begun["one"], True) == (
        training.FOVEATED,
    )
    assert training._untaught(begun["two"], True) == ()
    # Pictures are of no matter where nothing learns from them.
    told = training._fingerprint(begun["two"])
    assert told == training._fingerprint(replace(begun["two"], pictures=str(tmp_path / "nowhere")))
    taught = m.build(m.ModelConfig(n_features=width, fovea=True))
    training.teach_encoder(taught, ds.open_prepared(prepared), begun["two"])
    for name, part in training.encoder_parts(taught).items():
        for key, value in part.state_dict().items():
            assert torch.equal(value, two.get_submodule(name).state_dict()[key].half().to(value.dtype)), (name, key)

    lessons = []
    monkeypatch.setattr(training, "learn_pictures", lambda *a, kind, **k: lessons.append(kind))
    taught = m.build(m.ModelConfig(n_features=width, fovea=True))
    training.teach_encoder(taught, ds.open_prepared(prepared), begun["one"])
    assert lessons == [training.FOVEATED]
    for key, value in one.frame.state_dict().items():
        assert torch.equal(taught.frame.state_dict()[key], value.half().to(value.dtype)), key


def test_a_lesson_can_weigh_living_faces_and_masks_more(prepared, tmp_path, monkeypatch):
    weights = {}
    monkeypatch.setattr(training, "EncoderModule", lambda *a: weights.setdefault(len(weights), a[4]))
    monkeypatch.setattr(training.pl.Trainer, "fit", lambda *a: None)
    config = training.TrainConfig(str(prepared), str(tmp_path), encoder_epochs=1, progress=False)
    data = ds.open_prepared(prepared)
    for emphasis in (1.0, 1.5):
        net = m.build(m.ModelConfig(n_features=data.features.shape[-1]))
        training.learn_pictures(net, data, config, None, steps=1, emphasis=emphasis)
    ratio = (weights[1] / weights[0]).nan_to_num(1.0)
    heavy = {k for k in (m.BONA_FIDE, *m.MASKS) if weights[0][k] > 0}
    assert m.BONA_FIDE in heavy and (weights[0] > 0).sum() > len(heavy)
    assert all(float(r) == pytest.approx(1.5 if k in heavy else 1.0) for k, r in enumerate(ratio))


def test_the_shipped_encoders_fit_the_network():
    full = training.from_profile(profile("full"), "prepared", "out")
    assert Path(full.encoder_start) == shipped_encoder() and full.veto and full.views > 0
    assert training.from_profile(profile("quick"), "prepared", "out").encoder_start == ""
    training.take_encoders(m.build(m.ModelConfig(n_features=4, fovea=True)), full.encoder_start)
    assert training._untaught(full, full.fovea) == ()
    log = training.encoder_log("nothing.pt", full.encoder_start)
    assert set(log["kind"]) == set(training.ENCODERS) and set(log["walk"]) == {0, 1, 2, 3}
    # Another backbone's weights would be overwritten: whoever asks for them teaches.
    assert training.from_profile(profile("full"), "prepared", "out", imagenet=True).encoder_start == ""


def test_each_walk_of_the_second_half_sees_other_pictures_and_their_mean_is_kept(prepared):
    data = ds.open_prepared(prepared)
    first, *walks = (ds.PictureDataset(data, np.arange(4), walk=k) for k in range(4))
    dealt = [p[2]["frame"].astype(float) for p in (first, *walks)]
    assert dealt[0].shape == (112, 112, 3) and walks[0][2]["frame"].dtype == np.uint8
    assert min(np.abs(a - b).mean() for k, a in enumerate(dealt) for b in dealt[:k]) > 1.0
    again = ds.PictureDataset(data, np.arange(4), walk=2)[2]
    np.testing.assert_array_equal(again["frame"], walks[1][2]["frame"])
    states = [{"w": torch.full((2,), v), "seen": torch.tensor(n)} for v, n in ((1.0, 7), (4.0, 8), (7.0, 9))]
    mean = training._mean_weights(states)
    torch.testing.assert_close(mean["w"], torch.full((2,), 4.0))
    assert int(mean["seen"]) == 7


def test_wide_changes_relight_and_sharpen_and_keep_pictures_and_maps_in_shape():
    crops = np.full((2, 112, 112, 3), 120, np.uint8)
    crops[:, :, 56:] = 90
    depth = np.ones((2, 14, 14), np.float32)
    for k in range(40):
        changed, moved = ds.augment_crops(crops, depth, np.random.default_rng(k), wide=True)
        assert changed.shape == crops.shape and changed.dtype == np.uint8 and moved.shape == depth.shape
        assert set(np.unique(moved[np.isfinite(moved)])) <= {1.0}
    lit = ds._relight(crops, np.random.default_rng(0))
    assert np.abs(np.diff(lit[0, 5:50, 20].astype(int), axis=0)).sum() > 0  # light that was even falls from a side
    edge = ds._sharpen(crops, np.random.default_rng(0))[0, 50, 40:72, 0].astype(int)
    assert edge.max() > 120 and edge.min() < 90  # halos


def test_an_encoder_at_rest_stays_as_its_lesson_left_it(prepared, tmp_path):
    config = training.TrainConfig(
        str(prepared), str(tmp_path), encoder_epochs=1, epochs=3, batch_size=8, frames=2, progress=False
    )
    net, _ = m.load_checkpoint(training.train(config))
    lesson = torch.load(tmp_path / "encoder.pt", weights_only=True)
    for part in ("frame", "glance"):
        for name, value in getattr(net, part).state_dict().items():
            assert torch.equal(value, lesson[part][name]), name
    again = training.predict_rows(net, ds.open_prepared(prepared), np.arange(3), frames=5)
    assert again["depth"].shape[:2] == (3, 25) and len(np.unique(again["depth"][0], axis=0)) == 5


@pytest.mark.slow
def test_trainings_that_need_the_same_encoder_share_it_and_a_left_out_species_has_its_own(prepared, tmp_path):
    shared = tmp_path / "encoders"
    config = training.TrainConfig(
        str(prepared), "", encoders=str(shared), encoder_epochs=1, epochs=1, batch_size=8, frames=2, progress=False
    )
    homes = []
    for name, changes in (
        ("all", {}),
        ("video", {"modalities": ("video",)}),
        ("no_depth", {"depth_weight": 0.0}),
        ("left_out", {"exclude": ("soft_mask",)}),
        ("no_injection", {"exclude": ("injection",)}),
        ("again", {"seed": 1, "encoder_seed": 0}),
        ("another", {"seed": 1}),
    ):
        training.train(replace(config, out=str(tmp_path / name), **changes))
        homes.append(len(list(shared.iterdir())))
    assert homes == [1, 1, 2, 3, 3, 3, 4]  # an injection's pixels are bona fide


@pytest.mark.slow
def test_a_study_borrows_the_encoder_of_the_release(prepared, tmp_path):
    config = training.TrainConfig(
        str(prepared), str(tmp_path), encoder_epochs=1, epochs=1, batch_size=8, frames=2, views=2, progress=False
    )
    training.train(config)
    small = replace(profile("study"), variants=("all", "video_imu"), seeds=(0, 1), left_out=(), study_epochs=1)
    training.run_study(small, config, tmp_path / "study", progress=False)
    trained = sorted(p.parent.name for p in (tmp_path / "study" / "trainings").glob("*/checkpoint.pt"))
    assert trained == ["all-seed1", "video_imu-seed0"]  # all-seed0 is the release
    assert not training._finished(
        tmp_path / "study" / "trainings" / "all-seed1" / "checkpoint.pt", replace(config, seed=1)
    )
    assert (tmp_path / "last.ckpt").is_file()
    kept = list((tmp_path / "study" / "encoders").rglob("*"))
    assert sorted(p.name for p in kept if p.is_file()) == ["encoder.pt", "looks.npz"]  # no log: no lesson was given
    assert len(training.read_study(tmp_path / "study")) == 3
    assert training.study_is_of(tmp_path / "study", tmp_path / "checkpoint.pt")
    other = training.train(replace(config, out=str(tmp_path / "other"), learning_rate=1e-4, encoder_epochs=0, views=0))
    assert not training.study_is_of(tmp_path / "study", other)
    assert not training.study_is_of(tmp_path / "nowhere", tmp_path / "checkpoint.pt")


def test_a_picture_is_asked_for_relief_and_for_skin_and_for_nothing_else():
    assert [ds.SPECIES[k] for k in (m.BONA_FIDE, *m.MASKS)] == ["bona_fide", "rigid_mask", "soft_mask"]
    ask, kinds = m.PictureVerdict(len(ds.SPECIES)).eval(), torch.zeros(1, len(ds.SPECIES))
    flat, face = torch.zeros(1, 14, 14), torch.zeros(1, 14, 14)
    face[0, 4:10, 4:10] = 0.4
    looks = {name: kinds + 4.0 * torch.eye(len(ds.SPECIES))[k] for k, name in enumerate(ds.SPECIES)}
    flat, face = (m.PictureVerdict.relief(x).unsqueeze(1) for x in (flat, face))
    with torch.inference_mode():
        said = {name: ask(look, face)[0] for name, look in looks.items()}
        alive = {name: float(v[0]) for name, v in said.items()}
        assert float(ask(kinds, flat)[0, 0]) < 0 < alive["bona_fide"]
        assert alive["rigid_mask"] < -1 and alive["soft_mask"] < -1
        assert alive["still_replay"] == alive["flat_print"] == pytest.approx(float(ask(kinds, face)[0, 0]))
        assert float(ask(looks["bona_fide"], flat)[0, 0]) < 0  # looks do not stand in for relief
        assert said["soft_mask"][2] < said["soft_mask"][1] == said["still_replay"][1] < said["bona_fide"][1]


def test_without_an_imu_the_pictures_have_a_veto():
    net = m.build(m.ModelConfig(n_features=G)).eval()

    def decide(presence, alive=-2.0, masks=(-8.0, -8.0)):
        pictures = torch.tensor([[alive]]), torch.tensor([masks])
        with torch.inference_mode():
            return float(net._decide(torch.tensor([[3.0]]), pictures, torch.tensor([presence], dtype=torch.float32)))

    for presence in ((1, 1, 1), (0, 1, 0), (1, 0, 1)):
        assert decide(presence) == 3.0
    assert decide((1, 0, 0)) == -2.0
    assert -2.1 < decide((1, 1, 0)) < -2.0


@pytest.mark.parametrize("fovea", [False, True])
def test_a_mask_is_a_veto_whatever_the_rest_says_but_not_where_there_is_no_picture(fovea):
    net = m.build(m.ModelConfig(n_features=G, veto=True, fovea=fovea)).eval()

    def decide(presence, masks):
        pictures = torch.tensor([[8.0]]), torch.tensor([masks * (1 + fovea)])
        with torch.inference_mode():
            return float(net._decide(torch.tensor([[9.0]]), pictures, torch.tensor([presence], dtype=torch.float32)))

    for masks in ((-6.0, 8.0), (8.0, -6.0)):
        assert decide((1, 1, 1), masks) < -3.9 and decide((1, 1, 0), masks) < -3.9
        assert decide((0, 1, 1), masks) == 9.0


def test_what_a_fine_tuning_starts_from_is_known_by_its_content(prepared, tmp_path):
    here, there = tmp_path / "here.pt", tmp_path / "there.pt"
    config = training.TrainConfig(str(prepared), str(tmp_path / "out"), start=str(here))
    here.write_bytes(b"one"), there.write_bytes(b"one")
    first = training._fingerprint(config)
    assert first == training._fingerprint(replace(config, start=str(there)))
    here.write_bytes(b"two")  # a released model that was made anew: half a training of the old one is no beginning
    assert first != training._fingerprint(config) and training._encoder_mark(config)["start"] != first["start"]


def test_trust_in_an_encoder_is_measured_on_strangers_and_stays(prepared, tmp_path, monkeypatch):
    species = np.repeat([m.BONA_FIDE, *m.MASKS], 60)
    rng = np.random.default_rng(0)
    living = np.where(species == m.BONA_FIDE, 2.0, -2.0)[:, None]
    sharp, dull = (living + rng.normal(0.0, noise, (180, 2)) for noise in (1.0, 8.0))
    strangers = SimpleNamespace(species=species, crops=dull, foveated_crops=sharp + 3.0, mark={"seed": 7})
    monkeypatch.setattr(training, "_pictures", lambda folder: strangers)
    monkeypatch.setattr(training, "_unmasked", lambda net, crops: crops)
    config = training.TrainConfig(str(prepared), str(tmp_path), strangers="there", encoder_epochs=1)
    shape = m.ModelConfig(n_features=G, veto=True, fovea=True)
    net = m.build(shape)
    training.set_veto(net, config)
    plain, foveated = net.veto_gain.reshape(2, 2).tolist()
    assert all(0.0 <= a < 0.2 * b for a, b in zip(plain, foveated, strict=True))
    middle = 3.0 * np.array(foveated) + net.veto_shift.numpy()  # where either is as likely: the offset is found
    assert np.abs(middle).max() < 0.8
    assert not net.veto_gain.requires_grad and not net.veto_shift.requires_grad
    unmasked = net.veto_gain.tolist()[1], m.build(shape).veto_gain.tolist()[1]
    kept = m.build(shape)
    training.set_veto(kept, replace(config, exclude=("soft_mask",)))
    assert kept.veto_gain.tolist()[1] == unmasked[1] != unmasked[0] and kept.veto_gain.tolist()[0] == plain[0]
    assert (
        training._fingerprint(config)["strangers"]
        == {"seed": 7}
        != training._fingerprint(replace(config, strangers=""))["strangers"]
    )


def test_strangers_that_are_not_there_are_asked_for(prepared, tmp_path):
    config = training.TrainConfig(
        str(prepared), str(tmp_path / "out"), strangers=str(tmp_path / "nowhere"), encoder_epochs=1, veto=True
    )
    with pytest.raises(DatasetError, match="nowhere: no finished pictures"):
        training.train(config)


def test_features_are_seen_on_an_ordinary_and_on_a_fine_scale():
    encoder = m.FeatureEncoder(3, (2,), 8, 2).eval()
    encoder.std.copy_(torch.tensor([0.1, 0.1, 0.1]))
    features = torch.tensor([[0.001, -0.001, 0.02], [0.02, -0.02, 0.02], [0.1, 5.0, 0.02]])
    with torch.inference_mode():
        (plain, fine), (_, deaf) = (encoder(features, torch.full((3, 1), v))[0].chunk(2, dim=1) for v in (1.0, 0.0))
    assert plain[1, 0] - plain[0, 0] == pytest.approx(0.19) and plain[2, 1] == 6.0
    assert fine[1, 0] - fine[0, 0] > 0.4 and fine[2, 0] == pytest.approx(1.0) and fine[2, 1] > 2.0
    assert torch.equal(fine[:2, 1], -fine[:2, 0])
    assert fine[:, 2].min() > 0.5 and deaf[:, 2].abs().max() == 0.0  # of the IMU, where there is none


def test_consistency_is_judged_of_motion_alone(net):
    frames, *rest = _batch()
    with torch.inference_mode():
        there, other = net(frames, *rest), net(torch.rand(frames.shape), *rest)
        still = net(frames, rest[0], torch.zeros_like(rest[1]), rest[2])
    torch.testing.assert_close(there["consistency"], other["consistency"])
    assert not torch.equal(there["logit"], other["logit"]) and not torch.allclose(
        there["consistency"], still["consistency"]
    )


def test_motion_that_is_not_this_phones_is_a_veto_where_there_are_geometry_and_imu():
    net = m.build(m.ModelConfig(n_features=G, veto=True)).eval()
    frames, features, imu, _ = _batch()
    with torch.inference_mode():
        for head, bias in ((net.liveness, 9.0), (net.consistency, -9.0), (net.picture, None)):
            for value in head.parameters():
                value.zero_()
            if bias is not None:
                head.bias.fill_(bias)
        net.picture.shift.fill_(8.0)  # no picture objects
        net.veto_shift.fill_(20.0)
        said = {
            p: float(net(frames[:1], features[:1], imu[:1], torch.tensor([p], dtype=torch.float32))["logit"])
            for p in ((1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0))
        }
    assert said[1, 1, 1] < -6.9 and said[0, 1, 1] < -6.9
    assert said[1, 0, 1] > 6.0 and said[1, 1, 0] > 6.0


def test_small_features_keep_their_digits_when_they_are_spoiled(prepared):
    data = ds.open_prepared(prepared)
    rows = data.rows("train")
    deal = ds.LivenessDataset(data, rows, ds.scaling_of(data, rows), augment=True)
    spread, rng = deal.scaling.feature_std, np.random.default_rng(0)
    for level, most in ((0.01, 0.02), (1.0, 1.0), (5.0, 1.0)):
        value = np.tile(level * spread, (4000, 1)).astype(np.float32)
        noise = (deal._jitter(np.zeros((1, 6)), value, rng)[1] - value).std(axis=0)
        np.testing.assert_allclose(noise, 0.1 * most * spread, rtol=0.1)


@pytest.mark.slow
def test_clips_looked_at_before_are_judged_as_from_their_pixels(prepared, tmp_path):
    config = training.TrainConfig(
        str(prepared), str(tmp_path), encoder_epochs=1, epochs=1, batch_size=8, views=2, fovea=True, progress=False
    )
    net, _ = m.load_checkpoint(training.train(config))
    assert len(training.training_log(tmp_path / "checkpoint.pt")) == training.LOOKS_EPOCHS
    data, rows = ds.open_prepared(prepared), np.arange(6)
    looks = training.take_looks(net, data, config)
    stamp = (tmp_path / "looks.npz").stat().st_mtime_ns
    seen, kept = (training.predict_rows(net, data, rows, looks=k)["logit"] for k in (None, looks))
    np.testing.assert_allclose(seen, kept, atol=5e-3)  # kept in half precision
    dealt = ds.LivenessDataset(data, looks.rows[:4], ds.scaling_of(data, looks.rows), augment=True, looks=looks)
    again = training.take_looks(net, data, replace(config, epochs=7, learning_rate=1e-4))
    assert (tmp_path / "looks.npz").stat().st_mtime_ns == stamp and len(again.rows) == len(looks.rows)
    assert len(training.take_looks(net, data, replace(config, views=3)).mirrored) == 3
    assert {"embedding", "relief", "decoy_imu"} < set(dealt[0]) and "frames" not in dealt[0]


def test_a_view_is_mirrored_with_its_features(tmp_path):
    data = ds.open_prepared(make_prepared(tmp_path, n=12, names=FRAME_FEATURES))
    scaling, rows = ds.scaling_of(data, np.arange(12)), np.arange(2)
    blank = np.zeros((len(data), 25, 4), np.float16)
    views = {"view_embedding": np.zeros((2, 1, 25, 4), np.float16), "view_relief": np.zeros((2, 1, 25), np.float32)}

    def deal(mirrored):
        looks = ds.Looks(blank, blank[..., 0], rows, **views, mirrored=np.array([mirrored]))
        return ds.LivenessDataset(data, rows, scaling, augment=True, looks=looks)[0]

    plain, turned = deal(False), deal(True)
    mirror = ds.mirror_of(data.feature_names)
    np.testing.assert_allclose(turned["features"], mirror.features(plain["features"]))
    np.testing.assert_allclose(turned["imu"], plain["imu"] * mirror.imu_sign)
    crops = [ds.changed_view(data, 0, 3, way, seed=5) for way in (False, True)]
    np.testing.assert_array_equal(crops[0][:, :, ::-1], crops[1])
    assert (ds.changed_view(data, 0, 4, False, seed=5) != crops[0]).any()


def test_a_network_that_was_taught_no_relief_is_not_asked_for_it(prepared, tmp_path):
    config = training.TrainConfig(str(prepared), str(tmp_path), epochs=1, batch_size=8, frames=2, progress=False)
    video = training.variant_config(config, "video")
    net, _ = m.load_checkpoint(training.train(video))
    assert not net.config.verdict and m.build(m.ModelConfig(n_features=4)).config.verdict
    before = training.predict_rows(net, ds.open_prepared(prepared), np.arange(3), modalities=("video",))["logit"]
    with torch.no_grad():
        net.picture.shift.fill_(-8.0)
    after = training.predict_rows(net, ds.open_prepared(prepared), np.arange(3), modalities=("video",))["logit"]
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ["video_depth", "all"])
def test_pictures_alone_are_judged_by_the_fusion_where_it_learned_from_nothing_else(prepared, tmp_path, name):
    config = training.TrainConfig(str(prepared), str(tmp_path), epochs=1, batch_size=8, frames=2, progress=False)
    net, _ = m.load_checkpoint(training.train(training.variant_config(config, name)))
    score = partial(training.predict_rows, net, ds.open_prepared(prepared), np.arange(3), modalities=("video",))
    before = score()["logit"]
    with torch.no_grad():
        net.liveness.bias += 3.0
    assert np.allclose(score()["logit"] - before, 3.0 if name == "video_depth" else 0.0, atol=1e-4)


def test_an_encoder_that_has_learned_moves_more_slowly():
    def rates(**changes):
        config = replace(training.TrainConfig("prepared", "out", encoder_epochs=2, encoder_rate=0.05), **changes)
        net = m.build(m.ModelConfig(n_features=4, architecture=config.architecture))
        groups = training.LivenessModule(net, config, 1.0, 10)._groups()
        assert sum(len(g["params"]) for g in groups) == len(list(net.parameters()))
        return [g["lr"] / config.learning_rate for g in groups]

    assert rates() == pytest.approx([0.05, 1.0])
    assert (
        rates(encoder_epochs=0) == rates(modalities=("landmarks", "imu")) == rates(architecture="seed_style") == [1.0]
    )
    # Fine-tuned without a lesson, the encoder has to learn with the rest.
    assert rates(start="a.pt") == [1.0] and len(rates(start="a.pt", pictures="pictures")) == 2


def test_pictures_for_the_encoder_call_an_injection_bona_fide(prepared):
    data = ds.open_prepared(prepared)
    deal = ds.PictureDataset(data, np.arange(len(data)))
    injections = np.flatnonzero(data.species == ds.SPECIES.index("injection"))
    assert len(injections) and all(deal[k]["species"] == 0 for k in injections[:2])
    first = deal[0]
    assert first["frame"].shape == (112, 112, 3) and first["depth"].shape == (14, 14)
    np.testing.assert_array_equal(first["frame"], deal[0]["frame"])
    deal.epoch = 1
    assert (first["frame"] != deal[0]["frame"]).any()


def test_seed_style_baseline_trains(prepared, tmp_path):
    config = training.TrainConfig(str(prepared), str(tmp_path), epochs=1, batch_size=8, frames=2, progress=False)
    path = training.train(training.variant_config(config, "seed_style"))
    net, _ = m.load_checkpoint(path)
    assert isinstance(net, m.SeedNet)


def test_the_baseline_begins_with_the_encoder_of_video_alone(prepared, tmp_path):
    shared = {"encoder_epochs": 1, "encoders": str(tmp_path / "encoders"), "progress": False}
    config = training.TrainConfig(str(prepared), str(tmp_path), epochs=4, batch_size=8, frames=2, **shared)
    data = ds.open_prepared(prepared)
    scaling = ds.scaling_of(data, data.rows("train"))
    rows = [training._row_config(training.StudyRow(v), config) for v in ("video", "seed_style")]
    video, baseline = nets = [training._network(data, row, scaling) for row in rows]
    for net, row in zip(nets, rows, strict=True):
        training.teach_encoder(net, data, row)
    assert len(list((tmp_path / "encoders").iterdir())) == 1  # one lesson for both
    for name, value in video.frame.middle.state_dict().items():
        assert torch.equal(value, baseline.backbone[m.FrameEncoder.FINE : m.FrameEncoder.MIDDLE].state_dict()[name])
    assert rows[1].epochs == 2 and rows[1].learning_rate < rows[0].learning_rate
    assert isinstance(m.load_checkpoint(training.train(replace(rows[1], epochs=1)))[0], m.SeedNet)


@pytest.mark.slow
def test_study_keeps_finished_rows(prepared, tmp_path):
    small = replace(profile("study"), variants=("video",), seeds=(0,), left_out=("injection",), study_epochs=1)
    names = [row.name for row in training.study_rows(small)]
    assert names == [
        "video-seed0", "video-without-injection-seed0", "all-without-injection-seed0", "all-without-nothing-seed0",
    ]  # fmt: skip
    config = training.TrainConfig(str(prepared), str(tmp_path), batch_size=8, frames=2, progress=False)
    files = training.run_study(small, config, tmp_path / "study", progress=False)
    stamps = [f.stat().st_mtime_ns for f in files]
    assert [
        f.stat().st_mtime_ns for f in training.run_study(small, config, tmp_path / "study", progress=False)
    ] == stamps
    table = training.read_study(tmp_path / "study")
    assert len(table) == 4 and table["acer"].between(0, 1).all()
    assert training.by_variant(training.read_study(tmp_path / "none")) == {}
    named = training.by_variant(table[table["left_out"] == "injection"])
    assert list(named) == ["video", "all"] and "std" not in named["all"] and len(named["all"]["seeds"]) == 1
    twice = training.by_variant(
        pd.concat([table, table.assign(seed=1, acer=table["acer"] + 0.2)]).query("left_out == ''")
    )
    assert twice["video"]["acer"] == pytest.approx(float(table.query("left_out == ''")["acer"].iloc[0]) + 0.1)
    assert twice["video"]["std"]["acer"] == pytest.approx(0.2 / 2**0.5)
    assert table["acer_known"].notna().sum() == 3 and table["apcer_left_out"].notna().sum() == 2
