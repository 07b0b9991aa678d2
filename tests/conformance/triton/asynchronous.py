"""The main methods through tritonclient's asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from .case import problem, run_async, simple_inputs, value

MANY = 100


async def states(client: InferenceServerClient) -> object:
    return [
        await client.is_server_live(),
        await client.is_server_ready(),
        await client.is_model_ready("simple"),
        await client.is_model_ready("absent"),
    ]


async def metadata(client: InferenceServerClient) -> object:
    return {
        "server": (await client.get_server_metadata()).name,
        "model": (await client.get_model_metadata("simple")).name,
        "config": (await client.get_model_config("simple")).config.name,
        "statistics": (await client.get_inference_statistics("simple")).model_stats[0].name,
        "index": len((await client.get_model_repository_index()).models) > 1,
        "log": (await client.get_log_settings()).settings["log_info"].bool_param,
        "trace": list((await client.get_trace_settings()).settings["trace_level"].value),
        "regions": list((await client.get_system_shared_memory_status()).regions),
    }


async def infer(client: InferenceServerClient) -> object:
    return value(await client.infer("simple", simple_inputs(), request_id="one"))


async def many_at_once(client: InferenceServerClient) -> object:
    calls = [
        client.infer("simple", simple_inputs(index), request_id=str(index)) for index in range(MANY)
    ]
    results = await asyncio.gather(*calls)
    return {result.get_response().id: value(result)[0][0] for result in results}


async def cancelled_calls(client: InferenceServerClient) -> object:
    calls = [
        asyncio.ensure_future(client.infer("simple", simple_inputs(index))) for index in range(MANY)
    ]
    # All are on their way when the first is answered.
    _, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    cancelled = [call for call in calls[::2] if call in pending and call.cancel()]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    answered = sum(not isinstance(end, BaseException) for end in ends)
    return {
        "others_answered": answered == MANY - len(cancelled),
        "live": await client.is_server_live(),
    }


async def error(client: InferenceServerClient) -> object:
    try:
        await client.infer("absent", simple_inputs())
    except InferenceServerException as refused:
        return problem(refused)
    raise AssertionError("the request was not refused")


async def unload_and_load(client: InferenceServerClient) -> object:
    await client.unload_model("reloaded")
    try:
        unloaded = await client.is_model_ready("reloaded")
    finally:
        await client.load_model("reloaded")
    return [unloaded, await client.is_model_ready("reloaded")]


async def stream(client: InferenceServerClient) -> object:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for name, model in (("first", "simple"), ("second", "absent"), ("third", "simple")):
            yield {"model_name": model, "inputs": simple_inputs(), "request_id": name}

    results = 0
    errors = []
    async for result, refused in client.stream_infer(requests()):
        results += refused is None and value(result)[0][0] == 2
        errors += [problem(refused)] if refused is not None else []
    return {"results": results, "errors": errors}


if __name__ == "__main__":
    run_async(
        [
            *(states, metadata, infer, many_at_once, cancelled_calls),
            *(error, unload_and_load, stream),
        ]
    )
