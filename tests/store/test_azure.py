"""The same of a store in Azure's blob storage, on Azurite, Microsoft's stand-in for it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from tests.server.lifecycle.process import PATIENCE
from tests.store.seaweed import free_ports
from tests.store.test_s3 import (  # noqa: F401 collected here, over the address of this file
    test_a_store_is_the_same_in_object_storage,
    test_conditional_writes_hold,
    test_of_32_who_move_one_label_at_once_exactly_one_wins,
)

AZURITE = "azurite-blob"
CONTAINER = "models"
# Of Azurite alone, and known to everybody. Source: Azurite's README, "Default Storage Account".
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
VERSION = "2021-08-06"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an account with one container."""
    program = shutil.which(AZURITE)
    if program is None:
        pytest.skip(f"not here: {AZURITE} (npm install --global azurite)")
    folder, port = tmp_path_factory.mktemp("azurite"), free_ports(1)[0]
    quiet = ["--disableTelemetry", "--skipApiVersionCheck"]
    command = [program, "--blobPort", str(port), "--location", str(folder), *quiet]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            url = f"http://127.0.0.1:{port}/{ACCOUNT}"
            listening = threading.Event()
            threading.Thread(target=read, args=(process, listening), daemon=True).start()
            assert listening.wait(PATIENCE)
            make_container(url)
            yield url
        finally:
            process.kill()


def read(process: subprocess.Popen[bytes], listening: threading.Event) -> None:
    """Read what it says to the end, lest the pipe gets full."""
    for line in process.stdout or ():
        if b"successfully listens" in line:
            listening.set()


def make_container(url: str) -> None:
    """Make the container, as its owner. Source: Azure's REST API, "Authorize with Shared Key"."""
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    named = f"x-ms-date:{date}\nx-ms-version:{VERSION}\n"
    resource = f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
    text = "PUT" + "\n" * 12 + named + resource
    signed = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": VERSION,
        "Content-Length": "0",
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signed).decode()}",
    }
    place = f"{url}/{CONTAINER}?restype=container"
    asked = urllib.request.Request(place, None, headers, method="PUT")
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
        assert answer.status == 201


@pytest.fixture
def address(azurite: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where no store is yet; the environment has the credentials."""
    for name, value in {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_ENDPOINT": azurite,
        "AZURE_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return f"az://{CONTAINER}/{uuid4().hex}"
