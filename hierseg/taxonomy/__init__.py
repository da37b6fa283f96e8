"""The class hierarchy: the DAG, its matrices and its readers."""

from hierseg.taxonomy.arrays import TaxonomyArrays
from hierseg.taxonomy.formats import read_taxonomy
from hierseg.taxonomy.graph import Taxonomy

__all__ = ['Taxonomy', 'TaxonomyArrays', 'read_taxonomy']
