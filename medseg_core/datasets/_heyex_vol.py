"""Heidelberg's raw export of OCT scans (``.vol``): what of its headers is needed, and the pixels.

Little endian: a file header of 2048 bytes; the SLO (fundus) image, one byte per pixel; then for
each B-scan a header of the size that the file header names and its pixels, float32, row by row.
Name, dates and identifiers of the patient stand in the file header too and are not read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FILE_HEADER = 2048
MAGIC = b"HSF-OCT"
# version, SizeX, NumBScans, SizeZ, ScaleX, Distance, ScaleZ, SizeXSlo, SizeYSlo, ScaleXSlo,
# ScaleYSlo, FieldSizeSlo, ScanFocus, ScanPosition, ExamTime, ScanPattern, BScanHdrSize
FIELDS = struct.Struct("<12s3i3d2i2did4sq2i")


@dataclass(frozen=True)
class VolHeader:
    """Sizes in pixels, lengths in mm; depth runs along the rows."""

    columns: int
    rows: int
    n_bscans: int
    column_mm: float
    row_mm: float
    slice_mm: float
    slo_size: tuple[int, int]
    eye: str  # "OD" right, "OS" left
    bscan_header: int

    def offset(self, index: int) -> int:
        """Byte at which the header of B-scan ``index`` begins."""
        block = self.bscan_header + 4 * self.rows * self.columns
        return FILE_HEADER + self.slo_size[0] * self.slo_size[1] + index * block


def read_header(path: Path) -> VolHeader:
    """The file header, checked against the length of the file.

    Raises:
        ValueError: not such a file, sizes that make no sense, or a file cut short.
    """
    with path.open("rb") as file:
        start = file.read(FIELDS.size)
    if len(start) < FIELDS.size or not start.startswith(MAGIC):
        raise ValueError(f"{path.name} is no Heidelberg raw export (it must begin with HSF-OCT)")
    v = FIELDS.unpack(start)
    header = VolHeader(
        columns=v[1],
        n_bscans=v[2],
        rows=v[3],
        column_mm=v[4],
        slice_mm=v[5],
        row_mm=v[6],
        slo_size=(v[8], v[7]),
        eye=v[13].rstrip(b"\0").decode("ascii", "replace"),
        bscan_header=v[16],
    )
    sizes = (header.columns, header.rows, header.n_bscans, header.bscan_header)
    if min(sizes) < 1 or min(header.slo_size) < 0:
        raise ValueError(
            f"{path.name}: {header.n_bscans} B-scans of {header.rows} × {header.columns} with "
            f"headers of {header.bscan_header} bytes, SLO {header.slo_size}, cannot be"
        )
    if not (0 < header.row_mm < 1 and 0 < header.column_mm < 1):
        raise ValueError(
            f"{path.name}: a pixel of {header.row_mm:g} × {header.column_mm:g} mm cannot be"
        )
    need, has = header.offset(header.n_bscans), path.stat().st_size
    if has < need:
        raise ValueError(f"{path.name} is cut short: {has} bytes, its header promises {need}")
    return header


def read_bscan(path: Path, header: VolHeader, index: int) -> np.ndarray:
    """Image ``(rows, columns)`` float32 in [0, 1] as the device shows it: reflectivity^¼.

    Pixels without a measurement (stored as the largest float) become 0.
    """
    at = header.offset(index) + header.bscan_header
    raw = np.fromfile(path, "<f4", header.rows * header.columns, offset=at)
    raw = raw.reshape(header.rows, header.columns)
    raw = np.where(np.isfinite(raw) & (raw < 1e6), raw, 0)
    return np.clip(raw, 0, 1) ** np.float32(0.25)
