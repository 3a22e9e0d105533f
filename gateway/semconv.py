"""OpenTelemetry's names for what passes here, all in this file, as one pinned version has them.

The conventions for generative models are still in development: a new version is a change of this
file alone, and of the dashboards that read it.
"""

from typing import NamedTuple

VERSION = "1.37.0"
SCHEMA_URL = f"https://opentelemetry.io/schemas/{VERSION}"
PROVIDER = "glassgate"
OPERATIONS = {
    "chat": "chat",
    "responses": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}

# Attributes of spans; as labels of metrics, dots become underscores.
OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - the name of a label
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_MESSAGES = "gen_ai.input.messages"
ERROR_TYPE = "error.type"
STATUS_CODE = "http.response.status_code"


class Instrument(NamedTuple):
    """A histogram: its name here and there, and the bounds that the conventions advise."""

    name: str
    unit: str
    meaning: str
    bounds: tuple[float, ...]

    @property
    def metric(self) -> str:
        """Prometheus' name: words joined by underscores, then the unit unless it is a count."""
        unit = {"s": "_seconds"}.get(self.unit, "")
        return self.name.replace(".", "_") + unit


DURATION = Instrument(
    "gen_ai.server.request.duration",
    "s",
    "From the request to its end, by what it ended in.",
    tuple(0.01 * 2**power for power in range(14)),
)
FIRST_TOKEN = Instrument(
    "gen_ai.server.time_to_first_token",
    "s",
    "From the request to its first content, of streams that succeeded.",
    (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
PER_TOKEN = Instrument(
    "gen_ai.server.time_per_output_token",
    "s",
    "Of each token after the first, of streams that succeeded.",
    (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)
TOKENS = Instrument(
    "gen_ai.client.token.usage",
    "{token}",
    "Tokens of one request, as they were counted.",
    tuple(float(4**power) for power in range(14)),
)


def label(attribute: str) -> str:
    return attribute.replace(".", "_")
