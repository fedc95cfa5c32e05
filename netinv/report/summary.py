"""The headline as a table for a terminal: a line for each number, a column for each variant and each control."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from netinv.report.checks import check_results
from netinv.report.inputs import TITLES, Evaluated, alike, read_settings, title_of
from netinv.report.tables import headline_columns
from netinv.report.words import measure_text
from netinv.results import HEADLINE, Estimate, Measure, load_results

PLAIN, WITH_INTERVALS = 10, 26
"""Least width of a column, and that with intervals, which are shown where there is room for them."""
NAMES = 30
"""Width of the measures' names."""


def summary(folders: Sequence[Path], width: int) -> str:
    """The headline numbers of evaluations, a table for each model of a parent folder, in lines of up to ``width``.

    Raises:
        InputError: A folder holds no results, or those of another version.
    """
    parents: dict[Path, list[Evaluated]] = {}
    for folder in folders:
        results, about = load_results(folder / "results.json"), folder / "settings.json"
        settings = read_settings(about) if about.exists() else {}  # the pipeline's stand in params.yaml
        place = folder.resolve()
        name = f"{place.parent.name}/{place.name}" if place.name in TITLES else place.name
        found = Evaluated(name, results, folder, curves=[], settings=settings, export={})
        check_results([found])
        parents.setdefault(place.parent, []).append(found)
    blocks = [
        "\n".join(_table(title_of(parent.name), group, width))
        for parent, found in parents.items()
        for group in alike(found)
    ]
    return "\n\n".join(blocks) + "\n"


def _table(title: str, found: Sequence[Evaluated], width: int) -> Iterator[str]:
    columns = headline_columns(found, short=True)
    column = WITH_INTERVALS if NAMES + WITH_INTERVALS * len(columns) <= width else PLAIN
    leaks = {e.variant: {None: "unknown", True: "yes", False: "none"}[e.results.leak] for e in found}
    names = [*columns]
    lines = -(-len(names) // max(1, (width - NAMES) // column))
    room = -(-len(names) // lines)  # as many columns in each, so that their names have room
    for start in range(0, len(names), room):
        shown = names[start : start + room]
        widths = _widths(shown, column, width - NAMES - column * min(room, len(names)))
        heads = zip(shown, widths, strict=True)
        yield _line(title, [name if len(name) < most else f"…{name[2 - most :]}" for name, most in heads], widths)
        for measure in HEADLINE:
            cells = [_cell(measure, columns[name][measure], column) for name in shown]
            yield _line(measure_text(measure).title, cells, widths)
        if any(name in leaks for name in shown):
            yield _line("Leak of training images", [leaks.get(name, "") for name in shown], widths)


def _widths(names: Sequence[str], column: int, spare: int) -> list[int]:
    """Widths of columns, each of which grows to its name while there is room to spare."""
    widths = []
    for name in names:
        more = max(0, min(len(name) + 1 - column, spare))
        spare -= more
        widths.append(column + more)
    return widths


def _line(name: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    columns = zip(cells, widths, strict=True)
    return (name[: NAMES - 1].ljust(NAMES) + "".join(cell.rjust(column) for cell, column in columns)).rstrip()


def _cell(name: str, measure: Measure, column: int) -> str:
    """A value, with its interval where there is room; a dash where there is none."""
    if not isinstance(measure, Estimate):
        return "-"
    text = measure_text(name)
    value, low, high = (text.show(number) for number in (measure.value, measure.low, measure.high))
    return value if column == PLAIN else f"{value} ({low.removesuffix('%')} to {high})"
