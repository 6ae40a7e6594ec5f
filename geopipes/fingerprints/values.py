"""What a step is given, as a document: functions, arguments, arrays."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import hashlib
import json
import math
import os
import pickle
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import shapely
import xarray as xr

from geopipes.errors import SourceError, StepError
from geopipes.fingerprints.words import Document, digest
from geopipes.labels import Labels
from geopipes.read.hrefs import unsigned
from geopipes.steps import Step, given

ADDRESS = re.compile(" at 0x[0-9a-fA-F]+")
"""What two processes show differently of one lazy array."""


def step_document(step: Step) -> Document:
    """Describe a step; arguments that are left at their defaults do not count."""
    kwargs = given(step.function, step.kwargs) if step.kwargs else {}
    try:
        return {
            "text": step.text,
            "function": _function(step.function),
            "args": [value_document(value) for value in step.args],
            "kwargs": value_document(kwargs),
        }
    except StepError as error:
        error.add_note(f"in step {step}")
        raise


def _function(function: Any) -> Any:
    """Describe a function: by its name where an import finds it, else by its code and what it closes over."""
    if isinstance(function, functools.partial):
        arguments = {"args": value_document(function.args), "kwargs": value_document(function.keywords)}
        return {"partial": _function(function.func)} | arguments
    if isinstance(function, types.MethodType) and not isinstance(function.__self__, type | types.ModuleType):
        return {"method": _name(function.__func__), "of": value_document(function.__self__)}
    if isinstance(function, types.FunctionType) and not _importable(function):
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        return {
            "name": _name(function),
            "code": digest({"code": _code(function.__code__)}),
            "values": [value_document(value) for value in (function.__defaults__, function.__kwdefaults__, *cells)],
        }
    return _name(function) if hasattr(function, "__qualname__") else value_document(function)


def _importable(function: Any) -> bool:
    """Say whether a name stands for one function only: not in a script or notebook, not within another function."""
    return function.__module__ not in ("__main__", "__mp_main__") and "<" not in function.__qualname__


def _name(thing: Any) -> str:
    module = getattr(thing, "__module__", None) or "builtins"
    return f"{'__main__' if module == '__mp_main__' else module}.{thing.__qualname__}"


def _code(code: types.CodeType) -> list[Any]:
    """Describe compiled code, without the lines and the file it stands in."""
    constants = [_code(part) if isinstance(part, types.CodeType) else value_document(part) for part in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names), list(code.co_varnames), list(code.co_freevars)]


def value_document(value: Any) -> Any:
    """Describe an argument: plain values as they are, arrays as a hash.

    Raises
    ------
    StepError
        for what cannot be told from another: what cannot be pickled
    """
    if value is None or (isinstance(value, bool | str | int) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: value_document(part) for key, part in value.items()}
        return [[value_document(key), value_document(part)] for key, part in value.items()]
    if isinstance(value, set | frozenset):
        return {"set": sorted((value_document(part) for part in value), key=json.dumps)}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [value_document(part) for part in value]
    return _other(value)


def _other(value: Any) -> Any:
    """Describe an argument that JSON knows nothing of."""
    if isinstance(value, enum.Enum):
        return f"{_name(type(value))}.{value.name}"
    if isinstance(value, np.generic):
        return value.item() if value.dtype.kind in "biu" else f"{value.dtype} {value}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return {"array": str(value.dtype), "shape": list(value.shape), "sha256": hashed([value])}
    if isinstance(value, xr.DataArray):
        return dataset_document(value.to_dataset(name="values"))
    if isinstance(value, xr.Dataset):
        return dataset_document(value)
    if isinstance(value, os.PathLike | np.dtype | dt.date | dt.time | dt.timedelta):
        return f"{type(value).__name__} {os.fspath(value) if isinstance(value, os.PathLike) else value}"
    if isinstance(value, shapely.Geometry):
        return str(shapely.to_wkt(value, rounding_precision=-1))
    if isinstance(value, Labels):
        return value.document()
    if isinstance(value, slice):
        return {"slice": [value_document(end) for end in (value.start, value.stop, value.step)]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: value_document(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": _name(type(value))} | fields
    if hasattr(value, "detach") and hasattr(value, "untyped_storage"):  # a tensor, without importing torch
        raw = np.asarray(value.detach().cpu().contiguous().untyped_storage(), np.uint8)
        return {"tensor": str(value.dtype), "shape": list(value.shape), "sha256": hashed([raw])}
    if not isinstance(value, type) and hasattr(value, "state_dict"):  # a module: what it is made of, and its weights
        state = {str(name): value_document(part) for name, part in value.state_dict().items()}
        return {
            "type": _name(type(value)),
            "text": digest({"text": ADDRESS.sub("", repr(value))}),
            "state": digest(state),
        }
    if isinstance(value, type | functools.partial | types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        return _function(value)
    try:
        pickled = pickle.dumps(value, protocol=4)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise StepError(
            f"fingerprint: {type(value).__name__} cannot be told from another one ({error}); give steps plain values, "
            "arrays, dataclasses or what can be pickled"
        ) from error
    return {"type": _name(type(value)), "sha256": hashlib.sha256(pickled).hexdigest()}


def dataset_document(dataset: xr.Dataset) -> Document:
    """Describe arrays: in memory by their bytes, on dask by the names of their graphs, lazy ones by their file."""
    files = {name: v.encoding.get("source", dataset.encoding.get("source")) for name, v in dataset.variables.items()}
    return {str(name): _array(str(name), variable, files[name]) for name, variable in dataset.variables.items()}


def _array(name: str, variable: xr.Variable, file: str | None) -> Document:
    document = {"dims": list(variable.dims), "shape": list(variable.shape), "dtype": str(variable.dtype)}
    document["nodata"] = value_document(variable.attrs.get("nodata", variable.attrs.get("_FillValue")))
    if variable.chunks:
        return document | {"dask": str(variable.data.name)}
    if variable._in_memory or variable.ndim == 0:
        values = variable.values
        return document | {"sha256": hashed([values.astype(str) if values.dtype.hasobject else values])}
    if file is None:
        raise SourceError(f"fingerprint: {name!r} is lazy and names no file; load it, or save it and open that")
    return document | {"file": unsigned(file), "part": ADDRESS.sub("", repr(variable._data))}


def hashed(arrays: Iterable[np.ndarray[Any, Any]]) -> str:
    """Give the SHA-256 of some arrays' values, little-endian, each in C order."""
    hashed = hashlib.sha256()
    for array in arrays:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        hashed.update(little.reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()
