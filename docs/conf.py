"""Settings of the documentation: ``sphinx-build -W docs build/docs``. Needs no network."""

from typing import Any

from netinv import __version__

project = "netinv"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nb_execution_mode = "off"  # the outputs are in the notebooks; tests/test_docs.py executes them anew
myst_heading_anchors = 3
# The repository's other pages are linked as files, which tests/test_docs.py finds.
suppress_warnings = ["myst.xref_missing"]
templates_path = ["_templates"]
html_static_path = ["_static"]
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "fixed_sidebar": True, "show_powered_by": False}
html_copy_source = False
toc_object_entries = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "exclude-members": "model_config, model_post_init"}
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]
napoleon_use_ivar = True


def _keep_bars(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write norms as |x|, which reStructuredText takes for a substitution."""
    lines[:] = [line if "``" in line or ">>>" in line else line.replace("|", r"\|") for line in lines]


def _keep_first_line(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon in the first line of a value for its type: put an empty one there."""
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\ ")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _keep_bars)
    app.connect("autodoc-process-docstring", _keep_first_line, priority=400)  # before Napoleon
