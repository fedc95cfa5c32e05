"""Files and folders: whole or absent, tried before the work, and never in the place of something else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from netinv.core import InputError, check_file, check_folder, new_file, new_folder, save_csv, take_place, write_text


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
        with new_folder(Path("empty"), replaces="mark") as partial:
            (partial / "mark").touch()
    Path("link").symlink_to("empty")
    with new_folder(Path("link"), replaces="mark") as partial:
        (partial / "mark").write_text("newer")
    assert Path("link").is_symlink()
    assert Path("empty/mark").read_text() == "newer"
    assert listing() == ["empty", "link"]
    (Path("empty") / "mark").rename("empty/thesis.tex")
    with pytest.raises(InputError, match="empty holds other files: name a new folder"):
        check_folder(Path("empty"), replaces="mark")


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


@pytest.mark.parametrize("check", [check_file, check_folder, lambda path: check_folder(path, replaces="mark")])
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
    for name in ("file", "folder"):
        with pytest.raises(InputError, match=f"{name} is there already: name a new folder"):
            check_folder(Path(name))
    with pytest.raises(InputError, match="file is there already: name a new folder"):
        check_folder(Path("file"), replaces="mark")


def test_a_check_writes_nothing() -> None:
    check_file(Path("a/b/file"))
    check_folder(Path("a/b/folder"))
    assert not listing()


def test_a_table_is_read_as_it_was_written() -> None:
    save_csv(Path("table.csv"), [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
    assert Path("table.csv").read_text() == "step,loss\n1,0.5\n2,0.25\n"
