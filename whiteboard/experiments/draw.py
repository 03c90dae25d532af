"""Drawings; the one place that needs matplotlib (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import MissingExtraError, PlotError
from whiteboard.types import Array

FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Raise before a long run what would keep its drawing from being written.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    PlotError
        The file's format or folder will not do.
    """
    if find_spec("matplotlib") is None:
        msg = "drawing needs matplotlib: pip install 'whiteboard[plot]'"
        raise MissingExtraError(msg)
    if path.suffix.lower() not in FORMATS:
        msg = f"cannot draw {path}: expected a file name that ends in {', '.join(FORMATS)}"
        raise PlotError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"cannot draw {path}: there is no folder {path.absolute().parent}"
        raise PlotError(msg)
    if path.exists() and not path.is_file():
        msg = f"cannot draw {path}: it is {'a folder' if path.is_dir() else 'not a regular file'}"
        raise PlotError(msg)


def draw_map(
    points: Array, names: list[str], edges: NDArray[np.int64], strain: Array, title: str, subtitle: str, path: Path
) -> None:
    """Draw named points (n, 2) in km and edges (m, 2) coloured by their strain (L − L*)/L*, (m,)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    order = np.argsort(np.abs(strain))  # the worst on top
    limit = float(np.abs(strain).max())
    lines = LineCollection(
        list(points[edges[order]]), cmap="coolwarm", linewidths=0.6 + 1.4 * np.abs(strain[order]) / max(limit, 1e-300)
    )
    lines.set_array(100 * strain[order])
    lines.set_clim(-100 * limit, 100 * limit)
    lines.set_alpha(0.55)
    axes.add_collection(lines)
    axes.scatter(points[:, 0], points[:, 1], s=26, color="black", zorder=3)
    axes.set_aspect("equal")
    axes.margins(0.09)
    axes.autoscale_view()
    axes.set_xlabel("km, east →")
    axes.set_ylabel("km, north →")
    axes.set_title(f"{title}\n{subtitle}", fontsize=11)
    bar = figure.colorbar(lines, ax=axes, shrink=0.75, pad=0.01)
    bar.set_label("edge strain (L − L*) / L*, %: red is drawn too long, blue too short")
    _label(figure, axes, points, names)
    figure.savefig(path)


def draw_progress(
    measures: Sequence[tuple[int, float]], hit_rates: Sequence[tuple[int, float]], title: str, label: str, path: Path
) -> None:
    """Draw a measure (commit, value) on a logarithmic scale, and the hit rate (commit, 0 to 1), over the commits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), dpi=150, layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    if measures:
        above.plot(*zip(*measures, strict=True), color="C0")
        above.set_yscale("log")
        above.set_xscale("log")  # most of the way is made in the first rounds
        number, value = measures[-1]
        above.annotate(f"{value:.4f}", (number, value), xytext=(-4, 8), textcoords="offset points", ha="right")
    above.set_ylabel(label)
    above.set_title(title, fontsize=11)
    above.grid(visible=True, which="both", alpha=0.25)
    if hit_rates:
        below.plot([number for number, _ in hit_rates], [100 * rate for _, rate in hit_rates], color="C2")
    else:
        below.text(0.5, 0.5, "no round in this run", transform=below.transAxes, ha="center", va="center")
    below.set_ylim(-5, 105)
    below.set_ylabel("hits, %")
    below.set_xlabel("commit")
    below.grid(visible=True, alpha=0.25)
    figure.savefig(path)


def draw_descent(trace: Sequence[tuple[float, float]], title: str, path: Path) -> None:
    """Draw f and ‖g‖ of each evaluation (f, ‖g‖), the norm on a logarithmic scale and left out where it is NaN."""
    from matplotlib.figure import Figure

    values, norms = np.array(trace, np.float64).reshape(-1, 2).T
    figure = Figure(figsize=(9, 5.5), dpi=150, layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    numbers = np.arange(1, len(values) + 1)
    above.plot(numbers, values, ".-", color="C0", linewidth=0.8)
    if len(values):
        above.plot(numbers, np.fmin.accumulate(values), color="C3", label="least so far")
        above.legend()
    if len(values) and values.min() > 0 and values.max() > 100 * values.min():
        above.set_yscale("log")
    above.set_ylabel("f")
    above.set_title(title, fontsize=11)
    if np.isfinite(norms).any():
        below.plot(numbers, norms, ".-", color="C2", linewidth=0.8)
        below.set_yscale("log")
    else:
        below.text(0.5, 0.5, "this method asks for no gradient", transform=below.transAxes, ha="center", va="center")
    below.set_ylabel("‖g‖")
    below.set_xlabel("evaluation")
    for axes in (above, below):
        axes.grid(visible=True, which="both", alpha=0.25)
    figure.savefig(path)


def _label(figure: Any, axes: Any, points: Array, names: list[str]) -> None:
    """Write each name beside its point, on the side where it overlaps least with names and points."""
    figure.canvas.draw()  # settles the layout, so that extents in pixels are final
    renderer = figure.canvas.get_renderer()
    dots = axes.transData.transform(points)
    box = axes.get_window_extent(renderer)
    taken: list[tuple[float, float, float, float]] = [(x - 8, y - 8, x + 8, y + 8) for x, y in dots]
    crowd = np.linalg.norm(dots[:, None] - dots[None], axis=-1)
    for i in np.argsort(np.sort(crowd, axis=1)[:, 1]):  # the most crowded choose first
        text = axes.annotate(
            names[i],
            points[i],
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=9,
            zorder=4,
            bbox={"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none", "alpha": 0.75},
        )
        size = text.get_window_extent(renderer)
        scale = figure.dpi / 72
        best = min(
            _offsets(size.width / scale, size.height / scale),
            key=lambda o: _cost(o, dots[i], size, scale, taken, box, i),
        )
        text.set_position(best)
        x, y = dots[i] + np.array(best) * scale
        taken.append((x, y, x + size.width, y + size.height))


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    """Return the lower left corners, in points from the dot, of the places for a label, the best ones first."""
    gap = 5.0
    near = [
        (gap, -height / 2),
        (-gap - width, -height / 2),
        (-width / 2, gap),
        (-width / 2, -gap - height),
        (gap, gap / 2),
        (gap, -height - gap / 2),
        (-gap - width, gap / 2),
        (-gap - width, -height - gap / 2),
    ]
    far = [(x * 1.0 + np.sign(x) * 9, y + np.sign(y + height / 2) * 9) for x, y in near]
    return near + far


def _cost(
    offset: tuple[float, float],
    dot: Array,
    size: Any,
    scale: float,
    taken: list[tuple[float, float, float, float]],
    box: Any,
    own: int,
) -> float:
    """Return the pixels of overlap of a label's place with what is drawn already, or outside of the axes."""
    x, y = dot + np.array(offset) * scale
    right, top = x + size.width, y + size.height
    outside = max(0, box.x0 - x) + max(0, right - box.x1) + max(0, box.y0 - y) + max(0, top - box.y1)
    overlap = sum(
        max(0.0, min(right, x1) - max(x, x0)) * max(0.0, min(top, y1) - max(y, y0))
        for number, (x0, y0, x1, y1) in enumerate(taken)
        if number != own
    )
    return float(1000 * outside + overlap)
