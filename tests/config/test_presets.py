"""Presets and --set."""

import json
from typing import Any

import pytest

from benchmarks.presets import presets
from benchmarks.profiles import FLAVOURS_FILE
from dreamspace.config import RunConfig, apply_settings, list_presets, load_preset
from dreamspace.config.presets import PRESETS_DIR
from dreamspace.data.geometry import edge_px
from dreamspace.estimate.memory import estimate_memory
from dreamspace.estimate.profiles import known_profile, shipped_profiles


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_loads_and_says_what_it_is_for(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.description.endswith(".")
    assert preset.hardware.endswith(".")
    assert edge_px(preset.resolution, "pixel", 8) == preset.resolution


def test_mini_preset_trains_the_embedded_model() -> None:
    assert "mini" in list_presets()
    preset = load_preset("mini")
    assert preset.resolution == 128
    assert preset.config.pretrained_model_name_or_path == "mini"
    assert (preset.config.lora_rank, preset.config.learning_rate) == (16, 1e-3)
    assert (preset.config.train_batch_size, preset.config.max_train_steps) == (4, 400)


@pytest.mark.parametrize("name", ["minni", "Mini"])
def test_unknown_preset_names_the_nearest(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^There is no preset '{name}'\. Did you mean 'mini'\? The presets are: "
    ):
        load_preset(name)


def test_preset_name_is_no_path() -> None:
    with pytest.raises(ValueError, match="There is no preset"):
        load_preset("../presets/mini")


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("max_train_steps=20", "max_train_steps", 20),
        ("--learning_rate=5e-4", "learning_rate", 5e-4),
        ("snr_gamma=5", "snr_gamma", 5.0),
        ("lora_alpha=null", "lora_alpha", None),
        ("validation_preview=false", "validation_preview", False),
        ("token=sks", "token", "sks"),
        ("token=42", "token", "42"),
        ('validation_prompt="a = b"', "validation_prompt", "a = b"),
        ("validation_prompt=a = b", "validation_prompt", "a = b"),
        ('validation_prompts=["one", "two"]', "validation_prompts", ["one", "two"]),
        ("mixed_precision=no", "mixed_precision", "no"),
        ("validation_resolution=96x64", "validation_resolution", "96x64"),
        ("validation_resolution=128", "validation_resolution", "128"),
    ],
)
def test_set_changes_one_value(setting: str, key: str, value: Any) -> None:
    config = RunConfig(max_train_steps=30, seed=5)
    changed = apply_settings(config, [setting])
    assert getattr(changed, key) == value
    assert changed.model_dump(exclude={key}) == config.model_dump(exclude={key})


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        (["model_family=sdxl"], "stabilityai/stable-diffusion-xl-base-1.0"),
        (["model_family=sdxl", "model_flavour=refiner-1.0"], "stabilityai/stable-diffusion-xl-refiner-1.0"),
        (["model_flavour=1.4"], "CompVis/stable-diffusion-v1-4"),
        (["model_family=sdxl", "pretrained_model_name_or_path=a/b"], "a/b"),
        (["model_family=sd1x"], "mini"),
    ],
)
def test_another_family_or_flavour_brings_its_own_model(settings: list[str], model: str) -> None:
    config = apply_settings(load_preset("mini").config, settings)
    assert config.pretrained_model_name_or_path == model


def test_last_setting_of_a_key_wins() -> None:
    assert apply_settings(RunConfig(), ["seed=1", "--seed=2"]).seed == 2
    assert apply_settings(RunConfig(), []) == RunConfig()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "max_train_steps",
            "--set takes key=value, got 'max_train_steps'. Write for example max_train_steps=200.",
        ),
        ("=5", "--set takes key=value, got '=5'. Write for example max_train_steps=200."),
        ("max_train_stps=5", "--set: there is no key 'max_train_stps'. Did you mean 'max_train_steps'?"),
        ("max_train_steps=0", "--set: max_train_steps must be at least 1, got 0."),
        ("learning_rate=", '--set: learning_rate must be a number, got "".'),
    ],
)
def test_wrong_setting_is_one_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the sentence is compared whole
        apply_settings(RunConfig(), [setting])
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", [name for name in list_presets() if name != "mini"])
def test_a_preset_fits_into_the_gpu_that_it_is_named_after(name: str) -> None:
    preset = load_preset(name)
    size_gb = int(name.rpartition("-")[2].removesuffix("gb"))
    profile = known_profile(preset.config)
    with_prior = preset.config.model_copy(update={"num_class_images": 24})
    memory = estimate_memory(with_prior, profile, (preset.resolution, preset.resolution))
    assert memory.peak <= 0.95e9 * size_gb
    assert f"{size_gb} GB" in preset.hardware
    assert preset.resolution % profile.multiple_px == 0
    rows = preset.config.train_batch_size * preset.config.gradient_accumulation_steps
    assert rows == 4, "all sizes of GPU learn the same"


def test_denoisers_have_the_parameters_that_are_published() -> None:
    flavours = json.loads(FLAVOURS_FILE.read_text())
    checked = set()
    for name, model in flavours["models"].items():
        profile = shipped_profiles()[name]
        source = flavours["sources"].get(model["parts"][profile.denoiser][2])
        if source is not None:
            checked.add(model["parts"][profile.denoiser][2])
            total = profile.parts[profile.denoiser].total
            assert total == pytest.approx(source["billions"] * 1e9, rel=0.02), name
    assert checked == set(flavours["sources"])


def test_the_presets_are_what_their_ladder_makes() -> None:
    texts = presets()
    assert {path.name: path.read_text() for path in PRESETS_DIR.glob("*gb.json")} == texts


def test_mini_stands_first_and_the_sizes_of_a_family_in_order() -> None:
    names = list_presets()
    assert names[0] == "mini"
    assert names.index("sdxl-8gb") < names.index("sdxl-12gb") < names.index("sdxl-80gb")
