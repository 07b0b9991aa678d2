"""The generated class as the judge of the walk over a request's bytes, and of templates."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd_server.errors import InvalidInput
from inferd_server.inference.template import Template, TemplateCache, learn, split
from inferd_server.inference.wire import is_text, parse


def parsed(message: bytes) -> ModelInferRequest | None:
    """What the generated class makes of a message; None: it refuses."""
    try:
        return ModelInferRequest.FromString(message)
    except DecodeError:
        return None


def whole(message: bytes) -> bytes | None:
    """The same in one form."""
    request = parsed(message)
    return None if request is None else request.SerializeToString(deterministic=True)


def walked(message: bytes) -> bytes | None:
    """What `parse` makes of it, put together again."""
    try:
        request, raw = parse(message)
    except InvalidInput:
        return None
    assert not request.raw_input_contents
    request.raw_input_contents.extend(bytes(entry) for entry in raw)
    return request.SerializeToString(deterministic=True)


def check_hit(first: bytes, second: bytes) -> bool:
    """Learn one message and look another up; whatever hits must be read alike."""
    read, template = parsed(first), learned(first)
    places = split(second)
    found = None
    if read is not None and template is not None and places is not None:
        found = template.find(second, places)
    if read is None or places is None or found is None:
        return False
    other = parsed(second)
    identity = second[places[0] : places[1]][2:]
    if other is None:
        # The id is the one thing that is read anew: it may be no text.
        assert not is_text(identity)
        return True
    assert without_id_and_payloads(other) == without_id_and_payloads(read)
    assert other.id == identity.decode()
    assert payloads(found, second, places[1]) == list(other.raw_input_contents)
    return True


def learned(message: bytes) -> TemplateCache[str] | None:
    """Return a cache that knows one message; None if that is too unusual."""
    parts = split(message)
    template = None if parts is None else learn(message, parts[1], "known")
    if parts is None or template is None:
        return None
    cache: TemplateCache[str] = TemplateCache()
    cache.add(message, parts, template)
    return cache


def payloads(found: Template[str], message: bytes, rest: int) -> list[bytes]:
    """Return the payloads of a message that fits a template."""
    return [bytes(found.elements(message, rest, i)) for i in range(len(found.payloads))]


def without_id_and_payloads(request: ModelInferRequest) -> bytes:
    """Return the rest of a request, in one form: NaN is not equal to itself."""
    copy = ModelInferRequest()
    copy.CopyFrom(request)
    copy.ClearField("id")
    copy.ClearField("raw_input_contents")
    return copy.SerializeToString(deterministic=True)
