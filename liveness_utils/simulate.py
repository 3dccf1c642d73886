"""Simulator: people, instruments, rooms and phones become clips with their truth and a manifest.

Way of the data: plan (who, what, where, with which phone) -> film (render, then sensor) -> IMU -> clip on disk.
Clip k of seed s depends on k, s and the profile alone, so that any number of workers gives the same truth.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from liveness_utils import instruments as pai
from liveness_utils import motion, scenes, sensor
from liveness_utils.clips import (
    EXPRESSION_NAMES,
    Clip,
    Imu,
    Intrinsics,
    Truth,
    clip_id_for,
    write_clip,
    write_manifest,
)
from liveness_utils.config import SPLITS, Profile, portraits_dir, profile, write_json
from liveness_utils.devices import DEVICES, DeviceProfile, draw_imu_offset, frame_times
from liveness_utils.errors import SimulationError
from liveness_utils.faces import Face, build_face, landmark_table, sample_identity
from liveness_utils.head_model import REGIONS, one_blas_thread
from liveness_utils.render import BEZEL, SKIN, Material, Mesh, Texture, light_room, make_texture, project, render

GENERATOR_VERSION = 5
FRAME_PX = 256
MARGIN = 8
TRUTH_PX = 64
INTEROCULAR = 0.063  # metres, adult median (Dodgson 2004, doi 10.1117/12.529999)
EYE_CORNERS = (33, 133, 362, 263)
_MIDDLE = (0.0, -0.03, -0.09)  # of a head, metres in its frame, whose origin lies between the eyes
_GAP = 0.003  # metres between a mask and the skin under it
_SKIN_REGIONS = (REGIONS.index("head"),)
_LIP_LINE = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)  # inner rim of the upper lip
CHEEK_POINTS = (50, 280, 101, 330, 116, 345)

# The one table of the mix: how motions, forgeries and numbered things fall on classes and splits.
# It is the same for every class, so that neither motion nor place nor phone is a label.
MOTION_MIX = {"stand": 3, "hold_still": 4, "natural": 5, "sweep": 6, "walking": 2}
LIGHT_KINDS = tuple(scenes.LIGHTS)
_TRAIN_DEVICES = ("flagship_a", "flagship_b", "midrange_a", "midrange_b", "budget_a", "web_a", "rear_a")
_TRAIN_POOL = {"devices": _TRAIN_DEVICES, "instruments": tuple(range(0, 10)), "scenes": (0, 60)}
POOLS = {
    "train": _TRAIN_POOL,
    "validation": _TRAIN_POOL,
    "dev": {"devices": ("flagship_c", "midrange_c", "budget_b"), "instruments": (10, 11, 12), "scenes": (60, 80)},
    "test": {"devices": ("midrange_d", "web_b", "rear_b"), "instruments": (13, 14, 15), "scenes": (80, 120)},
}
CROPPED = (1.2, 1.55)  # an attacker cuts the victim's picture to the face, or zooms in
BEHIND_SHEET = 0.35  # of the light around reaches the eyes behind the holes of a sheet that is worn
FURTHER = 100_000  # people, scenes and clips that are in no data set of clips are numbered from here
GROUP = 4  # subjects that appear in each other's clips (numbers mean nothing, so any four will do)
CONTROL_SHARE = 1 / 6  # further test clips made with devices, instruments and scenes of the training pool
FOLLOW_SHARE = 0.5  # of faces that turn with the phone, with a gain between 0 and 1


@dataclass(frozen=True)
class ClipSpec:
    """Everything that is decided about a clip before a pixel is drawn.

    `changes` is empty in a plan; `redteam` sets it to see what one of an attacker's choices is worth: a field of
    the instrument with its value, ``distance`` (factor) or ``imu_truth`` (share of the true motion in a forged IMU).
    `photos` is the folder of portraits that the people's faces are lifted from, "" where they are painted.
    """

    clip_id: str
    number: int
    seed: int
    split: str
    control: bool
    species: str
    subject: int
    other: int
    instrument: int
    device: str
    capture_device: str
    scene: int
    capture_scene: int
    light: str
    capture_light: str
    motion_kind: str
    follow_gain: float
    changes: tuple[tuple[str, float], ...] = ()
    photos: str = ""


# ---------------------------------------------------------------- plan


def plan(what: Profile | str, seed: int = 0, photos: str | Path | None = None) -> list[ClipSpec]:
    """Decide every clip of a data set.

    Args:
        what: a profile or its name.
        seed: of the data set.
        photos: folder of portraits that the people of every second group are lifted from; None takes
            `config.portraits_dir`, "" paints everybody. Nothing else of the plan depends on it.

    Returns:
        One spec a clip, in an order that tells nothing of the label.

    >>> specs = plan("quick", 0)
    >>> len({s.clip_id for s in specs}) == len(specs)
    True
    """
    sizes = profile(what) if isinstance(what, str) else what
    rng = np.random.default_rng([seed, 7001])
    drafts = [d for split in SPLITS for d in _split_drafts(sizes, split, rng)]
    order = rng.permutation(len(drafts))
    folder = str((portraits_dir() or "") if photos is None else photos)
    specs = [_numbered(drafts[j], k, seed) for k, j in enumerate(order)]
    return [replace(s, photos=folder if s.subject // GROUP % 2 else "") for s in specs] if folder else specs


def _numbered(draft: dict, number: int, seed: int) -> ClipSpec:
    return ClipSpec(clip_id=clip_id_for("simulated", seed, number), number=number, seed=seed, **draft)


def _split_drafts(sizes: Profile, split: str, rng: np.random.Generator) -> Iterator[dict]:
    subjects, bona_fide, attacks = sizes.split_sizes(split)
    first = sum(sizes.split_sizes(s)[0] for s in SPLITS[: SPLITS.index(split)])
    people = first + np.arange(subjects)
    for species in pai.SPECIES:
        count = bona_fide if species == "bona_fide" else attacks
        yield from _species_drafts(split, species, count, people, rng, control=False)
        if split == "test":
            yield from _species_drafts(split, species, round(count * CONTROL_SHARE), people, rng, control=True)


def _species_drafts(split, species, count, people, rng, *, control) -> Iterator[dict]:
    pool = POOLS["train" if control else split]
    motions = _cycle([m for m, n in MOTION_MIX.items() for _ in range(n)], count, rng)
    lights = _cycle(LIGHT_KINDS, count, rng)
    lights_of_capture = _cycle(LIGHT_KINDS, count, rng)
    subjects = _cycle(people, count, rng)
    tools = _cycle(pool["instruments"], count, rng)
    devices = _cycle(pool["devices"], count, rng)
    for k in range(count):
        others = [d for d in pool["devices"] if d != devices[k]]
        yield {
            "split": split,
            "control": control,
            "species": species,
            "subject": int(subjects[k]),
            "other": _other(people, int(subjects[k]), rng),
            "instrument": -1 if species == "bona_fide" else int(tools[k]),
            "device": devices[k],
            "capture_device": str(rng.choice(others)),
            "scene": _scene(pool["scenes"], lights[k], rng),
            "capture_scene": _scene(pool["scenes"], lights_of_capture[k], rng),
            "light": str(lights[k]),
            "capture_light": str(lights_of_capture[k]),
            "motion_kind": str(motions[k]),
            "follow_gain": float(rng.uniform(0.05, 1.0)) if rng.random() < FOLLOW_SHARE else 0.0,
        }


def _other(people: np.ndarray, subject: int, rng: np.random.Generator) -> int:
    """Who wears or holds the instrument: another one of the subject's group."""
    group = people[_group_of(people) == _group_of(people)[subject - people[0]]]
    return int(rng.choice(group[group != subject]))


def _group_of(people: np.ndarray) -> np.ndarray:
    """Groups of four or more in a split, from 0: a worker makes a group's clips and builds each face once."""
    last = max(len(people) // GROUP - 1, 0)
    return np.minimum(np.arange(len(people)) // GROUP, last)


def _scene(numbers: tuple[int, int], light: str, rng: np.random.Generator) -> int:
    """A room of the pool in which such a light can be."""
    fitting = [n for n in range(*numbers) if scenes.fits(_scene_kind(n), light)]
    return int(rng.choice(fitting))


def lights_for(scene: int) -> list[str]:
    """Kinds of light that can be in a room."""
    return [light for light in LIGHT_KINDS if scenes.fits(_scene_kind(scene), light)]


@lru_cache(maxsize=512)
def _scene_kind(scene: int) -> str:
    return scenes.draw_kind(np.random.default_rng([17, scene]))


def _cycle(values: Sequence, count: int, rng: np.random.Generator) -> list:
    """`count` values in which each of `values` comes as equally often as can be, in random order."""
    if not count:
        return []
    rounds = [rng.permutation(len(values)) for _ in range(-(-count // len(values)))]
    return [values[j] for j in np.concatenate(rounds)[:count]]


# ---------------------------------------------------------------- people, rooms, cameras


@lru_cache(maxsize=GROUP + 4)
def person(seed: int, subject: int, photos: str = "") -> Face:
    """The face of subject number `subject` of data set `seed`; cached, since subjects come in several clips.

    With a folder of `photos` it is lifted from one of them, see `portrait_of`.
    """
    if found := portrait_of(subject, photos):
        from liveness_utils import face_photo

        return face_photo.lift_portrait(found)
    return build_face(sample_identity(np.random.default_rng([seed, 11, subject]), **_covariates(seed, subject)))


def portrait_of(subject: int, photos: str):
    """The portrait that a person of `plan`'s every second group is lifted from, or None: nobody shares one.

    Two in three portraits are for the people of clips, the others for those of single pictures, who are numbered from
    FURTHER and come by the thousand: these take them in turn. Where clips have more people than portraits, the rest
    is painted, so that no face is in two splits.
    """
    if not photos:
        return None
    from liveness_utils import face_photo

    found = face_photo.portraits(photos)
    if subject >= FURTHER:
        mine = found[2::3] or found
        return mine[subject % len(mine)]
    mine = [p for k, p in enumerate(found) if k % 3 < 2]
    rank = subject // (2 * GROUP) * GROUP + subject % GROUP
    return mine[rank] if rank < len(mine) else None


def _covariates(seed: int, subject: int) -> dict:
    """Skin tones in turn, so that all ten are there in every split; the rest is drawn freely."""
    shuffle = np.random.default_rng([seed, 13, subject // 10]).permutation(10)
    return {"monk": int(shuffle[subject % 10]) + 1}


@lru_cache(maxsize=12)
def _skin_texture(seed: int, subject: int, photos: str = "") -> Texture:
    face = person(seed, subject, photos)
    return make_texture(face.albedo, gloss=face.gloss)


@lru_cache(maxsize=40)
def _room(scene: int):
    return scenes.sample_room(np.random.default_rng([17, scene]))


@dataclass(frozen=True)
class Stage:
    """A lit room: what stands behind the face and what light falls on it."""

    room: object
    lighting: object
    scene_id: str


def stage(scene: int, light: str, rng: np.random.Generator) -> Stage:
    """Room number `scene` under a light of kind `light`."""
    lighting = scenes.lighting(light, rng)
    return Stage(light_room(_room(scene), lighting), lighting, f"scene-{scene:03d}")


@dataclass(frozen=True)
class Shot:
    """A camera with its way through the room and the frame times it was given."""

    device: DeviceProfile
    trajectory: object
    intrinsics: Intrinsics
    t: np.ndarray
    poses: np.ndarray


def lens(device: DeviceProfile, rng: np.random.Generator, width: int = FRAME_PX, height: int = FRAME_PX) -> Intrinsics:
    """Intrinsics of one unit of a device for a frame of this size."""
    focal = device.sensor.focal_px_256 * min(width, height) / 256 * float(rng.normal(1.0, 0.01))
    cx, cy = (width - 1) / 2 + rng.normal(0, 0.8), (height - 1) / 2 + rng.normal(0, 0.8)
    return Intrinsics(width, height, focal, focal, float(cx), float(cy))


def _frame_times(device: DeviceProfile, rng: np.random.Generator) -> np.ndarray:
    """Stored on a grid of microseconds, as a video file keeps them."""
    return np.round(frame_times(device, rng), 6)


# ---------------------------------------------------------------- what is presented


@dataclass(frozen=True)
class Actor:
    """A person in motion: face, head poses (N, 4, 4), expression (N, 52) and gaze (N, 2)."""

    face: Face
    texture: Texture
    poses: np.ndarray
    expression: np.ndarray
    gaze: np.ndarray
    material: Material = SKIN
    object_id: int = 1
    daylight: float = 1.0  # share of the surrounding light that reaches the face

    def local(self, i: int) -> np.ndarray:
        return self.face.vertices(self.expression[i], self.gaze[i])

    def show(self, i: int) -> tuple[list[Mesh], np.ndarray]:
        """Meshes of frame i and its landmarks (478, 3), both in the world."""
        vertices = _moved(self.local(i), self.poses[i])
        return [self._mesh(vertices)], self.face.landmarks(vertices)

    def _mesh(self, vertices: np.ndarray) -> Mesh:
        face = self.face
        return Mesh(
            vertices, face.triangles, face.uv, self.texture, self.material, self.object_id,
            weld=face.weld, occlusion=face.occlusion * np.float32(self.daylight),
        )  # fmt: skip

    def finish(self, image, rendered, t, exposure) -> None:
        """A living face needs no optics of its own."""


def _moved(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    return (points @ pose[:3, :3].T.astype(np.float32) + pose[:3, 3].astype(np.float32)).astype(np.float32)


def _act(
    spec: ClipSpec, subject: int, t: np.ndarray, rng, camera, *, gain: float = 0.0, kind: str | None = None
) -> Actor:
    """A person who moves, blinks, speaks and looks around, perhaps turning with the phone that films."""
    poses = motion.head_trajectory(rng, kind, follow=camera, gain=gain).pose(t)
    expression = motion.expression_timeline(rng, t).weights
    looks_at_phone = rng.random() < 0.7
    gaze = motion.gaze_timeline(rng, t, motion.gaze_target(poses, camera.pose(t)) if looks_at_phone else None)
    who = (spec.seed, subject, spec.photos)
    return Actor(person(*who), _skin_texture(*who), poses, expression, gaze)


@dataclass(frozen=True)
class Picture:
    """What a victim's picture or video holds: frames (N, h, w, 3) uint8, landmarks (N, 478, 2) px, expression (N, 52)."""

    frames: np.ndarray
    landmarks: np.ndarray
    expression: np.ndarray
    t: np.ndarray

    def eyes(self) -> tuple[np.ndarray, float]:
        """Midpoint of the eyes (2,) and their distance, in pixels of the first frame."""
        corners = self.landmarks[0][list(EYE_CORNERS)]
        right, left = corners[:2].mean(0), corners[2:].mean(0)
        return (right + left) / 2, float(np.linalg.norm(left - right))

    def at(self, t: float) -> int:
        """Frame that is on the screen at time t; a video plays in a loop."""
        return int(np.searchsorted(self.t, t % max(self.t[-1], 1e-9), side="right") - 1) if len(self.t) > 1 else 0


def photograph(spec: ClipSpec, rng: np.random.Generator, width: int, height: int, *, video: bool) -> Picture:
    """Capture the victim with the other camera, in another room, light and pose.

    Args:
        spec: names victim, capture device, scene and light.
        rng: of this clip.
        width, height: of the picture, px.
        video: a sequence of 2.5 s instead of one picture.
    """
    device = DEVICES[spec.capture_device]
    t = _frame_times(device, rng) if video else np.zeros(1)
    distance = rng.uniform(0.30, 0.45)
    camera = motion.camera_trajectory(str(rng.choice(["hold_still", "natural"])), rng, distance)
    poses = camera.pose(t)
    victim = _act(spec, spec.subject, t, rng, camera, kind=None if video else "calm")
    if not video:
        victim = replace(victim, expression=_posed(rng))
    cut = _cropped(lens(device, rng, width, height), rng.uniform(*CROPPED), victim.poses, poses)
    shot = Shot(device, camera, cut, t, poses)
    film = shoot(shot, stage(spec.capture_scene, spec.capture_light, rng), victim, rng, truth=False)
    return Picture(film.frames, film.landmarks, victim.expression, t)


def _cropped(whole: Intrinsics, zoom: float, heads: np.ndarray, cameras: np.ndarray) -> Intrinsics:
    """Lens of a picture that was cut to `1 / zoom` of its sides about where the head mostly is."""
    places = [project(head[None, :3, 3], whole, camera)[0][0] for head, camera in zip(heads, cameras, strict=True)]
    away = np.mean(places, axis=0) - (whole.cx, whole.cy)
    middle = (np.array([whole.width, whole.height]) - 1) / 2 - zoom * away
    return replace(whole, fx=zoom * whole.fx, fy=zoom * whole.fy, cx=float(middle[0]), cy=float(middle[1]))


def _posed(rng: np.random.Generator) -> np.ndarray:
    """People open their eyes and often smile for a photograph."""
    weights = np.zeros((1, len(EXPRESSION_NAMES)), np.float32)
    smile = rng.uniform(0.0, 0.6) if rng.random() < 0.5 else 0.0
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        weights[0, EXPRESSION_NAMES.index(name)] = smile
    return weights


@dataclass(frozen=True)
class Surface:
    """A sheet or a screen that shows a picture.

    poses (N, 4, 4) hold the midpoint of the shown eyes; `shape(i)` gives radius and axis of the bend.
    """

    picture: Picture
    tool: pai.PrintInstrument | pai.ScreenInstrument
    textures: tuple[Texture, ...]
    material: Material
    poses: np.ndarray
    times: np.ndarray
    radius: np.ndarray
    extras: tuple[Callable[[int], list[Mesh]], ...]
    wearer: Actor | None
    focus: float
    readout: float
    object_id: int = 2

    @property
    def expression(self) -> np.ndarray:
        return self.picture.expression[[self.picture.at(t) for t in self.times]]

    def _axis(self) -> float:
        return getattr(self.tool, "bend_axis", 0.0)

    def _origin(self, i: int) -> np.ndarray:
        middle, _ = self.picture.eyes()
        return self._on_sheet(middle[None], i)[0]

    def _on_sheet(self, px: np.ndarray, i: int) -> np.ndarray:
        height, width = self.picture.frames.shape[1:3]
        flat = (px / (width - 1, height - 1) - 0.5) * (self.tool.width, -self.tool.height)
        return pai.bend(flat, self.radius[i], self._axis())

    def place(self, points: np.ndarray, i: int) -> np.ndarray:
        """Sheet coordinates (x right, y up, z out, origin at the sheet's centre) to the world."""
        return _moved(points - self._origin(i), self.poses[i])

    def show(self, i: int) -> tuple[list[Mesh], np.ndarray]:
        """Meshes of frame i and the landmarks (478, 3) of the shown face, both in the world."""
        vertices, triangles, uv = _sheet(self.tool.width, self.tool.height, float(self.radius[i]), self._axis())
        texture = self.textures[self.picture.at(self.times[i]) if len(self.textures) > 1 else 0]
        shown = Mesh(
            self.place(vertices, i), triangles, uv, texture, self.material, self.object_id,
            two_sided=isinstance(self.tool, pai.PrintInstrument),
        )  # fmt: skip
        worn = self.wearer.show(i)[0] if self.wearer else []
        marks = self.place(self._on_sheet(self.picture.landmarks[self.picture.at(self.times[i])], i), i)
        return [shown, *worn, *(mesh for extra in self.extras for mesh in extra(i))], marks

    def finish(self, image, rendered, t, exposure) -> None:
        """Add what depends on the camera's pixel grid: moiré and bands of a screen, rosettes of a print."""
        mask = rendered.object_id == self.object_id
        if isinstance(self.tool, pai.ScreenInstrument):
            pai.pixel_grid(
                image, mask, rendered.uv, self.tool, t=t, exposure=exposure, readout=self.readout, focus=self.focus
            )
        else:
            pai.halftone(image, mask, rendered.uv, self.tool, focus=self.focus)


@lru_cache(maxsize=64)
def _sheet(width: float, height: float, radius: float, axis: float):
    return pai.sheet(width, height, radius=radius, axis=axis, cells=1 if np.isinf(radius) else 20)


def _present_print(spec: ClipSpec, t: np.ndarray, rng, camera) -> Surface:
    tool = _tool(spec)
    height = 400
    picture = photograph(spec, rng, int(round(height * tool.width / tool.height)), height, video=False)
    wearer = None
    if spec.species == "eye_hole_print":
        wearer = replace(_act(spec, spec.other, t, rng, camera, gain=spec.follow_gain), daylight=BEHIND_SHEET)
        tool = _fitted(tool, picture, wearer)
    texture = make_texture(pai.print_texture(picture.frames[0], tool, rng), alpha=_holes(picture, tool, spec))
    material = Material(specular=0.03 + 0.02 * tool.specular, roughness=tool.roughness, mirror=0.6 * tool.specular**2)
    radius = _bend_over_time(tool, t, rng)
    hand = motion.hand_trajectory(rng, follow=camera)
    poses = _worn_poses(wearer) if wearer else hand.pose(t)
    hands = () if wearer else _hands(tool, hand, spec, rng)
    surface = Surface(
        picture, tool, (texture,), material, poses, t, radius, (), wearer, float(rng.uniform(0.2, 1.0)), 0.0
    )
    return replace(surface, extras=tuple(_fixed_to(surface, hand) for hand in hands))


def _fitted(tool: pai.PrintInstrument, picture: Picture, wearer: Actor) -> pai.PrintInstrument:
    """Scale a print so that the shown eyes lie over the wearer's."""
    corners = wearer.face.landmarks(wearer.local(0))[list(EYE_CORNERS)]
    real = np.linalg.norm(corners[2:].mean(0) - corners[:2].mean(0))
    shown = picture.eyes()[1] * tool.width / picture.frames.shape[2]
    return replace(tool, width=float(tool.width * real / shown), height=float(tool.height * real / shown))


def _holes(picture: Picture, tool: pai.PrintInstrument, spec: ClipSpec) -> np.ndarray | None:
    """Alpha of the sheet: ellipses over the eyes are cut out of an eye-hole print."""
    if spec.species != "eye_hole_print":
        return None
    alpha = np.ones(picture.frames.shape[1:3], np.float32)
    corners = picture.landmarks[0][list(EYE_CORNERS)]
    for a, b in (corners[:2], corners[2:]):
        half = np.linalg.norm(b - a) / 2 * 1.15 * tool.hole_scale
        angle = np.degrees(np.arctan2(*(b - a)[::-1]))
        centre = tuple(int(round(x)) for x in (a + b) / 2)
        cv2.ellipse(alpha, centre, (int(round(half)), int(round(half * 0.55))), angle, 0, 360, 0.0, -1)
    return alpha


def _bend_over_time(tool: pai.PrintInstrument, t: np.ndarray, rng) -> np.ndarray:
    """Radius (N,) of the sheet: hands flex it a little, about once a second."""
    if not np.isfinite(tool.bend_radius):
        return np.full(len(t), np.inf)
    swing = tool.flex * np.sin(2 * np.pi * rng.uniform(0.5, 1.3) * t + rng.uniform(0, 6.28))
    return tool.bend_radius / (1.0 + swing)


def _worn_poses(wearer: Actor) -> np.ndarray:
    """A print before a face touches the tip of the nose."""
    nose = wearer.face.neutral
    front = nose[(np.abs(nose[:, 0]) < 0.02) & (np.abs(nose[:, 1] + 0.03) < 0.04), 2].max()
    shift = np.eye(4)
    shift[2, 3] = front + 0.002
    return wearer.poses @ shift


def _present_screen(spec: ClipSpec, t: np.ndarray, rng, camera, *, lux: float, readout: float) -> Surface:
    tool = _tool(spec)
    height = 320  # about what a camera of 256 px can still resolve of it
    portrait = tool.height > tool.width
    width = int(round(height * (tool.width / tool.height if portrait else 0.75)))
    picture = photograph(spec, rng, width, height, video=spec.species == "video_replay")
    picture = picture if portrait else _letterboxed(picture, int(round(height * tool.width / tool.height)))
    textures = tuple(make_texture(pai.screen_texture(frame, tool, lux), levels=3) for frame in picture.frames)
    glossy = tool.roughness < 0.1
    material = Material(
        specular=tool.reflectance, roughness=tool.roughness, emission=1.0, diffuse=0.015, mirror=float(glossy)
    )
    hand = motion.hand_trajectory(rng, follow=camera)
    surface = Surface(
        picture, tool, textures, material, hand.pose(t), t, np.full(len(t), np.inf), (), None,
        float(rng.uniform(0.15, 1.0)), readout,
    )  # fmt: skip
    frame = _bezel(tool)
    hands = [] if tool.width > 0.25 else _hands(tool, hand, spec, rng)
    return replace(surface, extras=tuple(_fixed_to(surface, part) for part in (frame, *hands)))


def _letterboxed(picture: Picture, width: int) -> Picture:
    """A portrait video in the middle of a landscape screen."""
    n, height, inner = picture.frames.shape[:3]
    left = (width - inner) // 2
    frames = np.full((n, height, width, 3), 18, np.uint8)
    frames[:, :, left : left + inner] = picture.frames
    return replace(picture, frames=frames, landmarks=picture.landmarks + (left, 0))


# A part is (vertices in sheet coordinates, triangles, uv, texture, material)
_Part = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Material]


def _fixed_to(surface: Surface, part: _Part) -> Callable[[int], list[Mesh]]:
    vertices, triangles, uv, texture, material = part
    packed = make_texture(texture, levels=2)

    def meshes(i: int) -> list[Mesh]:
        return [Mesh(surface.place(vertices, i), triangles, uv, packed, material, 3)]

    return meshes


def _bezel(tool: pai.ScreenInstrument) -> _Part:
    """Frame round a screen, a little behind its surface so that the picture lies in front."""
    width, height = tool.width + 2 * tool.bezel, tool.height + 2 * tool.bezel
    vertices, triangles, uv = pai.sheet(width, height, cells=1)
    colour = np.full((4, 4, 3), tool.bezel_colour, np.float32)
    return vertices - (0, 0, 0.0008), triangles, uv, colour, BEZEL


def _hands(tool, hand: motion.Trajectory, spec: ClipSpec, rng: np.random.Generator) -> list[_Part]:
    """Thumbs that hold an instrument at its lower corners or sides; none where it leans on something."""
    if hand.kind == "fixed":
        return []
    skin = _hand_colour(spec, rng)
    parts = []
    for side in (-1.0, 1.0):
        if rng.random() < 0.75:
            x = side * tool.width * rng.uniform(0.40, 0.50)
            y = -tool.height * rng.uniform(0.30, 0.52)
            parts.append(_thumb(np.array([x, y, 0.004]), side, skin, rng))
    return parts


def _hand_colour(spec: ClipSpec, rng: np.random.Generator) -> np.ndarray:
    face = person(spec.seed, spec.other, spec.photos)
    x, y = (_landmark_uv(face)[list(CHEEK_POINTS)] * (face.albedo.shape[0] - 1)).round().astype(int).T
    colour = np.median(face.albedo[y, x], axis=0)
    texture = colour * np.exp(rng.normal(0, 0.05, (16, 16, 1)))
    return np.clip(cv2.GaussianBlur(texture.astype(np.float32), (0, 0), 1.0), 0.01, 0.95)


def _thumb(tip: np.ndarray, side: float, skin: np.ndarray, rng: np.random.Generator) -> _Part:
    """A capsule from outside the edge to its tip on the surface."""
    n, m = 10, 12
    along, round_ = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 2 * np.pi, m + 1))
    radius = 0.0095 * np.sqrt(np.clip(1 - np.clip((along - 0.75) / 0.25, 0, 1) ** 2, 0, 1)) + 1e-4
    direction = np.array([-side * np.cos(a := rng.uniform(0.2, 1.1)), np.sin(a), 0.0])
    across, out = np.array([-direction[1], direction[0], 0.0]), np.array([0.0, 0.0, 1.0])
    length = 0.065
    points = (
        tip
        + (along[..., None] - 1) * length * direction
        + radius[..., None] * (np.cos(round_)[..., None] * across + 0.8 * np.sin(round_)[..., None] * out)
    )
    k = (np.arange(m)[:, None] * n + np.arange(n - 1)).ravel()
    triangles = np.concatenate([np.stack([k, k + n, k + 1], 1), np.stack([k + 1, k + n, k + n + 1], 1)])
    uv = np.stack([along.ravel(), round_.ravel() / 6.2832], 1)
    vertices = points.reshape(-1, 3).astype(np.float32)
    triangles = triangles if _faces_out(vertices, triangles) else triangles[:, ::-1]
    return vertices, np.ascontiguousarray(triangles, np.int32), uv.astype(np.float32), skin, SKIN


def _faces_out(vertices: np.ndarray, triangles: np.ndarray) -> bool:
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    centre = vertices.mean(0)
    return float((np.cross(b - a, c - a) * (a - centre)).sum()) > 0


@dataclass(frozen=True)
class Masked:
    """A wearer under a mask made from the victim's face."""

    wearer: Actor
    mask: Actor
    covers: np.ndarray | None  # triangles of the mask, None for a full hood
    shell: np.ndarray | None  # vertices of a rigid mask in the head frame
    pressed: np.ndarray | None  # vertices of the wearer that lie under a rigid mask
    out: np.ndarray | None  # their directions away from the middle of the head, (P, 3)
    bare: np.ndarray | None  # triangles of the wearer that it does not hide
    skin: np.ndarray | float = 0.0  # (V, 3) thickness of a soft mask in the head frame, none in its openings
    object_id: int = 2

    @property
    def poses(self) -> np.ndarray:
        return self.wearer.poses

    @property
    def expression(self) -> np.ndarray:
        return self.mask.expression

    def local(self, i: int) -> np.ndarray:
        return self.shell if self.shell is not None else self.mask.local(i) + self.skin

    def show(self, i: int) -> tuple[list[Mesh], np.ndarray]:
        """Meshes of frame i and the landmarks (478, 3) of the mask, both in the world."""
        face = self.mask.face
        vertices = _moved(self.local(i), self.poses[i])
        triangles = face.triangles if self.covers is None else self.covers
        mask = Mesh(
            vertices, triangles, face.uv, self.mask.texture, self.mask.material, self.object_id,
            weld=face.weld, occlusion=face.occlusion, two_sided=self.covers is not None,
        )  # fmt: skip
        return [mask, *([] if self.covers is None else [self._worn(i)])], face.landmarks(vertices)

    def _worn(self, i: int) -> Mesh:
        """What is seen of the wearer: all but the face under the shell, which gives way round the openings."""
        points = self.wearer.local(i)
        at, out = self.pressed, self.out
        gap = ((self.shell[at] - points[at]) * out).sum(1)
        points[at] -= np.clip(_GAP - gap, 0, 0.05)[:, None] * out
        return replace(self.wearer._mesh(_moved(points, self.poses[i])), triangles=self.bare)

    def finish(self, image, rendered, t, exposure) -> None:
        """A mask needs no optics of its own."""


def _present_mask(spec: ClipSpec, t: np.ndarray, rng, camera) -> Masked:
    tool = _tool(spec)
    wearer = _act(spec, spec.other, t, rng, camera, gain=spec.follow_gain)
    victim = person(spec.seed, spec.subject, spec.photos)
    rigid = spec.species == "rigid_mask"
    covers, shell = _shell(victim, wearer.face, tool) if rigid else (None, None)
    colour, open_ = _mask_albedo(victim, tool, rng), _eye_openings(victim, tool)
    if not rigid:
        open_ = np.minimum(open_, _mouth_opening(victim, tool))
        colour = _seen_through(colour, wearer.face.albedo, open_, tool)
    texture = make_texture(colour, alpha=open_ if rigid else None)
    material = Material(specular=0.03 + 0.03 * tool.specular, roughness=tool.roughness, sss=tool.sss)
    expression = _damped(wearer.expression, tool.damping)
    mask = replace(wearer, face=victim, texture=texture, expression=expression, material=material)
    if rigid:
        return Masked(wearer, mask, covers, shell, *_under(victim, wearer.face, covers, open_))
    return Masked(wearer, mask, None, None, None, None, None, _thickness(victim, tool, open_))


def _under(victim: Face, wearer: Face, covers: np.ndarray, cover: np.ndarray) -> tuple[np.ndarray, ...]:
    """Vertices of the wearer under a rigid mask, which way is out there, and triangles that are seen beside or through it."""
    near = cv2.erode(cover, np.ones((cover.shape[0] // 32,) * 2, np.uint8))  # a little round the openings is seen, too
    under = np.unique(covers)
    hidden = np.zeros(len(wearer.neutral), bool)
    hidden[under] = _at_vertices(victim, near)[under] > 0.5
    pressed = under[_at_vertices(victim, cover)[under] > 0.5]
    return pressed, _outwards(wearer)[pressed], wearer.triangles[~hidden[wearer.triangles].all(1)]


def _seen_through(mask: np.ndarray, wearer: np.ndarray, cover: np.ndarray, tool: pai.MaskInstrument) -> np.ndarray:
    """Colours (S, S, 3) of a soft mask with the wearer's own skin in its openings, which lies deeper and in its shade."""
    side = cover.shape[0]
    soft = cv2.GaussianBlur(cover, (0, 0), side / 700)[..., None]
    depth = cv2.distanceTransform((cover < 0.5).astype(np.uint8), cv2.DIST_L2, 3) / side
    shade = 1.0 - min(70.0 * tool.offset, 0.6) * np.exp(-depth / 0.010)
    under = wearer + tool.makeup * (mask - wearer)
    return (mask * soft + under * shade[..., None] * (1.0 - soft)).astype(np.float32)


def _thickness(victim: Face, tool: pai.MaskInstrument, cover: np.ndarray) -> np.ndarray:
    """What a soft mask adds to the face under it, (V, 3) float32 m outwards; nothing in its openings and at its hem."""
    front = np.clip(victim.neutral[:, 2] / 0.03 + 1.5, 0, 1)
    there = _at_vertices(victim, cover) * front * _is_skin(victim)
    return (tool.offset * there[:, None] * _outwards(victim)).astype(np.float32)


def _at_vertices(face: Face, texture: np.ndarray) -> np.ndarray:
    """Values (V,) of a map (S, S) in texture space at the vertices."""
    x, y = (np.clip(face.uv, 0, 1) * (texture.shape[0] - 1)).round().astype(int).T
    return texture[y, x]


def _is_skin(face: Face) -> np.ndarray:
    """Which vertices (V,) are of the skin and not of eyes, teeth, hair or glasses."""
    skin = np.zeros(len(face.neutral), bool)
    skin[face.triangles[np.isin(face.region, _SKIN_REGIONS)].ravel()] = True
    return skin


def _outwards(face: Face) -> np.ndarray:
    """Unit vectors (V, 3) from the middle of the head: along them a mask stands off without changing its features."""
    away = face.neutral - np.array(_MIDDLE, np.float32)
    return away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)


def _damped(expression: np.ndarray, damping: float) -> np.ndarray:
    """Only a part of the wearer's expression reaches the surface; the lids behind the holes move freely."""
    free = np.array(["eyeBlink" in name or "eyeLook" in name for name in EXPRESSION_NAMES])
    kept = expression.copy()
    kept[:, ~free] *= damping
    return kept if damping else np.zeros_like(expression)


def _shell(victim: Face, wearer: Face, tool: pai.MaskInstrument) -> tuple[np.ndarray, np.ndarray]:
    """Front of the victim's face as a shell that clears the wearer's: triangles (F, 3), vertices (V, 3)."""
    out, skin = _outwards(victim), _is_skin(victim)
    both = np.flatnonzero(skin)  # the same vertices of both heads; hair and glasses differ in number
    shell = victim.neutral + tool.offset * out
    clearance = ((shell[both] - wearer.neutral[both]) * out[both]).sum(1)
    shell[both] += np.clip(_GAP - clearance, 0, 0.03)[:, None] * out[both]
    x, y, z = victim.neutral.T
    facing = _vertex_normals(victim.neutral, victim.triangles, victim.weld)[:, 2] > -0.1
    keep = ((x / 0.078) ** 2 + ((y + 0.022) / 0.112) ** 2 < 1.0) & (z > -0.045) & facing & skin
    return victim.triangles[keep[victim.triangles].all(1)], shell.astype(np.float32)


def _landmark_uv(face: Face) -> np.ndarray:
    """Texture coordinates (478, 2) of MediaPipe's points."""
    triangle, weight = landmark_table()
    return np.einsum("nk,nkc->nc", weight, face.uv[face.triangles[triangle]])


def _vertex_normals(vertices: np.ndarray, triangles: np.ndarray, weld: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    normals = np.zeros_like(vertices, np.float64)
    for k in range(3):
        np.add.at(normals, weld[triangles[:, k]], np.cross(b - a, c - a))
    normals = normals[weld]
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _mask_albedo(victim: Face, tool: pai.MaskInstrument, rng: np.random.Generator) -> np.ndarray:
    """The victim's colours as a maker of masks gets them: less detail, other gamut, a grain and cut edges of its own."""
    soft = cv2.GaussianBlur(victim.albedo, (0, 0), 5.0 * (1.0 - tool.detail) + 0.5)
    grey = soft.mean(2, keepdims=True)
    colour = (grey + tool.saturation * (soft - grey)) * np.array(tool.tint, np.float32)
    grain = cv2.GaussianBlur(rng.normal(0, 1, victim.albedo.shape[:2]).astype(np.float32), (0, 0), 0.8)
    shade = _cut_edges(victim, tool) * (1 + tool.grain * 2.0 * grain)
    return np.clip(colour * shade[..., None], 0.005, 0.95).astype(np.float32)


def _cut_edges(victim: Face, tool: pai.MaskInstrument) -> np.ndarray:
    """Factor (S, S) float32 on a mask's colour: the shadowed rims of its eye openings and, on some, a slit at the mouth."""
    side = victim.albedo.shape[0]
    dark = np.zeros((side, side), np.float32)
    for centre, axes, angle in _eye_ellipses(victim, 1.25 * tool.eye_hole):
        cv2.ellipse(dark, centre, axes, angle, 0, 360, 0.6 * tool.seam, max(side // 170, 1))
    if tool.mouth_slit:
        lips = _landmark_uv(victim)[list(_LIP_LINE)] * (side - 1)
        cv2.polylines(dark, [np.round(lips).astype(np.int32)], False, 0.5 + 0.4 * tool.seam, max(side // 120, 1))
    return 1.0 - cv2.GaussianBlur(dark, (0, 0), side / 512)


def _eye_ellipses(victim: Face, size: float) -> list[tuple[tuple[int, int], tuple[int, int], float]]:
    """Centre, half axes and angle of an ellipse around each eye in texture pixels; size 1 just clears the lids."""
    uv = _landmark_uv(victim) * (victim.albedo.shape[0] - 1)
    found = []
    for a, b in ((33, 133), (362, 263)):
        centre, half = (uv[a] + uv[b]) / 2, np.linalg.norm(uv[b] - uv[a]) / 2 * 1.12 * size
        angle = float(np.degrees(np.arctan2(*(uv[b] - uv[a])[::-1])))
        found.append((tuple(int(round(c)) for c in centre), (int(round(half)), int(round(0.62 * half))), angle))
    return found


def _mouth_opening(victim: Face, tool: pai.MaskInstrument) -> np.ndarray:
    """Alpha of a soft mask in texture space: on some, a slit where the lips meet."""
    alpha = np.ones(victim.albedo.shape[:2], np.float32)
    if tool.mouth_slit:
        side = alpha.shape[0]
        lips = np.round(_landmark_uv(victim)[list(_LIP_LINE)] * (side - 1)).astype(np.int32)
        cv2.polylines(alpha, [lips], False, 0.0, max(side // 60, 1))
    return alpha


def _eye_openings(victim: Face, tool: pai.MaskInstrument) -> np.ndarray:
    """Alpha of a rigid mask in texture space: open where the eyes look out."""
    alpha = np.ones(victim.albedo.shape[:2], np.float32)
    for centre, axes, angle in _eye_ellipses(victim, tool.eye_hole):
        cv2.ellipse(alpha, centre, axes, angle, 0, 360, 0.0, -1)
    return alpha


# ---------------------------------------------------------------- filming


@dataclass(frozen=True)
class Film:
    """Frames (N, H, W, 3) uint8 with the truth that goes with them."""

    frames: np.ndarray
    landmarks: np.ndarray
    depth: np.ndarray
    face_mask: np.ndarray


def shoot(
    shot: Shot,
    where: Stage,
    subject,
    rng: np.random.Generator,
    *,
    truth: bool = True,
    at: Sequence[int] | None = None,
) -> Film:
    """Render and photograph a subject frame by frame.

    Args:
        shot: camera, poses and times.
        where: lit room.
        subject: `Actor`, `Surface` or `Masked`.
        rng: of the sensor.
        truth: also depth and face mask.
        at: which of the shot's frames, in order; None takes all.

    Returns:
        Film; landmarks are where lens and rolling shutter really put them.
    """
    profile_, lux = shot.device.sensor, where.lighting.illuminance
    wide = _with_margin(shot.intrinsics)
    frames, marks, depths, masks, state = [], [], [], [], None
    flows = _flow(shot, subject.poses)
    for i in range(len(shot.t)) if at is None else at:
        t, want_uv = shot.t[i], isinstance(subject, Surface)
        meshes, points = subject.show(i)
        seen = render(meshes, where.room, where.lighting, wide, shot.poses[i], want_uv=want_uv)
        if state is None:
            state = sensor.start_exposure(seen.image, profile_, rng, illuminance=lux)
        else:
            dt = float(t - shot.t[i - 1])
            state = sensor.adapt_exposure(state, seen.image, profile_, dt, illuminance=lux)
        exposure = sensor.exposure_time(profile_, state)
        subject.finish(seen.image, seen, float(t), exposure)
        flow = flows[i]
        shift = np.clip(sensor.row_times(profile_, shot.intrinsics.height)[:, None] * flow, -MARGIN + 1, MARGIN - 1)
        frames.append(
            sensor.capture(
                seen.image,
                profile_,
                state,
                rng,
                illuminance=lux,
                blur_px=tuple(flow * exposure),
                row_shift=shift,
                margin=MARGIN,
            )  # fmt: skip
        )
        ideal, _ = project(points, shot.intrinsics, shot.poses[i])
        seen_at = sensor.distort_points(ideal, profile_, shot.intrinsics.width, shot.intrinsics.height)
        marks.append(seen_at + _shift_at(shift, seen_at[:, 1]))
        if truth:
            depth, mask = _truth_maps(seen, marks[-1], subject, shot.intrinsics)
            depths.append(depth)
            masks.append(mask)
    return Film(*(np.array(a) for a in (frames, marks, depths, masks)))


def _with_margin(lens_: Intrinsics) -> Intrinsics:
    return Intrinsics(
        lens_.width + 2 * MARGIN, lens_.height + 2 * MARGIN, lens_.fx, lens_.fy, lens_.cx + MARGIN, lens_.cy + MARGIN
    )


def _flow(shot: Shot, poses: np.ndarray) -> np.ndarray:
    """Image velocity (N, 2) of the presented face in px/s, from the poses before and after every frame."""
    if len(shot.t) < 2:
        return np.zeros((1, 2))
    places = zip(poses, shot.poses, strict=True)
    px = np.concatenate([project(pose[None, :3, 3], shot.intrinsics, camera)[0] for pose, camera in places])
    k = np.arange(len(shot.t))
    after, before = np.minimum(k + 1, k[-1]), np.maximum(k - 1, 0)
    return (px[after] - px[before]) / (shot.t[after] - shot.t[before])[:, None]


def _shift_at(shift: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far the rolling shutter moved what is seen at rows y (P,), in px; exact to first order of the shift."""
    rows = np.arange(len(shift))
    return np.stack([np.interp(y, rows, column) for column in shift.T], 1)


def _truth_maps(seen, landmarks: np.ndarray, subject, lens_: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Depth (64, 64) float16 m and face mask (64, 64) bool of a frame."""
    step = lens_.width // TRUTH_PX
    grid = np.s_[MARGIN + step // 2 : MARGIN + lens_.height : step, MARGIN + step // 2 : MARGIN + lens_.width : step]
    hull = cv2.convexHull(landmarks.astype(np.float32)).round().astype(np.int32)
    face = cv2.fillConvexPoly(np.zeros((lens_.height, lens_.width), np.uint8), hull, 1)
    inside = face[step // 2 :: step, step // 2 :: step].astype(bool) & (seen.object_id[grid] >= 0)
    return np.minimum(seen.depth[grid], 60000.0).astype(np.float16), inside


# ---------------------------------------------------------------- a clip


@one_blas_thread
def simulate(spec: ClipSpec) -> Clip:
    """Make one clip with its truth.

    Args:
        spec: from `plan`.

    Returns:
        Clip with `truth` and the manifest row in `meta`.
    """
    rng = np.random.default_rng([spec.seed, 23, spec.number])
    device = DEVICES[spec.device]
    where = stage(spec.scene, spec.light, rng)
    filming = DEVICES[spec.capture_device] if spec.species == "injection" else device
    t = _frame_times(device, rng)
    distance = float(rng.uniform(0.30, 0.48))
    way = int(rng.integers(0, 2**62))
    draft = motion.camera_trajectory(spec.motion_kind, np.random.default_rng(way), distance)
    subject = _subject(spec, t, rng, draft, where.lighting.illuminance, filming.sensor.readout_s)
    camera = _camera_way(spec, subject, draft, way, distance)
    poses = camera.pose(t)
    shot = Shot(filming, camera, lens(filming, rng), t, poses)
    film = shoot(shot, where, subject, rng)
    offset = draw_imu_offset(device, rng)
    imu, imu_kind = _motion_data(spec, camera, device, rng, offset)
    truth = Truth(
        t, poses, np.asarray(subject.poses, np.float64), np.asarray(subject.expression, np.float32),
        film.landmarks.astype(np.float32), film.depth, film.face_mask,
    )  # fmt: skip
    row = _row(spec, shot, where, truth, offset, imu_kind, lens(device, rng) if filming is not device else None)
    claimed = Intrinsics(*(row[k] for k in ("width", "height", "fx", "fy", "cx", "cy")))
    return Clip(spec.clip_id, film.frames, t, imu, claimed, device.facing, row, truth, spec.clip_id)


@one_blas_thread
def still(spec: ClipSpec, device: DeviceProfile | None = None) -> Clip:
    """One picture of what a clip of this spec would show, with the blur of its motion and its truth, without IMU.

    Args:
        spec: any but a replayed video, of which a picture is that of a replayed still.
        device: camera to use in place of the spec's.

    Returns:
        Clip of one frame.
    """
    rng = np.random.default_rng([spec.seed, 31, spec.number])
    device = device or DEVICES[spec.device]
    where = stage(spec.scene, spec.light, rng)
    t = rng.uniform(0.2, 2.3) + np.array([-1.0, 0.0, 1.0]) / device.fps
    distance, way = float(rng.uniform(0.26, 0.55)), int(rng.integers(0, 2**62))
    draft = motion.camera_trajectory(spec.motion_kind, np.random.default_rng(way), distance)
    subject = _subject(spec, t, rng, draft, where.lighting.illuminance, device.sensor.readout_s)
    camera = _camera_way(spec, subject, draft, way, distance)
    shot = Shot(device, camera, lens(device, rng), t, camera.pose(t))
    film = shoot(shot, where, subject, rng, at=(1,))
    truth = Truth(
        np.zeros(1), shot.poses[1:2], np.asarray(subject.poses[1:2], np.float64),
        np.asarray(subject.expression[1:2], np.float32), film.landmarks.astype(np.float32), film.depth, film.face_mask,
    )  # fmt: skip
    row = {"pai_species": None if spec.species == "bona_fide" else spec.species}
    return Clip(spec.clip_id, film.frames, np.zeros(1), None, shot.intrinsics, device.facing, row, truth, spec.clip_id)


def bare_frame(spec: ClipSpec) -> np.ndarray:
    """First frame of a living face as a renderer alone would give it: no lens, no noise, no processing, no codec.

    Args:
        spec: of a bona fide clip.

    Returns:
        (256, 256, 3) uint8, the sRGB curve of the linear light at a fixed exposure.
    """
    rng = np.random.default_rng([spec.seed, 29, spec.number])
    where, t = stage(spec.scene, spec.light, rng), np.zeros(1)
    camera = motion.camera_trajectory(spec.motion_kind, rng, 0.4)
    actor = _act(spec, spec.subject, t, rng, camera)
    device = DEVICES[spec.device]
    seen = render(actor.show(0)[0], where.room, where.lighting, lens(device, rng), camera.pose(t)[0])
    linear = np.clip(seen.image, 0.0, 1.0)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * curve).astype(np.uint8)


def _subject(spec: ClipSpec, t, rng, camera, lux: float, readout: float):
    if spec.species in pai.PRINTS:
        return _present_print(spec, t, rng, camera)
    if spec.species in pai.REPLAYS:
        return _present_screen(spec, t, rng, camera, lux=lux, readout=readout)
    if spec.species in pai.MASKS:
        return _present_mask(spec, t, rng, camera)
    return _act(spec, spec.subject, t, rng, camera, gain=spec.follow_gain)


def _tool(spec: ClipSpec) -> pai.Instrument:
    tool = pai.instrument(spec.species, spec.instrument)
    own = {name: value for name, value in spec.changes if hasattr(tool, name)}
    return replace(tool, **own) if own else tool


def _camera_way(spec: ClipSpec, subject, draft: motion.Trajectory, way: int, distance: float) -> motion.Trajectory:
    """The same way of the phone, as near as makes the shown face as large as a face would be."""
    if not isinstance(subject, Surface):
        return draft
    shown = subject.picture.eyes()[1] * subject.tool.width / subject.picture.frames.shape[2]
    factor = dict(spec.changes).get("distance", 1.0)
    near = float(np.clip(factor * distance * shown / INTEROCULAR, 0.10, 0.95))
    return motion.camera_trajectory(spec.motion_kind, np.random.default_rng(way), near)


def _motion_data(spec: ClipSpec, camera, device: DeviceProfile, rng, offset: float) -> tuple[Imu, str]:
    """The phone's IMU record; under injection it is not of the camera that made the video."""
    if spec.species != "injection":
        times = motion.imu_times(device.imu, rng)
        return motion.imu_from_trajectory(camera, times, device.imu, rng, device.facing, offset=offset), "measured"
    tool = _tool(spec)
    forged = motion.forge_imu(tool.imu_kind, rng, camera, device.imu, facing=device.facing, offset=offset)
    share = dict(spec.changes).get("imu_truth", 0.0)
    if share:
        true = motion.imu_from_trajectory(camera, forged.t - offset, device.imu, rng, device.facing, offset=offset)
        mixed = ((1 - share) * a + share * b for a, b in ((forged.accel, true.accel), (forged.gyro, true.gyro)))
        forged = Imu(forged.t, *mixed)
    return forged, tool.imu_kind


def _row(spec: ClipSpec, shot: Shot, where: Stage, truth: Truth, offset: float, imu_kind: str, claimed) -> dict:
    """Manifest row; the camera is the one that the phone claims to be."""
    identity, lifted = person(spec.seed, spec.subject, spec.photos).identity, portrait_of(spec.subject, spec.photos)
    lens_, device = claimed or shot.intrinsics, DEVICES[spec.device]
    attack = spec.species != "bona_fide"
    return {
        "clip_id": spec.clip_id,
        "subject_id": f"s{spec.seed}-{spec.subject:04d}",
        "is_bonafide": not attack,
        "pai_species": spec.species if attack else None,
        "instrument_id": pai.instrument(spec.species, spec.instrument).instrument_id if attack else None,
        "device_id": device.name,
        "capture_device_id": spec.capture_device if attack and not _is_mask(spec) else None,
        "camera_facing": device.facing,
        "scene_id": where.scene_id,
        "light": spec.light,
        "motion_kind": spec.motion_kind,
        "head_follow_gain": spec.follow_gain,
        "imu_kind": imu_kind,
        "split": spec.split,
        "control": spec.control,
        **{k: getattr(lens_, k) for k in ("width", "height", "fx", "fy", "cx", "cy")},
        "fps": float((len(truth.t) - 1) / (truth.t[-1] - truth.t[0])),
        "imu_offset": offset,
        "seed": spec.seed,
        "monk_tone": identity.monk,
        "age": None if lifted else identity.age,  # nobody knows a portrait's
        "gender": None if lifted else identity.gender,
        "illuminance_lux": float(where.lighting.illuminance),
        "swept_angle_deg": float(motion.viewing_direction_change(truth.T_world_camera, truth.T_world_head)),
    }


def _is_mask(spec: ClipSpec) -> bool:
    return spec.species in pai.MASKS


# ---------------------------------------------------------------- a data set


def _grouped(specs: Sequence[ClipSpec]) -> list[list[ClipSpec]]:
    """Clips by group of subjects, the largest groups first so that workers end together.

    Inside a group clips go by scene: its few people stay in the cache, and so a room is built once.
    """
    groups: dict[tuple, list[ClipSpec]] = {}
    for split in {s.split: None for s in specs}:
        mine = [s for s in specs if s.split == split]
        people = np.unique([n for s in mine for n in (s.subject, s.other)])
        group = dict(zip(people, _group_of(people), strict=True))
        for spec in sorted(mine, key=lambda s: s.scene):
            groups.setdefault((split, group[spec.subject]), []).append(spec)
    return sorted(groups.values(), key=len, reverse=True)


def make_clips(specs: Sequence[ClipSpec], root: str) -> list[dict]:
    """`make_clip` of a group: the task that a worker takes."""
    return [make_clip(spec, root) for spec in specs]


def make_clip(spec: ClipSpec, root: str) -> dict:
    """Simulate a clip and store it; what is there already is left as it is.

    Returns:
        The manifest row.
    """
    done = Path(root) / "rows" / f"{spec.clip_id}.json"
    if done.exists() and (Path(root) / "clips" / spec.clip_id / "video.mp4").exists():
        return json.loads(done.read_text(encoding="utf-8"))
    cv2.setNumThreads(1)
    clip = simulate(spec)
    phone = DEVICES[spec.device]
    write_clip(root, clip, crf=phone.crf, preset=phone.preset)
    write_json(done, clip.meta)
    return json.loads(done.read_text(encoding="utf-8"))


def generate(
    what: str | Profile,
    out: str | Path,
    *,
    seed: int = 0,
    workers: int = 2,
    backend: str = "loky",
    scheduler: str | None = None,
    progress: bool = True,
    photos: str | Path | None = None,
) -> pd.DataFrame:
    """Generate a data set; call again to resume.

    Args:
        what: profile or its name.
        out: folder; clips, one JSON row a finished clip, `manifest.parquet` at the end.
        seed: of the data set.
        workers: processes.
        backend: ``loky`` (this machine) or ``dask``.
        scheduler: address of a Dask scheduler, for ``dask``.
        progress: show a bar.
        photos: folder of portraits, see `plan`.

    Returns:
        The manifest.

    Raises:
        SimulationError: the folder holds another data set, or the backend is unknown.
    """
    sizes = profile(what) if isinstance(what, str) else what
    root = Path(out)
    specs = plan(sizes, seed, photos)
    _claim(root, sizes, seed, specs)
    rows = list(_mapped(_grouped(specs), str(root.resolve()), workers, backend, scheduler, progress))
    by_id = {row["clip_id"]: row for row in rows}
    table = pd.DataFrame([by_id[s.clip_id] for s in specs])
    write_manifest(root, table)
    return table


def _claim(root: Path, sizes: Profile, seed: int, specs: Sequence[ClipSpec]) -> None:
    """Refuse to mix two data sets in one folder."""
    mark = {"profile": sizes.data, "seed": seed, "clips": len(specs), "generator": GENERATOR_VERSION}
    for folder in {s.photos for s in specs} - {""}:
        from liveness_utils import face_photo

        face_photo.portraits(folder)  # fails here rather than in a worker
        mark["portraits"] = face_photo.photos_mark(folder)
    path = root / "dataset.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != mark:
        raise SimulationError(f"{root} holds another data set ({path.name}): choose another folder or delete it.")
    root.mkdir(parents=True, exist_ok=True)
    (root / "rows").mkdir(exist_ok=True)
    write_json(path, mark)


def _mapped(groups, root: str, workers: int, backend: str, scheduler, progress: bool) -> Iterator[dict]:
    from tqdm.auto import tqdm

    if backend not in _BACKENDS:
        raise SimulationError(f"unknown backend {backend!r}: use {' or '.join(_BACKENDS)}.")
    with tqdm(total=sum(map(len, groups)), desc="clips", unit="clip", disable=not progress) as bar:
        for rows in _BACKENDS[backend](groups, root, workers, scheduler):
            yield from rows
            bar.update(len(rows))


def _on_this_machine(groups, root: str, workers: int, scheduler: str | None) -> Iterator[list[dict]]:
    import joblib

    jobs = (joblib.delayed(make_clips)(group, root) for group in groups)
    yield from joblib.Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered")(jobs)


def _on_dask(groups, root: str, workers: int, scheduler: str | None) -> Iterator[list[dict]]:
    """Every group is a task. A worker that dies gives its tasks back to the scheduler, and the clips it had finished
    are found on disk: the folder must be one that all workers see."""
    from dask.distributed import Client, as_completed

    where = {"address": scheduler} if scheduler else {"n_workers": workers, "threads_per_worker": 1}
    with Client(**where) as client:
        client.wait_for_workers(1, timeout=60)
        futures = client.map(make_clips, groups, root=root, pure=False, retries=2)
        for future in as_completed(futures):
            yield future.result()


_BACKENDS = {"loky": _on_this_machine, "dask": _on_dask}


def spec_table(specs: Sequence[ClipSpec]) -> pd.DataFrame:
    """The plan as a table, one row a clip."""
    return pd.DataFrame([asdict(s) for s in specs]).drop(columns=["changes", "photos"])
