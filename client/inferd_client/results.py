"""What came back: outputs by name, and which model and version gave them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from inferd.oip.v2 import inference_pb2
from inferd.tensors import Array

from inferd_client import parameters, payloads
from inferd_client.errors import InvalidResponse
from inferd_client.parameters import Parameters

TOKEN = "inferd_prediction_token"  # noqa: S105 the name of a parameter
"""Parameter of a request that asks for a token, and of the response that has it."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Result(Mapping[str, Array]):
    """A mapping from output names to arrays, in the order of the response.

    Arrays are read-only views of the response where the elements have a fixed size, and
    arrays of `bytes` objects for BYTES; copy one to change it.
    """

    model_name: str
    model_version: str
    id: str
    parameters: Parameters
    outputs: Mapping[str, Array]

    @property
    def prediction_token(self) -> str:
        """What names this answer in `feedback`; "" if it was not asked for."""
        return str(self.parameters.get(TOKEN, ""))

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def __repr__(self) -> str:
        shown = (f"{name}={array.dtype}{list(array.shape)}" for name, array in self.items())
        return f"<Result of {self.model_name}/{self.model_version}: {', '.join(shown)}>"


def read(response: inference_pb2.ModelInferResponse) -> Result:
    """Read a response in full, so that nothing wrong in it is found later.

    Raises:
        InvalidResponse: an output's datatype, shape and length do not agree, a name comes
            twice, or raw contents do not match the outputs one to one.
    """
    raws = response.raw_output_contents
    if raws and len(raws) != len(response.outputs):
        raise InvalidResponse(f"{len(raws)} raw contents came for {len(response.outputs)} outputs")
    outputs: dict[str, Array] = {}
    for index, output in enumerate(response.outputs):
        if output.name in outputs:
            raise InvalidResponse(f"output {output.name!r} came twice")
        outputs[output.name] = payloads.decode(output, raws[index] if raws else None)
    return Result(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        parameters=parameters.decode(response.parameters),
        outputs=outputs,
    )
