"""What mini's CLIP sees in a picture, attribute by attribute, against what was asked for."""

from collections.abc import Sequence

from torch import Tensor

from dreamspace.evaluation.clip import Clip
from dreamspace.mini.scenes import SCENES
from dreamspace.mini.world import CLASSES, COLOURS, PATTERNS, Scenery

QUESTIONS: dict[str, dict[str, str]] = {
    "class_word": {word: f"a photo of a {word}" for word in CLASSES},
    "colour": {colour: f"a photo of a {colour} {{class_word}}" for colour in COLOURS},
    "pattern": {name: f"a photo of a {{colour}} {name} {{class_word}}" for name in PATTERNS},
    "scene": {name: f"a photo of a {{class_word}} {words}" for name, (words, _) in SCENES.items()},
}
"""For each attribute its values and the prompt that asks for each; braces take the true attributes."""


def accuracy(clip: Clip, embeddings: Tensor, sceneries: Sequence[Scenery]) -> dict[str, float]:
    """For each attribute, the share of pictures, embedded as (N, D), that the CLIP finds to be as asked."""
    shares = {}
    for attribute, prompts in QUESTIONS.items():
        right = 0
        for embedding, scenery in zip(embeddings, sceneries, strict=True):
            asked = [prompt.format(**scenery.__dict__) for prompt in prompts.values()]
            chosen = list(prompts)[clip.choose(embedding[None], asked)[0]]
            right += chosen == getattr(scenery, attribute)
        shares[attribute] = right / len(sceneries)
    return shares
