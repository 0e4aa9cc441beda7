"""Scores a Ray Data set, and goes on with the results in Ray Data.

    $ python examples/ray_datasets.py
    540 rows, accuracy 0.98
    digits seen: {0: 5..., 9: 5...}

Needs `pip install 'ovray[data]'`. Blocks go from node to node as references: neither pixels nor results pass
through this process.
"""

import ray
import ray.data

import ovray
from ovray import digits

# Quiet, since it is an example; Ray Data says a lot.
ray.data.DataContext.get_current().enable_progress_bars = False

images = ray.data.read_parquet(str(digits.held_out_file()))
# Any steps of Ray Data before ...
images = images.map_batches(lambda batch: {**batch, "is_round": (batch["label"] == 0) | (batch["label"] == 8)})

scored = ovray.score(digits.model_file(), images, input="pixels", outputs=["digit"])

# ... and behind.
right = scored.map_batches(lambda batch: {"right": batch["digit"] == batch["label"]})
print(f"{scored.count()} rows, accuracy {right.mean('right'):.2f}")
counts = scored.groupby("digit").count().sort("digit").to_pandas()
print("digits seen:", dict(zip(counts["digit"].tolist(), counts["count()"].tolist(), strict=True)))
