"""What tests and examples stand on: scenes made from a seed, a STAC API and a store for them on loopback.

Nothing is downloaded. The scenes are real files (Cloud-optimized GeoTIFFs with STAC items) of a world that is
a function of position, so what two scenes, two dates or a scene and its label say of one place agrees:
farmland from a satellite, a town from the air.

>>> scenes = synthetic_scenes(folder, seed=0)                     # doctest: +SKIP
>>> with serve(scenes.items) as api:                              # doctest: +SKIP
...     pystac_client.Client.open(api.url).search(bbox=scenes.bbox).item_collection()
>>> town = synthetic_town(folder, seed=0)                         # doctest: +SKIP
>>> buildings = gp.vectors(town.buildings)                        # doctest: +SKIP
>>> with object_server(folder, latency=0.04, faults=[Fault("busy", share=0.05)]) as server:  # doctest: +SKIP
...     gp.items(server.served(scenes.items))
"""

from geopipes.testing.answers import Request
from geopipes.testing.api import LocalAPI, serve
from geopipes.testing.faults import Fault
from geopipes.testing.floods import Flood, synthetic_flood
from geopipes.testing.objects import ObjectServer, object_server
from geopipes.testing.scenes import Synthetic, synthetic_scenes
from geopipes.testing.towns import Town, synthetic_town
from geopipes.testing.world import CLASSES, LandCover

__all__ = [
    "CLASSES", "Fault", "Flood", "LandCover", "LocalAPI", "ObjectServer", "Request", "Synthetic", "Town",
    "object_server", "serve", "synthetic_flood", "synthetic_scenes", "synthetic_town",
]  # fmt: skip
