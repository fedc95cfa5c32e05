"""``python -m pipeline.compare``: experiments beside each other, by what was set and their headline numbers.

``dvc exp show`` has a column for each number, under its file's name: hundreds of characters.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from netinv.core import InputError, listed
from netinv.results import HEADLINE
from pipeline.stage import stage_command

NAME, COLUMN = 30, 12
"""Widths."""
LISTS = ("datasets", "variants")
"""Settings whose keys have no dot."""
ABSENT = (None, "None", "", "!")
"""What DVC says of a setting or number that is not there; the last where a commit never had it."""


@click.command()
@click.argument("experiments", nargs=-1)
@stage_command
def main(experiments: tuple[str, ...]) -> None:
    """Compare EXPERIMENTS with the commit that they began from, and the workspace.

    If none is named, all that began from this commit.
    """
    import dvc.api
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        rows = dvc.api.exp_show()
        with Repo() as repo:
            saved = repo.experiments.ls(all_commits=True)
        here = {row["Experiment"] for row in rows}
        began = {name: commit for commit, each in saved.items() for name, _ in each if name not in here}
        if commits := sorted({began[name] for name in experiments if name in began}):
            rows = dvc.api.exp_show(revs=["HEAD", *commits])
    except DvcException as error:
        raise InputError(f"DVC knows of no experiments here ({error}): run the command in the repository.") from None
    print(compared(rows, experiments, shutil.get_terminal_size().columns, sorted(began)), end="")


def compared(
    rows: Sequence[Mapping[str, Any]], wanted: Sequence[str], width: int, elsewhere: Sequence[str] = ()
) -> str:
    """A table of settings that differ, and one for each data set and variant, in lines of up to ``width`` characters.

    Args:
        rows: What DVC knows of the workspace, of the commit and of each experiment.
        wanted: Names of experiments; none means all.
        width: Of the terminal.
        elsewhere: Names of experiments that began from other commits.

    Raises:
        InputError: There is no such experiment.
    """
    columns: dict[str, Mapping[str, Any]] = {}
    unmeasured = {}
    for row in rows:
        name, state = str(row["Experiment"] or row["rev"]), str(row.get("State") or "Success")
        if state == "Success":
            columns.setdefault(name, row)
        else:
            unmeasured[name] = f"{name} ({state.lower()})"
    known = list(dict.fromkeys([*columns, *unmeasured, *elsewhere]))
    if unknown := [name for name in wanted if name not in known]:
        raise InputError(f"There is no experiment {listed(unknown)}: those that there are: {listed(known)}.")
    if wanted:
        columns = {name: row for name, row in columns.items() if not row["Experiment"] or name in wanted}
    blocks = [*_blocks(columns)]
    room = max(1, (width - NAME) // COLUMN)
    names = [*columns]
    lines = []
    for start in range(0, len(names), room):
        for title, keys in blocks:
            lines.append(_line(title, [_cut(name, COLUMN - 1) for name in names[start : start + room]]))
            for key in keys:
                cells = [_cell(columns[name].get(key)) for name in names[start : start + room]]
                lines.append(_line(_cut(key.rpartition(":")[2], NAME - 1), cells))
            lines.append("")
    if left := [told for name, told in unmeasured.items() if name not in columns and name in (wanted or unmeasured)]:
        lines += [f"Not measured: {listed(left)}.", ""]
    if elsewhere and not wanted:
        lines += [f"Begun from other commits, and shown where they are named: {listed(elsewhere)}.", ""]
    return "\n".join(lines[:-1]) + "\n"


def _blocks(columns: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Titles, and the keys of DVC's that stand below each."""
    keys = list(dict.fromkeys(key for row in columns.values() for key in row))
    settings = [key for key in keys if key in LISTS or ("." in key and "/" not in key and ":" not in key)]
    if differing := [key for key in settings if len({str(row.get(key)) for row in columns.values()}) > 1]:
        yield "", differing
    # DVC puts a file's name before a number's where there are two of them.
    measures = [key for key in keys if key.rpartition(":")[2] in {*HEADLINE, "leak"}]
    for file in dict.fromkeys(key.rpartition(":")[0] for key in measures):
        yield file.rpartition("/")[2].removesuffix(".json"), [k for k in measures if k.rpartition(":")[0] == file]


def _line(name: str, cells: Sequence[str]) -> str:
    return (name.ljust(NAME) + "".join(cell.rjust(COLUMN) for cell in cells)).rstrip()


def _cut(text: str, width: int) -> str:
    """A text without its middle: names differ at their beginning or, as keys do, at their end."""
    return text if len(text) <= width else f"{text[: width // 3]}…{text[1 - width + width // 3 :]}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value in ABSENT else _cut(str(value).strip("[]").replace("'", ""), COLUMN - 1)


if __name__ == "__main__":
    main()
