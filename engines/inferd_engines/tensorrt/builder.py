"""From an ONNX file to a plan, and into a store."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inferd_engines.engine import Signature, Tensor
from inferd_engines.tensorrt.cache_store import attach, combined, timing_cache
from inferd_engines.tensorrt.errors import BuildCancelled, BuildFailed
from inferd_engines.tensorrt.key import Host, PlanKey
from inferd_engines.tensorrt.options import CURRENT, BuildOptions
from inferd_engines.tensorrt.precision import in_precision
from inferd_engines.tensorrt.profiles import Profile, profiles_for
from inferd_engines.tensorrt.progress import Build, monitor_of
from inferd_engines.tensorrt.recording import Recording, listeners_of, logger_of
from inferd_engines.tensorrt.shim import Library, required
from inferd_engines.tensorrt.store import PlanStore
from inferd_engines.tensorrt.tensors import check_datatypes, tensor_of

log = logging.getLogger(__name__)
USER_ALLOCATION = "REQUIRE_USER_ALLOCATION"
"""Flag of TensorRT-RTX, without which a run takes memory and cannot be captured."""
NO_RUNNERS = re.compile(r"(\S+?)(?:_\d+)? has no runners that implement it")
"""What the builder says of a layer that the parser knows and it does not."""


class Builder:
    """Builds plans with one flavour of TensorRT. One thread at a time."""

    def __init__(self, library: Library) -> None:
        """Prepare.

        Raises:
            BuildFailed: this flavour builds nothing.
        """
        if not library.builds:
            raise BuildFailed(f"{library.flavour} {library.version} runs plans and builds none")
        self.library = library
        self._trt = library.module
        self._recording = Recording()
        self._logger = logger_of(self._trt)

    def build(
        self,
        model: Path,
        options: BuildOptions,
        build: Build | None = None,
        timing_cache: bytes = b"",
        content: bytes | None = None,
    ) -> tuple[bytes, bytes]:
        """Build a plan; blocks, for seconds to many minutes.

        Args:
            model: ONNX file, with its external data beside it.
            options: how.
            build: tells how far it is, and may cancel.
            timing_cache: of an earlier build with the same TensorRT; empty for none.
            content: of the file, in one, where it must not get to a disk; None: it is read.

        Returns:
            The plan, and the timing cache as it is now (empty where the flavour has none).

        Raises:
            BuildFailed: the model cannot be read, or does not fit the options.
            BuildCancelled: somebody cancelled.
            PlanRefused: TensorRT has no such datatype.
        """
        build = build or Build()
        check_datatypes(model.read_bytes() if content is None else content)
        with in_precision(model, options.precision, content) as file:
            builder = self._begin()
            network = self._parse(builder, file, content)
            config = self._configure(builder, network, options, build)
            cache = attach(self.library, config, timing_cache)
            plan = self._serialize(builder, network, config, build)
        if build.cancelled:
            raise BuildCancelled(f"the build of {model.name} was cancelled")
        if plan is None:
            raise BuildFailed(self._why(model.name))
        return bytes(plan), b"" if cache is None else bytes(cache.serialize())

    def signature(self, model: Path) -> Signature:
        """Return the inputs and outputs of a model as TensorRT reads it.

        Raises:
            BuildFailed: the model cannot be read.
        """
        return signature_of(self._trt, self._parse(self._begin(), model))

    def combined(self, one: bytes, other: bytes) -> bytes:
        """Return a timing cache that knows what two know; `one` wins.

        Raises:
            BuildFailed: they cannot be joined.
        """
        return combined(self._begin().create_builder_config(), one, other)

    def _begin(self) -> Any:
        """Return TensorRT's builder.

        Without an error recorder, which TensorRT-RTX 1.7.1 does not survive in one: what it would
        get goes to the logger.
        """
        listeners_of(self._trt).listen(self._recording)
        self._recording.begin()
        return required(
            self._trt.Builder(self._logger), "make a builder", self._recording, BuildFailed
        )

    def _parse(self, builder: Any, file: Path, content: bytes | None = None) -> Any:
        flags = 0
        if self.library.weakly_typed:
            # Precision is a property of the graph everywhere, and of nothing else.
            flags = 1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = required(
            builder.create_network(flags), "make a network", self._recording, BuildFailed
        )
        parser = self._trt.OnnxParser(network, self._logger)
        # By its name where that may be, because weights may be in files beside it.
        read = parser.parse_from_file(str(file)) if content is None else parser.parse(content)
        if not read:
            errors = [parser.get_error(index) for index in range(parser.num_errors)]
            raise BuildFailed(self._unread(file.name, errors))
        return network

    def _serialize(self, builder: Any, network: Any, config: Any, build: Build) -> Any:
        """Return the plan, or None; one that graphs can hold, if there is one."""
        plan = builder.build_serialized_network(network, config)
        flag = getattr(self._trt.BuilderFlag, USER_ALLOCATION, None)
        if plan is not None or flag is None or build.cancelled:
            return plan
        log.warning("no plan that CUDA graphs can hold", extra={"why": self._recording.told()})
        config.clear_flag(flag)
        self._recording.begin()
        return builder.build_serialized_network(network, config)

    def _unread(self, name: str, errors: Sequence[Any]) -> str:
        """Say why a model cannot be read: the parser's own words once, and not the logger's."""
        for error in errors:
            if error.node_operator():
                operator, node = error.node_operator(), error.node_name()
                return self._without(f"the operator {operator}", node)
        said = "; ".join(dict.fromkeys(str(error.desc()) for error in errors))
        return f"TensorRT could not read {name}: {said}"

    def _why(self, name: str) -> str:
        """Say why a model did not become a plan."""
        for text in self._recording.told():
            if found := NO_RUNNERS.search(text):
                return self._without("an operator", found[1])
        return self._recording.explain(f"TensorRT could not build {name}")

    def _without(self, what: str, node: str) -> str:
        library = self.library
        where = f" (node {node!r})" if node else ""
        return (
            f"{library.flavour} {library.version} does not have {what}{where} that the model "
            "uses; ONNX Runtime serves it"
        )

    def _configure(self, builder: Any, network: Any, options: BuildOptions, build: Build) -> Any:
        trt = self._trt
        config = required(
            builder.create_builder_config(), "make a configuration", self._recording, BuildFailed
        )
        config.progress_monitor = monitor_of(trt, build)
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        signature = signature_of(trt, network)
        wanted = profiles_for(signature, options.buckets, options.ranges, batched=options.batched)
        for profile in wanted:
            self._add_profile(builder, config, profile)
        set_precision(trt, config, options.precision)
        if hasattr(trt.BuilderFlag, USER_ALLOCATION):
            config.set_flag(getattr(trt.BuilderFlag, USER_ALLOCATION))
        set_compatibility(self.library, config, options)
        set_targets(self.library, config, options.targets)
        return config

    def _add_profile(self, builder: Any, config: Any, profile: Profile) -> None:
        made = builder.create_optimization_profile()
        for name, found in profile.ranges.items():
            made.set_shape(name, found.least, found.most_often, found.most)
        index = config.add_optimization_profile(made)
        if index < 0:
            raise BuildFailed(
                self._recording.explain(f"TensorRT refused the profile for {profile.rows} rows")
            )


def signature_of(trt: Any, network: Any) -> Signature:
    """Return the inputs and outputs of a network."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]

    def described(found: list[Any]) -> tuple[Tensor, ...]:
        return tuple(tensor_of(trt, one.name, one.dtype, tuple(one.shape)) for one in found)

    return Signature(described(inputs), described(outputs))


def set_precision(trt: Any, config: Any, precision: str) -> None:
    """Let fp32 be fp32: TensorRT's default is TF32, which is off by as much as fp16."""
    flag = getattr(trt.BuilderFlag, "TF32", None)
    if flag is not None and precision == "fp32":
        config.clear_flag(flag)


def set_compatibility(library: Library, config: Any, options: BuildOptions) -> None:
    """Make a plan for more than this version and this GPU, where that was asked for.

    Raises:
        BuildFailed: the flavour cannot.
    """
    trt = library.module
    # TensorRT-RTX has the names of both, and neither the library nor the levels.
    if options.version_compatible:
        if library.ahead_of_time or not hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"):
            raise BuildFailed(f"{library.flavour} has no version-compatible plans")
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatibility != "none":
        level = options.hardware_compatibility.upper()
        levels = getattr(trt, "HardwareCompatibilityLevel", None)
        if library.ahead_of_time or not hasattr(levels, level):
            raise BuildFailed(f"{library.flavour} has no hardware compatibility {level}")
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)


def set_targets(library: Library, config: Any, targets: tuple[str, ...]) -> None:
    """Name the GPUs that a plan is for, where it is built without one.

    Raises:
        BuildFailed: the flavour builds for this GPU only, or does not know a target.
    """
    if not targets:
        return
    if not library.ahead_of_time:
        raise BuildFailed(f"{library.flavour} builds for the GPU that it finds, not for targets")
    if unknown := sorted(set(targets) - {*library.capabilities, CURRENT}):
        known = ", ".join(library.capabilities)
        raise BuildFailed(f"compute capability {unknown[0]} is none of {known}")
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        name = "CURRENT" if target == CURRENT else f"SM{target.replace('.', '')}"
        config.set_compute_capability(getattr(library.module.ComputeCapability, name), index)


def add_plan(
    folder: Path,
    key: PlanKey,
    model: Path,
    library: Library,
    host: Host,
    options: BuildOptions,
    build: Build | None = None,
) -> None:
    """Build a plan and publish it; blocks, for seconds to many minutes.

    Args:
        folder: of the store.
        key: of the plan.
        model: ONNX file.
        library: that builds.
        host: that builds, however compatible the plan is.
        options: how.
        build: tells how far it is, and may cancel.

    Raises:
        BuildFailed: the model cannot be read, or does not fit the options; or it was cancelled.
        OSError: the plan cannot be written.
    """
    plan = make_plan(folder, model, library, host, options, build)
    PlanStore(folder).publish(key, plan, {"precision": options.precision})


def make_plan(
    folder: Path,
    model: Path,
    library: Library,
    host: Host,
    options: BuildOptions,
    build: Build | None = None,
    content: bytes | None = None,
) -> bytes:
    """Build a plan and return it; of the store, only what builds measured is used.

    Args:
        folder: of the store.
        model: ONNX file.
        library: that builds.
        host: that builds.
        options: how.
        build: tells how far it is, and may cancel.
        content: of the file, where it must not get to a disk.

    Raises:
        BuildFailed: the model cannot be read, or does not fit the options; or it was cancelled.
    """
    builder, cache = Builder(library), timing_cache(folder, host, options.targets)
    before = cache.read() if library.timing_cache else b""
    plan, after = builder.build(model, options, build, before, content)
    cache.keep(before, after, builder.combined)
    return plan
