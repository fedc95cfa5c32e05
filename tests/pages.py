"""What every page must hold to in a browser: nothing cut off or hard to read, all within a keyboard's reach."""

from typing import Any

import pytest

SMALLEST_CONTRAST = 4.5
"""WCAG 2, level AA, of text that is not large."""

# Colours go through a canvas, which knows every way to write one; backgrounds that let others through lie on these.
_FAINT = """smallest => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((x, i) => x * a + below[i] * (1 - a));
    const behind = node => {
        const own = rgba(getComputedStyle(node).backgroundColor);
        if (own[3] === 1) return own.slice(0, 3);
        const page = rgba(getComputedStyle(document.body).backgroundColor).slice(0, 3);
        return over(own, node.parentElement ? behind(node.parentElement) : page);
    };
    const light = rgb => rgb.map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
        .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
    const found = [];
    for (const node of document.body.querySelectorAll("*")) {
        const written = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
        const place = node.getBoundingClientRect();
        if (!written || !place.width || !place.height || !node.checkVisibility({visibilityProperty: true})) continue;
        const style = getComputedStyle(node), ground = behind(node);
        const ink = over(rgba(node instanceof SVGElement ? style.fill : style.color), ground);
        const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
        const contrast = (high + 0.05) / (low + 0.05);
        if (contrast < smallest) found.push(`${contrast.toFixed(2)}: ${node.textContent.trim().slice(0, 40)}`);
    }
    return found;
}"""

# Tabs beside the chosen one are reached by the arrow keys.
_UNREACHABLE = """() => [...document.querySelectorAll("button, select, input, summary, a[href], [role=button]")]
    .filter(node => node.checkVisibility() && !node.disabled && node.tabIndex < 0 && node.role !== "tab")
    .map(node => node.outerHTML.slice(0, 80))"""

_STUCK = """() => [...document.querySelectorAll("*")].filter(node => node.checkVisibility()
    && node.scrollWidth > node.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(node).overflowX)
    && node.tabIndex < 0 && !node.querySelector("a[href], button, select, input, summary"))
    .map(node => node.outerHTML.slice(0, 80))"""


on_every_screen = pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (390, "dark"),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
        pytest.param(390, "light", marks=pytest.mark.slow),
    ],
)
"""Widths in pixels and colours of a page; by default each of them once."""


def complaints(page: Any) -> list[str]:
    """What a page that is open in a browser falls short of, in words; an empty list is as it should be."""
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [
        *([f"{wide} pixels wider than the screen"] if wide > 0 else []),
        *(f"contrast {text}" for text in page.evaluate(_FAINT, SMALLEST_CONTRAST)),
        *(f"out of a keyboard's reach: {html}" for html in page.evaluate(_UNREACHABLE)),
        *(f"scrolls, but not by keyboard: {html}" for html in page.evaluate(_STUCK)),
    ]
