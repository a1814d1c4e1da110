"""Sphinx configuration."""

import os
from pathlib import Path

import sphinx_autosummary_accessors
from sphinx.util import logging

from xr_spde import __version__, open_dataset
from xr_spde.errors import DataUnavailableError

os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "xr_spde"
author = "xr_spde developers"
copyright = "2026, xr_spde developers"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "sphinx_autosummary_accessors",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb"}  # the first is that of stubs
exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]
templates_path = ["_templates", sphinx_autosummary_accessors.templates_path]
default_role = "code"

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3

# Executed every time: a cache would not notice that the package changed.
nb_execution_mode = os.environ.get("XR_SPDE_DOCS_EXECUTION", "force")
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_show_tb = True
# Pages on data that the package does not carry are executed where these are at hand.
nb_execution_excludepatterns = []
try:
    for name in ("mediterranean_adt", "mediterranean_adt_sla"):
        open_dataset(name).close()
except DataUnavailableError as error:
    logging.getLogger(__name__).info("guide/maps_in_time is not executed: %s", error)
    nb_execution_excludepatterns = ["guide/maps_in_time.md"]
    suppress_warnings = ["myst-nb.lexer"]  # a page that did not run does not know its language

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "plain"

html_theme = "pydata_sphinx_theme"
html_title = "xr_spde"
html_static_path = ["_static"]
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Tables that the benchmarks wrote, in this order, under these titles; those that exist are shown.
RESULTS = {
    "estimate": "Estimation",
    "estimate_time": "Time of an estimate",
    "likelihood": "Local and exact likelihood",
    "mle": "Maximum of the exact likelihood",
    "likelihood_large": "Likelihood of grids beyond memory",
    "likelihood_real": "Likelihood of real fields",
    "published_sar": "Networks",
    "network_time": "Time of a network",
    "refine": "From the network to the likelihood",
    "small_networks": "Networks in small",
    "small_counts": "Fewer replicates",
    "learning": "Learning curves",
    "transfer": "Other sizes of grids",
    "emulate": "Emulation",
    "solvers": "Solvers",
    "scaling": "Scaling",
    "lorenz96": "Filters on Lorenz-96",
    "filters": "Speed of the filters",
    "assimilate_large": "Analysis of a large ensemble",
    "assimilate_real": "Observations into real ensembles",
    "spacetime": "Interpolation in space and time",
    "kriging_peers": "Kriging beside other packages",
    "long_series": "Long series in windows",
    "med_tracks": "Mediterranean tracks",
    "med_neural": "A trained solver on Mediterranean tracks",
    "transfer_neural": "A trained solver in other regions",
    "osse": "Observing-system experiment",
    "gp_table": "Neural solver on Gaussian processes",
    "ssh": "Synthetic sea level",
    "theta_table": "Parameters of the prior from observations",
    "gpu": "Graphics card",
    "shallow_water": "Shallow water on the sphere",
    "climate": "Real data",
    "in_between": "The frame between two images",
    "sequences": "Frames of a sequence",
    "in_between_real": "Withheld frames of rain and of the sea surface",
    "latent_model": "The latent model of two images",
    "latent_sensitivity": "Sensitivity of the latent model",
    "sea_ice": "Drift of sea ice",
    "climate_networks": "Networks on real data",
    "lainr_encoding": "Time of encoding",
    "lainr": "Latent assimilation of shallow water",
    "lainr_real": "Latent models on real fields",
}


def add_results(app, docname, source):
    """Include the tables of benchmarks/results at the end of the page about them."""
    if docname != "benchmarks":
        return
    for name, title in RESULTS.items():
        table = Path(app.srcdir).parent / "benchmarks" / "results" / f"{name}.md"
        if table.exists():
            options = ":heading-offset: 1\n:relative-images:"
            include = f"```{{include}} ../benchmarks/results/{name}.md\n{options}\n```"
            titled = table.read_text(encoding="utf-8").lstrip().startswith("#")
            source[0] += ("" if titled else f"\n## {title}\n") + f"\n{include}\n"


def setup(app):
    app.connect("source-read", add_results)
