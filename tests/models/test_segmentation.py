"""Text-guided masks, by tiny random models of the real classes; what needs no weights needs no network."""

import shutil
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    BertTokenizer,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
    ViTImageProcessor,
)

from dreamspace.data.masks import TEXT_GUIDED_METHODS
from dreamspace.mini import MODEL_FOLDER
from dreamspace.models import pretrained, segmentation
from dreamspace.models.segmentation import DEFAULT_MODELS, best_available, open_segmenter

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "dog", "a", "red", "house", "cat")


def clip_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(MODEL_FOLDER / "tokenizer")


def clip_text_config(tokenizer: CLIPTokenizer) -> dict:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "projection_dim": 16,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def save_clipseg(folder: Path) -> None:
    tokenizer = clip_tokenizer()
    text = clip_text_config(tokenizer)
    del text["projection_dim"]
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    }
    config = CLIPSegConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=16,
        extract_layers=[0, 1, 2],
        reduce_dim=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    image_processor = ViTImageProcessor(size={"height": 64, "width": 64})
    CLIPSegProcessor(image_processor, tokenizer).save_pretrained(folder)


def save_grounding_dino(folder: Path) -> None:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    text = {
        "model_type": "bert",
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    backbone = {
        "model_type": "swin",
        "image_size": 64,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 2,
        "out_indices": [2, 3, 4],
    }
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        num_queries=5,
        encoder_layers=1,
        decoder_layers=2,  # one alone cannot be tied to itself
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_text_len=64,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    image_processor = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=64)
    GroundingDinoProcessor(image_processor, tokenizer).save_pretrained(folder)


def save_sam2(folder: Path) -> None:
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 2, 1, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 2, 2, 2],
        "window_positional_embedding_background_size": [4, 4],
        "global_attention_blocks": [2],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    decoder = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 16},
        mask_decoder_config=decoder,
    )
    Sam2Model(config).save_pretrained(folder)
    Sam2Processor(Sam2ImageProcessor(size={"height": 64, "width": 64})).save_pretrained(folder)


def save_sam3(folder: Path) -> None:
    tokenizer = clip_tokenizer()
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "pretrain_image_size": 28,
        "window_size": 2,
        "global_attn_indexes": [1],
    }
    sizes = [[16, 16], [8, 8], [4, 4]]
    part = {"hidden_size": 32, "num_attention_heads": 2}
    layers = {**part, "intermediate_size": 32, "num_layers": 1}
    config = Sam3Config(
        vision_config={"backbone_config": backbone, "fpn_hidden_size": 32, "backbone_feature_sizes": sizes},
        text_config={"model_type": "clip_text_model", **clip_text_config(tokenizer)},
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config={**layers, "num_queries": 5},
        mask_decoder_config=part,
    )
    Sam3Model(config).save_pretrained(folder)
    image_processor = Sam3ImageProcessor(
        size={"height": 56, "width": 56}, mask_size={"height": 16, "width": 16}
    )
    Sam3Processor(image_processor, tokenizer).save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a user would give as the model of each method."""
    folder = tmp_path_factory.mktemp("segmenters")
    torch.manual_seed(0)
    save_clipseg(folder / "clipseg")
    save_grounding_dino(folder / "dino")
    save_sam2(folder / "sam2")
    save_sam3(folder / "sam3")
    return {
        "clipseg": str(folder / "clipseg"),
        "grounded-sam2": f"{folder / 'dino'},{folder / 'sam2'}",
        "sam3": str(folder / "sam3"),
    }


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    return Image.fromarray(pixels).resize((90, 70))


@pytest.fixture
def _sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is detected counts: random models are sure of nothing."""
    monkeypatch.setattr(segmentation, "_SAM3_THRESHOLD", 0.0)
    monkeypatch.setattr(segmentation, "_GROUNDING_DINO_THRESHOLD", 0.0)


@pytest.mark.usefixtures("_sure")
@pytest.mark.parametrize("method", TEXT_GUIDED_METHODS)
def test_mask_is_soft_at_the_photos_size_and_follows_the_text(
    method: str, models: dict[str, str], photo: Image.Image
) -> None:
    segmenter = open_segmenter(method, models[method], "cpu")
    assert segmenter.name == method
    mask = segmenter.mask(photo, "dog")
    assert mask.shape == (70, 90)
    assert mask.dtype == np.float32
    assert 0 <= mask.min() < mask.max() <= 1
    assert len(np.unique(mask)) > 100, "not binary"
    again = open_segmenter(method, models[method], "cpu").mask(photo, "dog")
    np.testing.assert_array_equal(mask, again)
    assert np.abs(mask - segmenter.mask(photo, "a red house")).max() > 0
    segmenter.mask(photo, "dog " * 200)  # longer than any text encoder reads


@pytest.mark.parametrize("method", ["grounded-sam2", "sam3"])
def test_subject_that_is_not_found_has_an_empty_mask(
    method: str, models: dict[str, str], photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "_SAM3_THRESHOLD", 1.0)
    monkeypatch.setattr(segmentation, "_GROUNDING_DINO_THRESHOLD", 1.0)
    mask = open_segmenter(method, models[method], "cpu").mask(photo, "dog")
    assert mask.shape == (70, 90)
    assert not mask.any()


@pytest.mark.usefixtures("_sure")
def test_several_detections_are_united(models: dict[str, str], photo: Image.Image) -> None:
    segmenter = open_segmenter("grounded-sam2", models["grounded-sam2"], "cpu")
    boxes = [[0.0, 0.0, 30.0, 30.0], [50.0, 20.0, 90.0, 70.0]]
    each = []
    for found in ([boxes[0]], [boxes[1]], boxes):
        segmenter._boxes = lambda *_, found=found: found
        each.append(segmenter.mask(photo, "dog"))
    assert (each[2] >= np.maximum(each[0], each[1]) - 1e-5).all()
    assert not np.allclose(each[2], each[0], atol=1e-6)


def test_model_given_says_which_method_it_is_for(models: dict[str, str]) -> None:
    assert [best_available(models[method]) for method in TEXT_GUIDED_METHODS] == list(TEXT_GUIDED_METHODS)
    dino = models["grounded-sam2"].split(",")[0]
    with pytest.raises(ValueError, match=r"of the kind grounding-dino, which finds no subject.*'DINO,SAM'"):
        best_available(dino)
    with pytest.raises(ValueError, match=r"^Method clipseg needs a CLIPSeg model, and .* of the kind sam3\."):
        open_segmenter("clipseg", models["sam3"], "cpu")
    with pytest.raises(ValueError, match=r"^Method grounded-sam2 needs .* as 'DINO,SAM', and .*sam2"):
        open_segmenter("grounded-sam2", models["grounded-sam2"].split(",")[1], "cpu")


def test_best_available_is_the_best_of_the_cache(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert best_available(None) is None
    put_into_cache(models["clipseg"], DEFAULT_MODELS["clipseg"], tmp_path)
    assert best_available(None) == "clipseg"
    dino, sam2 = zip(
        models["grounded-sam2"].split(","), DEFAULT_MODELS["grounded-sam2"].split(","), strict=True
    )
    put_into_cache(*dino, tmp_path)
    assert best_available(None) == "clipseg", "half of a method is none"
    put_into_cache(*sam2, tmp_path)
    assert best_available(None) == "grounded-sam2"
    weights = put_into_cache(models["sam3"], DEFAULT_MODELS["sam3"], tmp_path) / "model.safetensors"
    assert best_available(None) == "sam3"
    weights.unlink()
    assert best_available(None) == "grounded-sam2", "a model without weights is none"


def put_into_cache(folder: str, hub_id: str, cache: Path) -> Path:
    repo = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repo / "snapshots" / ("0" * 40)
    shutil.copytree(folder, snapshot)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    return snapshot


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (GatedRepoError, "it is gated, so accept its terms"),
        (RepositoryNotFoundError, "the Hub has none of that name, or it is private"),
        (LocalEntryNotFoundError, "the Hub cannot be reached"),
        (httpx2.ConnectError, "the Hub cannot be reached"),
    ],
)
@pytest.mark.parametrize("method", TEXT_GUIDED_METHODS)
def test_model_that_cannot_be_had_is_named_with_every_way_out(
    method: str, error: type[Exception], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(hub_id: str, **_: object) -> str:
        response = httpx2.Response(401, request=httpx2.Request("GET", "https://huggingface.co"))
        with_response = error in (GatedRepoError, RepositoryNotFoundError)
        raise error("no", response=response) if with_response else error("no")

    monkeypatch.setattr(pretrained, "snapshot_download", refuse)
    with pytest.raises(ValueError, match=reason) as raised:
        open_segmenter(method, None, "cpu")
    message = str(raised.value)
    assert message.startswith(f"The model {DEFAULT_MODELS[method].split(',')[0]} is not on this machine")
    assert all(
        way in message for way in ("--model FOLDER_OR_ID", "HF_TOKEN", "Method grabcut needs no model.")
    )


@pytest.mark.parametrize("model", ["nowhere", "./nowhere", "a/b/c", "owner/one,nowhere"])
def test_what_is_neither_folder_nor_hub_id_is_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(MODEL_FOLDER / "unet")
    monkeypatch.setattr(pretrained, "snapshot_download", lambda *_, **__: folder)
    with pytest.raises(ValueError, match=r"^There is no model '.*--model FOLDER_OR_ID\. Method grabcut"):
        open_segmenter("sam3", model, "cpu")


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no text-guided method 'clipsec'\. Did you mean 'clipseg'\?"):
        open_segmenter("clipsec", None, "cpu")


def test_folder_that_is_no_model_or_damaged_is_refused(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json\. Give another folder"):
        open_segmenter("clipseg", str(tmp_path), "cpu")
    folder = Path(shutil.copytree(models["clipseg"], tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    lacking = {name: tensor for name, tensor in weights.items() if "film_mul" not in name}
    save_file(lacking, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 2 of its weights, such as decoder\.film_mul\.bias"):
        open_segmenter("clipseg", str(folder), "cpu")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"cannot be loaded: .* Method grabcut needs no model\.$"):
        open_segmenter("clipseg", str(folder), "cpu")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="has no weights as safetensors"):
        open_segmenter("clipseg", str(folder), "cpu")
