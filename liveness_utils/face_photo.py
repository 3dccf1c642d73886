"""Photographs lifted onto the head model: the researcher's own faces for the simulator.

Landmarks of a photo come in; the head's shape is fitted to them, the picture is carried into
the texture where it shows skin, and a `Face` as from `faces.build_face` goes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates
from scipy.spatial.distance import cdist

from liveness_utils import faces
from liveness_utils.clips import Intrinsics
from liveness_utils.errors import FaceError
from liveness_utils.face_texture import collar, landmark_table, monk_linear, paint, srgb_to_linear
from liveness_utils.head_model import (
    EXPRESSION_NAMES,
    REGIONS,
    TEXTURE_SIZE,
    HeadModel,
    head_model,
    phenotype_weights,
    rasterise,
)

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
_CHEEKS = (50, 280, 117, 346, 205, 425)
_FOREHEAD = (151, 108, 337, 69, 299)
_SKIN_MARKS = (*_CHEEKS, *_FOREHEAD, 58, 288, 172, 397, 136, 365, 149, 378, 132, 361, 127, 356, 54, 284, 93, 323, 199)
_REACH = 0.035  # metres over which painted skin passes from the colour of the nearest lifted skin to the cheeks'
_DELIGHT = 0.6  # share of a portrait's own soft shadows that is taken out of the texture
_UNEVEN = 0.7  # log of the two cheeks' light: beyond it a portrait's own light would stand against the room's
_FRINGE = 0.25  # cube root of linear light: a forehead further than this from the cheeks is under hair or a hat
_FREE_EXPRESSIONS = (
    "jawOpen",
    "mouthSmileLeft",
    "mouthSmileRight",
    "browInnerUp",
    "eyeSquintLeft",
    "eyeSquintRight",
    "mouthFunnel",
)


@dataclass(frozen=True)
class PhotoFit:
    """What fitting a photo found.

    Attributes:
        shape: (J,) weights of the face-local targets.
        expression: (52,) weights of the photo's expression.
        T_camera_head: (4,4) pose in the photo, head scale as the model's.
        error: mean landmark residual over the inter-ocular distance.
    """

    shape: np.ndarray
    expression: np.ndarray
    T_camera_head: np.ndarray
    error: float


def _camera(width: int, height: int) -> Intrinsics:
    """A portrait's focal length is unknown: 1.6 image heights, about a 35° field."""
    f = 1.6 * max(width, height)
    return Intrinsics(width, height, f, f, (width - 1) / 2, (height - 1) / 2)


def _signed_traits(names: np.ndarray) -> list[list[tuple[int, float]]]:
    """Group targets into traits with a sign: the two sides together, opposite targets as ±."""
    traits: dict[str, list[tuple[int, float]]] = {}
    for i, name in enumerate(map(str, names)):
        stem = name[2:] if name[:2] in ("l-", "r-") else name
        trait, _, sign = stem.rpartition("-")
        negative = sign in ("decr", "down", "in", "backward", "concave", "compress")
        paired = negative or sign in ("incr", "up", "out", "forward", "convex", "uncompress")
        traits.setdefault(trait if paired else stem, []).append((i, -1.0 if negative else 1.0))
    return list(traits.values())


def _linear_basis(model: HeadModel, start: np.ndarray):
    """Landmarks at `start` weights (478,3), and how each trait and expression moves them (n,478,3)."""
    triangle, weight = landmark_table()
    corners = model.split[model.triangles[triangle]]

    def at_marks(field: np.ndarray) -> np.ndarray:
        full = np.zeros((len(model.template), 3))
        full[: len(field)] = field
        return np.einsum("nk,nkc->nc", weight, full[corners])

    traits = _signed_traits(model.shape_names)
    rows = [0.5 * sum(sign * at_marks(model.shape[i].astype(float)) for i, sign in group) for group in traits]
    for name in _FREE_EXPRESSIONS:
        delta = np.zeros((len(model.base), 3))
        delta[model.expression_points] = model.expression[EXPRESSION_NAMES.index(name)]
        rows.append(at_marks(delta))
    return at_marks(start), np.array(rows), traits


def _pose(marks: np.ndarray, pixels: np.ndarray, camera: Intrinsics) -> np.ndarray:
    K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    _, rotation, shift = cv2.solvePnP(
        np.ascontiguousarray(marks), np.ascontiguousarray(pixels), K, None, flags=cv2.SOLVEPNP_SQPNP
    )
    rotation, shift = cv2.solvePnPRefineLM(marks, pixels, K, None, rotation, shift)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(rotation)[0], shift.ravel()
    return pose


def _project(points: np.ndarray, pose: np.ndarray, camera: Intrinsics) -> np.ndarray:
    q = points @ pose[:3, :3].T + pose[:3, 3]
    return np.stack([camera.fx * q[:, 0] / q[:, 2] + camera.cx, camera.fy * q[:, 1] / q[:, 2] + camera.cy], 1)


def fit_landmarks(
    pixels: np.ndarray, camera: Intrinsics, model: HeadModel, *, rounds: int = 5, ridge: float = 0.02
) -> PhotoFit:
    """Fit pose, shape and expression to landmarks: pose and a ridge regression in turn.

    Args:
        pixels: (478,2) landmarks, pixels.
        camera: of the photo.
        model: the head model.
        rounds: alternations.
        ridge: weight of the prior that keeps traits near the average.
    """
    w = phenotype_weights(model.phenotype_names, 35, 0.5, (1 / 3, 1 / 3, 1 / 3), 0.2, 0.5)
    start = model.base + np.tensordot(w, model.phenotype, 1)
    marks0, basis, traits = _linear_basis(model, start)
    pixels = np.asarray(pixels, float)[:, :2]
    use = np.arange(468)
    eyes = np.linalg.norm(pixels[468] - pixels[473])
    x = np.zeros(len(basis))
    n_traits = len(traits)
    prior = np.r_[np.full(n_traits, ridge), np.full(len(basis) - n_traits, ridge / 3)] * len(use)
    for _ in range(rounds):
        marks = marks0 + np.tensordot(x, basis, 1)
        pose = _pose(marks[use], pixels[use], camera)
        q = marks0 @ pose[:3, :3].T + pose[:3, 3]
        moved = np.einsum("ij,bnj->bni", pose[:3, :3], basis)
        depth = (marks @ pose[:3, :3].T + pose[:3, 3])[:, 2]
        scale = camera.fx / depth / eyes
        ray = (pixels - [camera.cx, camera.cy]) / camera.fx
        # (X - ray Z) = 0 is linear in the weights once divided by the last depth.
        residual = ((ray * q[:, 2:] - q[:, :2]) * scale[:, None])[use].ravel()
        design = ((moved[..., :2] - ray * moved[..., 2:]) * scale[:, None])[:, use].reshape(len(basis), -1).T * 1.0
        x = np.linalg.solve(design.T @ design + np.diag(prior * 1e-2), design.T @ residual)
        x[:n_traits] = np.clip(x[:n_traits], -1.6, 1.6)
        x[n_traits:] = np.clip(x[n_traits:], 0, 1)
    marks = marks0 + np.tensordot(x, basis, 1)
    pose = _pose(marks[use], pixels[use], camera)
    error = np.linalg.norm(_project(marks, pose, camera) - pixels, axis=1)[use].mean() / eyes
    return PhotoFit(
        _shape_weights(x[:n_traits], traits, len(model.shape_names)), _expression(x[n_traits:]), pose, float(error)
    )


def _shape_weights(x: np.ndarray, traits, n: int) -> np.ndarray:
    out = np.zeros(n, np.float32)
    for value, group in zip(x, traits, strict=True):
        for i, sign in group:
            out[i] = 0.5 * sign * value  # a linear model: opposite targets may share a trait's weight
    return out


def _expression(x: np.ndarray) -> np.ndarray:
    out = np.zeros(len(EXPRESSION_NAMES), np.float32)
    for name, value in zip(_FREE_EXPRESSIONS, x, strict=True):
        out[EXPRESSION_NAMES.index(name)] = value
    return out


# ------------------------------------------------------------------ colours


def _median_colour(image: np.ndarray, centres: np.ndarray, radius: float) -> np.ndarray:
    """Median linear colour in discs around pixel positions; NaN outside of the picture."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    inside = np.zeros(image.shape[:2], bool)
    for cx, cy in centres:
        inside |= (x - cx) ** 2 + (y - cy) ** 2 < radius**2
    return np.median(image[inside], axis=0) if inside.any() else np.full(3, np.nan)


def _nearest_monk(colour: np.ndarray) -> int:
    """Monk tone whose lightness is nearest to a skin colour."""
    tones = np.array([monk_linear(k) @ [0.2126, 0.7152, 0.0722] for k in range(1, 11)])
    return int(np.argmin(np.abs(np.cbrt(tones * 0.8) - np.cbrt(colour @ [0.2126, 0.7152, 0.0722])))) + 1


def _hair_above(photo: np.ndarray, pixels: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Colour of what is next above the forehead and is not skin any more."""
    eyes, up = np.linalg.norm(pixels[468] - pixels[473]), pixels[10] - pixels[152]
    tops = [_median_colour(photo, pixels[[10, 109, 338]] + part * up, 0.10 * eyes) for part in (0.15, 0.24)]
    tops = [c for c in tops if np.isfinite(c).all()] or [np.array([0.02, 0.015, 0.01])]
    return next((c for c in tops if np.abs(np.cbrt(c) - np.cbrt(skin)).max() > 0.1), tops[-1])


def _hair_like(colour: np.ndarray) -> np.ndarray:
    """The nearest colour hair has by itself: red over green over blue, whatever was dyed or stood behind."""
    level = float(np.clip(colour @ [0.2126, 0.7152, 0.0722], 0.006, 0.22))
    warm = float(np.clip((colour[0] - colour[2]) / max(colour.max(), 1e-6), 0.06, 0.65))
    hue = np.array([1.0, 1.0 - 0.55 * warm, 1.0 - warm])
    return level * hue / (hue @ [0.2126, 0.7152, 0.0722])


def _guess(photo: np.ndarray, pixels: np.ndarray, fit: PhotoFit, seed: int) -> faces.Identity:
    """An identity for what the photo does not tell: tone, hair and iris from its colours, age unknown (35)."""
    eyes = np.linalg.norm(pixels[468] - pixels[473])
    skin = _median_colour(photo, pixels[list(_CHEEKS)], 0.12 * eyes)
    hair = _hair_above(photo, pixels, skin)
    beside = [
        _median_colour(photo, pixels[[k]] + 0.30 * eyes * np.sign(pixels[k] - pixels[4]) * [1, 0], 0.10 * eyes)
        for k in (172, 397)
    ]
    long = all(np.isfinite(b).all() and np.abs(np.cbrt(b) - np.cbrt(hair)).max() < 0.12 for b in beside)
    bald = np.abs(np.cbrt(hair) - np.cbrt(skin)).max() < 0.06
    style = "buzz" if bald else "long" if long else ("crop", "short", "quiff")[seed % 3]
    iris = np.clip(_median_colour(photo, pixels[[468, 473]], 0.07 * eyes) * 1.6, 0.01, 0.3)
    who = faces.sample_identity(
        np.random.default_rng(seed),
        seed=seed,
        monk=_nearest_monk(skin),
        age=35.0,
        gender=0.5,
        glasses="none",
        beard="none",
        ancestry=(1 / 3, 1 / 3, 1 / 3),
        muscle=0.2,
        weight=0.5,
        hair_style=style,
        hairline=0.0,
        grey=0.0,
        freckles=0.0,
        moles=0,
    )
    return replace(who, shape=fit.shape, hair_colour=tuple(_hair_like(hair)), iris=tuple(iris))


# ------------------------------------------------------------------ texture


def _texel_table(model: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """Render triangle and weights at each texel of the head chart."""
    head = np.flatnonzero(model.region == REGIONS.index("head"))
    depth = np.linalg.norm(model.template[model.split] - [0, -0.02, -0.09], axis=1)
    triangles = model.triangles[head]
    ids, bary = rasterise(model.uv[triangles] * TEXTURE_SIZE - 0.5, depth[triangles], TEXTURE_SIZE)
    return np.where(ids >= 0, head[np.maximum(ids, 0)], -1), bary


def _where_in_photo(vertices, face, pixels, fit, camera, model) -> np.ndarray:
    """(Vh,2) photo pixel of each head vertex: projection, bent so that landmarks meet exactly."""
    marks = face.landmarks(vertices)
    there = _project(marks, fit.T_camera_head, camera)
    flat = _project(vertices[: len(model.split)], fit.T_camera_head, camera)
    _, keep = np.unique(np.round(there[:468], 1), axis=0, return_index=True)
    bend = RBFInterpolator(there[keep], (pixels - there)[keep], neighbors=24, smoothing=0.5, kernel="linear")
    return flat + bend(flat)


def _shows(vertices, normals, where, fit, pixels, shape) -> np.ndarray:
    """(V,) 0..1 how well the photo shows each vertex: facing the camera, within the face's outline or above it.

    Above the forehead the photo shows the hairline, which no paint does as well.
    """
    centre = -fit.T_camera_head[:3, :3].T @ fit.T_camera_head[:3, 3]
    sight = centre - vertices
    facing = (normals * sight).sum(1) / np.linalg.norm(sight, axis=1)
    eyes = np.linalg.norm(pixels[468] - pixels[473])
    oval, up = pixels[list(_OVAL)], pixels[10] - pixels[152]
    high = np.clip((oval - pixels[[168]]) @ up / (up @ up) / 0.3, 0, 1)  # 0 at the eyes, 1 at the top
    outline = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(outline, [np.round(oval + 0.30 * high[:, None] * up).astype(np.int32)], 1)
    inside = cv2.distanceTransform(np.pad(outline, 1), cv2.DIST_L2, 5)[1:-1, 1:-1] / (0.28 * eyes)
    depth = map_coordinates(inside, where[:, ::-1].T, order=1, mode="constant")
    return np.clip(depth, 0, 1) * np.clip((facing - 0.15) / 0.30, 0, 1)


def _blend(albedo, photo, where, shows, model) -> np.ndarray:
    """Carry the photo into the head chart, feathered, most of its own light and shade taken out."""
    ids, bary = _texel_table(model)
    hit = ids >= 0
    corners = model.triangles[ids[hit]]
    at = np.einsum("nk,nkc->nc", bary[hit], where[corners]).astype(np.float32)
    share = (bary[hit] * shows[corners]).sum(1)
    share = share * share * (3 - 2 * share)
    colour = np.stack([map_coordinates(photo[..., c], at[:, ::-1].T, order=1, mode="nearest") for c in range(3)], 1)
    out = albedo.copy()
    out[hit] += share[:, None] * (colour * _shade(hit, share, colour)[:, None] - out[hit])
    return out


def _shade(hit: np.ndarray, share: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """(n,) factors that even out how brightly the two halves of a face, its brow and its chin are lit."""
    level, weight = np.zeros((2, *hit.shape), np.float32)
    level[hit], weight[hit] = np.log(colour @ [0.2126, 0.7152, 0.0722] + 1e-3), share
    soft = [cv2.GaussianBlur(m, (0, 0), 30) for m in (level * weight, weight)]
    field = (soft[0] / np.maximum(soft[1], 1e-3))[hit]
    middle = np.average(field, weights=share + 1e-6)
    return np.exp(np.clip(_DELIGHT * (middle - field), -0.5, 0.5))


def _match_skin(albedo: np.ndarray, photo: np.ndarray, pixels: np.ndarray, shirt: str, model: HeadModel) -> np.ndarray:
    """Scale painted skin to the photo's colour: to the cheeks' everywhere, near lifted skin to that of the place."""
    eyes = np.linalg.norm(pixels[468] - pixels[473])
    skin = _median_colour(photo, pixels[list(_CHEEKS)], 0.12 * eyes)
    triangle, weight = landmark_table()
    corners = model.triangles[triangle]
    uv = np.einsum("nk,nkc->nc", weight, model.uv[corners]) * TEXTURE_SIZE
    painted = np.median([albedo[int(v), int(u)] for u, v in uv[list(_CHEEKS)]], axis=0)
    colours = np.array([_median_colour(photo, pixels[[k]], 0.07 * eyes) for k in _SKIN_MARKS])
    gap = np.log(np.maximum(colours, 1e-4) / np.maximum(skin, 1e-4))
    known = np.abs(gap).max(1) < 0.7  # what is further off is hair, a beard or the background
    marks = np.einsum("nk,nkc->nc", weight, model.template[model.split[corners]])[list(_SKIN_MARKS)][known]
    bare = np.isin(model.texel_region, [REGIONS.index(r) for r in ("head", "back", "torso_front", "torso_back")])
    bare &= collar(model.position.astype(float), shirt) < 0
    far = cdist(model.position[bare].astype(np.float32), marks, "sqeuclidean") / _REACH**2
    near = np.exp(-far).astype(np.float32)
    ratio = np.exp(near @ gap[known] / (near.sum(1, keepdims=True) + 0.3)) * skin / np.maximum(painted, 1e-4)
    out = albedo.copy()
    out[bare] *= ratio.astype(np.float32)
    return np.clip(out, 0.003, 0.95)


def lift_photo(image: np.ndarray, pixels: np.ndarray, *, seed: int = 0, model: HeadModel | None = None) -> faces.Face:
    """Lift one photo onto the head model.

    The light of the photo stays in the texture: choose photos with soft, frontal light.

    Args:
        image: (H,W,3) uint8 RGB.
        pixels: (478,2) MediaPipe landmarks, pixels.
        seed: of what the photo does not show.
        model: default `head_model()`.

    Returns:
        A `Face` with a neutral expression; age and gender of its identity are placeholders.
    """
    model = model or head_model()
    pixels = np.asarray(pixels, float)[:, :2]
    camera = _camera(image.shape[1], image.shape[0])
    fit = fit_landmarks(pixels, camera, model)
    photo = srgb_to_linear(image / 255.0)
    who = _guess(photo, pixels, fit, seed)
    face = faces.build_face(who, model)
    vertices = face.vertices(fit.expression)
    normals = faces.point_normals(vertices[: len(model.split)], face.weld[model.triangles])[
        face.weld[: len(model.split)]
    ]
    where = _where_in_photo(vertices, face, pixels, fit, camera, model)
    shows = _shows(vertices[: len(model.split)], normals, where, fit, pixels, image.shape)
    albedo, gloss = paint(who, model)
    albedo = _match_skin(albedo, photo, pixels, who.shirt, model)
    occlusion = face.occlusion.copy()  # the photo holds half of the shade of folds and sockets by itself
    occlusion[: len(shows)] += 0.5 * shows.astype(np.float32) * (1 - occlusion[: len(shows)])
    albedo = _blend(albedo, photo, where, shows, model).astype(np.float32)
    return replace(face, albedo=albedo, gloss=gloss, occlusion=occlusion)


def lift_folder(folder, *, limit: int | None = None) -> list[faces.Face]:
    """Lift every photo of a folder that shows exactly one face.

    Raises:
        FaceError: the folder is missing or no photo in it shows one face.
    """
    out = [lift_portrait(found) for found in islice(_find(folder), limit)]
    if not out:
        raise _no_portrait(folder)
    return out


@dataclass(frozen=True, eq=False)
class Portrait:
    """A photo that shows one face.

    Attributes:
        path: its file.
        pixels: (478, 2) landmarks.
        number: among the folder's photos.
        clear: whether the forehead has the cheeks' colour (a fringe would be carried onto the bare skin), the cheeks
            are lit alike, the hair is not dyed and the picture not without colour.
    """

    path: Path
    pixels: np.ndarray
    number: int
    clear: bool = True


@lru_cache(maxsize=2)
def portraits(folder: str) -> tuple[Portrait, ...]:
    """Photos of a folder that show exactly one face, the clear ones if there are any; looked for once a process.

    Raises:
        FaceError: the folder is missing or no photo in it shows one face.
    """
    found = tuple(_find(folder))
    if not found:
        raise _no_portrait(folder)
    return tuple(p for p in found if p.clear) or found


def lift_portrait(found: Portrait) -> faces.Face:
    """Lift a photo whose landmarks are known."""
    return lift_photo(cv2.imread(str(found.path), cv2.IMREAD_COLOR)[..., ::-1], found.pixels, seed=found.number)


def photo_files(folder) -> list[Path]:
    """Photos of a folder, by name.

    Raises:
        FaceError: the folder is missing or holds none.
    """
    folder = Path(folder)
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in PHOTO_SUFFIXES) if folder.is_dir() else []
    if not files:
        raise FaceError(f"{folder} holds no photos ({', '.join(PHOTO_SUFFIXES)}): give a folder of portraits.")
    return files


def photos_mark(folder) -> list[list]:
    """What makes a folder of photos this very one: names and sizes of its files, as JSON keeps them."""
    return [[p.name, p.stat().st_size] for p in photo_files(folder)]


def _find(folder) -> Iterator[Portrait]:
    from liveness_utils.landmarks import Landmarker

    files, landmarker = photo_files(folder), Landmarker(num_faces=2, running_mode="image")
    for number, path in enumerate(files):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        seen = landmarker.detect(np.ascontiguousarray(image[..., ::-1])) if image is not None else []
        if len(seen) == 1:
            pixels = np.asarray(seen[0].points, float)[:, :2]
            yield Portrait(path, pixels, number, _clear(image[..., ::-1], pixels))


def _clear(image: np.ndarray, pixels: np.ndarray) -> bool:
    photo, eyes = srgb_to_linear(image / 255.0), np.linalg.norm(pixels[468] - pixels[473])
    cheeks = _median_colour(photo, pixels[list(_CHEEKS)], 0.12 * eyes)
    grey, skin = cheeks[2] > 0.85 * cheeks[0], np.cbrt(cheeks)
    gaps = [np.abs(np.cbrt(_median_colour(photo, pixels[[k]], 0.08 * eyes)) - skin).max() for k in _FOREHEAD]
    right, left = (_median_colour(photo, pixels[list(_CHEEKS[k::2])], 0.12 * eyes)[1] for k in (0, 1))
    red, green, blue = _hair_above(photo, pixels, cheeks)
    dyed = max(green - red, blue - green) > 0.01 or red - blue > 0.85 * red + 0.02
    return bool(np.max(gaps) < _FRINGE and abs(np.log(right / left)) < _UNEVEN and not dyed and not grey)


def _no_portrait(folder) -> FaceError:
    return FaceError(f"No photo in {folder} shows exactly one face: give portraits of at least 200 pixels.")
