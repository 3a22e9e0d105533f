"""The document says what the routes take, and nothing that fits it makes the server fail."""

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error

from model.server.routes import ENDPOINTS, document

schema = schemathesis.openapi.from_dict(document())
PATIENT = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def test_the_document_is_served(server):
    served = server.http.get("/openapi.json").json()
    assert served == document()
    listed = {(method.upper(), path) for path, item in served["paths"].items() for method in item}
    assert listed == {(e.method, e.path.replace(":path", "")) for e in ENDPOINTS}


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=PATIENT)
def test_no_request_makes_the_server_fail(server, case):
    if isinstance(case.body, dict):
        case.body["model"] = "tiny-random"  # a guessed name would end every request at the door
        for field, most in (("max_tokens", 4), ("max_completion_tokens", 4), ("n", 2)):
            if isinstance(case.body.get(field), int | None):
                case.body[field] = min(case.body.get(field) or most, most)
    reply = case.call(base_url=server.url, timeout=20)
    case.validate_response(reply, checks=[not_a_server_error])
