"""The network: pixels, geometry and inertial data of a clip to one liveness logit.

Clips prepared by `dataset` come in, `training` fits the weights, `export` turns them into TFLite.
`forward` (a whole clip) and `step` (one frame, explicit state) share every weight and agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from liveness_utils.errors import ModelError
from liveness_utils.inputs import FOVEATED

FRAMES = 25
CROP = 112
DEPTH = 14
WINDOW = 32
OUTPUTS = ("logit", "depth", "species", "consistency")
BONA_FIDE, MASKS = 0, (6, 7)  # among the species, in the order of `instruments.SPECIES`
VERDICTS = 1 + len(MASKS)  # of a picture, see `PictureVerdict`
STEP_OUTPUTS = (*OUTPUTS, "h", "c")


@dataclass(frozen=True)
class ModelConfig:
    """What is needed to rebuild the network before its weights are loaded.

    `n_features` is the width G of the per-frame geometry features, `n_species` the number of
    classes of the species head (bona fide included), `imu_columns` the features that the IMU has
    part in (masked with it), `pairs` the number of learned (video, IMU) signal pairs whose running
    correlation the network follows, `levels` the number of learned signals of pixels, features and
    IMU whose running statistics it follows, `drop` the share of evidence left out in training,
    `verdict` whether each picture is also asked by itself (see `PictureVerdict`), `alone` whether those
    verdicts decide where there are pictures and nothing else (False in a network that is built to be
    trained on video alone: there the fusion decides), `veto` whether
    that it shows a mask, or that its motion is not this phone's, overrules whatever the rest says, `foveated`
    which kind of crops it learned from, `fovea` whether foveated crops, every second picture, have an encoder of their own.
    """

    n_features: int
    n_species: int = 9
    imu_columns: tuple[int, ...] = ()
    hidden: int = 64
    embedding: int = 128
    pairs: int = 16
    levels: tuple[int, int, int] = (24, 48, 24)
    drop: float = 0.3
    imagenet: bool = False
    architecture: str = "fusion"
    verdict: bool = True
    alone: bool = True
    veto: bool = False
    foveated: bool = FOVEATED
    fovea: bool = False


class ChannelAttention(nn.Module):
    """Channel half of CBAM. Source: Woo et al., ECCV 2018, arXiv 1807.06521, eq. 2."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // reduction, 1)
        self.expand = nn.Conv2d(channels // reduction, channels, 1)

    def _mlp(self, pooled: Tensor) -> Tensor:
        return self.expand(functional.relu(self.reduce(pooled)))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        peak = x.amax(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self._mlp(mean) + self._mlp(peak))


class SpatialAttention(nn.Module):
    """Spatial half of CBAM. Source: Woo et al., ECCV 2018, arXiv 1807.06521, eq. 3."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(pooled))


class CBAM(nn.Module):
    """Convolutional block attention: which channels, then where in the picture.

    Returns the weighted map (n, C, 14, 14) and the spatial weights (n, 1, 14, 14).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x * self.channel(x)
        attention = self.spatial(x)
        return x * attention, attention


class SmallDepthwise(nn.Conv2d):
    """A depthwise convolution that learns small maps through one matrix a channel; otherwise the same.

    On a CPU the gradient of a 5×5 kernel over a 4×4 map, which hardly has an inside, takes oneDNN two
    fifths of a whole training step. There each channel's map is a vector of 16 numbers, and its
    convolution a matrix of the kernel's weights.
    """

    LARGEST = 16

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) to (n, C, h', w')."""
        if not self.training or x.shape[2] * x.shape[3] > self.LARGEST or self.bias is not None:
            return super().forward(x)
        n, channels, *side = x.shape
        places = _places(*side, self.kernel_size[0], self.stride[0], self.padding[0]).to(x)
        shape = [(s + 2 * self.padding[0] - self.kernel_size[0]) // self.stride[0] + 1 for s in side]
        matrices = (self.weight.flatten(1) @ places).reshape(channels, side[0] * side[1], -1)
        columns = x.permute(1, 0, 2, 3).reshape(channels, n, -1).contiguous()
        return torch.bmm(columns, matrices).transpose(0, 1).reshape(n, channels, *shape)


@lru_cache(maxsize=32)
def _places(height: int, width: int, kernel: int, stride: int, padding: int) -> Tensor:
    """(k², h w h' w'): 1 where that weight of the kernel leads from that place of the input to that of the output."""
    with torch.inference_mode(False):  # kept for lessons, too
        window = torch.eye(height * width).reshape(-1, 1, height, width)
        shifts = functional.unfold(window, kernel, padding=padding, stride=stride)  # (h w, k², h' w')
        return shifts.transpose(0, 1).reshape(kernel**2, -1).contiguous()


def _small_depthwise(layers: nn.Module) -> None:
    """Make every wide depthwise convolution a `SmallDepthwise` with its weights, in place."""
    for name, child in layers.named_children():
        if isinstance(child, nn.Conv2d) and child.groups == child.in_channels and child.kernel_size == (5, 5):
            same = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups")
            # Without storage: nothing is drawn, and the weights are the child's own.
            made = SmallDepthwise(**{n: getattr(child, n) for n in same}, bias=child.bias is not None, device="meta")
            made.weight, made.bias = child.weight, child.bias
            setattr(layers, name, made)
        else:
            _small_depthwise(child)


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pictures, RGB 0..1


def _backbone(imagenet: bool) -> nn.Sequential:
    from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

    weights = MobileNet_V3_Small_Weights.IMAGENET1K_V1 if imagenet else None
    features = mobilenet_v3_small(weights=weights).features
    for layer in features.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # The default of 0.01 is for ImageNet's millions of steps; after some hundred of ours
            # the running statistics, which evaluation uses, would still be those of the start.
            layer.momentum = 0.1
    _small_depthwise(features)
    return features


class FrameEncoder(nn.Module):
    """One face crop to an embedding, a relief map and an attention map.

    MobileNetV3-small (Howard et al., ICCV 2019) gives maps of 14x14 (fine), 7x7 (middle) and 4x4
    (coarse); fine and middle meet at 14x14, pass CBAM and feed the depth head, and are pooled
    beside the coarse map for the embedding. A short one ends with the middle map, which takes the
    coarse one's place: a fifth of the weights.
    """

    FINE, MIDDLE, COARSE = 4, 9, 12

    def __init__(self, embedding: int, imagenet: bool = False, width: int = 48, short: bool = False) -> None:
        super().__init__()
        blocks = _backbone(imagenet)
        self.fine = blocks[: self.FINE]
        self.middle = blocks[self.FINE : self.MIDDLE]
        self.coarse = nn.Identity() if short else blocks[self.MIDDLE : self.COARSE]
        deep, wide = (48, 192) if short else (96, 288)
        self.lateral_fine = nn.Conv2d(24, width, 1)
        self.lateral_middle = nn.Conv2d(48, width, 1)
        self.cbam = CBAM(width)
        self.depth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.Conv2d(width, 32, 1),
            nn.Hardswish(),
            nn.Conv2d(32, 1, 1),
        )
        self.widen = nn.Sequential(nn.Conv2d(deep, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish())
        self.embed = nn.Linear(wide + width, embedding)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode crops.

        Args:
            frames: (n, 112, 112, 3) RGB, 0..1.

        Returns:
            embedding (n, E), depth (n, 14, 14), attention (n, 14, 14).
        """
        x = (frames.permute(0, 3, 1, 2) - self.mean) / self.std
        fine = self.fine(x)
        middle = self.middle(fine)
        up = functional.interpolate(self.lateral_middle(middle), scale_factor=2.0, mode="nearest")
        fused, attention = self.cbam(self.lateral_fine(fine) + up)
        depth = self.depth(fused)
        pooled = [self.widen(self.coarse(middle)).mean(dim=(2, 3)), fused.mean(dim=(2, 3))]
        embedding = functional.hardswish(self.embed(torch.cat(pooled, dim=1)))
        side = depth.shape[-1]
        return embedding, depth.reshape(-1, side, side), attention.reshape(-1, side, side)


def soft_minimum(*values: Tensor) -> Tensor:
    """A smooth least of several log odds: all of them have to be high. At most the least of them."""
    return -torch.logsumexp(-torch.stack(values, dim=-1), dim=-1)


class PictureVerdict(nn.Module):
    """What one picture by itself says: a living face has relief, and is neither a rigid nor a soft mask.

    Each is asked by itself and all must hold. How a print or a screen *looks* is left out on
    purpose: an encoder learns the simulator's prints and screens to perfection and then takes real
    cameras for screens, while relief, which it had to learn from shape, holds on real pictures too.
    """

    INSIDE = slice(3, 11)  # of the 14 cells a side: the face without its rim

    def __init__(self, species: int) -> None:
        super().__init__()
        margins = torch.zeros(species, len(MASKS))
        for column, mask in enumerate(MASKS):
            if mask < species:
                margins[BONA_FIDE, column], margins[mask, column] = 1.0, -1.0
        self.register_buffer("margins", margins)
        self.gain = nn.Parameter(torch.tensor([20.0, 1.0, 1.0]))
        self.shift = nn.Parameter(torch.tensor([-3.0, 1.0, 1.0]))

    @classmethod
    def relief(cls, depth: Tensor) -> Tensor:
        """How strong the relief (n, 14, 14) of the face is: (n,), root mean square in inter-ocular distances."""
        inside = depth[:, cls.INSIDE, cls.INSIDE]
        return torch.sqrt((inside * inside).mean(dim=(1, 2)) + 1e-5)

    def forward(self, kinds: Tensor, relief: Tensor) -> Tensor:
        """Species' logits (n, S) and strength of relief (n, 1) to log odds (n, 3): of a living face, of no mask of
        either kind."""
        asked = torch.cat([relief, kinds @ self.margins], dim=1) * self.gain + self.shift
        asked = torch.clamp(asked, -8.0, 8.0)
        return torch.cat([soft_minimum(*asked.unbind(dim=1)).unsqueeze(1), asked[:, 1:]], dim=1)


class FeatureEncoder(nn.Module):
    """Geometry features of one frame, standardised by the training set's mean and deviation.

    Features that the IMU has part in count only where there is an IMU, and are kept out of the
    signals that are compared with it. Between a phone on a stand and one in a quiet hand lies a small part
    of the deviation over all clips; so every feature is there a second time, on a scale that is logarithmic
    on both sides of zero.
    """

    FINE = 30.0  # linear up to a deviation over this, logarithmic from there; 1 at one deviation

    def __init__(self, n_features: int, imu_columns: tuple[int, ...], width: int, pairs: int) -> None:
        super().__init__()
        self.width = 2 * n_features
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("std", torch.ones(n_features))
        from_imu = torch.zeros(n_features)
        from_imu[list(imu_columns)] = 1.0
        self.register_buffer("from_imu", from_imu)
        self.mlp = nn.Sequential(nn.Linear(self.width, 64), nn.Hardswish(), nn.Linear(64, width), nn.Hardswish())
        self.motion = nn.Linear(self.width, pairs)

    def forward(self, features: Tensor, has_imu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, G) and (n, 1) to scaled features (n, 2G), an embedding (n, width), signals (n, pairs)."""
        plain = torch.clamp((features - self.mean) / self.std, -6.0, 6.0)
        many = features / self.std * self.FINE
        fine = torch.log(1.0 + functional.relu(many)) - torch.log(1.0 + functional.relu(-many))
        x = torch.cat([plain, fine / math.log1p(self.FINE)], dim=1)
        from_imu = torch.cat([self.from_imu, self.from_imu])
        of_video = x * (1.0 - from_imu)
        scaled = of_video + x * from_imu * has_imu
        return scaled, self.mlp(scaled), self.motion(of_video)


class ImuEncoder(nn.Module):
    """The last 0.32 s of the IMU before a frame; 1-D convolutions written as 2-D ones of height 1.

    Acceleration enters without its window mean: how a hand tilts a phone is no evidence.
    """

    def __init__(self, width: int, pairs: int, window: int = WINDOW) -> None:
        super().__init__()
        self.register_buffer("std", torch.tensor([1.0, 1.0, 1.0, 0.3, 0.3, 0.3]))
        self.register_buffer("level", torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
        self.conv = nn.Sequential(
            nn.Conv2d(6, 24, (1, 5), stride=(1, 2), padding=(0, 2)),
            nn.Hardswish(),
            nn.Conv2d(24, 32, (1, 5), stride=(1, 2), padding=(0, 2)),
            nn.Hardswish(),
        )
        self.embed = nn.Linear(32 * (window // 4), width)
        self.motion = nn.Linear(6 * (window // 4), pairs)

    def forward(self, imu: Tensor) -> tuple[Tensor, Tensor]:
        """(n, W, 6) in m/s² and rad/s to an embedding (n, width) and the signals to correlate."""
        x = (imu - imu.mean(dim=1, keepdim=True) * self.level) / self.std
        x = torch.clamp(x, -8.0, 8.0).permute(0, 2, 1).unsqueeze(2)
        coarse = functional.avg_pool2d(x, (1, 4))
        embedding = functional.hardswish(self.embed(self.conv(x).flatten(1)))
        return embedding, self.motion(coarse.flatten(1))


class Watch(nn.Module):
    """Learned signals of every modality, whose course over the clip is followed.

    A boosted tree on clip-level cues beats an LSTM on a thousand clips because mean, spread and
    extremes of a cue tell more than its order in time. Here the cues are learned, and each
    modality has signals of its own, so that a missing one takes nothing with it. Signals that come
    with every second frame only (of plain and of foveated crops) have a course of their own.

    Source: statistics pooling, Snyder et al., X-vectors, ICASSP 2018,
        doi 10.1109/ICASSP.2018.8461375; mean and deviation there, five statistics here.
    """

    STATISTICS = ("mean", "deviation", "least", "most", "change")

    def __init__(self, widths: tuple[int, ...], levels: tuple[int, ...], turns: tuple[int, ...]) -> None:
        super().__init__()
        self.levels, self.turns = tuple(levels), tuple(turns)
        self.signals = nn.ModuleList(nn.Linear(w, m) for w, m in zip(widths, levels, strict=True))

    def forward(self, *parts: Tensor) -> Tensor:
        """What each modality is known by, (n, its width) each: (n, M)."""
        return torch.cat([signal(part) for signal, part in zip(self.signals, parts, strict=True)], dim=1)

    @property
    def width(self) -> int:
        """Number M of signals."""
        return sum(self.levels)

    def visible(self, presence: Tensor) -> Tensor:
        """(B, modalities) to (B, 5 M): 1 where a statistic is of a modality that is there."""
        return torch.cat([self._spread(torch.split(presence, 1, dim=1))] * len(self.STATISTICS), dim=1)

    def _spread(self, parts: Sequence[Tensor]) -> Tensor:
        """One value a modality, (B, 1) each, to one a signal, (B, M)."""
        return torch.cat([part.repeat(1, m) for part, m in zip(parts, self.levels, strict=True)], dim=1)

    def _counts(self, count: Tensor, foveated: Tensor) -> Tensor:
        """How many frames each signal has come with: (B, M), or (B, 1) where all have come with every one."""
        if not any(self.turns):
            return count
        return self._spread([(count, count - foveated, foveated)[turn] for turn in self.turns])

    def advance(self, sums: Tensor, x: Tensor, count: Tensor, foveated: Tensor, turn: Tensor) -> Tensor:
        """Take one frame's signals (B, M) into the sums (B, 6 M) of `count` (B, 1) frames before.

        `foveated` (B, 1) of those showed a foveated crop; `turn` (B, 1) is 1 if this one does.
        """
        total, squares, least, most, change, before = torch.chunk(sums, 6, dim=1)
        started = torch.clamp(self._counts(count, foveated), 0.0, 1.0)
        least = torch.minimum(least, x) * started + x * (1.0 - started)
        most = torch.maximum(most, x) * started + x * (1.0 - started)
        change = change + torch.abs(x - before) * started
        taken = torch.cat([total + x, squares + x * x, least, most, change, x], dim=1)
        if not any(self.turns):
            return taken
        fresh = self._spread([(torch.ones_like(turn), 1.0 - turn, turn)[k] for k in self.turns]).repeat(1, 6)
        return taken * fresh + sums * (1.0 - fresh)

    def gather(self, x: Tensor) -> Tensor:
        """All frames' signals (B, T, M) at once: the sums (B, 6 M) that `advance` comes to."""
        found = []
        for turn, part in zip(self.turns, torch.split(x, self.levels, dim=2), strict=True):
            part = (part, part[:, 0::2], part[:, 1::2])[turn]
            if part.shape[1] == 0:
                found.append([part.new_zeros(len(x), part.shape[2])] * 6)
                continue
            change = torch.abs(part[:, 1:] - part[:, :-1]).sum(dim=1)
            ends = part.amin(dim=1), part.amax(dim=1), change, part[:, -1]
            found.append([part.sum(dim=1), (part * part).sum(dim=1), *ends])
        return torch.cat([each for same in zip(*found, strict=True) for each in same], dim=1)

    def statistics(self, sums: Tensor, count: Tensor, foveated: Tensor) -> Tensor:
        """The five statistics of the frames so far, (B, 5 M), in the order of STATISTICS."""
        count = torch.clamp(self._counts(count, foveated), min=1.0)
        total, squares, least, most, change, _ = torch.chunk(sums, 6, dim=1)
        mean = total / count
        # The floor keeps the root's slope finite where nothing varies.
        deviation = torch.sqrt(functional.relu(squares / count - mean * mean) + 1e-4)
        steps = torch.clamp(count - 1.0, min=1.0)
        return torch.cat([mean, deviation, least, most, change / steps], dim=1)


class Judge(nn.Module):
    """All evidence, each kind on its own scale, to the few numbers that every head reads.

    What is normalised by batch statistics in training is folded into the weights in evaluation,
    so that nothing of it is left to be rounded in an integer model.
    """

    def __init__(self, evidence: int, width: int, drop: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(evidence)
        self.drop = nn.Dropout(drop)
        self.linear = nn.Linear(evidence, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, evidence) to (B, width)."""
        if self.training:
            return self.drop(functional.hardswish(self.linear(self.drop(self.norm(x)))))
        scale = self.norm.weight * torch.rsqrt(self.norm.running_var + self.norm.eps)
        shift = self.norm.bias - self.norm.running_mean * scale
        weight, bias = self.linear.weight * scale, self.linear.bias + self.linear.weight @ shift
        return functional.hardswish(functional.linear(x, weight, bias))


class LivenessNet(nn.Module):
    """Fusion of video, geometry and IMU over time.

    A missing modality is replaced by a learned vector (`presence` = video, landmarks, IMU; 1 or
    0). Three things gather evidence over the frames, causally: an LSTM; the statistics of learned
    signals (`Watch`); and the correlation of learned pairs of signals, one from the geometry (its
    change since the frame before) and one from the IMU: is what is seen caused by the motion of
    this phone? After FaceLive, Li et al., CCS 2015, doi 10.1145/2810103.2813612, with the
    signals learned. A judge of its own answers that, of motion alone; another weighs everything, and where
    there are geometry and an IMU neither can outvote the other (`ModelConfig.veto`).
    Without an IMU each picture's own verdict (`PictureVerdict`) has a veto.

    Example:
        >>> net = LivenessNet(ModelConfig(n_features=4))
        >>> net.initial_state(1)[1].shape[1] == net.state_size
        True
    """

    FEATURE_WIDTH = 48
    IMU_WIDTH = 48
    JUDGE_WIDTH = 64

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, k = config.hidden, config.pairs
        self.frame = FrameEncoder(config.embedding, config.imagenet)
        self.features = FeatureEncoder(config.n_features, tuple(config.imu_columns), self.FEATURE_WIDTH, k)
        self.imu = ImuEncoder(self.IMU_WIDTH, k)
        self._widths = (config.embedding, self.FEATURE_WIDTH, self.IMU_WIDTH)
        watched, levels, turns = (config.embedding, self.features.width, self.IMU_WIDTH), config.levels, (0, 0, 0)
        if config.fovea:
            self.fovea = FrameEncoder(config.embedding, config.imagenet, short=True)
            self.fovea_glance = nn.Linear(config.embedding, config.n_species)
            watched, levels, turns = (*watched, config.embedding), (*levels, levels[0]), (1, 0, 0, 2)
        fused = sum(self._widths)
        self.missing = nn.Parameter(torch.zeros(fused))
        self.input_gates = nn.Linear(fused, 4 * width)
        self.state_gates = nn.Linear(width, 4 * width, bias=False)
        self.pair_norm = nn.Parameter(torch.tensor(1e-2))
        self.watch = Watch(watched, levels, turns)
        evidence = 2 * width + k + len(Watch.STATISTICS) * self.watch.width
        self.judge = Judge(evidence, self.JUDGE_WIDTH, config.drop)
        self.liveness = nn.Linear(self.JUDGE_WIDTH + 1, 1)
        self.species = nn.Linear(self.JUDGE_WIDTH, config.n_species)
        self.consistency = nn.Linear(self.JUDGE_WIDTH, 1)
        moved = k + len(Watch.STATISTICS) * sum(config.levels[1:])
        self.motion_judge = Judge(moved, self.JUDGE_WIDTH, config.drop)
        self.glance = nn.Linear(config.embedding, config.n_species)
        self.picture = PictureVerdict(config.n_species)
        if config.veto:
            asked = 1 + config.fovea
            self.veto_gain = nn.Parameter(torch.full((asked * len(MASKS),), 1.0 / asked))
            self.veto_shift = nn.Parameter(torch.full((len(MASKS),), 2.0))
            self.motion_gain, self.motion_shift = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(2.0))
        self.spare = nn.Dropout(config.drop)

    @property
    def state_size(self) -> int:
        """Width of `c`: LSTM cell, sum of outputs, six running values a pair and a signal, verdicts, frames seen."""
        return sum(self._state_widths)

    def initial_state(self, batch: int = 1) -> tuple[Tensor, Tensor]:
        """Zeros: h (B, H) and c (B, state_size)."""
        return torch.zeros(batch, self.config.hidden), torch.zeros(batch, self.state_size)

    def _fuse(self, parts: list[Tensor], there: Sequence[Tensor]) -> Tensor:
        learned = torch.split(self.missing, self._widths)
        mixed = [part * here + gap * (1.0 - here) for part, gap, here in zip(parts, learned, there, strict=True)]
        return torch.cat(mixed, dim=1)

    def _lstm(self, gates: Tensor, h: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = torch.chunk(gates + self.state_gates(h), 4, dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell

    def _advance(self, gates: Tensor, signals: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One frame of recurrence: LSTM, and the sums behind means, correlations and statistics."""
        k = self.config.pairs
        cell, total, pairs, levels, verdicts, foveated, count = torch.split(c, self._state_widths, dim=1)
        seen, felt, x, verdict, turn = torch.split(signals, self._signal_widths, dim=1)
        h, cell = self._lstm(gates, h, cell)
        before, sums = torch.split(pairs, [k, 5 * k], dim=1)
        started = torch.clamp(count, 0.0, 1.0)
        change, felt = (seen - before) * started, felt * started
        sums = sums + torch.cat([change, felt, change * change, felt * felt, change * felt], dim=1)
        levels = self.watch.advance(levels, x, count, foveated, turn)
        sums = [total + h, seen, sums, levels, verdicts + verdict, foveated + turn, count + 1.0]
        return h, torch.cat([cell, *sums], dim=1)

    def _gather(self, gates: Tensor, signals: Tensor) -> tuple[Tensor, Tensor]:
        """All frames (B, T, ...) at once: the state that `_advance` comes to, in a tenth of the operators."""
        h, c = (s.to(gates) for s in self.initial_state(len(gates)))
        cell, hs = c[:, : self.config.hidden], []
        for t in range(gates.shape[1]):
            h, cell = self._lstm(gates[:, t], h, cell)
            hs.append(h)
        seen, felt, x, verdict, turn = torch.split(signals, self._signal_widths, dim=2)
        change, felt = seen[:, 1:] - seen[:, :-1], felt[:, 1:]
        pairs = torch.cat([change, felt, change * change, felt * felt, change * felt], dim=2).sum(dim=1)
        count = torch.full_like(c[:, -1:], gates.shape[1])
        sums = [torch.stack(hs).sum(dim=0), seen[:, -1], pairs, self.watch.gather(x)]
        return h, torch.cat([cell, *sums, verdict.sum(dim=1), turn.sum(dim=1), count], dim=1)

    @property
    def _verdicts(self) -> int:
        """What the plain pictures say, and, where there are foveated ones, what those say of masks."""
        return VERDICTS + (len(MASKS) if self.config.fovea else 0)

    @property
    def _signal_widths(self) -> list[int]:
        return [self.config.pairs, self.config.pairs, self.watch.width, self._verdicts, int(self.config.fovea)]

    @property
    def _state_widths(self) -> list[int]:
        width, k = self.config.hidden, self.config.pairs
        return [width, width, 6 * k, 6 * self.watch.width, self._verdicts, int(self.config.fovea), 1]

    def _watched(self, presence: Tensor) -> Tensor:
        """Presence of everything that is watched: foveated pictures are there where the video is."""
        return torch.cat([presence, presence[:, :1]], dim=1) if self.config.fovea else presence

    def _correlations(self, pairs: Tensor, count: Tensor) -> Tensor:
        _, su, sv, suu, svv, suv = torch.chunk(pairs, 6, dim=1)
        changes = torch.clamp(count - 1.0, min=1.0)
        mu, mv = su / changes, sv / changes
        power = functional.relu(suu / changes - mu * mu) * functional.relu(svv / changes - mv * mv)
        return (suv / changes - mu * mv) / torch.sqrt(power + torch.square(self.pair_norm) + 1e-6)

    def _evidence(self, h: Tensor, c: Tensor, presence: Tensor) -> Tensor:
        """Of the frames so far: last and mean output, pair correlations, statistics, (B, 2H + K + 5M)."""
        _, total, pairs, levels, _, foveated, count = torch.split(c, self._state_widths, dim=1)
        rho = self._correlations(pairs, count) * presence[:, 1:2] * presence[:, 2:3]
        course = self.watch.statistics(levels, count, foveated) * self.watch.visible(self._watched(presence))
        return torch.cat([h, total / count, rho, course], dim=1)

    def _of_motion(self, evidence: Tensor) -> Tensor:
        """Correlations, and the statistics of geometry and IMU: evidence of motion, in which no picture has part."""
        start, pixels, moved = 2 * self.config.hidden, self.config.levels[0], sum(self.config.levels[1:])
        rho, course = evidence[:, start : start + self.config.pairs], evidence[:, start + self.config.pairs :]
        parts = torch.chunk(course, len(Watch.STATISTICS), dim=1)
        return torch.cat([rho, *(part[:, pixels : pixels + moved] for part in parts)], dim=1)

    def _heads(self, h: Tensor, c: Tensor, presence: Tensor) -> dict[str, Tensor]:
        evidence = self._evidence(h, c, presence)
        judged = self.judge(evidence)
        consistency = self.consistency(self.motion_judge(self._of_motion(evidence))) * presence[:, 2:3]
        fused = self.liveness(torch.cat([judged, consistency], dim=1))
        if self.config.veto:
            moved = presence[:, 1:2] * presence[:, 2:3]
            held = soft_minimum(fused, self.motion_gain * consistency + self.motion_shift)
            fused = moved * held + (1.0 - moved) * fused
        decided = self._decide(fused, self._pictures(c), presence) if self.config.verdict else fused
        return {
            "logit": decided.reshape(-1),
            "species": self.species(judged),
            "consistency": consistency.reshape(-1),
        }

    def _pictures(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Of the frames so far, on average: a living face (B, 1), no mask of either kind (B, 2), and the latter
        once more as foveated pictures tell it, where they have an encoder of their own."""
        verdicts, foveated, count = torch.split(c, self._state_widths, dim=1)[-3:]
        if not self.config.fovea:
            return torch.split(verdicts / count, [1, len(MASKS)], dim=1)
        plain, closer = torch.split(verdicts, [VERDICTS, len(MASKS)], dim=1)
        alive, masks = torch.split(plain / (count - foveated), [1, len(MASKS)], dim=1)
        return alive, torch.cat([masks, closer / torch.clamp(foveated, min=1.0)], dim=1)

    def _decide(self, fused: Tensor, pictures: tuple[Tensor, Tensor], presence: Tensor) -> Tensor:
        """With an IMU the fusion decides; without, the pictures have a veto; with pictures alone, they decide,
        unless the network was built for those alone (`ModelConfig.alone`).

        Where the network is made so, a mask is a veto in any case: other evidence cannot outvote it.
        Foveated pictures with an encoder of their own are asked for masks only, and only where there
        is more than pictures: that encoder knows no camera but the simulator's.
        """
        seen, marks, felt = torch.chunk(presence, 3, dim=1)
        alive, masks = pictures
        if self.config.veto:
            unmasked = sum(torch.split(masks * self.veto_gain, len(MASKS), dim=1)) + self.veto_shift
            held = soft_minimum(fused, *torch.split(unmasked, 1, dim=1))
            fused = seen * held + (1.0 - seen) * fused
        pixels = alive if self.config.alone else fused
        without = seen * (marks * soft_minimum(fused, alive) + (1.0 - marks) * pixels) + (1.0 - seen) * fused
        return felt * fused + (1.0 - felt) * without

    def _signals(
        self, look: tuple[Tensor, Tensor], features: Tensor, imu: Tensor, presence: Tensor, turn: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gates (n, 4H) and signals (n, `_signal_widths`) of frames that are each for themselves.

        `turn` (n, 1) is 1 for frames that show a foveated crop, and (n, 0) where all have one encoder.
        """
        embedding, relief = look
        verdict = self.picture(self.glance(embedding), relief)
        scaled, geometry, seen = self.features(features, presence[:, 2:3])
        inertia, felt = self.imu(imu)
        parts, watched = [embedding, geometry, inertia], [embedding, scaled, inertia]
        there = list(torch.chunk(presence, 3, dim=1))
        if self.config.fovea:
            masks = self.picture(self.fovea_glance(embedding), relief)[:, 1:]
            verdict = torch.cat([verdict * (1.0 - turn), masks * turn], dim=1)
            there[0] = there[0] * (1.0 - turn)  # of foveated crops, the course of their signals is enough
            watched.append(embedding)
        gates = self.input_gates(self.spare(self._fuse(parts, there)))
        return gates, torch.cat([seen, felt, self.watch(*watched), verdict, turn], dim=1)

    def look(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Look at the pictures of clips, in their order: every second one is foveated and may have its own encoder.

        Args:
            frames: (B, F, 112, 112, 3) RGB 0..1.

        Returns:
            what all later parts know of them, embedding (B, F, E) and strength of relief (B, F, 1), and the
            maps of depth and attention (B, F, 14, 14).
        """
        if not self.config.fovea or frames.shape[1] == 1:
            seen = self._look(self.frame, frames)
        else:
            plain, foveated = self._look(self.frame, frames[:, 0::2]), self._look(self.fovea, frames[:, 1::2])
            seen = [_by_turns(a, b) for a, b in zip(plain, foveated, strict=True)]
        embedding, depth, attention = seen
        relief = PictureVerdict.relief(depth.flatten(0, 1)).reshape(*depth.shape[:2], 1)
        return embedding, relief, depth, attention

    @staticmethod
    def _look(encoder: nn.Module, frames: Tensor) -> list[Tensor]:
        batch, shown = frames.shape[:2]
        seen = encoder(frames.reshape(-1, *frames.shape[2:]))
        return [m.reshape(batch, shown, *m.shape[1:]) for m in seen]

    def kinds(self, embedding: Tensor) -> Tensor:
        """The species as each picture (B, F, E) by itself tells it: (B, F, S)."""
        if not self.config.fovea or embedding.shape[1] == 1:
            return self.glance(embedding)
        return _by_turns(self.glance(embedding[:, 0::2]), self.fovea_glance(embedding[:, 1::2]))

    def encode(
        self, frames: Tensor, features: Tensor, imu: Tensor, presence: Tensor, hold: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Everything that does not depend on earlier frames, folded into one batch.

        Args:
            frames: (B, F, 112, 112, 3) RGB 0..1.
            features: (B, T, G). imu: (B, T, W, 6). presence: (B, 3).
            hold: (N, T) int, which of the B * F pictures step t of clip n sees; features, IMU and
                presence then have N rows. None: every clip sees its own F = T frames. Every second
                picture, and what every second step sees, is foveated.

        Returns:
            gates (B, T, 4H), signals (B, T, `_signal_widths`), embedding of the pictures (B, F, E), depth
            (B, F, 14, 14), attention (B, F, 14, 14).
        """
        embedding, relief, depth, attention = self.look(frames)
        looks = embedding.flatten(0, 1), relief.flatten(0, 1)
        looks = looks if hold is None else tuple(x[hold.reshape(-1)] for x in looks)
        return (*self._align(looks, features, imu, presence), embedding, depth, attention)

    def _align(self, looks: tuple[Tensor, Tensor], features: Tensor, imu: Tensor, presence: Tensor) -> list[Tensor]:
        """Looks (N * T, ...) beside features and IMU (N, T, ...): gates and signals (N, T, ...)."""
        clips, steps = features.shape[:2]
        mask = presence.unsqueeze(1).repeat(1, steps, 1).reshape(-1, 3)
        flat = features.reshape(-1, features.shape[-1]), imu.reshape(-1, *imu.shape[2:])
        turn = (torch.arange(steps, device=presence.device) % 2).to(presence).repeat(clips).unsqueeze(1)
        turn = turn[:, : int(self.config.fovea)]
        return [x.reshape(clips, steps, -1) for x in self._signals(looks, *flat, mask, turn)]

    def judge_course(self, gates: Tensor, signals: Tensor, presence: Tensor) -> dict[str, Tensor]:
        """Let the frames pass in their order: gates and signals (N, T, ...) to the heads' answers (see `forward`)."""
        return self._heads(*self._gather(gates, signals), presence)

    def judge_looks(
        self, embedding: Tensor, relief: Tensor, features: Tensor, imu: Tensor, presence: Tensor
    ) -> dict[str, Tensor]:
        """Judge whole clips whose pictures have been looked at before (`look`): what is left when the encoder rests.

        Args:
            embedding: (N, T, E). relief: (N, T). features, imu, presence: as in `forward`.

        Returns:
            logit (N,), species (N, S), consistency (N,).
        """
        looks = embedding.reshape(-1, embedding.shape[-1]), relief.reshape(-1, 1)
        return self.judge_course(*self._align(looks, features, imu, presence), presence)

    def forward(
        self, frames: Tensor, features: Tensor, imu: Tensor, presence: Tensor, hold: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Judge whole clips.

        Args:
            frames: (B, 25, 112, 112, 3) RGB 0..1 (fewer with `hold`). features: (B, 25, G).
            imu: (B, 25, W, 6) in m/s² and rad/s. presence: (B, 3), 1 or 0.
            hold: see `encode`; training from pixels looks at 8 of the 25 frames.

        Returns:
            logit (B,), depth (B, F, 14, 14), species (B, S), consistency (B,); in training also
            glance (B, F, S), the species as each picture by itself tells it.
        """
        gates, signals, embedding, depth, _ = self.encode(frames, features, imu, presence, hold)
        out = {**self.judge_course(gates, signals, presence), "depth": depth}
        return {**out, "glance": self.kinds(self.spare(embedding))} if self.training else out

    def step(
        self, frame: Tensor, features: Tensor, imu: Tensor, presence: Tensor, h: Tensor, c: Tensor
    ) -> dict[str, Tensor]:
        """Judge everything up to this frame; every second one after the first has to be foveated.

        Args:
            frame: (B, 112, 112, 3) RGB 0..1. features: (B, G). imu: (B, W, 6). presence: (B, 3).
            h: (B, H), c: (B, state_size), zeros before the first frame.

        Returns:
            as `forward` with depth (B, 14, 14), and the new h and c.
        """
        embedding, depth, _ = self.frame(frame)
        foveated, count = torch.split(c, self._state_widths, dim=1)[-2:]
        turn = count[:, : int(self.config.fovea)] - 2.0 * foveated  # plain ones come first
        if self.config.fovea:
            closer, shape, _ = self.fovea(frame)
            embedding = embedding * (1.0 - turn) + closer * turn
            depth = depth * (1.0 - turn.unsqueeze(2)) + shape * turn.unsqueeze(2)
        relief = PictureVerdict.relief(depth).unsqueeze(1)
        gates, signals = self._signals((embedding, relief), features, imu, presence, turn)
        h, c = self._advance(gates, signals, h, c)
        return {**self._heads(h, c, presence), "depth": depth, "h": h, "c": c}

    def attention(self, frames: Tensor) -> Tensor:
        """CBAM's spatial weights of the pictures of one clip, (F, 112, 112, 3): (F, 14, 14), 0..1."""
        return self.look(frames.unsqueeze(0))[3].squeeze(0)

    def set_scaling(self, feature_mean: Tensor, feature_std: Tensor, imu_std: Tensor) -> None:
        """Store the training set's statistics: (G,), (G,) and (6,), in the inputs' units."""
        self.features.mean.copy_(feature_mean)
        self.features.std.copy_(torch.clamp(feature_std, min=1e-4))
        self.imu.std.copy_(torch.clamp(imu_std, min=1e-3))


def _by_turns(first: Tensor, second: Tensor) -> Tensor:
    """Shuffle (B, n or n + 1, ...) and (B, n, ...) into one another along the second dimension."""
    n = second.shape[1]
    pairs = torch.stack([first[:, :n], second], dim=2).flatten(1, 2)
    return pairs if first.shape[1] == n else torch.cat([pairs, first[:, n:]], dim=1)


class SeedNet(nn.Module):
    """The architecture this course started from, as a baseline with the same interface.

    MobileNetV3-small per frame, its pooled features beside eight raw sensor values (the newest
    specific force and angular rate, and the length of both), an LSTM over the frames, one logit.
    No depth, no attention, no consistency: those outputs are zeros.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config.imagenet)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        self.lstm = nn.LSTM(576 + 8, config.hidden, batch_first=True)
        self.head = nn.Linear(config.hidden, 1)

    def take_blocks(self, encoder: FrameEncoder) -> None:
        """Begin with the blocks of an encoder that has been taught; the last one, which it has not, stays new."""
        blocks = [*encoder.fine, *encoder.middle, *encoder.coarse]
        for mine, taught in zip(self.backbone[: FrameEncoder.COARSE], blocks, strict=True):
            mine.load_state_dict(taught.state_dict())

    @staticmethod
    def sensors(imu: Tensor) -> Tensor:
        """(B, T, W, 6) to the newest sample and its two lengths (B, T, 8)."""
        last = imu[:, :, -1]
        lengths = [last[..., s].norm(dim=-1, keepdim=True) for s in (slice(0, 3), slice(3, 6))]
        return torch.cat([last, *lengths], dim=-1)

    def forward(
        self, frames: Tensor, features: Tensor, imu: Tensor, presence: Tensor, hold: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See `LivenessNet.forward`; features are not looked at."""
        batch, shown = frames.shape[:2]
        clips, steps = imu.shape[:2]
        pictures = frames.reshape(-1, *frames.shape[2:]).permute(0, 3, 1, 2)
        maps = self.backbone((pictures - self.mean) / self.std)
        pixels = maps.mean(dim=(2, 3))
        pixels = pixels if hold is None else pixels[hold.reshape(-1)]
        raw = self.sensors(imu) * presence[:, None, 2:3]
        out, _ = self.lstm(torch.cat([pixels.reshape(clips, steps, -1), raw], dim=-1))
        zeros = frames.new_zeros
        return {
            "logit": self.head(out[:, -1]).reshape(-1),
            "species": zeros(clips, self.config.n_species),
            "consistency": zeros(clips),
            "depth": zeros(batch, shown, DEPTH, DEPTH),
        }

    def set_scaling(self, feature_mean: Tensor, feature_std: Tensor, imu_std: Tensor) -> None:
        """Nothing: this network takes its inputs raw."""


ARCHITECTURES = {"fusion": LivenessNet, "seed_style": SeedNet}


class StepNet(nn.Module):
    """`LivenessNet.step` as a module of its own, for export."""

    def __init__(self, net: LivenessNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, frame: Tensor, features: Tensor, imu: Tensor, presence: Tensor, h: Tensor, c: Tensor
    ) -> dict[str, Tensor]:
        """See `LivenessNet.step`."""
        return self.net.step(frame, features, imu, presence, h, c)


def build(config: ModelConfig) -> nn.Module:
    """Make the network that a configuration names.

    Raises:
        ModelError: there is no such architecture.
    """
    if config.architecture not in ARCHITECTURES:
        raise ModelError(f"{config.architecture!r} is no architecture; choose of {list(ARCHITECTURES)}")
    return ARCHITECTURES[config.architecture](config)


def save_checkpoint(path: str | Path, net: nn.Module, **extra) -> None:
    """Write weights, configuration and plain-data extras to one file, atomically.

    A tensor that half floats hold to the last bit (an encoder out of `training.save_encoders`) is kept in them.
    """
    path = Path(path)
    part = path.with_suffix(".part")
    state = {name: _smallest(value) for name, value in net.state_dict().items()}
    torch.save({"config": asdict(net.config), "state": state, **extra}, part)
    part.replace(path)


def _smallest(value: Tensor) -> Tensor:
    half = value.half() if value.dtype == torch.float32 else value
    return half if torch.equal(half.to(value.dtype), value) else value


def load_checkpoint(path: str | Path) -> tuple[nn.Module, dict]:
    """Rebuild the network of a checkpoint, ready to predict, and return what else it holds.

    Raises:
        ModelError: the file is no checkpoint of this package.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        held_config = held.pop("config")
        known = {"foveated": False, **held_config}  # before there were two kinds, crops were plain
        config = ModelConfig(**{**known, "imagenet": False, "levels": tuple(held_config["levels"])})
        net = build(config)
        state = held.pop("state")
        if config.veto:  # before motion had one, its judge objected to nothing
            state = {"motion_gain": torch.tensor(0.0), "motion_shift": torch.tensor(1e3), **state}
        net.load_state_dict(state)
        _check_crops(config.foveated)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no checkpoint; train first (notebook 05)") from error
    except Exception as error:
        raise ModelError(f"{path} is no checkpoint of this network: {error}") from error
    return net.eval(), held


def _check_crops(foveated: bool) -> None:
    if foveated != FOVEATED:
        raise ModelError("it learned from crops of another kind (see inputs.FOVEATED)")


def count_parameters(net: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)
