"""The command ``netinv`` in this process, and what many of its tests give it."""

import sys
from pathlib import Path
from typing import Any

import pytest

from netinv.app import command

FACTORY = ("foreign_networks:ConvNet", "--image-shape", "3,8,8", "--device", "cpu")
TINY = ("--set", "batch_size=8", "--set", "generator.width=8", "--set", "generator.max_width=8")


class Shell:
    """Runs the command in this process; knows what it printed and how it ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words: Any) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["netinv", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            command.main()
        printed = self.capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err


def colours(weights: Path) -> tuple[str, ...]:
    return (*FACTORY, "--weights", str(weights), "--argument", "num_classes=2")
