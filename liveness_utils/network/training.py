"""Fitting the network: the picture head on single pictures first, then what moves, on the head's opinions.

In come the arrays of `dataset` and a `TrainConfig`; out goes a checkpoint, which `scoring` and `export` read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from liveness_utils import dataset as ds
from liveness_utils import inputs
from liveness_utils.config import Profile, imagenet_encoder, write_json
from liveness_utils.errors import DatasetError, ModelError
from liveness_utils.metrics import eer
from liveness_utils.network import picture_training
from liveness_utils.network.encoder import load_encoder, save_whole
from liveness_utils.network.fusion import FusionNet, ModelConfig, build, load_checkpoint, save_checkpoint
from liveness_utils.network.losses import (
    INJECTION,
    UNKNOWN,
    consistency_loss,
    consistency_target,
    liveness_loss,
    species_loss,
    unobservable,
)

BATCH, LEARNING_RATE, WEIGHT_DECAY = 16, 2e-3, 0.05
FINE_TUNING = 1 / 3  # of the learning rates
SPECIES_WEIGHT, MOTION_WEIGHT = 0.5, 0.5  # of losses beside that of liveness
UNOBSERVABLE = 0.2  # weight of an injection whose IMU is masked: its pixels are bona fide
AVERAGED = 6  # epochs that the weights are averaged over
SEED_FRAMES = 8  # of the 25, of a network that learns from pixels as a whole
STILL = 0.02  # rad/s; under it a gyroscope says too little to tell two motions apart


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training depends on.

    Attributes:
        prepared: folder of the arrays (`dataset.prepare`).
        out: folder of the results.
        pictures: folder of single pictures (`pictures.prepare`) that the picture head learns from beside the clips'
            frames, "" for none.
        picture_head: checkpoint whose picture head is taken as it is, "" to teach one.
        start: checkpoint to fine-tune from, "" for a new network.
        exclude: species left out of training and validation.
        modalities: what the network may use.
        architecture: ``fusion`` or ``seed_style``.
        picture_epochs: of the picture head.
        views: changed views of each training clip that the rest learns from.
        epochs: of the rest; the epoch with the lowest validation loss is kept.
        seed: of every random choice.
    """

    prepared: str
    out: str
    pictures: str = ""
    picture_head: str = ""
    start: str = ""
    exclude: tuple[str, ...] = ()
    modalities: tuple[str, ...] = inputs.MODALITIES
    architecture: str = "fusion"
    picture_epochs: int = 8
    views: int = 6
    epochs: int = 60
    seed: int = 0

    @classmethod
    def of(cls, profile: Profile, prepared: str | Path, out: str | Path, **changes: Any) -> TrainConfig:
        """A configuration with the sizes of a `config.Profile`; `changes` win."""
        sizes = {"picture_epochs": profile.picture_epochs, "views": profile.views, "epochs": profile.epochs}
        return cls(str(prepared), str(out), **{**sizes, **changes})


# ----------------------------------------------------------------------------------- IMU swapping
def swap_imu(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """More injections for free: every clip again, with the IMU of another one.

    Pairs of two phones at rest are left uncounted: their records fit either video.

    Args:
        batch: as `LivenessDataset` deals it in training, n clips.

    Returns:
        a batch of 2n rows over the same pictures, with `consistency` and `weight` (2n,).
    """
    n = len(batch["label"])
    moving = torch.maximum(_agitation(batch["imu"]), _agitation(batch["decoy_imu"])) > STILL
    usable = batch["decoy_valid"] * batch["presence"][:, 2] * moving
    unknown = torch.full_like(batch["species"], -1)
    fake = torch.where((batch["label"] > 0) & (usable > 0), torch.full_like(unknown, INJECTION), unknown)
    told = torch.where(usable > 0, 0.0, UNKNOWN)
    once = consistency_target(batch["species"], batch["presence"])
    twice = {k: torch.cat([batch[k], batch[k]]) for k in ("presence", "opinion")}
    return twice | {
        "imu": torch.cat([batch["imu"], batch["decoy_imu"]]),
        "features": torch.cat([batch["features"], batch["decoy_features"]]),
        "label": torch.cat([batch["label"], torch.zeros(n)]),
        "species": torch.cat([batch["species"], fake]),
        "consistency": torch.cat([once, told]),
        "weight": torch.cat([torch.ones(n), 0.5 * usable * batch["label"]]),
    }


def _agitation(imu: Tensor) -> Tensor:
    return imu[..., 3:].square().sum(dim=-1).mean(dim=(1, 2)).sqrt()


def _plain(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    target = consistency_target(batch["species"], batch["presence"])
    return batch | {"consistency": target, "weight": torch.ones_like(batch["label"])}


# ------------------------------------------------------------------------------------ the module
class LivenessModule(pl.LightningModule):
    """The network with its losses and optimiser."""

    def __init__(self, net: nn.Module, config: TrainConfig, positive: float, steps: int) -> None:
        super().__init__()
        self.net, self.cfg, self.positive, self.steps = net, config, positive, steps
        self._scores: list[tuple[np.ndarray, ...]] = []
        if isinstance(net, FusionNet):  # before the processes of a strategy agree on what is learned
            net.picture.requires_grad_(False)

    def losses(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """All losses of a batch by name, `loss` their weighted sum, and the network's outputs."""
        given = batch["features"], batch["imu"], batch["presence"]
        if "opinion" not in batch:
            out = self.net(batch["frames"].float() / 255.0, *given)
            loss = liveness_loss(out["logit"], batch["label"], batch["weight"], self.positive)
            return {"loss": loss}, out
        out = self.net.judge_clips(batch["opinion"], *given)
        hidden = unobservable(batch["species"], batch["presence"])
        weight = torch.where(hidden, UNOBSERVABLE * batch["weight"], batch["weight"])
        species = torch.where(hidden, -torch.ones_like(batch["species"]), batch["species"])
        # Motion must not lean on pixels: it is asked by itself, too, where there is any.
        moves = weight * batch["presence"][:, 1:].amax(dim=1)
        parts = {
            "liveness": (1.0, liveness_loss(out["logit"], batch["label"], weight, self.positive)),
            "motion": (
                MOTION_WEIGHT, liveness_loss(out["logit"] - out["pixels"], batch["label"], moves, self.positive)
            ),
            "species": (SPECIES_WEIGHT, species_loss(out["species"], species)),
            "consistency": (1.0, consistency_loss(out["consistency"], batch["consistency"])),
        }  # fmt: skip
        return {"loss": sum(w * v for w, v in parts.values()), **{name: v for name, (_, v) in parts.items()}}, out

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Loss of one batch; with an IMU in play every clip is also seen with a wrong one."""
        swaps = "opinion" in batch and "imu" in self.cfg.modalities and "injection" not in self.cfg.exclude
        batch = swap_imu(batch) if swaps else _plain(batch)
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

    def on_train_epoch_start(self) -> None:
        """Other random choices every epoch, the same ones for the same seed."""
        self.trainer.train_dataloader.dataset.epoch = self.current_epoch

    def configure_optimizers(self) -> dict:
        """AdamW with one cycle of the learning rate; of the fusion network, the pictures' part rests."""
        rate = LEARNING_RATE * (FINE_TUNING if self.cfg.start else 1.0)
        moved = [p for p in self.net.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(moved, rate, weight_decay=WEIGHT_DECAY)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=self.steps + 1, pct_start=0.15)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


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


def train(config: TrainConfig, *, progress: bool = True, **trainer: Any) -> Path:
    """Train once; a finished training of the same configuration is not repeated, an interrupted one goes on.

    Args:
        config: see `TrainConfig`.
        progress: show bars.
        trainer: passed to Lightning's Trainer, e.g. devices, num_nodes, strategy, accelerator.

    Returns:
        path of checkpoint.pt in `config.out`, the weights of the epoch with the lowest validation
        loss. Beside it: log/metrics.csv and pictures/metrics.csv (one row an epoch), tensorboard/, last.ckpt.

    Raises:
        DatasetError: the training split is empty or holds one class only, or there are no pictures where it says.
        ModelError: a checkpoint that it names is none.
    """
    out = Path(config.out)
    final, mark = out / "checkpoint.pt", fingerprint(config)
    if _made_as(final) == mark:
        return final
    out.mkdir(parents=True, exist_ok=True)
    _forget_other(out, mark)
    with quiet():
        pl.seed_everything(config.seed, workers=True)
        prepared = ds.open_prepared(config.prepared)
        rows = {s: known_rows(prepared, prepared.rows(s, config.exclude)) for s in ("train", "validation")}
        labels = prepared.labels[rows["train"]]
        if len(labels) == 0 or labels.min() == labels.max():
            raise DatasetError(
                f"{config.prepared}: training needs bona fide and attack clips in split 'train'; "
                f"it has {int(labels.sum())} of {len(labels)}."
            )
        net = _network(prepared, config, ds.scaling_of(prepared, rows["train"]))
        known = _learn_from_pictures(net, prepared, rows["train"], config, progress)
        loaders = [_loader(prepared, r, config, net, known, training=k == 0) for k, r in enumerate(rows.values())]
        world = max(1, int(trainer.get("devices", 1)) * int(trainer.get("num_nodes", 1)))
        steps = config.epochs * -(-len(loaders[0]) // world)
        module = LivenessModule(net, config, float((labels == 0).sum() / (labels == 1).sum()), steps)
        engine, best = _trainer(config, out, len(loaders[0]), progress, trainer)
        last = out / "last.ckpt"
        engine.fit(module, *loaders, ckpt_path=str(last) if last.is_file() else None)
        if engine.is_global_zero:
            _keep_best(best, net, prepared, mark, final)
        engine.strategy.barrier()
    return final


def known_rows(prepared: ds.Prepared, rows: np.ndarray) -> np.ndarray:
    """Rows with a label and a face: a clip that the gates refuse teaches nothing."""
    face = prepared.quality["no_face"].to_numpy() == 0 if prepared.stills else prepared.presence[:, 1] > 0
    return rows[np.isfinite(prepared.labels[rows]) & face[rows]]


def _network(prepared: ds.Prepared, config: TrainConfig, scaling: ds.Scaling) -> nn.Module:
    if config.start:
        return load_checkpoint(config.start)[0].train()
    shape = ModelConfig(
        n_features=prepared.features.shape[-1],
        n_species=len(ds.SPECIES),
        imu_columns=prepared.imu_columns,
        architecture=config.architecture,
    )
    net = build(shape)
    net.set_scaling(*(torch.from_numpy(v) for v in asdict(scaling).values()))
    if isinstance(net, FusionNet):
        net.encoder.load_state_dict(load_encoder(imagenet_encoder())[0].state_dict())
    return net.train()


def _learn_from_pictures(
    net: nn.Module, prepared: ds.Prepared, rows: np.ndarray, config: TrainConfig, progress: bool
) -> picture_training.Opinions | None:
    """Teach the picture head and write down what it says of every clip; resumed from pictures.pt."""
    if not isinstance(net, FusionNet):
        return None
    kept = Path(config.out) / "pictures.pt"
    if config.picture_head:
        taken = load_checkpoint(config.picture_head)[0]
        net.picture.load_state_dict(taken.picture.state_dict())
    elif kept.is_file():
        net.picture.load_state_dict(torch.load(kept, weights_only=True))
    else:
        singles = _pictures(config.pictures)
        each = picture_training.CLIP_PICTURES if singles is not None else 1
        data = ds.PictureDataset(prepared, rows, config.seed, singles, config.exclude, each)
        rate = picture_training.LEARNING_RATE * (FINE_TUNING if config.start else 1.0)
        picture_training.learn_pictures(net, data, config.picture_epochs, config.out, rate=rate, progress=progress)
        save_whole(kept, net.picture.state_dict())
    plain = rows if config.views == 0 else known_rows(prepared, prepared.rows("validation", config.exclude))
    return picture_training.opinions(net, prepared, plain, np.sort(rows), config.views, config.seed, progress=progress)


def _pictures(folder: str):
    if not folder:
        return None
    from liveness_utils.pictures import open_pictures  # brings the renderer, which no other training needs

    held = open_pictures(folder)
    if held is None:
        raise DatasetError(f"{folder}: no finished pictures there; make them with `pictures.prepare` (notebook 05).")
    return held


def _loader(prepared, rows, config: TrainConfig, net: nn.Module, known, *, training: bool) -> DataLoader:
    data = ds.LivenessDataset(
        prepared, rows, scaling_in(net, prepared), frames=SEED_FRAMES, augment=training,
        modalities=config.modalities, seed=config.seed, opinions=known,
    )  # fmt: skip
    # A last batch of one clip would break batch normalisation's statistics.
    return DataLoader(data, BATCH, shuffle=training, drop_last=training and len(data) > BATCH)


def scaling_in(net: nn.Module, prepared: ds.Prepared) -> ds.Scaling:
    """The statistics that a network scales its inputs by; of one that takes them raw, nothing."""
    if hasattr(net, "features"):
        return ds.Scaling(net.features.mean.numpy(), net.features.std.numpy(), net.imu.std.numpy())
    width = prepared.features.shape[-1]
    return ds.Scaling(np.zeros(width, np.float32), np.ones(width, np.float32), np.ones(6, np.float32))


def _trainer(
    config: TrainConfig, out: Path, batches: int, progress: bool, options: dict[str, Any]
) -> tuple[pl.Trainer, pl.callbacks.ModelCheckpoint]:
    best = pl.callbacks.ModelCheckpoint(out, "best", monitor="val_loss", save_last=True, enable_version_counter=False)
    # Running mean of the weights: Polyak & Juditsky, SIAM J. Control Optim. 1992, doi 10.1137/0330046.
    decay = 1.0 - 1.0 / max(2.0, AVERAGED * batches * min(1.0, config.epochs / 60))
    mean = pl.callbacks.WeightAveraging(multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay))
    loggers: list = [pl.loggers.CSVLogger(out, name="", version="log")]
    try:
        loggers.append(pl.loggers.TensorBoardLogger(out, name="", version="tensorboard"))
    except ModuleNotFoundError:  # the board is a convenience
        pass
    trainer = pl.Trainer(
        max_epochs=config.epochs,
        callbacks=[mean, best, *([pl.callbacks.TQDMProgressBar(refresh_rate=4, leave=False)] if progress else [])],
        logger=loggers,
        log_every_n_steps=1,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
        enable_model_summary=False,
        **options,
    )
    return trainer, best


def _keep_best(best, net: nn.Module, prepared: ds.Prepared, mark: dict, final: Path) -> None:
    held = torch.load(best.best_model_path, map_location="cpu", weights_only=False)
    net.load_state_dict({k.removeprefix("net."): v for k, v in held["state_dict"].items() if k.startswith("net.")})
    save_checkpoint(
        final,
        net.eval(),
        training=mark,
        feature_names=list(prepared.feature_names),
        species=list(ds.SPECIES),
        best_epoch=int(held["epoch"]),
        val_loss=float(best.best_model_score),
    )


# ------------------------------------------------------------------------------ what it was made of
def fingerprint(config: TrainConfig) -> dict:
    """What makes two trainings the same: settings, clips, pictures and checkpoints, not where they lie."""
    held = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    del held["prepared"], held["out"]
    singles = _pictures(config.pictures)
    return held | {
        "clips": ds.open_prepared(config.prepared).mark,
        "pictures": None if singles is None else singles.mark,
        "encoder": _content(imagenet_encoder()),
        **{name: _content(held[name]) for name in ("start", "picture_head")},
    }


def _content(path: str | Path) -> str:
    """What a file is, wherever it lies."""
    if not path:
        return ""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise ModelError(f"{path} cannot be read: train it first, or name another file.") from error


def _made_as(final: Path) -> dict:
    try:
        return load_checkpoint(final)[1].get("training") or {}
    except ModelError:
        return {}


def _forget_other(out: Path, mark: dict) -> None:
    """Leave nothing to resume from that another training left."""
    path = out / "training.json"
    plain = json.loads(json.dumps(mark))
    if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != plain:
        for name in ("last.ckpt", "best.ckpt", "pictures.pt"):
            (out / name).unlink(missing_ok=True)
        write_json(path, plain)


def training_log(checkpoint: str | Path, what: str = "log"):
    """Learning curves of a training.

    Args:
        checkpoint: of the training.
        what: ``log`` (columns train_* and val_*) or ``pictures`` (species and depth).

    Returns:
        DataFrame, one row an epoch; empty where there was no such training.
    """
    import pandas as pd

    path = Path(checkpoint).parent / what / "metrics.csv"
    if not path.is_file():
        return pd.DataFrame(columns=["epoch"])
    return pd.read_csv(path).groupby("epoch").mean(numeric_only=True).drop(columns="step").reset_index()
