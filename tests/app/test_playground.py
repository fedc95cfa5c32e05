"""The page in a real browser."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import onnx
import pytest
from PIL import Image

from netinv.app.playground import cells, find_networks, page, verdicts
from netinv.core import InputError
from netinv.export import write_model
from netinv.sampling import OnnxClassifier, OnnxGenerator, grid
from tests.conftest import Exported

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium")
PORT = 7869
FOREIGN = "![x](http://md.invalid/x.png) <img src='http://html.invalid/x.png'>"
"""In a class's name, what would ask another host if it were Markdown or HTML."""
HIDDEN = """() => [...document.querySelectorAll("#images .thumbnail-item")].filter((item, i) => {
    const box = document.querySelector("#images").getBoundingClientRect(), own = item.getBoundingClientRect();
    const label = document.querySelector("#images [data-testid=block-label]");  // one of a pixel is for screen readers
    return own.right > box.right || own.left < box.left || (i == 0 && label?.offsetWidth > 1);
}).map(item => item.innerText)"""
"""Captions of pictures that reach beyond the gallery, and of the first one where the gallery's label lies on it."""


def test_networks_are_found_at_any_depth(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shapes" / "standard").mkdir(parents=True)
    shutil.copy(exported.folder / "generator-0.onnx", tmp_path / "shapes" / "standard")
    shutil.copy(exported.folder / "evaluator.onnx", tmp_path / "shapes")
    (tmp_path / "other.onnx").write_text("somebody else's")
    generators, classifiers = find_networks(tmp_path)
    assert generators == {"shapes/standard/generator-0.onnx": tmp_path / "shapes/standard/generator-0.onnx"}
    assert classifiers == [tmp_path / "shapes" / "evaluator.onnx"]
    assert re.fullmatch(r"Left out: \S+/other\.onnx is not an ONNX file that .*\n", capsys.readouterr().err)
    (tmp_path / "pointers").mkdir()
    (tmp_path / "pointers/generator-0.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    for folder, told in (
        (
            "pointers",
            r"holds no exported generator: .* Left out: \S+/generator-0\.onnx .* \(it is a pointer of git-lfs, ",
        ),
        ("nowhere", "nowhere is no folder: name the one"),
        ("other.onnx", r"other\.onnx is no folder: name the one"),
    ):
        with pytest.raises(InputError, match=told):
            find_networks(tmp_path / folder)


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
        assert f"{path.stem} reads {(read == samples.labels).mean():.1%} as wanted" in summary
    shares = {2: 0.5, 0: 0.5}  # equal ones, of which the arg-max would count class 0 alone
    mixed = generator.sample(20, seed=1, mixture=shares)
    captions, summary = verdicts(mixed, generator, paths[:1], shares)
    read, names = OnnxClassifier(paths[0])(mixed.images).argmax(axis=1), generator.metadata.classes
    told = ", ".join(f"{(read == label).mean():.1%} as {names[label]}" for label in shares)
    assert summary == f"20 images · classifier reads {told}"
    assert captions[0].startswith(f"wanted a mixture\nclassifier reads {names[read[0]]} (")


def test_a_classifier_of_another_model_says_nothing(exported: Exported, tmp_path: Path) -> None:
    """What the commands export has no data set's name, so that only shape and classes tell whose it is."""
    about = replace(exported.metadata, kind="classifier", dataset="", variant="", latent_dim=0)
    model = onnx.load(exported.folder / "classifier.onnx")
    write_model(tmp_path / "judge.onnx", model, about)
    write_model(tmp_path / "other.onnx", model, replace(about, classes=("red", "green", "blue")))
    drawing = onnx.load(exported.folder / "generator-0.onnx")
    write_model(tmp_path / "generator.onnx", drawing, replace(exported.metadata, dataset="", variant="standard"))
    generator = OnnxGenerator(tmp_path / "generator.onnx")
    samples = generator.sample(4)
    captions, summary = verdicts(samples, generator, [tmp_path / "judge.onnx", tmp_path / "other.onnx"])
    assert all(len(caption.splitlines()) == 2 and "\njudge " in caption for caption in captions)
    assert summary.count("reads") == 1
    assert "judge reads " in summary
    assert f"\nLeft out: The classes of {tmp_path / 'other.onnx'} are red, green, blue" in summary


def test_missing_gradio_is_one_sentence(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"needs gradio: pip install gradio"):
        page(exported.folder)


@pytest.fixture(scope="module")
def networks(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported networks of many kinds: every form, those trained beyond any usual sharpness, and one on a range."""
    folder = tmp_path_factory.mktemp("playground") / "networks"
    shutil.copytree(exported.folder, folder)
    for name, sharpness in (("sharp", (40.0, 40.0)), ("vague", (0.02, 0.02)), ("range", (1.0, 500.0))):
        model = onnx.load(folder / "generator-0.onnx")
        write_model(folder / f"{name}.onnx", model, replace(exported.metadata, sharpness=sharpness))
    write_model(folder / "steered.onnx", model, replace(exported.metadata, field_side=2))
    foreign = tuple(f"{name} {FOREIGN}" for name in exported.metadata.classes)
    write_model(folder / "foreign.onnx", model, replace(exported.metadata, classes=foreign))
    return folder


@pytest.fixture(scope="module")
def playground(networks: Path) -> Iterator[list[str]]:
    """The command, running; yields it. It writes no trace of a failure."""
    pytest.importorskip("gradio", reason="gradio, an optional extra, is not installed")
    code = "from netinv.app import main; main()"
    command = [sys.executable, "-c", code, "playground", str(networks), "--port", str(PORT), "--no-browser"]
    errors, temporary = (networks.parent / "errors").open("w+"), networks.parent / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    with (
        errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as server,
    ):
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == f"The playground is at http://127.0.0.1:{PORT}; end it with Ctrl-C.\n"
            assert len([*temporary.glob("netinv-playground-*")]) == 1  # of downloads; it goes with the process
            yield command
        finally:
            server.terminate()  # not SIGINT, which whoever starts the tests in the background has switched off
            assert server.wait(30) == 143
        assert not list(temporary.glob("netinv-playground-*"))
        errors.seek(0)
        assert "Traceback" not in errors.read()


@pytest.fixture(scope="module")
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


def assert_alike(shown: list[str], expected: list[str]) -> None:
    """The same captions, but that another process may round a share to the other side."""
    assert [re.sub(r"\d+%", "%", caption) for caption in shown] == [re.sub(r"\d+%", "%", text) for text in expected]
    shares, others = (re.findall(r"(\d+)%", "".join(texts)) for texts in (shown, expected))
    assert all(abs(int(one) - int(other)) <= 1 for one, other in zip(shares, others, strict=True))


def choose_model(page: "Page", name: str) -> None:
    """Another model than the first one, and wait for its images.

    They come after its controls, and what is chosen before these is gone with the last ones.
    """
    page.evaluate("document.querySelectorAll('#images img').forEach(image => image.dataset.before = 1)")
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name=name, exact=True).click()
    page.wait_for_selector("#images img:not([data-before])", timeout=60_000)


def test_page_draws_judges_and_saves(exported: Exported, browser_page: "Page", tmp_path: Path) -> None:
    hosts: set[str | None] = set()
    errors: list[str] = []
    browser_page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    browser_page.on("pageerror", lambda error: errors.append(str(error)))
    browser_page.goto(f"http://127.0.0.1:{PORT}")
    browser_page.wait_for_selector("#images img", timeout=60_000)

    choose_model(browser_page, "generator-1.onnx")
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
    assert_alike(browser_page.locator("#images .caption-label").all_inner_texts(), captions)
    assert browser_page.locator("#summary textarea").input_value() == summary
    for width in (360, 768, 1280):
        browser_page.set_viewport_size({"width": width, "height": 1000})
        browser_page.locator("#images").scroll_into_view_if_needed()
        assert browser_page.evaluate(HIDDEN) == [], f"pictures are cut off or covered at {width} pixels"

    with browser_page.expect_download() as download:
        browser_page.get_by_role("button", name="Save as PNG").click()
    download.value.save_as(tmp_path / "saved.png")
    expected = grid([samples.images], 6, generator.metadata.image_shape)
    saved = np.asarray(Image.open(tmp_path / "saved.png")).astype(int)
    assert np.abs(saved - expected).max() <= 1

    assert not browser_page.locator("#field").is_visible()
    browser_page.get_by_label("Mixture").fill("0:0.6,1:0.6")
    browser_page.get_by_role("button", name="Draw").click()
    browser_page.get_by_text("The shares of the mixture sum to 1.2: they must sum to 1.").wait_for(timeout=60_000)
    browser_page.get_by_label("Mixture").fill("0:0.6,1:0.4")
    browser_page.get_by_role("button", name="Draw").click()
    browser_page.get_by_text("wanted a mixture").nth(5).wait_for(timeout=60_000)

    browser_page.get_by_role("combobox", name="Model").click()
    browser_page.get_by_role("option", name="foreign.onnx", exact=True).click()
    browser_page.get_by_text(FOREIGN).first.wait_for(timeout=60_000)
    assert FOREIGN in browser_page.locator("#summary textarea").input_value()
    browser_page.get_by_label("Mixture").fill("9:1")
    browser_page.get_by_role("button", name="Draw").click()
    browser_page.get_by_text(f"Label 9 does not exist: the classes are 0 (zero {FOREIGN}").wait_for(timeout=60_000)

    assert hosts == {"127.0.0.1"}, "the page asked another host"
    assert not errors


def test_cells_of_the_table_are_parts_of_the_field() -> None:
    assert cells([]) == cells([[None, ""], [" ", float("nan")]]) == {}
    assert cells([["2", None], ["", -0.5]]) == {(0, 0): 2.0, (1, 1): -0.5}
    with pytest.raises(InputError, match=r"The field '1,0:much' is no cell: write row, column and value"):
        cells([[1, 1], ["much", 1]])


def test_the_field_is_steered_by_hand(networks: Path, browser_page: "Page") -> None:
    browser_page.goto(f"http://127.0.0.1:{PORT}")
    browser_page.wait_for_selector("#images img", timeout=60_000)
    choose_model(browser_page, "steered.onnx")
    table = browser_page.locator("#field")
    table.wait_for(state="visible", timeout=60_000)
    assert table.get_by_role("gridcell").count() == 4
    assert not table.locator("th:visible").count(), "the table has a head that looks like a row of the field"
    for cell, value in (("0-1", "2"), ("1-0", "-2")):
        table.locator(f"[data-testid='cell-{cell}']:visible").dblclick()
        browser_page.keyboard.type(value)
        browser_page.keyboard.press("Enter")
    browser_page.get_by_label("number input for Images").fill("6")
    browser_page.get_by_role("button", name="Draw").click()
    browser_page.wait_for_function("document.querySelectorAll('#images .caption-label').length == 6", timeout=60_000)
    generator = OnnxGenerator(networks / "steered.onnx")
    samples = generator.sample(6, seed=0, field={(0, 1): 2.0, (1, 0): -2.0})
    captions, _ = verdicts(samples, generator, [networks / "classifier.onnx", networks / "evaluator.onnx"])
    assert_alike(browser_page.locator("#images .caption-label").all_inner_texts(), captions)
    assert captions != verdicts(generator.sample(6, seed=0), generator, [networks / "classifier.onnx"])[0]


@pytest.mark.slow
def test_every_model_draws_at_its_own_sharpness(networks: Path, browser_page: "Page") -> None:
    """Of any model that is chosen, the page shows what the model draws where nobody asks for more."""
    browser_page.goto(f"http://127.0.0.1:{PORT}")
    drawn = "document.querySelectorAll('#images .caption-label').length == {}"
    browser_page.wait_for_function(drawn.format(25), timeout=60_000)
    generators, classifiers = find_networks(networks)
    assert len(generators) == 14
    for name, path in reversed(generators.items()):  # the first one is shown at once
        browser_page.get_by_label("Sharpness").fill("7")  # of the model before
        browser_page.get_by_role("combobox", name="Model").click()
        browser_page.get_by_role("option", name=name, exact=True).click()
        browser_page.wait_for_function(drawn.format(0), polling=5, timeout=60_000)
        browser_page.wait_for_function(drawn.format(25), timeout=60_000)
        generator = OnnxGenerator(path)
        captions, summary = verdicts(generator.sample(25, seed=0), generator, classifiers)
        assert_alike(browser_page.locator("#images .caption-label").all_inner_texts(), captions)
        assert browser_page.locator("#summary textarea").input_value() == summary
        low, high = generator.metadata.sharpness
        own = f"{low:g}" if low == high else f"{low:g}:{high:g}"
        assert browser_page.get_by_label("Sharpness").get_attribute("placeholder") == own
        assert browser_page.get_by_label("Sharpness").input_value() == ""
    assert not re.search("Error", browser_page.inner_text("body"))


@pytest.mark.slow
def test_ctrl_c_ends_it_as_every_command(playground: list[str]) -> None:
    command = [str(PORT + 1) if word == str(PORT) else word for word in playground]
    # Whoever starts the tests in the background has switched SIGINT off, which a process inherits.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listening
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=30)
    assert (server.returncode, out, err) == (130, "", "\nerror: Interrupted; nothing half-written was left behind.\n")


def test_taken_port_is_one_sentence(playground: list[str]) -> None:
    done = subprocess.run(playground, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: Port {PORT} is taken: give another one with --port.\n"
