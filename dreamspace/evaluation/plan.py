"""What every checkpoint draws to be judged: the subject in eight ways, and what should not show it."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dreamspace.config import DatasetConfig, RunConfig, subject_dataset
from dreamspace.config.class_words import is_living
from dreamspace.config.prompt_library import SUBJECT, read_library, subject_words

LeakKind = Literal["class", "other class", "beside", "empty"]
NUM_PROMPTS = 8

_MAX_PHRASE_WORDS = 4
_JOINING = frozenset(
    (
        *("a", "an", "and", "at", "beside", "by", "for", "from", "in", "near"),
        *("of", "on", "over", "the", "to", "under", "with"),
    )
)
"""Words that make more than a name of what comes before and after them."""


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
        class_word: what they mean to a CLIP; None where nothing says it.
        token: that calls the subject also by itself; None where the run does not say.
    """

    prompts: tuple[str, ...]
    leaks: dict[LeakKind, str]
    seeds: tuple[int, ...]
    subject: str
    class_word: str | None
    token: str | None = None

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
        """16 hex digits that tell these images, and what a CLIP should read of them, from others."""
        texts = [self.text_side(prompt) for prompt in self.prompts]
        return hashlib.sha256(repr((self.drawings, texts)).encode()).hexdigest()[:16]

    def shows_subject(self, prompt: str) -> bool:
        """Whether a prompt asks for the subject, by its words or its token alone."""
        return self._names is not None and self._names.search(prompt) is not None

    def text_side(self, prompt: str) -> str:
        """The prompt as a CLIP should read it: a rare token means nothing to it, its class does."""
        if self._names is None:
            return prompt
        class_word = self.class_word or "subject"
        said = self._names.sub(lambda _: class_word, prompt)
        # Beside the token may stand the class itself, as in "a dog sks".
        twice = rf"(?<!\w){re.escape(class_word)}(\s+{re.escape(class_word)})+(?!\w)"
        return re.sub(twice, lambda _: class_word, said, flags=re.IGNORECASE)

    @property
    def _names(self) -> re.Pattern[str] | None:
        """What calls the subject in a prompt, as whole words in any case; the longest comes first."""
        names = [re.escape(name) for name in (self.subject, self.token) if name]
        return re.compile(rf"(?<!\w)({'|'.join(names)})(?!\w)", re.IGNORECASE) if names else None


def evaluation_plan(config: RunConfig, datasets: Sequence[DatasetConfig]) -> EvaluationPlan:
    """The plan of a run; what its words do not say, a caption or its validation prompt does."""
    subject, class_word = subject_words(config.token, config.class_word), config.class_word
    if class_word is None:
        captions = subject_dataset(list(datasets)).instance_prompts
        phrase = _called(captions[0] if captions else config.validation_prompt or "")
        class_word = _class_of(phrase, config.token)
        subject = phrase if class_word or not subject else subject
    prompts = config.evaluation_prompts or _library(class_word)
    first = config.seed if config.validation_seed is None else config.validation_seed
    return EvaluationPlan(
        tuple(dict.fromkeys(prompt.replace(SUBJECT, subject) for prompt in prompts)),
        _leak_prompts(subject, class_word, bool(config.token and config.class_word)),
        tuple(range(first, first + config.num_evaluation_seeds)),
        subject,
        class_word,
        config.token,
    )


def num_drawings(config: RunConfig) -> int:
    """How many images each checkpoint of a run draws to be judged by."""
    num_prompts = len(config.evaluation_prompts) or NUM_PROMPTS
    leaks = _leak_prompts("", config.class_word, bool(config.token and config.class_word))
    return (num_prompts + len(leaks)) * config.num_evaluation_seeds


def _library(class_word: str | None) -> list[str]:
    """Prompts for somebody alive, or for a thing."""
    return list(read_library("living" if is_living(class_word) else "object").values())[:NUM_PROMPTS]


def _called(caption: str) -> str:
    """What a caption calls the subject: without the words that any caption begins with."""
    caption = caption.strip(" .,")
    for beginning in ("a photo of a ", "a photo of an ", "a photo of ", "an ", "a "):
        if caption.startswith(beginning):
            return caption.removeprefix(beginning)
    return caption


def _class_of(phrase: str, token: str | None) -> str | None:
    """The last word of a phrase that does no more than to name the subject, such as "sks dog".

    None where it says more, or a single word may as well be a rare token.
    """
    words = phrase.split()
    if not 0 < len(words) <= _MAX_PHRASE_WORDS or not words[-1].replace("-", "").isalpha():
        return None
    if _JOINING.intersection(word.lower() for word in words) or "," in phrase:
        return None
    is_token = token is not None and words[-1].lower() == token.split()[-1].lower()
    return words[-1] if not is_token and (len(words) > 1 or is_living(words[-1])) else None


def _leak_prompts(subject: str, class_word: str | None, has_both: bool) -> dict[LeakKind, str]:
    """Prompts by what leaks into them.

    Args:
        has_both: whether the run says both token and class word.
    """
    candidates = ("cat", "dog") if class_word is None or is_living(class_word) else ("mug", "backpack")
    other = candidates[class_word == candidates[0]]
    prompts: dict[LeakKind, str] = {"other class": f"a photo of a {other}", "empty": ""}
    if has_both:  # Without a token the class itself is what is learned.
        prompts["class"] = f"a photo of a {class_word}"
        prompts["beside"] = f"a photo of a {subject} beside a {other}"
    return prompts
