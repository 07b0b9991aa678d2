"""Responses that carry a prediction token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inferd.oip.v2.inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from inferd.tensors import Array, Buffer

from inferd_server.errors import InvalidInput
from inferd_server.feedback.tokens import MOST_ROWS, Prediction, TokenSigner, short_digest
from inferd_server.inference.response import AnsweredRequest, OutputTarget, Responses
from inferd_server.inference.validation import switch
from inferd_server.models.config import FeedbackConfig
from inferd_server.models.predictions import predicted, predicting_output
from inferd_server.models.version import Handle

TOKEN = "inferd_prediction_token"  # noqa: S105 the name of a parameter
"""Parameter of a request that asks for a token, and of the response that has it."""


class TokenResponses(Responses):
    """Encodes the responses to one form of request, each with its token. Any thread may call."""

    def __init__(
        self,
        model_name: str,
        handle: Handle,
        targets: Sequence[OutputTarget],
        signer: TokenSigner,
    ) -> None:
        """Prepare.

        Args:
            model_name: as the callers wrote it.
            handle: of the version that serves.
            targets: what to send, in order.
            signer: makes the tokens.

        Raises:
            InvalidInput: it cannot be told which output has the classes.
        """
        super().__init__(model_name, handle.version, targets)
        self._handle = handle
        self._signer = signer
        self._digest = short_digest(handle.digest)
        self._output = predicting_output(handle.signature, handle.config).name
        self._threshold = (handle.config.feedback or FeedbackConfig()).threshold

    def encode(self, request: AnsweredRequest, outputs: Mapping[str, Array]) -> list[Buffer]:
        """Return the parts of a response, the id last; see `Responses.encode`.

        Raises:
            InvalidInput: as there, or the output with the classes is empty.
        """
        parts = super().encode(request, outputs)
        handle = self._handle
        classes, confidences = predicted(
            outputs[self._output], batched=handle.batched, threshold=self._threshold
        )
        said = Prediction(handle.name, handle.version, self._digest, classes, confidences)
        value = InferParameter(string_param=self._signer.sign(said))
        parts.insert(-1, ModelInferResponse(parameters={TOKEN: value}).SerializeToString())
        return parts


def wants_token(request: ModelInferRequest, handle: Handle, rows: int) -> bool:
    """Decide whether the answer to a request carries a token.

    Raises:
        InvalidInput: it asks for one of more rows than a token has, or the parameter is neither
            true nor false.
    """
    asked = switch(request.parameters, TOKEN)
    if asked and rows > MOST_ROWS:
        raise InvalidInput(f"a prediction token has at most {MOST_ROWS} rows, not {rows}")
    return (handle.config.always_token if asked is None else asked) and rows <= MOST_ROWS
