"""The picture head learns from single pictures: on a frozen encoder, before anything moves.

Prepared clips and perhaps a folder of single pictures come in; `PictureHead` learns relief, species and its two log
odds, and its opinions of all clips are written down for `training`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from liveness_utils import dataset as ds
from liveness_utils import inputs
from liveness_utils.instruments import MASKS, SPECIES
from liveness_utils.network.fusion import FusionNet
from liveness_utils.network.losses import depth_loss

BATCH = 64
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.05
CLIP_PICTURES = 4  # of every clip an epoch, beside single pictures
FLAT_RIDGE, MASK_RIDGE = 1e-3, 1e-2  # inverse strength of the linear heads' ridges
BONA_FIDE = SPECIES.index("bona_fide")


class PictureModule(pl.LightningModule):
    """A picture head on a frozen encoder: which species is it, and where is relief?"""

    def __init__(self, net: FusionNet, weights: Tensor, steps: int, rate: float) -> None:
        super().__init__()
        self.encoder, self.head, self.steps, self.rate = net.encoder, net.picture, steps, rate
        self.register_buffer("weights", weights)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Cross-entropy of the species, and the depth loss."""
        with torch.no_grad():
            maps = self.encoder.maps(batch["frame"].float() / 255.0)
        seen = self.head(maps)
        species = seen["species"].sum() * 0.0
        if (batch["species"] >= 0).any():
            species = functional.cross_entropy(seen["species"], batch["species"], self.weights, ignore_index=-1)
        depth = depth_loss(seen["depth"], batch["depth"])
        parts = {"species": species, "depth": depth}
        self.log_dict(parts, on_step=False, on_epoch=True, batch_size=len(batch["frame"]))
        return species + depth

    def on_train_epoch_start(self) -> None:
        """Other pictures every epoch, the same ones for the same seed."""
        self.trainer.train_dataloader.dataset.epoch = self.current_epoch

    def configure_optimizers(self) -> dict:
        """AdamW with one cycle of the learning rate."""
        optimiser = torch.optim.AdamW(self.head.parameters(), self.rate, weight_decay=WEIGHT_DECAY)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.rate, total_steps=self.steps + 1, pct_start=0.1)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def learn_pictures(
    net: FusionNet,
    data: ds.PictureDataset,
    epochs: int,
    out: str,
    *,
    rate: float = LEARNING_RATE,
    progress: bool = True,
) -> None:
    """Teach the picture head of `net`, in place.

    Args:
        net: its encoder stays as it is.
        data: pictures.
        epochs: how often each is seen, changed anew every time.
        out: folder of the log (pictures/metrics.csv).
        rate: peak learning rate.
        progress: show a bar.
    """
    loader = DataLoader(data, min(BATCH, len(data)), shuffle=True, drop_last=True)
    fit_linear(net, data)
    counts = np.bincount(data.species[data.species >= 0], minlength=net.config.n_species)
    weights = torch.from_numpy(np.where(counts > 0, counts.max() / np.maximum(counts, 1), 0.0)).float()
    weights[0] *= max(1, (counts[1:] > 0).sum())  # living faces count as much as all attacks together
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        callbacks=[pl.callbacks.TQDMProgressBar(refresh_rate=4, leave=False)] if progress else [],
        logger=pl.loggers.CSVLogger(out, name="", version="pictures"),
        log_every_n_steps=1,
        gradient_clip_val=5.0,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    trainer.fit(PictureModule(net, weights, epochs * len(loader), rate), loader)


def fit_linear(net: FusionNet, data: ds.PictureDataset) -> None:
    """Fit what tells a living face from a flat picture of one and from a mask, and set what is an ordinary picture.

    Two ridges of logistic regression on the encoder's statistics of the pictures as they are: fitted to changed
    views, they know living faces of real cameras less well. Flat is asked without masks: how their material looks is
    the simulator's, and learning it there takes the sense for prints and screens away on real cameras; attacks of a
    name that is not known count as flat. A network that has been fitted before keeps what it takes for ordinary. Where
    flat is fitted and there is no mask, the mask's head objects to nothing: what it learned of other cameras turned
    living faces of CASIA's away (AUC by video 0.86 with it, 0.98 without).
    """
    known, species = _statistics(net, data)
    head, alive = net.picture, species == BONA_FIDE
    if (head.spread == 1).all():
        head.level.copy_(torch.from_numpy(known.mean(axis=0)))
        head.spread.copy_(torch.from_numpy(np.maximum(known.std(axis=0), 1e-3)))
    scaled = np.clip((known - head.level.numpy()) / head.spread.numpy(), -head.FARTHEST, head.FARTHEST)
    masks = np.isin(species, [SPECIES.index(name) for name in MASKS])
    fitted = _ridge(head.flat, scaled[~masks], alive[~masks], FLAT_RIDGE)
    if not _ridge(head.mask, scaled[alive | masks], alive[alive | masks], MASK_RIDGE) and fitted:
        head.no_objection(head.mask)


def _ridge(linear: torch.nn.Linear, x: np.ndarray, alive: np.ndarray, inverse: float) -> bool:
    """Fit, in place; False where there is nothing to tell apart."""
    from sklearn.linear_model import LogisticRegression

    if alive.all() or not alive.any():
        return False
    found = LogisticRegression(C=inverse, class_weight="balanced", max_iter=1000).fit(x, alive)
    linear.weight.data.copy_(torch.from_numpy(found.coef_))
    linear.bias.data.copy_(torch.from_numpy(found.intercept_))
    return True


@torch.inference_mode()
def _statistics(net: FusionNet, data: ds.PictureDataset) -> tuple[np.ndarray, np.ndarray]:
    """The encoder's statistics (n, 432) of all pictures as they are, and their species (n,)."""
    known = []
    for k in range(0, len(data), BATCH):
        crops = np.stack([data.plain(n) for n in range(k, min(k + BATCH, len(data)))])
        known.append(net.encoder(torch.from_numpy(crops).float() / 255.0).numpy())
    return np.concatenate(known).astype(np.float32), data.species


@dataclass(frozen=True)
class Opinions:
    """What a picture head makes of clips, so that nothing after it has to look at a pixel again.

    Attributes:
        plain: (N, 25, 2 + S) float32 of the prepared clips as they are, see `FusionNet.look`; NaN where nobody asked.
        rows: (n,) clips that have changed views, too.
        views: (n, V, 25, 2 + S) of those.
        mirrored: (V,) bool, which views are; features and IMU have to be mirrored with them.
    """

    plain: np.ndarray
    rows: np.ndarray
    views: np.ndarray
    mirrored: np.ndarray

    def view(self, row: int, view: int) -> np.ndarray:
        """Of one changed view of a clip, (25, 2 + S)."""
        return self.views[int(np.searchsorted(self.rows, row)), view]


def opinions(
    net: FusionNet,
    prepared: ds.Prepared,
    plain: np.ndarray,
    rows: np.ndarray | Sequence[int] = (),
    views: int = 0,
    seed: int = 0,
    *,
    progress: bool = False,
) -> Opinions:
    """Look at clips as they are, and at training clips in changed views, every second one mirrored.

    Args:
        net: with its picture head taught.
        prepared: arrays.
        plain: clips that are looked at as they are.
        rows: (n,) increasing, clips of which changed views are wanted.
        views: how many of each.
        seed: of the changes.
        progress: show a bar.
    """
    from tqdm.auto import tqdm

    mirrored = np.arange(views) % 2 * (ds.mirror_of(prepared.feature_names) is not None) > 0
    asked = [(int(k), -1) for k in plain] + [(int(r), v) for r in rows for v in range(views)]
    said = [
        _opinion(net, _crops(prepared, row, view, mirrored, seed))
        for row, view in tqdm(asked, desc="pictures", leave=False, disable=not progress)
    ]
    n, shape = len(plain), (inputs.FRAMES, net.opinion_width)
    held = np.full((len(prepared), *shape), np.nan, np.float32)
    held[np.asarray(plain, int)] = np.array(said[:n], np.float32).reshape(n, *shape)
    return Opinions(held, np.asarray(rows), np.array(said[n:], np.float32).reshape(len(rows), views, *shape), mirrored)


def _crops(prepared: ds.Prepared, row: int, view: int, mirrored: np.ndarray, seed: int) -> np.ndarray:
    if view < 0:
        return prepared.shown(row)
    return ds.changed_view(prepared, row, view, bool(mirrored[view]), seed)


@torch.inference_mode()
def _opinion(net: FusionNet, crops: np.ndarray) -> np.ndarray:
    return net.eval().look(torch.from_numpy(np.ascontiguousarray(crops)).float() / 255.0)["opinion"].numpy()
