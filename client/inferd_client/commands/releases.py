"""inferd models add, show, promote and others: the releases of a store."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from inferd_client import tables
from inferd_client.commands import connect
from inferd_client.commands.own_releases import OwnReleases
from inferd_client.releases import Event, NewRelease, Releases

if TYPE_CHECKING:
    from inferd_seal.trusted_files import Demands

STORE = "INFERD_STORE"
DEMANDS = {
    "model_keys": "INFERD_MODEL_KEYS",
    "model_signers": "INFERD_MODEL_SIGNERS",
    "require_models": "INFERD_REQUIRE_MODELS",
}
"""What is demanded of models: flags, and the variables in their place."""
PRODUCTION = "production"
FAILED = 1
"""Exit code of an operation that could not be done."""
READING = frozenset({"show", "diff", "log", "backups"})
"""Operations that change nothing in a store."""
Parsers = Any
"""What argparse calls `_SubParsersAction`."""


class Bar(NamedTuple):
    """A progress bar."""

    moved: Callable[[int], None]
    """Gets bytes that were moved."""
    expected: Callable[[int], None]
    """Gets bytes that are going to be moved besides those it has."""


def configure(parsers: Parsers) -> None:
    """Add the operations on a store."""
    add = operation(parsers, "add", run_add, "check a model and add it as a new version")
    add("name", metavar="NAME")
    add("source", type=Path, metavar="FILE|FOLDER", help="a model file, or a version's folder")
    add("--golden", type=Path, metavar="FILE.npz", help="inputs and outputs that must stay so")
    add("--reference", type=Path, metavar="FILE.npz", help="rows that requests are compared with")
    add("--config", type=Path, metavar="FILE", help="its model.yaml")
    add("--tolerance", default="1e-4", metavar="X", help="of golden outputs (default: 1e-4)")
    add("--commit", default="", help="of the source that it was made from")
    add("--metric", action="append", default=[], metavar="NAME=VALUE", help="accuracy=0.97")
    add("--require", action="append", default=[], metavar="BOUND", help="accuracy>=0.95")
    add("--parent", action="append", default=[], metavar="VERSION", help="it was made from")
    add("--tag", action="append", default=[], metavar="TEXT")
    add("--notes", default="", metavar="TEXT")
    configure_demands(add)
    show = operation(parsers, "show", run_show, "show the versions of a model, or one of them")
    show("name", metavar="NAME")
    show("version", nargs="?", metavar="VERSION", help="a number, latest or @LABEL")
    diff = operation(parsers, "diff", run_diff, "show in what two versions differ")
    for argument in ("name", "before", "after"):
        diff(argument, metavar=argument.upper())
    log = operation(parsers, "log", run_log, "show who did what, when and why")
    log("name", nargs="?", default="", metavar="NAME")
    _configure_moves(parsers)


def _configure_moves(parsers: Parsers) -> None:
    """Add the operations that move labels, or remove versions."""
    remove = operation(parsers, "remove", run_remove, "remove a version that nothing uses")
    remove("name", metavar="NAME")
    remove("version", metavar="VERSION")
    promote = operation(parsers, "promote", run_promote, "move a label to a version that passes")
    promote("name", metavar="NAME")
    promote("version", metavar="VERSION", help="a number, latest or @LABEL")
    promote("--to", default=PRODUCTION, metavar="LABEL", help="which label (default: production)")
    promote("--require", action="append", default=[], metavar="BOUND", help="accuracy>=0.95")
    configure_demands(promote)
    rollback = operation(parsers, "rollback", run_rollback, "move a label back to where it was")
    rollback("name", metavar="NAME")
    rollback("--label", default=PRODUCTION, help="which label (default: production)")
    label = operation(parsers, "label", run_label, "move a label, without a look at the version")
    label("name", metavar="NAME")
    label("label", metavar="LABEL")
    label("version", nargs="?", metavar="VERSION", help="a number, latest or @LABEL")
    label("--remove", action="store_true", help="remove the label")


def configure_store(add: Callable[..., Any]) -> None:
    """Add the flags by which every operation finds its store."""
    add(
        "--store",
        default="",
        metavar="FOLDER|URL",
        help=f"a folder, s3://BUCKET/PATH, gs:// or az:// ({STORE} sets it)",
    )
    add("--json", action="store_true", help="print JSON")


def configure_demands(add: Callable[..., Any]) -> None:
    """Add the flags of operations that open a model, which may be sealed or signed."""
    keys = "file:PATH, env:NAME or command:WORDS, with commas between"
    add("--model-keys", default="", metavar="KEYS", help=f"of sealed models: {keys}")
    signers = "PEM files of the public keys of those who may sign, with commas between"
    add("--model-signers", default="", metavar="FILES", help=signers)
    add("--require-models", default="", metavar="KIND", help="signed or sealed: others are refused")


def demands_of(arguments: argparse.Namespace) -> Demands:
    """Return what flags, and where they say nothing the environment, demand of models.

    Raises:
        Refused: no model could meet it.
    """
    from inferd_seal.errors import SealError
    from inferd_seal.trusted_files import Demands, read_demands
    from inferd_store.errors import Refused

    if not hasattr(arguments, "model_keys"):
        # It opens no model.
        return Demands()
    told = (getattr(arguments, name) or os.environ.get(DEMANDS[name], "") for name in DEMANDS)
    try:
        return read_demands(*told)
    except SealError as error:
        raise Refused(str(error)) from error


def operation(
    parsers: Parsers, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> Callable[..., Any]:
    """Add an operation on releases; return what adds its own flags."""
    parser = parsers.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(parser=parser, run=guarded(run))
    add: Callable[..., Any] = parser.add_argument
    configure_store(add)
    add("--url", default="", metavar="HOST:PORT", help="of a server that follows the store")
    connect.configure_calls(parser)
    if name not in READING:
        add("--who", default="", help="who does this, for the audit log (default: your login)")
        add("--why", default="", metavar="TEXT", help="why, for the audit log")
    return add


def guarded(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return a command that tells of a store's errors in one line."""

    def guard(arguments: argparse.Namespace) -> int:
        from inferd_store.errors import StoreError

        try:
            return run(arguments)
        except StoreError as error:
            text = " ".join(str(error).split())
            print(f"inferd models {arguments.operation}: {text}", file=sys.stderr)
            return FAILED

    return guard


def run_list(arguments: argparse.Namespace) -> int:
    """Print every model of a store."""
    with opened(arguments) as releases:
        found = releases.models()
    rows = [
        (one["name"], ", ".join(map(str, one["versions"])), _labels(one["labels"])) for one in found
    ]
    return printed(arguments, found, tables.render(("NAME", "VERSIONS", "LABELS"), rows))


def run_add(arguments: argparse.Namespace) -> int:
    """Check a model, and add it."""
    from inferd_store.adding import draft_of
    from inferd_store.record import check_name

    check_name(arguments.name)
    draft = draft_of(arguments.source, arguments.golden, arguments.config, arguments.reference)
    new = NewRelease(
        draft.files,
        arguments.commit,
        arguments.notes,
        arguments.metric,
        arguments.require,
        arguments.parent,
        arguments.tag,
        arguments.tolerance,
    )
    total = sum(path.stat().st_size for path in draft.files.values())
    with bar(total) as moved, opened(arguments, moved.moved) as releases:
        event = releases.add(arguments.name, new)
    return printed(arguments, event, f"{event['model']} version {event['version']} added")


def run_show(arguments: argparse.Namespace) -> int:
    """Print the versions of a model, or all that is known of one."""
    with opened(arguments) as releases:
        if arguments.version:
            one = releases.version(arguments.name, arguments.version)
            return printed(arguments, one, _version_text(one))
        found = releases.versions(arguments.name)
    headers = ("VERSION", "LABELS", "ADDED", "AUTHOR", "SIZE", "METRICS", "TAGS", "NOTES")
    return printed(arguments, found, tables.render(headers, [_version_row(one) for one in found]))


def _version_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    about = one["about"]
    metrics = ", ".join(f"{name}={value:g}" for name, value in about["metrics"].items())
    return (
        str(one["version"]),
        ", ".join(one["labels"]),
        one["time"][:19],
        about["author"],
        str(one["size"]),
        metrics,
        ", ".join(about["tags"]),
        about["notes"],
    )


def _version_text(one: Mapping[str, Any]) -> str:
    about, contents = one["about"], one["contents"]
    rows = [
        ("version", str(one["version"])),
        ("labels", ", ".join(one["labels"])),
        ("added", one["time"]),
        ("protection", _protection(one)),
        *((name, _plain(value)) for name, value in about.items()),
        *((f"input {each['name']}", _tensor(each)) for each in contents["inputs"]),
        *((f"output {each['name']}", _tensor(each)) for each in contents["outputs"]),
        ("opset", str(contents["opset"])),
        ("operators", _plain(contents["operators"])),
        *((f"file {each['path']}", f"{each['size']} {each['digest']}") for each in one["files"]),
        ("digest", one["digest"]),
    ]
    return tables.render((one["name"], ""), rows)


def _protection(one: Mapping[str, Any]) -> str:
    # A server of before tells of neither.
    return " and ".join(word for word in ("sealed", "signed") if one.get(word)) or "none"


def _tensor(one: Mapping[str, Any]) -> str:
    shape = ", ".join("?" if size is None else str(size) for size in one["shape"])
    return f"{one['datatype']} [{shape}]"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def run_diff(arguments: argparse.Namespace) -> int:
    """Print in what two versions differ."""
    with opened(arguments) as releases:
        found = releases.diff(arguments.name, arguments.before, arguments.after)
    rows = [
        (name, *("" if value is None else _plain(value) for value in pair))
        for name, pair in found["differences"].items()
    ]
    headers = ("", *(f"VERSION {number}" for number in found["versions"]))
    return printed(arguments, found, tables.render(headers, rows) if rows else "no difference")


def run_remove(arguments: argparse.Namespace) -> int:
    """Remove a version."""
    with opened(arguments) as releases:
        event = releases.remove(arguments.name, arguments.version)
    return printed(arguments, event, f"{event['model']} version {event['version']} removed")


def run_promote(arguments: argparse.Namespace) -> int:
    """Move a label to a version that passes."""
    name, version = arguments.name, arguments.version
    with opened(arguments) as releases:
        size = releases.version(name, version)["size"]
    with bar(size) as moved, opened(arguments, moved.moved) as releases:
        event = releases.promote(name, version, arguments.to, arguments.require)
    return printed(arguments, event, _moved(event))


def run_rollback(arguments: argparse.Namespace) -> int:
    """Move a label back to where it was before."""
    with opened(arguments) as releases:
        event = releases.rollback(arguments.name, arguments.label)
    return printed(arguments, event, _moved(event))


def run_label(arguments: argparse.Namespace) -> int:
    """Move a label, or remove it."""
    from inferd_store.errors import Refused

    if arguments.remove == bool(arguments.version):
        raise Refused("a version was expected, or --remove")
    with opened(arguments) as releases:
        if not arguments.remove:
            event = releases.move(arguments.name, arguments.label, arguments.version)
            return printed(arguments, event, _moved(event))
        event = releases.unlabel(arguments.name, arguments.label)
    text = f"{event['model']}: label {event['label']} removed from version {event['version']}"
    return printed(arguments, event, text)


def run_log(arguments: argparse.Namespace) -> int:
    """Print the audit log."""
    with opened(arguments) as releases:
        found = releases.log(arguments.name)
    headers = ("TIME", "WHO", "WHAT", "MODEL", "VERSION", "LABEL", "BEFORE", "WHY")
    rows = [
        (
            one["time"][:19], one["who"], one["what"], one["model"], str(one["version"] or ""),
            one["label"], str(one["before"] or ""), one["why"],
        )
        for one in found
    ]  # fmt: skip
    return printed(arguments, found, tables.render(headers, rows))


@contextmanager
def opened(
    arguments: argparse.Namespace,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Releases | OwnReleases]:
    """Give the releases that the flags name: through a server, or in a store.

    Raises:
        StoreError: there is no store, or flags contradict each other.
    """
    from inferd_store.errors import NotAStore, Refused
    from inferd_store.store import By

    who, why = getattr(arguments, "who", "") or _login(), getattr(arguments, "why", "")
    if arguments.store and arguments.url:
        raise NotAStore("--store or --url says where the releases are, not both")
    if arguments.url:
        if any(getattr(arguments, name, "") for name in DEMANDS):
            raise Refused("with --url the server opens models, with the keys of its own settings")
        with connect.client(arguments) as client:
            yield replace(client.releases, who=who, why=why, progress=progress)
        return
    address = arguments.store or os.environ.get(STORE, "")
    if not address:
        raise NotAStore("which store? --store FOLDER or URL says it, or INFERD_STORE, or --url")
    yield OwnReleases(address, By(who, why), progress, demands_of(arguments))


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container whose user has no name.
        return f"uid {os.getuid()}"


@contextmanager
def bar(total: int = 0) -> Iterator[Bar]:
    """Give what shows how much was moved, on a terminal."""
    quiet = not sys.stderr.isatty()
    with tqdm(total=total, unit="B", unit_scale=True, disable=quiet, leave=False) as shown:

        def moved(nbytes: int) -> None:
            shown.update(nbytes)

        def expected(nbytes: int) -> None:
            shown.total = (shown.total or 0) + nbytes
            shown.refresh()

        yield Bar(moved, expected)


def printed(arguments: argparse.Namespace, document: Any, text: str) -> int:
    """Print what an operation found out: as JSON, or for people."""
    print(json.dumps(document, indent=2) if arguments.json else text)
    return 0


def _moved(event: Event) -> str:
    before = f", before at {event['before']}" if event["before"] else ""
    return f"{event['model']}: {event['label']} is at version {event['version']}{before}"


def _labels(labels: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={version}" for name, version in labels.items())
