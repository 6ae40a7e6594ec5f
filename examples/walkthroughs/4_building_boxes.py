# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 4. Boxes around buildings, and back on the map
#
# Aerial imagery of a town and its buildings as polygons: each chip gets the boxes of what it shows, in pixels, in
# ragged batches as detectors take them. What a detector answers goes back on the map.

# %%
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import geopipes as gp
from geopipes.labels import boxes_to_frame
from geopipes.testing import synthetic_town

out = Path("out")
town = synthetic_town(out / "town", size=512)

# %% [markdown]
# A building that the chip's edge cuts counts where a third of it is seen. Homes, garages and shops are classes.

# %%
batches = (
    gp.items(town.items)
    .stack(["red", "green", "blue"], groupby="solar_day")
    .chip(128)
    .read()
    .boxes(town.buildings, column="use", min_visible=1 / 3)
    .tensor(image=["red", "green", "blue"], target="boxes", fill=0, time_axis=False)
    .batch(6)
)
batch = next(iter(batches))
images, targets = list(batch["image"] / 255), batch["target"]  # model(images, targets)
print([tuple(target["boxes"].shape) for target in targets], targets[0]["labels"])

# %% [markdown]
# A detector answers with boxes in pixels too; here the answer is the truth.

# %%
found = boxes_to_frame(targets, batch, crs="EPSG:4326")
print(found.head(3))

# %%
figure = Figure(figsize=(7, 4.8), layout="constrained")
for axis, image, target in zip(figure.subplots(2, 3).ravel(), images, targets, strict=True):
    axis.imshow(image.permute(1, 2, 0))
    for (x0, y0, x1, y1), label in zip(target["boxes"].tolist(), target["labels"], strict=True):
        color = ["#ff2d7e", "#ffd92f", "#35c9ff"][label - 1]
        axis.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, color=color))
    axis.set(xticks=[], yticks=[])
figure.savefig(out / "building_boxes.png", dpi=80)
figure
