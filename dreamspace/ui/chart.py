"""The loss as a picture: every step as a faint line, and the trend as a strong one."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from dreamspace.jobs.events import Event
from dreamspace.ui.page import render

MAX_POINTS = 300

Point = tuple[float, float]


def loss_chart(losses: Mapping[int, Event], num_steps: int) -> Markup:
    """The plot of a run's loss over its steps; "" before there are two.

    Args:
        losses: `loss` events by step, in order.
        num_steps: the right end of the plot.
    """
    points = [(step, event["loss"]) for step, event in losses.items() if event["loss"] is not None]
    if len(points) < 2:
        return Markup("")
    trend = smoothed(points, window=max(5.0, len(points) / 20))
    top = _nice_ceiling(sorted(value for _, value in points)[int(0.98 * (len(points) - 1))])
    right = max(num_steps, points[-1][0])
    return render(
        "chart.html",
        raw=_path(downsampled(points, MAX_POINTS), right, top),
        trend=_path(downsampled(trend, MAX_POINTS), right, top),
        levels=[(f"{top * share:.3g}", 100 * (1 - share)) for share in (1, 0.5, 0)],
        marks=[(round(right * share), 100 * share) for share in (0, 0.25, 0.5, 0.75, 1)],
        now=trend[-1],
        now_left=100 * trend[-1][0] / right,
        now_top=100 * (1 - min(trend[-1][1] / top, 1)),
        parts=_parts(losses),
    )


def smoothed(points: Sequence[Point], window: float) -> list[Point]:
    """An exponential mean over about `window` points, without a bias towards zero at its start."""
    keep = 1 - 1 / window
    total = weight = 0.0
    result = []
    for x, y in points:
        total, weight = keep * total + y, keep * weight + 1
        result.append((x, total / weight))
    return result


def downsampled(points: Sequence[Point], max_points: int) -> list[Point]:
    """At most `max_points` of the points, chosen so that the line keeps its peaks.

    Largest-Triangle-Three-Buckets (Steinarsson 2013): of each bucket the point that spans the largest
    triangle with the one chosen before and the mean of the next bucket.
    """
    if len(points) <= max_points:
        return list(points)
    chosen = [points[0]]
    edges = [1 + round(index * (len(points) - 2) / (max_points - 2)) for index in range(max_points - 1)]
    edges.append(len(points))
    for start, end, after in zip(edges, edges[1:], edges[2:], strict=False):
        following = points[end:after]
        mean_x = sum(x for x, _ in following) / len(following)
        mean_y = sum(y for _, y in following) / len(following)
        last_x, last_y = chosen[-1]
        chosen.append(
            max(
                points[start:end],
                key=lambda p: abs((last_x - mean_x) * (p[1] - last_y) - (last_x - p[0]) * (mean_y - last_y)),
            )
        )
    return [*chosen, points[-1]]


def _path(points: Sequence[Point], right: float, top: float) -> str:
    """The `d` of an SVG path in a box of 1000 x 1000 that is stretched to the plot."""
    return "M" + "L".join(f"{1000 * x / right:.1f} {1000 * (1 - min(y / top, 1)):.1f}" for x, y in points)


def _nice_ceiling(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** (len(str(int(value))) - 1) if value >= 1 else 1.0
    while power > value:
        power /= 10
    return next(power * factor for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if power * factor >= value)


def _parts(losses: Mapping[int, Event]) -> list[tuple[str, float]]:
    """The mean of the last steps' loss on the subject and on class images."""
    recent = list(losses.values())[-25:]
    parts = []
    for label, name in (("subject", "instance_loss"), ("class images", "prior_loss")):
        values = [event[name] for event in recent if event[name] is not None]
        if values:
            parts.append((label, sum(values) / len(values)))
    return parts if len(parts) == 2 else []
