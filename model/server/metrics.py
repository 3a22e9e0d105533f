"""What Prometheus may know of the engine, under the names, labels and buckets of vLLM v1.

So dashboards and autoscalers made for vLLM read this server unchanged.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from model.engine.config import EngineConfig
from model.engine.stats import Stats

FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
PER_TOKEN_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
REQUEST_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
Histograms = dict[str, tuple[str, tuple[float, ...]]]

LENGTHS: tuple[float, ...] = ()  # 1, 2, 5, 10, … up to the longest context
# Fields of Stats, Observed and Finished → the name after `vllm:`, and what it is or its buckets
GAUGES = {
    "num_running": ("num_requests_running", "Requests in the batch."),
    "num_waiting": ("num_requests_waiting", "Requests in the queue."),
    "kv_usage": ("kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1."),
}
COUNTERS = {
    "prompt_tokens": ("prompt_tokens", "Prompt tokens, cached ones included."),
    "generation_tokens": ("generation_tokens", "Tokens generated."),
    "preemptions": ("num_preemptions", "Requests that lost their blocks."),
    "prefix_queries": ("prefix_cache_queries", "Tokens looked up in the cache."),
    "prefix_hits": ("prefix_cache_hits", "Tokens found in the cache."),
    "drafts": ("spec_decode_num_drafts", "Guesses that were checked."),
    "draft_tokens": ("spec_decode_num_draft_tokens", "Tokens guessed."),
    "accepted_tokens": ("spec_decode_num_accepted_tokens", "Guessed tokens that were right."),
}
PER_EVENT: Histograms = {
    "iteration_tokens": ("iteration_tokens_total", STEP_TOKENS),
    "time_to_first_token": ("time_to_first_token_seconds", FIRST_TOKEN_S),
    "inter_token_latency": ("inter_token_latency_seconds", PER_TOKEN_S),
}
PER_REQUEST: Histograms = {
    "num_prompt_tokens": ("request_prompt_tokens", LENGTHS),
    "num_output_tokens": ("request_generation_tokens", LENGTHS),
    "max_tokens": ("request_params_max_tokens", LENGTHS),
    "n": ("request_params_n", (1, 2, 5, 10, 20)),
    "e2e": ("e2e_request_latency_seconds", REQUEST_S),
    "queue": ("request_queue_time_seconds", REQUEST_S),
    "prefill": ("request_prefill_time_seconds", REQUEST_S),
    "decode": ("request_decode_time_seconds", REQUEST_S),
    "inference": ("request_inference_time_seconds", REQUEST_S),
    "per_output_token": ("request_time_per_output_token_seconds", PER_TOKEN_S),
}
LABELS = ("model_name", "engine")
REASONS = ("stop", "length", "abort", "error")
REJECTIONS = {"requests": "max_num_queued_reqs", "tokens": "max_num_queued_tokens"}


class Metrics:
    """One registry per server, so that tests can have several."""

    def __init__(self, model: str, config: EngineConfig, max_loras: int = 0) -> None:
        registry = self.registry = CollectorRegistry()
        own = (model, "0")
        lengths = one_two_five(config.max_model_len)

        self._gauges = {
            field: Gauge(f"vllm:{name}", what, LABELS, registry=registry).labels(*own)
            for field, (name, what) in GAUGES.items()
        }
        self._counters = {
            field: Counter(f"vllm:{name}", what, LABELS, registry=registry).labels(*own)
            for field, (name, what) in COUNTERS.items()
        }
        self._events = _histograms(PER_EVENT, lengths, own, registry)
        self._requests = _histograms(PER_REQUEST, lengths, own, registry)
        names, what = (*LABELS, "finished_reason"), "Finished requests."
        success = Counter("vllm:request_success", what, names, registry=registry)
        self._success = {reason: success.labels(*own, reason) for reason in REASONS}
        names, what = (*LABELS, "reason"), "Requests refused by a full queue."
        rejected = Counter("vllm:admission_rejections", what, names, registry=registry)
        self.rejections = {ours: rejected.labels(*own, it) for ours, it in REJECTIONS.items()}
        names = ("max_lora", "waiting_lora_adapters", "running_lora_adapters")
        self._loras = Gauge("vllm:lora_requests_info", "Adapters in use.", names, registry=registry)
        self._max_loras = str(max_loras) if max_loras else None
        _tell_cache(config, registry)
        self._seen = dict.fromkeys(COUNTERS, 0)  # what of the engine's counts is counted here

    def start_from(self, stats: Stats) -> None:
        """Do not count what the engine did so far."""
        self._seen = {field: getattr(stats, field) for field in COUNTERS}

    def record(self, stats: Stats) -> None:
        """Note one step."""
        for field, gauge in self._gauges.items():
            gauge.set(getattr(stats, field))
        for field, counter in self._counters.items():
            total = getattr(stats, field)
            counter.inc(total - self._seen[field])
            self._seen[field] = total
        for field, histogram in self._events.items():
            for value in getattr(stats.observed, field):
                histogram.observe(value)
        for finished in stats.observed.finished:
            self._success[finished.reason].inc()
            for field, histogram in self._requests.items():
                value = getattr(finished, field)
                if value is not None:
                    histogram.observe(value)
        if self._max_loras:
            waiting, running = (
                ",".join(sorted(names))
                for names in (stats.waiting_adapters, stats.running_adapters)
            )
            self._loras.clear()
            self._loras.labels(self._max_loras, waiting, running).set_to_current_time()

    def text(self) -> bytes:
        """The exposition that Prometheus scrapes."""
        return generate_latest(self.registry)


def _histograms(
    table: Histograms, lengths: Sequence[float], own: tuple[str, str], registry: CollectorRegistry
) -> dict[str, Histogram]:
    made = {}
    for field, (name, buckets) in table.items():
        what = name.replace("_", " ").capitalize() + "."
        histogram = Histogram(
            f"vllm:{name}", what, LABELS, buckets=buckets or lengths, registry=registry
        )
        made[field] = histogram.labels(*own)
    return made


def _tell_cache(config: EngineConfig, registry: CollectorRegistry) -> None:
    """Numbers that never change, as labels of a gauge that is always 1."""
    labels = {
        "block_size": str(config.block_size),
        "num_gpu_blocks": str(config.num_blocks),
        "enable_prefix_caching": str(config.prefix_caching),
        "engine": "0",
    }
    info = Gauge("vllm:cache_config_info", "The KV cache.", tuple(labels), registry=registry)
    info.labels(**labels).set(1)


def one_two_five(highest: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, … up to `highest`."""
    steps = (digit * 10**power for power in range(len(str(highest))) for digit in (1, 2, 5))
    return [step for step in steps if step <= highest]
