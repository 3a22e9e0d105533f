"""The metrics count what vLLM's would."""

import pytest

from model.server.metrics import one_two_five

from .conftest import MODEL, running

LENGTHS = "request_prompt_tokens request_generation_tokens iteration_tokens_total"
TIMES = (
    "time_to_first_token inter_token_latency request_time_per_output_token e2e_request_latency"
    " request_queue_time request_inference_time request_prefill_time request_decode_time"
)
GAUGES = "num_requests_running num_requests_waiting kv_cache_usage_perc cache_config_info"
COUNTERS = (
    "prefix_cache_queries prefix_cache_hits num_preemptions prompt_tokens generation_tokens"
    " request_success admission_rejections"
)
NAMES = [
    *GAUGES.split(),
    *(f"{name}_total" for name in COUNTERS.split()),
    *(f"{name}_bucket" for name in LENGTHS.split()),
    *(f"{name}_seconds_bucket" for name in TIMES.split()),
]


def test_the_accounting_of_n_requests_of_k_tokens():
    n, k = 7, 9
    with running() as server:
        body = {"model": MODEL, "prompt": ["abcd"] * n, "max_tokens": k, "ignore_eos": True}
        body["add_special_tokens"] = False
        assert server.http.post("/v1/completions", json=body).status_code == 200
        server.wait_for("num_requests_running", 0)
        assert server.metric("inter_token_latency_seconds_count") == n * (k - 1)
        assert server.metric("generation_tokens_total") == n * k
        assert server.metric("prompt_tokens_total") == n * 4
        assert server.metric("request_success_total", finished_reason="length") == n
        per_request = [f"{name}_seconds" for name in TIMES.split()] + LENGTHS.split()[:2]
        for name in set(per_request) - {"inter_token_latency_seconds"}:
            assert server.metric(f"{name}_count") == n, name
        assert server.metric("request_generation_tokens_sum") == n * k
        assert server.metric("num_requests_waiting") == server.metric("kv_cache_usage_perc") == 0
        text = server.http.get("/metrics").text
        assert [name for name in NAMES if f"\nvllm:{name}{{" not in text] == []
        info = 'vllm:cache_config_info{block_size="16",enable_prefix_caching="True",engine="0"'
        assert info in text
        assert 'le="2560.0"' in text


@pytest.mark.parametrize(
    ("highest", "steps"), [(1, [1]), (60, [1, 2, 5, 10, 20, 50]), (100, [1, 2, 5, 10, 20, 50, 100])]
)
def test_buckets_of_lengths(highest, steps):
    assert one_two_five(highest) == steps
