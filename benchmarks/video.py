"""How much sooner stored clips are read when a frame's colours are converted on one thread.

    python benchmarks/video.py [--repeats N]

The sample clips are decoded to RGB as `clips.read_video` does it, and with PyAV's default, which wakes a thread a core for
every frame. Wall time; both take turns, and every pixel is compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from liveness_utils import clips, config


def by_default(path: Path) -> np.ndarray:
    """Frames (N, H, W, 3) uint8 RGB of a video, decoded and converted as PyAV does it by itself."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


def on_one_thread(path: Path) -> np.ndarray:
    """The same frames by the course's reader."""
    return clips.read_video(path)[0]


def seconds(read: Callable[[Path], np.ndarray], paths: list[Path]) -> float:
    """Wall time of reading all videos."""
    start = time.perf_counter()
    for path in paths:
        read(path)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    paths = sorted(config.samples_dir().glob("clips/*/video.mp4"))
    frames = sum(len(on_one_thread(p)) for p in paths)
    same = all(np.array_equal(by_default(p), on_one_thread(p)) for p in paths)
    rounds = [(seconds(by_default, paths), seconds(on_one_thread, paths)) for _ in range(args.repeats)]
    usual, single = np.median(rounds, axis=0)
    print(f"{len(paths)} clips, {frames} frames, pixels {'equal' if same else 'DIFFER'}")
    print(f"default: {1e3 * usual / frames:.2f} ms a frame; one thread: {1e3 * single / frames:.2f}")
    print(f"default against one thread: {usual / single:.2f} x")


if __name__ == "__main__":
    main()
