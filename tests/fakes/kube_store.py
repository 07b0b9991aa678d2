"""The objects of a fake Kubernetes API server, the status that each gets, and who watches them."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
# Group and version, plural name: all is in one namespace.
Place = tuple[str, str]
Event = tuple[str, Json] | None


def selects(selector: str, item: Json) -> bool:
    """Say whether labels fit a selector of equalities."""
    labels = item["metadata"].get("labels", {})
    pairs = (part.split("=", 1) for part in selector.split(",") if part)
    return all(labels.get(key) == value for key, value in pairs)


def status(item: Json, stalled: Collection[str]) -> Json:
    """Return the status of an object that has got where it should, or that never will."""
    if item["kind"] == "Pod":
        ready = {"type": "Ready", "status": "True", "reason": "PodCompleted"}
        return {"phase": "Succeeded", "conditions": [ready]}
    if item["kind"] == "Job":
        return {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
    if item["kind"] != "Deployment":
        return {}
    # One, where an autoscaler says how many there are.
    count = item["spec"].get("replicas", 1)
    told = {"observedGeneration": item["metadata"]["generation"], "replicas": count}
    told["updatedReplicas"] = count
    images = {each["image"] for each in item["spec"]["template"]["spec"]["containers"]}
    if images & set(stalled):
        return told | {"unavailableReplicas": count}
    available = {"type": "Available", "status": "True"}
    progressing = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
    told |= {"readyReplicas": count, "availableReplicas": count}
    return told | {"conditions": [available, progressing]}


@dataclass
class Store:
    """Keeps objects by place and name; every change goes to those who watch the place."""

    stalled: Collection[str] = ()
    objects: dict[Place, dict[str, Json]] = field(default_factory=dict)
    watchers: list[tuple[Place, queue.SimpleQueue[Event]]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    version: int = 1

    def listed(self, place: Place, selector: str = "") -> list[Json]:
        """Return the objects of a place."""
        with self.lock:
            held = self.objects.get(place, {}).values()
            return [item for item in held if selects(selector, item)]

    def get(self, place: Place, name: str) -> Json | None:
        """Return an object, or None."""
        with self.lock:
            return self.objects.get(place, {}).get(name)

    def put(self, place: Place, change: Callable[[Json | None], Json], name: str) -> Json:
        """Store what `change` makes of the object that is there, and return it."""
        with self.lock:
            old = self.get(place, name)
            item = self._stamped(change(old), old)
            self.objects.setdefault(place, {})[name] = item
            self._tell(place, "MODIFIED" if old else "ADDED", item)
            return item

    def delete(self, place: Place, name: str) -> Json | None:
        """Remove an object and return it, or None."""
        with self.lock:
            old = self.objects.get(place, {}).pop(name, None)
            if old is not None:
                self._tell(place, "DELETED", old)
            return old

    def watch(self, place: Place) -> queue.SimpleQueue[Event]:
        """Return a queue of every change from now on, the objects of now first; None ends it."""
        with self.lock:
            events: queue.SimpleQueue[Event] = queue.SimpleQueue()
            for item in self.listed(place):
                events.put(("ADDED", item))
            marks = {"k8s.io/initial-events-end": "true"}
            metadata = {"resourceVersion": str(self.version), "annotations": marks}
            events.put(("BOOKMARK", {"metadata": metadata}))
            self.watchers.append((place, events))
            return events

    def close(self) -> None:
        """End every watch."""
        with self.lock:
            for _, events in self.watchers:
                events.put(None)

    def _stamped(self, item: Json, old: Json | None) -> Json:
        self.version += 1
        before: Json = old["metadata"] if old else {"uid": str(uuid.uuid4()), "generation": 0}
        changed = old is None or old.get("spec") != item.get("spec")
        metadata = item["metadata"] | {"namespace": "default", "uid": before["uid"]}
        metadata["generation"] = before["generation"] + changed
        metadata["resourceVersion"] = str(self.version)
        item = item | {"metadata": metadata}
        return item | {"status": status(item, self.stalled)}

    def _tell(self, place: Place, kind: str, item: Json) -> None:
        for watched, events in self.watchers:
            if watched == place:
                events.put((kind, item))
