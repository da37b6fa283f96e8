"""Formats that several rooms share: CSV and JSON with the place in their errors, run lengths of masks, array types."""

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

__all__ = ['BoolArray', 'FloatArray', 'IntArray']
