"""Sphinx: builds the documentation from these pages and the docstrings.

python -m sphinx -b html docs docs/_build/html
"""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # Sphinx brings it there

import hierseg

project = 'hierseg'
version = release = hierseg.__version__

extensions = [
    'myst_nb',  # reads plain Markdown, so that the pages read well in the repository, too, and the notebook
    'sphinx.ext.autodoc',
    'sphinx.ext.mathjax',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]
exclude_patterns = ['_build', 'curves']
myst_heading_anchors = 3
myst_enable_extensions = ['dollarmath']
nb_execution_mode = 'off'  # its outputs are committed, and a test compares them
highlight_language = 'none'  # unless a block names its own

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
# Docstrings give shape and type; the full names of numpy's array types would say the same in two lines.
autodoc_type_aliases = {name: name for name in ('BoolArray', 'FloatArray', 'IntArray', 'Picture')}
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of dataclasses stand once, in the list of attributes
napoleon_use_rtype = False

html_theme = 'furo'
html_title = f'hierseg {version}'
html_static_path = ['_static']
html_css_files = ['hierseg.css']
# Links to the sources of pages, where the repository has an address.
pyproject = tomllib.loads((Path(__file__).parents[1] / 'pyproject.toml').read_text())
if address := pyproject['project'].get('urls', {}).get('Repository'):
    html_theme_options = {'source_repository': address, 'source_branch': 'main', 'source_directory': 'docs/'}
html_copy_source = html_show_copyright = False
html_show_sphinx = False
