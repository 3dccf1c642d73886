"""Sensor: exposure, geometry and noise behave as a camera's do, and a seed fixes every byte."""

from dataclasses import replace

import numpy as np
import pytest

from liveness_utils import sensor as S

SIDE = 128
PLAIN = S.SensorProfile(k1=0.0, vignetting=0.0, psf_px=0.0, sharpen=0.0, row_noise_e=0.0, wb_error=0.0)
CLEAN = replace(PLAIN, sensitivity=1e9, full_well_e=1e10, read_noise_e=0.0)
STILL = S.Exposure(0.01, 1.0, (1.0, 1.0, 1.0))


def grey(value=0.18, side=SIDE):
    return np.full((side, side, 3), value, np.float32)


def dot(x, y, side=SIDE):
    yy, xx = np.mgrid[:side, :side]
    return np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / 1.5**2)[..., None].repeat(3, 2).astype(np.float32)


def centroid(image):
    weight = np.maximum(image[..., 1].astype(float) - 20, 0)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def shoot(linear, profile=CLEAN, state=None, seed=0, lux=300.0, **kwargs):
    rng = np.random.default_rng(seed)
    state = state or S.start_exposure(linear, profile, rng, illuminance=lux)
    return S.capture(linear, profile, state, rng, illuminance=lux, **kwargs)


def exposed(level):
    """State under which a linear value of 1 reaches `level` of the well of CLEAN at 300 lux."""
    return S.Exposure(level * CLEAN.full_well_e / (CLEAN.sensitivity * 300.0), 1.0, (1.0, 1.0, 1.0))


# ---- exposure, colour, tone


@pytest.mark.parametrize("lux", [100, 1000, 20000])
def test_auto_exposure_brings_any_ordinary_light_to_the_same_level(lux):
    profile = S.SensorProfile(meter_error=0.05)
    levels = [shoot(grey(), profile, seed=s, lux=lux).mean() for s in range(4)]
    assert np.mean(levels) == pytest.approx(255 * profile.ae_target, abs=18)


def test_a_camera_keeps_its_metering_error_while_it_adapts():
    profile = S.SensorProfile(meter_error=0.8)
    states = [S.start_exposure(grey(), profile, np.random.default_rng(s), illuminance=1000.0) for s in range(8)]
    later = [S.adapt_exposure(state, grey(), profile, 1.0, illuminance=1000.0) for state in states]
    light = np.array([[s.exposure_s * s.gain, t.exposure_s * t.gain] for s, t in zip(states, later, strict=True)])
    assert np.ptp(np.log(light[:, 0])) > 0.8
    np.testing.assert_allclose(light[:, 0], light[:, 1])


def test_when_gain_runs_out_dim_scenes_stay_dark_and_noisy():
    bright, dim = (shoot(grey(), S.SensorProfile(), lux=lux).astype(float) for lux in (1000, 1))
    assert dim.mean() < 0.6 * bright.mean()
    assert dim[8:-8, 8:-8].std() / dim.mean() > 4 * bright[8:-8, 8:-8].std() / bright.mean()


def test_exposure_and_gain_keep_to_the_limits_and_to_the_mains():
    profile = S.SensorProfile()
    for lux in (0.1, 10, 300, 1e5):
        state = S.start_exposure(grey(), profile, np.random.default_rng(0), illuminance=lux)
        assert profile.exposure_min_s <= state.exposure_s <= profile.exposure_max_s
        assert 1 <= state.gain <= profile.gain_max
        if state.exposure_s > 0.01:
            assert state.exposure_s / 0.01 == pytest.approx(round(state.exposure_s / 0.01))


def test_exposure_follows_the_light_in_time_and_rests_in_its_dead_band():
    profile = S.SensorProfile()
    state = S.start_exposure(grey(), profile, np.random.default_rng(0))
    assert S.adapt_exposure(state, grey(), profile, 0.0) == state
    later, products = state, []
    for _ in range(60):
        later = S.adapt_exposure(later, grey(0.72), profile, 1 / 30)
        products.append(later.exposure_s * later.gain)
    assert np.all(np.diff(products) <= 1e-12)
    assert products[0] > 0.8 * state.exposure_s * state.gain
    assert products[-1] < 0.4 * state.exposure_s * state.gain
    assert later.balance == state.balance


def test_white_balance_removes_most_of_a_lamps_colour_but_not_all():
    warm = grey() * np.array([1.5, 1.0, 0.5], np.float32)
    image = shoot(warm, CLEAN).reshape(-1, 3).mean(0)
    raw = shoot(warm, CLEAN, exposed(1.0)).reshape(-1, 3).mean(0)
    assert 1.02 < image[0] / image[2] < 0.7 * raw[0] / raw[2]


def test_the_tone_curve_is_monotone_from_black_to_white():
    levels = [shoot(grey(v), CLEAN, exposed(1.0)).mean() for v in (0.0, 0.02, 0.1, 0.2, 0.4, 0.8, 1.0)]
    assert levels[0] == 0 and np.all(np.diff(levels) > 0) and levels[-1] > 225
    for contrast in (0.0, 0.45, 1.0):
        assert np.all(np.diff(S._tone_curve(contrast)) >= 0)


def test_corners_are_darker_behind_a_real_lens():
    image = shoot(grey(), replace(CLEAN, vignetting=0.4), exposed(1.0)).astype(int)
    assert image[0, 0, 1] < image[SIDE // 2, SIDE // 2, 1] - 15


# ---- geometry


def test_a_row_shift_moves_content_by_what_it_says():
    shift = np.tile([3.0, -2.0], (SIDE, 1))
    image = shoot(dot(60, 50), CLEAN, exposed(1.0), row_shift=shift)
    np.testing.assert_allclose(centroid(image), [63, 48], atol=0.1)


def test_a_rolling_shutter_shears_a_vertical_line():
    line = grey(0.0)
    line[:, 62:66] = 1.0
    shift = np.stack([np.linspace(-4, 4, SIDE), np.zeros(SIDE)], 1)
    image = shoot(line, CLEAN, exposed(0.5), row_shift=shift)[..., 1].astype(float)
    place = (image * np.arange(SIDE)).sum(1) / image.sum(1)
    np.testing.assert_allclose(place - place.mean(), shift[:, 0], atol=0.3)


@pytest.mark.parametrize("k1", [-0.05, 0.06])
def test_distort_points_says_where_capture_puts_things(k1):
    profile = replace(CLEAN, k1=k1)
    for x, y in ((20, 30), (100, 110), (63.5, 63.5)):
        image = shoot(dot(x, y), profile, exposed(1.0))
        np.testing.assert_allclose(centroid(image), S.distort_points(np.array([x, y]), profile, SIDE, SIDE), atol=0.15)


def test_the_margin_is_cut_off_without_moving_anything():
    wide = np.pad(dot(60, 50), ((8, 8), (8, 8), (0, 0)))
    image = shoot(wide, CLEAN, exposed(1.0), margin=8)
    assert image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(centroid(image), [60, 50], atol=0.1)


def test_a_row_shift_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="row_shift"):
        shoot(grey(), CLEAN, STILL, row_shift=np.zeros((3, 2)))


@pytest.mark.parametrize("motion", [(6.0, 0.0), (3.0, -4.0), (0.7, 0.2), (0.0, 60.0)])
def test_motion_kernel_is_a_centred_line_of_the_right_length(motion):
    kernel = S.motion_kernel(*motion)
    y, x = np.mgrid[: len(kernel), : len(kernel)] - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1, abs=1e-6) and kernel.min() >= 0
    np.testing.assert_allclose([(kernel * x).sum(), (kernel * y).sum()], 0, atol=1e-4)
    length = min(np.hypot(*motion), 41.0)
    # a uniform line has variance L²/12; bilinear splatting adds at most 1/4 along each axis
    assert length**2 / 12 - 0.01 <= (kernel * (x * x + y * y)).sum() <= length**2 / 12 + 0.51


def test_motion_blurs_along_its_direction_only():
    cross = grey(0.0)
    cross[:, 62:66] = cross[62:66] = 1.0
    image = shoot(cross, CLEAN, exposed(0.5), blur_px=(8.0, 0.0))[..., 1].astype(int)
    upright, lying = np.abs(np.diff(image[20])).max(), np.abs(np.diff(image[:, 20])).max()
    assert upright < 0.6 * lying


def test_rows_are_read_symmetrically_about_the_middle():
    times = S.row_times(S.SensorProfile(readout_s=0.03), 11)
    assert times[0] == pytest.approx(-0.015) and times[5] == pytest.approx(0) and np.all(np.diff(times) > 0)


# ---- noise and determinism


def test_noise_follows_the_square_root_of_the_light():
    profile = replace(PLAIN, read_noise_e=0.0, contrast=0.0, saturation=1.0)
    curve = S._tone_curve(0.0)
    slope = np.gradient(curve, 1.6 / (len(curve) - 1))
    ratios = []
    for value in (0.05, 0.2, 0.45):
        state = S.Exposure(profile.full_well_e / profile.sensitivity / 30.0 / 8, 8.0, (1.0, 1.0, 1.0))
        image = shoot(grey(value), profile, state, lux=30.0)[..., 1].astype(float)
        ratios.append((image.std() / slope[int(value / 1.6 * (len(curve) - 1))]) ** 2 / value)
    np.testing.assert_allclose(ratios, np.mean(ratios), rtol=0.25)


def test_noise_is_coarser_and_weaker_after_noise_reduction():
    def grain(strength):
        tile = S._noise_tile(strength)[..., 1]
        return tile.std(), np.corrcoef(tile[:, :-1].ravel(), tile[:, 1:].ravel())[0, 1]

    (loud, fine), (quiet, coarse) = grain(0.0), grain(1.0)
    assert quiet < loud and coarse > fine


def test_noise_changes_from_frame_to_frame_and_never_repeats_its_pattern():
    rng = np.random.default_rng(0)
    frames = [S.capture(grey(), PLAIN, STILL, rng, illuminance=300.0).astype(float) for _ in range(6)]
    residual = [(f - f.mean((0, 1))).ravel() for f in frames]
    assert np.abs(np.corrcoef(residual) - np.eye(6)).max() < 0.1


def test_a_seed_fixes_every_byte():
    profile = S.SensorProfile()
    same, again, other = (shoot(grey(), profile, seed=s, blur_px=(2, 1)) for s in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()


@pytest.mark.parametrize("shape", [(64, 64), (96, 256), (700, 600)])
def test_any_frame_size_is_photographed(shape):
    image = shoot(np.full((*shape, 3), 0.2, np.float32), S.SensorProfile())
    assert image.shape == (*shape, 3) and 40 < image.mean() < 220
