"""Options that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ssbhash.registry import METHODS


class Weighting(str, Enum):
    """Inputs made of texts."""

    log_tf = "log-tf"
    tf_idf = "tf-idf"


class Analyzer(str, Enum):
    """What terms of texts are made of."""

    word = "word"
    char = "char"


class Ties(str, Enum):
    """Order of items at equal distance."""

    expected = "expected"
    id = "id"


class Denominator(str, Enum):
    """What average precision is divided by."""

    hits = "hits"
    relevant = "min(k, relevant)"


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]
Backend = Annotated[str, typer.Option(help="Search engine: auto, native, numba, reference.")]
Threads = Annotated[int | None, typer.Option(help="Threads at most [default: all].", min=1)]
TextField = Annotated[str, typer.Option(help="Field with the text.")]
VectorField = Annotated[
    str | None, typer.Option(help="Field with a vector, to be used in place of a text.")
]
IdField = Annotated[
    str | None, typer.Option(help="Field with an item's own id: no feature, and shown in results.")
]
LabelField = Annotated[str, typer.Option(help="Field with the label, or a list of labels.")]
Data = Annotated[Path, typer.Argument(help="Items; texts or features. - is standard input.")]


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(METHODS)}.")
    return name


MethodOption = Annotated[
    str,
    typer.Option(
        metavar=f"[{'|'.join(METHODS)}]",
        help="What to train.",
        callback=_known_method,
        autocompletion=lambda: list(METHODS),
    ),
]
Bits = Annotated[int, typer.Option(help="Length of the codes.", min=1)]
LabelsFile = Annotated[Path | None, typer.Option(help="Labels, if not in DATA.")]
Supervision = Annotated[
    float | None, typer.Option(help="Hide all labels but this share, at random.")
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the items.", min=1)]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any parameter of the method; repeat."),
]
WeightingOption = Annotated[Weighting, typer.Option(help="Texts: input.")]
MaxTerms = Annotated[int, typer.Option(help="Texts: size of the vocabulary.")]
MinDf = Annotated[int, typer.Option(help="Texts that a term must occur in.")]
Ngrams = Annotated[int, typer.Option(help="Texts: longest term in words or characters, 1 to 5.")]
AnalyzerOption = Annotated[
    Analyzer, typer.Option(help="Texts: terms are words, or characters (scripts without spaces).")
]
TokenPattern = Annotated[
    str | None, typer.Option(help=r"Texts: regular expression of a word, such as \S+.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a model that is there already.")]
Storage = Annotated[str | None, typer.Option(help="File that keeps the trials; go on from it.")]
ModelOption = Annotated[Path | None, typer.Option(help="Model that encodes the data files.")]
