"""SimpleTuner's validation images in our words."""

from dreamspace.simpletuner.reading import Draft, Find, is_true, number, read_lenient_json

NEGATIVE_PROMPT = "blurry, cropped, ugly"
"""What SimpleTuner takes for a negative prompt that is absent or empty."""


def translate_validation(draft: Draft, find: Find) -> None:
    """Take what concerns validation images; `find` finds the files that it names."""
    given = draft.given
    draft.settings["held_out_photos"] = False  # All photos of its image datasets are trained on there.
    _resolution(draft)
    _prompt_library(draft, find)
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
    size = written.split(",")[0].strip()
    if not size:
        return
    if "," in written:
        draft.say("differs", key, f"of '{written}' the first size is drawn.")
    if number(size, 1024) >= 128 and "." not in size:
        draft.settings[key] = size
    elif number(size, 0) == 1:
        draft.write(key, "1024", f"'{written}' counts megapixels there: '1024' is written.")
    else:
        draft.say("differs", key, f"'{written}' counts megapixels there: the training's size is drawn.")


def _prompt_library(draft: Draft, find: Find) -> None:
    """Further prompts, which SimpleTuner keeps in a file of their own."""
    key = "user_prompt_library"
    name = draft.take(key)
    if name is None:
        return
    path = find(str(name))
    if path is None:
        draft.say("ignored", key, f"there is no file {name} here: write its prompts into validation_prompts.")
        return
    library = read_lenient_json(path)
    if not isinstance(library, dict):
        raise ValueError(f'{path} must hold prompts by name, such as {{"beach": "a dog at a beach"}}.')
    prompts = [entry.get("prompt") if isinstance(entry, dict) else entry for entry in library.values()]
    draft.settings["validation_prompts"] = prompts
    draft.say("hint", key, f"its {len(prompts)} prompts are written into validation_prompts.")
