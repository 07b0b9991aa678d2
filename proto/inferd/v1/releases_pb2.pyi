from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListReleasesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListReleasesResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class ShowReleasesRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class ShowReleasesResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class DiffReleasesRequest(_message.Message):
    __slots__ = ("name", "before", "after")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    before: str
    after: str
    def __init__(self, name: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class DiffReleasesResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class ReadReleaseLogRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ReadReleaseLogResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class ChangedBy(_message.Message):
    __slots__ = ("who", "why")
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    who: str
    why: str
    def __init__(self, who: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class PromoteReleaseRequest(_message.Message):
    __slots__ = ("name", "version", "label", "bounds", "by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    label: str
    bounds: _containers.RepeatedScalarFieldContainer[str]
    by: ChangedBy
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., label: _Optional[str] = ..., bounds: _Optional[_Iterable[str]] = ..., by: _Optional[_Union[ChangedBy, _Mapping]] = ...) -> None: ...

class PromoteReleaseResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: ReleaseEvent
    def __init__(self, event: _Optional[_Union[ReleaseEvent, _Mapping]] = ...) -> None: ...

class RollbackReleaseRequest(_message.Message):
    __slots__ = ("name", "label", "by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    label: str
    by: ChangedBy
    def __init__(self, name: _Optional[str] = ..., label: _Optional[str] = ..., by: _Optional[_Union[ChangedBy, _Mapping]] = ...) -> None: ...

class RollbackReleaseResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: ReleaseEvent
    def __init__(self, event: _Optional[_Union[ReleaseEvent, _Mapping]] = ...) -> None: ...

class LabelReleaseRequest(_message.Message):
    __slots__ = ("name", "label", "version", "by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    label: str
    version: str
    by: ChangedBy
    def __init__(self, name: _Optional[str] = ..., label: _Optional[str] = ..., version: _Optional[str] = ..., by: _Optional[_Union[ChangedBy, _Mapping]] = ...) -> None: ...

class LabelReleaseResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: ReleaseEvent
    def __init__(self, event: _Optional[_Union[ReleaseEvent, _Mapping]] = ...) -> None: ...

class RemoveReleaseRequest(_message.Message):
    __slots__ = ("name", "version", "by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    by: ChangedBy
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., by: _Optional[_Union[ChangedBy, _Mapping]] = ...) -> None: ...

class RemoveReleaseResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: ReleaseEvent
    def __init__(self, event: _Optional[_Union[ReleaseEvent, _Mapping]] = ...) -> None: ...

class UploadReleaseFileRequest(_message.Message):
    __slots__ = ("digest", "offset", "data")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    data: bytes
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadReleaseFileResponse(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class ReleaseFile(_message.Message):
    __slots__ = ("path", "digest")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    path: str
    digest: str
    def __init__(self, path: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class AddReleaseRequest(_message.Message):
    __slots__ = ("name", "files", "by", "commit", "notes", "metrics", "bounds", "parents", "tags", "tolerance")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    files: _containers.RepeatedCompositeFieldContainer[ReleaseFile]
    by: ChangedBy
    commit: str
    notes: str
    metrics: _containers.RepeatedScalarFieldContainer[str]
    bounds: _containers.RepeatedScalarFieldContainer[str]
    parents: _containers.RepeatedScalarFieldContainer[str]
    tags: _containers.RepeatedScalarFieldContainer[str]
    tolerance: str
    def __init__(self, name: _Optional[str] = ..., files: _Optional[_Iterable[_Union[ReleaseFile, _Mapping]]] = ..., by: _Optional[_Union[ChangedBy, _Mapping]] = ..., commit: _Optional[str] = ..., notes: _Optional[str] = ..., metrics: _Optional[_Iterable[str]] = ..., bounds: _Optional[_Iterable[str]] = ..., parents: _Optional[_Iterable[str]] = ..., tags: _Optional[_Iterable[str]] = ..., tolerance: _Optional[str] = ...) -> None: ...

class AddReleaseResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: ReleaseEvent
    def __init__(self, event: _Optional[_Union[ReleaseEvent, _Mapping]] = ...) -> None: ...

class PruneReleasesRequest(_message.Message):
    __slots__ = ("names", "keep_last", "keep_days", "apply", "by")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    KEEP_LAST_FIELD_NUMBER: _ClassVar[int]
    KEEP_DAYS_FIELD_NUMBER: _ClassVar[int]
    APPLY_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    keep_last: int
    keep_days: float
    apply: bool
    by: ChangedBy
    def __init__(self, names: _Optional[_Iterable[str]] = ..., keep_last: _Optional[int] = ..., keep_days: _Optional[float] = ..., apply: _Optional[bool] = ..., by: _Optional[_Union[ChangedBy, _Mapping]] = ...) -> None: ...

class PruneReleasesResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class BackupReleasesRequest(_message.Message):
    __slots__ = ("place", "names", "verify", "by")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    place: str
    names: _containers.RepeatedScalarFieldContainer[str]
    verify: bool
    by: ChangedBy
    def __init__(self, place: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., verify: _Optional[bool] = ..., by: _Optional[_Union[ChangedBy, _Mapping]] = ...) -> None: ...

class BackupReleasesResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class ListBackupsRequest(_message.Message):
    __slots__ = ("place",)
    PLACE_FIELD_NUMBER: _ClassVar[int]
    place: str
    def __init__(self, place: _Optional[str] = ...) -> None: ...

class ListBackupsResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class ReleaseEvent(_message.Message):
    __slots__ = ("id", "time", "who", "what", "model", "version", "label", "before", "why", "sequence")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    time: str
    who: str
    what: str
    model: str
    version: int
    label: str
    before: int
    why: str
    sequence: int
    def __init__(self, id: _Optional[str] = ..., time: _Optional[str] = ..., who: _Optional[str] = ..., what: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., label: _Optional[str] = ..., before: _Optional[int] = ..., why: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...
