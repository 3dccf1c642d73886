"""The network: its two passes agree, what is absent is not seen, and pixels are believed only so far."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prepared_clips import G

from liveness_utils import inputs
from liveness_utils.errors import ModelError
from liveness_utils.network import fusion
from liveness_utils.network.fusion import FusionNet, ModelConfig, build


@pytest.fixture(scope="module")
def net() -> FusionNet:
    torch.manual_seed(0)
    made = build(ModelConfig(n_features=G, imu_columns=(G - 1,))).eval()
    with torch.inference_mode():  # as training would: frames of noise are what is known
        known = made.encoder(torch.rand(8, 112, 112, 3))
    made.picture.level.copy_(known.mean(0))
    made.picture.spread.copy_(known.std(0) + 1e-3)
    for linear in (made.picture.flat, made.picture.mask):
        torch.nn.init.normal_(linear.weight, std=0.1)
        torch.nn.init.zeros_(linear.bias)
    return made


def _batch(n: int = 2) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return [
        torch.rand(n, 25, 112, 112, 3, generator=g),
        torch.randn(n, 25, G, generator=g),
        torch.randn(n, 25, 32, 6, generator=g),
        torch.ones(n, 3),
    ]


@torch.inference_mode()
def test_steps_equal_the_clip_model(net):
    frames, features, imu, presence = _batch()
    clip = net(frames, features, imu, presence)
    h, c = net.initial_state(2)
    for t in range(25):
        out = net.step(frames[:, t], features[:, t], imu[:, t], presence, h, c)
        h, c = out["h"], out["c"]
        torch.testing.assert_close(out["depth"], clip["depth"][:, t], atol=1e-4, rtol=0)
    for name in ("logit", "species", "consistency", "pixels"):
        torch.testing.assert_close(out[name], clip[name], atol=1e-4, rtol=0)
    assert set(clip) == set(fusion.OUTPUTS) and set(out) == {*fusion.OUTPUTS, "h", "c"}


@torch.inference_mode()
def test_clips_looked_at_before_are_judged_as_from_their_pixels(net):
    frames, *rest = _batch()
    opinion = net.look(frames.flatten(0, 1))["opinion"].reshape(2, 25, -1)
    torch.testing.assert_close(net.judge_clips(opinion, *rest)["logit"], net(frames, *rest)["logit"])


@torch.inference_mode()
@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_masked_modality_cannot_be_seen_and_one_that_is_there_matters(net, k):
    given = _batch()
    whole = net(*given)["logit"]
    changed = [x.clone() for x in given]
    changed[k] = 0.3 * changed[k] + (0 if k == 0 else 1)
    if k == 2:  # features that the IMU has part in go with it
        changed[1][..., G - 1] += 2
    assert not torch.equal(net(*changed)["logit"], whole)
    for batch in (given, changed):
        batch[3][:, k] = 0
    torch.testing.assert_close(net(*changed)["logit"], net(*given)["logit"])


@torch.inference_mode()
def test_pixels_are_bounded_and_the_graver_doubt_counts(net):
    def said(flat: float, mask: float) -> float:
        opinion = torch.zeros(1, 25, net.opinion_width)
        opinion[..., 0], opinion[..., 1] = flat, mask
        return float(net.judge_clips(opinion, *(x[:1] for x in _batch()[1:]))["pixels"])

    assert said(100.0, 100.0) == pytest.approx(net.CERTAIN)
    assert said(-100.0, 100.0) == pytest.approx(-net.CERTAIN) == said(100.0, -100.0)
    assert said(0.5, 3.0) == pytest.approx(0.5, abs=0.01) and said(3.0, -0.5) == pytest.approx(-0.5, abs=0.01)


def test_the_encoder_is_frozen_and_says_the_same_in_training(net):
    made, frames = FusionNet(net.config).eval(), _batch()[0][0]
    before = made.encoder(frames)
    assert torch.equal(made.train().encoder(frames), before) and made.picture.training
    assert torch.equal(made.eval().encoder(frames), before), "something in it has changed by being used"
    assert not any(p.requires_grad for p in made.encoder.parameters())


@torch.inference_mode()
def test_temporal_statistics_follow_a_clip():
    held = fusion.TemporalStatistics((3, 4), (2, 3))
    x = torch.randn(2, 25, held.width, generator=torch.Generator().manual_seed(0)) + 3.0
    sums = torch.zeros(2, 6 * held.width)
    for t in range(25):
        sums = held.advance(sums, x[:, t], torch.full((2, 1), float(t > 0)))
        if t in (0, 1, 24):
            seen = x[:, : t + 1]
            torch.testing.assert_close(sums, held.gather(seen), rtol=1e-5, atol=1e-5)
            got = held.of(sums, torch.full((2, 1), t + 1.0)).reshape(2, 5, held.width)
            change = seen.diff(dim=1).abs().sum(1) / max(t, 1)
            wanted = (seen.mean(1), (seen.var(1, correction=0) + 1e-4).sqrt(), seen.amin(1), seen.amax(1), change)
            torch.testing.assert_close(got, torch.stack(wanted, 1), atol=2e-3, rtol=0)
    assert held.visible((torch.ones(1, 1), torch.zeros(1, 1))).reshape(5, 5).tolist() == [[1, 1, 0, 0, 0]] * 5


def test_the_judge_is_the_same_folded():
    torch.manual_seed(0)
    judge = fusion.Judge(20, 8, drop=0.0)
    for _ in range(3):
        judge(3.0 + 5.0 * torch.randn(64, 20))
    judge.eval()
    x = torch.randn(4, 20)
    unfolded = torch.nn.functional.hardswish(judge.linear(judge.norm(x)))
    torch.testing.assert_close(judge(x), unfolded, atol=1e-5, rtol=1e-5)


def test_features_are_seen_on_an_ordinary_and_on_a_fine_scale():
    encoder = fusion.FeatureEncoder(3, (2,), 8, 2).eval()
    encoder.std.copy_(torch.tensor([0.1, 0.1, 0.1]))
    features = torch.tensor([[0.001, -0.001, 0.02], [0.02, -0.02, 0.02], [0.1, 5.0, 0.02]])
    with torch.inference_mode():
        (plain, fine), (_, deaf) = (encoder(features, torch.full((3, 1), v))[0].chunk(2, dim=1) for v in (1.0, 0.0))
    assert plain[1, 0] - plain[0, 0] == pytest.approx(0.19) and plain[2, 1] == 6.0
    assert fine[1, 0] - fine[0, 0] > 0.4 and fine[2, 0] == pytest.approx(1.0) and fine[2, 1] > 2.0
    assert torch.equal(fine[:2, 1], -fine[:2, 0])
    assert fine[:, 2].min() > 0.5 and deaf[:, 2].abs().max() == 0.0  # of the IMU, where there is none


@torch.inference_mode()
def test_attention_is_a_map_of_weights(net):
    weights = net.look(_batch(1)[0][0])["attention"]
    assert weights.shape == (25, 14, 14)
    assert 0 < weights.min() and weights.max() < 1


def test_a_network_is_small_and_unknown_ones_are_refused(net):
    assert fusion.count_parameters(net) < 1e6
    with pytest.raises(ModelError, match="no architecture"):
        build(ModelConfig(n_features=G, architecture="larger"))


@torch.inference_mode()
def test_the_seed_style_baseline_answers_alike_and_holds_frames():
    baseline = build(ModelConfig(n_features=G, architecture="seed_style")).eval()
    frames, *rest = _batch(1)
    assert {"logit", "species", "consistency", "depth"} == set(baseline(frames, *rest))
    assert baseline(frames[:, :8], *rest)["logit"].shape == (1,)


def test_a_checkpoint_loses_nothing_keeps_half_floats_and_others_are_refused(net, tmp_path):
    made = build(net.config).eval()
    made.load_state_dict(net.state_dict())
    made.encoder.half().float()
    fusion.save_checkpoint(tmp_path / "a.pt", made, note="x")
    again, extra = fusion.load_checkpoint(tmp_path / "a.pt")
    for name, value in made.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    held = torch.load(tmp_path / "a.pt", weights_only=True)["state"]
    kinds = {
        inside: {v.dtype for k, v in held.items() if k.startswith("encoder.") == inside} for inside in (True, False)
    }
    assert torch.float32 not in kinds[True] and torch.float32 in kinds[False]
    assert extra["note"] == "x"
    (tmp_path / "b.pt").write_bytes(b"nonsense")
    for name in ("b.pt", "missing.pt"):
        with pytest.raises(ModelError, match=name):
            fusion.load_checkpoint(tmp_path / name)


@torch.inference_mode()
def test_motion_is_judged_without_a_pixel(net):
    frames, *rest = _batch()
    there, other = net(frames, *rest), net(0.3 * frames, *rest)
    torch.testing.assert_close(there["consistency"], other["consistency"])
    torch.testing.assert_close(there["logit"] - there["pixels"], other["logit"] - other["pixels"], atol=1e-5, rtol=0)
    assert not torch.allclose(there["pixels"], other["pixels"])


@torch.inference_mode()
def test_a_still_counts_as_the_mean_of_itself_and_its_mirror_image(net):
    crop = np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)
    views = torch.from_numpy(inputs.still_views(crop)).float() / 255
    video_alone = torch.tensor([[1.0, 0, 0]])
    found = net(views[None], torch.zeros(1, 25, G), torch.zeros(1, 25, 32, 6), video_alone)["pixels"]
    flat, mask = (net.look(views[:2])["opinion"][:, k] for k in (0, 1))
    doubt = torch.minimum(*(13 / 25 * x[0] + 12 / 25 * x[1] for x in (flat, mask)))
    assert flat[0] != flat[1]
    torch.testing.assert_close(found[0], net.CERTAIN * torch.tanh(doubt / net.CERTAIN), atol=1e-4, rtol=0)
