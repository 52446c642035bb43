"""Which strings are words, names, brands or slang already, and which are easy to type. Free of torch."""

import re
from functools import cache

from dreamspace.mini.words import common_english

NUM_COMMON_MERGES = 30_000
"""Of CLIP's merges, which stand in the order of their frequency in the captions of 400 M pictures."""

FUNCTION_WORDS = frozenset(
    ("a", "an", "the", "of", "in", "on", "at", "to", "by", "with", "and", "or", "photo", "picture", "image")
)
"""Words of a prompt that say little about what it shows."""

_MAX_CONSONANTS = 2


@cache
def known_strings() -> frozenset[str]:
    """Words, names, brands and slang in small letters, from two lists that are installed anyway or small.

    zxcvbn's frequency lists hold words of Wikipedia and of television, first names and surnames of the US,
    and common passwords, but few short strings; the whole words among CLIP's first merges, which come with
    open_clip, add these, brands, and what is said on the web.
    """
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    listed = {word for words in FREQUENCY_LISTS.values() for word in words}
    return frozenset(listed.union(common_english(NUM_COMMON_MERGES)))


def is_known_string(word: str) -> bool:
    """Whether a string is a word, name, brand or slang that people write already."""
    return word.lower() in known_strings()


def is_typeable(word: str) -> bool:
    """Whether a string is easy to type: three or four small letters, or five that can be pronounced."""
    if not re.fullmatch("[a-z]{3,5}", word):
        return False
    can_be_said = bool(re.search("[aeiouy]", word)) and not re.search(
        f"[^aeiouy]{{{_MAX_CONSONANTS + 1},}}", word
    )
    return len(word) < 5 or can_be_said
