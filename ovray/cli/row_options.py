"""The options that say how rows are prepared and what is made of results."""

from typing import Annotated

import typer

LayoutOption = Annotated[
    str | None,
    typer.Option(
        metavar="NHWC|NCHW", help="How the values of pictures lie in the data. Default: as the model wants."
    ),
]
ResizeOption = Annotated[
    str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Size that pictures get, by linear interpolation.")
]
MeanOption = Annotated[
    str | None,
    typer.Option(metavar="X[,X...]", help="Subtracted in the graph: one number, or one for each channel."),
]
ScaleOption = Annotated[
    str | None, typer.Option(metavar="X[,X...]", help="Values are divided by it, after --mean.")
]
ColorOption = Annotated[
    str | None,
    typer.Option(metavar="BGR2RGB|RGB2BGR", help="Order of colours in the data, and what the model wants."),
]
OutputsOption = Annotated[
    str | None, typer.Option(metavar="NAME,...", help="Outputs of the model that are wanted. Default: all.")
]
TopKOption = Annotated[
    int | None, typer.Option(metavar="K", help="The K best classes and their scores instead of all scores.")
]
ArgmaxOption = Annotated[bool, typer.Option("--argmax", help="The best class instead of all scores.")]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Names of the classes, one a line; added to what --argmax and --top-k give."
    ),
]
DtypeOption = Annotated[
    str | None, typer.Option(metavar="float16", help="Store results that are floats in half precision.")
]
FormatOption = Annotated[
    str, typer.Option(metavar="parquet|csv|arrow", help="Format of the result files; lists in CSV are JSON.")
]
RowsPerFileOption = Annotated[
    int | None, typer.Option(metavar="N", help="The most rows in one result file; files end at its multiples.")
]
PreprocessOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="Function that makes the model's inputs: takes a dict of column name to NumPy array, gives a dict of"
        " input name to array.",
    ),
]
PostprocessOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="Function that makes the results: takes a dict of output name to NumPy array, gives a dict of column"
        " name to array.",
    ),
]
