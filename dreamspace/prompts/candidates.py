"""Candidates for the word that stands for a subject, by what the tokenizers make of them. Free of torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from dreamspace.prompts.language import is_known_string, is_typeable
from dreamspace.prompts.pieces import PromptTokenizer

MAX_T5_PIECES = 3
"""Of a candidate, where CLIP reads it as one piece and another encoder reads it as well."""


@dataclass(frozen=True)
class Spelling:
    """A word as a model's tokenizers see it.

    Attributes:
        pieces: by tokenizer, those of the word within a prompt.
        is_one: whether it is one piece to each tokenizer that must have it so.
        is_short: and at most `MAX_T5_PIECES` to the others.
        is_listed: whether it is a word, name, brand or slang already.
    """

    word: str
    pieces: dict[str, list[str]]
    is_one: bool
    is_short: bool
    is_listed: bool


def deciding(tokenizers: Sequence[PromptTokenizer]) -> list[PromptTokenizer]:
    """The tokenizers to which a rare token must be one piece: all of CLIP's, or else the first."""
    return [tokenizer for tokenizer in tokenizers if tokenizer.is_clip] or list(tokenizers[:1])


def spelling(word: str, tokenizers: Sequence[PromptTokenizer]) -> Spelling:
    """What the tokenizers make of a word, written as it is given (CLIP's read it in small letters)."""
    pieces = {tokenizer.part: tokenizer.word_pieces(word) for tokenizer in tokenizers}
    must_be_one = [tokenizer.part for tokenizer in deciding(tokenizers)]
    return Spelling(
        word,
        pieces,
        is_one=all(len(pieces[part]) == 1 for part in must_be_one),
        is_short=all(len(found) <= MAX_T5_PIECES for found in pieces.values()),
        is_listed=is_known_string(word),
    )


def candidates(tokenizers: Sequence[PromptTokenizer]) -> list[Spelling]:
    """Strings that are easy to type, one piece where they must be, and no word yet; the latest ids first.

    Raises:
        ValueError: if the tokenizers have none.
    """
    ids = deciding(tokenizers)[0].words
    strings = sorted((word for word in ids if is_typeable(word)), key=lambda word: -ids[word])
    found = [spelling(word, tokenizers) for word in strings if not is_known_string(word)]
    found = [entry for entry in found if entry.is_one and entry.is_short]
    if not found:
        raise ValueError(
            "The tokenizers of this model have no token that is easy to type, one piece and no word. Choose "
            "a word of several pieces, or one that looks like the subject."
        )
    return found
