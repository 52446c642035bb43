"""A new word of the text encoders, alone or beside an adapter."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamspace.config import RunConfig
from dreamspace.models.parameters import Adapter, ParameterGroup
from dreamspace.run_folder import EMBEDS_NAME

ENCODER_KEYS = {"CLIPTextModel": "clip_l", "CLIPTextModelWithProjection": "clip_g", "T5EncoderModel": "t5"}
"""By an encoder's class: what its vectors are called in the file of a model with several."""


class LearnedToken:
    """Vectors in place of a token's embedding in each text encoder (textual inversion, arXiv:2208.01618).

    The token and its further vectors `<sks>_1`, `<sks>_2` ... are words of the tokenizers, as stock pipelines
    load them, which replace the first by all of them in a prompt.

    Args:
        pipeline: with the text parts; they know the token from then on.
    """

    def __init__(self, pipeline: Any, config: RunConfig) -> None:
        self.token = config.token
        word = config.token_initializer or config.class_word
        self._parameters: dict[str, nn.Parameter] = {}
        for key, encoder, tokenizer in _encoders(pipeline):
            ids = tokenizer(word, add_special_tokens=False).input_ids
            known = encoder.get_input_embeddings().weight[ids].float().mean(dim=0)
            vectors = known.detach().repeat(config.num_token_vectors, 1)
            _add(pipeline, encoder, tokenizer, self.token, vectors)
            encoder.requires_grad_(False)
            self._parameters[key] = nn.Parameter(vectors)
            _replace_embedding(encoder, tokenizer.convert_tokens_to_ids(self.token), self._parameters[key])
        factor = 10.0 if config.token_lr is None else config.token_lr / config.learning_rate
        self.group = ParameterGroup("token", list(self._parameters.values()), factor)

    def save(self, folder: Path) -> None:
        """Write `learned_embeds.safetensors`: {token: vectors}, or by encoder where there are several."""
        vectors = {key: parameter.detach().cpu().contiguous() for key, parameter in self._parameters.items()}
        if len(vectors) == 1:
            vectors = {self.token: next(iter(vectors.values()))}
        save_file(vectors, folder / EMBEDS_NAME, {"format": "pt", "token": self.token})

    def load(self, file: Path) -> None:
        """Restore what `save` wrote, bit-exactly.

        Raises:
            ValueError: if it is of another token, or another number of vectors.
        """
        token, stored = read_token(file)
        own = self._parameters
        if token != self.token or [v.shape for v in stored.values()] != [p.shape for p in own.values()]:
            raise ValueError(
                f"The token in {file.parent.name} is '{token}', of other vectors than this run's "
                f"'{self.token}' or of another model. Set token and num_token_vectors to the file's own."
            )
        with torch.no_grad():
            for parameter, vectors in zip(own.values(), stored.values(), strict=True):
                parameter.copy_(vectors)


def read_token(file: Path) -> tuple[str, dict[str, Tensor]]:
    """A token's name and its vectors, of one encoder or by the keys of several."""
    vectors = load_file(file)
    with safe_open(file, framework="pt") as opened:
        token = (opened.metadata() or {}).get("token", next(iter(vectors)))
    return token, dict(sorted(vectors.items()))


def load_token(pipeline: Any, file: Path) -> None:
    """Have a stock pipeline's text encoders know the token of a file.

    Raises:
        ValueError: if it was learned for other encoders.
    """
    token, stored = read_token(file)
    encoders = list(_encoders(pipeline))
    for key, encoder, tokenizer in encoders:
        vectors = stored[token] if len(encoders) == 1 else stored.get(key)
        if vectors is None:
            raise ValueError(f"The token in {file} has no vectors for {type(encoder).__name__}.")
        _add(pipeline, encoder, tokenizer, token, vectors)


def _encoders(pipeline: Any) -> Iterator[tuple[str, nn.Module, Any]]:
    """Key, text encoder and tokenizer of each that a pipeline has, sorted by key."""
    found = []
    for part in ("text_encoder", "text_encoder_2"):
        encoder = pipeline.components.get(part)
        if encoder is not None:
            tokenizer = pipeline.components[part.replace("text_encoder", "tokenizer")]
            found.append((ENCODER_KEYS[type(encoder).__name__], encoder, tokenizer))
    return iter(sorted(found, key=lambda entry: entry[0]))


def _add(pipeline: Any, encoder: nn.Module, tokenizer: Any, token: str, vectors: Tensor) -> None:
    pipeline.load_textual_inversion({token: vectors}, tokenizer=tokenizer, text_encoder=encoder)


def _replace_embedding(encoder: nn.Module, first_id: int, vectors: nn.Parameter) -> None:
    """Let an encoder's embedding give `vectors` for the ids from `first_id` on, which are its last."""

    def replaced(embedding: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        index = inputs[0] - first_id
        rows = vectors[index.clamp(min=0)].to(output.dtype)
        return torch.where((index >= 0)[..., None], rows, output)

    encoder.get_input_embeddings().register_forward_hook(replaced)


class WithToken:
    """An adapter, a whole model or nothing of the denoiser, and a token that is learned along with it."""

    def __init__(self, adapter: Adapter, token: LearnedToken) -> None:
        self.adapter, self.token, self.denoiser = adapter, token, adapter.denoiser
        self.is_saved_exactly = adapter.is_saved_exactly
        self.parameter_groups = [*adapter.parameter_groups, token.group]
        self.parameters = [*adapter.parameters, *token.group.parameters]

    def off(self) -> AbstractContextManager[nn.Module]:
        """The base model's denoiser; the caller tells it the token's first meaning."""
        return self.adapter.off()

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """The adapter times `strength`; the token as it is."""
        return self.adapter.at_strength(strength)

    def save(self, folder: Path) -> None:
        """Write both files."""
        self.adapter.save(folder)
        self.token.save(folder)

    def load(self, file: Path) -> None:
        """Restore both.

        Raises:
            ValueError: if one does not fit, or there is no token beside the adapter's file.
        """
        if not (file.parent / EMBEDS_NAME).is_file():
            raise ValueError(
                f"There is no learned token beside {file}. Set num_token_vectors to 0, or give another file."
            )
        self.adapter.load(file)
        self.token.load(file.parent / EMBEDS_NAME)


class NoAdapter:
    """The base model as it is, where a word alone is learned."""

    is_saved_exactly = True

    def __init__(self, denoiser: nn.Module) -> None:
        self.denoiser = denoiser
        self.parameters: list[nn.Parameter] = []
        self.parameter_groups: list[ParameterGroup] = []

    @contextmanager
    def off(self) -> Iterator[nn.Module]:
        """The denoiser."""
        yield self.denoiser

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """There is nothing whose effect could be less."""
        assert strength == 1, strength
        return nullcontext()

    def save(self, folder: Path) -> None:
        """Nothing is trained of the denoiser."""

    def load(self, file: Path) -> None:
        """Nothing is trained of the denoiser."""
