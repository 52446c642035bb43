"""What a text encoder knows of a token: on mini, where the truth is known, and by its definition."""

import pytest
import torch
from tiny_models import (
    clip_text_encoder,
    clip_tokenizer,
    qwen3_encoder,
    qwen_tokenizer,
    t5_encoder,
    t5_tokenizer,
)
from tokenizers import Tokenizer
from transformers import CLIPTextModel, CLIPTokenizer

from dreamspace.mini import MODEL_FOLDER
from dreamspace.mini.words import caption_words
from dreamspace.prompts.evidence import MIN_UNTRAINED, NUM_NEAREST, embedding_evidence, self_similarity
from dreamspace.prompts.pieces import PromptTokenizer, tokenizers_of


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return tokenizers_of("mini")[0]


@pytest.fixture(scope="module")
def encoder() -> CLIPTextModel:
    return CLIPTextModel.from_pretrained(MODEL_FOLDER / "text_encoder", dtype=torch.float32).eval()


def test_words_of_minis_captions_are_known_and_tokens_that_never_occurred_are_not(
    tokenizer: PromptTokenizer, encoder: CLIPTextModel
) -> None:
    embeddings = encoder.get_input_embeddings().weight
    taught = sorted(tokenizer.words[word] for word in caption_words())
    never = sorted(set(tokenizer.words.values()) - set(taught))
    assert (len(taught), len(never)) == (59, 2457)
    shares = [
        sum(bool(found.is_known) for found in embedding_evidence(embeddings, tokenizer, ids)) / len(ids)
        for ids in (taught, never)
    ]
    assert shares[0] >= 0.9  # 0.97 when it was measured
    assert shares[1] <= 0.1  # 0.06


def test_evidence_follows_from_the_embeddings(tokenizer: PromptTokenizer, encoder: CLIPTextModel) -> None:
    embeddings = encoder.get_input_embeddings().weight.detach()
    index = tokenizer.words["dog"]
    found = embedding_evidence(embeddings, tokenizer, [index, tokenizer.words["sks"]])[0]
    distances = (embeddings - embeddings[index]).norm(dim=1)
    assert found.id == index
    assert found.norm == pytest.approx(embeddings[index].norm().item(), rel=1e-5)
    assert found.mean_distance == pytest.approx(
        (embeddings[index] - embeddings.mean(dim=0)).norm().item(), rel=1e-5
    )
    expected = distances.sort().values[1 : NUM_NEAREST + 1].mean().item()
    assert found.apartness == pytest.approx(expected, rel=1e-3)
    assert tokenizer.texts[index] not in found.neighbours


def test_rows_beyond_the_vocabulary_tell_untrained_tokens_where_no_bytes_do() -> None:
    t5 = t5_tokenizer()
    read = PromptTokenizer(Tokenizer.from_str(t5.backend_tokenizer.to_str()), "tokenizer", False, 48)
    generator = torch.Generator().manual_seed(0)
    size = len(t5)
    embeddings = 0.01 * torch.randn(size + MIN_UNTRAINED, 8, generator=generator)
    embeddings[10:20] += 5 * torch.randn(10, 8, generator=generator)
    known = [found.is_known for found in embedding_evidence(embeddings, read, range(10, 30))]
    assert known == [True] * 10 + [False] * 10
    assert {found.is_known for found in embedding_evidence(embeddings[:size], read, range(10, 30))} == {None}


def test_self_similarity_is_that_of_the_stock_encoder(
    tokenizer: PromptTokenizer, encoder: CLIPTextModel
) -> None:
    stock = CLIPTokenizer.from_pretrained(MODEL_FOLDER / "tokenizer")

    def state(prompt: str) -> torch.Tensor:
        with torch.no_grad():
            output = encoder(**stock(prompt, return_tensors="pt"), output_hidden_states=True)
        return output.hidden_states[-1][0, -1]

    without = state("a photo of a dog")
    expected = [
        torch.cosine_similarity(state(f"a photo of a {word} dog"), without, dim=0).item()
        for word in ("sks", "red", "nice")
    ]
    found = self_similarity(encoder, tokenizer, ["sks", "red", "nice"], "dog")
    assert found == pytest.approx(expected, abs=1e-4)
    assert found[2] > max(found[:2])  # mini learned that "nice" says nothing


def test_encoders_of_every_kind_are_asked() -> None:
    for tokenizer, encoder, is_clip in (
        (clip_tokenizer(), clip_text_encoder(clip_tokenizer()), True),
        (t5_tokenizer(), t5_encoder(t5_tokenizer()), False),
        (qwen_tokenizer(), qwen3_encoder(qwen_tokenizer()), False),
    ):
        read = PromptTokenizer(
            Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), "tokenizer", is_clip, 48
        )
        cosines = self_similarity(encoder.eval(), read, ["x", "y"], "d")
        assert len(cosines) == 2
        assert all(-1 <= cosine <= 1 for cosine in cosines)
