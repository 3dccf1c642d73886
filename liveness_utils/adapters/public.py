"""Public data sets, each by its own published layout, file names and protocol.

A folder as it was downloaded comes in; presentations with class, species, subject and split go
out. Every reader names the page or the reference code that describes what it follows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from liveness_utils.adapters.record import (
    VIDEO_SUFFIXES,
    Layout,
    Options,
    Presentation,
    below,
    chosen,
    files,
    need,
    parsed,
)
from liveness_utils.errors import AdapterError

_BOB = "https://github.com/bioidiap/bob.pad.face"
_ON_REQUEST = (
    "research use under an agreement with its owners, not to be redistributed; not confirmed here, read theirs"
)


def _text_lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


# -------------------------------------------------------------------------------------------- NUAA
def nuaa(source: Path, _: str, __: Options) -> list[Presentation]:
    """Pictures named by the four ``*_raw.txt`` lists."""
    root = below(source, "client_train_raw.txt", "ClientRaw", layout="NUAA", tree=NUAA.tree)
    return need((p for s in ("train", "test") for c in ("client", "imposter") for p in _nuaa_list(root, s, c)),
                source, "NUAA", NUAA.tree)  # fmt: skip


def _nuaa_list(root: Path, split: str, who: str) -> Iterator[Presentation]:
    listed = root / f"{who}_{split}_raw.txt"
    if not listed.is_file():
        raise AdapterError(f"{listed}: this list of NUAA is missing; unpack raw.rar whole.")
    folder = root / ("ClientRaw" if who == "client" else "ImposterRaw")
    for line in _text_lines(listed):
        path = folder / line.replace("\\", "/")
        part = parsed(r"(?P<id>\d{4})_(?P<glasses>\d+)_(?P<place>\d+)_(?P<session>\d+)_(?P<n>\d+)", path, "NUAA")
        known = {"scene_id": f"place{part['place']}-session{part['session']}"}
        video = "_".join((who, part["id"], part["glasses"], part["place"], part["session"]))
        species = None if who == "client" else "flat_print"
        yield Presentation((path,), "image", who == "client", species, part["id"], split, None, video, known)


NUAA = Layout(
    "nuaa", "NUAA Photograph Imposter Database", "ClientRaw/ID/*.jpg, ImposterRaw/ID/*.jpg, client|imposter_train|test_raw.txt",
    "not confirmed: its page asks for no agreement, as far as is known; treat it as research use",
    "raw.rar from the page of the authors at Nanjing University of Aeronautics and Astronautics, below",
    "Tan, Li, Liu, Jiang: Face Liveness Detection from a Single Image with Sparse Low Rank Bilinear Discriminative "
    "Model, ECCV 2010",
    ("https://parnec.nuaa.edu.cn/_upload/tpl/02/db/731/template731/pages/xtan/NUAAImposterDB_download.html",
     "readme.txt in raw.rar (names of files, lists)"), nuaa,
    note="Stills: 1743 and 3362 bona fide, 1748 and 5761 attacks in train and test. The lists share people, "
    "so a detector can know them: the import counts how many.",
)  # fmt: skip


# ----------------------------------------------------------------------- Replay-Attack and -Mobile
_IDIAP_SPLITS = {"train": "train", "devel": "dev", "test": "test"}
_REPLAY_PROTOCOLS = {
    "grandtest": lambda device, sort: True,
    "print": lambda device, sort: device == "print",
    "mobile": lambda device, sort: device == "mobile",
    "highdef": lambda device, sort: device == "highdef",
    "digitalphoto": lambda device, sort: device != "print" and sort == "photo",
    "photo": lambda device, sort: sort == "photo",
    "video": lambda device, sort: sort == "video",
}


def _shown(device: str, sort: str) -> str:
    return "flat_print" if device == "print" else f"{'still' if sort == 'photo' else 'video'}_replay"


def replay_attack(source: Path, protocol: str, _: Options) -> list[Presentation]:
    """``train|devel|test/real`` and ``attack/fixed|hand``."""
    keep = _REPLAY_PROTOCOLS[chosen(protocol, REPLAY_ATTACK.protocols, "replay-attack")]
    return _idiap(source, "Replay-Attack", REPLAY_ATTACK.tree, lambda path, split: _replay_file(path, split, keep))


def _idiap(source: Path, name: str, tree: str, read: Callable[[Path, str], Presentation | None]) -> list[Presentation]:
    """All videos below ``train|devel|test/real|attack`` that `read` takes for a part of the protocol."""
    root = below(source, "train/real", "devel", layout=name, tree=tree)
    found = (read(p, split) for folder, split in _IDIAP_SPLITS.items()
             for part in ("real", "attack") for p in files(root / folder / part, VIDEO_SUFFIXES))  # fmt: skip
    return need((p for p in found if p), source, name, tree)


_REPLAY_REAL = (
    r"client(?P<id>\d+)_session(?P<session>\d+)_(?P<camera>\w+?)_(?P<purpose>\w+?)_(?P<light>[a-z]+)(_(?P<take>\d+))?"
)
_REPLAY_FAKE = r"attack_(?P<device>[a-z]+)_client(?P<id>\d+)_session(?P<session>\d+)_(?P<sample>[a-z]+)_(?P<sort>photo|video)_(?P<light>[a-z]+)"


def _replay_file(path: Path, split: str, keep) -> Presentation | None:
    real = "real" in path.parent.parts[-1:]
    part = parsed(_REPLAY_REAL if real else _REPLAY_FAKE, path, "Replay-Attack")
    known = {"light": part["light"], "capture_device_id": "replay-attack-webcam"}
    if real:
        return Presentation((path,), "video", True, None, part["id"], split, known=known)
    if not keep(part["device"], part["sort"]):
        return None
    known |= {"instrument_id": f"{part['device']}-{path.parent.name}"}
    return Presentation((path,), "video", False, _shown(part["device"], part["sort"]), part["id"], split, known=known)


REPLAY_ATTACK = Layout(
    "replay-attack", "Replay-Attack (Idiap)", "train|devel|test/real/*.mov and train|devel|test/attack/fixed|hand/*.mov",
    "Idiap's end user licence agreement, research", "request at https://www.idiap.ch/dataset/replayattack",
    "Chingovska, Anjos, Marcel: On the Effectiveness of Local Binary Patterns in Face Anti-spoofing, BIOSIG 2012",
    ("https://www.idiap.ch/dataset/replayattack", "https://github.com/bioidiap/bob.db.replay", _BOB),
    replay_attack, tuple(_REPLAY_PROTOCOLS), "The enrolment videos are left out, as in its anti-spoofing protocols.",
)  # fmt: skip


def replay_mobile(source: Path, protocol: str, _: Options) -> list[Presentation]:
    """``train|devel|test/real`` and ``attack``."""
    wanted = chosen(protocol, REPLAY_MOBILE.protocols, "replay-mobile")
    return _idiap(source, "Replay-Mobile", REPLAY_MOBILE.tree, lambda path, split: _mobile_file(path, split, wanted))


_MOBILE_REAL = (
    r"client(?P<id>\d+)_session(?P<session>\d+)_(?P<purpose>[a-z]+)_(?P<camera>mobile|tablet)_(?P<light>[a-z]+)"
)
_MOBILE_FAKE = (
    r"attack_client(?P<id>\d+)_session(?P<session>\d+)_(?P<device>print|mattescreen)_(?P<support>fixed|hand)"
    r"_(?P<camera>mobile|tablet)_(?P<sort>photo|video)_(?P<light>[a-z]+)"
)


def _mobile_file(path: Path, split: str, wanted: str) -> Presentation | None:
    real = not path.stem.startswith("attack")
    part = parsed(_MOBILE_REAL if real else _MOBILE_FAKE, path, "Replay-Mobile")
    known = {"light": part["light"], "capture_device_id": f"replay-mobile-{part['camera']}"}
    if real:
        return Presentation((path,), "video", True, None, part["id"], split, known=known)
    if wanted not in ("grandtest", part["device"]):
        return None
    known |= {"instrument_id": f"{part['device']}-{part['support']}"}
    return Presentation((path,), "video", False, _shown(part["device"], part["sort"]), part["id"], split, known=known)


REPLAY_MOBILE = Layout(
    "replay-mobile", "Replay-Mobile (Idiap)", "train|devel|test/real/*.mov and train|devel|test/attack/*.mov",
    "Idiap's end user licence agreement, research", "request at https://www.idiap.ch/dataset/replay-mobile",
    "Costa-Pazo, Bhattacharjee, Vazquez-Fernandez, Marcel: The REPLAY-MOBILE Face Presentation-Attack Database, BIOSIG 2016",
    ("https://github.com/bioidiap/bob.db.replaymobile", _BOB), replay_mobile, ("grandtest", "mattescreen", "print"),
    "bob.db.replaymobile turns its phone's videos otherwise than its tablet's (two of client 8's tablet like the "
    "phone's); the import follows the turn that a file itself states: look at a few clips of each.",
)  # fmt: skip


# ---------------------------------------------------------------------------------------- CASIA-FASD
_CASIA = {
    "1": None, "2": None, "HR_1": None, "3": "bent_print", "4": "bent_print", "HR_2": "bent_print",
    "5": "eye_hole_print", "6": "eye_hole_print", "HR_3": "eye_hole_print",
    "7": "video_replay", "8": "video_replay", "HR_4": "video_replay",
}  # fmt: skip


def casia_fasd(source: Path, _: str, __: Options) -> list[Presentation]:
    """``train_release/1..20`` and ``test_release/1..30``, twelve videos each."""
    root = below(source, "train_release", "test_release", layout="CASIA-FASD", tree=CASIA_FASD.tree)
    found = (_casia_file(p, split) for split in ("train", "test")
             for p in files(root / f"{split}_release", VIDEO_SUFFIXES))  # fmt: skip
    return need(found, source, "CASIA-FASD", CASIA_FASD.tree)


def _casia_file(path: Path, split: str) -> Presentation:
    stem = path.stem.upper()
    if stem not in _CASIA or not path.parent.name.isdigit():
        raise AdapterError(f"{path}: no file name of CASIA-FASD (1 to 8, HR_1 to HR_4); remove the file.")
    # The second release counts its people from 1 again: those of test are 21 to 50.
    subject = int(path.parent.name) + (20 if split == "test" else 0)
    quality = "high" if stem.startswith("HR") else "normal" if int(stem) % 2 else "low"
    species = _CASIA[stem]
    return Presentation((path,), "video", species is None, species, str(subject), split,
                        known={"capture_device_id": f"casia-fasd-{quality}"})  # fmt: skip


CASIA_FASD = Layout(
    "casia-fasd", "CASIA Face Anti-Spoofing Database", "train_release/N/*.avi and test_release/N/*.avi, N a person, 1.avi … HR_4.avi",
    _ON_REQUEST, "by agreement, http://www.cbsr.ia.ac.cn/english/FaceAntiSpoofDatabases.asp",
    "Zhang, Yan, Liu, Lei, Yi, Li: A Face Antispoofing Database with Diverse Attacks, ICB 2012",
    ("https://github.com/bioidiap/bob.db.casia_fasd", _BOB), casia_fasd,
)  # fmt: skip


# ---------------------------------------------------------------------------------------- MSU-MFSD
_MSU_DEVICES = {"ipad": "video_replay", "iphone": "video_replay", "printed": "flat_print"}
_MSU = (
    r"(?P<what>real|attack)_client(?P<id>\d{3})_(?P<camera>android|laptop)_SD(_(?P<device>ipad|iphone|printed)_(video|photo))?"
    r"_scene(?P<scene>\d+)"
)


def msu_mfsd(source: Path, _: str, __: Options) -> list[Presentation]:
    """``scene01/real|attack`` with the two lists of people."""
    root = below(source, "train_sub_list.txt", "test_sub_list.txt", layout="MSU-MFSD", tree=MSU_MFSD.tree)
    people = {int(n): split for split in ("train", "test") for n in _text_lines(root / f"{split}_sub_list.txt")}
    return need((_msu_file(p, people) for p in files(root, VIDEO_SUFFIXES)), source, "MSU-MFSD", MSU_MFSD.tree)


def _msu_file(path: Path, people: dict[int, str]) -> Presentation:
    part = parsed(_MSU, path, "MSU-MFSD")
    if int(part["id"]) not in people:
        raise AdapterError(
            f"{path}: client {part['id']} is in neither list of people; complete train_ or test_sub_list.txt."
        )
    real = part["what"] == "real"
    known = {"capture_device_id": f"msu-mfsd-{part['camera']}", "scene_id": f"scene{part['scene']}"}
    known |= {} if real else {"instrument_id": part.get("device")}
    species = None if real else _MSU_DEVICES.get(part.get("device", ""), None)
    return Presentation((path,), "video", real, species, part["id"], people[int(part["id"])], known=known)


MSU_MFSD = Layout(
    "msu-mfsd", "MSU Mobile Face Spoofing Database", "scene01/real|attack/*.mp4|mov, train_sub_list.txt, test_sub_list.txt",
    _ON_REQUEST, "by agreement, http://www.cse.msu.edu/rgroups/biometrics/Publications/Databases/MSUMobileFaceSpoofing/index.htm",
    "Wen, Han, Jain: Face Spoof Detection with Image Distortion Analysis, IEEE TIFS 10(4), 2015",
    ("https://pypi.org/project/bob.db.msu-mfsd-mod/2.0.0/ (lists of the original protocol, names of files)",), msu_mfsd,
    note="15 people train, 20 test. bob.db.msu_mfsd_mod turns six bona fide videos of the phone (clients 3, 5 to 9) by "
    "180 degrees; the import follows the turn that a file itself states: look at them.",
)  # fmt: skip


# ---------------------------------------------------------------------------------------- OULU-NPU
_OULU_FOLDERS = {"Train_files": "train", "Dev_files": "dev", "Test_files": "test"}
_OULU_SPECIES = {1: None, 2: "flat_print", 3: "flat_print", 4: "video_replay", 5: "video_replay"}
_OULU_SHOWN = {2: "printer1", 3: "printer2", 4: "display1", 5: "display2"}
OULU_PROTOCOLS = ("1", "2", *(f"3.{k}" for k in range(1, 7)), *(f"4.{k}" for k in range(1, 7)))


def oulu_takes_part(protocol: str, split: str, phone: int, session: int, what: int) -> bool:
    """Whether a video belongs to a split of one of OULU-NPU's four protocols.

    1: a session unseen in training; 2: instruments unseen; 3.k: phone k unseen; 4.k: all three.

    >>> oulu_takes_part("4.2", "test", phone=2, session=3, what=5)
    True
    """
    number, _, fold = protocol.partition(".")
    test = split == "test"
    sessions = {"1": (3,) if test else (1, 2), "4": (3,) if test else (1, 2)}.get(number, (1, 2, 3))
    shown = ((1, 3, 5) if test else (1, 2, 4)) if number in "24" else (1, 2, 3, 4, 5)
    unseen = not fold or (phone == int(fold)) == test
    return session in sessions and what in shown and unseen


def oulu_npu(source: Path, protocol: str, _: Options) -> list[Presentation]:
    """``Train_files|Dev_files|Test_files``, videos named PHONE_SESSION_USER_FILE."""
    wanted = chosen(protocol, OULU_PROTOCOLS, "oulu-npu")
    root = below(source, *_OULU_FOLDERS, layout="OULU-NPU", tree=OULU_NPU.tree)
    found = (_oulu_file(p, split, wanted) for name, split in _OULU_FOLDERS.items()
             for p in files(root / name, VIDEO_SUFFIXES))  # fmt: skip
    return need((p for p in found if p), source, "OULU-NPU", OULU_NPU.tree)


def _oulu_file(path: Path, split: str, protocol: str) -> Presentation | None:
    part = parsed(r"(?P<phone>[1-6])_(?P<session>[1-3])_(?P<user>\d{2})_(?P<what>[1-5])", path, "OULU-NPU")
    phone, session, what = (int(part[k]) for k in ("phone", "session", "what"))
    if not oulu_takes_part(protocol, split, phone, session, what):
        return None
    known = {"capture_device_id": f"oulu-npu-phone{phone}", "scene_id": f"session{session}"}
    known |= {"instrument_id": _OULU_SHOWN.get(what), "camera_facing": "front"}
    return Presentation((path,), "video", what == 1, _OULU_SPECIES[what], part["user"], split, known=known)


OULU_NPU = Layout(
    "oulu-npu", "OULU-NPU", "Train_files|Dev_files|Test_files/PHONE_SESSION_USER_FILE.avi",
    _ON_REQUEST, "request at https://sites.google.com/site/oulunpudatabase/",
    "Boulkenafet, Komulainen, Li, Feng, Hadid: OULU-NPU: A Mobile Face Presentation Attack Database with Real-World "
    "Variations, FG 2017",
    ("https://sites.google.com/site/oulunpudatabase/", "https://github.com/bioidiap/bob.db.oulunpu", _BOB),
    oulu_npu, OULU_PROTOCOLS, "Protocols 3 and 4 are six folds each; report the mean over 3.1 to 3.6 or 4.1 to 4.6.",
)  # fmt: skip


# -------------------------------------------------------------------------------------------- SiW
SIW_PROTOCOLS = ("1", *(f"2.{k}" for k in range(1, 5)), "3.1", "3.2")
# People of Train kept for dev by the reference lists of bob.db.siw: the set defines none itself.
_SIW_DEV = frozenset({3, 6, 7, 11, 14, 16, 17, 22, 28, 30})


def siw_takes_part(protocol: str, test: bool, kind: int, medium: int) -> bool:
    """Whether an attack belongs to a split: 2.k replay medium k unseen, 3.1 print to replay, 3.2 back.

    >>> siw_takes_part("3.1", False, kind=2, medium=1), siw_takes_part("2.1", True, kind=3, medium=2)
    (True, False)
    """
    number, _, fold = protocol.partition(".")
    if number == "2":
        return kind == 3 and (medium == int(fold)) == test
    if number == "3":
        return kind == (2 if (fold == "1") != test else 3)
    return True


def siw(source: Path, protocol: str, _: Options) -> list[Presentation]:
    """``Train|Test/live|spoof/SUBJECT/SUBJECT-SENSOR-TYPE-MEDIUM-SESSION``."""
    wanted = chosen(protocol, SIW_PROTOCOLS, "siw")
    root = below(source, "Train", "Test", layout="SiW", tree=SIW.tree)
    found = (
        _siw_file(p, name == "Test", wanted) for name in ("Train", "Test") for p in files(root / name, VIDEO_SUFFIXES)
    )
    return need((p for p in found if p), source, "SiW", SIW.tree)


def _siw_file(path: Path, test: bool, protocol: str) -> Presentation | None:
    # Sixteen bona fide videos of Test are called 153-2-1-1-1.m.mov and so on (lists of bob.db.siw).
    part = parsed(r"(?P<id>\d{3})-(?P<sensor>\d)-(?P<kind>[123])-(?P<medium>\d+)-(?P<session>\d+)(\.m)?", path, "SiW")
    kind, medium, subject = int(part["kind"]), int(part["medium"]), int(part["id"])
    if kind > 1 and not siw_takes_part(protocol, test, kind, medium):
        return None
    split = "test" if test else "dev" if subject in _SIW_DEV else "train"
    known = {"capture_device_id": f"siw-sensor{part['sensor']}"}
    known |= {"instrument_id": f"{'print' if kind == 2 else 'replay'}{medium}"} if kind > 1 else {}
    species = {1: None, 2: "flat_print", 3: "video_replay"}[kind]
    return Presentation((path,), "video", kind == 1, species, part["id"], split, known=known)


SIW = Layout(
    "siw", "Spoof in the Wild", "Train|Test/live|spoof/SUBJECT/SUBJECT-SENSOR-TYPE-MEDIUM-SESSION.mov|mp4",
    _ON_REQUEST, "request at http://cvlab.cse.msu.edu/siw-spoof-in-the-wild-database.html",
    "Liu, Jourabloo, Liu: Learning Deep Models for Face Anti-Spoofing: Binary or Auxiliary Supervision, CVPR 2018",
    ("http://cvlab.cse.msu.edu/siw-spoof-in-the-wild-database.html", "https://github.com/bioidiap/bob.db.siw"),
    siw, SIW_PROTOCOLS,
    "Protocol 1 trains on the first 60 frames; a clip here is the first 3 s of a video in every protocol. dev is ten "
    "people of Train, those of bob.db.siw.",
)  # fmt: skip


# ------------------------------------------------------------------------------------ CelebA-Spoof
_CELEBA_KINDS = (
    None, "flat_print", "flat_print", "flat_print", "eye_hole_print", "eye_hole_print", "eye_hole_print",
    "still_replay", "still_replay", "still_replay", "rigid_mask",
)  # fmt: skip
_CELEBA_SHOWN = (
    "live",
    "photo",
    "poster",
    "A4",
    "face-mask",
    "upper-body-mask",
    "region-mask",
    "PC",
    "pad",
    "phone",
    "3d-mask",
)
_CELEBA_LIGHT = ("live", "normal", "strong", "back", "dark")
CELEBA_PROTOCOLS = ("intra_test", "protocol1",
                    *(f"protocol2/test_on_{k}_quality_device" for k in ("low", "middle", "high")))  # fmt: skip


def celeba_spoof(source: Path, protocol: str, _: Options) -> list[Presentation]:
    """Pictures named by ``metas/PROTOCOL/train_label.json`` and ``test_label.json``."""
    wanted = chosen(protocol, CELEBA_SPOOF.protocols, "celeba-spoof")
    root = below(source, f"metas/{wanted}", "Data", layout="CelebA-Spoof", tree=CELEBA_SPOOF.tree)
    return need((p for split in ("train", "test") for p in _celeba_list(root, wanted, split)),
                source, "CelebA-Spoof", CELEBA_SPOOF.tree)  # fmt: skip


def _celeba_list(root: Path, protocol: str, split: str) -> Iterator[Presentation]:
    listed = root / "metas" / protocol / f"{split}_label.json"
    try:
        labels = json.loads(listed.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{listed}: missing or no JSON; unpack the metas of CelebA-Spoof again.") from error
    for name, row in labels.items():
        if len(row) < 44:
            raise AdapterError(f"{listed}: {name} has {len(row)} of 44 annotations; take the labels of the release.")
        yield _celeba_picture(root / name, row, split)


def _celeba_picture(path: Path, row: list[int], split: str) -> Presentation:
    alive, kind = int(row[43]) == 0, int(row[40])
    known = {} if alive else {"instrument_id": _CELEBA_SHOWN[kind], "light": _CELEBA_LIGHT[int(row[41])]}
    species = None if alive else _CELEBA_KINDS[kind]
    # Data/SPLIT/SUBJECT/live|spoof/NUMBER
    return Presentation((path,), "image", alive, species, path.parts[-3], split, known=known)


CELEBA_SPOOF = Layout(
    "celeba-spoof", "CelebA-Spoof", "Data/train|test/SUBJECT/live|spoof/*.png|jpg, metas/intra_test/train|test_label.json",
    "non-commercial research; pictures not to be passed on, nor they or derived data exploited commercially", "links at https://github.com/ZhangYuanhan-AI/CelebA-Spoof",
    "Zhang, Yin, Li, Yin, Yan, Shao, Liu: CelebA-Spoof: Large-Scale Face Anti-Spoofing Dataset with Rich Annotations, "
    "ECCV 2020, arXiv 2007.12342",
    ("https://github.com/ZhangYuanhan-AI/CelebA-Spoof",), celeba_spoof, CELEBA_PROTOCOLS,
    "Stills. Its paper masks (face, upper body, region) count as prints with holes. The folders of protocol2 are named "
    "as users of the release name them, not by its page.",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- 3DMAD
def mad3d(source: Path, _: str, __: Options) -> list[Presentation]:
    """HDF5 files PERSON_SESSION_SHOT; sessions 1 and 2 are real, 3 shows masks."""
    return need((_mad_file(p) for p in files(source, (".hdf5", ".h5"))), source, "3DMAD", MAD3D.tree)


def _mad_file(path: Path) -> Presentation:
    part = parsed(r"(?P<id>\d{2})_(?P<session>\d{2})_(?P<shot>\d{2})", path, "3DMAD")
    subject, alive = int(part["id"]), int(part["session"]) < 3
    split = "train" if subject < 8 else "dev" if subject < 13 else "test"
    known = {"capture_device_id": "3dmad-kinect", "scene_id": f"session{part['session']}"}
    known |= {} if alive else {"instrument_id": f"3dmad-mask{part['id']}"}
    return Presentation(
        (path,), "hdf5_array", alive, None if alive else "rigid_mask", part["id"], split, 30.0, known=known
    )


MAD3D = Layout(
    "3dmad", "3D Mask Attack Database (Idiap)", "*/PERSON_SESSION_SHOT.hdf5 with Color_Data",
    "Idiap's end user licence agreement, research", "request at https://www.idiap.ch/en/dataset/3dmad/index_html",
    "Erdogmus, Marcel: Spoofing in 2D Face Recognition with 3D Masks and Anti-spoofing with Kinect, BTAS 2013",
    ("https://github.com/bioidiap/bob.db.maskattack (classification protocol: create.py)", _BOB), mad3d,
    note="The depth channel is not read.",
)  # fmt: skip


# -------------------------------------------------------------------------------------------- WMCA
WMCA_PROTOCOLS = ("grandtest", *(f"LOO_{k}" for k in
                  ("fakehead", "flexiblemask", "glasses", "papermask", "prints", "replay", "rigidmask")))  # fmt: skip


def wmca_species(kind: int, pai: int) -> str | None:
    """What the last two numbers of a WMCA file name present; None is bona fide (also with glasses).

    Source: names of the instruments in bob.pad.face before version 4, lists/batl/idiap_converter_v2.json. It calls
    3-05, 3-10 and 3-15 electronic photos, and even numbers of type 4 paused videos.

    >>> wmca_species(0, 1), wmca_species(2, 18), wmca_species(3, 5), wmca_species(4, 1)
    (None, 'soft_mask', 'still_replay', 'video_replay')
    """
    if kind == 1:
        return "rigid_mask" if pai in (2, 13, 14) else "wig" if 8 <= pai <= 12 else "glasses"
    if kind == 2:
        return "fake_head" if pai <= 7 else "paper_mask" if pai <= 11 else "rigid_mask" if pai <= 17 else "soft_mask"
    if kind == 3:
        return "still_replay" if pai in (5, 10, 15) else "flat_print"
    return {0: None, 4: "video_replay" if pai % 2 else "still_replay", 5: "makeup"}[kind]


def wmca(source: Path, protocol: str, options: Options) -> list[Presentation]:
    """Preprocessed colour files CLIENT_SESSION_PRESENTER_TYPE_PAI.hdf5, with the lists of a protocol."""
    wanted = chosen(protocol, WMCA_PROTOCOLS, "wmca")
    splits = _wmca_lists(source, wanted)
    found = (_wmca_file(p, splits, options.fps or 5.0) for p in files(source, (".hdf5", ".h5")))
    return need((p for p in found if p), source, "WMCA", WMCA.tree)


def _wmca_lists(source: Path, protocol: str) -> dict[str, str]:
    listed = sorted(source.rglob(f"PROTOCOL-{protocol}*.csv"))
    if not listed:
        raise AdapterError(f"{source}: no PROTOCOL-{protocol}.csv; copy WMCA's protocol lists into this folder.")
    sets = {"train": "train", "dev": "dev", "eval": "test"}
    rows = [line.split(",") for path in listed for line in _text_lines(path)]
    return {Path(row[0]).stem: sets[row[-1].strip()] for row in rows if row[-1].strip() in sets}


def _wmca_file(path: Path, splits: dict[str, str], fps: float) -> Presentation | None:
    if path.stem not in splits:
        return None
    part = parsed(r"(?P<id>\d{3})_(?P<session>\d{2})_(?P<by>\d{3})_(?P<kind>[0-5])_(?P<pai>\d+)", path, "WMCA")
    species = wmca_species(int(part["kind"]), int(part["pai"]))
    known = {"capture_device_id": "wmca-sr300", "scene_id": f"session{part['session']}"}
    known |= {} if species is None else {"instrument_id": f"wmca-{part['kind']}-{part['pai']}"}
    return Presentation(
        (path,), "hdf5_frames", species is None, species, part["id"], splits[path.stem], fps, known=known
    )


WMCA = Layout(
    "wmca", "Wide Multi-Channel Presentation Attack (Idiap)",
    "face-station/DATE/CLIENT_SESSION_PRESENTER_TYPE_PAI.hdf5 (preprocessed RGB) and PROTOCOL-*.csv",
    "Idiap's end user licence agreement, research", "request at https://www.idiap.ch/en/scientific-research/data/wmca",
    "George, Mostaani, Geissenbuhler, Nikisins, Anjos, Marcel: Biometric Face Presentation Attack Detection with "
    "Multi-Channel Convolutional Neural Network, IEEE TIFS 15, 2020, arXiv 1909.08848",
    ("https://www.idiap.ch/en/scientific-research/data/wmca", f"{_BOB} (instruments, in its history)"),
    wmca, WMCA_PROTOCOLS,
    "Colour only. The files hold frames without times, 50 taken evenly over some 10 s: 5 a second unless --fps says "
    "otherwise. Faces are cropped already; glasses, wigs and fake heads keep words of their own.",
)  # fmt: skip
