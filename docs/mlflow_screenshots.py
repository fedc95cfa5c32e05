"""Take docs/images/mlflow-*.png: ``python docs/mlflow_screenshots.py http://127.0.0.1:5000 docs/images``.

The server (``make ui``) must know digits experiments in the robust variant, as those of docs/experiments.md.
"""

import json
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
CHROMIUM = shutil.which("chromium")
"""Debian's."""
FILTER = 'tags.stage = "evaluate" and tags.variant = "robust"'
MODEL = "netinv-digits-robust"
MEASURES = ("evaluate/evaluator_accuracy", "evaluate/inversion_accuracy", "evaluate/vendi_centred_ratio")
SETTINGS = ("invert.epsilon", "invert.total_variation")
PATIENCE = 90_000  # milliseconds


def ask(uri: str, path: str, **body: Any) -> Any:
    """One call of MLflow's REST API."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"{uri}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def toggle_column(page: Page, column: str) -> None:
    """Show or hide a column of the table, in the open list of columns."""
    page.get_by_placeholder("Search columns").fill(column)
    rows = page.get_by_test_id("column-selector-tree").locator('[class*="treenode"]')
    row = rows.filter(has_text=re.compile(f"^{re.escape(column)}$"))
    row.locator('[class*="tree-checkbox"]').first.click(timeout=PATIENCE)


def choose(page: Page, box: int, *options: str) -> None:
    """Choose options of a select box, which renders only those in view."""
    combobox = page.get_by_role("combobox").nth(box)
    combobox.click(force=True)
    own = combobox.get_attribute("aria-controls")  # the list of another box may still be closing
    active = page.locator(f'[class*="select-dropdown"]:has(#{own}) [class*="select-item-option-active"]:visible')
    for option in options:
        for _ in range(100):
            if active.get_attribute("title", timeout=PATIENCE) == option:
                page.keyboard.press("Enter")
                break
            page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")


def pages(page: Page, uri: str) -> Iterator[str]:
    """Go from page to page; yields each one's name once it shows what it is for."""
    experiment = ask(uri, "experiments/get-by-name?experiment_name=netinv")["experiment"]["experiment_id"]

    def find(filter_string: str) -> list[str]:
        found = ask(uri, "runs/search", experiment_ids=[experiment], filter=filter_string)["runs"]
        return [run["info"]["run_id"] for run in found]

    evaluated = find(FILTER)
    finished = (
        "attributes.run_name LIKE 'generator 0 of %' and tags.variant = 'robust' and attributes.status = 'FINISHED'"
    )
    (generator, *_) = find(finished)
    training = "workflowType=machine_learning"

    order = f"orderByKey={quote('metrics.`evaluate/evaluator_accuracy`')}&orderByAsc=false"  # which ungroups the rows
    page.goto(f"{uri}/#/experiments/{experiment}/runs?{training}&searchFilter={quote(FILTER)}&{order}")
    page.get_by_role("button", name="Close").click(timeout=PATIENCE)  # the assistant
    page.get_by_text("evaluate digits robust").first.wait_for(timeout=PATIENCE)
    page.get_by_role("button", name="Columns").click()
    for column in ("Dataset", "Source", "Models", *MEASURES, *SETTINGS):
        toggle_column(page, column)
    page.keyboard.press("Escape")
    yield "runs"

    page.goto(f"{uri}/#/experiments/{experiment}/runs/{generator}/model-metrics?{training}")
    page.get_by_text("accuracy").first.wait_for(timeout=PATIENCE)
    page.mouse.move(600, 600)
    slider = page.get_by_role("slider").last
    for _ in range(PATIENCE // 1000):  # pictures come after the curves, which arrive late, and load when they are seen
        if slider.is_visible():
            break
        page.mouse.wheel(0, 20_000)
        page.wait_for_timeout(1000)
    step = page.locator('input[type="number"]').last
    if step.is_enabled():  # there are several; it begins at 0, which may have no picture
        step.fill(slider.get_attribute("aria-valuemax") or "")
        step.press("Tab")
    page.locator('img[src*="artifact"], img[src^="blob:"]').first.wait_for(timeout=PATIENCE)
    yield "images"

    ids = quote(json.dumps(evaluated[:5]))
    page.goto(f"{uri}/#/compare-runs?runs={ids}&experiments={quote(json.dumps([experiment]))}&{training}")
    page.get_by_text("Parallel Coordinates Plot").first.wait_for(timeout=PATIENCE)
    page.get_by_text("evaluate digits robust").first.wait_for(timeout=PATIENCE)
    page.get_by_role("button", name="Clear All").click()
    choose(page, 0, *SETTINGS)
    choose(page, 1, *MEASURES)
    page.mouse.click(900, 80)  # closes the list
    yield "compare"

    page.goto(f"{uri}/#/models/{MODEL}?{training}")
    page.get_by_text("champion").first.wait_for(timeout=PATIENCE)
    yield "versions"

    (champion,) = (
        alias["version"]
        for alias in ask(uri, f"registered-models/get?name={MODEL}")["registered_model"]["aliases"]
        if alias["alias"] == "champion"
    )
    page.goto(f"{uri}/#/models/{MODEL}/versions/{champion}?{training}")
    page.get_by_text("What was inverted").first.wait_for(timeout=PATIENCE)
    yield "model"


def main(uri: str, out: Path) -> None:
    """Photograph the pages."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        for name in pages(page, uri):
            page.wait_for_timeout(3000)  # plots and pictures are drawn after the text
            page.screenshot(path=out / f"mlflow-{name}.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), Path(sys.argv[2]))
