"""LyCORIS adapters of every algorithm: exact when switched off, and the same again from their file."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import predict
from tiny_runs import tiny_config
from torch import Tensor

from dreamspace.config import parse_run_config
from dreamspace.config.lycoris import ALGOS_WITH, LycorisAlgo, LycorisConfig
from dreamspace.models.adapters import load_into_pipeline, new_adapter
from dreamspace.models.base import BaseModel
from dreamspace.models.lycoris import Lycoris, lycoris_at_strength, merge_lycoris
from dreamspace.run_folder import WEIGHTS_NAME

ALGOS = LycorisAlgo.__args__
MERGEABLE = sorted(set(ALGOS) - {"tlora"})


def new_lycoris(model: BaseModel, strength: float = 0.05, **settings: Any) -> Lycoris:
    """An adapter that has been trained, as it were."""
    settings = {"linear_dim": 4, "linear_alpha": 2} | settings
    adapter = new_adapter(tiny_config(model.folder, lora_type="lycoris", lycoris_config=settings), model)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter.parameters:
        parameter.data += strength * torch.randn(parameter.shape, generator=generator)
    adapter.denoiser.eval()
    return adapter


@pytest.mark.parametrize("algo", ALGOS)
def test_switched_off_it_equals_the_base_model_and_on_again_itself(model: BaseModel, algo: str) -> None:
    adapter = new_lycoris(model, algo=algo)
    base, trained = predict(model, model.load_denoiser()), predict(model, adapter.denoiser)
    assert (trained - base).abs().max() > 1e-3
    with adapter.off() as denoiser:
        assert torch.equal(predict(model, denoiser), base)
    assert torch.equal(predict(model, adapter.denoiser), trained)


@pytest.mark.parametrize("algo", ALGOS)
def test_new_adapter_changes_nothing_and_trains_nothing_else(model: BaseModel, algo: str) -> None:
    adapter = new_lycoris(model, strength=0.0, algo=algo)
    base = predict(model, model.load_denoiser())
    torch.testing.assert_close(predict(model, adapter.denoiser), base, rtol=1e-4, atol=1e-5)
    names = {name for name, p in adapter.denoiser.named_parameters() if p.requires_grad}
    assert names
    assert all(name.startswith("lycoris.") for name in names)
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters)


@pytest.mark.parametrize("algo", ALGOS)
def test_file_gives_the_same_model_by_lycoris_own_loader(model: BaseModel, algo: str, tmp_path: Path) -> None:
    adapter = new_lycoris(model, algo=algo, multiplier=0.5)
    adapter.save(tmp_path)
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae())
    load_into_pipeline(pipeline, model.family, tmp_path)
    trained = predict(model, adapter.denoiser)
    torch.testing.assert_close(predict(model, pipeline.unet), trained, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algo", ALGOS)
def test_what_is_loaded_can_be_scaled_as_what_was_trained(
    model: BaseModel, algo: str, tmp_path: Path
) -> None:
    adapter = new_lycoris(model, algo=algo, multiplier=0.5)
    adapter.save(tmp_path)
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae())
    load_into_pipeline(pipeline, model.family, tmp_path)
    whole = predict(model, pipeline.unet)
    with adapter.at_strength(1.5), lycoris_at_strength(pipeline.unet, 1.5):
        found, trained = predict(model, pipeline.unet), predict(model, adapter.denoiser)
    torch.testing.assert_close(found, trained, rtol=1e-4, atol=1e-5)
    assert (found - whole).abs().max() > 1e-4
    assert torch.equal(predict(model, pipeline.unet), whole)


@pytest.mark.parametrize("algo", MERGEABLE)
def test_merged_weights_are_those_that_the_adapter_made(model: BaseModel, algo: str, tmp_path: Path) -> None:
    adapter = new_lycoris(model, algo=algo, linear_alpha=12, multiplier=0.5)
    adapter.save(tmp_path)
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae())
    load_into_pipeline(pipeline, model.family, tmp_path)
    merge_lycoris(pipeline.unet)
    assert pipeline.unet.state_dict().keys() == model.load_denoiser().state_dict().keys()
    trained = predict(model, adapter.denoiser)
    torch.testing.assert_close(predict(model, pipeline.unet), trained, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("algo", sorted(set(ALGOS) - {"dylora"}))
def test_new_adapter_takes_up_a_file(model: BaseModel, algo: str, tmp_path: Path) -> None:
    adapter = new_lycoris(model, algo=algo)
    adapter.save(tmp_path)
    fresh = new_lycoris(model, strength=0.0, algo=algo)
    fresh.load(tmp_path / WEIGHTS_NAME)
    for ours, saved in zip(fresh.parameters, adapter.parameters, strict=True):
        torch.testing.assert_close(ours, saved)
    trained = predict(model, adapter.denoiser)
    torch.testing.assert_close(predict(model, fresh.denoiser), trained, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("option", ALGOS_WITH)
@pytest.mark.parametrize("algo", ALGOS)
def test_option_does_something_in_the_algorithms_that_are_said_to_have_it(
    model: BaseModel, algo: str, option: str
) -> None:
    """By LyCORIS itself, past our own check: in which layers, and whether in the numbers of a step."""

    def step(**settings: Any) -> tuple[set[str], Tensor]:
        config = tiny_config(model.folder, lora_type="lycoris", gradient_checkpointing=False)
        lycoris = LycorisConfig(algo=algo, linear_dim=4, linear_alpha=4, **settings)
        adapter = new_adapter(config.model_copy(update={"lycoris_config": lycoris}), model)
        generator = torch.Generator().manual_seed(1)
        for parameter in adapter.parameters:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
        torch.manual_seed(3)
        random.seed(3)  # dylora draws its rank by it
        adapter.denoiser.train()
        return set(adapter.network.state_dict()), predict(model, adapter.denoiser).detach()

    (names, without), (more, given) = step(), step(**{option: 0.5 if "dropout" in option else True})
    works = names != more or not torch.equal(without, given)
    assert works is (algo in ALGOS_WITH[option])


def test_fractional_multiplier_is_kept_and_strength_scales_it(model: BaseModel) -> None:
    whole, half = (new_lycoris(model, algo="lokr", multiplier=multiplier) for multiplier in (1.0, 0.5))
    with whole.at_strength(0.5):
        halved = predict(model, whole.denoiser)
    torch.testing.assert_close(predict(model, half.denoiser), halved)
    assert not torch.allclose(predict(model, whole.denoiser), halved)


def test_preset_of_the_guide_chooses_modules_and_algorithms(model: BaseModel) -> None:
    preset = {
        "target_module": ["Attention", "FeedForward"],
        "module_algo_map": {"Attention": {"factor": 4}, "FeedForward": {"algo": "lora", "dim": 2}},
    }
    adapter = new_lycoris(model, algo="lokr", apply_preset=preset)
    kinds = {layer.lora_name: type(layer).__name__ for layer in adapter.network.loras}
    assert {kind for name, kind in kinds.items() if "attn" in name} == {"LokrModule"}
    assert {kind for name, kind in kinds.items() if "_ff_" in name} == {"LoConModule"}
    plain = new_lycoris(model, algo="lokr")  # nothing of the preset before stays in LyCORIS' class
    targets = tuple(target.replace(".", "_") for target in model.family.lora_targets)
    assert all(layer.lora_name.endswith(targets) for layer in plain.network.loras)
    assert {type(layer).__name__ for layer in plain.network.loras} == {"LokrModule"}


def test_preset_that_fits_nothing_is_refused(model: BaseModel) -> None:
    with pytest.raises(ValueError, match=r"adapts no layer of this sd1x model\. Change target_module"):
        new_lycoris(model, apply_preset={"target_module": ["JointAttention"]})


def test_weights_of_another_algorithm_are_refused(model: BaseModel, tmp_path: Path) -> None:
    new_lycoris(model, algo="loha").save(tmp_path)
    with pytest.raises(ValueError, match="does not fit this model and lycoris_config: 40 of its 200"):
        new_lycoris(model, algo="lokr").load(tmp_path / WEIGHTS_NAME)


def test_full_weights_of_one_layer_come_back_after_each_switch(model: BaseModel) -> None:
    preset = {"name_algo_map": {"*attn1.to_q": {"algo": "full"}}}
    adapter = new_lycoris(model, algo="lokr", apply_preset=preset)
    base, trained = predict(model, model.load_denoiser()), predict(model, adapter.denoiser)
    for _ in range(3):
        with adapter.off() as denoiser:
            assert torch.equal(predict(model, denoiser), base)
        assert torch.equal(predict(model, adapter.denoiser), trained)


def test_file_of_another_alpha_is_refused(model: BaseModel, tmp_path: Path) -> None:
    new_lycoris(model, algo="loha", linear_alpha=2).save(tmp_path)
    with pytest.raises(ValueError, match=r"has alpha 2, and lycoris_config makes it 8\. Set linear_alpha"):
        new_lycoris(model, algo="loha", linear_alpha=8).load(tmp_path / WEIGHTS_NAME)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algo": "dylora", "linear_dim": 10}, r"linear_dim that block_size 4 divides for dylora, got 10\."),
        ({"apply_preset": {"name_algo_map": {"*": {"algo": "bogus"}}}}, r"knows no algo 'bogus' for '\*'"),
        ({"apply_preset": {"name_algo_map": {"*": {"dim": "x"}}}}, r"a number .* as dim for '\*', got 'x'"),
        ({"apply_preset": {"module_algo_map": {"A": {"ranks": 2}}}}, r"has no key 'ranks' for 'A'"),
        ({"algo": "lora2"}, r"algo must be 'lora'"),
        ({"multiplier": float("inf")}, r"multiplier must be a finite number"),
    ],
)  # fmt: skip
def test_wrong_settings_get_a_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_run_config({"lora_type": "lycoris", "lycoris_config": settings})
