"""The tokenizers' view of a prompt, against transformers' own tokenizers."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_models import qwen_tokenizer, t5_tokenizer
from tokenizers import Tokenizer
from transformers import CLIPTokenizer, Qwen2Tokenizer

from dreamspace.files import read_json, write_json
from dreamspace.mini import MODEL_FOLDER
from dreamspace.prompts.candidates import MAX_T5_PIECES, candidates, spelling
from dreamspace.prompts.language import is_known_string, is_typeable
from dreamspace.prompts.pieces import PromptTokenizer, tokenizers_of
from dreamspace.prompts.preview import cut_off, preview, words_of

PROMPTS = ["a photo of a SKS dog", "Grüße aus Zürich, 東京 🎉! don't", "", "it's   the dog's\n 2024th day"]


@pytest.fixture(scope="module")
def of_mini() -> PromptTokenizer:
    return tokenizers_of("mini")[0]


def bare_model(folder: Path, pipeline: str, **tokenizers: str) -> Path:
    """A model folder that holds its index alone."""
    index = {"_class_name": pipeline} | {part: ["transformers", kind] for part, kind in tokenizers.items()}
    write_json(folder / "model_index.json", index)
    return folder


def old_layout(folder: Path) -> Path:
    """Mini's tokenizer as vocab.json and merges.txt, the way SD 1.x is published."""
    described = read_json(MODEL_FOLDER / "tokenizer" / "tokenizer.json")["model"]
    write_json(folder / "vocab.json", described["vocab"])
    merges = "\n".join(" ".join(pair) for pair in described["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    return folder


def test_ids_are_those_of_transformers_whichever_files_there_are(
    of_mini: PromptTokenizer, tmp_path: Path
) -> None:
    model = bare_model(tmp_path / "model", "StableDiffusionPipeline", tokenizer="CLIPTokenizer")
    old_layout(model / "tokenizer")
    read = tokenizers_of(str(model))[0]
    assert (read.max_tokens, of_mini.max_tokens) == (77, 32)
    expected = CLIPTokenizer.from_pretrained(MODEL_FOLDER / "tokenizer")
    for prompt in PROMPTS:
        assert read.ids(prompt) == of_mini.ids(prompt) == expected(prompt).input_ids
    assert read.view(PROMPTS[1]).pieces == of_mini.view(PROMPTS[1]).pieces


def test_qwens_vocabulary_and_merges_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    model = bare_model(tmp_path / "model", "QwenImagePipeline", tokenizer="Qwen2Tokenizer")
    ids = qwen_tokenizer().get_vocab()
    merges = [("Ġ", "s"), ("Ġs", "k"), ("Ġsk", "s")]
    ids |= {"".join(pair): len(ids) + number for number, pair in enumerate(merges)}
    write_json(model / "tokenizer" / "vocab.json", ids)
    lines = "\n".join(" ".join(pair) for pair in merges)
    (model / "tokenizer" / "merges.txt").write_text(f"#version: 0.2\n{lines}\n", encoding="utf-8")
    read, expected = tokenizers_of(str(model))[0], Qwen2Tokenizer(vocab=ids, merges=merges)
    for prompt in PROMPTS:
        assert read.ids(prompt) == expected(prompt).input_ids
    assert read.word_pieces("sks") == ["Ġsks"]
    assert read.words["sks"] == ids["Ġsks"]
    assert (read.is_clip, read.max_tokens) == (False, 512)


def test_parts_are_told_apart_and_read_as_much_as_their_pipeline_lets_them(tmp_path: Path) -> None:
    parts = {"tokenizer": "CLIPTokenizer", "tokenizer_2": "T5TokenizerFast"}
    model = bare_model(tmp_path / "model", "FluxPipeline", **parts)
    shutil.copytree(MODEL_FOLDER / "tokenizer", model / "tokenizer")
    t5_tokenizer().save_pretrained(model / "tokenizer_2")
    clip, t5 = tokenizers_of(str(model))
    assert [(read.part, read.encoder_part, read.is_clip, read.max_tokens) for read in (clip, t5)] == [
        ("tokenizer", "text_encoder", True, 32),
        ("tokenizer_2", "text_encoder_2", False, 512),
    ]
    assert t5.ids("a dog") == t5_tokenizer()("a dog").input_ids
    assert t5.word_pieces("sks") == ["▁", "s", "k", "s"]


def test_prompt_beyond_the_limit_says_what_is_never_seen(of_mini: PromptTokenizer) -> None:
    whole = of_mini.view(" ".join(["very"] * 30))
    assert (whole.num_read, whole.dropped, cut_off(whole)) == (30, "", None)
    longer = of_mini.view("a photo of a sks dog " + "very " * 24 + "extraordinarily nice")
    assert longer.num_read == 30
    assert len(of_mini.ids(longer.prompt)[:31]) == longer.num_read + 1
    assert longer.dropped.endswith("nice")
    assert "never sees" in (cut_off(longer) or "")
    assert "shorten the prompt" in (cut_off(longer) or "")
    roles = {word.text: word.role for word in words_of(longer)}
    assert roles["sks"] == "own"
    assert roles["dog"] == "word"
    assert roles["photo"] == "filler"
    assert roles["nice"] == roles["extraordinarily"] == "unread"
    assert longer.dropped in preview(longer.prompt, [of_mini])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "has no vocabulary: it holds neither tokenizer.json nor vocab.json with merges.txt"),
        ({"spiece.model": "x"}, "has no vocabulary: it holds neither"),
        ({"tokenizer.json": "{}"}, "cannot be read"),
        ({"tokenizer.json": Tokenizer.from_str('{"model":{"type":"BPE","vocab":{},"merges":[]}}').to_str()},
         "has no vocabulary: its files name no token"),
        ({"vocab.json": "{}", "merges.txt": ""}, "has no vocabulary of CLIP's kind"),
        ({"vocab.json": "{", "merges.txt": ""}, "is not valid JSON"),
    ],
    ids=["none", "sentencepiece", "damaged", "empty", "no-marks", "cut-off"],
)  # fmt: skip
def test_tokenizer_without_vocabulary_is_named(files: dict[str, str], words: str, tmp_path: Path) -> None:
    model = bare_model(tmp_path / "model", "StableDiffusionPipeline", tokenizer="CLIPTokenizer")
    (model / "tokenizer").mkdir()
    for name, text in files.items():
        (model / "tokenizer" / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        tokenizers_of(str(model))


def test_model_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no tokenizer"):
        tokenizers_of(str(bare_model(tmp_path / "model", "StableDiffusionPipeline")))


def test_candidates_are_one_piece_to_every_clip_and_short_to_t5(
    of_mini: PromptTokenizer, tmp_path: Path
) -> None:
    found = [entry.word for entry in candidates([of_mini])]
    assert {"sks", "ohwx", "zwx"} < set(found)
    assert len(found) >= 20
    assert all(is_typeable(word) and not is_known_string(word) for word in found)
    described = read_json(MODEL_FOLDER / "tokenizer" / "tokenizer.json")
    merges = described["model"]["merges"]
    merges.remove(next(pair for pair in merges if "".join(pair) == "sks</w>"))
    poorer = PromptTokenizer(Tokenizer.from_str(json.dumps(described)), "tokenizer_2", True, 32)
    both = [entry.word for entry in candidates([of_mini, poorer])]
    assert "sks" not in both
    assert "ohwx" in both
    t5_tokenizer().save_pretrained(tmp_path)
    t5 = PromptTokenizer(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), "tokenizer_3", False, 256)
    with pytest.raises(ValueError, match="no token that is easy to type"):
        candidates([of_mini, t5])  # to which each letter is a piece
    spelled = spelling("sks", [of_mini, poorer, t5])
    assert (spelled.is_one, spelled.is_short, spelled.is_listed) == (False, False, False)
    assert len(spelled.pieces["tokenizer_3"]) == MAX_T5_PIECES + 1


@pytest.mark.parametrize(
    "word", ["dog", "Thomas", "garcia", "ikea", "nike", "lol", "wtf", "nfl", "bmw", "omg"]
)
def test_words_names_brands_and_slang_are_known(word: str) -> None:
    assert is_known_string(word)


@pytest.mark.parametrize("word", ["sks", "ohwx", "zwx", "nrxq"])
def test_folklore_tokens_are_no_words(word: str) -> None:
    assert not is_known_string(word)


def test_what_is_easy_to_type() -> None:
    assert all(is_typeable(word) for word in ("sks", "zwx", "ohwx", "olisa"))
    assert not any(is_typeable(word) for word in ("ab", "Sks", "nrdsk", "x1z", "abcdef", "é", "a-b"))
