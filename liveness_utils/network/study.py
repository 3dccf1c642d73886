"""The study: what each part is worth (ablation), and what an attack nobody taught does (leave one out).

A profile and the release's settings come in, one JSON file a training comes out, which notebooks read.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from liveness_utils import dataset as ds
from liveness_utils.config import Profile, write_json
from liveness_utils.errors import ModelError
from liveness_utils.network import training
from liveness_utils.network.fusion import load_checkpoint
from liveness_utils.network.scoring import score
from liveness_utils.network.training import TrainConfig

ABLATION = {
    "video": {"modalities": ("video",)},
    "landmarks_imu": {"modalities": ("landmarks", "imu")},
    "video_landmarks": {"modalities": ("video", "landmarks")},
    "video_imu": {"modalities": ("video", "imu")},
    "all": {},
    "seed_style": {"architecture": "seed_style", "modalities": ("video", "imu")},
}
SEEDS = (0, 1, 2)
REPEATED = ("all", "seed_style", "video")


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

    The quick profile trains each of its rows once. The study's rows in REPEATED run with every seed, and the whole
    network also without each attack species.
    """
    rows = [StudyRow(v) for v in profile.variants]
    if profile.name == "study":
        rows += [StudyRow(v, seed) for seed in SEEDS for v in REPEATED]
        rows += [StudyRow("all", 0, species) for species in ds.SPECIES if species != "bona_fide"]
    return list(dict.fromkeys(rows))


def variant_config(config: TrainConfig, name: str) -> TrainConfig:
    """The configuration of a row of the ablation, in a folder of its own.

    Raises:
        ModelError: there is no such row.
    """
    if name not in ABLATION:
        raise ModelError(f"{name!r} is no row of the ablation; choose of {list(ABLATION)}")
    return replace(config, out=str(Path(config.out) / name), **ABLATION[name])


def run_study(
    profile: Profile, settings: TrainConfig, out_dir: str | Path, *, jobs: int = 1, progress: bool = True
) -> list[Path]:
    """Train and evaluate every row of a profile's study; rows that are there are kept.

    Interrupted, it goes on with the row it was in. A row that was made with other settings or other clips is made
    anew. All rows but those that leave a species out take the release's picture head where there is one.

    Args:
        profile: `config.Profile`.
        settings: of each training; `out` is the folder of the release's.
        out_dir: one JSON file a row, and the trainings' folders under trainings/.
        jobs: trainings at a time, each on one thread when there are several.
        progress: show a bar over the trainings.

    Returns:
        result files, in the order of `study_rows`.
    """
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    out, release = Path(out_dir), Path(settings.out) / "checkpoint.pt"
    plans = [(row, _row_config(row, settings, out, release), out / f"{row.name}.json") for row in study_rows(profile)]
    todo = [plan for plan in plans if not _is_done(plan[2], plan[1])]
    calls = (delayed(_run_row)(*plan, 1 if jobs > 1 else None) for plan in todo)
    with tqdm(total=len(plans), initial=len(plans) - len(todo), desc="study", disable=not progress) as bar:
        for name in Parallel(n_jobs=jobs, return_as="generator_unordered")(calls):
            bar.set_postfix_str(name)
            bar.update()
    return [path for _, _, path in plans]


def _row_config(row: StudyRow, settings: TrainConfig, out: Path, release: Path) -> TrainConfig:
    config = replace(variant_config(settings, row.variant), out=str(out / "trainings" / row.name), seed=row.seed)
    hidden = (row.left_out,) if row.left_out else ()
    shares = release.is_file() and row.left_out in ("", "injection")  # an injection's pixels are bona fide
    return replace(config, exclude=hidden, picture_head=str(release) if shares else "")


def _is_done(path: Path, config: TrainConfig) -> bool:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["made_of"] == training.fingerprint(config)
    except (OSError, ValueError, KeyError):
        return False


def _run_row(row: StudyRow, config: TrainConfig, path: Path, threads: int | None) -> str:
    begin = time.perf_counter()
    if threads:
        torch.set_num_threads(threads)
    checkpoint = training.train(config, progress=False)
    prepared = ds.open_prepared(config.prepared)
    tables = {split: score(checkpoint, prepared, split=split) for split in ("dev", "test")}
    held = load_checkpoint(checkpoint)[1]
    result = {
        **vars(row),
        "minutes": (time.perf_counter() - begin) / 60,
        "epochs": len(training.training_log(checkpoint)),
        "best_epoch": held["best_epoch"],
        "val_loss": held["val_loss"],
        **_report(tables, row),
        "made_of": training.fingerprint(config),
    }
    write_json(path, result)
    for scrap in ("last.ckpt", "best.ckpt"):  # optimiser states, three times the weights
        (checkpoint.parent / scrap).unlink(missing_ok=True)
    return row.name


def _report(tables: dict, row: StudyRow) -> dict:
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


def read_study(out_dir: str | Path):
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
    rows = [_flat(json.loads(p.read_text(encoding="utf-8"))) for p in files]
    return pd.DataFrame(rows, columns=COLUMNS)


def study_is_of(out_dir: str | Path, checkpoint: str | Path) -> bool:
    """Whether a study's row `all` was trained on what a checkpoint was; a study is not made again with every release."""
    told = load_checkpoint(checkpoint)[1]["training"]
    path = Path(out_dir) / f"{StudyRow('all', told['seed']).name}.json"
    made = json.loads(path.read_text(encoding="utf-8")).get("made_of", {}) if path.is_file() else {}
    return all(made.get(name) == told[name] for name in ("clips", "encoder", "epochs", "views"))


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


COLUMNS = (
    "variant", "seed", "left_out", "minutes", "epochs", "acer", "apcer_worst", "bpcer", "eer",
    "apcer_injection", "acer_without_injection", "acer_presentation", "bpcer_presentation",
    "injection_at_presentation", "apcer_left_out", "left_out_k", "left_out_n", "acer_known",
)  # fmt: skip


def _flat(held: dict) -> dict:
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
