"""How many finished frames a second one core makes, and which stage takes the time.

    python benchmarks/simulate.py [--clips N] [--profile full] [--repeats N]

A finished frame is rendered, photographed, labelled with its truth and stored as H.264, its share of faces, rooms
and IMU included; frames filmed for a replay are work, not output. The clips are successive ones of a worker's list,
all species in the profile's mix, and CPU seconds are counted, so that other programs disturb little. As a yardstick
of the machine, MediaPipe's FaceLandmarker reads the same frames in the same run: simulating a frame against
measuring it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from liveness_utils import clips, instruments, landmarks, motion, render, scenes, sensor, simulate

TARGET = 80.0  # frames a second
CACHES = (simulate.person, simulate._skin_texture, simulate._room)  # taken before anything is put under the watch
STAGES: dict[str, tuple[tuple[object, str], ...]] = {
    "faces": (
        (simulate, "build_face"), (simulate, "_skin_texture"), (simulate.Actor, "show"), (simulate.Masked, "show"),
    ),
    "instruments": (
        (instruments, "print_texture"), (instruments, "screen_texture"), (simulate, "make_texture"),
        (simulate.Surface, "show"), (simulate.Surface, "finish"),
    ),
    "raster": ((render, "_raster"), (render, "_raster_depth"), (render, "_to_screen"), (render, "_normals")),
    "shade": ((render, "_shade_mesh"),),
    "room": (
        (render, "_room_visibility"), (render, "_room_shade"), (simulate, "light_room"), (scenes, "sample_room"),
    ),
    "render, rest": ((simulate, "render"),),
    "sensor": ((sensor, "capture"), (sensor, "start_exposure"), (sensor, "adapt_exposure")),
    "truth": ((simulate, "_truth_maps"), (simulate, "project"), (sensor, "distort_points"), (clips, "_write_truth")),
    "motion": ((motion, "camera_trajectory"), (motion, "hand_trajectory"), (simulate, "_act")),
    "imu": ((simulate, "_motion_data"), (clips, "write_imu")),
    "encode": ((clips, "_encode"),),
}  # fmt: skip


class Stopwatch:
    """Exclusive CPU seconds a stage: time spent in a stage called from another counts for the inner one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[float] = []

    def timed(self, stage: str, function: Callable) -> Callable:
        """The function, with its time put to the stage."""

        def wrapper(*args, **kwargs):
            self._open.append(0.0)
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.process_time() - start
                self.seconds[stage] += spent - self._open.pop()
                if self._open:
                    self._open[-1] += spent

        return wrapper

    def install(self) -> None:
        """Put every function of `STAGES` under the watch."""
        for stage, functions in STAGES.items():
            for owner, name in functions:
                setattr(owner, name, self.timed(stage, getattr(owner, name)))


def successive(profile: str, count: int) -> list[simulate.ClipSpec]:
    """A worker's list, cut where the mix of species is that of the whole profile."""
    order = [spec for group in simulate._grouped(simulate.plan(profile, 0)) for spec in group]
    wanted = {s: sum(o.species == s for o in order) / len(order) * count for s in instruments.SPECIES}
    taken: list[simulate.ClipSpec] = []
    for spec in order:
        if wanted[spec.species] >= 0.5:
            wanted[spec.species] -= 1
            taken.append(spec)
    return taken[:count]


def run(specs: list[simulate.ClipSpec]) -> tuple[list[clips.Clip], float]:
    """Make and store the clips; returns them and the CPU seconds."""
    for cache in CACHES:
        cache.cache_clear()
    made = []
    with tempfile.TemporaryDirectory() as root:
        start = time.process_time()
        for spec in specs:
            clip, phone = simulate.simulate(spec), simulate.DEVICES[spec.device]
            clips.write_clip(root, clip, crf=phone.crf, preset=phone.preset)
            made.append(clip)
        return made, time.process_time() - start


def mediapipe_seconds(made: list[clips.Clip]) -> float:
    """CPU seconds of FaceLandmarker on all frames."""
    with landmarks.Landmarker() as landmarker:
        start = time.process_time()
        for clip in made:
            landmarker.reset()
            for frame, t in zip(clip.frames, clip.t, strict=True):
                landmarker.detect(frame, t)
        return time.process_time() - start


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--profile", default="full")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    specs = successive(options.profile, options.clips)
    first = {spec.species: spec for spec in specs}
    for spec in first.values():  # compiles what is not yet compiled
        simulate.simulate(spec)
    made, seconds = run(specs)
    for _ in range(options.repeats - 1):
        seconds = min(seconds, run(specs)[1])
    frames = sum(len(clip.t) for clip in made)
    watch = Stopwatch()
    watch.install()
    _, watched = run(specs)
    yardstick = mediapipe_seconds(made[:: max(1, len(made) // 6)])
    read = sum(len(clip.t) for clip in made[:: max(1, len(made) // 6)])
    print(
        f"{frames} finished frames of {len(specs)} clips, {np.unique([s.species for s in specs]).size} classes, one core"
    )
    for stage, spent in sorted(watch.seconds.items(), key=lambda item: -item[1]):
        print(f"{stage:16s}{1e3 * spent / frames:7.2f} ms {100 * spent / watched:5.1f} %")
    rest = watched - sum(watch.seconds.values())
    print(f"{'rest':16s}{1e3 * rest / frames:7.2f} ms {100 * rest / watched:5.1f} %")
    rate = frames / seconds
    print(f"{'frames a second':16s}{rate:7.1f}    target {TARGET:.0f}: {'met' if rate >= TARGET else 'MISSED'}")
    ratio = (seconds / frames) / (yardstick / read)
    print(f"MediaPipe reads one in {1e3 * yardstick / read:.2f} ms: simulating costs {ratio:.2f} x measuring")


if __name__ == "__main__":
    main()
