"""One pool of replicas, used by several drivers at once. It needs a Ray that outlives them: `ray start --head`.

    $ python examples/shared_pool.py open
    the pool `digits` serves
    $ python examples/shared_pool.py ask & python examples/shared_pool.py ask; wait
    540 digits, accuracy 0.98
    540 digits, accuracy 0.98
    $ ovray pools
    ...digits...
    $ ovray stop digits
    ...

The model is compiled once, and is there when the next driver comes. Each driver has a queue of its own; replicas
serve them in turns.
"""

import sys

import pandas

import ovray
from ovray import digits

if sys.argv[1:] == ["open"]:
    ovray.compile_model(digits.model_file(), "MULTI", name="digits", lifetime="detached")
    print("the pool `digits` serves")
else:
    compiled = ovray.attach("digits")
    images = pandas.read_parquet(digits.held_out_file())
    inputs = (pixels.reshape(1, 64) for pixels in images["pixels"])
    read = [int(results["digit"][0]) for results in compiled.map(inputs)]
    print(f"{len(read)} digits, accuracy {(images['label'] == read).mean():.2f}")
