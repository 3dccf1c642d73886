"""Clips: what is written comes back, what is broken is refused in one sentence, units and axes hold."""

from dataclasses import replace

import av
import numpy as np
import pandas as pd
import pytest

from liveness_utils import clips
from liveness_utils.clips import Clip, Imu, Intrinsics, Truth
from liveness_utils.errors import ClipError, LivenessError


def _picture(n=30, height=96, width=128):
    y, x = np.mgrid[:height, :width]
    frames = np.empty((n, height, width, 3), np.uint8)
    for k in range(n):
        frames[k] = np.stack([200 * x / width, 200 * y / height, 0 * x + 40 + k], axis=-1)
    return frames


def _times(n=30, rate=12.0, seed=0):
    t = np.arange(n) / rate + np.random.default_rng(seed).uniform(0, 0.4 / rate, n)
    return t - t[0]


def _imu(stop=2.8, gyro=True):
    t = np.arange(-0.3, stop, 0.01)
    turn = np.stack([0.3 * np.sin(5 * t), 0.2 * np.cos(3 * t), 0.1 * t], axis=1).astype(np.float32)
    force = np.tile(np.float32([0.1, 9.7, 1.0]), (len(t), 1))
    return Imu(t, force, turn if gyro else None)


def _clip(n=30):
    rng, t = np.random.default_rng(1), _times(n)
    poses = np.tile(np.eye(4), (n, 1, 1))
    truth = Truth(
        t=t,
        T_world_camera=poses,
        T_world_head=poses + 0.25,
        expression=rng.random((n, 52)).astype(np.float32),
        landmarks=np.where(np.arange(478)[:, None] < 470, 100 * rng.random((n, 478, 2)), np.nan),
        depth=rng.random((n, 64, 64)).astype(np.float16),
        face_mask=rng.random((n, 64, 64)) > 0.5,
    )
    meta = {
        "clip_id": clips.clip_id_for("a", 1), "is_bonafide": True, "split": "train",
        "camera_facing": "rear", "width": 128, "height": 96,
        "fx": 100.0, "fy": 100.0, "cx": 63.5, "cy": 47.5,
    }  # fmt: skip
    size = Intrinsics(128, 96, 100.0, 100.0, 63.5, 47.5)
    return Clip(meta["clip_id"], _picture(n), t, _imu(), size, "rear", meta, truth, "made up")


def test_a_clip_comes_back_as_it_was_written(tmp_path):
    clip = _clip()
    clips.write_clip(tmp_path, clip, crf=10)
    clips.write_manifest(tmp_path, [clip.meta])
    back = clips.load_clip(tmp_path, clip.clip_id, truth=True)
    np.testing.assert_allclose(back.t, clip.t, atol=1e-6)
    assert np.abs(back.frames.astype(int) - clip.frames).mean() < 3
    np.testing.assert_array_equal(back.imu.accel, clip.imu.accel)
    np.testing.assert_array_equal(back.imu.gyro, clip.imu.gyro)
    assert (back.camera_facing, back.intrinsics) == ("rear", clip.intrinsics)
    assert back.meta["is_bonafide"] is True and back.meta["pai_species"] is None
    np.testing.assert_allclose(back.truth.landmarks, clip.truth.landmarks, atol=1 / 128)
    for name in ("t", "T_world_camera", "T_world_head", "expression", "depth", "face_mask"):
        np.testing.assert_array_equal(getattr(back.truth, name), getattr(clip.truth, name))
    assert clips.validate_clip(back) == []


def test_the_same_truth_is_the_same_bytes_and_a_clip_can_be_replaced(tmp_path):
    clip = _clip()
    bytes_of = []
    for _ in range(2):
        folder = clips.write_clip(tmp_path, clip)
        bytes_of.append([(folder / n).read_bytes() for n in ("truth.npz", "video.mp4", "imu.parquet")])
    assert bytes_of[0] == bytes_of[1]
    assert [p.name for p in (tmp_path / "clips").iterdir()] == [clip.clip_id]


def test_nothing_half_written_is_left_behind(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(clips, "_write_truth", fail)
    with pytest.raises(OSError):
        clips.write_clip(tmp_path, _clip())
    assert list((tmp_path / "clips").iterdir()) == []


@pytest.mark.parametrize("size", [(95, 127), (96, 127), (95, 128), (2, 2)])
def test_odd_sizes_survive(tmp_path, size):
    frames = _picture(5, *size)
    back, _ = clips.read_video(clips.write_video(tmp_path / "a.mp4", frames, _times(5)))
    assert back.shape == frames.shape


def test_the_file_has_no_reordered_frames_and_a_microsecond_clock(tmp_path):
    path = clips.write_video(tmp_path / "a.mp4", _picture(), _times())
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.pts is not None]
        assert stream.time_base.denominator == 1_000_000
        assert all(p.pts == p.dts for p in packets)


def test_a_bitrate_can_stand_in_for_crf(tmp_path):
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 255, (30, 96, 128, 3), dtype=np.uint8)
    sizes = [
        clips.write_video(tmp_path / f"{b}.mp4", noisy, _times(), bitrate=b).stat().st_size
        for b in (100_000, 2_000_000)
    ]
    assert sizes[0] < 0.5 * sizes[1]


def test_webm_without_fine_times_reads_too(tmp_path):
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=20, options={"deadline": "realtime"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for image in _picture(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    clip = clips.load_recording(path)
    assert clip.frames.shape == (20, 96, 128, 3) and clip.t[1] == pytest.approx(0.05)
    assert clip.intrinsics is None and clip.imu is None and clip.truth is None


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 1, -1, 0), lambda f: np.rot90(f, -1, (1, 2))),
        ((0, -1, 1, 0), lambda f: np.rot90(f, 1, (1, 2))),
        ((-1, 0, 0, -1), lambda f: np.rot90(f, 2, (1, 2))),
        ((-1, 0, 0, 1), lambda f: f[:, :, ::-1]),
    ],
)
def test_the_display_matrix_is_honoured(tmp_path, matrix, expected):
    frames = _picture(4)
    path = clips.write_video(tmp_path / "a.mp4", frames, _times(4), crf=5)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    a, b, c, d = (v * 65536 for v in matrix)
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)
    back, _ = clips.read_video(path)
    want = expected(frames)
    assert back.shape == want.shape
    assert np.abs(back.astype(int) - want).mean() < 4


def test_reading_is_bounded_in_size_time_and_number(tmp_path):
    path = clips.write_video(tmp_path / "a.mp4", _picture(60), _times(60))
    assert clips.load_recording(path, max_side=64).frames.shape[1:3] == (48, 64)
    short = clips.load_recording(path, max_seconds=2.0)
    assert 1.8 < short.t[-1] <= 2.0 and short.meta["cut_short"] is True
    few = clips.load_recording(path, max_frames=7)
    assert len(few.t) == 7 and few.meta["cut_short"] is True
    assert clips.load_recording(path).meta["cut_short"] is False


def test_what_is_no_video_is_refused(tmp_path):
    whole = clips.write_video(tmp_path / "a.mp4", _picture(40, 200, 200), _times(40)).read_bytes()
    text = tmp_path / "text.mp4"
    text.write_text("not a video at all")
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    for path in (text, empty, cut, tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(ClipError, match=path.name):
            clips.read_video(path)


def test_a_file_whose_pixels_are_cut_off_is_refused(tmp_path):
    path = clips.write_video(tmp_path / "a.mp4", _picture(40), _times(40))
    moved = tmp_path / "b.mp4"
    with av.open(str(path)) as source, av.open(str(moved), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = moved.read_bytes()
    moved.write_bytes(data[: len(data) - (len(data) - data.index(b"mdat")) // 2])
    with pytest.raises(ClipError):
        clips.read_video(moved)


def test_random_damage_never_raises_anything_else(tmp_path):
    rng = np.random.default_rng(3)
    whole = clips.write_video(tmp_path / "a.mp4", _picture(8, 64, 64), _times(8)).read_bytes()
    path = tmp_path / "b.mp4"
    for _ in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        data[rng.integers(0, len(data), 12)] = rng.integers(0, 256, 12)
        path.write_bytes(data.tobytes())
        try:
            clips.load_recording(path)
        except ClipError as error:
            assert "b.mp4" in str(error)


@pytest.mark.parametrize("mode", ["audio only", "no frames"])
def test_a_container_without_pictures_is_refused(tmp_path, mode):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        if mode == "audio only":
            stream = container.add_stream("pcm_s16le", rate=8000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
            sound.sample_rate = 8000
            container.mux(stream.encode(sound))
        else:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            container.start_encoding()
    with pytest.raises(ClipError, match="a.mkv"):
        clips.read_video(path)


def test_writing_refuses_wrong_frames_and_times(tmp_path):
    frames, t = _picture(5), _times(5)
    for bad in (
        (frames.astype(float), t),
        (frames[..., 0], t),
        (frames[:0], t[:0]),
        (frames, t[::-1]),
        (frames, t[:3]),
        (frames, t * np.nan),
    ):
        with pytest.raises(ClipError):
            clips.write_video(tmp_path / "a.mp4", *bad)
    assert list(tmp_path.iterdir()) == []


def test_times_that_do_not_increase_are_refused():
    with pytest.raises(ClipError, match="do not increase"):
        clips._clean_times([0.0, 0.1, 0.1], "a.mp4")


# ------------------------------------------------------------------------------------------------ IMU
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_imu_files_read_back_with_any_subset(tmp_path, suffix):
    imu = _imu()
    table = clips._imu_table(imu)
    for columns in (list(table), ["t", "gx", "gy", "gz"], ["t", "ax", "ay", "az"]):
        path = tmp_path / f"a{suffix}"
        part = table[columns].rename(columns=lambda c: f" {c.upper()} ")
        part.to_csv(path, index=False) if suffix == ".csv" else part.to_parquet(path)
        back = clips.read_imu(path)
        assert (back.accel is None) == ("ax" not in columns)
        assert (back.gyro is None) == ("gx" not in columns)
        np.testing.assert_allclose(back.t, imu.t, atol=1e-9)


def test_write_imu_and_read_imu_are_inverse(tmp_path):
    imu = _imu(gyro=False)
    back = clips.read_imu(clips.write_imu(tmp_path / "imu.parquet", imu))
    np.testing.assert_array_equal(back.accel, imu.accel)
    assert back.gyro is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.assign(ax=t.ax.where(t.index != 5)), "row 5"),
        (lambda t: t.assign(gx="much"), "not a number"),
        (lambda t: t.iloc[::-1], "must increase"),
        (lambda t: pd.concat([t, t.tail(1)]), "must increase"),
        (lambda t: t.drop(columns="t"), "needs column t"),
        (lambda t: t[["t", "ax", "ay"]], "needs column t"),
        (lambda t: t.head(1), "must increase"),
        (lambda t: t.assign(t=t.t.where(t.index != 7, t.t[6])), "row 7 repeats the time of row 6"),
        (lambda t: t.assign(t=t.t - 0.5 * (t.index > 90)), "row 91 goes back"),
        (lambda t: t.assign(ax=t.ax.where(t.index % 2 == 0), gx=t.gx.where(t.index % 2 == 1)), "times of their own"),
    ],
)
def test_wrong_imu_tables_are_refused(tmp_path, change, sentence):
    path = tmp_path / "imu.csv"
    change(clips._imu_table(_imu())).to_csv(path, index=False)
    with pytest.raises(ClipError, match=sentence) as caught:
        clips.read_imu(path)
    assert "imu.csv" in str(caught.value) and isinstance(caught.value, LivenessError)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"), (b"PK\x03\x04rest", "Excel.*save it as CSV"), (b'[{"time": 1}]', "is JSON; convert"),
        (b"log,1\nname,x\nt,gx,gy,gz\n0,1,2,3\n", "come in line 3; delete the lines above"),
        (b"time,x\n0,1\n", "needs column t.*found.*'time'"), (b"\xff\xfe\x00", "not a readable"),
    ],
)  # fmt: skip
def test_files_that_hold_no_imu_table_are_refused_by_what_they_are(tmp_path, content, sentence):
    (tmp_path / "imu.dat").write_bytes(content)
    with pytest.raises(ClipError, match=f"imu.dat: .*{sentence}"):
        clips.read_imu(tmp_path / "imu.dat")
    with pytest.raises(ClipError, match="is a folder; join"):
        clips.read_imu(tmp_path)


@pytest.mark.parametrize(("separator", "decimal"), [(";", ","), (";", "."), ("\t", "."), ("\t", ","), (",", ".")])
def test_text_tables_are_read_as_spreadsheets_write_them(tmp_path, separator, decimal):
    imu, path = _imu(), tmp_path / "imu.txt"
    text = clips._imu_table(imu).to_csv(index=False, sep=separator, decimal=decimal)
    path.write_text("# recorder 2.1\n" + text, encoding="utf-8-sig")
    np.testing.assert_allclose(clips.read_imu(path).accel, imu.accel, atol=1e-6)


@pytest.mark.parametrize(
    ("column", "factor", "words"),
    [
        ("t", 1e3, "milliseconds"), ("t", 1e6, "microseconds"), ("t", 1e9, "nanoseconds"),
        ("a", 1 / 9.80665, "units of g"), ("g", 180 / np.pi, "degrees per second"),
    ],
)  # fmt: skip
def test_units_that_are_beyond_doubt_are_converted_and_noted(tmp_path, column, factor, words):
    t = np.arange(-0.4, 2.6, 0.01)
    angle = 0.4 * np.sin(2 * t)
    force = 9.81 * np.stack([0 * t, np.cos(angle), -np.sin(angle)], axis=1)
    rate = np.stack([0.8 * np.cos(2 * t), 0 * t, 0 * t], axis=1)
    table = clips._imu_table(Imu(t, force, rate))
    assert clips.in_si_units(Imu(t, force, rate)).notes == ()
    changed = table.assign(**{c: table[c] * factor for c in table if c[0] == column})
    changed.to_csv(tmp_path / "imu.csv", index=False)
    read = clips.read_imu(tmp_path / "imu.csv")
    assert len(read.notes) == 1 and "imu.csv" in read.notes[0] and words in read.notes[0]
    for got, wanted in zip((read.t, read.accel, read.gyro), (t, force, rate), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_ios_reads_gravity_with_the_other_sign():
    flat = np.array([[0.0, 0.0, 9.80665]])
    as_reported = {
        ("w3c", "m/s2"): flat,
        ("android", "m/s2"): flat,
        ("ios_safari", "m/s2"): -flat,
        ("ios_coremotion", "g"): -flat / 9.80665,
    }
    for (platform, unit), accel in as_reported.items():
        imu = clips.normalise_imu(Imu(np.zeros(1), accel, np.ones((1, 3))), platform=platform, accel_unit=unit)
        np.testing.assert_allclose(imu.accel, flat, rtol=1e-6)
        np.testing.assert_allclose(imu.gyro, np.ones((1, 3)))


def test_the_screen_angle_turns_the_axes_upright():
    # 90: turned counter-clockwise, so that the case's x points up
    up = {0: [0, 1, 0], 90: [1, 0, 0], 180: [0, -1, 0], 270: [-1, 0, 0]}
    for angle, axis in up.items():
        raw = Imu(np.zeros(1), 9.81 * np.array([axis], float), np.array([[0.0, 0.0, 90.0]]))
        imu = clips.normalise_imu(raw, screen_angle=angle, gyro_unit="deg/s")
        np.testing.assert_allclose(imu.accel, [[0, 9.81, 0]], atol=1e-6)
        np.testing.assert_allclose(imu.gyro, [[0, 0, np.pi / 2]], rtol=1e-6)


@pytest.mark.parametrize(
    "bad", [{"platform": "pager"}, {"screen_angle": 45}, {"gyro_unit": "rpm"}, {"accel_unit": "lb"}]
)
def test_unknown_conventions_are_refused(bad):
    with pytest.raises(ClipError, match="unknown IMU convention"):
        clips.normalise_imu(_imu(), **bad)


def test_imu_windows_are_causal_and_on_the_grid():
    imu, t = _imu(), np.arange(25) / 10
    windows, valid = clips.imu_windows(imu, t)
    assert windows.shape == (25, 32, 6) and windows.dtype == np.float32 and valid.all()
    np.testing.assert_allclose(windows[3, :, 5], 0.1 * (0.3 - np.arange(31, -1, -1) / 100), atol=2e-3)
    for k in (0, 7, 24):
        keep = imu.t <= t[k]
        past = Imu(imu.t[keep], imu.accel[keep], imu.gyro[keep])
        np.testing.assert_array_equal(clips.imu_windows(past, t[k : k + 1])[0][0], windows[k])


def test_imu_windows_mask_what_is_missing():
    t = np.arange(25) / 10
    imu = _imu()
    for record in (None, _imu(gyro=False)):
        windows, valid = clips.imu_windows(record, t)
        assert not valid.any() and not windows.any()
    late = Imu(imu.t + 0.5, imu.accel, imu.gyro)
    assert clips.imu_windows(late, t)[1].tolist() == [x >= 0.41 for x in t]
    keep = (imu.t < 1.0) | (imu.t > 1.2)
    valid = clips.imu_windows(Imu(imu.t[keep], imu.accel[keep], imu.gyro[keep]), t)[1]
    assert not valid[12:15].any() and valid[:11].all() and valid[16:].all()
    assert not clips.imu_windows(_imu(stop=1.0), t)[1][12:].any()


# ------------------------------------------------------------------------------- choosing and checking
@pytest.mark.parametrize("rate", [10, 15, 24, 29.97, 60])
def test_network_frames_are_the_nearest_in_time(rate):
    t = np.arange(int(2.6 * rate)) / rate
    chosen = clips.network_frame_indices(t)
    grid = np.arange(25) / 10
    best = np.abs(t[:, None] - grid).min(axis=0)
    np.testing.assert_allclose(np.abs(t[chosen] - grid), best, atol=1e-12)
    assert chosen[0] == 0 and np.all(np.diff(chosen) >= 0)


def test_network_frames_need_time_without_gaps():
    with pytest.raises(ClipError, match="at least"):
        clips.network_frame_indices(np.arange(60) / 30)
    t = np.arange(90) / 30
    with pytest.raises(ClipError, match="pauses"):
        clips.network_frame_indices(np.delete(t, range(30, 40)))
    for short in (t[:0], t[:1]):
        with pytest.raises(ClipError):
            clips.network_frame_indices(short)
    assert clips.network_frame_indices(t, start=0.5)[0] == 15


def test_a_slice_counts_from_its_own_first_frame():
    clip = _clip()
    part = clips.slice_clip(clip, 1.0, 2.0)
    assert part.t[0] == 0 and part.t[-1] < 1.0 and len(part.frames) == len(part.t)
    assert part.imu.t[0] >= -0.5 - 1e-9 and part.truth is None
    with pytest.raises(ClipError):
        clips.slice_clip(clip, 50.0, 60.0)


def test_validate_clip_names_every_fault():
    clip = _clip()
    assert clips.validate_clip(clip) == []
    faults = {
        "rear": {"camera_facing": "top"},
        "picture size": {"intrinsics": Intrinsics(10, 10, 1.0, 1.0, 1.0, 1.0)},
        "uint8": {"frames": clip.frames.astype(float)},
        "increase": {"t": clip.t[::-1] - clip.t[-1]},
        "finite": {"imu": Imu(clip.imu.t, np.nan * clip.imu.accel, clip.imu.gyro)},
        "differ in length": {"frames": clip.frames[:-1], "t": clip.t[:-1]},
    }
    for word, change in faults.items():
        assert any(word in s for s in clips.validate_clip(replace(clip, **change))), word


# -------------------------------------------------------------------------------------------- manifest
def test_the_manifest_keeps_unknown_as_null(tmp_path):
    clips.write_manifest(tmp_path, [{"clip_id": "a", "is_bonafide": True, "split": "dev", "note": 1}])
    table = clips.read_manifest(tmp_path)
    assert tuple(table.columns[: len(clips.MANIFEST_COLUMNS)]) == clips.MANIFEST_COLUMNS
    assert table["age"].isna().all() and str(table["width"].dtype) == "Int64"
    assert table["note"].tolist() == [1]


def test_bad_manifests_are_refused(tmp_path):
    for rows in ([{"clip_id": "a"}, {"clip_id": "a"}], [{"split": "dev"}], [{"clip_id": "a", "width": "x"}]):
        with pytest.raises(ClipError, match="manifest"):
            clips.write_manifest(tmp_path, rows)
    with pytest.raises(ClipError, match="no manifest"):
        clips.read_manifest(tmp_path)
    (tmp_path / "manifest.parquet").write_text("hello")
    with pytest.raises(ClipError, match="damaged"):
        clips.read_manifest(tmp_path)
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "manifest.parquet")
    with pytest.raises(ClipError, match="lacks"):
        clips.read_manifest(tmp_path)


def test_missing_and_damaged_clips_are_refused(tmp_path):
    for name in ("../etc", "", "a" * 65, ".hidden"):
        with pytest.raises(ClipError, match="clip_id"):
            clips.load_clip(tmp_path, name)
    with pytest.raises(ClipError, match="no such clip"):
        clips.load_clip(tmp_path, "absent")
    clip = _clip()
    folder = clips.write_clip(tmp_path, clip)
    for content in (b"", b"PK\x03\x04 broken", (folder / "truth.npz").read_bytes()[:5000]):
        (folder / "truth.npz").write_bytes(content)
        with pytest.raises(ClipError, match="truth"):
            clips.load_clip(tmp_path, clip.clip_id, truth=True)
    assert clips.load_clip(tmp_path, clip.clip_id).truth is None


def test_expression_names_are_mediapipes_52():
    assert len(set(clips.EXPRESSION_NAMES)) == 52 and clips.EXPRESSION_NAMES[0] == "_neutral"
    assert clips.EXPRESSION_NAMES[25] == "jawOpen" and clips.EXPRESSION_NAMES[9] == "eyeBlinkLeft"
