"""Faces: parametric people to be simulated, from a random generator or from photographs.

`head_model` gives the mesh, `face_texture` paints it; out of this room goes a `Face`:
vertices for any expression and gaze, triangles, texture, and where each landmark lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np

from liveness_utils.errors import FaceError
from liveness_utils.face_hair import HAIR_STYLES, hair_mesh
from liveness_utils.face_texture import beard_density, collar, landmark_table, paint
from liveness_utils.head_model import (
    ATLAS,
    EXPRESSION_NAMES,
    REGIONS,
    TEXTURE_SIZE,
    HeadModel,
    eyeball_grid,
    fit_sphere,
    head_model,
    one_blas_thread,
    phenotype_weights,
)

__all__ = [
    "EXPRESSION_NAMES",
    "Face",
    "HeadModel",
    "Identity",
    "build_face",
    "faces_from_photos",
    "gaze_weights",
    "head_model",
    "landmark_table",
    "sample_identity",
]

MAX_GAZE = np.deg2rad([32.0, 24.0])  # horizontal and vertical gaze that an eyeLook weight of 1 stands for
_INDEX = {name: i for i, name in enumerate(EXPRESSION_NAMES)}


@dataclass(frozen=True, eq=False)
class Identity:
    """Everything that makes one simulated person; `build_face` turns it into a mesh.

    Attributes:
        seed: seed of the painted detail.
        monk: skin tone on the Monk scale, 1 lightest … 10 darkest.
        age: years, 18 … 80.
        gender: phenotype, 0 female … 1 male.
        ancestry: weights of MakeHuman's three base shapes (`head_model.ANCESTRIES`).
        muscle: 0 average … 1 strong.
        weight: 0 lean … 1 heavy.
        shape: (J,) float32 weights of the face-local targets.
        hair_style: a key of `face_hair.HAIR_STYLES`.
        hair_colour: linear RGB.
        grey: share of grey hair, 0 … 1.
        hairline: metres by which the hairline has receded.
        beard: none, shadow, stubble, moustache, goatee or full.
        brow: thickness and density of the brows, 0.5 … 1.5.
        iris: linear RGB of the iris.
        lips: strength of the lips' red, 0 … 1.5 (lipstick above 1).
        freckles: density, 0 … 1.
        moles: number.
        oil: 0 dry … 1 oily skin.
        shirt: plain, stripes, checks, shirt or vneck.
        shirt_colours: two linear RGB colours.
        glasses: none, round, square or wide.
        glasses_colour: linear RGB of the frame.
    """

    seed: int
    monk: int
    age: float
    gender: float
    ancestry: tuple[float, float, float]
    muscle: float
    weight: float
    shape: np.ndarray
    hair_style: str
    hair_colour: tuple[float, float, float]
    grey: float
    hairline: float
    beard: str
    brow: float
    iris: tuple[float, float, float]
    lips: float
    freckles: float
    moles: int
    oil: float
    shirt: str
    shirt_colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    glasses: str
    glasses_colour: tuple[float, float, float]


# ------------------------------------------------------------------ sampling


_MONK_CENTRES = {"african": 8.3, "asian": 4.6, "caucasian": 2.8}
_HAIR_COLOURS = {  # linear RGB
    "black": (0.015, 0.012, 0.011),
    "dark brown": (0.032, 0.019, 0.012),
    "brown": (0.062, 0.034, 0.018),
    "light brown": (0.13, 0.075, 0.036),
    "blond": (0.31, 0.20, 0.095),
    "red": (0.17, 0.050, 0.018),
}
_IRIS_COLOURS = {
    "dark brown": (0.030, 0.014, 0.007),
    "brown": (0.075, 0.034, 0.013),
    "hazel": (0.13, 0.085, 0.030),
    "green": (0.12, 0.15, 0.070),
    "blue": (0.11, 0.19, 0.29),
    "grey": (0.19, 0.22, 0.24),
}
_SHIRTS = (
    (0.777, 0.777, 0.767),
    (0.0262, 0.0272, 0.0287),
    (0.0667, 0.0817, 0.132),
    (0.21, 0.22, 0.23),
    (0.226, 0.0833, 0.0858),
    (0.085, 0.14, 0.105),
    (0.383, 0.318, 0.248),
    (0.183, 0.273, 0.343),
    (0.44, 0.265, 0.285),
    (0.5, 0.44, 0.26),
    (0.193, 0.143, 0.223),
    (0.467, 0.517, 0.557),
)


def _ancestry(rng: np.random.Generator, monk: int) -> tuple[float, float, float]:
    """Ancestry mix given the tone: correlated loosely, every mix stays possible."""
    pull = np.exp(-0.5 * ((np.array(list(_MONK_CENTRES.values())) - monk) / 2.2) ** 2) + 0.04
    mix = rng.dirichlet(1.6 * pull / pull.sum() + 0.05)
    return tuple(float(x) for x in mix)


def _choice(rng: np.random.Generator, options: dict[str, float]) -> str:
    p = np.array(list(options.values()), float)
    return str(rng.choice(list(options), p=p / p.sum()))


def _shape_weights(rng: np.random.Generator, names: np.ndarray) -> np.ndarray:
    """Random weights of the local targets: one draw a trait, sides nearly alike."""
    weights = np.zeros(len(names), np.float32)
    drawn: dict[str, float] = {}
    for i, name in enumerate(map(str, names)):
        side, stem = (name[:2], name[2:]) if name[:2] in ("l-", "r-") else ("", name)
        trait, _, sign = stem.rpartition("-")
        value = drawn.setdefault(trait, float(rng.normal(0, _spread(stem))))
        value += 0.05 * float(rng.normal()) if side else 0.0
        positive = sign in ("incr", "up", "out", "forward", "convex", "uncompress")
        negative = sign in ("decr", "down", "in", "backward", "concave", "compress")
        if positive or negative:
            weights[i] = max(value if positive else -value, 0)
        else:
            weights[i] = max(float(rng.normal(-0.12, 0.22)), 0)
    return np.minimum(weights, 0.65)


def _spread(stem: str) -> float:
    """Standard deviation of a trait's weight; lids and the neck vary less than noses."""
    if stem.startswith("eye-"):
        return 0.12
    if stem.startswith(("head-scale", "head-back", "neck", "measure", "head-age", "mouth-trans", "nose-trans")):
        return 0.14
    if stem.startswith("ear"):
        return 0.24
    return 0.21


def _hair(rng: np.random.Generator, age: float, gender: float, ancestry) -> tuple[str, float]:
    """Hair style and receding of the hairline, by gender, age and hair type."""
    male = gender > 0.5
    weights = {name: (s.male if male else s.female) for name, s in HAIR_STYLES.items()}
    if ancestry[0] > 0.5:
        for name in ("afro", "curly", "buzz"):
            weights[name] = weights[name] * 2.5 + 0.6
        weights["quiff"] *= 0.3
    if male and age > 38:
        for name in ("bald", "horseshoe"):
            weights[name] += (age - 38) / 14
    receding = max(0.0, rng.normal((age - 35) * 0.0004 if male else 0.0, 0.006))
    return _choice(rng, weights), float(min(receding, 0.03))


def _hair_colour(rng: np.random.Generator, ancestry, monk: int) -> tuple[float, float, float]:
    fair = ancestry[2] * max(0.0, 1 - (monk - 1) / 5)
    options = {"black": 1.2 + 4 * (1 - ancestry[2]), "dark brown": 1.2, "brown": 1.6 * ancestry[2]}
    options |= {"light brown": 1.6 * fair, "blond": 1.5 * fair, "red": 0.5 * fair}
    colour = np.array(_HAIR_COLOURS[_choice(rng, options)]) * rng.uniform(0.8, 1.25)
    return tuple(float(x) for x in colour)


def _iris(rng: np.random.Generator, ancestry, monk: int) -> tuple[float, float, float]:
    fair = ancestry[2] * max(0.0, 1 - (monk - 1) / 5)
    options = {"dark brown": 1.0 + 3 * (1 - ancestry[2]), "brown": 1.2, "hazel": 0.8 * fair + 0.05}
    options |= {"green": 0.6 * fair, "blue": 1.6 * fair, "grey": 0.5 * fair}
    colour = np.array(_IRIS_COLOURS[_choice(rng, options)]) * rng.uniform(0.85, 1.2)
    return tuple(float(x) for x in colour)


def _beard(rng: np.random.Generator, gender: float) -> str:
    if gender < 0.55:
        return "none"
    return _choice(rng, {"none": 3, "shadow": 3, "stubble": 2.4, "moustache": 0.6, "goatee": 0.9, "full": 1.6})


def _shirt(rng: np.random.Generator) -> tuple[str, tuple]:
    kind = _choice(rng, {"plain": 4, "stripes": 1.5, "checks": 1.2, "shirt": 2, "vneck": 1.5})
    i, j = rng.choice(len(_SHIRTS), 2, replace=False)
    return kind, (_SHIRTS[i], _SHIRTS[j])


def sample_identity(rng: np.random.Generator, **fixed) -> Identity:
    """Draw a person.

    Args:
        rng: generator; the same state gives the same person.
        **fixed: attributes of `Identity` to set instead of drawing (what depends on them follows).

    Raises:
        FaceError: an unknown attribute.

    Example:
        >>> who = sample_identity(np.random.default_rng(0), monk=7, glasses="none")
        >>> who.monk, who.glasses, 18 <= who.age <= 80
        (7, 'none', True)
    """
    unknown = set(fixed) - set(Identity.__dataclass_fields__)
    if unknown:
        raise FaceError(f"An identity has no {sorted(unknown)}: choose from {list(Identity.__dataclass_fields__)}.")
    seed = int(fixed.get("seed", rng.integers(2**31)))
    monk = int(fixed.get("monk", rng.integers(1, 11)))
    age = float(fixed.get("age", 18 + 62 * rng.beta(1.1, 1.7)))
    gender = float(fixed.get("gender", rng.beta(0.22, 0.22)))
    ancestry = tuple(fixed.get("ancestry", _ancestry(rng, monk)))
    style, receding = _hair(rng, age, gender, ancestry)
    shirt, colours = _shirt(rng)
    drawn = {
        "seed": seed,
        "monk": monk,
        "age": age,
        "gender": gender,
        "ancestry": ancestry,
        "muscle": float(rng.beta(1.2, 3)),
        "weight": float(np.clip(rng.normal(0.5, 0.2), 0, 1)),
        "shape": _shape_weights(rng, head_model().shape_names),
        "hair_style": style,
        "hairline": receding,
        "hair_colour": _hair_colour(rng, ancestry, monk),
        "grey": float(np.clip((age - rng.normal(55, 8)) / 22, 0, 1)),
        "beard": _beard(rng, gender),
        "brow": float(rng.uniform(0.6, 1.1) + 0.35 * gender),
        "iris": _iris(rng, ancestry, monk),
        "lips": float(rng.uniform(0.35, 0.9) + (0.5 if gender < 0.5 and rng.random() < 0.4 else 0.0)),
        "freckles": float(rng.random() < 0.25) * float(rng.uniform(0.2, 1)) * max(0.0, 1 - (monk - 1) / 6),
        "moles": int(rng.poisson(1.5)),
        "oil": float(rng.beta(2, 2.5)),
        "shirt": shirt,
        "shirt_colours": colours,
        "glasses": _choice(rng, {"none": 65, "round": 11, "square": 13, "wide": 11}),
        "glasses_colour": tuple(
            float(x)
            for x in rng.choice([(0.012, 0.012, 0.013), (0.05, 0.022, 0.010), (0.3, 0.28, 0.26), (0.02, 0.03, 0.08)])
        ),
    }
    return Identity(**(drawn | fixed))


# ------------------------------------------------------------------ shape


def _points(model: HeadModel, identity: Identity) -> np.ndarray:
    """(P,3) float32 base points of an identity, origin midway between the eyeballs."""
    w = phenotype_weights(
        model.phenotype_names, identity.age, identity.gender, identity.ancestry, identity.muscle, identity.weight
    )
    n = len(model.base)
    body = model.base + np.tensordot(w, model.phenotype, 1)
    used = np.flatnonzero(identity.shape)
    body += np.tensordot(identity.shape[used], model.shape[used].astype(np.float32), 1)
    centres = [fit_sphere(body[ids])[0] for ids in model.eye_points]
    points = np.zeros((len(model.template), 3), np.float32)
    points[:n] = body - np.mean(centres, 0)
    # MakeHuman's teeth touch the lips and its tongue fills the mouth: both sit deeper here.
    points[_part(model, "teeth")] += np.array([0, 0, -0.006], np.float32)
    points[_part(model, "tongue")] += np.array([0, -0.006, -0.010], np.float32)
    _close_lips(model, points)
    return points


def _part(model: HeadModel, *names: str) -> np.ndarray:
    """Base points of the named regions."""
    inside = np.isin(model.region, [REGIONS.index(name) for name in names])
    return np.unique(model.split[model.triangles[inside]])


_INNER_LIPS = ((191, 80, 81, 82, 13, 312, 311, 310, 415), (95, 88, 178, 87, 14, 317, 402, 318, 324))


def _close_lips(model: HeadModel, points: np.ndarray) -> None:
    """Bring the lips together where an identity's shape has parted them."""
    triangle, weight = landmark_table()
    corners = model.split[model.triangles[triangle]]
    before, now = (np.einsum("nk,nkc->nc", weight, p[corners]) for p in (model.template, points))
    upper, lower = (list(side) for side in _INNER_LIPS)
    parted = (now[upper] - now[lower]) - (before[upper] - before[lower])
    seam = 0.5 * (before[upper] + before[lower])
    ids = _part(model, "head", "mouth")
    at = model.template[ids]
    level = np.interp(at[:, 0], seam[:, 0], seam[:, 1])
    depth = np.interp(at[:, 0], seam[:, 0], seam[:, 2])
    span = np.clip((seam[:, 0].max() + 0.010 - np.abs(at[:, 0])) / 0.010, 0, 1)
    far = np.hypot(at[:, 1] - level, np.maximum(depth - 0.006 - at[:, 2], 0))
    pull = 0.5 * span * np.exp(-((far / 0.010) ** 2)) * np.where(at[:, 1] > level, -1, 1)
    for axis in (1, 2):
        points[ids, axis] += pull * np.interp(at[:, 0], seam[:, 0], parted[:, axis])


def _eyes(model: HeadModel, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (2,3) and radii (2,) of the eyeballs; places their meshes into `points`."""
    fits = [fit_sphere(points[ids]) for ids in model.eye_points]
    unit, _ = eyeball_grid()
    for ids, (centre, radius) in zip(model.eyeballs, fits, strict=True):
        points[ids] = centre + radius * unit
    return np.array([c for c, _ in fits], np.float32), np.array([r for _, r in fits], np.float32)


def point_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals (P,3) of points, area weighted."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    out = np.zeros_like(points)
    for k in range(3):
        np.add.at(out, triangles[:, k], face)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def _dress(model: HeadModel, identity: Identity, points: np.ndarray) -> None:
    """Move the torso outwards by the cloth's thickness, thicker along the neckline."""
    normals = point_normals(points, model.split[model.triangles])
    below = collar(model.template.astype(np.float32), identity.shirt)
    ids = _part(model, "torso_front", "torso_back")
    # The mesh is coarser than a hem: a sudden rise would saw along its triangles, the paint draws the edge.
    rise = 0.008 * np.clip((below + 0.004) / 0.020, 0, 1) ** 1.5
    if identity.shirt == "shirt":
        rise += 0.005 * np.exp(-(((below - 0.020) / 0.012) ** 2))
    points[ids] += (normals * rise[:, None])[ids].astype(np.float32)


def _grow_beard(model: HeadModel, identity: Identity, points: np.ndarray) -> None:
    """Give goatees and full beards their volume."""
    if identity.beard not in ("goatee", "full"):
        return
    triangle, weight = landmark_table()
    marks = np.einsum("nk,nkc->nc", weight, model.template[model.split[model.triangles[triangle]]])
    ids = _part(model, "head")
    density = beard_density(model.template[ids].astype(float), marks, identity.beard)
    lips = np.abs(model.template[ids] - marks[[13]])  # the lips keep their shape
    density *= 1 - np.exp(-((lips / [0.024, 0.011, 0.05]) ** 2).sum(1))
    normals = point_normals(points, model.split[model.triangles])
    points[ids] += (0.003 * density[:, None] * normals[ids]).astype(np.float32)


# ------------------------------------------------------------------ glasses


def _tube(path: np.ndarray, radius: float, closed: bool, sides: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Thin tube around a polyline (n,3): vertices and triangles."""
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.cross(ahead, [0.02, 0.05, 1.0] if closed else [0.0, 1.0, 0.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(ahead, side)
    turn = 2 * np.pi * np.arange(sides) / sides
    ring = np.cos(turn)[None, :, None] * side[:, None] + np.sin(turn)[None, :, None] * other[:, None]
    vertices = (path[:, None] + radius * ring).reshape(-1, 3)
    n = len(path)
    i, k = np.meshgrid(np.arange(n if closed else n - 1), np.arange(sides), indexing="ij")
    a, b = i * sides + k, i * sides + (k + 1) % sides
    c, d = ((i + 1) % n) * sides + k, ((i + 1) % n) * sides + (k + 1) % sides
    triangles = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    return vertices, triangles[:, [0, 2, 1]]


_FRAMES = {
    "round": (0.0225, 0.0215, 2.0, 0.0011),
    "square": (0.0255, 0.0185, 3.6, 0.0017),
    "wide": (0.0275, 0.0200, 2.7, 0.0022),
}


def _glasses(kind: str, skin: np.ndarray, eyes: np.ndarray, ear_x: float) -> tuple[np.ndarray, np.ndarray]:
    """Frame of a pair of glasses in front of the eyes: vertices (n,3), triangles (m,3)."""
    half_w, half_h, power, wire = _FRAMES[kind]
    half_w, half_h = half_w * 1.04, half_h * 1.04
    turn = 2 * np.pi * np.arange(36) / 36
    c, s = np.cos(turn), np.sin(turn)
    outline = np.stack(
        [half_w * np.sign(c) * np.abs(c) ** (2 / power), half_h * np.sign(s) * np.abs(s) ** (2 / power)], 1
    )
    parts = []
    z0 = _clear_depth(skin, eyes, half_w, half_h) + 0.002
    for centre in eyes:
        x = centre[0] + np.sign(centre[0]) * 0.002 + outline[:, 0]
        bend = -2.2 * np.maximum(np.abs(x) - 0.03, 0) ** 2
        parts.append(_tube(np.stack([x, centre[1] - 0.004 + outline[:, 1], z0 + bend], 1), wire, True))
    inner = min(abs(e[0]) for e in eyes) + 0.002 - half_w
    t = np.linspace(-1, 1, 9)
    parts.append(_tube(np.stack([t * inner, 0.003 + 0.003 * (1 - t**2), z0 + 0.002 * (1 - t**2)], 1), wire, False))
    for side in (1, -1):
        start = np.array(
            [side * (abs(eyes[0][0]) + 0.002 + half_w), 0.004, z0 - 2.2 * (abs(eyes[0][0]) + half_w - 0.03) ** 2]
        )
        bow = np.array([[side * ear_x, 0.006, start[2] - 0.025], [side * ear_x, 0.004, -0.105]])
        corner = np.linspace(start, bow[0], 4)[:-1]
        parts.append(_tube(np.concatenate([corner, np.linspace(bow[0], bow[1], 5)]), wire, False))
    return _merge(parts)


def _clear_depth(skin: np.ndarray, eyes: np.ndarray, half_w: float, half_h: float) -> float:
    """Depth z at which a frame clears brows and cheeks (lids, not the nose, decide)."""
    near = np.zeros(len(skin), bool)
    for e in eyes:
        q = np.abs(skin[:, :2] - e[:2]) / [half_w, half_h]
        near |= (q.max(1) < 1.05) & (np.abs(skin[:, 0]) > 0.018)
    return float(skin[near, 2].max()) if near.any() else 0.02


def _merge(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    offset, vertices, triangles = 0, [], []
    for v, t in parts:
        vertices.append(v)
        triangles.append(t + offset)
        offset += len(v)
    return np.concatenate(vertices), np.concatenate(triangles)


# ------------------------------------------------------------------ Face


def gaze_weights(gaze: np.ndarray) -> np.ndarray:
    """(52,) eyeLook weights that go with a gaze (right+, up+; radians): lids follow the eye."""
    right, up = np.clip(np.asarray(gaze, float) / MAX_GAZE, -1, 1)
    out = np.zeros(len(EXPRESSION_NAMES), np.float32)
    for name, value in (
        ("eyeLookOutLeft", right),
        ("eyeLookInRight", right),
        ("eyeLookInLeft", -right),
        ("eyeLookOutRight", -right),
        ("eyeLookUpLeft", up),
        ("eyeLookUpRight", up),
        ("eyeLookDownLeft", -up),
        ("eyeLookDownRight", -up),
    ):
        out[_INDEX[name]] = max(value, 0)
    return out


def _look(expression: np.ndarray) -> np.ndarray:
    """(2,2) gaze angles of the left and right eye that eyeLook weights stand for."""
    w = {n: float(expression[_INDEX[n]]) for n in EXPRESSION_NAMES if n.startswith("eyeLook")}
    left = (w["eyeLookOutLeft"] - w["eyeLookInLeft"], w["eyeLookUpLeft"] - w["eyeLookDownLeft"])
    right = (w["eyeLookInRight"] - w["eyeLookOutRight"], w["eyeLookUpRight"] - w["eyeLookDownRight"])
    return np.array([left, right]) * MAX_GAZE


def _eye_rotation(gaze: np.ndarray) -> np.ndarray:
    """(3,3) rotation that turns +z by gaze (towards +x, towards +y)."""
    (cx, cy), (sx, sy) = np.cos(gaze), np.sin(gaze)
    about_y = np.array([[cx, 0, sx], [0, 1, 0], [-sx, 0, cx]])
    about_x = np.array([[1, 0, 0], [0, cy, sy], [0, -sy, cy]])
    return (about_y @ about_x).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Face:
    """A person ready to be rendered; all geometry in the head frame, metres.

    Attributes:
        identity: who it is.
        neutral: (V,3) float32 vertices of the neutral face.
        triangles: (F,3) int32, counter-clockwise seen from outside.
        uv: (V,2) float32, v down.
        albedo: (512,512,3) float32 linear RGB.
        gloss: (512,512) float32, 1 − roughness.
        occlusion: (V,) float32, share of the sky that each vertex sees.
        weld: (V,) int32, first vertex at the same place (for normals without creases).
        region: (F,) int8 index into `head_model.REGIONS`.
        eye_centres: (2,3) float32, the subject's left and right eyeball.
        eye_radii: (2,) float32.
    """

    identity: Identity
    neutral: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    albedo: np.ndarray
    gloss: np.ndarray
    occlusion: np.ndarray
    weld: np.ndarray
    region: np.ndarray
    eye_centres: np.ndarray
    eye_radii: np.ndarray
    _points: np.ndarray
    _actions: tuple[np.ndarray, np.ndarray, np.ndarray]
    _split: np.ndarray
    _rigid: np.ndarray
    _lids: np.ndarray
    _eyeballs: np.ndarray

    def vertices(self, expression: np.ndarray | None = None, gaze: np.ndarray | None = None) -> np.ndarray:
        """Vertices for an expression and a gaze.

        Args:
            expression: (52,) weights 0..1 in the order of `EXPRESSION_NAMES`; None is neutral.
            gaze: (2,) radians, towards head +x (the subject's left) and up; None takes it from
                the eyeLook weights. Given, the lids follow it as far as the weights do not say more.

        Returns:
            (V,3) float32 metres, head frame.

        Raises:
            FaceError: not 52 weights.
        """
        weights = np.zeros(52, np.float32) if expression is None else np.asarray(expression, np.float32)
        if weights.shape != (52,):
            raise FaceError(f"An expression has 52 weights (EXPRESSION_NAMES), not shape {weights.shape}.")
        turn = _look(weights) if gaze is None else np.broadcast_to(np.asarray(gaze, float), (2, 2))
        if gaze is not None:
            weights = np.maximum(weights, gaze_weights(gaze))
        points = self._points.copy()
        _act_out(points, weights, *self._actions)
        self._turn_eyes(points, turn)
        return _split_up(points, self._split, self._rigid)

    def _turn_eyes(self, points: np.ndarray, turn: np.ndarray) -> None:
        """Rotate the eyeballs in place and keep the lids outside of them."""
        for k in range(2):
            centre, radius = self.eye_centres[k], self.eye_radii[k]
            lids = points[self._lids[k]] - centre
            distance = np.sqrt((lids**2).sum(1))
            points[self._lids[k]] = centre + lids * np.maximum(1.055 * radius / distance, 1)[:, None]
            if turn[k].any():
                points[self._eyeballs[k]] = centre + (points[self._eyeballs[k]] - centre) @ _eye_rotation(turn[k]).T

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        """(478,3) float32 positions of MediaPipe's landmarks on given vertices (any frame)."""
        triangle, weight = landmark_table()
        return np.einsum("nk,nkc->nc", weight, vertices[self.triangles[triangle]]).astype(np.float32)

    def mesh_parts(self) -> dict[str, np.ndarray]:
        """What `render.Mesh` takes besides vertices and texture: triangles, uv, weld, occlusion."""
        return {"triangles": self.triangles, "uv": self.uv, "weld": self.weld, "occlusion": self.occlusion}


def _solid_uv(region: str, n: int) -> np.ndarray:
    """Texture coordinates in the middle of a one-colour region."""
    x, y, w, h = ATLAS[region]
    return np.tile(np.array([x + w / 2, y + h / 2], np.float32) / TEXTURE_SIZE, (n, 1))


def _extras(identity: Identity, model: HeadModel, points: np.ndarray, eyes: np.ndarray) -> list[tuple]:
    """Rigid parts after the head: (vertices, triangles, uv, region) of hair and glasses."""
    parts = []
    hair = hair_mesh(identity, model, points)
    if hair is not None:
        parts.append((*hair, "hair"))
    if identity.glasses != "none":
        skin = points[_part(model, "head")]
        temple = (np.abs(skin[:, 1] - 0.012) < 0.010) & (skin[:, 2] < -0.03) & (skin[:, 2] > -0.06)
        ear_x = float(np.abs(skin[temple, 0]).max()) + 0.002
        vertices, triangles = _glasses(identity.glasses, skin, eyes, ear_x)
        parts.append((vertices, triangles, _solid_uv("glasses", len(vertices)), "glasses"))
    return parts


@one_blas_thread
def build_face(identity: Identity, model: HeadModel | None = None) -> Face:
    """Build a person's mesh and texture (deterministic by identity; about half a second).

    Args:
        identity: as from `sample_identity`.
        model: default `head_model()`.
    """
    model = model or head_model()
    points = _points(model, identity)
    centres, radii = _eyes(model, points)
    extras = _extras(identity, model, points, centres)
    _grow_beard(model, identity, points)
    _dress(model, identity, points)
    albedo, gloss = paint(identity, model)
    return _face(identity, model, points, centres, radii, extras, albedo, gloss)


def _face(identity, model, points, centres, radii, extras, albedo, gloss) -> Face:
    base = len(model.split)
    vertices, triangles, uv, region = [points[model.split]], [model.triangles], [model.uv], [model.region]
    weld = [_first_of(model.split)]
    for v, t, u, name in extras:
        start = sum(map(len, vertices))
        vertices.append(v.astype(np.float32))
        triangles.append((t + start).astype(np.int32))
        uv.append(u.astype(np.float32))
        region.append(np.full(len(t), REGIONS.index(name), np.int8))
        weld.append(start + np.arange(len(v), dtype=np.int32))
    neutral = np.concatenate(vertices)
    occlusion = np.ones(len(neutral), np.float32)
    occlusion[:base] = model.point_occlusion[model.split]
    rigid = neutral[base:]
    return Face(
        identity=identity,
        neutral=neutral,
        triangles=np.concatenate(triangles),
        uv=np.concatenate(uv),
        albedo=albedo,
        gloss=gloss,
        occlusion=occlusion,
        weld=np.concatenate(weld),
        region=np.concatenate(region),
        eye_centres=centres,
        eye_radii=radii,
        _points=points,
        _actions=_actions(model),
        _split=model.split,
        _rigid=rigid,
        _lids=model.lid_points,
        _eyeballs=model.eyeballs,
    )


def _actions(model: HeadModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Facial actions as the points they move (most move few): where each action's stretch starts (53,), points (M,)
    and by how much they move (M,3)."""
    moved = [np.flatnonzero(np.abs(delta).max(1) > 2e-6) for delta in model.expression]
    first = np.cumsum([0, *map(len, moved)])
    delta = np.concatenate([d[ids] for d, ids in zip(model.expression, moved, strict=True)])
    return first, model.expression_points[np.concatenate(moved)], np.ascontiguousarray(delta, np.float32)


@nb.njit(cache=True, nogil=True)
def _act_out(points: np.ndarray, weights: np.ndarray, first: np.ndarray, where: np.ndarray, delta: np.ndarray) -> None:
    """Add the weighted actions to points (P,3) in place."""
    for k in range(len(weights)):
        if weights[k] != 0:
            for j in range(first[k], first[k + 1]):
                for axis in range(3):
                    points[where[j], axis] += weights[k] * delta[j, axis]


@nb.njit(cache=True, nogil=True)
def _split_up(points: np.ndarray, split: np.ndarray, rigid: np.ndarray) -> np.ndarray:
    """(V,3) points in the order of the mesh's vertices, the rigid ones after them."""
    out = np.empty((len(split) + len(rigid), 3), np.float32)
    for i in range(len(split)):
        for axis in range(3):
            out[i, axis] = points[split[i], axis]
    out[len(split) :] = rigid
    return out


def _first_of(split: np.ndarray) -> np.ndarray:
    """(V,) int32: the first render vertex of each one's base point."""
    _, first, inverse = np.unique(split, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int32)


def faces_from_photos(folder, *, limit: int | None = None) -> list[Face]:
    """Lift face photographs onto the head model; see `face_photo.lift_photo`.

    Args:
        folder: folder of JPEG or PNG files with one face each.
        limit: at most so many.

    Raises:
        FaceError: the folder holds no usable photo.
    """
    from liveness_utils.face_photo import lift_folder

    return lift_folder(folder, limit=limit)
