"""What notebook 07 looks at inside converted files, and the other road to TFLite."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from liveness_utils.export import OPSET, silent, stored_bytes


@dataclass(frozen=True)
class Constant:
    """A tensor whose values are stored in a .tflite file: a weight, a bias, a shape.

    name; stored: the values as stored; scale: (channels,) quantisation steps or None; axis: the
    dimension that the scales run along.
    """

    name: str
    stored: np.ndarray
    scale: np.ndarray | None = None
    axis: int = 0

    @property
    def step(self) -> np.ndarray:
        """What one unit of the stored values stands for; broadcasts against them."""
        if self.scale is None:
            return np.ones(1, np.float32)
        shape = [1] * self.stored.ndim
        if len(self.scale) > 1:
            shape[self.axis] = -1
        return self.scale.reshape(shape)

    @property
    def real(self) -> np.ndarray:
        """The values that the stored ones stand for, float32 (weights are quantised symmetrically)."""
        return self.stored.astype(np.float32) * self.step


def constants(path: str | os.PathLike) -> list[Constant]:
    """Read the stored tensors of a .tflite file; types that the quantiser does not use are skipped."""
    from ai_edge_litert import schema_py_generated as schema

    types = {
        getattr(schema.TensorType, name.upper()): np.dtype(name)
        for name in ("float32", "float16", "int8", "int16", "int32", "int64")
    }
    content = Path(path).read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    found = []
    for tensor in (t for graph in model.subgraphs for t in graph.tensors):
        data = stored_bytes(model.buffers[tensor.buffer], content)
        if not len(data) or tensor.type not in types:
            continue
        shape = () if tensor.shape is None else tuple(tensor.shape)
        stored = data.view(types[tensor.type]).reshape(shape)
        rule = tensor.quantization
        scale = None if rule is None or rule.scale is None else np.asarray(rule.scale, np.float32)
        axis = 0 if rule is None else rule.quantizedDimension
        found.append(Constant(tensor.name.decode(), stored, scale, axis))
    return found


def classic_road(
    net: nn.Module, sample: Mapping[str, np.ndarray], folder: str | os.PathLike, *, keep_layout: bool = True
) -> dict[str, tuple[int, ...]]:
    """Convert over PyTorch → ONNX → TensorFlow → TFLite with onnx2tf, for comparison.

    Works for networks without concatenations and expands of 3-D tensors. With a single 4-D input
    onnx2tf would download test pictures: give it two inputs.

    Args:
        net: in evaluation mode. sample: its inputs by name. folder: for ONNX, SavedModel and TFLite.
        keep_layout: name every input to onnx2tf (``-kat``); without it layouts are guessed.

    Returns:
        shape of each input of the resulting float32 .tflite file, by name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(v)) for v in sample.values())
    kept = {"keep_shape_absolutely_input_names": list(sample)} if keep_layout else {}
    with silent():
        import onnx2tf
        from ai_edge_litert.interpreter import Interpreter

        source, settings = str(folder / "net.onnx"), {"dynamo": True, "opset_version": OPSET}
        torch.onnx.export(net, tensors, source, external_data=False, input_names=list(sample), **settings)
        onnx2tf.convert(source, output_folder_path=str(folder), non_verbose=True, **kept)
        found = Interpreter(str(next(folder.glob("*float32.tflite")))).get_input_details()
    return {d["name"]: tuple(int(n) for n in d["shape"]) for d in found}
