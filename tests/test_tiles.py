"""Decoded tiles: each decoded once, evicted by its next use, within the budget, for any number of threads."""

from __future__ import annotations

import os
import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geopipes.read.tiles import Tiles, Wanted, shared

SIDE = 8
SIZE = SIDE * SIDE * 2
"""Bytes of a tile of one plane."""

PATIENCE = 30
"""Seconds after which threads count as locked; they need milliseconds."""

quickly = settings(deadline=None, max_examples=60)


class Decoder:
    """Makes tiles that hold their own number, counts what was decoded, and fails as often as it is told to."""

    def __init__(self, failing: dict[tuple[int, int], int] | None = None) -> None:
        self.decoded: Counter[tuple[int, int]] = Counter()
        self.failing = dict(failing or {})
        self.lock = threading.Lock()

    def wanted(self, key: int, parts: tuple[int, ...] = (0,), side: int = SIDE) -> Wanted:
        shape = (max(parts) + 1, side, side)
        return Wanted(key, shape, np.dtype(np.uint16), parts, lambda part, pixels: self.decode(key, part, pixels))

    def decode(self, key: int, part: int, pixels: np.ndarray[Any, Any]) -> None:
        with self.lock:
            self.failing[key, part] = left = self.failing.get((key, part), 0) - 1
            if left >= 0:
                raise OSError(f"tile {key}, part {part}")
            self.decoded[key, part] += 1
        pixels[part] = value(key, part)


def value(key: int, part: int) -> int:
    return 16 * key + part


def farthest(trace: list[int], room: int) -> int:
    """Count the misses of the best eviction there is (Belady 1966): the farthest next use goes first."""
    kept: set[int] = set()
    misses = 0
    for i, key in enumerate(trace):
        if key not in kept:
            misses += 1
            if len(kept) == room:
                ahead = {old: trace.index(old, i) if old in trace[i:] else len(trace) for old in kept}
                kept.remove(max(kept, key=lambda old: ahead[old]))
            kept.add(key)
    return misses


def longest_unused(trace: list[int], room: int) -> int:
    kept: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for key in trace:
        misses += key not in kept
        kept[key] = None
        kept.move_to_end(key)
        if len(kept) > room:
            kept.popitem(last=False)
    return misses


@quickly
@given(st.lists(st.integers(0, 12), max_size=80), st.integers(1, 10), st.integers(1, 100))
def test_evicts_as_the_oracles_do(trace: list[int], room: int, ahead: int) -> None:
    expecting, blind, some = (Tiles(room * SIZE) for _ in range(3))
    decoder = Decoder()
    with expecting.expecting() as all_uses, some.expecting() as few_uses:
        all_uses.add(trace)
        for i, key in enumerate(trace):
            if i % ahead == 0:
                few_uses.add(trace[i : i + ahead])
            for tiles, uses in ((expecting, all_uses), (blind, None), (some, few_uses)):
                with tiles.hold([decoder.wanted(key)], uses) as (pixels,):
                    assert (pixels == value(key, 0)).all()
    assert expecting.counts.decoded == farthest(trace, room) <= longest_unused(trace, room)
    assert blind.counts.decoded == longest_unused(trace, room)
    assert some.counts.decoded >= expecting.counts.decoded
    assert len(all_uses) == len(few_uses) == 0


@quickly
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=40), st.integers(0, 8), st.data())
def test_any_sequence_of_holds(holds: list[list[int]], room: int, data: st.DataObject) -> None:
    tiles, decoder = Tiles(room * SIZE), Decoder()
    for keys in holds:
        parts = tuple(data.draw(st.sets(st.integers(0, 2), min_size=1), label="parts"))
        sides = data.draw(st.sampled_from([(SIDE,), (SIDE, 2 * SIDE)]), label="sides")
        wanted = [decoder.wanted(10 * len(sides) + key, parts, sides[key % len(sides)]) for key in keys]
        wanted = [one._replace(shape=(3, *one.shape[1:])) for one in wanted]
        with tiles.hold(wanted) as held:
            for one, pixels in zip(wanted, held, strict=True):
                assert pixels.shape == one.shape
                for part in parts:
                    assert (pixels[part] == value(int(one.key), part)).all()  # type: ignore[call-overload]
            assert tiles.counts.held >= sum({id(pixels): pixels.nbytes for pixels in held}.values())
        assert tiles.counts.held <= tiles.budget
        if data.draw(st.booleans(), label="smaller"):
            tiles.budget //= 2
            assert tiles.counts.held <= tiles.budget
    tiles.clear()
    assert tiles.counts.held == 0


def together(*work: Callable[[], object]) -> None:
    """Run each in a thread of its own; raise what one of them raised, or where one does not end."""
    errors: list[BaseException] = []

    def run(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "threads wait for each other"
    if errors:
        raise errors[0]


def test_eight_threads_decode_each_part_once() -> None:
    tiles, decoder = Tiles(2**20), Decoder()
    start = threading.Barrier(8)

    def work() -> None:
        start.wait(PATIENCE)
        with tiles.hold([decoder.wanted(key, (0, 1, 2)) for key in range(30)]) as held:
            for key, pixels in enumerate(held):
                assert (pixels == np.array([value(key, part) for part in range(3)])[:, None, None]).all()

    together(*[work] * 8)
    assert decoder.decoded == {(key, part): 1 for key in range(30) for part in range(3)}
    assert tiles.counts.decoded == 90


def test_opposite_orders_do_not_lock() -> None:
    tiles = Tiles(2**20)
    both = threading.Barrier(2)  # each thread is decoding its first tile before either wants its second
    calls: Counter[str] = Counter()

    def wanted(key: str) -> Wanted:
        def decode(part: int, pixels: np.ndarray[Any, Any]) -> None:
            both.wait(PATIENCE)
            calls[key] += 1
            pixels[part] = 1

        return Wanted(key, (1, SIDE, SIDE), np.dtype(np.uint8), (0,), decode)

    def work(*keys: str) -> None:
        with tiles.hold([wanted(key) for key in keys]) as held:
            assert all((pixels == 1).all() for pixels in held)

    together(lambda: work("a", "b"), lambda: work("b", "a"))
    assert calls == {"a": 1, "b": 1}


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_threads_with_failures_see_right_pixels(seed: int, room: int) -> None:
    tiles = Tiles(room * 2 * SIZE)
    rng = np.random.default_rng(seed)
    decoder = Decoder({(int(key), int(part)): 2 for key, part in rng.integers((0, 0), (10, 2), (6, 2))})
    plans = [[[int(k) for k in rng.integers(0, 10, 4)] for _ in range(25)] for _ in range(4)]

    def work(plan: list[list[int]]) -> None:
        with tiles.expecting() as uses:
            uses.add(key for keys in plan for key in keys)
            for keys in plan:
                try:
                    with tiles.hold([decoder.wanted(key, (0, 1)) for key in keys], uses) as held:
                        for key, pixels in zip(keys, held, strict=True):
                            assert (pixels[0] == value(key, 0)).all()
                            assert (pixels[1] == value(key, 1)).all()
                except OSError:
                    pass  # the decoder fails on purpose

    together(*[lambda plan=plan: work(plan) for plan in plans])
    assert tiles.counts.held <= tiles.budget
    assert tiles.counts.decoded == sum(decoder.decoded.values())
    tiles.clear()
    assert tiles.counts.held == 0


def test_what_is_forgotten_is_decoded_anew_into_the_same_memory() -> None:
    source, tiles = Decoder(), Tiles(10**6)
    with tiles.hold([source.wanted(0)]) as kept:
        with tiles.hold([source.wanted(1), source.wanted(2)]):
            pass
        before = tiles.counts.held
        tiles.forget()
        assert tiles.counts.held == before
        with tiles.hold([source.wanted(0), source.wanted(1)]) as again:
            assert again[0] is kept[0]
            assert (again[1] == value(1, 0)).all()
    assert tiles.counts.held == before
    assert source.decoded == {(0, 0): 1, (1, 0): 2, (2, 0): 1}


def test_an_error_is_raised_where_it_happened_and_not_kept() -> None:
    tiles, decoder = Tiles(2**20), Decoder({(1, 0): 1})
    with pytest.raises(OSError, match="tile 1, part 0"), tiles.hold([decoder.wanted(0), decoder.wanted(1)]):
        pytest.fail("held a tile that could not be decoded")
    with tiles.hold([decoder.wanted(0), decoder.wanted(1)]) as (_, pixels):
        assert (pixels == value(1, 0)).all()
    assert decoder.decoded == {(0, 0): 1, (1, 0): 1}


def test_who_waits_for_a_part_that_fails_decodes_it() -> None:
    tiles, decoder = Tiles(2**20), Decoder({(0, 0): 1})
    decoding, wanted = threading.Event(), decoder.wanted(0)

    def slowly(part: int, pixels: np.ndarray[Any, Any]) -> None:
        decoding.set()
        while not tiles._tiles[0].waiting:  # until the other thread waits for this one
            decoding.wait(0.001)
        wanted.decode(part, pixels)

    def first() -> None:
        with pytest.raises(OSError, match="tile 0"), tiles.hold([wanted._replace(decode=slowly)]):
            pytest.fail("held a tile that could not be decoded")

    def second() -> None:
        decoding.wait(PATIENCE)
        with tiles.hold([wanted]) as (pixels,):
            assert (pixels == value(0, 0)).all()

    together(first, second)
    assert decoder.decoded == {(0, 0): 1}


def test_parts_are_decoded_when_first_needed() -> None:
    tiles, decoder = Tiles(2**20), Decoder()
    whole = decoder.wanted(0, (0, 1, 2))
    for parts in ((1,), (0, 1), (0, 1, 2), (2,)):
        with tiles.hold([whole._replace(parts=parts)]) as (pixels,):
            assert [pixels[part, 0, 0] for part in parts] == [value(0, part) for part in parts]
    assert decoder.decoded == {(0, 0): 1, (0, 1): 1, (0, 2): 1}
    assert tiles.counts.hits == 1


def test_what_is_held_is_not_evicted_and_the_budget_gives_way() -> None:
    tiles, decoder = Tiles(2 * SIZE), Decoder()
    with tiles.hold([decoder.wanted(key) for key in range(3)]) as first:
        with tiles.hold([decoder.wanted(key) for key in range(3, 6)]):
            assert tiles.counts.held == 6 * SIZE
        assert tiles.counts.held == 3 * SIZE
        assert [int(pixels[0, 0, 0]) for pixels in first] == [value(key, 0) for key in range(3)]
    assert tiles.counts.held == 2 * SIZE


def test_buffers_are_made_once_and_serve_any_shape_of_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    empty = np.empty

    def counted(size: int, dtype: type) -> np.ndarray[Any, Any]:
        made.append(size)
        return empty(size, dtype)

    monkeypatch.setattr(np, "empty", counted)
    tiles, decoder = Tiles(4 * SIZE), Decoder()
    for key in range(100):
        wanted = decoder.wanted(key)
        if key % 2:
            wanted = wanted._replace(shape=(2, SIDE, SIDE), dtype=np.dtype(np.uint8), decode=lambda *_: None)
        with tiles.hold([wanted]) as (pixels,):
            assert (pixels.shape, pixels.dtype) == (wanted.shape, wanted.dtype)
    assert made == [SIZE] * 4
    assert tiles.counts.evicted == 96


def test_uses_that_will_not_come_are_taken_back() -> None:
    tiles, decoder = Tiles(2 * SIZE), Decoder()

    def use(*keys: int) -> None:
        for key in keys:
            with tiles.hold([decoder.wanted(key)]):
                pass

    with tiles.expecting() as uses:
        uses.add([0])
        use(0, 1, 2)  # 0 is expected, so 1 makes room
        assert decoder.decoded[0, 0] == 1
    use(3)  # nothing is expected any more: 0 was not used for longest
    use(2)
    assert decoder.decoded[2, 0] == 1
    use(0)
    assert decoder.decoded[0, 0] == 2


def test_the_nearest_use_of_all_runs_counts() -> None:
    tiles, decoder = Tiles(2 * SIZE), Decoder()
    with tiles.expecting() as one, tiles.expecting() as other:
        one.add([0, 1])
        other.add([2, 0])
        with tiles.hold([decoder.wanted(0)], one), tiles.hold([decoder.wanted(1)], one):
            pass
        with tiles.hold([decoder.wanted(2)], other), tiles.hold([decoder.wanted(0)], other):
            pass
    assert decoder.decoded[0, 0] == 1


def test_many_hits_leave_nothing_behind() -> None:
    tiles, decoder = Tiles(4 * SIZE), Decoder()
    wanted = [decoder.wanted(key) for key in range(5)]
    for i in range(2000):
        with tiles.hold([wanted[i % 4]]):
            pass
        with tiles.hold([wanted[4 * (i % 100 == 0)]]):
            pass
    assert len(tiles._ranking._heap) < 200
    assert len(tiles._ranking.touched) <= 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_starts_an_empty_cache() -> None:
    before = shared().budget
    tiles = shared(2**20)
    with tiles.hold([Decoder().wanted(0)]), tiles._lock:  # as another thread may at that moment
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn where there are threads
            child = os.fork()
        if child == 0:
            own = shared()
            os._exit(0 if own is not tiles and own.budget == 2**20 and own.counts.held == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shared(before) is tiles
    tiles.clear()
