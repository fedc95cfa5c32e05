"""How a command ends where it is asked to, and where the machine refuses what it needs."""

import errno
import io
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from netinv.app import auditing, command
from netinv.core import InputError

SLOW = """
import signal, time
from pathlib import Path
from netinv.app import command
from netinv.core import new_folder
@command.cli.command()
def work():
    with new_folder(Path("out")) as folder:
        (folder / "half").touch()
        print("ready", flush=True)
        time.sleep(60)
{first}
command.main()
"""


def ended(folder: Path, first: str, *numbers: int) -> tuple[int, str]:
    """Exit status and errors of a command that gets signals amid its work."""
    words = [sys.executable, "-c", SLOW.format(first=first), "work"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert [path.name.startswith(".out.") for path in folder.iterdir()] == [True]
        for number in numbers:
            child.send_signal(number)
        _, errors = child.communicate(timeout=30)
    return child.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_asked_to_end_leaves_nothing(number: int, tmp_path: Path) -> None:
    sentence = "error: Terminated; nothing half-written was left behind.\n"
    heard = f"signal.signal({number:d}, signal.SIG_DFL)"  # also where the tests run under nohup
    assert ended(tmp_path, heard, number) == (128 + number, sentence)
    assert not list(tmp_path.iterdir())


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    status, _ = ended(tmp_path, "signal.signal(signal.SIGHUP, signal.SIG_IGN)", signal.SIGHUP, signal.SIGTERM)
    assert status == 143


def test_the_handlers_of_whoever_calls_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["netinv", "--version"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        command.main()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sample", "a" * 300, "--out", "new"), "is not a file that can be read (File name too long)"),
        (("report", "a" * 300, "--out", "new.html"), "(File name too long)"),
    ],
)
def test_a_path_that_cannot_be_looked_at_is_one_sentence(
    words: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command._status([*words]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert told in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "ftp://ada:SECRET@host/x"),
            "ftp://host/x cannot be reached",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "free some space, or set TMPDIR to a folder with room"),
        (FloatingPointError("generator as ONNX differs from torch"), "error: generator as ONNX differs from torch\n"),
        (OSError("of a library"), "Traceback"),
    ],
)
def test_what_the_machine_refuses_is_told_and_what_else_fails_keeps_its_trace(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(command.cli, "main", fail)
    assert command._status(["fetch"]) == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert "SECRET" not in errors
    assert (errors.count("\n") == 1) == (told != "Traceback")


def test_samples_that_do_not_end_or_fit_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    header = io.BytesIO()
    vast = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 1, 99, 99)}
    np.lib.format.write_array_header_1_0(header, vast)
    with zipfile.ZipFile(tmp_path / "vast.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    for path, told in (("pipe.npz", "it is no regular file"), ("vast.npz", "allocate")):
        with pytest.raises(InputError, match=f"{path} is no file of netinv sample .*{told}"):
            auditing._read(tmp_path / path, (1, 2, 2))
