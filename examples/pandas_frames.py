"""Scores a DataFrame, and gets a DataFrame back, all at once or piece by piece.

    $ python examples/pandas_frames.py
    540 rows in, 540 rows out, the same index
    accuracy 0.98
    most often taken for another digit: ...
    streamed 540 rows in ... pieces

What is not an input of the model is carried over, so the results stand beside what is known of each row.
"""

import pandas

import ovray
from ovray import digits

images = pandas.read_parquet(digits.held_out_file()).set_index("id")

scored = ovray.score(digits.model_file(), images)

assert scored.index.equals(images.index)
print(f"{len(images)} rows in, {len(scored)} rows out, the same index")
print(f"accuracy {(scored.label == scored.digit).mean():.2f}")
wrong = scored[scored.label != scored.digit]
print("most often taken for another digit:", wrong.label.value_counts().index[0])

# For more rows than this process should hold at once: replicas run a few megabytes ahead, and then wait.
pieces = [len(piece) for piece in ovray.iter_score(digits.model_file(), images, outputs=["digit"], ordered=False)]
print(f"streamed {sum(pieces)} rows in {len(pieces)} pieces")
