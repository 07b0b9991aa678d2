"""How an ONNX Runtime session is opened: options, providers, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    real = session.get_providers()
    return session, f"onnxruntime/{real[0]}", reason_for(asked, built, real, failure)


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
    result.intra_op_num_threads = options.threads
    for key, value in {**DEFAULT_ENTRIES, **options.extra}.items():
        result.add_session_config_entry(key, value)
    return result


def with_cpu(providers: Sequence[str]) -> list[str]:
    """Return the providers with the CPU's last, which runs what the others cannot."""
    return [*dict.fromkeys([*providers, CPU])]


def reason_for(
    asked: Sequence[str], built: Sequence[str], real: Sequence[str], failure: str
) -> str:
    """Return why the first provider asked for is not the one that serves, "" where it is.

    Args:
        asked: providers asked for, most wanted first.
        built: providers in this build of ONNX Runtime.
        real: providers of the session, first one first.
        failure: what the runtime said when the providers asked for did not start.
    """
    if asked[0] == real[0]:
        return ""
    if asked[0] not in built:
        cause = "is not in this build of onnxruntime"
    else:
        cause = f"did not start ({failure or 'see the log of onnxruntime'})"
    return f"{asked[0]} was asked for and {cause}; serving on {real[0]}"
