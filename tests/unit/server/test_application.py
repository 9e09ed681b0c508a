"""What is true of every request, whatever its route."""

from __future__ import annotations

import re
from typing import Annotated

import pytest
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from structlog.testing import capture_logs
from tests.unit.server.framed import Framed

from metalmark.model import Conflict, Forbidden, InputError, NotFound, StoreBusy, TooManyRequests, Unauthenticated
from metalmark.server.config import ServerConfig

pytestmark = pytest.mark.anyio

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
router = APIRouter()


class Thing(BaseModel):
    name: str
    count: int = 0


@router.get("/v0/things")
async def list_things(response: Response, per_page: int = 8, tag: Annotated[list[str] | None, Query()] = None) -> int:
    response.headers["x-total-count"] = "17"
    return per_page + len(tag or [])


@router.post("/v0/things", status_code=201)
async def create_thing(thing: Thing) -> Thing:
    return thing


@router.delete("/v0/things/{name}", status_code=204)
async def delete_thing(name: str) -> None:
    pass


@router.get("/v0/seen")
async def seen(request: Request) -> dict[str, str]:
    return {"client": request.scope["state"]["client_address"], "scheme": request.url.scheme}


@router.get("/v0/errors/{kind}")
async def fail(kind: str) -> None:
    errors: dict[str, Exception] = {
        "input": InputError("name", "x", "too short"),
        "unauthenticated": Unauthenticated("there is no credential"),
        "forbidden": Forbidden("no"),
        "missing": NotFound("project", "adder"),
        "conflict": Conflict("slug is taken", field="slug"),
        "often": TooManyRequests("runs", retry_after_s=12.2),
        "busy": StoreBusy("locked"),
        "defect": RuntimeError("the password is hunter2"),
    }
    raise errors[kind]


def framed(**server: object) -> Framed:
    return Framed(router, ServerConfig.model_validate({"server": server}))


@router.post("/v0/gone")
async def gone() -> None:
    raise ClientDisconnect


async def test_a_client_that_leaves_is_no_fault_of_the_server() -> None:
    application = framed()
    with capture_logs() as logged:
        answer = await application.call("POST", "/v0/gone")
    assert answer.status == 0, "nobody is answered"
    assert [entry["event"] for entry in logged] == ["request"]
    assert 'route="/v0/gone",status="499"} 1.0' in application.metrics.exposition({}).decode()


async def test_an_answer_has_an_id_and_the_headers_that_browsers_need() -> None:
    answer = await framed().call("GET", "/v0/things")
    assert answer.status == 200
    assert UUID.fullmatch(answer.headers["x-request-id"])
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "X-Total-Count" in answer.headers["access-control-expose-headers"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in answer.headers


async def test_the_total_of_a_list_is_its_own_and_of_anything_else_one_or_none() -> None:
    application = framed()
    assert (await application.call("GET", "/v0/things")).headers["x-total-count"] == "17"
    created = await application.call("POST", "/v0/things", body=b'{"name": "a"}')
    assert (created.status, created.headers["x-total-count"]) == (201, "1")
    gone = await application.call("DELETE", "/v0/things/a")
    assert (gone.status, gone.headers["x-total-count"], gone.body) == (204, "0", b"")


@pytest.mark.parametrize(
    ("kind", "status", "header"),
    [
        ("input", 400, None),
        ("unauthenticated", 401, ("www-authenticate", "Bearer")),
        ("forbidden", 403, None),
        ("missing", 404, None),
        ("conflict", 409, None),
        ("often", 429, ("retry-after", "13")),
        ("busy", 503, ("retry-after", "1")),
    ],
)
async def test_an_error_is_a_status_and_the_one_body(kind: str, status: int, header: tuple[str, str] | None) -> None:
    answer = await framed().call("GET", f"/v0/errors/{kind}")
    assert answer.status == status
    assert set(answer.document) == {"request_id", "message"}
    assert answer.document["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["access-control-allow-origin"] == "*"
    if header:
        assert answer.headers[header[0]] == header[1]


async def test_a_defect_is_answered_without_its_text() -> None:
    answer = await framed().call("GET", "/v0/errors/defect")
    assert answer.status == 500
    assert answer.document["error_code"] == "Internal"
    assert "hunter2" not in answer.document["message"]
    assert answer.document["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"name": 3}', b'{"name": "a", "count": "x"}', b"[" * 100_000, b"\xff"]
)
async def test_an_invalid_body_is_400_and_never_422(body: bytes) -> None:
    answer = await framed().call("POST", "/v0/things", body=body)
    assert answer.status == 400
    assert set(answer.document) == {"request_id", "message"}


async def test_what_was_sent_is_not_repeated() -> None:
    answer = await framed().call("POST", "/v0/things", body=b'{"name": ["bencher_user_secret"]}')
    assert answer.status == 400
    assert b"bencher_user_secret" not in answer.body


async def test_what_an_address_holds_is_repeated_and_bounded() -> None:
    answer = await framed().call("GET", "/v0/things?per_page=eight")
    assert answer.status == 400
    assert answer.document["message"].startswith("query.per_page is 'eight': ")
    long = await framed().call("GET", "/v0/things?per_page=" + "x" * 5000)
    assert len(long.document["message"]) < 300


async def test_a_body_without_a_content_type_is_json_and_one_of_another_type_is_400() -> None:
    application = framed()
    assert (await application.call("POST", "/v0/things", body=b'{"name": "a"}')).status == 201
    text = {"content-type": "text/plain"}
    assert (await application.call("POST", "/v0/things", body=b'{"name": "a"}', headers=text)).status == 400


@pytest.mark.parametrize("target", ["//v0///things/", "/v0/things/", "/v0/things//"])
async def test_slashes_that_mean_nothing_are_ignored(target: str) -> None:
    assert (await framed().call("GET", target)).status == 200


@pytest.mark.parametrize("target", ["/v0/../v0/things", "/v0/./things", "/.."])
async def test_segments_of_dots_are_400(target: str) -> None:
    assert (await framed().call("GET", target)).status == 400


async def test_an_unknown_route_is_404_and_a_wrong_method_405_with_all_that_are_right() -> None:
    application = framed()
    assert (await application.call("GET", "/v0/nothing")).status == 404
    answer = await application.call("PUT", "/v0/things")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    assert (await application.call("HEAD", "/v0/things")).status == 405


async def test_any_preflight_is_answered_without_a_credential() -> None:
    answer = await framed().call("OPTIONS", "/v0/things/x")
    assert (answer.status, answer.document) == (200, None)
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert "Authorization" in answer.headers["access-control-allow-headers"]


async def test_a_parameter_of_one_value_comes_once() -> None:
    application = framed()
    assert (await application.call("GET", "/v0/things?per_page=1&per_page=2")).status == 400
    assert (await application.call("GET", "/v0/things?per_page=1&other=1&other=2")).status == 200
    assert (await application.call("GET", "/v0/things?per_page=1&tag=a&tag=b")).document == 3


async def test_a_body_that_announces_too_much_is_413_before_it_is_read() -> None:
    answer = await framed(request_body_max_bytes=1024).call(
        "POST", "/v0/things", body=b'{"name": "a"}', headers={"content-length": "1025"}
    )
    assert answer.status == 413
    assert set(answer.document) == {"request_id", "message"}


async def test_a_body_that_grows_too_large_is_413() -> None:
    pieces = [b'{"name": "' + b"a" * 600, b"a" * 600 + b'"}']
    answer = await framed(request_body_max_bytes=1024).call("POST", "/v0/things", body=pieces)
    assert answer.status == 413
    assert set(answer.document) == {"request_id", "message"}


async def test_forwarded_headers_count_from_trusted_proxies_only() -> None:
    said = {"x-forwarded-for": "203.0.113.9, 198.51.100.7", "x-forwarded-proto": "https"}
    plain = await framed().call("GET", "/v0/seen", headers=said, client="10.0.0.1")
    assert plain.document == {"client": "10.0.0.1", "scheme": "http"}
    trusting = await framed(trusted_proxies=["10.0.0.0/8"]).call("GET", "/v0/seen", headers=said, client="10.0.0.1")
    assert trusting.document == {"client": "198.51.100.7", "scheme": "https"}
    assert "strict-transport-security" in trusting.headers


async def test_requests_are_counted_by_their_pattern_not_by_their_path() -> None:
    application = framed()
    await application.call("DELETE", "/v0/things/first")
    await application.call("DELETE", "/v0/things/second")
    text = application.metrics.exposition({"pending": 3}).decode()
    assert 'metalmark_requests_total{method="DELETE",route="/v0/things/{name}",status="204"} 2.0' in text
    assert 'metalmark_jobs{status="pending"} 3.0' in text
    assert "first" not in text
