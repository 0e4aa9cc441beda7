#!/usr/bin/env bash
# A data set overnight: score a folder of Parquet files, lose the job half-way, and carry on with the same command.
#
#     $ bash examples/offline_parquet.sh parquet-example
#     wrote 54000 rows in 6 files
#     killed with ... parts done
#     rows 54000, accuracy 0.98, from days [1, 2, 3, 4, 5, 6]
#     a page about the second run is in parquet-example/report.html
#
set -euo pipefail
mkdir "$1" && cd "$1"

# Folders as Hive and Spark write them: day=1/images.parquet becomes the column `day`.
python - <<'PYTHON'
import pathlib

import pandas
from ovray import digits

images = pandas.concat([pandas.read_parquet(digits.held_out_file())] * 100)
images["name"] = [f"image-{number}" for number in range(len(images))]
for day in range(1, 7):
    folder = pathlib.Path("data", f"day={day}")
    folder.mkdir(parents=True)
    images[day - 1 :: 6].to_parquet(folder / "images.parquet", row_group_size=1000)
print("wrote", len(images), "rows in 6 files")
PYTHON

model=$(python -c 'from ovray import digits; print(digits.model_file())')
job=(ovray score "$model" data --input pixels --keep name,label,day --outputs digit --output scores
  --on-error record --rows-per-file 1000 --report report.html --quiet)

# Somebody pulls the plug when a part is done ...
"${job[@]}" &
until compgen -G 'scores/part-*' > /dev/null || ! kill -0 $! 2> /dev/null; do sleep 0.05; done
kill -9 $! 2> /dev/null || true
wait $! 2> /dev/null || true
echo "killed with $(compgen -G 'scores/part-*' | wc -l) parts done"

# ... and the same command does what is missing.
"${job[@]}"
test -e scores/_SUCCESS

python - <<'PYTHON'
import pandas

scores = pandas.read_parquet("scores")
assert scores["name"].is_unique
days = sorted(int(day) for day in scores["day"].unique())
print(f"rows {len(scores)}, accuracy {(scores.label == scores.digit).mean():.2f}, from days {days}")
PYTHON
echo "a page about the second run is in $1/report.html"
