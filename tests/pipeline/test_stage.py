"""Outputs are whole or absent, whatever ends a stage."""

import errno
import os
import signal
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest
from stages import start_stage

from netinv.core import InputError, save_csv, write_text
from pipeline import stage
from pipeline.stage import replaced

pytestmark = pytest.mark.usefixtures("in_empty_folder")


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


SLOW = "with replaced(Path('out')) as folder: (folder / 'half').touch(); print('ready', flush=True); time.sleep(60)"


def test_kill_in_the_middle_leaves_no_output_and_the_next_run_goes_on() -> None:
    process = start_stage(SLOW)
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
    process = start_stage(SLOW)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(InputError, match=f"Process {process.pid} is still writing out"), replaced(Path("out")):
        pass
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 143
    assert errors == "error: Terminated; nothing half-written was left behind.\n"
    assert not Path(".stage/out").exists()


def test_text_and_csv_are_written_in_one_step() -> None:
    write_text(Path("a/b.txt"), "hello\n")
    save_csv(Path("a/c.csv"), [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
    assert Path("a/b.txt").read_text() == "hello\n"
    assert Path("a/c.csv").read_text() == "step,loss\n1,0.5\n2,0.25\n"
    assert sorted(path.name for path in Path("a").iterdir()) == ["b.txt", "c.csv"]


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
    _, errors = start_stage(f"with replaced(Path('{out}')): pass").communicate()
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
    _, errors = start_stage(body).communicate()
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
    process = start_stage(
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


OF_A_STAGE = """
stages:
  invert:
    matrix: {dataset: ["${datasets}"], variant: ["${variants}"]}
    deps: [data/x, netinv/core, pipeline/invert.py]
    params: [invert.common, "presets.${item.dataset}.invert.${item.variant}"]
"""


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("params.yaml", "a: 1", "a: 2", "invert.common in params.yaml changed"),
        ("params.yaml", "b: 1", "b: 2", "presets.my-set.invert.robust in params.yaml changed"),
        ("params.yaml", "b: 1", "b: ", "presets.my-set.invert.robust in params.yaml changed"),
        ("params.yaml", "c: 1", "c: 2", ""),
        ("params.yaml", "d: 1", "d: 2", ""),
        ("params.yaml", "a: 1", "a: 1  # kept", ""),
        ("params.yaml", "a: 1", "a: [", "params.yaml is not valid YAML"),
        ("netinv/core/x.py", "1", "2", "netinv/core/x.py changed"),
        ("netinv/data/x.py", "1", "2", ""),
        ("dvc.yaml", "netinv/core", "netinv/data", ""),
    ],
)
def test_outputs_are_not_recorded_with_what_was_changed_meanwhile(
    file: str, old: str, new: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC reads settings and code again when the stage has ended."""
    presets = "{my-set: {invert: {robust: {b: 1}, standard: {c: 1}}}, other: {invert: {robust: {d: 1}}}}"
    write_text(Path("dvc.yaml"), OF_A_STAGE)
    write_text(Path("params.yaml"), f"invert: {{common: {{\n  a: 1\n  }} }}\npresets: {presets}\n")
    for name in ("core", "data"):
        write_text(Path(f"netinv/{name}/x.py"), "1")

    def run() -> None:
        monkeypatch.setattr(stage, "_found", stage._settings_and_code())
        with replaced(Path("out")):
            Path(file).write_text(Path(file).read_text().replace(old, new))

    before = Path(file).read_text()
    monkeypatch.setenv("DVC_STAGE", "../dvc.yaml:invert@my-set-robust")  # as `dvc repro` names it from elsewhere
    with pytest.raises(InputError, match=told) if told else nullcontext():
        run()
    assert Path("out").is_dir() == (not told)
    Path(file).write_text(before)
    monkeypatch.delenv("DVC_STAGE")
    run()  # by hand
    assert Path("out").is_dir()
