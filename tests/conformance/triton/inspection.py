"""Liveness, readiness, metadata, configuration, statistics and the repository's index."""

from __future__ import annotations

from tritonclient.grpc import InferenceServerClient

from .case import refusal, row, run


def live(client: InferenceServerClient) -> object:
    return client.is_server_live()


def ready(client: InferenceServerClient) -> object:
    return client.is_server_ready()


def model_ready(client: InferenceServerClient) -> object:
    asked = (("simple", ""), ("versions", "2"), ("versions", "9"), ("absent", ""))
    return [client.is_model_ready(name, version) for name, version in asked]


def server_metadata(client: InferenceServerClient) -> object:
    return client.get_server_metadata(as_json=True)


def model_metadata(client: InferenceServerClient) -> object:
    return client.get_model_metadata("simple", as_json=True)


def model_metadata_of_fixed_shapes(client: InferenceServerClient) -> object:
    return client.get_model_metadata("fixed", as_json=True)["inputs"]


def metadata_of_unknown_models(client: InferenceServerClient) -> object:
    return [
        refusal(client.get_model_metadata, "absent"),
        refusal(client.get_model_metadata, "simple", "9"),
        refusal(client.get_model_config, "absent"),
        refusal(client.get_inference_statistics, "absent"),
    ]


def model_config(client: InferenceServerClient) -> object:
    return client.get_model_config("simple", as_json=True)["config"]


def model_config_of_fixed_shapes(client: InferenceServerClient) -> object:
    # The message, because JSON leaves out what is 0.
    config = client.get_model_config("fixed").config
    return {
        "max_batch_size": config.max_batch_size,
        "dims": list(config.input[0].dims),
        "scheduling": config.WhichOneof("scheduling_choice"),
    }


def statistics(client: InferenceServerClient) -> object:
    for _ in range(3):
        client.infer("counted", row(1, 2, 3, 4))
    refusal(client.infer, "counted", row(1, 2))
    return client.get_inference_statistics("counted", as_json=True)["model_stats"]


def statistics_of_everything(client: InferenceServerClient) -> object:
    found = client.get_inference_statistics().model_stats
    return [[item.name, item.version] for item in found]


def repository_index(client: InferenceServerClient) -> object:
    found = client.get_model_repository_index().models
    return [[item.name, item.version, item.state] for item in found]


if __name__ == "__main__":
    run(
        [
            *(live, ready, model_ready, server_metadata, metadata_of_unknown_models),
            *(model_metadata, model_metadata_of_fixed_shapes),
            *(model_config, model_config_of_fixed_shapes),
            *(statistics, statistics_of_everything, repository_index),
        ]
    )
