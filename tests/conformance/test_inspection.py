"""tritonclient asks what there is and how it is."""

from __future__ import annotations

from .conftest import Results

TRITON = "inspection"


def test_the_server_is_live_and_ready(triton: Results) -> None:
    assert triton("live") is True
    assert triton("ready") is True


def test_a_model_is_ready_where_it_has_the_version(triton: Results) -> None:
    assert triton("model_ready") == [True, True, False, False]


def test_server_metadata_names_the_extensions_that_clients_look_for(triton: Results) -> None:
    metadata = triton("server_metadata")
    assert metadata["name"] == "inferd"
    assert metadata["version"]
    wanted = {"classification", "model_repository", "statistics", "system_shared_memory"}
    assert wanted <= set(metadata["extensions"])
    assert "cuda_shared_memory" not in metadata["extensions"]


def test_model_metadata_describes_the_tensors_with_their_batch_dimension(triton: Results) -> None:
    metadata = triton("model_metadata")
    # JSON writes int64 as text.
    assert metadata["inputs"] == [
        {"name": name, "datatype": "INT32", "shape": ["-1", "16"]} for name in ("INPUT0", "INPUT1")
    ]
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["OUTPUT0", "OUTPUT1"]
    assert (metadata["name"], metadata["versions"]) == ("simple", ["1"])
    assert metadata["platform"] == "onnxruntime_onnx"


def test_model_metadata_of_fixed_shapes_has_them_as_they_are(triton: Results) -> None:
    expected = [{"name": "INPUT0", "datatype": "FP32", "shape": ["3", "4"]}]
    assert triton("model_metadata_of_fixed_shapes") == expected


def test_what_is_unknown_is_not_found_by_name_or_version(triton: Results) -> None:
    refusals = triton("metadata_of_unknown_models")
    assert [refusal["code"] for refusal in refusals] == ["NOT_FOUND"] * 4
    assert "'absent'" in refusals[0]["message"]
    assert "'9'" in refusals[1]["message"]


def test_model_config_keeps_the_batch_dimension_out_of_dims(triton: Results) -> None:
    config = triton("model_config")
    assert config["max_batch_size"] == 32
    assert config["input"][0] == {"name": "INPUT0", "data_type": "TYPE_INT32", "dims": ["16"]}
    assert "dynamic_batching" in config
    assert config["instance_group"][0]["kind"] == "KIND_CPU"


def test_model_config_without_a_batch_dimension_says_0_and_whole_shapes(triton: Results) -> None:
    expected = {"max_batch_size": 0, "dims": [3, 4], "scheduling": None}
    assert triton("model_config_of_fixed_shapes") == expected


def test_statistics_count_what_was_served_and_not_what_was_refused(triton: Results) -> None:
    [model] = triton("statistics")
    assert (model["name"], model["version"]) == ("counted", "1")
    assert model["inference_count"] == "3"
    stats = model["inference_stats"]
    assert stats["success"]["count"] == "3"
    assert stats["fail"].get("count", "0") == "0"
    assert int(stats["compute_infer"]["ns"]) > 0
    assert [batch["batch_size"] for batch in model["batch_stats"]] == ["1"]


def test_statistics_without_a_name_have_every_version(triton: Results) -> None:
    found = triton("statistics_of_everything")
    assert ["versions", "1"] in found
    assert ["versions", "2"] in found
    assert ["simple", "1"] in found


def test_the_index_lists_every_version_with_its_state(triton: Results) -> None:
    found = triton("repository_index")
    assert ["versions", "1", "READY"] in found
    assert ["versions", "2", "READY"] in found
    assert len(found) == len({tuple(entry[:2]) for entry in found})
