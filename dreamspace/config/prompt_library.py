"""Libraries of validation prompts: ours, or a user's file."""

from collections.abc import Mapping
from pathlib import Path

from dreamspace.config.parsing import shown
from dreamspace.config.validation import ValidationSettings
from dreamspace.files import read_json

LIBRARIES = ("living", "object")
"""Those that come with Dreamspace: for a person or an animal, and for a thing."""

SUBJECT = "{subject}"
"""Stands for the words that call the subject, such as "sks dog"."""

_FOLDER = Path(__file__).with_name("prompts")


def library_prompts(library: str, token: str | None, class_word: str | None) -> dict[str, str]:
    """The prompts of a library by their short names, with the subject's words in place.

    Args:
        library: a name of `LIBRARIES`, or the path of a JSON file.

    Raises:
        ValueError: if there is no such library, it holds something else, or a prompt asks for the subject's
            words and there are none.
    """
    prompts = read_library(library)
    subject = subject_words(token, class_word)
    if not subject and any(SUBJECT in prompt for prompt in prompts.values()):
        raise ValueError(
            f"The prompts of validation_prompt_library '{library}' name the subject by its token and class "
            "word, and there are none. Set token or class_word, or name another library."
        )
    return {name: prompt.replace(SUBJECT, subject) for name, prompt in prompts.items()}


def subject_words(token: str | None, class_word: str | None) -> str:
    """The words that call the subject, such as "sks dog"; either may be missing."""
    return " ".join(filter(None, (token, class_word)))


def num_library_prompts(config: ValidationSettings) -> int:
    """How many prompts a configuration's library has; 0 without one that can be read."""
    try:
        return len(read_library(config.validation_prompt_library)) if config.validation_prompt_library else 0
    except ValueError:
        return 0  # Training says so; an estimate goes without.


def read_library(library: str) -> dict[str, str]:
    """The prompts of a library by their short names, as they are written; see `library_prompts`."""
    if library in LIBRARIES:
        return read_json(_FOLDER / f"{library}.json")
    path = Path(library)
    if not path.is_file():
        raise ValueError(
            f"There is no validation_prompt_library '{library}'. Set it to 'living' or 'object', or to "
            "the path of a JSON file of names and prompts."
        )
    prompts = read_json(path)
    if not isinstance(prompts, Mapping) or not prompts:
        raise ValueError(f'{path} must hold prompts by name, such as {{"beach": "a dog at a beach"}}.')
    for name, prompt in prompts.items():
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(
                f"{path}: the prompt '{name}' must be a text that is not empty, got {shown(prompt)}."
            )
    return {name: prompt.strip() for name, prompt in prompts.items()}
