"""Which evaluations stand beside each other, and that the controls beside a number are its own."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_results import Folders, number, results, write_variant
from pages import complaints
from test_report import Page

from netinv.core import InputError, save_csv
from netinv.report import Inverted, read_evaluations, render, summary
from netinv.report.inputs import CONTROLS, REFERENCES, TITLES
from netinv.results import Results

Evaluates = Callable[..., Path]
CURVE = [{"generator": 0, "samples": samples, "loss": 1.0} for samples in (1, 2)]


def measured(accuracy: float = 0.6, judged: float = 0.97, **settings: Any) -> Results:
    """Results whose evaluator reads so many of the real images."""
    found = results(("cat", "dog"), accuracy)
    rows = tuple(
        row.model_copy(update={"measures": row.measures | {"evaluator_accuracy": number(judged)}})
        if row.name in ("real_train", "real_test")
        else row
        for row in found.rows
    )
    return found.model_copy(update={"rows": rows, "settings": found.settings | settings})


@pytest.fixture
def evaluated(tmp_path: Path) -> Evaluates:
    """Writes an evaluation as ``netinv evaluate`` does."""

    def write(name: str, found: Results, **settings: str) -> Path:
        folder = tmp_path / "all" / name
        write_variant(Folders(*[tmp_path] * len(Folders._fields)), "all", name, found)
        (folder / "settings.json").write_text(json.dumps({"model": "zoo:Net", "data": "photos", **settings}))
        save_csv(folder / "curves.csv", CURVE)
        return folder

    return write


def grouped(folders: list[Path]) -> list[list[str]]:
    """Names of evaluations by the model of the report, which the tables of the summary must agree with."""
    models = [[e.variant for e in one.variants] for one in read_evaluations(folders)]
    tables = [block.splitlines()[0].split()[1:] for block in summary(folders, 200).split("\n\n")]
    assert tables == [[*names, "real", "one", "bent", "noise"] for names in models]
    return models


def test_evaluators_of_two_seeds_are_told_apart_and_each_has_its_own_controls(evaluated: Evaluates) -> None:
    folders = [evaluated("first", measured(judged=0.97)), evaluated("second", measured(judged=0.55, seed=1))]
    assert grouped(folders) == [["first"], ["second"]]
    inverted = read_evaluations(folders)
    assert [one.name for one in inverted] == ["zoo:Net, seed 0", "zoo:Net, seed 1"]
    for block, own, other in zip(
        summary(folders, 80).split("\n\n"), ("97.0%", "55.0%"), ("55.0%", "97.0%"), strict=True
    ):
        judged = next(line for line in block.splitlines() if line.startswith("Evaluator accuracy"))
        assert own in judged
        assert other not in judged
    pages = [" ".join(Page(render([one])).text.split()) for one in inverted]
    assert ["An independent network recognises 60.0% (real images: 55.0%)" in page for page in pages] == [False, True]


@pytest.mark.parametrize(
    "other",
    [
        {"found": measured(judged=0.96)},  # the same path, where other images or another evaluator lay
        {"found": measured(num_samples=100)},
        {"evaluator_set": "steps=5"},
        {"model": "zoo:Other"},
        {"weights": "other.safetensors"},
    ],
)
def test_whatever_changes_the_controls_or_the_model_parts_evaluations(
    evaluated: Evaluates, other: dict[str, Any]
) -> None:
    changed = evaluated("changed", **{"found": measured(), **other})
    folders = [evaluated("first", measured()), changed, evaluated("third", measured(0.9))]
    assert grouped(folders) == [["first", "third"], ["changed"]]


def test_a_model_and_its_images_may_be_named_by_any_path(
    evaluated: Evaluates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short = {"model": "net", "weights": "w.pt", "data": "photos"}
    long = {name: str(tmp_path / "x/.." / path) for name, path in short.items()}
    assert grouped([evaluated("short", measured(), **short), evaluated("long", measured(), **long)]) == [
        ["short", "long"]
    ]


def test_counts_are_those_of_all_variants_not_of_the_first(evaluated: Evaluates) -> None:
    few = measured()
    rows = [row for row in few.rows if row.name != "generator 1"]
    point = rows[1].robustness[0].model_copy(update={"accuracy": number(0.9).model_copy(update={"n": 77})})
    rows[1] = rows[1].model_copy(update={"robustness": (point, *rows[1].robustness[1:])})
    few = few.model_copy(update={"rows": tuple(rows), "vendi_n": 12})
    inverted = read_evaluations([evaluated("many", measured()), evaluated("few", few)])
    text = " ".join(Page(render(inverted)).text.split())
    assert len(inverted) == 1
    assert "inverted by 1 to 2 generators in each variant" in text
    assert "Vendi scores are of 12 to 30 images of a class" in text
    assert "on 77 to 100 images of each kind" in text


def test_folders_named_like_controls_keep_their_numbers(evaluated: Evaluates) -> None:
    folders = [evaluated(name, measured(0.6)) for name in ("noise", "real", "one bent", "real, test", "mine")]
    names, accuracies, *_ = (re.split("  +", line)[1:] for line in summary(folders, 400).splitlines())
    found = ["all/noise", "all/real", "all/one bent", "all/real, test", "mine"]
    assert names == [*found, "real", "one bent", "noise"]
    assert [cell.partition(" ")[0] for cell in accuracies] == ["60.0%"] * 5 + ["97.0%", "25.0%", "5.0%"]
    (one,) = read_evaluations(folders)
    assert [e.variant for e in one.variants] == found


def test_a_control_finished_as_its_variant_stands_once_for_each(evaluated: Evaluates) -> None:
    def bent(coverage: float, student: float) -> Results:
        found = measured()
        rows = [
            row.model_copy(update={"measures": row.measures | {"coverage": number(coverage)}})
            if row.name == "one_picture"
            else row
            for row in found.rows
        ]
        told = found.headline | {"distilled_one_picture_accuracy": number(student)}
        return found.model_copy(update={"rows": tuple(rows), "headline": told})

    folders = [evaluated("plain", bent(0.407, 0.52)), evaluated("blurred", bent(0.043, 0.61))]
    first, second = (block.splitlines() for block in summary(folders, 80).split("\nall"))
    assert first[0].split() == ["all", "plain", "blurred", "real"]
    assert second[0].split() == ["one", "bent", "(plain)", "one", "bent", "(blurred)", "noise"]
    cells = {line.split("  ")[0]: line.split()[-3:] for line in second[1:]}
    assert cells["Coverage"] == ["40.7%", "4.3%", "5.0%"]
    assert cells["Distilled student"][:2] == ["52.0%", "61.0%"]
    assert "Leak of training images" not in cells  # it is of variants alone
    (one,) = read_evaluations(folders)
    page = Page(render([one]))
    text = " ".join(page.text.split())
    title = "one real picture, bent"
    assert f"real, test {title} (plain) {title} (blurred) noise" in text  # columns, and grids to choose from
    assert "zoo:Net, one real picture a class, bent (plain)" in text
    for coverage in ("40.7%", "4.3%"):
        assert f"of one real picture a class, bent: {coverage}" in text  # in the sentences
    labels = [attributes["aria-label"] or "" for tag, attributes in page.tags if "aria-label" in attributes]
    assert any(f"{title} (plain) 40.7%; {title} (blurred) 4.3%" in label for label in labels)


@pytest.mark.parametrize("name", [*sorted(TITLES), "mine, dropout on"])
def test_a_variant_with_the_title_of_a_control_is_refused(evaluated: Evaluates, name: str) -> None:
    assert len(TITLES) == len(CONTROLS) * 2 + len(REFERENCES) - 2  # noise has one title in all places
    (one,) = read_evaluations([evaluated("mine", measured()), evaluated("other", measured())])
    mine, other = one.variants
    with pytest.raises(InputError, match=rf"Two things are called {re.escape(name)}: give each a name of its own"):
        render([one._replace(variants=[mine, other._replace(variant=name)])])


def test_models_named_like_parts_of_the_page_have_ids_of_their_own(evaluated: Evaluates) -> None:
    def inverted(name: str) -> Inverted:
        (one,) = read_evaluations([folder])
        return one._replace(name=name)

    folder = evaluated("mine", measured())
    names = ("summary", "reading", "a, b", "a b", "zoo:Net")
    tags = Page(render([inverted(name) for name in names])).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "zoo:Net" in ids


@pytest.mark.parametrize("lost", ["noise", "real_test", "ensemble"])
def test_a_summary_of_results_without_a_row_is_one_sentence(evaluated: Evaluates, lost: str) -> None:
    found = measured()
    rows = tuple(row for row in found.rows if row.name != lost)
    with pytest.raises(InputError, match=rf"results\.json: rows has no {lost}: evaluate again"):
        summary([evaluated("mine", found.model_copy(update={"rows": rows}))], 80)


def test_nothing_is_told_of_a_training_that_was_elsewhere(evaluated: Evaluates) -> None:
    assert "Training of the classifier" not in Page(render(read_evaluations([evaluated("mine", measured())]))).text


@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_widen_no_page(evaluated: Evaluates, tmp_path: Path, browser: Any, width: int) -> None:
    folders = [evaluated(name, measured(), model="m" * 300) for name in ("v" * 150, "w" * 150)]
    (tmp_path / "index.html").write_text(render(read_evaluations(folders)))
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((tmp_path / "index.html").as_uri())
    assert complaints(page) == []
