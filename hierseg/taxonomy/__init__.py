"""The class hierarchy: the DAG, its matrices and its readers."""

from hierseg.taxonomy.arrays import TaxonomyArrays
from hierseg.taxonomy.graph import Taxonomy
from hierseg.taxonomy.readers import read_taxonomy

__all__ = ['Taxonomy', 'TaxonomyArrays', 'read_taxonomy']
