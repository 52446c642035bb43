"""Which name to train under: the subject's own, a look-alike's, or none."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dreamspace.prompts.likeness import Difference, difference
from dreamspace.prompts.names import Name


@dataclass(frozen=True)
class Found:
    """A name with its numbers.

    Attributes:
        clip: mean cosine between the photos and the prompt.
        likeness: (N,), of the base model's pictures of it with the photos; None where none were drawn.
    """

    name: Name
    clip: float
    likeness: Tensor | None = None

    @property
    def mean_likeness(self) -> float | None:
        """Of all its pictures."""
        return None if self.likeness is None else self.likeness.mean().item()

    def over(self, other: "Found") -> Difference:
        """By how much its pictures resemble the photos more than another's; both were drawn."""
        assert self.likeness is not None, self.name
        assert other.likeness is not None, other.name
        return difference(self.likeness, other.likeness)

    def reason(self, of_class: "Found") -> str:
        """One line on what the numbers say."""
        own = "your own name; " if self.name.is_own else ""
        if not self.name.text:
            return "the class word alone"
        if self.likeness is not None and of_class.likeness is not None:
            more = "more" if self.over(of_class).is_clear else "no more"
            return f"{own}its pictures resemble the photos {more} than the class's do"
        return (
            f"{own}nearer than the class alone"
            if self.clip > of_class.clip
            else f"{own}further than the class"
        )


def in_order(found: Sequence[Found]) -> list[Found]:
    """What was drawn first, by the likeness of its pictures; then the rest by CLIP."""

    def key(entry: Found) -> tuple[bool, float]:
        alike = entry.mean_likeness
        return alike is None, -(entry.clip if alike is None else alike)

    return sorted(found, key=key)


def advice(found: Sequence[Found], class_word: str) -> tuple[str | None, str]:
    """The word to train under, None for a rare token, and why in a sentence or two.

    The subject's own name comes first: where the model draws the subject under it already, little is to be
    learned. Where it draws somebody else, the best look-alike that beats the class alone is taken.

    Args:
        found: the class alone among them, with an empty name.
    """
    of_class = next(entry for entry in found if not entry.name.text)
    names = [entry for entry in found if entry.name.text]
    rare = f"Take a rare token and '{class_word}'."
    drawn = [entry for entry in names if entry.likeness is not None]
    if not drawn:
        known = [entry for entry in names if entry.clip > of_class.clip]
        if not known:
            return None, f"No name is nearer to the photos than '{class_word}' alone. {rare}"
        best = max(known, key=lambda entry: entry.clip)
        return best.name.text, (
            f"Nearest to the photos by CLIP: {best.name.text}. What the model draws under it shows more."
        )
    own = next((entry for entry in drawn if entry.name.is_own), None)
    others = [entry for entry in drawn if not entry.name.is_own]
    best = max(others, key=lambda entry: entry.mean_likeness or 0.0, default=None)
    if own is not None and own.over(of_class).is_clear and not (best and best.over(own).is_clear):
        return own.name.text, f"The model draws the subject under its own name already: take {own.name.text}."
    somebody = f"Under {own.name.text} the model draws somebody else. " if own is not None else ""
    if best is not None and best.over(of_class).is_clear:
        gain = best.over(of_class)
        return best.name.text, (
            f"{somebody}Take {best.name.text}: its pictures resemble the photos by {gain.mean:.3f} more than "
            f"those of '{class_word}' alone, so less is to be learned."
        )
    return None, f"{somebody}No name that was drawn comes nearer than '{class_word}' alone. {rare}"
