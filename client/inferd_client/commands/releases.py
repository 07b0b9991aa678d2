"""inferd models add, show, promote and others: the releases of a store."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from inferd_client import tables

if TYPE_CHECKING:
    from inferd_store.store import By, Store

STORE = "INFERD_STORE"
PRODUCTION = "production"
FAILED = 1
"""Exit code of an operation that could not be done."""
Parsers = Any
"""What argparse calls `_SubParsersAction`."""


def configure(parsers: Parsers) -> None:
    """Add the operations on a store."""
    add = _operation(parsers, "add", run_add, "check a model and add it as a new version")
    add("name", metavar="NAME")
    add("source", type=Path, metavar="FILE|FOLDER", help="a model file, or a version's folder")
    add("--golden", type=Path, metavar="FILE.npz", help="inputs and outputs that must stay so")
    add("--config", type=Path, metavar="FILE", help="its model.yaml")
    add("--tolerance", default="1e-4", metavar="X", help="of golden outputs (default: 1e-4)")
    add("--commit", default="", help="of the source that it was made from")
    add("--metric", action="append", default=[], metavar="NAME=VALUE", help="accuracy=0.97")
    add("--require", action="append", default=[], metavar="BOUND", help="accuracy>=0.95")
    add("--parent", action="append", default=[], metavar="VERSION", help="it was made from")
    add("--tag", action="append", default=[], metavar="TEXT")
    add("--notes", default="", metavar="TEXT")
    show = _operation(parsers, "show", run_show, "show the versions of a model, or one of them")
    show("name", metavar="NAME")
    show("version", nargs="?", metavar="VERSION", help="a number, latest or @LABEL")
    diff = _operation(parsers, "diff", run_diff, "show in what two versions differ")
    for argument in ("name", "before", "after"):
        diff(argument, metavar=argument.upper())
    remove = _operation(parsers, "remove", run_remove, "remove a version that nothing uses")
    remove("name", metavar="NAME")
    remove("version", metavar="VERSION")
    promote = _operation(parsers, "promote", run_promote, "move a label to a version that passes")
    promote("name", metavar="NAME")
    promote("version", metavar="VERSION", help="a number, latest or @LABEL")
    promote("--to", default=PRODUCTION, metavar="LABEL", help="which label (default: production)")
    promote("--require", action="append", default=[], metavar="BOUND", help="accuracy>=0.95")
    rollback = _operation(parsers, "rollback", run_rollback, "move a label back to where it was")
    rollback("name", metavar="NAME")
    rollback("--label", default=PRODUCTION, help="which label (default: production)")
    label = _operation(parsers, "label", run_label, "move a label, without a look at the version")
    label("name", metavar="NAME")
    label("label", metavar="LABEL")
    label("version", nargs="?", metavar="VERSION", help="a number, latest or @LABEL")
    label("--remove", action="store_true", help="remove the label")
    log = _operation(parsers, "log", run_log, "show who did what, when and why")
    log("name", nargs="?", default="", metavar="NAME")


def configure_store(add: Callable[..., Any]) -> None:
    """Add the flags by which every operation finds its store."""
    add(
        "--store",
        default="",
        metavar="FOLDER|URL",
        help=f"a folder, s3://BUCKET/PATH, gs:// or az:// ({STORE} sets it)",
    )
    add("--json", action="store_true", help="print JSON")


def store_of_environment(parser: argparse.ArgumentParser) -> None:
    """Let an operation take its store from the environment where no flag names one."""
    parser.set_defaults(store=os.environ.get(STORE, ""))


def _operation(
    parsers: Parsers, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> Callable[..., Any]:
    parser = parsers.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(parser=parser, run=guarded(run))
    add: Callable[..., Any] = parser.add_argument
    configure_store(add)
    store_of_environment(parser)
    if name not in {"show", "diff", "log"}:
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
    from inferd_store import views

    found = views.models(store_of(arguments))
    rows = [
        (one["name"], ", ".join(map(str, one["versions"])), _labels(one["labels"])) for one in found
    ]
    return _print(arguments, found, tables.render(("NAME", "VERSIONS", "LABELS"), rows))


def run_add(arguments: argparse.Namespace) -> int:
    """Check a model, and add it."""
    from inferd_store.adding import draft_of, pairs
    from inferd_store.checking import read_bounds, read_number
    from inferd_store.errors import Refused
    from inferd_store.promoting import add
    from inferd_store.record import VERSION, check_name
    from inferd_store.release import About

    check_name(arguments.name)
    if wrong := [one for one in arguments.parent if not VERSION.fullmatch(one)]:
        raise Refused(f"--parent {wrong[0]}: the number of a version was expected")
    by = by_of(arguments)
    about = About(
        author=by.who,
        commit=arguments.commit,
        notes=arguments.notes,
        metrics={n: read_number(n, value) for n, value in pairs(arguments.metric).items()},
        bounds=read_bounds(arguments.require),
        parents=tuple(map(int, arguments.parent)),
        tags=tuple(arguments.tag),
        tolerance=read_number("--tolerance", arguments.tolerance),
    )
    draft = draft_of(arguments.source, arguments.golden, arguments.config)
    store = store_of(arguments, create=True)
    total = sum(path.stat().st_size for path in draft.files.values())
    with _bar(total) as progress:
        version = add(store, arguments.name, draft, about, by, progress)
    text = f"{arguments.name} version {version} added"
    return _print(arguments, {"name": arguments.name, "version": version}, text)


def run_show(arguments: argparse.Namespace) -> int:
    """Print the versions of a model, or all that is known of one."""
    from inferd_store import views

    store = store_of(arguments)
    if arguments.version:
        one = views.version(store, arguments.name, arguments.version)
        return _print(arguments, one, _version_text(one))
    found = views.versions(store, arguments.name)
    headers = ("VERSION", "LABELS", "ADDED", "AUTHOR", "SIZE", "METRICS", "TAGS", "NOTES")
    return _print(arguments, found, tables.render(headers, [_version_row(one) for one in found]))


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
        *((name, _plain(value)) for name, value in about.items()),
        *((f"input {each['name']}", _tensor(each)) for each in contents["inputs"]),
        *((f"output {each['name']}", _tensor(each)) for each in contents["outputs"]),
        ("opset", str(contents["opset"])),
        ("operators", _plain(contents["operators"])),
        *((f"file {each['path']}", f"{each['size']} {each['digest']}") for each in one["files"]),
        ("digest", one["digest"]),
    ]
    return tables.render((one["name"], ""), rows)


def _tensor(one: Mapping[str, Any]) -> str:
    shape = ", ".join("?" if size is None else str(size) for size in one["shape"])
    return f"{one['datatype']} [{shape}]"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def run_diff(arguments: argparse.Namespace) -> int:
    """Print in what two versions differ."""
    from inferd_store import views

    found = views.diff(store_of(arguments), arguments.name, arguments.before, arguments.after)
    rows = [
        (name, *("" if value is None else _plain(value) for value in pair))
        for name, pair in found["differences"].items()
    ]
    headers = ("", *(f"VERSION {number}" for number in found["versions"]))
    return _print(arguments, found, tables.render(headers, rows) if rows else "no difference")


def run_remove(arguments: argparse.Namespace) -> int:
    """Remove a version."""
    event = store_of(arguments).remove(arguments.name, arguments.version, by_of(arguments))
    return _print_event(arguments, event, f"{event.model} version {event.version} removed")


def run_promote(arguments: argparse.Namespace) -> int:
    """Move a label to a version that passes."""
    from inferd_store.checking import read_bounds
    from inferd_store.promoting import promote

    bounds = read_bounds(arguments.require)
    store = store_of(arguments)
    size = store.release(arguments.name, arguments.version)[1].size
    with _bar(size) as progress:
        event = promote(
            store, arguments.name, arguments.version, arguments.to, by_of(arguments), bounds,
            progress,
        )  # fmt: skip
    return _print_event(arguments, event, _moved(event))


def run_rollback(arguments: argparse.Namespace) -> int:
    """Move a label back to where it was before."""
    event = store_of(arguments).rollback(arguments.name, arguments.label, by_of(arguments))
    return _print_event(arguments, event, _moved(event))


def run_label(arguments: argparse.Namespace) -> int:
    """Move a label, or remove it."""
    from inferd_store.errors import Refused

    if arguments.remove == bool(arguments.version):
        raise Refused("a version was expected, or --remove")
    store, by = store_of(arguments), by_of(arguments)
    if arguments.remove:
        event = store.unlabel(arguments.name, arguments.label, by)
        text = f"{event.model}: label {event.label} removed from version {event.version}"
        return _print_event(arguments, event, text)
    event = store.move(arguments.name, arguments.label, arguments.version, by)
    return _print_event(arguments, event, _moved(event))


def run_log(arguments: argparse.Namespace) -> int:
    """Print the audit log."""
    from inferd_store import views

    found = views.log(store_of(arguments), arguments.name)
    headers = ("TIME", "WHO", "WHAT", "MODEL", "VERSION", "LABEL", "BEFORE", "WHY")
    rows = [
        (
            one["time"][:19], one["who"], one["what"], one["model"], str(one["version"]),
            one["label"], str(one["before"] or ""), one["why"],
        )
        for one in found
    ]  # fmt: skip
    return _print(arguments, found, tables.render(headers, rows))


def store_of(arguments: argparse.Namespace, create: bool = False) -> Store:
    """Return the store that the flags name.

    Raises:
        StoreError: there is none.
    """
    from inferd_store.errors import NotAStore
    from inferd_store.store import open_store

    if not arguments.store:
        raise NotAStore("which store? --store FOLDER or URL says it, or INFERD_STORE")
    return open_store(arguments.store, create)


def by_of(arguments: argparse.Namespace) -> By:
    """Return who does this, and why."""
    from inferd_store.store import By

    return By(arguments.who or _login(), arguments.why)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container whose user has no name.
        return f"uid {os.getuid()}"


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Give what shows how much was moved, on a terminal."""
    quiet = not sys.stderr.isatty()
    with tqdm(total=total, unit="B", unit_scale=True, disable=quiet, leave=False) as bar:

        def progress(nbytes: int) -> None:
            bar.update(nbytes)

        yield progress


def _print_event(arguments: argparse.Namespace, event: Any, text: str) -> int:
    from dataclasses import asdict

    return _print(arguments, asdict(event), text)


def _print(arguments: argparse.Namespace, document: Any, text: str) -> int:
    print(json.dumps(document, indent=2) if arguments.json else text)
    return 0


def _moved(event: Any) -> str:
    before = f", before at {event.before}" if event.before else ""
    return f"{event.model}: {event.label} is at version {event.version}{before}"


def _labels(labels: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={version}" for name, version in labels.items())
