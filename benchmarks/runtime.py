"""How fast, how large and how hungry the runtime is, on one CPU thread, against a network of the seed's kind.

    python benchmarks/runtime.py [--bundle DIR] [--repeats N] [--size 640x480]

The reference (MobileNetV3-small on 25 frames of 224 px, raw sensor values, LSTM) is built and converted here, in
the same precision and by the same road. Cold start and memory are those of fresh processes that never import torch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from liveness_utils import bundle as bundles
from liveness_utils import clips, config

FRAMES, REFERENCE_PX = 25, 224
TARGETS = {"ratio": 3.0, "loop": 60.0, "memory": 400.0, "cold": 3.0}

# Peak memory of a process, in a process of its own. Not ru_maxrss where Linux tells better: that one survives
# fork and exec, so that a child of this benchmark (which has torch loaded) would report the benchmark's own peak.
PEAK = """
def peak_mb():
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024
    except OSError:
        import resource, sys
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
"""

# Streams a clip, scaled to a camera's size frame by frame as a camera would deliver it.
STREAM = (
    PEAK
    + """
import json, sys, time
import cv2, numpy as np
from liveness_utils.runtime import LivenessSession
cv2.setNumThreads(1)
bundle, recording, width, height, seconds = sys.argv[1:6]
held = np.load(recording)
frames, imu, t, facing = held["frames"], held["imu"], held["t"], str(held["facing"])
size, step = (int(width), int(height)), t[-1] / (len(t) - 1)
with LivenessSession(bundle, facing=facing) as session:
    session.push_imu(imu)
    spent = []
    while len(spent) < 30 or sum(spent[8:]) < float(seconds):
        # there and back, so that the picture never jumps
        p = len(spent) % (2 * len(frames) - 2)
        frame = cv2.resize(frames[p if p < len(frames) else 2 * len(frames) - 2 - p], size)
        now = time.perf_counter()
        session.push(frame, len(spent) * step)
        spent.append(time.perf_counter() - now)
    verdict = session.verdict()
    told = session.timings_ms
    parts = {n: v / told["frames"] for n, v in told.items() if n != "frames"}
spent = np.array(spent[8:])
loaded = [m for m in ("torch", "tensorflow", "triton", "pandas", "matplotlib") if m in sys.modules]
print(json.dumps({"rate": len(spent) / spent.sum(), "median_ms": 1e3 * float(np.median(spent)), "parts": parts,
                  "peak_mb": peak_mb(), "loaded": loaded, "decision": verdict.decision}))
"""
)

# `liveness predict` from the first import to the verdict.
PREDICT = (
    PEAK
    + """
import sys
from liveness_utils import cli
code = cli.main(sys.argv[1:])
print(peak_mb())
sys.exit(code)
"""
)


def median_ms(call, repeats: int) -> float:
    """Median wall time of a call in ms, after two calls to warm up."""
    for _ in range(2):
        call()
    spent = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(spent))


def clip_inputs(model) -> dict[str, np.ndarray]:
    """Inputs of the right shape; what is in them does not change the time."""
    rng = np.random.default_rng(0)
    fed = {k: rng.random(s, np.float32) for k, s in model.input_shapes.items()}
    return fed | {k: np.ones(s, np.float32) for k, s in model.input_shapes.items() if k == "presence"}


def reference(folder: Path) -> tuple[Path, int]:
    """Convert a network of the seed's kind; returns the file and its multiply-adds a clip."""
    import torch

    from liveness_utils import export
    from liveness_utils.network.fusion import ModelConfig, build

    class Clip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build(ModelConfig(n_features=4, architecture="seed_style"))

        def forward(self, frames, imu):
            steps = frames.shape[1]
            return self.net(frames, torch.zeros(1, steps, 4), imu, torch.ones(1, 3))["logit"]

    net = Clip().eval()
    sample = {
        "frames": np.random.default_rng(0).random((1, FRAMES, REFERENCE_PX, REFERENCE_PX, 3), np.float32),
        "imu": np.zeros((1, FRAMES, 32, 6), np.float32),
    }
    path = export.to_tflite(net, sample, folder / "reference.tflite")
    return path, multiply_adds(net, [torch.from_numpy(v) for v in sample.values()])


def multiply_adds(net, inputs) -> int:
    """Multiply-adds of convolutions and matrix products in one forward pass (torch's counter, halved)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(*inputs)
    return counter.get_total_flops() // 2


def own_network(checkpoint: Path, folder: Path) -> tuple[Path, int, Path]:
    """The bundle's network in float32, to compare at equal precision: clip file, multiply-adds, step file."""
    import torch

    from liveness_utils import export
    from liveness_utils.network.fusion import StepNet, load_checkpoint

    net, _ = load_checkpoint(checkpoint)
    features = net.config.n_features
    sample = {
        "frames": np.random.default_rng(0).random((1, FRAMES, 112, 112, 3), np.float32),
        "features": np.zeros((1, FRAMES, features), np.float32),
        "imu": np.zeros((1, FRAMES, 32, 6), np.float32),
        "presence": np.ones((1, 3), np.float32),
    }
    h, c = (s.numpy() for s in net.initial_state(1))
    first = {"frame": sample["frames"][:, 0], "features": sample["features"][:, 0], "imu": sample["imu"][:, 0]}
    step = export.to_tflite(
        StepNet(net), {**first, "presence": sample["presence"], "h": h, "c": c}, folder / "step.tflite"
    )
    whole = export.to_tflite(net, sample, folder / "own.tflite")
    return whole, multiply_adds(net, [torch.from_numpy(v) for v in sample.values()]), step


def in_fresh_process(arguments: list[str]) -> tuple[str, float]:
    """Standard output of a fresh interpreter and the seconds that it took."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip(), time.perf_counter() - begin


def sample_clip() -> tuple[Path, Path]:
    """Video and IMU of a bona fide sample clip of the repository."""
    root = config.samples_dir()
    manifest = clips.read_manifest(root)
    clip_id = manifest.loc[manifest["is_bonafide"].astype(bool), "clip_id"].iloc[0]
    return root / "clips" / clip_id / "video.mp4", root / "clips" / clip_id / "imu.parquet"


def decoded(video: Path, imu: Path, folder: Path) -> Path:
    """A recording as arrays, so that the streaming process spends nothing on reading it."""
    clip = clips.load_recording(video, imu)
    rows = np.column_stack([clip.imu.t, clip.imu.accel, clip.imu.gyro])
    np.savez(folder / "recording.npz", frames=clip.frames, imu=rows, t=clip.t, facing=clip.camera_facing)
    return folder / "recording.npz"


def line(name: str, value: str, target: str = "") -> None:
    """One row of the table."""
    print(f"{name:44s}{value:>22s}   {target}")


def kept(good: bool, text: str) -> str:
    """The target and whether it is kept."""
    return f"target {text}: {'kept' if good else 'MISSED'}"


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=config.default_bundle())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--size", default="640x480", help="camera frames of the streaming loop")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the streaming loop")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    held = bundles.load(options.bundle)
    print(f"bundle {options.bundle} ({held.variant}), one thread, medians of {options.repeats}")
    shipped(held, options.repeats)
    if held.path("checkpoint.pt").exists():
        against_reference(held, options.repeats)
    whole_loop(options)


def shipped(held: bundles.Bundle, repeats: int) -> None:
    """The files as they ship."""
    for name, opener in (("clip", bundles.open_clip_model), ("step", bundles.open_step_model)):
        model = opener(held)
        fed = clip_inputs(model)
        line(f"shipped model per {name}", f"{median_ms(lambda m=model, f=fed: m(**f), repeats):.2f} ms")
    line("model.tflite", f"{held.path('model.tflite').stat().st_size / 1e6:.2f} MB", "target 2 MB")


def against_reference(held: bundles.Bundle, repeats: int) -> None:
    """Clip, step and reference in float32 in turn, so that a busy machine slows them alike."""
    with tempfile.TemporaryDirectory() as folder:
        own_file, own_macs, step_file = own_network(held.path("checkpoint.pt"), Path(folder))
        other_file, other_macs = reference(Path(folder))
        models = {n: bundles.open_model(p) for n, p in (("own", own_file), ("step", step_file), ("other", other_file))}
        fed = {n: clip_inputs(m) for n, m in models.items()}
        spent = {n: [] for n in models}
        for _ in range(repeats):
            for n, model in models.items():
                spent[n].append(median_ms(lambda m=model, f=fed[n]: m(**f), 1))
        own, step, other = (float(np.median(spent[n])) for n in ("own", "step", "other"))
        size = own_file.stat().st_size / 1e6, other_file.stat().st_size / 1e6
    line("float32: whole clip of 25 frames", f"{own:.1f} ms", f"{size[0]:.2f} MB, {own_macs / 1e6:.0f} M multiply-adds")
    line("float32: one step", f"{step:.2f} ms")
    line(
        "float32: seed-style reference, 224 px",
        f"{other:.1f} ms",
        f"{size[1]:.2f} MB, {other_macs / 1e6:.0f} M multiply-adds",
    )
    line("reference / own", f"{other / own:.2f} x", kept(other / own >= TARGETS["ratio"], f"{TARGETS['ratio']:.0f} x"))


def whole_loop(options: argparse.Namespace) -> None:
    """Streaming, memory and cold start, each in a fresh process."""
    video, imu = sample_clip()
    with tempfile.TemporaryDirectory() as folder:
        recording = decoded(video, imu, Path(folder))
        size = options.size.split("x")
        text, _ = in_fresh_process(["-c", STREAM, str(options.bundle), str(recording), *size, str(options.seconds)])
    seen = json.loads(text.splitlines()[-1])
    parts = ", ".join(f"{k} {v:.2f}" for k, v in seen["parts"].items())
    line(
        f"streaming loop at {options.size}", f"{seen['rate']:.1f} frames/s", kept(seen["rate"] >= TARGETS["loop"], "60")
    )
    line("  a frame, ms", f"{seen['median_ms']:.2f} median", f"mean of {parts}")
    line(
        "  peak memory of that process",
        f"{seen['peak_mb']:.0f} MB",
        kept(seen["peak_mb"] <= TARGETS["memory"], "400 MB"),
    )
    line("  imported besides", ", ".join(seen["loaded"]) or "nothing of torch, tensorflow, pandas")
    cold_start(options.bundle, video, imu)


def cold_start(bundle: Path, video: Path, imu: Path) -> None:
    """`liveness predict` in fresh processes: seconds from nothing to the verdict, and memory."""
    command = ["-c", PREDICT, "predict", str(video), "--imu", str(imu), "--bundle", str(bundle)]
    runs = [in_fresh_process(command) for _ in range(3)]
    cold = float(np.median([seconds for _, seconds in runs]))
    *said, peak = runs[0][0].splitlines()
    line("liveness predict, cold", f"{cold:.2f} s", kept(cold <= TARGETS["cold"], "3 s"))
    line("  its peak memory", f"{float(peak):.0f} MB", kept(float(peak) <= TARGETS["memory"], "400 MB"))
    print(*said, sep="\n")


if __name__ == "__main__":
    main()
