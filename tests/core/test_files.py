"""Files and folders: whole or absent, tried before the work, and never in the place of something else."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from netinv.core import (
    InputError,
    check_file,
    check_folder,
    files,
    new_file,
    new_folder,
    save_csv,
    take_place,
    write_text,
)


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def listing(folder: str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_file_appears_whole_and_replaces_an_earlier_one() -> None:
    path = Path("a/b/file")
    with new_file(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    write_text(path, "newer")
    assert path.read_text() == "newer"
    for mode in (0o600, 0o644, 0o400):
        path.chmod(mode)
        write_text(path, f"{mode}")
        assert (path.read_text(), path.stat().st_mode & 0o777) == (f"{mode}", mode)
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_failure_keeps_the_earlier_file_and_leaves_nothing() -> None:
    write_text(Path("file"), "old")

    def fail() -> None:
        with new_file(Path("file")) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert Path("file").read_text() == "old"
    assert listing() == ["file"]


def test_a_folder_appears_whole_or_not_at_all() -> None:
    def fail() -> None:
        with new_folder(Path("a/folder")) as partial:
            (partial / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not listing("a")
    with new_folder(Path("a/folder")) as partial:
        (partial / "whole").touch()
        assert not Path("a/folder").exists()
    assert listing("a/folder") == ["whole"]
    assert listing("a") == ["folder"]


def test_a_folder_of_the_same_kind_is_replaced_where_that_is_wanted() -> None:
    Path("empty").mkdir()
    for _ in range(2):
        with new_folder(Path("empty"), replaces=("mark", "note-*")) as partial:
            (partial / "mark").touch()
    Path("link").symlink_to("empty")
    with new_folder(Path("link"), replaces=("mark", "note-*")) as partial:
        (partial / "mark").write_text("newer")
    assert Path("link").is_symlink()
    assert Path("empty/mark").read_text() == "newer"
    assert listing() == ["empty", "link"]
    (Path("empty") / "mark").rename("empty/thesis.tex")
    with pytest.raises(InputError, match="empty holds other files: name a new folder"):
        check_folder(Path("empty"), replaces=("mark", "note-*"))


def test_a_folder_of_the_same_kind_is_not_replaced_with_what_else_it_holds() -> None:
    Path("place").mkdir()
    for name in ("mark", "note-1", "thesis.tex", "g.onnx"):
        (Path("place") / name).touch()
    with (
        pytest.raises(InputError, match=r"place holds other files too \(g.onnx, thesis.tex\): move them away"),
        new_folder(Path("place"), replaces=("mark", "note-*")),
    ):
        pytest.fail("the work was begun")
    assert listing("place") == ["g.onnx", "mark", "note-1", "thesis.tex"]
    for name in ("thesis.tex", "g.onnx"):
        (Path("place") / name).unlink()
    check_folder(Path("place"), replaces=("mark", "note-*"))


@pytest.mark.parametrize(
    ("replaces", "name", "told"),
    [
        ((), "thesis.tex", "place is there already: name a new folder"),
        (("mark",), "thesis.tex", "place holds other files: name a new folder"),
        ((), "mark", "place is there already: name a new folder"),
    ],
)
def test_a_folder_that_comes_during_the_work_stays(replaces: tuple[str, ...], name: str, told: str) -> None:
    def work() -> None:
        with new_folder(Path("place"), replaces) as partial:
            (partial / "mark").touch()
            Path("place").mkdir()
            (Path("place") / name).write_text("years")

    with pytest.raises(InputError, match=told):
        work()
    assert (listing(), listing("place")) == (["place"], [name])
    assert (Path("place") / name).read_text() == "years"


def test_nor_is_one_replaced_that_comes_in_the_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        (target / "thesis.tex").mkdir(parents=True)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(InputError, match="place cannot be written"), new_folder(Path("place")) as partial:
        (partial / "mark").touch()
    assert (listing(), listing("place")) == (["place"], ["thesis.tex"])


def test_a_mount_point_is_written_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    (Path("volume") / "lost+found").mkdir(parents=True)
    (Path("volume") / f".volume.{'0' * 8}.1").mkdir()  # of a process in another container, alive or dead
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "volume")
    for content in ("old", "new"):
        with new_folder(Path("volume"), replaces=("mark", "note-*")) as partial:
            assert partial.parent == Path("volume").absolute()
            (partial / "mark").write_text(content)
            (partial / f"note-{content}").mkdir()
    assert listing("volume") == [f".volume.{'0' * 8}.1", "lost+found", "mark", "note-new"]
    assert Path("volume/mark").read_text() == "new"
    assert listing() == ["volume"]


def test_a_folder_that_the_system_does_not_let_go_is_written_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is mounted from the same file system."""
    rename = Path.rename

    def busy(path: Path, target: Path) -> Path:
        if path.name == "volume":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", busy)
    (Path("volume") / "mark").mkdir(parents=True)
    with new_folder(Path("volume"), replaces=("mark",)) as partial:
        (partial / "mark").write_text("new")
    assert (listing("volume"), listing()) == (["mark"], ["volume"])
    assert Path("volume/mark").read_text() == "new"


def test_a_mounted_file_is_written_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(path: Path, target: Path) -> Path:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "replace", busy)
    Path("file").write_text("old")
    write_text(Path("file"), "new")
    assert (Path("file").read_text(), listing()) == ("new", ["file"])


def test_who_is_stopped_while_writing_in_place_leaves_no_old_file_beside_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("volume").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "volume")
    move = shutil.move

    def full(source: Path, target: Path) -> None:
        if target.name == "weights":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        move(source, target)

    for content in ("old", "new"):
        if content == "new":
            monkeypatch.setattr(shutil, "move", full)
        with suppress(InputError), new_folder(Path("volume"), replaces=("mark", "weights")) as partial:
            (partial / "mark").write_text(content)
            (partial / "weights").write_text(content)
    assert listing("volume") == ["mark"]
    assert Path("volume/mark").read_text() == "new"


def test_a_name_too_long_for_what_is_beside_it_is_told_before_the_work() -> None:
    with pytest.raises(InputError, match="File name too long"):
        check_folder(Path("x" * 236))
    check_file(Path("x" * 230))


def left(name: str, process: int) -> Path:
    """What a process of this machine calls its unfinished ``name``."""
    return (own := files._partial(Path(name))).with_name(own.name.removesuffix(str(os.getpid())) + str(process))


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_goes_with_the_next_one(dead: int) -> None:
    (left("place", dead) / "half").mkdir(parents=True)
    left("file", dead).touch()
    kept = [left("place", os.getppid()), left("other", dead), Path(f".place.{'0' * 8}.{dead}"), Path(".place.new")]
    for path in kept:
        path.mkdir()
    with new_folder(Path("place")) as partial:
        (partial / "mark").touch()
    write_text(Path("file"), "new")
    assert listing() == sorted(["file", "place", *(path.name for path in kept)])
    assert listing("place") == ["mark"]


def test_what_a_killed_process_had_moved_away_comes_back_before_the_work(dead: int) -> None:
    earlier = left("place", dead).with_name(left("place", dead).name + ".earlier")
    earlier.mkdir()
    (earlier / "mark").write_text("old")
    left("place", dead).mkdir()
    with pytest.raises(InputError, match="place is there already"):
        check_folder(Path("place"))
    assert Path("place/mark").read_text() == "old"
    assert listing() == ["place"]
    earlier.mkdir()  # it was killed a moment later
    check_folder(Path("place"), replaces=("mark",))
    assert Path("place/mark").read_text() == "old"
    assert listing() == ["place"]


def test_a_folder_that_cannot_take_its_place_leaves_the_earlier_one_there() -> None:
    Path("place").mkdir()
    (Path("place") / "earlier").touch()
    with pytest.raises(OSError, match="partial"):
        take_place(Path("partial"), Path("place"))
    assert listing() == ["place"]
    assert listing("place") == ["earlier"]
    Path("partial").mkdir()
    take_place(Path("partial"), Path("place"))
    assert listing() == ["place"]
    assert listing("place") == []


@pytest.mark.parametrize(
    "check", [check_file, check_folder, lambda path: check_folder(path, replaces=("mark", "note-*"))]
)
@pytest.mark.parametrize("name", ["file/below", "file/below/deep", "/proc/new", "n" * 253, "n" * 300 + "/x"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(check: Callable[[Path], None], name: str) -> None:
    Path("file").touch()
    with pytest.raises(InputError, match=r"cannot be written \(.*\): name a place that can"):
        check(Path(name))
    assert listing() == ["file"]


def test_a_circle_of_links_is_replaced_or_told_of() -> None:
    Path("circle").symlink_to("circle")
    with new_file(Path("circle")) as partial:
        partial.write_text("whole")
    assert Path("circle").read_text() == "whole"
    Path("round").symlink_to("round")
    with pytest.raises(InputError, match="round cannot be written"), new_folder(Path("round")) as folder:
        (folder / "mark").touch()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told_before_the_work() -> None:
    Path("locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot be written"):
        check_file(Path("locked/file"))


def test_what_is_there_is_not_overwritten() -> None:
    Path("file").touch()
    Path("folder").mkdir()
    with pytest.raises(InputError, match="folder is a folder already: name a file"):
        check_file(Path("folder"))
    with pytest.raises(InputError, match="/dev/null is no file already: name a file"):
        check_file(Path("/dev/null"))
    with pytest.raises(InputError, match=r"file has no name that ends in \.png or \.npz: name such a file"):
        check_file(Path("file"), ".png", ".npz")
    for name in ("file", "folder"):
        with pytest.raises(InputError, match=f"{name} is there already: name a new folder"):
            check_folder(Path(name))
    with pytest.raises(InputError, match="file is there already: name a new folder"):
        check_folder(Path("file"), replaces=("mark", "note-*"))


def test_a_check_writes_nothing() -> None:
    check_file(Path("a/b/file"))
    check_folder(Path("a/b/folder"))
    assert not listing()


def test_a_table_is_read_as_it_was_written() -> None:
    save_csv(Path("table.csv"), [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
    assert Path("table.csv").read_text() == "step,loss\n1,0.5\n2,0.25\n"
