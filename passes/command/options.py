"""Options that several commands share, read and checked before any work."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from passes.pipeline import Pipeline


def add_data(
    parser: argparse.ArgumentParser, flag: str, help: str, *, required: bool = False
) -> None:
    """`flag DATA` and the options that say how to read it."""
    parser.add_argument(
        flag,
        metavar="DATA",
        required=required,
        help=help + ": .npz or .npy, or a folder of images, .wav, text or .npz files",
    )
    parser.add_argument(
        "--preprocess",
        metavar="TEXT",
        help="how images, sound or text become inputs, as in resize=256,crop=224,mean=127,std=128",
    )
    parser.add_argument(
        "--batch",
        type=positive,
        metavar="N",
        help="samples per batch (default: the model's fixed size, else 8)",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """`--threads` of the work that torch does."""
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="of the processor for running the graph (default: every core); on a busy machine "
        "--threads 1 is often fastest. Latency is always measured on one",
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def pair(text: str) -> tuple[str, str]:
    """`key=value`."""
    key, found, value = text.partition("=")
    if not found or not key.strip():
        raise argparse.ArgumentTypeError(f"'{text}' is not key=value")
    return key.strip(), value.strip()


def dims(text: str) -> dict[str, int]:
    """`batch=1,length=128`."""
    try:
        return {key: int(value) for key, value in map(pair, text.split(","))}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not name=number,...") from error


def pipeline(recipe: str, settings: Mapping[str, str], keep: Sequence[str]) -> Pipeline:
    """The pipeline of a recipe's name (or of a text), with `--set` and `--keep` filled in.

    Raises PipelineError for an unknown recipe, pass or option.
    """
    from ir.errors import PipelineError
    from passes.core import option_text
    from passes.pipeline import Pipeline

    chosen = dict(settings)
    if keep:
        chosen["keep"] = option_text(tuple(keep))
    if not chosen:
        return Pipeline.parse(recipe)
    if not recipe.strip().isidentifier():
        raise PipelineError(
            "--set and --keep need a recipe's name",
            hint="write the options into the pipeline's text, as in w8a8{clip=minmax}",
        )
    inside = ",".join(f"{key}={value}" for key, value in chosen.items())
    return Pipeline.parse(f"{recipe.strip()}{{{inside}}}")


def check_place(path: str | None, option: str, *, inputs: Sequence[str | None] = ()) -> None:
    """That a result can be written there, and would not replace an input; else OutputError."""
    from ir.errors import OutputError

    if path is None or path == "-":
        return
    place = Path(path)
    for other in inputs:
        if other is not None and place.exists() and Path(other).exists() and place.samefile(other):
            raise OutputError(
                f"{option} would replace an input", at=path, hint="choose another name"
            )
    folder = place.absolute().parent
    if not folder.is_dir():
        raise OutputError(
            f"{option}: the folder does not exist", at=folder, hint=f"mkdir -p '{folder}'"
        )
    if not os.access(folder, os.W_OK):
        raise OutputError(
            f"{option}: the folder cannot be written", at=folder, hint="choose another place"
        )


def read_model(path: str, screen) -> object:
    """The model as a graph."""
    import ir

    with screen.working(f"reading {Path(path).name}"):
        return ir.capture(path)
