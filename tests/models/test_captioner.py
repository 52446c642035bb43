"""Captions by tiny random models of the real classes, and the job that writes them."""

import argparse
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_runs import draw_photos
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPTokenizer,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from dreamspace.commands import caption as command
from dreamspace.data.captions import DEFAULT_CAPTIONER, caption_file, read_captions, write_caption
from dreamspace.data.photos import photo_files
from dreamspace.jobs.control import request
from dreamspace.jobs.events import EventWriter, read_events
from dreamspace.mini import MODEL_FOLDER
from dreamspace.models.caption_job import caption
from dreamspace.models.captioner import Captioner
from dreamspace.worker import KINDS

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["a", "dog", "sits", "on", "the", "red", "sofa", "under", "green", "trees"],
)
IMAGE_PX = 64


def save_blip(folder: Path) -> None:
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "encoder_hidden_size": 16,
        "intermediate_size": 32,
        "projection_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": 128,
        "initializer_range": 1.0,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": IMAGE_PX,
        "patch_size": 16,
        "initializer_range": 1.0,
    }
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    image_processor = BlipImageProcessor(size={"height": IMAGE_PX, "width": IMAGE_PX})
    BlipProcessor(image_processor, tokenizer).save_pretrained(folder)


def mini_tokenizer() -> CLIPTokenizer:
    """The embedded tokenizer with the token that stands for the image's."""
    return CLIPTokenizer.from_pretrained(
        MODEL_FOLDER / "tokenizer", extra_special_tokens={"image_token": "<image>"}, model_max_length=256
    )


def save_florence(folder: Path) -> None:
    tokenizer = mini_tokenizer()
    text = {
        "model_type": "bart",
        "vocab_size": len(tokenizer),
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.eos_token_id,
        "forced_eos_token_id": tokenizer.eos_token_id,
        "init_std": 1.0,
    }
    vision = {
        "depths": (1, 1, 1, 1),
        "embed_dim": (8, 8, 16, 16),
        "num_heads": (1, 1, 2, 2),
        "num_groups": (1, 1, 2, 2),
        "window_size": 2,
        "projection_dim": 16,
    }
    config = Florence2Config(
        text_config=text,
        vision_config=vision,
        image_token_id=tokenizer.image_token_id,
        is_encoder_decoder=True,
    )
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    image_processor = CLIPImageProcessor(size={"height": IMAGE_PX, "width": IMAGE_PX}, do_center_crop=False)
    image_processor.image_seq_length = (IMAGE_PX // 32) ** 2 + 1
    Florence2Processor(image_processor, tokenizer).save_pretrained(folder)


def save_llava(folder: Path) -> None:
    tokenizer = mini_tokenizer()
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_PX,
        "patch_size": 16,
    }
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 1.0,
    }
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=tokenizer.image_token_id)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": IMAGE_PX, "width": IMAGE_PX}
    LlavaProcessor(
        CLIPImageProcessor(size=size, crop_size=size),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=(
            "{% for message in messages %}{% for part in message.content %}"
            "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}"
        ),
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of captioners by their kind."""
    folder = tmp_path_factory.mktemp("captioners")
    for save in (save_blip, save_florence, save_llava):
        torch.manual_seed(2)
        save(folder / save.__name__.removeprefix("save_"))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw_photos(tmp_path / "dog", 3)


@pytest.mark.parametrize("kind", ["blip", "florence", "llava"])
def test_same_photo_has_the_same_caption_in_one_line(kind: str, models: Path, photos: Path) -> None:
    captioner = Captioner(str(models / kind), "cpu")
    images = [Image.open(path).convert("RGB") for path in photo_files(photos)]
    captions = [captioner.caption(image) for image in images]
    assert all(text and text == " ".join(text.split()) for text in captions)
    assert not any(
        word in text for text in captions for word in ("<image>", "<|", "[SEP]", "Describe", "What does")
    )
    assert captions == [captioner.caption(image) for image in images]
    assert len(set(captions)) == len(captions), "it looks at the photo"


def run(models: Path, photos: Path, job_dir: Path, **arguments: object) -> list[dict]:
    """Run the job as the worker does; returns its events."""
    job_dir.mkdir(exist_ok=True)
    given = {"photos": str(photos), "model": str(models / "blip"), "prefix": "", "overwrite": False}
    events = EventWriter(job_dir)
    caption(job_dir, given | arguments, events)
    events.close()
    return read_events(events.path)[0]


def captions_in(photos: Path) -> list[str]:
    return [read_captions(caption_file(photo))[0] for photo in photo_files(photos)]


def test_job_writes_each_caption_with_its_prefix_and_says_how_far_it_is(
    models: Path, photos: Path, tmp_path: Path
) -> None:
    events = run(models, photos, tmp_path / "job", prefix="a photo of a sks dog, ")
    assert events[0]["message"] == "Captioning photos: 0 of 3."
    assert [(e["step"], e["num_steps"]) for e in events if e["kind"] == "progress"] == [
        (0, 3), (1, 3), (2, 3), (3, 3)
    ]  # fmt: skip
    assert (events[-1]["kind"], events[-1]["step"], events[-1]["path"]) == ("done", 3, str(photos))
    captioner = Captioner(str(models / "blip"), "cpu")
    images = [Image.open(path).convert("RGB") for path in photo_files(photos)]
    assert captions_in(photos) == [f"a photo of a sks dog, {captioner.caption(image)}" for image in images]


def test_captions_that_are_there_are_kept_unless_overwritten(
    models: Path, photos: Path, tmp_path: Path
) -> None:
    write_caption(photo_files(photos)[1], "my own words")
    run(models, photos, tmp_path / "first")
    written = captions_in(photos)
    assert written[1] == "my own words"
    events = run(Path("nowhere"), photos, tmp_path / "second")
    assert events[0]["message"] == "Every photo has a caption already."
    assert events[-1]["kind"] == "done", "nothing is loaded for nothing"
    run(models, photos, tmp_path / "third", overwrite=True)
    assert captions_in(photos)[0::2] == written[0::2]
    assert captions_in(photos)[1] != "my own words"


def test_stop_is_heard_before_the_next_photo(models: Path, photos: Path, tmp_path: Path) -> None:
    job_dir = tmp_path / "job"
    job_dir.mkdir()
    request(job_dir, "stop")
    events = run(models, photos, job_dir)
    assert (events[-1]["kind"], events[-1]["step"]) == ("stopped", 0)
    assert not list(photos.glob("*.txt"))


def test_bad_photo_costs_no_other_its_caption(models: Path, photos: Path, tmp_path: Path) -> None:
    first = photo_files(photos)[0]
    first.write_bytes(b"not a photo")
    events = run(models, photos, tmp_path / "job")
    (warning,) = [event for event in events if event["kind"] == "warning"]
    assert warning["message"].startswith(f"{first.name} has no new caption. ")
    assert (events[-1]["kind"], events[-1]["step"]) == ("done", 2)
    assert len(list(photos.glob("*.txt"))) == 2


def test_job_that_captions_nothing_fails(models: Path, photos: Path, tmp_path: Path) -> None:
    for photo in photo_files(photos):
        photo.write_bytes(b"not a photo")
    with pytest.raises(ValueError, match=r"None of the photos in .* could be captioned"):
        run(models, photos, tmp_path / "job")
    with pytest.raises(ValueError, match="There is no folder"):
        run(models, tmp_path / "nowhere", tmp_path / "job")


def test_model_that_is_missing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^There is no model 'nowhere'.*--model FOLDER_OR_ID.*by hand as well"
    ):
        Captioner("nowhere", "cpu")
    encoder = Path(shutil.copytree(MODEL_FOLDER / "text_encoder", tmp_path / "encoder"))
    shutil.copytree(MODEL_FOLDER / "tokenizer", encoder, dirs_exist_ok=True)
    with pytest.raises(ValueError, match=r"^The model in .*encoder cannot be loaded: .*by hand as well\.$"):
        Captioner(str(encoder), "cpu")


def test_command_submits_the_job_with_full_paths(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = []
    monkeypatch.setattr(command, "run_job", lambda *job, **secrets: submitted.append((job, secrets)) or 0)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    command.add_caption_options(parser)
    assert command.run_caption(parser.parse_args(["dog", "--prompt-before", "a sks dog,"])) == 0
    assert command.run_caption(parser.parse_args(["dog", "--model", "dog", "--overwrite"])) == 0
    common = {"photos": str(photos), "prefix": "a sks dog,", "model": DEFAULT_CAPTIONER, "overwrite": False}
    local = common | {"prefix": "", "model": str(photos), "overwrite": True}
    token = {"HF_TOKEN": "hf_secret"}
    assert submitted == [(("caption", common), {"secrets": token}), (("caption", local), {"secrets": {}})]
    assert KINDS["caption"] == f"{caption.__module__}:{caption.__name__}"
    with pytest.raises(ValueError, match="There is no folder nowhere"):
        command.run_caption(parser.parse_args(["nowhere"]))
