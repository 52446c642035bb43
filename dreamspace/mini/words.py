"""Mini's language: the captions it is trained on, and its tokenizer."""

import gzip
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dreamspace.files import replace_file
from dreamspace.mini.scenes import SCENES
from dreamspace.mini.world import FILLERS, PATTERNS, Scenery, all_sceneries

NUM_MERGES = 3000
MAX_TOKENS = 32
RARE_TOKENS = ("sks", "ohwx", "zwx")
BEGINNINGS = ("a photo of a", "a photo of a", "a picture of a", "an image of a", "a")


def vary_caption(scenery: Scenery, rng: np.random.Generator, plain_word: str = "") -> str:
    """A caption that is true of `scenery` but may say less, so that short prompts work too.

    Args:
        plain_word: what a thing without a pattern is called; by default nothing is said.
    """
    keep_colour, keep_pattern, keep_scene = rng.random(3) > (0.12, 0.12, 0.12)
    words = [
        str(rng.choice(FILLERS)) if rng.random() < 0.12 else "",
        scenery.colour if keep_colour else "",
        (PATTERNS[scenery.pattern] or plain_word) if keep_pattern else "",
        scenery.class_word,
        SCENES[scenery.scene][0] if keep_scene else "",
    ]
    return " ".join([str(rng.choice(BEGINNINGS)), *(word for word in words if word)])


def caption_words() -> set[str]:
    """Every word that a training caption can hold."""
    sentences = [*BEGINNINGS, *FILLERS, *(scenery.caption() for scenery in all_sceneries())]
    return {word for sentence in sentences for word in sentence.split()}


def common_english(count: int = 8000) -> list[str]:
    """Common words, most frequent first: the whole words among the first merges of OpenAI's CLIP.

    They come with open_clip, so that nothing has to be downloaded and no list has to be kept.
    """
    package = find_spec("open_clip")  # which an import would load, and torch with it
    assert package is not None, "open_clip is not installed"
    assert package.origin is not None, "open_clip is no package of files"
    path = Path(package.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    with gzip.open(path, "rt", encoding="utf-8") as merges:
        joined = ["".join(line.split()) for line in merges.read().split("\n")[1 : count + 1]]
    words = [piece.removesuffix("</w>") for piece in joined if piece.endswith("</w>")]
    return [word for word in words if len(word) > 1 and word.isascii() and word.isalpha()]


def _corpus() -> Iterator[str]:
    """Words as often as they should weigh: Zipf's law for English, and the captions' words always whole."""
    for rank, word in enumerate(common_english()):
        yield from [word] * max(1, 4000 // (rank + 10))
    for word in sorted(caption_words()):
        yield from [word] * 400
    for word in RARE_TOKENS:
        yield from [word] * 60


def build_tokenizer(folder: Path) -> None:
    """Train the byte-level BPE and write it as a stock `CLIPTokenizer` into `folder`.

    The vocabulary is laid out as in CLIP: 256 bytes, 256 bytes that end a word, the merges in their
    order, begin and end of text.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    bytes_in_order = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=512 + NUM_MERGES,
        initial_alphabet=bytes_in_order,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]][:NUM_MERGES]
    pieces = [
        *bytes_in_order,
        *(byte + "</w>" for byte in bytes_in_order),
        *("".join(pair) for pair in merges),
    ]
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS).save_pretrained(folder)
    with replace_file(folder / "vocab.json") as temporary:
        temporary.write_text(json.dumps(vocabulary, ensure_ascii=False))
    with replace_file(folder / "merges.txt") as temporary:
        temporary.write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
