"""Plots of an evaluation as SVG: likeness against obedience, and both over the steps."""

from typing import Any

from markupsafe import Markup, escape

Outcome = dict[str, Any]
"""The content of an evaluation.json."""

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 560, 360, 54, 46, 14, 20

MEASURES = {
    "fidelity": ("likeness", "#6d5ae6"),
    "adherence": ("obedience", "#1f9d72"),
    "leak": ("leak", "#d98a1f"),
    "copying": ("copying", "#d64561"),
}
"""Of a checkpoint: what each is called, and its colour."""


def verdict_plot(outcome: Outcome) -> Markup:
    """Every checkpoint by how much it resembles the photos and how well it follows prompts."""
    points = []
    for each in outcome["candidates"]:
        is_best = each["folder"] == outcome["best"]
        colour = "#6d5ae6" if is_best else "#9aa0b5" if each["is_on_front"] else "#c9cddb"
        shape = "" if each["weights"] != "ema" else ' stroke="#1f2333" stroke-dasharray="2 2"'
        points.append(
            f'<circle cx="{_x(each["adherence"])}" cy="{_y(each["fidelity"])}" r="{9 if is_best else 6}" '
            f'fill="{colour}"{shape}><title>{_told(each)}</title></circle>'
        )
        label = each["name"].replace("step ", "").replace(" (moving average)", " ema")
        is_right = each["adherence"] > 0.85  # where there is no room beside it
        points.append(
            f'<text x="{_x(each["adherence"]) + (-12 if is_right else 12):.1f}" font-size="12" '
            f'y="{_y(each["fidelity"]) + 4:.1f}" text-anchor="{"end" if is_right else "start"}" '
            f'font-weight="{700 if is_best else 400}">{escape(label)}</text>'
        )
    front = sorted(
        (each["adherence"], each["fidelity"]) for each in outcome["candidates"] if each["is_on_front"]
    )
    line = " ".join(f"{_x(adherence)},{_y(fidelity)}" for adherence, fidelity in front)
    return _frame(
        f'<polyline points="{line}" fill="none" stroke="#6d5ae6" stroke-opacity=".35" stroke-width="2"/>'
        + "".join(points),
        "does what prompts ask",
        "looks like the photos",
        [(share, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)],
    )


def steps_plot(outcome: Outcome) -> Markup:
    """What changes from checkpoint to checkpoint; of the trained weights, or of all there are."""
    candidates = [each for each in outcome["candidates"] if each["step"] and each["weights"] == "trained"]
    if len(candidates) < 2:
        return Markup("")
    last = candidates[-1]["step"]
    lines = []
    for name, (label, colour) in MEASURES.items():
        points = " ".join(f"{_x(each['step'] / last)},{_y(each[name])}" for each in candidates)
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"><title>{label}'
            "</title></polyline>"
        )
    best = next((each for each in candidates if each["folder"] == outcome["best"]), None)
    if best is not None:
        x = _x(best["step"] / last)
        lines.append(
            f'<line x1="{x}" x2="{x}" y1="{_y(0)}" y2="{_y(1)}" stroke="#1f2333" stroke-dasharray="4 4"/>'
        )
    marks = [(each["step"] / last, str(each["step"])) for each in candidates]
    return _frame("".join(lines), "step", "", marks)


def _told(each: dict[str, Any]) -> str:
    measured = ", ".join(f"{label} {each[name]:.0%}" for name, (label, _) in MEASURES.items())
    return f"{escape(each['name'])}: {measured}"


def _x(share: float) -> float:
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(share: float) -> float:
    return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP), 1)


def _frame(content: str, below: str, beside: str, marks: list[tuple[float, str]]) -> Markup:
    """A plot from 0 to 1 upwards, with its axes."""
    grid = "".join(
        f'<line x1="{_x(0)}" x2="{_x(1)}" y1="{_y(share)}" y2="{_y(share)}" stroke="#e3e5ee"/>'
        f'<text x="{_LEFT - 8}" y="{_y(share) + 4}" font-size="12" text-anchor="end">{share:.0%}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    ticks = "".join(
        f'<text x="{_x(share)}" y="{_HEIGHT - _BOTTOM + 18}" font-size="12" text-anchor="middle">{label}'
        "</text>"
        for share, label in marks
    )
    middle_y = (_HEIGHT - _BOTTOM + _TOP) / 2
    names = (
        f'<text x="{_x(0.5)}" y="{_HEIGHT - 6}" font-size="13" text-anchor="middle">{below}</text>'
        f'<text x="14" y="{middle_y}" font-size="13" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle_y})">{beside}</text>'
    )
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="verdict-plot" '
        f'font-family="system-ui, sans-serif" fill="currentColor">{grid}{ticks}{names}{content}</svg>'
    )
