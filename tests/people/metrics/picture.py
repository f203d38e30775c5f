"""The dashboard as a picture: its panels drawn with what Prometheus answers, for the documents. Grafana itself is not among the tools."""

from __future__ import annotations

import html
import itertools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

Ask = Callable[[str], list[dict[str, Any]]]
"""From a query to its series over the time that is shown, each with `metric` and `values` (time, text)."""

_COLORS: Final = ("#73bf69", "#5794f2", "#f2cc0c", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ffee52")
_COLUMN, _LINE, _GAP = 52, 28, 6
_STYLE: Final = (
    "body{margin:0;background:#111217;color:#ccccdc;font:12px sans-serif}"
    ".panel{position:absolute;box-sizing:border-box;background:#181b1f;border:1px solid #2c3235;overflow:hidden;padding:4px 8px}"
    ".row{background:none;border:none;font-size:15px;font-weight:bold}.number{font-size:26px;color:#73bf69;padding-top:16px}"
    ".legend{font-size:9px;white-space:nowrap;overflow:hidden}"
)


def page(dashboard: Mapping[str, Any], ask: Ask) -> tuple[str, int, int]:
    """The page, its width and height."""
    panels = dashboard["panels"]
    height = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in panels) * _LINE + _GAP
    drawn = "".join(_panel(one, ask) for one in panels)
    return f"<!doctype html><style>{_STYLE}</style><body>{drawn}", 24 * _COLUMN + _GAP, height


def _panel(panel: Mapping[str, Any], ask: Ask) -> str:
    place = panel["gridPos"]
    x, y = place["x"] * _COLUMN + _GAP, place["y"] * _LINE + _GAP
    width, height = place["w"] * _COLUMN - _GAP, place["h"] * _LINE - _GAP
    at = f"left:{x}px;top:{y}px;width:{width}px;height:{height}px"
    title = html.escape(panel["title"])
    if panel["type"] == "row":
        return f'<div class="panel row" style="{at}">{title}</div>'
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    found = [(one, target["legendFormat"]) for target in panel["targets"] for one in ask(target["expr"])]
    if panel["type"] == "stat":
        value = next((float(one["values"][-1][1]) for one, _ in found), math.nan)
        return f'<div class="panel" style="{at}">{title}<div class="number">{_said(value, unit)}</div></div>'
    return f'<div class="panel" style="{at}">{title}{_curves(found, width - 16, height - 60, unit)}</div>'


def _curves(found: list[tuple[dict[str, Any], str]], width: int, height: int, unit: str) -> str:
    series = [
        ([(float(at), float(text)) for at, text in one["values"] if text != "NaN"], _legend(legend, one["metric"]))
        for one, legend in found
    ]
    points = [point for values, _ in series for point in values]
    if not points:
        return ""
    begin, end = min(at for at, _ in points), max(at for at, _ in points)
    top = max(value for _, value in points) or 1.0
    lines, legends = [], []
    for (values, legend), color in zip(series, itertools.cycle(_COLORS), strict=False):
        path = " ".join(
            f"{(at - begin) / ((end - begin) or 1) * width:.1f},{height - max(value, 0.0) / top * (height - 12):.1f}"
            for at, value in values
        )
        lines.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        legends.append(f'<span style="color:{color}">&#9644;</span> {html.escape(legend)} ')
    scale = f'<text x="0" y="10" fill="#8e8e9a" font-size="9">{_said(top, unit)}</text>'
    drawing = f'<svg width="{width}" height="{height}" style="display:block">{scale}{"".join(lines)}</svg>'
    return f'{drawing}<div class="legend">{"".join(legends)}</div>'


def _legend(template: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


def _said(value: float, unit: str) -> str:
    if math.isnan(value):
        return "no data"
    if unit == "dateTimeFromNow":
        return f"in {max(value / 1000 - time.time(), 0) / 86400:.0f} days"
    if unit == "percentunit":
        return f"{value:.1%}"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    return f"{value:.3g}{' /s' if unit in ('reqps', 'ops') else ''}"
