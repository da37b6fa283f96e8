"""Sphinx: builds the documentation from these pages and the docstrings.

python -m sphinx -b html docs docs/_build/html
"""

import hierseg

project = 'hierseg'
author = 'the authors of hierseg'
version = release = hierseg.__version__

extensions = [
    'myst_parser',  # the pages are plain Markdown, so that they read well in the repository, too
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
]
exclude_patterns = ['_build']
myst_heading_anchors = 3

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_typehints_format = 'short'
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of dataclasses stand once, in the list of attributes
napoleon_use_rtype = False

html_theme = 'furo'
html_title = f'hierseg {version}'
html_copy_source = False
html_show_sphinx = False
