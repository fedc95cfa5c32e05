"""Outputs are whole or absent, whatever ends a stage."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from netinv.core import InputError, save_csv, write_text
from pipeline import stage
from pipeline.stage import replaced, stage_command


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_output_appears_only_when_the_block_ends_well() -> None:
    out = Path("generators/digits")
    with replaced(out) as folder:
        (folder / "weights").write_text("new")
        assert not out.exists()
    assert (out / "weights").read_text() == "new"


def test_failure_keeps_the_old_output_and_leaves_nothing_new() -> None:
    out = Path("out")
    out.mkdir()
    (out / "weights").write_text("old")

    def fail() -> None:
        with replaced(out) as folder:
            (folder / "weights").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (out / "weights").read_text() == "old"
    assert [path.name for path in Path(".stage").iterdir()] == ["out.lock"]


def test_success_replaces_the_old_output_whole() -> None:
    out = Path("out")
    out.mkdir()
    (out / "stale").write_text("old")
    with replaced(out) as folder:
        (folder / "fresh").write_text("new")
    assert [path.name for path in out.iterdir()] == ["fresh"]


def _stage(code: str, first: str = "", **environment: str) -> subprocess.Popen[str]:
    """A process that runs a stage with the given body, and some code before."""
    script = f"""
{first}
import time
from pathlib import Path
from netinv.core import InputError
from pipeline.stage import replaced, stage_command
@stage_command
def main():
    {code}
main()
"""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


SLOW = "with replaced(Path('out')) as folder: (folder / 'half').touch(); print('ready', flush=True); time.sleep(60)"


def test_kill_in_the_middle_leaves_no_output_and_the_next_run_goes_on() -> None:
    process = _stage(SLOW)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()
    assert not Path("out").exists()
    with replaced(Path("out")) as folder:
        assert list(folder.iterdir()) == []
    assert Path("out").is_dir()


def test_what_a_killed_run_had_moved_away_is_back_before_the_work() -> None:
    (Path(".stage") / "out.earlier").mkdir(parents=True)
    Path(".stage/out.earlier/weights").write_text("old")

    def fail() -> None:
        with replaced(Path("out")):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert Path("out/weights").read_text() == "old"
    assert [path.name for path in Path(".stage").iterdir()] == ["out.lock"]


def test_a_mount_point_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "out")
    rename = Path.rename

    def busy(path: Path, target: Path) -> Path:
        if path.name == "out":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", busy)
    Path("out/stale").mkdir(parents=True)
    with replaced(Path("out")) as folder:
        (folder / "fresh").touch()
    assert [path.name for path in Path("out").iterdir()] == ["fresh"]


def test_second_writer_of_one_output_is_refused_with_the_firsts_number() -> None:
    process = _stage(SLOW)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(InputError, match=f"Process {process.pid} is still writing out"), replaced(Path("out")):
        pass
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 143
    assert errors == "error: Terminated; nothing half-written was left behind.\n"
    assert not Path(".stage/out").exists()


@pytest.mark.parametrize(
    "body",
    ["raise RuntimeError('of a library, which was interrupted')", "time.sleep(60)  # swallowed: the work goes on"],
)
def test_a_stage_that_is_terminated_ends_whatever_a_library_makes_of_it(body: str) -> None:
    process = _stage(
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
    process = _stage("raise InputError('Say what to do.')")
    output, errors = process.communicate()
    assert (process.returncode, output, errors) == (2, "", "error: Say what to do.\n")


def test_an_account_without_a_home_is_told_so_before_the_work() -> None:
    process = _stage("print('Begun.')", "import os, pwd; del os.environ['HOME']; pwd.getpwuid = {}.__getitem__")
    told = "error: This account has no home: set HOME to a folder that it can write.\n"
    assert (*process.communicate(), process.returncode) == ("", told, 2)


def test_full_disk_is_one_sentence() -> None:
    process = _stage("open('/dev/full', 'w', buffering=1).write('x\\n')")
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors.startswith("error: The disk is full")
    assert "Traceback" not in errors


def test_defects_keep_their_trace() -> None:
    process = _stage("1 / 0")
    _, errors = process.communicate()
    assert process.returncode == 2  # 1 is a verdict of the audit
    assert "ZeroDivisionError" in errors


def test_text_and_csv_are_written_in_one_step() -> None:
    write_text(Path("a/b.txt"), "hello\n")
    save_csv(Path("a/c.csv"), [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
    assert Path("a/b.txt").read_text() == "hello\n"
    assert Path("a/c.csv").read_text() == "step,loss\n1,0.5\n2,0.25\n"
    assert sorted(path.name for path in Path("a").iterdir()) == ["b.txt", "c.csv"]


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
    _, errors = _stage(f"raise {error}('ftp://ada:SECRET@host/x cannot be used')").communicate()
    assert "ftp://host/x cannot be used" in errors
    assert "SECRET" not in errors


def test_a_link_to_another_folder_is_followed() -> None:
    disk = Path("disk/digits")
    disk.mkdir(parents=True)
    (disk / "stale").write_text("old")
    Path("data").mkdir()
    Path("data/digits").symlink_to(disk.absolute())
    with replaced(Path("data/digits")) as folder:
        (folder / "fresh").write_text("new")
    assert Path("data/digits").is_symlink()
    assert [path.name for path in disk.iterdir()] == ["fresh"]
    assert [path.name for path in disk.parent.iterdir()] == ["digits"]


def test_a_folder_on_another_disk_is_made_there(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=other) as disk:
        Path("out").symlink_to(Path(disk) / "out")
        for content in ("old", "new"):
            with replaced(Path("out")) as folder:
                (folder / "x").write_text(content)
        assert (Path(disk) / "out/x").read_text() == "new"
        assert [path.name for path in Path(disk).iterdir()] == ["out"]


def test_a_link_out_of_the_repository_is_refused_where_dvc_would(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("repository", "disk"):
        Path(name).mkdir()
    monkeypatch.chdir("repository")
    Path("data").symlink_to(Path("../disk").absolute())
    monkeypatch.setenv("DVC_ROOT", str(Path.cwd()))
    with pytest.raises(InputError, match="data is a link out of the repository"), replaced(Path("data/digits")):
        pass


@pytest.mark.parametrize("blocked", ["out", "up", ".stage"])
def test_a_file_where_a_folder_belongs_is_one_sentence(blocked: str) -> None:
    Path(blocked).write_text("mine")
    out = "up/out" if blocked == "up" else "out"
    _, errors = _stage(f"with replaced(Path('{out}')): pass").communicate()
    assert errors.startswith("error: ")
    assert "move it away" in errors
    assert blocked in errors
    assert len(errors.splitlines()) == 1
    assert Path(blocked).read_text() == "mine"


@pytest.mark.parametrize("blocked", ["metrics", "metrics/train"])
def test_a_file_that_cannot_be_written_in_the_end_is_told_before_the_work(blocked: str) -> None:
    Path(blocked).parent.mkdir(exist_ok=True)
    Path(blocked).write_text("mine")
    body = "with replaced(Path('out'), Path('metrics/train/x.json'), Path('plots/x.csv')): Path('work').touch()"
    _, errors = _stage(body).communicate()
    assert errors.startswith("error: metrics/train/x.json cannot be written (Not a directory)")
    assert len(errors.splitlines()) == 1
    assert Path(blocked).read_text() == "mine"
    assert not Path("work").exists()
    assert not Path("out").exists()


def test_nothing_is_begun_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x.json").mkdir()
    with (
        pytest.raises(InputError, match=r"x\.json is a folder already: name a file"),
        replaced(Path("out"), Path("x.json")),
    ):
        pytest.fail("the work was begun")

    def refuse(path: Path, replaces: None) -> None:
        assert Path(path).parent.is_dir()
        raise InputError(f"{path} cannot be written.")

    # As where its folder belongs to somebody else; a test that root runs may write everywhere.
    monkeypatch.setattr(stage, "check_folder", refuse)
    with pytest.raises(InputError, match="up/out cannot be written"), replaced(Path("up/out")):
        pytest.fail("the work was begun")


@pytest.mark.parametrize("most", [0, 100, 2000, 20_000])
def test_what_does_not_fit_is_one_sentence_with_its_path_and_leaves_nothing(most: int) -> None:
    """A bound on the size of files, in place of a full disk: each write beyond it fails."""
    process = _stage(
        "import json, resource, signal\n"
        "    from netinv.core import write_text\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))\n"
        "    with replaced(Path('out')) as folder:\n"
        "        for i in range(40): write_text(folder / f'{i}.txt', str(i) * 1000)\n"
        "        (folder / 'weights').write_bytes(bytes(30_000))"
    )
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors.startswith("error: ")
    assert len(errors.splitlines()) == 1
    assert "free some space" in errors
    assert "out" in errors.partition("free some space")[2] or ".stage/out/" in errors or most == 0  # the lock
    assert not Path("out").exists()
    assert [path.name for path in Path(".stage").glob("*") if path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("number", "words"),
    [("EROFS", "made writable"), ("EACCES", "read or written"), ("EBUSY", "mount point"), ("EIO", "The disk fails")],
)
def test_what_the_machine_refuses_is_one_sentence(number: str, words: str) -> None:
    process = _stage(f"import errno; raise OSError(errno.{number}, 'no', 'data/x')")
    _, errors = process.communicate()
    assert process.returncode == 2
    assert words in errors
    assert "data/x" in errors
    assert len(errors.splitlines()) == 1
