"""Group offloading: the same training, with the weights of one block at a time beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_runs import CLASS_PROMPT, INSTANCE_PROMPT, events_of, tiny_config, train_here, write_run_folder
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from dreamspace.config import DatasetConfig, RunConfig, parse_run_config
from dreamspace.jobs.events import EventWriter
from dreamspace.models import offloading
from dreamspace.models.adapters import new_adapter
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.generate import generate
from dreamspace.models.offloading import blocks
from dreamspace.run_folder import WEIGHTS_NAME, step_name

CPU = torch.device("cpu")
SIZE = {"resolution": 64, "resolution_type": "pixel", "crop": True}
OFFLOADED = {"enable_group_offload": True, "gradient_checkpointing": True}


@pytest.fixture
def opened(tiny_model: Path, tmp_path: Path) -> Callable[..., BaseModel]:
    return lambda **settings: open_model(tiny_config(tiny_model, **settings), tmp_path / "cache", CPU)


def predict(model: BaseModel, denoiser: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    width = denoiser.config.cross_attention_dim
    conditioning = {"prompt_embeds": torch.randn(2, 48, width, generator=generator)}
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    return model.family.predict(denoiser, latents, torch.tensor([10, 700]), conditioning)


def learned(model: BaseModel, **settings: Any) -> tuple[Tensor, list[Tensor]]:
    """A prediction with an adapter that is not the identity, and the gradients of its square."""
    adapter = new_adapter(tiny_config(model.folder, lora_dropout=0.0, **settings), model)
    if settings.get("gradient_checkpointing"):
        adapter.denoiser.enable_gradient_checkpointing()
    for parameter in adapter.parameters:
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    adapter.denoiser.train()
    prediction = predict(model, adapter.denoiser)
    prediction.square().mean().backward()
    return prediction.detach(), [parameter.grad for parameter in adapter.parameters]


def own_weights(block: nn.Module) -> dict[str, Tensor]:
    return dict(block.named_parameters()) | dict(block.named_buffers())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_dora": True},
        {"lora_type": "lycoris", "lycoris_config": {"algo": "lokr"}},
        {"lora_type": "lycoris", "lycoris_config": {"algo": "full"}},
    ],
    ids=["lora", "dora", "lokr", "full"],
)
def test_adapters_learn_the_same_above_offloaded_blocks(
    opened: Callable[..., BaseModel], settings: dict[str, Any]
) -> None:
    expected = learned(opened(), **settings)
    found = learned(opened(**OFFLOADED), **settings, gradient_checkpointing=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert all(gradient.abs().sum() > 0 for gradient in found[1])


def test_weights_are_elsewhere_while_their_block_runs_and_in_their_places_afterwards(
    opened: Callable[..., BaseModel],
) -> None:
    model = opened(**OFFLOADED)
    adapter = new_adapter(tiny_config(model.folder), model)
    denoiser = adapter.denoiser.train()
    resting = [own_weights(block) for block in blocks(denoiser)]
    seen: dict[nn.Module, dict[str, Tensor]] = {}
    for block in blocks(denoiser):
        block.register_forward_pre_hook(lambda block, _: seen.update({block: own_weights(block)}))
    predict(model, denoiser)
    assert len(seen) == len(resting) == 12
    for block, before in zip(blocks(denoiser), resting, strict=True):
        after = own_weights(block)
        for name, weight in before.items():
            assert after[name] is weight
            assert (seen[block][name] is weight) == weight.requires_grad, "what is trained stays in place"
    outside = {id(weight) for weight in denoiser.parameters()}
    outside -= {id(weight) for weights in resting for weight in weights.values()}
    assert id(next(denoiser.parameters())) in outside, "by which pipelines tell the denoiser's device"


@pytest.mark.parametrize("checkpointing", [True, False])
def test_checkpointed_blocks_are_on_the_device_one_at_a_time(
    opened: Callable[..., BaseModel], checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(**OFFLOADED)
    adapter = new_adapter(tiny_config(model.folder, lora_dropout=0.0), model)
    denoiser = adapter.denoiser.train()
    if checkpointing:
        denoiser.enable_gradient_checkpointing()
    copies: list[tuple[StorageWeakRef, int]] = []
    peaks: list[int] = []
    copied = offloading._on

    def watched(weight: Tensor, device: torch.device) -> Tensor:
        found = copied(weight, device)
        copies.append((StorageWeakRef(found.untyped_storage()), found.numel()))
        peaks.append(sum(size for storage, size in copies if not storage.expired()))
        return found

    monkeypatch.setattr(offloading, "_on", watched)
    predict(model, denoiser).square().mean().backward()
    frozen = [[w for w in own_weights(block).values() if not w.requires_grad] for block in blocks(denoiser)]
    sizes = [sum(weight.numel() for weight in weights) for weights in frozen]
    if checkpointing:
        # But for the first block, which has no adapter before or in it, each runs again.
        assert len(peaks) == 2 * sum(map(len, frozen)) - len(frozen[0])
        assert max(peaks) <= 2 * max(sizes) < sum(sizes)
    else:
        assert max(peaks) > 0.8 * sum(sizes), "all wait for the backward pass"


def test_run_trains_and_draws_the_same(
    tiny_model: Path, photos: Path, class_photos: Path, tmp_path: Path
) -> None:
    """With all that calls the denoiser: teacher, rollout, validation, the proof, and drawing afterwards."""
    settings = {
        "max_train_steps": 3,
        "gradient_accumulation_steps": 1,
        "scheduled_sampling_max_step_offset": 2,
        "scheduled_sampling_probability": 1.0,
        "validation_prompts": [],
    }
    losses, adapters, images = [], [], []
    for name in ("whole", "offloaded"):
        run_dir = tmp_path / "runs" / name
        offloads = {"enable_group_offload": name == "offloaded", "gradient_checkpointing": True}
        datasets = [
            DatasetConfig(id="subject", instance_data_dir=photos, instance_prompt=INSTANCE_PROMPT, **SIZE),
            DatasetConfig(
                id="class",
                instance_data_dir=class_photos,
                instance_prompt=CLASS_PROMPT,
                is_regularisation_data=True,
                regularisation_target="base",
                **SIZE,
            ),
        ]
        write_run_folder(run_dir, tiny_model, datasets, **settings | offloads)
        train_here(run_dir)
        assert events_of(run_dir, "done")
        losses.append([event["loss"] for event in events_of(run_dir, "loss")])
        adapters.append(load_file(run_dir / "adapter" / WEIGHTS_NAME))
        job_dir = tmp_path / "jobs" / name
        job_dir.mkdir(parents=True)
        arguments = {"run_dir": str(run_dir), "prompts": [INSTANCE_PROMPT], "seed": 42}
        generate(job_dir, arguments, EventWriter(job_dir))
        images.append(np.asarray(Image.open(job_dir / "images" / "0.png"), np.int16))
        drawn = Image.open(run_dir / "validation" / step_name(3) / "0.png")
        assert np.abs(np.asarray(drawn, np.int16) - images[-1]).max() <= 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    torch.testing.assert_close(adapters[1], adapters[0], rtol=1e-3, atol=1e-4)
    assert np.abs(images[1] - images[0]).max() <= 1


def test_what_cannot_be_offloaded_is_refused() -> None:
    with pytest.raises(ValueError, match="model_type 'full' trains them"):
        parse_run_config(OFFLOADED | {"model_type": "full"})
    with pytest.raises(ValueError, match="Set gradient_checkpointing to true"):
        parse_run_config({"enable_group_offload": True})
    assert RunConfig(**OFFLOADED).enable_group_offload
