"""Before the first step: everything is encoded once, and what encodes leaves memory."""

import gc
import os
import weakref
from pathlib import Path

import pytest
import torch
from tiny_runs import CLASS_PROMPT, INSTANCE_PROMPT, draw_photos, tiny_config

from dreamspace.config import DatasetConfig
from dreamspace.data.cache import pixels_of
from dreamspace.jobs.events import EventWriter, read_events
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.sd1x import StableDiffusion1
from dreamspace.training.preparation import (
    TrainingSet,
    fill_class_folder,
    read_training_set,
    sampling_settings,
    validation_prompts,
)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> BaseModel:
    return open_model(str(tiny_model), "sd1x", tmp_path / "cache", torch.device("cpu"))


def subject(folder: Path, **settings) -> DatasetConfig:
    values = {"id": "subject", "instance_prompt": INSTANCE_PROMPT, "resolution": 64} | settings
    return DatasetConfig(instance_data_dir=folder, **values)


def prior(folder: Path, **settings) -> DatasetConfig:
    values = {"id": "prior", "instance_prompt": CLASS_PROMPT, "is_regularisation_data": True} | settings
    return subject(folder, **values)


def read(model: BaseModel, datasets: list[DatasetConfig], job_dir: Path, **settings) -> TrainingSet:
    return read_training_set(tiny_config(model.folder, **settings), datasets, model, EventWriter(job_dir))


def test_cached_latents_and_prompts_equal_uncached_ones(
    model: BaseModel, photos: Path, class_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = [subject(photos), prior(class_photos)]
    fresh = read(model, datasets, tmp_path, validation_prompts=["a cat"])

    def refuse(*arguments) -> None:
        pytest.fail("what is cached is not computed again")

    with monkeypatch.context() as patch:
        patch.setattr(StableDiffusion1, "load_vae", refuse)
        patch.setattr(StableDiffusion1, "load_text_encoders", refuse)
        cached = read(model, datasets, tmp_path, validation_prompts=["a cat"])
    vae = model.family.load_vae(model.folder, model.device)
    for fresh_rows, cached_rows, samples in zip(fresh.latents, cached.latents, fresh.samples, strict=True):
        for fresh_row, cached_row, sample in zip(fresh_rows, cached_rows, samples, strict=True):
            assert torch.equal(fresh_row, cached_row)
            uncached = model.family.encode_image(vae, pixels_of(sample.picture())[None])[0]
            torch.testing.assert_close(cached_row, uncached, rtol=1e-4, atol=1e-6)
    encoders = model.family.load_text_encoders(model.folder, model.device)
    assert set(cached.conditioning) == {INSTANCE_PROMPT, CLASS_PROMPT, "a cat", ""}
    for prompt, conditioning in cached.conditioning.items():
        uncached = model.family.encode_prompts(encoders, [prompt])[0]
        torch.testing.assert_close(conditioning["prompt_embeds"], uncached["prompt_embeds"])
        assert torch.equal(conditioning["prompt_embeds"], fresh.conditioning[prompt]["prompt_embeds"])


def test_text_encoders_and_vae_are_gone_from_memory_afterwards(
    model: BaseModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    for name, module_of in [
        ("load_text_encoders", lambda parts: parts.encoder),
        ("load_vae", lambda vae: vae),
    ]:
        load = getattr(StableDiffusion1, name)

        def watched(family, folder, device, load=load, module_of=module_of):
            part = load(family, folder, device)
            module = module_of(part)
            loaded.extend(map(weakref.ref, [module, *module.parameters()]))
            return part

        monkeypatch.setattr(StableDiffusion1, name, watched)
    training_set = read(model, [subject(photos)], tmp_path)
    assert len(loaded) > 50
    gc.collect()
    assert [reference for reference in loaded if reference() is not None] == []
    assert len(training_set.latents[0]) == 4


def test_refused_photo_and_unused_probability_are_warnings(
    model: BaseModel, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for path in photos.iterdir():
        os.link(path, folder / path.name)
    (folder / "broken.jpg").write_text("no picture")
    training_set = read(model, [subject(folder, probability=0.5)], tmp_path)
    assert training_set.num_samples(uses_base_target=False) == 4
    warnings = [e["message"] for e in read_events(tmp_path / "events.jsonl")[0] if e["kind"] == "warning"]
    assert len(warnings) == 2
    assert "Dataset 'subject' has probability 0.5" in warnings[0]
    assert warnings[1].startswith("Left out broken.jpg: ")


def test_repeats_and_class_images_make_the_mixture(
    model: BaseModel, photos: Path, class_photos: Path, tmp_path: Path
) -> None:
    training_set = read(model, [subject(photos, repeats=2), prior(class_photos)], tmp_path)
    assert training_set.plan.epoch_rows == 4 * 3 + 4
    assert training_set.plan.mixture(16) == {"subject": 0.75, "prior": 0.25}
    assert training_set.num_samples(uses_base_target=True) == 4


def test_different_resolutions_are_refused(
    model: BaseModel, photos: Path, class_photos: Path, tmp_path: Path
) -> None:
    datasets = [subject(photos), prior(class_photos, resolution=32)]
    with pytest.raises(ValueError, match="one resolution for now, got 32 x 32 px and 64 x 64 px"):
        read(model, datasets, tmp_path)


def test_digest_follows_photos_captions_and_repeats(model: BaseModel, photos: Path, tmp_path: Path) -> None:
    digests = [
        read(model, [dataset], tmp_path).digest
        for dataset in (
            subject(photos),
            subject(photos),
            subject(photos, repeats=1),
            subject(photos, instance_prompt="other"),
            subject(photos, max_num_samples=3),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_validation_prompts_begin_with_the_instance_prompt_and_come_once(photos: Path) -> None:
    datasets = [prior(photos), subject(photos, instance_prompt=["by hand", "second"])]
    folder = Path("mini")
    further = {"validation_prompts": ["a cat", INSTANCE_PROMPT, "a cat"]}
    assert validation_prompts(tiny_config(folder, **further), [subject(photos)]) == [INSTANCE_PROMPT, "a cat"]
    by_hand = tiny_config(folder, validation_prompts=[])
    assert validation_prompts(by_hand, datasets) == ["by hand"], "what is trained, whatever the words are"
    given = tiny_config(folder, validation_prompt="mine", validation_prompts=["mine"])
    assert validation_prompts(given, datasets) == ["mine"]


def fill(model: BaseModel, datasets: list[DatasetConfig], job_dir: Path, **settings) -> None:
    config = tiny_config(model.folder, **settings)
    fill_class_folder(config, datasets, model, job_dir / "priors", EventWriter(job_dir), lambda: False)


def test_class_images_fill_up_what_the_user_brought(model: BaseModel, photos: Path, tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "priors" / "classes", 2)
    os.rename(folder / "00.png", folder / f"{'ab' * 8}.png")  # named by content, as the app names uploads
    (folder / "notes.txt").write_text("no image")
    own = sorted(folder.glob("*.png"))
    fill(model, [subject(photos), prior(folder)], tmp_path, num_class_images=3)
    assert len(list(folder.glob("*.png"))) == 3
    assert set(own) < set(folder.glob("*.png"))
    other = {"seed": 7, "validation_num_inference_steps": 3, "validation_guidance": 1, "num_class_images": 3}
    fill(model, [subject(photos), prior(folder)], tmp_path, **other)
    assert len(list(folder.glob("*.png"))) == 3, "another run shares them"
    stages = [e["message"] for e in read_events(tmp_path / "events.jsonl")[0] if e["kind"] == "stage"]
    assert stages == ["Drawing class images: 2 of 3.", "Drawing class images: 3 of 3."]


def test_class_images_do_not_follow_the_settings_of_the_run(
    model: BaseModel, photos: Path, tmp_path: Path
) -> None:
    drawn = []
    for name, steps in (("one", 1), ("two", 2)):
        folder = tmp_path / "priors" / name
        folder.mkdir(parents=True)
        settings = {"validation_num_inference_steps": steps, "seed": steps}
        fill(model, [subject(photos), prior(folder)], tmp_path, num_class_images=1, **settings)
        (image,) = folder.iterdir()
        drawn.append((image.name, image.read_bytes()))
    assert drawn[0] == drawn[1]


def test_folder_of_the_user_is_only_read(model: BaseModel, photos: Path, tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "mine", 2)
    sentence = r"num_class_images is 3, but .*mine holds 2 photos, .* or set num_class_images to 2\."
    with pytest.raises(ValueError, match=sentence):
        fill(model, [subject(photos), prior(folder)], tmp_path, num_class_images=3)
    fill(model, [subject(photos), prior(folder)], tmp_path, num_class_images=2)
    assert len(list(folder.iterdir())) == 2


def test_class_images_without_a_dataset_for_them_are_refused(
    model: BaseModel, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="num_class_images is 8, but no dataset has is_regularisation_data"):
        fill(model, [subject(photos)], tmp_path, num_class_images=8)


def test_validation_resolution_must_fit_the_model() -> None:
    config = tiny_config(Path("mini"))
    assert sampling_settings(config, (64, 64), 16).width_px == 64
    wide = sampling_settings(tiny_config(Path("mini"), validation_resolution="96x64"), (64, 64), 16)
    assert (wide.width_px, wide.height_px) == (96, 64)
    with pytest.raises(ValueError, match=r"validation_resolution must be .* of 16 px .*, got 100\. Try 96\."):
        sampling_settings(tiny_config(Path("mini"), validation_resolution="100"), (64, 64), 16)
