"""Captions by an image-to-text model of transformers."""

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature

from dreamspace.data.captions import DEFAULT_CAPTIONER
from dreamspace.models.pretrained import load_pretrained, model_type, pretrained_folder

MAX_CAPTION_TOKENS = 64
"""Where a caption is cut off; CLIP reads 77 tokens."""

_QUESTION = "Describe this photo in one short sentence."
_ADVICE = f"A captioner is {DEFAULT_CAPTIONER}, for example, and captions can be written by hand as well."


class Captioner:
    """Says what a photo shows: the same photo, the same caption."""

    def __init__(self, model: str, device: torch.device | str) -> None:
        """Load an image-to-text model, such as Florence-2, BLIP, or one that chats.

        Args:
            model: a folder, or a Hub id, which is downloaded if it is not cached.

        Raises:
            ValueError: if the model cannot be had, is damaged, or is no image-to-text model.
        """
        folder = pretrained_folder(model, _ADVICE)
        self._is_florence = model_type(folder) == "florence2"
        dtype = torch.float32 if torch.device(device).type == "cpu" else "auto"
        self._model, self._processor = load_pretrained(
            AutoModelForImageTextToText, AutoProcessor, folder, device, _ADVICE, dtype
        )

    @torch.inference_mode()
    def caption(self, photo: Image.Image) -> str:
        """What an RGB photo shows, in one line.

        Raises:
            ValueError: if the model has nothing to say about it.
        """
        num_prompt_tokens = 0
        if self._is_florence:
            inputs = self._processor(images=photo, text="<CAPTION>", return_tensors="pt")
        elif self._processor.chat_template:
            inputs = self._asked(photo)
            num_prompt_tokens = inputs.input_ids.shape[1]  # An answer begins with its question.
        else:
            inputs = self._processor(images=photo, return_tensors="pt")
        inputs = inputs.to(self._model.device, self._model.dtype)
        tokens = self._model.generate(**inputs, do_sample=False, max_new_tokens=MAX_CAPTION_TOKENS)
        text = self._processor.batch_decode(tokens[:, num_prompt_tokens:], skip_special_tokens=True)[0]
        if not text.strip():
            raise ValueError("The model says nothing about it.")
        return " ".join(text.split())

    def _asked(self, photo: Image.Image) -> BatchFeature:
        question = [{"type": "image", "image": photo}, {"type": "text", "text": _QUESTION}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
