"""What Prometheus may know of the engine, under the names, labels and buckets of vLLM v1.

So dashboards and autoscalers made for vLLM read this server unchanged.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from model.engine.config import EngineConfig
from model.engine.stats import Finished, Stats

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
LABELS = ("model_name", "engine")
REASONS = ("stop", "length", "abort", "error")
REJECTIONS = {"requests": "max_num_queued_reqs", "tokens": "max_num_queued_tokens"}


class Metrics:
    """One registry per server, so that tests can have several."""

    def __init__(self, model: str, config: EngineConfig, max_loras: int = 0) -> None:
        self.registry = CollectorRegistry()
        self._labels = (model, "0")
        self._max_loras = str(max_loras)
        self._seen: dict[str, int] = {}  # counts of the engine that are counted here already
        gauge, counter = self._gauge, self._counter
        self.running = gauge("num_requests_running", "Requests in the batch.")
        self.waiting = gauge("num_requests_waiting", "Requests in the queue.")
        self.kv_usage = gauge("kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.")
        self.counts = {
            "prompt_tokens": counter("prompt_tokens", "Prompt tokens, cached ones included."),
            "generation_tokens": counter("generation_tokens", "Tokens generated."),
            "preemptions": counter("num_preemptions", "Requests that lost their blocks."),
            "prefix_queries": counter("prefix_cache_queries", "Tokens looked up in the cache."),
            "prefix_hits": counter("prefix_cache_hits", "Tokens found in the cache."),
        }
        self._success = Counter(
            "vllm:request_success", "Finished requests.", (*LABELS, "finished_reason"),
            registry=self.registry,
        )  # fmt: skip
        self.success = {reason: self._success.labels(*self._labels, reason) for reason in REASONS}
        rejected = Counter(
            "vllm:admission_rejections", "Requests refused by a full queue.", (*LABELS, "reason"),
            registry=self.registry,
        )  # fmt: skip
        self.rejections = {
            ours: rejected.labels(*self._labels, theirs) for ours, theirs in REJECTIONS.items()
        }
        self._make_histograms(config.max_model_len)
        self._make_infos(config)

    def _make_histograms(self, longest: int) -> None:
        lengths = one_two_five(longest)
        h = self._histogram
        self.ttft = h("time_to_first_token_seconds", FIRST_TOKEN_S)
        self.inter_token = h("inter_token_latency_seconds", PER_TOKEN_S)
        self.per_output_token = h("request_time_per_output_token_seconds", PER_TOKEN_S)
        self.e2e = h("e2e_request_latency_seconds", REQUEST_S)
        self.queue = h("request_queue_time_seconds", REQUEST_S)
        self.inference = h("request_inference_time_seconds", REQUEST_S)
        self.prefill = h("request_prefill_time_seconds", REQUEST_S)
        self.decode = h("request_decode_time_seconds", REQUEST_S)
        self.step_tokens = h("iteration_tokens_total", STEP_TOKENS)
        self.prompt_length = h("request_prompt_tokens", lengths)
        self.output_length = h("request_generation_tokens", lengths)
        self.max_tokens = h("request_params_max_tokens", lengths)
        self.num_copies = h("request_params_n", (1, 2, 5, 10, 20))

    def _make_infos(self, config: EngineConfig) -> None:
        cache = {
            "block_size": str(config.block_size),
            "num_gpu_blocks": str(config.num_blocks),
            "enable_prefix_caching": str(config.prefix_caching),
            "engine": "0",
        }
        info = Gauge(
            "vllm:cache_config_info", "The KV cache.", tuple(cache), registry=self.registry
        )
        info.labels(**cache).set(1)
        names = ("max_lora", "waiting_lora_adapters", "running_lora_adapters")
        self.loras = Gauge(
            "vllm:lora_requests_info", "Adapters in use.", names, registry=self.registry
        )

    def start_from(self, stats: Stats) -> None:
        """Do not count what the engine did so far."""
        self._seen = {name: getattr(stats, name) for name in self.counts}

    def record(self, stats: Stats) -> None:
        """Note one step."""
        self.running.set(stats.num_running)
        self.waiting.set(stats.num_waiting)
        self.kv_usage.set(stats.kv_usage)
        for name, count in self.counts.items():
            total = getattr(stats, name)
            count.inc(total - self._seen.get(name, 0))
            self._seen[name] = total
        observed = stats.observed
        for histogram, values in (
            (self.step_tokens, observed.iteration_tokens),
            (self.ttft, observed.time_to_first_token),
            (self.inter_token, observed.inter_token_latency),
        ):
            for value in values:
                histogram.observe(value)
        for finished in observed.finished:
            self._finish(finished)
        self._note_adapters(stats)

    def _finish(self, one: Finished) -> None:
        self.success[one.reason].inc()
        for histogram, value in (
            (self.e2e, one.e2e),
            (self.queue, one.queue),
            (self.prefill, one.prefill),
            (self.decode, one.decode),
            (self.inference, one.inference),
            (self.per_output_token, one.per_output_token),
            (self.prompt_length, one.num_prompt_tokens),
            (self.output_length, one.num_output_tokens),
            (self.max_tokens, one.max_tokens),
            (self.num_copies, one.n),
        ):
            if value is not None:
                histogram.observe(value)

    def _note_adapters(self, stats: Stats) -> None:
        if stats.running_adapters or stats.waiting_adapters:
            waiting, running = (
                ",".join(sorted(names))
                for names in (stats.waiting_adapters, stats.running_adapters)
            )
            self.loras.clear()
            self.loras.labels(self._max_loras, waiting, running).set_to_current_time()

    def text(self) -> bytes:
        """The exposition that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"vllm:{name}", what, LABELS, registry=self.registry).labels(*self._labels)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(f"vllm:{name}", what, LABELS, registry=self.registry).labels(*self._labels)

    def _histogram(self, name: str, buckets: Sequence[float]) -> Histogram:
        what = name.replace("_", " ").capitalize() + "."
        made = Histogram(f"vllm:{name}", what, LABELS, buckets=buckets, registry=self.registry)
        return made.labels(*self._labels)


def one_two_five(highest: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, … up to `highest`."""
    steps = (digit * 10**power for power in range(len(str(highest))) for digit in (1, 2, 5))
    return [step for step in steps if step <= highest]
