"""The command ``liveness``: a thin door to the rooms, each opened only when it is asked for.

Arguments come in as text, one function of another module is called, lines go out. Every
`LivenessError` ends as one sentence on stderr, never as a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from liveness_utils import __version__
from liveness_utils.errors import LivenessError

FAILED, UNREADABLE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; default those of the process.

    Returns:
        Exit code: 0 done (for ``predict``: any verdict), 1 failed, 2 bad usage or input that
        cannot be read, 130 interrupted.
    """
    args = _parser().parse_args(argv)
    try:
        return args.command(args) or 0
    except LivenessError as error:
        print(f"liveness: {error}", file=sys.stderr)
        return args.error_code
    except ModuleNotFoundError as error:
        print(f"liveness: {error.name} is missing: `liveness check` says how to install it.", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"liveness: {error.filename or ''}: {error.strerror or error}.", file=sys.stderr)
        return args.error_code
    except KeyboardInterrupt:
        print("liveness: interrupted; the same command goes on where it stopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="liveness", description="Face liveness from video and motion sensors.")
    parser.add_argument("--version", action="version", version=f"liveness {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (
        _add_check, _add_run, _add_generate, _add_import, _add_train, _add_evaluate, _add_benchmark,
        _add_export, _add_bundle, _add_predict, _add_teach, _add_camera, _add_serve,
    ):  # fmt: skip
        add(commands)
    return parser


def _command(commands: Any, name: str, function: Any, text: str, code: int = FAILED) -> Any:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=function, error_code=code)
    return parser


def _profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="quick", help="quick (default), full or study")


# --- environment, course ------------------------------------------------------------------


def _add_check(commands: Any) -> None:
    parser = _command(commands, "check", _check, "Say which dependencies are here and what mends the rest.")
    parser.add_argument("--runtime", action="store_true", help="only what prediction needs")


def _check(args: argparse.Namespace) -> int:
    from liveness_utils import check

    lines, good = check.report(runtime=args.runtime)
    print("\n".join(lines))
    return 0 if good else FAILED


def _add_run(commands: Any) -> None:
    parser = _command(commands, "run", _run, "Run the course's notebooks in order and build the report.")
    _profile(parser)
    parser.add_argument(
        "-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a papermill parameter, given to the notebooks that know it; repeatable",
    )  # fmt: skip
    parser.add_argument("--from", dest="from_", metavar="NN", help="first notebook, e.g. 03")
    parser.add_argument("--to", metavar="NN", help="last notebook, e.g. 06")
    parser.add_argument("--out", default="", help="folder of the run (default runs/PROFILE)")


def _run(args: argparse.Namespace) -> None:
    from liveness_utils import pipeline

    parameters = {name: parameter_value(text) for name, text in args.parameters}
    pipeline.run(
        args.profile, parameters, args.from_, args.to, args.out,
        say=lambda line: print(line, flush=True), progress=sys.stderr.isatty(),
    )  # fmt: skip


def parameter_value(text: str) -> Any:
    """Read a parameter as JSON would, else as Python's True, False, None, else as text.

    >>> [parameter_value(x) for x in ("3", "1e-3", "true", "None", "[1, 2]", "full")]
    [3, 0.001, True, None, [1, 2], 'full']
    """
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    try:
        return json.loads(text)
    except ValueError:
        return text


# --- data, training -----------------------------------------------------------------------


def _add_generate(commands: Any) -> None:
    parser = _command(commands, "generate", _generate, "Generate simulated clips (resumable).")
    _profile(parser)
    parser.add_argument("--out", default="", help="folder (default $DATA_DIR or data/generated/PROFILE)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--backend", choices=("loky", "dask"), default="loky")
    parser.add_argument("--scheduler", help="address of a Dask scheduler, with --backend dask")


def _generate(args: argparse.Namespace) -> None:
    from liveness_utils import config, simulate

    out = config.data_dir(args.profile, args.out)
    manifest = simulate.generate(
        args.profile, out, seed=args.seed, workers=args.workers, backend=args.backend,
        scheduler=args.scheduler,
    )  # fmt: skip
    print(f"{len(manifest)} clips in {out}")


def _add_import(commands: Any) -> None:
    parser = _command(commands, "import", _import, "Turn a folder of real data into clips (resumable).")
    parser.add_argument("layout", nargs="?", metavar="LAYOUT", help="without one: list the layouts that are known")
    parser.add_argument("source", nargs="?", type=Path, metavar="SRC", help="the data; without it: describe the layout")
    parser.add_argument("target", nargs="?", type=Path, metavar="DST", help="new folder of clips")
    parser.add_argument("--protocol", default="", metavar="N", help="of the data set (default: its first)")
    parser.add_argument("--fps", type=float, help="frames a second, where pictures have no times")
    parser.add_argument("--seconds", type=float, default=3.0, help="how much of each video is kept (3)")
    parser.add_argument("--subject", metavar="REGEX", help="finds the person in a file's name, as its first group")
    parser.add_argument("--seed", type=int, default=0, help="of splits that are not published")


def _import(args: argparse.Namespace) -> None:
    from liveness_utils import adapters
    from liveness_utils.errors import AdapterError

    if args.layout is None:
        print("\n".join(f"{held.name:15} {held.title}" for held in adapters.LAYOUTS))
        return
    held = adapters.layout(args.layout)
    if args.source is None:
        print(held.about())
        return
    if args.target is None:
        raise AdapterError("import takes LAYOUT SRC DST: say which folder the clips go to.")
    options = adapters.Options(args.fps, args.subject)
    done = adapters.import_layout(
        held, args.source, args.target, protocol=args.protocol, options=options, seconds=args.seconds,
        seed=args.seed, progress=sys.stderr.isatty(),
    )  # fmt: skip
    print("\n".join(done.lines))


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", _train, "Train the fusion network (resumable).")
    _profile(parser)
    parser.add_argument("--data", default="", help="folder of clips")
    parser.add_argument("--out", default="", help="folder of the run (default runs/PROFILE)")
    parser.add_argument("--start", type=Path, metavar="CKPT|BUNDLE", help="fine-tune from these weights")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="single pictures that the picture head learns from, too (default: the run's, where notebook 05 made them)",
    )
    parser.add_argument("--picture-epochs", type=int, help="of the picture head (default: the profile's)")
    parser.add_argument("--epochs", type=int, help="of the rest (default: the profile's)")
    parser.add_argument("--modalities", nargs="+", choices=("video", "landmarks", "imu"), help="default: all three")
    parser.add_argument("--study", action="store_true", help="the study's many trainings instead of one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--devices", type=int, default=1, help="processes or GPUs on this machine")
    parser.add_argument("--num-nodes", type=int, default=1)
    parser.add_argument("--strategy", default="auto", help="e.g. ddp")
    parser.add_argument("--accelerator", default="auto", help="cpu, gpu, ... (default: what there is)")


def _train(args: argparse.Namespace) -> None:
    from liveness_utils import config, dataset
    from liveness_utils.network import scoring, study, training

    paths = config.paths(args.profile, args.data, args.out)
    sizes = config.profile(args.profile)
    settings = training.TrainConfig.of(
        sizes, paths.features, paths.checkpoints, seed=args.seed, **_training_changes(args, paths)
    )
    dataset.prepare(paths.data, paths.features, workers=args.workers)
    if args.study:
        files = study.run_study(sizes, settings, paths.study, jobs=args.workers)
        print(f"{len(files)} trainings in {paths.study}")
        return
    where = {name: getattr(args, name) for name in ("devices", "num_nodes", "strategy", "accelerator")}
    checkpoint = training.train(settings, **where)
    if os.environ.get("LOCAL_RANK", "0") != "0" or os.environ.get("NODE_RANK", "0") != "0":
        return  # one process of a distributed training scores
    written = scoring.write_scores(checkpoint, paths.features, paths.run)
    print("\n".join(str(path) for path in (checkpoint, *written)))


def _training_changes(args: argparse.Namespace, paths: Any) -> dict[str, Any]:
    """What the command line says of a training."""
    changes = {name: getattr(args, name) for name in ("epochs", "picture_epochs")}
    changes = {name: value for name, value in changes.items() if value is not None}
    simulated = not (args.data or args.start)  # nobody's own data is mixed with pictures unasked
    if args.pictures or (simulated and (paths.pictures / "index.json").is_file()):
        changes["pictures"] = str(args.pictures or paths.pictures)
    if args.modalities:
        changes["modalities"] = tuple(args.modalities)
    if args.start:
        inside = args.start / "checkpoint.pt"
        changes["start"] = str(inside if inside.is_file() else args.start)
    return changes


# --- evaluation ---------------------------------------------------------------------------


def _add_evaluate(commands: Any) -> None:
    parser = _command(
        commands, "evaluate", _evaluate,
        "Report error rates of anybody's scores (score, is_bonafide, pai_species).", UNREADABLE,
    )  # fmt: skip
    parser.add_argument("scores", type=Path, metavar="SCORES.csv")
    parser.add_argument("--dev", type=Path, metavar="DEV.csv", help="scores on which the threshold is chosen")
    parser.add_argument("--target", type=float, default=0.05, help="worst-species APCER on dev (0.05)")
    parser.add_argument("--threshold", type=float, help="a given threshold instead of --dev")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write DET, ROC, histogram, calibration")


def _evaluate(args: argparse.Namespace) -> None:
    from liveness_utils import config, metrics

    test = metrics.load_scores(args.scores)
    dev = metrics.load_scores(args.dev) if args.dev else None
    result = metrics.report(test, dev, target=args.target, threshold=args.threshold, seed=args.seed)
    print(config.to_json(result) if args.json else metrics.summary(result))
    if args.figures:
        from liveness_utils import plots

        plots.evaluation_figures(test, result, args.figures)


def _add_benchmark(commands: Any) -> None:
    parser = _command(
        commands, "benchmark", _benchmark,
        "Measure the bundle, and cameras taught by a few people, on imported data sets.", UNREADABLE,
    )  # fmt: skip
    parser.add_argument("data", type=Path, nargs="+", metavar="DATA", help="folders that `liveness import` made")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="default: the released one")
    parser.add_argument("--people", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="who teach (1 2 4)")
    parser.add_argument("--clips", type=int, nargs="*", default=[2, 4, 8], metavar="N", help="that teach (2 4 8)")
    parser.add_argument("--draws", type=int, default=10, help="of people, for each number (10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps what is measured (default runs/benchmark)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write benchmark.csv, .png and .pdf")


def _benchmark(args: argparse.Namespace) -> None:
    from liveness_utils import bundle, config
    from liveness_utils.deployment import benchmark, benchmark_report

    held = bundle.load(args.bundle or config.default_bundle())
    settings = benchmark.Settings(
        tuple(args.people), tuple(args.clips), args.draws, args.seed, args.workers, args.work or config.runs_dir() / "benchmark",
        sys.stderr.isatty(),
    )  # fmt: skip
    results = [benchmark.measure(folder, held, settings) for folder in args.data]
    print(benchmark_report.summary(results))
    if args.json:
        config.write_json(args.json, benchmark_report.to_dict(results))
    if args.figures:
        print("\n".join(map(str, benchmark_report.write_figures(results, args.figures))))


# --- export, bundle, prediction -------------------------------------------------------------


def _add_export(commands: Any) -> None:
    parser = _command(commands, "export", _export, "Turn a checkpoint into a bundle.")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="CKPT")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--features", type=Path, metavar="DIR", help="prepared clips (default: those of the run)")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="to convert to; the last one is shipped")
    _profile(parser)


def _export(args: argparse.Namespace) -> None:
    from liveness_utils import bundle, config, dataset, export

    beside = args.checkpoint.resolve().parent.parent / "features"
    own = beside if dataset.is_prepared(beside) else config.run_dir(args.profile) / "features"
    prepared = dataset.open_prepared(args.features or own)
    thresholds = export.dev_thresholds(args.checkpoint, prepared)
    chosen = {"variants": args.variants, "default": args.variants[-1]} if args.variants else {}
    print(bundle.show(export.export_bundle(args.checkpoint, args.out, prepared, thresholds=thresholds, **chosen)))


def _add_bundle(commands: Any) -> None:
    parser = _command(commands, "bundle", _bundle, "Show a bundle, or run its self-test.", UNREADABLE)
    parser.add_argument("action", choices=("show", "selftest"))
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="default: the released one")


def _bundle(args: argparse.Namespace) -> int:
    from liveness_utils import bundle, config

    held = bundle.load(args.folder or config.default_bundle())
    if args.action == "show":
        print(bundle.show(held))
        return 0
    for name, difference in bundle.selftest(held.folder).items():
        print(f"{name:24} {difference:.2e}")
    return 0


def _add_predict(commands: Any) -> None:
    parser = _command(commands, "predict", _predict, "Judge a video with or without its IMU, or a picture.", UNREADABLE)
    parser.add_argument("video", type=Path, metavar="VIDEO")
    parser.add_argument("--imu", type=Path, metavar="FILE", help="Parquet or CSV: t, ax, ay, az, gx, gy, gz")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="default: the released one")
    parser.add_argument("--camera", type=Path, metavar="FILE", help="a taught camera (`liveness teach`)")
    parser.add_argument("--json", action="store_true", help="the whole verdict as JSON")


def _predict(args: argparse.Namespace) -> None:
    from liveness_utils import clips, config, runtime

    # What is judged and no more: twelve seconds of 640 x 480 would be 330 MB.
    clip = clips.load_recording(args.video, args.imu, max_seconds=runtime.JUDGED_SECONDS)
    with runtime.LivenessSession(args.bundle or config.default_bundle(), stream=False, camera=args.camera) as session:
        verdict = runtime.predict_clip(clip, session.bundle, session=session)
    print(verdict.to_json() if args.json else "\n".join((verdict.sentence, *verdict.notes)))


def _add_teach(commands: Any) -> None:
    parser = _command(
        commands, "teach", _teach, "Teach a camera with one's own clips: a minute of it, and attacks on it.", UNREADABLE
    )
    parser.add_argument(
        "--live", nargs="+", required=True, metavar="[LIGHT=]CLIP", help="videos of a living face, e.g. window=a.mp4"
    )
    parser.add_argument(
        "--attack", nargs="+", default=[], metavar="[KIND=]CLIP",
        help="videos of attacks, e.g. print=b.mp4 screen=c.mp4 (kinds: print, screen, mask)",
    )  # fmt: skip
    parser.add_argument("--live-only", action="store_true", help="teach without attacks")
    parser.add_argument("--out", type=Path, required=True, metavar="camera.json")
    parser.add_argument("--extend", action="store_true", help="add to the file that is there")
    parser.add_argument("--person", default="1", help="a code of who is shown, no name")
    parser.add_argument("--name", default="", help="of the camera (default: the file's)")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="default: the released one")


def _teach(args: argparse.Namespace) -> None:
    from liveness_utils import config, runtime
    from liveness_utils.deployment import camera, teaching
    from liveness_utils.errors import CameraError

    if bool(args.attack) == args.live_only:
        raise CameraError("give clips of attacks (--attack), or say --live-only: then prints and screens stay unknown.")
    if args.out.exists() and not args.extend:
        raise CameraError(f"{args.out} is there already: say --extend to add to it, or name another file.")
    with runtime.LivenessSession(args.bundle or config.default_bundle(), stream=False) as session:
        before = camera.load(args.out, session.bundle) if args.extend else None
        number = before.sittings + 1 if before else 1
        rows = teaching.label_videos(args.live, camera.LIVING, session, person=args.person, number=number)
        rows += teaching.label_videos(args.attack, "attack", session, person=args.person, number=number)
        taught = teaching.teach(rows, session.bundle, name=args.name or args.out.stem, extend=before)
    camera.save(taught, args.out)
    print(taught.describe())


def _add_camera(commands: Any) -> None:
    parser = _command(commands, "camera", _camera, "Show a taught camera, or undo its last sitting.", UNREADABLE)
    parser.add_argument("action", choices=("show", "undo"))
    parser.add_argument("file", type=Path, metavar="camera.json")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="default: the released one")


def _camera(args: argparse.Namespace) -> None:
    from liveness_utils import bundle, config
    from liveness_utils.deployment import camera, teaching

    held = bundle.load(args.bundle or config.default_bundle())
    taught = camera.load(args.file, held)
    if args.action == "undo":
        taught = teaching.undo(taught, held)
        camera.save(taught, args.file)
    print(taught.describe())


# --- live ---------------------------------------------------------------------------------


def _add_serve(commands: Any) -> None:
    parser = _command(commands, "serve", _serve, "Serve the phone page: camera and motion sensors to a verdict.")
    parser.add_argument("--host", default="", help="address to listen on (127.0.0.1; with --https 0.0.0.0)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--https", default="", metavar="adhoc|CERT,KEY",
        help="serve with TLS, which phones ask for: a self-signed certificate, or PEM files of your own",
    )  # fmt: skip
    parser.add_argument("--record", type=Path, metavar="DIR", help="keep labelled clips, with consent, in DIR")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="default: the released one")
    parser.add_argument("--require-imu", action="store_true", help="reject clips without motion data")
    parser.add_argument("--name", action="append", default=[], metavar="HOST", help="serve under this name too")
    parser.add_argument("--camera", type=Path, metavar="FILE", help="a taught camera, which judges")
    parser.add_argument(
        "--teach", type=Path, metavar="FILE",
        help="let the page teach its camera into FILE and judge with it; every visitor may teach, and so open the door",
    )  # fmt: skip


def _serve(args: argparse.Namespace) -> None:
    from liveness_utils import config
    from liveness_utils.web.serve import serve

    serve(
        args.bundle or config.default_bundle(), host=args.host, port=args.port, https=args.https, record=args.record,
        require_imu=args.require_imu, names=tuple(args.name), camera=args.camera, teach=args.teach,
        say=lambda line: print(line, flush=True),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
