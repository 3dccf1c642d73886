"""From a checkpoint to the files a phone runs: TFLite in several precisions, ONNX, and the bundle.

In comes what `training` left and training clips to calibrate on; out goes a `bundle` folder and a
table of what each conversion cost.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import liveness_utils
from liveness_utils import bundle as bundles
from liveness_utils import dataset as ds
from liveness_utils import inputs, metrics
from liveness_utils.bundle import Bundle
from liveness_utils.errors import BundleError, ModelError
from liveness_utils.network.encoder import Encoder
from liveness_utils.network.fusion import OUTPUTS, FusionNet, StepNet, load_checkpoint
from liveness_utils.network.picture_training import opinions
from liveness_utils.network.scoring import score, score_table

ASKED = 0.05  # of living faces at most may lie below the zone in which a challenge is asked
VARIANTS = ("float32", "float16", "weight_only", "dynamic", "int8", "mixed")
STEP_VARIANT = "float16"  # of the step model that ships: half the size; weights of 8 bits shift its opinions by 0.2
OPSET = 18
SMALL = 256  # values; what is not larger stays float32 in `halve_onnx`
# What holds most weights and bears rounding best; attention, fusion and recurrence
# stay float, with weights of 16 bits.
INT8_SCOPES = (".*InvertedResidual.*", ".*NormActivation.*")  # the frozen encoder


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Converters talk on both streams, from Python and C++; errors still come as exceptions."""
    kept = [os.dup(1), os.dup(2)]
    before = logging.root.manager.disable
    with open(os.devnull, "w") as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), _no_displays():
                yield
        finally:
            logging.disable(before)
            for number, copy in enumerate(kept, start=1):
                os.dup2(copy, number)
                os.close(copy)


def _no_displays() -> contextlib.AbstractContextManager:
    """In a notebook, progress is drawn past both streams, through the display hook."""
    if "IPython" not in sys.modules or sys.modules["IPython"].get_ipython() is None:
        return contextlib.nullcontext()
    from IPython.utils.capture import capture_output

    return capture_output(stdout=False, stderr=False)


# ----------------------------------------------------------------------------------- sample inputs
def clip_samples(prepared: ds.Prepared, rows: np.ndarray, fill: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Input tensors of single clips, as the converted models take them.

    Args:
        prepared: arrays. rows: which clips. fill: (G,) stands in for what was not measured.

    Yields:
        frames (1, 25, 112, 112, 3) 0..1, features (1, 25, G), imu (1, 25, W, 6), presence (1, 3).
    """
    scaling = ds.Scaling(np.asarray(fill, np.float32), np.ones(1), np.ones(6))
    for item in ds.batches(ds.LivenessDataset(prepared, rows, scaling), 1):
        frames = item["frames"].astype(np.float32) / np.float32(255.0)
        yield {"frames": frames, **{k: item[k] for k in ("features", "imu", "presence")}}


def calibration_rows(prepared: ds.Prepared, n: int, seed: int = 0) -> np.ndarray:
    """Training clips to calibrate on, never test ones: n at random, every species that is there."""
    rows = prepared.rows("train")
    order = np.random.default_rng(seed).permutation(rows)
    kinds = prepared.species[order]
    rank = np.array([np.sum(kinds[:k] == kinds[k]) for k in range(len(order))])
    return np.sort(order[np.argsort(rank, kind="stable")][:n])


def _first_step(net: FusionNet, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `StepNet` takes of a clip's first frame, by name."""
    now = {"frame": sample["frames"][:, 0], "features": sample["features"][:, 0], "imu": sample["imu"][:, 0]}
    h, c = (x.numpy() for x in net.initial_state(1))
    return {**now, "presence": sample["presence"], "h": h, "c": c}


# ------------------------------------------------------------------------------------- conversions
class _LeanEncoder(nn.Module):
    """An encoder that takes the pixels' mean off rows instead of off pixels.

    An elementwise operator against three channels works in runs of three values, which took a third
    of a clip's time; against rows of 3 x 112 it takes next to none. The deviation goes into the first
    convolution's weights (a mean folded there would be wrong at the zero padding).
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.register_buffer("level", encoder.mean.detach().reshape(-1).repeat(inputs.CROP))
        self.encoder = copy.deepcopy(encoder)
        with torch.no_grad():
            self.encoder.stem[0][0].weight.div_(encoder.std)
            # Taking 0 off and dividing by 1: the converter drops both.
            self.encoder.mean.zero_()
            self.encoder.std.fill_(1.0)

    def maps(self, frames: torch.Tensor) -> list[torch.Tensor]:
        n, height, width, channels = frames.shape
        rows = frames.reshape(n * height, width * channels) - self.level
        return self.encoder.maps(rows.reshape(n, height, width, channels))


def lean(net: nn.Module) -> nn.Module:
    """A copy of a network that gives the same outputs by operators that run faster.

    Args:
        net: `FusionNet` or `StepNet`; any other network comes back as it is.
    """
    inner = net.net if isinstance(net, StepNet) else net
    if not isinstance(inner, FusionNet):
        return net
    fast = copy.deepcopy(inner)
    fast.encoder = _LeanEncoder(inner.encoder)
    return (StepNet(fast) if isinstance(net, StepNet) else fast).eval()


def to_tflite(net: nn.Module, sample: Mapping[str, np.ndarray], path: str | os.PathLike) -> Path:
    """Convert by litert-torch, built-in operators only, inputs and outputs by name.

    Args:
        net: `FusionNet` (clip) or `StepNet` (both converted as `lean` writes them), or another
            network, in evaluation mode. sample: its inputs by name.
        path: .tflite file to write.
    """
    with silent():
        import litert_torch

        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in sample.items()}
        litert_torch.convert(lean(net), sample_kwargs=tensors).export(str(path))
    _check_operators(path)
    return Path(path)


def _check_operators(path: str | os.PathLike) -> None:
    _, custom = operators(path)
    if custom:
        raise ModelError(f"{path}: needs operators that TFLite does not have built in: {custom}.")


def to_onnx(net: nn.Module, sample: Mapping[str, np.ndarray], path: str | os.PathLike) -> Path:
    """Export by torch's dynamo exporter, opset 18, weights inside the file.

    What the exporter leaves of itself (a stack trace a node, with the paths of this machine) is
    taken out, and weights that are equal are stored once.
    """
    from onnx_ir.passes import Sequential, common

    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in sample.items()}
    with silent():
        program = torch.onnx.export(
            net, (), kwargs=tensors, dynamo=True, opset_version=OPSET, external_data=False,
            verbose=False, output_names=list(OUTPUTS),
        )  # fmt: skip
        tidy = Sequential(
            common.ClearMetadataAndDocStringPass(), common.DeduplicateInitializersPass(size_limit=1 << 20)
        )
        tidy(program.model)
        program.save(str(path), external_data=False)
    return Path(path)


def halve_onnx(source: str | os.PathLike, path: str | os.PathLike) -> Path:
    """Store an ONNX file's weights as half floats, made float again once, on opening: sums in float.

    Args:
        source: float32 .onnx, see `to_onnx`. path: file to write, about half as large.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(source))
    graph, casts = model.graph, []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size <= SMALL:
            continue
        name, stored = weight.name, f"{weight.name}.half"
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    calls = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(calls)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return Path(path)


def quantise(
    source: str | os.PathLike, variant: str, samples: Sequence[Mapping[str, np.ndarray]], path: str | os.PathLike
) -> Path:
    """Make a smaller TFLite file of a float32 one with ai-edge-quantizer.

    The quantiser smooths minima and maxima over its samples, which ruined the result in trials
    (logit correlation 0.91 instead of 0.99): here it sees one sample at a time and the true
    extremes are merged.

    Args:
        source: float32 .tflite. variant: float16 | weight_only (weights of 8 bits, made float again
            once, on opening: sums in float) | dynamic (sums in integers where there is a kernel,
            which here is slower) | int8 | mixed. samples: inputs of training clips, used by int8
            and mixed. path: file to write.
    """
    with silent():
        from ai_edge_quantizer import quantizer

        engine = quantizer.Quantizer(str(source))
        engine.load_quantization_recipe(_recipe(variant))
        ranges = _merged_ranges(engine, samples, _signature(source)) if engine.need_calibration else None
        result = engine.quantize(ranges, enable_progress_report=False, enable_progress_bar=False)
        Path(path).unlink(missing_ok=True)
        result.export_model(str(path))
    _forget_names(Path(path))
    _check_operators(path)
    return Path(path)


def _forget_names(path: Path) -> None:
    """Take the names of activations out of a .tflite file, in place: a tenth of a small one, and read by nobody.

    Inputs, outputs and stored tensors keep theirs.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    content = path.read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    stored = {k: bytes(stored_bytes(b, content)) for k, b in enumerate(model.buffers)}
    for graph in model.subgraphs:
        ends = {*graph.inputs, *graph.outputs}
        for number, tensor in enumerate(graph.tensors):
            if not stored[tensor.buffer] and number not in ends:
                tensor.name = b""
    behind = [k for k, b in enumerate(model.buffers) if b.offset and b.offset > 1]
    for k in behind:
        model.buffers[k].offset = model.buffers[k].size = 1  # place is kept for numbers that are known only below
    whole = flatbuffer_utils.convert_object_to_bytearray(model)
    for k in behind:
        whole = bytearray(whole) + bytes(-len(whole) % 16)
        held = schema.Model.GetRootAs(whole, 0).Buffers(k)
        flatbuffer_utils.update_packed_buffer(held, offset=len(whole), size=len(stored[k]))
        whole += stored[k]
    path.write_bytes(whole)


def _signature(path: str | os.PathLike) -> str:
    from ai_edge_litert.interpreter import Interpreter

    return next(iter(Interpreter(str(path)).get_signature_list()))


def _merged_ranges(engine, samples: Sequence[Mapping[str, np.ndarray]], signature: str) -> dict:
    merged: dict[str, dict] = {}
    for sample in samples:
        seen = engine.calibrate({signature: [dict(sample)]}, num_threads=1)
        for name, values in seen.items():
            if name not in merged or "min" not in values:
                merged.setdefault(name, dict(values))
                continue
            merged[name]["min"] = np.minimum(merged[name]["min"], values["min"])
            merged[name]["max"] = np.maximum(merged[name]["max"], values["max"])
    return merged


def _recipe(variant: str) -> list:
    from ai_edge_quantizer import qtyping, recipe, recipe_manager

    if variant == "dynamic":
        return recipe.dynamic_wi8_afp32()
    if variant == "weight_only":
        return recipe.weight_only_wi8_afp32()
    if variant not in ("float16", "int8", "mixed"):
        raise ModelError(f"{variant!r} is no variant; choose of {', '.join(VARIANTS)}.")
    manager = recipe_manager.RecipeManager()
    if variant != "int8":
        _add_half_weights(manager)
    for scope in {"int8": (".*",), "mixed": INT8_SCOPES}.get(variant, ()):
        every = qtyping.TFLOperationName.ALL_SUPPORTED
        manager.add_static_config(regex=scope, operation_name=every, activation_num_bits=8, weight_num_bits=8)
    if variant == "int8":
        _keep_roots_float(manager)
    return manager.get_quantization_recipe()


def _keep_roots_float(manager) -> None:
    # A small divisor (the pair correlations' norm) rounds to the zero point and a small variance below it: TFLite's
    # integer division and root then stop the whole model.
    from ai_edge_quantizer import algorithm_manager, qtyping

    for name in (qtyping.TFLOperationName.DIV, qtyping.TFLOperationName.SQRT):
        manager.add_quantization_config(
            regex=".*", operation_name=name, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
        )


def _add_half_weights(manager) -> None:
    from ai_edge_quantizer import algorithm_manager, qtyping

    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    manager.add_quantization_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=half,
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )


def quantise_onnx(
    source: str | os.PathLike, samples: Sequence[Mapping[str, np.ndarray]], path: str | os.PathLike
) -> Path:
    """Make an int8 ONNX file (QDQ, convolutions only) with ONNX Runtime's static quantiser."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Deals the samples one by one."""

        def __init__(self) -> None:
            self._left = iter(samples)

        def get_next(self) -> dict | None:
            return next(self._left, None)

    with silent():
        quantize_static(
            str(source), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )  # fmt: skip
    return Path(path)


# -------------------------------------------------------------------------------------- inspection
def operators(path: str | os.PathLike) -> tuple[dict[str, int], list[str]]:
    """Count the operators of a .tflite file.

    Returns:
        built-in operators with counts, most frequent first; names of custom ones (Flex included).
    """
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(Path(path).read_bytes(), 0))
    counts, custom = Counter(), []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            counts[name] += name != "CUSTOM"
            if name == "CUSTOM":
                custom.append(code.customCode.decode())
    return {k: v for k, v in counts.most_common() if v}, sorted(set(custom))


def stored_bytes(buffer, content: bytes) -> np.ndarray:
    """A buffer's bytes, in the flatbuffer itself or, where it is large, behind it."""
    if buffer.offset and buffer.offset > 1:
        return np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    return np.asarray([] if buffer.data is None else buffer.data, np.uint8)


@torch.inference_mode()
def parity(
    net: FusionNet, model: bundles.TfliteModel | bundles.OnnxModel, samples: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """Compare a converted model with torch on some clips.

    Returns:
        max_logit, mean_logit (absolute differences), correlation of the logits, max_depth.
    """
    want, have, depth = [], [], []
    for sample in samples:
        ours = net(**{k: torch.from_numpy(v) for k, v in sample.items()})
        theirs = model(**sample)
        want.append(float(ours["logit"][0]))
        have.append(float(np.ravel(theirs["logit"])[0]))
        depth.append(float(np.abs(ours["depth"].numpy() - theirs["depth"]).max()))
    gap = np.abs(np.array(want) - np.array(have))
    alike = float(np.corrcoef(want, have)[0, 1]) if np.std(want) > 0 and np.std(have) > 0 else float("nan")
    return {
        "max_logit": float(gap.max()),
        "mean_logit": float(gap.mean()),
        "correlation": alike,
        "max_depth": max(depth),
    }


def run_file(
    path: str | os.PathLike, prepared: ds.Prepared, fill: np.ndarray, *,
    rows: np.ndarray, names: Sequence[str], threads: int = 2, progress: bool = False,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Outputs of a converted whole-clip model on prepared clips.

    Args:
        path: .tflite or .onnx. fill: (G,), `Bundle.feature_fill`. rows: which clips. names: of the outputs.

    Returns:
        each output by name, (n, …).
    """
    from tqdm.auto import tqdm

    model = bundles.open_model(path, threads)
    samples = clip_samples(prepared, rows, fill)
    results = [model(**s) for s in tqdm(samples, total=len(rows), desc=Path(path).stem, disable=not progress)]
    return {name: np.concatenate([r[name] for r in results]) for name in names}


def score_file(
    path: str | os.PathLike, prepared: ds.Prepared, fill: np.ndarray, *,
    split: str | Sequence[str] = "test", rows: np.ndarray | None = None, threads: int = 2, progress: bool = False,
):  # fmt: skip
    """Score clips with a converted whole-clip model; the same table as `scoring.score`.

    Args:
        path: .tflite or .onnx. fill: (G,), `Bundle.feature_fill`.
    """
    rows = prepared.rows(split) if rows is None else np.asarray(rows)
    names = ("logit", "consistency")
    return score_table(
        prepared, rows, run_file(path, prepared, fill, rows=rows, names=names, threads=threads, progress=progress)
    )


# ----------------------------------------------------------------------------------------- bundle
def export_bundle(
    checkpoint: str | os.PathLike,
    out_dir: str | os.PathLike,
    calibration: ds.Prepared | str | os.PathLike,
    *,
    variants: Sequence[str] = VARIANTS,
    default: str = "mixed",
    calibration_clips: int = 64,
    parity_rows: np.ndarray | None = None,
    thresholds: Mapping[str, Any] | None = None,
    target: str = "apcer5",
    metrics: Mapping[str, Any] | None = None,
    onnx_int8: bool = False,
    data_version: str = "",
) -> Bundle:
    """Convert a checkpoint to every variant, measure parity, and write a bundle.

    Args:
        checkpoint: from `training.train`. out_dir: the bundle's folder; `out_dir`/variants keeps
            every converted file (not part of the bundle).
        calibration: prepared clips; the quantiser sees training rows only.
        variants: of VARIANTS; float32 is always made. default: the one shipped as model.tflite.
        calibration_clips: how many. parity_rows: clips to compare on; None takes 16 of validation
            or training.
        thresholds: by name, then by modalities (see `dev_thresholds`). target: the one in use.
        metrics: test results. onnx_int8: also make model_int8.onnx under variants.
        data_version: what the model was trained on.

    Returns:
        the bundle, verified.

    Raises:
        BundleError: no features or the default was not exported. ModelError: checkpoint unusable.
    """
    net, extra = load_checkpoint(checkpoint)
    prepared = calibration if isinstance(calibration, ds.Prepared) else ds.open_prepared(calibration)
    wanted = tuple(dict.fromkeys(("float32", *variants)))
    if default not in wanted:
        raise BundleError(f"The default variant {default!r} is not among those exported: {', '.join(wanted)}.")
    out = Path(out_dir)
    kept = out / "variants"
    kept.mkdir(parents=True, exist_ok=True)
    fill = net.features.mean.numpy()
    samples = list(clip_samples(prepared, calibration_rows(prepared, calibration_clips), fill))
    table = _convert_all(net, samples, kept, wanted, onnx_int8)
    checks = list(clip_samples(prepared, _parity_rows(prepared, parity_rows), fill))
    for row in table.values():
        row |= parity(net, bundles.open_model(kept / row["file"]), checks)
    _ship(kept, out, default, Path(checkpoint), checks[0])
    description = Bundle(
        folder=out,
        variant=default,
        files={},
        preprocessing=_preprocessing(),
        feature_names=tuple(extra.get("feature_names", prepared.feature_names)),
        feature_fill=tuple(float(v) for v in fill),
        species=tuple(extra.get("species", ds.SPECIES)),
        thresholds=thresholds or {},
        target=target,
        quality=vars(inputs.STILL_LIMITS if prepared.stills else inputs.QualityLimits()),
        metrics=metrics or {},
        versions=_versions(data_version),
        variants=table,
        picture_head=picture_head(net),
    )
    return rewrite(description)


def picture_head(net: nn.Module) -> dict[str, Any]:
    """The linear heads on the embedding, as `Bundle.picture_head`; {} for other networks."""
    if not isinstance(net, FusionNet):
        return {}
    picture = net.picture
    arrays = {"level": picture.level, "spread": picture.spread}
    arrays |= {"weight": picture.flat.weight[0], "mask_weight": picture.mask.weight[0]}
    held = {name: [float(f"{v:.6g}") for v in array.detach().tolist()] for name, array in arrays.items()}
    return held | {"bias": picture.flat.bias.item(), "mask_bias": picture.mask.bias.item(), "bound": net.CERTAIN}


def rewrite(description: Bundle, **changes: Any) -> Bundle:
    """Write a bundle's card and manifest anew, with changed thresholds, target or metrics."""
    description = replace(description, **changes)
    (description.folder / "MODEL_CARD.md").write_text(model_card(description), encoding="utf-8")
    bundles.save(description)
    return bundles.load(description.folder)


def _convert_all(net, samples, folder: Path, variants: Sequence[str], onnx_int8: bool) -> dict[str, dict]:
    from joblib import Parallel, delayed

    stepwise, shown = StepNet(net).eval(), _first_step(net, samples[0])
    # Each converter is one long thread; the longest first.
    first, step, _ = Parallel(n_jobs=2, max_nbytes=None)([
        delayed(to_tflite)(net, samples[0], folder / "clip_float32.tflite"),
        delayed(to_tflite)(stepwise, shown, folder / "step_float32.tflite"),
        delayed(to_onnx)(net, samples[0], folder / "clip.onnx"),
    ])  # fmt: skip
    quantise(step, STEP_VARIANT, [], folder / f"step_{STEP_VARIANT}.tflite")
    table = {"float32": _row(first)}
    for variant in variants[1:]:
        table[variant] = _row(quantise(first, variant, samples, folder / f"clip_{variant}.tflite"))
    table["onnx"] = _row(folder / "clip.onnx")
    table["onnx_float16"] = _row(halve_onnx(folder / "clip.onnx", folder / "clip_float16.onnx"))
    if onnx_int8:
        table["onnx_int8"] = _row(quantise_onnx(folder / "clip.onnx", samples, folder / "clip_int8.onnx"))
    return table


def _row(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"file": path.name, "megabytes": path.stat().st_size / 1e6}
    if path.suffix == ".tflite":
        row["operators"], row["custom"] = operators(path)
    return row


def _parity_rows(prepared: ds.Prepared, rows: np.ndarray | None) -> np.ndarray:
    if rows is not None:
        return np.asarray(rows)
    found = prepared.rows("validation")
    return (found if len(found) else prepared.rows("train"))[:16]


def _ship(kept: Path, out: Path, default: str, checkpoint: Path, sample: Mapping[str, np.ndarray]) -> None:
    """Copy what a deployment takes to its final names, each whole."""
    chosen = {
        kept / f"clip_{default}.tflite": "model.tflite",
        kept / f"step_{STEP_VARIANT}.tflite": "step.tflite",
        kept / "clip_float16.onnx": "model.onnx",
        checkpoint: "checkpoint.pt",
    }
    for source, name in chosen.items():
        _put(source, out / name)
    bundles.write_selftest(out, sample)


def _put(source: Path, target: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as part:
        part.write(source.read_bytes())
    os.replace(part.name, target)
    shutil.copymode(source, target)


def ship(description: Bundle, variant: str, sample: Mapping[str, np.ndarray], **changes: Any) -> Bundle:
    """Make another exported variant the model that a bundle ships, with a fresh self-test.

    Args:
        description: bundle, as `export_bundle` returned it. variant: name of one of its TFLite
            variants. sample: one clip's inputs for the self-test, see `clip_samples`.
        changes: see `rewrite`.

    Raises:
        BundleError: that variant was not exported.
    """
    path = description.folder / "variants" / f"clip_{variant}.tflite"
    if not path.is_file():
        raise BundleError(f"{path}: this variant was not exported; choose another or export it.")
    _put(path, description.path("model.tflite"))
    bundles.write_selftest(description.folder, sample)
    return rewrite(description, variant=variant, **changes)


def _preprocessing() -> dict[str, Any]:
    return {
        "frames": inputs.FRAMES,
        "rate_hz": inputs.RATE,
        "crop_px": inputs.CROP,
        "crop_margin": inputs.MARGIN,
        "colour": "RGB",
        "range": [0.0, 1.0],
        "layout": "NHWC",
        "imu_window": inputs.WINDOW,
        "imu_rate_hz": 100.0,
        "imu_columns": ["ax", "ay", "az", "gx", "gy", "gz"],
        "imu_units": "m/s² (gravity included) and rad/s, W3C device axes",
        "presence": list(inputs.MODALITIES),
        "inputs": ["frames", "features", "imu", "presence"],
    }


def _versions(data_version: str) -> dict[str, str]:
    from importlib.metadata import version

    return {
        "code": liveness_utils.__version__,
        "data": data_version or "unknown",
        "torch": torch.__version__,
        "litert-torch": version("litert-torch"),
    }


def dev_thresholds(
    checkpoint: str | os.PathLike, prepared: ds.Prepared, *,
    targets: Sequence[float] = (0.05, 0.01), split: str = "dev", progress: bool = False,
) -> dict[str, dict[str, dict]]:  # fmt: skip
    """Choose thresholds on the dev set, one for each set of modalities a clip may have and each length.

    Returns:
        as `thresholds_of`.
    """
    net, tables = load_checkpoint(checkpoint)[0], {}
    seen = opinions(net, prepared, prepared.rows(split), progress=progress).plain  # once for all patterns
    for key, pattern in bundles.PATTERNS.items():
        modalities = [m for m, on in zip(inputs.MODALITIES, key, strict=True) if on]
        for frames in (bundles.FRAMES, *bundles.SHORT):
            name = pattern if frames == bundles.FRAMES else bundles.short_name(pattern, frames)
            tables[name] = score(net, prepared, split=split, modalities=modalities, frames=frames, opinions=seen)
    return thresholds_of(tables, targets)


def thresholds_of(
    tables: Mapping[str, pd.DataFrame], targets: Sequence[float] = (0.05, 0.01)
) -> dict[str, dict[str, dict]]:
    """Choose thresholds such that less evidence never helps: no part of it accepts a species more often than all of it.

    Without an IMU an injection has bona fide pixels and cannot be told: there thresholds are
    chosen on the presentation attacks alone, and `without` says so.

    Args:
        tables: by modalities (`bundle.PATTERNS`) and length (`bundle.short_name`), scores of the same dev clips.
        targets: of the worst species' APCER.

    Returns:
        name (apcer5, apcer1, eer, and `bundle.FLOOR`) to modalities to a `metrics.Threshold` as a dict.
    """
    whole = bundles.PATTERNS[1, 1, 1]
    found: dict[str, dict[str, dict]] = {}
    for pattern, table in tables.items():
        left_out = [] if "imu" in pattern else ["injection"]
        told = table[~table["pai_species"].isin(left_out)]
        for name, threshold in metrics.thresholds(told, targets).items():
            if pattern != whole:
                full = tables[whole]
                value = found[name][whole]["value"]
                rates = metrics.apcer(full["score"], full["is_bonafide"], value, full["pai_species"])
                threshold = metrics.no_looser(threshold, told, rates)
            found.setdefault(name, {})[pattern] = threshold.as_dict() | {"without": left_out}
        # With less evidence nothing is asked about that would be an attack with all of it.
        least = found[bundles.FLOOR][whole]["value"] if bundles.FLOOR in found else -np.inf
        named = told["score"], told["is_bonafide"], ASKED, told["pai_species"]
        floor = metrics.threshold_for_bpcer(*named, least=least)
        found.setdefault(bundles.FLOOR, {})[pattern] = floor.as_dict() | {"without": left_out}
    return found


def model_card(description: Bundle) -> str:
    """A page on what the model is, how it was measured and what it must not be used for."""
    rows = "\n".join(
        f"| {name} | {row['megabytes']:.2f} | {row['max_logit']:.2g} | {row['mean_logit']:.2g} | {row['correlation']:.4f} |"
        for name, row in description.variants.items()
    )
    limits = "\n".join(
        f"- {'**' + name + '** (in use)' if name == description.target else name}, {pattern}: "
        f"{bundles.describe_threshold(t)}{'' if t.get('supported', True) else ', more than its few clips support'}"
        for name, by in description.thresholds.items()
        for pattern, t in by.items()
    )
    measured = description.metrics.get("real_world")
    if measured:
        from liveness_utils.deployment import benchmark_report
    return CARD.format(
        variant=description.variant,
        real=benchmark_report.markdown(measured)
        if measured
        else "Not measured for this bundle: `liveness benchmark DATA`.",
        rows=rows,
        limits=limits or "none yet: every clip is answered with no decision",
        versions=", ".join(f"{k} {v}" for k, v in description.versions.items()),
    )


CARD = """# Face liveness, {variant}

Judges 2.5 s of video of one face, or at least 1.2 s at stricter thresholds, with landmarks and a phone's IMU where they are there, and
answers P(bona fide). Score at or above the threshold: bona fide.

## On real faces

The bundle as it ships, and a camera that so many people taught (`liveness teach`; nobody who taught is tested, pixels
alone; intervals of AUC over people, of EER over draws of people). Made by `liveness benchmark`; the data sets are named in data/README.md.

{real}

Trained on simulated presentations only, on an encoder with ImageNet knowledge. No real face with IMU has been
measured; thresholds and error rates below hold for the simulator and say nothing certain about real cameras, faces
or attackers. Not for access control as it is.

Versions: {versions}.

## Thresholds, chosen on the dev set

{limits}

## Conversions against PyTorch

| variant | MB | logit, max abs diff | mean abs diff | correlation |
|---|---|---|---|---|
{rows}

## Inputs

`bundle.json` names sizes, order, units and axes under `preprocessing`, and the features in order
under `feature_names`. `selftest.npz` holds input tensors and the outputs they must give.
"""
