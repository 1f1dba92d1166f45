"""What a fleet's simulation came to, drawn."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DPI, WIDTH, HEIGHT = 80, 10.0, 2.4
COLOUR = "#3b6ea5"


def drawing() -> Any:
    """matplotlib, drawing into files; ends the run with a clear line where it is missing."""
    try:
        library = importlib.import_module("matplotlib")
    except ModuleNotFoundError:
        sys.exit("--plot needs matplotlib: pip install 'edged[bench]', or leave --plot out for the tables alone")
    library.use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def draw_requests(path: Path, series: Sequence[tuple[str, NDArray[np.int64], float]]) -> None:
    """Requests of all devices by second. series: title, counts from the event on, and the limit of its axis."""
    pyplot, rows = drawing(), -(-len(series) // 2)
    figure, panels = pyplot.subplots(rows, 2, figsize=(WIDTH, HEIGHT * rows))
    for panel in panels.flat[len(series) :]:
        panel.set_axis_off()
    for panel, (title, counts, limit) in zip(panels.flat, series, strict=False):
        panel.fill_between(np.arange(len(counts)) / 60, counts / 1000, step="mid", linewidth=0, color=COLOUR)
        panel.set_title(title, fontsize=9, loc="left")
        panel.set_ylim(0, limit / 1000)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[:, 0]:
        panel.set_ylabel("thousands a second", fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("minutes", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)


def draw_release(path: Path, live_after: NDArray[np.float64]) -> None:
    """The share of the devices on which a release is not live yet, by the seconds since."""
    pyplot, times = drawing(), np.sort(live_after)
    figure, panel = pyplot.subplots(figsize=(WIDTH * 0.6, HEIGHT * 1.2))
    seconds = np.linspace(0, 12, 400)
    left = 1 - np.searchsorted(times, seconds, side="right") / len(times)
    panel.plot(seconds, 100 * np.maximum(left, 1e-6), color=COLOUR)
    panel.axhline(0.1, color="#999999", linewidth=0.8, linestyle="--")
    panel.set(yscale="log", ylim=(1e-4, 150))
    panel.set_xlabel("seconds since the release", fontsize=8)
    panel.set_ylabel("% of the devices without it", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)
