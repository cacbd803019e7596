"""Worked out from the guideline, for tests of the graph and of what is said of it."""

from __future__ import annotations

HEAT_MAP = {
    "G1": ("low", "moderate", "high"),
    "G2": ("low", "moderate", "high"),
    "G3a": ("moderate", "high", "very high"),
    "G3b": ("high", "very high", "very high"),
    "G4": ("very high", "very high", "very high"),
    "G5": ("very high", "very high", "very high"),
}
"""KDIGO 2024, 'Prognosis of CKD by GFR and albuminuria categories', A1 to A3: green, yellow, orange, red."""
