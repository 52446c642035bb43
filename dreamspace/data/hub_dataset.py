"""Datasets of the Hugging Face Hub, written once as a folder of photos, so that all else sees a local one."""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from dreamspace.config import DatasetConfig, is_hub_id
from dreamspace.data.photos import PhotoError, read_photo
from dreamspace.files import read_json, write_json
from dreamspace.suggest import nearest

# The library's builders that hold pictures; others of them would open whatever file a stranger wrote.
_BUILDERS = ("arrow", "imagefolder", "parquet", "webdataset")
_ON_HUB = re.compile(r"(zip://[^:]*::)?hf://[^:]*")
_COPY_FILE = "copy.json"


def local_copy(
    dataset: DatasetConfig, cache: Path, on_progress: Callable[[int], None] | None = None
) -> tuple[DatasetConfig, list[str]]:
    """A dataset of type `huggingface` as a local one, and a warning for each picture that is left out.

    Pictures become `<row>.png` and their captions `<row>.txt` in a folder of `cache`, which is written once
    for each dataset, version, split and columns. A row of photos and the same row of masks share their name.

    Args:
        dataset: any; a local one is returned as it is.
        on_progress: called with the number of pictures written so far.

    Raises:
        ValueError: if the package datasets is not installed, the dataset, split or column does not exist,
            the Hub cannot be reached, or no picture can be read.
    """
    if dataset.type == "local" or dataset.dataset_name is None:
        return dataset, []
    with _errors_as_sentences(dataset):
        builder = _builder(dataset, cache)
        folder = cache / _folder_name(dataset, builder)
        if not (folder / _COPY_FILE).is_file():
            _write_copy(dataset, _rows(dataset, builder), folder, on_progress)
    strategy = "textfile" if dataset.caption_strategy == "huggingface" else dataset.caption_strategy
    changes = {"type": "local", "instance_data_dir": folder, "caption_strategy": strategy}
    return dataset.model_copy(update=changes), read_json(folder / _COPY_FILE)["warnings"]


@contextmanager
def _errors_as_sentences(dataset: DatasetConfig) -> Iterator[None]:
    name = f"Dataset '{dataset.id}' ({dataset.dataset_name})"
    try:
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise ValueError(
            f"{name} is of type 'huggingface', which needs the package datasets. "
            "Install it with: pip install datasets"
        ) from None
    try:
        yield
    except (FileNotFoundError, HFValidationError):
        if Path(dataset.dataset_name).expanduser().is_dir():
            raise ValueError(f"{name} is a folder without pictures or tables. Check dataset_name.") from None
        raise ValueError(
            f"{name} is neither a folder nor on the Hub, or it is private and HF_TOKEN may not read it. "
            "Check dataset_name."
        ) from None
    except (ConnectionError, HfHubHTTPError, httpx2.TransportError):
        raise ValueError(
            f"{name} cannot be fetched: the Hub does not answer. Check the network, or name a folder."
        ) from None
    except RuntimeError as error:
        if "scripts" not in str(error):  # a dataset that is a script, which nobody should run
            raise
        raise ValueError(f"{name} cannot be read: {str(error).splitlines()[0]}") from error
    except DatasetsError as error:
        raise ValueError(f"{name} cannot be read: {str(error).splitlines()[0]}") from error


def _builder(dataset: DatasetConfig, cache: Path) -> Any:
    from datasets import load_dataset_builder

    folder = Path(dataset.dataset_name).expanduser()
    if not folder.is_dir() and not is_hub_id(dataset.dataset_name):
        raise FileNotFoundError(dataset.dataset_name)
    name = str(folder.resolve()) if folder.is_dir() else dataset.dataset_name
    builder = load_dataset_builder(name, cache_dir=str(cache / "builders"))
    kind = type(builder).__module__.split(".")[-1]
    if kind not in _BUILDERS:
        raise ValueError(
            f"Dataset '{dataset.id}' ({dataset.dataset_name}) holds {kind} files, and pictures are read from "
            f"{', '.join(_BUILDERS)} only. Name another dataset."
        )
    return builder


def _folder_name(dataset: DatasetConfig, builder: Any) -> str:
    """The name of the copy's folder; the builder's hash follows the files, or the commit on the Hub."""
    columns = dataset.huggingface
    parts = (dataset.dataset_name, builder.config_id, builder.hash, dataset.split, dataset.max_num_samples)
    key = repr((*parts, columns.image_column, columns.caption_column))
    return f"{builder.dataset_name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _rows(dataset: DatasetConfig, builder: Any) -> Iterator[tuple[dict[str, Any] | None, str | list[str]]]:
    """The encoded picture and the caption of each row, streamed: no more is fetched than is used."""
    from datasets import Image, Value

    splits = builder.as_streaming_dataset()
    if dataset.split not in splits:
        raise ValueError(
            f"Dataset '{dataset.id}' has no split '{dataset.split}'.{nearest(dataset.split, splits)} "
            f"Its splits: {', '.join(splits)}."
        )
    stream = splits[dataset.split]
    picture, caption = dataset.huggingface.image_column, dataset.huggingface.caption_column
    for column in (picture, caption):
        if column is not None and column not in stream.features:
            raise ValueError(
                f"Dataset '{dataset.id}' has no column '{column}'.{nearest(column, stream.features)} "
                f"Its columns: {', '.join(stream.features)}."
            )
    if not isinstance(stream.features[picture], Image) and stream.features[picture] != Value("binary"):
        raise ValueError(
            f"Column '{picture}' of dataset '{dataset.id}' holds no pictures. Set huggingface.image_column."
        )
    stream = stream.cast_column(picture, Image(decode=False))
    return ((row[picture], (row[caption] or "") if caption else "") for row in stream)


def _write_copy(
    dataset: DatasetConfig,
    rows: Iterator[tuple[dict[str, Any] | None, str | list[str]]],
    folder: Path,
    on_progress: Callable[[int], None] | None,
) -> None:
    """Write all rows into a folder that gets its name when it is whole."""
    is_folder = Path(dataset.dataset_name).expanduser().is_dir()
    warnings, num_written = [], 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as temporary:
        unfinished = Path(temporary) / folder.name
        unfinished.mkdir()
        for number, (picture, caption) in enumerate(rows):
            path = unfinished / f"{number:06d}.png"
            try:
                _write_picture(picture, path, is_folder)
            except PhotoError as error:
                warnings.append(f"Left out row {number} of '{dataset.id}': {error.reason}")
                continue
            lines = [caption] if isinstance(caption, str) else caption
            text = "\n".join(" ".join(line.split()) for line in lines)
            if text.strip():
                path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
            num_written += 1
            if on_progress is not None:
                on_progress(num_written)
            if num_written == dataset.max_num_samples:
                break
        if num_written == 0:
            reason = f" {warnings[0]}" if warnings else ""
            raise ValueError(f"Dataset '{dataset.id}' ({dataset.dataset_name}) holds no picture.{reason}")
        write_json(unfinished / _COPY_FILE, {"dataset_name": dataset.dataset_name, "warnings": warnings})
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)


def _write_picture(picture: dict[str, Any] | None, path: Path, is_folder: bool) -> None:
    """Write one picture as PNG; raises PhotoError if there is none, or it cannot be used as a photo.

    Args:
        picture: as the library has it, `bytes` or the `path` where they lie.
        is_folder: the dataset is a folder here. One from the Hub must not name files of this machine.
    """
    import fsspec

    content = picture and picture["bytes"]
    if picture and content is None and picture["path"] and (is_folder or _ON_HUB.fullmatch(picture["path"])):
        with fsspec.open(picture["path"], "rb") as file:
            content = file.read()
    if not content:
        raise PhotoError(path.name, "it holds no picture.")
    encoded = path.with_suffix(".encoded")
    encoded.write_bytes(content)
    try:
        image, _ = read_photo(encoded)
    finally:
        encoded.unlink()
    image.save(path, compress_level=1)
