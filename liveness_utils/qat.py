"""Training with the rounding in the loop: what int8 costs, paid back before conversion.

A trained network and its training clips come in; a network goes out whose picture encoder knows the
grid it will be stood on, and `to_tflite` writes it for the table of `export`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from liveness_utils import dataset as ds
from liveness_utils import export, inputs
from liveness_utils.errors import ModelError
from liveness_utils.model import LivenessNet
from liveness_utils.training import flat_hold

VARIANT = "qat"


@dataclass(frozen=True)
class QatConfig:
    """How long and how fast the rounded encoder learns.

    epochs over the training clips, batch_size in clips, frames looked at a clip (of 25), the peak of
    the learning rate, seed of order and augmentation. settle: share of the steps, at the end, in
    which the ranges of the activations stand still.
    """

    epochs: int = 2
    batch_size: int = 16
    frames: int = 4
    learning_rate: float = 5e-5
    settle: float = 0.4
    seed: int = 0


# ---------------------------------------------------------------------------------- the rounded net
def _quantizer():
    """litert-torch's PT2E quantiser, int8: weights a channel, activations a tensor."""
    from litert_torch.quantize import pt2e_quantizer as pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    swish = (torch.ops.aten.hardswish.default, torch.ops.aten.hardswish_.default)

    class Quantizer(pt2e.PT2EQuantizer):
        # Its patterns of convolution and batch norm do not run with this torch; ours are folded.
        STATIC_QAT_ONLY_OPS: tuple[str, ...] = ()

        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            grid = self.global_config.output_activation
            for node in model.graph.nodes:
                if node.target in swish:  # it knows none; each would stay float between two borders
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map={node.args[0]: grid}, output_qspec=grid, _annotated=True
                    )
            return super().annotate(model)

    return Quantizer().set_global(pt2e.get_symmetric_quantization_config(is_per_channel=True, is_qat=True))


def prepare(net: LivenessNet) -> LivenessNet:
    """A copy of a network whose picture encoders round, and whose other weights are held.

    An encoder is exported by torch.export and given a fake quantiser at every border by torchao's
    PT2E flow. Fusion, recurrence and heads stay float: running sums over 25 frames do not fit 256
    steps, and hold about one in seven weights.

    Args:
        net: trained, in evaluation mode; it is left as it is.

    Raises:
        ModelError: it has no picture encoder of this kind.
    """
    if not isinstance(net, LivenessNet):
        raise ModelError(f"{type(net).__name__} has no picture encoder to round; take the fusion network.")
    rounded = export.lean(net).requires_grad_(False)
    pictures = torch.rand(4, inputs.CROP, inputs.CROP, 3)
    with export._silent():
        from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

        many = ({0: torch.export.Dim("pictures", min=2, max=4096)},)
        for name in encoders(net):
            graph = torch.export.export(getattr(rounded, name), (pictures,), dynamic_shapes=many).module()
            setattr(rounded, name, prepare_qat_pt2e(graph, _quantizer()))
    for weight in _weights(rounded):
        weight.requires_grad_(True)
    return rounded


def encoders(net: LivenessNet) -> tuple[str, ...]:
    """Names of a network's picture encoders: for plain crops, and for foveated ones where they have their own."""
    return ("frame", "fovea") if net.config.fovea else ("frame",)


def _weights(rounded: LivenessNet) -> list[nn.Parameter]:
    return [weight for name in encoders(rounded) for weight in getattr(rounded, name).parameters()]


# --------------------------------------------------------------------------------------- training
def distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference as a share of the teacher's variance, so that all outputs count alike."""
    return (ours - theirs).square().mean() / theirs.var().clamp(min=1e-6)


def fine_tune(
    net: LivenessNet, prepared: ds.Prepared, config: QatConfig, rows: np.ndarray | None = None
) -> tuple[LivenessNet, np.ndarray]:
    """Teach rounded encoders to answer as the float ones do.

    The float network is the teacher: no label is used, and thresholds that were chosen for it stay
    meaningful. What is compared: each picture's embedding and relief, and each clip's logit.

    Args:
        net: trained, in evaluation mode. prepared: arrays. config: see `QatConfig`. rows: clips to
            learn from; None takes all training clips.

    Returns:
        the rounded network (see `prepare`), and the loss of each step (steps,).

    Source: Jacob et al., CVPR 2018, arXiv 1712.05877 (rounding in training); Polino et al., ICLR
        2018, arXiv 1802.05668 (the float network as teacher).
    """
    rounded = prepare(net)
    rows = prepared.rows("train") if rows is None else np.asarray(rows)
    weights = _weights(rounded)
    optimiser = torch.optim.Adam(weights, config.learning_rate)
    steps = config.epochs * -(-len(rows) // config.batch_size)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=steps + 1, pct_start=0.1)
    course = []
    for step, batch in enumerate(_batches(net, prepared, rows, config)):
        if step == max(1, int(steps * (1 - config.settle))):
            for name in encoders(rounded):
                _hold_ranges(getattr(rounded, name))
        loss = _lesson(net, rounded, batch)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        cycle.step()
        course.append(float(loss.detach()))
    return rounded, np.array(course)


def _batches(net, prepared: ds.Prepared, rows: np.ndarray, config: QatConfig) -> Iterator[dict[str, Tensor]]:
    rng = np.random.default_rng(config.seed)
    scaling = ds.Scaling(*(v.numpy() for v in (net.features.mean, net.features.std, net.imu.std)))
    frames = min(config.frames, prepared.pictures)
    for epoch in range(config.epochs):
        data = ds.LivenessDataset(
            prepared, rng.permutation(rows), scaling, frames=frames, augment=True, seed=config.seed
        )
        data.epoch = epoch
        for batch in ds.batches(data, config.batch_size):
            yield {k: torch.from_numpy(batch[k]) for k in ("frames", "features", "imu", "presence", "hold")}


def _lesson(teacher: LivenessNet, student: LivenessNet, batch: Mapping[str, Tensor]) -> Tensor:
    frames, hold = batch["frames"].float() / 255.0, flat_hold(batch["hold"], batch["frames"])
    given = [batch[k] for k in ("features", "imu", "presence")]
    with torch.no_grad():
        want = _answers(teacher, frames, given, hold)
    have = _answers(student, frames, given, hold)
    return sum(distance(a, b) for a, b in zip(have, want, strict=True))


def _answers(net: LivenessNet, frames: Tensor, given: list[Tensor], hold: Tensor) -> tuple[Tensor, ...]:
    """Logit of the clips, embedding and relief of their pictures, in one pass."""
    features, imu, presence = given
    gates, signals, embedding, depth, _ = net.encode(frames, features, imu, presence, hold)
    return net.judge_course(gates, signals, presence)["logit"], embedding, depth


def _hold_ranges(graph: nn.Module) -> None:
    from torchao.quantization.pt2e.fake_quantize import disable_observer

    graph.apply(disable_observer)


# ------------------------------------------------------------------------------------- conversion
def to_tflite(rounded: LivenessNet, sample: Mapping[str, np.ndarray], path: str | os.PathLike) -> Path:
    """Convert by litert-torch; the fake quantisers become real ones, what stayed float is stored in 16 bits.

    Args:
        rounded: from `fine_tune`; it is left as it is. sample: inputs of a clip
            by name, see `export.clip_samples`. path: .tflite file to write.

    Raises:
        ModelError: the file would need operators that are not built in.
    """
    final = copy.deepcopy(rounded)
    with export._silent():
        import litert_torch
        from litert_torch.quantize.quant_config import QuantConfig
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        # Folded weights would be plain integers to the converter, without their scales.
        for name in encoders(final):
            setattr(final, name, convert_pt2e(getattr(final, name), fold_quantize=False))
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in sample.items()}
        settings = QuantConfig(pt2e_quantizer=_quantizer())
        mixed = Path(path).with_suffix(".part")
        litert_torch.convert(final, sample_kwargs=tensors, quant_config=settings).export(str(mixed))
    export.quantise(mixed, "linear16", (), path)
    mixed.unlink()
    return Path(path)
