"""`inferd serve`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inferd_engines.cores import usable_cores
from inferd_store.objects import is_url

from inferd_server import environment, signals
from inferd_server.address import is_unix
from inferd_server.errors import SettingsError, StartupError
from inferd_server.memory import headroom_bytes
from inferd_server.models.following import FollowerThread, follow
from inferd_server.models.layout import bytes_of, model_names, read_source
from inferd_server.models.trust import check_trust
from inferd_server.monitoring.log_sink import never_wait
from inferd_server.monitoring.logs import LogControl
from inferd_server.processes.policy import Arrangement, Host, ModelFacts, Wish, arrange
from inferd_server.security.opening import check_security
from inferd_server.settings.model import Settings
from inferd_server.settings.remarks import remarks
from inferd_server.settings.sources import add_flags, load_settings, origins

log = logging.getLogger(__name__)
HELP = "serve models over gRPC"
STANDARD_ERROR = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags: one for every setting."""
    parser.description = (
        "Serve every model of a repository over gRPC. Each setting is a flag, an environment "
        "variable (INFERD_GRPC_PORT for --grpc-port) and a name in the settings file (grpc_port); "
        "flags win over the environment, and that over the file."
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="print every setting and where it came from, what serves and why; do not serve",
    )
    parser.usage = f"{parser.prog} [FILE.onnx] [--config FILE] [--SETTING VALUE ...]; --help: all"
    # It waits for signals itself, once it can end well.
    parser.set_defaults(holds_signals=True)
    parser.add_argument(
        "model",
        nargs="?",
        metavar="FILE.onnx",
        help="a single model to serve, or a folder of models: the same as --model-repository; or "
        "the folder or URL of a store",
    )
    add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; return the exit code."""
    signals.hold()
    environment.prepare()
    environment.collect_seldom()
    try:
        flags = flags_of(arguments)
        settings, store = follow(load_settings(flags, os.environ), os.environ)
        arrangement = arranged(settings)
    except StartupError as error:
        print(f"inferd serve: {error}", file=sys.stderr)
        return 2
    given = [name for name, origin in origins(flags, os.environ).items() if origin != "default"]
    said = remarks(settings, given, os.environ, arrangement.fronts, arrangement.replicas)
    if arguments.explain:
        return explain_all(flags, settings, arrangement, said)
    logs = LogControl(settings.log)
    logs.start()
    never_wait(STANDARD_ERROR)
    for remark in said:
        log.warning("a setting has no effect", extra={"why": remark})
    try:
        # Before any process starts that would find the same.
        check_security(settings)
        check_trust(settings.seal)
        return serve(settings, logs, arrangement, store)
    except StartupError as error:
        log.error("cannot start", extra={"error": str(error)})
        return 1
    finally:
        if store is not None:
            store.stop()
        logs.stop()


def flags_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the flags by name; what is named without a flag is the repository, or a store.

    Raises:
        SettingsError: both are given.
    """
    flags = dict(vars(arguments))
    model = flags.pop("model", None)
    if model is None:
        return flags
    if flags.get("model_repository") is not None:
        raise SettingsError(f"model_repository: give {model} or --model-repository, not both")
    if is_url(model):
        return flags | {"model_store": model}
    return flags | {"model_repository": model}


def explain_all(
    flags: Mapping[str, Any], settings: Settings, arrangement: Arrangement, said: Sequence[str]
) -> int:
    """Print what would serve, and why it would not; return the exit code."""
    from inferd_server.explain import explanation, problems_of

    print("\n".join(explanation(flags, settings, arrangement)))
    for remark in said:
        print(f"inferd serve: {remark}", file=sys.stderr)
    problems = problems_of(settings)
    for problem in problems:
        print(f"inferd serve: {problem}", file=sys.stderr)
    return 1 if problems else 0


def arranged(settings: Settings) -> Arrangement:
    """Decide on how many processes serve, on this host.

    Raises:
        SettingsError: more than one process would have to listen on a unix socket.
    """
    engine, fronts = settings.engine, settings.split.fronts
    # Whoever names a store of plans means a GPU, where there is one.
    devices = (*engine.engine_providers, *(["TensorRT"] if engine.plan_store and gpu() else []))
    cores, replicas = engine.cores or usable_cores(), engine.replicas
    if is_unix(settings.listen.host):
        for name, count in (("fronts", fronts), ("replicas", replicas)):
            if count > 1:
                raise SettingsError(f"{name}: only one process can listen on a unix socket")
        fronts = replicas = 1
    models = partial(model_facts, settings.repository.model_repository)
    host = Host(cores, devices, headroom_bytes())
    arrangement = arrange(Wish(engine.processes, fronts, replicas), host, models)
    if arrangement.replicas and (name := models().sequences):
        raise SettingsError(
            f"processes: replicas cannot serve model {name!r}: its requests build on each other, "
            "and may reach any replica; split can"
        )
    return arrangement


def model_facts(repository: Path) -> ModelFacts:
    """Return what is known of the models of a repository before any is loaded."""
    try:
        names = model_names(repository)
    except SettingsError:
        # It is said, or waited for, by whoever serves.
        names = ()
    nbytes, sequences, known = 0, "", bool(names)
    for name in names:
        try:
            source = read_source(repository, name)
            nbytes += sum(bytes_of(path, repository) for path in source.versions.values())
        except (SettingsError, OSError):
            known = False
            continue
        if any(source.config_of(version).sequence for version in source.versions):
            sequences = name
    return ModelFacts(nbytes, sequences, known)


def gpu() -> bool:
    """True if the driver of a GPU is loaded on this host.

    Source: NVIDIA's driver makes the first on Linux, and WSL has the second.
    """
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg"))


def serve(
    settings: Settings,
    logs: LogControl,
    arrangement: Arrangement,
    store: FollowerThread | None = None,
) -> int:
    """Serve in one process or in several; return the exit code.

    Imported only here, so that a supervisor never loads gRPC or an engine.

    Raises:
        StartupError: the server cannot start.
    """
    if arrangement.fronts or arrangement.replicas:
        from inferd_server.processes.run import serve_processes

        return serve_processes(settings, logs, arrangement, store=store)
    from inferd_server import one_process

    return one_process.serve(settings, logs, store=store)


def main() -> int:
    """Run without the client's command line: `python -m inferd_server`."""
    signals.hold()
    parser = argparse.ArgumentParser("inferd serve", allow_abbrev=False)
    configure(parser)
    return run(parser.parse_args())
