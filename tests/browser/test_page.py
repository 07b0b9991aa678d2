"""The page of the metrics port in a real browser: it loads, goes on, and is readable on a phone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.browser.driving import Browser, missing
from tests.server.lifecycle.process import ready_process
from tests.server.serving import infer_request, rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing()), reason=f"this machine lacks {missing()}"),
]
PHONE = 390
ANSWERED = "Number(document.querySelector('#tiles b')?.innerText?.replace(',', '')) > 0"
READY = "document.querySelector('#state').innerText === 'ready'"
COUNTED = """points.every((one) => one.anew || Object.values(one.models).every(
    (model) => model.answers >= 0 && model.batches >= 0 && model.ran >= 0))"""
DRAWN = "document.querySelectorAll('#throughput polyline, #batches polyline').length === 2"
PHASES = "document.querySelectorAll('#latency polygon').length >= 3"
FAILED = "document.querySelectorAll('#errors polygon').length >= 1"
# Words that are cut off, or wider than the screen, would show here.
WIDTH = "document.documentElement.scrollWidth"
SMALLEST = """Math.min(...[...document.querySelectorAll('body *')]
    .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((one) => parseFloat(getComputedStyle(one).fontSize)))"""


@contextmanager
def traffic(port: int) -> Iterator[None]:
    """Send requests meanwhile, and now and then a wrong one."""
    ended = threading.Event()
    right = infer_request("scaled", rows(1.0, 2.0))
    wrong = infer_request("scaled", {"INPUT0": np.zeros((1, 5), np.float32)})

    def live() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            while not ended.wait(0.02):
                stub.ModelInfer(right)
                with pytest.raises(grpc.RpcError):
                    stub.ModelInfer(wrong)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_the_page_loads_goes_on_survives_a_restart_and_fits_a_phone(tmp_path: Path) -> None:
    folder = models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})
    (folder / "broken/1").mkdir(parents=True)
    # What others name must not become markup.
    (folder / "broken/1/model.onnx").write_bytes(b"<b>no model</b>")
    flags = ("--strict-readiness", "false", "--processes", "split", "--fronts", "1")
    with Browser() as browser:
        browser("size", width=1280, height=900)
        with ready_process(folder, *flags, "--metrics-port", "0") as (process, where):
            port = where["metrics_port"]
            with traffic(where["grpc_port"]):
                assert browser("open", url=f"http://127.0.0.1:{port}/") == 200
                for js in (ANSWERED, DRAWN, PHASES, FAILED):
                    assert browser("wait", js=js)
                before = browser.text("#when")
                wait = f"document.querySelector('#when').innerText !== {before!r}"
                assert browser("wait", js=wait)
            assert browser("wait", js=READY)
            shown = browser.text("#models")
            assert "onnxruntime/CPUExecutionProvider" in shown
            assert "UNAVAILABLE" in shown
            assert "a version failed to load" in browser.text("#lines")
            assert "INVALID_ARGUMENT" in browser.text("#errors")
            browser("shot", path=str(tmp_path / "wide.png"))
            for scheme in ("light", "dark"):
                browser("size", width=PHONE, height=844, scheme=scheme)
                browser("shot", path=str(tmp_path / f"phone-{scheme}.png"))
                assert browser("evaluate", js=WIDTH) == PHONE
                assert browser("evaluate", js=SMALLEST) >= 11
            browser("choose", selector="#model", value="scaled / 1")
            assert "broken" not in browser.text("#models")
            seen = browser("seen")
            assert (seen["said"], seen["asked"]) == ([], [f"http://127.0.0.1:{port}"])
            process.terminate()
            assert process.exit_code() == 0
        assert browser("wait", js="!document.querySelector('#trouble').hidden")
        assert browser.text("#state") == "no answer"
        with ready_process(folder, *flags, "--metrics-port", str(port)) as (process, where):
            assert browser("wait", js="document.querySelector('#trouble').hidden")
            with traffic(where["grpc_port"]):
                assert browser("wait", js=f"points.at(-1).models && {ANSWERED}")
            # What was counted before does not count as less than nothing.
            assert browser("evaluate", js="points.filter((one) => one.anew).length") >= 1
            assert browser("evaluate", js=COUNTED)
            assert browser("wait", js=READY)
