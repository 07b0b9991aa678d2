"""ModelInfer with typed contents, which only messages built by hand have."""

from __future__ import annotations

import sys

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import triton_to_np_dtype

from .case import report

Request = service_pb2.ModelInferRequest
# The field, and two elements for each input of the model `numbers`, in its order.
CONTENTS = {
    "BOOL": ("bool_contents", [True, False]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65535]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-32768, 32767]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "FP32": ("fp32_contents", [-1.5, 2.5]),
    "FP64": ("fp64_contents", [-1e300, 1e-300]),
}


class Typed:
    """Cases over one stub."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def numbers(self) -> object:
        answer = self._stub.ModelInfer(numbers_request(CONTENTS))
        found = zip(answer.outputs, answer.raw_output_contents, strict=True)
        return {
            output.datatype: np.frombuffer(raw, triton_to_np_dtype(output.datatype)).tolist()
            for output, raw in found
        }

    def strings(self) -> object:
        answer = self._stub.ModelInfer(strings_request([b"a", b""]))
        return [answer.id, answer.outputs[0].datatype, answer.raw_output_contents[0].hex()]

    def element_out_of_range(self) -> object:
        return self._refused(numbers_request(CONTENTS | {"INT8": ("int_contents", [0, 128])}))

    def wrong_field(self) -> object:
        return self._refused(numbers_request(CONTENTS | {"INT8": ("fp32_contents", [0, 1])}))

    def too_few_elements(self) -> object:
        return self._refused(strings_request([b"a"]))

    def strings_that_are_not_text(self) -> object:
        return self._refused(strings_request([b"a", b"\xff"], "joined"))

    def bytes_of_an_image(self) -> object:
        answer = self._stub.ModelInfer(strings_request([b"a", b"\xff\xd8"]))
        return answer.raw_output_contents[0].hex()

    def contents_beside_raw_contents(self) -> object:
        message = strings_request([b"a", b"b"])
        message.raw_input_contents.append(b"\x00\x00\x00\x00" * 2)
        return self._refused(message)

    def half_precision(self) -> object:
        message = Request(model_name="halves")
        for index, datatype in enumerate(("FP16", "BF16")):
            item = message.inputs.add(name=f"INPUT{index}", datatype=datatype, shape=[1, 2])
            item.contents.fp32_contents.extend([1.0, 2.0])
        return self._refused(message)

    def _refused(self, message: Request) -> dict[str, str]:
        """Return the code and message of a request that must fail."""
        try:
            self._stub.ModelInfer(message)
        except grpc.RpcError as error:
            return {"code": error.code().name, "message": error.details()}
        raise AssertionError("the request was not refused")


def numbers_request(contents: dict[str, tuple[str, list]]) -> Request:
    """Return a request for the model `numbers`."""
    message = Request(model_name="numbers")
    for index, (datatype, (field, elements)) in enumerate(contents.items()):
        item = message.inputs.add(name=f"INPUT{index}", datatype=datatype, shape=[1, 2])
        getattr(item.contents, field).extend(elements)
    return message


def strings_request(elements: list[bytes], model: str = "strings") -> Request:
    """Return a request of one row for a model of two strings."""
    message = Request(model_name=model, id="typed")
    item = message.inputs.add(name="INPUT0", datatype="BYTES", shape=[1, 2])
    item.contents.bytes_contents.extend(elements)
    return message


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as typed_channel:
        typed = Typed(typed_channel)
        for case in (
            *(typed.numbers, typed.strings, typed.element_out_of_range, typed.wrong_field),
            *(typed.too_few_elements, typed.strings_that_are_not_text),
            *(typed.contents_beside_raw_contents, typed.half_precision, typed.bytes_of_an_image),
        ):
            report(case.__name__, case)
