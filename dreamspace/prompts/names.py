"""Names and looks that a subject may resemble, and the prompts that ask for them. Free of torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from dreamspace.config import class_prompt, instance_prompt
from dreamspace.config.class_words import is_person
from dreamspace.files import read_json, read_text

MAX_NAMES = 2000
_MAX_CHARACTERS = 100
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Name:
    """A name or look.

    Attributes:
        text: what would stand in the captions; empty for the class alone.
        prompt: that asks a model for it.
        is_own: whether it is the subject's own name.
    """

    text: str
    prompt: str
    is_own: bool = False


def prompt_of(name: str, class_word: str) -> str:
    """What asks a model for a person by name, or for a thing by its look."""
    if not name:
        return class_prompt(class_word)
    return f"a photo of {name}" if is_person(class_word) else instance_prompt(name, class_word)


def bundled_names(class_word: str) -> list[str]:
    """The example list for a class: long-dead public figures for people, looks for all else.

    Looks are the breeds, models or kinds of the class where it has some, and materials, colours and patterns.
    """
    if is_person(class_word):
        return read_names(_HERE / "people.txt")
    looks = read_json(_HERE / "looks.json")
    name = class_word.lower()
    own = looks["classes"].get(looks["alike"].get(name, name), [])
    coloured = [f"{colour} {pattern}" for colour, pattern in product(looks["colours"], looks["patterns"])]
    return list(dict.fromkeys([*own, *looks["materials"], *looks["colours"], *looks["patterns"], *coloured]))


def read_names(path: Path) -> list[str]:
    """The names of a file, one a line; each once.

    Raises:
        ValueError: if it cannot be read or is empty, or as `tidy_names`.
    """
    return tidy_names(read_text(path), str(path))


def tidy_names(text: str, source: str) -> list[str]:
    """The names of a text, one a line; each once.

    Args:
        source: where it comes from, for the errors.

    Raises:
        ValueError: if a line is too long for a name, or there are too many.
    """
    lines = [" ".join(line.split()) for line in text.splitlines()]
    names = list(dict.fromkeys(line for line in lines if line))
    for name in names:
        if len(name) > _MAX_CHARACTERS:
            raise ValueError(
                f"A line of {source} has {len(name)} characters, and a name has at most {_MAX_CHARACTERS}. "
                "Write one name a line."
            )
    if len(names) > MAX_NAMES:
        raise ValueError(
            f"There are {len(names)} names in {source}, and the limit is {MAX_NAMES}. Shorten it."
        )
    return names


def names_to_rank(names: Sequence[str], class_word: str, own_name: str | None) -> list[Name]:
    """The names with their prompts, the subject's own first."""
    own = [own_name] if own_name else []
    return [
        Name(name, prompt_of(name, class_word), is_own=name == own_name)
        for name in dict.fromkeys([*own, *names])
    ]
