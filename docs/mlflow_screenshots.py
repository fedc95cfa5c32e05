"""Take docs/images/mlflow-*.png: ``python docs/mlflow_screenshots.py http://127.0.0.1:5000 docs/images``.

The server (``make ui``) must know digits experiments in the robust variant, as those of docs/experiments.md.
"""

import json
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
PATIENCE = 90_000  # milliseconds


def ask(uri: str, path: str, **body: Any) -> Any:
    """One call of MLflow's REST API."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"{uri}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def pages(page: Page, uri: str) -> Iterator[str]:
    """Go from page to page; yields each one's name once it shows what it is for."""
    experiment = ask(uri, "experiments/get-by-name?experiment_name=netinv")["experiment"]["experiment_id"]

    def find(filter_string: str) -> list[str]:
        found = ask(uri, "runs/search", experiment_ids=[experiment], filter=filter_string)["runs"]
        return [run["info"]["run_id"] for run in found]

    evaluated = find(FILTER)
    (generator, *_) = find("attributes.run_name = 'generator 0' and tags.variant = 'robust'")
    training = "workflowType=machine_learning"

    order = f"orderByKey={quote('metrics.`evaluate/evaluator_accuracy`')}&orderByAsc=false"  # which ungroups the rows
    page.goto(f"{uri}/#/experiments/{experiment}/runs?{training}&searchFilter={quote(FILTER)}&{order}")
    page.get_by_role("button", name="Close").click(timeout=PATIENCE)  # the assistant
    page.get_by_text("evaluate digits robust").first.wait_for(timeout=PATIENCE)
    yield "runs"

    page.goto(f"{uri}/#/experiments/{experiment}/runs/{generator}/model-metrics?{training}")
    page.get_by_text("accuracy").first.wait_for(timeout=PATIENCE)
    page.mouse.move(600, 600)
    page.mouse.wheel(0, 20_000)  # the pictures come after the curves, and are loaded when they are seen
    page.locator('img[src*="artifact"], img[src^="blob:"]').first.wait_for(timeout=PATIENCE)
    yield "images"

    ids = quote(json.dumps(evaluated[:5]))
    page.goto(f"{uri}/#/compare-runs?runs={ids}&experiments={quote(json.dumps([experiment]))}&{training}")
    page.get_by_text("Parallel Coordinates Plot").first.wait_for(timeout=PATIENCE)
    page.get_by_text("evaluate digits robust").first.wait_for(timeout=PATIENCE)
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
