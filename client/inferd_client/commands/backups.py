"""inferd models backup, backups, restore and prune: copies of a store, and what is kept."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from inferd_client import tables
from inferd_client.commands.own_releases import OwnReleases
from inferd_client.commands.releases import FAILED, Parsers, bar, opened, operation, printed
from inferd_client.releases import Releases

if TYPE_CHECKING:
    from inferd_store.backups import Backups

PLACE = "a folder, s3://BUCKET/PATH, gs:// or az://"


def configure(parsers: Parsers) -> None:
    """Add the operations."""
    backup = operation(parsers, "backup", run_backup, "copy a store, or some of its models")
    backup("place", metavar="DEST", help=f"{PLACE}, that has or gets backups alone")
    backup("names", nargs="*", metavar="NAME", help="of a model (default: all)")
    backup("--verify", action="store_true", help="read it there, too, and mend what is damaged")
    backups = operation(parsers, "backups", run_backups, "list, check or remove backups")
    backups("place", metavar="DEST", help=PLACE)
    backups("--verify", action="store_true", help="read all of them; exit code 1: one is damaged")
    _configure_rule(backups)
    restore = operation(parsers, "restore", run_restore, "bring models of a backup back")
    restore("place", metavar="SRC", help=f"{PLACE}, that has backups")
    restore("names", nargs="*", metavar="NAME", help="of a model (default: all of the backup)")
    restore("--backup", default="", metavar="BACKUP", help="which one (default: the latest)")
    restore("--force", action="store_true", help="replace models that the store has otherwise")
    restore("--verify", action="store_true", help="read the store's files, too, and mend damaged")
    prune = operation(parsers, "prune", run_prune, "remove versions that a rule does not keep")
    prune("names", nargs="*", metavar="NAME", help="of a model (default: all)")
    _configure_rule(prune)


def _configure_rule(add: Callable[..., Any]) -> None:
    add("--keep-last", type=int, metavar="N", help="keep the newest N")
    add("--keep-days", type=float, metavar="DAYS", help="keep what is not older")
    add("--apply", action="store_true", help="remove the others (default: say which those are)")


def run_backup(arguments: argparse.Namespace) -> int:
    """Make a backup, and print what it has."""
    place, names, verify = arguments.place, arguments.names, arguments.verify
    with opened(arguments) as releases:
        if isinstance(releases, Releases):
            made = releases.backup(place, names, verify)
        else:
            made = _backup(releases, place, names, verify)
    text = f"backup {made['name']}: {len(made['models'])} models, {_size(made['sent'])} sent"
    return printed(arguments, made, f"{text} of {_size(made['size'])}")


def _backup(releases: OwnReleases, address: str, names: Sequence[str], verify: bool) -> Any:
    from inferd_store import views
    from inferd_store.backups import check_apart, open_backups
    from inferd_store.objects import Watch

    store = releases.store
    for name in names:
        store.record(name)
    check_apart(store.address, address)
    place = open_backups(address, time.time, create=True)
    with bar() as shown:
        made = place.make(store, names, releases.by, verify, Watch(*shown))
    return {**views.backup(made.name, made.backup), "sent": made.sent}


def run_backups(arguments: argparse.Namespace) -> int:
    """Print the backups of a place, or check or remove some."""
    from inferd_store.errors import Refused

    ruled = arguments.keep_last is not None or arguments.keep_days is not None
    if arguments.apply and not ruled:
        raise Refused("what is to be kept? --keep-last N, --keep-days DAYS, or both")
    if arguments.url:
        if ruled or arguments.verify:
            raise Refused("a server lists backups; check and remove them without --url")
        with opened(arguments) as releases:
            assert isinstance(releases, Releases)
            return _list(arguments, releases.backups(arguments.place))
    from inferd_store import views
    from inferd_store.backups import open_backups

    place = open_backups(arguments.place, time.time)
    if arguments.verify:
        return _verify(arguments, place)
    if ruled:
        return _remove(arguments, place)
    return _list(arguments, views.backups(place))


def _list(arguments: argparse.Namespace, found: Sequence[Mapping[str, Any]]) -> int:
    headers = ("BACKUP", "MODELS", "SIZE", "WHO", "WHY")
    return printed(arguments, found, tables.render(headers, [_row(one) for one in found]))


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    if "damaged" in one:
        return (one["name"], one["damaged"], "", "", "")
    models = ", ".join(one["asked"]) or f"all ({len(one['models'])})"
    return (one["name"], models, _size(one["size"]), one["who"], one["why"])


def _verify(arguments: argparse.Namespace, place: Backups) -> int:
    from inferd_store.objects import Watch

    with bar() as shown:
        wrong = {name: place.check(name, Watch(*shown)) for name in place.names()}
    rows = [(name, "; ".join(said) or "whole") for name, said in wrong.items()]
    printed(arguments, wrong, tables.render(("BACKUP", "STATE"), rows))
    return FAILED if any(wrong.values()) else 0


def _remove(arguments: argparse.Namespace, place: Backups) -> int:
    from inferd_store.retention import Rule

    verdicts = place.judged(Rule(arguments.keep_last, arguments.keep_days))
    going = [one.key for one in verdicts if not one.kept]
    if arguments.apply and going:
        place.remove(going)
    rows = [(one.key, _fate(arguments, one.kept)) for one in verdicts]
    document = [asdict(one) for one in verdicts]
    return printed(arguments, document, tables.render(("BACKUP", "FATE"), rows))


def run_restore(arguments: argparse.Namespace) -> int:
    """Bring models of a backup back."""
    from inferd_store.errors import Refused

    if arguments.url:
        raise Refused("a backup is restored into the store itself: give --store, not --url")
    with opened(arguments) as releases:
        assert isinstance(releases, OwnReleases)
        found = _restore(arguments, releases)
    rows = [
        (one["name"], ", ".join(map(str, one["versions"])), one["what"]) for one in found["models"]
    ]
    table = tables.render(("NAME", "VERSIONS", found["backup"]), rows)
    return printed(arguments, found, table)


def _restore(arguments: argparse.Namespace, releases: OwnReleases) -> dict[str, Any]:
    from inferd_store.backups import open_backups
    from inferd_store.objects import Watch
    from inferd_store.restoring import read_saved, restore
    from inferd_store.store import open_store

    place = open_backups(arguments.place, time.time)
    name = arguments.backup or place.latest(arguments.names)
    saved = read_saved(place, name, arguments.names)
    # Only now: what cannot be read makes no empty store.
    store = open_store(releases.address, create=True)
    force, verify = arguments.force, arguments.verify
    with bar() as shown:
        became = restore(place, saved, store, releases.by, force, verify, Watch(*shown))
    return {"backup": name, "models": [asdict(one) for one in became]}


def run_prune(arguments: argparse.Namespace) -> int:
    """Remove the versions that a rule does not keep, or tell which those would be."""
    last, days, apply = arguments.keep_last, arguments.keep_days, arguments.apply
    with opened(arguments) as releases:
        fates = releases.prune(arguments.names, last, days, apply)
    rows = [(one["name"], str(one["version"]), _fate(arguments, one["kept"])) for one in fates]
    return printed(arguments, fates, tables.render(("NAME", "VERSION", "FATE"), rows))


def _fate(arguments: argparse.Namespace, kept: str) -> str:
    if kept:
        return f"kept: {kept}"
    return "removed" if arguments.apply else "would be removed; --apply does it"


def _size(nbytes: int) -> str:
    """Return bytes as people read them."""
    return f"{tqdm.format_sizeof(nbytes)}B"
