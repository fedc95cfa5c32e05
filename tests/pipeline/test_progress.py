"""Progress in a log, where no bar is drawn."""

import pytest

from pipeline import progress
from pipeline.progress import Progress


def test_a_log_has_a_line_now_and_then_and_at_once_where_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Progress("tune digits robust", 4, "trial")
    shown.advance(1, "one finished", at_once=True)
    shown.advance(1, "too soon for another")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    shown.advance(1, "now")
    shown.write("a word")
    shown.close()
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "tune digits robust: 1 of 4 trials, one finished"
    assert second.startswith("tune digits robust: 3 of 4 trials, now; ")
    assert second.endswith(" s left")
    assert third == "tune digits robust: a word"
