"""What the report reads: what is damaged, missing or of another version is named in one sentence."""

import itertools
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_results import Folders
from PIL import Image

from netinv.core import InputError, read_numbers, write_text
from netinv.report import MEND, read_ablations


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


NUMBERS = "metrics/export/digits-robust.json"
FILES = (
    "evaluation/digits/robust/results.json",
    NUMBERS,
    "runs/invert/digits-robust.json",
    "plots/invert/digits-robust.csv",
    "plots/train/digits-classifier.csv",
)
NUMBERED = b'{"version": 1}'
"""What is a possible content of numbers alone."""
CONTENTS = (b"", b"[1]", b"\xff", b"[" * 100_000, b"1" * 5000, NUMBERED, b"null", b'{"a": Infinity}')


@pytest.mark.parametrize(
    ("name", "content"), [pair for pair in itertools.product(FILES, CONTENTS) if pair != (NUMBERS, NUMBERED)]
)
def test_a_file_that_holds_something_else_is_named(
    tmp_path: Path, render: Callable[..., str], name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        render()


@pytest.mark.parametrize("value", [7, "../../x", "<script>", "", ["a"]])
def test_the_id_of_a_run_is_an_id(folders: Folders, render: Callable[..., str], value: Any) -> None:
    path = folders.runs / "invert/digits-robust.json"
    path.write_text(json.dumps({"run_id": value}))
    with pytest.raises(InputError, match=r"digits-robust\.json\.run_id: .*run its stage again"):
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
