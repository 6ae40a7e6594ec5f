"""Compiled kernels are kept on disk, for processes that compile side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FILL = """
import sys
import numpy as np
from geopipes.read.copies import settle
dtype = sys.argv[1]
out, ok = np.ones((1, 2, 2), dtype), np.zeros((1, 2, 2), bool)
settle(out, ok, np.full(1, 7, dtype), np.ones((2, 2), bool))
assert (out == 7).all()
if "kept" in sys.argv:
    assert sum(settle.stats.cache_hits.values()) == 1, settle.stats
"""

DTYPES = ("uint8", "int16", "uint16", "float32")


def test_processes_that_compile_at_once_keep_their_kernels_apart(tmp_path: Path) -> None:
    environment = dict(os.environ, NUMBA_CACHE_DIR=str(tmp_path))

    def begun(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", FILL, *arguments], env=environment, stderr=subprocess.PIPE, text=True
        )

    for one in [begun(dtype) for dtype in DTYPES]:
        assert one.wait() == 0, one.stderr and one.stderr.read()
        assert one.stderr is not None
        one.stderr.close()
    code = [file.name for file in tmp_path.rglob("*settle*.nbc")]
    assert len(code) == len(DTYPES)
    for dtype in DTYPES:  # whichever the index lists are loaded, and are the right ones
        again = begun(dtype)
        assert again.stderr is not None
        assert again.wait() == 0, again.stderr.read()
        again.stderr.close()
    last = begun(DTYPES[-1], "kept")
    assert last.stderr is not None
    assert last.wait() == 0, last.stderr.read()
    last.stderr.close()
