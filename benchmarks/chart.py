"""Charts as SVG, written by hand because there are two kinds of them: lines over an axis, and bars of parts.

A chart brings its own background, and other colours where the reader's system is dark, so that it can be read on any
page. Colours are those of Okabe and Ito, which people with colour blindness can tell apart; markers differ as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH: Final = 900
_PLOT: Final = (80, 56, 550, 300)
"""Left, top, width and height of where the data stands; the legend is right of it."""
_BAR_LEFT: Final = 210
_BAR_HEIGHT: Final = 26
_BAR_STEP: Final = 40
_COLOURS: Final = (
    ("#0072b2", "#58b4e8"), ("#d55e00", "#ff9a4d"), ("#009e73", "#3fd0a4"), ("#b0508f", "#e59bca"),
    ("#8a6d00", "#f0d343"), ("#555555", "#b5b5b5"), ("#5e3fbe", "#b4a0ff"), ("#a11d33", "#ff8095"),
)  # fmt: skip
"""On light, on dark."""
_MARKERS: Final = ("circle", "square", "triangle", "diamond")
_TICKS_WANTED: Final = 6


@dataclass(frozen=True)
class Series:
    """A line: (x, y) in order; a y of none is left out."""

    name: str
    points: Sequence[tuple[float, float | None]]
    dashed: bool = False
    """A line that was calculated, without markers."""


@dataclass(frozen=True)
class Bar:
    """A bar of parts, each with its name."""

    name: str
    parts: Sequence[tuple[str, float]]


def line_chart(
    *,
    title: str,
    x_title: str,
    y_title: str,
    series: Sequence[Series],
    x_labels: Sequence[str] | None = None,
    logarithmic: bool = False,
) -> str:
    """x_labels: the x of points are places in this list; none: they are numbers. logarithmic: the y axis."""
    values = [y for one in series for _, y in one.points if y is not None and (y > 0 or not logarithmic)]
    xs = [x for one in series for x, _ in one.points]
    if not values:
        return _document(title, 120, [_text(_WIDTH / 2, 80, "nothing was measured", anchor="middle")])
    left, top, width, height = _PLOT
    y_ticks = _decades(min(values), max(values)) if logarithmic else _steps(0.0, max(values))
    x_ticks = list(range(len(x_labels))) if x_labels is not None else _steps(min(xs), max(xs), outside=False)
    x_from, x_to = (-0.3, len(x_labels) - 0.7) if x_labels is not None else (min(xs), max(xs))

    def across(x: float) -> float:
        return left + (x - x_from) / ((x_to - x_from) or 1.0) * width

    def up(y: float) -> float:
        low, high = y_ticks[0], y_ticks[-1]
        if logarithmic:
            low, high, y = math.log10(low), math.log10(high), math.log10(max(y, low))
        return top + height - (y - low) / ((high - low) or 1.0) * height

    lines: list[str] = []
    for tick in y_ticks:
        lines.append(f'<line class="grid" x1="{left}" x2="{left + width}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>')
        lines.append(_text(left - 8, up(tick) + 4, _short(tick), anchor="end"))
    for tick in x_ticks:
        label = x_labels[int(tick)] if x_labels is not None else _short(tick)
        lines.append(_text(across(tick), top + height + 20, label, anchor="middle"))
    lines.append(f'<path class="axis" d="M{left} {top}V{top + height}H{left + width}"/>')
    lines.append(_text(left + width / 2, top + height + 46, x_title, anchor="middle", kind="name"))
    turned = f'transform="translate(20 {top + height / 2}) rotate(-90)"'
    lines.append(f'<text class="name" text-anchor="middle" {turned}>{escape(y_title)}</text>')
    for number, one in enumerate(series):
        shown = [(across(x), up(y)) for x, y in one.points if y is not None and (y > 0 or not logarithmic)]
        lines.extend(_line(one, shown, number))
        lines.extend(_legend(number, one.name, left + width + 24, top + 10 + 24 * number, dashed=one.dashed))
    return _document(title, top + height + 70, lines)


def bar_chart(*, title: str, x_title: str, bars: Sequence[Bar]) -> str:
    """Bars from the left, one below the other; each part gets the colour of its name."""
    names = list(dict.fromkeys(name for bar in bars for name, _ in bar.parts))
    top = _PLOT[1]
    width = _WIDTH - _BAR_LEFT - 90
    bottom = top + _BAR_STEP * len(bars)
    ticks = _steps(0.0, max((sum(value for _, value in bar.parts) for bar in bars), default=0.0))

    def across(value: float) -> float:
        return _BAR_LEFT + value / (ticks[-1] or 1.0) * width

    lines: list[str] = []
    for tick in ticks:
        lines.append(f'<line class="grid" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="{top}" y2="{bottom}"/>')
        lines.append(_text(across(tick), bottom + 18, _short(tick), anchor="middle"))
    for row, bar in enumerate(bars):
        y = top + row * _BAR_STEP + (_BAR_STEP - _BAR_HEIGHT) / 2
        lines.append(_text(_BAR_LEFT - 10, y + _BAR_HEIGHT / 2 + 4, bar.name, anchor="end"))
        at = 0.0
        for name, value in bar.parts:
            colour = names.index(name) % len(_COLOURS)
            size = across(at + value) - across(at)
            lines.append(
                f'<rect class="f{colour}" x="{across(at):.1f}" y="{y:.1f}" width="{max(size, 0):.1f}"'
                f' height="{_BAR_HEIGHT}"><title>{escape(name)}: {value:,.1f}</title></rect>'
            )
            at += value
        lines.append(_text(across(at) + 6, y + _BAR_HEIGHT / 2 + 4, f"{at:,.0f}"))
    lines.append(f'<path class="axis" d="M{_BAR_LEFT} {top}V{bottom}H{_BAR_LEFT + width}"/>')
    lines.append(_text(_BAR_LEFT + width / 2, bottom + 42, x_title, anchor="middle", kind="name"))
    columns = 4
    for number, name in enumerate(names):
        x, y = 40 + (number % columns) * 190, bottom + 72 + (number // columns) * 24
        lines.append(f'<rect class="f{number % len(_COLOURS)}" x="{x}" y="{y - 11}" width="14" height="14"/>')
        lines.append(_text(x + 20, y, name))
    return _document(title, bottom + 72 + 24 * (-(-len(names) // columns)), lines)


def _line(series: Series, shown: Sequence[tuple[float, float]], number: int) -> Iterator[str]:
    if not shown:
        return
    colour = number % len(_COLOURS)
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in shown)
    dashes = ' stroke-dasharray="6 5"' if series.dashed else ""
    yield f'<path class="l{colour}" d="M{path}"{dashes}><title>{escape(series.name)}</title></path>'
    if not series.dashed and len(shown) <= 24:  # more of them would hide the line
        for x, y in shown:
            yield _marker(number, x, y)


def _legend(number: int, name: str, x: float, y: float, *, dashed: bool) -> Iterator[str]:
    dashes = ' stroke-dasharray="6 5"' if dashed else ""
    yield f'<path class="l{number % len(_COLOURS)}" d="M{x} {y - 4}h24"{dashes}/>'
    if not dashed:
        yield _marker(number, x + 12, y - 4)
    yield _text(x + 32, y, name)


def _marker(number: int, x: float, y: float) -> str:
    colour = f'class="f{number % len(_COLOURS)}"'
    match _MARKERS[number % len(_MARKERS)]:
        case "circle":
            return f'<circle {colour} cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        case "square":
            return f'<rect {colour} x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
        case "triangle":
            return f'<path {colour} d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>'
        case _:
            return f'<path {colour} d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"/>'


def _text(x: float, y: float, content: str, *, anchor: str = "start", kind: str = "text") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def _document(title: str, height: float, lines: Sequence[str]) -> str:
    light = "".join(_colour(number, pair[0]) for number, pair in enumerate(_COLOURS))
    dark = "".join(_colour(number, pair[1]) for number, pair in enumerate(_COLOURS))
    style = (
        "text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#444}"
        ".title{font-size:17px;font-weight:600;fill:#111}.name{fill:#111}"
        ".back{fill:#fff}.grid{stroke:#e2e2e2}.axis{stroke:#777;fill:none}"
        + light
        + "@media(prefers-color-scheme:dark)"
        "{text{fill:#c4c9d0}.title,.name{fill:#f0f3f6}.back{fill:#0d1117}.grid{stroke:#2a3038}.axis{stroke:#8b949e}"
        + dark
        + "}"
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}"'
        f' height="{height:.0f}" role="img" aria-label="{escape(title)}">'
    )
    body = [
        head,
        f"<title>{escape(title)}</title><style>{style}</style>",
        '<rect class="back" width="100%" height="100%" rx="6"/>',
        _text(_WIDTH / 2, 30, title, anchor="middle", kind="title"),
        *lines,
        "</svg>",
    ]
    return "\n".join(body) + "\n"


def _colour(number: int, colour: str) -> str:
    return f".l{number}{{stroke:{colour};stroke-width:2.2;fill:none}}.f{number}{{fill:{colour}}}"


def _steps(low: float, high: float, *, outside: bool = True) -> list[float]:
    """Round numbers from below `low` to above `high`, or between them."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _TICKS_WANTED))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * _TICKS_WANTED >= span)
    first, last = math.floor(low / step), math.ceil(high / step)
    if last == first:
        last += 1
    ticks = [round(number * step, 10) for number in range(first, last + 1)]
    return ticks if outside else [tick for tick in ticks if low <= tick <= high]


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20 ... around the values; only the powers of ten when they are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last == first:
        last += 1
    ticks = [factor * 10.0**power for power in range(first, last) for factor in (1, 2, 5)] + [10.0**last]
    while len(ticks) > 2 and ticks[1] <= low:
        ticks.pop(0)
    while len(ticks) > 2 and ticks[-2] >= high:
        ticks.pop()
    if len(ticks) > 10:
        powers = [tick for tick in ticks if math.log10(tick) == round(math.log10(tick))]
        return sorted({ticks[0], *powers, ticks[-1]})
    return ticks


def _short(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
