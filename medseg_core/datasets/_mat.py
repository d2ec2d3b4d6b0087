"""Arrays from MATLAB files of every version: `scipy.io` up to 7, `h5py` for 7.3."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

HDF5 = b"\x89HDF\r\n\x1a\n"
HDF5_AT = (0, 512)  # MATLAB writes a text header of its own in front
# What scipy and zlib raise on a file that is none, damaged or cut short.
READ_ERRORS = (MatReadError, OSError, EOFError, ValueError, TypeError, KeyError, zlib.error)


def read_mat(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the variables ``names`` that the file holds; cells are object arrays.

    Shapes are MATLAB's in both formats, though HDF5 stores the axes in the opposite order.

    Raises:
        ValueError: the file cannot be read. ImportError: it is of version 7.3, without h5py.
    """
    names = list(names)
    try:
        with path.open("rb") as file:
            start = file.read(HDF5_AT[-1] + len(HDF5))
        if any(start[at:].startswith(HDF5) for at in HDF5_AT):
            return _read_hdf5(path, names)
        found = loadmat(path, variable_names=names)
    except READ_ERRORS as error:
        raise ValueError(f"{path.name} cannot be read as a MATLAB file: {error}") from error
    return {name: found[name] for name in names if name in found}


def _read_hdf5(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"{path.name} is a MATLAB 7.3 file, which is read by h5py: pip install h5py"
        ) from error

    def array(node: Any) -> np.ndarray:
        if node.attrs.get("MATLAB_empty", 0):
            return np.zeros((0, 0))
        if h5py.check_ref_dtype(node.dtype) is None:
            return node[()].T
        cells = np.empty(node.shape, object)
        for at, reference in np.ndenumerate(node[()]):
            cells[at] = array(file[reference])
        return cells.T

    with h5py.File(path, "r") as file:
        return {name: array(file[name]) for name in names if name in file}
