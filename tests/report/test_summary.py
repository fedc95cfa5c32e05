"""The headline in a terminal: whole at 80 columns, with intervals where there is room."""

from pathlib import Path

import pytest
from made_up_results import number, results

from netinv.core import InputError, write_text
from netinv.report import summary
from netinv.results import HEADLINE


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / dataset / variant for dataset in ("digits", "mnist") for variant in ("standard", "robust")]
    for i, folder in enumerate(folders):
        write_text(folder / "results.json", results(("cat", "dog"), 0.5 + i / 10).model_dump_json())
    return folders


def test_every_number_fits_a_narrow_terminal(folders: list[Path]) -> None:
    first, second = summary(folders, 80).split("\n\n")
    for block, title, accuracies in ((first, "digits", ("50.0%", "60.0%")), (second, "mnist", ("70.0%", "80.0%"))):
        head, *lines, leak = block.strip().splitlines()
        assert head.split() == [title, "standard", "robust", "real", "one", "bent", "noise"]
        assert len(lines) == len(HEADLINE) == 9
        assert lines[0].split()[:2] == ["Inversion", "accuracy"]
        assert lines[0].split()[2:] == [*accuracies, "97.0%", "25.0%", "5.0%"]
        assert lines[-1].split()[-3:] == ["-", "-", "-"]  # membership is asked of the classifier alone
        assert leak.split()[-2:] == ["none", "none"]
        assert max(map(len, [head, *lines, leak])) <= 80


def test_a_wide_terminal_has_intervals(folders: list[Path]) -> None:
    lines = summary(folders, 160).splitlines()
    assert "50.0% (49.0 to 51.0%)" in lines[1]
    assert 80 < max(map(len, lines)) <= 160
    assert "50.0% (" not in summary(folders, 159)


def test_many_variants_go_below_each_other(tmp_path: Path) -> None:
    for i in range(6):
        write_text(
            tmp_path / f"a-variant-of-number-{i}" / "results.json", results(("cat", "dog"), 0.9).model_dump_json()
        )
    text = summary(sorted(tmp_path.iterdir()), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("Inversion accuracy") == 2
    assert all(f"…number-{i}" in text for i in range(6))
    assert text.count("90.0%") == 6 * 6  # each share, of each variant


def test_accuracies_of_real_images_are_of_those_that_no_network_was_trained_on(tmp_path: Path) -> None:
    found = results(("cat", "dog"), 0.9)
    known = {"real_train": 1.0, "real_test": 0.71}
    rows = [
        row.model_copy(update={"measures": dict.fromkeys(row.measures, number(known.get(row.name, 0.5)))})
        for row in found.rows
    ]
    write_text(tmp_path / "results.json", found.model_copy(update={"rows": tuple(rows)}).model_dump_json())
    cells = [line.split()[-3] for line in summary([tmp_path], 80).splitlines()[1:8]]
    assert cells == [*["71.0%"] * 3, "1.00", "100%", "1.00", "100%"]


@pytest.mark.parametrize(
    ("name", "width", "head"),
    [
        ("evaluation", 80, "evaluation"),
        ("evaluation", 70, "…aluation"),
        ("of-the-robust-variant", 82, "of-the-robust-variant"),
        ("of-the-robust-variant", 80, "…the-robust-variant"),
        ("of-the-robust-variant", 134, "of-the-robust-variant"),
        ("of-the-robust-variant-again", 160, "of-the-robust-variant-again"),
    ],
)
def test_a_name_is_whole_while_there_is_room(tmp_path: Path, name: str, width: int, head: str) -> None:
    write_text(tmp_path / name / "results.json", results(("cat", "dog"), 0.9).model_dump_json())
    lines = summary([tmp_path / name], width).splitlines()
    assert lines[0].split()[-5:] == [head, "real", "one", "bent", "noise"]
    assert max(map(len, lines)) <= width
    assert ("90.0% (" in lines[1]) == (width >= 134)


def test_models_of_one_folder_have_their_own_controls(folders: list[Path]) -> None:
    path = folders[1] / "results.json"
    found = results(("cat", "dog"), 0.6)
    rows = [
        row.model_copy(update={"measures": row.measures | {"evaluator_accuracy": number(0.41)}})
        if row.name in ("real_train", "real_test")
        else row
        for row in found.rows
    ]
    write_text(path, found.model_copy(update={"rows": tuple(rows)}).model_dump_json())
    blocks = summary(folders, 80).split("\n\n")
    assert len(blocks) == 3
    assert [block.splitlines()[0].split()[1] for block in blocks[:2]] == ["standard", "robust"]
    assert ["41.0%" in block for block in blocks] == [False, True, False]


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results\.json is not readable"):
        summary([tmp_path], 80)
