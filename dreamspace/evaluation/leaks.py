"""The leak test as people read it: what prompts that should not show the subject gained of it."""

from dataclasses import dataclass
from typing import Any

from dreamspace.evaluation.plan import LeakKind
from dreamspace.evaluation.plots import Outcome, recommended_candidate
from dreamspace.evaluation.verdict import LEAKING, leak_share


@dataclass(frozen=True)
class LeakRow:
    """A prompt of the leak test.

    Attributes:
        what: its images in words, such as "images of the class alone".
        gain: of likeness to the photos, against the base model's images of it; a difference of cosines.
        share: `gain` relative to what the subject's own prompts gained, 0 to 1; None where the prompt asks
            for the subject, so that its likeness is no leak.
        drift: how far the images are from the base model's, a distance of cosines.
    """

    what: str
    prompt: str
    gain: float
    share: float | None
    drift: float


def leak_table(outcome: Outcome) -> list[LeakRow]:
    """The leak test of the checkpoint that an outcome recommends."""
    figures, base = recommended_candidate(outcome)["figures"], outcome["base"]
    gain = _resemblance(figures) - _resemblance(base)

    def row(kind: LeakKind, prompt: str) -> LeakRow:
        leaked = figures["leaks"][kind]["likeness"] - base["leaks"][kind]["likeness"]
        share = leak_share(leaked, gain) if kind in LEAKING else None
        what = LEAKING.get(kind, "images of the subject beside something else")
        return LeakRow(what, prompt, leaked, share, figures["leaks"][kind]["drift"])

    return [row(kind, prompt) for kind, prompt in outcome["leak_prompts"].items()]


def _resemblance(figures: dict[str, Any]) -> float:
    return figures["clip_i"] if figures["dino"] is None else figures["dino"]
