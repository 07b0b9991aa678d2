"""The audit log of a store: who did what, in an object for each event, once and for all.

Of each model the latest events are in its record, too, which the change itself writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from inferd_store.errors import Conflict, StoreError
from inferd_store.objects import ABSENT, Objects
from inferd_store.record import Event, Record, packed_event, read_event

AUDIT = "audit/"


class AuditLog:
    """The events of all models. Any thread may call."""

    def __init__(self, objects: Objects) -> None:
        """Keep the objects of the store."""
        self._objects = objects

    def events(self, record: Record) -> list[Event]:
        """Return all events of a model up to those of its record, by their numbers."""
        found = self.told(record)
        return [found[number] for number in sorted(found) if number <= record.sequence]

    def told(self, record: Record) -> dict[int, Event]:
        """Return all events of a model by their numbers, also such as came after its record."""
        found: dict[int, Event] = {}
        for entry in self._objects.list(f"{AUDIT}{record.name}/"):
            event = read_event(self._objects.get(entry.key).data)
            found[event.sequence] = event
        # Those whose own object was not written any more, because a process died just then.
        return found | {event.sequence: event for event in record.events}

    def keep(self, events: Iterable[Event]) -> None:
        """Write events that the record lets go.

        Raises:
            StoreError: one cannot be written.
        """
        for event in events:
            key = f"{AUDIT}{event.model}/{event.sequence:012}.json"
            # There already, perhaps.
            with suppress(Conflict):
                self._objects.put(key, packed_event(event), ABSENT)

    def finish(self, event: Event) -> None:
        """Write the event of a change that is made; where that fails, the record has it."""
        with suppress(StoreError):
            self.keep([event])
