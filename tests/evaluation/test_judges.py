"""The models that judge: from every place that they can come from, and what photos and images score."""

import json
import re
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from dreamspace.config import DatasetConfig, RunConfig
from dreamspace.data.evaluation_photos import EvaluationPhotos
from dreamspace.data.samples import read_samples
from dreamspace.evaluation.clip import Clip
from dreamspace.evaluation.dino import Dino
from dreamspace.evaluation.judge import GREY, Judge, cut_out, load_judges
from dreamspace.evaluation.plan import EvaluationPlan
from dreamspace.mini import MODEL_FOLDER
from dreamspace.mini.subjects import SUBJECTS, subject_photos
from dreamspace.mini.world import all_sceneries, render
from tests.tiny_runs import cropped_dataset, draw_photos, masked_datasets

CLIP_FOLDER = MODEL_FOLDER / "clip"
WEIGHTS = CLIP_FOLDER / "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip()


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random DINOv2 of the real class."""
    folder = tmp_path_factory.mktemp("dino")
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(0)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        folder
    )
    return folder


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (64, 64), (37 * index % 256, 120, 255 - 20 * index)) for index in range(count)]


def test_a_clip_is_the_same_by_its_name_and_file_as_by_its_folder(clip: Clip, tmp_path: Path):
    settings = json.loads((CLIP_FOLDER / "open_clip_config.json").read_text())
    described = settings["model_cfg"]
    described["text_cfg"].pop("hf_tokenizer_name", None)
    (tmp_path / "tiny-named.json").write_text(json.dumps(described))
    open_clip.add_model_config(tmp_path / "tiny-named.json")
    named = Clip(f"tiny-named:{WEIGHTS}")
    expected, found = clip.model.state_dict(), named.model.state_dict()
    shared = expected.keys() & found.keys()
    assert len(shared) > 50
    for name in shared:
        assert torch.equal(found[name], expected[name]), name


def test_a_clip_of_the_hub_is_fetched_without_its_pickles(clip: Clip, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def snapshot(hub_id: str, patterns: list[str]) -> Path:
        asked.append((hub_id, patterns))
        return CLIP_FOLDER

    monkeypatch.setattr("dreamspace.evaluation.clip.hub_snapshot", snapshot)
    found = Clip("alice/tiny-clip")
    torch.testing.assert_close(found.embed_pictures(pictures(2)), clip.embed_pictures(pictures(2)))
    ((hub_id, patterns),) = asked
    assert hub_id == "alice/tiny-clip"
    assert not any(pattern.endswith((".bin", ".pt", "*")) for pattern in patterns)


def test_openais_clip_is_found_under_the_name_that_transformers_users_know(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def snapshot(hub_id: str, patterns: list[str]) -> Path:
        asked.append(hub_id)
        raise ValueError("far away")

    monkeypatch.setattr("dreamspace.evaluation.clip.hub_snapshot", snapshot)
    for name in ("openai/clip-vit-large-patch14-336", "ViT-L-14-336/openai"):
        with pytest.raises(ValueError, match="far away"):
            Clip(name)
    assert asked == ["timm/vit_large_patch14_clip_336.openai"] * 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ViT-L-99", "There is no CLIP 'ViT-L-99'. Did you mean"),
        ("ViT-L-14/openay", "Did you mean 'openai'?"),
        ("ViT-L-14:nowhere.pt", "no file nowhere.pt"),
        ("ViT-X:nowhere.safetensors", "open_clip knows no model 'ViT-X'"),
    ],
)
def test_a_clip_that_cannot_be_had_says_why(name: str, words: str):
    with pytest.raises(ValueError, match=re.escape(words)):
        Clip(name)


def test_a_folder_of_pickles_is_refused(tmp_path: Path):
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(
        ValueError, match=r"holds no open_clip_model\.safetensors, and pickles are not loaded"
    ):
        Clip(tmp_path)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _widened(config: Path, *keys: str) -> None:
    content = json.loads(config.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] *= 2
    config.write_text(json.dumps(content))


def test_a_damaged_clip_is_refused_in_a_sentence(tmp_path: Path):
    cut = shutil.copytree(CLIP_FOLDER, tmp_path / "cut")
    _cut(cut / "open_clip_model.safetensors")
    other = shutil.copytree(CLIP_FOLDER, tmp_path / "other")
    _widened(other / "open_clip_config.json", "model_cfg", "embed_dim")
    odd = shutil.copytree(CLIP_FOLDER, tmp_path / "odd")
    (odd / "tokenizer.json").write_text("{")
    for folder in (cut, other, odd):
        sentence = rf"The CLIP in {folder} cannot be loaded: .*[\w)]\. It is damaged"
        with pytest.raises(ValueError, match=sentence):
            Clip(folder)


def test_a_clip_whose_tokenizer_is_on_the_hub_alone_is_refused_without_a_network(tmp_path: Path):
    described = json.loads((CLIP_FOLDER / "open_clip_config.json").read_text())["model_cfg"]
    described["text_cfg"]["hf_tokenizer_name"] = str(tmp_path / "nowhere")
    (tmp_path / "tiny-far.json").write_text(json.dumps(described))
    open_clip.add_model_config(tmp_path / "tiny-far.json")
    sentence = r"The CLIP tiny-far of .* cannot be loaded: .* name a CLIP that is on this machine"
    with pytest.raises(ValueError, match=sentence):
        Clip(f"tiny-far:{WEIGHTS}")


def test_what_runs_out_of_memory_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch):
    def full(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", full)
    with pytest.raises(torch.OutOfMemoryError):
        Clip()


def test_a_damaged_dino_is_refused_in_a_sentence(dino_folder: Path, tmp_path: Path):
    cut = shutil.copytree(dino_folder, tmp_path / "cut")
    _cut(cut / "model.safetensors")
    other = shutil.copytree(dino_folder, tmp_path / "other")
    _widened(other / "config.json", "hidden_size")
    for folder in (cut, other):
        with pytest.raises(ValueError, match=rf"The DINOv2 in {folder} cannot be loaded: .* It is damaged"):
            Dino(str(folder))


def test_dino_embeds_pictures_as_unit_vectors_of_its_class_token(dino_folder: Path):
    dino = Dino(str(dino_folder))
    embedded = dino.embed_pictures(pictures(3))
    pixels = dino.preprocess(images=pictures(3), return_tensors="pt")["pixel_values"]
    expected = dino.model(pixels).pooler_output.detach()  # DINOv2's is the class token after the last norm
    torch.testing.assert_close(embedded, torch.nn.functional.normalize(expected, dim=1))


def test_a_dino_that_is_none_says_so(tmp_path: Path):
    with pytest.raises(ValueError, match="There is no DINOv2 'nothing'"):
        Dino("nothing")
    with pytest.raises(ValueError, match="cannot be loaded"):
        Dino(str(tmp_path))


def test_mini_brings_its_own_clip_and_no_dino(dino_folder: Path):
    clip, dino = load_judges(RunConfig())
    assert clip.name == "mini's own CLIP"
    assert dino is None
    chosen = RunConfig(pretrained_similarity_model_name_or_path=str(dino_folder))
    assert load_judges(chosen)[1].name == str(dino_folder)


def test_a_masked_photo_is_compared_as_its_subject_alone(tmp_path: Path):
    datasets = masked_datasets(tmp_path)
    sample = read_samples(datasets[0], datasets, 8, 0)[0][0]
    alone = cut_out(sample)
    picture = sample.picture()
    assert alone.getpixel((0, 0)) == GREY
    assert alone.width == alone.height > picture.width / 2
    middle = (alone.width // 2, alone.height // 2)
    # The mask is the left half, whose middle lies in the middle of what is cut out.
    assert alone.getpixel(middle) == picture.getpixel((picture.width // 4, picture.height // 2))


def test_photos_of_the_training_are_copies_and_the_held_out_ones_are_not(
    clip: Clip, dino_folder: Path, tmp_path: Path
):
    dataset = cropped_dataset(draw_photos(tmp_path / "photos", 5))
    samples = read_samples(dataset, [dataset], 8, 0)[0]
    photos = EvaluationPhotos({"subject": samples[4:]}, "held_out")
    plan = EvaluationPlan(
        ("a photo of a sks dog", "a sks dog at night"), {"class": "a dog"}, (0,), "sks dog", "dog"
    )
    shown = {prompt: [samples[index].picture()] for index, prompt in enumerate(plan.all_prompts)}
    for judge in (
        Judge(clip, None, photos, samples[:4]),
        Judge(clip, Dino(str(dino_folder)), photos, samples[:4]),
    ):
        figures = judge.figures(plan, shown, judge.leaked(plan, shown))
        assert figures.nearest_photo == pytest.approx(1, abs=1e-5)
        assert judge.photos.nearest_photo < 1
        assert figures.leaks["class"].drift == pytest.approx(0, abs=1e-5)
        assert (figures.dino is None) == (judge.dino is None)
        assert set(figures.clip_by_prompt) == set(plan.prompts)
        assert type(figures).from_json(json.loads(json.dumps(figures.to_json()))) == figures


@pytest.mark.parametrize("name", sorted(SUBJECTS))
def test_by_weak_evidence_photos_that_were_never_seen_come_to_what_can_be_had(
    name: str, clip: Clip, tmp_path: Path
):
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    for number, (photo, mask) in enumerate(subject_photos(name)[:5]):
        photo.save(tmp_path / "photos" / f"{number}.png")
        mask.save(tmp_path / "masks" / f"{number}.png")
    masks = {"id": "masks", "dataset_type": "conditioning", "conditioning_type": "mask"}
    datasets = [
        cropped_dataset(tmp_path / "photos", resolution=128, conditioning_data="masks"),
        DatasetConfig(**masks, instance_data_dir=tmp_path / "masks"),
    ]
    samples = read_samples(datasets[0], datasets, 8, 0)[0]
    judge = Judge(clip, None, EvaluationPhotos({"subject": samples}, "weak"), samples)
    plan = EvaluationPlan(("a photo of a sks thing",), {}, tuple(range(3)), "sks thing", "thing")
    unseen = [photo for photo, _ in subject_photos(name, held_out=True)]
    of_class = [each for each in all_sceneries() if each.class_word == SUBJECTS[name].class_word][::7]
    others = [render(scenery, seed).image for seed, scenery in enumerate(of_class)]
    found, base = (judge.figures(plan, {plan.prompts[0]: shown}).clip_i for shown in (unseen, others))
    assert (found - base) / (judge.photos.resemblance - base) == pytest.approx(1, abs=0.25)


def test_a_rare_token_is_replaced_by_its_class_for_the_text_side():
    plan = EvaluationPlan(("a photo of a sks dog at night",), {}, (0,), "sks dog", "dog", "sks")
    for prompt, expected in (
        ("a photo of a sks dog at night", "a photo of a dog at night"),
        ("a photo of a Sks Dog at night", "a photo of a dog at night"),
        ("a portrait of sks", "a portrait of dog"),
        ("a sks puppy on a beach", "a dog puppy on a beach"),
        ("the dog sks, beside another dog", "the dog, beside another dog"),
        ("a sksy cat", "a sksy cat"),
        ("", ""),
    ):
        assert plan.text_side(prompt) == expected
        assert plan.shows_subject(prompt) == ("sks" in prompt.lower() and "sksy" not in prompt)


def test_words_with_signs_of_their_own_are_found_as_they_are():
    plan = EvaluationPlan((), {}, (0,), "<s+k> mug", None, "<s+k>")
    assert plan.text_side("a <s+k> mug and <S+K>") == "a subject and subject"
    nameless = EvaluationPlan((), {}, (0,), "", None)
    assert nameless.text_side("a mug") == "a mug"
    assert not nameless.shows_subject("a mug")


def test_a_single_photo_can_be_judged_by(clip: Clip, tmp_path: Path):
    dataset = cropped_dataset(draw_photos(tmp_path / "photos", 1))
    samples = read_samples(dataset, [dataset], 8, 0)[0]
    judge = Judge(clip, None, EvaluationPhotos({"subject": samples}, "weak"), samples)
    assert (judge.photos.resemblance, judge.photos.nearest_photo) == pytest.approx((1, 1))


def test_where_a_device_has_no_room_the_cpu_judges(monkeypatch: pytest.MonkeyPatch):
    moved: list[str] = []

    def move(judge: Judge, device: torch.device) -> None:
        moved.append(device.type)
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Judge, "_to", move)
    judge = Judge.__new__(Judge)
    assert judge.on(torch.device("cuda"), lambda: len(moved)) == 2
    assert moved == ["cuda", "cpu"]
    with pytest.raises(ZeroDivisionError):
        judge.on(torch.device("cpu"), lambda: 1 / 0)
