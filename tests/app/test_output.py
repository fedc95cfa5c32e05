"""What is printed has no say in how a command ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netinv.app.parsing import parse_classes
from netinv.classifiers import save_classifier
from netinv.core import InputError
from tests.conftest import Exported

COMMAND = "from netinv.app.command import main; main()"


def run(words: list[str], out: str, unbuffered: bool) -> tuple[int, str]:
    """Exit status and errors of the command, whose output goes to a reader that has gone, or to a full disk."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONUNBUFFERED": "1"} if unbuffered else {}
    if out == "gone":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    command = [sys.executable, "-c", COMMAND, *words]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    finally:
        os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_reader_that_has_gone_changes_no_exit_status(exported: Exported, tmp_path: Path, unbuffered: bool) -> None:
    model, out = str(exported.folder / "generator-0.onnx"), tmp_path / "grid.png"
    assert run(["sample", model, "--num", "2", "--out", str(out)], "gone", unbuffered) == (0, "")
    assert out.exists()


@pytest.mark.parametrize("unbuffered", [pytest.param(False, marks=pytest.mark.slow), True])
def test_nor_does_it_that_of_a_command_which_ends_by_its_exit(
    exported: Exported, tmp_path: Path, unbuffered: bool
) -> None:
    save_classifier(tmp_path / "classifier", exported.classifier)
    assert run(["check", str(tmp_path / "classifier")], "gone", unbuffered) == (0, "")


def test_a_verdict_stays_what_it_is_when_nobody_reads_it() -> None:
    code = (
        "import sys; from netinv.core.streams import Output; sys.stdout = Output(sys.stdout, needed=True);"
        "[print('x' * 100_000) for _ in range(3)]; sys.stdout.flush(); raise SystemExit(3)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.close()
    assert child.wait(60) == 3


def test_without_any_output_a_command_ends_as_it_would(exported: Exported, tmp_path: Path) -> None:
    save_classifier(tmp_path / "classifier", exported.classifier)
    for words in (["--version"], ["check", str(tmp_path / "classifier")]):
        shell = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", COMMAND, *words]
        done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("where", ["gone", "closed"])
def test_an_error_that_nobody_reads_changes_no_exit_status_and_goes_nowhere_else(tmp_path: Path, where: str) -> None:
    words = ["sample", str(tmp_path / "absent.onnx"), "--json", "--out", str(tmp_path / "x.png")]
    shell = ["/bin/sh", "-c", f'exec "$@" {"2>&-" if where == "closed" else ""}', "sh"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*shell, sys.executable, "-c", COMMAND, *words],
            stdout=subprocess.PIPE,
            stderr=writer,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (2, "")


def test_what_the_encoding_lacks_is_written_in_ascii(exported: Exported, tmp_path: Path) -> None:
    save_classifier(tmp_path / "größe", exported.classifier)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", COMMAND, "check", str(tmp_path / "größe")]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"gr\\xf6\\xdfe" in done.stdout


NO_ROOM = (2, "error: The standard output cannot be written (No space left on device).\n")


@pytest.mark.parametrize("unbuffered", [False, True])
def test_an_output_without_room_is_one_sentence(exported: Exported, tmp_path: Path, unbuffered: bool) -> None:
    words = ["sample", str(exported.folder / "generator-0.onnx"), "--num", "2", "--out", str(tmp_path / "grid.png")]
    assert run(words, "full", unbuffered) == NO_ROOM


@pytest.mark.parametrize("unbuffered", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_so_it_is_for_a_command_that_ends_by_its_exit(exported: Exported, tmp_path: Path, unbuffered: bool) -> None:
    save_classifier(tmp_path / "classifier", exported.classifier)
    assert run(["check", str(tmp_path / "classifier")], "full", unbuffered) == NO_ROOM


def test_files_are_utf_8_whatever_the_locale_is(tmp_path: Path) -> None:
    code = (
        "import locale; from pathlib import Path; from netinv.core import write_text;"
        f"write_text(Path({str(tmp_path / 'file')!r}), 'gr\\u00f6\\u00dfe \\u2713')"
    )
    # Latin-1, without the mode in which Python would take UTF-8 for it.
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "größe ✓"


def test_classes_have_names_of_their_own() -> None:
    assert parse_classes("red, blue ,große") == ("red", "blue", "große")
    with pytest.raises(InputError, match=r"--classes: name 2 of 3 is empty: name each class"):
        parse_classes("red, ,blue")
    with pytest.raises(InputError, match=r"--classes: red stands there more than once"):
        parse_classes("red,blue, red")
    assert json.dumps(parse_classes("a")) == '["a"]'
