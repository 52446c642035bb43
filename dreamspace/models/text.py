"""Text encoders that are trained: what they make of a prompt then changes from step to step."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from torch import nn

from dreamspace.config import RunConfig
from dreamspace.models.base import BaseModel
from dreamspace.models.family import Conditioning, Family, stack_conditioning
from dreamspace.models.token import LearnedToken


class TextEncoders:
    """Text encoders in memory, which encode prompts as they are now.

    Args:
        pipeline: the stock pipeline with the text parts, and possibly others.
        adapted: those of its encoders that get a LoRA, by their part.
        token: that they learn.
    """

    def __init__(
        self,
        family: Family,
        pipeline: Any,
        adapted: Mapping[str, nn.Module] = MappingProxyType({}),
        token: LearnedToken | None = None,
    ) -> None:
        self.family, self.pipeline, self.adapted, self.token = family, pipeline, adapted, token

    def encode(self, prompts: list[str]) -> Conditioning:
        """Batched conditioning of prompts, each encoded once, with gradients for what is trained."""
        different = list(dict.fromkeys(prompts))
        rows = self.family.encode_prompts(self.pipeline, different)
        by_prompt = dict(zip(different, rows, strict=True))
        return stack_conditioning([by_prompt[prompt] for prompt in prompts])

    @torch.no_grad()
    def rows(self, prompts: Iterable[str]) -> dict[str, Conditioning]:
        """Conditioning of each prompt by itself, on the CPU."""
        different = list(dict.fromkeys(prompts))
        encoded = self.family.encode_prompts(self.pipeline, different)
        rows = [{name: tensor.cpu().clone() for name, tensor in row.items()} for row in encoded]
        return dict(zip(different, rows, strict=True))


def told(
    prompts: Iterable[str], cached: Mapping[str, Conditioning], text: TextEncoders | None
) -> dict[str, Conditioning]:
    """What each prompt becomes by now.

    Args:
        cached: as the base model knows the prompts.
        text: encoders that are trained, which say them anew.
    """
    different = list(dict.fromkeys(prompts))
    anew = {} if text is None else text.rows(different)
    return {prompt: cached[prompt] | anew.get(prompt, {}) for prompt in different}


def check_text(config: RunConfig, model: BaseModel) -> None:
    """Whether stock pipelines can load what is to be trained of a model's text encoders.

    Raises:
        ValueError: if they cannot.
    """
    if config.train_text_encoder and not model.clip_parts:
        raise ValueError(
            f"No program loads a LoRA into the text encoders of family '{model.family.name}'. Set "
            "train_text_encoder to false."
        )
    if config.num_token_vectors and not issubclass(model.family.pipeline_class, TextualInversionLoaderMixin):
        raise ValueError(
            f"No program loads a learned token into the text encoders of family '{model.family.name}'. Set "
            "num_token_vectors to 0 and choose a token that they know."
        )


def trained_text(config: RunConfig, model: BaseModel) -> TextEncoders | None:
    """The text encoders of a run that trains something of them, the learned token in place; else None."""
    if not config.train_text_encoder and not config.num_token_vectors:
        return None
    pipeline = model.load_text_encoders()
    parts = model.clip_parts if config.train_text_encoder else []
    adapted = {part: pipeline.components[part] for part in parts}
    token = LearnedToken(pipeline, config) if config.num_token_vectors else None
    return TextEncoders(model.family, pipeline, adapted, token)
