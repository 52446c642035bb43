"""LoRA: the base model is exactly beneath it, its files load bit-exactly here and in stock diffusers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tiny_models import predict
from tiny_runs import tiny_config

from dreamspace.models.adapters import Adapter, load_into_pipeline, new_adapter
from dreamspace.models.base import BaseModel
from dreamspace.run_folder import WEIGHTS_NAME


def denoiser(model: BaseModel) -> UNet2DConditionModel:
    return model.load_denoiser()


def with_adapter(model: BaseModel, *, strength: float = 0.2, **settings: Any) -> Adapter:
    values = {"lora_rank": 4, "lora_alpha": 3, "lora_dropout": 0.0, "seed": 0} | settings
    adapter = new_adapter(tiny_config(model.folder, **values), model)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter.parameters:
        parameter.data += strength * torch.randn(parameter.shape, generator=generator)
    return adapter


def test_new_adapter_is_the_identity_and_trains_nothing_else(model: BaseModel) -> None:
    base = denoiser(model)
    adapter = with_adapter(model, strength=0.0)
    assert torch.equal(predict(model, adapter.denoiser), predict(model, base))
    trainable = {name for name, p in adapter.denoiser.named_parameters() if p.requires_grad}
    assert len(trainable) == len(adapter.parameters) > 0
    assert all("lora_" in name for name in trainable)
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters)
    (group,) = adapter.parameter_groups
    assert (group.name, group.learning_rate_factor) == ("denoiser", 1.0)
    assert all(map(torch.equal, group.parameters, adapter.parameters))


def test_seed_decides_the_first_matrices(model: BaseModel) -> None:
    adapters = [with_adapter(model, strength=0.0, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (torch.cat([p.flatten() for p in a.parameters]) for a in adapters)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_switched_off_it_equals_the_base_model_and_pefts_own_switch_exactly(model: BaseModel) -> None:
    adapter = with_adapter(model, lora_dropout=0.5)
    adapter.denoiser.eval()
    base, trained = predict(model, denoiser(model)), predict(model, adapter.denoiser)
    assert (trained - base).abs().max() > 1e-2
    with adapter.off():
        ours = predict(model, adapter.denoiser)
    adapter.denoiser.disable_adapters()
    pefts = predict(model, adapter.denoiser)
    adapter.denoiser.enable_adapters()
    assert torch.equal(ours, pefts)
    assert torch.equal(ours, base)
    assert torch.equal(predict(model, adapter.denoiser), trained)


def test_it_is_on_again_after_an_error_and_keeps_requiring_gradients(model: BaseModel) -> None:
    adapter = with_adapter(model)
    trained = predict(model, adapter.denoiser)
    with adapter.off():
        assert all(parameter.requires_grad for parameter in adapter.parameters)
    with pytest.raises(KeyError), adapter.off():
        raise KeyError
    assert torch.equal(predict(model, adapter.denoiser), trained)


def test_saved_weights_come_back_bit_exactly(model: BaseModel, tmp_path: Path) -> None:
    adapter = with_adapter(model)
    adapter.save(tmp_path)
    fresh = with_adapter(model, strength=0.0)
    fresh.load(tmp_path / WEIGHTS_NAME)
    for parameter, saved in zip(fresh.parameters, adapter.parameters, strict=True):
        assert torch.equal(parameter, saved)
        assert parameter.requires_grad
    assert torch.equal(predict(model, fresh.denoiser), predict(model, adapter.denoiser))


def test_weights_of_another_rank_are_refused(model: BaseModel, tmp_path: Path) -> None:
    with_adapter(model).save(tmp_path)
    other = with_adapter(model, lora_rank=8)
    before = [parameter.detach().clone() for parameter in other.parameters]
    with pytest.raises(ValueError, match="does not fit this model and lora_rank: 0 of its"):
        other.load(tmp_path / WEIGHTS_NAME)
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters, strict=True))


def stock_pipeline(model: BaseModel):
    return model.pipeline(denoiser(model), model.load_vae())


def test_stock_loader_keeps_alpha_and_leaves_dropout_behind(model: BaseModel, tmp_path: Path) -> None:
    adapter = with_adapter(model, lora_dropout=0.5)
    adapter.save(tmp_path)
    adapter.denoiser.eval()
    pipeline = stock_pipeline(model)
    load_into_pipeline(pipeline, model.family, tmp_path)
    (loaded,) = pipeline.unet.peft_config.values()
    assert (loaded.r, loaded.lora_alpha) == (4, 3.0)
    torch.testing.assert_close(predict(model, pipeline.unet), predict(model, adapter.denoiser))


def test_saved_file_names_no_folder_of_this_machine(model: BaseModel, tmp_path: Path) -> None:
    with_adapter(model).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS_NAME]
    assert str(model.folder).encode() not in (tmp_path / WEIGHTS_NAME).read_bytes()


def test_adapter_of_another_model_is_refused(model: BaseModel, tmp_path: Path) -> None:
    with_adapter(model).save(tmp_path)
    weights = load_file(tmp_path / WEIGHTS_NAME)
    wrong_shapes, wrong_names = tmp_path / "shapes", tmp_path / "names"
    for folder in (wrong_shapes, wrong_names):
        folder.mkdir()
    doubled = {name: torch.cat([w, w], dim=1 if "lora_A" in name else 0) for name, w in weights.items()}
    save_file(doubled, wrong_shapes / WEIGHTS_NAME)
    renamed = {name.replace("unet.", "transformer."): weight for name, weight in weights.items()}
    save_file(renamed, wrong_names / WEIGHTS_NAME)
    for folder in (wrong_shapes, wrong_names):
        with pytest.raises(ValueError, match=r"does not fit the model\. Give the model that it was"):
            load_into_pipeline(stock_pipeline(model), model.family, folder)


@pytest.mark.parametrize("lora_type", ["loha", "lokr"])
def test_lycoris_loads_what_peft_trained_and_it_resumes(
    model: BaseModel, tmp_path: Path, lora_type: str
) -> None:
    adapter = with_adapter(model, lora_type=lora_type)
    base, trained = predict(model, denoiser(model)), predict(model, adapter.denoiser)
    assert (trained - base).abs().max() > 1e-2
    with adapter.off() as off:
        assert torch.equal(predict(model, off), base)
    with adapter.at_strength(0.5):
        assert not torch.allclose(predict(model, adapter.denoiser), trained, atol=1e-3)
    assert torch.equal(predict(model, adapter.denoiser), trained)
    adapter.save(tmp_path)
    pipeline = model.pipeline(denoiser(model), model.load_vae())
    load_into_pipeline(pipeline, model.family, tmp_path)
    torch.testing.assert_close(predict(model, pipeline.unet), trained, rtol=1e-4, atol=1e-5)
    fresh = with_adapter(model, strength=0.0, lora_type=lora_type)
    torch.testing.assert_close(predict(model, fresh.denoiser), base)
    fresh.load(tmp_path / WEIGHTS_NAME)
    torch.testing.assert_close(predict(model, fresh.denoiser), trained, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="does not fit this model and lora_rank: 0 of its"):
        with_adapter(model, lora_type="lokr" if lora_type == "loha" else "loha").load(tmp_path / WEIGHTS_NAME)


def test_loha_at_alpha_of_its_rank_comes_back_bit_exactly(model: BaseModel, tmp_path: Path) -> None:
    adapter = with_adapter(model, lora_type="loha", lora_alpha=4)
    adapter.save(tmp_path)
    fresh = with_adapter(model, strength=0.0, lora_type="loha", lora_alpha=4)
    fresh.load(tmp_path / WEIGHTS_NAME)
    assert adapter.is_saved_exactly
    assert all(map(torch.equal, fresh.parameters, adapter.parameters))
