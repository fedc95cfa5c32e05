"""Take docs/images/playground.png: ``python docs/playground_screenshot.py onnx docs/images/playground.png``."""

import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PORT = 7868
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
DRAWN = "document.querySelector('#summary textarea')?.value.startsWith('{} images')"


def main(folder: Path, out: Path) -> None:
    """Open the playground on a folder of exported networks in Debian's Chromium, draw once, and photograph it."""
    command = [sys.executable, "-c", "from netinv.app import main; main()", "playground", str(folder)]
    command += ["--port", str(PORT), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server, sync_playwright() as playwright:
        try:
            assert server.stdout is not None
            server.stdout.readline()  # it is up
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 1090})
            page.goto(f"http://127.0.0.1:{PORT}")
            page.wait_for_function(DRAWN.format(25), timeout=60_000)
            page.get_by_label("Seed").fill("7")
            page.get_by_label("number input for Images").fill("20")
            page.get_by_role("button", name="Draw").click()
            page.wait_for_function(DRAWN.format(20), timeout=60_000)
            page.wait_for_load_state("networkidle")
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=out)
            browser.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
