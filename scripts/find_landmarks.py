"""Find where MediaPipe's 478 landmarks lie on the head model; writes liveness_utils/data/landmarks.npz.

Neutral and open-mouthed faces of many identities are rendered in small turns; each detected
point is carried to the triangle under it, and the medoid over all pictures is kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import liveness_utils
from liveness_utils import faces, render
from liveness_utils.clips import Intrinsics
from liveness_utils.head_model import EYE_RINGS, EYE_SPAN, EYE_SPOKES, REGIONS, head_model
from liveness_utils.landmarks import Landmarker

SIZE, DISTANCE = 384, 0.55
VIEWS = [(0.0, 0.0), (0.14, 0.0), (-0.14, 0.0), (0.0, 0.10), (0.0, -0.10)]
INNER_LIPS = [
    78,
    95,
    88,
    178,
    87,
    14,
    317,
    402,
    318,
    324,
    308,
    191,
    80,
    81,
    82,
    13,
    312,
    311,
    310,
    415,
]
IRIS = {0: range(473, 478), 1: range(468, 473)}  # the subject's left and right eye


def _srgb(linear: np.ndarray) -> np.ndarray:
    x = np.clip(linear, 0, 1)
    return (np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055) * 255 + 0.5).astype(np.uint8)


def _turned(vertices: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    pivot = np.array([0, -0.03, -0.08])
    return ((vertices - pivot) @ turn.T + pivot).astype(np.float32)


def _picture(face: faces.Face, vertices: np.ndarray, camera: Intrinsics, pose: np.ndarray) -> np.ndarray:
    light = render.Lighting(
        ambient=render.hemisphere((0.4, 0.4, 0.4), (0.2, 0.2, 0.2)),
        lights=(render.Light(np.array([0.2, 0.5, 1.0]), np.array([0.5, 0.5, 0.5]), size=0.5),),
    )
    wall = render.Rect((-3, 2.5, -1.0), (6, 0, 0), (0, -5, 0), np.full((8, 8, 3), 0.3, np.float32))
    room = render.light_room(render.build_room([wall]), light)
    mesh = render.Mesh(vertices, texture=render.make_texture(face.albedo, gloss=face.gloss), **face.mesh_parts())
    return _srgb(render.render([mesh], room, light, camera, pose).image)


def _under(points: np.ndarray, pixels: np.ndarray, depth: np.ndarray, triangles: np.ndarray):
    """Front-most triangle under each 2-D point (nearest one if none) and its weights."""
    a, b, c = (pixels[triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    facing = np.flatnonzero(area < -1e-3)
    a, b, c, area = a[facing], b[facing], c[facing], area[facing]
    z = depth[triangles[facing]]
    out, weights = [], []
    for p in points:
        w1 = ((p[0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (p[1] - a[:, 1]) * (c[:, 0] - a[:, 0])) / area
        w2 = ((b[:, 0] - a[:, 0]) * (p[1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (p[0] - a[:, 0])) / area
        w = np.stack([1 - w1 - w2, w1, w2], 1)
        inside = w.min(1) >= -1e-6
        if inside.any():
            k = np.flatnonzero(inside)[np.argmin((w[inside] * z[inside]).sum(1))]
        else:
            w = np.clip(w, 0, 1)
            w /= w.sum(1, keepdims=True)
            q = w[:, :1] * a + w[:, 1:2] * b + w[:, 2:] * c
            k = int(np.argmin(((q - p) ** 2).sum(1) + 1e-3 * (z.mean(1) - z.min()) ** 2))
        out.append(facing[k])
        weights.append(w[k])
    return np.array(out), np.array(weights)


def _reference(model) -> np.ndarray:
    """Template vertices with the mouth a little open, so that the lips do not coincide."""
    points = model.template.copy()
    points[model.expression_points] += 0.5 * model.expression[faces.EXPRESSION_NAMES.index("jawOpen")]
    return points[model.split]


def _medoid(triangles: np.ndarray, weights: np.ndarray, mesh: np.ndarray, reference: np.ndarray):
    spots = np.einsum("nk,nkc->nc", weights, reference[mesh[triangles]])
    best = np.argmin(np.linalg.norm(spots[:, None] - np.median(spots, 0), axis=-1).ravel())
    return (
        triangles[best],
        weights[best],
        float(np.median(np.linalg.norm(spots - spots[best], axis=1))),
    )


def _iris_points(model) -> dict[int, tuple[int, np.ndarray]]:
    """Iris landmarks from the eyeball's own geometry: its pole and four points on the limbus."""
    angle = np.concatenate([[0], EYE_SPAN * np.linspace(0, 1, EYE_RINGS + 1)[1:] ** 0.9])
    limbus = np.arcsin(0.0059 / 0.0149)
    ring = int(np.searchsorted(angle, limbus))
    part = (limbus - angle[ring - 1]) / (angle[ring] - angle[ring - 1])
    eye_triangles = np.flatnonzero(model.region == REGIONS.index("eye"))
    out = {}
    for eye, indices in IRIS.items():
        ids = model.eyeballs[eye]
        first = eye_triangles[np.isin(model.split[model.triangles[eye_triangles]], ids).all(1)]
        # MediaPipe's order: centre, then towards the image's right, top, left, bottom.
        for landmark, spoke in zip(indices, [None, 0, 6, 12, 18], strict=True):
            if spoke is None:
                want = {ids[0]: 1.0}
            else:
                inner = 1 + (ring - 2) * EYE_SPOKES + spoke
                want = {ids[inner]: 1 - part, ids[inner + EYE_SPOKES]: part}
            for t in first:
                corners = model.split[model.triangles[t]]
                if set(want) <= set(corners.tolist()):
                    out[landmark] = (int(t), np.array([want.get(p, 0.0) for p in corners.tolist()]))
                    break
    return out


def main(people: int = 30) -> None:
    model = head_model()
    camera = Intrinsics(SIZE, SIZE, SIZE * 1.25, SIZE * 1.25, (SIZE - 1) / 2, (SIZE - 1) / 2)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.diag([1, -1, -1]), [0, -0.02, DISTANCE]
    landmarker = Landmarker(running_mode="image")
    skin = np.flatnonzero(model.region == REGIONS.index("head"))
    found = {False: [], True: []}
    for k in range(people):
        rng = np.random.default_rng(1000 + k)
        who = faces.sample_identity(
            rng,
            monk=k % 6 + 1,
            glasses="none",
            beard="none",
            hair_style=("buzz", "tied", "crop")[k % 3],
            freckles=0.0,
        )
        face = faces.build_face(who, model)
        for is_open in (False, True):
            expression = np.zeros(52, np.float32)
            expression[faces.EXPRESSION_NAMES.index("jawOpen")] = 0.45 * is_open
            for yaw, pitch in VIEWS if not is_open else VIEWS[:3]:
                vertices = _turned(face.vertices(expression), yaw, pitch)
                seen = landmarker.detect(_picture(face, vertices, camera, pose))
                if not seen:
                    continue
                p = (vertices - pose[:3, 3]) * [1, -1, -1]
                pixels = p[:, :2] / p[:, 2:] * camera.fx + camera.cx
                points = np.asarray(seen[0].points)[:468, :2]
                t, w = _under(points, pixels, p[:, 2], face.triangles[skin])
                found[is_open].append((skin[t], w))
    reference = _reference(model)
    triangles, weights, spread = (
        np.zeros(478, np.int32),
        np.zeros((478, 3), np.float32),
        np.zeros(478),
    )
    for i in range(468):
        hits = found[i in INNER_LIPS]
        t, w = np.array([h[0][i] for h in hits]), np.array([h[1][i] for h in hits])
        triangles[i], weights[i], spread[i] = _medoid(t, w, model.triangles, reference)
    for i, (t, w) in _iris_points(model).items():
        triangles[i], weights[i] = t, w
    out = Path(liveness_utils.__file__).parent / "data" / "landmarks.npz"
    np.savez_compressed(out, triangles=triangles, weights=weights.astype(np.float32))
    print(f"{len(found[False])} + {len(found[True])} pictures; median spread {1e3 * np.median(spread[:468]):.1f} mm")


if __name__ == "__main__":
    main()
