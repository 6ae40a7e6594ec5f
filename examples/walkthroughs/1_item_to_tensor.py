# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 1. One item to a tensor
#
# A STAC item names the files of a scene; a few of its bands become one lazy cube, and a part of that a tensor. The
# scene is synthetic and lies on this disk: put your own item, or `gp.search(...)`, in its place.

# %%
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import geopipes as gp
from geopipes.testing import synthetic_scenes

out = Path("out")
(item,) = synthetic_scenes(out / "scenes", dates=["2024-06-07"], zones=[15]).items
list(item.assets)

# %% [markdown]
# Nothing has been read yet: the chain prints what it will do, and the cube knows its grid and its date.

# %%
cubes = gp.items([item]).stack(["red", "green", "blue"], resolution=10)
print(cubes)
(cube,) = cubes
cube

# %% [markdown]
# Chips of 256 px, read to tensors. `image_valid` is False where nothing was measured, and there stands `fill`.

# %%
samples = [*cubes.chip(256).read().tensor(image=["red", "green", "blue"], fill=0)]
for name, value in samples[0].items():
    print(name, getattr(value, "shape", value))

# %%
figure = Figure(figsize=(6, 6), layout="constrained")
for axis, sample in zip(figure.subplots(2, 2).flat, samples, strict=True):
    axis.imshow(np.clip(sample["image"][0].permute(1, 2, 0).numpy() / 3_000, 0, 1))
    axis.set(xticks=[], yticks=[], title=f"chip {sample['chip']}")
figure.savefig(out / "item_to_tensor.png", dpi=80)
figure
