"""The command ``netinv``. Each subcommand imports what it needs when it runs, so that a light install has them all."""

import json
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from netinv.app import auditing, commands, conversion, interpreting
from netinv.app.options import as_json
from netinv.app.parsing import PATH, parse_field, parse_mixture, parse_sharpness
from netinv.core import FULL, InputError, __version__, guarded_output, not_installed, redacted, trade_memory_for_speed

if TYPE_CHECKING:
    from netinv.sampling import OnnxClassifier, OnnxGenerator


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Network inversion: draw images that a classifier reads as the class you ask for."""


for command in (
    *(commands.check, commands.invert, commands.evaluate, commands.report, commands.export),
    *(auditing.audit, conversion.fetch, conversion.export_classifier, interpreting.interpret_command),
):
    cli.add_command(command)


class _Ended(SystemExit):
    """A signal asks the command to end; it leaves through the same clean-up as an interrupt."""


def main() -> None:
    """Run the command; what its user can mend is one sentence on stderr and exit status 2.

    SIGTERM and SIGHUP end it in order, with the statuses 143 and 129.

    An unexpected error ends with 2 as well, behind its traceback: Python's own status for it, 1, is a verdict of the
    check and of the audit.
    """
    trade_memory_for_speed()
    with _ending_in_order(), guarded_output():
        status = _status(sys.argv[1:] or ["--help"])
    sys.exit(status)


def _status(words: list[str]) -> int:
    """Run the command; returns its exit status."""
    try:
        try:
            status = cli.main(words, prog_name="netinv", standalone_mode=False)
        except _Ended as end:
            with suppress(OSError):  # the terminal has gone
                print("error: Terminated; nothing half-written was left behind.", file=sys.stderr)
            return int(end.code or 0)
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
        return int(status or 0)
    except (InputError, FloatingPointError) as error:
        message = str(error)
    except click.ClickException as error:
        message = error.format_message()
    except (click.Abort, KeyboardInterrupt):
        print("error: Interrupted; nothing half-written was left behind.", file=sys.stderr)
        return 130
    except Exception as error:
        if (refused := _refused(error)) is None:
            print(redacted(traceback.format_exc()), file=sys.stderr, end="")
            return 2
        message = refused
    print(f"error: {redacted(str(message))}", file=sys.stderr)
    return 2


def _refused(error: Exception) -> str | None:
    """What the machine refuses or lacks, in one sentence; ``None`` where the error is another one."""
    if isinstance(error, ModuleNotFoundError):
        return not_installed(error)
    if not isinstance(error, OSError):
        return None
    if error.errno in FULL:
        return f"The disk is full ({error}): free some space, or set TMPDIR to a folder with room."
    if error.filename is None:
        return None
    return (
        f"{error.filename} cannot be reached ({error.strerror or error}): name another path, or have it made readable."
    )


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """A block in which the first SIGTERM or SIGHUP raises, and a second one ends at once.

    One that is ignored stays so, as ``nohup`` would have it.
    """
    before: dict[signal.Signals, Any] = {}

    def unwind(number: int, frame: FrameType | None) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_DFL)  # a second signal ends it without the clean-up
        raise _Ended(128 + number)

    if threading.current_thread() is threading.main_thread():  # no other may ask for signals
        wanted = (signal.SIGTERM, signal.SIGHUP)
        before = {number: handler for number in wanted if (handler := signal.getsignal(number)) is signal.SIG_DFL}
    for number in before:
        signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@cli.command()
@click.argument("model", type=PATH)
@click.option("--label", "labels", multiple=True, help="Wanted class, by number or name; repeat it for several.")
@click.option("--mixture", help="Wanted probabilities in place of a class, such as 3:0.6,8:0.4; they sum to 1.")
@click.option("--num", default=64, show_default=True, type=click.IntRange(1), help="Images, of each wanted class.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Fixes every draw.")
@click.option("--to-seed", type=click.IntRange(0), help="Go from --seed's image to this one's, in --num steps.")
@click.option("--sharpness", help="Of the drawn conditions: a number, or a range LOW:HIGH.  [default: the file's]")
@click.option(
    "--field", "cells", multiple=True, help="Brighter there, or darker: ROW,COLUMN:VALUE, such as 0,3:1.5; repeat it."
)
@click.option("--generator", type=click.IntRange(0), help="Which one of an ensemble draws.  [default: they take turns]")
@click.option("--columns", type=click.IntRange(1), help="Images in a row of the grid.")
@click.option("--scale", default=1, show_default=True, type=click.IntRange(1, 64), help="Side of a pixel in pictures.")
@click.option("--verify", type=PATH, help="Classifier in ONNX, which tells the accuracy.")
@click.option("--threads", type=click.IntRange(1), help="Threads of onnxruntime.  [default: one for each core]")
@click.option("--out", required=True, type=PATH, help=".png (a grid), .npz, or a new folder of PNGs.")
@as_json
def sample(
    model: Path,
    labels: tuple[str, ...],
    mixture: str | None,
    num: int,
    seed: int,
    to_seed: int | None,
    sharpness: str | None,
    cells: tuple[str, ...],
    generator: int | None,
    columns: int | None,
    scale: int,
    verify: Path | None,
    threads: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Draw images from MODEL, a generator or an ensemble in ONNX."""
    from netinv.sampling import OnnxGenerator, Samples, check_place, check_size, save

    check_place(out)
    if verify and mixture is not None:
        raise InputError("--verify counts the images of one wanted class, and a mixture wants several: leave one out.")
    network = OnnxGenerator(model, num_threads=threads)
    classifier = _judge(verify, network, threads) if verify else None
    if labels and mixture is not None:
        raise InputError("Both --label and --mixture were given: give one of them.")
    wanted = [network.label(text) for text in labels]
    arguments: dict[str, Any] = {
        "mixture": None if mixture is None else parse_mixture(mixture, network),
        "sharpness": None if sharpness is None else parse_sharpness(sharpness),
        "field": parse_field(cells),
    }
    classes: list[int | None] = [*wanted] or [None]
    total, correct = num * len(classes), 0
    check_size(out, total, network, columns, scale)
    if to_seed is None:
        each = [label for label in wanted for _ in range(num)] or None
        batches = network.stream(total, seed=seed, labels=each, generator=generator, **arguments)
    else:
        each_way = partial(network.interpolate, num, seeds=(seed, to_seed), generator=generator or 0, **arguments)
        batches = (each_way(label=label) for label in classes)
    if columns is None and (len(wanted) > 1 or to_seed is not None):
        columns = num

    def verified(batches: Iterable[Samples]) -> Iterator[Samples]:
        nonlocal correct
        for batch in batches:
            if classifier:
                correct += classifier.num_correct(batch.images, batch.labels)
            yield batch

    save(out, verified(batches), total, network, columns, scale)
    if as_json:
        told = {"sharpness": None if mixture else arguments["sharpness"] or network.metadata.sharpness}
        told["accuracy"] = correct / total if classifier else None
        print(json.dumps({"out": str(out), "images": total, "seed": seed} | told))
        return
    print(f"{total} {'image' if total == 1 else 'images'} in {out}")
    if classifier:
        print(f"accuracy under {verify}: {correct / total:.4f} ({correct} of {total})")


def _judge(path: Path, network: "OnnxGenerator", threads: int | None) -> "OnnxClassifier":
    """The classifier in a file, which must fit the generator."""
    from netinv.sampling import OnnxClassifier

    classifier = OnnxClassifier(path, num_threads=threads)
    classifier.check_fits(network)
    return classifier


@cli.command()
@click.argument("folders", nargs=-1, required=True, type=PATH)
@click.option("--width", type=click.IntRange(60), help="Characters in a line.  [default: the terminal's]")
def summary(folders: tuple[Path, ...], width: int | None) -> None:
    """Print the headline numbers of all FOLDERS of an evaluation, beside real images and noise.

    Those of one model in one parent folder are columns of one table.
    """
    from netinv.report import summary as summary_of

    print(summary_of(folders, width or shutil.get_terminal_size().columns), end="")


@cli.command()
@click.argument("folder", type=PATH, default=Path("onnx"))
@click.option("--port", default=7860, show_default=True, type=click.IntRange(1, 65535), help="Port on this machine.")
@click.option("--browser/--no-browser", default=True, help="Open it in the default browser.")
def playground(folder: Path, port: int, browser: bool) -> None:
    """Open a page, on this machine only, to draw from the generators below FOLDER (default: onnx) by hand."""
    from netinv.app.playground import serve

    serve(folder, port, browser)
