"""Work in order on threads: what comes out, when, and what is left behind."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geopipes.threads import IN_FLIGHT, in_order


class Made:
    """What work makes: can be watched."""

    def __init__(self, position: int) -> None:
        self.position = position


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("geopipes-read")]


@given(st.lists(st.integers(), max_size=30), st.integers(1, 5), st.integers(1, 8))
def test_all_comes_in_order(positions: list[int], threads: int, together: int) -> None:
    assert list(in_order(lambda at: -at, positions, threads, together)) == [(at, -at) for at in positions]
    assert not readers()


@given(st.integers(0, 11), st.integers(1, 4), st.integers(1, 8))
def test_what_raises_is_raised_at_its_place(wrong: int, threads: int, together: int) -> None:
    def work(at: int) -> int:
        if at >= wrong:
            raise ValueError(f"no {at}")
        return at

    run = in_order(work, range(12), threads, together)
    assert [next(run) for _ in range(wrong)] == [(at, at) for at in range(wrong)]
    with pytest.raises(ValueError, match=f"no {wrong}$"):
        next(run)
    assert not readers()


@pytest.mark.parametrize("together", [1, 4])
def test_an_error_does_not_wait_for_what_comes_after_it(together: int) -> None:
    go_on = threading.Event()

    def work(at: int) -> int:
        if at == 0:
            raise ValueError("at once")
        assert go_on.wait(60)
        return at

    run = in_order(work, range(8), 3, together)
    timer = threading.Timer(0.2, go_on.set)  # closing waits for what is being worked on
    timer.start()
    with pytest.raises(ValueError, match="at once"):
        next(run)
    timer.join()


@pytest.mark.parametrize(("threads", "together"), [(1, 1), (3, 1), (1, 4), (2, 4)])
def test_no_more_is_begun_than_fits_in_flight(threads: int, together: int) -> None:
    begun: list[int] = []
    run = in_order(lambda at: begun.append(at), range(100), threads, together)
    for taken in range(20):
        next(run)
        group = taken // together * together + together  # those that whoever takes them waits for
        assert len(begun) <= group - 1 + IN_FLIGHT * threads
    run.close()  # type: ignore[attr-defined]
    assert len(begun) < 100
    assert not readers()


@pytest.mark.parametrize("together", [1, 4])
def test_what_was_taken_is_not_kept(together: int) -> None:
    run = in_order(Made, range(8), 2, together)
    made = [weakref.ref(result) for _, result in run]
    gc.collect()
    assert [ref() for ref in made] == [None] * 8


def test_a_run_that_nobody_closed_does_not_keep_the_interpreter_from_ending() -> None:
    text = "from geopipes.threads import in_order; run = in_order(abs, range(99), 2); print(next(run))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "(0, 0)\n"
    assert done.stderr == ""
