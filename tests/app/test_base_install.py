"""The command and the package where the extra ``[torch]`` is not installed."""

import json
import subprocess
import sys
from pathlib import Path

from click import Argument, Option
from made_up_results import results

from netinv.app.command import cli
from netinv.core.errors import EXTRA

RUN = f"""
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys({sorted(EXTRA)}))
import netinv
from netinv.app import command
found = []
for words in json.load(sys.stdin):
    sys.argv, out, told = ["netinv", *words], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told), contextlib.suppress(SystemExit):
        command.main()
    found.append((words[0], out.getvalue(), told.getvalue()))
for name in ("invert", "inverse"):
    try:
        getattr(netinv, name)
    except (ImportError, AttributeError) as error:
        found.append((type(error).__name__, "", str(error)))
print(json.dumps(found))
"""


def least(name: str) -> list[str]:
    """A subcommand with all that it must be given."""
    words = [name]
    for parameter in cli.commands[name].params:
        if isinstance(parameter, Argument):
            words.append("missing")
        elif isinstance(parameter, Option) and parameter.required:
            words += [parameter.opts[0], "missing"]
    return words


def test_what_needs_torch_says_how_to_install_it(root: Path, tmp_path: Path) -> None:
    light = {"sample", "summary", "playground"}
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/results.json").write_text(results(("cat", "dog"), 0.5).model_dump_json())
    calls = [least(name) for name in sorted({*cli.commands} - light)] + [["summary", str(tmp_path / "evaluation")]]
    run = [sys.executable, "-c", RUN]
    done = subprocess.run(run, input=json.dumps(calls), cwd=root, capture_output=True, text=True, check=True)
    *heavy, (_, table, nothing), (kind, _, told), (other, _, _) = json.loads(done.stdout)
    assert len(heavy) >= 9
    for name, out, error in heavy:
        assert not out, name
        assert error.startswith("error: This needs "), (name, error)
        assert "pip install '.[torch]'" in error
        assert error.count("\n") == 1
    assert "Inversion accuracy" in table
    assert not nothing
    assert kind == "ModuleNotFoundError"
    assert told.startswith("This needs torch, which is not installed: install the extra [torch]")
    assert other == "AttributeError"
