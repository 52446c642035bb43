"""Soft masks of a subject by its name, from the text-guided segmenters of transformers."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import (
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    Sam2Model,
    Sam2Processor,
    Sam3Model,
    Sam3Processor,
)

from dreamspace.data.masks import TEXT_GUIDED_METHODS
from dreamspace.models.pretrained import load_pretrained, model_type, pretrained_folder
from dreamspace.suggest import nearest

DEFAULT_MODELS = {
    "clipseg": "CIDAS/clipseg-rd64-refined",
    "grounded-sam2": "IDEA-Research/grounding-dino-tiny,facebook/sam2.1-hiera-small",
    "sam3": "facebook/sam3",
}
"""Hub ids of each method, with a comma where it takes two models."""

# The `model_type` that each model of a method may have in its config.json: the checkpoints of SAM 2 and
# SAM 3 on the Hub hold the video model, and the image model is a part of it.
_MODEL_TYPES = {
    "clipseg": (("clipseg",),),
    "grounded-sam2": (("grounding-dino",), ("sam2", "sam2_video")),
    "sam3": (("sam3", "sam3_video"),),
}
_NEEDS = {
    "clipseg": "a CLIPSeg model",
    "grounded-sam2": "a Grounding DINO and a SAM 2 model, as 'DINO,SAM'",
    "sam3": "a SAM 3 model",
}
_ADVICE = "Method grabcut needs no model."
# Scores from which a detection counts: the defaults of the two models' own demonstrations.
_GROUNDING_DINO_THRESHOLD = 0.35
_SAM3_THRESHOLD = 0.5
_SAM3_TEXT_TOKENS = 32


class Segmenter(Protocol):
    """A method that finds a subject by its name."""

    name: str
    """One of `TEXT_GUIDED_METHODS`."""

    def mask(self, photo: Image.Image, text: str) -> np.ndarray:
        """How surely each pixel shows the subject; all zero where it is not found.

        Args:
            photo: RGB.
            text: what the subject is, such as "dog"; several subjects are united.

        Returns:
            (H, W) float32 in [0, 1], at the photo's size.
        """


def best_available(model: str | None) -> str | None:
    """The best method that can be used: for the model given, else one whose weights need no download.

    Args:
        model: as for `open_segmenter`; a Hub id is downloaded if it is not cached.

    Raises:
        ValueError: if the model cannot be had, or is of none of the methods.
    """
    if model is None:
        best_first = reversed(TEXT_GUIDED_METHODS)
        return next((m for m in best_first if all(map(_is_cached, DEFAULT_MODELS[m].split(",")))), None)
    types = [model_type(folder) for folder in _folders(model)]
    fitting = next((method for method in TEXT_GUIDED_METHODS if _fits(method, types)), None)
    if fitting is None:
        raise ValueError(
            f"The model {model} is of the kind {','.join(types)}, which finds no subject by its name. "
            f"Give {', or '.join(_NEEDS.values())}. {_ADVICE}"
        )
    return fitting


def open_segmenter(method: str, model: str | None, device: torch.device | str) -> Segmenter:
    """Load the model of a method.

    Args:
        method: one of `TEXT_GUIDED_METHODS`.
        model: a folder or a Hub id, which is downloaded if it is not cached; for grounded-sam2 two of them
            with a comma, "DINO,SAM". None takes the method's default.

    Raises:
        ValueError: if there is no such method, or its model cannot be had, is of another kind or damaged.
    """
    if method not in TEXT_GUIDED_METHODS:
        raise ValueError(
            f"There is no text-guided method '{method}'.{nearest(method, TEXT_GUIDED_METHODS)} "
            f"Known: {', '.join(TEXT_GUIDED_METHODS)}."
        )
    model = model or DEFAULT_MODELS[method]
    folders = _folders(model)
    types = [model_type(folder) for folder in folders]
    if not _fits(method, types):
        raise ValueError(
            f"Method {method} needs {_NEEDS[method]}, and {model} is of the kind {','.join(types)}. "
            "Give such a model with --model, or another method."
        )
    if method == "clipseg":
        return ClipSeg(folders[0], device)
    if method == "sam3":
        return Sam3(folders[0], device)
    return GroundedSam2(folders[0], folders[1], device)


class ClipSeg:
    """CLIPSeg (arXiv:2112.10003): one coarse map, of 352 px for the published weights."""

    name = "clipseg"

    def __init__(self, folder: Path, device: torch.device | str) -> None:
        self._model, self._processor = load_pretrained(
            CLIPSegForImageSegmentation, CLIPSegProcessor, folder, device, _ADVICE
        )

    @torch.inference_mode()
    def mask(self, photo: Image.Image, text: str) -> np.ndarray:
        inputs = self._processor(text=[text], images=[photo], truncation=True, return_tensors="pt")
        logits = self._model(**inputs.to(self._model.device)).logits
        return _at_photo_size(logits.reshape(logits.shape[-2:]), photo)


class GroundedSam2:
    """Grounding DINO (arXiv:2303.05499) finds boxes, SAM 2 (arXiv:2408.00714) outlines what is in them."""

    name = "grounded-sam2"

    def __init__(self, detector: Path, outliner: Path, device: torch.device | str) -> None:
        self._detector, self._detector_processor = load_pretrained(
            GroundingDinoForObjectDetection, GroundingDinoProcessor, detector, device, _ADVICE
        )
        self._outliner, self._outliner_processor = load_pretrained(
            Sam2Model, Sam2Processor, outliner, device, _ADVICE
        )

    @torch.inference_mode()
    def mask(self, photo: Image.Image, text: str) -> np.ndarray:
        boxes = self._boxes(photo, text)
        if not boxes:
            return _nothing(photo)
        inputs = self._outliner_processor(images=photo, input_boxes=[boxes], return_tensors="pt")
        inputs = inputs.to(self._outliner.device)
        outputs = self._outliner(
            pixel_values=inputs.pixel_values, input_boxes=inputs.input_boxes, multimask_output=False
        )
        return _at_photo_size(outputs.pred_masks[0, :, 0].amax(0), photo)

    def _boxes(self, photo: Image.Image, text: str) -> list[list[float]]:
        """Where the subject is: x0, y0, x1, y1 in pixels of the photo."""
        # Grounding DINO was trained on lower case words that end with a full stop.
        words = text.lower().replace(".", " ").strip() + "."
        inputs = self._detector_processor(images=photo, text=words, truncation=True, return_tensors="pt")
        inputs = inputs.to(self._detector.device)
        outputs = self._detector(**inputs)
        found = self._detector_processor.post_process_grounded_object_detection(
            outputs,
            inputs.input_ids,
            threshold=_GROUNDING_DINO_THRESHOLD,
            target_sizes=[(photo.height, photo.width)],
        )
        return found[0]["boxes"].tolist()


class Sam3:
    """SAM 3 (arXiv:2511.16719): detects all that a noun phrase names and outlines each."""

    name = "sam3"

    def __init__(self, folder: Path, device: torch.device | str) -> None:
        self._model, self._processor = load_pretrained(Sam3Model, Sam3Processor, folder, device, _ADVICE)

    @torch.inference_mode()
    def mask(self, photo: Image.Image, text: str) -> np.ndarray:
        # The processor does not cut off a long text, and the text encoder has no position for its end.
        tokens = self._processor.tokenizer(
            text, padding="max_length", truncation=True, max_length=_SAM3_TEXT_TOKENS, return_tensors="pt"
        )
        pixels = self._processor(images=photo, return_tensors="pt").pixel_values
        outputs = self._model(
            pixel_values=pixels.to(self._model.device),
            input_ids=tokens.input_ids.to(self._model.device),
            attention_mask=tokens.attention_mask.to(self._model.device),
        )
        scores = outputs.pred_logits[0].sigmoid() * outputs.presence_logits[0].sigmoid()
        found = outputs.pred_masks[0][scores > _SAM3_THRESHOLD]
        return _at_photo_size(found.amax(0), photo) if len(found) else _nothing(photo)


def _folders(model: str) -> list[Path]:
    """The folder of each model in "DINO,SAM", or of the one."""
    names = [model] if Path(model).expanduser().is_dir() else model.split(",")
    return [pretrained_folder(name.strip(), _ADVICE) for name in names]


def _fits(method: str, types: list[str]) -> bool:
    accepted = _MODEL_TYPES[method]
    return len(types) == len(accepted) and all(map(lambda kind, kinds: kind in kinds, types, accepted))


def _is_cached(hub_id: str) -> bool:
    config = try_to_load_from_cache(hub_id, "config.json")
    patterns = ("*.safetensors", "*processor_config.json")
    return isinstance(config, str) and all(any(Path(config).parent.glob(pattern)) for pattern in patterns)


def _at_photo_size(logits: Tensor, photo: Image.Image) -> np.ndarray:
    """The probabilities of (h, w) logits, stretched over the photo as all these models see it."""
    size = (photo.height, photo.width)
    probabilities = interpolate(
        logits.float().sigmoid()[None, None], size, mode="bilinear", align_corners=False, antialias=True
    )
    return probabilities[0, 0].clamp(0, 1).cpu().numpy()


def _nothing(photo: Image.Image) -> np.ndarray:
    return np.zeros((photo.height, photo.width), np.float32)
