"""Prompt libraries: ours, a user's file, and what is wrong with one."""

from pathlib import Path

import pytest

from dreamspace.config.prompt_library import LIBRARIES, SUBJECT, library_prompts
from dreamspace.files import write_json


@pytest.mark.parametrize("library", LIBRARIES)
def test_ours_name_the_subject_in_each_prompt(library: str) -> None:
    prompts = library_prompts(library, "sks", "dog")
    assert len(prompts) == len(set(prompts.values())) == 8
    assert all("a sks dog" in prompt and SUBJECT not in prompt for prompt in prompts.values())
    assert all(name.isidentifier() for name in prompts)
    assert all("a mug" in prompt for prompt in library_prompts(library, None, "mug").values())


def test_a_file_may_name_the_subject_or_not(tmp_path: Path) -> None:
    write_json(tmp_path / "own.json", {"beach": "a {subject} at a beach", "plain": " a mountain "})
    assert library_prompts(str(tmp_path / "own.json"), "sks", None) == {
        "beach": "a sks at a beach",
        "plain": "a mountain",
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r"There is no validation_prompt_library '.*own\.json'\. Set it to 'living' or 'object'"),
        ([], "must hold prompts by name"),
        ({"beach": ""}, r"the prompt 'beach' must be a text that is not empty, got \"\""),
        ({"beach": {"prompt": "x"}}, "the prompt 'beach' must be a text"),
    ],
)
def test_what_is_no_library_is_refused(tmp_path: Path, content: object, reason: str) -> None:
    if content is not None:
        write_json(tmp_path / "own.json", content)
    with pytest.raises(ValueError, match=reason):
        library_prompts(str(tmp_path / "own.json"), "sks", "dog")


def test_without_words_for_the_subject_ours_are_refused() -> None:
    with pytest.raises(ValueError, match="'living' name the subject by its token and class word"):
        library_prompts("living", None, None)
