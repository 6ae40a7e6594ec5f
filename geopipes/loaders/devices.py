"""Batches on the device of a model, copied there ahead of the step that needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

UNDER_WAY = 2
"""Copies that are under way at a time, of which the memory on this side must not change."""


class Moving(Iterator[Any]):
    """Batches as they are copied to a device, each after the one before.

    To CUDA they go from pinned memory on a stream of their own, so that copying and computing overlap; what gives a
    batch, ``Moved.get``, lets the stream that computes wait for it.
    """

    def __init__(self, batches: Iterator[Any], device: torch.device) -> None:
        self._batches, self._device = batches, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._under_way: deque[tuple[torch.cuda.Event, Any]] = deque()

    def __next__(self) -> Moved:
        batch = next(self._batches)
        if self._stream is None:
            return Moved(moved(batch, lambda tensor: tensor.to(self._device)))
        pinned = moved(batch, lambda tensor: tensor if tensor.is_pinned() else tensor.pin_memory())
        with torch.cuda.stream(self._stream):
            there = moved(pinned, lambda tensor: tensor.to(self._device, non_blocking=True))
            event = self._stream.record_event()
        self._under_way.append((event, pinned))
        if len(self._under_way) > UNDER_WAY:
            self._under_way.popleft()[0].synchronize()
        return Moved(there, event)

    def close(self) -> None:
        """Wait for the copies that are under way, and end the batches."""
        while self._under_way:
            self._under_way.popleft()[0].synchronize()
        self._batches.close()  # type: ignore[attr-defined]  # a run


class Moved:
    """A batch on a device, or on its way there."""

    def __init__(self, batch: Any, event: torch.cuda.Event | None = None) -> None:
        self._batch, self._event = batch, event

    def get(self) -> Any:
        """Give the batch to the stream that computes now."""
        if self._event is not None:
            stream = torch.cuda.current_stream(self._event.device)
            stream.wait_event(self._event)

            def used(tensor: torch.Tensor) -> torch.Tensor:
                tensor.record_stream(stream)  # else its memory might go to the next copy too soon
                return tensor

            moved(self._batch, used)
        return self._batch


def moved(batch: Any, move: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Apply a function to every tensor of a batch: of dicts, lists and tuples; all else stays."""
    if isinstance(batch, torch.Tensor):
        return move(batch)
    if isinstance(batch, Mapping):
        return {name: moved(part, move) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        parts = [moved(part, move) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch
