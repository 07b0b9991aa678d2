"""How an ONNX Runtime session is opened: options, providers, and what became of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inferd_engines.cores import usable_cores
from inferd_engines.engine import EngineError, EngineOptions
from inferd_engines.onnx_entries import ENTRIES
from inferd_engines.onnx_errors import brief, load_failure

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

CPU = "CPUExecutionProvider"

SILENT = 4
"""Log severity "fatal": what goes wrong is raised, so nothing needs printing."""

# Chosen by measurement, see docs/onnxruntime.md.
DEFAULT_ENTRIES: Mapping[str, str] = {
    "session.intra_op.allow_spinning": "0",
    # So that a provider which registered but runs no node is not said to serve.
    "session.record_ep_graph_assignment_info": "1",
}


def open_session(path: Path, options: EngineOptions) -> tuple[InferenceSession, str, str]:
    """Load a model; return its session, the engine's name, and why it is not the one asked for.

    Raises:
        EngineError: the file is missing, damaged or not supported, or an option is unknown.
    """
    from onnxruntime import get_available_providers

    if not path.is_file():
        raise EngineError(f"{path} does not exist or is not a file")
    asked = options.providers or (CPU,)
    built = get_available_providers()
    wanted = with_cpu([provider for provider in asked if provider in built])
    session, failure = load(path, options, wanted)
    assigned = {part.ep_name for part in session.get_provider_graph_assignment_info()}
    registered = session.get_providers()
    real = serving(registered, assigned)
    reason = reason_for(asked[0], real, built=built, registered=registered, failure=failure)
    return session, f"onnxruntime/{real}", reason


def load(
    path: Path, options: EngineOptions, providers: Sequence[str]
) -> tuple[InferenceSession, str]:
    """Create the session; where other providers fail, on the CPU, with their message.

    Raises:
        EngineError: the model loads on no provider, or an option is unknown.
    """
    try:
        return create(path, options, providers), ""
    except EngineError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        if list(providers) == [CPU]:
            raise EngineError(load_failure(path, error)) from error
        session, _ = load(path, options, [CPU])
        return session, brief(error)


def create(path: Path, options: EngineOptions, providers: Sequence[str]) -> InferenceSession:
    """Create the session on these providers, without ONNX Runtime's own (printed) fallback."""
    from onnxruntime import InferenceSession

    return InferenceSession(
        str(path), session_options(options), providers=list(providers), enable_fallback=0
    )


def session_options(options: EngineOptions) -> SessionOptions:
    """Return ONNX Runtime's options.

    Raises:
        EngineError: `extra` has an entry that ONNX Runtime does not know (it ignores those).
    """
    from onnxruntime import SessionOptions

    unknown = sorted(set(options.extra) - ENTRIES)
    if unknown:
        raise EngineError(f"ONNX Runtime has no session config entry {', '.join(unknown)}")
    result = SessionOptions()
    result.log_severity_level = SILENT
    # ONNX Runtime's own choice looks at the machine and overruns a container's CPU limit.
    result.intra_op_num_threads = options.threads or options.cores or usable_cores()
    for key, value in {**DEFAULT_ENTRIES, **options.extra}.items():
        result.add_session_config_entry(key, value)
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
