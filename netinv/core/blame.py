"""What fails in other people's code, told as theirs: with its file and line, and without the way there."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netinv.core.errors import InputError, OutOfMemory


def _theirs(error: BaseException) -> list[traceback.FrameSummary]:
    """Where an error passed through code that is neither torch's nor this library's; the innermost place is last."""
    import torch

    ours = str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<"
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]


def reason(error: BaseException) -> str:
    """What went wrong in a network, and where, in words: the last line that is neither torch's nor this library's."""
    first = str(error).strip().partition("\n")[0]
    if "TorchScript interpreter" in first:  # a heading: the cause comes last, behind the script's own traceback
        first = str(error).strip().rpartition("\n")[2]
    if not isinstance(error, RuntimeError) or not first:
        first = f"{type(error).__name__}: {first}" if first else type(error).__name__
    frames = _theirs(error)
    return f"{first}, in {frames[-1].filename}, line {frames[-1].lineno}" if frames else first


def out_of_memory(error: BaseException) -> bool:
    """Whether it is memory that is missing, of any device."""
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)


@contextmanager
def backward_pass() -> Iterator[None]:
    """A block that computes gradients through a network of somebody's.

    Raises:
        InputError: Its author's code fails; tells what went wrong, and the line of its author's at which. Or the memory
            does not hold a batch (:class:`OutOfMemory`).
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise OutOfMemory(
                "A batch's gradients do not fit into memory: take a smaller batch, or for an inversion set "
                "images_at_once to fewer images."
            ) from error
        if not _theirs(error):
            raise
        raise InputError(f"The classifier's backward pass fails ({reason(error)}): mend it there.") from error
