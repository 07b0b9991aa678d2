"""inferd infer: run a model once and look at what comes back."""

from __future__ import annotations

import argparse
import json

from inferd_client import presentation
from inferd_client.client import Client
from inferd_client.commands import connect
from inferd_client.errors import EngineFailure, InvalidInput
from inferd_client.information import ModelMetadata
from inferd_client.inputs import arrays, assignment, guess, shape_assignment
from inferd_client.results import TOKEN, Result

HELP = "run a model once"

VALUES = """
VALUE is a JSON literal such as '[[1, 2]]', @file.npy, @file.npz:key, @file.json, random
or zeros. It is cast to the datatype that the model declares; random and zeros take the
model's shape, with 1 for every free dimension unless --shape says otherwise.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.epilog = VALUES
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        type=assignment,
        metavar="NAME=VALUE",
        help="an input tensor, once for each; see below",
    )
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        type=shape_assignment,
        metavar="NAME=1,2,3",
        help="shape of an input given as random or zeros",
    )
    parser.add_argument(
        "--output", action="append", default=[], metavar="NAME", help="only this output"
    )
    parser.add_argument("--version", default="", help="model version (default: the server's)")
    parser.add_argument(
        "--split", action="store_true", help="send rows beyond the model's maximum in further calls"
    )
    parser.add_argument(
        "--prediction-token", action="store_true", help="ask for what inferd feedback needs"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, values in full")
    parser.add_argument(
        "--save", metavar="OUT.npz", help="write the outputs; BYTES as S, BF16 as float32"
    )
    connect.configure(parser)


def run(arguments: argparse.Namespace) -> int:
    """Infer, print, and save if asked."""
    with connect.client(arguments) as client:
        metadata = client.metadata(arguments.model, arguments.version)
        result = _infer(client, arguments, metadata)
    if arguments.json:
        print(json.dumps(presentation.as_json(result), indent=2))
    else:
        print(presentation.as_text(result))
        if result.prediction_token:
            print(f"prediction token: {result.prediction_token}")
    if arguments.save:
        presentation.save(result, arguments.save)
    return 0


def _infer(client: Client, arguments: argparse.Namespace, metadata: ModelMetadata) -> Result:
    shapes = dict(arguments.shape)
    try:
        return client.infer(
            arguments.model,
            inputs=arrays(metadata, arguments.input, shapes),
            version=arguments.version,
            outputs=arguments.output,
            split=arguments.split,
            parameters={TOKEN: True} if arguments.prediction_token else {},
        )
    except (InvalidInput, EngineFailure) as error:
        hint = guess(metadata, arguments.input, shapes)
        raise type(error)(f"{error.message}; {hint}" if hint else error.message) from error
