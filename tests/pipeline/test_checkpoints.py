"""Checkpoints of a stage: the same on a folder, in memory and on S3."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from netinv.core import InputError
from pipeline import checkpoints as module
from pipeline.checkpoints import Checkpoints, fingerprint

HISTORY = [{"step": 25.0, "loss": 1.5}, {"step": 50.0, "loss": 0.1 + 0.2}]


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://checkpoints" if request.param == "memory" else str(tmp_path / "deep" / "er")


def test_a_killed_stage_finds_what_it_left(storage: str) -> None:
    first = Checkpoints(storage, "invert-digits", "a")
    assert first.load(0) == ([], None)
    first.save_history(0, HISTORY[:1])
    first.save_history(0, HISTORY)
    first.save_state(0, b"old")
    first.save_state(0, b"new")
    again = Checkpoints(storage, "invert-digits", "a")
    assert again.load(0) == (HISTORY, b"new")
    assert again.load(1) == ([], None)
    assert again.run == first.run


def test_other_settings_find_nothing_and_a_finished_stage_leaves_nothing(storage: str) -> None:
    first, other = Checkpoints(storage, "invert-digits", "a"), Checkpoints(storage, "invert-digits", "b")
    first.save_state(0, b"state")
    assert other.load(0) == ([], None)
    assert other.run != first.run
    first.remove()
    assert Checkpoints(storage, "invert-digits", "a").load(0) == ([], None)
    assert Checkpoints(storage, "invert-digits", "a").run != first.run


def test_what_a_stage_left_at_other_settings_goes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for stage in ("invert-digits-robust", "invert-digits-standard"):
        Checkpoints("storage", stage, "old").save_state(0, b"state")
    Checkpoints("storage", "invert-digits-robust", "new").save_state(0, b"state")
    Checkpoints("storage", "invert-digits-robust", "new")
    kept = {path.relative_to("storage").as_posix() for path in Path("storage").rglob("*.pt")}
    assert kept == {"invert-digits-robust/new/0.pt", "invert-digits-standard/old/0.pt"}


def test_a_second_process_of_a_stage_of_the_workspace_is_refused_until_the_first_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its settings and outputs are, since it would remove the states of the one at work, or write to them."""
    monkeypatch.chdir(tmp_path)
    first = Checkpoints(".stage/checkpoints", "invert-digits-robust", "a")
    first.save_state(0, b"state")
    for key in "ab":
        with pytest.raises(InputError, match=f"Process {os.getpid()} is still at work on invert-digits-robust"):
            Checkpoints(".stage/checkpoints", "invert-digits-robust", key)
    Checkpoints(".stage/checkpoints", "invert-digits-standard", "b")
    assert first.load(0) == ([], b"state")
    first.remove()
    second = Checkpoints(".stage/checkpoints", "invert-digits-robust", "b")
    del second
    Checkpoints(".stage/checkpoints", "invert-digits-robust", "a")


def test_on_storage_that_others_may_use_only_what_nobody_writes_to_goes(tmp_path: Path) -> None:
    for key in ("at work", "abandoned"):
        Checkpoints(str(tmp_path), "stage", key).save_state(0, b"state")
    for path in (tmp_path / "stage" / "abandoned").iterdir():
        os.utime(path, (time.time() - 25 * 3600,) * 2)
    Checkpoints(str(tmp_path), "stage", "new")
    assert {path.name for path in (tmp_path / "stage").iterdir()} == {"at work", "new"}


def test_an_absolute_path_is_one_for_all_copies_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, copy = str(tmp_path / "kept"), tmp_path / ".dvc/tmp/exps/standalone/x"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    queued = Checkpoints(storage, "stage", "b")
    queued.save_state(0, b"live")
    monkeypatch.chdir(tmp_path)
    Checkpoints(storage, "stage", "a")
    assert queued.load(0) == ([], b"live")


@pytest.mark.parametrize("storage", ["~/kept", "../kept"])
def test_storage_beside_the_workspace_is_others_too(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "workspace").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "workspace")
    first = Checkpoints(storage, "stage", "a")
    first.save_state(0, b"state")
    Checkpoints(storage, "stage", "b")
    assert first.load(0) == ([], b"state")
    first.remove()
    first.remove()  # nor does it matter who did
    assert not (tmp_path / "kept/stage/a").exists()


def test_a_stage_whose_checkpoints_were_taken_away_goes_on(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), "stage", "a")
    shutil.rmtree(tmp_path / "stage")
    checkpoints.save_state(0, b"state")
    assert checkpoints.load(0) == ([], b"state")


ANOTHER = """
import sys
from pipeline import checkpoints
checkpoints._BEAT = 0.05
mine = checkpoints.Checkpoints(sys.argv[1], "stage", "a")
mine.save_state(0, b"its")
print(mine.run, flush=True)
while mine.load(0)[1] == b"its":
    mine.save_history(0, [{"step": 1.0}])
"""


def test_two_stages_at_the_same_settings_at_once_keep_their_own_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the one leaves that is killed goes to the next."""
    monkeypatch.setattr(module, "_BEAT", 0.05)
    command = [sys.executable, "-c", ANOTHER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        run = other.stdout.readline().strip()
        mine = Checkpoints(str(tmp_path), "stage", "a")
        assert mine.run != run
        assert mine.load(0) == ([], None)
        for step in range(30):
            mine.save_history(0, [{"step": float(step)}])
            Checkpoints(str(tmp_path), "stage", "b").remove()
        mine.remove()
        assert other.poll() is None
        other.kill()
        assert other.communicate()[1] == ""
    after = Checkpoints(str(tmp_path), "stage", "a")
    assert after.run == run
    assert after.load(0)[1] == b"its"


def test_a_stage_of_another_machine_is_at_work_while_its_sign_of_life_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BEAT", 0.02)
    folder, ended = tmp_path / "stage" / "a", threading.Event()
    folder.mkdir(parents=True)
    (folder / "0.pt").write_bytes(b"its")
    sign = folder / f"owner.else.where.{os.getpid()}.{'0' * 32}"
    sign.touch()

    def beat() -> None:
        while not ended.wait(0.02):
            sign.write_text(str(time.monotonic()))

    thread = threading.Thread(target=beat)
    thread.start()
    beside = Checkpoints(str(tmp_path), "stage", "a")
    ended.set()
    thread.join()
    assert beside.load(0) == ([], None)
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    assert Checkpoints(str(tmp_path), "stage", "a").load(0) == ([], b"its")
    assert not sign.exists()


def test_no_failure_of_the_clearing_up_refuses_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of another stage at work come and go while it is looked at."""
    from fsspec.implementations.local import LocalFileSystem

    other = Checkpoints(str(tmp_path), "stage", "b")
    other.save_state(0, b"state")

    def gone(*_: object) -> None:
        raise FileNotFoundError(".0.json")

    monkeypatch.setattr(LocalFileSystem, "modified", gone)
    Checkpoints(str(tmp_path), "stage", "a")
    assert other.load(0) == ([], b"state")


def test_no_unfinished_file_is_taken_for_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), "stage", "a")
    (tmp_path / "stage" / "a" / ".0.pt").write_bytes(b"half")
    assert checkpoints.load(0) == ([], None)
    checkpoints.save_state(0, b"whole")
    again = Checkpoints(str(tmp_path), "stage", "a")
    assert again.load(0) == ([], b"whole")
    kept = {path.name for path in (tmp_path / "stage" / "a").iterdir()}
    assert {name for name in kept if not name.startswith("owner.")} == {"run", "0.pt"}


@pytest.mark.parametrize("storage", ["nonsense://bucket", "/proc/nowhere"])
def test_storage_that_cannot_be_used_is_refused_with_one_sentence(storage: str) -> None:
    with pytest.raises(InputError, match=f"Checkpoints cannot be kept in ray.storage={storage}"):
        Checkpoints(storage, "invert-digits", "a")


def test_a_server_that_fails_meanwhile_ends_no_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("Could not connect")

    checkpoints = Checkpoints("memory://failing", "stage", "a")
    checkpoints.save_history(0, HISTORY[:1])
    checkpoints.save_state(0, b"old")
    with monkeypatch.context() as failing:
        failing.setattr(MemoryFileSystem, "pipe_file", fail)
        for _ in range(2):
            checkpoints.save_history(0, HISTORY)
    checkpoints.save_state(0, b"new")  # not without the records that lead to it
    assert checkpoints.load(0) == (HISTORY[:1], b"old")
    checkpoints.save_history(0, HISTORY)
    checkpoints.save_state(0, b"new")
    assert checkpoints.load(0) == (HISTORY, b"new")
    monkeypatch.setattr(MemoryFileSystem, "rm", fail)
    checkpoints.remove()
    told = capsys.readouterr().err
    assert told.count("cannot be written (Could not connect): the stage goes on") == 1
    assert told.count("cannot be removed from /failing/stage/a (Could not connect)") == 1
    monkeypatch.setattr(MemoryFileSystem, "info", fail)
    with pytest.raises(InputError, match=r"cannot be read from ray\.storage=memory://failing"):
        checkpoints.load(0)


def test_a_disk_that_fails_meanwhile_ends_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outputs would not fit, either."""
    checkpoints = Checkpoints(str(tmp_path), "stage", "a")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.pipe_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save_state(0, b"state")


def test_a_fingerprint_tells_contents_and_their_limits_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"ab")
    assert fingerprint([b"ab", b"c"]) == fingerprint([tmp_path / "file", b"c"])
    assert len({fingerprint(parts) for parts in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"c", b"ab"])}) == 4


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"\xff", b"{}", b"[1]", b'[{"step": "x"}]', b'[{"loss": 1}]', b"[" * 100000],
)
def test_a_broken_history_is_discarded_and_named(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(str(tmp_path), "stage", "a")
    checkpoints.save_state(0, b"state")
    (tmp_path / "stage/a/0.json").write_bytes(content)
    (tmp_path / "stage/a/run").write_bytes(b"\xff")
    assert Checkpoints(str(tmp_path), "stage", "a").load(0) == ([], None)
    assert "stage/a/0.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["0.json", "0.pt", "run"])
@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device", "a circle of links", "holes"])
def test_what_is_no_file_is_discarded_and_written_anew(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(str(tmp_path), "stage", "a")
    checkpoints.save_history(0, [{"step": 1.0}])
    checkpoints.save_state(0, b"state")
    path = tmp_path / "stage/a" / name
    path.unlink()
    {
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
        "a device": lambda: path.symlink_to("/dev/zero"),
        "a circle of links": lambda: path.symlink_to(name),
        "holes": lambda: (path.touch(), os.truncate(path, 10**12)),
    }[kind]()
    again = Checkpoints(str(tmp_path), "stage", "a")
    assert again.load(0) == (([{"step": 1.0}], b"state") if name == "run" else ([], None))
    assert (f"stage/a/{name} is damaged" in capsys.readouterr().err) == (name != "run")
    again.save_history(0, [{"step": 2.0}])
    again.save_state(0, b"more")
    assert Checkpoints(str(tmp_path), "stage", "a").load(0) == ([{"step": 2.0}], b"more")


def test_a_damaged_state_is_told_from_a_whole_one() -> None:
    from netinv.classifiers import ConvClassifierConfig, build_classifier
    from netinv.generators import GeneratorConfig
    from netinv.inversion import InversionConfig
    from pipeline.generators import Job, _saved, damage, load_state, train_generator

    classifier = build_classifier(ConvClassifierConfig(channels=(4,), feature_dim=8), 3, (1, 8, 8), (0.5,), (0.5,))
    job = Job(
        0, GeneratorConfig(latent_dim=4, hidden_dim=12, width=4, max_width=4), InversionConfig(steps=2, batch_size=8)
    )
    state = [event.state for event in train_generator(classifier, 1, job, None)][-1]
    assert state is not None
    assert damage(classifier, job, state) is None
    whole = load_state(state)
    weights = {**whole["generator"], next(iter(whole["generator"])): torch.zeros(1)}
    for other in (
        {**whole, "generator": {}},
        {**whole, "generator": weights},
        {"generator": whole["generator"]},
        [whole],
    ):
        assert damage(classifier, job, _saved(other))
    assert damage(classifier, job, _saved({**whole, "step": 99})) == "its step is 99"
    for content in (b"", b"garbage", state[:100], state[: len(state) // 2]):
        assert damage(classifier, job, content)
