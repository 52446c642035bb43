"""What images score, as numbers that both sides of the process border read."""

from dataclasses import asdict, dataclass, field
from typing import Any

from dreamspace.data.evaluation_photos import Evidence
from dreamspace.evaluation.plan import LeakKind


@dataclass(frozen=True)
class LeakFigures:
    """What a prompt that should not show the subject drew: its likeness to it, and its drift."""

    likeness: float
    drift: float


@dataclass(frozen=True)
class Figures:
    """What the images of one checkpoint score; cosines, but for `contrast`.

    Attributes:
        clip_by_prompt: the CLIP score of each prompt, over its seeds.
        clip_mismatched: the same with the prompts of other images.
        clip_i, dino: likeness to the photos that the run is judged by; dino is None without a DINOv2.
        nearest_photo: likeness to the nearest photo that was trained on.
        spread: see `scores.spread`.
        leaks: by kind.
    """

    clip_mean: float
    clip_min: float
    clip_max: float
    clip_by_prompt: dict[str, float]
    clip_mismatched: float
    clip_i: float
    dino: float | None
    nearest_photo: float
    spread: float
    contrast: float
    leaks: dict[LeakKind, LeakFigures] = field(default_factory=dict)

    @property
    def resemblance(self) -> float:
        """DINO where there is one, which sees individuals, else CLIP-I."""
        return self.clip_i if self.dino is None else self.dino

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Figures":
        leaks = {kind: LeakFigures(**found) for kind, found in values["leaks"].items()}
        return cls(**values | {"leaks": leaks})


@dataclass(frozen=True)
class PhotoFigures:
    """What photos of the subject themselves score, which is what images can come to.

    Attributes:
        resemblance: of trained photos to those that the run is judged by.
        nearest_photo: of the latter to the nearest trained one; a picture that is nearer is a copy.
        contrast: of all.
    """

    resemblance: float
    nearest_photo: float
    contrast: float
    evidence: Evidence
