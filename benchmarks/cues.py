"""How long a stored frame takes, stage by stage, against MediaPipe alone in the same run.

    python benchmarks/cues.py [VIDEO | DATA_DIR] [--clips N]

Without a path it uses the sample clips of the repository. One thread throughout.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from liveness_utils import clips, config, cues, inputs, landmarks

BUDGET_MS = 14.0


def chosen_clips(path: Path, limit: int) -> list[clips.Clip]:
    """Load clips from a video file, a folder of videos, or a generated data set."""
    if path.is_file():
        return [clips.load_recording(path, max_seconds=2.6)]
    if (path / "manifest.parquet").exists():
        rows = clips.read_manifest(path).head(limit).to_dict("records")
        return [clips.load_clip(path, row["clip_id"], row=row) for row in rows]
    videos = sorted(path.rglob("*.mp4"))[:limit]
    return [clips.load_recording(video, max_seconds=2.6) for video in videos]


def timed(function, *args):
    """Return the result and the seconds it took."""
    start = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - start


def mediapipe_alone(clip: clips.Clip, landmarker: landmarks.Landmarker) -> None:
    """Only the landmarker, one face, as `track` uses it, without counting faces."""
    landmarker.reset()
    for frame, t in zip(clip.frames, clip.t, strict=True):
        landmarker.detect(frame, t, clip.intrinsics)


def stages(clip: clips.Clip, landmarker: landmarks.Landmarker) -> dict[str, float]:
    """Seconds of each stage on one clip."""
    _, alone = timed(mediapipe_alone, clip, landmarker)
    found, tracking = timed(landmarks.track, clip, landmarker)
    motion, moving = timed(cues.measure_motion, clip, found)
    _, clip_cues = timed(cues.extract_cues, clip, found, motion)
    _, features = timed(cues.frame_features, clip, found, motion)
    index = clips.network_frame_indices(clip.t, n=min(25, int(clip.t[-1] * 10)))
    _, crops = timed(inputs.face_crops, clip, found, index)
    return {
        "MediaPipe alone": alone,
        "track (MediaPipe, pose, face count)": tracking,
        "background motion": moving,
        "clip cues": clip_cues,
        "frame features": features,
        "face crops": crops,
    }


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=config.samples_dir())
    parser.add_argument("--clips", type=int, default=8)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    loaded = chosen_clips(options.path, options.clips)
    if not loaded:
        raise SystemExit(f"No clips in {options.path}: give a video or a data folder.")
    with landmarks.Landmarker() as landmarker:
        stages(loaded[0], landmarker)  # warms up caches that a session builds once
        rows = [(len(clip.t), stages(clip, landmarker)) for clip in loaded]
    ms = {name: np.median([1e3 * row[name] / n for n, row in rows]) for name in rows[0][1]}
    total = sum(v for name, v in ms.items() if name != "MediaPipe alone")
    print(f"{sum(n for n, _ in rows)} stored frames of {len(rows)} clips, one thread")
    for name, value in ms.items():
        share = "" if name == "MediaPipe alone" else f"{100 * value / total:5.0f} %"
        print(f"{name:38s}{value:7.2f} ms {share}")
    alone = ms["MediaPipe alone"]
    print(f"{'all stages':38s}{total:7.2f} ms   {total / alone:.2f} x MediaPipe alone")
    print(f"budget {BUDGET_MS:.0f} ms: {'kept' if total <= BUDGET_MS else 'EXCEEDED'}")


if __name__ == "__main__":
    main()
