"""What a challenge makes of the passive verdict: an active answer decides what passive evidence could not.

The verdict before the question and the result of the answer come in; a verdict on the same face goes out, and
stands in for the passive ones for as long as that face stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from liveness_utils.challenge import ChallengeResult
from liveness_utils.runtime import Verdict, no_decision

DECIDED = "the challenge decided what passive evidence left open"
FAILED = "the challenge was not passed; ask for another one"
UNKNOWN = "there was no verdict on this face before the challenge; wait for one and ask again"
ANOTHER = "another face answered than was asked; ask again"


@dataclass(frozen=True)
class ByChallenge(Verdict):
    """A verdict that a challenge decided; its score is the passive one and may lie below the threshold."""

    @property
    def sentence(self) -> str:
        """One line for a person.

        >>> ByChallenge("bona_fide", 0.9, 0.96).sentence
        'bona fide by challenge (passive score 0.90, threshold 0.96)'
        """
        return f"bona fide by challenge (passive score {self.score:.2f}, threshold {self.threshold:.2f})"


@dataclass(frozen=True)
class Settled:
    """What holds for one face after its answer.

    Attributes:
        presentation: number of the face. passed: whether it did what it was asked.
    """

    presentation: int
    passed: bool

    def apply(self, found: Verdict) -> Verdict:
        """A passive verdict on this face, in the light of the answer: only *not sure* can be raised, never *attack*."""
        if found.decision in ("attack", "no_decision"):
            return found
        if not self.passed:
            return no_decision(FAILED, quality=found.quality, cues=found.cues, notes=found.notes)
        if found.decision == "not_sure":
            return ByChallenge(**vars(replace(found, decision="bona_fide", reasons=(DECIDED,))))
        return replace(found, reasons=(*found.reasons, "the challenge was passed, too"))


def settle(before: Verdict | None, asked: int, now: int, found: ChallengeResult) -> tuple[Verdict, Settled | None]:
    """Decide after an answer.

    Args:
        before: last passive verdict on the face that was asked, or None.
        asked: number of that face. now: of the face that is there when the answer is checked. found: of the answer.

    Returns:
        the verdict to show, and what holds for the verdicts that follow, if anything does.
    """
    if not found.passed:
        failed = Settled(now, False)
        attack = before is not None and before.decision == "attack"
        return (before if attack else no_decision(FAILED)), failed
    if asked != now:
        return no_decision(ANOTHER), None
    if before is None:
        return no_decision(UNKNOWN), None
    held = Settled(now, True)
    return held.apply(before), held
