"""Renderer: triangle meshes and a room of textured rectangles become a linear-light image with exact depth.
faces, motion → **render** → sensor → simulate. It knows shapes, materials and light, and nothing about people or labels.
Everything is float32 on one core and deterministic: the same call gives the same bytes in any process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import cv2
import numba as nb
import numpy as np

_JIT = {"cache": True, "fastmath": True, "nogil": True, "error_model": "numpy"}
_INLINE = {**_JIT, "inline": "always"}  # calls that pass arrays cost more than what these functions do
_KERNEL = {**_JIT, "_nrt": False}  # allocates nothing, so that inner loops need not count references
_NEAR = 0.03  # metres; closer triangles are dropped whole
_TRI_BITS = 24  # a sub-sample stores mesh index and triangle index in one int32
_SHADOW_PX = 128
# Kernels stay in single precision: a plain 1 or 0.5 would promote whole expressions to double.
_0, _1, _HALF, _QUARTER = np.float32(0.0), np.float32(1.0), np.float32(0.5), np.float32(0.25)


class Pinhole(Protocol):
    """What the renderer reads of a camera's intrinsics, in pixels with pixel centres at integers."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class Material:
    """How a surface answers light.

    Args:
        specular: reflectance at normal incidence F0 (0.028 skin, 0.04 most dielectrics).
        roughness: GGX roughness 0..1, used where the texture carries no gloss.
        sss: 0..1, how far light bleeds round the terminator (1 = skin, 0 = paper or resin).
        emission: radiance of a white texel that shines by itself (screens); 0 for everything else.
        diffuse: factor on the albedo's diffuse answer (about 0.02 for the glass of a screen that is off).
        mirror: 0..1, sharp reflection of the room, for flat meshes only (glass, glossy print).
    """

    specular: float = 0.04
    roughness: float = 0.5
    sss: float = 0.0
    emission: float = 0.0
    diffuse: float = 1.0
    mirror: float = 0.0

    def packed(self) -> np.ndarray:
        """The six numbers as (6,) float32, in the order of the fields."""
        return np.array([self.specular, self.roughness, self.sss, self.emission, self.diffuse, self.mirror], np.float32)


SKIN = Material(specular=0.028, roughness=0.45, sss=1.0)
PAPER_MATTE = Material(specular=0.03, roughness=0.75)
PAPER_GLOSSY = Material(specular=0.045, roughness=0.22, mirror=0.35)
SCREEN = Material(specular=0.04, roughness=0.12, emission=1.0, diffuse=0.015, mirror=1.0)
BEZEL = Material(specular=0.04, roughness=0.25)
SILICONE = Material(specular=0.035, roughness=0.32, sss=0.55)
LATEX = Material(specular=0.035, roughness=0.42, sss=0.35)
RESIN = Material(specular=0.05, roughness=0.24)
PLASTIC = Material(specular=0.045, roughness=0.36)


_NO_HOLE = np.array([1.0, 1.0, 0.0, 0.0], np.float32)


@dataclass(frozen=True)
class Texture:
    """A mip pyramid: texels (N,5) float32 = linear r, g, b, alpha, roughness (negative: take the material's);
    layout (L,3) int32 = offset, height, width of every level; hole (4,) float32 = smallest u, v and largest u, v of
    the texels that are less than half opaque (largest < smallest where there are none)."""

    texels: np.ndarray
    layout: np.ndarray
    hole: np.ndarray = field(default_factory=lambda: _NO_HOLE.copy())


def make_texture(
    colour: np.ndarray, *, gloss: np.ndarray | None = None, alpha: np.ndarray | None = None, levels: int = 6
) -> Texture:
    """Build the mip pyramid of a texture once, so that frames can share it.

    Args:
        colour: (th,tw,3) or, with alpha last, (th,tw,4) float, linear light; row 0 is v = 0 (the top).
        gloss: (th,tw) float 0..1, smoothness = 1 − GGX roughness; None uses the material's roughness.
        alpha: (th,tw) float, below 0.5 is a hole.
        levels: largest number of levels.

    Returns:
        Texture. About 3 ms for 512 x 512, 0.5 ms for 256 x 256.

    Example:
        >>> make_texture(np.ones((8, 4, 3), np.float32)).layout.tolist()
        [[0, 8, 4], [32, 4, 2], [40, 2, 1]]
    """
    height, width = colour.shape[:2]
    full = np.empty((height, width, 5), np.float32)
    full[..., :3] = colour[..., :3]
    full[..., 3] = 1.0 if alpha is None else alpha
    if alpha is None and colour.shape[2] == 4:
        full[..., 3] = colour[..., 3]
    full[..., 4] = -1.0 if gloss is None else 1.0 - np.asarray(gloss, np.float32)
    return Texture(*_pyramid(full, levels), _hole(full[..., 3]))


def _hole(alpha: np.ndarray) -> np.ndarray:
    """Box (u0, v0, u1, v1) around everything below half opacity."""
    y, x = np.nonzero(alpha < 0.5)
    if not len(y):
        return _NO_HOLE.copy()
    height, width = alpha.shape
    return np.array([x.min() / width, y.min() / height, (x.max() + 1) / width, (y.max() + 1) / height], np.float32)


def _pyramid(full: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """(h,w,C) → flat texels (N,C) of all levels and their layout (L,3)."""
    stack = [np.ascontiguousarray(full, np.float32)]
    while len(stack) < levels and min(stack[-1].shape[:2]) >= 2:
        height, width = stack[-1].shape[:2]
        stack.append(_halved(stack[-1], width // 2, height // 2))
    sizes = [level.shape[:2] for level in stack]
    offsets = np.cumsum([0] + [h * w for h, w in sizes[:-1]])
    layout = np.array([(o, h, w) for o, (h, w) in zip(offsets, sizes, strict=True)], np.int32)
    return np.concatenate([level.reshape(-1, full.shape[2]) for level in stack]), layout


def _halved(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Area average; OpenCV takes at most four channels where a side is odd."""
    parts = [image[..., :4], image[..., 4:]] if image.shape[2] > 4 else [image]
    small = [cv2.resize(np.ascontiguousarray(p), (width, height), interpolation=cv2.INTER_AREA) for p in parts]
    return np.concatenate([p.reshape(height, width, -1) for p in small], 2)


@dataclass(frozen=True)
class Mesh:
    """One surface in world coordinates.

    Args:
        vertices: (V,3) float32 metres, world.
        triangles: (F,3) int32, counter-clockwise seen from outside.
        uv: (V,2) float32 in 0..1, u to the right and v DOWN the texture image.
        texture: Texture, or a (th,tw,3|4) float linear image that is packed on the fly.
        material: Material.
        object_id: written to `Rendered.object_id`; must be >= 0.
        two_sided: also visible from behind (sheets).
        normals: (V,3) float32 unit normals; None computes them from the triangles.
        weld: (V,) int32, index of the first vertex at the same place, so that normals do not crease at UV seams.
        occlusion: (V,) float32 0..1 share of the sky that a vertex sees (`vertex_occlusion`); None means 1.
        casts_shadow: whether it darkens itself and others under the key light.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    texture: Texture | np.ndarray
    material: Material = SKIN
    object_id: int = 0
    two_sided: bool = False
    normals: np.ndarray | None = None
    weld: np.ndarray | None = None
    occlusion: np.ndarray | None = None
    casts_shadow: bool = True


@dataclass(frozen=True)
class Light:
    """A lamp. `colour` is the irradiance (3,) it gives a surface at the world origin that faces it.

    Args:
        vector: (3,) direction TOWARDS the light, or its position in metres if `point`.
        colour: (3,) linear RGB; 1 makes a white diffuser read 1.
        point: falls off with the square of the distance.
        size: 0..1 apparent size; larger is softer.
        shadow: casts shadows (only the first light with this flag does).
    """

    vector: np.ndarray
    colour: np.ndarray
    point: bool = False
    size: float = 0.1
    shadow: bool = False


@dataclass(frozen=True)
class Lighting:
    """All light of a presentation.

    Args:
        ambient: (4,3) float32: irradiance = ambient[0] + normal · ambient[1:] (first-order spherical harmonics).
        lights: at most 4 are used.
        illuminance: lux on the face for which the image's 1.0 is a white diffuser.
        room: (3,) factor on what the background receives.
        sky: factor on what shines in the background by itself (sky, windows, lit screens); small at night.
        kind: name, for the record.
        cct: correlated colour temperature of the key light in kelvin.
    """

    ambient: np.ndarray
    lights: tuple[Light, ...] = ()
    illuminance: float = 300.0
    room: tuple[float, float, float] = (1.0, 1.0, 1.0)
    sky: float = 1.0
    kind: str = ""
    cct: float = 5500.0


def hemisphere(sky: Sequence[float], ground: Sequence[float]) -> np.ndarray:
    """Ambient (4,3) coefficients of a sky above and a ground below (world y is up).

    Example:
        >>> hemisphere((1, 1, 1), (0, 0, 0))[:, 0].tolist()
        [0.5, 0.0, 0.5, 0.0]
    """
    sky, ground = np.asarray(sky, np.float32), np.asarray(ground, np.float32)
    coefficients = np.zeros((4, 3), np.float32)
    coefficients[0], coefficients[2] = (sky + ground) / 2, (sky - ground) / 2
    return coefficients


@dataclass(frozen=True)
class Rect:
    """A textured rectangle of a room: corner of texel (0,0), edges along u (right) and v (down), metres, world.
    texture (th,tw,3) or (th,tw,4) with alpha, float32 linear: albedo, or radiance if `emissive`."""

    origin: tuple[float, float, float]
    edge_u: tuple[float, float, float]
    edge_v: tuple[float, float, float]
    texture: np.ndarray
    emissive: bool = False


@dataclass(frozen=True)
class Room:
    """Packed rectangles: planes (R,9) origin, edge_u, edge_v; texels (T,4) float32; layout (R,L,3) int32 with
    height 0 for absent levels; flags (R,) bit 0 emissive, bit 1 has holes."""

    planes: np.ndarray
    texels: np.ndarray
    layout: np.ndarray
    flags: np.ndarray
    scene_id: str = ""
    kind: str = ""


def build_room(rects: Sequence[Rect], *, scene_id: str = "", kind: str = "", levels: int = 5) -> Room:
    """Pack rectangles into the arrays that the ray-caster reads.

    Args:
        rects: the room's surfaces; the order does not matter.

    Returns:
        Room whose texels are still albedo; `light_room` turns them into radiance.
    """
    planes = np.array([(*r.origin, *r.edge_u, *r.edge_v) for r in rects], np.float32).reshape(-1, 9)
    layout = np.zeros((len(rects), levels, 3), np.int32)
    flags = np.zeros(len(rects), np.int32)
    packed, offset = [], 0
    for i, rect in enumerate(rects):
        texels, part = _pyramid(_with_alpha(rect.texture), levels)
        layout[i, : len(part)] = part + [offset, 0, 0]
        layout[i, len(part) :] = layout[i, len(part) - 1]
        flags[i] = int(rect.emissive) + 2 * int(rect.texture.shape[2] == 4)
        packed.append(texels)
        offset += len(texels)
    return Room(planes, np.concatenate(packed), layout, flags, scene_id, kind)


def _with_alpha(image: np.ndarray) -> np.ndarray:
    if image.shape[2] == 4:
        return image
    return np.concatenate([image, np.ones_like(image[..., :1])], 2)


@dataclass(frozen=True)
class Rendered:
    """image (H,W,3) float32 linear; depth (H,W) float32 metres along the camera's z (inf where nothing is hit);
    object_id (H,W) int16, −1 for the room; uv (H,W,2) float32 of the nearest mesh, NaN elsewhere, or None."""

    image: np.ndarray
    depth: np.ndarray
    object_id: np.ndarray
    uv: np.ndarray | None = None


def project(points: np.ndarray, intrinsics: Pinhole, T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project world points with the same pinhole that `render` uses.

    Args:
        points: (N,3) metres, world.
        T_world_camera: (4,4), camera axes x right, y down, z forward.

    Returns:
        px (N,2) float64 pixels, z (N,) float64 metres in front of the camera (px is meaningless where z <= 0).

    Example:
        >>> from types import SimpleNamespace
        >>> cam = SimpleNamespace(width=256, height=256, fx=300.0, fy=300.0, cx=127.5, cy=127.5)
        >>> pose = np.diag([1.0, -1.0, -1.0, 1.0]); pose[2, 3] = 0.5
        >>> px, z = project(np.array([[0.1, 0.0, 0.0]]), cam, pose)
        >>> px.round(1).tolist(), z.tolist()
        ([[187.5, 127.5]], [0.5])
    """
    local = (np.asarray(points, np.float64) - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
    z = local[:, 2]
    safe = np.where(np.abs(z) < 1e-9, 1e-9, z)
    x = intrinsics.fx * local[:, 0] / safe + intrinsics.cx
    y = intrinsics.fy * local[:, 1] / safe + intrinsics.cy
    return np.stack([x, y], 1), z


def weld_vertices(vertices: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """Index of the first vertex at the same place, for smooth normals over UV seams.

    Args:
        vertices: (V,3) metres, in any pose in which split vertices coincide.

    Returns:
        (V,) int32.

    Example:
        >>> weld_vertices(np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 0]])).tolist()
        [0, 1, 0]
    """
    keys = np.round(np.asarray(vertices) / tolerance).astype(np.int64)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return first[inverse.ravel()].astype(np.int32)


def render(
    meshes: Sequence[Mesh],
    room: Room | None,
    lighting: Lighting,
    intrinsics: Pinhole,
    T_world_camera: np.ndarray,
    *,
    supersample: int = 2,
    want_uv: bool = False,
) -> Rendered:
    """Draw meshes in front of a room, in linear light.

    Visibility is tested at supersample² rotated-grid points a pixel; a pixel is shaded once a surface, so that
    silhouettes are smooth at little cost. Textures are filtered through mip levels.

    Args:
        meshes: at most 127 surfaces.
        room: background (already lit, see `light_room`), always behind the meshes; None leaves black at infinity.
        intrinsics: pinhole in pixels of the output.
        T_world_camera: (4,4) pose, camera axes x right, y down, z forward.
        supersample: visibility samples along each side of a pixel, 1 to 4.
        want_uv: also return the texture coordinate seen by every pixel.

    Returns:
        Rendered.

    Raises:
        ValueError: more meshes than can be told apart.
    """
    if len(meshes) > 127:
        raise ValueError(f"render takes at most 127 meshes, got {len(meshes)}: merge some of them.")
    height, width = int(intrinsics.height), int(intrinsics.width)
    rotation, centre = _camera(T_world_camera)
    lens = np.array([intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy], np.float32)
    inv_z = np.zeros((height * supersample, width * supersample), np.float32)
    face = np.full(inv_z.shape, -1, np.int32)
    prepared = [
        _prepare(index, mesh, rotation, centre, lens, supersample, inv_z, face) for index, mesh in enumerate(meshes)
    ]
    image, depth, object_id = _background(room, rotation, centre, lens, face, height, width, supersample)
    uv = np.full((height, width, 2), np.nan, np.float32) if want_uv else np.zeros((0, 0, 2), np.float32)
    lights, ambient = _pack_lighting(lighting)
    shadow = _shadow_map(prepared, lights)
    for index, item in enumerate(prepared):
        _shade(
            index, item, room, lights, ambient, shadow, centre, face, inv_z, supersample, image, depth, object_id, uv
        )
    return Rendered(image, depth, object_id, uv if want_uv else None)


def light_room(room: Room, lighting: Lighting) -> Room:
    """Bake the light into a room's texels, once per clip (about 10 ms).

    Lambert shading per texel from the same lights that the face sees, darker towards the room's corners.

    Returns:
        Room whose texels are radiance, ready for `render`.
    """
    lights, ambient = _pack_lighting(lighting)
    texels = room.texels.copy()
    corners = np.concatenate([room.planes[:, :3], room.planes[:, :3] + room.planes[:, 3:6] + room.planes[:, 6:9]])
    bounds = np.stack([corners.min(0), corners.max(0)]).astype(np.float32)
    gain = np.asarray(lighting.room, np.float32)
    _bake(room.planes, room.layout, room.flags, lights, ambient, gain, bounds, texels)
    for layout in room.layout[(room.flags & 1) == 1]:
        last = layout[layout[:, 1] > 0][-1]
        texels[layout[0, 0] : last[0] + last[1] * last[2], :3] *= np.float32(lighting.sky)
    return replace(room, texels=texels)


def vertex_occlusion(vertices: np.ndarray, triangles: np.ndarray, *, directions: int = 48) -> np.ndarray:
    """Share of the surrounding light that reaches every vertex, once per identity (about 40 ms for a head).

    Depth maps from directions spread over the sphere; a direction counts with its cosine to the normal.

    Args:
        vertices: (V,3) metres; triangles: (F,3) int32.

    Returns:
        (V,) float32 in 0..1; 1 = nothing in the way.

    Source: ambient occlusion by sampled visibility (Zhukov et al., 1998, doi 10.1007/978-3-7091-6453-2_5).
    """
    vertices, triangles = _f32(vertices), np.ascontiguousarray(triangles, np.int32)
    normals = _normals(vertices, triangles, weld_vertices(vertices))
    seen, total = np.zeros(len(vertices), np.float32), np.full(len(vertices), 1e-6, np.float32)
    for k in range(directions):
        y = 1 - 2 * (k + 0.5) / directions
        angle, radius = k * 2.399963, np.sqrt(1 - y * y)
        to_light = np.array([radius * np.cos(angle), y, radius * np.sin(angle)], np.float32)
        frame = _light_frame(vertices, to_light)
        depth = np.full((_SHADOW_PX, _SHADOW_PX), 4.0, np.float32)
        _raster_depth(vertices, triangles, frame, depth)
        _count_visible(vertices, normals, frame, depth, seen, total)
    return seen / total


# ---- preparation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prepared:
    mesh: Mesh
    vertices: np.ndarray
    triangles: np.ndarray
    packed: np.ndarray
    texture: Texture
    lens: np.ndarray
    bounds: tuple[int, int, int, int] = field(default=(0, 0, 0, 0))


def _f32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _camera(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _f32(np.asarray(pose)[:3, :3]), _f32(np.asarray(pose)[:3, 3])


def _prepare(index, mesh, rotation, centre, lens, samples, inv_z, face) -> _Prepared:
    """Project a mesh, draw it into the visibility buffers and gather what shading needs."""
    vertices, triangles = _f32(mesh.vertices), np.ascontiguousarray(mesh.triangles, np.int32)
    weld = np.zeros(0, np.int32) if mesh.weld is None else np.ascontiguousarray(mesh.weld, np.int32)
    normals = _normals(vertices, triangles, weld) if mesh.normals is None else _f32(mesh.normals)
    occlusion = np.ones(len(vertices), np.float32) if mesh.occlusion is None else _f32(mesh.occlusion)
    texture = mesh.texture if isinstance(mesh.texture, Texture) else make_texture(mesh.texture)
    screen = _to_screen(vertices, rotation, centre, lens, samples)
    uv = _f32(mesh.uv)
    bounds = _raster(
        screen, triangles, uv, texture.texels, texture.layout, texture.hole, mesh.two_sided,
        index << _TRI_BITS, inv_z, face,
    )  # fmt: skip
    packed = _packed(screen, vertices, normals, uv, occlusion)
    return _Prepared(mesh, vertices, triangles, packed, texture, lens, bounds)


def _pack_lighting(lighting: Lighting) -> tuple[np.ndarray, np.ndarray]:
    """Lights as (n,9) float32: vector, colour, point, size, shadow; and ambient (4,3)."""
    rows = [(*lt.vector, *lt.colour, float(lt.point), lt.size, float(lt.shadow)) for lt in lighting.lights[:4]]
    return np.array(rows, np.float32).reshape(-1, 9), _f32(lighting.ambient)


def _background(room, rotation, centre, lens, face, height, width, samples):
    image = np.zeros((height, width, 3), np.float32)
    depth = np.full((height, width), np.inf, np.float32)
    object_id = np.full((height, width), -1, np.int16)
    if room is not None and len(room.planes):
        coefs = (_room_rays(room.planes, centre) @ rotation).astype(np.float32)
        inv, hit = np.zeros((height, width), np.float32), np.full((height, width), -1, np.int16)
        _room_visibility(coefs, room.layout, room.texels, room.flags, lens, inv, hit)
        _room_shade(coefs, room.layout, room.texels, room.flags, lens, inv, hit, face, samples, image, depth)
    return image, depth, object_id


@nb.njit(**_JIT)
def _room_rays(planes, origin):
    """(R,3,3) float64 rows q, uq, vq: for a ray o + t·d, q·d = 1/t and (uq·d)/(q·d) = u on the rectangle, likewise v."""
    out = np.empty((planes.shape[0], 3, 3), np.float64)
    p = np.empty((4, 3), np.float64)
    for r in range(planes.shape[0]):
        for k in range(3):
            p[0, k], p[1, k], p[2, k] = origin[k] - planes[r, k], planes[r, 3 + k], planes[r, 6 + k]
        for k in range(3):
            i, j = (k + 1) % 3, (k + 2) % 3
            p[3, k] = p[1, i] * p[2, j] - p[1, j] * p[2, i]
        area = p[3, 0] ** 2 + p[3, 1] ** 2 + p[3, 2] ** 2
        height = -(p[3, 0] * p[0, 0] + p[3, 1] * p[0, 1] + p[3, 2] * p[0, 2])
        height = 1e-9 if abs(height) < 1e-9 else height
        along_u, along_v = 0.0, 0.0
        for k in range(3):
            i, j = (k + 1) % 3, (k + 2) % 3
            out[r, 0, k] = p[3, k] / height
            out[r, 1, k] = (p[2, i] * p[3, j] - p[2, j] * p[3, i]) / area
            out[r, 2, k] = (p[3, i] * p[1, j] - p[3, j] * p[1, i]) / area
            along_u += p[0, k] * out[r, 1, k]
            along_v += p[0, k] * out[r, 2, k]
        for k in range(3):
            out[r, 1, k] += along_u * out[r, 0, k]
            out[r, 2, k] += along_v * out[r, 0, k]
    return out


@dataclass(frozen=True)
class _Shadow:
    light: int
    frame: np.ndarray
    moments: np.ndarray


def _shadow_map(prepared: list[_Prepared], lights: np.ndarray) -> _Shadow:
    """Variance shadow map of the key light (Donnelly & Lauritzen, 2006, doi 10.1145/1111411.1111440)."""
    casters = [p for p in prepared if p.mesh.casts_shadow]
    keys = np.flatnonzero(lights[:, 8] > 0)
    if not len(keys) or not casters:
        return _Shadow(-1, np.zeros((4, 3), np.float32), np.zeros((1, 1, 2), np.float32))
    key = lights[keys[0]]
    boxes = np.concatenate([_bounds(p.vertices) for p in casters])
    middle = (boxes.min(0) + boxes.max(0)) / 2
    to_light = key[:3] - middle if key[6] else key[:3]
    frame = _light_frame(boxes, to_light)
    depth = np.full((_SHADOW_PX, _SHADOW_PX), 2.5, np.float32)
    for p in casters:
        _raster_depth(p.vertices, p.triangles, frame, depth)
    moments = cv2.GaussianBlur(np.dstack([depth, depth * depth]), (0, 0), 0.9 + 5.0 * float(key[7]))
    return _Shadow(int(keys[0]), frame, moments)


def _light_frame(vertices: np.ndarray, to_light: np.ndarray) -> np.ndarray:
    """Rows: x, y, depth axes scaled so that the casters fill −1..1, and the centre."""
    low, high = (_bounds(vertices)[k].astype(np.float64) for k in range(2))
    centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2 + 1e-6
    z = np.asarray(to_light, np.float64) / np.linalg.norm(to_light)
    x = np.cross((0.0, 1.0, 0.0) if abs(z[1]) < 0.9 else (1.0, 0.0, 0.0), z)
    x /= np.linalg.norm(x)
    return _f32(np.stack([x / radius, np.cross(z, x) / radius, -z / radius, centre]))


def _shade(index, item, room, lights, ambient, shadow, centre, face, inv_z, samples, image, depth, object_id, uv):
    """Shade the pixels in which one mesh is visible."""
    mesh, material = item.mesh, item.mesh.material.packed()
    mirror = np.zeros((0, 3, 3), np.float32)
    origin = centre
    if material[5] > 0 and room is not None and len(mesh.triangles):
        origin = _mirrored(centre, item.vertices, item.triangles)
        mirror = _f32(_room_rays(room.planes, origin))
    texels, layout, flags = (room.texels, room.layout, room.flags) if len(mirror) else _NO_ROOM
    _shade_mesh(
        index << _TRI_BITS, item.bounds, samples, face, inv_z, item.packed, item.triangles, item.texture.texels,
        item.texture.layout, material, mesh.object_id, lights, _wrap_terms(lights, material), ambient, shadow.light,
        shadow.frame, shadow.moments, centre, item.lens, mirror, origin, texels, layout, flags, image, depth,
        object_id, uv,
    )  # fmt: skip


def _wrap_terms(lights: np.ndarray, material: np.ndarray) -> np.ndarray:
    """(n,7) float32 a light: how far its diffuse light wraps round the terminator in r, g, b, the factor that keeps
    its energy in each, and the cosine below which nothing arrives."""
    wrap = 0.5 * lights[:, 7:8] + material[2] * np.array([0.30, 0.12, 0.07], np.float32)
    end = -(0.5 * lights[:, 7:8] + 0.32 * material[2])
    return _f32(np.hstack([wrap, 1.0 / (1.0 + wrap) ** 2, end]))


_NO_ROOM = (np.zeros((1, 4), np.float32), np.zeros((0, 1, 3), np.int32), np.zeros(0, np.int32))


def _mirrored(centre: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """The camera's mirror image behind the mesh's mean plane, from which reflections are seen."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a).sum(0).astype(np.float64)
    normal /= np.linalg.norm(normal) + 1e-12
    return _f32(centre - 2 * ((centre - vertices.mean(0)) @ normal) * normal)


# ---- kernels: geometry -------------------------------------------------------------------------------------------


@nb.njit(**_JIT)
def _bounds(vertices):
    """(2,3) smallest and largest coordinates."""
    out = np.empty((2, 3), np.float32)
    for k in range(3):
        low, high = vertices[0, k], vertices[0, k]
        for i in range(1, vertices.shape[0]):
            low, high = min(low, vertices[i, k]), max(high, vertices[i, k])
        out[0, k], out[1, k] = low, high
    return out


@nb.njit(**_JIT)
def _normals(vertices, triangles, weld):
    """Area-weighted unit vertex normals (V,3)."""
    n = vertices.shape[0]
    out = np.zeros((n, 3), np.float32)
    welded = weld.shape[0] == n
    for i in range(triangles.shape[0]):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in range(3):
            j = triangles[i, k]
            if welded:
                j = weld[j]
            out[j, 0] += nx
            out[j, 1] += ny
            out[j, 2] += nz
    for j in range(n):
        s = weld[j] if welded else j
        if s == j:
            norm = 1.0 / np.sqrt(out[j, 0] ** 2 + out[j, 1] ** 2 + out[j, 2] ** 2 + np.float32(1e-30))
            for k in range(3):
                out[j, k] *= norm
        else:
            for k in range(3):
                out[j, k] = out[s, k]
    return out


@nb.njit(**_JIT)
def _to_screen(vertices, rotation, centre, lens, samples):
    """(V,3): x and y in sub-sample units, 1/z (−1 for what is too near or behind)."""
    out = np.empty((vertices.shape[0], 3), np.float32)
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0] - centre[0], vertices[i, 1] - centre[1], vertices[i, 2] - centre[2]
        xc = rotation[0, 0] * x + rotation[1, 0] * y + rotation[2, 0] * z
        yc = rotation[0, 1] * x + rotation[1, 1] * y + rotation[2, 1] * z
        zc = rotation[0, 2] * x + rotation[1, 2] * y + rotation[2, 2] * z
        if zc < _NEAR:
            out[i, 2] = -1.0
            continue
        inv = 1.0 / zc
        out[i, 0] = (lens[0] * xc * inv + lens[2] + 0.5) * samples - 0.5
        out[i, 1] = (lens[1] * yc * inv + lens[3] + 0.5) * samples - 0.5
        out[i, 2] = inv
    return out


@nb.njit(**_JIT)
def _packed(screen, vertices, normals, uv, occlusion):
    """(V,12) x, y, 1/z on the screen, place, normal, u, v, occlusion: what a pixel needs of a vertex in one line."""
    out = np.empty((vertices.shape[0], 12), np.float32)
    for i in range(vertices.shape[0]):
        for k in range(3):
            out[i, k], out[i, 3 + k], out[i, 6 + k] = screen[i, k], vertices[i, k], normals[i, k]
        out[i, 9], out[i, 10], out[i, 11] = uv[i, 0], uv[i, 1], occlusion[i]
    return out


@nb.njit(**_KERNEL)
def _raster(screen, triangles, uv, texels, layout, hole, two_sided, tag, inv_z, face):
    """Z-buffer all triangles; returns the touched rectangle x0, x1, y0, y1 in sub-samples (x1 < x0 if none)."""
    height, width = inv_z.shape
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    bx0, bx1, by0, by1 = width, -1, height, -1
    for i in range(triangles.shape[0]):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        x0, y0, q0 = screen[a, 0], screen[a, 1], screen[a, 2]
        x1, y1, q1 = screen[b, 0] - x0, screen[b, 1] - y0, screen[b, 2]
        x2, y2, q2 = screen[c, 0] - x0, screen[c, 1] - y0, screen[c, 2]
        area = x1 * y2 - x2 * y1
        if area >= _0 and not (two_sided and area > _0):
            continue
        if q0 < _0 or q1 < _0 or q2 < _0:
            continue
        left, top = max(x0 + min(min(x1, x2), _0) - _QUARTER, _0), max(y0 + min(min(y1, y2), _0) - _QUARTER, _0)
        xa, ya = int(np.ceil(left)), int(np.ceil(top))
        xb = int(np.floor(min(x0 + max(max(x1, x2), _0) + _QUARTER, right)))
        yb = int(np.floor(min(y0 + max(max(y1, y2), _0) + _QUARTER, bottom)))
        if xa > xb or ya > yb:
            continue
        inv = _1 / area
        d1, d2 = q1 - q0, q2 - q0
        e1x, e1y, e2x, e2y = y2 * inv, -x2 * inv, -y1 * inv, x1 * inv
        holes = _near_hole(uv, a, b, c, hole)
        wide, slack1, slack2 = xb - xa > 5, abs(e1y) * _QUARTER, abs(e2y) * _QUARTER
        drawn = False
        for y in range(ya, yb + 1):
            px = (_QUARTER if y & 1 else -_QUARTER) - x0
            py = np.float32(y) - y0
            r1, r2 = e1x * px + e1y * py, e2x * px + e2y * py
            lo, hi = xa, xb
            if wide:  # the row's stretch inside the triangle, a little too long for the samples' stagger
                lo, hi = _narrowed(lo, hi, r1 + slack1, e1x)
                lo, hi = _narrowed(lo, hi, r2 + slack2, e2x)
                lo, hi = _narrowed(lo, hi, _1 - r1 - r2 + slack1 + slack2, -e1x - e2x)
            for x in range(lo, hi + 1):
                fx = np.float32(x)
                lift = -_QUARTER if x & 1 else _QUARTER
                w1, w2 = r1 + e1x * fx + e1y * lift, r2 + e2x * fx + e2y * lift
                q = q0 + w1 * d1 + w2 * d2
                # one hard-to-predict branch instead of four
                if (min(min(w1, w2), _1 - w1 - w2) < _0) | (q <= inv_z[y, x]):
                    continue
                if holes:
                    w0, over = (_1 - w1 - w2) * q0, _1 / q
                    u = (w0 * uv[a, 0] + w1 * q1 * uv[b, 0] + w2 * q2 * uv[c, 0]) * over
                    v = (w0 * uv[a, 1] + w1 * q1 * uv[b, 1] + w2 * q2 * uv[c, 1]) * over
                    if _alpha(texels, layout[0, 0], layout[0, 1], layout[0, 2], u, v) < _HALF:
                        continue
                inv_z[y, x] = q
                face[y, x] = tag + i
                drawn = True
        if drawn:
            bx0, bx1, by0, by1 = min(bx0, xa), max(bx1, xb), min(by0, ya), max(by1, yb)
    return bx0, bx1, by0, by1


@nb.njit(**_INLINE)
def _narrowed(lo, hi, start, step):
    """Integers of lo..hi at which start + step · x >= 0."""
    if abs(step) < np.float32(1e-12):
        return (lo, hi) if start >= _0 else (lo, lo - 1)
    x = min(max(-start / step, np.float32(-1e6)), np.float32(1e6))
    if step > _0:
        return max(lo, int(np.ceil(x))), hi
    return lo, min(hi, int(np.floor(x)))


@nb.njit(**_INLINE)
def _near_hole(uv, a, b, c, hole):
    """Whether a triangle's box in the texture meets the box of what is cut out."""
    if hole[2] < hole[0]:
        return False
    ua, ub, uc, va, vb, vc = uv[a, 0], uv[b, 0], uv[c, 0], uv[a, 1], uv[b, 1], uv[c, 1]
    if max(max(ua, ub), uc) < hole[0] or min(min(ua, ub), uc) > hole[2]:
        return False
    return max(max(va, vb), vc) >= hole[1] and min(min(va, vb), vc) <= hole[3]


@nb.njit(**_INLINE)
def _alpha(texels, offset, height, width, u, v):
    x = min(max(int(u * np.float32(width)), 0), width - 1)
    y = min(max(int(v * np.float32(height)), 0), height - 1)
    return texels[offset + y * width + x, 3]


@nb.njit(**_JIT)
def _raster_depth(vertices, triangles, frame, depth):
    """Nearest depth towards a light, orthographic; frame as `_light_frame` gives it."""
    n = depth.shape[0]
    half = np.float32(n / 2)
    p = np.empty((vertices.shape[0], 3), np.float32)
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0] - frame[3, 0], vertices[i, 1] - frame[3, 1], vertices[i, 2] - frame[3, 2]
        p[i, 0] = (frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z + 1) * half - 0.5
        p[i, 1] = (frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z + 1) * half - 0.5
        p[i, 2] = frame[2, 0] * x + frame[2, 1] * y + frame[2, 2] * z
    for i in range(triangles.shape[0]):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        x0, y0 = p[a, 0], p[a, 1]
        x1, y1, x2, y2 = p[b, 0] - x0, p[b, 1] - y0, p[c, 0] - x0, p[c, 1] - y0
        area = x1 * y2 - x2 * y1
        if area == 0:
            continue
        xa, xb = max(int(np.ceil(x0 + min(min(x1, x2), 0.0))), 0), min(int(x0 + max(max(x1, x2), 0.0)), n - 1)
        ya, yb = max(int(np.ceil(y0 + min(min(y1, y2), 0.0))), 0), min(int(y0 + max(max(y1, y2), 0.0)), n - 1)
        inv = np.float32(1.0) / area
        for y in range(ya, yb + 1):
            for x in range(xa, xb + 1):
                px, py = x - x0, y - y0
                w1, w2 = (px * y2 - x2 * py) * inv, (x1 * py - px * y1) * inv
                if w1 < 0 or w2 < 0 or w1 + w2 > 1:
                    continue
                z = p[a, 2] + w1 * (p[b, 2] - p[a, 2]) + w2 * (p[c, 2] - p[a, 2])
                if z < depth[y, x]:
                    depth[y, x] = z


@nb.njit(**_JIT)
def _count_visible(vertices, normals, frame, depth, seen, total):
    n = depth.shape[0]
    radius = 1.0 / np.sqrt(frame[2, 0] ** 2 + frame[2, 1] ** 2 + frame[2, 2] ** 2)
    for i in range(vertices.shape[0]):
        cosine = -(frame[2, 0] * normals[i, 0] + frame[2, 1] * normals[i, 1] + frame[2, 2] * normals[i, 2]) * radius
        if cosine <= 0.02:
            continue
        x, y, z = vertices[i, 0] - frame[3, 0], vertices[i, 1] - frame[3, 1], vertices[i, 2] - frame[3, 2]
        px = (frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z + 1) * n / 2
        py = (frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z + 1) * n / 2
        pz = frame[2, 0] * x + frame[2, 1] * y + frame[2, 2] * z
        jx, jy = min(max(int(px), 0), n - 1), min(max(int(py), 0), n - 1)
        total[i] += cosine
        if pz < depth[jy, jx] + 0.03:
            seen[i] += cosine


# ---- kernels: the room -------------------------------------------------------------------------------------------


@nb.njit(**_KERNEL)
def _room_visibility(coefs, layout, texels, flags, lens, inv, hit):
    """Nearest rectangle per pixel centre: 1/z and its index."""
    height, width = inv.shape
    sx = np.float32(1.0) / lens[0]
    for r in range(coefs.shape[0]):
        c = coefs[r]
        holes = flags[r] & 2
        for y in range(height):
            dy = (np.float32(y) - lens[3]) / lens[1]
            d0 = -lens[2] * sx
            q0, qs = c[0, 0] * d0 + c[0, 1] * dy + c[0, 2], c[0, 0] * sx
            u0, us = c[1, 0] * d0 + c[1, 1] * dy + c[1, 2], c[1, 0] * sx
            v0, vs = c[2, 0] * d0 + c[2, 1] * dy + c[2, 2], c[2, 0] * sx
            lo, hi = _span(q0, qs, u0, us, v0, vs, width)
            for x in range(lo, hi):
                q = q0 + qs * x
                if q <= inv[y, x]:
                    continue
                if holes:
                    u, v = (u0 + us * x) / q, (v0 + vs * x) / q
                    if _alpha(texels, layout[r, 0, 0], layout[r, 0, 1], layout[r, 0, 2], u, v) < _HALF:
                        continue
                inv[y, x] = q
                hit[y, x] = r


@nb.njit(**_INLINE)
def _span(q0, qs, u0, us, v0, vs, width):
    """Pixels of a row inside a rectangle: every bound is linear in x, so the row is one interval."""
    lo, hi = 0.0, width - 1.0
    lo, hi = _cut(lo, hi, q0 - 1e-3, qs)
    lo, hi = _cut(lo, hi, u0, us)
    lo, hi = _cut(lo, hi, q0 - u0, qs - us)
    lo, hi = _cut(lo, hi, v0, vs)
    lo, hi = _cut(lo, hi, q0 - v0, qs - vs)
    return int(np.ceil(lo)), int(np.floor(hi)) + 1


@nb.njit(**_INLINE)
def _cut(lo, hi, a, b):
    """Keep of [lo, hi] where a + b·x >= 0."""
    if abs(b) < 1e-12:
        return (lo, hi) if a >= 0 else (1.0, 0.0 - 1.0)
    x = -a / b
    if b > 0:
        return max(lo, x), hi
    return lo, min(hi, x)


@nb.njit(**_KERNEL)
def _room_shade(coefs, layout, texels, flags, lens, inv, hit, face, samples, image, depth):
    """Colour of the room where meshes leave any of a pixel free; edges between rectangles get four samples."""
    height, width = inv.shape
    share = np.float32(1.0 / (samples * samples))
    sx, sy = _1 / lens[0], _1 / lens[1]
    for y in range(height):
        dy = (np.float32(y) - lens[3]) * sy
        for x in range(width):
            r = hit[y, x]
            if r >= 0:
                depth[y, x] = _1 / inv[y, x]
            free = 0
            for j in range(samples):
                for i in range(samples):
                    free += face[y * samples + j, x * samples + i] < 0
            if free == 0:
                continue
            weight = np.float32(free) * share
            dx = (np.float32(x) - lens[2]) * sx
            left, right = hit[y, max(x - 1, 0)], hit[y, min(x + 1, width - 1)]
            up, down = hit[max(y - 1, 0), x], hit[min(y + 1, height - 1), x]
            if left == r and right == r and up == r and down == r:
                if r >= 0:
                    cr, cg, cb = _room_colour(coefs, r, layout, texels, sx, sy, dx, dy)
                    image[y, x, 0] = weight * cr
                    image[y, x, 1] = weight * cg
                    image[y, x, 2] = weight * cb
                continue
            for s in range(4):
                ex = dx + (np.float32(-0.375) + _QUARTER * np.float32(s)) * sx
                ey = dy + _STAGGER[s] * sy
                found = _nearest(coefs, layout, texels, flags, r, left, right, up, down, ex, ey)
                if found >= 0:
                    cr, cg, cb = _room_colour(coefs, found, layout, texels, sx, sy, ex, ey)
                    image[y, x, 0] += _QUARTER * weight * cr
                    image[y, x, 1] += _QUARTER * weight * cg
                    image[y, x, 2] += _QUARTER * weight * cb


_STAGGER = np.array([0.125, -0.375, 0.375, -0.125], np.float32)


@nb.njit(**_INLINE)
def _nearest(coefs, layout, texels, flags, r, left, right, up, down, dx, dy):
    """Which of a pixel's and its neighbours' rectangles a ray meets first."""
    best, found = np.float32(1e-3), -1
    for k in range(5):
        n = r if k == 0 else left if k == 1 else right if k == 2 else up if k == 3 else down
        if n >= 0 and n != found:
            q = _hit(coefs, n, layout, texels, flags[n], dx, dy)
            if q > best:
                best, found = q, n
    return found if found >= 0 else r


@nb.njit(**_INLINE)
def _hit(c, r, layout, texels, flag, dx, dy):
    """1/z where the ray (dx, dy, 1) meets the rectangle, else 0."""
    q = c[r, 0, 0] * dx + c[r, 0, 1] * dy + c[r, 0, 2]
    u = c[r, 1, 0] * dx + c[r, 1, 1] * dy + c[r, 1, 2]
    v = c[r, 2, 0] * dx + c[r, 2, 1] * dy + c[r, 2, 2]
    if q <= _0 or u < _0 or v < _0 or u > q or v > q:
        return _0
    if flag & 2 and _alpha(texels, layout[r, 0, 0], layout[r, 0, 1], layout[r, 0, 2], u / q, v / q) < _HALF:
        return _0
    return q


@nb.njit(**_INLINE)
def _room_colour(c, r, layout, texels, sx, sy, dx, dy):
    """Bilinear sample at a mip level that fits the pixel's footprint."""
    inv = _1 / (c[r, 0, 0] * dx + c[r, 0, 1] * dy + c[r, 0, 2])
    u = (c[r, 1, 0] * dx + c[r, 1, 1] * dy + c[r, 1, 2]) * inv
    v = (c[r, 2, 0] * dx + c[r, 2, 1] * dy + c[r, 2, 2]) * inv
    h, w = np.float32(layout[r, 0, 1]) * inv, np.float32(layout[r, 0, 2]) * inv
    ux, uy = (c[r, 1, 0] - u * c[r, 0, 0]) * sx * w, (c[r, 1, 1] - u * c[r, 0, 1]) * sy * w
    vx, vy = (c[r, 2, 0] - v * c[r, 0, 0]) * sx * h, (c[r, 2, 1] - v * c[r, 0, 1]) * sy * h
    footprint = max(np.float32(0.75) * max(ux * ux + vx * vx, uy * uy + vy * vy), _1)
    return _sample_room(texels, layout, r, _HALF * _log2(footprint), u, v)


@nb.njit(**_INLINE)
def _log2(x):
    """log2 of a positive float32 from its bits, within 0.05: enough to choose a mip level."""
    return np.float32(np.float32(x).view(np.int32)) * np.float32(1.0 / 8388608.0) - np.float32(126.957)


@nb.njit(**_INLINE)
def _mip(levels, level):
    """Finer of two mip levels and the weight of the coarser one; most pixels need one level only."""
    top = levels - 1
    level = min(max(level, _0), np.float32(top))
    low = int(level)
    part = (level - np.float32(low)) * np.float32(1.8) - np.float32(0.4)
    if part >= _1:
        return low + 1, _0
    return low, max(part, _0) if low < top else _0


@nb.njit(**_INLINE)
def _sample_room(texels, layout, rect, level, u, v):
    low, part = _mip(layout.shape[1], level)
    r, g, b = _bilinear_room(texels, layout, rect, low, u, v)
    if part > _0:
        r2, g2, b2 = _bilinear_room(texels, layout, rect, low + 1, u, v)
        r, g, b = r + part * (r2 - r), g + part * (g2 - g), b + part * (b2 - b)
    return r, g, b


@nb.njit(**_INLINE)
def _bilinear_room(texels, layout, r, k, u, v):
    i00, i01, i10, i11, fx, fy = _taps(layout[r, k, 0], layout[r, k, 1], layout[r, k, 2], u, v)
    w11 = fx * fy
    w01, w10 = fx - w11, fy - w11
    w00 = _1 - fx - w10
    return (
        w00 * texels[i00, 0] + w01 * texels[i01, 0] + w10 * texels[i10, 0] + w11 * texels[i11, 0],
        w00 * texels[i00, 1] + w01 * texels[i01, 1] + w10 * texels[i10, 1] + w11 * texels[i11, 1],
        w00 * texels[i00, 2] + w01 * texels[i01, 2] + w10 * texels[i10, 2] + w11 * texels[i11, 2],
    )


@nb.njit(**_INLINE)
def _taps(offset, height, width, u, v):
    """Indices of the four texels around (u, v) and the fractions between them."""
    w, h = np.float32(width), np.float32(height)
    x, y = min(max(u * w - _HALF, _0), w - _1), min(max(v * h - _HALF, _0), h - _1)
    xi, yi = np.int32(x), np.int32(y)
    right, down = np.int32(xi + 1 < width), width if yi + 1 < height else np.int32(0)
    here = np.uint32(offset + yi * width + xi)
    below = np.uint32(here + np.uint32(down))
    return here, here + np.uint32(right), below, below + np.uint32(right), x - np.float32(xi), y - np.float32(yi)


@nb.njit(**_KERNEL)
def _bake(planes, layout, flags, lights, ambient, gain, bounds, texels):
    """Multiply every texel of every level by the light that arrives there."""
    for r in range(planes.shape[0]):
        p = planes[r]
        nx, ny, nz = p[4] * p[8] - p[5] * p[7], p[5] * p[6] - p[3] * p[8], p[3] * p[7] - p[4] * p[6]
        norm = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-20))
        mx, my, mz = p[0] + 0.5 * (p[3] + p[6]), p[1] + 0.5 * (p[4] + p[7]), p[2] + 0.5 * (p[5] + p[8])
        if nx * mx + ny * my + nz * (mz - 0.3) > 0:  # towards the place where face and camera are
            norm = -norm
        nx, ny, nz = nx * norm, ny * norm, nz * norm
        done = -1
        for k in range(layout.shape[1]):
            offset, height, width = layout[r, k, 0], layout[r, k, 1], layout[r, k, 2]
            if offset <= done:
                break
            done = offset
            for y in range(height):
                v = (y + np.float32(0.5)) / height
                for x in range(width):
                    u = (x + np.float32(0.5)) / width
                    i = offset + y * width + x
                    if flags[r] & 1:
                        for ch in range(3):
                            texels[i, ch] *= gain[ch]
                        continue
                    px, py, pz = p[0] + u * p[3] + v * p[6], p[1] + u * p[4] + v * p[7], p[2] + u * p[5] + v * p[8]
                    er, eg, eb = _irradiance(px, py, pz, nx, ny, nz, lights, ambient)
                    dark = _corner(px, py, pz, nx, ny, nz, bounds)
                    texels[i, 0] *= gain[0] * er * dark
                    texels[i, 1] *= gain[1] * eg * dark
                    texels[i, 2] *= gain[2] * eb * dark


@nb.njit(**_INLINE)
def _irradiance(px, py, pz, nx, ny, nz, lights, ambient):
    r = ambient[0, 0] + nx * ambient[1, 0] + ny * ambient[2, 0] + nz * ambient[3, 0]
    g = ambient[0, 1] + nx * ambient[1, 1] + ny * ambient[2, 1] + nz * ambient[3, 1]
    b = ambient[0, 2] + nx * ambient[1, 2] + ny * ambient[2, 2] + nz * ambient[3, 2]
    for k in range(lights.shape[0]):
        lx, ly, lz, fall = _towards(lights, k, px, py, pz)
        cosine = max(np.float32(0.15) + np.float32(0.85) * (nx * lx + ny * ly + nz * lz), np.float32(0.0)) * fall
        r += lights[k, 3] * cosine
        g += lights[k, 4] * cosine
        b += lights[k, 5] * cosine
    return max(r, np.float32(0.01)), max(g, np.float32(0.01)), max(b, np.float32(0.01))


@nb.njit(**_INLINE)
def _towards(lights, k, px, py, pz):
    """Unit vector to a light and its fall-off relative to the origin."""
    lx, ly, lz = lights[k, 0], lights[k, 1], lights[k, 2]
    fall = np.float32(1.0)
    if lights[k, 6] > 0:
        reference = lx * lx + ly * ly + lz * lz
        lx, ly, lz = lx - px, ly - py, lz - pz
        fall = reference / (lx * lx + ly * ly + lz * lz + np.float32(0.08))
        fall = min(fall, np.float32(3.0))
    norm = np.float32(1.0) / np.sqrt(lx * lx + ly * ly + lz * lz + np.float32(1e-12))
    return lx * norm, ly * norm, lz * norm, fall


@nb.njit(**_INLINE)
def _corner(px, py, pz, nx, ny, nz, bounds):
    """Darkening where a surface meets walls that run across it."""
    dark = np.float32(1.0)
    for axis in range(3):
        n = nx if axis == 0 else ny if axis == 1 else nz
        p = px if axis == 0 else py if axis == 1 else pz
        near = min(p - bounds[0, axis], bounds[1, axis] - p)
        reach = np.float32(0.55)
        if near < reach:
            fade = 1 - max(near, np.float32(0.0)) / reach
            dark *= 1 - (1 - n * n) * np.float32(0.42) * fade * fade
    return dark


# ---- kernels: meshes ---------------------------------------------------------------------------------------------


@nb.njit(**_INLINE)
def _sample_mesh(texels, layout, level, u, v):
    low, part = _mip(layout.shape[0], level)
    r, g, b, gloss = _bilinear_mesh(texels, layout, low, u, v)
    if part > _0:
        r2, g2, b2, gloss2 = _bilinear_mesh(texels, layout, low + 1, u, v)
        r, g, b, gloss = r + part * (r2 - r), g + part * (g2 - g), b + part * (b2 - b), gloss + part * (gloss2 - gloss)
    return r, g, b, gloss


@nb.njit(**_INLINE)
def _bilinear_mesh(texels, layout, k, u, v):
    i00, i01, i10, i11, fx, fy = _taps(layout[k, 0], layout[k, 1], layout[k, 2], u, v)
    w11 = fx * fy
    w01, w10 = fx - w11, fy - w11
    w00 = _1 - fx - w10
    return (
        w00 * texels[i00, 0] + w01 * texels[i01, 0] + w10 * texels[i10, 0] + w11 * texels[i11, 0],
        w00 * texels[i00, 1] + w01 * texels[i01, 1] + w10 * texels[i10, 1] + w11 * texels[i11, 1],
        w00 * texels[i00, 2] + w01 * texels[i01, 2] + w10 * texels[i10, 2] + w11 * texels[i11, 2],
        w00 * texels[i00, 4] + w01 * texels[i01, 4] + w10 * texels[i10, 4] + w11 * texels[i11, 4],
    )


@nb.njit(**_INLINE)
def _texel_scale(p, a, b, c, texel_count, samples, focal):
    """Of a triangle: texels a pixel on the screen (0 if degenerate), and texels a square metre over focal²."""
    area = abs((p[b, 0] - p[a, 0]) * (p[c, 1] - p[a, 1]) - (p[c, 0] - p[a, 0]) * (p[b, 1] - p[a, 1]))
    area = area / np.float32(samples * samples) + np.float32(1e-9)
    texture = abs((p[b, 9] - p[a, 9]) * (p[c, 10] - p[a, 10]) - (p[c, 9] - p[a, 9]) * (p[b, 10] - p[a, 10]))
    ux, uy, uz = p[b, 3] - p[a, 3], p[b, 4] - p[a, 4], p[b, 5] - p[a, 5]
    vx, vy, vz = p[c, 3] - p[a, 3], p[c, 4] - p[a, 4], p[c, 5] - p[a, 5]
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    frontal = np.sqrt(nx * nx + ny * ny + nz * nz) * focal * focal * np.float32(0.3) + np.float32(1e-9)
    texture *= texel_count
    return texture / area, texture / frontal


@nb.njit(**_INLINE)
def _lit(moments, frame, px, py, pz):
    """Share of the key light that reaches a point (Chebyshev's bound on the variance shadow map)."""
    n = moments.shape[0]
    x, y, z = px - frame[3, 0], py - frame[3, 1], pz - frame[3, 2]
    half, end = np.float32(n) * _HALF, np.float32(n) - np.float32(1.001)
    sx = (frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z + _1) * half - _HALF
    sy = (frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z + _1) * half - _HALF
    sz = frame[2, 0] * x + frame[2, 1] * y + frame[2, 2] * z - np.float32(0.012)
    sx, sy = min(max(sx, _0), end), min(max(sy, _0), end)
    xi, yi = np.uint32(sx), np.uint32(sy)
    xj, yj = xi + np.uint32(1), yi + np.uint32(1)
    fx, fy = sx - np.float32(xi), sy - np.float32(yi)
    w00, w01, w10, w11 = (_1 - fx) * (_1 - fy), fx * (_1 - fy), (_1 - fx) * fy, fx * fy
    m1 = w00 * moments[yi, xi, 0] + w01 * moments[yi, xj, 0] + w10 * moments[yj, xi, 0] + w11 * moments[yj, xj, 0]
    m2 = w00 * moments[yi, xi, 1] + w01 * moments[yi, xj, 1] + w10 * moments[yj, xi, 1] + w11 * moments[yj, xj, 1]
    if sz <= m1:
        return np.float32(1.0)
    variance = max(m2 - m1 * m1, np.float32(3e-4))
    bound = variance / (variance + (sz - m1) * (sz - m1))
    return min(max((bound - np.float32(0.25)) * np.float32(1.3333), np.float32(0.0)), np.float32(1.0))


@nb.njit(**_INLINE)
def _reflection(mirror, layout, texels, flags, origin, px, py, pz, roughness):
    """Room radiance in the mirror direction; the ray starts at the camera's mirror image, so t = 1 is the glass."""
    dx, dy, dz = px - origin[0], py - origin[1], pz - origin[2]
    best, found, bu, bv = np.float32(0.0), -1, np.float32(0.0), np.float32(0.0)
    for r in range(mirror.shape[0]):
        q = mirror[r, 0, 0] * dx + mirror[r, 0, 1] * dy + mirror[r, 0, 2] * dz
        if q <= best or q >= _1:
            continue
        u = mirror[r, 1, 0] * dx + mirror[r, 1, 1] * dy + mirror[r, 1, 2] * dz
        v = mirror[r, 2, 0] * dx + mirror[r, 2, 1] * dy + mirror[r, 2, 2] * dz
        if u < _0 or v < _0 or u > q or v > q:
            continue
        inv = _1 / q
        if flags[r] & 2 and _alpha(texels, layout[r, 0, 0], layout[r, 0, 1], layout[r, 0, 2], u * inv, v * inv) < _HALF:
            continue
        best, found, bu, bv = q, r, u * inv, v * inv
    if found < 0:
        return np.float32(0.0), np.float32(0.0), np.float32(0.0)
    return _sample_room(texels, layout, found, np.float32(1.5) + np.float32(6.0) * roughness, bu, bv)


@nb.njit(**_INLINE)
def _surface(
    px, py, pz, nx, ny, nz, ao, ar, ag, ab, rough, material, lights, wraps, ambient, key, frame, moments, centre
):
    """Outgoing radiance of a point from ambient light and lamps; diffuse with bleed, GGX highlight in two lobes.

    Source: GGX with the Schlick Fresnel term in Karis' visibility approximation (SIGGRAPH 2013 course notes);
    the wrapped terminator, widest in red, stands in for subsurface scattering (Green, GPU Gems ch. 16).
    """
    one, zero = np.float32(1.0), np.float32(0.0)
    vx, vy, vz = centre[0] - px, centre[1] - py, centre[2] - pz
    norm = one / np.sqrt(vx * vx + vy * vy + vz * vz)
    vx, vy, vz = vx * norm, vy * norm, vz * norm
    f0, sss = material[0], material[2]
    nv = max(nx * vx + ny * vy + nz * vz, np.float32(0.02))
    open_r = min(ao + sss * np.float32(0.45) * ao * (one - ao), one)
    dr = (ambient[0, 0] + nx * ambient[1, 0] + ny * ambient[2, 0] + nz * ambient[3, 0]) * open_r
    dg = (ambient[0, 1] + nx * ambient[1, 1] + ny * ambient[2, 1] + nz * ambient[3, 1]) * ao
    db = (ambient[0, 2] + nx * ambient[1, 2] + ny * ambient[2, 2] + nz * ambient[3, 2]) * ao
    dr, dg, db = max(dr, zero), max(dg, zero), max(db, zero)
    double = nv + nv
    rx, ry, rz = double * nx - vx, double * ny - vy, double * nz - vz
    grazing = one - nv
    rim = f0 + (max(one - rough, f0) - f0) * grazing * grazing * grazing * grazing * grazing
    rim *= ao * ao * (one - np.float32(0.35) * rough)
    sr = rim * max(ambient[0, 0] + rx * ambient[1, 0] + ry * ambient[2, 0] + rz * ambient[3, 0], zero)
    sg = rim * max(ambient[0, 1] + rx * ambient[1, 1] + ry * ambient[2, 1] + rz * ambient[3, 1], zero)
    sb = rim * max(ambient[0, 2] + rx * ambient[1, 2] + ry * ambient[2, 2] + rz * ambient[3, 2], zero)
    for k in range(lights.shape[0]):
        lx, ly, lz, fall = _towards(lights, k, px, py, pz)
        nl = nx * lx + ny * ly + nz * lz
        if nl < wraps[k, 6]:
            continue
        lit = fall
        bleed = fall
        if k == key:
            visible = _lit(moments, frame, px, py, pz)
            lit *= visible
            bleed *= visible + sss * np.float32(0.35) * visible * (one - visible)
        dr += lights[k, 3] * bleed * max((nl + wraps[k, 0]) * wraps[k, 3], zero)
        dg += lights[k, 4] * lit * max((nl + wraps[k, 1]) * wraps[k, 4], zero)
        db += lights[k, 5] * lit * max((nl + wraps[k, 2]) * wraps[k, 5], zero)
        if nl <= 0:
            continue
        hx, hy, hz = lx + vx, ly + vy, lz + vz
        norm = one / np.sqrt(hx * hx + hy * hy + hz * hz + np.float32(1e-12))
        nh = (nx * hx + ny * hy + nz * hz) * norm
        lh = max((lx * hx + ly * hy + lz * hz) * norm, np.float32(0.1))
        fresnel = one - lh
        fresnel = f0 + (one - f0) * fresnel * fresnel * fresnel * fresnel * fresnel
        wide = min(rough + np.float32(0.45) * lights[k, 7], one)
        lobe = _ggx(nh, lh, wide)
        if sss > 0:
            lobe = np.float32(0.8) * lobe + np.float32(0.2) * _ggx(nh, lh, np.float32(0.6) * wide)
        lobe *= fresnel * nl * lit
        sr += lights[k, 3] * lobe
        sg += lights[k, 4] * lobe
        sb += lights[k, 5] * lobe
    shine, base = material[3], material[4]
    return ar * (base * dr + shine) + sr, ag * (base * dg + shine) + sg, ab * (base * db + shine) + sb


@nb.njit(**_INLINE)
def _ggx(nh, lh, roughness):
    """GGX lobe times visibility times π, so that it adds to a diffuse term without its 1/π."""
    alpha = max(roughness * roughness, np.float32(0.02))
    square = alpha * alpha
    d = nh * nh * (square - np.float32(1.0)) + np.float32(1.0)
    return square / (d * d * max(np.float32(0.1), lh * lh) * (np.float32(4.0) * alpha + np.float32(2.0)))


@nb.njit(**_KERNEL)
def _shade_mesh(
    tag, bounds, samples, face, inv_z, p, triangles, texels, layout, material, object_id, lights, wraps, ambient, key,
    frame, moments, centre, lens, mirror, origin, room_texels, room_layout, room_flags, image, depth, object_ids, uv_out,
):  # fmt: skip
    """Add a mesh's share to every pixel it touches; p as `_packed` gives it."""
    if bounds[1] < bounds[0]:
        return
    total = samples * samples
    share = np.float32(1.0 / total)
    middle = np.float32(0.5 * (samples - 1))
    texel_count = np.float32(layout[0, 1] * layout[0, 2])
    mr, mg, mb, reflected, last = _0, _0, _0, -2, -1
    a, b, c, per_pixel, per_metre = 0, 0, 0, _0, _0
    low, high = tag, tag + (1 << _TRI_BITS)
    for y in range(bounds[2] // samples, bounds[3] // samples + 1):
        for x in range(bounds[0] // samples, bounds[1] // samples + 1):
            count, first = 0, -1
            qmin, qmax = np.float32(1e9), _0
            for j in range(samples):
                for i in range(samples):
                    f = face[y * samples + j, x * samples + i]
                    if f >= low and f < high:
                        count += 1
                        if first < 0 or j * samples + i == total // 2:
                            first = f
                        q = inv_z[y * samples + j, x * samples + i]
                        qmin, qmax = min(qmin, q), max(qmax, q)
            if count == 0:
                continue
            once = qmax - qmin < np.float32(0.02) * qmax
            for s in range(total):
                sj, si = s // samples, s % samples
                f = face[y * samples + sj, x * samples + si]
                if once:
                    f = first
                elif f < low or f >= high:
                    continue
                sx, sy = np.float32(x * samples) + middle, np.float32(y * samples) + middle
                if not once:
                    sx = np.float32(x * samples + si) + (_QUARTER if (y * samples + sj) & 1 else -_QUARTER)
                    sy = np.float32(y * samples + sj) + (-_QUARTER if (x * samples + si) & 1 else _QUARTER)
                weight = share * np.float32(count) if once else share
                t = f - low
                if t != last:
                    last = t
                    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                    per_pixel, per_metre = _texel_scale(p, a, b, c, texel_count, samples, lens[0])
                w0, w1, w2, q, front = _weights(p, a, b, c, sx, sy)
                px = w0 * p[a, 3] + w1 * p[b, 3] + w2 * p[c, 3]
                py = w0 * p[a, 4] + w1 * p[b, 4] + w2 * p[c, 4]
                pz = w0 * p[a, 5] + w1 * p[b, 5] + w2 * p[c, 5]
                nx = w0 * p[a, 6] + w1 * p[b, 6] + w2 * p[c, 6]
                ny = w0 * p[a, 7] + w1 * p[b, 7] + w2 * p[c, 7]
                nz = w0 * p[a, 8] + w1 * p[b, 8] + w2 * p[c, 8]
                norm = _1 / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
                if not front:
                    norm = -norm
                nx, ny, nz = nx * norm, ny * norm, nz * norm
                u = w0 * p[a, 9] + w1 * p[b, 9] + w2 * p[c, 9]
                v = w0 * p[a, 10] + w1 * p[b, 10] + w2 * p[c, 10]
                ao = w0 * p[a, 11] + w1 * p[b, 11] + w2 * p[c, 11]
                # at grazing angles the level is held back: texels a pixel as if seen at 0.3 of the frontal area
                covered = max(min(per_pixel, per_metre / (q * q)), np.float32(1e-3))
                level = _HALF * _log2(covered) - _QUARTER
                ar, ag, ab, rough = _sample_mesh(texels, layout, level, u, v)
                if rough < _0:
                    rough = material[1]
                cr, cg, cb = _surface(
                    px, py, pz, nx, ny, nz, ao, ar, ag, ab, rough, material, lights, wraps, ambient, key, frame,
                    moments, centre,
                )  # fmt: skip
                if mirror.shape[0] > 0:
                    if not once or x & 1 == 0 or reflected != x - 1:  # a reflection is smooth: every other pixel
                        mr, mg, mb = _reflection(
                            mirror, room_layout, room_texels, room_flags, origin, px, py, pz, rough
                        )
                    reflected = x
                    fresnel = _schlick(px, py, pz, nx, ny, nz, centre, material[0]) * material[5]
                    cr, cg, cb = cr + fresnel * mr, cg + fresnel * mg, cb + fresnel * mb
                image[y, x, 0] += weight * cr
                image[y, x, 1] += weight * cg
                image[y, x, 2] += weight * cb
                # the majority of the samples names the pixel; on a tie the nearer surface does
                if 2 * count >= total and (
                    q * depth[y, x] > _1 or (2 * count > total and object_ids[y, x] != object_id)
                ):
                    depth[y, x] = _1 / q
                    object_ids[y, x] = object_id
                    if uv_out.shape[0] > 0:
                        uv_out[y, x, 0] = u
                        uv_out[y, x, 1] = v
                if once:
                    break


@nb.njit(**_INLINE)
def _schlick(px, py, pz, nx, ny, nz, centre, f0):
    vx, vy, vz = centre[0] - px, centre[1] - py, centre[2] - pz
    cosine = abs(nx * vx + ny * vy + nz * vz) / np.sqrt(vx * vx + vy * vy + vz * vz)
    grazing = _1 - cosine
    square = grazing * grazing
    return f0 + (_1 - f0) * square * square * grazing


@nb.njit(**_INLINE)
def _weights(screen, a, b, c, x, y):
    """Perspective-correct weights at a sub-sample position, 1/z there, and whether the front is seen.

    A pixel is shaded at its centre, which may lie just outside the triangle: weights are held near 0..1."""
    x0, y0, q0 = screen[a, 0], screen[a, 1], screen[a, 2]
    x1, y1, q1 = screen[b, 0] - x0, screen[b, 1] - y0, screen[b, 2]
    x2, y2, q2 = screen[c, 0] - x0, screen[c, 1] - y0, screen[c, 2]
    area = x1 * y2 - x2 * y1
    inv = np.float32(1.0) / area
    px, py = x - x0, y - y0
    w1 = min(max((px * y2 - x2 * py) * inv, np.float32(-0.4)), np.float32(1.4))
    w2 = min(max((x1 * py - px * y1) * inv, np.float32(-0.4)), np.float32(1.4))
    w0 = min(max(np.float32(1.0) - w1 - w2, np.float32(-0.4)), np.float32(1.4))
    total = w0 + w1 + w2
    w0, w1, w2 = w0 * q0, w1 * q1, w2 * q2
    q = w0 + w1 + w2
    inv = np.float32(1.0) / q
    return w0 * inv, w1 * inv, w2 * inv, q / total, area < _0
