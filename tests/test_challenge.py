"""The active challenge: nonces are spent once, the right answers pass, everything else is refused."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from itertools import permutations

import nbformat
import numpy as np
import pytest

from liveness_utils import challenge as ch
from liveness_utils import config
from liveness_utils.clips import Clip
from liveness_utils.landmarks import Landmarker, make_track, track
from studies import challenge_study as study

pytestmark = pytest.mark.slow


def asked(*prompts: str, created: float = 0.0, ttl: float = 30.0) -> ch.Challenge:
    return ch.Challenge("n", prompts, created, ttl)


@pytest.fixture(scope="module")
def landmarker():
    with Landmarker() as made:
        yield made


@pytest.fixture(scope="module")
def person(landmarker) -> dict[str, study.Take]:
    """One bona fide subject doing each of the five prompts, with tracks."""
    return {x.prompt: x for x in study.film(("bona_fide",), (0,))}


@pytest.fixture(scope="module")
def sheet(landmarker) -> dict[str, study.Take]:
    """The same prompts tried with a flat print."""
    return {x.prompt: x for x in study.film(("flat_print",), (0,), prompts=("turn_left", "blink_twice", "sweep"))}


# ------------------------------------------------------------------------------------------ the book
class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_nonce_is_redeemed_once():
    book = ch.ChallengeBook()
    made = book.issue()
    assert book.redeem(made.nonce) == made
    with pytest.raises(ch.ChallengeError, match="answered before"):
        book.redeem(made.nonce)


@pytest.mark.parametrize("nonce", ["", "never made", None, 3, ["x"]])
def test_an_unknown_nonce_is_refused(nonce):
    with pytest.raises(ch.ChallengeError):
        ch.ChallengeBook().redeem(nonce)


def test_a_stale_nonce_is_refused_and_forgotten():
    clock = Clock()
    book = ch.ChallengeBook(ttl=30.0, clock=clock)
    made = book.issue()
    clock.now += 30.1
    with pytest.raises(ch.ChallengeError, match="30 s"):
        book.redeem(made.nonce)
    with pytest.raises(ch.ChallengeError, match="unknown"):
        book.redeem(made.nonce)


def test_of_two_threads_with_one_nonce_one_is_refused():
    book, won, lost = ch.ChallengeBook(), [], []
    for _ in range(50):
        nonce, barrier = book.issue().nonce, threading.Barrier(2)

        def take(nonce=nonce, barrier=barrier):
            barrier.wait()
            try:
                won.append(book.redeem(nonce))
            except ch.ChallengeError:
                lost.append(nonce)

        threads = [threading.Thread(target=take) for _ in range(2)]
        [t.start() for t in threads], [t.join() for t in threads]
    assert len(won) == len(lost) == 50


def test_asking_cannot_fill_the_memory():
    clock = Clock()
    book = ch.ChallengeBook(ttl=10.0, clock=clock, max_open=3)
    for _ in range(3):
        book.issue()
    with pytest.raises(ch.ChallengeError, match="open"):
        book.issue()
    clock.now += 11
    book.issue()


def test_prompts_differ_and_every_sequence_can_come():
    rng = np.random.default_rng(0)
    drawn = [ch.new_challenge(rng, steps=2) for _ in range(400)]
    assert {c.prompts for c in drawn} == set(permutations(ch.PROMPTS, 2))
    assert len({c.nonce for c in drawn}) == 400
    free = [ch.new_challenge() for _ in range(20)]
    assert len({c.nonce for c in free}) == 20 and all(len(c.nonce) >= 20 for c in free)
    assert all(len(c.instructions) == 2 for c in free)
    still = {p for _ in range(40) for p in ch.new_challenge(prompts=ch.WITHOUT_IMU).prompts}
    assert still == set(ch.WITHOUT_IMU)


@pytest.mark.parametrize("steps, ttl", [(0, 30), (6, 30), (2, 0), (2, -1), (2, float("nan")), (2, float("inf"))])
def test_impossible_challenges_are_not_made(steps, ttl):
    with pytest.raises(ch.ChallengeError):
        ch.new_challenge(steps=steps, ttl=ttl)


# ------------------------------------------------------------------------------------------- answers
def test_each_prompt_passes_when_done_and_only_then(person):
    for done, take in person.items():
        for prompt in ch.PROMPTS:
            found = ch.verify(asked(prompt), take.clip, take.track, need_imu=True)
            assert found.passed == (prompt == done), f"{done} for {prompt}: {found.sentence}"
            assert bool(found.reasons) != found.passed


def test_order_matters_with_a_clip_a_prompt(person):
    takes = [person[p] for p in ("sweep", "turn_right")]
    clips, tracks = [x.clip for x in takes], [x.track for x in takes]
    assert ch.verify(asked("sweep", "turn_right"), clips, tracks).passed
    assert not ch.verify(asked("turn_right", "sweep"), clips, tracks).passed
    assert not ch.verify(asked("sweep", "turn_right"), clips[:1] * 3, tracks[:1] * 3).passed


def test_order_matters_within_one_clip(landmarker):
    clip = study.answer(("turn_left", "move_closer"), subject=1)
    found = track(clip, landmarker)
    assert ch.verify(asked("turn_left", "move_closer"), clip, found, need_imu=True).passed
    wrong = ch.verify(asked("move_closer", "turn_left"), clip, found)
    assert not wrong.passed and "another order" in wrong.sentence
    more = ch.verify(asked("turn_left"), clip, found)
    assert not more.passed and "not asked for: move closer" in more.sentence


def test_a_late_answer_is_refused(person):
    take = person["turn_left"]
    assert ch.verify(asked("turn_left"), take.clip, take.track, now=29.0).passed
    assert "30 s" in ch.verify(asked("turn_left"), take.clip, take.track, now=31.0).sentence
    assert not ch.verify(asked("turn_left"), take.clip, take.track, now=-1.0).passed


def test_a_print_turned_waved_and_swept_around_is_refused(sheet):
    for prompt, take in sheet.items():
        assert not ch.verify(asked(prompt), take.clip, take.track).passed, prompt


@pytest.mark.parametrize("prompt", ["sweep", "move_closer"])
def test_true_pixels_with_the_motion_of_another_phone_are_refused(person, prompt):
    take, other = person[prompt], person["turn_left"]
    foreign = replace(take.clip, imu=other.clip.imu)
    assert not ch.verify(asked(prompt), foreign, take.track).passed


def test_leaving_out_the_sensors_is_refused_where_they_are_needed(person):
    for prompt in ("sweep", "move_closer"):
        bare = replace(person[prompt].clip, imu=None)
        found = ch.verify(asked(prompt), bare, person[prompt].track, need_imu=True)
        assert not found.passed and "motion data" in found.sentence


def test_a_frozen_head_in_front_of_a_moving_phone_did_not_turn(person):
    take = person["sweep"]
    signals = ch.measure(take.clip, take.track)
    assert np.nanmax(np.abs(signals.turn)) < ch.Limits().turn / 2
    assert np.nanmax(np.abs(signals.orbit.ray[:, 1])) > ch.Limits().orbit


# ------------------------------------------------------------------------------------------- damage
def damaged(take: study.Take) -> dict[str, tuple]:
    clip, seen = take.clip, take.track
    none = make_track(clip.t, [None] * len(clip.t), [0] * len(clip.t))
    gap = clip.t + np.where(np.arange(len(clip.t)) > 30, 1.0, 0.0)
    return {
        "no clip": ([], []),
        "no frames": (replace(clip, frames=clip.frames[:0], t=clip.t[:0]), seen),
        "times that stand": (replace(clip, t=np.zeros_like(clip.t)), seen),
        "times that are none": (replace(clip, t=np.full_like(clip.t, np.nan)), seen),
        "a pause": (replace(clip, t=gap), replace(seen, t=gap)),
        "backwards": (replace(clip, t=clip.t[::-1].copy()), seen),
        "half the frames": (replace(clip, frames=clip.frames[::2]), seen),
        "no face": (clip, none),
        "two faces": (clip, replace(seen, n_faces=np.full(len(clip.t), 2, np.int8))),
        "no clip at all": ("clip", None),
        "a track of another clip": (clip, replace(seen, t=seen.t[:40], points=seen.points[:40])),
        "too short": (replace(clip, frames=clip.frames[:20], t=clip.t[:20]), make_track(clip.t[:20], [None] * 20, [0] * 20)),
    }  # fmt: skip


@pytest.mark.parametrize("prompt", ch.PROMPTS)
def test_damaged_answers_fail_closed(person, prompt):
    for name, (response, seen) in damaged(person[prompt]).items():
        found = ch.verify(asked(prompt), response, seen)
        assert not found.passed and found.reasons, name
        assert found.to_dict()["passed"] is False


def test_unknown_prompts_fail_closed(person):
    take = person["turn_left"]
    for prompts in ((), ("wink",), ("turn_left", "wink")):
        assert not ch.verify(asked(*prompts), take.clip, take.track).passed


def test_reversed_in_time_is_another_answer(person):
    """A recording played backwards moves away instead of closer."""
    take = person["move_closer"]
    order = np.arange(len(take.clip.t))[::-1]
    t = take.clip.t[-1] - take.clip.t[order]
    clip = Clip("back", take.clip.frames[order], t, None, take.clip.intrinsics, take.clip.camera_facing)
    seen = replace(
        take.track, t=t, points=take.track.points[order], T_camera_head=take.track.T_camera_head[order],
        blendshapes=take.track.blendshapes[order], box=take.track.box[order],
    )  # fmt: skip
    assert not ch.verify(asked("move_closer"), clip, seen).passed


def test_outcomes_count_every_sequence(person):
    table = study.outcomes(list(person.values()), steps=2)
    assert len(table) == 20 * 20 and table["right"].sum() == 20
    assert table[table["right"]]["passed"].all()
    assert not table[~table["right"]]["passed"].any()


def test_the_solution_in_notebook_08_does_what_it_says(person):
    book = nbformat.read(config.repo_root() / "notebooks" / "08_live_demo.ipynb", as_version=4)
    text = next(c.source for c in book.cells if c.cell_type == "markdown" and "<details>" in c.source)
    code = next(b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "def taken_for" in b)
    names = {"challenge": ch, "replace": replace}
    exec(code.split("\n\nswept =")[0], names)
    swept = person["sweep"]
    assert names["taken_for"](swept, swept.clip.imu).startswith("challenge failed: not asked for: sweep")
    assert names["taken_for"](swept, None).startswith("challenge failed: not asked for: sweep")  # the room tells it
    assert "sweep" in ch.PROMPTS and "sweep" not in ch.WITHOUT_IMU
