"""The chain itself: immutable, lazy, iterable again and again, printed as one would type it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar

from geopipes.errors import StepError
from geopipes.pipe.lazy import Lazy
from geopipes.pipe.printing import dotted, drawn

if TYPE_CHECKING:
    from geopipes.loaders import Op, Report

Kind = Literal["items", "cubes", "plan", "stream"]

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


STANDS: dict[Kind, str] = {
    "items": "items (gp.search, gp.items, gp.rasters)",
    "cubes": "cubes (stack, gp.cubes, gp.inputs)",
    "plan": "a plan of chips (chip)",
    "stream": "elements that are read or come from elsewhere",
}
"""What a chain holds at each stage of the way."""


class Chain(Generic[T]):
    """A source and what happens to its elements.

    Three things make a chain. ``value`` is what is known before pixels are read: items, cubes or windows, made
    when first needed. ``ops`` is what happens afterwards, element by element, as a run goes on. ``text`` and
    ``parent`` are what was typed.
    """

    def __init__(self, source: Iterable[T]) -> None:
        if isinstance(source, Iterator):
            raise StepError(
                f"Pipe({type(source).__name__}): a generator or iterator runs once, and a pipe starts again at every "
                "epoch; give a list, or an object whose __iter__ starts anew"
            )
        if not isinstance(source, Iterable):
            raise StepError(f"Pipe({type(source).__name__}): a source is something to iterate over")
        self._set(f"Pipe({type(source).__name__})", None, Lazy.known(source))

    _modifier: Any = None  # signs hrefs; known before items are, so that a frozen search replays without a search

    _report: Report | None = None  # of its runs, while somebody asks where their time goes

    def _set(
        self,
        text: str,
        parent: Chain[Any] | None,
        value: Lazy[Any],
        kind: Kind = "stream",
        ops: tuple[Op, ...] = (),
    ) -> None:
        self._text, self._parent, self._value, self._kind, self._ops = text, parent, value, kind, ops
        accept_as_iterable_dataset(type(self))

    @classmethod
    def _new(cls, text: str, parent: Chain[Any] | None, value: Lazy[Any], kind: Kind = "stream") -> Self:
        """Make a chain of this class without a source of its own."""
        chain = cls.__new__(cls)
        chain._set(text, parent, value, kind)
        return chain

    def _need(self, kind: Kind, text: str) -> None:
        """Raise where a method stands at the wrong place of the chain."""
        if self._kind != kind:
            way = {
                ("plan", "stream"): f"write .read().{text}; ",
                ("cubes", "stream"): f"write .chip(...).read().{text}; ",
            }
            hint = way.get((self._kind, kind), "")
            raise StepError(f"{text} works on {STANDS[kind]}; {hint}before it stands {STANDS[self._kind]}:\n{self}")

    def _whole(self, text: str, function: Callable[[Any], Any], kind: Kind | None = None) -> Self:
        """Add a call that turns the whole value into another, when it is needed."""
        chain = self._new(text, self, Lazy(lambda: function(self._value.get())), kind or self._kind)
        chain._modifier = self._modifier
        return chain

    def _op(self, op: Op) -> Self:
        """Add what happens to elements as a run goes on."""
        chain = self._new(str(op), self, self._value)
        chain._ops = (*self._ops, op)
        return chain

    def pipe(self, fn: Callable[Concatenate[Self, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function on the whole chain: ``chain.pipe(prepare)`` is ``prepare(chain)``."""
        return fn(self, *args, **kwargs)

    def __iter__(self) -> Iterator[T]:
        """Run the chain once; every run is independent of the others."""
        from geopipes.loaders import run

        return run(self._value.get(), self._ops, self._report)

    def profile(self) -> AbstractContextManager[Report]:
        """See where the time of its runs goes: see `geopipes.loaders.Report`.

        ``with pipe.profile() as report:`` a loop over the pipe, then ``print(report)``.
        """
        from geopipes.loaders import profiling

        self._need("stream", "profile()")
        return profiling(self)

    def __len__(self) -> int:
        """Give the planned length: filtered elements are still counted."""
        from geopipes.loaders import planned

        return planned(len(self._value.get()), self._ops)

    def __bool__(self) -> bool:
        """Say yes: asking an unsearched chain for its length would search."""
        return True

    def __str__(self) -> str:
        return drawn(self)

    __repr__ = __str__

    def __getstate__(self) -> dict[str, Any]:
        """Travel resolved: items found, windows planned; functions must be importable."""
        from geopipes.loaders import Each

        for op in self._ops:
            if isinstance(op, Each):
                op.step.check_pickles()
        for step in getattr(self._value.get(), "steps", ()):
            step.check_pickles()
        return {"text": self._lineage(), "value": self._value, "kind": self._kind, "ops": self._ops}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(state["text"], None, state["value"], state["kind"], state["ops"])

    def _lineage(self, between: str = "") -> str:
        """Give the chain as typed, on one line or several."""
        if self._parent is None:
            return self._text
        return f"{self._parent._lineage(between)}{between}{dotted(self._text)}"


def accept_as_iterable_dataset(kind: type) -> None:
    """Let torch's DataLoader take chains for iterable datasets, once torch is there."""
    if "torch" in sys.modules:
        from torch.utils.data import IterableDataset

        IterableDataset.register(kind)
