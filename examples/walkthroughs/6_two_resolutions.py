# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 6. Two resolutions on one footprint
#
# Bands of 10 m, a scene classification of 20 m and a crop map of 30 m in another CRS: each input keeps its own
# resolution, and a chip of each covers the same ground. Nothing is resampled to the finest.

# %%
from pathlib import Path

from matplotlib.figure import Figure

import geopipes as gp
from geopipes.testing import synthetic_scenes

out = Path("out")
land = synthetic_scenes(out / "scenes", dates=["2024-06-07"], zones=[15])
scenes = gp.items(land.items)
crs, bounds = "EPSG:32615", (248_400, 4_585_200, 252_000, 4_588_800)

# %%
inputs = gp.inputs(
    s2=scenes.stack(["nir", "red", "green"], resolution=10, crs=crs, bounds=bounds),
    scl=scenes.stack(["scl"], resolution=20, crs=crs, bounds=bounds),
    crop=gp.rasters(land.label).stack({"crop": "data"}, resolution=30, crs=crs, bounds=bounds),
)
print(inputs)

# %% [markdown]
# A chip is a size on the ground: 120 px of 10 m, 60 px of 20 m and 40 px of 30 m, which end on the same lines.

# %%
samples = inputs.chip(120).read().tensor(s2=["nir", "red", "green"], scl="scl", crop="crop", fill=0)
batch = next(iter(samples.batch(4)))
for name in ("s2", "scl", "crop"):
    print(name, tuple(batch[name].shape))

# %%
figure = Figure(figsize=(7, 5), layout="constrained")
for row, axes in enumerate(figure.subplots(2, 3)):
    panels = [batch["s2"][row, 0].permute(1, 2, 0) / 5_000, batch["scl"][row, 0], batch["crop"][row, 0]]
    for axis, name, panel in zip(axes, ("s2", "scl", "crop"), panels, strict=True):
        axis.imshow(panel.clip(0, 1) if name == "s2" else panel, cmap="tab20", vmin=0, vmax=19, interpolation="nearest")
        axis.set(xticks=[], yticks=[], title=f"{name}, {panel.shape[0]} px")
figure.savefig(out / "two_resolutions.png", dpi=80)
figure
