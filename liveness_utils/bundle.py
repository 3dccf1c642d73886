"""What a deployment takes: model files, how to feed them, and thresholds with their known error.

`export` writes a bundle, `runtime` reads it, `verify` refuses one that is not whole. Needs numpy
and one of ai-edge-litert or onnxruntime; neither torch nor tensorflow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from liveness_utils.clips import NETWORK_FRAMES as FRAMES
from liveness_utils.clips import NETWORK_RATE as RATE
from liveness_utils.config import plain
from liveness_utils.errors import BundleError

FORMAT = 2
MANIFEST = "bundle.json"
REQUIRED = ("model.tflite", "step.tflite", "bundle.json", "selftest.npz")
SELFTEST_TOLERANCE = {"float32": 1e-3, "float16": 0.05, "weight_only": 1e-3}
PATTERNS = {
    (1, 1, 1): "video+landmarks+imu",
    (1, 1, 0): "video+landmarks",
    (1, 0, 1): "video+imu",
    (1, 0, 0): "video",
}


FLOOR = "floor"  # name of the thresholds below which an attack is certain enough not to ask a challenge
SHORT = (13, 19)  # frames of shorter ones that have thresholds of their own: 1.2 and 1.8 s


def pattern_name(presence: np.ndarray, frames: int = FRAMES) -> str:
    """Name of what a clip is judged by: its presence mask, and its length where that is not the whole one.

    >>> pattern_name(np.array([1.0, 1.0, 0.0])), pattern_name(np.array([1.0, 1.0, 0.0]), 15)
    ('video+landmarks', 'video+landmarks, 1.2 s')
    """
    key = tuple(int(v > 0.5) for v in presence)
    if key not in PATTERNS:
        raise BundleError("A clip without video cannot be judged: its presence mask starts with 0.")
    if frames >= FRAMES:
        return PATTERNS[key]
    fitting = [n for n in SHORT if n <= frames]
    if not fitting:
        raise BundleError(f"A clip of {frames} frames at 10 Hz is too short to be judged: give {SHORT[0]} or more.")
    return short_name(PATTERNS[key], fitting[-1])


def short_name(pattern: str, frames: int) -> str:
    """Name of a pattern in clips of so many frames.

    >>> short_name("video", 19)
    'video, 1.8 s'
    """
    return f"{pattern}, {(frames - 1) / RATE:g} s"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        folder: where it lies. format: version of the layout. variant: name of the default model
            (float32, float16, weight_only, dynamic, int8, mixed). files: name to {sha256, bytes}.
        preprocessing: crop margin and size, colour order, value range, frames, rate, IMU window.
        feature_names: (G,) in the order of the input. feature_fill: (G,) stands in for a value
            that was not measured. species: names of the species head's outputs.
        thresholds: by name (apcer5 …), then by modalities present and length (see `pattern_name`): a
            `metrics.Threshold` as a dict. target: the name in use. quality: `QualityLimits`.
        metrics: test results by split. versions: of code and data. variants: name to size, parity
            and operators of every model that was exported. picture_head: the network's own linear heads on its
            embedding, which a taught camera starts from (`deployment.camera`): level, spread, weight (432,) and bias
            of flat or not, mask_weight and mask_bias of mask or not, and bound, the most log odds that pixels count.
    """

    folder: Path
    variant: str
    files: Mapping[str, Mapping[str, Any]]
    preprocessing: Mapping[str, Any]
    feature_names: tuple[str, ...]
    feature_fill: tuple[float, ...]
    species: tuple[str, ...]
    thresholds: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    target: str = "apcer5"
    quality: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, Any] = field(default_factory=dict)
    picture_head: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def threshold(self, presence: np.ndarray, frames: int = FRAMES) -> dict[str, Any]:
        """The threshold in use for the modalities that a clip has, and for its length.

        Raises:
            BundleError: none was chosen for them, so that no decision can be made.
        """
        name = pattern_name(presence, frames)
        held = self.thresholds.get(self.target, {}).get(name)
        if held is None or not np.isfinite(held["value"]):
            raise BundleError(f"the bundle has no threshold for {name}")
        return dict(held)

    def floor(self, presence: np.ndarray, frames: int = FRAMES) -> float:
        """The score from which on a clip that is not accepted is *not sure*; infinite where the bundle has none."""
        held = self.thresholds.get(FLOOR, {}).get(pattern_name(presence, frames))
        return float(held["value"]) if held and np.isfinite(held["value"]) else float("inf")

    def path(self, name: str) -> Path:
        """Full path of one of its files."""
        return self.folder / name


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def save(bundle: Bundle) -> Path:
    """Write bundle.json with fresh checksums of every file in the bundle's folder.

    Returns:
        path of bundle.json; it appears whole or not at all.
    """
    names = sorted(p.name for p in bundle.folder.iterdir() if p.is_file() and _is_content(p.name))
    files = {n: {"sha256": sha256(bundle.path(n)), "bytes": bundle.path(n).stat().st_size} for n in names}
    content = {k: v for k, v in vars(bundle).items() if k != "folder"} | {"files": files}
    part = bundle.path(f".{MANIFEST}.{os.getpid()}")
    part.write_text(json.dumps(content, indent=1, default=plain) + "\n", encoding="utf-8")
    os.replace(part, bundle.path(MANIFEST))
    return bundle.path(MANIFEST)


def _is_content(name: str) -> bool:
    return name != MANIFEST and not name.startswith(".") and name != "metrics.json"


def load(folder: str | os.PathLike) -> Bundle:
    """Read a bundle and check every byte of it.

    Raises:
        BundleError: it is missing, damaged, of another version, or a checksum differs.
    """
    folder = Path(folder)
    content = _read_manifest(folder)
    found = content.get("format")
    if found != FORMAT:
        raise BundleError(
            f"{folder / MANIFEST}: bundle format {found}, this program reads format {FORMAT}; "
            "export it again with `liveness export`."
        )
    try:
        names = ("feature_names", "feature_fill", "species")
        bundle = Bundle(folder=folder, **{**content, **{n: tuple(content[n]) for n in names}})
    except (KeyError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST}: not a complete bundle ({error}); export it again.") from error
    verify(bundle)
    return bundle


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{folder}: there is no bundle; run `liveness export` (notebook 07).") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); export the bundle again.") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: not a bundle; export it again.")
    return content


def verify(bundle: Bundle) -> None:
    """Check that all files are there and are the ones that were exported.

    Raises:
        BundleError: naming the first file that is missing or differs.
    """
    for name in REQUIRED[:2] + REQUIRED[3:]:
        if name not in bundle.files:
            raise BundleError(f"{bundle.folder}: the bundle does not list {name}; export it again.")
    for name, known in bundle.files.items():
        path = bundle.path(name)
        if Path(name).name != name or not path.is_file():
            raise BundleError(f"{path}: is missing from the bundle; copy the whole folder again.")
        if sha256(path) != known["sha256"]:
            raise BundleError(f"{path}: is damaged or was changed (SHA-256 differs); copy the bundle again.")


def show(bundle: Bundle) -> str:
    """Describe a bundle in a few lines."""
    size = sum(f["bytes"] for f in bundle.files.values()) / 1e6
    lines = [
        f"bundle {bundle.folder} (format {bundle.format}, model {bundle.variant}, {size:.1f} MB)",
        "versions: " + ", ".join(f"{k} {v}" for k, v in bundle.versions.items()),
    ]
    for name, by_pattern in bundle.thresholds.items():
        mark = "*" if name == bundle.target else " "
        lines += [f"{mark} {name} {p}: {describe_threshold(t)}" for p, t in by_pattern.items()]
    lines += [f"  {n}: {f['bytes'] / 1e6:.2f} MB, sha256 {f['sha256'][:12]}" for n, f in bundle.files.items()]
    return "\n".join(lines)


def describe_threshold(threshold: Mapping[str, Any]) -> str:
    """Say a threshold with the errors it had on the dev set.

    >>> describe_threshold({"value": 0.71, "apcer": {"value": 0.01}, "bpcer": {"value": 0.05}})
    'score ≥ 0.71 (dev: APCER 1 %, BPCER 5 %)'
    """
    rates = [f"{n.upper()} {100 * threshold[n]['value']:.3g} %" for n in ("apcer", "bpcer") if threshold.get(n)]
    return f"score ≥ {threshold['value']:.2f}" + (f" (dev: {', '.join(rates)})" if rates else "")


# ------------------------------------------------------------------------------------- the engines
@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    # The interpreter's C++ greets on file descriptor 2, which would end up in notebooks.
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


class TfliteModel:
    """A .tflite file, run by ai-edge-litert through its named signature.

    Args:
        path: model file. threads: CPU threads.

    Raises:
        BundleError: the file is no model.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            with _quiet_stderr():
                self._interpreter = Interpreter(str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
                self._runner = self._interpreter.get_signature_runner()
        except (ValueError, RuntimeError, OSError) as error:
            raise BundleError(f"{path}: is no TFLite model ({error}).") from error
        self._inputs = self._runner.get_input_details()
        self._outputs = self._runner.get_output_details()

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each input by name."""
        return {k: tuple(int(n) for n in v["shape"]) for k, v in self._inputs.items()}

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run once, float32 in and out; integer inputs are scaled as the file says."""
        fed = {k: _to_integer(np.asarray(v, np.float32), self._inputs[k]) for k, v in inputs.items()}
        out = self._runner(**fed)
        return {k: _from_integer(v, self._outputs[k]) for k, v in out.items()}


def _to_integer(value: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    if detail["dtype"] == np.float32:
        return np.ascontiguousarray(value)
    scale, zero = detail["quantization"]
    info = np.iinfo(detail["dtype"])
    return np.clip(np.round(value / scale) + zero, info.min, info.max).astype(detail["dtype"])


def _from_integer(value: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    if value.dtype == np.float32:
        return value
    scale, zero = detail["quantization"]
    return (value.astype(np.float32) - zero) * scale


class OnnxModel:
    """An .onnx file, run by onnxruntime on the CPU; same calls as `TfliteModel`."""

    def __init__(self, path: str | os.PathLike, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no base
            raise BundleError(f"{path}: is no ONNX model ({error}).") from error
        self._names = [o.name for o in self._session.get_outputs()]

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each input by name."""
        return {i.name: tuple(i.shape) for i in self._session.get_inputs()}

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run once, float32 in and out."""
        fed = {k: np.ascontiguousarray(v, np.float32) for k, v in inputs.items()}
        return dict(zip(self._names, self._session.run(None, fed), strict=True))


def open_model(path: str | os.PathLike, threads: int = 1) -> TfliteModel | OnnxModel:
    """Open a model by its suffix.

    Raises:
        BundleError: no interpreter for it is installed, or it is no model.
    """
    engine = OnnxModel if Path(path).suffix == ".onnx" else TfliteModel
    try:
        return engine(path, threads)
    except ImportError as error:
        need = "onnxruntime" if engine is OnnxModel else "ai-edge-litert"
        raise BundleError(f"{path}: {need} is not installed; run `pip install {need}`.") from error


def open_clip_model(bundle: Bundle, threads: int = 1) -> TfliteModel | OnnxModel:
    """The bundle's whole-clip model: TFLite, or ONNX where only onnxruntime is installed."""
    return _first_that_opens(bundle, ("model.tflite", "model.onnx"), threads)


def open_step_model(bundle: Bundle, threads: int = 1) -> TfliteModel | OnnxModel:
    """The bundle's per-frame model, TFLite alone; a clip under 2.4 s is judged by it, too."""
    return _first_that_opens(bundle, ("step.tflite",), threads)


def _first_that_opens(bundle: Bundle, names: tuple[str, ...], threads: int) -> TfliteModel | OnnxModel:
    problems = []
    for name in names:
        if name in bundle.files:
            try:
                return open_model(bundle.path(name), threads)
            except BundleError as error:
                problems.append(str(error))
    raise BundleError("; ".join(problems) or f"{bundle.folder}: holds none of {', '.join(names)}")


# ------------------------------------------------------------------------------------- self-test
def write_selftest(folder: str | os.PathLike, clip_inputs: Mapping[str, np.ndarray], threads: int = 1) -> Path:
    """Save one clip's input tensors and what both models of a folder answer to them.

    Args:
        folder: holds model.tflite and step.tflite.
        clip_inputs: frames (1, 25, 112, 112, 3) multiples of 1/255, features, imu, presence.

    Returns:
        selftest.npz: `in_*`, `clip_*` and `step_*` (the 25th step's), frames kept as uint8.
    """
    folder = Path(folder)
    clip = open_model(folder / "model.tflite", threads)(**clip_inputs)
    step = run_steps(open_model(folder / "step.tflite", threads), **clip_inputs)
    arrays = {f"in_{k}": v for k, v in clip_inputs.items()}
    arrays["in_frames"] = np.round(clip_inputs["frames"] * 255).astype(np.uint8)
    arrays |= {f"clip_{k}": v for k, v in clip.items()} | {f"step_{k}": v for k, v in step.items()}
    np.savez_compressed(folder / "selftest.npz", **arrays)
    return folder / "selftest.npz"


def run_steps(model: TfliteModel | OnnxModel, frames, features, imu, presence) -> dict[str, np.ndarray]:
    """Stream a clip's frames through a step model; the outputs after the last one, and the frames' mean embedding."""
    shapes = model.input_shapes
    state = {k: np.zeros(shapes[k], np.float32) for k in ("h", "c")}
    out: dict[str, np.ndarray] = {}
    embeddings = []
    for t in range(frames.shape[1]):
        now = {"frame": frames[:, t], "features": features[:, t], "imu": imu[:, t]}
        out = model(**now, presence=presence, **state)
        state = {k: out[k] for k in ("h", "c")}
        embeddings.append(out.get("embedding"))
    return out if embeddings[0] is None else out | {"embedding": np.mean(embeddings, axis=0)}


def selftest(folder: str | os.PathLike) -> dict[str, float]:
    """Run the stored example through both models of a bundle.

    Returns:
        largest difference to the stored logit: `clip` and `step`; and `clip_to_step` between both.

    Raises:
        BundleError: a difference is larger than what another processor explains.
    """
    bundle = load(folder)
    held = np.load(bundle.path("selftest.npz"))
    fed = {k: held[f"in_{k}"].astype(np.float32) for k in ("frames", "features", "imu", "presence")}
    fed["frames"] = fed["frames"] / np.float32(255.0)
    clip = open_clip_model(bundle)(**fed)["logit"]
    step = run_steps(open_step_model(bundle), **fed)["logit"]
    found = {
        "clip": float(np.abs(clip - held["clip_logit"]).max()),
        "step": float(np.abs(step - held["step_logit"]).max()),
        "clip_to_step": float(np.abs(clip - step).max()),
    }
    # Integer kernels round differently from one processor to the next; float ones hardly.
    limit = SELFTEST_TOLERANCE.get(bundle.variant, 0.5)
    if not (found["clip"] <= limit and found["step"] <= limit):
        raise BundleError(f"{folder}: self-test failed, logit differs by {max(found.values()):.3g} (limit {limit}).")
    return found
