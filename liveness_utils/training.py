"""Fitting the network: losses, the Lightning loop, checkpoints, and scoring a prepared data set.

In come the arrays of `dataset` and a `TrainConfig`; out go a checkpoint and tables of scores,
which `metrics` and `export` read.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from liveness_utils import dataset as ds
from liveness_utils import inputs
from liveness_utils.config import LEFT_OUT, Profile, shipped_encoder
from liveness_utils.errors import DatasetError, ModelError
from liveness_utils.metrics import eer
from liveness_utils.model import BONA_FIDE, MASKS, ModelConfig, SeedNet, build, load_checkpoint, save_checkpoint
from liveness_utils.network.encoder import save_whole

if TYPE_CHECKING:
    from liveness_utils.pictures import Pictures

CONSISTENT, UNKNOWN = 1.0, -1.0
STILL = 0.02  # rad/s; under it a gyroscope says too little to tell two motions apart


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training depends on.

    prepared, out: folders of the arrays and of the results. modalities: what the network may use.
    pictures: folder of single pictures (`pictures.prepare`) for encoders that learn here, "" for none.
    strangers: folder of further ones that no encoder learns from, by which the pictures' veto is set, see
    `set_veto`; "" to learn it from the clips with the rest.
    encoders: folder in which trainings that need the very same encoder share it; "" keeps it in `out`.
    encoder_epochs: passes in which a picture encoder that learns here does so by itself first, see `teach_encoder`;
    encoder_walks: how often the second half of that lesson is walked, see `learn_pictures`;
    encoder_later: species that its first half does not show yet (see `learn_pictures`);
    encoder_seed: of that lesson, None for `seed`; encoder_start: file of encoders
    (`config.shipped_encoder`) that are taken as they are, "" to teach them; fovea: whether foveated crops have
    an encoder of their own, see `ModelConfig`; encoder_rate: factor on its learning rate afterwards, 0 to leave it as it is. views: of an encoder
    that is left as it is, how many changed views of each training clip it looks at once, so that the
    fusion learns from those looks, in three times as many epochs, which are short; 0 to look anew in every
    epoch. veto: of a new network, see
    `ModelConfig`. frames: pictures looked at a clip (of 25) where it learns from pixels. exclude: species
    left out of training and validation. `*_weight`: of
    the losses. unobservable: weight of the liveness loss of an
    injection when the IMU that would tell it is masked. average: whether the weights that are
    validated and kept are the running mean of about an epoch's. start: checkpoint to fine-tune from.
    devices, num_nodes, strategy: passed to Lightning's Trainer.
    """

    prepared: str
    out: str
    pictures: str = ""
    strangers: str = ""
    encoders: str = ""
    encoder_epochs: int = 0
    encoder_walks: int = 3
    encoder_later: tuple[str, ...] = ()
    encoder_rate: float = 0.0
    encoder_seed: int | None = None
    encoder_start: str = ""
    epochs: int = 40
    patience: int = 8
    batch_size: int = 16
    frames: int = 8
    views: int = 0
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0
    modalities: tuple[str, ...] = inputs.MODALITIES
    architecture: str = "fusion"
    exclude: tuple[str, ...] = ()
    depth_weight: float = 1.0
    species_weight: float = 0.5
    consistency_weight: float = 1.0
    glance_weight: float = 0.3
    unobservable: float = 0.2
    average: bool = True
    veto: bool = False
    fovea: bool = False
    imagenet: bool = False
    start: str = ""
    resume: bool = True
    workers: int = 0
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    progress: bool = True


ABLATION = {
    # An encoder that has learned relief cannot be the start of a row without.
    "video": {"modalities": ("video",), "depth_weight": 0.0, "consistency_weight": 0.0, "encoder_start": ""},
    "video_depth": {"modalities": ("video",), "consistency_weight": 0.0},
    "video_landmarks": {"modalities": ("video", "landmarks"), "consistency_weight": 0.0},
    "video_imu": {"modalities": ("video", "imu")},
    "all": {},
    "seed_style": {
        "architecture": "seed_style",
        "modalities": ("video", "imu"),
        "depth_weight": 0.0,
        "species_weight": 0.0,
        "consistency_weight": 0.0,
        "glance_weight": 0.0,
        "encoder_start": "",
    },
}


def from_profile(profile: Profile, prepared: str | os.PathLike, out: str | os.PathLike, **changes) -> TrainConfig:
    """A configuration with the sizes of a `config.Profile`; `changes` win."""
    sizes = {
        "encoder_epochs": profile.encoder_epochs,
        "encoder_start": str(shipped_encoder()) if profile.takes_encoders and not changes.get("imagenet") else "",
        "views": profile.views,
        "veto": True,
        "fovea": True,
        "epochs": profile.epochs,
        "patience": profile.patience,
        "batch_size": profile.batch_size,
        "frames": profile.train_frames,
        "learning_rate": profile.learning_rate,
    }
    return TrainConfig(str(prepared), str(out), **{**sizes, **changes})


# ----------------------------------------------------------------------------------------- losses
def liveness_loss(logit: Tensor, label: Tensor, weight: Tensor, positive: float) -> Tensor:
    """Binary cross-entropy; `positive` balances the classes, `weight` (n,) the clips."""
    losses = functional.binary_cross_entropy_with_logits(
        logit, label, reduction="none", pos_weight=logit.new_tensor(positive)
    )
    return (losses * weight).sum() / weight.sum().clamp(min=1.0)


def depth_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 on relief plus contrastive depth loss, where the target is known.

    The second term compares each cell with its right and lower neighbour, so that a map that is
    right but for its level still learns shape.

    Args:
        predicted, target: (n, F, 14, 14) in inter-ocular distances, target NaN where unknown.

    Source: Wang et al., Deep Spatial Gradient and Temporal Depth Learning for Face
        Anti-Spoofing, CVPR 2020, arXiv 2003.08061 (contrastive depth).
    """
    level = _masked_l1(predicted, target)
    across = _masked_l1(predicted.diff(dim=-1), target.diff(dim=-1))
    down = _masked_l1(predicted.diff(dim=-2), target.diff(dim=-2))
    return level + across + down


def _masked_l1(predicted: Tensor, target: Tensor) -> Tensor:
    known = torch.isfinite(target)
    gap = torch.where(known, predicted - torch.nan_to_num(target), torch.zeros_like(predicted))
    return functional.smooth_l1_loss(gap, torch.zeros_like(gap), beta=0.2, reduction="sum") / known.sum().clamp(min=1)


def species_loss(logits: Tensor, species: Tensor) -> Tensor:
    """Cross-entropy over the clips whose species is in the table (others are −1)."""
    known = (species >= 0).float()
    losses = functional.cross_entropy(logits, species.clamp(min=0), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1.0)


def glance_loss(logits: Tensor, species: Tensor) -> Tensor:
    """Cross-entropy of the species that each picture by itself tells.

    Without it the geometry explains the training clips before the picture encoder has learned
    anything. An injection's pixels are bona fide, and count as that.

    Args:
        logits: (n, F, S). species: (n,), −1 where not in the table.
    """
    bona_fide = torch.full_like(species, ds.SPECIES.index("bona_fide"))
    shown = torch.where(species == ds.SPECIES.index("injection"), bona_fide, species)
    return species_loss(logits.flatten(0, 1), shown.repeat_interleave(logits.shape[1]))


def consistency_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Does the IMU belong to this video? 1 yes, 0 no, −1 not known (not counted)."""
    known = (target >= 0).float()
    losses = functional.binary_cross_entropy_with_logits(logit, target.clamp(min=0), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1.0)


# ----------------------------------------------------------------------------------- IMU swapping
def consistency_target(species: Tensor, presence: Tensor) -> Tensor:
    """1 where the phone that measured is the one that filmed, 0 for injections, −1 without IMU."""
    target = (species != ds.SPECIES.index("injection")).float()
    return torch.where(presence[:, 2] > 0, target, torch.full_like(target, UNKNOWN))


def swap_imu(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """More injections for free: every clip again, with the IMU of another one.

    Pixels are not computed twice (`hold` points at them). Pairs of two phones at rest are
    left uncounted: their records fit either video.

    Args:
        batch: as `LivenessDataset` deals it in training, n clips.

    Returns:
        a batch of 2n rows over the same pictures, with `consistency` and `weight` (2n,).
    """
    n = len(batch["label"])
    moving = torch.maximum(_agitation(batch["imu"]), _agitation(batch["decoy_imu"])) > STILL
    usable = batch["decoy_valid"] * batch["presence"][:, 2] * moving
    unknown = torch.full_like(batch["species"], -1)
    injection = torch.full_like(unknown, ds.SPECIES.index("injection"))
    fake = torch.where((batch["label"] > 0) & (usable > 0), injection, unknown)
    told = torch.where(usable > 0, 0.0, UNKNOWN)
    once = consistency_target(batch["species"], batch["presence"])
    twice = {k: torch.cat([batch[k], batch[k]]) for k in ("presence", "hold", "embedding", "relief") if k in batch}
    once_only = {k: batch[k] for k in ("frames", "depth") if k in batch}
    return (
        twice
        | once_only
        | {
            "imu": torch.cat([batch["imu"], batch["decoy_imu"]]),
            "features": torch.cat([batch["features"], batch["decoy_features"]]),
            "label": torch.cat([batch["label"], torch.zeros(n)]),
            "species": torch.cat([batch["species"], fake]),
            "consistency": torch.cat([once, told]),
            "weight": torch.cat([torch.ones(n), 0.5 * usable * batch["label"]]),
        }
    )


def _agitation(imu: Tensor) -> Tensor:
    return imu[..., 3:].square().sum(dim=-1).mean(dim=(1, 2)).sqrt()


def flat_hold(hold: Tensor, frames: Tensor) -> Tensor:
    """Turn positions among one clip's pictures into positions among all of the batch's."""
    start = torch.arange(len(frames), device=hold.device) * frames.shape[1]
    return hold + start.repeat(len(hold) // len(frames)).unsqueeze(1)


# ------------------------------------------------------------------------------------ the module
class LivenessModule(pl.LightningModule):
    """The network with its losses and optimiser."""

    def __init__(self, net: nn.Module, config: TrainConfig, positive: float, steps: int) -> None:
        super().__init__()
        self.net, self.cfg, self.positive, self.steps = net, config, positive, steps
        self._scores: list[tuple[np.ndarray, ...]] = []

    def losses(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """All losses of a batch by name, `loss` their weighted sum, and the network's outputs."""
        out, cfg = self._answers(batch), self.cfg
        parts = {
            "liveness": (1.0, liveness_loss(out["logit"], batch["label"], self._weight(batch), self.positive)),
            "species": (cfg.species_weight, species_loss(out["species"], self._seen_species(batch))),
            "consistency": (cfg.consistency_weight, consistency_loss(out["consistency"], batch["consistency"])),
        }
        if "depth" in out:  # not of an encoder that rests
            parts["depth"] = cfg.depth_weight, depth_loss(out["depth"], batch["depth"])
        if "glance" in out:  # in training only; the first rows are the clips as they were recorded
            seen = batch["species"][: len(batch["frames"])]
            parts["glance"] = cfg.glance_weight, glance_loss(out["glance"], seen)
        total = sum(w * v for w, v in parts.values())
        return {"loss": total, **{name: v for name, (_, v) in parts.items()}}, out

    def _answers(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        given = batch["features"], batch["imu"], batch["presence"]
        if "embedding" in batch:
            return self.net.judge_looks(batch["embedding"], batch["relief"], *given)
        hold = flat_hold(batch["hold"], batch["frames"])
        return self.net(batch["frames"].float() / 255.0, *given, hold)

    def _weight(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.where(_unobservable(batch), self.cfg.unobservable * batch["weight"], batch["weight"])

    @staticmethod
    def _seen_species(batch: dict[str, Tensor]) -> Tensor:
        return torch.where(_unobservable(batch), -torch.ones_like(batch["species"]), batch["species"])

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Loss of one batch; with an IMU in play every clip is also seen with a wrong one."""
        batch = swap_imu(batch) if _teaches_injection(self.cfg) else _plain(batch)
        losses, _out = self.losses(batch)
        self.log_dict({f"train_{k}": v for k, v in losses.items()}, on_step=False, on_epoch=True,
                      batch_size=len(batch["label"]), sync_dist=True)  # fmt: skip
        return losses["loss"]

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        """Losses and scores on the validation subjects."""
        batch = _plain(batch)
        losses, out = self.losses(batch)
        self.log_dict({f"val_{k}": v for k, v in losses.items()}, on_epoch=True,
                      batch_size=len(batch["label"]), sync_dist=True)  # fmt: skip
        self._scores.append((torch.sigmoid(out["logit"]).float().cpu().numpy(), batch["label"].cpu().numpy()))

    def on_validation_epoch_end(self) -> None:
        """The equal error rate, where both classes are there."""
        score, label = (np.concatenate(v) for v in zip(*self._scores, strict=True))
        self._scores.clear()
        both = 0 < label.sum() < len(label)
        self.log("val_eer", float(eer(score, label)) if both else 0.5, sync_dist=True, prog_bar=True)

    def setup(self, stage: str) -> None:
        """At a rate of 0 the encoder is not even asked for gradients."""
        for part in self._resting:
            part.requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        """Other random choices every epoch, the same ones for the same seed."""
        self.trainer.train_dataloader.dataset.epoch = self.current_epoch
        for part in self._resting:
            part.eval()

    def configure_optimizers(self) -> dict:
        """AdamW with one cycle of the learning rate."""
        cfg = self.cfg
        groups = self._groups()
        optimiser = torch.optim.AdamW(groups, cfg.learning_rate, weight_decay=cfg.weight_decay)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, [g["lr"] for g in groups], total_steps=self.steps + 1, pct_start=0.15
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    @property
    def _held(self) -> list[nn.Module]:
        """What has learned from single pictures before, and what is asked of it: clips would tune it to their own."""
        taught = _has_taught_encoder(self.net, self.cfg)
        return [*encoder_parts(self.net).values(), self.net.picture] if taught else []

    @property
    def _resting(self) -> list[nn.Module]:
        return [] if self.cfg.encoder_rate else self._held

    def _groups(self) -> list[dict]:
        """An encoder that has learned already moves more slowly than what is put on it."""
        held = {id(p) for part in self._held for p in part.parameters()}
        parts = ([p for p in self.parameters() if (id(p) in held) == inside] for inside in (True, False))
        rates = (self.cfg.encoder_rate * self.cfg.learning_rate, self.cfg.learning_rate)
        return [{"params": part, "lr": rate} for part, rate in zip(parts, rates, strict=True) if part]


# ----------------------------------------------------------------------------- the encoder, first
ENCODER_BATCH = 64
ENCODER_LEARNING_RATE = 3e-3
ENCODER_AGAIN = 3 / 16  # of the passes of the lesson, in its second, gentler half
ENCODER_GENTLE = 1 / 3  # of its learning rate
PLAIN, FOVEATED = ENCODERS = ("plain", "foveated")  # crops that an encoder learns from
_PARTS = {PLAIN: ("frame", "glance"), FOVEATED: ("fovea", "fovea_glance")}  # of the network
ENCODER_LOG = "{}_encoder_log"  # of the first half; with a number, of a walk of the second
ENCODER_AVERAGE = 1 / 8  # of the second half: over how much of it the weights that are kept are averaged
CLIP_PICTURES = 4  # of every clip a pass, beside single pictures
LOOKS_EPOCHS = 3  # times as many epochs, where one takes seconds
LOOKS_AVERAGE = 6  # epochs that the weights are averaged over there, for one


def _has_taught_encoder(net: nn.Module, config: TrainConfig) -> bool:
    """Whether `teach_encoder` applies: a fusion network that looks at pictures, and is new or has some to learn on."""
    asked = config.encoder_epochs > 0 and (config.pictures or not config.start)
    return bool(asked) and "video" in config.modalities and hasattr(net, "glance")


def _learns_from_looks(net: nn.Module, config: TrainConfig) -> bool:
    """Whether pictures of clips are looked at but once, since the encoder rests."""
    return config.views > 0 and config.encoder_rate == 0 and _has_taught_encoder(net, config)


class EncoderModule(pl.LightningModule):
    """A picture encoder alone: which species is it, and where is relief?"""

    def __init__(
        self, frame: nn.Module, glance: nn.Module, spare: nn.Module, config: TrainConfig, weights: Tensor, steps: int,
        rate: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.frame, self.glance, self.spare = frame, glance, spare
        self.frame.to(memory_format=torch.channels_last)
        self.cfg, self.steps, self.rate = config, steps, rate
        self.register_buffer("weights", weights)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Cross-entropy of the species, and the depth loss."""
        embedding, depth, _attention = self.frame(batch["frame"].float() / 255.0)
        asked = self.glance(self.spare(embedding))
        glance = functional.cross_entropy(asked, batch["species"], weight=self.weights)
        shape = depth_loss(depth[:, None], batch["depth"][:, None])
        losses = {"glance": glance, "depth": shape}
        self.log_dict(losses, on_step=False, on_epoch=True, batch_size=len(depth))
        return glance + self.cfg.depth_weight * shape

    def on_train_epoch_start(self) -> None:
        """Other pictures every epoch, the same ones for the same seed."""
        self.trainer.train_dataloader.dataset.epoch = self.current_epoch

    def configure_optimizers(self) -> dict:
        """AdamW with one cycle of the learning rate."""
        optimiser = torch.optim.AdamW(self.parameters(), self.rate, weight_decay=0.02)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.rate, total_steps=self.steps + 1, pct_start=0.1)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def teach_encoder(net: nn.Module, prepared: ds.Prepared, config: TrainConfig) -> None:
    """Let the picture encoders learn by themselves before the fusion, in place.

    Geometry and IMU explain the training clips within a few epochs, and then nothing is left for
    the pixels to explain. So an encoder first learns the species and the relief from single
    pictures: one of every training clip a pass, or, where there are pictures of other people
    and instruments (`config.pictures`), all of those with a few of every clip. The weights stay in encoder.pt beside the
    checkpoint; a training that is resumed takes them from there. They can also be taken from a file
    (`config.encoder_start`); what it does not hold learns here.

    Args:
        net: network to be trained; without an encoder of this kind it is left as it is, and so is one that is
            fine-tuned, unless there are pictures: then it learns on, in smaller steps. The baseline of `SeedNet`
            takes the blocks of an encoder of plain crops that is taught so, and goes on learning with the rest.
        prepared: arrays. config: of the training.
    """
    if isinstance(net, SeedNet) and config.encoder_epochs and not config.start:
        donor, lesson = build(replace(net.config, architecture="fusion")), replace(config, architecture="fusion")
        teach_encoder(donor, prepared, lesson)
        net.take_blocks(donor.frame)
        return
    if not _has_taught_encoder(net, config):
        return
    wanted, home = _encoder_mark(config), _encoder_home(config)
    kept = home / "encoder.pt"
    held = torch.load(kept, weights_only=True) if config.resume and kept.is_file() else {}
    if held.get("training") != wanted:
        home.mkdir(parents=True, exist_ok=True)
        kinds, each = _untaught(config, net.config.fovea), CLIP_PICTURES if config.pictures else 1
        singles = _singles(config) if kinds else None
        if _goes_on(config):
            take_encoders(net, config.encoder_start)
        for kind in kinds:
            if kind == FOVEATED and prepared.stills:
                continue  # a still is never foveated
            learn_pictures(net, prepared, replace(config, out=str(home)), singles, each=each, kind=kind)
        save_whole(kept, {"training": wanted, **_encoder_states(net)})
    else:
        _put_encoder(net, held)
    for part in encoder_parts(net).values():
        part.to(memory_format=torch.channels_last)  # as a lesson leaves it: processes that train together must agree


def _encoder_home(config: TrainConfig) -> Path:
    return Path(config.encoders) / _digest(_encoder_mark(config)) if config.encoders else Path(config.out)


def take_looks(net: nn.Module, prepared: ds.Prepared, config: TrainConfig, *, progress: bool = False) -> ds.Looks:
    """Look at every clip once with an encoder that rests, and at training clips in changed views too; kept in a file.

    An encoder that learns no more says the same of the same picture in every epoch, and in every
    training that shares it. So pictures are looked at here, once: `config.views` changed views of
    each training clip (every second one mirrored), all 25 pictures of each, as in judging.

    Args:
        net: with its encoder taught. prepared: arrays. config: of the training. progress: show a bar.

    Returns:
        Looks, which looks.npz beside encoder.pt holds.
    """
    path, wanted = _encoder_home(config) / "looks.npz", _looks_mark(prepared, config)
    held = _read_looks(path, wanted) if config.resume else None
    if held is not None:
        return held
    rows = _known(prepared, prepared.rows("train"))
    turned = np.arange(config.views) % 2 * (ds.mirror_of(prepared.feature_names) is not None) > 0
    asked = [(int(r), -1) for r in range(len(prepared))] + [(int(r), v) for r in rows for v in range(config.views)]
    look = _looker(net, prepared, turned, wanted["encoder"]["seed"])
    embedding, relief = (np.stack(v) for v in zip(*_in_threads(net, look, asked, progress), strict=True))
    n, shape = len(prepared), (len(rows), config.views, inputs.FRAMES)
    views = embedding[n:].reshape(*shape, -1), relief[n:].reshape(shape)
    found = ds.Looks(embedding[:n], relief[:n], rows, *views, turned)
    part = path.with_suffix(f".part{os.getpid()}")
    with open(part, "wb") as file:
        np.savez(file, mark=json.dumps(wanted, sort_keys=True), **asdict(found))
    part.replace(path)
    return found


def _looker(net: nn.Module, prepared: ds.Prepared, turned: np.ndarray, seed: int) -> Callable:
    """Embedding (25, E) and relief (25,) of a clip's row, in one of its changed views or, at −1, as it is."""

    @torch.inference_mode()
    def look(row: int, view: int) -> tuple[np.ndarray, np.ndarray]:
        plain = view < 0
        crops = (
            np.array(prepared.crops[row]) if plain else ds.changed_view(prepared, row, view, bool(turned[view]), seed)
        )
        embedding, relief, *_ = net.look(torch.from_numpy(crops[None]).float() / 255.0)
        return embedding[0].numpy().astype(np.float16), relief[0, :, 0].numpy()

    return look


def _in_threads(net: nn.Module, call: Callable, asked: Sequence[tuple], progress: bool) -> list:
    """Many calls on one network in evaluation mode, as many at a time as torch has threads."""
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    threads, learning = torch.get_num_threads(), net.training
    torch.set_num_threads(1)
    net.eval()
    try:
        done = Parallel(threads, prefer="threads", return_as="generator", batch_size=4)(
            delayed(call)(*a) for a in asked
        )
        return list(tqdm(done, total=len(asked), desc="looks", leave=False, disable=not progress))
    finally:
        net.train(learning)
        torch.set_num_threads(threads)


def _looks_mark(prepared: ds.Prepared, config: TrainConfig) -> dict:
    return {"encoder": _encoder_mark(config), "views": config.views, "rows": prepared.rows("train").tolist()}


def _read_looks(path: Path, wanted: dict) -> ds.Looks | None:
    """Looks that were kept, if they are the ones that are wanted."""
    if not path.is_file():
        return None
    with np.load(path) as held:
        same = json.loads(str(held["mark"])) == wanted
        return ds.Looks(**{k: held[k] for k in held.files if k != "mark"}) if same else None


def set_veto(net: nn.Module, config: TrainConfig) -> None:
    """Set how much each encoder's "no mask" counts in the veto, on pictures of strangers, in place; for good.

    An encoder is surer of the clips that it has learned from than of anybody else, and what learns from
    those clips how far to trust it trusts it too far: masks of strangers pass. So trust is measured where it
    will be needed, on people and instruments that no encoder has seen: for either kind of mask, by a
    logistic regression on what each encoder says of one picture. Without such pictures the veto is
    learned with the rest; that of a mask which is left out stays as it began.

    Source: Wolpert, Stacked Generalization, Neural Networks 5(2), 1992,
        doi 10.1016/S0893-6080(05)80023-1 (learning from held-out predictions only).

    Args:
        net: with its encoders taught. config: of the training; `strangers` are looked at plain and, where
            there is an encoder for them, foveated.

    Raises:
        DatasetError: the folder of strangers holds no pictures.
    """
    from sklearn.linear_model import LogisticRegression

    if not config.strangers or config.start or not (_has_taught_encoder(net, config) and net.config.veto):
        return
    held = _pictures(config.strangers)
    said = _unmasked(net, np.stack([held.crops, held.foveated_crops][: 1 + net.config.fovea], axis=1))
    hidden = {ds.SPECIES.index(name) for name in _hidden(config)}
    gains, shifts = net.veto_gain.detach().clone().view(-1, len(MASKS)), net.veto_shift.detach().clone()
    for column, mask in enumerate(MASKS):
        asked = np.isin(held.species, (BONA_FIDE, mask))
        living = held.species[asked] == BONA_FIDE
        if mask in hidden or living.all() or not living.any():
            continue
        found = LogisticRegression(class_weight="balanced").fit(said[asked, :, column], living)
        gains[:, column] = torch.from_numpy(found.coef_[0]).to(gains)
        shifts[column] = float(found.intercept_[0])
    for value, parameter in ((gains.view(-1), net.veto_gain), (shifts, net.veto_shift)):
        parameter.data.copy_(value)
        parameter.requires_grad_(False)


@torch.inference_mode()
def _unmasked(net: nn.Module, crops: np.ndarray) -> np.ndarray:
    """Of pictures (n, F, 112, 112, 3), plain and perhaps foveated: log odds of no mask of either kind (n, F, 2)."""
    learning = net.training
    net.eval()
    said = []
    for first in range(0, len(crops), ENCODER_BATCH):
        part = torch.from_numpy(crops[first : first + ENCODER_BATCH]).float() / 255.0
        embedding, relief, *_ = net.look(part)
        verdict = net.picture(net.kinds(embedding).flatten(0, 1), relief.flatten(0, 1))
        said.append(verdict[:, 1:].reshape(*part.shape[:2], -1).numpy())
    net.train(learning)
    return np.concatenate(said)


def _singles(config: TrainConfig) -> Pictures | None:
    """The single pictures that a training's encoder is given, if any."""
    return _pictures(config.pictures) if config.pictures else None


def _pictures(folder: str) -> Pictures:
    """Single pictures.

    Raises:
        DatasetError: the folder holds none.
    """
    from liveness_utils.pictures import open_pictures  # brings the renderer, which no other training needs

    held = open_pictures(folder)
    if held is None:
        raise DatasetError(f"{folder}: no finished pictures there; make them with `pictures.prepare` (notebook 05).")
    return held


def _hidden(config: TrainConfig) -> tuple[str, ...]:
    """Species that the encoder must not see. An injection's pixels are bona fide, and give nothing of it away."""
    return tuple(name for name in config.exclude if name != "injection")


def _encoder_mark(config: TrainConfig) -> dict:
    """What makes two encoders the same: all that their lesson depends on, and nothing of what comes after."""
    held = _fingerprint(config) | {"exclude": list(_hidden(config))}
    encoder_seed = config.seed if config.encoder_seed is None else config.encoder_seed
    names = (
        "clips",
        "pictures",
        "encoder_epochs",
        "encoder_walks",
        "depth_weight",
        "exclude",
        "imagenet",
        "average",
        "lesson",
    )
    begun = {name: held[name] for name in ("start", "encoder_start", "encoder_later", "fovea") if held[name]}
    return {name: held[name] for name in names} | {"seed": encoder_seed} | begun


def _digest(mark: dict) -> str:
    return hashlib.sha256(json.dumps(mark, sort_keys=True).encode()).hexdigest()[:12]


def learn_pictures(
    net: nn.Module,
    prepared: ds.Prepared,
    config: TrainConfig,
    singles: Pictures | None,
    *,
    each: int = 1,
    steps: int | None = None,
    kind: str = PLAIN,
    emphasis: float = 1.0,
) -> None:
    """Teach a picture encoder of `net`, in place.

    In two halves: `config.encoder_epochs` passes in large steps, then 3/16 as many in small ones, with
    wider changes of the pictures, and of those the running mean of the weights is kept. The first
    finds what tells the species apart, the second makes it hold for other cameras. How well it holds
    is largely luck of the draw; so the second half is walked `config.encoder_walks` times from the
    same start, each time with other pictures, and the mean of the weights is kept: better than the
    mean of the walks. A network that is fine-tuned gets the second half alone, in as many passes as
    the configuration says. Where `config.encoder_later` names species that come in the second half only, trainings
    whose first halves show the same share it, if they share a folder (`config.encoders`).

    Args:
        net: to be taught. prepared: clips. config: of the training. singles: pictures that are mixed in, or None.
        each: pictures of every clip a pass. steps: how many of the first half, and no second. kind: of ENCODERS,
            the crops it learns from; one encoder for both learns from either. emphasis: weight of living faces and
            masks in the loss of species, over that of flat attacks, which are learned sooner.

    Source: Wortsman et al., Model soups, ICML 2022, arXiv 2203.05482.
    """
    only = None if inputs.FOVEATED and not net.config.fovea else kind == FOVEATED

    def walk(number: int, passes: int) -> None:
        hidden = _hidden(config) if number else _hidden_at_first(config)
        rows = _known(prepared, prepared.rows("train", hidden))
        rows = rows[prepared.species[rows] >= 0]
        data = ds.PictureDataset(prepared, rows, config.seed, singles, hidden, each, number, only)
        _learn_half(net, data, config, passes, steps, kind, emphasis)

    if steps or not config.start:
        with _shared_half(net, config, kind) as there:
            if not there:
                walk(0, config.encoder_epochs)
    if steps:
        return
    passes = config.encoder_epochs if config.start else max(1, round(ENCODER_AGAIN * config.encoder_epochs))
    start, ends = copy.deepcopy(net.state_dict()), []
    for number in range(1, config.encoder_walks + 1):
        net.load_state_dict(start)
        walk(number, passes)
        ends.append(copy.deepcopy(net.state_dict()))
    net.load_state_dict(_mean_weights(ends))


def _hidden_at_first(config: TrainConfig) -> tuple[str, ...]:
    """Species that the first half of an encoder's lesson does not show, in the table's order."""
    return tuple(s for s in ds.SPECIES if s in {*_hidden(config), *config.encoder_later})


@contextmanager
def _shared_half(net: nn.Module, config: TrainConfig, kind: str) -> Iterator[bool]:
    """Whether the first half of a lesson has been taken from where another training left it; else it is left there."""
    if not (config.encoders and config.encoder_later):
        yield False
        return
    lesson = {k: v for k, v in _encoder_mark(config).items() if k not in ("encoder_later", "encoder_walks")}
    home = Path(config.encoders) / _digest(lesson | {"exclude": list(_hidden_at_first(config)), "half": kind})
    path, parts = home / "half.pt", encoder_parts(net, kind)
    held = torch.load(path, weights_only=True) if config.resume and path.is_file() else None
    for name, state in (held or {}).items():
        parts[name].load_state_dict(state)
    yield held is not None
    if held is None:
        home.mkdir(parents=True, exist_ok=True)
        save_whole(path, {name: module.state_dict() for name, module in parts.items()})


def _goes_on(config: TrainConfig) -> bool:
    """Whether encoders come from a file; a network that is fine-tuned brings its own."""
    return bool(config.encoder_start) and not config.start


def _untaught(config: TrainConfig, fovea: bool) -> tuple[str, ...]:
    """Kinds of crops, of ENCODERS, whose encoders have a lesson in this training; `fovea`: of a network with both."""
    there = _encoder_file(config.encoder_start) if _goes_on(config) else {}
    return tuple(k for k in ENCODERS[: 1 + fovea] if not set(_PARTS[k]) <= set(there))


def save_encoders(path: str | os.PathLike, net: nn.Module, log: dict[str, list] | None = None) -> None:
    """Keep the picture encoders, with their heads of species, as half floats, and the log of their lessons.

    Args:
        path: of the file. net: with its encoders taught. log: columns of `encoder_log`.
    """
    states = {
        name: {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        for name, state in _encoder_states(net).items()
    }
    save_whole(path, {**states, "log": log or {}})


def encoder_parts(net: nn.Module, kind: str = "") -> dict[str, nn.Module]:
    """What learns from single pictures, by name: an encoder and its head of species.

    Args:
        net: the network. kind: of ENCODERS, the crops it looks at; "" for all that the network has.
    """
    kinds = (kind,) if kind else ENCODERS[: 1 + net.config.fovea]
    return {name: getattr(net, name) for k in kinds for name in _PARTS[k]}


def _encoder_states(net: nn.Module) -> dict[str, dict[str, Tensor]]:
    return {name: part.state_dict() for name, part in encoder_parts(net).items()}


def _put_encoder(net: nn.Module, held: dict[str, dict[str, Tensor]]) -> None:
    for name, part in encoder_parts(net).items():
        part.load_state_dict(held[name])


def _encoder_file(path: str | os.PathLike) -> dict:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path} is no file of encoders (see training.save_encoders): {error}") from error


def take_encoders(net: nn.Module, path: str | os.PathLike) -> None:
    """Give `net` the encoders that `save_encoders` kept; one for foveated crops may be missing there.

    Raises:
        ModelError: the file is none of encoders, or of other ones.
    """
    held = _encoder_file(path)
    try:
        for name, part in encoder_parts(net).items():
            if name in held or name in _PARTS[PLAIN]:
                part.load_state_dict(held[name])
    except Exception as error:
        raise ModelError(f"{path} holds no encoders of this network (see training.save_encoders): {error}") from error


def _mean_weights(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of every floating tensor; counters as in the first."""
    mean = {k: sum(s[k] for s in states) / len(states) for k, v in states[0].items() if v.is_floating_point()}
    return states[0] | mean


def _learn_half(
    net: nn.Module,
    data: ds.PictureDataset,
    config: TrainConfig,
    passes: int,
    steps: int | None,
    kind: str,
    emphasis: float,
) -> None:
    gentle, log = data.walk > 0, f"{ENCODER_LOG.format(kind)}{data.walk or ''}"
    size = min(ENCODER_BATCH, len(data))
    loader = _Ahead(DataLoader(data, size, shuffle=True, drop_last=True, num_workers=config.workers))
    counts = np.bincount(data.species, minlength=len(ds.SPECIES))
    weights = torch.from_numpy(np.where(counts > 0, counts.max() / np.maximum(counts, 1), 0.0)).float()
    weights[[BONA_FIDE, *MASKS]] *= emphasis
    total = steps or passes * len(loader)
    average = _averaging(config, ENCODER_AVERAGE * total) if gentle else []
    bar = [pl.callbacks.TQDMProgressBar(refresh_rate=4, leave=False)] if config.progress else []
    trainer = pl.Trainer(
        max_epochs=-1 if steps else passes,
        max_steps=steps or -1,
        accelerator=config.accelerator,
        devices=1,
        callbacks=[*average, *bar],
        logger=pl.loggers.CSVLogger(config.out, name="", version=log),
        log_every_n_steps=1,
        gradient_clip_val=5.0,
        enable_checkpointing=False,
        enable_progress_bar=config.progress,
        enable_model_summary=False,
    )
    rate = ENCODER_LEARNING_RATE * (ENCODER_GENTLE if gentle else 1.0)
    frame, glance = encoder_parts(net, kind).values()
    trainer.fit(EncoderModule(frame, glance, net.spare, config, weights, total, rate), loader)


class _Ahead:
    """A loader that makes the next batch in a thread while this one is learned from.

    Changing pictures takes about a quarter as long as learning from them. A thread shares memory and
    starts at once, on every system; processes (`TrainConfig.workers`) are for machines with many cores.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader, self.dataset = loader, loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        batches = iter(self.loader)
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(next, batches, None)
            while (batch := ahead.result()) is not None:
                ahead = pool.submit(next, batches, None)
                yield batch


def _teaches_injection(config: TrainConfig) -> bool:
    """Whether clips are seen with a wrong IMU, too: not where injections are to be unknown."""
    uses_imu = "imu" in config.modalities and config.architecture == "fusion"
    return uses_imu and "injection" not in config.exclude


def _plain(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    target = consistency_target(batch["species"], batch["presence"])
    return batch | {"consistency": target, "weight": torch.ones_like(batch["label"])}


def _unobservable(batch: dict[str, Tensor]) -> Tensor:
    """Injections whose IMU is masked: their pixels are bona fide."""
    injection = batch["species"] == ds.SPECIES.index("injection")
    return injection & (batch["presence"][:, 2] == 0)


# -------------------------------------------------------------------------------------- training
@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's and torch's notices off the page; errors still show."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def train(config: TrainConfig) -> Path:
    """Train once; a finished training of the same configuration is not repeated.

    Args:
        config: see `TrainConfig`.

    Returns:
        path of checkpoint.pt in `config.out`, the weights of the epoch with the lowest validation
        loss. Beside it: log/metrics.csv (one row an epoch), tensorboard/, last.ckpt to resume.

    Raises:
        DatasetError: the training split is empty or holds one class only.
    """
    out = Path(config.out)
    final = out / "checkpoint.pt"
    if config.resume and _finished(final, config):
        return final
    out.mkdir(parents=True, exist_ok=True)
    with quiet():
        pl.seed_everything(config.seed, workers=True)
        prepared = ds.open_prepared(config.prepared)
        loaders, scaling, positive = _loaders(prepared, config)
        net = _network(prepared, config, scaling)
        from_looks = not prepared.stills and _learns_from_looks(net, config)
        epochs = config.epochs * (LOOKS_EPOCHS if from_looks else 1)
        world = max(1, config.devices * config.num_nodes)
        module = LivenessModule(net, config, positive, epochs * -(-len(loaders[0]) // world))
        teach_encoder(module.net, prepared, config)
        set_veto(module.net, config)
        if from_looks:
            looks = take_looks(module.net, prepared, config, progress=config.progress)
            for loader in loaders:
                loader.dataset.looks = looks
        average = len(loaders[0]) * (LOOKS_AVERAGE if from_looks else 1)
        trainer, best = _trainer(config, out, epochs, average)
        trainer.fit(module, *loaders, ckpt_path=_resume_point(config, out))
        if trainer.is_global_zero:
            _keep_best(best, module, prepared, config, final)
        trainer.strategy.barrier()
    return final


def _fingerprint(config: TrainConfig) -> dict:
    """What makes two trainings the same: settings and clips, not where and how they run."""
    skip = (
        "out",
        "prepared",
        "pictures",
        "strangers",
        "encoders",
        "resume",
        "workers",
        "progress",
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
    )
    held = {k: v for k, v in asdict(config).items() if k not in skip}
    held = {k: list(v) if isinstance(v, tuple) else v for k, v in held.items()}
    if Path(config.start).is_file():
        held["start"] = _content(config.start)  # a path stays when what lies there is made anew
    held["encoder_start"] = _content(config.encoder_start) if _goes_on(config) else ""
    lesson = {"batch": ENCODER_BATCH, "learning_rate": ENCODER_LEARNING_RATE, "clip_pictures": CLIP_PICTURES}
    lesson |= {"again": ENCODER_AGAIN, "gentle": ENCODER_GENTLE, "average_over": ENCODER_AVERAGE}
    singles = _singles(config) if _untaught(config, config.fovea) else None
    looks = {"epochs": LOOKS_EPOCHS, "average": LOOKS_AVERAGE} if config.views else {}
    return held | {
        "lesson": lesson,
        "looks": looks,
        "clips": ds.open_prepared(config.prepared).mark,
        "pictures": None if singles is None else singles.mark,
        "strangers": _pictures(config.strangers).mark if config.strangers else "",
    }


def _content(path: str) -> str:
    """What a file is, wherever it lies."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise ModelError(f'{path} cannot be read: encoders can also be taught here, encoder_start="".') from error


def _finished(final: Path, config: TrainConfig) -> bool:
    if not final.is_file():
        return False
    try:
        return _made_as(load_checkpoint(final)[1].get("training") or {}, config)
    except ModelError:
        return False


def _made_as(held: dict, config: TrainConfig) -> bool:
    """Whether a training that left this fingerprint is the one that is asked for."""
    # What was set before there was a setting for it.
    usual = {f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in fields(TrainConfig)}
    return bool(held) and all(held.get(k, usual.get(k)) == v for k, v in _fingerprint(config).items())


def _loaders(prepared, config: TrainConfig) -> tuple[list[DataLoader], ds.Scaling, float]:
    rows = {s: _known(prepared, prepared.rows(s, config.exclude)) for s in ("train", "validation")}
    labels = prepared.labels[rows["train"]]
    if len(labels) == 0 or labels.min() == labels.max():
        raise DatasetError(
            f"{config.prepared}: training needs bona fide and attack clips in split 'train'; "
            f"it has {int(labels.sum())} of {len(labels)}."
        )
    scaling = ds.scaling_of(prepared, rows["train"])
    pictures = min(config.frames, prepared.pictures)
    shared = {"modalities": config.modalities, "seed": config.seed, "frames": pictures}
    sets = [
        ds.LivenessDataset(prepared, rows["train"], scaling, augment=True, **shared),
        ds.LivenessDataset(prepared, rows["validation"], scaling, **shared),
    ]
    loaders = [_loader(s, config, shuffle=k == 0) for k, s in enumerate(sets)]
    return loaders, scaling, float((labels == 0).sum() / (labels == 1).sum())


def _known(prepared, rows: np.ndarray) -> np.ndarray:
    """Rows with a label and a face: a clip that the gates refuse teaches nothing."""
    face = prepared.quality["no_face"].to_numpy() == 0 if prepared.stills else prepared.presence[:, 1] > 0
    return rows[np.isfinite(prepared.labels[rows]) & face[rows]]


def _loader(data: ds.LivenessDataset, config: TrainConfig, shuffle: bool) -> DataLoader:
    # A last batch of one clip would break batch normalisation's statistics.
    drop = shuffle and len(data) > config.batch_size
    return DataLoader(data, config.batch_size, shuffle=shuffle, drop_last=drop,
                      num_workers=config.workers)  # fmt: skip


def _network(prepared, config: TrainConfig, scaling: ds.Scaling) -> nn.Module:
    if config.start:
        return load_checkpoint(config.start)[0].train()
    shape = ModelConfig(
        n_features=prepared.features.shape[-1],
        n_species=len(ds.SPECIES),
        imu_columns=prepared.imu_columns,
        imagenet=config.imagenet,
        architecture=config.architecture,
        veto=config.veto and config.depth_weight > 0,
        foveated=inputs.FOVEATED,
        fovea=config.fovea and inputs.FOVEATED,
        verdict=config.depth_weight > 0,  # a picture can be asked for relief where relief was taught
        alone=tuple(config.modalities) != ("video",),
    )
    net = build(shape)
    net.set_scaling(*(torch.from_numpy(v) for v in asdict(scaling).values()))
    return net


def _trainer(
    config: TrainConfig, out: Path, epochs: int, average: float
) -> tuple[pl.Trainer, pl.callbacks.ModelCheckpoint]:
    best = pl.callbacks.ModelCheckpoint(out, "best", monitor="val_loss", save_last=True, enable_version_counter=False)
    stop = pl.callbacks.EarlyStopping("val_loss", patience=config.patience * epochs // config.epochs)
    bar = [pl.callbacks.TQDMProgressBar(refresh_rate=4, leave=False)] if config.progress else []
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        callbacks=[*_averaging(config, average), best, stop, *bar],
        logger=_loggers(out),
        log_every_n_steps=1,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        enable_progress_bar=config.progress,
        enable_model_summary=False,
    )
    return trainer, best


def _averaging(config: TrainConfig, steps: float) -> list[pl.Callback]:
    """Keep the running mean of the weights over about so many steps: what is validated and saved.

    Source: Polyak & Juditsky, SIAM J. Control Optim. 1992, doi 10.1137/0330046.
    """
    if not config.average:
        return []
    # Lerp, because what rests must stay as it is: a * decay + a * (1 - decay) creeps away from a.
    mean = torch.optim.swa_utils.get_ema_multi_avg_fn(1.0 - 1.0 / max(2.0, steps))
    return [pl.callbacks.WeightAveraging(multi_avg_fn=mean)]


def _loggers(out: Path) -> list:
    loggers: list = [pl.loggers.CSVLogger(out, name="", version="log")]
    try:
        loggers.append(pl.loggers.TensorBoardLogger(out, name="", version="tensorboard"))
    except ModuleNotFoundError:  # the board is a convenience
        pass
    return loggers


def _resume_point(config: TrainConfig, out: Path) -> str | None:
    last, mark = out / "last.ckpt", out / "training.json"
    same = mark.is_file() and _made_as(json.loads(mark.read_text(encoding="utf-8")), config)
    if config.resume and same and last.is_file():
        return str(last)
    for old in (last, out / "best.ckpt"):
        old.unlink(missing_ok=True)
    mark.write_text(json.dumps(_fingerprint(config), sort_keys=True), encoding="utf-8")
    return None


def _keep_best(best, module: LivenessModule, prepared, config: TrainConfig, final: Path) -> None:
    held = torch.load(best.best_model_path, map_location="cpu", weights_only=False)
    weights = {k.removeprefix("net."): v for k, v in held["state_dict"].items()}
    module.net.load_state_dict(weights)
    save_checkpoint(
        final,
        module.net.eval(),
        training=_fingerprint(config),
        feature_names=list(prepared.feature_names),
        species=list(ds.SPECIES),
        best_epoch=int(held["epoch"]),
        val_loss=float(best.best_model_score),
    )


def training_log(checkpoint: str | os.PathLike):
    """Learning curves of a training, one row an epoch (DataFrame with train_* and val_* columns)."""
    import pandas as pd

    table = pd.read_csv(Path(checkpoint).parent / "log" / "metrics.csv")
    return table.groupby("epoch").mean(numeric_only=True).drop(columns="step").reset_index()


def encoder_log(checkpoint: str | os.PathLike, shipped: str | os.PathLike = ""):
    """Learning curves of the encoders by themselves.

    Args:
        checkpoint: of a training, beside which the logs of its lessons lie. shipped: file of encoders
            (`save_encoders`) that it took; what those learned counts, and not what lies there from before.

    Returns:
        DataFrame, one row a pass: kind (of ENCODERS), walk (0 in the first half of a lesson, from 1 in the second,
        whose walks all begin where the first half ended), epoch, and the losses glance and depth; empty if there
        was no lesson.
    """
    import pandas as pd

    columns = ["kind", "walk", "epoch", "glance", "depth"]
    curves = [pd.DataFrame(columns=columns)]
    known = _encoder_file(shipped) if shipped else {}
    given = pd.DataFrame(known.get("log") or {}, columns=columns)
    for kind in ENCODERS:
        if set(_PARTS[kind]) <= set(known):
            curves.append(given[given["kind"] == kind])
            continue
        log = ENCODER_LOG.format(kind)
        files = sorted(Path(checkpoint).parent.glob(f"{log}*/metrics.csv"))
        halves = [pd.read_csv(p).assign(walk=int(p.parent.name.removeprefix(log) or 0), kind=kind) for p in files]
        if halves:
            whole = pd.concat(halves, ignore_index=True).sort_values(["walk", "epoch"])
            whole["epoch"] += (whole["walk"] > 0) * int((whole["walk"] == 0).sum())
            curves.append(whole[columns])
    return pd.concat(curves[1:] or curves, ignore_index=True)


# --------------------------------------------------------------------------------------- scoring
@torch.inference_mode()
def predict_rows(
    net: nn.Module,
    prepared: ds.Prepared,
    rows: np.ndarray,
    *,
    modalities: Sequence[str] = inputs.MODALITIES,
    frames: int | None = None,
    looks: ds.Looks | None = None,
    batch_size: int = 8,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """Run the network on all 25 frames of some rows.

    Args:
        net: in evaluation mode. prepared: arrays. rows: which. modalities: what it may use.
        frames: how many of the pictures are looked at, evenly over the clip, as in training; None for all.
            Of a still these are `inputs.still_views`, the first the picture as it is.
        looks: of this network at these arrays, to spare it the pictures.

    Returns:
        logit (n,), species (n, S), consistency (n,), depth (n, 25, 14, 14; not from looks).
    """
    from tqdm.auto import tqdm

    scaling = ds.Scaling(*_scaling_arrays(net, prepared))
    shown = min(frames or inputs.FRAMES, inputs.FRAMES)
    data = ds.LivenessDataset(prepared, rows, scaling, frames=shown, modalities=modalities, looks=looks)
    out: dict[str, list] = {}
    count = -(-len(data) // batch_size)
    for batch in tqdm(ds.batches(data, batch_size), total=count, desc="score", disable=not progress):
        tensors = [torch.from_numpy(batch[k]) for k in ("features", "imu", "presence")]
        if looks is None:
            pictures, seen = torch.from_numpy(batch["frames"]), torch.from_numpy(batch["hold"])
            hold = flat_hold(seen, pictures) if shown < inputs.FRAMES else None
            result = net(pictures.float() / 255.0, *tensors, hold)
            result["depth"] = torch.take_along_dim(result["depth"], seen[:, :, None, None], dim=1)
        else:
            result = net.judge_looks(*(torch.from_numpy(batch[k]) for k in ("embedding", "relief")), *tensors)
        for name, value in result.items():
            out.setdefault(name, []).append(value.numpy())
    return {name: np.concatenate(values) for name, values in out.items()}


def _scaling_arrays(net: nn.Module, prepared: ds.Prepared) -> tuple[np.ndarray, ...]:
    if hasattr(net, "features"):
        return net.features.mean.numpy(), net.features.std.numpy(), net.imu.std.numpy()
    width = prepared.features.shape[-1]
    return np.zeros(width, np.float32), np.ones(width, np.float32), np.ones(6, np.float32)


def score(
    model: str | os.PathLike | nn.Module,
    prepared: ds.Prepared | str | os.PathLike,
    *,
    split: str | Sequence[str] = "test",
    rows: np.ndarray | None = None,
    modalities: Sequence[str] | None = None,
    frames: int | None = None,
    looks: ds.Looks | None = None,
    progress: bool = False,
):
    """Score the clips of one or more splits.

    Args:
        model: checkpoint path, or a network in evaluation mode.
        prepared: folder of prepared clips, or the opened arrays.
        split: which clips; `rows` wins.
        modalities: what the network may use; None takes those it was trained with.
        frames, looks: see `predict_rows`.

    Returns:
        DataFrame: clip_id, score (P(bona fide); NaN where the quality gates refuse), raw_score
        (never NaN), logit, consistency, reasons, then the manifest's columns.
    """
    net, extra = (model, {}) if isinstance(model, nn.Module) else load_checkpoint(model)
    prepared = prepared if isinstance(prepared, ds.Prepared) else ds.open_prepared(prepared)
    rows = prepared.rows(split) if rows is None else np.asarray(rows)
    trained = extra.get("training", {}).get("modalities", inputs.MODALITIES)
    options = {"frames": frames, "looks": looks, "progress": progress}
    out = predict_rows(net, prepared, rows, modalities=modalities or trained, **options)
    return score_table(prepared, rows, out)


def score_table(prepared: ds.Prepared, rows: np.ndarray, out: dict[str, np.ndarray]):
    """Join the outputs of some rows with the quality gates and the manifest (see `score`)."""
    import pandas as pd

    table = prepared.manifest.iloc[rows].reset_index(drop=True)
    table["pai_species"] = ds.species_names(table)
    reasons = prepared.quality["reasons"].to_numpy(str)[rows]
    logit = np.asarray(out["logit"], np.float64)
    raw = 1.0 / (1.0 + np.exp(-logit))
    consistency = 1.0 / (1.0 + np.exp(-np.asarray(out["consistency"], np.float64)))
    judged = np.where(reasons == "", raw, np.nan)
    head = pd.DataFrame(
        {
            "clip_id": table["clip_id"],
            "score": judged,
            "raw_score": raw,
            "logit": logit,
            "consistency": consistency,
            "reasons": reasons,
        }
    )
    return pd.concat([head, table.drop(columns="clip_id")], axis=1)


def write_scores(
    checkpoint: str | os.PathLike,
    prepared: ds.Prepared | str | os.PathLike,
    folder: str | os.PathLike,
    splits: Sequence[str] = ("dev", "test"),
) -> list[Path]:
    """Score splits and leave ``scores_SPLIT.csv``, as ``liveness evaluate`` reads them.

    Clips without a label are left out, and so is a split without clips.

    Returns:
        the files written.
    """
    prepared = prepared if isinstance(prepared, ds.Prepared) else ds.open_prepared(prepared)
    net, written = load_checkpoint(checkpoint)[0], []
    for split in splits:
        rows = prepared.rows(split)
        rows = rows[np.isfinite(prepared.labels[rows])]
        if len(rows):
            table = score(net, prepared, rows=rows)
            table["is_bonafide"] = table["is_bonafide"].astype(int)
            written.append(Path(folder) / f"scores_{split}.csv")
            table.to_csv(written[-1], index=False)
    return written


def variant_config(config: TrainConfig, name: str) -> TrainConfig:
    """The configuration of a row of the ablation, in a folder of its own.

    Raises:
        ModelError: there is no such row.
    """
    if name not in ABLATION:
        raise ModelError(f"{name!r} is no row of the ablation; choose of {list(ABLATION)}")
    return replace(config, out=str(Path(config.out) / name), **ABLATION[name])


# ------------------------------------------------------------------------------------------- study
REPEATED = ("all", "seed_style", "video")
BASELINE_RATE = 0.15  # of the others' learning rate; from the start on clips alone that baseline learns nothing
NOTHING = "nothing"  # is left out in the row that the leave-one-out rows are held against


@dataclass(frozen=True)
class StudyRow:
    """One training of the study: a row of the ablation, a seed, and the species left out."""

    variant: str
    seed: int = 0
    left_out: str = ""

    @property
    def name(self) -> str:
        """Name of its result file.

        >>> StudyRow("all", left_out="soft_mask").name
        'all-without-soft_mask-seed0'
        """
        return f"{self.variant}{'-without-' + self.left_out if self.left_out else ''}-seed{self.seed}"


def study_rows(profile: Profile) -> list[StudyRow]:
    """Trainings of a profile's study, the most telling first.

    Rows in REPEATED run with every seed, with injections and without (whose pixels are bona fide, so that
    video alone cannot win there); `video_depth` without them, too; each species named in `left_out` is left out once, and
    once NOTHING, in the same shorter lesson (but injection, whose row has the full one and compares with `all`).
    """
    rows = [StudyRow(v, profile.seeds[0]) for v in profile.variants]
    attacks = [s for s in ds.SPECIES if s != "bona_fide"]
    left_out = attacks if "all" in profile.left_out else list(profile.left_out)
    repeated = [v for v in REPEATED if v in profile.variants]
    for left in ("", "injection") if left_out else ("",):
        rows += [StudyRow(v, profile.seeds[0], left) for v in ("video_depth",) if v in profile.variants]
        rows += [StudyRow(v, seed, left) for seed in profile.seeds for v in repeated]
    masks = {ds.SPECIES[k] for k in MASKS}
    rest = sorted(left_out[1:], key=lambda s: s not in masks)  # what shares a lesson with the first comes after it
    rows += [StudyRow("all", profile.seeds[0], s) for s in (*left_out[:1], *rest, *([NOTHING] if left_out else []))]
    return list(dict.fromkeys(rows))


def run_study(
    profile: Profile, settings: TrainConfig, out_dir: str | os.PathLike, *, jobs: int = 1, progress: bool = True
) -> list[Path]:
    """Train and evaluate every row of a profile's study; rows that are there are kept.

    Interrupted, it goes on with the row it was in, at the last whole epoch. A row that was made
    with other settings or other clips is made anew, and what the release already is, is not trained
    again. To make so many trainings affordable, rows that may see the same pictures share an encoder and its
    looks, with the release where it is there: seeds repeat all that comes after the encoder's lesson. Video
    alone must not borrow encoders that have learned relief: it has two of its own, taught in half of the
    passes and one walk (the baseline begins with the first of them), so that `video_depth`, which borrows, is
    the stronger one of the two to be held against. A row that must not know what a species looks like needs
    encoders of its own; their lesson is shorter (`config.LEFT_OUT`), and such rows compare with one another and
    with the one that leaves out NOTHING. In its first half there are no flat attacks, only living faces and masks,
    which take longest to learn: so rows that leave out one of the flat species can share it.

    Args:
        profile: `config.Profile`. settings: of each training; `out` is the folder of the release's.
        out_dir: one JSON file a row, and the trainings' folders under trainings/.
        jobs: trainings at a time, each on one thread when there are several.
        progress: show a bar over the trainings.

    Returns:
        result files, in the order of `study_rows`.
    """
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    out, rows = Path(out_dir), study_rows(profile)
    encoders = Path(settings.encoders or out / "encoders")
    release = Path(settings.out) / "checkpoint.pt"
    _lend_encoder(release.parent, encoders)
    settings = replace(settings, epochs=profile.study_epochs, out=str(out / "trainings"), progress=False)
    settings = replace(settings, encoders=str(encoders))
    plans = [(row, _row_config(row, settings), out / f"{row.name}.json") for row in rows]
    todo = [plan for plan in plans if not _row_is_done(plan[2], plan[1])]
    calls = (delayed(_study_row)(*plan, release, threads=1 if jobs > 1 else None) for plan in todo)
    with tqdm(total=len(plans), initial=len(plans) - len(todo), desc="study", disable=not progress) as bar:
        for name in Parallel(n_jobs=jobs, return_as="generator_unordered")(calls):
            bar.set_postfix_str(name)
            bar.update()
    return [path for _, _, path in plans]


def _row_config(row: StudyRow, settings: TrainConfig) -> TrainConfig:
    config = replace(variant_config(settings, row.variant), out=str(Path(settings.out) / row.name))
    lesson = None if row.seed == settings.seed else settings.seed
    exclude = (row.left_out,) if row.left_out in ds.SPECIES else ()
    config = replace(config, seed=row.seed, encoder_seed=lesson, exclude=exclude)
    if row.variant in ("video", "seed_style"):
        config = replace(config, encoder_epochs=-(-config.encoder_epochs // 2), encoder_walks=1)
    if row.variant == "seed_style":  # its backbone has been taught, but does not rest
        config = replace(config, learning_rate=BASELINE_RATE * config.learning_rate, epochs=-(-config.epochs // 3))
    if not _hidden(config) and row.left_out != NOTHING:
        return config
    return replace(config, **LEFT_OUT, encoder_later=ds.FLAT_SPECIES)


def _lend_encoder(folder: Path, encoders: Path) -> None:
    """Put an encoder and its looks where trainings that need the same find them."""
    if not (folder / "encoder.pt").is_file():
        return
    home = encoders / _digest(torch.load(folder / "encoder.pt", weights_only=True)["training"])
    home.mkdir(parents=True, exist_ok=True)
    for kept in (folder / "encoder.pt", folder / "looks.npz"):
        if kept.is_file() and not (home / kept.name).is_file():
            shutil.copyfile(kept, home / kept.name)


def _row_is_done(path: Path, config: TrainConfig) -> bool:
    try:
        return _made_as(json.loads(path.read_text(encoding="utf-8"))["made_of"], config)
    except (OSError, ValueError, KeyError):
        return False


def _study_row(row: StudyRow, config: TrainConfig, path: Path, release: Path, threads: int | None) -> str:
    import time

    from liveness_utils.config import write_json

    begin = time.perf_counter()
    if threads:
        torch.set_num_threads(threads)
    same = _finished(release, config)
    checkpoint = release if same else train(config)
    prepared = ds.open_prepared(config.prepared)
    from_looks = _learns_from_looks(load_checkpoint(checkpoint)[0], config)
    kept = _encoder_home(config) / "looks.npz"
    looks = _read_looks(kept, _looks_mark(prepared, config)) if from_looks else None
    tables = {split: score(checkpoint, prepared, split=split, looks=looks) for split in ("dev", "test")}
    held = load_checkpoint(checkpoint)[1]
    result = {
        **vars(row),
        "minutes": (time.perf_counter() - begin) / 60,
        "epochs": len(training_log(checkpoint)),
        "best_epoch": held["best_epoch"],
        "val_loss": held["val_loss"],
        **_study_report(tables, row),
        "made_of": _fingerprint(config),
    }
    write_json(path, result)
    for scrap in () if same else ("last.ckpt", "best.ckpt"):  # optimiser states, three times the weights
        (checkpoint.parent / scrap).unlink(missing_ok=True)
    return row.name


def _study_report(tables: dict, row: StudyRow) -> dict:
    """Rates at two thresholds: for all species, and for presentation attacks alone.

    The second is the fair one for a row without IMU: an injection's pixels are bona fide, and a
    threshold that must stop it stops everybody. What was left out is unknown to dev, too.
    """
    from liveness_utils.metrics import apcer, report

    options = {"replicates": 500, "covariates": ()}
    dev, test = tables["dev"], tables["test"]
    dev, known = (t[t["pai_species"] != row.left_out] for t in (dev, test))
    found = {"report": report(test, dev, **options)}
    if row.left_out:
        found["report_known"] = report(known, dev, **options)
    dev, shown = (t[t["pai_species"] != "injection"] for t in (dev, test))
    found["report_presentation"] = report(shown, dev, **options)
    limit = found["report_presentation"]["threshold"]
    rates = apcer(test["score"], test["is_bonafide"], limit, test["pai_species"])
    found["injection_at_presentation"] = rates["injection"].as_dict() if "injection" in rates else None
    return found


def read_study(out_dir: str | os.PathLike):
    """Results of the study that are there, one row a training.

    Returns:
        DataFrame: variant, seed, left_out, minutes, epochs; acer, apcer_worst, bpcer, eer and
        apcer_injection at the threshold chosen for all species; acer_presentation and
        bpcer_presentation of presentation attacks alone at a threshold chosen for them, with
        injection_at_presentation, the APCER of injections there; apcer_left_out, left_out_k,
        left_out_n and acer_known of leave-one-out rows. NaN where a row has none, no row where
        there is no study.
    """
    import pandas as pd

    files = sorted(Path(out_dir).glob("*.json"))
    rows = [_flat_result(json.loads(p.read_text(encoding="utf-8"))) for p in files]
    return pd.DataFrame(rows, columns=STUDY_COLUMNS)


def study_is_of(out_dir: str | os.PathLike, checkpoint: str | os.PathLike) -> bool:
    """Whether a study's row `all` was trained as a checkpoint was; a study is not made again with every release."""
    told = load_checkpoint(checkpoint)[1]["training"]
    path = Path(out_dir) / f"{StudyRow('all', told['seed']).name}.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("made_of") == told


def by_variant(rows) -> dict[str, dict]:
    """Some rows of `read_study` by the name of their variant.

    Returns:
        for each variant, in the order of ABLATION: the mean of every column that was measured,
        ``seeds`` with each seed's row, and ``std`` over them where there are several.
    """
    found = {}
    for name in (v for v in ABLATION if v in set(rows["variant"])):
        part = rows[rows["variant"] == name].drop(columns=["variant", "left_out"]).dropna(axis=1, how="all")
        rates = part.drop(columns="seed")
        spread = {"std": rates.std().to_dict()} if len(part) > 1 else {}
        found[name] = {**rates.mean().to_dict(), **spread, "seeds": part.to_dict("records")}
    return found


STUDY_COLUMNS = (
    "variant", "seed", "left_out", "minutes", "epochs", "acer", "apcer_worst", "bpcer", "eer",
    "apcer_injection", "acer_without_injection", "acer_presentation", "bpcer_presentation",
    "injection_at_presentation", "apcer_left_out", "left_out_k", "left_out_n", "acer_known",
)  # fmt: skip


def _flat_result(held: dict) -> dict:
    whole, shown, left_out = held["report"], held["report_presentation"], held["left_out"]
    left = whole["apcer"].get(left_out) or {}
    return {
        **{k: held[k] for k in ("variant", "seed", "left_out", "minutes", "epochs")},
        **{k: whole[k]["value"] for k in ("acer", "apcer_worst", "bpcer", "eer")},
        "apcer_injection": (whole["apcer"].get("injection") or {}).get("value"),
        "acer_without_injection": (whole.get("without_injection") or {}).get("acer", {}).get("value"),
        "acer_presentation": shown["acer"]["value"],
        "bpcer_presentation": shown["bpcer"]["value"],
        "injection_at_presentation": (held["injection_at_presentation"] or {}).get("value"),
        "apcer_left_out": left.get("value"),
        "left_out_k": left.get("k"),
        "left_out_n": left.get("n"),
        "acer_known": held["report_known"]["acer"]["value"] if "report_known" in held else None,
    }
