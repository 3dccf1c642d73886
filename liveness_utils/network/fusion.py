"""The network: pixels, geometry and inertial data of a clip to one liveness logit.

    crop 112 px ── frozen ImageNet encoder ─┬─ statistics ─┬─ flat or not ─┐
                                            │              ├─ mask or not ─┴─ mean ── the less, bounded ──────┐
                                            │              └──────┐                                           │
                                            └─ CBAM ─┬────── embedding ── species                             │
                                                     └─ depth 14×14                                           │
    geometry ──┬── LSTM ── statistics ──┐                                                                     + ── logit
    IMU ───────┴── correlations ────────┴─ judge ─┬─ consistency, species                                     │
                                                  └─ motion's logit ──────────────────────────────────────────┘

`FusionNet.forward` (a whole clip) and `step` (one frame, explicit state) run the same cells. Prepared clips come in
from `dataset`, `training` fits the weights, `export` converts them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from liveness_utils.errors import ModelError
from liveness_utils.network.encoder import CHANNELS, IMAGENET_MEAN, IMAGENET_STD, SIZE, Encoder, save_whole, statistics

DEPTH = 14
WINDOW = 32
OUTPUTS = ("logit", "species", "consistency", "pixels", "depth", "embedding")  # in the order of ONNX files


@dataclass(frozen=True)
class ModelConfig:
    """What is needed to rebuild the network before its weights are loaded.

    Attributes:
        n_features: width G of the geometry features of a frame.
        n_species: classes of the species heads, bona fide included.
        imu_columns: features that the IMU has part in; they are masked with it.
        architecture: ``fusion`` or ``seed_style``.
    """

    n_features: int
    n_species: int = 9
    imu_columns: tuple[int, ...] = ()
    architecture: str = "fusion"


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


class PictureHead(nn.Module):
    """What one picture by itself tells: the frozen encoder's maps to relief, species, and two log odds.

    `flat` asks whether it shows a living face and no print or screen, `mask` whether it shows one and no mask. Both
    are linear in the encoder's own statistics: so taught in simulation, `flat` holds on cameras that it has never
    seen (README.md), which nothing that was learned deeper did. Species come from the embedding of what CBAM
    picks out of maps of 14×14 and 7×7, beside those statistics.
    """

    WIDTH, EMBEDDED = 48, 128
    FARTHEST = 4.0  # standard deviations; a single channel cannot say more

    def __init__(self, n_species: int, drop: float = 0.4) -> None:
        super().__init__()
        fine, middle = CHANNELS[1], CHANNELS[3]
        self.lateral_fine = nn.Conv2d(fine, self.WIDTH, 1)
        self.lateral_middle = nn.Conv2d(middle, self.WIDTH, 1)
        self.cbam = CBAM(self.WIDTH)
        self.depth = nn.Sequential(
            nn.Conv2d(self.WIDTH, self.WIDTH, 3, padding=1, groups=self.WIDTH),
            nn.Conv2d(self.WIDTH, 32, 1),
            nn.Hardswish(),
            nn.Conv2d(32, 1, 1),
        )
        self.drop = nn.Dropout(drop)
        self.embed = nn.Linear(SIZE + self.WIDTH, self.EMBEDDED)
        self.species = nn.Linear(self.EMBEDDED, n_species)
        self.flat, self.mask = nn.Linear(SIZE, 1), nn.Linear(SIZE, 1)
        for linear in (self.flat, self.mask):  # until it is fitted
            self.no_objection(linear)
        self.register_buffer("level", torch.zeros(SIZE))
        self.register_buffer("spread", torch.ones(SIZE))

    @staticmethod
    def no_objection(linear: nn.Linear) -> None:
        """Make `flat` or `mask` believe in every picture, more than any bound, so that the other one decides."""
        nn.init.zeros_(linear.weight)
        nn.init.constant_(linear.bias, 4 * FusionNet.CERTAIN)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Judge pictures.

        Args:
            maps: of `encoder.Encoder.maps`.

        Returns:
            flat, mask (n, 1), species (n, S), depth and attention (n, 14, 14), embedding (n, 432), the encoder's own.
        """
        known = torch.cat([statistics(x) for x in maps], 1)
        scaled = torch.clamp((known - self.level) / self.spread, -self.FARTHEST, self.FARTHEST)
        up = functional.interpolate(self.lateral_middle(maps[3]), scale_factor=2.0, mode="nearest")
        fused, attention = self.cbam(self.lateral_fine(maps[1]) + up)
        seen = self.drop(torch.cat([scaled, fused.mean(dim=(2, 3))], dim=1))
        seen = self.drop(functional.hardswish(self.embed(seen)))
        return {
            "flat": self.flat(scaled),
            "mask": self.mask(scaled),
            "species": self.species(seen),
            "depth": self.depth(fused).reshape(-1, DEPTH, DEPTH),
            "attention": attention.reshape(-1, DEPTH, DEPTH),
            "embedding": known,
        }


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


class TemporalStatistics(nn.Module):
    """Learned signals of geometry and IMU, and five running statistics of each over the clip.

    A boosted tree on clip-level cues beats an LSTM on a thousand clips because mean, spread and
    extremes of a cue tell more than its order in time. Here the cues are learned, and each
    modality has signals of its own, so that a missing one takes nothing with it.

    Source: statistics pooling, Snyder et al., X-vectors, ICASSP 2018,
        doi 10.1109/ICASSP.2018.8461375; mean and deviation there, five statistics here.
    """

    NAMES = ("mean", "deviation", "least", "most", "change")

    def __init__(self, widths: Sequence[int], signals: Sequence[int]) -> None:
        super().__init__()
        self.counts = tuple(signals)
        self.signals = nn.ModuleList(nn.Linear(w, m) for w, m in zip(widths, signals, strict=True))

    @property
    def width(self) -> int:
        """Number M of signals."""
        return sum(self.counts)

    def forward(self, *parts: Tensor) -> Tensor:
        """What each modality is known by, (n, its width) each: (n, M)."""
        return torch.cat([signal(part) for signal, part in zip(self.signals, parts, strict=True)], dim=1)

    def visible(self, there: Sequence[Tensor]) -> Tensor:
        """Presence of each modality, (B, 1) each, to (B, 5 M): 1 where a statistic is of one that is there."""
        once = torch.cat([x.repeat(1, m) for x, m in zip(there, self.counts, strict=True)], dim=1)
        return torch.cat([once] * len(self.NAMES), dim=1)

    @staticmethod
    def advance(sums: Tensor, x: Tensor, started: Tensor) -> Tensor:
        """Take one frame's signals (B, M) into the sums (B, 6 M); `started` (B, 1) is 0 for the first one."""
        total, squares, least, most, change, before = torch.chunk(sums, 6, dim=1)
        least = torch.minimum(least, x) * started + x * (1.0 - started)
        most = torch.maximum(most, x) * started + x * (1.0 - started)
        change = change + torch.abs(x - before) * started
        return torch.cat([total + x, squares + x * x, least, most, change, x], dim=1)

    @staticmethod
    def gather(x: Tensor) -> Tensor:
        """All frames' signals (B, T, M) at once: the sums (B, 6 M) that `advance` comes to."""
        change = torch.abs(x[:, 1:] - x[:, :-1]).sum(dim=1)
        return torch.cat([x.sum(dim=1), (x * x).sum(dim=1), x.amin(dim=1), x.amax(dim=1), change, x[:, -1]], dim=1)

    @staticmethod
    def of(sums: Tensor, count: Tensor) -> Tensor:
        """The five statistics of the frames so far, (B, 5 M), in the order of NAMES."""
        total, squares, least, most, change, _ = torch.chunk(sums, 6, dim=1)
        mean = total / count
        # The floor keeps the root's slope finite where nothing varies.
        deviation = torch.sqrt(functional.relu(squares / count - mean * mean) + 1e-4)
        return torch.cat([mean, deviation, least, most, change / torch.clamp(count - 1.0, min=1.0)], dim=1)


class Judge(nn.Module):
    """All evidence of motion, each kind on its own scale, to the few numbers that every head reads.

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


class FusionNet(nn.Module):
    """Fusion of video, geometry and IMU over time: what moves and what is seen each have a logit, and these add up.

    Motion: an LSTM over geometry and IMU, the statistics of learned signals, and the correlation of learned pairs
    of signals, one from the geometry (its change since the frame before) and one from the IMU: is what is seen
    caused by the motion of this phone? After FaceLive, Li et al., CCS 2015, doi 10.1145/2810103.2813612, with the
    signals learned. Pixels: what each picture says by itself, two doubts that are each a
    mean over the frames; the graver one counts, and is bounded, since pixels of an unknown camera prove little while
    motion means the same in front of every camera. How strange a picture is does not tell how much to believe it:
    real cameras lie where simulated ones do, as far as the encoder sees.

    A missing modality is replaced by a learned vector (`presence` = video, landmarks, IMU; 1 or 0).

    Example:
        >>> net = FusionNet(ModelConfig(n_features=4))
        >>> net.initial_state(1)[1].shape[1] == net.state_size
        True
    """

    WIDTHS = (48, 48)  # of the embeddings of geometry and IMU
    HIDDEN, PAIRS, SIGNALS, JUDGED, DROP = 64, 16, (48, 24), 64, 0.3
    CERTAIN = 4.0  # log odds that a look counts at most: 50 to 1

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, k = self.HIDDEN, self.PAIRS
        self.encoder = Encoder().requires_grad_(False)
        self.picture = PictureHead(config.n_species)
        self.features = FeatureEncoder(config.n_features, tuple(config.imu_columns), self.WIDTHS[0], k)
        self.imu = ImuEncoder(self.WIDTHS[1], k)
        self.missing = nn.Parameter(torch.zeros(sum(self.WIDTHS)))
        self.input_gates = nn.Linear(sum(self.WIDTHS), 4 * width)
        self.state_gates = nn.Linear(width, 4 * width, bias=False)
        self.pair_norm = nn.Parameter(torch.tensor(1e-2))
        self.temporal = TemporalStatistics((self.features.width, self.WIDTHS[1]), self.SIGNALS)
        self.judge = Judge(2 * width + k + len(TemporalStatistics.NAMES) * self.temporal.width, self.JUDGED, self.DROP)
        self.consistency = nn.Linear(self.JUDGED, 1)
        self.liveness = nn.Linear(self.JUDGED + 1, 1)
        self.species = nn.Linear(self.JUDGED, config.n_species)
        self.dropout = nn.Dropout(self.DROP)

    @property
    def state_size(self) -> int:
        """Width of `c`: LSTM cell, sum of outputs, six running values a pair and a signal, opinions, frames seen."""
        return sum(self._state_widths)

    @property
    def _state_widths(self) -> list[int]:
        width, k = self.HIDDEN, self.PAIRS
        return [width, width, 6 * k, 6 * self.temporal.width, self.opinion_width, 1]

    @property
    def opinion_width(self) -> int:
        """Width of what is kept of one picture: flat, mask, species (S)."""
        return self.config.n_species + 2

    def initial_state(self, batch: int = 1) -> tuple[Tensor, Tensor]:
        """Zeros: h (B, H) and c (B, state_size)."""
        return torch.zeros(batch, self.HIDDEN), torch.zeros(batch, self.state_size)

    # ------------------------------------------------------------------------------------- cells
    def look(self, frames: Tensor) -> dict[str, Tensor]:
        """What pictures by themselves tell.

        Args:
            frames: (n, 112, 112, 3) RGB 0..1.

        Returns:
            opinion (n, 2 + S): flat, mask and species, see `PictureHead`; depth, attention (n, 14, 14); embedding (n, 432).
        """
        seen = self.picture(self.encoder.maps(frames))
        return {**seen, "opinion": torch.cat([seen["flat"], seen["mask"], seen["species"]], dim=1)}

    def _signals(self, features: Tensor, imu: Tensor, presence: Tensor) -> tuple[Tensor, ...]:
        """Of frames that are each for themselves: gates (n, 4H), signals to correlate (n, K) twice, and (n, M)."""
        there = torch.split(presence[:, 1:], 1, dim=1)
        scaled, geometry, seen = self.features(features, presence[:, 2:3])
        inertia, felt = self.imu(imu)
        gaps = torch.split(self.missing, self.WIDTHS)
        parts = zip((geometry, inertia), gaps, there, strict=True)
        mixed = torch.cat([part * here + gap * (1.0 - here) for part, gap, here in parts], dim=1)
        return self.input_gates(self.dropout(mixed)), seen, felt, self.temporal(scaled, inertia)

    def _lstm(self, gates: Tensor, h: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = torch.chunk(gates + self.state_gates(h), 4, dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell

    @staticmethod
    def _products(change: Tensor, felt: Tensor) -> Tensor:
        """What the correlation of two signals is summed up from."""
        return torch.cat([change, felt, change * change, felt * felt, change * felt], dim=-1)

    def _advance(self, signals: tuple[Tensor, ...], opinion: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One frame of recurrence: LSTM, and the sums behind means, correlations and statistics."""
        gates, seen, felt, x = signals
        cell, total, pairs, levels, opinions, count = torch.split(c, self._state_widths, dim=1)
        started = torch.clamp(count, 0.0, 1.0)
        h, cell = self._lstm(gates, h, cell)
        before, sums = torch.split(pairs, [self.PAIRS, 5 * self.PAIRS], dim=1)
        sums = sums + self._products((seen - before) * started, felt * started)
        levels = self.temporal.advance(levels, x, started)
        return h, torch.cat([cell, total + h, seen, sums, levels, opinions + opinion, count + 1.0], dim=1)

    def _gather(self, signals: tuple[Tensor, ...], opinion: Tensor) -> tuple[Tensor, Tensor]:
        """All frames (B, T, ...) at once: the state that `_advance` comes to, in a tenth of the operators."""
        gates, seen, felt, x = signals
        h, c = (s.to(gates) for s in self.initial_state(len(gates)))
        cell, hs = c[:, : self.HIDDEN], []
        for t in range(gates.shape[1]):
            h, cell = self._lstm(gates[:, t], h, cell)
            hs.append(h)
        pairs = self._products(seen[:, 1:] - seen[:, :-1], felt[:, 1:]).sum(dim=1)
        count = torch.full_like(c[:, -1:], gates.shape[1])
        sums = [torch.stack(hs).sum(dim=0), seen[:, -1], pairs, self.temporal.gather(x), opinion.sum(dim=1), count]
        return h, torch.cat([cell, *sums], dim=1)

    def _correlations(self, pairs: Tensor, count: Tensor) -> Tensor:
        _, su, sv, suu, svv, suv = torch.chunk(pairs, 6, dim=1)
        changes = torch.clamp(count - 1.0, min=1.0)
        mu, mv = su / changes, sv / changes
        power = functional.relu(suu / changes - mu * mu) * functional.relu(svv / changes - mv * mv)
        return (suv / changes - mu * mv) / torch.sqrt(power + torch.square(self.pair_norm) + 1e-6)

    def _heads(self, h: Tensor, c: Tensor, presence: Tensor) -> dict[str, Tensor]:
        _, total, pairs, levels, opinions, count = torch.split(c, self._state_widths, dim=1)
        seen, marks, felt = torch.chunk(presence, 3, dim=1)
        rho = self._correlations(pairs, count) * marks * felt
        over_time = self.temporal.of(levels, count) * self.temporal.visible((marks, felt))
        judged = self.judge(torch.cat([h, total / count, rho, over_time], dim=1))
        consistency = self.consistency(judged) * felt
        motion = self.liveness(torch.cat([judged, consistency], dim=1))
        flat, mask, shown = torch.split(opinions / count, [1, 1, self.config.n_species], dim=1)
        pixels = self.CERTAIN * torch.tanh(torch.minimum(flat, mask) / self.CERTAIN) * seen
        return {
            "logit": (motion + pixels).reshape(-1),
            "species": self.species(judged) + shown * seen,
            "consistency": consistency.reshape(-1),
            "pixels": pixels.reshape(-1),
        }

    # ------------------------------------------------------------------------------------- clips
    def judge_clips(self, opinion: Tensor, features: Tensor, imu: Tensor, presence: Tensor) -> dict[str, Tensor]:
        """Judge whole clips whose pictures have been looked at before.

        Args:
            opinion: (N, T, 2 + S), see `look`. features: (N, T, G). imu: (N, T, W, 6) in m/s² and rad/s.
            presence: (N, 3), 1 or 0.

        Returns:
            logit (N,), its part `pixels` (N,), species (N, S), consistency (N,).
        """
        clips, steps = features.shape[:2]
        mask = presence.unsqueeze(1).repeat(1, steps, 1).reshape(-1, 3)
        flat = self._signals(features.reshape(-1, features.shape[-1]), imu.reshape(-1, *imu.shape[2:]), mask)
        signals = tuple(x.reshape(clips, steps, -1) for x in flat)
        return self._heads(*self._gather(signals, opinion), presence)

    def forward(self, frames: Tensor, features: Tensor, imu: Tensor, presence: Tensor) -> dict[str, Tensor]:
        """Judge whole clips.

        Args:
            frames: (B, 25, 112, 112, 3) RGB 0..1. features, imu, presence: as in `judge_clips`.

        Returns:
            as `judge_clips`, and depth (B, 25, 14, 14), embedding (B, 432), the mean over the frames.
        """
        batch, shown = frames.shape[:2]
        seen = self.look(frames.reshape(-1, *frames.shape[2:]))
        opinion, depth, embedding = (
            seen[name].reshape(batch, shown, *seen[name].shape[1:]) for name in ("opinion", "depth", "embedding")
        )
        judged = self.judge_clips(opinion, features, imu, presence)
        return {**judged, "depth": depth, "embedding": embedding.mean(dim=1)}

    def step(
        self, frame: Tensor, features: Tensor, imu: Tensor, presence: Tensor, h: Tensor, c: Tensor
    ) -> dict[str, Tensor]:
        """Judge everything up to this frame.

        Args:
            frame: (B, 112, 112, 3) RGB 0..1. features: (B, G). imu: (B, W, 6). presence: (B, 3).
            h: (B, H), c: (B, state_size), zeros before the first frame.

        Returns:
            as `forward` with depth (B, 14, 14) and embedding (B, 432) of this frame, and the new h and c.
        """
        seen = self.look(frame)
        h, c = self._advance(self._signals(features, imu, presence), seen["opinion"], h, c)
        return {**self._heads(h, c, presence), "depth": seen["depth"], "embedding": seen["embedding"], "h": h, "c": c}

    def set_scaling(self, feature_mean: Tensor, feature_std: Tensor, imu_std: Tensor) -> None:
        """Store the training set's statistics: (G,), (G,) and (6,), in the inputs' units."""
        self.features.mean.copy_(feature_mean)
        self.features.std.copy_(torch.clamp(feature_std, min=1e-4))
        self.imu.std.copy_(torch.clamp(imu_std, min=1e-3))


class SeedNet(nn.Module):
    """The architecture this course started from, as a baseline with the same interface.

    MobileNetV3-small per frame, its pooled features beside eight raw sensor values (the newest
    specific force and angular rate, and the length of both), an LSTM over the frames, one logit.
    No depth, no attention, no consistency: those outputs are zeros.
    """

    HIDDEN = 64

    def __init__(self, config: ModelConfig) -> None:
        from torchvision.models import mobilenet_v3_small

        super().__init__()
        self.config = config
        self.backbone = mobilenet_v3_small(weights=None).features
        for layer in self.backbone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 0.1  # 0.01 is for ImageNet's millions of steps, not for some hundred
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.lstm = nn.LSTM(576 + 8, self.HIDDEN, batch_first=True)
        self.head = nn.Linear(self.HIDDEN, 1)

    @staticmethod
    def sensors(imu: Tensor) -> Tensor:
        """(B, T, W, 6) to the newest sample and its two lengths (B, T, 8)."""
        last = imu[:, :, -1]
        lengths = [last[..., s].norm(dim=-1, keepdim=True) for s in (slice(0, 3), slice(3, 6))]
        return torch.cat([last, *lengths], dim=-1)

    def forward(self, frames: Tensor, features: Tensor, imu: Tensor, presence: Tensor) -> dict[str, Tensor]:
        """See `FusionNet.forward`; features are not looked at. Fewer frames than steps are held, each as long."""
        batch, shown = frames.shape[:2]
        pictures = frames.reshape(-1, *frames.shape[2:]).permute(0, 3, 1, 2)
        pixels = self.backbone((pictures - self.mean) / self.std).mean(dim=(2, 3)).reshape(batch, shown, -1)
        pixels = pixels.repeat_interleave(-(-imu.shape[1] // shown), dim=1)[:, : imu.shape[1]]
        raw = self.sensors(imu) * presence[:, None, 2:3]
        out, _ = self.lstm(torch.cat([pixels, raw], dim=-1))
        zeros = frames.new_zeros
        return {
            "logit": self.head(out[:, -1]).reshape(-1),
            "species": zeros(batch, self.config.n_species),
            "consistency": zeros(batch),
            "depth": zeros(batch, shown, DEPTH, DEPTH),
        }

    def set_scaling(self, feature_mean: Tensor, feature_std: Tensor, imu_std: Tensor) -> None:
        """Nothing: this network takes its inputs raw."""


ARCHITECTURES = {"fusion": FusionNet, "seed_style": SeedNet}


class StepNet(nn.Module):
    """`FusionNet.step` as a module of its own, for export."""

    def __init__(self, net: FusionNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, frame: Tensor, features: Tensor, imu: Tensor, presence: Tensor, h: Tensor, c: Tensor
    ) -> dict[str, Tensor]:
        """See `FusionNet.step`."""
        return self.net.step(frame, features, imu, presence, h, c)


def build(config: ModelConfig) -> nn.Module:
    """Make the network that a configuration names, with random weights.

    Raises:
        ModelError: there is no such architecture.
    """
    if config.architecture not in ARCHITECTURES:
        raise ModelError(f"{config.architecture!r} is no architecture; choose of {list(ARCHITECTURES)}")
    return ARCHITECTURES[config.architecture](config)


def save_checkpoint(path: str | Path, net: nn.Module, **extra) -> None:
    """Write weights, configuration and plain-data extras to one file, atomically.

    A tensor that half floats hold to the last bit (the encoder's) is kept in them.
    """
    state = {name: _smallest(value) for name, value in net.state_dict().items()}
    save_whole(path, {"config": asdict(net.config), "state": state, **extra})


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
        net = build(ModelConfig(**held.pop("config")))
        net.load_state_dict(held.pop("state"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no checkpoint; train first (notebook 05)") from error
    except Exception as error:
        raise ModelError(f"{path} is no checkpoint of this network: {error}") from error
    return net.eval(), held


def count_parameters(net: nn.Module) -> int:
    """Number of values, frozen ones too."""
    return sum(p.numel() for p in net.parameters())
