"""The report: complete, safe against its input, and whole without a network."""

import json
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from draws import numpy_rng
from pages import complaints
from PIL import Image

from netinv import report
from netinv.core import InputError, read_numbers, save_csv, write_text
from netinv.evaluation import EvaluationConfig
from netinv.evaluation.rows import MEASURES
from netinv.report import MEND, read_ablations, words
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
KNOWN = {"real_train": 0.97, "real_test": 0.97, "noise": 0.05, "one_picture": 0.25}
"""What is measured of the references."""
VERDICT = "No sign of memorised training images, says the audit."


class Folders(NamedTuple):
    """What the stage reads."""

    evaluation: Path
    interpretation: Path
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
    kinds |= dict.fromkeys(KNOWN, "reference")
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
        settings=EvaluationConfig(epsilons=(0.0, 0.1)).model_dump(mode="json"),
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


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of two data sets in two variants, to be copied: drawing their pictures takes a while."""
    root = tmp_path_factory.mktemp("written")
    folders = Folders(*(root / name for name in Folders._fields))
    for dataset in ("digits", "mnist"):
        for variant, accuracy in (("standard", 0.31), ("robust", 0.93)):
            write_variant(folders, dataset, variant, results(("cat", HOSTILE), accuracy))
        for model in ("classifier", "evaluator"):
            history = [{"epoch": epoch, "samples": 100, "loss": 1.0, "accuracy": 0.9} for epoch in (1, 2)]
            save_csv(folders.plots / "train" / f"{dataset}-{model}.csv", history)
    return root


@pytest.fixture
def folders(written: Path, tmp_path: Path) -> Folders:
    """Two data sets in two variants."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return Folders(*(tmp_path / name for name in Folders._fields))


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
    assert "An independent network recognises 31.0%" in text
    assert "only the inverted classifier reads so" not in text  # since it reads no more of them itself
    assert "An independent network recognises 93.0% (real images: 97.0%); worst is class cat" in text  # robust
    for expected in ("31.0%", "93.0%", "30.0 to 32.0%", "3.21", "4.32", "4.5e-07", "run-of-robust", "epsilon"):
        assert expected in text, expected
    charts = [
        attributes["aria-label"] or "" for tag, attributes in page.tags if tag == "svg" and "aria-label" in attributes
    ]
    robustness = next(label for label in charts if label.startswith("Accuracy under attack"))
    for line in ("standard", "robust", "real, train", "real, test", "one real picture, bent", "noise"):
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


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (b"step,accuracy\n1,high\n", "line 2, column accuracy: 'high' is no number"),
        (b"step,accuracy\n1,inf\n", "line 2, column accuracy: 'inf' is no number"),
        (b"step,accuracy\n1,1e300\n", "line 2, column accuracy: '1e300' is no number"),
        (b"step,accuracy\n", "no records"),
        (b"step,accuracy\n1\n", "line 2 has 1 values for 2 columns"),
        (b"step,accuracy\n1,2,3\n", "line 2 has 3 values for 2 columns"),
        (b"step,\n1,2\n", "names no columns"),
        (b"step,step\n1,2\n", "names no columns, or one of them twice"),
        (b"step,kl\n1,2\n", "no column accuracy"),
        (b"", "names no columns"),
        (b"step,accuracy\n\xff,1\n", "no UTF-8"),
        (b'step,accuracy\n"1,2\n', "unexpected end of data"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, damaged: bytes, words: str) -> None:
    path = tmp_path / "curve.csv"
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=rf"curve\.csv is not .*{words}.*again"):
        read_numbers(path, MEND, ["accuracy"])


Alter = Callable[[dict[str, Any]], Any]


def at(path: str, value: Any) -> Alter:
    """An edit of one place of a results file; ``None`` removes it."""

    def alter(values: Any) -> None:
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        for part in parents:
            values = values[part]
        if value is None:
            values.pop(last)
        else:
            values[last] = value

    return alter


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (at("version", None), "is of version none, and this netinv reads version 1: evaluate again"),
        (at("version", 2), "is of version 2, and this netinv reads version 1: update netinv"),
        (at("version", 0), "is of version 0, .* evaluate again"),
        (at("rows", []), "rows has no ensemble"),
        (at("rows.2", None), "rows has no ensemble"),
        (at("rows.5", None), "rows has no noise"),
        (lambda values: values["rows"].__delitem__(slice(0, 2)), "rows has no generator"),
        (lambda values: values["rows"].append(values["rows"][0]), "two rows 'generator 0'"),
        (at("rows.1.measures.kl", None), "measures of the row .* are not those"),
        (at("rows.2.dropout", {}), "dropout of the row 'ensemble' are not those"),
        (at("rows.2.by_class.vendi", []), "by_class.vendi of the row 'ensemble' has 0 entries for 2 classes"),
        (at("rows.2.confusion.classifier", [[1, 2]]), "confusion.classifier of the row 'ensemble' has 1 entries"),
        (
            at("rows.2.confusion.classifier", [[1, 2], [3]]),
            "confusion.classifier.1 of the row 'ensemble' has 1 entries",
        ),
        (at("rows.2.confusion.classifier", [[1, 2], [3, -4]]), r"confusion.classifier.1.1: expected"),
        (at("rows.2.audit.pairs.0.label", 7), "audit.pairs of the row 'ensemble' name class 7 of 2"),
        (at("rows.2.audit.pairs.0", None), "audit.pairs has no pixel of class 0"),
        (at("rows.2.audit.comparisons.pixel.by_class", []), "audit.comparisons.pixel.by_class of the row 'ensemble'"),
        (at("rows.2.robustness.1", None), "robustness of the row 'ensemble' is not at settings.epsilons"),
        (at("rows.2.measures.kl.value", float("inf")), r"rows.2.measures.kl.*finite"),
        (at("rows.2.measures.kl.value", 1e300), r"rows.2.measures.kl.*less than"),
        (at("headline.robust_accuracy", None), "headline has no robust_accuracy"),
        (at("headline.student_noise_accuracy", None), "headline has no student_noise_accuracy"),
        (at("settings", {}), "settings.epsilons is required"),
        (at("settings.attack_steps", 0), "settings.attack_steps: expected"),
        (at("settings.attack_steps", 11), "settings.attack_steps is not that of"),
        (at("classes", ["cat", "dog"]), "classes are not those of"),
        (at("classes", []), "classes: "),
        (at("image_shape", [1, 10**9, 8]), "image_shape.1: expected"),
        (at("image_shape", [1, -8, 8]), "image_shape.1: expected"),
        (at("unknown", 1), "unknown is not a known key"),
    ],
)
def test_results_of_another_version_or_hand_are_one_sentence(
    folders: Folders, render: Callable[..., str], alter: Alter, words: str
) -> None:
    path = folders.evaluation / "digits/robust/results.json"
    values = json.loads(path.read_text())
    alter(values)
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=words) as error:
        render()
    assert "results.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"\xff", b"[" * 100_000, b"1" * 5000, b'{"version": 1}', b"null", b'{"a": Infinity}']
)
@pytest.mark.parametrize(
    "name",
    [
        "evaluation/digits/robust/results.json",
        "metrics/export/digits-robust.json",
        "runs/invert/digits-robust.json",
        "plots/invert/digits-robust.csv",
        "plots/train/digits-classifier.csv",
    ],
)
def test_a_file_that_holds_something_else_is_named(
    tmp_path: Path, render: Callable[..., str], name: str, content: bytes
) -> None:
    if content == b'{"version": 1}' and name.startswith("metrics"):
        pytest.skip("that is a possible content")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        render()


@pytest.mark.parametrize("value", [7, "../../x", "<script>", "", ["a"]])
def test_the_id_of_a_run_is_an_id(folders: Folders, render: Callable[..., str], value: Any) -> None:
    path = folders.runs / "invert/digits-robust.json"
    path.write_text(json.dumps({"run_id": value}))
    with pytest.raises(InputError, match=r"digits-robust\.json: run_id: .*run its stage again"):
        render()


@pytest.mark.parametrize("name", ["figure2", "ensemble", "real_test", "ensemble-neighbours"])
@pytest.mark.parametrize(
    ("size", "words"), [((1, 1), "hold no"), ((60_000, 60_000), "60000 x 60000 pixels"), (None, "cannot identify")]
)
def test_a_picture_that_is_no_grid_is_named(
    folders: Folders, render: Callable[..., str], name: str, size: tuple[int, int] | None, words: str
) -> None:
    path = folders.evaluation / f"digits/robust/{name}.png"
    if size is None:
        path.write_bytes(b"P6 9 9 255 " + bytes(243))  # a picture, but of another format
    elif size[0] == 1:
        Image.new("L", size).save(path)
    else:
        chunks = ((b"IHDR", struct.pack(">II5B", *size, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
                for kind, data in chunks
            )
        )
    with pytest.raises(InputError, match=rf"{name}\.png is not a readable picture.*({words}|exceeds)"):
        render()


def test_curves_without_a_column_are_named(folders: Folders, render: Callable[..., str]) -> None:
    path = folders.plots / "invert/digits-robust.csv"
    path.write_text("generator,step,samples,loss,kl\n0,1,64,1,1\n")
    with pytest.raises(InputError, match="The curves of digits, robust have no column accuracy"):
        render()


SMALLEST = """Math.min(...[...document.querySelectorAll("#mnist *")].filter(
    node => [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim())
        && node.getBoundingClientRect().width
).map(node => parseFloat(getComputedStyle(node).fontSize) * (node.getScreenCTM ? node.getScreenCTM().a : 1)))"""
"""Size of the smallest letters that are shown."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
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
