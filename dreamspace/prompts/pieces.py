"""What a model's tokenizers make of a prompt: its pieces, and what is cut off. Free of torch."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from dreamspace.files import read_json
from dreamspace.models.source import model_folder, model_index

CLIP_TOKENS = 77
"""That CLIP reads of a prompt, where its files do not say."""

_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)

_PROMPT_TOKENS = {
    "StableDiffusion3Pipeline": 256,
    "FluxPipeline": 512,
    "IFPipeline": 77,
    "IFSuperResolutionPipeline": 77,
    "Flux2KleinPipeline": 512,
    "ZImagePipeline": 512,
    "QwenImagePipeline": 512,
    "SanaPipeline": 300,
}
"""By pipeline: the tokens of a prompt that its encoders other than CLIP read at most."""


@dataclass(frozen=True)
class Piece:
    """A token of a prompt.

    Attributes:
        text: as it stands in the vocabulary.
        start: first character of the prompt that it stands for; `end` is one past the last.
    """

    text: str
    id: int
    start: int
    end: int


@dataclass(frozen=True)
class PromptView:
    """What one tokenizer makes of a prompt.

    Attributes:
        part: of the model, such as "tokenizer_2".
        pieces: all of them, without marks of begin and end.
        num_read: of these, the first that the encoder reads.
        max_tokens: that it reads of a prompt, marks included.
    """

    prompt: str
    part: str
    pieces: tuple[Piece, ...]
    num_read: int
    max_tokens: int

    @property
    def dropped(self) -> str:
        """The end of the prompt that the encoder never sees."""
        return self.prompt[self.pieces[self.num_read].start :] if self.num_read < len(self.pieces) else ""


class PromptTokenizer:
    """One tokenizer of a model.

    Attributes:
        part: of the model, such as "tokenizer_2".
        is_clip: whether it is CLIP's, which lowercases.
        max_tokens: that its encoder reads of a prompt.
    """

    def __init__(self, tokenizer: Tokenizer, part: str, is_clip: bool, max_tokens: int) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer, self.part, self.is_clip, self.max_tokens = tokenizer, part, is_clip, max_tokens

    @property
    def encoder_part(self) -> str:
        """The text encoder that reads its tokens."""
        return self.part.replace("tokenizer", "text_encoder")

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Id of each token."""
        return self._tokenizer.get_vocab()

    @cached_property
    def texts(self) -> dict[int, str]:
        """Each token by its id."""
        return {index: text for text, index in self.vocabulary.items()}

    @cached_property
    def words(self) -> dict[str, int]:
        """Id of each token that can be a whole word of its own within a prompt, by the word."""
        if self.is_clip:
            suffix = "</w>"
            return {t.removesuffix(suffix): i for t, i in self.vocabulary.items() if t.endswith(suffix)}
        return {text[1:]: index for text, index in self.vocabulary.items() if text[0:1] in ("Ġ", "▁")}

    def ids(self, prompt: str) -> list[int]:
        """Of a whole prompt, with the marks of its begin and end."""
        return self._tokenizer.encode(prompt).ids

    def word_pieces(self, word: str) -> list[str]:
        """The tokens of a word within a prompt."""
        return self._tokenizer.encode(f" {word}", add_special_tokens=False).tokens

    def view(self, prompt: str) -> PromptView:
        """The pieces of a prompt, and how many of them are read."""
        encoding = self._tokenizer.encode(prompt, add_special_tokens=False)
        pieces = tuple(
            Piece(text, index, start, end)
            for text, index, (start, end) in zip(encoding.tokens, encoding.ids, encoding.offsets, strict=True)
        )
        num_marks = self._tokenizer.num_special_tokens_to_add(False)
        num_read = min(len(pieces), self.max_tokens - num_marks)
        return PromptView(prompt, self.part, pieces, num_read, self.max_tokens)


def tokenizers_of(model: str) -> list[PromptTokenizer]:
    """The tokenizers of a base model, in the order of its parts.

    Args:
        model: "mini", a folder, or a Hub id, of which the tokenizers alone are downloaded.

    Raises:
        ValueError: if there is no such model, it cannot be reached, or a tokenizer has no vocabulary.
    """
    folder = model_folder(model, "tokenizer")
    index = model_index(folder)
    parts = {name: entry[1] for name, entry in index.items() if name.startswith("tokenizer") and entry[0]}
    if not parts:
        raise ValueError(f"The model {model} has no tokenizer. Download it again, or choose another model.")
    return [
        _read(folder / part, part, kind.startswith("CLIP"), index["_class_name"])
        for part, kind in sorted(parts.items())
    ]


def _read(folder: Path, part: str, is_clip: bool, pipeline: str) -> PromptTokenizer:
    try:
        tokenizer = _opened(folder, is_clip)
    except ValueError:
        raise
    except Exception as error:  # the library raises no other class for files that it cannot read
        raise _no_vocabulary(folder, f"cannot be read: {_first_line(error)}") from error
    if tokenizer.get_vocab_size() == 0:
        raise _no_vocabulary(folder, "has no vocabulary: its files name no token")
    settings = folder / "tokenizer_config.json"
    stated = read_json(settings).get("model_max_length") if settings.is_file() else None
    if is_clip:
        max_tokens = int(stated or CLIP_TOKENS)
    else:
        # Files of other encoders state what they could read, which pipelines shorten.
        max_tokens = _PROMPT_TOKENS.get(pipeline, int(stated or CLIP_TOKENS))
    return PromptTokenizer(tokenizer, part, is_clip, max_tokens)


def _opened(folder: Path, is_clip: bool) -> Tokenizer:
    """The tokenizer of a folder: its one file, or vocabulary and merges as transformers reads them."""
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        raise _no_vocabulary(
            folder, "has no vocabulary: it holds neither tokenizer.json nor vocab.json with merges.txt"
        )
    ids = read_json(vocabulary)
    if not is_clip:
        tokenizer = Tokenizer(BPE.from_file(str(vocabulary), str(merges)))
        tokenizer.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(_QWEN_WORDS), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        return tokenizer
    begin, end = "<|startoftext|>", "<|endoftext|>"
    if begin not in ids or end not in ids:
        raise _no_vocabulary(folder, f"has no vocabulary of CLIP's kind: {vocabulary.name} lacks {end}")
    model = BPE.from_file(str(vocabulary), str(merges), unk_token=end, end_of_word_suffix="</w>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, ids[end]), (begin, ids[begin]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def _no_vocabulary(folder: Path, what: str) -> ValueError:
    return ValueError(
        f"The {folder.name} of the model in {folder.parent} {what}. Download the model again, or choose "
        "another one."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
