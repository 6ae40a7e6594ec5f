"""What all tests share: the folder of real imagery, hypothesis profiles, the network marker."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from geopipes.testing import Synthetic, synthetic_scenes

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib: pictures are made without a screen
os.environ["GEOPIPES_CACHE"] = ""  # nothing is kept from one test to another, unless a test says where

# Nothing asserts a duration: a slow machine is no failure.
settings.register_profile("local", max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Give the folder of real imagery: GEOPIPES_REAL_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("GEOPIPES_REAL_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real imagery at {folder}; set GEOPIPES_REAL_DATA to the folder that holds it")
    return folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs the internet unless -m speaks of it."""
    if re.search(r"\bnetwork\b", config.getoption("markexpr")):
        return
    skip = pytest.mark.skip(reason="needs the internet: ask for it by -m network")
    for item in items:
        if item.get_closest_marker("network"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def land(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """Give small synthetic scenes: two dates in two UTM zones, 192 px a side."""
    return synthetic_scenes(tmp_path_factory.mktemp("land"), dates=("2024-05-03", "2024-06-07"), size=192)
