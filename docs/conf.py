"""The site: ``sphinx-build -W --keep-going -b html docs docs/_build``, offline."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

import minibng  # noqa: E402 (found by the line above, whether or not it is installed)

project = "minibng"
author = "The minibng developers"
project_copyright = author
version = release = minibng.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_nb",
    "minibng_site",
    "minibng_laws",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_static", "_extensions", "jupyter_execute"]
templates_path: list[str] = []

html_theme = "furo"
html_title = "minibng"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"footer_icons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"

# Mathematics: one vendored file. Its menu is off, since some of its entries would fetch more from the network.
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {
    "tex": {
        "macros": {
            "norm": [r"\lVert #1 \rVert", 1],
            "inner": [r"\langle #1, #2 \rangle", 2],
            "R": r"\mathbb{R}",
            "E": r"\mathbb{E}",
            "sign": r"\operatorname{sign}",
        },
    },
    "options": {"enableMenu": False},
}

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

smartquotes_action = "qe"  # quotation marks and dots; two hyphens begin an option of the command line

# The notebooks are shown as they were run: their outputs are stored in them.
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # nothing from a network; widgets need a running notebook anyway

# Docstrings: numpydoc; a name in single backticks is one of ours.
default_role = "py:obj"
add_module_names = False
autodoc_typehints = "none"  # the types are told in words
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_validation_checks = {"GL06", "GL07", "PR02", "PR05"}  # sections unknown or out of order, parameters unknown
python_display_short_literal_types = True
maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"
