"""What a challenge makes of a verdict: an active answer decides what passive evidence left open, on page and widget.

A verdict and the result of an answer come in, a verdict on the same face goes out. Only *not sure* can be raised.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from liveness_utils.challenge import ChallengeResult
from liveness_utils.runtime import Verdict, no_decision

DECIDED = "the challenge decided what passive evidence left open"
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


def decided(found: Verdict, answer: ChallengeResult) -> Verdict:
    """A passive verdict in the light of an answer.

    Args:
        found: of the face that answered. answer: passed or not.

    Returns:
        *not sure* becomes bona fide where the challenge was passed; whatever was not an attack is no decision where it
        was not; the rest is as it was, with the answer's reasons.
    """
    if not answer.passed:
        decision = "no_decision" if found.decision in ("bona_fide", "not_sure") else found.decision
        return replace(found, decision=decision, reasons=(*found.reasons, answer.sentence))
    if found.decision != "not_sure":
        return found
    held = {f.name: getattr(found, f.name) for f in fields(found)}
    return ByChallenge(**{**held, "decision": "bona_fide", "reasons": (*found.reasons, DECIDED)})


@dataclass(frozen=True)
class Settled:
    """What holds for one face after its answer, for as long as it stays.

    Attributes:
        presentation: number of the face. answer: passed or not.
    """

    presentation: int
    answer: ChallengeResult

    def apply(self, found: Verdict) -> Verdict:
        """See `decided`."""
        return decided(found, self.answer)


def settle(before: Verdict | None, asked: int, now: int, answer: ChallengeResult) -> tuple[Verdict, Settled | None]:
    """Decide after an answer to a stream.

    Args:
        before: last passive verdict on the face that was asked, or None.
        asked: number of that face. now: of the face that is there when the answer is checked. answer: its result.

    Returns:
        the verdict to show, and what holds for the verdicts that follow, if anything does.
    """
    if not answer.passed:
        return (before and decided(before, answer)) or no_decision(answer.sentence), Settled(now, answer)
    if asked != now:
        return no_decision(ANOTHER), None
    if before is None:
        return no_decision(UNKNOWN), None
    return decided(before, answer), Settled(now, answer)
