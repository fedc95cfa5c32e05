"""The page in a real browser."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from netinv.app.playground import find_networks, page, verdicts
from netinv.core import InputError
from netinv.sampling import OnnxClassifier, OnnxGenerator, grid
from tests.conftest import Exported

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium")
PORT = 7869


def test_networks_are_found_at_any_depth(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "shapes" / "standard").mkdir(parents=True)
    shutil.copy(exported.folder / "generator-0.onnx", tmp_path / "shapes" / "standard")
    shutil.copy(exported.folder / "evaluator.onnx", tmp_path / "shapes")
    (tmp_path / "other.onnx").write_text("somebody else's")
    generators, classifiers = find_networks(tmp_path)
    assert generators == {"shapes/standard/generator-0.onnx": tmp_path / "shapes/standard/generator-0.onnx"}
    assert classifiers == [tmp_path / "shapes" / "evaluator.onnx"]
    with pytest.raises(InputError, match="holds no exported generator"):
        find_networks(tmp_path / "nowhere")


def test_verdicts_are_the_classifiers(exported: Exported) -> None:
    generator = OnnxGenerator(exported.folder / "generator-0.onnx")
    samples = generator.sample(20, seed=1)
    paths = [exported.folder / "classifier.onnx", exported.folder / "evaluator.onnx"]
    captions, summary = verdicts(samples, generator, paths)
    for path in paths:
        logits = OnnxClassifier(path)(samples.images)
        read = logits.argmax(axis=1)
        for caption, label, wanted in zip(captions, read, samples.labels, strict=True):
            mark = "✓" if label == wanted else "✗"
            assert f"{path.stem} {mark} {generator.metadata.classes[label]} (" in caption
        assert f"{path.stem} reads **{(read == samples.labels).mean():.1%}** as wanted" in summary


def test_missing_gradio_is_one_sentence(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"needs gradio: pip install gradio"):
        page(exported.folder)


@pytest.fixture
def playground(exported: Exported) -> Iterator[list[str]]:
    """The command, running; yields it."""
    pytest.importorskip("gradio", reason="gradio, an optional extra, is not installed")
    code = "from netinv.app import main; main()"
    command = [sys.executable, "-c", code, "playground", str(exported.folder), "--port", str(PORT), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == f"The playground is at http://127.0.0.1:{PORT}; end it with Ctrl-C.\n"
            yield command
        finally:
            server.terminate()  # not SIGINT, which whoever starts the tests in the background has switched off
            server.wait(30)


@pytest.fixture
def browser_page(playground: list[str]) -> "Iterator[Page]":
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser.new_page(viewport={"width": 1280, "height": 1000})
        finally:
            browser.close()


def test_page_draws_judges_and_saves(exported: Exported, browser_page: "Page", tmp_path: Path) -> None:
    hosts: set[str | None] = set()
    errors: list[str] = []
    browser_page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    browser_page.on("pageerror", lambda error: errors.append(str(error)))
    browser_page.goto(f"http://127.0.0.1:{PORT}")
    browser_page.wait_for_selector("#images img", timeout=60_000)

    browser_page.get_by_role("combobox", name="Model").click()
    browser_page.get_by_role("option", name="generator-1.onnx", exact=True).click()
    browser_page.get_by_role("combobox", name="Class").click()
    browser_page.get_by_role("option", name="two", exact=True).click()
    browser_page.get_by_label("Seed").fill("5")
    browser_page.get_by_label("number input for Images").fill("6")
    browser_page.get_by_role("button", name="Draw").click()
    browser_page.wait_for_function("document.querySelectorAll('#images .caption-label').length == 6", timeout=60_000)

    generator = OnnxGenerator(exported.folder / "generator-1.onnx")
    samples = generator.sample(6, seed=5, labels=2)
    paths = [exported.folder / "classifier.onnx", exported.folder / "evaluator.onnx"]
    captions, summary = verdicts(samples, generator, paths)
    assert browser_page.locator("#images .caption-label").all_inner_texts() == captions
    assert summary.replace("**", "") in browser_page.inner_text("body")

    with browser_page.expect_download() as download:
        browser_page.get_by_role("button", name="Save as PNG").click()
    download.value.save_as(tmp_path / "saved.png")
    expected = grid([samples.images], 6, generator.metadata.image_shape)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "saved.png")), expected[:, :, 0])

    browser_page.get_by_label("Mixture").fill("0:0.6,1:0.6")
    browser_page.get_by_role("button", name="Draw").click()
    browser_page.get_by_text("The shares of the mixture sum to 1.2: they must sum to 1.").wait_for(timeout=60_000)
    browser_page.get_by_label("Mixture").fill("0:0.6,1:0.4")
    browser_page.get_by_role("button", name="Draw").click()
    browser_page.get_by_text("wanted zero").nth(5).wait_for(timeout=60_000)

    assert hosts == {"127.0.0.1"}, "the page asked another host"
    assert not errors


def test_taken_port_is_one_sentence(playground: list[str]) -> None:
    done = subprocess.run(playground, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: Port {PORT} is taken: give another one with --port.\n"


def test_the_folder_of_downloads_goes_with_the_process() -> None:
    script = "from netinv.app import playground; print(playground._temporary_folder())"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    folder = Path(ran.stdout.strip())
    assert folder.name.startswith("netinv-playground-")
    assert not folder.exists()
