"""A params.yaml that is no settings file at all is refused at once, in one sentence."""

import time
from pathlib import Path

import pytest

from netinv.core import InputError
from pipeline.params import load_params


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "is not valid YAML"),
        ("- 1\n", r"expected an object, got \[1\]"),
        ("datasets: [digits]\ndatasets: [mnist]\n", "is not valid YAML: .*duplicate key"),
        ("", "expected an object, got None"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as error:
        load_params(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not readable .*repository's root"):
        load_params(tmp_path / "params.yaml")


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 25))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]\n", "do without aliases"),
        ("a: &a {b: *a}\n", "do without aliases"),
        (BOMB, "do without aliases"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply|levels"),
        ("a: " + "[" * 40 + "]" * 40, "levels"),
        ("a: " + "9" * 5000, "cannot be read|no setting"),
        ("a: 1.0e+400", "inf is no setting"),
        ("a: {b: [1, -.inf]}", r"yaml: a\.b\.1: -inf is no setting"),
        ("a: {.nan: .inf}", "yaml: a: nan is no setting"),
        ("#" * 2**21, "bytes, and at most"),
        ("- " * 5000, "nested too deeply"),
        ("a: " + "{b: " * 5000, "nested too deeply"),
    ],
)
def test_what_no_settings_file_needs_is_refused_at_once(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    begin = time.monotonic()
    with pytest.raises(InputError, match=message):
        load_params(tmp_path / "params.yaml")
    assert time.monotonic() - begin < 30  # some seconds on a busy machine
