"""Quantised base models: near the whole ones, as small as they should be, and trained over like them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft.tuners.lora import LoraLayer
from PIL import Image
from safetensors.torch import load_file
from tiny_models import build_stable_diffusion, unet
from tiny_runs import (
    INSTANCE_PROMPT,
    QUICK,
    draw_photos,
    events_of,
    hide_packages,
    tiny_config,
    train_here,
    write_run_folder,
)
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dreamspace.config import RunConfig, parse_run_config
from dreamspace.config.lycoris import ALGOS_WITH_PAST_WEIGHTS, BYPASSING_ALGOS, LycorisConfig
from dreamspace.config.precision import QUANTISED, WHOLE_AGAIN, Precision, unsupported
from dreamspace.data.cache import pixels_of
from dreamspace.jobs.events import EventWriter
from dreamspace.models import class_images
from dreamspace.models.adapters import load_into_pipeline, new_adapter
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.class_images import draw_class_images
from dreamspace.models.family import stack_conditioning
from dreamspace.models.generate import generate
from dreamspace.models.precision import FrozenLinear, quantise, quantised_layers
from dreamspace.models.prior import prior
from dreamspace.models.sampling import SamplingSettings, sample_images
from dreamspace.run_folder import WEIGHTS_NAME
from dreamspace.training.objective import per_sample_loss
from dreamspace.training.proof import grey_levels_apart
from dreamspace.training.ranks import keep_frozen_weights
from dreamspace.training.schedule import noise_schedule
from dreamspace.worker import SLOW_PACKAGES

CPU = torch.device("cpu")
EDGE, WIDTH = 64, 64
NUM_STEPS, SAVED_STEP = 14, 7


class Level(NamedTuple):
    """What is expected of a level.

    Attributes:
        max_error: of a prediction of the tiny UNet, relative to the whole one's. Quanto quantises its
            convolutions too.
        max_text_error: of prompt embeddings, as relative.
        bits: that a weight takes, scales not counted.
        max_scale_bits: that its share of scales takes, over a bf16 model of 64 and more inputs.
        max_loss: of an adapter's effect on an image, where it is put on the whole base model.
    """

    max_error: float
    max_text_error: float
    bits: int
    max_scale_bits: float
    max_loss: float


LEVELS: dict[Precision, Level] = {
    "int8-quanto": Level(0.02, 0.025, 8, 0.5, 0.05),
    "int4-quanto": Level(0.25, 0.25, 4, 0.7, 0.3),
    "int2-quanto": Level(0.9, 1.0, 2, 0.7, 0.9),
    "fp8-quanto": Level(0.1, 0.07, 8, 0.5, 0.15),
    "fp8-torchao": Level(0.02, 0.07, 8, 1.0, 0.05),
    "int8-torchao": Level(0.004, 0.02, 8, 1.0, 0.02),
    "int4-torchao": Level(0.05, 0.25, 4, 1.0, 0.1),
    "nf4-bnb": Level(0.06, 0.25, 4, 0.5, 0.15),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Stable Diffusion whose layers have 64 inputs and more, as every level can quantise them."""
    folder = build_stable_diffusion(tmp_path_factory.mktemp("base"), hidden_size=WIDTH)
    torch.manual_seed(1)
    unet(block_out_channels=(WIDTH, WIDTH), cross_attention_dim=WIDTH).save_pretrained(folder / "unet")
    return folder


@pytest.fixture(scope="module")
def opened(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., BaseModel]:
    """Opens the model with these settings; all share a cache."""
    cache = tmp_path_factory.mktemp("cache")
    return lambda **settings: open_model(tiny_config(base, **settings), cache, CPU)


def predict(model: BaseModel, denoiser: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, 8, 8, generator=generator).to(model.dtype)
    conditioning = {"prompt_embeds": torch.randn(2, 48, WIDTH, generator=generator).to(model.dtype)}
    return model.family.predict(denoiser, latents, torch.tensor([10, 700]), conditioning)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def num_bytes(tensor: Tensor) -> int:
    """What is kept of a tensor, of its parts where it has some; bitsandbytes keeps its scales aside."""
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(num_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("precision", LEVELS)
def test_prediction_is_near_the_whole_models(opened: Callable[..., BaseModel], precision: Precision) -> None:
    whole, model = opened(), opened(base_model_precision=precision)
    with torch.no_grad():
        expected = predict(whole, whole.load_denoiser())
        errors = [relative_error(predict(model, model.load_denoiser()), expected)]
        on_cpu = opened(base_model_precision=precision, quantize_via="cpu")
        errors.append(relative_error(predict(on_cpu, on_cpu.load_denoiser()), expected))
    assert errors[0] == errors[1]
    assert 1e-4 < errors[0] < LEVELS[precision].max_error


@pytest.mark.parametrize("precision", LEVELS)
def test_offloaded_base_teaches_an_adapter_the_same(
    opened: Callable[..., BaseModel], precision: Precision
) -> None:
    found = []
    for is_offloaded in (False, True):
        settings = {
            "base_model_precision": precision,
            "gradient_checkpointing": True,
            "enable_group_offload": is_offloaded,
        }
        model = opened(**settings)
        adapter = new_adapter(tiny_config(model.folder, lora_dropout=0.0, **settings), model)
        adapter.denoiser.train().enable_gradient_checkpointing()
        for _ in range(2):  # A second time with the weights that were put back.
            prediction = predict(model, adapter.denoiser)
            prediction.square().mean().backward()
        found.append((prediction.detach(), [parameter.grad for parameter in adapter.parameters]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-7)
    assert any(gradient.abs().sum() > 0 for gradient in found[1][1])


@pytest.mark.parametrize("precision", LEVELS)
@pytest.mark.parametrize("part", ["base_model", "text_encoder_1"])
def test_configuration_names_the_slow_packages_that_a_level_imports(
    opened: Callable[..., BaseModel], precision: Precision, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {f"{part}_precision": precision}
    hide_packages(SLOW_PACKAGES - RunConfig(**settings).packages, monkeypatch)
    model = opened(**settings)
    model.load_denoiser() if part == "base_model" else model.load_text_encoders()


@pytest.mark.parametrize("precision", LEVELS)
def test_text_encoder_is_quantised_and_its_embeddings_stay_near(
    opened: Callable[..., BaseModel], precision: Precision
) -> None:
    model = opened(text_encoder_1_precision=precision)
    pipeline = model.load_text_encoders()
    assert quantised_layers(pipeline.text_encoder, precision, torch.float32) == [], "none is left"
    assert not any(parameter.requires_grad for parameter in pipeline.text_encoder.parameters())
    with torch.no_grad():
        (found,) = model.family.encode_prompts(pipeline, ["a dog"])
    expected = opened().encode_prompts(["a dog"])["a dog"]["prompt_embeds"]
    error = relative_error(found["prompt_embeds"], expected)
    assert 1e-4 < error < LEVELS[precision].max_text_error


@pytest.mark.parametrize("precision", [level for level in LEVELS if level.endswith("quanto")])
def test_transposed_pictures_go_through_a_quantised_layer_in_bf16(precision: Precision) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(WIDTH, WIDTH, dtype=torch.bfloat16)))
    pictures = torch.randn(1, WIDTH, 4, 4, dtype=torch.bfloat16)
    transposed = pictures.permute(0, 2, 3, 1).reshape(1, 16, WIDTH)  # as SDXL hands them to its `proj_in`
    assert not transposed.is_contiguous()
    expected = model(transposed)
    quantise(model, precision, torch.bfloat16, CPU, CPU)
    assert relative_error(model(transposed).float(), expected.float()) < LEVELS[precision].max_error


@pytest.mark.parametrize("precision", LEVELS)
def test_weights_take_the_memory_of_their_level(
    opened: Callable[..., BaseModel], precision: Precision
) -> None:
    whole = opened(mixed_precision="bf16").load_denoiser()
    quantised = opened(mixed_precision="bf16", base_model_precision=precision).load_denoiser()
    layers = quantised_layers(whole, precision, torch.bfloat16)
    share = sum(layer.weight.numel() for _, layer in layers) / sum(p.numel() for p in whole.parameters())
    assert share > (0.9 if precision.endswith("quanto") else 0.2), (
        "linear layers, and for quanto all but a few"
    )
    for name, layer in layers:
        bits = 8 * num_bytes(quantised.get_submodule(name).weight) / layer.weight.numel()
        assert LEVELS[precision].bits <= bits <= LEVELS[precision].bits + LEVELS[precision].max_scale_bits
    rest = sum(num_bytes(p) for p in quantised.parameters()) - sum(
        num_bytes(quantised.get_submodule(name).weight) for name, _ in layers
    )
    assert rest == 2 * (sum(p.numel() for p in whole.parameters()) - sum(x.weight.numel() for _, x in layers))


def test_rim_embeddings_and_what_groups_do_not_fit_stay_whole(opened: Callable[..., BaseModel]) -> None:
    denoiser = opened().load_denoiser()
    names = {name for name, _ in quantised_layers(denoiser, "int8-quanto", torch.float32)}
    layers = {name for name, layer in denoiser.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    assert layers - names == {"conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}
    linear = {name for name, _ in quantised_layers(denoiser, "int8-torchao", torch.float32)}
    assert linear == {name for name in names if isinstance(denoiser.get_submodule(name), nn.Linear)}
    block = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(32, 64), nn.Linear(48, 64), nn.Linear(64, 5)])})
    fitting = {
        precision: [layer.in_features for _, layer in quantised_layers(block, precision, torch.float32)]
        for precision in LEVELS
    }
    assert fitting["int8-torchao"] == fitting["fp8-quanto"] == [32, 48, 64]
    assert fitting["int4-torchao"] == fitting["int2-quanto"] == [32, 64]
    assert fitting["nf4-bnb"] == [64]
    assert quantised_layers(block, "int8-quanto", torch.bfloat16) == [], "what is kept in another format"


def test_fingerprints_tell_levels_apart(opened: Callable[..., BaseModel]) -> None:
    whole, model = opened(), opened(base_model_precision="int8-quanto")
    assert model.fingerprint != whole.fingerprint
    assert model.text_fingerprint == whole.text_fingerprint
    text = opened(text_encoder_1_precision="int8-quanto")
    assert text.text_fingerprint != whole.text_fingerprint
    embeddings = [each.encode_prompts(["a dog"])["a dog"]["prompt_embeds"] for each in (whole, text, whole)]
    assert torch.equal(embeddings[0], embeddings[2])
    assert not torch.equal(embeddings[0], embeddings[1]), "they are cached apart"
    assert opened(text_encoder_2_precision="int8-quanto").fingerprint == whole.fingerprint, (
        "it has one encoder"
    )
    assert len({opened(base_model_precision=level).fingerprint for level in QUANTISED}) == len(QUANTISED)


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
@pytest.mark.parametrize("precision", LEVELS)
def test_lora_alone_is_trained_in_fp32_and_without_it_the_base_is_exact(
    opened: Callable[..., BaseModel], precision: Precision, mixed_precision: str
) -> None:
    settings = {"base_model_precision": precision, "mixed_precision": mixed_precision}
    model = opened(**settings)
    adapter = new_adapter(tiny_config(model.folder, lora_dropout=0.0, **settings), model)
    layers = [module for module in adapter.denoiser.modules() if isinstance(module, LoraLayer)]
    assert len(layers) > 20
    assert not any(type(layer.get_base_layer()) is nn.Linear for layer in layers), "all are quantised"
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters)
    trained = {name for name, p in adapter.denoiser.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in trained)
    for parameter in adapter.parameters:
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    adapter.denoiser.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision == "bf16"):
        predict(model, adapter.denoiser).float().square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters)
    adapter.denoiser.eval()
    with torch.no_grad(), adapter.off() as denoiser:
        assert torch.equal(predict(model, denoiser), predict(model, model.load_denoiser()))


@pytest.mark.parametrize("lora_type", ["loha", "lokr"])
@pytest.mark.parametrize("precision", [level for level in LEVELS if level != "nf4-bnb"])
def test_pefts_loha_and_lokr_are_trained_over_it(
    opened: Callable[..., BaseModel], precision: Precision, lora_type: str
) -> None:
    settings = {"base_model_precision": precision, "lora_type": lora_type, "lora_dropout": 0.0}
    model = opened(**settings)
    adapter = new_adapter(tiny_config(model.folder, **settings), model)
    for parameter in adapter.parameters:
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    predict(model, adapter.denoiser).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters)
    with torch.no_grad(), adapter.off() as denoiser:
        assert torch.equal(predict(model, denoiser), predict(model, model.load_denoiser()))


@pytest.mark.parametrize("lora_type", ["loha", "lokr"])
def test_pefts_loha_and_lokr_on_nf4_are_refused(lora_type: str) -> None:
    with pytest.raises(ValueError, match="cannot be put on weights in base_model_precision 'nf4-bnb'"):
        RunConfig(lora_type=lora_type, base_model_precision="nf4-bnb")


@pytest.mark.parametrize("precision", [level for level in LEVELS if level.endswith("torchao")])
def test_no_whole_weight_is_kept_for_the_backward_pass(
    opened: Callable[..., BaseModel], precision: Precision
) -> None:
    model = opened(base_model_precision=precision)
    denoiser = model.load_denoiser()
    layer = next(module for module in denoiser.modules() if isinstance(module, FrozenLinear))
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    inputs = torch.randn(3, layer.in_features, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = layer(inputs)
    assert [type(tensor) for tensor in kept] == [type(layer.weight.data)]
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    expected = layer.weight.dequantize().sum(dim=0).expand_as(gradient)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


class Trained(NamedTuple):
    """A finished run over a quantised base, and the base whole."""

    precision: Precision
    run_dir: Path
    photos: Path
    whole: BaseModel

    @property
    def config(self) -> RunConfig:
        return RunConfig.load(self.run_dir / "config.json")

    @property
    def quantised(self) -> BaseModel:
        return open_model(self.config, self.whole.cache, CPU)

    def validation(self, step: int) -> Image.Image:
        return Image.open(self.run_dir / "validation" / f"step-{step:06d}" / "0.png")


@pytest.fixture(scope="module", params=LEVELS)
def trained(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """14 steps on one photo by the real job, which proves the adapter on a fresh quantised base."""
    folder = tmp_path_factory.mktemp(request.param)
    photos, run_dir = draw_photos(folder / "photos", 1), folder / "runs" / "first"
    settings = QUICK | {
        "base_model_precision": request.param,
        "train_batch_size": 1,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "snr_gamma": None,
        "max_train_steps": NUM_STEPS,
        "checkpoint_step_interval": SAVED_STEP,
        "validation_disable": False,
        "validation_preview": False,
        "validation_guidance": 1.0,
    }
    write_run_folder(run_dir, base, photos, **settings)
    train_here(run_dir)
    whole = open_model(tiny_config(base), folder / "cache", CPU)
    return Trained(request.param, run_dir, photos, whole)


def fixed_losses(model: BaseModel, photo: Path, adapter: Path) -> tuple[float, float]:
    """The loss at fixed noise and timesteps, without the adapter and with it."""
    vae = model.load_vae()
    pipeline = model.pipeline(model.load_denoiser(), vae)
    picture = Image.open(photo).convert("RGB").crop((8, 0, 72, EDGE))
    latents = model.family.encode_image(vae, pixels_of(picture)[None]).expand(8, -1, -1, -1)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    timesteps = torch.linspace(50, 950, 8).long()
    noisy = noise_schedule(model.noise_scheduler()).add_noise(latents, noise, timesteps)
    conditioning = stack_conditioning([model.encode_prompts([INSTANCE_PROMPT])[INSTANCE_PROMPT]] * 8)

    @torch.no_grad()
    def loss() -> float:
        prediction = model.family.predict(pipeline.unet.eval(), noisy, timesteps, conditioning)
        return per_sample_loss(prediction, noise).mean().item()

    before = loss()
    load_into_pipeline(pipeline, model.family, adapter)
    return before, loss()


def test_training_lowers_the_loss(trained: Trained) -> None:
    assert events_of(trained.run_dir, "done")
    assert events_of(trained.run_dir, "warning") == []
    before, after = fixed_losses(trained.quantised, trained.photos / "00.png", trained.run_dir / "adapter")
    assert after < 0.97 * before


def test_resumed_run_is_the_same_to_the_last_bit(trained: Trained) -> None:
    again = trained.run_dir.with_name("again")
    shutil.copytree(trained.run_dir, again)
    shutil.rmtree(again / "adapter")
    shutil.rmtree(again / "checkpoints" / f"step-{NUM_STEPS:06d}")
    shutil.rmtree(again / "validation" / f"step-{NUM_STEPS:06d}")
    (again / "events.jsonl").unlink()
    train_here(again, resume=True)
    losses = {event["step"]: event["loss"] for event in events_of(trained.run_dir, "loss")}
    resumed = {event["step"]: event["loss"] for event in events_of(again, "loss")}
    assert resumed == {step: losses[step] for step in range(SAVED_STEP + 1, NUM_STEPS + 1)}
    ours, expected = (load_file(run / "adapter" / WEIGHTS_NAME) for run in (again, trained.run_dir))
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


def test_adapter_draws_on_the_whole_base_what_the_run_drew(trained: Trained) -> None:
    model, config = trained.whole, trained.config
    conditioning = model.encode_prompts([INSTANCE_PROMPT, ""])
    settings = SamplingSettings(EDGE, EDGE, config.validation_num_inference_steps, 1.0)
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae())

    def draw() -> Image.Image:
        rows = [conditioning[INSTANCE_PROMPT]]
        return sample_images(model.family, pipeline, rows, conditioning[""], [config.seed], settings)[0]

    base = draw()
    load_into_pipeline(pipeline, model.family, trained.run_dir / "adapter")
    on_whole, by_run = draw(), trained.validation(NUM_STEPS)
    effect = grey_levels_apart(base, by_run)
    error = grey_levels_apart(on_whole, by_run)
    assert effect > 2
    assert error < LEVELS[trained.precision].max_loss * effect
    assert error < grey_levels_apart(on_whole, base), "it is nearer to the run's image than to the base's own"


@pytest.mark.parametrize("trained", ["int4-quanto"], indirect=True)
def test_generate_draws_on_the_quantised_base(trained: Trained, tmp_path: Path) -> None:
    job_dir = tmp_path / "jobs" / "generate"
    job_dir.mkdir(parents=True)
    arguments = {"run_dir": str(trained.run_dir), "prompts": [INSTANCE_PROMPT], "seed": trained.config.seed}
    generate(job_dir, arguments, EventWriter(job_dir))
    assert grey_levels_apart(Image.open(job_dir / "images" / "0.png"), trained.validation(NUM_STEPS)) < 0.1


def test_rolled_out_and_taught_by_the_quantised_base(base: Path, tmp_path: Path) -> None:
    """Class images, a teacher and rollouts in one run, over a base whose text encoder is quantised too."""
    class_folder = tmp_path / "priors" / "dog"
    settings = QUICK | {
        "base_model_precision": "int8-quanto",
        "text_encoder_1_precision": "int8-torchao",
        "scheduled_sampling_max_step_offset": 3,
        "scheduled_sampling_probability": 1.0,
    }
    write_run_folder(
        tmp_path / "runs" / "run",
        base,
        draw_photos(tmp_path / "photos", 2),
        draw_photos(class_folder, 2),
        **settings,
    )
    train_here(tmp_path / "runs" / "run")
    assert events_of(tmp_path / "runs" / "run", "done")
    first = events_of(tmp_path / "runs" / "run", "loss")[0]
    assert first["prior_loss"] < 1e-9, "at first the teacher says what the student says"


def test_prior_job_draws_the_class_images_of_a_run_with_its_precision(
    base: Path, opened: Callable[..., BaseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_images, "NUM_INFERENCE_STEPS", 2)
    job_dir, out = tmp_path / "jobs" / "prior", tmp_path / "out"
    job_dir.mkdir(parents=True)
    arguments = {"model": str(base), "prompts": ["a dog"], "count": 2, "seed": 0, "out": str(out)}
    settings = {"base_model_precision": "int4-torchao"}
    prior(job_dir, arguments | {"model_settings": settings}, EventWriter(job_dir))
    drawn = {path.name: path.read_bytes() for path in out.iterdir()}

    def progress(model: BaseModel) -> list[Any]:
        calls: list[Any] = []
        draw_class_images(model, ["a dog"], 2, out, lambda *found: calls.append(found), lambda: False)
        return calls

    assert progress(opened(base_model_precision="int4-torchao")) == [], "they are there already"
    assert progress(opened()) == [(0, 2), (2, 2)]
    others = [path.read_bytes() for path in out.iterdir() if path.name not in drawn]
    assert len(others) == 2
    assert not set(others) & set(drawn.values())


@pytest.mark.parametrize(
    "precision", ["int8-quanto", "fp8-torchao", "int8-torchao", "int4-torchao", "nf4-bnb"]
)
def test_weights_stay_where_they_are_in_a_run_of_several_processes(
    opened: Callable[..., BaseModel], precision: Precision, tmp_path: Path
) -> None:
    model = opened(base_model_precision=precision)
    adapter = new_adapter(tiny_config(model.folder, base_model_precision=precision), model)
    keep_frozen_weights(adapter.denoiser)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rank", rank=0, world_size=1)
    try:
        predict(model, DistributedDataParallel(adapter.denoiser)).square().mean().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert any(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters)


@pytest.mark.parametrize("precision", ["int8-quanto", "int8-torchao", "int4-torchao", "nf4-bnb"])
@pytest.mark.parametrize("algo", ["loha", "lokr"])
def test_lycoris_learns_past_quantised_weights(
    opened: Callable[..., BaseModel], algo: str, precision: Precision, tmp_path: Path
) -> None:
    settings = {
        "base_model_precision": precision,
        "lora_type": "lycoris",
        "lycoris_config": {"algo": algo, "linear_dim": 4, "linear_alpha": 4},
    }
    model = opened(**settings)
    adapter = new_adapter(tiny_config(model.folder, **settings), model)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter.parameters:
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    adapter.denoiser.train()
    predict(model, adapter.denoiser).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters)
    adapter.denoiser.eval()
    adapter.save(tmp_path)
    with torch.no_grad():
        fresh = predict(model, model.load_denoiser())
        with adapter.off() as denoiser:
            assert torch.equal(predict(model, denoiser), fresh)
        by_run = predict(model, adapter.denoiser)
        effect = (by_run - fresh).norm()
        for other, allowed in ((model, 1e-4), (opened(), 0.5)):
            pipeline = other.pipeline(other.load_denoiser(), other.load_vae())
            load_into_pipeline(pipeline, other.family, tmp_path)
            assert (predict(other, pipeline.unet) - by_run).norm() < allowed * effect


@pytest.mark.parametrize("precision", ["int8-quanto", "int8-torchao", "nf4-bnb"])
@pytest.mark.parametrize("algo", sorted(BYPASSING_ALGOS))
def test_dropouts_of_lycoris_act_past_quantised_weights_where_they_are_said_to(
    opened: Callable[..., BaseModel], algo: str, precision: Precision
) -> None:
    model = opened(base_model_precision=precision, lora_type="lycoris")
    config = tiny_config(model.folder, base_model_precision=precision, lora_type="lycoris")

    def step(**settings: Any) -> Tensor:
        lycoris = LycorisConfig(algo=algo, linear_dim=4, linear_alpha=4, **settings)
        adapter = new_adapter(config.model_copy(update={"lycoris_config": lycoris}), model)
        generator = torch.Generator().manual_seed(1)
        for parameter in adapter.parameters:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        torch.manual_seed(3)
        adapter.denoiser.train()
        return predict(model, adapter.denoiser).detach()

    without = step()
    assert torch.equal(step(), without)
    for option in ("dropout", "rank_dropout"):
        works = not torch.equal(step(**{option: 0.5}), without)
        assert works is (algo in ALGOS_WITH_PAST_WEIGHTS[option]), option


def test_what_reads_the_base_models_weights_is_refused() -> None:
    quantised = {"base_model_precision": "int4-quanto"}
    with pytest.raises(ValueError, match="model_type 'full' trains them"):
        parse_run_config({"model_type": "full"} | quantised)
    with pytest.raises(ValueError, match=r"use_dora cannot read .* 'int4-quanto'\. Set it to false, or"):
        parse_run_config({"use_dora": True} | quantised)
    for precision in WHOLE_AGAIN:
        parse_run_config({"use_dora": True, "base_model_precision": precision})
    lycoris = {"lora_type": "lycoris"} | quantised
    for algo in sorted(BYPASSING_ALGOS):
        parse_run_config({"lycoris_config": {"algo": algo}} | lycoris)
    refused = [{"algo": "boft"}, {"algo": "full"}, {"dora_wd": True}]
    refused.append({"apply_preset": {"module_algo_map": {"Attention": {"algo": "ia3"}}}})
    for settings in refused:
        with pytest.raises(ValueError, match="LyCORIS trains glora, locon, loha, lokr, lora, without"):
            parse_run_config({"lycoris_config": settings} | lycoris)


def test_fp8_needs_a_gpu_that_has_it() -> None:
    for precision in QUANTISED:
        is_fp8 = precision.startswith("fp8")
        assert unsupported(precision, "cpu", None) is None
        assert unsupported(precision, "cuda", (8, 9)) is None
        assert unsupported(precision, "cuda", (12, 0)) is None
        assert (unsupported(precision, "cuda", (8, 6)) is not None) is is_fp8
    assert unsupported("fp8-quanto", "cuda", (8, 6)) == (
        "needs a GPU of compute capability 8.9 or newer, and this one has 8.6"
    )


def test_level_that_the_device_cannot_do_is_refused_before_it_is_loaded(base: Path, tmp_path: Path) -> None:
    sentence = (
        r"^text_encoder_1_precision 'fp8-torchao' is not for Apple's MPS, where quanto's levels of whole "
        r"numbers are\. Set it to 'int8-quanto' or 'no_change'\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        open_model(tiny_config(base, text_encoder_1_precision="fp8-torchao"), tmp_path, torch.device("mps"))
