"""Training state without pickles: tensors in safetensors, everything else in JSON."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamspace.files import read_json, replace_file, write_json
from dreamspace.run_folder import step_of

SEPARATOR = "/"

# By the first one a checkpoint is known as one to resume from.
RESUMING_FILES = ("optimizer.safetensors", "optimizer.json", "trained.safetensors")


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as one safetensors file, atomically; shared memory is copied apart first."""
    with replace_file(path) as temporary:
        save_file(
            {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, temporary
        )


def flatten_state(state: Any, prefix: str = "") -> tuple[dict[str, Tensor], Any]:
    """Split nested dicts and lists into their tensors, by path, and the same structure with markers for them.

    A marker is `{"tensor": path}`. A dict becomes a list of pairs, because JSON would turn its integer keys
    into strings; a tuple is told from a list.
    """
    if isinstance(state, Tensor):
        return {prefix: state}, {"tensor": prefix}
    if isinstance(state, dict):
        tensors, entries = {}, []
        for key, value in state.items():
            inner, shape = flatten_state(value, f"{prefix}{SEPARATOR}{key}")
            tensors |= inner
            entries.append([key, shape])
        return tensors, {"dict": entries}
    if isinstance(state, list | tuple):
        tensors, items = {}, []
        for index, value in enumerate(state):
            inner, shape = flatten_state(value, f"{prefix}{SEPARATOR}{index}")
            tensors |= inner
            items.append(shape)
        return tensors, {"list": items, "tuple": isinstance(state, tuple)}
    return {}, {"value": state}


def restore_state(tensors: dict[str, Tensor], shape: Any) -> Any:
    """The inverse of `flatten_state`."""
    if "tensor" in shape:
        return tensors[shape["tensor"]]
    if "dict" in shape:
        return {key: restore_state(tensors, value) for key, value in shape["dict"]}
    if "list" in shape:
        items = [restore_state(tensors, item) for item in shape["list"]]
        return tuple(items) if shape["tuple"] else items
    return shape["value"]


def save_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write `optimizer.safetensors` and `optimizer.json`, from which the optimizer resumes bit-exactly."""
    tensors, shape = flatten_state(optimizer.state_dict())
    save_tensors(tensors, folder / "optimizer.safetensors")
    write_json(folder / "optimizer.json", shape)


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Restore what `save_optimizer` wrote."""
    tensors = load_file(folder / "optimizer.safetensors")
    optimizer.load_state_dict(restore_state(tensors, read_json(folder / "optimizer.json")))


def has_optimizer(folder: Path) -> bool:
    """Whether a checkpoint still holds the state of the optimizer."""
    return (folder / "optimizer.safetensors").exists()


def replace_folder(temporary: Path, folder: Path) -> None:
    """Put a finished folder in the place of `folder`, so that the name never holds a half-written one."""
    outgoing = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(outgoing, ignore_errors=True)
    if folder.exists():
        os.replace(folder, outgoing)
    os.replace(temporary, folder)
    shutil.rmtree(outgoing, ignore_errors=True)


def save_modules(modules: dict[str, nn.Module], folder: Path) -> None:
    """Write the weights of each module as `<name>.safetensors`."""
    for name, module in modules.items():
        save_tensors(module.state_dict(), folder / f"{name}.safetensors")


def load_modules(modules: dict[str, nn.Module], folder: Path) -> None:
    """Restore what `save_modules` wrote, in place."""
    for name, module in modules.items():
        module.load_state_dict(load_file(folder / f"{name}.safetensors"))


def resumable_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints that still hold optimizer state, oldest first.

    Where none does, those that hold weights: a run may begin at such a one of another run.
    """
    found = sorted((run_dir / "checkpoints").glob("step-*/"), key=step_of)
    return [folder for folder in found if has_optimizer(folder)] or found


def prune_optimizers(run_dir: Path, num_kept: int) -> None:
    """Remove what resuming needs of all but the newest checkpoints; their adapters stay, to be compared."""
    for outdated in filter(has_optimizer, resumable_checkpoints(run_dir)[:-num_kept]):
        for name in RESUMING_FILES:
            (outdated / name).unlink(missing_ok=True)


def remove_unfinished(run_dir: Path) -> None:
    """Remove what a killed process left half written; the names of such folders begin with a dot."""
    for folder in [*run_dir.glob(".adapter*"), *(run_dir / "checkpoints").glob(".step-*")]:
        shutil.rmtree(folder)
