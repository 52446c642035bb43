"""What a text encoder knows of a token: how its embedding lies among the others, and what it changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dreamspace.config import class_prompt, instance_prompt
from dreamspace.prompts.pieces import PromptTokenizer

NUM_NEAREST = 10
NUM_NAMED = 3
MIN_UNTRAINED = 8
OUTLIER = 2.5
"""Robust standard deviations beyond which a value is not of a group (doi:10.1016/j.jesp.2013.03.013)."""

_ROWS_AT_ONCE = 256
_PROMPTS_AT_ONCE = 32
_IMPOSSIBLE_BYTES = (0xC0, 0xC1, *range(0xF5, 0x100))
"""That occur in no text in UTF-8."""


@dataclass(frozen=True)
class Evidence:
    """What an encoder knows of one token.

    Attributes:
        norm: of its embedding.
        mean_distance: of its embedding from the mean of all.
        apartness: mean distance from the `NUM_NEAREST` embeddings nearest to it. What training never touched
            lies crowded; what it gave a meaning stands apart.
        neighbours: the words nearest to it.
        is_known: whether it stands further apart than tokens that no text can contain do; None where the
            encoder has too few of these to tell.
    """

    id: int
    norm: float
    mean_distance: float
    apartness: float
    neighbours: tuple[str, ...]
    is_known: bool | None


@torch.no_grad()
def embedding_evidence(embeddings: Tensor, tokenizer: PromptTokenizer, ids: Sequence[int]) -> list[Evidence]:
    """What the embeddings say of each token.

    That tokens which training never saw are told by where their embeddings lie, measured against tokens that
    it cannot have seen, is the idea of arXiv:2405.05417.

    Args:
        embeddings: (V, D), all of an encoder's.
    """
    embeddings = embeddings.float()
    used = max(tokenizer.vocabulary.values()) + 1
    among = embeddings[:used]
    mean, threshold = among.mean(dim=0), _untrained_apartness(embeddings, tokenizer)
    found = []
    for chunk in torch.tensor(list(ids), dtype=torch.long).split(_ROWS_AT_ONCE):
        chunk = chunk.to(embeddings.device)
        nearest = _nearest(embeddings, chunk, used)
        apartness = nearest.values.mean(dim=1)
        norms, distances = embeddings[chunk].norm(dim=1), (embeddings[chunk] - mean).norm(dim=1)
        for row, index in enumerate(chunk.tolist()):
            named = [_readable(tokenizer.texts.get(other, "")) for other in nearest.indices[row].tolist()]
            found.append(
                Evidence(
                    index,
                    norms[row].item(),
                    distances[row].item(),
                    apartness[row].item(),
                    tuple([word for word in named if word.isalpha()][:NUM_NAMED]),
                    None if threshold is None else apartness[row].item() > threshold,
                )
            )
    return found


def _nearest(embeddings: Tensor, ids: Tensor, used: int) -> Any:
    """Distances and ids of the nearest tokens of each, among the first `used`; (N, NUM_NEAREST) each."""
    distances = torch.cdist(embeddings[ids], embeddings[:used])
    own = ids < used
    distances[own.nonzero().squeeze(1), ids[own]] = torch.inf
    return distances.topk(min(NUM_NEAREST, used - 1), largest=False)


def _untrained_apartness(embeddings: Tensor, tokenizer: PromptTokenizer) -> float | None:
    """What apartness tokens have at most that no text contains; None where there are too few of them.

    These are bytes that UTF-8 does not use, and rows of the embedding beyond the vocabulary.
    """
    vocabulary = tokenizer.vocabulary
    names = [
        name
        for byte in _IMPOSSIBLE_BYTES
        for name in (chr(byte), f"{chr(byte)}</w>", f"<0x{byte:02X}>")
        if tokenizer.is_clip or not name.endswith("</w>")
    ]
    used = max(vocabulary.values()) + 1
    ids = [*(vocabulary[name] for name in names if name in vocabulary), *range(used, len(embeddings))]
    if len(ids) < MIN_UNTRAINED:
        return None
    apartness = _nearest(embeddings, torch.tensor(ids, device=embeddings.device), used).values.mean(dim=1)
    median = apartness.median()
    spread = 1.4826 * (apartness - median).abs().median()
    return (median + OUTLIER * spread).item()


@torch.no_grad()
def self_similarity(
    encoder: nn.Module, tokenizer: PromptTokenizer, words: Sequence[str], class_word: str
) -> list[float]:
    """The cosine between what an encoder makes of "a photo of a {word} {class}" with and without the word.

    Compared are the last layer's states of the last token, which has seen the whole prompt.

    Args:
        words: of as many tokens each.
    """
    without = _last_states(encoder, tokenizer, [class_prompt(class_word)])
    states = []
    for start in range(0, len(words), _PROMPTS_AT_ONCE):
        prompts = [instance_prompt(word, class_word) for word in words[start : start + _PROMPTS_AT_ONCE]]
        states.append(_last_states(encoder, tokenizer, prompts))
    return torch.cosine_similarity(torch.cat(states), without).tolist() if states else []


def _last_states(encoder: nn.Module, tokenizer: PromptTokenizer, prompts: Sequence[str]) -> Tensor:
    """(N, D) states of the last token of prompts of equal length."""
    ids = torch.tensor([tokenizer.ids(prompt) for prompt in prompts])
    device = encoder.get_input_embeddings().weight.device
    output = encoder(
        input_ids=ids.to(device), attention_mask=torch.ones_like(ids).to(device), output_hidden_states=True
    )
    return output.hidden_states[-1][:, -1].float()


def _readable(piece: str) -> str:
    """A token as a person would write it."""
    return piece.removesuffix("</w>").lstrip("Ġ▁")
