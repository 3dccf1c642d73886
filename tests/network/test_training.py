"""Training, from prepared arrays to a checkpoint and its scores."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from prepared_clips import G, make_prepared

from liveness_utils import dataset as ds
from liveness_utils.config import imagenet_encoder, profile
from liveness_utils.cues import FRAME_FEATURES
from liveness_utils.errors import DatasetError, ModelError
from liveness_utils.network import picture_training, scoring, training
from liveness_utils.network.encoder import load_encoder
from liveness_utils.network.fusion import ModelConfig, SeedNet, build, load_checkpoint
from liveness_utils.network.training import TrainConfig, train


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("prepared") / "arrays")


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory) -> tuple[TrainConfig, Path]:
    out = tmp_path_factory.mktemp("run")
    config = TrainConfig(str(prepared), str(out), picture_epochs=3, views=2, epochs=4)
    return config, train(config, progress=False)


def test_training_leaves_a_checkpoint_logs_and_scores(prepared, trained, tmp_path):
    _, path = trained
    log, pictures = training.training_log(path), training.training_log(path, "pictures")
    assert {"train_loss", "train_motion", "val_loss", "val_eer"} <= set(log.columns) and len(log) == 4
    assert pictures["species"].iloc[-1] < pictures["species"].iloc[0]
    table = scoring.score(path, prepared, split=["dev", "test"])
    assert table["raw_score"].between(0, 1).all()
    assert {"clip_id", "score", "pixels", "is_bonafide", "pai_species", "split"} <= set(table.columns)
    files = scoring.write_scores(path, prepared, tmp_path)
    assert [f.name for f in files] == ["scores_dev.csv", "scores_test.csv"]


def test_the_encoder_is_the_shipped_one_and_what_is_known_was_measured(trained):
    net, _ = load_checkpoint(trained[1])
    shipped, _ = load_encoder(imagenet_encoder())
    for name, value in shipped.state_dict().items():
        assert torch.equal(value, net.encoder.state_dict()[name]), name
    assert (net.picture.spread != 1).all()


def test_the_flat_head_is_fitted_to_prints_and_knows_nothing_of_masks(trained, prepared):
    net, data = load_checkpoint(trained[1])[0], ds.open_prepared(prepared)
    said = picture_training.opinions(net, data, np.arange(len(data))).plain[..., 0].mean(axis=1)
    prints = data.species == ds.SPECIES.index("flat_print")
    assert said[~prints].min() > 0 > said[prints].max()
    masked = ds.PictureDataset(data, np.arange(8))
    before, level = net.picture.flat.weight.detach().clone(), net.picture.level.clone()
    picture_training.fit_linear(net, masked)
    assert torch.equal(net.picture.level, level), "what an ordinary picture is, is measured once"
    fitted = net.picture.flat.weight.detach().clone()
    assert not torch.equal(before, fitted)
    assert net.picture.mask.weight.abs().max() == 0 and net.picture.mask.bias > net.CERTAIN  # no mask was ever seen
    masked.species = np.where(masked.species == ds.SPECIES.index("flat_print"), ds.SPECIES.index("soft_mask"), 0)
    picture_training.fit_linear(net, masked)  # nothing flat is left to be told apart: what is known stays
    assert torch.equal(net.picture.flat.weight, fitted) and net.picture.mask.weight.abs().max() > 0
    masked.species = np.where(masked.species > 0, -1, 0)  # of a name of one's own: flat
    torch.nn.init.zeros_(net.picture.flat.weight)
    picture_training.fit_linear(net, masked)
    assert net.picture.flat.weight.abs().max() > 0
    # Another camera, without a mask: what was learned of masks elsewhere does not count there.
    assert net.picture.mask.weight.abs().max() == 0 and net.picture.mask.bias > net.CERTAIN


def test_opinions_are_of_the_clips_as_they_are_and_of_changed_views(prepared, trained):
    net, data = load_checkpoint(trained[1])[0], ds.open_prepared(prepared)
    rows = data.rows("train")[:3]
    known = picture_training.opinions(net, data, np.r_[rows, 4], rows, 2, seed=5)
    assert known.plain.shape == (len(data), 25, net.opinion_width) and known.views.shape[:3] == (3, 2, 25)
    with torch.inference_mode():
        own = net.look(torch.from_numpy(np.array(data.crops[4])).float() / 255)["opinion"]
    np.testing.assert_allclose(known.plain[4], own, atol=1e-5)
    assert np.abs(known.view(int(rows[1]), 0) - known.plain[rows[1]]).max() > 1e-3
    assert not known.mirrored.any()  # these features are not known to be mirrored
    table = [scoring.score(net, data, rows=np.array([4]), opinions=o)["logit"][0] for o in (None, known.plain)]
    assert table[0] == pytest.approx(table[1], abs=1e-4)


def test_a_view_is_mirrored_with_its_features(tmp_path):
    data = ds.open_prepared(make_prepared(tmp_path, n=24, names=FRAME_FEATURES))
    rows, width = np.arange(4), 3
    views = np.zeros((4, 2, 25, width), np.float32)
    views[:, 1] = 1.0
    known = picture_training.Opinions(np.zeros((24, 25, width), np.float32), rows, views, np.array([False, True]))
    deal = ds.LivenessDataset(data, rows, ds.scaling_of(data, rows), augment=True, opinions=known)
    yaw, seen = FRAME_FEATURES.index("pose_yaw"), set()
    sign = np.nansum(np.sign(data.features[1][:, yaw]))
    for deal.epoch in range(12):
        item = deal[1]
        mirrored = bool(item["opinion"].max())
        seen.add(mirrored)
        assert np.sign(np.sign(item["features"][:, yaw]).sum()) == (-1 if mirrored else 1) * np.sign(sign)
    assert seen == {False, True}


def test_a_gated_clip_has_no_score(prepared, trained):
    data = ds.open_prepared(prepared)
    table = scoring.score(trained[1], data, rows=np.array([len(data) - 2, len(data) - 1]))
    assert np.isfinite(table["score"][0]) and np.isnan(table["score"][1])
    assert table["reasons"][1].startswith("no face")


def test_a_finished_training_is_not_repeated_and_a_changed_one_is(trained, tmp_path):
    config, path = trained
    stamp = path.stat().st_mtime_ns
    assert train(config, progress=False).stat().st_mtime_ns == stamp
    again = replace(config, out=str(tmp_path / "run"), epochs=2, picture_epochs=1)
    moved = shutil.copytree(config.prepared, tmp_path / "arrays")
    assert training.fingerprint(again) == training.fingerprint(replace(again, prepared=str(moved)))
    final = train(again, progress=False)
    heads = (final.parent / "pictures.pt").stat().st_mtime_ns
    final.unlink()  # interrupted after the pictures: those are kept
    train(again, progress=False)
    assert final.is_file() and (final.parent / "pictures.pt").stat().st_mtime_ns == heads
    changed = train(replace(again, seed=1, epochs=1, picture_epochs=1), progress=False)
    assert (changed.parent / "pictures.pt").stat().st_mtime_ns != heads


def test_fine_tuning_starts_from_a_checkpoint_and_is_known_by_its_content(prepared, trained, tmp_path):
    config, path = trained
    shutil.copyfile(path, tmp_path / "there.pt")
    begun = replace(config, start=str(path), out=str(tmp_path / "tuned"), epochs=1, picture_epochs=1)
    assert training.fingerprint(begun) == training.fingerprint(replace(begun, start=str(tmp_path / "there.pt")))
    tuned, told = load_checkpoint(train(begun, progress=False))
    before = load_checkpoint(path)[0]
    gap = (tuned.judge.linear.weight - before.judge.linear.weight).abs().max()
    assert gap > 0
    assert str(tmp_path) not in str(told["training"])
    with pytest.raises(ModelError, match=r"gone\.pt"):
        train(replace(begun, start=str(tmp_path / "gone.pt")), progress=False)


def test_a_picture_head_can_be_taken_as_it_is(prepared, trained, tmp_path):
    config, path = trained
    taken = replace(config, picture_head=str(path), out=str(tmp_path), epochs=1, seed=3)
    net, before = (load_checkpoint(p)[0] for p in (train(taken, progress=False), path))
    for name, value in before.picture.state_dict().items():
        assert torch.equal(value, net.picture.state_dict()[name]), name
    assert not (tmp_path / "pictures").exists()


def test_swapped_imus_are_injections_only_where_that_can_be_told(prepared):
    data = ds.open_prepared(prepared)
    rows = np.arange(4)
    known = picture_training.Opinions(
        np.zeros((len(data), 25, 10), np.float32), rows, np.zeros((4, 0)), np.zeros(0, bool)
    )
    dealt = ds.LivenessDataset(data, rows, ds.scaling_of(data, rows), augment=True, opinions=known)
    batch = torch.utils.data.default_collate([dealt[k] for k in range(4)])
    batch["presence"] = torch.tensor([[1.0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]])
    batch["imu"][0], batch["decoy_imu"][0] = 0.0, 0.0  # two phones at rest
    twice = training.swap_imu(batch)
    assert twice["consistency"].tolist() == [1, 1, 1, -1, -1, 0, 0, -1]
    assert twice["weight"].tolist() == [1, 1, 1, 1, 0, 0.5, 0, 0]
    assert len(twice["opinion"]) == len(twice["imu"]) == 8


def test_the_seed_style_baseline_trains_from_pixels(prepared, tmp_path):
    config = TrainConfig(str(prepared), str(tmp_path), architecture="seed_style", modalities=("video", "imu"), epochs=1)
    net, _ = load_checkpoint(train(config, progress=False))
    assert isinstance(net, SeedNet) and not (tmp_path / "pictures.pt").exists()


def test_pictures_that_are_not_there_and_a_split_of_one_class_are_named(prepared, tmp_path):
    config = TrainConfig(str(prepared), str(tmp_path / "out"), pictures=str(tmp_path / "nothing"))
    with pytest.raises(DatasetError, match="no finished pictures"):
        train(config, progress=False)
    with pytest.raises(DatasetError, match="bona fide and attack"):
        train(replace(config, pictures="", exclude=("flat_print", "injection")), progress=False)


def test_settings_are_few():
    from dataclasses import fields

    from liveness_utils.config import Profile
    from liveness_utils.network.fusion import ModelConfig

    assert sum(len(fields(kind)) for kind in (TrainConfig, Profile, ModelConfig)) < 35
    assert TrainConfig.of(profile("full"), "a", "b", epochs=3).epochs == 3


def test_fine_tuning_takes_a_third_of_the_steps_and_moves_no_picture_head():
    net, rates = build(ModelConfig(n_features=G)), []
    for start in ("", "a.pt"):
        module = training.LivenessModule(net, TrainConfig("a", "b", start=start), 1.0, 10)
        (group,) = module.configure_optimizers()["optimizer"].param_groups
        rates.append(group["max_lr"])
    assert rates[1] == pytest.approx(rates[0] / 3)
    resting = {id(p) for part in (net.encoder, net.picture) for p in part.parameters()}
    assert not resting & {id(p) for p in group["params"]}


@pytest.mark.parametrize(
    ("changes", "swaps"),
    [({}, True), ({"exclude": ("injection",)}, False), ({"modalities": ("video", "landmarks")}, False)],
)
def test_an_injection_that_is_left_out_is_not_taught_by_another_door(changes, swaps, monkeypatch):
    net, seen, n = build(ModelConfig(n_features=G)), [], 4
    module = training.LivenessModule(net, replace(TrainConfig("a", "b"), **changes), 1.0, 10)
    monkeypatch.setattr(training, "swap_imu", lambda batch: seen.append(True) or training._plain(batch))
    monkeypatch.setattr(module, "log_dict", lambda *a, **k: None)
    batch = {
        "opinion": torch.zeros(n, 25, net.opinion_width), "features": torch.zeros(n, 25, G), "imu": torch.zeros(n, 25, 32, 6),
        "presence": torch.ones(n, 3), "label": torch.ones(n), "species": torch.zeros(n, dtype=torch.int64),
    }  # fmt: skip
    module.training_step(batch, 0)
    assert bool(seen) == swaps


def test_every_second_view_is_mirrored(tmp_path, monkeypatch):
    data = ds.open_prepared(make_prepared(tmp_path, n=12, names=FRAME_FEATURES))
    plain, turned = (ds.changed_view(data, 0, 3, way, seed=5) for way in (False, True))
    np.testing.assert_array_equal(plain[:, :, ::-1], turned)
    assert (ds.changed_view(data, 0, 4, False, seed=5) != plain).any()
    monkeypatch.setattr(picture_training, "_opinion", lambda net, crops: np.zeros((25, 11)))
    known = picture_training.opinions(SimpleNamespace(opinion_width=11), data, np.arange(1), np.arange(2), 3, 5)
    assert known.mirrored.tolist() == [False, True, False]


def test_a_short_clip_is_scored_by_its_first_frames(prepared, trained):
    net, data, rows = load_checkpoint(trained[1])[0], ds.open_prepared(prepared), np.arange(1, 3)
    known = picture_training.opinions(net, data, rows).plain
    short, whole = (scoring.score(net, data, rows=rows, frames=n, opinions=known)["logit"].to_numpy() for n in (13, 25))
    np.testing.assert_allclose(short, scoring.predict_rows(net, data, rows, frames=13)["logit"], atol=1e-4)
    items = ds.LivenessDataset(data, rows, training.scaling_in(net, data))
    names = ("frames", "features", "imu", "presence")
    frames, *rest = (torch.from_numpy(np.stack([items[k][n] for k in range(2)])) for n in names)
    with torch.inference_mode():
        wanted = net(frames[:, :13].float() / 255, rest[0][:, :13], rest[1][:, :13], rest[2])["logit"]
    np.testing.assert_allclose(short, wanted, atol=1e-4)
    assert np.abs(short - whole).max() > 1e-3
