"""What ends a stage, and what is said of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stages import start_stage

from pipeline.stage import stage_command

pytestmark = pytest.mark.usefixtures("in_empty_folder")


@pytest.mark.parametrize(
    "body",
    ["raise RuntimeError('of a library, which was interrupted')", "time.sleep(60)  # swallowed: the work goes on"],
)
def test_a_stage_that_is_terminated_ends_whatever_a_library_makes_of_it(body: str) -> None:
    process = start_stage(
        "from pipeline import ending; ending.GRACE = 1.0\n"
        "    try:\n        print('ready', flush=True); time.sleep(60)\n"
        f"    except BaseException:\n        {body}"
    )
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(2):  # DVC that ends sends a second one
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=10)
    assert process.returncode in {143, -signal.SIGTERM}  # the second may come when Python has ended
    assert errors == "error: Terminated; nothing half-written was left behind.\n"


def test_stage_ends_when_the_dvc_that_started_it_is_killed() -> None:
    launcher = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])",
            "import time\nfrom pathlib import Path\nfrom pipeline.stage import *\n"
            "@stage_command\ndef main():\n"
            "    with replaced(Path('out')): Path('pid').write_text(str(os.getpid())); time.sleep(60)\nmain()",
        ],
        env={**os.environ, "DVC_ROOT": str(Path.cwd())},
    )
    while not Path("pid").exists() or not Path("pid").read_text():
        time.sleep(0.05)
    orphan = int(Path("pid").read_text())
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 15
    while _alive(orphan):
        assert time.monotonic() < deadline, "the orphan outlived its parent"
        time.sleep(0.1)
    assert not Path("out").exists()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("body", "status"), [("pass", 0), ("raise InputError('No.')", 2), ("1 / 0", 2)])
def test_under_dvc_a_stage_that_ends_well_leaves_at_once_but_for_what_is_registered(body: str, status: int) -> None:
    script = (
        "import atexit, os, sys\nfrom pathlib import Path\nfrom pipeline.stage import *\n"
        "class Slow:\n"
        "    def __del__(self): Path('taken down').touch()\n"
        "held = Slow()\n"
        "@stage_command\ndef main():\n"
        "    atexit.register(Path('registered').touch)\n"
        "    print('told')\n"
        f"    {body}\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "DVC_ROOT": "."}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (status, "told\n")
    assert Path("registered").exists()
    assert Path("taken down").exists() == (status != 0)


def test_a_stage_that_nobody_reads_goes_on_and_ends_with_its_own_status() -> None:
    """Both of its streams lead to a reader that has gone, as in ``dvc repro 2>&1 | head -1``."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.stage import stage_command\n"
        "@stage_command\ndef main():\n"
        "    for stream in (sys.stdout, sys.stderr):\n"
        "        print('told', file=stream, flush=True)\n"
        "    Path('made').touch()\n"
        "    print('told')\n"
        "    sys.exit(3)\n"
        "main()"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=writer, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, Path("made").exists()) == (3, True)


def test_user_error_is_one_sentence_and_status_2() -> None:
    process = start_stage("raise InputError('Say what to do.')")
    output, errors = process.communicate()
    assert (process.returncode, output, errors) == (2, "", "error: Say what to do.\n")


def test_an_account_without_a_home_is_told_so_before_the_work() -> None:
    process = start_stage("print('Begun.')", "import os, pwd; del os.environ['HOME']; pwd.getpwuid = {}.__getitem__")
    told = "error: This account has no home: set HOME to a folder that it can write.\n"
    assert (*process.communicate(), process.returncode) == ("", told, 2)


def test_full_disk_is_one_sentence() -> None:
    process = start_stage("open('/dev/full', 'w', buffering=1).write('x\\n')")
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors.startswith("error: The disk is full")
    assert "Traceback" not in errors


def test_defects_keep_their_trace() -> None:
    process = start_stage("1 / 0")
    _, errors = process.communicate()
    assert process.returncode == 2  # 1 is a verdict of the audit
    assert "ZeroDivisionError" in errors


@pytest.mark.parametrize("said", [{}, {"MLFLOW_DISABLE_TELEMETRY": "false", "RAY_USAGE_STATS_ENABLED": "1"}])
def test_libraries_report_nothing_unless_somebody_has_said_so(said: dict[str, str]) -> None:
    off = {"MLFLOW_DISABLE_TELEMETRY": "true", "ORT_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    code = f"import os, pipeline; print([os.environ.get(name) for name in {[*off]}])"
    clean = {name: value for name, value in os.environ.items() if name not in off}
    told = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **said}, capture_output=True, text=True, check=True
    ).stdout
    assert told == f"{[*{**off, **said}.values()]}\n"


def test_stage_command_keeps_name_and_help() -> None:
    @stage_command
    def main() -> None:
        """Do the work."""

    assert (main.__name__, main.__doc__) == ("main", "Do the work.")


@pytest.mark.parametrize("error", ["InputError", "OSError", "ValueError"])
def test_no_error_shows_a_password(error: str) -> None:
    _, errors = start_stage(f"raise {error}('ftp://ada:SECRET@host/x cannot be used')").communicate()
    assert "ftp://host/x cannot be used" in errors
    assert "SECRET" not in errors


@pytest.mark.parametrize(
    ("number", "words"),
    [("EROFS", "made writable"), ("EACCES", "read or written"), ("EBUSY", "mount point"), ("EIO", "The disk fails")],
)
def test_what_the_machine_refuses_is_one_sentence(number: str, words: str) -> None:
    process = start_stage(f"import errno; raise OSError(errno.{number}, 'no', 'data/x')")
    _, errors = process.communicate()
    assert process.returncode == 2
    assert words in errors
    assert "data/x" in errors
    assert len(errors.splitlines()) == 1
