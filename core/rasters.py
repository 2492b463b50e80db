# SPDX-License-Identifier: GPL-2.0-or-later
"""GeoTIFF in and out: bands, tags and a clear word when a file is not what it should be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyproj
import rasterio
import rasterio.shutil
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from .atomic import atomic_path
from .errors import InputError

SCHEMA_TAG = "GRIDCAST_SCHEMA"
NODATA = -9999.0
# With tiles of 512 pixels as many bands take 64 MB while a file is written, however small the grid is.
_FEW_BANDS = 64


@dataclass(frozen=True)
class Raster:
    """Bands `(band, y, x)` with CRS, affine transform, tags and band descriptions."""

    bands: np.ndarray
    crs: pyproj.CRS
    transform: Affine
    tags: dict[str, str]
    descriptions: tuple[str, ...]


@dataclass(frozen=True)
class Lattice:
    """Where the cells of a raster lie: CRS and affine transform."""

    crs: pyproj.CRS
    transform: Affine


def write_geotiff(
    path: str | Path,
    bands: np.ndarray,
    crs: pyproj.CRS,
    transform: Affine,
    *,
    tags: Mapping[str, str],
    descriptions: Sequence[str],
    parameter: str = "OUTPUT",
    dtype: str = "float32",
) -> None:
    """Write bands `(band, y, x)` as a cloud-optimised GeoTIFF, whole or not at all.

    NaN becomes nodata. `parameter` is named in the error if the file cannot be written; `dtype` is
    ``float32`` or ``float64``.
    """
    data = np.where(np.isfinite(bands), bands, NODATA).astype(dtype)
    profile = {
        "dtype": dtype,
        "count": data.shape[0],
        "height": data.shape[1],
        "width": data.shape[2],
        "crs": rasterio.crs.CRS.from_wkt(crs.to_wkt()),
        "transform": transform,
        "nodata": NODATA,
    }
    with atomic_path(path, parameter) as part:
        try:
            with rasterio.MemoryFile() as memory:
                with memory.open(driver="GTiff", **profile) as source:
                    source.write(data)
                    source.update_tags(**tags)
                    for index, text in enumerate(descriptions, start=1):
                        source.set_band_description(index, text)
                # The COG driver only copies, and it keeps tags and descriptions.
                with memory.open() as source, rasterio.MemoryFile(ext=".tif") as cog:
                    rasterio.shutil.copy(
                        source,
                        cog.name,
                        driver="COG",
                        compress="DEFLATE",
                        overviews="NONE",
                        blocksize=_block_size(data.shape),
                    )
                    # Python writes the bytes: its error tells a full disk from a forbidden folder.
                    part.write_bytes(cog.getbuffer())
        except RasterioError as error:
            raise InputError(
                f"The raster cannot be written: {error}.",
                hint="Check the free space of the disk and choose another place.",
                parameter=parameter,
                value=path,
            ) from error


def _block_size(shape: tuple[int, ...]) -> int:
    """Return the side of the tiles: 512 as usual, but no padding to it in each of very many bands."""
    return 512 if shape[0] <= _FEW_BANDS else min(512, -(-max(shape[1:]) // 16) * 16)


def read_geotiff(path: str | Path, schema: str, parameter: str, made_by: str) -> Raster:
    """Read all bands of a raster made by Gridcast as they are, float32 or float64; nodata becomes NaN.

    Parameters
    ----------
    path : path
        Any raster that GDAL reads.
    schema : str
        Name and version that the file must carry, such as ``grid/1``.
    parameter, made_by : str
        Named in the error: the parameter at fault and the algorithm that makes such files.

    Raises
    ------
    InputError
        Missing, damaged, not made by Gridcast, or of another version.
    """
    name, version = schema.split("/")
    fix = f"Choose a raster that '{made_by}' has made."
    if not Path(path).is_file():
        raise InputError("The file does not exist.", hint=fix, parameter=parameter, value=path)
    try:
        with rasterio.open(path) as source:
            found = source.tags().get(SCHEMA_TAG, "")
            check_schema(found, schema, parameter, path, made_by)
            bands = source.read(masked=True)
            bands = bands.astype(np.promote_types(bands.dtype, np.float32)).filled(np.nan)
            crs = pyproj.CRS.from_wkt(source.crs.to_wkt()) if source.crs else None
            raster = Raster(
                bands,
                crs,
                source.transform,
                dict(source.tags()),
                tuple(text or "" for text in source.descriptions),
            )
    except (RasterioError, ValueError, ProjError) as error:
        raise InputError(
            f"The file is damaged or not a raster ({error}).", hint=fix, parameter=parameter, value=path
        ) from error
    if raster.crs is None:
        raise InputError(
            f"The {name} has lost its coordinate system.", hint=fix, parameter=parameter, value=path
        )
    return raster


def read_lattice(source: str | Path, parameter: str = "SNAP_RASTER") -> Lattice:
    """Return where the cells of any raster lie.

    Parameters
    ----------
    source : path or str
        Whatever GDAL opens, such as a file or ``NETCDF:"file.nc":variable``.
    parameter : str
        Named in the error.

    Raises
    ------
    InputError
        No raster, without coordinate system, or without a place on the map.
    """
    fix = "Choose a raster whose cells lie on a map, such as a GeoTIFF."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # told below, as an error
            with rasterio.open(source) as raster:
                transform = raster.transform
                crs = pyproj.CRS.from_wkt(raster.crs.to_wkt()) if raster.crs else None
    except (RasterioError, ValueError, ProjError) as error:
        raise InputError(
            f"The file is damaged or not a raster ({error}).", hint=fix, parameter=parameter, value=source
        ) from error
    if crs is None:
        raise InputError("The raster has no coordinate system.", hint=fix, parameter=parameter, value=source)
    if transform.is_identity or transform.is_degenerate:
        raise InputError("The raster has no place on the map.", hint=fix, parameter=parameter, value=source)
    return Lattice(crs, transform)


def check_schema(found: str, schema: str, parameter: str, path: object, made_by: str) -> None:
    """Raise :class:`InputError` unless `found` is exactly `schema` (``name/version``)."""
    if found == schema:
        return
    name, version = schema.split("/")
    if found.startswith(f"{name}/"):
        raise InputError(
            f"The {name} file has version {found.split('/')[1]}, this Gridcast reads version {version}.",
            hint=f"Make it again with '{made_by}', or install the Gridcast that made it.",
            parameter=parameter,
            value=path,
        )
    raise InputError(
        f"The file is not a Gridcast {name} file.",
        hint=f"Choose a file that '{made_by}' has made.",
        parameter=parameter,
        value=path,
    )
