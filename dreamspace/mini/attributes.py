"""What mini's CLIP sees in a picture, attribute by attribute, against what was asked for."""

from collections.abc import Sequence

import torch
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
    for attribute, questions in QUESTIONS.items():
        asked = [[text.format(**vars(scenery)) for text in questions.values()] for scenery in sceneries]
        prompts = sorted({prompt for prompts in asked for prompt in prompts})
        places = {prompt: place for place, prompt in enumerate(prompts)}
        similarity = embeddings @ clip.embed_prompts(prompts).T
        offered = torch.tensor([[places[prompt] for prompt in prompts] for prompts in asked])
        chosen = similarity.gather(1, offered).argmax(dim=1).tolist()
        values = list(questions)
        right = [values[c] == getattr(s, attribute) for c, s in zip(chosen, sceneries, strict=True)]
        shares[attribute] = sum(right) / len(right)
    return shares
