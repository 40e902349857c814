"""Colours of all figures: those of Okabe and Ito 2008, which people who confuse colours can tell apart."""

from __future__ import annotations

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY = "#999999"

LEVEL_COLOURS = {"info": GREY, "warning": ORANGE, "critical": RED}
"""Of alerts."""
