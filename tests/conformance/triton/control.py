"""Loading and unloading, trace and log settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tritonclient.grpc import InferenceServerClient

from .case import refusal, row, run, value

MODEL = "reloaded"
INPUTS = (1, 2, 3, 4)


def unload_and_load(client: InferenceServerClient) -> object:
    client.unload_model(MODEL)
    try:
        unloaded = {
            "ready": client.is_model_ready(MODEL),
            "server_ready": client.is_server_ready(),
            "infer": refusal(client.infer, MODEL, row(*INPUTS)),
            "metadata": refusal(client.get_model_metadata, MODEL),
            "index": index(client),
        }
    finally:
        client.load_model(MODEL)
    answer = value(client.infer(MODEL, row(*INPUTS)))
    return {"unloaded": unloaded, "index": index(client), "answer": answer}


def index(client: InferenceServerClient) -> list[str]:
    """Return version, state and reason of the model."""
    found = client.get_model_repository_index().models
    [entry] = [entry for entry in found if entry.name == MODEL]
    return [entry.version, entry.state, entry.reason]


def load_again(client: InferenceServerClient) -> object:
    client.load_model(MODEL)
    return client.is_model_ready(MODEL)


def unload_with_dependents(client: InferenceServerClient) -> object:
    client.unload_model(MODEL, unload_dependents=True)
    try:
        return client.is_model_ready(MODEL)
    finally:
        client.load_model(MODEL)


def unknown_models(client: InferenceServerClient) -> object:
    return [refusal(client.load_model, "absent"), refusal(client.unload_model, "absent")]


def load_with_another_configuration(client: InferenceServerClient) -> object:
    def batch_size() -> int:
        return client.get_model_config(MODEL).config.max_batch_size

    def versions() -> list[str]:
        return list(client.get_model_metadata(MODEL).versions)

    client.load_model(MODEL, config=json.dumps({"max_batch_size": 2}))
    small = batch_size()
    client.load_model(MODEL, config="{}", files={"file:3/model.onnx": identity()})
    other = versions()
    answer = value(client.infer(MODEL, row(*INPUTS)))
    broken = {"file:1/model.onnx": b"no model"}
    refused = refusal(client.load_model, MODEL, config="{}", files=broken)
    client.load_model(MODEL)
    return {
        "batch_sizes": [small, batch_size()],
        "versions": [other, versions()],
        "refused": refused,
        "answer": answer,
    }


def identity() -> bytes:
    """Return an ONNX model that returns INPUT0 FP32 [batch, 4] as OUTPUT0."""
    return (Path(sys.argv[2]) / "animals" / "1" / "model.onnx").read_bytes()


def trace_settings(client: InferenceServerClient) -> object:
    everything = client.get_trace_settings(as_json=True)
    of_model = client.get_trace_settings("simple", as_json=True)
    return {"settings": everything["settings"], "same": everything == of_model}


def update_trace_settings(client: InferenceServerClient) -> object:
    cleared = client.update_trace_settings(settings={"trace_rate": None}, as_json=True)
    return {
        "cleared": cleared["settings"]["trace_rate"],
        "changed": refusal(client.update_trace_settings, settings={"trace_level": ["TIMESTAMPS"]}),
        "unknown": refusal(client.update_trace_settings, settings={"loudness": ["1"]}),
    }


def log_settings(client: InferenceServerClient) -> object:
    return client.get_log_settings(as_json=True)["settings"]


def update_log_settings(client: InferenceServerClient) -> object:
    try:
        answer = client.update_log_settings({"log_verbose_level": 1}, as_json=True)
        read = client.get_log_settings(as_json=True)
    finally:
        restored = client.update_log_settings({"log_verbose_level": 0}, as_json=True)
    levels = [answer, read, restored]
    return [each["settings"]["log_verbose_level"] for each in levels]


def wrong_log_settings(client: InferenceServerClient) -> object:
    return [
        refusal(client.update_log_settings, {"loudness": True}),
        refusal(client.update_log_settings, {"log_file": "/tmp/log"}),
    ]


if __name__ == "__main__":
    run(
        [
            *(unload_and_load, load_again, unload_with_dependents, unknown_models),
            *(load_with_another_configuration, trace_settings, update_trace_settings),
            *(log_settings, update_log_settings, wrong_log_settings),
        ]
    )
