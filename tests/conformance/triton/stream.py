"""ModelStreamInfer: many requests in flight on one call, errors among them."""

from __future__ import annotations

import queue
from typing import TypeAlias

from tritonclient.grpc import InferenceServerClient, InferResult
from tritonclient.utils import InferenceServerException

from .case import problem, row, run, simple_inputs, value

Answer: TypeAlias = "tuple[InferResult | None, InferenceServerException | None]"

MANY = 300
ANSWER_TIMEOUT = 30.0


class Answers:
    """The callback of a stream, and what it was given."""

    def __init__(self) -> None:
        self._answers: queue.Queue[Answer] = queue.Queue()

    def __call__(self, result: InferResult | None, error: InferenceServerException | None) -> None:
        self._answers.put((result, error))

    def result(self) -> InferResult:
        """Return the next answer, which must be a result."""
        result, error = self._answers.get(timeout=ANSWER_TIMEOUT)
        assert error is None, error
        assert result is not None
        return result

    def error(self) -> dict[str, str | None]:
        """Return the next answer, which must be an error."""
        result, error = self._answers.get(timeout=ANSWER_TIMEOUT)
        assert result is None, result
        assert error is not None
        return problem(error)

    @property
    def left(self) -> int:
        """How many answers wait."""
        return self._answers.qsize()


def many_in_flight(client: InferenceServerClient) -> object:
    answers = Answers()
    client.start_stream(answers)
    for index in range(MANY):
        client.async_stream_infer("simple", simple_inputs(index), request_id=str(index))
    client.stop_stream()
    results = [answers.result() for _ in range(MANY)]
    return {result.get_response().id: value(result)[0][0] for result in results}


def error_in_the_middle(client: InferenceServerClient) -> object:
    answers = Answers()
    client.start_stream(answers)
    given = []
    for model in ("simple", "absent", "simple"):
        client.async_stream_infer(model, simple_inputs(), request_id=model)
        answer = answers.error() if model == "absent" else answers.result().get_response().id
        given.append(answer)
    client.stop_stream()
    return given


def wrong_shape_among_others(client: InferenceServerClient) -> object:
    answers = Answers()
    client.start_stream(answers)
    client.async_stream_infer("animals", row(1, 2))
    refused = answers.error()
    client.async_stream_infer("animals", row(1, 2, 3, 4), request_id="right")
    served = answers.result().get_response().id
    client.stop_stream()
    return {**refused, "served": served}


def stop_answers_everything_first(client: InferenceServerClient) -> object:
    answers = Answers()
    client.start_stream(answers)
    for _ in range(MANY):
        client.async_stream_infer("simple", simple_inputs())
    client.stop_stream()
    return answers.left


def unused_stream(client: InferenceServerClient) -> object:
    answers = Answers()
    client.start_stream(answers)
    client.stop_stream()
    return answers.left


def second_stream(client: InferenceServerClient) -> object:
    found = []
    for name in ("first", "second"):
        answers = Answers()
        client.start_stream(answers)
        client.async_stream_infer("simple", simple_inputs(), request_id=name)
        found.append(answers.result().get_response().id)
        client.stop_stream()
    return found


def cancelled_stream(client: InferenceServerClient) -> object:
    answers = Answers()
    client.start_stream(answers)
    client.async_stream_infer("simple", simple_inputs())
    answers.result()
    client.stop_stream(cancel_requests=True)
    return {**answers.error(), "server_live": client.is_server_live()}


def stream_past_its_deadline(client: InferenceServerClient) -> object:
    answers = Answers()
    client.start_stream(answers, stream_timeout=0.2)
    ended = answers.error()
    client.stop_stream()
    return ended


def stream_parameters(client: InferenceServerClient) -> object:
    answers = Answers()
    client.start_stream(answers, headers={"x-caller": "a"}, compression_algorithm="gzip")
    client.async_stream_infer(
        "simple",
        simple_inputs(),
        sequence_id="session",
        sequence_start=True,
        enable_empty_final_response=True,
        priority=1,
        timeout=10_000_000,
        parameters={"text": "a"},
    )
    found = value(answers.result())
    client.stop_stream()
    return found


def final_response(client: InferenceServerClient) -> object:
    answers = Answers()
    client.start_stream(answers)
    client.async_stream_infer("simple", simple_inputs(), enable_empty_final_response=True)
    client.stop_stream()
    sent = answers.result().get_response().parameters["triton_final_response"]
    return {"final": sent.bool_param, "left": answers.left}


if __name__ == "__main__":
    run(
        [
            *(many_in_flight, error_in_the_middle, wrong_shape_among_others),
            *(stop_answers_everything_first, unused_stream, second_stream),
            *(cancelled_stream, stream_past_its_deadline, stream_parameters, final_response),
        ]
    )
