"""Outlines of heatmaps: closed, where the map has its level, and not too many points."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from data_specs.visit.assessment import EvidenceMap
from inference.render.outlines import outline_svg, outlines


def test_outlines_are_closed_and_follow_the_level_of_the_map() -> None:
    (line,) = outlines([[0] * 9] * 4 + [[0] * 4 + [255] + [0] * 4] + [[0] * 9] * 4, 0.5)
    assert np.array_equal(line[0], line[-1])
    assert np.allclose(line.mean(axis=0), 0.5, atol=0.01)
    assert np.all(np.hypot(*(line - 0.5).T) < 1 / 9)
    assert outlines([[0, 0], [0, 0]], 0.5) == []
    (whole,) = outlines([[255]], 0.5)
    assert whole.min() == 0
    assert whole.max() == 1


def test_outlines_have_a_limited_number_of_points() -> None:
    checks = [[255 * ((row + column) % 2) for column in range(48)] for row in range(48)]
    lines = outlines(checks, 0.5)
    assert lines
    assert all(np.array_equal(line[0], line[-1]) for line in lines)
    assert all(len(line) <= 2001 for line in lines)


def test_the_drawing_lies_over_the_film_whatever_its_shape() -> None:
    evidence = EvidenceMap(kind="heatmap", input=0, values=[[0, 0, 0], [0, 255, 0], [0, 0, 0]])
    drawn = ElementTree.fromstring(outline_svg(evidence))
    assert drawn.get("preserveAspectRatio") == "none"
    assert drawn.get("viewBox") == "0 0 1000 1000"
    assert len(drawn) == 2  # dark below light, so that it is seen on any grey
