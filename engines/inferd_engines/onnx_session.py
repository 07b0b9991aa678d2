"""How an ONNX Runtime session is opened: options, providers, and what became of them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from inferd_engines.cores import usable_cores
from inferd_engines.engine import EngineError, EngineOptions
from inferd_engines.model_files import ModelFiles
from inferd_engines.onnx_entries import ENTRIES, entry_problem
from inferd_engines.onnx_errors import absent_model, brief, load_failure
from inferd_engines.onnx_file import external_names, is_steady

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

CPU = "CPUExecutionProvider"

ARENA = "cpu_arena"
"""An entry of ours: 0 lets ONNX Runtime give memory back after each run on the CPU."""

FOLDER = "session.model_external_initializers_file_folder_path"

EXTENSIONS = "onnxruntime_extensions"
PROTOBUF_RUNTIME = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
LIBRARY = ".so"

SEALED_MISSING = "the model is sealed, and names weights that are not among its files: {}"
SEALED_BRANCH = (
    "the model is sealed, and ONNX Runtime takes the weights of a branch or loop from a disk only: "
    "save the model as one file (onnx.save without external data), and seal that"
)

SILENT = 4
"""Log severity "fatal": what goes wrong is raised, so nothing needs printing."""

# Chosen by measurement, see docs/onnxruntime.md.
DEFAULT_ENTRIES: Mapping[str, str] = {
    # Threads wait so long for the next operator before they sleep.
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "20",
    # So that a provider which registered but runs no node is not said to serve.
    "session.record_ep_graph_assignment_info": "1",
}


@dataclass(frozen=True, slots=True)
class Source:
    """What a session is made of: a model, the files that hold its weights, custom operators."""

    path: Path
    """For messages, and for what must be on disk."""
    content: bytes
    beside: Mapping[str, bytes]
    """By the names that the model uses."""
    missing: tuple[str, ...] = ()
    """What the model names, and is not there."""
    packages: tuple[str, ...] = ()
    """Paths of libraries that Python packages bring."""
    libraries: tuple[bytes, ...] = ()
    """The contents of other libraries."""
    sealed: bool = False
    """True if none of it may get to a disk."""


def read_source(path: Path, options: EngineOptions) -> Source:
    """Read a model and the files that it names.

    Raises:
        EngineError: one cannot be read, or a library of custom operators is not there.
    """
    if not path.is_file():
        raise EngineError(absent_model(path))
    files = options.files or ModelFiles(path)
    content = files.content()
    named = sorted(external_names(content))
    # One that is missing is ONNX Runtime's to miss: what looks like a name need not be one.
    there = [name for name in named if is_inside(name) and (path.parent / name).is_file()]
    beside = {name: files.read(name) for name in there}
    missing = tuple(name for name in named if name not in beside)
    own = [name for name in options.libraries if name.endswith(LIBRARY)]
    packages = tuple(package_library(name) for name in options.libraries if name not in own)
    libraries = tuple(files.read(os.path.relpath(name, path.parent)) for name in own)
    if files.sealed and missing:
        raise EngineError(SEALED_MISSING.format(", ".join(missing)))
    return Source(path, content, beside, missing, packages, libraries, files.sealed)


def is_inside(name: str) -> bool:
    """Tell whether a name leads to a place within the folder that it is relative to."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts and "\0" not in name


def open_source(source: Source, options: EngineOptions) -> tuple[InferenceSession, str, str]:
    """Make a session; return it, the engine's name, and why it is not the one asked for.

    Raises:
        EngineError: the model is damaged or not supported, or an option is unknown.
    """
    from onnxruntime import get_available_providers

    asked = options.providers or (CPU,)
    built = get_available_providers()
    wanted = with_cpu([provider for provider in asked if provider in built])
    session, failure = load(source, options, wanted)
    assigned = {part.ep_name for part in session.get_provider_graph_assignment_info()}
    registered = session.get_providers()
    real = serving(registered, assigned)
    reason = reason_for(asked[0], real, built=built, registered=registered, failure=failure)
    return session, f"onnxruntime/{real}", reason


def runtime_version() -> str:
    """Return the version of ONNX Runtime."""
    from onnxruntime import __version__ as version

    return str(version)


def load(
    source: Source, options: EngineOptions, providers: Sequence[str]
) -> tuple[InferenceSession, str]:
    """Create the session; where other providers fail, on the CPU, with their message.

    Raises:
        EngineError: the model loads on no provider, or an option is unknown.
    """
    try:
        return create(source, options, providers), ""
    except EngineError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        if list(providers) == [CPU]:
            raise EngineError(load_failure(source.path, error, source.missing)) from error
        session, _ = load(source, options, [CPU])
        return session, brief(error)


def create(source: Source, options: EngineOptions, providers: Sequence[str]) -> InferenceSession:
    """Create the session on these providers, without ONNX Runtime's own (printed) fallback."""
    from onnxruntime import InferenceSession

    asked = session_options(options)
    register_libraries(source, asked)
    if source.beside and not is_steady(source.content):
        return create_from_copy(source, asked, providers)
    if source.beside:
        # ONNX Runtime copies what it needs of them while it creates the session.
        names, contents = list(source.beside), list(source.beside.values())
        asked.add_external_initializers_from_files_in_memory(
            names, contents, [len(content) for content in contents]
        )
    # Where it looks for what is not in memory; the working directory otherwise.
    asked.add_session_config_entry(FOLDER, str(source.path.parent.absolute()))
    return InferenceSession(source.content, asked, providers=list(providers), enable_fallback=0)


def create_from_copy(
    source: Source, asked: SessionOptions, providers: Sequence[str]
) -> InferenceSession:
    """Create the session from a copy on disk that is removed at once.

    ONNX Runtime takes the weights of a branch or a loop from files only. It maps them, and what is
    mapped stays after the file has gone.

    Raises:
        EngineError: the model is sealed.
    """
    from onnxruntime import InferenceSession

    if source.sealed:
        raise EngineError(SEALED_BRANCH)
    with TemporaryDirectory(prefix="inferd-model-") as folder:
        model = Path(folder) / source.path.name
        model.write_bytes(source.content)
        for name, content in source.beside.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(content)
        return InferenceSession(str(model), asked, providers=list(providers), enable_fallback=0)


def register_libraries(source: Source, asked: SessionOptions) -> None:
    """Load the custom operators; a library that is a file from a copy that is removed at once.

    Raises:
        EngineError: a library cannot be loaded.
    """
    try:
        for package in source.packages:
            asked.register_custom_ops_library(package)
        for content in source.libraries:
            # It is in the clear beside a sealed model, too.
            with TemporaryDirectory(prefix="inferd-ops-") as folder:
                copy = Path(folder) / f"ops{LIBRARY}"
                copy.write_bytes(content)
                asked.register_custom_ops_library(str(copy))
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise EngineError(f"custom_ops cannot be loaded: {brief(error)}") from error


def package_library(name: str) -> str:
    """Return the path of the library of custom operators that a Python package brings.

    Raises:
        EngineError: no such package is known, or it is not installed.
    """
    if name.replace("-", "_") != EXTENSIONS:
        raise EngineError(f"custom_ops: no package {name!r} with operators is known")
    runtime = os.environ.get(PROTOBUF_RUNTIME)
    try:
        from onnxruntime_extensions import get_library_path
    except ImportError as error:
        raise EngineError(
            f"custom_ops names {name}, which is not installed: pip install 'inferd[extensions]'"
        ) from error
    finally:
        # It sets this to "python", for every process that is started later.
        if runtime is None:
            os.environ.pop(PROTOBUF_RUNTIME, None)
        else:
            os.environ[PROTOBUF_RUNTIME] = runtime
    return str(get_library_path())


def session_options(options: EngineOptions) -> SessionOptions:
    """Return ONNX Runtime's options.

    Raises:
        EngineError: `extra` has an entry that ONNX Runtime does not know (it ignores those), or
            a value that cannot be.
    """
    from onnxruntime import SessionOptions

    unknown = sorted(set(options.extra) - ENTRIES - {ARENA})
    if unknown:
        raise EngineError(f"ONNX Runtime has no session config entry {', '.join(unknown)}")
    if problems := [text for pair in options.extra.items() if (text := entry_problem(*pair))]:
        raise EngineError("; ".join(problems))
    result = SessionOptions()
    result.log_severity_level = SILENT
    # ONNX Runtime's own choice looks at the machine and overruns a container's CPU limit.
    result.intra_op_num_threads = options.threads or options.cores or usable_cores()
    for key, value in {**DEFAULT_ENTRIES, **options.extra}.items():
        if key != ARENA:
            result.add_session_config_entry(key, value)
    arena = options.extra.get(ARENA, "1")
    if arena not in {"0", "1"}:
        raise EngineError(f"{ARENA} is {arena!r}, and must be 0 or 1")
    result.enable_cpu_mem_arena = arena == "1"
    return result


def with_cpu(providers: Sequence[str]) -> list[str]:
    """Return the providers with the CPU's last, which runs what the others cannot."""
    return [*dict.fromkeys([*providers, CPU])]


def serving(registered: Sequence[str], assigned: Collection[str]) -> str:
    """Return the first registered provider that runs a node, or simply the first if none does."""
    return next((name for name in registered if name in assigned), registered[0])


def reason_for(
    asked: str,
    real: str,
    *,
    built: Collection[str],
    registered: Collection[str],
    failure: str = "",
) -> str:
    """Return why the provider asked for is not the one that serves, "" where it is.

    Args:
        asked: the provider most wanted.
        real: the first provider that serves.
        built: providers in this build of ONNX Runtime.
        registered: providers that started for the session.
        failure: what the runtime said when those asked for did not start.
    """
    if asked == real:
        return ""
    if asked not in built:
        cause = "is not in this build of onnxruntime"
    elif asked in registered:
        cause = "can run no part of this model"
    else:
        cause = f"did not start ({failure or 'onnxruntime does not say why'})"
    return f"{asked} was asked for and {cause}; serving on {real}"
