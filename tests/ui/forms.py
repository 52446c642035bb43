"""The fields of all steps as a visitor finds them, and what a panel says."""

import re

from dreamspace.config import load_preset
from dreamspace.ui.new_training import Form
from dreamspace.ui.settings_form import expert_settings, shown_value

EXPERTS = [*(name for names in expert_settings().values() for name in names), "prior_loss_weight"]
EXPERT_VALUES = {name: shown_value(name, load_preset("mini").config) for name in EXPERTS}
FORM = Form("dog", "sks", "mini", 400, "base", 24, "", 128, EXPERT_VALUES)


def text_of(html: str) -> str:
    """The words of a panel without its tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())
