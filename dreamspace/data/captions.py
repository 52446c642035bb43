"""Captions: where each photo's come from, what is wrong with them, and how one is edited."""

from collections.abc import Sequence
from pathlib import Path

from dreamspace.config import DatasetConfig
from dreamspace.config.dataset import MAX_CAPTION_CHARACTERS
from dreamspace.data.photos import photo_files
from dreamspace.files import replace_file

DEFAULT_CAPTIONER = "florence-community/Florence-2-base"
"""Florence-2 (arXiv:2311.06242) in transformers' own layout; microsoft's files need code of their own."""

_NUM_NAMED = 3
_USE_PROMPT = "set caption_strategy to 'instanceprompt'"


def captions_of(dataset: DatasetConfig, photo: Path) -> tuple[str, ...]:
    """The captions of a photo, of which each row draws one; at least one.

    Raises:
        ValueError: if its caption file is missing, empty, no UTF-8 text or too long, or its name is no text.
    """
    own = () if dataset.only_instance_prompt else _own_captions(dataset, photo)
    if own is None:
        raise _missing([photo], 1, _USE_PROMPT)
    prompts = dataset.instance_prompts
    if dataset.prepend_instance_prompt and own:
        own = tuple(f"{prompt} {caption}" for prompt in prompts for caption in own)
    captions = own or tuple(prompts)
    for caption in captions:
        _check_length(caption, photo)
    return captions


def check_captions(dataset: DatasetConfig, photos: Sequence[Path]) -> None:
    """Read all captions of a dataset, so that what is wrong is known before anything is loaded.

    Raises:
        ValueError: as `captions_of`; photos without a caption file are counted, and the first ones named.
    """
    if dataset.caption_strategy == "textfile" and not dataset.only_instance_prompt:
        check_caption_files(photos, _USE_PROMPT)
    for photo in photos:
        captions_of(dataset, photo)


def check_caption_files(photos: Sequence[Path], instead: str) -> None:
    """Raise ValueError if photos have no caption file; they are counted, and the first ones named.

    Args:
        instead: what else can be done than to add the files.
    """
    missing = [photo for photo in photos if caption_file(photo) is None]
    if missing:
        raise _missing(missing, len(photos), instead)


def caption_file(photo: Path) -> Path | None:
    """The file that holds a photo's captions, None where there is none.

    It is the .txt beside the photo, or for photos in a folder called `photos` the one in the folder
    `captions` beside that, which is where the workspace keeps them.
    """
    return next((path for path in _places(photo) if path.is_file()), None)


def read_captions(path: Path) -> tuple[str, ...]:
    """The captions of a caption file: its lines that are not empty.

    Raises:
        ValueError: if it is empty, no UTF-8 text, or a line is too long.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"The caption file {path} is not UTF-8 text. Save it again as UTF-8.") from None
    captions = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not captions:
        raise ValueError(f"The caption file {path} is empty. Write what the photo shows into it.")
    for caption in captions:
        _check_length(caption, path)
    return captions


def write_caption(photo: Path, text: str) -> Path:
    """Write the captions of one photo, a line each, and return their file; other photos keep theirs.

    An existing file is replaced, wherever `caption_file` finds it.

    Raises:
        ValueError: if there is no text in it, or a line is too long.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"The caption of {photo.name} is empty. Write what the photo shows.")
    for line in lines:
        _check_length(line, photo.name)
    path = caption_file(photo) or _places(photo)[-1]
    with replace_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def fill_captions(photos_dir: Path, default: str) -> int:
    """Give every photo of a folder that has no caption the default one; returns how many had none.

    Raises:
        ValueError: as `write_caption`.
    """
    missing = [photo for photo in photo_files(photos_dir) if caption_file(photo) is None]
    for photo in missing:
        write_caption(photo, default)
    return len(missing)


def _own_captions(dataset: DatasetConfig, photo: Path) -> tuple[str, ...] | None:
    """The photo's own captions, () where the instance prompt is its caption, None if its file is missing."""
    if dataset.caption_strategy == "instanceprompt":
        return ()
    if dataset.caption_strategy == "filename":
        name = " ".join(photo.stem.replace("_", " ").split())
        if not name:
            raise ValueError(f"The name of {photo.name} says nothing. Rename it to what the photo shows.")
        return (name,)
    assert dataset.caption_strategy == "textfile", "a dataset of the Hub's kind is made local first"
    path = caption_file(photo)
    return None if path is None else read_captions(path)


def _places(photo: Path) -> list[Path]:
    """Where a photo's captions may lie; the last one is where new ones are written."""
    places = [photo.with_suffix(".txt")]
    if photo.parent.name == "photos":
        places.append(photo.parent.with_name("captions") / f"{photo.stem}.txt")
    return places


def _missing(photos: Sequence[Path], num_photos: int, instead: str) -> ValueError:
    names = ", ".join(photo.name for photo in photos[:_NUM_NAMED])
    have = "has" if len(photos) == 1 else "have"
    more = f" and {len(photos) - _NUM_NAMED} more" if len(photos) > _NUM_NAMED else ""
    return ValueError(
        f"{len(photos)} of {num_photos} photos in {photos[0].parent} {have} no caption file: {names}{more}. "
        f"Write a .txt beside each, such as {photos[0].stem}.txt, or {instead}."
    )


def _check_length(caption: str, source: Path | str) -> None:
    if len(caption) > MAX_CAPTION_CHARACTERS:
        raise ValueError(
            f"A caption of {source} has {len(caption):,} characters, and the limit is "
            f"{MAX_CAPTION_CHARACTERS:,}. Shorten it; text encoders read far less."
        )
