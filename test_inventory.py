"""What a client of the inventory service relies on, section by section in the words of the two modules."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from inventory import Settings, create_app, seed
from store import Sessions, StaleError, Store, StoreError, check

API = "/api/v1"
NOW = "2026-01-01T09:30:00.000Z"
HERE = Path(__file__).parent


class Api(FlaskClient):
    """A client whose paths are those below the API's own."""

    def open(self, path: str, **options) -> TestResponse:
        return super().open(path if path == "/" else API + path, **options)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in fields(Settings):
        monkeypatch.delenv(each.name.upper(), raising=False)


@pytest.fixture
def serve() -> Callable[..., Api]:
    def serve(**settings: object) -> Api:
        app = create_app(**settings)
        app.test_client_class = Api
        return app.test_client()
    return serve


@pytest.fixture
def api(serve) -> Api:
    return serve()


@pytest.fixture
def demo(serve) -> Api:
    return serve(seed="demo")


KINDS = {  # by resource: two rows with what they need, a change, what the service fills in
    "items": ([{"name": "Mug"}, {"name": "Pot"}], {"quantity": 3},
              {"description": "", "status": "pending", "quantity": 0}),
    "orders": ([{"internal_number": "A-1"}, {"internal_number": "A-2", "items": [{"item_id": "2"}]}],
               {"status": "sent"}, {"status": "pending", "items": []}),
}


@pytest.fixture(params=KINDS)
def kind(request):
    """A resource: its path, what a row needs, a change, what the service fills in."""
    rows, change, filled = KINDS[request.param]
    return f"/{request.param}", rows[0], change, filled


@pytest.fixture
def stocked(api) -> Api:
    """Two rows of each kind; order 2 names item 2."""
    api.put("/mock/state", json={name: rows for name, (rows, *_) in KINDS.items()})
    return api


@pytest.fixture
def all_at_once() -> Iterator[Callable]:
    """Run a function in 16 threads that start together and are switched as often as can be."""
    def run(function: Callable[[int], object]) -> list:
        barrier = threading.Barrier(16)

        def started(number: int) -> object:
            barrier.wait()
            return function(number)
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(started, range(16)))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield run
    sys.setswitchinterval(before)


def state(client: Api, **options) -> bytes:
    return client.get("/mock/state", **options).data


def ids(response: TestResponse) -> str:
    """The ids of a list, such as "1 2 3"."""
    rows = response.json if isinstance(response.json, list) else response.json["data"]
    return " ".join(row["id"] for row in rows)


# Resources


def test_health_is_told_exactly(api):
    response = api.get("/health")

    assert (response.status_code, response.json) == (200, {"status": "healthy", "version": "1.0.0"})


def test_a_created_row_is_answered_whole_in_the_order_of_its_fields(api, kind):
    path, needed, _, filled = kind
    api.put("/mock/clock", json={"now": NOW})

    response = api.post(path, json=needed)

    assert response.status_code == 201
    assert response.headers["Location"] == f"{API}{path}/1"
    assert list(response.json.items()) == list(
        ({"id": "1"} | needed | filled | {"created_at": NOW, "updated_at": None}).items())


def test_a_row_is_read_where_its_location_says(api, kind):
    path, needed, *_ = kind
    created = api.post(path, json=needed)

    response = api.get(created.headers["Location"].removeprefix(API))

    assert (response.status_code, response.data) == (200, created.data)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_merges_and_tells_when(api, kind, method):
    path, needed, change, _ = kind
    before = api.post(path, json=needed).json
    api.put("/mock/clock", json={"now": NOW})

    response = api.open(path + "/1", method=method, json=change)

    assert (response.status_code, response.json) == (200, before | change | {"updated_at": NOW})
    assert api.get(path + "/1").json == response.json


def test_an_empty_change_sets_updated_at(api, kind):
    path, needed, *_ = kind
    api.post(path, json=needed)

    assert api.put(path + "/1", json={}).json["updated_at"] is not None


def test_a_row_can_be_sent_back_as_it_was_given(api, kind):
    path, needed, *_ = kind
    row = api.post(path, json=needed).json

    response = api.put(path + "/1", json=row | {"id": "9", "created_at": 5})

    assert response.status_code == 200
    assert response.json == row | {"updated_at": response.json["updated_at"]}


def test_a_deleted_row_is_gone_and_its_id_is_not_used_again(api, kind):
    path, needed, *_ = kind
    api.post(path, json=needed)

    response = api.delete(path + "/1")

    assert (response.status_code, response.data) == (204, b"")
    assert api.get(path + "/1").status_code == 404
    assert api.post(path, json=needed).json["id"] == "2"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_no_such_row_is_a_404_that_says_so(api, kind, method):
    path = kind[0]

    response = api.open(path + "/1", method=method, json={})

    assert (response.status_code, response.json) == (404, {"error": f"{path[1:-1].title()} not found"})


def test_a_trailing_slash_makes_no_difference(stocked, kind):
    path = kind[0]

    assert stocked.get(path + "/").data == stocked.get(path).data
    assert stocked.get(path + "/1/").data == stocked.get(path + "/1").data
    assert stocked.put(path + "/1/", json={}).status_code == 200


def test_head_answers_as_get_without_a_body(stocked, kind):
    for path in (kind[0], kind[0] + "/1"):
        get, head = stocked.get(path), stocked.head(path)
        assert (head.status_code, head.data, head.headers) == (200, b"", get.headers)


def test_a_lone_surrogate_comes_back_as_it_was_sent(api):
    response = api.post("/items", data=rb'{"name": "\ud800"}', content_type="application/json")

    assert rb'"name": "\ud800"' in response.data


def test_what_else_a_line_holds_comes_back(api):
    lines = [{"note": {"deep": [1, -2.5, 1e300, None, True, "ü"]}}, {}]

    assert api.post("/orders", json={"internal_number": "A", "items": lines}).json["items"] == lines


def test_a_used_internal_number_is_a_conflict_until_it_is_free(demo):
    before = state(demo)
    sentence = "Internal number ORD-2026-001 is taken"

    for response in (demo.post("/orders", json={"internal_number": "ORD-2026-001"}),
                     demo.patch("/orders/2", json={"internal_number": "ORD-2026-001"})):
        assert response.status_code == 409
        assert response.json == {"error": sentence, "details": {"internal_number": sentence}}
    assert state(demo) == before
    assert demo.patch("/orders/1", json={"internal_number": "ORD-2026-001"}).status_code == 200
    demo.patch("/orders/1", json={"internal_number": "other"})
    assert demo.post("/orders", json={"internal_number": "ORD-2026-001"}).status_code == 201
    demo.delete("/orders/1")
    assert demo.post("/orders", json={"internal_number": "other"}).status_code == 201


def test_an_item_stays_as_long_as_a_line_names_it(demo):
    response = demo.delete("/items/7")

    assert (response.status_code, response.json) == (409, {
        "error": "Item 7 is named by order 2", "details": {"id": "Item 7 is named by order 2"}})
    demo.patch("/orders/2", json={"items": [{"item_id": "8"}]})
    assert demo.delete("/items/7").status_code == 204
    demo.delete("/orders/2")
    assert demo.delete("/items/8").status_code == 204


# Rules

STRING = "a string of 1 to 255 characters, not all blank"
WHOLE = "an integer from 0 to 9007199254740991"
LINE = "an integer from 1 to 9007199254740991"


@pytest.mark.parametrize("path, body, details", [
    ("/items", {}, {"name": "Name is required"}),
    ("/items", {"name": ""}, {"name": f"Name must be {STRING}"}),
    ("/items", {"name": " \t\n\u2003"}, {"name": f"Name must be {STRING}"}),
    ("/items", {"name": "x" * 256}, {"name": f"Name must be {STRING}"}),
    ("/items", {"name": None}, {"name": f"Name must be {STRING}"}),
    ("/items", {"name": 5}, {"name": f"Name must be {STRING}"}),
    ("/items", {"name": "x", "description": "x" * 10_001},
     {"description": "Description must be a string of at most 10000 characters"}),
    ("/items", {"name": "x", "status": "Active"}, {"status": "Status must be one of pending, active, completed"}),
    ("/items", {"name": "x", "quantity": -1}, {"quantity": f"Quantity must be {WHOLE}"}),
    ("/items", {"name": "x", "quantity": 2**53}, {"quantity": f"Quantity must be {WHOLE}"}),
    ("/items", {"name": "x", "quantity": True}, {"quantity": f"Quantity must be {WHOLE}"}),
    ("/items", {"name": "x", "quantity": 3.0}, {"quantity": f"Quantity must be {WHOLE}"}),
    ("/items", {"name": "x", "quantity": "3"}, {"quantity": f"Quantity must be {WHOLE}"}),
    ("/items", {"name": "x", "colour": 1}, {
        "colour": "colour is not known here; allowed are id, name, description, status, quantity, "
                  "created_at, updated_at"}),
    ("/items", {"z": 1, "quantity": "3", "status": "x"}, {
        "name": "Name is required", "status": "Status must be one of pending, active, completed",
        "quantity": f"Quantity must be {WHOLE}",
        "z": "z is not known here; allowed are id, name, description, status, quantity, created_at, updated_at"}),
    ("/orders", {"internal_number": "x" * 51, "status": " "}, {
        "internal_number": "Internal number must be a string of 1 to 50 characters, not all blank",
        "status": "Status must be a string of 1 to 50 characters, not all blank"}),
    ("/orders", {"internal_number": "x", "items": {}}, {"items": "Items must be an array of at most 1000 elements"}),
    ("/orders", {"internal_number": "x", "items": [{}] * 1001},
     {"items": "Items must be an array of at most 1000 elements"}),
    ("/orders", {"internal_number": "", "items": [{"item_id": "99"}, 5, {"item_id": 1, "quantity": 0}]}, {
        "internal_number": "Internal number must be a string of 1 to 50 characters, not all blank",
        "items[0].item_id": "Item id must be the id of one of the items",
        "items[1]": "Items[1] must be an object",
        "items[2].item_id": "Item id must be a string",
        "items[2].quantity": f"Quantity must be {LINE}"}),
])
def test_wrong_fields_are_all_named_in_field_order(demo, path, body, details):
    before = state(demo)

    response = demo.post(path, json=body)

    assert response.status_code == 400
    assert list(response.json["details"].items()) == list(details.items())
    assert response.json["error"] == next(iter(details.values()))
    assert state(demo) == before


@pytest.mark.parametrize("body", [
    {"name": "x" * 255, "description": "\U0001f600" * 10_000, "status": "completed", "quantity": 2**53 - 1},
    {"name": " x "}, {"name": "\u200b", "quantity": 0},
], ids=["longest", "not trimmed", "no space to Python"])
def test_what_the_rules_allow_is_stored_as_sent(api, body):
    assert api.post("/items", json=body).json.items() >= body.items()


def test_blank_is_what_python_calls_space(api):
    spaces = [chr(code) for code in range(0x110000) if chr(code).isspace()]

    assert {api.post("/items", json={"name": space}).status_code for space in spaces} == {400}


def test_a_refusal_has_at_most_100_details(api):
    assert len(api.post("/items", json={f"f{n}": 1 for n in range(500)}).json["details"]) == 100


# Lists


@pytest.fixture
def shelf(api) -> Api:
    """Items 1 to 12: 10 has the quantity of 2, 3 has been changed, 11 and 12 are the only ones described."""
    rows = [{"name": f"n{n}", "quantity": n % 8, "status": "active" if n % 3 else "pending"} for n in range(1, 13)]
    rows[10] |= {"description": "Straße"}
    rows[11] |= {"description": "a.*b"}
    rows[2] |= {"updated_at": "2026-02-01T00:00:00.000Z"}
    api.put("/mock/state", json={"items": [row | {"created_at": NOW} for row in rows]})
    return api


@pytest.mark.parametrize("query, expected", [
    ("", "1 2 3 4 5 6 7 8 9 10 11 12"),
    ("status=pending", "3 6 9 12"),
    ("quantity=2&quantity=7", "2 7 10"),
    ("id=10", "10"),
    ("name=n", ""),
    ("description=", "1 2 3 4 5 6 7 8 9 10"),
    ("updated_at=", "1 2 4 5 6 7 8 9 10 11 12"),
    ("updated_at_ne=", "3"),
    ("updated_at_ne=2026-02-01T00:00:00.000Z", "1 2 4 5 6 7 8 9 10 11 12"),
    ("quantity_ne=1&quantity_ne=2", "3 4 5 6 7 8 11 12"),
    ("quantity_gt=5", "6 7"),
    ("quantity_gte=5&quantity_gte=6", "6 7"),
    ("quantity_lt=1", "8"),
    ("quantity_lte=1&quantity_lte=7", "1 8 9"),
    ("quantity_gte=-1&quantity_lt=0", ""),
    ("id_gt=9", "10 11 12"),
    ("id_lte=2", "1 2"),
    ("name_gt=n8", "9"),
    ("updated_at_gt=2000", "3"),
    ("name_like=N1", "1 10 11 12"),
    ("name_like=1&name_like=2", "12"),
    ("description_like=.*", "12"),
    ("q=STRASSE", "11"),
    ("q=pend", "3 6 9 12"),
    ("q=n1&q=2", "12"),
    ("q=1", "1 10 11 12"),
    ("sort=-id", "12 11 10 9 8 7 6 5 4 3 2 1"),
    ("sort=quantity", "8 1 9 2 10 3 11 4 12 5 6 7"),
    ("sort=-quantity", "7 6 5 4 12 3 11 2 10 1 9 8"),
    ("sort=-status,-quantity", "6 12 3 9 7 5 4 11 2 10 1 8"),
    ("sort=updated_at", "1 2 4 5 6 7 8 9 10 11 12 3"),
    ("sort=-updated_at", "3 1 2 4 5 6 7 8 9 10 11 12"),
    ("sort=name&sort=-id&id_gt=10", "12 11"),
    ("page=x&page=2&per_page=0&per_page=5", "6 7 8 9 10"),
    ("_=123&_x", "1 2 3 4 5 6 7 8 9 10 11 12"),
    ("status=pending&sort=-id&page=2&per_page=3", "3"),
])
def test_a_list_is_filtered_and_sorted(shelf, query, expected):
    assert ids(shelf.get("/items?" + query)) == expected


@pytest.mark.parametrize("query, details", [
    ("statuss=x", {"statuss": r"statuss is not known here; allowed are id, id_ne, .*, q, sort, page, per_page"}),
    ("items=x", {"items": "items is not known here; .*"}),
    ("quantity_like=1", {"quantity_like": "quantity_like is not known here; .*"}),
    ("quantity=abc", {"quantity": "Quantity must be an integer"}),
    ("quantity=1&quantity=1.0", {"quantity": "Quantity must be an integer"}),
    ("quantity_gt=", {"quantity_gt": "Quantity gt must be an integer"}),
    ("quantity=%D9%A1", {"quantity": "Quantity must be an integer"}),
    ("status=bogus", {"status": "Status must be one of pending, active, completed"}),
    ("sort=size", {"sort": "Sort must be a comma-separated list of .*"}),
    ("sort=", {"sort": "Sort must be a comma-separated list of .*"}),
    ("page=0", {"page": "Page must be an integer of at least 1"}),
    ("per_page=1001", {"per_page": "Per page must be an integer from 1 to 1000"}),
    ("page=x&per_page=0&z=1", {"page": "Page .*", "per_page": "Per page .*", "z": "z is .*"}),
    ("q=%ff", {"query": "Query must be percent-encoded UTF-8"}),
    ("q=100%", {"query": "Query must be percent-encoded UTF-8"}),
])
def test_a_wrong_parameter_is_refused(shelf, query, details):
    response = shelf.get("/items?" + query)

    assert response.status_code == 400
    assert response.json["details"].keys() == details.keys()
    assert all(re.fullmatch(sentence, response.json["details"][name]) for name, sentence in details.items())
    assert response.json["error"] == response.json["details"][next(iter(details))]


@pytest.mark.parametrize("query, page, rels", [
    ("page=1", "1 2 3 4 5 6 7 8 9 10", "first=1 next=2 last=2"),
    ("page=2&per_page=5", "6 7 8 9 10", "first=1 prev=1 next=3 last=3"),
    ("page=3&per_page=5", "11 12", "first=1 prev=2 last=3"),
    ("page=99&per_page=5", "", "first=1 prev=3 last=3"),
    ("per_page=5&id=99", "", "first=1 last=1"),
    ("page=" + "9" * 30, "", "first=1 prev=2 last=2"),
])
def test_a_page_comes_in_an_envelope_with_links(shelf, query, page, rels):
    response = shelf.get(f"/items?{query}&name_like=n")

    assert ids(response) == page
    assert " ".join(f"{rel}={number}" for number, rel in re.findall(
        r'[?&]page=(\d+)>; rel="(\w+)"', response.headers["Link"])) == rels
    assert all(link.startswith(f"<{API}/items?") and "name_like=n" in link
               for link in response.headers["Link"].split(", "))


def test_an_envelope_tells_its_page(shelf):
    response = shelf.get("/items?page=2&per_page=5&quantity_gt=0")

    assert {name: response.json[name] for name in ("total", "page", "per_page")} == {
        "total": 11, "page": 2, "per_page": 5}
    assert response.headers["X-Total-Count"] == "11"


def test_an_unpaged_list_tells_its_total_and_has_no_links(shelf):
    response = shelf.get("/items?status=pending")

    assert (response.headers["X-Total-Count"], "Link" in response.headers) == ("4", False)


# Conditional requests


def test_a_known_version_is_a_304(stocked, kind):
    for path in (kind[0], kind[0] + "/1", kind[0] + "?page=1"):
        tag = stocked.get(path).headers["ETag"]
        for header in (tag, f'"x", {tag}', f"W/{tag}", "*"):
            response = stocked.get(path, headers={"If-None-Match": header})
            assert (response.status_code, response.data, response.headers["ETag"]) == (304, b"", tag)
        assert stocked.get(path, headers={"If-None-Match": '"x"', "If-Match": '"x"'}).status_code == 200


def test_a_change_gives_new_tags_to_the_row_and_its_list_only(stocked, kind):
    path, _, change, _ = kind
    other = next(f"/{name}" for name in KINDS if f"/{name}" != path)
    before = {each: stocked.get(each).headers["ETag"] for each in (path, path + "/1", path + "/2", other)}

    written = stocked.patch(path + "/1", json=change, headers={"If-None-Match": "*"})

    after = {each: stocked.get(each).headers["ETag"] for each in before}
    assert {each for each in before if before[each] != after[each]} == {path, path + "/1"}
    assert written.headers["ETag"] == after[path + "/1"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_if_match_protects_a_newer_version(demo, method):
    old = demo.get("/items/1").headers["ETag"]
    new = demo.put("/items/1", json={"quantity": 1}).headers["ETag"]
    before = state(demo)

    response = demo.open("/items/1", method=method, json={"quantity": "wrong"}, headers={"If-Match": old})

    assert (response.status_code, response.json) == (412, {"error": "Precondition failed"})
    assert state(demo) == before
    assert demo.open("/items/1", method=method, json={}, headers={"If-Match": f'"x", {new}'}).status_code in (200, 204)


def test_no_two_rows_and_no_list_share_a_tag(stocked):
    stocked.put("/items/2", json={})
    paths = [f"/{name}{each}" for name in KINDS for each in ("", "/1", "/2")]

    assert len({stocked.get(path).headers["ETag"] for path in paths}) == len(paths)


def test_a_tag_never_comes_back_for_other_content(demo):
    seen = {}
    for name in ("a", "b"):
        for _ in range(3):
            for quantity in (1, 2):
                response = demo.put("/items/1", json={"quantity": quantity}, headers={"X-Mock-Session": name})
                assert seen.setdefault(response.headers["ETag"], response.data) == response.data
            demo.delete("/mock/state", headers={"X-Mock-Session": name})


# Errors


@pytest.mark.parametrize("body, reason", [
    (b"", "Body is not JSON: Expecting value: .*"),
    (b'{"name": "x"', "Body is not JSON: .*"),
    (b'{"name": "\xff"}', "Body is not JSON: .*utf-8.*"),
    (b'{"name": NaN}', "Body is not JSON: NaN is not a number that a double can hold"),
    (b'{"quantity": -Infinity}', "Body is not JSON: -Infinity is not .*"),
    (b'{"quantity": 1e400}', "Body is not JSON: 1e400 is not .*"),
    (b'{"quantity": ' + b"9" * 5000 + b"}", "Body is not JSON: 9{20} is not .*"),
    (b"[" * 100_000, "Body is (not JSON: maximum recursion depth.*|nested too deeply)"),
    (b"null", "Body must be a JSON object"),
    (b'"text"', "Body must be a JSON object"),
    (b"[]", "Body must be a JSON object"),
])
def test_a_body_that_is_no_json_object_is_a_400(stocked, kind, body, reason):
    before = state(stocked)

    for method, path in (("POST", kind[0]), ("PUT", kind[0] + "/1"), ("PUT", "/mock/state")):
        response = stocked.open(path, method=method, data=body, content_type="application/json")
        assert (response.status_code, response.json["error"]) == (400, "Bad request")
        assert re.fullmatch(reason, response.json["details"]["body"])
    assert state(stocked) == before


def test_a_line_too_deep_to_be_written_is_a_400_or_comes_back(api):
    statuses = set()
    for depth in (10, 100, *range(700, 1100, 10)):
        body = f'{{"internal_number": "{depth}", "items": [{{"x": {"[" * depth + "]" * depth}}}]}}'
        response = api.post("/orders", data=body, content_type="application/json")
        statuses.add(response.status_code)
    assert statuses <= {201, 400}
    assert api.get("/mock/requests").status_code == api.get("/orders").status_code == 200


def test_only_json_is_taken(demo):
    before = state(demo)

    for options in ({"data": b"{}"}, {"data": b"{}", "content_type": "text/json"}, {}):
        response = demo.post("/items", **options)
        assert (response.status_code, response.json) == (415, {"error": "Unsupported media type"})
    assert state(demo) == before
    assert demo.patch("/items/1", data=b"{}", content_type="application/merge-patch+json").status_code == 200


@pytest.mark.parametrize("size, status", [(2**20, 201), (2**20 + 1, 413), (2**20 + 2, 413), (2**21, 413)])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_has_one_mebibyte_at_most(api, size, status, chunked):
    body = b'{"name": "x"}'.ljust(size)
    options = {"headers": {"Transfer-Encoding": "chunked"}, "environ_overrides": {
        "wsgi.input_terminated": True, "CONTENT_LENGTH": ""}} if chunked else {}

    response = api.post("/items", data=body, content_type="application/json", **options)

    assert response.status_code == status
    assert status == 201 or response.json == {"error": "Request body too large"}


@pytest.mark.parametrize("path", ["/nowhere", "/items//1", "/items/1/x"])
def test_no_such_route_is_told_in_json(api, path):
    response = api.get(path)

    assert (response.status_code, response.json) == (404, {"error": "Resource not found"})


def test_a_wrong_method_is_told_with_the_allowed_ones(api):
    response = api.put("/items", json={})

    assert (response.status_code, response.json) == (405, {"error": "Method not allowed"})
    assert {"GET", "POST"} <= set(response.headers["Allow"].split(", "))


def test_a_bug_is_a_500_that_keeps_its_traceback_to_itself(api, capsys):
    api.application.add_url_rule(f"{API}/bug", view_func=lambda: 1 // 0)

    response = api.get("/bug", headers={"Origin": "http://localhost:5173"})

    assert (response.status_code, response.json) == (500, {"error": "Internal server error"})
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"


def test_of_several_errors_the_first_in_the_order_is_told(demo):
    def told(path="/items/99", body=b"{", kind="application/json", session="ok", tag='"x"') -> int:
        response = demo.put(path, data=body, content_type=kind, headers={"X-Mock-Session": session, "If-Match": tag})
        return response.status_code, response.json["error"]

    big = b"x" * (2**20 + 1)
    assert told("/nowhere?_status=503", big, "x", "!") == (404, "Resource not found")
    assert told("/items?_status=503", big, "x", "!") == (405, "Method not allowed")
    assert told("/items/99?_status=503", big, "x", "!")[0] == 400
    assert told("/items/99?_status=503", big, "x") == (503, "Service unavailable")
    assert told(body=big, kind="x") == (413, "Request body too large")
    assert told(kind="x") == (415, "Unsupported media type")
    assert told() == (400, "Bad request")
    assert told(body=b'{"name": 1}') == (404, "Item not found")
    assert told("/items/1", b'{"name": 1}') == (412, "Precondition failed")
    assert told("/items/1", b'{"name": 1}', tag="*")[0] == 400


def test_everything_is_not_to_be_stored(demo):
    for path in ("/items", "/items/1", "/items/99", "/health", "/mock/clock", "/nowhere"):
        assert demo.get(path).headers["Cache-Control"] == "no-store"
    options = demo.options("/items/1")
    assert (options.headers["Cache-Control"], options.content_type, options.data) == ("no-store", None, b"")
    assert "PATCH" in options.headers["Allow"]


# CORS

ORIGIN = {"Origin": "http://localhost:5173"}


@pytest.mark.parametrize("path", ["/items", "/items/1", "/nowhere", "/mock/state", "/items/?x=1"])
def test_a_preflight_succeeds_on_any_path_with_any_header(api, path):
    response = api.options(path, headers=ORIGIN | {
        "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "if-match, x-anything"})

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert response.headers["Access-Control-Allow-Headers"] == "if-match, x-anything"
    assert "PATCH" in response.headers["Access-Control-Allow-Methods"]
    assert response.headers["Access-Control-Max-Age"] == "600"


@pytest.mark.parametrize("path", ["/items", "/nowhere", "/items?_status=503", "/items?page=0"])
def test_answers_and_errors_can_be_read_across_origins(api, path):
    response = api.get(path, headers=ORIGIN)

    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
    assert response.headers["Access-Control-Expose-Headers"] == "ETag, Link, Location, X-Total-Count"


def test_what_does_not_come_from_a_page_gets_no_cors_headers(api):
    assert not [name for name, _ in api.get("/items").headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("setting, origin, allowed", [
    (None, "http://localhost:5173", True), (None, "http://localhost:5177", True),
    (None, "http://localhost:5178", False), (None, "http://localhost:51733", False), (None, "http://evil.example", False),
    ("*", "http://evil.example", True), ("http://[::1]:80, http://b.c", "http://[::1]:80", True),
    ("http://[::1]:80, http://b.c", "http://b.c", True), ("http://b.c", "http://bxc", False),
    ("http://b.c", "http://b.c.evil", False),
])
def test_only_the_origins_of_the_setting_are_allowed(serve, setting, origin, allowed):
    response = serve(cors_origins=setting).get("/items", headers={"Origin": origin})

    assert response.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)


# Threads


def test_ids_are_unique_and_no_row_is_lost(api, all_at_once):
    client = api.application.test_client

    made = all_at_once(lambda _: [client().post("/items", json={"name": "x"}).json["id"] for _ in range(20)])

    assert sorted(int(id) for ids in made for id in ids) == list(range(1, 321))
    assert len(api.get("/items").json) == 320


def test_of_racing_orders_one_gets_the_number(api, all_at_once):
    def create(_: int) -> list[int]:
        client = api.application.test_client()
        return [client.post("/orders", json={"internal_number": str(n)}).status_code for n in range(30)]

    for statuses in zip(*all_at_once(create), strict=True):
        assert sorted(statuses) == [201] + [409] * 15


def test_of_racing_changes_with_one_tag_one_wins(all_at_once):
    store = Store(seed("200"))
    store.frozen = NOW
    tags = {row.record.id: str(row.version) for row in store.state()["items"].rows}

    def change(number: int) -> list[str]:
        won = []
        for item, tag in tags.items():
            with suppress(StaleError):
                store.update("items", item, {"quantity": number}, {tag})
                won.append(item)
        return won

    assert sorted(item for won in all_at_once(change) for item in won) == sorted(tags)


def test_an_order_never_names_an_item_that_is_gone(all_at_once):
    store = Store(seed("200"))

    def create_or_delete(number: int) -> None:
        for item in map(str, range(1, 201)):
            with suppress(StoreError):
                if number % 2:
                    store.delete("items", item)
                else:
                    store.create("orders", {"internal_number": f"{item}-{number}", "items": [{"item_id": item}]})

    all_at_once(create_or_delete)
    named = {row.record.items[0]["item_id"] for row in store.state()["orders"].rows}
    assert named == {row.record.id for row in store.state()["items"].rows}


def test_a_fault_strikes_as_often_as_it_says(api, all_at_once):
    for _ in range(20):
        api.post("/mock/faults", json={"path": "/items", "times": 2})
        statuses = all_at_once(lambda _: api.application.test_client().get("/items").status_code)
        assert statuses.count(503) == 2


def test_a_session_begins_once(all_at_once):
    sessions = Sessions(seed(""))

    for name in map(str, range(100)):
        assert len(set(all_at_once(lambda _, name=name: sessions.get(name)))) == 1


def test_a_list_is_never_stale(api, all_at_once):
    def write_and_read(number: int) -> None:
        client = api.application.test_client()
        for quantity in range(10):
            row = client.post("/items", json={"name": str(number), "quantity": quantity}).json
            for _ in range(3):
                listed = client.get(f"/items?name={number}&sort=-id&page=1&per_page=1").json["data"]
                assert listed == [row]
                assert row in client.get("/items").json

    all_at_once(write_and_read)


def test_a_reader_sees_a_replaced_state_whole(api, all_at_once):
    def state_of(size: int) -> dict:
        return {"items": [{"name": str(size)}] * size, "orders": [{"internal_number": str(n)} for n in range(size)]}

    def replace_or_read(number: int) -> None:
        client = api.application.test_client()
        for size in (3, 7, 5, 2):
            if number % 4 == 0:
                client.put("/mock/state", json=state_of(size))
            else:
                seen = client.get("/mock/state").json
                assert len(seen["items"]) == len(seen["orders"])
                assert {row["name"] for row in seen["items"]} <= {str(len(seen["items"]))}

    all_at_once(replace_or_read)


# Mock controls


def by(name: str) -> dict:
    return {"headers": {"X-Mock-Session": name}}


def test_sessions_do_not_see_each_other(demo):
    demo.post("/items", json={"name": "a"}, **by("a"))
    demo.put("/mock/clock", json={"now": NOW}, **by("a"))
    demo.post("/mock/faults", json={"path": "*", "times": None}, **by("a"))

    assert demo.post("/items", json={"name": "b"}, **by("b")).json["id"] == "13"
    assert len(demo.get("/items").json) == 12
    assert demo.get("/items", **by("a")).status_code == 503
    assert demo.get("/mock/clock", **by("b")).json["frozen"] is False
    assert len(demo.get("/mock/requests", **by("a")).json) == 2


def test_a_session_can_be_named_by_a_cookie_and_a_header_wins(demo):
    demo.post("/items", json={"name": "a"}, **by("a"))
    demo.set_cookie("mock_session", "a", path="/")

    assert len(demo.get("/items").json) == 13
    assert len(demo.get("/items", **by("b")).json) == 12


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "ä", "a\u00b2"])
@pytest.mark.parametrize("place", ["X-Mock-Session", "mock_session"])
def test_a_wrong_session_name_is_refused(api, name, place):
    name = name.encode().decode("latin-1")
    header = {"HTTP_X_MOCK_SESSION": name} if place.startswith("X") else {"HTTP_COOKIE": f"a=b; {place}={name}"}

    response = api.application.test_client(use_cookies=False).get("/items", environ_overrides=header)

    assert response.status_code == 400
    assert response.json["details"] == {place: response.json["error"]}
    assert "1 to 64 of the characters A-Z a-z 0-9 . _ -" in response.json["error"]


def test_the_least_recently_used_of_256_sessions_goes_and_the_default_one_stays(api):
    for name in (None, "first", "second"):
        api.post("/items", json={"name": "x"}, **(by(name) if name else {}))
    for number in range(254):
        api.get("/items", **by(f"s{number}"))
    api.get("/items", **by("first"))

    api.get("/items", **by("one more"[:3]))

    assert len(api.get("/items", **by("first")).json) == 1
    assert len(api.get("/items").json) == 1
    assert len(api.get("/items", **by("second")).json) == 0


def test_a_reset_brings_everything_back(demo):
    before = state(demo)
    demo.delete("/items/1")
    demo.post("/items", json={"name": "x"})
    demo.put("/mock/clock", json={"now": NOW})
    demo.post("/mock/faults", json={"path": "/x"})

    for _ in range(2):
        assert demo.delete("/mock/state").status_code == 204

    assert state(demo) == before
    assert demo.get("/mock/clock").json["frozen"] is False
    assert demo.get("/mock/faults").json == demo.get("/mock/requests").json == []
    assert demo.post("/items", json={"name": "x"}).json["id"] == "13"


def test_a_state_comes_back_as_it_was_put(demo):
    before = state(demo)

    for _ in range(2):
        assert demo.put("/mock/state", data=before, content_type="application/json").status_code == 204
        assert state(demo) == before


def test_a_state_fills_in_what_is_missing(api):
    api.put("/mock/clock", json={"now": NOW})
    api.get("/nowhere")

    api.put("/mock/state", json={
        "items": [{"name": "a"}, {"name": "b", "id": "7", "created_at": None}, {"name": "c", "id": "x-1"}],
        "orders": [{"internal_number": "A", "items": [{"item_id": "8"}], "updated_at": NOW}]})

    items, orders = api.get("/items").json, api.get("/orders").json
    assert [row["id"] for row in items] == ["8", "7", "x-1"]
    assert {row["created_at"] for row in items} == {NOW}
    assert (orders[0]["id"], orders[0]["status"], orders[0]["updated_at"]) == ("1", "pending", NOW)
    assert api.post("/items", json={"name": "d"}).json["id"] == "9"
    assert api.delete("/items/8").status_code == 409
    assert len(api.get("/mock/requests").json) == 5
    assert api.put("/mock/state", json={}).status_code == 204
    assert not any(json.loads(state(api)).values())


@pytest.mark.parametrize("ids, following", [
    (["999999999999999"], "1000000000000000"), (["1000000000000000", "3"], "4"), (["a"], "1"), (["007"], "8"),
    (["999999999999999", "1000000000000000"], "1000000000000001"),
])
def test_the_next_id_follows_the_largest_of_15_digits(api, ids, following):
    api.put("/mock/state", json={"items": [{"name": "x", "id": each} for each in ids]})

    assert api.post("/items", json={"name": "x"}).json["id"] == following


def test_a_wrong_state_is_refused_whole_and_every_problem_is_told(demo):
    before = state(demo)

    response = demo.put("/mock/state", json={
        "items": [{"name": "a", "id": "1"}, {"id": ".."}, 5, {"name": "e", "id": [1]}, {"name": "d", "id": "1", "created_at": "2026-02-30T00:00:00.000Z"}],
        "orders": [{"internal_number": "A", "items": [{"item_id": "1"}, {"item_id": "99"}]}, {"internal_number": "A"}],
        "customers": []})

    assert demo.put("/mock/state", json={"items": 5, "orders": [{"internal_number": "A", "items": [
        {"item_id": "1"}]}]}).json["details"].keys() == {"items", "orders[0].items[0].item_id"}
    assert response.status_code == 400
    assert list(response.json["details"]) == [
        "items[1].id", "items[1].name", "items[2]", "items[3].id", "items[4].id", "items[4].created_at",
        "orders[0].items[1].item_id", "orders[1].internal_number", "customers"]
    assert response.json["error"].startswith("Id must be 1 to 64")
    assert state(demo) == before


@pytest.mark.parametrize("moment", [
    "2026-01-01T09:30:00Z", "2026-01-01T09:30:00.000", "2026-01-01 09:30:00.000Z", "2026-02-29T00:00:00.000Z",
    "0000-01-01T00:00:00.000Z", "2026-01-01T24:00:00.000Z", "2026-01-01T00:00:00.000+00:00", "", 5, None,
    "2026-01-01T09:30:00.000Z\n",
])
def test_a_clock_takes_only_a_moment_as_javascript_writes_it(api, moment):
    response = api.put("/mock/clock", json={"now": moment})

    assert (response.status_code, list(response.json["details"])) == (400, ["now"])
    assert api.get("/mock/clock").json["frozen"] is False


def test_a_frozen_clock_gives_its_time_until_it_is_let_go(api):
    assert api.put("/mock/clock", json={"now": "0001-01-01T00:00:00.000Z"}).json == {
        "now": "0001-01-01T00:00:00.000Z", "frozen": True}
    api.post("/items", json={"name": "x"})
    assert api.get("/mock/requests").json[0]["at"] == "0001-01-01T00:00:00.000Z"
    assert api.get("/items/1").json["created_at"] == "0001-01-01T00:00:00.000Z"

    assert api.delete("/mock/clock").status_code == 204

    now = api.put("/items/1", json={}).json["updated_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now)
    assert abs(time.time() - time.mktime(time.strptime(now[:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone) < 60


def test_a_fault_makes_the_next_requests_fail_and_is_gone(api):
    rule = api.post("/mock/faults", json={"method": "POST", "path": "/orders", "times": 2})
    assert (rule.status_code, rule.json) == (201, {
        "method": "POST", "path": "/orders", "status": 503, "delay": 0, "times": 2, "after": False})

    answers = [api.post("/orders", json={"internal_number": "A"}) for _ in range(3)]

    assert [each.status_code for each in answers] == [503, 503, 201]
    assert answers[0].json == {"error": "Service unavailable", "details": {"injected": True}}
    assert api.get("/mock/faults").json == []
    assert [each["status"] for each in api.get("/mock/requests").json] == [503, 503, 201]


def test_the_first_fault_that_fits_is_used(demo):
    for fault in ({"path": "/items/?", "status": 500}, {"path": "/items*", "status": 502, "times": None},
                  {"path": "*", "method": "DELETE", "status": 504}):
        demo.post("/mock/faults", json=fault)

    assert [demo.get(path).status_code for path in ("/items/1/", "/items/1", "/items", "/orders")] == [500, 502, 502, 200]
    assert demo.delete("/orders/1").status_code == 504
    assert [fault["status"] for fault in demo.get("/mock/faults").json] == [502]
    assert demo.delete("/mock/faults").status_code == 204
    assert demo.get("/items").status_code == 200


def test_a_fault_after_carries_the_request_out(api):
    api.post("/mock/faults", json={"path": "/items", "after": True, "status": 504})

    response = api.post("/items", json={"name": "x"}, headers=ORIGIN)

    assert (response.status_code, response.json["error"]) == (504, "Gateway timeout")
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
    assert len(api.get("/items").json) == 1
    assert api.get("/mock/requests").json[0]["status"] == 504


def test_a_fault_meets_unknown_paths_but_not_the_controls(api):
    api.post("/mock/faults", json={"path": "*", "times": None, "status": 599})

    assert api.get("/payments").json == {"error": "Status 599", "details": {"injected": True}}
    for path in ("/health", "/mock/state", "/openapi.json", "/"):
        assert api.get(path).status_code == 200
    assert api.options("/items", headers=ORIGIN | {"Access-Control-Request-Method": "PUT"}).status_code == 200
    assert [each["path"] for each in api.get("/mock/requests").json] == ["/payments"]


@pytest.mark.parametrize("body, places", [
    ({}, ["path"]), ({"path": "items"}, ["path"]), ({"path": "*", "method": "post"}, ["method"]),
    ({"path": "*", "status": 399}, ["status"]), ({"path": "*", "status": 600}, ["status"]),
    ({"path": "*", "delay": 30_001, "times": 0}, ["delay", "times"]), ({"path": "*", "after": 1}, ["after"]),
    ({"path": "*", "after": True, "status": None}, ["after"]), ({"path": "*", "x": 1}, ["x"]),
    ({"path": "*", "delay": None}, ["delay"]),
])
def test_a_wrong_fault_is_refused(api, body, places):
    response = api.post("/mock/faults", json=body)

    assert (response.status_code, list(response.json["details"])) == (400, places)
    assert api.get("/mock/faults").json == []


def test_the_journal_tells_what_came_in_the_order_of_arrival(api, begin_slowly):
    api.put("/mock/clock", json={"now": NOW})
    slow = begin_slowly("GET", "/items?q=x")
    api.post("/items", json={"name": "x"})
    slow.result()
    api.post("/nowhere", data=b"[1, 2", content_type="application/json")
    for size in (10_240, 10_241):
        api.post("/nowhere", data=b"[1]".ljust(size), content_type="application/json")

    seen = api.get("/mock/requests").json

    assert [(each["method"], each["path"], each["status"]) for each in seen] == [
        ("GET", "/items", 200), ("POST", "/items", 201), *[("POST", "/nowhere", 404)] * 3]
    assert [each["body"] for each in seen] == [None, {"name": "x"}, None, [1], None]
    assert list(seen[0]) == ["at", "method", "path", "query", "status", "duration_ms", "body"]
    assert (seen[0]["at"], seen[0]["query"]) == (NOW, "q=x")
    assert seen[0]["duration_ms"] >= 500
    assert api.delete("/mock/requests").status_code == 204
    assert api.get("/mock/requests").json == []


def test_the_journal_keeps_500_requests(api):
    for number in range(501):
        api.get(f"/items/{number}")

    seen = api.get("/mock/requests").json

    assert (len(seen), seen[0]["path"], seen[-1]["path"]) == (500, "/items/1", "/items/500")


def elapsed_ms(request: Callable[[], TestResponse]) -> tuple[int, float]:
    began = time.perf_counter()
    response = request()
    return response.status_code, 1000 * (time.perf_counter() - began)


def test_of_several_delays_the_longest_counts(serve):
    api = serve(delay="20-30")
    api.post("/mock/faults", json={"path": "/items", "delay": 60, "status": None})

    for query, least in (("", 60), ("", 20), ("?_delay=90", 90), ("?_delay=0", 20)):
        status, took = elapsed_ms(lambda query=query: api.get("/items" + query))
        assert (status, took >= least) == (200, True)


def test_the_controls_are_not_delayed(serve):
    api = serve(delay="30000")

    assert {api.get(path).status_code for path in ("/health", "/mock/state", "/")} == {200}


@pytest.fixture
def begin_slowly(api) -> Iterator[Callable]:
    """Begin a request that takes half a second, and return as soon as it has arrived."""
    with ThreadPoolExecutor(1) as pool:
        def begin(method: str, path: str, **options):
            api.post("/mock/faults", json={"path": "*", "method": method, "status": None, "delay": 500})
            slow = pool.submit(api.application.test_client().open, path, method=method, **options)
            while api.get("/mock/faults").json:
                pass
            return slow
        yield begin


def test_a_delayed_request_delays_nobody_else(api, begin_slowly):
    slow = begin_slowly("POST", "/items", json={"name": "slow"})

    assert api.post("/items", json={"name": "quick"}).json["id"] == "1"
    assert slow.result().json["id"] == "2"


def test_a_reset_leaves_behind_what_is_still_under_way(api, begin_slowly):
    slow = begin_slowly("POST", "/items", json={"name": "of the test before"})

    api.delete("/mock/state")

    assert slow.result().status_code == 201
    assert api.get("/items").json == []
    assert [each["path"] for each in api.get("/mock/requests").json] == ["/items"]


def test_one_request_can_ask_for_an_error(api):
    api.post("/mock/faults", json={"path": "*"})

    response = api.post("/items?_status=418", json={"name": "x"})

    assert (response.status_code, response.json) == (418, {"error": "I'm a teapot", "details": {"injected": True}})
    assert len(api.get("/mock/faults").json) == 1
    assert json.loads(state(api))["items"] == []


@pytest.mark.parametrize("query, places", [
    ("_status=200", ["_status"]), ("_status=abc", ["_status"]), ("_delay=-1", ["_delay"]), ("_delay=30001", ["_delay"]),
    ("_delay=x&_status=9", ["_delay", "_status"]), ("_delay=", ["_delay"]),
])
def test_a_wrong_wish_is_refused(api, query, places):
    response = api.post(f"/items?{query}", json={"name": "x"})

    assert (response.status_code, list(response.json["details"])) == (400, places)
    assert api.get("/items").json == []


# Documents


def resolved(schema: object, document: dict) -> object:
    """A schema of the document with its references replaced by what they refer to."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return resolved(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
        return {name: resolved(part, document) for name, part in schema.items()}
    return [resolved(part, document) for part in schema] if isinstance(schema, list) else schema


def test_the_document_has_each_route_and_no_other(demo):
    document = demo.get("/openapi.json").json
    routes = {(rule.rule.removeprefix(API).replace("<id>", "{id}"), method.lower())
              for rule in demo.application.url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}
              if rule.rule.startswith(API) and not rule.rule.startswith((f"{API}/mock", f"{API}/openapi"))}

    assert {(path, method) for path, item in document["paths"].items() for method in item} == routes
    assert document["servers"] == [{"url": API}]
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)


@pytest.mark.parametrize("method, path, options, status", [
    ("get", "/health", {}, 200),
    ("get", "/{s}", {}, 200), ("get", "/{s}?page=1", {}, 200), ("get", "/{s}?x=1", {}, 400),
    ("get", "/{s}", {"headers": {"If-None-Match": "*"}}, 304),
    ("post", "/{s}", {"json": {}}, 400), ("post", "/{s}", {"data": b""}, 415),
    ("post", "/{s}", {"data": b" " * 2**21, "content_type": "application/json"}, 413),
    ("post", "/orders", {"json": {"internal_number": "A-1"}}, 409),
    ("post", "/orders", {"json": {"internal_number": "new", "items": [{"item_id": "1", "x": 1}]}}, 201),
    ("post", "/items", {"json": {"name": "new"}}, 201),
    ("get", "/{s}/1", {}, 200), ("get", "/{s}/99", {}, 404), ("get", "/{s}/1", {"headers": {"If-None-Match": "*"}}, 304),
    ("put", "/{s}/1", {"json": {}}, 200), ("patch", "/{s}/1", {"json": {}}, 200),
    ("patch", "/{s}/1", {"json": {}, "headers": {"If-Match": '"x"'}}, 412),
    ("delete", "/{s}/1", {"headers": {"If-Match": '"x"'}}, 412), ("delete", "/items/2", {}, 409),
    ("delete", "/items/1", {}, 204), ("delete", "/orders/1", {}, 204), ("delete", "/{s}/99", {}, 404),
])
@pytest.mark.parametrize("name", KINDS)
def test_answers_are_what_the_document_says(stocked, name, method, path, options, status):
    path = path.replace("{s}", name)
    document = stocked.get("/openapi.json").json

    response = stocked.open(path, method=method.upper(), **options)

    template = re.sub(r"/\d+$", "/{id}", path.partition("?")[0])
    described = document["paths"][template][method]["responses"][str(response.status_code)]
    assert response.status_code == status
    assert all(name in response.headers for name, header in described.get("headers", {}).items() if header["required"])
    if "content" in described:
        schema = resolved(described["content"]["application/json"]["schema"], document)
        problems = [[sentence for _, sentence, claim in check(each, response.json, "body") if not claim]
                    for each in schema.get("anyOf", [schema])]
        assert [] in problems
    else:
        assert (response.data, response.content_type) == (b"", None)


def test_the_document_describes_what_is_sent(api):
    paths = api.get("/openapi.json").json["paths"]

    def sent(path: str, method: str) -> set[str]:
        operation = paths[path][method]
        body = operation.get("requestBody", {"required": False})
        assert all(each["required"] == (each["in"] == "path") for each in operation["parameters"])
        return {f"{each['in']} {each['name']}" for each in operation["parameters"]
                if each["in"] != "query"} | ({"body"} if body["required"] else set())

    session = "header X-Mock-Session"
    assert sent("/items", "get") == {session, "header If-None-Match"}
    assert sent("/items", "post") == {session, "body"}
    assert sent("/items/{id}", "get") == {session, "path id", "header If-None-Match"}
    assert sent("/items/{id}", "put") == sent("/items/{id}", "patch") == {session, "path id", "header If-Match", "body"}
    assert sent("/items/{id}", "delete") == {session, "path id", "header If-Match"}
    assert sent("/health", "get") == {session}


def test_the_document_describes_the_parameters_of_a_list(api):
    parameters = {each["name"]: each["schema"] for each in api.get("/openapi.json").json["paths"]["/items"]["get"]["parameters"]}

    assert parameters["status"]["items"]["enum"] == ["pending", "active", "completed"]
    assert parameters["quantity_gte"] == {"type": "array", "items": {"type": "integer", "description": "an integer"}}
    assert parameters["name_like"] == parameters["q"] == {"type": "array", "items": {"type": "string", "description": "a string"}}
    assert parameters["sort"]["type"] == "string"
    assert re.fullmatch(parameters["sort"]["pattern"], "-quantity,name")
    assert (parameters["per_page"]["minimum"], parameters["per_page"]["maximum"]) == (1, 1000)
    assert "quantity_like" not in parameters


def test_only_what_is_required_is_required_when_it_is_sent(api):
    schemas = api.get("/openapi.json").json["components"]["schemas"]

    assert [schemas[name]["required"] for name in ("NewItem", "NewOrder", "ItemChange", "OrderChange")] == [
        ["name"], ["internal_number"], [], []]
    assert schemas["Item"]["required"] == list(api.post("/items", json={"name": "x"}).json)
    assert '"default"' not in json.dumps(schemas)
    assert schemas["NewItem"]["properties"]["status"]["description"] == 'left out: "pending"'


def test_the_home_page_is_for_people_and_its_json_for_the_rest(demo):
    demo.get("/items?q=<script>", **by("s"))

    page = demo.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
    told = demo.get("/", headers={"Accept": "application/json", "X-Mock-Session": "s"})

    assert (page.mimetype, told.mimetype) == ("text/html", "application/json")
    assert f'<a href="{API}/items">' in page.text
    assert "http://" not in page.text.replace("http://www.w3.org/2000/svg", "")
    paths = {route["path"] for route in told.json["routes"]}
    assert {f"{API}/items/<id>", f"{API}/mock/faults", "/"} <= paths
    assert all(route["summary"] for route in told.json["routes"])


# Settings


@pytest.mark.parametrize("settings, sentence", [
    ({"port": "x"}, "PORT must be an integer from 0 to 65535, not 'x'"),
    ({"port": 65536}, "PORT must be an integer from 0 to 65535, not '65536'"),
    ({"seed": "many"}, "SEED must be demo, a number of items, or the path of a .json file, not 'many'"),
    ({"seed": "missing.json"}, "SEED missing.json: No such file or directory"),
    ({"delay": "5-1"}, "DELAY must .*"), ({"delay": "30001"}, "DELAY must .*"), ({"delay": "a"}, "DELAY must .*"),
    ({"cors_origins": "localhost:5173"}, "CORS_ORIGINS must .*"), ({"cors_origins": "http://*"}, "CORS_ORIGINS must .*"),
    ({"cors_origins": "http://a/"}, "CORS_ORIGINS must .*"), ({"cors_origins": "http://a,*"}, "CORS_ORIGINS must .*"),
    ({"api_prefix": "api"}, "API_PREFIX must .*"), ({"api_prefix": "/api/"}, "API_PREFIX must .*"),
    ({"api_version": "a/b"}, "API_VERSION must .*"), ({"flask_debug": "off"}, "FLASK_DEBUG must .*"),
])
def test_a_wrong_setting_is_told_by_its_name(settings, sentence):
    with pytest.raises(Exception, match=f"^{sentence}$"):
        create_app(**settings)


def test_a_setting_comes_from_the_argument_then_the_environment_then_the_default(serve, monkeypatch):
    monkeypatch.setenv("SEED", "3")
    monkeypatch.setenv("API_PREFIX", "")

    assert len(serve().get("/items").json) == 3
    assert len(serve(seed=2).get("/items").json) == 2
    with pytest.raises(TypeError):
        create_app(sed="demo")


def test_a_prefix_moves_the_api(serve):
    client = create_app(api_prefix="/a/b", api_version="v2").test_client()

    assert client.post("/a/b/v2/items", json={"name": "x"}).headers["Location"] == "/a/b/v2/items/1"
    assert client.get("/a/b/v2/mock/requests").json[0]["path"] == "/items"
    assert client.get("/api/v1/items").status_code == 404


def test_the_app_for_servers_is_made_once():
    import inventory

    assert inventory.app is inventory.app
    assert not hasattr(inventory, "application")


def test_generated_seeds_are_the_same_each_time(serve):
    assert state(serve(seed="250")) == state(serve(seed="250"))
    assert len(serve(seed="250").get("/items?status=active").json) > 50


def test_the_demo_has_items_with_and_without_an_order(demo):
    assert 10 <= len(demo.get("/items").json) <= 14
    assert demo.delete("/items/1").status_code == 204


def test_a_seed_file_is_a_state(serve, tmp_path):
    file = tmp_path / "seed.json"
    file.write_bytes(state(serve(seed="demo")))
    assert state(serve(seed=str(file))) == file.read_bytes()

    for content, reason in (('{"items": [{"name": ""}]}', r"items\[0\].name: Name must be"),
                            ("[]", "body: Body must be a JSON object"), ("{", "body: Body is not JSON")):
        file.write_text(content)
        with pytest.raises(Exception, match=f"^SEED .*seed.json: {reason}"):
            create_app(seed=str(file))


# Running


@pytest.fixture
def start() -> Iterator[Callable]:
    """Start the service on a free port and read its first line."""
    running = []

    def start(**settings: str) -> tuple[subprocess.Popen, str]:
        process = subprocess.Popen(
            [sys.executable, "inventory.py"], cwd=HERE, env=os.environ | {"PORT": "0"} | settings, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        running.append(process)
        return process, process.stdout.readline()
    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_logs_a_line_a_request_and_ends_cleanly(start, number):
    process, line = start(SEED="demo")
    url = re.fullmatch(r"Inventory API listening on (http://127\.0\.0\.1:\d+/api/v1)\n", line)[1]
    with urllib.request.urlopen(url.removesuffix("api/v1") + "?live"):
        pass  # the home page refreshing itself, which is not logged
    with urllib.request.urlopen(url + "/items") as response:
        assert len(json.load(response)) == 12

    process.send_signal(number)
    out, err = process.communicate(timeout=5)

    assert (process.returncode, err) == (0, "")
    assert re.fullmatch(r"\d\d/\w+/\d{4} \d\d:\d\d:\d\d 'GET /api/v1/items HTTP/1.1' 200\n", out)


def test_a_taken_port_is_told_in_one_line(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process, line = start(PORT=str(taken.getsockname()[1]))
        _, err = process.communicate(timeout=5)

    assert (line, process.returncode) == ("", 1)
    assert re.fullmatch(r"inventory: PORT \d+ on HOST 127.0.0.1: Address already in use.*\n", err)


@pytest.mark.parametrize("settings", [{"DELAY": "x"}, {"SEED": "no.json"}, {"FLASK_DEBUG": "1", "HOST": "0.0.0.0"}])
def test_what_will_not_do_is_told_in_one_line(start, settings):
    process, line = start(**settings)
    _, err = process.communicate(timeout=5)

    assert (line, process.returncode, err.count("\n")) == ("", 1, 1)
    assert next(iter(settings)) in err


CHUNKED = b"POST /api/v1/items HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("sent, status", [
    (b"GET " + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    (CHUNKED + b"no length\r\n", 400),
    (CHUNKED + b"d\r\n{\"name\": \"x\"}\r\n0\r\n\r\n", 201),
], ids=["a long line", "many headers", "a broken chunk", "whole chunks"])
def test_what_comes_in_pieces_or_is_not_http_is_answered_in_json(start, sent, status):
    _, line = start()
    port = int(re.search(r":(\d+)/", line)[1])

    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        answer = connection.makefile("rb").read().decode()

    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert {"error", "name"} & json.loads(answer.partition("\r\n\r\n")[2]).keys()
