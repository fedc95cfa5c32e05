"""The report: complete, safe against its input, and whole without a network."""

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_results import HOSTILE, VERDICT, WHY, Folders, results, write_variant

from netinv.core import write_text
from netinv.evaluation.rows import MEASURES
from netinv.report import words
from netinv.report.inputs import Evaluated
from netinv.results import NotMeasured

SERVER = "http://tracking.example:5000"


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


@pytest.mark.parametrize(
    ("channels", "images"),
    [
        (1, "grey images"),
        (2, "images of 2 channels (shown as their mean)"),
        (3, "colour images"),
        (4, "images of 4 channels (shown as their mean)"),
    ],
)
def test_images_are_called_what_they_are(channels: int, images: str) -> None:
    found = results(("cat", "dog"), 0.9).model_copy(update={"image_shape": (channels, 8, 9)})
    told = words.description([Evaluated("robust", found, Path(), [], {}, {})])
    assert told.startswith(f"A classifier of 8 by 9 {images} in 2 classes, inverted by 2 generators in each variant. ")


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
    html = render()
    tags = Page(html).tags
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [attributes["title"] for _, attributes in tags if attributes.get("class") == "short"]
    assert {*named} == {"cat", HOSTILE}  # cut short, with the whole of it behind
    assert "<span>cat" not in html


def test_more_classes_than_a_table_or_a_picture_can_show(folders: Folders, render: Callable[..., str]) -> None:
    few = render(datasets=("digits",), variants=("standard",))
    assert "a row for each class, a column" in few
    assert "of the first" not in few
    found = results(tuple(f"kind {k}" for k in range(30)), 0.9)
    right = {"classifier": tuple(tuple(9 * (i == j) for j in range(30)) for i in range(30))}
    rows = [row.model_copy(update={"confusion": right}) if row.name == "real_test" else row for row in found.rows]
    for variant in ("standard", "robust"):
        write_variant(folders, "digits", variant, found.model_copy(update={"rows": tuple(rows)}))
    page = Page(render(datasets=("digits",)))
    shown, text = "each of the first 20 of 30 classes", " ".join(page.text.split())
    told = [attributes["alt"] or "" for tag, attributes in page.tags if tag == "img"]
    assert "Confusion matrix: robust, read by the evaluator" in told
    assert "kind 29 read as kind 28: 10" in page.text
    assert "Most frequent: none." in page.text
    assert f"robust: a row for {shown}, a column for each generator" in text
    assert f"Ten images of {shown}, the first and not chosen" in text
    assert f"The image of {shown} that is nearest to a training image" in text
    assert f"a real test image of {shown}" in told
    assert f"robust, ensemble: a row of 10 images for {shown}" in told
    assert not [alt for alt in told if alt.endswith("each class")]


def test_a_leak_is_a_bad_verdict(folders: Folders, render: Callable[..., str]) -> None:
    found = results(("cat", "dog"), 0.9)
    changes = {"leak": True, "verdict": "Training images leak."}
    write_variant(folders, "digits", "standard", found.model_copy(update=changes))
    html = render(datasets=("digits",), variants=("standard",))
    assert re.search(r'<li class="bad"><span[^>]*></span>Training images leak\.', html)
