"""SimpleTuner's validation images in our words."""

from pathlib import Path

from dreamspace.config.prompt_library import LIBRARIES
from dreamspace.simpletuner.reading import Draft, Find, is_true, number, read_lenient_json

NEGATIVE_PROMPT = "blurry, cropped, ugly"
"""What SimpleTuner takes for a negative prompt that is absent or empty."""


def translate_validation(draft: Draft, find: Find) -> None:
    """Take what concerns validation images; `find` finds the files that it names."""
    given = draft.given
    draft.settings["held_out_photos"] = False  # All photos of its image datasets are trained on there.
    _resolution(draft)
    _prompt_libraries(draft, find)
    _webhook(draft, find)
    if is_true(given.get("validation_disable")) and is_true(given.get("validation_preview")):
        draft.take("validation_preview")
        message = "validation_disable draws no images, so that there is nothing to preview: it is left out."
        draft.say("trap", "validation_preview", message)
    if number(given.get("num_validation_images"), 1) > 1:
        message = "SimpleTuner draws all of them from one seed's noise; here each has the next seed."
        draft.say("differs", "num_validation_images", message)
    if is_true(given.get("validation_preview")):
        interval = int(number(given.get("validation_preview_steps"), 1))
        draft.settings["validation_preview_steps"] = interval
        if interval > 1:
            message = f"SimpleTuner also sends the first step; here every {interval}th is sent alone."
            draft.say("trap", "validation_preview_steps", message)
    if "validation_negative_prompt" in draft.empty:
        message = f"SimpleTuner drops an empty text and takes '{NEGATIVE_PROMPT}'; ',' says nothing there."
        draft.say("trap", "validation_negative_prompt", message)
    if given.get("evaluation_type") == "clip":
        draft.say(
            "trap", "evaluation_type", "SimpleTuner scores only the last image of each prompt; here all are."
        )
    if "validation_prompt" not in given and not is_true(given.get("validation_disable")):
        message = "absent: SimpleTuner draws no prompt of yours; here the subject's own is drawn."
        draft.say("differs", "validation_prompt", message)


def _resolution(draft: Draft) -> None:
    """SimpleTuner takes several sizes, and small numbers for megapixels."""
    key = "validation_resolution"
    written = str(draft.take(key, ""))
    sizes = [size for each in written.split(",") if (size := _size(draft, key, each.strip()))]
    if sizes:
        draft.settings[key] = ",".join(sizes)


def _size(draft: Draft, key: str, size: str) -> str | None:
    """A size in px; None for one that is left out."""
    if not size:
        return None
    if number(size, 1024) >= 128 and "." not in size:
        return size
    if number(size, 0) == 1:
        draft.say("differs", key, f"'{size}' counts megapixels there: '1024' is written.")
        return "1024"
    draft.say("differs", key, f"'{size}' counts megapixels there, and is left out.")
    return None


def _prompt_libraries(draft: Draft, find: Find) -> None:
    """Further prompts, which SimpleTuner has of its own or keeps in a file."""
    for key in ("validation_prompt_library", "user_prompt_library"):
        name = draft.take(key)
        if name is None or str(name).lower() == "false":
            continue
        path = find(str(name))
        if name in LIBRARIES and key == "validation_prompt_library":
            draft.settings[key] = name
        elif path is not None:
            _read_prompts(draft, key, path)
        elif key == "validation_prompt_library":
            ours = " or ".join(map(repr, LIBRARIES))
            draft.say("ignored", key, f"SimpleTuner's own prompts are not here: set {ours} for ours.")
        else:
            message = f"there is no file {name} here: write its prompts into validation_prompts."
            draft.say("ignored", key, message)


def _read_prompts(draft: Draft, key: str, path: Path) -> None:
    library = read_lenient_json(path)
    if not isinstance(library, dict):
        raise ValueError(f'{path} must hold prompts by name, such as {{"beach": "a dog at a beach"}}.')
    prompts = [entry.get("prompt") if isinstance(entry, dict) else entry for entry in library.values()]
    draft.settings["validation_prompts"] = [*draft.settings.get("validation_prompts", []), *prompts]
    draft.say("hint", key, f"its {len(prompts)} prompts are written into validation_prompts.")


def _webhook(draft: Draft, find: Find) -> None:
    """The file holds a secret, so it stays where it is."""
    key = "webhook_config"
    name = draft.take(key)
    if name is None:
        return
    path = find(str(name))
    if path is None:
        draft.say("ignored", key, f"there is no file {name} here, and nothing is sent.")
    else:
        draft.settings[key] = str(path.resolve())
