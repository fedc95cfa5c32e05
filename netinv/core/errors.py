"""The one exception that people are meant to read."""

from collections.abc import Sequence

MAX_LENGTH = 1_400
"""Characters of a message."""
EXTRA = {
    *("jinja2", "markupsafe", "onnx", "onnxscript", "ruamel", "ruamel.yaml", "safetensors", "scipy", "sklearn"),
    *("torch", "torchvision", "tqdm"),
}
"""Modules that come with the extra ``[torch]``, by the names they are imported by."""


class InputError(ValueError):
    """Input that its giver can mend; the message is one sentence that says how.

    Commands print it without a stack trace and exit with status 2. Everything else that goes wrong is a defect
    and keeps its trace.
    """

    def __str__(self) -> str:
        """The message; of one that quotes a page of input, the beginning."""
        text = super().__str__()
        return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]} ... and {len(text) - MAX_LENGTH:,} characters"


class OutOfMemory(InputError):
    """The memory of a device does not hold what a classifier makes of a batch."""


class PixelRange(InputError):
    """Images have values outside of [0, 1]."""


class NotFinite(InputError):
    """A classifier gives scores that are no numbers."""


def not_installed(error: ModuleNotFoundError) -> str | None:
    """How to install a module of the extra ``[torch]``, in one sentence; ``None`` where another module is missing."""
    if error.name not in EXTRA:
        return None
    return (
        f"This needs {error.name}, which is not installed: install the extra [torch], in a clone with "
        "pip install '.[torch]' and elsewhere with the path of the built wheel in place of the dot."
    )


def listed(items: Sequence[str], most: int = 20) -> str:
    """Names in a sentence, the first few of many.

    Example:
        >>> listed(["a", "b", "c"], most=2), listed([])
        ('a, b and 1 more', 'nothing')
    """
    return (", ".join(items[:most]) or "nothing") + (f" and {len(items) - most} more" if len(items) > most else "")
