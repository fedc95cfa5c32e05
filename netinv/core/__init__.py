"""What every room stands on: settings, errors, files, precision, weights on disk. Imports torch only when asked to."""

from netinv.core.classes import check_same_classes
from netinv.core.config import Config, explain
from netinv.core.errors import InputError, listed
from netinv.core.files import check_file, check_folder, new_file, new_folder, save_csv, write_text
from netinv.core.precision import Precision, autocast
from netinv.core.redaction import redacted
from netinv.core.variants import VARIANTS, Variant
from netinv.core.version import __version__
from netinv.core.weights import read_config, read_weights, write_network

__all__ = [
    "VARIANTS",
    "Config",
    "InputError",
    "Precision",
    "Variant",
    "__version__",
    "autocast",
    "check_file",
    "check_folder",
    "check_same_classes",
    "explain",
    "listed",
    "new_file",
    "new_folder",
    "read_config",
    "read_weights",
    "redacted",
    "save_csv",
    "write_network",
    "write_text",
]
