"""What a sample says of its dates, and series of one length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from geopipes.errors import TensorError

OF_DATES = ("time", "doy", "time_mask")
"""Keys of what a sample says of its dates; with several inputs behind the name of each tensor."""

NO_DATE = int(np.iinfo(np.int64).min)
"""NaT, in nanoseconds."""

Length = int | Mapping[str, int] | None


def of_dates(
    time: torch.Tensor, valid: npt.NDArray[np.bool_], *, length: int | None, doy: bool
) -> dict[str, torch.Tensor]:
    """Say what is known of dates.

    Parameters
    ----------
    time : (time,), int64, nanoseconds since 1970
    valid : (time or 1, y, x)
    length : of the series, padded at the end; None for its own
    doy : whether to say the day of the year, too

    Returns
    -------
    (length,) each: ``time``; ``doy``, int64, 1 for 1 January, 0 for none; ``time_mask``, where a length is given: False
    for padding and where nothing is valid
    """
    time = _padded(time, length, NO_DATE)
    said = {"time": time}
    if doy:
        said["doy"] = day_of_year(time)
    if length is not None:
        said["time_mask"] = _padded(torch.from_numpy(valid.any(axis=(1, 2))), length, False)
    return said


def day_of_year(time: torch.Tensor) -> torch.Tensor:
    """Give the day of the year of nanoseconds since 1970: int64, 1 for 1 January; 0 for NaT."""
    stamps = time.numpy().view("datetime64[ns]")
    days = (stamps.astype("M8[D]") - stamps.astype("M8[Y]").astype("M8[D]")).astype(np.int64) + 1
    return torch.from_numpy(np.where(np.isnat(stamps), 0, days))


def _padded(values: torch.Tensor, length: int | None, fill: float) -> torch.Tensor:
    """Pad (time,) at the end."""
    if length in (None, len(values)):
        return values
    return torch.cat([values, torch.full((length - len(values),), fill, dtype=values.dtype)])


def check_length(length: Length, tensors: Iterable[str], *, several: bool) -> None:
    """Raise for lengths that no series can have.

    Raises
    ------
    TensorError
        for a number below 1, one of a tensor that is not there, and several for one input
    """
    if length is None:
        return
    if isinstance(length, Mapping) and not several:
        raise TensorError(f"tensor(length={dict(length)}): the tensors of one Dataset share its dates; give one number")
    by_name = dict(length) if isinstance(length, Mapping) else dict.fromkeys(tensors, length)
    if unknown := sorted(by_name.keys() - {*tensors}):
        raise TensorError(
            f"tensor(length=...): there is no tensor {unknown[0]!r}; the tensors are {', '.join(tensors)}"
        )
    if any(dates < 1 for dates in by_name.values()):
        raise TensorError(f"tensor(length={length}): give a number of dates, at least 1")


def length_of(name: str, length: Length) -> int | None:
    """Give the length of one tensor; None for its own."""
    return length.get(name) if isinstance(length, Mapping) else length


def check_fits(name: str, dates: int, length: int, fill: float | None) -> None:
    """Raise where a series is longer than asked for, or nothing is said to pad it with."""
    if dates > length:
        raise TensorError(
            f"tensor({name}=..., length={length}): the chip has {dates} dates; use length={dates}, or make fewer of "
            "them before: .composite('month', ...), or plan.sequences(...)"
        )
    if dates < length and fill is None:
        raise TensorError(f"tensor({name}=..., length={length}): say what to pad with, fill=0")
