"""Training state: bit-exact round trips without pickles, folders that are whole or absent, retention."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dreamspace.run_folder import checkpoint_folder
from dreamspace.training.checkpoints import (
    flatten_state,
    load_modules,
    load_optimizer,
    prune_optimizers,
    remove_unfinished,
    replace_folder,
    restore_state,
    resumable_checkpoints,
    save_modules,
    save_optimizer,
)

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "fused AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, fused=True, betas=(0.8, 0.99)),
    "Adafactor": lambda parameters: torch.optim.Adafactor(parameters, lr=0.01),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "groups": lambda parameters: torch.optim.AdamW(
        [{"params": parameters[:1], "lr": 1 / 3}, {"params": parameters[1:], "weight_decay": 0.1}], lr=0.01
    ),
}


def new_weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(5, 3), (7,)]]


def take_steps(optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_goes_on_bit_exactly(name: str, tmp_path: Path) -> None:
    uninterrupted = new_weights()
    optimizer = OPTIMIZERS[name](uninterrupted)
    take_steps(optimizer, 0, 3)
    save_optimizer(optimizer, tmp_path)
    weights = [nn.Parameter(weight.detach().clone()) for weight in uninterrupted]
    resumed = OPTIMIZERS[name](weights)
    load_optimizer(resumed, tmp_path)
    assert repr(resumed.state_dict()) == repr(optimizer.state_dict())
    take_steps(optimizer, 3, 6)
    take_steps(resumed, 3, 6)
    for weight, expected in zip(weights, uninterrupted, strict=True):
        assert torch.equal(weight, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["optimizer.json", "optimizer.safetensors"]


def test_nested_state_comes_back_as_it_was() -> None:
    state = {0: {"a/b": torch.arange(3), "deep": [torch.ones(1), (1, None, 0.1)]}, "text": {"x": True}}
    tensors, shape = flatten_state(state)
    restored = restore_state(tensors, shape)
    assert repr(restored) == repr(state)
    assert len(tensors) == 2


def test_where_no_checkpoint_has_an_optimizer_those_with_weights_serve(tmp_path: Path) -> None:
    folders = [checkpoint(tmp_path, step) for step in (4, 8)]
    assert resumable_checkpoints(tmp_path) == folders
    (folders[1] / "optimizer.safetensors").unlink()
    assert resumable_checkpoints(tmp_path) == folders[:1]
    (folders[0] / "optimizer.safetensors").unlink()
    assert resumable_checkpoints(tmp_path) == folders


def test_modules_come_back_bit_exactly(tmp_path: Path) -> None:
    modules = {"first": nn.Linear(3, 4), "second": nn.LayerNorm(4)}
    save_modules(modules, tmp_path)
    others = {"first": nn.Linear(3, 4), "second": nn.LayerNorm(4)}
    load_modules(others, tmp_path)
    assert torch.equal(others["first"].weight, modules["first"].weight)


def checkpoint(run_dir: Path, step: int) -> Path:
    folder = checkpoint_folder(run_dir, step)
    folder.mkdir(parents=True)
    for name in ("optimizer.safetensors", "optimizer.json", "pytorch_lora_weights.safetensors"):
        (folder / name).touch()
    return folder


def test_pruning_keeps_every_adapter_and_the_newest_optimizers(tmp_path: Path) -> None:
    steps = [2, 999_999, 1_000_000, 10]
    folders = {step: checkpoint(tmp_path, step) for step in steps}
    prune_optimizers(tmp_path, 2)
    assert resumable_checkpoints(tmp_path) == [folders[999_999], folders[1_000_000]]
    for step in steps:
        assert (folders[step] / "pytorch_lora_weights.safetensors").exists()
    assert not (folders[2] / "optimizer.json").exists()
    assert not (folders[10] / "optimizer.safetensors").exists()


def test_folder_is_replaced_whole_and_leftovers_go(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 4)
    temporary = folder.with_name(".step-000004.new")
    temporary.mkdir()
    (temporary / "state.json").write_text("new")
    replace_folder(temporary, folder)
    assert [path.name for path in folder.iterdir()] == ["state.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["step-000004"]
    (folder.parent / ".step-000006.new").mkdir()
    (tmp_path / ".adapter.new").mkdir()
    remove_unfinished(tmp_path)
    assert [path.name for path in folder.parent.iterdir()] == ["step-000004"]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
