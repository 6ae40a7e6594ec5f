"""The loader: epochs, ranks, states, batches ahead; whatever loads, the same batches come."""

from __future__ import annotations

import gc
import itertools
import json
import multiprocessing
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import geopipes as gp
from geopipes.errors import EmptyBatch, StateError, StepError
from geopipes.loaders import HOLE, Loader
from geopipes.testing import Synthetic

REFUSED = (3, 40)
"""Chips that a filter or a read refuses: too few to empty any rank's part of a batch."""


def plan(land: Synthetic) -> gp.Plan[xr.Dataset]:
    cubes = gp.items(land.items).stack(["red", "nir"], resolution=10, crs="utm", groupby="solar_day")
    return cubes.chip(32, time=1).take(72)


def kept(sample: dict[str, Any]) -> bool:
    return sample["chip"] not in REFUSED


def jittered(sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {"chip": sample["chip"], "random": float(rng.random()), "image": sample["image"]}


def identity(element: Any) -> Any:
    return element


def pipe(land: Synthetic, batch: int, *, filtered: bool) -> gp.Pipe[Any]:
    samples = plan(land).shuffle(seed=0).read(threads=2).tensor(image=["red", "nir"], fill=0)
    return (samples.filter(kept) if filtered else samples).map(jittered, rng=True).batch(batch)


def numbers(pipe: gp.Pipe[Any], epochs: Sequence[int]) -> list[list[tuple[int, float]]]:
    """Give what an uninterrupted run of one process delivers, batch by batch."""
    return [content(batch) for epoch in epochs for batch in pipe.epoch(epoch)]


def content(batch: dict[str, Any]) -> list[tuple[int, float]]:
    assert len(batch["image"]) == len(batch["chip"])
    return list(zip(batch["chip"].tolist(), batch["random"].tolist(), strict=True))


# Elastic exactness.

CHAINS: dict[tuple[int, bool], gp.Pipe[Any]] = {}
WHOLE: dict[tuple[int, bool], list[list[tuple[int, float]]]] = {}


@pytest.fixture(scope="module", autouse=True)
def _chains(land: Synthetic) -> None:
    for key in itertools.product((12, 24), (False, True)):
        CHAINS[key] = pipe(land, key[0], filtered=key[1])
        WHOLE[key] = numbers(CHAINS[key], range(9))


def steps_of(loaders: Sequence[Loader], steps: int) -> list[list[tuple[int, float]]]:
    """Take steps with all ranks, one epoch after the other, and put their rows together again."""
    delivered: list[list[tuple[int, float]]] = []
    while steps:
        some = min(steps, len(loaders[0]) - loaders[0].state_dict()["position"] // batch_of(loaders[0]))
        rows = [list(itertools.islice(loader, some)) for loader in loaders]
        for parts in zip(*rows, strict=True):
            delivered.append([row for part in parts for row in content(part)])
        steps -= some
    return delivered


def batch_of(loader: Loader) -> int:
    return int(loader._ops[-1].n)  # type: ignore[attr-defined]


def same(delivered: list[list[tuple[int, float]]], whole: list[list[tuple[int, float]]], ranks: list[int]) -> None:
    """Compare batches as sets of rows; of one rank in their order too."""
    assert len(delivered) == len(whole)
    for batch, expected, count in zip(delivered, whole, ranks, strict=True):
        assert sorted(batch) == sorted(expected)
        if count == 1:
            assert batch == expected


@settings(max_examples=15)
@given(
    batch=st.sampled_from([12, 24]),
    filtered=st.booleans(),
    legs=st.lists(st.tuples(st.sampled_from([1, 2, 3, 4]), st.integers(1, 5)), min_size=4, max_size=5),
)
def test_resumed_again_and_again_with_other_ranks_it_is_one_run(
    batch: int, filtered: bool, legs: list[tuple[int, int]]
) -> None:
    """Each leg has so many ranks and takes so many steps; it begins where the one before stood, over epochs."""
    chain = CHAINS[batch, filtered]
    state: dict[str, Any] | None = None
    delivered, ranks = [], []
    for count, steps in legs:
        loaders = [chain.loader(rank=rank, ranks=count, prefetch=rank % 3) for rank in range(count)]
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
        delivered += steps_of(loaders, steps)
        ranks += [count] * steps
        states = [loader.state_dict() for loader in loaders]
        assert all(other == states[0] for other in states)
        state = states[-1]
    same(delivered, WHOLE[batch, filtered][: len(delivered)], ranks)


def test_rows_of_ranks_are_those_of_the_batch_in_turn(land: Synthetic) -> None:
    chain = CHAINS[12, False]
    whole = [batch["image"] for batch in chain]
    for ranks in (2, 3, 4, 6, 12):
        parts = [[batch["image"] for batch in chain.loader(rank=rank, ranks=ranks)] for rank in range(ranks)]
        for k, batch in enumerate(whole):
            for rank in range(ranks):
                torch.testing.assert_close(parts[rank][k], batch[rank::ranks], rtol=0, atol=0)


def test_the_end_of_an_epoch_is_the_beginning_of_the_next() -> None:
    chain = CHAINS[24, False]
    loader = chain.loader()
    steps = iter(loader)
    for _ in range(len(loader)):
        next(steps)
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (1, 0)  # before the loop knows
    with pytest.raises(StopIteration):
        next(steps)
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (1, 0)
    other = chain.loader()
    other.load_state_dict(loader.state_dict())
    assert [content(batch) for batch in other] == [content(batch) for batch in loader] == WHOLE[24, False][3:6]


def test_what_is_left_over_and_dropped_is_no_epoch_of_its_own(land: Synthetic) -> None:
    samples = plan(land).take(27).shuffle(seed=0).read().tensor(image=["red"], fill=0)
    batches = samples.batch(12, drop_last=True)
    loader, run = batches.loader(), iter(batches)
    steps = iter(loader)
    for _ in range(2):
        next(steps)
        next(run)
    for state in (loader.state_dict(), run.state_dict()):  # type: ignore[attr-defined]
        assert (state["epoch"], state["position"]) == (1, 0)
    other = batches.loader()
    other.load_state_dict(loader.state_dict())
    wanted = [batch["chip"].tolist() for batch in batches.epoch(1)]
    assert [batch["chip"].tolist() for batch in other] == wanted
    assert len(wanted) == len(other) == 2


def test_each_loop_is_an_epoch_also_after_one_that_was_left() -> None:
    chain = CHAINS[24, False]
    loader = chain.loader()
    assert [content(batch) for batch in loader] == WHOLE[24, False][:3]
    assert content(next(iter(loader))) == WHOLE[24, False][3]
    assert loader.epoch == 1
    assert [content(batch) for batch in loader] == WHOLE[24, False][6:9]
    iter(loader).close()  # has given nothing
    assert loader.epoch == 3
    loader.set_epoch(1)
    assert [content(batch) for batch in loader] == WHOLE[24, False][3:6]
    with pytest.raises(StepError, match="counted from 0"):
        loader.set_epoch(-1)


def test_a_state_of_another_run_is_refused_with_what_differs(land: Synthetic) -> None:
    state = CHAINS[12, False].loader().state_dict()
    samples = plan(land).shuffle(seed=0).read().tensor(image=["red", "nir"], fill=0)
    others = {
        r"order .*shuffle\(seed=0, lanes=32\).* -> .*shuffle\(seed=1, lanes=32\)": (
            plan(land).shuffle(seed=1).read().tensor(image=["red", "nir"], fill=0).map(jittered, rng=True).batch(12)
        ),
        r"step 3: batch\(12\) -> batch\(24\)": samples.map(jittered, rng=True).batch(24),
        r"step 2: map\(jittered, rng=True\) -> batch\(12\)": samples.batch(12),
        r"plan chips 72 -> 60": (
            plan(land).take(60).shuffle(seed=0).read().tensor(image=["red", "nir"], fill=0).map(jittered, rng=True)
        ).batch(12),
        r"step 1: tensor\(fill=0, image=\['red', 'nir'\]\) -> tensor\(fill=1": (
            plan(land).shuffle(seed=0).read().tensor(image=["red", "nir"], fill=1).map(jittered, rng=True).batch(12)
        ),
    }
    for text, chain in others.items():
        with pytest.raises(StateError, match=f"(?s)another plan or chain.*What differs:.*{text}"):
            chain.loader().load_state_dict(state)
    same_but_faster = plan(land).shuffle(seed=0).read(threads=5, cache=1 << 20).tensor(image=["red", "nir"], fill=0)
    same_but_faster.map(jittered, rng=True).batch(12).loader(prefetch=0, pad=True).load_state_dict(state)
    with pytest.raises(StateError, match="of version 0, needed is 1"):
        CHAINS[12, False].loader().load_state_dict({**state, "version": 0})
    with pytest.raises(StateError, match=r"\['epoch'\] is no state"):
        CHAINS[12, False].loader().load_state_dict({"epoch": 0})
    with pytest.raises(StateError, match="position 5: a step of 1 ranks takes 12 elements"):
        CHAINS[12, False].loader().load_state_dict({**state, "position": 5})
    taken = samples.take(7).loader()
    with pytest.raises(
        StateError, match=r"take\(n\) after read\(\) counts what comes by.*write|take chips of the plan"
    ):
        taken.state_dict()


def test_ranks_that_cannot_take_equal_steps_are_told(land: Synthetic) -> None:
    chain = CHAINS[12, False]
    with pytest.raises(StepError, match=r"batch\(12\) is the batch of all 5 ranks together"):
        iter(chain.loader(rank=0, ranks=5))
    samples = plan(land).take(27).read().tensor(image=["red"], fill=0)
    with pytest.raises(StepError, match=r"27 elements leave 3 over, .*drop_last=True.*loader\(pad=True\)"):
        iter(samples.batch(12).loader(rank=0, ranks=2))
    with pytest.raises(StepError, match=r"27 elements leave 1 over, which 2 ranks cannot .*; write loader\(pad"):
        iter(samples.loader(rank=0, ranks=2))
    for rank, ranks in ((2, 2), (1, None), (None, 2)):
        with pytest.raises(StepError, match="give both; ranks are counted from 0"):
            samples.batch(2).loader(rank=rank, ranks=ranks)
    with pytest.raises(StepError, match="give 0 or more of each"):
        samples.batch(2).loader(prefetch=-1)
    with pytest.raises(StepError, match=r"hands over batches: write .batch\(n\).loader"):
        samples.loader(processes=1)
    dropped = [[len(b["chip"]) for b in samples.batch(12, drop_last=True).loader(rank=r, ranks=2)] for r in (0, 1)]
    assert dropped == [[6, 6], [6, 6]]
    padded = samples.batch(12).loader(rank=1, ranks=2, pad=True)
    assert [len(b["chip"]) for b in padded] == [6, 6, 6]
    assert "3 steps an epoch, rank 1 of 2, 9 chips twice to fill the last one" in str(padded)
    one = [batch["chip"].tolist() for batch in samples.batch(12).loader(pad=True)]
    assert one[2] == [24, 25, 26, *range(9)]


def test_an_emptied_batch_is_said(land: Synthetic) -> None:
    samples = plan(land).take(24).read().tensor(image=["red"], fill=0)
    late = samples.filter(_late).batch(8)
    with pytest.warns(EmptyBatch, match="all elements of a batch were refused, by filter or as reads that failed"):
        assert [batch["chip"].tolist() for batch in late.loader(prefetch=0)] == [[*range(8, 16)], [*range(16, 24)]]
    with pytest.raises(StepError, match=r"(?s)this rank has nothing for a step that 2 ranks take.*plan.measure"):
        next(iter(late.loader(rank=0, ranks=2)))


def _late(sample: dict[str, Any]) -> bool:
    return bool(sample["chip"] >= 8)


class Torn:
    """A source that is read by position, of which some reads are skipped."""

    threads = 2

    def __len__(self) -> int:
        return 10

    @contextmanager
    def loading(self, positions: Sequence[int], loads: Any = None) -> Iterator[Callable[[int], Any]]:
        yield lambda position: HOLE if position in (2, 3, 7) else position

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("it is read by position")


def test_reads_that_are_skipped_leave_holes() -> None:
    torn = gp.Pipe(Torn()).map(identity).batch(4)
    assert list(torn) == [[0, 1], [4, 5, 6], [8, 9]]
    first = torn.loader()
    next(iter(first))
    second = torn.loader()
    second.load_state_dict(first.state_dict())
    assert list(second) == [[4, 5, 6], [8, 9]]
    assert [list(torn.loader(rank=rank, ranks=2)) for rank in (0, 1)] == [[[0], [4, 6], [8]], [[1], [5], [9]]]


# Random numbers.


def test_random_numbers_hang_on_seed_epoch_and_chip_alone(land: Synthetic) -> None:
    def drawn(seed: int, epoch: int, size: int = 12) -> dict[int, float]:
        samples = plan(land).shuffle(seed=seed).epoch(epoch).read().tensor(image=["red"], fill=0)
        batches = samples.map(jittered, rng=True).batch(size)
        return {chip: number for batch in batches for chip, number in content(batch)}

    first = drawn(0, 0)
    assert first == drawn(0, 0, 7)
    assert len({*first.values()}) == 72
    assert not {*first.items()} & {*drawn(0, 1).items()}
    assert not {*first.items()} & {*drawn(1, 0).items()}


def test_steps_that_draw_each_have_numbers_of_their_own(land: Synthetic) -> None:
    twice = plan(land).shuffle(seed=0).map(_noisy, rng=True).map(_noisy, rng=True)
    chip = next(iter(twice.read()))
    a, b = chip["noise0"].values, chip["noise1"].values
    assert (a != b).any()
    after = next(iter(plan(land).shuffle(seed=0).map(_noisy, rng=True).read().map(_noisy, rng=True)))
    np.testing.assert_array_equal(after["noise0"], a)
    np.testing.assert_array_equal(after["noise1"], b)
    np.testing.assert_array_equal(twice[0]["noise1"], b)  # the lazy chip is the one that is read
    other = next(iter(twice.epoch(1)[:1]))
    assert (other["noise0"].values != a).any()


def _noisy(chip: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    number = sum(str(name).startswith("noise") for name in chip.data_vars)
    return chip.assign({f"noise{number}": (chip["red"].dims, rng.normal(size=chip["red"].shape))})


def test_members_of_groups_draw_with_the_epoch_of_their_group(land: Synthetic) -> None:
    groups = plan(land).map(_noisy, rng=True).pairs(seed=0, gap=(1, 400)).shuffle(seed=0)
    chips = {int(group["anchor"]["chip"]): group["anchor"]["noise0"].values for group in groups.take(5).read()}
    later = {int(g["anchor"]["chip"]): g["anchor"]["noise0"].values for g in groups.epoch(1).read()}
    assert all((later[chip] != noise).any() for chip, noise in chips.items())


def test_random_numbers_are_drawn_between_chip_and_batch(land: Synthetic) -> None:
    with pytest.raises(StepError, match=r"write it between chip\(...\) and batch\(...\)"):
        CHAINS[12, False].map(jittered, rng=True)
    with pytest.raises(StepError, match=r"write it between chip"):
        gp.items(land.items).map(jittered, rng=True)
    assert list(gp.Pipe([5, 5]).map(_random, rng=True)) == list(gp.Pipe([5, 5]).map(_random, rng=True))


def _random(number: int, rng: np.random.Generator) -> float:
    return number + float(rng.random())


# Runs.


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_two_live_loops_do_not_disturb_each_other(prefetch: int) -> None:
    loader = CHAINS[12, False].loader(prefetch=prefetch)
    first, second = iter(loader), None
    seen: dict[int, list[Any]] = {0: [content(next(first))], 1: []}
    second = iter(loader)
    for _ in range(4):
        seen[1].append(content(next(second)))
        seen[0].append(content(next(first)))
    assert seen[0] == WHOLE[12, False][:5]
    assert seen[1] == WHOLE[12, False][6:10]
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (1, 48)  # the later loop's


@pytest.mark.parametrize("prefetch", [0, 2])
def test_none_is_an_element(prefetch: int) -> None:
    nones = gp.Pipe([None, 1, None]).map(identity)
    assert list(nones.loader(prefetch=prefetch)) == [None, 1, None]
    loader = nones.loader(prefetch=prefetch)
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())
    assert list(loader) == [1, None]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_ends_the_loop_and_is_raised_again(land: Synthetic, prefetch: int) -> None:
    loader = (
        plan(land).read(threads=2).tensor(image=["red"], fill=0).map(_fails_at_9).batch(4).loader(prefetch=prefetch)
    )
    steps = iter(loader)
    assert [next(steps)["chip"].tolist() for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for _ in range(2):
        with pytest.raises((ZeroDivisionError, StepError)) as error:
            next(steps)
    assert prefetch or "this run ended with an error, ZeroDivisionError" in str(error.value)
    cause = error.value if prefetch else error.value.__cause__
    assert cause is not None
    assert cause.__notes__[:2] == ["in step map(_fails_at_9)", "at element 9 (chip 9)"]
    assert loader.state_dict()["position"] == 8
    assert not _threads()


def _fails_at_9(sample: dict[str, Any]) -> dict[str, Any]:
    return {"chip": sample["chip"], "x": torch.tensor(1 // (sample["chip"] != 9))}


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("geopipes")]


def test_leaving_a_loop_leaves_nothing_behind(land: Synthetic) -> None:
    chain = plan(land).shuffle(seed=0).read(threads=3).tensor(image=["red"], fill=0).batch(4)
    loader = chain.loader()
    files = _open_files()
    for k in range(200):
        for i, _ in enumerate(loader if k % 2 else chain):
            if i == k % 5:
                break
    assert not _threads()
    assert _open_files() <= files + len(land.items) * 2  # those that the reader keeps for the next run
    steps = iter(loader)
    next(steps)
    assert _threads()
    loader.close()
    assert not _threads()
    with pytest.raises(StopIteration):
        next(steps)
    with chain.loader() as closed:
        next(iter(closed))
    del steps
    gc.collect()
    assert not _threads()


def _open_files() -> int:
    import os

    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_a_loader_travels_as_what_it_loads() -> None:
    loader = CHAINS[12, False].loader()
    next(iter(loader))
    other = pickle.loads(pickle.dumps(loader))
    assert other.state_dict() == loader.state_dict()
    assert content(next(iter(other))) == WHOLE[12, False][6]


# Devices: what can be shown without one.


def test_batches_are_moved_with_all_that_is_in_them(land: Synthetic) -> None:
    chain = plan(land).take(8).read().tensor(image=["red"], fill=0).map(_nested).batch(4)
    here, there = list(chain), list(chain.loader(device="cpu"))
    torch.testing.assert_close(there[0]["image"], here[0]["image"])
    on_meta = next(iter(chain.loader(device="meta")))
    assert on_meta["image"].device.type == on_meta["more"]["deep"].device.type == "meta"
    assert on_meta["name"] == ["a"] * 4


def _nested(sample: dict[str, Any]) -> dict[str, Any]:
    return {"image": sample["image"], "more": {"deep": sample["image"]}, "name": "a"}


# Looking on.


def test_a_loader_is_profiled_and_draws_a_bar(land: Synthetic, capsys: pytest.CaptureFixture[str]) -> None:
    loader = CHAINS[12, True].loader(progress=True)
    with loader.profile() as report:
        seen = sum(len(batch["chip"]) for batch in loader)
    assert seen == 70
    table = report.table()
    assert table.loc["your loop", "calls"] == 6
    assert table.loc["batch(12)", "calls"] == 6
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("epoch 0 [")
    assert "72/72" in last
    assert "2 skipped" in last
    assert "chips/s" in last
    smaller_at_the_end = plan(land).take(27).read().tensor(image=["red"], fill=0).batch(12).loader(progress=True)
    assert sum(len(batch["chip"]) for batch in smaller_at_the_end) == 27
    assert "27/27" in (last := capsys.readouterr().err.strip().splitlines()[-1])
    assert "skipped" not in last
    next(iter(smaller_at_the_end))
    assert "12/27" in capsys.readouterr().err  # of a loop that was left


# Worker processes: whatever loads, the same batches come.


def test_resumed_with_other_processes_it_is_one_run() -> None:
    chain, state = CHAINS[12, True], None
    delivered: list[list[tuple[int, float]]] = []
    for processes, steps in ((1, 3), (2, 5), (0, 2), (2, 1)):
        with chain.loader(processes=processes) as loader:
            if state is not None:
                loader.load_state_dict(state)
            delivered += steps_of([loader], steps)
            state = json.loads(json.dumps(loader.state_dict()))
    assert delivered == WHOLE[12, True][:11]


def test_ranks_of_processes_and_their_epochs() -> None:
    chain = CHAINS[12, False]
    loaders = [chain.loader(processes=rank + 1, rank=rank, ranks=2) for rank in (0, 1)]
    same(steps_of(loaders, 8), WHOLE[12, False][:8], [2] * 8)
    for loader in loaders:
        loader.close()
    assert not _threads()
    assert not multiprocessing.active_children()
