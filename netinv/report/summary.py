"""The headline as a table for a terminal: a line for each number, a column for each variant and each control."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from netinv.report.inputs import Evaluated, title_of
from netinv.report.tables import headline_columns
from netinv.report.words import measure_text
from netinv.results import HEADLINE, Estimate, Measure, Results, load_results

PLAIN, WITH_INTERVALS = 10, 26
"""Width of a column; intervals are shown where there is room for them."""
NAMES = 30
"""Width of the measures' names."""


def summary(folders: Sequence[Path], width: int) -> str:
    """The headline numbers of evaluations, a table for each model of a parent folder, in lines of up to ``width``.

    Raises:
        InputError: A folder holds no results.
    """
    groups: dict[tuple[Path, str], list[Evaluated]] = {}
    for folder in folders:
        results = load_results(folder / "results.json")
        found = Evaluated(folder.resolve().name, results, folder, curves=[], settings={}, export={})
        groups.setdefault((folder.resolve().parent, _judged_by(results)), []).append(found)
    blocks = ["\n".join(_table(title_of(parent.name), found, width)) for (parent, _), found in groups.items()]
    return "\n\n".join(blocks) + "\n"


def _judged_by(results: Results) -> str:
    """What tells one classifier, evaluator and test split from others: how they read the same real images."""
    real = next(row for row in results.rows if row.name == "real_test")
    read = [real.measures[f"{judge}_accuracy"] for judge in ("inversion", "evaluator")]
    # Without intervals, which hang on a seed.
    return repr((results.classes, [(m.value, m.n) if isinstance(m, Estimate) else None for m in read]))


def _table(title: str, found: Sequence[Evaluated], width: int) -> Iterator[str]:
    columns = headline_columns(found, short=True)
    column = WITH_INTERVALS if NAMES + WITH_INTERVALS * len(columns) <= width else PLAIN
    room = max(1, (width - NAMES) // column)
    leaks = {e.variant: {None: "unknown", True: "yes", False: "none"}[e.results.leak] for e in found}
    names = [*columns]
    for start in range(0, len(names), room):
        shown = names[start : start + room]
        yield _line(title, [name if len(name) < column else f"…{name[2 - column :]}" for name in shown], column)
        for measure in HEADLINE:
            cells = [_cell(measure, columns[name][measure], column) for name in shown]
            yield _line(measure_text(measure).title, cells, column)
        yield _line("Leak of training images", [leaks.get(name, "") for name in shown], column)


def _line(name: str, cells: Sequence[str], column: int) -> str:
    return (name[: NAMES - 1].ljust(NAMES) + "".join(cell.rjust(column) for cell in cells)).rstrip()


def _cell(name: str, measure: Measure, column: int) -> str:
    """A value, with its interval where there is room; a dash where there is none."""
    if not isinstance(measure, Estimate):
        return "-"
    text = measure_text(name)
    value, low, high = (text.show(number) for number in (measure.value, measure.low, measure.high))
    return value if column == PLAIN else f"{value} ({low.removesuffix('%')} to {high})"
