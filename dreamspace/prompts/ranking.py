"""Rare tokens in the order in which they should be tried, each with its reason."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from dreamspace.prompts.candidates import Spelling
from dreamspace.prompts.evidence import Evidence
from dreamspace.prompts.likeness import Look


@dataclass(frozen=True)
class Candidate:
    """A word with all that is known of it.

    Attributes:
        evidence: by text encoder; empty where the word is several pieces.
        self_similarity: by text encoder: the cosine of its output with and without the word.
        look: what the base model's pictures of it have beyond those of the class; None where none were drawn.
        is_checked: whether it was asked for by name.
    """

    spelling: Spelling
    evidence: dict[str, Evidence]
    self_similarity: dict[str, float]
    look: Look | None = None
    is_checked: bool = False

    @property
    def word(self) -> str:
        """As it is written in a prompt."""
        return self.spelling.word

    @property
    def is_known(self) -> bool:
        """Whether a text encoder was taught it."""
        return any(found.is_known for found in self.evidence.values())

    @property
    def has_meaning(self) -> bool:
        """Whether it means something to a text encoder, or shows in the base model's pictures."""
        return self.is_known or (self.look is not None and self.look.is_clear)

    def reason(self) -> str:
        """One line on why it stands where it does."""
        several = {part: found for part, found in self.spelling.pieces.items() if len(found) > 1}
        if not self.spelling.is_one:
            part, pieces = next(iter(several.items()))
            return f"{len(pieces)} pieces in {part}: {' '.join(pieces)}"
        listed = "; a word, name, brand or slang" if self.spelling.is_listed else ""
        first = next(iter(self.evidence.values()))
        if self.is_known:
            near = ", ".join(first.neighbours) or "other words"
            return f"taught to the encoder, near {near}{listed}"
        if self.look is not None and self.look.drift.is_clear:
            return f"the model draws something else than the class{listed}"
        if self.look is not None and self.look.agreement.is_clear:
            return f"all its pictures share a look{listed}"
        drawn = "drawn as the class is; " if self.look is not None else ""
        among = "lies among untrained tokens" if first.is_known is False else "lies close to other tokens"
        changes = sum(self.self_similarity.values()) / max(1, len(self.self_similarity))
        return f"{drawn}id {first.id}, {among}, output {changes:.2f} like without it{listed}"


def by_evidence(found: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that no encoder was taught first; then by the mean of their ranks in all evidence.

    A low rank has what lies close to other tokens and to their mean, has a late id, and changes the encoders'
    output little, where that was measured. Ranks have no unit or scale by which one could outweigh another.
    """
    columns: list[list[float]] = []
    for part in found[0].evidence if found else ():
        evidence = [candidate.evidence[part] for candidate in found]
        columns += [
            [entry.apartness for entry in evidence],
            [entry.mean_distance for entry in evidence],
            [-entry.id for entry in evidence],
        ]
        if all(part in candidate.self_similarity for candidate in found):
            columns.append([-candidate.self_similarity[part] for candidate in found])
    ranks = [_ranks(column) for column in columns]
    means = [sum(places) / len(places) for places in zip(*ranks, strict=True)]
    order = sorted(range(len(found)), key=lambda index: (found[index].is_known, means[index]))
    return [found[index] for index in order]


def by_pictures(found: Sequence[Candidate]) -> list[Candidate]:
    """Those that were drawn first, of them those without a meaning, the most like the class before others."""

    def key(entry: tuple[int, Candidate]) -> tuple[bool, bool, float]:
        place, candidate = entry
        look = candidate.look
        return look is None, candidate.has_meaning, place if look is None else look.drift.mean

    return [candidate for _, candidate in sorted(enumerate(found), key=key)]


def _ranks(values: Sequence[float]) -> list[int]:
    """How many of the values are less than each."""
    ordered = sorted(values)
    return [bisect_left(ordered, value) for value in values]
