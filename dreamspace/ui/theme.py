"""How the app looks: night indigo and violet, in light and dark, with the fonts that the machine has."""

from pathlib import Path

import gradio as gr

_FOLDER = Path(__file__).parent
CSS = (_FOLDER / "style.css").read_text(encoding="utf-8")
# As data: a raster icon given to Gradio could be asked for at any size, which is work for the server.
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 40 40'%3E%3Crect width='40' "
    "height='40' rx='11' fill='%235b49d6'/%3E%3Cpath d='M25.6 26.9A10.4 10.4 0 0 1 17.2 9.6a11.2 11.2 0 1 0 "
    "13.4 15.6 10.3 10.3 0 0 1-5 1.7z' fill='%23fff'/%3E%3C/svg%3E"
)
HEAD = (
    f'<link rel="icon" type="image/svg+xml" href="{_ICON}">'
    '<meta name="color-scheme" content="light dark">'
    f"<script>{(_FOLDER / 'page.js').read_text(encoding='utf-8')}</script>"
)

_INDIGO = gr.themes.Color(
    name="indigo",
    c50="#f3f2fe", c100="#e8e6fd", c200="#d3cffb", c300="#b5adf7", c400="#9387f1", c500="#7464e8",
    c600="#5b49d6", c700="#4a3ab6", c800="#3c3192", c900="#332b75", c950="#1f1a4a",
)  # fmt: skip
_NIGHT = gr.themes.Color(
    name="night",
    c50="#f7f6fb", c100="#efedf7", c200="#e1deee", c300="#c8c3dd", c400="#9d97b8", c500="#6f6a8c",
    c600="#565173", c700="#403b5c", c800="#2b2745", c900="#1b1830", c950="#110f20",
)  # fmt: skip

THEME = gr.themes.Base(
    primary_hue=_INDIGO,
    secondary_hue=_INDIGO,
    neutral_hue=_NIGHT,
    text_size=gr.themes.sizes.text_md,
    radius_size=gr.themes.sizes.radius_lg,
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
).set(
    body_background_fill="#f5f4fb",
    body_background_fill_dark="#0f0d1c",
    body_text_color="*neutral_900",
    body_text_color_dark="#eceaf7",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="#aaa5c6",
    background_fill_primary="#ffffff",
    background_fill_primary_dark="#181530",
    background_fill_secondary="#faf9fe",
    background_fill_secondary_dark="#141127",
    border_color_primary="*neutral_200",
    border_color_primary_dark="#2e2950",
    border_color_accent="*primary_300",
    border_color_accent_dark="#6a5cd8",
    color_accent="*primary_600",
    color_accent_soft="*primary_50",
    color_accent_soft_dark="#262050",
    link_text_color="*primary_700",
    link_text_color_dark="#b1a6ff",
    block_background_fill="transparent",
    block_background_fill_dark="transparent",
    block_border_width="0px",
    block_border_width_dark="0px",
    block_shadow="none",
    block_shadow_dark="none",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_title_text_color="*neutral_800",
    block_title_text_color_dark="#dcd8f0",
    block_title_text_weight="600",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="#a09bbd",
    input_background_fill="#ffffff",
    input_background_fill_dark="#110f22",
    input_border_color="*neutral_300",
    input_border_color_dark="#3b3562",
    input_border_color_focus="*primary_500",
    input_border_color_focus_dark="#8d7dff",
    input_border_width="1px",
    input_shadow_focus="0 0 0 3px rgba(116, 100, 232, 0.18)",
    input_shadow_focus_dark="0 0 0 3px rgba(141, 125, 255, 0.22)",
    input_placeholder_color="*neutral_400",
    input_placeholder_color_dark="#6d678f",
    checkbox_background_color="#ffffff",
    checkbox_background_color_dark="#110f22",
    checkbox_background_color_selected="*primary_600",
    checkbox_background_color_selected_dark="#7d6cf5",
    checkbox_border_color="*neutral_300",
    checkbox_border_color_dark="#4a4378",
    checkbox_label_background_fill="#ffffff",
    checkbox_label_background_fill_dark="#110f22",
    checkbox_label_background_fill_selected="*primary_50",
    checkbox_label_background_fill_selected_dark="#262050",
    checkbox_label_border_color="*neutral_300",
    checkbox_label_border_color_dark="#3b3562",
    slider_color="*primary_600",
    slider_color_dark="#8d7dff",
    loader_color="*primary_500",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_dark="#6d5bf0",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_hover_dark="#7f6ef8",
    button_primary_border_color="transparent",
    button_primary_border_color_dark="transparent",
    button_primary_text_color="#ffffff",
    button_primary_text_color_dark="#ffffff",
    button_secondary_background_fill="#ffffff",
    button_secondary_background_fill_dark="#201c3d",
    button_secondary_background_fill_hover="*primary_50",
    button_secondary_background_fill_hover_dark="#2a2551",
    button_secondary_border_color="*neutral_300",
    button_secondary_border_color_dark="#403a6c",
    button_secondary_text_color="*neutral_800",
    button_secondary_text_color_dark="#e4e0f7",
    button_border_width="1px",
    button_large_radius="12px",
    button_large_text_weight="600",
    button_transition="background-color 120ms ease, border-color 120ms ease",
)
