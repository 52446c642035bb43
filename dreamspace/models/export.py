"""The `export` job: what was trained, in the formats that others read."""

import shutil
from pathlib import Path
from typing import Any

import torch

from dreamspace.config import RunConfig, read_datasets
from dreamspace.config.exports import check_format
from dreamspace.files import read_json, replace_file, write_json
from dreamspace.hub.base_model import full_size_bytes
from dreamspace.hub.kohya import kohya_file
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.new_run import writable_folder
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.adapters import is_lycoris, load_into_pipeline
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.source import INDEX_FILE
from dreamspace.models.weights import check_weights
from dreamspace.run_folder import WEIGHTS_NAME, token_beside, trained_folder, unfinished, weights_file


def export(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Write what a run trained in a format.

    Args:
        arguments: `run_dir`; `checkpoint` (a step, or null for the final weights) and `ema`; `format`, an
            `ExportFormat`; `out`, a file, or a folder for `merged`. A token that was learned along is written
            beside the file; see `token_path`.

    Raises:
        ValueError: if there is nothing to export, it has no such form, or the disk cannot hold it.
    """
    run_dir, out = Path(arguments["run_dir"]), Path(arguments["out"])
    config = RunConfig.load(run_dir / "config.json")
    check_format(arguments["format"], config)
    source = trained_folder(run_dir, config, arguments.get("checkpoint"), bool(arguments.get("ema")))
    file = weights_file(source)
    check_weights(file)
    _check_out(out)
    if arguments["format"] == "merged":
        events.write("stage", name="saving", message="Merging into the base model.")
        merge(open_model(config, cache_of(job_dir), torch.device("cpu")), source, out)
    else:
        _check_disk(out, file.stat().st_size)
        if arguments["format"] == "kohya":
            datasets = read_datasets(run_dir / "multidatabackend.json")
            with replace_file(out) as temporary:
                temporary.write_bytes(kohya_file(file, config, datasets))
        else:
            with replace_file(out) as temporary:
                shutil.copyfile(file, temporary)
        token_file = token_beside(source)
        if token_file is not None:
            with replace_file(token_path(out)) as temporary:
                shutil.copyfile(token_file, temporary)
    events.write("done", path=out)


def token_path(out: Path) -> Path:
    """Where a learned token is written that belongs to the weights in `out`."""
    return out.with_name(f"{out.stem}-token.safetensors")


def merge(model: BaseModel, source: Path, out: Path) -> None:
    """Write the whole base model with what was trained in it, as a folder for stock pipelines.

    Args:
        out: the folder, which is empty or not there.

    Raises:
        ValueError: if the disk cannot hold the model.
    """
    _check_disk(out, full_size_bytes(model.folder))
    pipeline = model.whole_pipeline()
    load_into_pipeline(pipeline, model.family, source)
    denoiser = getattr(pipeline, model.family.denoiser_part)
    if not (source / WEIGHTS_NAME).is_file():
        pass
    elif is_lycoris(source / WEIGHTS_NAME):
        from dreamspace.models.lycoris import merge_lycoris

        merge_lycoris(denoiser)
    else:
        pipeline.fuse_lora(components=[*pipeline.get_list_adapters()])
        pipeline.unload_lora_weights()
    temporary = unfinished(out)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        pipeline.save_pretrained(temporary)
        _forget_places(temporary)
        if out.exists():
            out.rmdir()
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _forget_places(folder: Path) -> None:
    """Remove from the files of a model where on this machine it was loaded from."""
    for file in (folder / INDEX_FILE, *sorted(folder.glob("*/*config.json"))):
        content = read_json(file)
        kept = {key: value for key, value in content.items() if key not in ("_name_or_path", "name_or_path")}
        if kept != content:
            write_json(file, kept)


def _check_out(out: Path) -> None:
    """Refuse to write over something, or where nothing can be written."""
    writable_folder(out.parent)
    if out.is_file() or (out.is_dir() and (out.suffix == ".safetensors" or any(out.iterdir()))):
        raise ValueError(f"{out} is there already. Remove it, or name another by --out.")


def _check_disk(out: Path, needed_bytes: int) -> None:
    """Refuse to begin what the disk cannot hold."""
    free = shutil.disk_usage(out.parent).free
    if free < needed_bytes * 1.05:
        raise ValueError(
            f"The disk of {out.parent} has {free / 1e6:.0f} MB free and the export needs "
            f"{needed_bytes * 1.05 / 1e6:.0f} MB. Free some space, or choose another disk by --out."
        )
