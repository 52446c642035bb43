"""T-LoRA: each row of a batch has the ranks of its own timestep, in training, in images and from the file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lycoris.modules.tlora import compute_timestep_mask
from safetensors import safe_open
from tiny_runs import tiny_config
from torch import Tensor, nn

from dreamspace.config import parse_run_config
from dreamspace.config.exports import check_format
from dreamspace.models.adapters import load_into_pipeline, new_adapter
from dreamspace.models.base import BaseModel
from dreamspace.models.lycoris import Lycoris
from dreamspace.models.tlora import ActiveRanks, TLora
from dreamspace.run_folder import WEIGHTS_NAME


def new_tlora(model: BaseModel, **settings: Any) -> Lycoris:
    """A T-LoRA of rank 8 that has been trained, as it were."""
    values = {"algo": "tlora", "linear_dim": 8, "linear_alpha": 8} | settings
    adapter = new_adapter(tiny_config(model.folder, lora_type="lycoris", lycoris_config=values), model)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter.parameters:
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    adapter.denoiser.eval()
    return adapter


def predict_at(model: BaseModel, denoiser: nn.Module, timesteps: list[int]) -> Tensor:
    """Of the same latents in each row."""
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(1, 4, 8, 8, generator=generator).expand(len(timesteps), -1, -1, -1)
    embeds = torch.randn(1, 48, 16, generator=generator).expand(len(timesteps), -1, -1)
    return model.family.predict(denoiser, latents, torch.tensor(timesteps), {"prompt_embeds": embeds})


@pytest.mark.parametrize(("min_rank", "exponent"), [(1, 1.0), (4, 1.0), (2, 2.0)])
def test_the_ranks_are_those_that_lycoris_counts(min_rank: int, exponent: float) -> None:
    ranks, timesteps = ActiveRanks(min_rank, exponent), torch.arange(1000)
    ranks.look(1 - timesteps / 1000)
    expected = [compute_timestep_mask(t, 1000, 16, min_rank, exponent) for t in timesteps.tolist()]
    assert torch.equal(ranks.mask(16), torch.cat(expected))
    assert ranks.mask(16).sum(dim=1)[[0, -1]].tolist() == [16, min_rank]


def test_each_row_learns_with_the_ranks_of_its_own_timestep(model: BaseModel) -> None:
    adapter = new_tlora(model, tlora_min_rank=2)
    adapter.denoiser.train()
    layers = [layer for layer in adapter.network.loras if isinstance(layer, TLora)]
    assert layers

    def learning(timesteps: list[int]) -> set[int]:
        """How many ranks have a gradient."""
        for parameter in adapter.parameters:
            parameter.grad = None
        # Of the last row alone.
        predict_at(model, adapter.denoiser, timesteps)[-1].square().mean().backward()
        return {int((layer.lambda_layer.grad != 0).sum()) for layer in layers}

    assert learning([999]) == learning([0, 999]) == {2}
    assert learning([0]) == learning([999, 0]) == {8}
    together = predict_at(model, adapter.denoiser, [999, 0])
    for row, timestep in zip(together, [999, 0], strict=True):
        torch.testing.assert_close(row, predict_at(model, adapter.denoiser, [timestep])[0])
    with adapter.off() as denoiser, torch.no_grad():
        base = predict_at(model, model.load_denoiser().train(), [999, 0])
        assert torch.equal(predict_at(model, denoiser, [999, 0]), base)


def test_checkpointed_gradients_are_of_the_same_ranks(model: BaseModel) -> None:
    adapter = new_tlora(model)
    adapter.denoiser.train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            adapter.denoiser.enable_gradient_checkpointing()
        for parameter in adapter.parameters:
            parameter.grad = None
        predict_at(model, adapter.denoiser, [900, 300]).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in adapter.parameters])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


@torch.no_grad()
def test_its_file_draws_with_the_same_ranks(model: BaseModel, tmp_path: Path) -> None:
    adapter = new_tlora(model, tlora_min_rank=3, tlora_alpha=2.0, multiplier=0.5)
    adapter.save(tmp_path)
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae())
    load_into_pipeline(pipeline, model.family, tmp_path)
    every_rank = new_tlora(model, tlora_min_rank=8, multiplier=0.5)
    for timesteps in ([999, 0], [500, 700]):
        trained = predict_at(model, adapter.denoiser, timesteps)
        torch.testing.assert_close(predict_at(model, pipeline.unet, timesteps), trained, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(predict_at(model, every_rank.denoiser, timesteps)[0], trained[0], atol=1e-4)
    with safe_open(tmp_path / WEIGHTS_NAME, framework="pt") as opened:
        assert opened.metadata()["tlora_min_rank"] == "3"


@torch.no_grad()
def test_half_precision_keeps_what_was_learned(model: BaseModel) -> None:
    adapter = new_tlora(model)
    generator = torch.Generator().manual_seed(3)
    layer = next(layer for layer in adapter.network.loras if isinstance(layer, TLora))
    x = torch.randn(1, 5, layer.shape[1], generator=generator)
    adapter_ranks = layer.ranks
    adapter_ranks.look(torch.ones(1))
    for name in ("p_layer.weight", "q_layer.weight", "lambda_layer"):
        start = {"p_layer.weight": "base_p", "q_layer.weight": "base_q", "lambda_layer": "base_lambda"}[name]
        parameter = layer.get_parameter(name)
        parameter.copy_(layer.get_buffer(start) * (1 + 1e-4))
    exact = layer.bypass_forward_diff(x)
    half = layer.bypass_forward_diff(x.bfloat16()).float()
    assert (half - exact).norm() < 0.02 * exact.norm()


def test_a_merged_model_is_refused_and_so_are_more_ranks_than_there_are() -> None:
    settings = {"lora_type": "lycoris", "lycoris_config": {"algo": "tlora"}}
    with pytest.raises(ValueError, match=r"has no form 'merged'\. Choose lycoris\."):
        check_format("merged", parse_run_config(settings))
    settings["lycoris_config"] |= {"linear_dim": 4, "tlora_min_rank": 5}
    with pytest.raises(ValueError, match=r"a tlora_min_rank of at most linear_dim 4, got 5\."):
        parse_run_config(settings)
