"""Objects in object storage: S3 and what speaks like it, Google Cloud Storage, Azure.

Credentials come from the environment, as each provider's own tools take them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from inferd_store.errors import (
    AccessDenied,
    Conflict,
    NotAStore,
    NotThere,
    ReadOnly,
    StoreError,
    StoreFull,
    Unreachable,
)
from inferd_store.objects import ABSENT, ANY, CHUNK, Entry, Found

SCHEMES = ("s3", "gs", "az", "azure", "abfs", "abfss")
TIMEOUT = timedelta(seconds=30)
"""Of one request of a small object, and of each part of a large one."""
CONNECT_TIMEOUT = timedelta(seconds=5)
RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
NOT_ALLOWED = "the credentials do not allow"
METADATA_SERVICE = "169.254.169.254"
"""Where cloud hosts are asked for credentials, after the environment."""
SENTENCES: tuple[tuple[str, type[StoreError], str], ...] = (
    ("NoSuchBucket", NotAStore, "there is no such bucket"),
    ("RequestTimeTooSkewed", AccessDenied, "this host's clock is wrong; set it, and try again"),
    ("SignatureDoesNotMatch", AccessDenied, "the secret key is wrong"),
    ("InvalidAccessKeyId", AccessDenied, "the access key is not known there"),
    ("ExpiredToken", AccessDenied, "the credentials have expired"),
    ("QuotaExceeded", StoreFull, "there is no room left"),
    ("EntityTooLarge", StoreFull, "there is no room for an object of that size"),
    ("SlowDown", Unreachable, "it has too much to do; try again"),
    ("AccessDenied", AccessDenied, f"{NOT_ALLOWED} this"),
)
"""What codes in an answer mean, for people; the first that is found counts."""


class RemoteObjects:
    """Objects under one prefix of a bucket or container. Any thread may call."""

    def __init__(self, url: str) -> None:
        """Keep where they are; nothing is asked yet.

        Args:
            url: such as s3://BUCKET/PATH.

        Raises:
            StoreError: no store can be there.
        """
        scheme = url.partition("://")[0]
        if scheme not in SCHEMES:
            raise NotAStore(f"{url}: a folder, s3://, gs:// or az:// was expected")
        try:
            import obstore
            from obstore.store import from_url
        except ModuleNotFoundError as error:
            raise NotAStore(
                f"{url}: object storage needs the package obstore: pip install 'inferd[store]'"
            ) from error
        self._api = obstore
        self._url = url.rstrip("/")
        # Only where an endpoint that the operator names says http://.
        options: Any = {"timeout": TIMEOUT, "connect_timeout": CONNECT_TIMEOUT, "allow_http": True}
        with self._telling("", changing=False):
            self._store = from_url(self._url, client_options=options, retry_config=RETRIES)

    @property
    def address(self) -> str:
        """The URL."""
        return self._url

    def get(self, key: str) -> Found:
        """Return a small object."""
        with self._telling(key, changing=False):
            found = self._api.get(self._store, key)
            return Found(bytes(found.bytes()), str(found.meta["e_tag"] or ""))

    def put(self, key: str, data: bytes, etag: str) -> None:
        """Write a small object, if it is as `etag` says."""
        mode: Any = {ABSENT: "create", ANY: "overwrite"}.get(etag, {"e_tag": etag})
        with self._telling(key, changing=True):
            self._api.put(self._store, key, data, mode=mode, use_multipart=False)

    def write(self, key: str, parts: Iterator[bytes]) -> None:
        """Write a large object; it is there once it is whole."""
        with self._telling(key, changing=True):
            self._api.put(self._store, key, ahead(parts))

    def read(self, key: str, start: int) -> Iterator[bytes]:
        """Return the content from a byte on, in parts."""
        with self._telling(key, changing=False):
            found = self._api.get(self._store, key, options={"range": {"offset": start}})
            for part in found.stream(min_chunk_size=CHUNK):
                yield bytes(part)

    def look(self, key: str) -> Entry | None:
        """Return what a list would say of one object; None if it is not there."""
        try:
            with self._telling(key, changing=False):
                return entry_of(self._api.head(self._store, key))
        except NotThere:
            return None

    def list(self, prefix: str) -> list[Entry]:
        """Return the objects whose keys begin so, sorted by key."""
        # A whole folder is asked for; a part of a name is looked for in it.
        folder = prefix.rpartition("/")[0]
        with self._telling(prefix, changing=False):
            metas = [meta for page in self._api.list(self._store, folder or None) for meta in page]
        found = [entry_of(meta) for meta in metas]
        return sorted(entry for entry in found if entry.key.startswith(prefix))

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        try:
            with self._telling(key, changing=True):
                self._api.delete(self._store, key)
        except NotThere:
            return

    def freshen(self, key: str) -> bool:
        """Return False: it has to be written anew."""
        del key
        return False

    def path(self, key: str) -> Path | None:
        """Return None: they lie elsewhere."""
        del key
        return None

    @contextmanager
    def _telling(self, key: str, changing: bool) -> Iterator[None]:
        """Turn what obstore raises into errors with a sentence."""
        from obstore import exceptions

        try:
            yield
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise Conflict(f"{self._url}/{key} was changed by somebody else meanwhile") from error
        except FileNotFoundError as error:
            raise self._told(error) or NotThere(f"{self._url}/{key} is not there") from error
        except exceptions.BaseError as error:
            raise self._failure(error, changing) from error
        except (OSError, ValueError) as error:
            raise self._failure(error, changing) from error

    def _failure(self, error: Exception, changing: bool) -> StoreError:
        from obstore import exceptions

        kinds = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
        told = self._told(error)
        allowed = not isinstance(error, kinds)
        if changing and not allowed and (told is None or NOT_ALLOWED in str(told)):
            return ReadOnly(f"{self._url} cannot be written: {NOT_ALLOWED} it")
        if told is not None:
            return told
        if not allowed:
            return AccessDenied(f"{self._url}: the credentials are wrong, or do not allow this")
        return Unreachable(f"{self._url} does not answer: {brief(error)}")

    def _told(self, error: Exception) -> StoreError | None:
        """Return what the answer's own code means; None where it has none that is known."""
        text = str(error)
        if METADATA_SERVICE in text:
            return AccessDenied(f"{self._url}: no credentials were found in the environment")
        for code, kind, sentence in SENTENCES:
            if f"<Code>{code}</Code>" in text:
                return kind(f"{self._url}: {sentence}")
        return None


def entry_of(meta: Any) -> Entry:
    """Return an object's description as a store tells it."""
    modified = meta["last_modified"].timestamp()
    return Entry(str(meta["path"]), str(meta["e_tag"] or ""), int(meta["size"]), modified)


def ahead(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Return parts that another thread asks for, one ahead.

    They may come from object storage, which cannot be asked by a thread that writes to it.
    """
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, parts, None)
        while (part := coming.result()) is not None:
            coming = pool.submit(next, parts, None)
            yield part


def brief(error: Exception) -> str:
    """Return what a library says without its inner structure, and without what it was doing."""
    text = str(error).partition("Debug source")[0].partition("\n")[0]
    return text.rpartition(" - ")[2].strip()[:300]
