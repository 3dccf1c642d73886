"""Renderer and scenes: geometry against closed forms, light against photometry, and the same bytes every time."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from liveness_utils import render as R
from liveness_utils import scenes
from liveness_utils.errors import SimulationError

SIDE = 96
WHITE = np.ones((4, 4, 3), np.float32)
FLAT = R.Lighting(R.hemisphere((1, 1, 1), (1, 1, 1)))
DULL = R.Material(specular=0.0, roughness=1.0)


def camera(side=SIDE, focal=1.1):
    middle = (side - 1) / 2
    return SimpleNamespace(width=side, height=side, fx=focal * side, fy=focal * side, cx=middle, cy=middle)


def facing(x=0.0, y=0.0, distance=0.5):
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[:3, 3] = (x, y, distance)
    return pose


def quad(centre=(0, 0, 0), right=(0.2, 0, 0), down=(0, -0.2, 0), texture=WHITE, material=DULL, **kwargs):
    """A sheet whose texture stands upright when its front is seen."""
    centre, right, down = (np.asarray(v, np.float32) for v in (centre, right, down))
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    vertices = centre + (uv[:, :1] - 0.5) * right + (uv[:, 1:] - 0.5) * down
    return R.Mesh(vertices, np.array([[0, 2, 1], [0, 3, 2]], np.int32), uv, texture, material, **kwargs)


def sphere(radius=0.1, centre=(0, 0, 0), n=40, **kwargs):
    theta, phi = np.meshgrid(np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, 2 * n, endpoint=False), indexing="ij")
    unit = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], -1).reshape(-1, 3)
    i, j = (a.ravel() for a in np.meshgrid(np.arange(n - 1), np.arange(2 * n), indexing="ij"))
    a, b = i * 2 * n + j, i * 2 * n + (j + 1) % (2 * n)
    triangles = np.concatenate([np.stack([a, a + 2 * n, b], 1), np.stack([b, a + 2 * n, b + 2 * n], 1)])
    vertices = (np.asarray(centre) + radius * unit).astype(np.float32)
    kwargs = {"texture": WHITE, "material": DULL, **kwargs}
    return R.Mesh(vertices, triangles.astype(np.int32), np.zeros((len(unit), 2), np.float32), normals=unit, **kwargs)


def draw(*meshes, room=None, light=FLAT, cam=None, pose=None, **kwargs):
    return R.render(meshes, room, light, cam or camera(), facing() if pose is None else pose, **kwargs)


# ---- geometry


def test_a_tilted_sheet_has_the_depth_and_texture_coordinates_of_its_plane():
    tilt = np.radians(50)
    right = 0.3 * np.array([np.cos(tilt), 0, np.sin(tilt)])
    seen = draw(quad(right=right, down=(0, -0.3, 0)), want_uv=True)
    y, x = np.nonzero(seen.object_id == 0)
    ray = np.stack([(x - camera().cx) / camera().fx, -(y - camera().cy) / camera().fy, -np.ones(len(x))], 1)
    normal = np.cross(right, [0, -0.3, 0])
    t = -(normal @ [0, 0, 0.5]) / (ray @ normal)
    hit = np.array([0, 0, 0.5]) + t[:, None] * ray
    np.testing.assert_allclose(seen.depth[y, x], t, rtol=2e-4)
    expected = np.stack([hit @ right / 0.09 + 0.5, -hit[:, 1] / 0.3 + 0.5], 1)
    np.testing.assert_allclose(seen.uv[y, x], expected, atol=2e-3)
    assert np.isnan(seen.uv[seen.object_id < 0]).all()


def test_a_sphere_stands_where_project_says_with_the_area_of_its_outline():
    centre, radius = np.array([0.05, -0.03, 0.02]), 0.1
    seen = draw(sphere(radius, centre, n=90))
    cover = seen.image[..., 1]
    y, x = np.mgrid[:SIDE, :SIDE]
    px, z = R.project(centre[None], camera(), facing())
    assert seen.depth.min() == pytest.approx(np.linalg.norm(centre - [0, 0, 0.5]) * 0.995 - radius, abs=3e-3)
    away = np.array([0.05, -0.03, -0.48])
    sine2 = radius**2 / (away @ away)
    cosine2 = away[2] ** 2 / (away @ away)
    area = np.pi * camera().fx ** 2 * sine2 * np.sqrt(1 - sine2) * np.sqrt(cosine2) / (cosine2 - sine2) ** 1.5
    assert cover.sum() == pytest.approx(area, rel=0.01)
    centroid = np.array([(cover * x).sum(), (cover * y).sum()]) / cover.sum()
    np.testing.assert_allclose(centroid, px[0], atol=0.6)
    assert z[0] == pytest.approx(0.48)


def test_the_nearer_surface_hides_the_farther_whatever_the_order():
    near, far = quad(centre=(0, 0, 0.1), object_id=1), quad(right=(0.4, 0, 0), down=(0, -0.4, 0), object_id=2)
    first, second = draw(near, far), draw(far, near)
    assert first.object_id[SIDE // 2, SIDE // 2] == 1 and (first.object_id == 2).any()
    np.testing.assert_array_equal(first.object_id, second.object_id)
    np.testing.assert_allclose(first.image, second.image, atol=1e-6)


def test_the_back_of_a_sheet_is_seen_only_if_it_is_two_sided():
    back = quad(right=(-0.2, 0, 0))
    assert (draw(back).object_id < 0).all()
    assert draw(replace(back, two_sided=True)).image[SIDE // 2, SIDE // 2, 0] == pytest.approx(1, abs=0.01)


def test_nothing_behind_the_camera_or_touching_it_is_drawn():
    assert (draw(quad(centre=(0, 0, 1.0)), quad(centre=(0, 0, 0.49))).object_id < 0).all()


def test_holes_let_the_surface_behind_through():
    alpha = np.ones((64, 64), np.float32)
    alpha[16:48, 16:48] = 0
    sheet = quad(texture=R.make_texture(np.ones((64, 64, 3), np.float32), alpha=alpha), object_id=1)
    behind = quad(centre=(0, 0, -0.1), right=(0.5, 0, 0), down=(0, -0.5, 0), object_id=2)
    seen = draw(sheet, behind)
    assert seen.object_id[SIDE // 2, SIDE // 2] == 2
    assert (seen.object_id == 1).sum() == pytest.approx(0.75 * (0.2 / 0.5 * camera().fx) ** 2, rel=0.06)


def test_silhouettes_are_smooth_and_leave_no_seam():
    glow = R.build_room([R.Rect((-5, 5, -2), (10, 0, 0), (0, -10, 0), WHITE, emissive=True)])
    np.testing.assert_allclose(draw(sphere(), room=glow).image, 1, atol=0.02)
    edge = draw(sphere()).image[..., 0]
    assert ((edge > 0.1) & (edge < 0.9)).sum() > 100


def test_fine_texture_far_away_fades_to_its_mean():
    checks = np.kron(np.indices((128, 128)).sum(0) % 2, np.ones((2, 2)))[..., None].repeat(3, 2).astype(np.float32)
    sheet = draw(quad(right=(0.3, 0, 0), down=(0, -0.3, 0), texture=checks))  # a check is half a pixel
    inside = sheet.image[20:-20, 20:-20]
    assert inside.mean() == pytest.approx(0.5, abs=0.02)
    assert inside.std() < 0.03


def test_too_many_meshes_are_refused():
    with pytest.raises(ValueError, match="127"):
        draw(*[quad()] * 128)


# ---- the room


def test_room_has_the_depth_of_its_walls_and_true_parallax():
    stripe = np.zeros((8, 200, 3), np.float32)
    stripe[:, 98:102] = 1
    room = R.build_room([R.Rect((-3, 3, -1), (6, 0, 0), (0, -6, 0), stripe, emissive=True)])
    left, right = (draw(room=room, pose=facing(x=x)) for x in (0.0, 0.1))
    np.testing.assert_allclose(left.depth, 1.5, rtol=1e-4)
    columns = np.arange(SIDE)
    moved = [(s.image[..., 0].sum(0) * columns).sum() / s.image[..., 0].sum() for s in (left, right)]
    assert moved[0] - moved[1] == pytest.approx(camera().fx * 0.1 / 1.5, abs=0.05)
    assert (left.object_id == -1).all()


@pytest.mark.parametrize("kind", list(scenes.ROOMS))
def test_every_kind_of_room_is_closed_lit_and_reproducible(kind):
    light = scenes.lighting("daylight_window", np.random.default_rng(1))
    room = scenes.sample_room(np.random.default_rng(5), kind)
    again = scenes.sample_room(np.random.default_rng(5), kind)
    np.testing.assert_array_equal(room.texels, again.texels)
    seen = draw(room=R.light_room(room, light), light=light)
    assert np.isfinite(seen.depth).all() and seen.depth.min() > 0.6
    assert np.isfinite(seen.image).all() and seen.image.min() >= 0
    assert 0.02 < np.median(seen.image) < 2


def test_rooms_differ():
    assert len(scenes.ROOMS) >= 12
    thumbs = [draw(room=scenes.sample_room(np.random.default_rng(k))).image.tobytes() for k in range(6)]
    assert len(set(thumbs)) == 6


@pytest.mark.parametrize("kind", list(scenes.LIGHTS))
def test_lights_give_a_facing_white_sheet_about_one(kind):
    low, high = scenes.LIGHTS[kind].lux
    values = []
    for seed in range(6):
        light = scenes.lighting(kind, np.random.default_rng(seed))
        assert low <= light.illuminance <= high
        values.append(draw(quad(), light=light).image[SIDE // 2, SIDE // 2] @ [0.2126, 0.7152, 0.0722])
    assert 0.25 < np.median(values) < 1.8


def test_warm_light_is_redder_and_unknown_names_are_refused():
    warm, cold = scenes.black_body(2700), scenes.black_body(7500)
    assert warm[0] / warm[2] > 2 and cold[0] / cold[2] < 1
    with pytest.raises(SimulationError, match="office"):
        scenes.lighting("moon", np.random.default_rng(0))
    with pytest.raises(SimulationError, match="kitchen"):
        scenes.sample_room(np.random.default_rng(0), "moon")


# ---- light


def key(vector, **kwargs):
    return R.Lighting(np.zeros((4, 3), np.float32), (R.Light(np.array(vector, float), np.ones(3), size=0.0, **kwargs),))


@pytest.mark.parametrize("degrees", [0, 30, 60])
def test_a_matt_sheet_obeys_lamberts_cosine(degrees):
    angle = np.radians(degrees)
    value = draw(quad(), light=key((np.sin(angle), 0, np.cos(angle)))).image[SIDE // 2, SIDE // 2]
    np.testing.assert_allclose(value, np.cos(angle), atol=0.01)


def test_a_lamp_falls_off_with_the_square_of_its_distance():
    lamp = key((0, 0, 2.0), point=True)
    near, far = (draw(quad(centre=(0, 0, z)), light=lamp).image[SIDE // 2, SIDE // 2, 0] for z in (0.0, -1.0))
    assert near / far == pytest.approx((9 + 0.08) / (4 + 0.08), rel=0.02)


def test_something_in_the_way_of_the_key_light_casts_a_shadow():
    wall = quad(right=(0.5, 0, 0), down=(0, -0.5, 0))
    blocker = quad(centre=(0.1, 0, 0.1), right=(0.06, 0, 0), down=(0, -0.06, 0), two_sided=True)
    light = key((1, 0, 1), shadow=True)
    seen = draw(wall, blocker, light=light).image[SIDE // 2, :, 0]
    open_wall = draw(wall, light=light).image[SIDE // 2, :, 0]
    assert seen[SIDE // 2] < 0.3 * open_wall[SIDE // 2]
    assert seen[SIDE // 5] == pytest.approx(open_wall[SIDE // 5], rel=0.05)


def test_skin_is_red_at_the_terminator_and_plastic_is_not():
    def ratio(material):
        image = draw(sphere(material=replace(material, specular=0.0)), light=key((1, 0, 0.0))).image
        column = image[SIDE // 2, SIDE // 2 - 2 : SIDE // 2 + 1].sum(0)
        return column[0] / max(column[2], 1e-3)

    assert ratio(R.SKIN) > 1.5
    assert ratio(R.PLASTIC) == pytest.approx(1, abs=0.01)


def test_a_glossy_surface_shows_a_highlight():
    mirror_way = key((0, 0, 1))
    dull, glossy = (draw(sphere(material=m), light=mirror_way).image.max() for m in (DULL, R.RESIN))
    assert glossy > dull + 0.1


def test_a_screen_shines_and_reflects_the_room_by_the_law_of_reflection():
    lamp = R.Rect((0.10, 0.05, 1.5), (0.1, 0, 0), (0, -0.1, 0), 50 * WHITE, emissive=True)
    dark = R.Rect((-3, 3, 1.6), (6, 0, 0), (0, -6, 0), 0 * WHITE, emissive=True)
    room = R.build_room([lamp, dark])
    black = quad(right=(0.4, 0, 0), down=(0, -0.4, 0), texture=0 * WHITE, material=R.SCREEN)
    night = R.Lighting(np.zeros((4, 3), np.float32))
    glare = draw(black, room=room, light=night).image[..., 0]
    x = (glare * np.arange(SIDE)).sum() / glare.sum()
    virtual = np.array([[0.15, 0.0, -1.5]])
    assert x == pytest.approx(R.project(virtual, camera(), facing())[0][0, 0], abs=1.5)
    white = draw(replace(black, texture=WHITE), light=night).image[SIDE // 2, SIDE // 2]
    np.testing.assert_allclose(white, 1, atol=0.05)


def test_open_places_see_the_sky_and_hollows_do_not():
    ball = sphere(n=24)
    assert np.median(R.vertex_occlusion(ball.vertices, ball.triangles)) > 0.9
    inside_out = np.ascontiguousarray(ball.triangles[:, ::-1])
    assert R.vertex_occlusion(ball.vertices, inside_out).max() < 0.2


# ---- determinism


def bytes_of_a_frame():
    light = scenes.lighting("one_sided", np.random.default_rng(3))
    room = R.light_room(scenes.sample_room(np.random.default_rng(3), "library"), light)
    seen = draw(sphere(material=R.SKIN), room=room, light=light)
    return hashlib.sha256(seen.image.tobytes() + seen.depth.tobytes() + seen.object_id.tobytes()).hexdigest()


def test_another_process_draws_the_same_bytes():
    code = "import sys; sys.path.insert(0, 'tests'); import test_render as t; print(t.bytes_of_a_frame())"
    root = Path(__file__).parents[1]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip().splitlines()[-1] == bytes_of_a_frame()


def test_the_room_is_out_of_focus_and_leaves_no_seam_at_what_stands_before_it(monkeypatch):
    wall = np.zeros((8, 2400, 3), np.float32)
    wall[:, 1200:] = 1
    half, lit = (
        R.build_room([R.Rect((-3, 3, -1), (6, 0, 0), (0, -6, 0), w, emissive=True)]) for w in (wall, np.ones_like(wall))
    )
    black = quad(texture=R.make_texture(np.zeros((2, 2, 3), np.float32)))

    def drawn():
        step = np.abs(np.diff(draw(room=half, cam=camera(256)).image[128, :, 0])).max()
        return step, draw(black, room=lit, cam=camera(256)).image[..., 0]

    soft, before = drawn()
    monkeypatch.setattr(R, "_DEFOCUS", 1e-3)
    sharp, after = drawn()
    assert soft < 0.8 * sharp
    np.testing.assert_allclose(before, after, atol=1e-3)
