"""The report in a browser: whole, quiet, and within reach, at two widths and in both colour schemes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pages import complaints, on_every_screen

SMALLEST = """Math.min(...[...document.querySelectorAll("#mnist *")].filter(
    node => [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim())
        && node.getBoundingClientRect().width
).map(node => parseFloat(getComputedStyle(node).fontSize) * (node.getScreenCTM ? node.getScreenCTM().a : 1)))"""
"""Size of the smallest letters that are shown."""


@on_every_screen
def test_in_a_browser(tmp_path: Path, render: Callable[..., str], browser: Any, width: int, scheme: str) -> None:
    path = tmp_path / "index.html"
    path.write_text(render())
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    told: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert complaints(page) == []

    page.get_by_role("tab", name="mnist").click()
    assert page.locator("#mnist").is_visible()
    assert page.locator("#digits").is_hidden()
    assert complaints(page) == []

    chart = page.locator("#mnist svg[aria-label^='Accuracy under attack']")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
    assert "robust: 40.0% (39.0% to 41.0%)" in page.locator("#tip").inner_text()
    tip, bar = page.locator("#tip").bounding_box(), page.locator("header").bounding_box()
    assert tip["y"] >= bar["y"] + bar["height"]
    line = chart.locator("g.robust")
    page.locator("#mnist .legend").filter(has_text="noise").get_by_role("button", name="robust").click()
    assert line.is_hidden()

    page.locator("#mnist .chooser select").first.select_option("robust, generator 1")
    grid = page.get_by_role("button", name="Enlarge: robust, generator 1")
    grid.click()
    assert page.locator("dialog").is_visible()
    assert page.evaluate(fits)
    page.keyboard.press("Escape")

    table = page.locator("#mnist .scroll", has_text="mnist: all measures")
    hint = table.locator("xpath=following-sibling::*[1]")
    assert hint.is_visible() == (width == 390)
    if width == 390:
        assert hint.inner_text().startswith("Scroll sideways for: ")
        assert hint.inner_text().endswith(
            " · robust, dropout on · real, train · real, test · one real picture, bent · noise →"
        )
    table.evaluate("table => table.scrollTo({left: 10000, behavior: 'instant'})")
    page.wait_for_function("line => line.hidden", arg=hint.element_handle())
    assert page.evaluate(SMALLEST) >= 11.9  # pixels on the screen, in charts, too

    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert told == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
