"""What every checkpoint draws to be judged: the subject in eight ways, and what should not show it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dreamspace.config import DatasetConfig, RunConfig, subject_dataset
from dreamspace.config.class_words import is_living
from dreamspace.config.prompt_library import SUBJECT, read_library, subject_words

LeakKind = Literal["class", "other class", "beside", "empty"]
NUM_PROMPTS = 8


class Drawing(NamedTuple):
    """An image to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class EvaluationPlan:
    """The images by which checkpoints are compared; the same for all of them and for the base model.

    Attributes:
        prompts: that ask for the subject.
        leaks: prompts by what leaks into them: the class without the token, another class, the subject
            `beside` something else, nothing at all.
        subject: the words that stand for it in prompts, such as "sks dog".
        class_word: what they mean to a CLIP; None where the run does not say.
    """

    prompts: tuple[str, ...]
    leaks: dict[LeakKind, str]
    seeds: tuple[int, ...]
    subject: str
    class_word: str | None

    @property
    def all_prompts(self) -> list[str]:
        """Every prompt once."""
        return list(dict.fromkeys([*self.prompts, *self.leaks.values()]))

    @property
    def drawings(self) -> list[Drawing]:
        """Every image, prompt by prompt."""
        return [Drawing(prompt, seed) for prompt in self.all_prompts for seed in self.seeds]

    @property
    def digest(self) -> str:
        """16 hex digits that tell these images from others."""
        return hashlib.sha256(repr(self.drawings).encode()).hexdigest()[:16]

    def text_side(self, prompt: str) -> str:
        """The prompt as a CLIP should read it: a rare token means nothing to it, its class does."""
        return prompt.replace(self.subject, self.class_word or "subject")


def evaluation_plan(config: RunConfig, datasets: Sequence[DatasetConfig]) -> EvaluationPlan:
    """The plan of a run; where no words and no caption say it, its validation prompt calls the subject."""
    subject = subject_words(config.token, config.class_word)
    if not subject:
        captions = subject_dataset(list(datasets)).instance_prompts
        subject = _called(captions[0] if captions else config.validation_prompt or "")
    prompts = config.evaluation_prompts or _library(config.class_word)
    first = config.seed if config.validation_seed is None else config.validation_seed
    return EvaluationPlan(
        tuple(dict.fromkeys(prompt.replace(SUBJECT, subject) for prompt in prompts)),
        _leak_prompts(subject, config),
        tuple(range(first, first + config.num_evaluation_seeds)),
        subject,
        config.class_word,
    )


def num_drawings(config: RunConfig) -> int:
    """How many images each checkpoint of a run draws to be judged by."""
    num_prompts = len(config.evaluation_prompts) or NUM_PROMPTS
    return (num_prompts + len(_leak_prompts("", config))) * config.num_evaluation_seeds


def _library(class_word: str | None) -> list[str]:
    """Prompts for somebody alive, or for a thing."""
    return list(read_library("living" if is_living(class_word) else "object").values())[:NUM_PROMPTS]


def _called(caption: str) -> str:
    """What a caption calls the subject: without the words that any caption begins with."""
    for beginning in ("a photo of a ", "a photo of an ", "a photo of ", "an ", "a "):
        if caption.startswith(beginning):
            return caption.removeprefix(beginning)
    return caption


def _leak_prompts(subject: str, config: RunConfig) -> dict[LeakKind, str]:
    class_word = config.class_word
    candidates = ("cat", "dog") if class_word is None or is_living(class_word) else ("mug", "backpack")
    other = candidates[class_word == candidates[0]]
    prompts: dict[LeakKind, str] = {"other class": f"a photo of a {other}", "empty": ""}
    if config.token and class_word:  # Without a token the class itself is what is learned.
        prompts["class"] = f"a photo of a {class_word}"
        prompts["beside"] = f"a photo of a {subject} beside a {other}"
    return prompts
