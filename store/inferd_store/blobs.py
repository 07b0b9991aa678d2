"""Contents under their digests: those of a store, and those of backups.

blobs/sha256/<digest>  files and manifests; they never change
drafts/<id>.json       the digests that somebody needs who has not said so in public yet

A content that nothing refers to is deleted once it is an hour old. Whoever adds something writes a
draft before looking at what is there, and whoever deletes reads the drafts before what is public:
so no content goes that somebody found there and builds on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from inferd_store.errors import Conflict, Damaged, NotThere
from inferd_store.local import LocalObjects
from inferd_store.objects import ABSENT, ANY, Entry, Objects, Progress, Watch
from inferd_store.release import FORMAT, StoredFile, digest_of, packed, unpacked
from inferd_store.transfer import read_on

BLOBS, DRAFTS = "blobs/sha256/", "drafts/"
KEPT_S = 3600.0
"""Seconds for which a content is kept that nothing refers to."""
DRAFT_S = 86400.0
"""Seconds after which a draft counts no more: whoever wrote it has died."""
RENEWED_S = 3600.0


class Blobs:
    """Contents under their digests. Any thread and any process may add some."""

    def __init__(self, objects: Objects, clock: Callable[[], float] = time.time) -> None:
        """Keep where they are.

        Args:
            objects: of the store, or of the place for backups.
            clock: seconds since the epoch.
        """
        self.objects = objects
        self._clock = clock

    def get(self, digest: str, what: str) -> bytes:
        """Return a small content.

        Args:
            digest: of it.
            what: it is, for whoever reads the error.

        Raises:
            Damaged: it is not what its digest says.
            NotThere: there is none.
        """
        data = self.objects.get(BLOBS + digest).data
        if digest_of(data) != digest:
            raise Damaged(f"{what} in {self.objects.address} is not what its digest says")
        return data

    def put(self, data: bytes) -> str:
        """Write a small content, and return its digest."""
        digest = digest_of(data)
        self.objects.put(BLOBS + digest, data, ANY)
        return digest

    def there(self) -> frozenset[str]:
        """Return the digests of what is there."""
        return frozenset(digest_in(entry.key) for entry in self.objects.list(BLOBS))

    def send(self, file: StoredFile, parts: Iterator[bytes], progress: Progress) -> None:
        """Write a content, unless it is there and stays."""
        there = self.objects.look(BLOBS + file.digest)
        if there is not None and self.stays(file, there):
            progress(file.size)
            return
        self.objects.write(BLOBS + file.digest, parts)

    def stays(self, file: StoredFile, there: Entry) -> bool:
        """True if nobody deletes a content that is there before a draft of it can be seen."""
        if there.size != file.size:
            return False
        return there.modified > self._clock() - KEPT_S / 2 or self.objects.freshen(there.key)

    def lacking(
        self,
        files: Collection[StoredFile],
        referred: Collection[str],
        verify: bool,
        watch: Watch,
    ) -> Iterator[StoredFile]:
        """Give the contents that have to be sent: the others are here, and stay.

        Args:
            files: that are needed, as a draft says by now.
            referred: digests that something public refers to.
            verify: read those that are here; what is damaged is to be sent, too.
            watch: told of what is read.
        """
        there = {digest_in(entry.key): entry for entry in self.objects.list(BLOBS)}
        if verify:
            watch.expected(sum(file.size for file in files if file.digest in there))
        for file in files:
            known = there.get(file.digest)
            if (
                known is None
                or known.size != file.size
                or not (file.digest in referred or self.stays(file, known))
                or (verify and not self.sound(file, watch.moved))
            ):
                yield file

    def confirm(self, files: Iterable[StoredFile]) -> None:
        """See that contents are there which others may have deleted.

        Raises:
            Conflict: one is not.
        """
        there = self.there()
        for file in files:
            if file.digest not in there:
                raise Conflict(f"{file.path} was deleted by somebody else meanwhile; try again")

    def parts(self, file: StoredFile, progress: Progress) -> Iterator[bytes]:
        """Return a content in parts; it goes on where it was when it is cut off.

        Raises:
            Damaged: it is not what its digest says; told when all of it came.
            NotThere: there is none.
        """
        digest = hashlib.sha256()
        try:
            for part in read_on(self.objects, BLOBS + file.digest, 0, file.size):
                digest.update(part)
                yield part
                progress(len(part))
        except NotThere:
            raise NotThere(f"{file.path} is not in {self.objects.address}") from None
        if digest.hexdigest() != file.digest:
            raise Damaged(f"{file.path} in {self.objects.address} is not what its digest says")

    def check(self, file: StoredFile, progress: Progress) -> None:
        """Read a content, and see that it is what its digest says.

        Raises:
            Damaged: it is not.
            NotThere: there is none.
        """
        for _ in self.parts(file, progress):
            pass

    def sound(self, file: StoredFile, progress: Progress) -> bool:
        """True if a content is what its digest says."""
        try:
            self.check(file, progress)
        except (Damaged, NotThere):
            return False
        return True

    @contextmanager
    def drafted(self, digests: Collection[str]) -> Iterator[Callable[[], None]]:
        """Say that contents are needed; gives what is called now and then while that lasts."""
        key, data = f"{DRAFTS}{uuid4().hex}.json", packed_draft(digests)
        self.objects.put(key, data, ABSENT)
        written = self._clock()

        def renew() -> None:
            nonlocal written
            if self._clock() - written > RENEWED_S:
                self.objects.put(key, data, ANY)
                written = self._clock()

        try:
            yield renew
        finally:
            self.objects.delete(key)

    def sweep(self, used: Callable[[], Collection[str]]) -> int:
        """Delete contents that nobody needs; return how many those were.

        Args:
            used: returns the digests that something public refers to.
        """
        # Before what is public: a draft that was finished meanwhile is seen there.
        needed = self._drafts()
        needed.update(used())
        old = self._clock() - KEPT_S
        gone = 0
        for entry in self.objects.list(BLOBS):
            if entry.modified < old and digest_in(entry.key) not in needed:
                gone += self._delete(entry.key, old)
        if isinstance(self.objects, LocalObjects):
            self.objects.sweep(self._clock())
        return gone

    def _delete(self, key: str, old: float) -> bool:
        """Delete a content, unless somebody has just made it young."""
        now = self.objects.look(key)
        if now is None or now.modified >= old:
            return False
        self.objects.delete(key)
        return True

    def _drafts(self) -> set[str]:
        found: set[str] = set()
        for entry in self.objects.list(DRAFTS):
            if entry.modified < self._clock() - DRAFT_S:
                self.objects.delete(entry.key)
                continue
            try:
                found.update(read_draft(self.objects.get(entry.key).data))
            except NotThere:
                # It ended meanwhile.
                continue
        return found


def digest_in(key: str) -> str:
    """Return the digest in a key."""
    return key.removeprefix(BLOBS)


def packed_draft(digests: Iterable[str]) -> bytes:
    """Return the bytes of a draft's object."""
    return packed({"format": FORMAT, "digests": sorted(digests)})


def read_draft(data: bytes) -> list[str]:
    """Read the object of a draft.

    Raises:
        Damaged: it is none.
    """
    return list(map(str, unpacked(data, "a draft").get("digests", ())))
