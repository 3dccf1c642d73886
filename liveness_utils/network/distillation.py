"""Distillation: a student learns to give the maps and the embedding of a teacher that knows ImageNet.

Whole pictures come in, pieces of them (`pieces`) are shown to both encoders, and the student's file goes out. Nothing
is labelled. The training is a function of pictures, seed and count; what an interrupted one did is kept and gone on with.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from liveness_utils.errors import ModelError
from liveness_utils.network import pieces
from liveness_utils.network.encoder import Encoder, fold_norms, save_encoder, save_whole, statistics

WARM_UP = 0.03  # share of the training in which the learning rate rises; then it falls with a cosine
EMBEDDING_WEIGHT = 2.0  # of the embedding's error beside that of the maps
_CALIBRATION = 8  # batches by which the teacher's numbers are standardised


@dataclass(frozen=True)
class Recipe:
    """How a student is taught; at least one of `count` and `minutes` is given, whichever is reached first ends it.

    Attributes:
        count: pieces to see.
        minutes: of training, all runs together.
        batch: pieces a step.
        rate: peak learning rate (AdamW).
        decay: weight decay.
        seed: of weights and pieces.
    """

    count: int = 0
    minutes: float = 0.0
    batch: int = 64
    rate: float = 4e-3
    decay: float = 1e-4
    seed: int = 0

    def share(self, seen: int, seconds: float) -> float:
        """How much of the training is over, 0..1, after so many pieces and seconds.

        >>> Recipe(count=100, minutes=10).share(50, 60.0)
        0.5
        """
        parts = [seen / self.count if self.count else 0.0, seconds / 60 / self.minutes if self.minutes else 0.0]
        return min(1.0, max(parts))


class _Batches(IterableDataset):
    """Batches of pieces; the k-th is a function of the seed and k alone."""

    def __init__(self, sources: Sequence[Sequence[np.ndarray]], recipe: Recipe, first: int) -> None:
        self.sources, self.recipe, self.first = sources, recipe, first

    def __iter__(self) -> Iterator[np.ndarray]:
        k = self.first
        while True:
            yield _batch(self.sources, self.recipe, k)
            k += 1


def _batch(sources: Sequence[Sequence[np.ndarray]], recipe: Recipe, k: int) -> np.ndarray:
    return pieces.batch(sources, recipe.batch, np.random.default_rng([recipe.seed, k]))


class Targets(nn.Module):
    """The teacher at rest: what a student is held to, in units of the teacher's own spread.

    Args:
        teacher: encoder whose maps are to be learned.
        crops: (n, 112, 112, 3) uint8 pieces that give each channel's mean and spread.
    """

    def __init__(self, teacher: Encoder, crops: np.ndarray) -> None:
        super().__init__()
        self.teacher = fold_norms(copy.deepcopy(teacher).eval()).to(memory_format=torch.channels_last)
        maps = [
            torch.cat(m)
            for m in zip(*(self._maps(_frames(c)) for c in np.array_split(crops, _CALIBRATION)), strict=True)
        ]
        self.mean = [m.mean((0, 2, 3)) for m in maps]
        self.std = [m.std((0, 2, 3)) + 1e-6 for m in maps]
        self.spread = [statistics(m).std(0) + 1e-6 for m in self._standard(maps)]

    @torch.inference_mode()
    def _maps(self, frames: Tensor) -> list[Tensor]:
        with torch.autocast(
            "cpu", torch.bfloat16
        ):  # twice as fast on CPUs that know it; 1 % off, the student is 30 % off
            return [m.float() for m in self.teacher.maps(frames)]

    def _standard(self, maps: Sequence[Tensor]) -> list[Tensor]:
        scales = zip(maps, self.mean, self.std, strict=True)
        return [(m - mean[:, None, None]) / std[:, None, None] for m, mean, std in scales]

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Standardised maps of `frames` (n, 112, 112, 3), 0..1."""
        return [m.clone() for m in self._standard(self._maps(frames))]

    def in_teachers_units(self, student: Encoder) -> Encoder:
        """A copy of a student of standardised maps that gives the teacher's numbers."""
        made = copy.deepcopy(student).eval()
        with torch.no_grad():
            for project, mean, std in zip(made.project, self.mean, self.std, strict=True):
                project.weight.mul_(std[:, None, None, None])
                project.bias.mul_(std).add_(mean)
        return made


def _frames(crops: np.ndarray | Tensor) -> Tensor:
    return torch.as_tensor(crops).float() / 255


def losses(student: Sequence[Tensor], teacher: Sequence[Tensor], spread: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean squared errors, each averaged over the depths; 1 is what a constant reaches.

    Args:
        student: standardised maps (n, c, h, w) of several depths.
        teacher: those they are to equal.
        spread: (2 c,) deviations over pictures of the teacher's `statistics` at each depth.

    Returns:
        Of the maps, and of their means and standard deviations, which are the embedding.
    """
    pairs = list(zip(student, teacher, spread, strict=True))
    of_maps = torch.stack([(a - b).square().mean() for a, b, _ in pairs]).mean()
    of_embedding = torch.stack([((statistics(a) - statistics(b)) / s).square().mean() for a, b, s in pairs]).mean()
    return of_maps, of_embedding


class _Run:
    """A student, its optimiser and how far they are; all of it in one file, to go on with."""

    def __init__(self, recipe: Recipe, path: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.path = recipe, path
        self.student = Encoder("mobilenet_v3_small").to(memory_format=torch.channels_last).train()
        self.optimiser = torch.optim.AdamW(self.student.parameters(), recipe.rate, weight_decay=recipe.decay)
        self.step, self.seconds, self.log = 0, 0.0, []
        if path.is_file():
            self._take(torch.load(path, map_location="cpu", weights_only=True))

    def _take(self, held: dict) -> None:
        if (held["seed"], held["batch"]) != (self.recipe.seed, self.recipe.batch):
            raise ModelError(f"{self.path} is of another seed or batch size: give those, another OUT, or delete it.")
        self.student.load_state_dict(held["student"])
        self.optimiser.load_state_dict(held["optimiser"])
        self.step, self.seconds, self.log = held["step"], held["seconds"], held["log"]

    def save(self) -> None:
        states = {"student": self.student.state_dict(), "optimiser": self.optimiser.state_dict()}
        told = {"seed": self.recipe.seed, "batch": self.recipe.batch}
        save_whole(self.path, states | told | {"step": self.step, "seconds": self.seconds, "log": self.log})

    @property
    def share(self) -> float:
        return self.recipe.share(self.step * self.recipe.batch, self.seconds)

    def learn(self, crops: Tensor, targets: Targets) -> tuple[float, float]:
        """One step; the losses before it."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * _schedule(self.share)
        frames = _frames(crops)
        of_maps, of_embedding = losses(self.student.maps(frames), targets(frames), targets.spread)
        self.optimiser.zero_grad(set_to_none=True)
        (of_maps + EMBEDDING_WEIGHT * of_embedding).backward()
        self.optimiser.step()
        self.step += 1
        return float(of_maps.detach()), float(of_embedding.detach())


def _schedule(share: float) -> float:
    return min(share / WARM_UP + 1e-3, 0.5 * (1 + math.cos(math.pi * share)))


def distil(
    sources: Sequence[Sequence[np.ndarray]],
    out: str | os.PathLike,
    teacher: Encoder,
    recipe: Recipe,
    provenance: Mapping[str, Any],
    *,
    workers: int = 1,
    save_every: float = 60.0,
    progress: bool = True,
) -> Path:
    """Teach a student, or go on with one that was interrupted.

    Args:
        sources: groups of pictures, (h, w, 3) uint8 RGB each; pieces are drawn from each group alike.
        out: the student's file; what is needed to go on lies beside it as OUT.state until it is complete.
        teacher: see `encoder.teacher`.
        recipe: how long and how.
        provenance: of teacher and pictures, with licences; how much was seen is added.
        workers: processes that make pieces beside the training; 0 makes them in this one.
        save_every: seconds of training between two states.
        progress: show a bar.

    Returns:
        out.

    Raises:
        ModelError: a recipe without an end, or the state of another recipe.
    """
    if not (recipe.count or recipe.minutes):
        raise ModelError("A distillation needs an end: give a count of pictures or minutes.")
    state = Path(f"{out}.state")
    run = _Run(recipe, state)
    calibration = np.concatenate([_batch(sources, recipe, -1 - k & 0xFFFFFFFF) for k in range(_CALIBRATION)])
    targets = Targets(teacher, calibration)
    _teach(run, targets, sources, workers, save_every, progress)
    seen = {"pictures_seen": run.step * recipe.batch, "seed": recipe.seed, "losses": run.log[-1]}
    save_encoder(out, targets.in_teachers_units(run.student), {**provenance, **seen})
    state.unlink(missing_ok=True)
    return Path(out)


def _teach(run: _Run, targets: Targets, sources, workers: int, save_every: float, progress: bool) -> None:
    from tqdm.auto import tqdm

    batches = DataLoader(_Batches(sources, run.recipe, run.step), batch_size=None, num_workers=workers)
    saved, recent, begin = run.seconds, [], time.monotonic() - run.seconds
    with tqdm(desc="distillation", unit="picture", initial=run.step * run.recipe.batch, disable=not progress) as bar:
        for crops in batches:
            if run.share >= 1:
                break
            recent = [*recent[-99:], run.learn(torch.as_tensor(crops), targets)]
            run.seconds = time.monotonic() - begin
            if run.step % 100 == 0 or run.share >= 1:
                run.log.append([run.step, *np.mean(recent, 0).tolist()])
                bar.set_postfix(maps=f"{run.log[-1][1]:.3f}", embedding=f"{run.log[-1][2]:.3f}")
            if run.seconds - saved >= save_every:
                run.save()
                saved = run.seconds
            bar.update(run.recipe.batch)
