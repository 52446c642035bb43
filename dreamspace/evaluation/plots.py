"""Plots of an evaluation as SVG: likeness against obedience, and both over the steps."""

from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

Outcome = dict[str, Any]


def recommended_candidate(outcome: Outcome) -> dict[str, Any]:
    """The candidate that an outcome recommends."""
    return next(each for each in outcome["candidates"] if each["folder"] == outcome["best"])


"""The content of an evaluation.json."""

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 560, 360, 70, 48, 14, 26

_LABEL_WIDTH, _LABEL_HEIGHT = 60, 19

MEASURES = {
    "fidelity": ("likeness", "#6d5ae6"),
    "adherence": ("obedience", "#1f9d72"),
    "leak": ("leak", "#d98a1f"),
    "copying": ("copying", "#d64561"),
}
"""Of a checkpoint: what each is called, and its colour."""


def verdict_plot(
    outcome: Outcome, address: Callable[[int], str] | None = None, chosen: int | None = None
) -> Markup:
    """Every checkpoint by how much it resembles the photos and how well it follows prompts.

    Args:
        address: of a step, where a checkpoint can be chosen: its dot is a link then.
        chosen: the step whose dots are marked.
    """
    reaches, points = [], []
    # The largest dot first, so that it hides none.
    for each in sorted(outcome["candidates"], key=lambda each: each["folder"] != outcome["best"]):
        x, y = _x(each["adherence"]), _y(each["fidelity"])
        is_best = each["folder"] == outcome["best"]
        colour = "#6d5ae6" if is_best else "#9aa0b5" if each["is_on_front"] else "#c9cddb"
        shape = "" if each["weights"] != "ema" else ' stroke="currentColor" stroke-dasharray="2 2"'
        point = (
            f'<circle cx="{x}" cy="{y}" r="{9 if is_best else 6}" fill="{colour}"{shape}>'
            f"<title>{_told(each)}</title></circle>"
        )
        if address is not None:
            clicks = f'data-event="choose_checkpoint" data-checkpoint="{each["step"]}"'
            # A finger needs more than the dot. These lie below all dots, so that none covers another dot.
            reaches.append(f'<circle cx="{x}" cy="{y}" r="22" fill="transparent" {clicks}/>')
            current = ""
            if each["step"] == chosen:
                current = ' aria-current="true"'
                point += (
                    f'<circle cx="{x}" cy="{y}" r="{13 if is_best else 10}" fill="none" '
                    'stroke="currentColor" stroke-width="2" pointer-events="none"/>'
                )
            link = escape(address(each["step"]))
            point = f'<a href="?{link}" {clicks} aria-label="{_told(each)}"{current}>{point}</a>'
        points.append(point)
    front = sorted(
        (each["adherence"], each["fidelity"]) for each in outcome["candidates"] if each["is_on_front"]
    )
    line = " ".join(f"{_x(adherence)},{_y(fidelity)}" for adherence, fidelity in front)
    return _frame(
        f'<polyline points="{line}" fill="none" stroke="#6d5ae6" stroke-opacity=".35" stroke-width="2"/>'
        + "".join([*reaches, *points, *_labels(outcome)]),
        "does what prompts ask",
        "looks like the photos",
        [(share, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)],
        # What lies in an image is no link to a screen reader.
        "img" if address is None else "group",
    )


def _labels(outcome: Outcome) -> list[str]:
    """The names beside the dots, from the top down, each below the one that would be in its way."""
    texts, placed = [], []
    for each in sorted(outcome["candidates"], key=lambda each: -each["fidelity"]):
        x, y = _x(each["adherence"]), _y(each["fidelity"]) + 4
        for other_x, other_y in placed:
            if abs(x - other_x) < _LABEL_WIDTH and abs(y - other_y) < _LABEL_HEIGHT:
                y = other_y + _LABEL_HEIGHT
        placed.append((x, y))
        label = each["name"].replace("step ", "").replace(" (moving average)", " ema")
        is_right = each["adherence"] > 0.85  # where there is no room beside it
        texts.append(
            f'<text x="{x + (-16 if is_right else 16):.1f}" y="{y:.1f}" font-size="12" '
            f'text-anchor="{"end" if is_right else "start"}" '
            f'font-weight="{700 if each["folder"] == outcome["best"] else 400}">{escape(label)}</text>'
        )
    return texts


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
            f'<line x1="{x}" x2="{x}" y1="{_y(0)}" y2="{_y(1)}" stroke="currentColor" '
            'stroke-dasharray="4 4"/>'
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


def _frame(
    content: str, below: str, beside: str, marks: list[tuple[float, str]], role: str = "img"
) -> Markup:
    """A plot from 0 to 1 upwards, with its axes."""
    grid = "".join(
        f'<line x1="{_x(0)}" x2="{_x(1)}" y1="{_y(share)}" y2="{_y(share)}" stroke="currentColor" '
        'stroke-opacity=".13"/>'
        f'<text x="{_LEFT - 8}" y="{_y(share) + 4}" font-size="12" text-anchor="end">{share:.0%}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    ticks = "".join(
        f'<text x="{_x(share)}" y="{_HEIGHT - _BOTTOM + 20}" font-size="12" text-anchor="middle">{label}'
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
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="{role}" class="verdict-plot" '
        f'font-family="system-ui, sans-serif" fill="currentColor">{grid}{ticks}{names}{content}</svg>'
    )
