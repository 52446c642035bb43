"""The model card: what it says, and that no prompt can break out of its place."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from dreamspace.hub.card import BaseModel, CardSample, Weights, one_line, plain, render_card
from tests.hub.fake_hub import front_matter

SDXL = BaseModel("stabilityai/stable-diffusion-xl-base-1.0", "stabilityai/stable-diffusion-xl-base-1.0")
MINI = BaseModel("the mini model that Dreamspace brings along", None)
SAMPLES = [
    CardSample("images/0.png", "a photo of sks dog"),
    CardSample("images/1.png", "sks dog in the snow"),
]
HOSTILE = (
    "sks: \"dog\"\n---\n# '{}' <script>alert(1)</script> <!-- | ``` *x* [a](javascript:b) &amp; ${{x}} "
    '{{ y }} %TAG !!python/object:os.system \\" - ? @bob \u202etxt.exe \x1b[31m\u2028end'
)


def card(base: BaseModel = SDXL, prompt: str = "a photo of sks dog", samples=SAMPLES, **settings: str) -> str:
    return render_card("alice/rex", base, prompt, samples, settings or {"Steps": "200"})


def snippet(text: str) -> str:
    return re.search(r"```python\n(.*?)\n```\n", text, re.DOTALL).group(1)


def test_metadata_survives_a_round_trip_through_model_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card(), encoding="utf-8")
    loaded = ModelCard.load(tmp_path / "README.md")
    assert loaded.data.to_dict() == {
        "base_model": "stabilityai/stable-diffusion-xl-base-1.0",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "lora", "template:sd-lora", "dreambooth", "dreamspace"],
        "instance_prompt": "a photo of sks dog",
        "widget": [
            {"text": "a photo of sks dog", "output": {"url": "images/0.png"}},
            {"text": "sks dog in the snow", "output": {"url": "images/1.png"}},
        ],
    }
    assert loaded.content == card()


def test_base_model_that_is_not_on_the_hub_is_named_in_words_only() -> None:
    text = card(MINI)
    assert "base_model" not in front_matter(text)
    assert "teaches the mini model that Dreamspace brings along one subject" in text
    assert 'from_pretrained("BASE", dtype=torch.float32)' in snippet(text)


def test_snippet_is_python_that_loads_this_repository() -> None:
    calls = [node for node in ast.walk(ast.parse(snippet(card()))) if isinstance(node, ast.Call)]
    load = next(call for call in calls if getattr(call.func, "attr", "") == "load_lora_weights")
    assert load.args[0].value == "alice/rex"
    assert {k.arg: k.value.value for k in load.keywords} == {
        "subfolder": "adapter",
        "weight_name": "pytorch_lora_weights.safetensors",
    }


def test_snippet_draws_by_the_schedule_that_was_trained() -> None:
    def drawn_with(weights: Weights) -> str:
        return snippet(render_card("alice/rex", SDXL, "sks", [], {"Steps": "200"}, weights))

    calls = ast.walk(ast.parse(drawn_with(Weights("lora", "LoRA adapter", has_zero_snr=True))))
    (scheduler,) = (
        call
        for call in calls
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "from_config"
    )
    assert {k.arg: k.value.value for k in scheduler.keywords} == {
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "clip_sample": False,
    }
    assert "scheduler" not in drawn_with(Weights("lora", "LoRA adapter"))
    # It is in the model's own files.
    assert "scheduler" not in drawn_with(Weights("full", "whole model", has_zero_snr=True))


def test_settings_and_limits_are_in_the_body() -> None:
    text = card(**{"Learning rate": "0.0001", "LoRA rank": "16"})
    assert "| Learning rate | 0.0001 |\n| LoRA rank | 16 |\n" in text
    assert "## Limits" in text


def test_without_images_there_is_no_gallery_and_no_widget() -> None:
    text = card(samples=[])
    assert "<Gallery />" not in text
    assert "widget" not in front_matter(text)


def test_hostile_prompt_stays_inside_its_yaml_value() -> None:
    text = card(prompt=HOSTILE, samples=[CardSample("images/0.png", HOSTILE)])
    harmless = front_matter(card())
    metadata = front_matter(text)
    assert metadata.keys() == harmless.keys()
    assert metadata["instance_prompt"] == metadata["widget"][0]["text"] == one_line(HOSTILE)
    assert {k: v for k, v in metadata.items() if k not in ("instance_prompt", "widget")} == {
        k: v for k, v in harmless.items() if k not in ("instance_prompt", "widget")
    }


def test_hostile_prompt_adds_no_html_heading_row_or_fence_to_the_body() -> None:
    def shape(text: str) -> list[str]:
        body = text.split("\n---\n", 1)[1]
        return [line[:1] for line in body.splitlines() if line[:1] in ("#", "|", "`", "<", "-")]

    hostile = card(prompt=HOSTILE, samples=SAMPLES, **{"Steps": HOSTILE})
    assert shape(hostile) == shape(card())
    body = hostile.split("\n---\n", 1)[1]
    assert re.findall("<[^>]*>?", body) == ["<Gallery />"]
    row = next(line for line in body.splitlines() if line.startswith("| Steps"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_hostile_prompt_is_one_literal_in_the_snippet() -> None:
    hostile = list(ast.walk(ast.parse(snippet(card(prompt=HOSTILE)))))
    assert one_line(HOSTILE) in [node.value for node in hostile if isinstance(node, ast.Constant)]
    assert [type(node) for node in hostile] == [type(n) for n in ast.walk(ast.parse(snippet(card())))]


@pytest.mark.parametrize(
    "prompt", ["yes", "null", "12", "2024-01-01", "~", "- a", "a: b", "#x", "'", '"', "é 犬 🐕"]
)
def test_prompts_that_yaml_could_take_for_something_else_stay_strings(prompt: str) -> None:
    assert front_matter(card(prompt=prompt))["instance_prompt"] == prompt


def test_one_line_drops_control_and_direction_characters_but_no_joiners() -> None:
    assert one_line(" a\n\tb\u2028c\x07\u202e\ud800d ") == "a b cd"
    family = "\N{MAN}\u200d\N{WOMAN}"
    assert one_line(family) == family


def test_plain_escapes_markdown_and_html() -> None:
    assert plain("a_b <i>*&|`c`") == r"a\_b &lt;i&gt;\*&amp;\|\`c\`"


def test_card_is_valid_utf8_yaml_and_ends_with_a_line_feed() -> None:
    text = card(prompt=HOSTILE)
    assert text.encode("utf-8").decode() == text
    assert yaml.safe_load(text.split("---\n")[1])["library_name"] == "diffusers"
    assert text.endswith("consent.\n")
    assert "\n\n\n" not in text
