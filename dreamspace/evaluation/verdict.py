"""Which checkpoint to take, why, what is wrong with the others, and what to try next; the loss plays no part.

Of two things a checkpoint should have much: likeness to photos that the run never learned from, and
obedience to prompts. Both are measured from the base model (0) to what can be had (1), so that they can be
compared; likeness counts less where it leaks into other prompts or copies photos. Of the checkpoints that no
other beats in both, the one with the largest product is recommended.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dreamspace.evaluation.figures import Figures, PhotoFigures
from dreamspace.evaluation.plan import LeakKind

PENALTY = 0.5
"""What a full leak, or a full copy, takes off a checkpoint's score."""

SAME_SCORE = 0.01
"""Scores that differ less are alike; then the earlier checkpoint is taken, which has forgotten less."""

_SMALLEST_GAP = 0.02
"""Of cosines: a smaller distance between base model and photos says nothing."""

LEAKS, COPIES, BURNT, UNDERFIT, DISOBEYS = 0.3, 0.3, 1.25, 0.35, 0.7
"""From where on a share of leak or copying, or a contrast relative to the photos', is warned of; and the
likeness and adherence below which a checkpoint has learned or obeys too little."""

LEAKING: dict[LeakKind, str] = {
    "class": "images of the class alone",
    "other class": "images of another class",
    "empty": "images without a prompt",
}
"""Prompts into which the subject leaks if it shows, and what their images are called. One that asks for the
subject beside something else is none of them."""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint, or an adapter that belongs to no run.

    Attributes:
        step: None for an adapter alone.
    """

    step: int | None
    weights: Literal["base", "trained", "ema"]

    @property
    def name(self) -> str:
        """As sentences call it: "step 400", "step 400 (moving average)"."""
        if self.weights == "base":
            return "the base model"
        called = "the adapter" if self.step is None else f"step {self.step}"
        return f"{called} (moving average)" if self.weights == "ema" else called

    @property
    def folder_name(self) -> str:
        """As files call it: "step-000400", "step-000400-ema"."""
        if self.weights == "base":
            return "base"
        called = "adapter" if self.step is None else f"step-{self.step:06d}"
        return f"{called}-ema" if self.weights == "ema" else called


@dataclass(frozen=True)
class Standing:
    """How a checkpoint stands.

    Attributes:
        fidelity: its likeness to the photos, from the base model's (0) to the photos' among themselves (1).
        adherence: how well it follows prompts, from not at all (0) to as well as the base model (1).
        leak: how much of the likeness that the subject's prompts gained its class alone gained too, 0 to 1.
        copying: how much nearer its images are to photos it was trained on than other photos of the subject
            are, from 0 to 1, where they are these photos.
        contrast: relative to the photos' or the base model's, whichever is higher.
        leaks: the same as `leak` for each kind of prompt that was drawn; `leak` is what counts.
        is_on_front: whether no other is better in both adherence and what its likeness counts.
    """

    candidate: Candidate
    fidelity: float
    adherence: float
    leak: float
    copying: float
    contrast: float
    leaks: dict[LeakKind, float] = field(default_factory=dict)
    is_on_front: bool = False

    @property
    def worth(self) -> float:
        """What its likeness counts, less what is leaked or copied."""
        return self.fidelity * (1 - PENALTY * self.leak) * (1 - PENALTY * self.copying)

    @property
    def score(self) -> float:
        """By which checkpoints are compared."""
        return self.worth * self.adherence


@dataclass(frozen=True)
class Traits:
    """What a run already does, so that it is not advised to do it."""

    has_prior: bool = False
    has_captions: bool = False
    has_rollout: bool = False
    has_masks: bool = False


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    Attributes:
        best: what is recommended.
        reason: in two sentences.
        warnings: what is wrong, with it or with others.
        next_steps: what to try.
        standings: of all candidates, in the order in which they were given.
    """

    best: Standing
    reason: str
    warnings: list[str]
    next_steps: list[str]
    standings: list[Standing]


def standing(candidate: Candidate, figures: Figures, base: Figures, photos: PhotoFigures) -> Standing:
    """How a candidate stands, by what its images, the base model's and the photos score."""
    gap = max(photos.resemblance - base.resemblance, _SMALLEST_GAP)
    gain = figures.resemblance - base.resemblance
    obeyed = max(base.clip_mean - base.clip_mismatched, _SMALLEST_GAP)
    fidelity = _share(gain / gap)
    adherence = _share((figures.clip_mean - figures.clip_mismatched) / obeyed)
    # The class word is what a leak harms; without a token it is the subject's own, and others tell.
    kinds = ["class"] if "class" in figures.leaks else ["other class", "empty"]
    leaks = {
        kind: leak_share(figures.leaks[kind].likeness - base.leaks[kind].likeness, gain)
        for kind in LEAKING
        if kind in figures.leaks
    }
    leak = max(leaks[kind] for kind in kinds)
    room = max(1 - photos.nearest_photo, _SMALLEST_GAP)
    copying = _share((figures.nearest_photo - photos.nearest_photo) / room)
    return Standing(
        candidate,
        fidelity,
        adherence,
        leak,
        copying,
        figures.contrast / max(base.contrast, photos.contrast, 1e-6),
        leaks,
    )


def leak_share(leaked: float, gain: float) -> float:
    """How much of the likeness that the subject's prompts gained other images gained too, 0 to 1."""
    return _share(leaked / max(gain, _SMALLEST_GAP))


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def decide(standings: Sequence[Standing], traits: Traits, photos: PhotoFigures) -> Verdict:
    """The verdict over all candidates, of which there is at least one.

    Args:
        standings: in the order of the training.
    """
    marked = [replace(each, is_on_front=not _is_beaten(each, standings)) for each in standings]
    highest = max(each.score for each in marked)
    best = next(each for each in marked if each.score >= highest - SAME_SCORE)
    warnings, next_steps = _advice(best, marked, traits)
    if photos.evidence == "weak":
        warnings.append(
            "Weak evidence: there are no held-out photos, so likeness was measured on photos that the model "
            "learned from."
        )
    return Verdict(best, _reason(best, marked), warnings, next_steps, marked)


def _is_beaten(each: Standing, others: Sequence[Standing]) -> bool:
    own = (each.worth, each.adherence)
    return any(
        other.worth >= own[0] and other.adherence >= own[1] and (other.worth, other.adherence) != own
        for other in others
    )


def _reason(best: Standing, standings: Sequence[Standing]) -> str:
    """Two sentences: what speaks for it, and what becomes of those after it."""
    name = best.candidate.name
    first = (
        f"{name[0].upper()}{name[1:]} went {best.fidelity:.0%} of the way from the base model to the photos, "
        f"and does {best.adherence:.0%} of what prompts ask that the base model does."
    )
    if len(standings) == 1:
        return f"{first} It is the only one."
    of_its_kind = [each for each in standings if each.candidate.weights == best.candidate.weights]
    later = of_its_kind[of_its_kind.index(best) + 1 :]
    if not later:
        before = of_its_kind[-2] if len(of_its_kind) > 1 else best
        if best.fidelity > before.fidelity + 0.05:
            return f"{first} It is the last, and was still getting more like the photos."
        return f"{first} No earlier checkpoint has more of both."
    return f"{first} {_what_follows(best, later[-1])}"


def _what_follows(best: Standing, last: Standing) -> str:
    """What a later checkpoint has lost, in a sentence."""
    losses = {
        "images come nearer to photos it was trained on than other photos of the subject are: copying": (
            last.copying - best.copying
        ),
        "prompts are followed less and less: overfitting": best.adherence - last.adherence,
        "the subject shows in images that did not ask for it: leaking": last.leak - best.leak,
        "images resemble the photos less again": best.fidelity - last.fidelity,
    }
    what, loss = max(losses.items(), key=lambda item: item[1])
    if loss < 0.03:
        return "After it hardly anything changes, so more training brings nothing."
    return f"After it {what}."


def _advice(best: Standing, standings: Sequence[Standing], traits: Traits) -> tuple[list[str], list[str]]:
    """Warnings, and what to try next."""
    warnings, steps = [], []
    later = [each for each in standings if (each.candidate.step or 0) > (best.candidate.step or 0)]
    overfit = [each for each in later if each.copying > COPIES or each.adherence < best.adherence - 0.1]
    if overfit:
        warnings.append(f"Overfit from {overfit[0].candidate.name} on: take an earlier checkpoint.")
        steps.append(f"Train fewer steps: about {best.candidate.step} were enough.")
    if best.fidelity < UNDERFIT:
        warnings.append("Underfit: even the best checkpoint is closer to the base model than to the photos.")
        if not later:
            steps.append("Train longer, or at a higher learning_rate or lora_rank.")
    leaks = {kind: share for kind, share in best.leaks.items() if share > LEAKS}
    warnings += [
        f"Leak: {LEAKING[kind]}, too, gained {share:.0%} of the likeness." for kind, share in leaks.items()
    ]
    if best.leak > LEAKS or (leaks and not traits.has_prior):
        steps.append(
            "Write richer captions for the class images, and have more of them: the class is forgotten."
            if traits.has_prior
            else "Train with a prior, such as class images towards the base model's own prediction."
        )
    if best.copying > COPIES:
        warnings.append("Copying: its images are nearer to photos it was trained on than other photos are.")
        if not traits.has_rollout:
            steps.append("Turn rollout on: few photos are learned by heart otherwise.")
        if not traits.has_masks:
            steps.append("Mask the subject, so that the photos' surroundings are not learned along.")
    if best.adherence < DISOBEYS:
        warnings.append("It follows prompts much less than the base model does.")
        if not traits.has_captions:
            steps.append("Caption each photo: the subject is learned together with what surrounds it.")
    burnt = [each for each in standings if each.contrast > BURNT]
    if burnt:
        warnings.append(f"Burnt contrast from {burnt[0].candidate.name} on: colours are too strong.")
        steps.append("Lower learning_rate.")
    return warnings, list(dict.fromkeys(steps))
