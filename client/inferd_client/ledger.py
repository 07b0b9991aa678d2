"""Which requests of a stream wait for their answer, and which answer is whose."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from inferd.oip.v2 import inference_pb2

from inferd_client import errors, parameters, requests, results
from inferd_client.errors import InferdError, InvalidInput, InvalidResponse, Unavailable
from inferd_client.requests import Request
from inferd_client.results import Result


@dataclass(frozen=True, slots=True)
class StreamItem:
    """The answer to one request of a stream: its id, and a Result or an error."""

    id: str
    outcome: Result | InferdError

    @property
    def error(self) -> InferdError | None:
        """Why the request failed, or None."""
        return self.outcome if isinstance(self.outcome, InferdError) else None

    def result(self) -> Result:
        """Return the result.

        Raises:
            InferdError: the request failed.
        """
        if isinstance(self.outcome, InferdError):
            raise self.outcome
        return self.outcome


class Ledger:
    """The ids in flight on one stream.

    One thread may `enter` while another settles: each step on the set is atomic.
    """

    def __init__(self) -> None:
        self._waiting: set[str] = set()
        self._entered = 0
        # No caller's own id is likely to begin like this.
        self._prefix = secrets.token_hex(6)

    def enter(self, request: Request) -> inference_pb2.ModelInferRequest:
        """Build the message of a request, giving it an id if it has none.

        Raises:
            InvalidInput: the id is in flight already, or a tensor cannot be sent.
        """
        self._entered += 1
        message = requests.build(request, f"{self._prefix}-{self._entered}")
        if message.id in self._waiting:
            raise InvalidInput(f"a request with id {message.id!r} is in flight already")
        self._waiting.add(message.id)
        return message

    def settle(self, response: inference_pb2.ModelStreamInferResponse) -> StreamItem:
        """Find whose answer this is, and read it.

        Raises:
            InvalidResponse: it answers nothing that was asked.
        """
        answered = self._asked(response.infer_response.id)
        self._waiting.remove(answered)
        if response.error_message:
            return StreamItem(answered, _error(response))
        try:
            return StreamItem(answered, results.read(response.infer_response))
        except InvalidResponse as error:
            return StreamItem(answered, error)

    def _asked(self, answered: str) -> str:
        if answered in self._waiting:
            return answered
        waiting = tuple(self._waiting)
        # Some servers leave the id out of an error; with one request waiting it is clear whose.
        if not answered and len(waiting) == 1:
            return waiting[0]
        raise InvalidResponse(f"an answer came with id {answered!r}, which nothing waits for")

    def close(self, *, all_sent: bool) -> None:
        """Check that nothing is owed when the server has ended the stream.

        Raises:
            Unavailable: requests were left unanswered or unsent.
        """
        if self._waiting or not all_sent:
            raise Unavailable(f"the stream ended with {len(self._waiting)} requests unanswered")


def _error(response: inference_pb2.ModelStreamInferResponse) -> InferdError:
    sent = parameters.decode(response.infer_response.parameters)
    details = {name: str(value) for name, value in sent.items()}
    kind = errors.NAMES.get(details.get("inferd_error", ""), InferdError)
    return kind(response.error_message, details=details)
