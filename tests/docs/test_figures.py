"""Every number in a sentence of a page is the one in the code."""

from __future__ import annotations

import re

import pytest
from inferd_client.service_config import BETWEEN_RESOLUTIONS_MS, RETRY_POLICY
from inferd_engines import onnx_run, onnx_threads
from inferd_server import memory as idle_heap
from inferd_server.batching import decision, fatal, inline, instance, run_costs
from inferd_server.batching import lanes as lane
from inferd_server.cache import making, redis
from inferd_server.inference import wire as field_count
from inferd_server.models import health_check, last_request, overrides, recovery, row_independence
from inferd_server.models import warmup as timing
from inferd_server.models.config import ModelConfig, ResponseCacheConfig, SequenceConfig
from inferd_server.monitoring import bounded_log
from inferd_server.processes import policy, quarantine, retry
from inferd_server.processes import watchdog as vigil
from inferd_server.security import validity, watched
from inferd_server.transport import compression, options

from .pages import PAGES

MIB = 1 << 20
WORDS = {2: "twice", 3: "three", 4: "four", 5: "five", 8: "eight", 10: "ten"}
BUDGET = row_independence.Budget(lambda: 0.0, lambda: 0, lambda: 0)


def plain(number: float) -> str:
    """Return a number as pages write it."""
    return str(int(number)) if number == int(number) else str(number)


# A page, a sentence of it with its number left out, and that number.
FIGURES: list[tuple[str, str, str]] = [
    ("scheduling", "in the last {} runs of that shape", plain(run_costs.RUNS)),
    ("scheduling", "not seen again for {} s", plain(run_costs.FRESH_S)),
    ("scheduling", "more than {} as long as those before", WORDS[int(run_costs.CHANGED)]),
    ("scheduling", "while a {} of the request's time", {0.1: "tenth"}[decision.RESERVE]),
    ("scheduling", "`priority_head_start_ms` ({})", plain(ModelConfig().priority_head_start_ms)),
    ("scheduling", "idle_s: {} ", plain(SequenceConfig().idle_s)),
    ("scheduling", "max_sequences: {} ", plain(SequenceConfig().max_sequences)),
    ("health", "pings every process {} times a second", WORDS[round(1 / vigil.TICK_S)]),
    ("health", "A worker that misses {} is", WORDS[vigil.MISSED]),
    ("health", "lost its engine more than {} times in a row", plain(recovery.LIMIT)),
    ("health", "ended more than {} times in a row", plain(policy.LIMIT)),
    ("health", "after more than {} losses", plain(recovery.LIMIT)),
    ("health", "without {} quiet minutes", WORDS[round(recovery.FORGIVEN_S / 60)]),
    ("health", "opened anew with its model, after {} s", plain(recovery.FIRST_S)),
    ("health", "looked for after 0.1 s and ever later, up to {} s", plain(recovery.LONGEST_S)),
    ("health", "{} workers in a row ended before", WORDS[policy.FAILURES_ON_GPU]),
    ("health", "at most a {} of a core", {0.01: "hundredth"}[health_check.SHARE]),
    ("health", "and a {} for the way", {0.001: "millisecond"}[health_check.LEAST_S]),
    ("health", "(a copy of at most {} MiB,", plain(last_request.LARGEST / MIB)),
    ("health", "A request begins to run {} at most.", WORDS[retry.RUNS]),
    ("health", "its deadline is less than a {} away", {1.0: "second"}[retry.START_S]),
    ("health", "The last {} are kept.", plain(quarantine.MOST)),
    ("health", "ends at once with exit code {},", plain(fatal.EXIT_CODE)),
    ("cache", "After {} failures in a row", plain(making.FAILURES)),
    ("cache", "it is left alone for {} s,", plain(making.REST_S)),
    ("cache", "Keys begin with `{}`", redis.PREFIX.decode()),
    (
        "cache",
        "an answer may be used; {} unless",
        plain(ResponseCacheConfig().ttl_s),
    ),
    ("security", "a message has at most {} fields", f"{field_count.MAX_FIELDS:,}"),
    ("security", "a `ModelInferRequest` itself {};", f"{field_count.MAX_OUTER_FIELDS:,}"),
    ("security", "its descriptors allow less {}", plain(options.RESERVED_DESCRIPTORS)),
    ("security", "address of {} of each reason", WORDS[bounded_log.LINES]),
    ("security", "of each reason in {} seconds", WORDS[int(bounded_log.PERIOD_S)]),
    ("security", "or does so within a {};", {7 * 86_400: "week"}[int(validity.SOON_S)]),
    ("security", "The file is looked at once a {},", {1.0: "second"}[watched.LOOK_S]),
    ("security", "often their size one above {} MiB", plain(compression.ANY_RATIO_BYTES / MIB)),
    ("security", "given back to the system {} to", plain(idle_heap.LOOK_S)),
    ("security", "to the system 5 to {} seconds", plain(2 * idle_heap.LOOK_S)),
    ("processes", "full batch takes at most {} ms", plain(inline.LONGEST_S * 1000)),
    ("processes", "it ends after a {} without", {1.0: "second"}[instance.IDLE_S]),
    ("processes", "ever later, up to {} s,", plain(policy.LONGEST_S)),
    ("processes", "after more than {} times in a row", plain(policy.LIMIT)),
    ("processes", "done with {} MiB of the process's own", plain(lane.KEPT_BYTES / MIB)),
    ("models", "After {} seconds only that part", plain(BUDGET.most_s)),
    ("models", "for {} seconds at most", plain(BUDGET.least_s)),
    ("models", "more than {} GiB of memory", plain(BUDGET.memory / 2**30)),
    ("models", "A model that takes {} ms and more", plain(timing.SLOW_S * 1000)),
    ("models", "twice the rows bring {} more rows", f"{timing.GAIN - 1:.0%}".replace("%", " %")),
    ("models", "or {} while that took", f"{timing.SMALL_GAIN - 1:.0%}".replace("%", " %")),
    ("models", "took less than {} a second;", {0.5: "half"}[timing.TRIED_S]),
    ("models", "batch that brings {} of the most", f"{timing.ENOUGH:.0%}".replace("%", " %")),
    ("models", "a full batch within {} ms", plain(inline.LONGEST_S * 1000)),
    ("models", "after 0.1 s and ever later, up to {} s,", plain(recovery.LONGEST_S)),
    ("onnxruntime", "come to {} KiB or more", plain(onnx_run.BINDING_PAYS / 1024)),
    ("onnxruntime", "together below {} MiB,", plain(onnx_threads.SMALL_FILES / MIB)),
    ("onnxruntime", "with at most {} elements", plain(onnx_threads.SMALL_ROW)),
    ("balancing", "{} times within about", WORDS[int(str(RETRY_POLICY["maxAttempts"])) - 1]),
    ("balancing", "at most every {} s:", plain(BETWEEN_RESOLUTIONS_MS / 1000)),
    ("triton", "At most {} files of a model", plain(overrides.MOST_FILES)),
    ("triton", "and {} MiB of all", plain(overrides.MOST_BYTES / MIB)),
]


@pytest.mark.parametrize(("page", "sentence", "number"), FIGURES, ids=lambda text: text[:40])
def test_a_number_is_that_of_the_code(page: str, sentence: str, number: str) -> None:
    text = re.sub(r"\s+", " ", PAGES[page]).replace("**", "")
    assert sentence.format(number).strip() in text
