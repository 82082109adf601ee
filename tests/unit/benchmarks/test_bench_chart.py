"""Charts are well-formed, show every value where it belongs, and can be read on any page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from benchmarks.chart import Bar, Series, bar_chart, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own text


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


def heights(svg: str) -> list[float]:
    """Where the markers of the first line are, from the top (the last of them is the legend's)."""
    circles = parsed(svg).iter(f"{SVG}circle")
    return [float(circle.attrib["cy"]) for circle in circles][:-1]


def chart(*values: float | None, logarithmic: bool = False) -> str:
    points = [(float(index), value) for index, value in enumerate(values)]
    labels = [f"at {index}" for index in range(len(values))]
    return line_chart(
        title="A <title> & more", x_title="how many", y_title="ms", series=[Series("<one>", points)], x_labels=labels,
        logarithmic=logarithmic,
    )  # fmt: skip


def test_titles_axes_and_names_are_there_whatever_they_hold() -> None:
    shown = texts(chart(1, 2, 3))
    assert {"A <title> & more", "how many", "ms", "<one>", "at 0", "at 1", "at 2"} <= set(shown)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_more_stands_higher_and_all_of_it_stands_inside(logarithmic: bool) -> None:
    for values in ((1.0, 20.0, 300.0, 55_000.0), (0.02, 0.3, 0.4, 0.41), (7.0, 7.0, 7.0, 7.0)):
        places = heights(chart(*values, logarithmic=logarithmic))
        assert places == sorted(places, reverse=True)
        assert all(56 <= place <= 356 for place in places)


def test_a_logarithmic_axis_gives_each_factor_the_same_room() -> None:
    first, second, third = heights(chart(1, 10, 100, logarithmic=True))
    assert first - second == pytest.approx(second - third, abs=0.3)


def test_what_was_not_measured_is_left_out() -> None:
    assert len(heights(chart(1, None, 3))) == 2
    assert len(heights(chart(1, 0, 3, logarithmic=True))) == 2
    assert "nothing was measured" in texts(chart(None, None))


def test_large_numbers_are_short() -> None:
    shown = texts(chart(0, 20_000, 1_500_000))
    assert {"500k", "1M", "1.5M"} <= set(shown)


def test_numbers_on_the_lower_axis_have_round_ticks() -> None:
    svg = line_chart(
        title="t", x_title="minutes", y_title="MB", series=[Series("s", [(0.1, 1.0), (29.9, 2.0)])]
    )  # fmt: skip
    assert {"5", "10", "15", "20", "25"} <= set(texts(svg))


def test_bars_stand_one_behind_the_other() -> None:
    svg = bar_chart(
        title="t", x_title="us", bars=[Bar("a", [("x", 10.0), ("y", 30.0)]), Bar("b", [("x", 20.0)])]
    )  # fmt: skip
    rects = [rect.attrib for rect in parsed(svg).iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    first, second, third = (float(rect["width"]) for rect in rects)
    assert second == pytest.approx(3 * first, abs=0.2)
    assert third == pytest.approx(2 * first, abs=0.2)
    assert float(rects[1]["x"]) == pytest.approx(float(rects[0]["x"]) + first, abs=0.2)
    assert {"a", "b", "x", "y", "40", "20", "us"} <= set(texts(svg))


def test_a_chart_brings_its_background_and_colours_for_dark_pages() -> None:
    svg = chart(1, 2)
    style = re.search(r"<style>(.*)</style>", svg)
    assert style is not None
    light, _, dark = style[1].partition("@media(prefers-color-scheme:dark){")
    for name in (".back", ".grid", ".axis", ".title", ".l0", ".f7"):
        assert f"{name}{{" in light
        assert f"{name}" in dark
    assert 'class="back" width="100%" height="100%"' in svg
