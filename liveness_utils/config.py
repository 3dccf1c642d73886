"""Profiles, folders and the metrics files: the one place where sizes and paths are decided.

Everything else asks here; nothing comes back. A notebook passes its parameters in
and gets a `Profile` (how much) and `Paths` (where); it leaves its numbers in `metrics/`.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from liveness_utils.errors import ConfigError

SPLITS = ("train", "validation", "dev", "test")


@dataclass(frozen=True)
class Profile:
    """How much of everything a run does; tuples follow the order of `SPLITS`.

    Attributes:
        name: ``quick``, ``full`` or ``study``.
        subjects: subjects per split, disjoint.
        bona_fide_clips: bona fide clips per split.
        attack_clips: clips of each attack species per split.
        pictures: single pictures of further people and instruments for the picture head (`pictures.prepare`).
        picture_epochs: of the picture head, over those and a few pictures of every training clip.
        views: changed views of each training clip that the rest of the network learns from.
        epochs: of the rest.
        variants: rows of the ablation that are trained.
        bootstrap: replicates of the subject bootstrap.
        robustness_clips: test clips (stratified) used by each robustness curve.
        redteam_clips: test clips on which each of an attacker's choices is tried.
        calibration_clips: training clips used to calibrate the quantiser.
        demo_clips: clips a teaching figure walks over.
    """

    name: str
    subjects: tuple[int, int, int, int]
    bona_fide_clips: tuple[int, int, int, int]
    attack_clips: tuple[int, int, int, int]
    pictures: int
    picture_epochs: int
    views: int
    epochs: int
    variants: tuple[str, ...]
    bootstrap: int
    robustness_clips: int
    redteam_clips: int
    calibration_clips: int
    demo_clips: int

    @property
    def data(self) -> str:
        """Name of the profile whose generated clips and run are used: the study adds to the full one's."""
        return "full" if self.name == "study" else self.name

    def split_sizes(self, split: str) -> tuple[int, int, int]:
        """Return (subjects, bona fide clips, clips of each attack species) of a split."""
        if split not in SPLITS:
            raise ConfigError(f"Unknown split {split!r}: choose one of {', '.join(SPLITS)}.")
        k = SPLITS.index(split)
        return self.subjects[k], self.bona_fide_clips[k], self.attack_clips[k]

    def n_clips(self, n_species: int = 8) -> int:
        """Return the number of clips over all splits for `n_species` attack species.

        >>> profile("full").n_clips()
        2400
        """
        return sum(self.bona_fide_clips) + n_species * sum(self.attack_clips)


ABLATION = ("video", "landmarks_imu", "video_landmarks", "video_imu", "all", "seed_style")

_QUICK = Profile(
    name="quick",
    subjects=(8, 3, 6, 6), bona_fide_clips=(8, 3, 6, 6), attack_clips=(2, 1, 1, 2),
    pictures=320, picture_epochs=4, views=2, epochs=30, variants=("video", "all"),
    bootstrap=100, robustness_clips=2, redteam_clips=1, calibration_clips=6, demo_clips=4,
)  # fmt: skip

_FULL = Profile(
    name="full",
    subjects=(100, 20, 40, 60), bona_fide_clips=(312, 48, 120, 240), attack_clips=(78, 12, 60, 60),
    pictures=6400, picture_epochs=8, views=6, epochs=30, variants=(),
    bootstrap=2000, robustness_clips=18, redteam_clips=4, calibration_clips=128, demo_clips=60,
)  # fmt: skip

_STUDY = replace(_FULL, name="study", variants=ABLATION)


def profile(name: str) -> Profile:
    """Return the profile called `name`.

    Raises:
        ConfigError: no profile has that name.

    >>> profile("quick").subjects
    (8, 3, 6, 6)
    """
    known = {p.name: p for p in (_QUICK, _FULL, _STUDY)}
    if name not in known:
        raise ConfigError(f"Unknown profile {name!r}: choose one of {', '.join(known)}.")
    return known[name]


def repo_root() -> Path:
    """Return the checkout this package lies in, or the working directory if it is installed."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").exists() else Path.cwd()


def data_dir(profile_name: str = "quick", override: str | os.PathLike = "") -> Path:
    """Return the folder of clips: `override`, else ``$DATA_DIR``, else ``data/generated/NAME``."""
    chosen = str(override) or os.environ.get("DATA_DIR", "")
    default = repo_root() / "data" / "generated" / profile(profile_name).data
    return Path(chosen).expanduser().resolve() if chosen else default


def real_dir(override: str | os.PathLike = "") -> Path | None:
    """Return the folder of real recordings (`override`, ``$REAL_DIR``, ``../shared/real``) or None."""
    chosen = str(override) or os.environ.get("REAL_DIR", "")
    path = Path(chosen).expanduser().resolve() if chosen else repo_root().parent / "shared" / "real"
    return path if path.is_dir() else None


def portraits_dir() -> Path | None:
    """Return the folder of portraits that half of the simulated people are lifted from (``$PORTRAITS_DIR``), or None.

    Raises:
        ConfigError: the variable names no folder.
    """
    chosen = os.environ.get("PORTRAITS_DIR", "")
    if chosen and not Path(chosen).expanduser().is_dir():
        raise ConfigError(f"PORTRAITS_DIR={chosen} is no folder: correct it, or unset it to paint all faces.")
    return Path(chosen).expanduser().resolve() if chosen else None


def runs_dir() -> Path:
    """Return the parent folder of all runs: ``$RUNS_DIR``, else ``runs``."""
    chosen = os.environ.get("RUNS_DIR", "")
    return Path(chosen).expanduser().resolve() if chosen else repo_root() / "runs"


def run_dir(profile_name: str = "quick", override: str | os.PathLike = "") -> Path:
    """Return the folder of one run: `override`, else ``$RUN_DIR``, else ``runs/NAME``.

    The study reads and adds to the full profile's run.
    """
    chosen = str(override) or os.environ.get("RUN_DIR", "")
    default = runs_dir() / profile(profile_name).data
    return Path(chosen).expanduser().resolve() if chosen else default


def released_bundle() -> Path:
    """Return the bundle that the repository ships."""
    return repo_root() / "data" / "bundle"


def imagenet_encoder() -> Path:
    """Return the picture encoder with ImageNet knowledge that the repository ships (data/README.md)."""
    return repo_root() / "data" / "encoders" / "mobilenet_v2.pt"


def default_bundle() -> Path:
    """Return the bundle to judge with when none is named: the released one, else that of a run here."""
    found = [released_bundle(), *(runs_dir() / name / "bundle" for name in ("full", "quick"))]
    return next((path for path in found if (path / "bundle.json").exists()), found[0])


def samples_dir() -> Path:
    """Return the folder of sample clips that the repository ships."""
    return repo_root() / "data" / "samples"


@dataclass(frozen=True)
class Paths:
    """Where one run reads and writes; see `paths`."""

    data: Path
    run: Path

    @property
    def figures(self) -> Path:
        """Figures the notebooks save."""
        return self.run / "figures"

    @property
    def metrics(self) -> Path:
        """One JSON file of named results a notebook."""
        return self.run / "metrics"

    @property
    def features(self) -> Path:
        """Tracks, cues and crops extracted from the clips."""
        return self.run / "features"

    @property
    def pictures(self) -> Path:
        """Single pictures for the picture head."""
        return self.run / "pictures"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints and training logs."""
        return self.run / "checkpoints"

    @property
    def study(self) -> Path:
        """One result file a training of the study."""
        return self.run / "study"

    @property
    def bundle(self) -> Path:
        """The model bundle this run exports."""
        return self.run / "bundle"


def paths(profile_name: str = "quick", data: str | os.PathLike = "", run: str | os.PathLike = "") -> Paths:
    """Turn a notebook's parameters into folders; an empty string means the default.

    Args:
        profile_name: name of the profile.
        data: folder of clips, or "".
        run: folder of results, or "".

    Returns:
        Paths; `run`, `figures` and `metrics` exist afterwards.
    """
    found = Paths(data_dir(profile_name, data), run_dir(profile_name, run))
    found.figures.mkdir(parents=True, exist_ok=True)
    found.metrics.mkdir(parents=True, exist_ok=True)
    return found


def write_json(path: Path, content: Any) -> Path:
    """Write `content` as JSON under its final name only when it is complete.

    Numbers that JSON does not know (NaN, infinities) become null; numpy values are unpacked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(to_json(content) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def to_json(content: Any) -> str:
    """Return `content` as JSON text: numpy values unpacked, NaN and infinities as null.

    >>> to_json([float("nan")])
    '[\\n null\\n]'
    """
    return json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Return `value` as JSON knows it: numpy unpacked, NaN and infinities null, the rest as text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def write_metrics(notebook: str, metrics: dict[str, Any], run: str | os.PathLike) -> Path:
    """Write a notebook's named results to ``RUN/metrics/NN.json``.

    Args:
        notebook: the notebook's name or number; its first two characters name the file.
        metrics: results by name; numpy values are allowed.
        run: the run's folder (`Paths.run`).

    Returns:
        The file written.
    """
    return write_json(Path(run) / "metrics" / f"{notebook[:2]}.json", metrics)


def read_metrics(notebook: str, run: str | os.PathLike) -> dict[str, Any]:
    """Read what notebook `notebook` (name or number) left in this run.

    Raises:
        ConfigError: that notebook has not been run.
    """
    path = Path(run) / "metrics" / f"{notebook[:2]}.json"
    if not path.exists():
        raise ConfigError(f"{path} is missing: run notebook {notebook[:2]} of this run first.")
    return json.loads(path.read_text(encoding="utf-8"))
