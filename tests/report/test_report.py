"""The report: complete, safe against its input, and whole without a network."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from draws import numpy_rng
from PIL import Image

from netinv import report
from netinv.core import InputError, save_csv, write_text
from netinv.evaluation import EvaluationConfig
from netinv.evaluation.rows import MEASURES
from netinv.report import read_ablations, read_csv, words
from netinv.results import (
    GRID_CLASSES,
    GRID_COLUMNS,
    HEADLINE,
    AccuracyBin,
    Audit,
    CalibrationBin,
    Comparison,
    Estimate,
    Measure,
    NotMeasured,
    Pair,
    Results,
    RobustPoint,
    Row,
)
from pipeline.params import Params, load_params
from pipeline.report import collect

HOSTILE = "<script>alert(1)</script>"
WHY = f'"{HOSTILE}" & too few images'
SERVER = "http://tracking.example:5000"
KNOWN = {"real_train": 0.97, "real_test": 0.97, "noise": 0.05}
"""What is measured of the references."""
VERDICT = "No sign of memorised training images, says the audit."


class Folders(NamedTuple):
    """What the stage reads."""

    evaluation: Path
    metrics: Path
    plots: Path
    runs: Path
    ablation: Path


def number(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01, n=100)


def row(name: str, kind: Any, classes: tuple[str, ...], accuracy: float) -> Row:
    """A row in which everything was measured but the Frechet distance."""
    num = len(classes)
    measures: dict[str, Measure] = {measure: number(accuracy) for measure in MEASURES}
    measures["frechet"] = NotMeasured(not_measured=WHY)
    counts = tuple(tuple(90 if i == j else 10 for j in range(num)) for i in range(num))
    comparison = Comparison(
        train=number(3.0),
        test=number(3.1),
        train_minus_test=number(-0.1),
        p_value=0.4,
        copies_train=number(0.02),
        copies_test=number(0.02),
        copies_p_value=0.9,
        copy_distance=0.5,
        by_class=(number(0.0),) * num,
    )
    pairs = tuple(
        Pair(distance=kind_, label=k, sample=0, train=1, test=2, train_distance=3.21, test_distance=4.32)
        for kind_ in ("pixel", "feature")
        for k in range(num)
    )
    audit = Audit(
        verdict=VERDICT,
        memorised=False,
        pool=60,
        comparisons={"pixel": comparison, "ssim": NotMeasured(not_measured="too small"), "feature": comparison},
        pairs=pairs,
    )
    return Row(
        name=name,
        kind=kind,
        samples=100,
        measures=measures,
        dropout=measures | {"kl": number(7.77)},
        by_class={
            measure: (number(accuracy),) * num for measure in ("inversion_accuracy", "evaluator_accuracy", "vendi")
        },
        confusion={"classifier": counts, "evaluator": counts},
        by_gap=(AccuracyBin(low=0.0, high=0.05, inversion_accuracy=number(0.7), evaluator_accuracy=number(0.6)),),
        by_sharpness=(AccuracyBin(low=3.0, high=3.0, inversion_accuracy=number(0.7), evaluator_accuracy=number(0.6)),),
        calibration=(CalibrationBin(low=0.5, high=0.6, wanted=number(0.55), obtained=number(0.65)),),
        robustness=(RobustPoint(epsilon=0.0, accuracy=number(0.9)), RobustPoint(epsilon=0.1, accuracy=number(0.4))),
        audit=audit.model_copy(update={"memorised": name == "real_train"}),
    )


def results(classes: tuple[str, ...], accuracy: float) -> Results:
    kinds = {"generator 0": "generator", "generator 1": "generator", "ensemble": "ensemble"}
    kinds |= dict.fromkeys(("real_train", "real_test", "noise"), "reference")
    headline: dict[str, Measure] = {name: number(accuracy) for name in HEADLINE}
    controls = ("inversion_accuracy_min", "classifier_test_accuracy", "evaluator_test_accuracy")
    headline |= {
        name: number(0.97)
        for name in (
            *controls,
            *(f"{student}_{row}_accuracy" for student in ("student", "distilled") for row in ("noise", "real")),
        )
    }
    return Results(
        classes=classes,
        image_shape=(1, 8, 8),
        settings=EvaluationConfig().model_dump(mode="json"),
        sharpness=(1.0, 1.0),
        vendi_n=30,
        headline=headline,
        verdict=VERDICT,
        leak=False,
        rows=tuple(row(name, kind, classes, KNOWN.get(name, accuracy)) for name, kind in kinds.items()),
    )


def write_picture(path: Path, columns: int, rows: int) -> None:
    pixels = numpy_rng(0).integers(0, 256, (rows * 9 - 1, columns * 9 - 1), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_variant(folders: Folders, dataset: str, variant: str, found: Results) -> None:
    """Everything that the stages before leave behind on one variant."""
    folder = folders.evaluation / dataset / variant
    rows = min(len(found.classes), GRID_CLASSES)
    write_text(folder / "results.json", found.model_dump_json())
    write_picture(folder / "figure2.png", 2, rows)
    write_picture(folder / "ensemble-neighbours.png", 6, rows)
    for source in found.rows:
        write_picture(folder / f"{source.name.replace(' ', '-')}.png", GRID_COLUMNS, rows)
    curve = [
        {"generator": i, "step": step, "samples": step * 64, "accuracy": step / 50, "loss": 1 / step, "kl": 0.1}
        for i in range(2)
        for step in (25, 50)
    ]
    save_csv(folders.plots / "invert" / f"{dataset}-{variant}.csv", curve)
    write_text(folders.metrics / "export" / f"{dataset}-{variant}.json", json.dumps({"max_difference": 4.5e-7}))
    write_text(folders.runs / "invert" / f"{dataset}-{variant}.json", json.dumps({"run_id": f"run-of-{variant}"}))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Two data sets in two variants."""
    folders = Folders(*(tmp_path / name for name in Folders._fields))
    for dataset in ("digits", "mnist"):
        for variant, accuracy in (("standard", 0.31), ("robust", 0.93)):
            write_variant(folders, dataset, variant, results(("cat", HOSTILE), accuracy))
        for model in ("classifier", "evaluator"):
            history = [{"epoch": epoch, "samples": 100, "loss": 1.0, "accuracy": 0.9} for epoch in (1, 2)]
            save_csv(folders.plots / "train" / f"{dataset}-{model}.csv", history)
    return folders


@pytest.fixture
def params(root: Path) -> Params:
    """The repository's own, for two data sets."""
    return load_params(root / "params.yaml").model_copy(update={"datasets": ("digits", "mnist")})


@pytest.fixture
def render(folders: Folders, params: Params) -> Callable[..., str]:
    def page(tracking_uri: str = "sqlite:///mlflow.db", **changes: Any) -> str:
        *stages, ablation = folders
        inverted = collect(params.model_copy(update=changes), *stages, tracking_uri=tracking_uri)
        return report.render(inverted, read_ablations(ablation), on_server=tracking_uri.startswith("http"))

    return page


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def test_the_page_tells_what_was_found(render: Callable[..., str]) -> None:
    page = Page(render())
    text = " ".join(page.text.split())
    assert text.count(VERDICT) == 8  # in the summary and in the audit, of two variants of two data sets
    assert "most are inputs that only the inverted classifier reads so" in text  # standard, evaluator accuracy 0.31
    assert "An independent network recognises 93.0% (real images: 97.0%); worst is class cat" in text  # robust
    for expected in ("31.0%", "93.0%", "30.0 to 32.0%", "3.21", "4.32", "4.5e-07", "run-of-robust", "epsilon"):
        assert expected in text, expected
    charts = [
        attributes["aria-label"] or "" for tag, attributes in page.tags if tag == "svg" and "aria-label" in attributes
    ]
    robustness = next(label for label in charts if label.startswith("Accuracy under attack"))
    for line in ("standard", "robust", "real, train", "real, test", "noise"):
        assert f"{line} from 90.0% to 40.0%" in robustness
    for curve in ("accuracy", "loss", "KL divergence"):
        assert any(label.startswith(f"Inversion: {curve}") for label in charts)


def test_every_measure_has_words(render: Callable[..., str]) -> None:
    assert set(words.MEASURES) == set(MEASURES)
    text = Page(render()).text
    for measure in words.MEASURES.values():
        assert measure.title in text


def test_what_was_not_measured_says_why_and_is_no_zero(folders: Folders, render: Callable[..., str]) -> None:
    found = results(("cat", "dog"), 0.9)
    why = NotMeasured(not_measured="no real data")
    rows = [r.model_copy(update={"measures": r.measures | {"evaluator_accuracy": why}}) for r in found.rows]
    found = found.model_copy(update={"headline": dict.fromkeys(found.headline, why), "rows": tuple(rows)})
    for dataset in ("digits", "mnist"):
        for variant in ("standard", "robust"):
            write_variant(folders, dataset, variant, found)
    text = " ".join(Page(render()).text.split())
    assert "Evaluator accuracy was not measured: no real data." in text
    assert f"not measured: {WHY}" in text
    assert "classifier not measured" in text
    assert "<b>0%</b>" not in render()


def test_measures_with_dropout_stand_beside_those_without(render: Callable[..., str]) -> None:
    text = " ".join(Page(render()).text.split())
    assert "Measure standard standard, dropout on robust robust, dropout on real, train" in text
    assert text.count("7.77") > 2


def test_the_audit_shows_its_controls_and_looks_at_the_generator_that_copies(
    folders: Folders, render: Callable[..., str]
) -> None:
    text = " ".join(Page(render(datasets=("digits",), variants=("standard",))).text.split())
    assert "generator 1 none found" in text
    assert "real, train copies found" in text
    assert "nearest to a training image: ensemble" in text
    found = results(("cat", "dog"), 0.9)
    rows = [r.model_copy(update={"audit": r.audit.model_copy(update={"memorised": "1" in r.name})}) for r in found.rows]
    write_variant(folders, "digits", "standard", found.model_copy(update={"rows": tuple(rows)}))
    shutil.copy(
        folders.evaluation / "digits/standard/ensemble-neighbours.png",
        folders.evaluation / "digits/standard/generator-1-neighbours.png",
    )
    text = " ".join(Page(render(datasets=("digits",), variants=("standard",))).text.split())
    assert "generator 1 copies found" in text
    assert "nearest to a training image: generator 1" in text
    assert "for each class Class pixel ssim feature cat" in text


ABLATION = """dataset,condition,seed,inversion_accuracy,kl,my_measure
mnist,vector,0,0.5,1.5,
mnist,vector,1,0.7,,
mnist,<script>alert(1)</script>,0,0.9,2.5,3
"""


def test_ablations_are_shown_with_mean_and_standard_deviation(folders: Folders, render: Callable[..., str]) -> None:
    assert "Ablations" not in Page(render()).text
    write_text(folders.ablation / "label_embedding.csv", ABLATION)
    html = render()
    assert HOSTILE not in html
    text = " ".join(Page(html).text.split())
    assert "Ablation on mnist: label embedding Condition" in text
    assert "Condition Inversion accuracy KL divergence My measure" in text
    # The standard deviation of 0.5 and 0.7 is 0.1414.
    write_text(folders.ablation / "mnist.csv", ABLATION.replace("my_measure", "evaluator_accuracy_dropout"))
    named = " ".join(Page(render()).text.split())
    assert "Ablation on mnist Condition Inversion accuracy KL divergence Evaluator accuracy, dropout on" in named
    assert f"vector 60.0% ± 14.1%, 2 seeds 1.50 one seed not measured 1 {HOSTILE} 90.0% one seed" in text
    assert "not measured: no seed has a number" in text


@pytest.mark.parametrize(
    "damaged",
    [
        "dataset,condition,kl\nmnist,vector,1\n",
        "dataset,condition,seed,kl\nmnist,vector,0,high\n",
        "dataset,condition,seed,kl\nmnist,vector,0,nan\n",
        "dataset,condition,seed,kl\nmnist,vector,0\n",
        "dataset,condition,seed,kl\nmnist,vector,0,1,2\n",
    ],
)
def test_a_damaged_ablation_is_named(tmp_path: Path, damaged: str) -> None:
    write_text(tmp_path / "gamma.csv", damaged)
    with pytest.raises(InputError, match=r"gamma\.csv is not a readable ablation .* dataset, condition and seed"):
        read_ablations(tmp_path)


def test_names_and_reasons_cannot_inject(render: Callable[..., str]) -> None:
    html = render()
    assert HOSTILE not in html
    assert HOSTILE in Page(html).text
    assert [tag for tag, _ in Page(html).tags].count("script") == 1


def test_the_page_asks_nothing_of_a_network(render: Callable[..., str]) -> None:
    html = render()
    for tag, attributes in Page(html).tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), (tag, target)
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html
    assert len(html) < 10_000_000


def test_runs_are_linked_on_a_server_and_named_in_a_local_store(render: Callable[..., str]) -> None:
    def links(html: str) -> list[str]:
        return [a["href"] or "" for tag, a in Page(html).tags if tag == "a" and not (a["href"] or "").startswith("#")]

    assert links(render()) == []
    assert links(render(SERVER))[:2] == [f"{SERVER}/#/runs/run-of-standard", f"{SERVER}/#/runs/run-of-robust"]


def test_every_picture_and_table_is_accessible(render: Callable[..., str]) -> None:
    tags = Page(render()).tags
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_more_classes_than_a_table_can_show(folders: Folders, render: Callable[..., str]) -> None:
    found = results(tuple(f"kind {k}" for k in range(30)), 0.9)
    for variant in ("standard", "robust"):
        write_variant(folders, "digits", variant, found)
    page = Page(render(datasets=("digits",)))
    assert any(
        a.get("alt", "") == "Confusion matrix: robust, read by the evaluator" for tag, a in page.tags if tag == "img"
    )
    assert "kind 29 read as kind 28: 10" in page.text


def test_a_leak_is_a_bad_verdict(folders: Folders, render: Callable[..., str]) -> None:
    found = results(("cat", "dog"), 0.9)
    changes = {"leak": True, "verdict": "Training images leak."}
    write_variant(folders, "digits", "standard", found.model_copy(update=changes))
    html = render(datasets=("digits",), variants=("standard",))
    assert re.search(r'<li class="bad"><span[^>]*></span>Training images leak\.', html)


@pytest.mark.parametrize(
    "missing",
    ["evaluation/mnist/robust/results.json", "evaluation/mnist/robust/figure2.png", "plots/invert/mnist-robust.csv"],
)
def test_a_missing_output_is_named(tmp_path: Path, render: Callable[..., str], missing: str) -> None:
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=missing):
        render()


@pytest.mark.parametrize("damaged", ["step,accuracy\n1,high\n", "step,accuracy\n", "step,accuracy\n1\n"])
def test_a_damaged_table_is_named(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "curve.csv"
    path.write_text(damaged)
    with pytest.raises(InputError, match=r"curve\.csv.*again"):
        read_csv(path)


@pytest.fixture
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    quiet = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*quiet, "--disable-component-update", "--disable-sync"]
        )
        yield browser
        browser.close()


SMALLEST = """Math.min(...[...document.querySelectorAll("#mnist *")].filter(
    node => [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim())
        && node.getBoundingClientRect().width
).map(node => parseFloat(getComputedStyle(node).fontSize) * (node.getScreenCTM ? node.getScreenCTM().a : 1)))"""
"""Size of the smallest letters that are shown."""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser(tmp_path: Path, render: Callable[..., str], browser: Any, width: int, scheme: str) -> None:
    path = tmp_path / "index.html"
    path.write_text(render())
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)

    page.get_by_role("tab", name="mnist").click()
    assert page.locator("#mnist").is_visible()
    assert page.locator("#digits").is_hidden()
    assert page.evaluate(fits)

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
        assert hint.inner_text().endswith(" · robust, dropout on · real, train · real, test · noise →")
    table.evaluate("table => table.scrollTo({left: 10000, behavior: 'instant'})")
    page.wait_for_function("line => line.hidden", arg=hint.element_handle())
    assert page.evaluate(SMALLEST) >= 11.9  # pixels on the screen, in charts, too

    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
