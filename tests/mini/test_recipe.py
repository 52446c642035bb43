"""The recipe's training loop: resumable at any step, with the same result."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dreamspace.mini.recipe import Recipe, clip_stage, shifted, to_pictures, to_pixels
from dreamspace.mini.renders import draw, training_sceneries
from dreamspace.mini.stages import Stage, train_stage
from dreamspace.mini.words import build_tokenizer


def regression(num_steps: int, fails_at: int | None = None) -> Stage:
    torch.manual_seed(0)

    def loss(modules: dict[str, nn.Module], step: int) -> torch.Tensor:
        if step == fails_at:
            raise SystemExit
        inputs = torch.randn(16, 4)  # From torch's own generator, as the VAE's noise is.
        return (modules["model"](inputs) - inputs.sum(1, keepdim=True)).square().mean()

    return Stage("toy", {"model": nn.Linear(4, 1)}, num_steps, 1e-2, loss, lambda modules, path: None)


def test_resumed_stage_equals_an_uninterrupted_one(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("dreamspace.mini.stages.SAVE_EVERY_SECONDS", 0)
    device = torch.device("cpu")
    whole = train_stage(regression(40), tmp_path / "whole", device)["model"]
    with pytest.raises(SystemExit):
        train_stage(regression(40, fails_at=17), tmp_path / "cut", device)
    resumed = train_stage(regression(40), tmp_path / "cut", device)["model"]
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_ctrl_c_saves_and_means_what_it_meant_before(tmp_path: Path):
    stage, device = regression(10), torch.device("cpu")
    loss = stage.loss

    def interrupted(modules: dict[str, nn.Module], step: int) -> torch.Tensor:
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return loss(modules, step)

    stage.loss = interrupted
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit, match="toy is saved at step 5"):
        train_stage(stage, tmp_path, device)
    assert signal.getsignal(signal.SIGINT) == before
    stage.loss = loss
    resumed = train_stage(stage, tmp_path, device)["model"]
    whole = train_stage(regression(10), tmp_path / "whole", device)["model"]
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_pixels_and_pictures_are_inverse():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    pixels = to_pixels(pictures)
    assert pixels.shape == (2, 3, 8, 8)
    assert (to_pictures(pixels) == pictures).all()
    assert shifted(pixels, np.random.default_rng(1)).shape == pixels.shape


def test_clip_learns_from_renders(tmp_path: Path):
    build_tokenizer(tmp_path / "tokenizer")
    from dreamspace.mini.parts import load_tokenizer

    pool = draw(training_sceneries(24), 0)
    recipe = Recipe(tmp_path, pool, torch.device("cpu"))
    torch.manual_seed(0)
    stage = clip_stage(recipe, load_tokenizer(tmp_path / "tokenizer"), num_steps=12, batch_size=24)
    before = stage.loss(stage.modules, 0).item()
    train_stage(stage, tmp_path, recipe.device)
    assert stage.loss(stage.modules, 0).item() < before - 0.3
