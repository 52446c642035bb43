"""A prompt as the text encoders see it, in words. Free of torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from dreamspace.config import DatasetConfig
from dreamspace.data.captions import captions_of
from dreamspace.data.photos import list_photos
from dreamspace.prompts.language import FUNCTION_WORDS, is_known_string
from dreamspace.prompts.pieces import PromptTokenizer, PromptView


@dataclass(frozen=True)
class Word:
    """A word of a prompt.

    Attributes:
        role: "filler" says little, "word" means something to everyone, "own" is no word yet, "unread" is cut
            off in part or whole.
        pieces: as the tokenizer cuts it.
    """

    text: str
    role: str
    pieces: tuple[str, ...]


def words_of(view: PromptView) -> list[Word]:
    """The words of a prompt as one tokenizer cuts and reads them."""
    words, position = [], 0
    for text in view.prompt.split():
        start = view.prompt.index(text, position)
        position = start + len(text)
        inside = [
            (number, piece)
            for number, piece in enumerate(view.pieces)
            if piece.end > start and piece.start < position and piece.end > piece.start
        ]
        bare = text.strip(".,;:!?\"'()").lower()
        if any(number >= view.num_read for number, _ in inside):
            role = "unread"
        elif bare in FUNCTION_WORDS or not bare:
            role = "filler"
        else:
            role = "word" if is_known_string(bare) else "own"
        words.append(Word(text, role, tuple(piece.text for _, piece in inside)))
    return words


def cut_off(view: PromptView) -> str | None:
    """A sentence on what the encoder never sees of a prompt; None where it reads all."""
    if not view.dropped:
        return None
    return (
        f"The {view.part} makes {len(view.pieces)} pieces of the prompt, and the text encoder reads "
        f"{view.num_read}. It never sees '{view.dropped}': shorten the prompt, or say what matters first."
    )


def unread_warning(prompts: Sequence[str], tokenizers: Sequence[PromptTokenizer]) -> str | None:
    """A sentence on the prompts that no text encoder reads to their end; None where there are none."""
    cut = []
    for prompt in dict.fromkeys(prompts):
        view = max((tokenizer.view(prompt) for tokenizer in tokenizers), key=lambda view: not view.dropped)
        if view.dropped:
            cut.append(view)
    if not cut:
        return None
    others = f", and the ends of {len(cut) - 1} others" if cut[1:] else ""
    return (
        f"The text encoder reads {cut[0].num_read} of the {len(cut[0].pieces)} pieces of '{cut[0].prompt}': "
        f"it never sees '{cut[0].dropped}'{others}."
    )


def preview(prompt: str, tokenizers: Sequence[PromptTokenizer]) -> str:
    """What each tokenizer makes of a prompt, as lines of text."""
    lines = []
    for tokenizer in tokenizers:
        view = tokenizer.view(prompt)
        lines.append(
            f"{view.part}: {len(view.pieces)} pieces, of which {view.num_read} are read "
            f"(at most {view.max_tokens} tokens with the marks of begin and end)"
        )
        lines.append("  " + " ".join(piece.text for piece in view.pieces))
        words = words_of(view)
        for role, says in (
            ("own", "no word yet, so yours to fill"),
            ("word", "carry the meaning"),
            ("filler", "say little"),
        ):
            named = [_spelled(word) for word in words if word.role == role]
            if named:
                lines.append(f"  {says}: {', '.join(dict.fromkeys(named))}")
        sentence = cut_off(view)
        if sentence is not None:
            lines.append(f"  {sentence}")
    return "\n".join(lines)


def captions_preview(dataset: DatasetConfig, tokenizers: Sequence[PromptTokenizer]) -> str:
    """The final captions of a dataset's photos, a line each, and which are longer than the encoders read.

    Raises:
        ValueError: if a caption is missing or wrong, or there are no photos.
    """
    lines = []
    for photo in list_photos(dataset.instance_data_dir):
        for caption in captions_of(dataset, photo):
            lines.append(f"{photo.name}: {caption}")
            cut = [sentence for t in tokenizers if (sentence := cut_off(t.view(caption))) is not None]
            lines += [f"  {sentence}" for sentence in cut]
    return "\n".join(lines)


def _spelled(word: Word) -> str:
    return word.text if len(word.pieces) == 1 else f"{word.text} ({' '.join(word.pieces)})"
