"""Stands in for torchvision, which TorchGeo imports and its RasterDataset never calls.

The wheels of torchvision fit one build of torch each; the benchmark needs none of what is in them. Every name is
there, so that imports succeed and classes can be derived; none does anything.
"""

from __future__ import annotations

import sys
from types import ModuleType


class _Stub(ModuleType):
    """A module in which every name is an empty class."""

    __path__: list[str] = []  # noqa: RUF012  (marks a package, so that modules may be imported from it)

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


for _name in ("datasets", "datasets.folder", "datasets.utils", "ops", "transforms", "transforms.functional", "utils"):
    sys.modules[f"{__name__}.{_name}"] = _Stub(f"{__name__}.{_name}")
    if "." not in _name:
        globals()[_name] = sys.modules[f"{__name__}.{_name}"]
sys.modules[f"{__name__}.transforms"].functional = sys.modules[f"{__name__}.transforms.functional"]  # type: ignore[attr-defined]
