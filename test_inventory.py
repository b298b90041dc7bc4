"""What users of the service rely on. Sections are named after those of the modules.

A test sends requests by `api`, a client in a session of its own, and looks at the
answers. `demo` is the same with the rows of the demo. A test that takes `example` runs
once for each resource.
"""

import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import FrozenInstanceError, dataclass, field, make_dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server
from werkzeug.test import Client

import inventory
import store
from inventory import SETTINGS, Fault, Session, Sessions, create_app
from store import RESOURCES, Reference, Store

HERE = Path(__file__).parent
NOW = "2026-01-01T09:30:00.000Z"
LATER = "2026-01-02T10:00:00.000Z"
TIME_PATTERN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
ORIGIN = "http://localhost:5173"
TEXT = {"Content-Type": "text/plain"}
OTHER_TAG = {"If-Match": '"x"'}  # a tag that no row has
MAX_INTEGER = 2**53 - 1  # JavaScript holds integers exactly up to this one


@pytest.fixture(scope="module", autouse=True)
def no_settings():
    """What the developer's own environment sets is not what is tested."""
    with pytest.MonkeyPatch.context() as environment:
        for name in list(os.environ):
            if name in SETTINGS or name.startswith("FLASK_"):
                environment.delenv(name)
        yield


class Api:
    """A client for paths below /api/v1.

    Each call asserts the status of the answer. That is 200, for `post` 201 and for
    `delete` 204, unless the call says another. Of every answer it asserts as well that
    it is not to be cached, and that an error comes with a sentence.
    """

    def __init__(self, session=None, app=None, **settings):
        self.app = app or create_app(**settings)
        self.session = session

    def in_session(self, session):
        """A client of the same service in another session."""
        return Api(session, self.app)

    def request(self, method, path, body=None, status=200, headers=(), **options):
        # As from a page of another origin, so that answers have the headers for that.
        sent_headers = {"Origin": ORIGIN, "X-Mock-Session": self.session}
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent_headers["Content-Type"] = "application/json"
            options["data"] = data
        sent_headers.update(headers)
        kept_headers = {
            name: text for name, text in sent_headers.items() if text is not None
        }
        client = self.app.test_client(use_cookies=False)

        response = client.open(
            f"/api/v1{path}", method=method, headers=kept_headers, **options
        )

        asked = f"{method} {path} {str(body)[:200]}"
        assert response.status_code == status, f"{asked} -> {response.text[:500]}"
        assert response.headers["Cache-Control"] == "no-store"
        if status >= 400 and method != "HEAD":
            assert response.json["error"].strip(), asked
        return response

    def get(self, path, status=200, **options):
        return self.request("GET", path, status=status, **options)

    def post(self, path, body=None, status=201, **options):
        return self.request("POST", path, body, status, **options)

    def put(self, path, body=None, status=200, **options):
        return self.request("PUT", path, body, status, **options)

    def patch(self, path, body=None, status=200, **options):
        return self.request("PATCH", path, body, status, **options)

    def delete(self, path, status=204, **options):
        return self.request("DELETE", path, status=status, **options)

    def everything(self):
        """What a refused request must leave as it was."""
        return (
            self.get("/mock/state").json,
            self.get("/mock/faults").json,
            self.get("/mock/clock").json["frozen"],
        )


@pytest.fixture(scope="module")
def empty_app():
    return create_app()


@pytest.fixture(scope="module")
def demo_app():
    return create_app(seed="demo")


SESSION_NUMBERS = itertools.count()


@pytest.fixture
def api(empty_app):
    """A client in a session of its own, without rows.

    Making an app takes far longer than a session. So a test makes its own app only if
    it is about the default session, or changes the app.
    """
    return Api(f"test-{next(SESSION_NUMBERS)}", empty_app)


@pytest.fixture
def demo(demo_app):
    """A client in a session of its own, with the demo's 12 items and 3 orders."""
    return Api(f"test-{next(SESSION_NUMBERS)}", demo_app)


@dataclass
class Example:
    """What the tests of all resources need to know of one of them."""

    path: str
    body: dict  # what a client must send for a row
    other_body: dict  # the same for another row
    change: dict
    defaults: dict  # what the service fills in


EXAMPLES = [
    Example(
        path="/items",
        body={"name": "Mug"},
        other_body={"name": "Pot"},
        change={"quantity": 3},
        defaults={"description": "", "status": "pending", "quantity": 0},
    ),
    Example(
        path="/orders",
        body={"internal_number": "A-1"},
        other_body={"internal_number": "A-2"},
        change={"status": "sent"},
        defaults={"status": "pending", "items": []},
    ),
]


@pytest.fixture(params=EXAMPLES, ids=[example.path[1:] for example in EXAMPLES])
def example(request):
    """Each of `params` in turn, which pytest gives in `request.param`."""
    return request.param


def let_others_run(frame, event, argument):
    """Let other threads run before each line of the modules.

    Python calls the function that `sys.settrace` is given as each function begins, and
    what that returns before each line in it. So it returns itself, or None for the
    functions that are not ours.
    """
    if frame.f_code.co_filename not in (store.__file__, inventory.__file__):
        return None
    time.sleep(0)  # gives the processor away
    return let_others_run


def all_at_once(function, threads=8, fast=()):
    """Call a function in many threads that start together; return what it returned.

    The threads let others run before each line of the modules, so that a step that
    should have been under a lock is interrupted at once. Those whose numbers are `fast`
    do not: while one of the others does a line, they do hundreds. An error in a thread
    comes out of this call.
    """
    before = sys.getswitchinterval()
    barrier = threading.Barrier(threads)

    def run(number):
        barrier.wait()
        if number not in fast:
            sys.settrace(let_others_run)
        return function(number)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(run, range(threads)))
    finally:
        sys.setswitchinterval(before)


def wait_until(condition):
    """Ask again and again until a condition holds, for ten seconds at most.

    What is asked is a request, which takes a while by itself.
    """
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it has not happened within ten seconds"


def error_with(details):
    """The body of an error that tells these problems: the first one is its sentence."""
    return {"error": list(details.values())[0], "details": details}


UNAVAILABLE = {"error": "Service unavailable", "details": {"injected": True}}


def short(value):
    """What pytest shows of a value in the name of a case, for long tables."""
    return str(value)[:60] if isinstance(value, (dict, list, str)) else None


def ids_of(rows):
    """The ids of rows, in their order."""
    return [row["id"] for row in rows]


# ----------------------------------------------------------------------
# Times
# ----------------------------------------------------------------------


TIMES = [  # as clients send them, and as they are kept
    (NOW, NOW),
    ("2026-01-01T09:30:00Z", NOW),
    ("2026-01-01T09:30Z", NOW),
    ("2026-01-01t09:30:00z", NOW),
    ("2026-01-01 09:30:00+00:00", NOW),
    ("2026-01-01T09:30:00-00:00", NOW),
    ("2026-01-01T10:30:00+01:00", NOW),
    ("2026-01-01T10:30:00+0100", NOW),
    ("2026-01-01T00:00:00-09:30", NOW),
    ("2025-12-31T23:30:00.000000-10:00", NOW),
    ("2026-01-01T09:30:00,5Z", "2026-01-01T09:30:00.500Z"),
    ("2026-01-01T09:30:00.5Z", "2026-01-01T09:30:00.500Z"),
    ("2026-01-01T09:30:00.123999999Z", "2026-01-01T09:30:00.123Z"),
    ("20260101T093000Z", NOW),
    ("2026-W01-4T09:30Z", NOW),
    ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
    ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
]

WRONG_TIMES = [
    "",
    "null",
    "1767260000000",
    "01/10/2026",
    "2026-01-01T09:30:00",  # names no zone
    "2026-01-01T09:30:00.000",
    "2026-01-01T09:30:00 01:00",  # a + that is not written %2B becomes a blank
    '"2026-01-01T09:30:00Z"',
    "2026-02-29T00:00:00Z",
    "2026-01-01T25:00:00Z",
    "2026-01-01T09:60:00Z",
    "2026-01-01T09.5Z",
    "2026-01-01T09:30:00+25:00",
    "2026-01-01T09:30:00+01:60",
    "2016-12-31T23:59:60Z",  # a leap second
    "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "0001-01-01T00:30:00+01:00",  # in UTC, these two are not of the years 1 to 9999
    "9999-12-31T23:30:00-01:00",
    # Python's `fromisoformat` would take any character before the time of day, and
    # overlook a NUL at the end.
    "2026-01-01x09:30:00Z",
    "2026-01-01T09:30:00Z\0",
    "2026-01-01T09:30:00\0Z",
    "2026-01-01T09:30:00Z\n",
    "2026-01-01T09:30:00Zx",
    " 2026-01-01T09:30:00Z",
    "2026-01-01T09:30:00Z ",
    "٢٠٢٦-01-01T09:30:00Z",  # digits of another script
]

TIME_WANTED = "must be a time with its zone, such as 2026-01-01T09:30:00.000Z"
QUERY_TIME_WANTED = f"{TIME_WANTED}, or a date, such as 2026-01-01; a + is written %2B"


@pytest.mark.parametrize("sent, kept", TIMES)
def test_a_time_may_be_written_in_many_forms_and_is_kept_in_one(api, sent, kept):
    item = {"name": "x", "created_at": sent, "updated_at": sent}

    clock = api.put("/mock/clock", {"now": sent})
    api.put("/mock/state", {"items": [item]}, status=204)

    assert clock.json == {"now": kept, "frozen": True}
    assert api.get("/mock/clock").json == clock.json
    row = api.get("/items/1").json
    assert (row["created_at"], row["updated_at"]) == (kept, kept)
    # The client writes + as %2B, as every client must in a query.
    for query in ({"created_at": sent}, {"updated_at": sent}, {"created_at_gte": sent}):
        assert api.get("/items", query_string=query).json == [row]
    assert api.get("/items", query_string={"created_at_gt": sent}).json == []


@pytest.mark.parametrize("moment", [*WRONG_TIMES, "2026-01-01", None, 1767260000000])
def test_the_clock_takes_only_a_time_with_its_zone(demo, moment):
    before = demo.everything()

    response = demo.put("/mock/clock", {"now": moment}, status=400)

    assert response.json == error_with({"now": f"Now {TIME_WANTED}"})
    assert demo.everything() == before


@pytest.mark.parametrize("moment", [*WRONG_TIMES, "2026-01-01", 1767260000000])
def test_a_state_takes_only_times_with_their_zone(demo, moment):
    before = demo.everything()
    item = {"name": "x", "created_at": moment, "updated_at": moment}

    response = demo.put("/mock/state", {"items": [item]}, status=400)

    assert response.json == error_with(
        {
            "items[0].created_at": f"Created at {TIME_WANTED} or null",
            "items[0].updated_at": f"Updated at {TIME_WANTED} or null",
        }
    )
    assert demo.everything() == before


@pytest.mark.parametrize("moment", [*WRONG_TIMES, "2026-02-30", "2026-1-1", "now"])
def test_what_is_no_time_in_a_query_is_refused_with_a_hint_at_the_plus(demo, moment):
    query = {"created_at_gte": moment}

    response = demo.get("/items", status=400, query_string=query)

    sentence = f"Created at gte {QUERY_TIME_WANTED}"
    assert response.json == error_with({"created_at_gte": sentence})


# ----------------------------------------------------------------------
# Rules
# ----------------------------------------------------------------------


NUMBER_RULE = store.make_rule("number", "a number of at least -1", minimum=-1)


@pytest.mark.parametrize(
    "rule, good, bad",
    [
        (store.INTEGER_RULE, [0, -5, 10**20], [True, 3.5, "3", None, [], {}]),
        (NUMBER_RULE, [0, 1.5, -1], [True, "1", None, -1.5]),
        (store.BOOLEAN_RULE, [True, False], [0, 1, "true", None]),
        (store.nullable(store.BOOLEAN_RULE), [True, None], [0, ""]),
        # JavaScript's strings can hold half a surrogate pair, as \ud800 is.
        (store.STRING_RULE, ["", "ü", "\ud800"], [None, 5, [], {}]),
        (store.TIME_RULE, [NOW, "0001-01-01T00:00:00.000Z"], ["", 5, None]),
        (store.array_rule(store.INTEGER_RULE), [[], [1, 2]], [{}, [1, "2"], None]),
        (store.ANY_OBJECT_RULE, [{}, {"x": None}], [None, [], "{}"]),
    ],
)
def test_a_rule_allows_what_it_says_and_nothing_else(rule, good, bad):
    for value in good:
        assert store.validate(rule, value) == value
    for value in bad:
        with pytest.raises(store.InvalidError):
            store.validate(rule, value, "field")


def test_what_can_be_null_already_is_not_made_so_twice():
    once = store.nullable(store.INTEGER_RULE)

    assert store.nullable(once) == once
    assert once["description"] == "an integer or null"


@pytest.mark.parametrize(
    "words, wrong",
    [
        ({"type": "string", "minLenght": 3}, "minLenght"),
        ({"type": "text"}, "text"),
        ({"type": ["string", "nil"]}, "nil"),
        ({"type": "string", "format": "uuid"}, "uuid"),
    ],
)
def test_a_rule_with_an_unknown_word_cannot_be_registered(words, wrong):
    @dataclass(frozen=True, kw_only=True)
    class Wrong(store.Record):
        field_name: str = field(metadata={**words, "description": "x"})

    with pytest.raises(ValueError, match=f"'{wrong}'"):
        store.register("wrongs", Wrong)


def test_a_rule_with_an_unknown_word_cannot_be_made():
    with pytest.raises(ValueError, match="'title'"):
        store.make_rule("string", "a string", title="x")


@pytest.mark.parametrize(
    "path, body",
    [
        ("/items", {"name": "x" * 255, "description": "\U0001f600" * 10_000}),
        ("/items", {"name": " x ", "status": "completed", "quantity": MAX_INTEGER}),
        # A zero-width space is no white space, and neither is a byte order mark.
        ("/items", {"name": "\u200b", "status": "active", "quantity": 0}),
        ("/items", {"name": "\ufeff"}),
        ("/items", {"name": "\ud800", "description": "a\u0000b\n"}),
        ("/orders", {"internal_number": "x" * 50, "status": "y" * 50}),
        ("/orders", {"internal_number": "x", "items": [{}] * 1000}),
        (
            "/orders",
            {
                "internal_number": "x",
                "items": [{"note": {"deep": [1, -2.5, 1e300, None, True, "ü"]}}],
            },
        ),
        (
            "/orders",
            {
                "internal_number": "x",
                "items": [{"quantity": 1}, {"quantity": MAX_INTEGER}],
            },
        ),
    ],
    ids=short,
)
def test_what_the_rules_allow_comes_back_as_it_was_sent(api, path, body):
    response = api.post(path, body)

    for name, value in body.items():
        assert response.json[name] == value
    assert api.get(f"{path}/1").json == response.json
    for name, value in body.items():
        api.patch(f"{path}/1", {name: value})
    assert api.get("/mock/state").json[path[1:]][0] == api.get(f"{path}/1").json


NAME_SENTENCE = "Name must be a string of 1 to 255 characters, not all blank"
DESCRIPTION_SENTENCE = "Description must be a string of at most 10000 characters"
STATUS_SENTENCE = "Status must be one of pending, active, completed"
QUANTITY_SENTENCE = f"Quantity must be an integer from 0 to {MAX_INTEGER}"
INTERNAL_NUMBER_SENTENCE = (
    "Internal number must be a string of 1 to 50 characters, not all blank"
)
ORDER_STATUS_SENTENCE = "Status must be a string of 1 to 50 characters, not all blank"
LINES_SENTENCE = "Items must be an array of at most 1000 elements"
LINE_QUANTITY_SENTENCE = f"Quantity must be an integer from 1 to {MAX_INTEGER}"
ITEM_FIELDS = "id, name, description, status, quantity, created_at, updated_at"
ALL_BLANKS = "".join(chr(code) for code in range(0x110000) if chr(code).isspace())

WRONG_VALUES = [  # path, field, values, sentence
    ("/items", "name", ["", ALL_BLANKS, "x" * 256, None, 5, []], NAME_SENTENCE),
    ("/items", "description", ["x" * 10_001, None, 5], DESCRIPTION_SENTENCE),
    ("/items", "status", ["Active", "", None, 1], STATUS_SENTENCE),
    ("/items", "quantity", [-1, -1.0, 3.5, 2**53, 2.0**53, 1e300], QUANTITY_SENTENCE),
    ("/items", "quantity", [True, "3", None, {}], QUANTITY_SENTENCE),
    ("/orders", "internal_number", ["", " ", "x" * 51, None], INTERNAL_NUMBER_SENTENCE),
    ("/orders", "status", ["", "\n", "x" * 51, None, 5], ORDER_STATUS_SENTENCE),
    ("/orders", "items", [{}, None, "[]", [{}] * 1001], LINES_SENTENCE),
]


@pytest.mark.parametrize("path, field_name, values, sentence", WRONG_VALUES)
def test_a_value_that_breaks_the_rule_of_its_field_is_refused(
    demo, path, field_name, values, sentence
):
    before = demo.everything()

    for value in values:
        body = {"name": "x"} if path == "/items" else {"internal_number": "x"}
        body[field_name] = value
        refused_post = demo.post(path, body, status=400)
        refused_patch = demo.patch(f"{path}/1", {field_name: value}, status=400)
        assert refused_post.json == error_with({field_name: sentence})
        assert refused_patch.json == error_with({field_name: sentence})

    assert demo.everything() == before


WRONG_FIELDS = [  # method, path, body, details
    ("POST", "/items", {}, {"name": "Name is required"}),
    ("POST", "/orders", {}, {"internal_number": "Internal number is required"}),
    (
        "POST",
        "/items",
        {"z": 1, "quantity": "3", "status": "?", "description": None},
        {
            "name": "Name is required",
            "description": DESCRIPTION_SENTENCE,
            "status": STATUS_SENTENCE,
            "quantity": QUANTITY_SENTENCE,
            "z": f"z is not known here; allowed are {ITEM_FIELDS}",
        },
    ),
    (
        "PUT",
        "/orders/1",
        {"items": [{"item_id": 1, "quantity": 0}, 5, {}, {"quantity": 3.5}]},
        {
            "items[0].item_id": "Item id must be a string",
            "items[0].quantity": LINE_QUANTITY_SENTENCE,
            "items[1]": "Items[1] must be an object",
            "items[3].quantity": LINE_QUANTITY_SENTENCE,
        },
    ),
    ("PUT", "/mock/clock", {}, {"now": "Now is required"}),
    (
        "PUT",
        "/mock/clock",
        {"now": NOW, "x": 1},
        {"x": "x is not known here; allowed are now"},
    ),
]


@pytest.mark.parametrize("method, path, body, details", WRONG_FIELDS, ids=short)
def test_all_wrong_fields_are_reported_and_nothing_changes(
    demo, method, path, body, details
):
    before = demo.everything()

    response = demo.request(method, path, body, status=400)

    assert response.json == error_with(details)
    # Equal objects can have their members in different orders.
    assert list(response.json["details"]) == list(details)
    assert list(response.json) == ["error", "details"]
    assert demo.everything() == before


@pytest.mark.parametrize("number", ["3.0", "3e0", "0.3E1", "300e-2"])
def test_an_integer_may_be_written_with_a_fraction_of_zero(api, number):
    # As bytes, because `json.dumps` would write each of these as 3.0.
    item = f'{{"name": "x", "quantity": {number}}}'.encode()
    order = f'{{"internal_number": "A", "items": [{{"quantity": {number}}}]}}'.encode()
    fault = f'{{"path": "/x", "delay": {number}, "times": {number}}}'.encode()
    state = b'{"items": [' + item + b'], "orders": [' + order + b"]}"

    assert b'"quantity":3,' in api.post("/items", item).data
    assert b'"quantity":3,' in api.put("/items/1", item).data
    assert b'[{"quantity":3}]' in api.post("/orders", order).data
    assert b'"times":3,"delay":3,' in api.post("/mock/faults", fault).data
    api.put("/mock/state", state, status=204)
    assert api.get("/mock/state").data.count(b'"quantity":3') == 2


@pytest.mark.parametrize(
    "number", ["3.0", "-0.5", "1e+300", "9007199254740993", "9" * 4000], ids=short
)
def test_a_number_in_a_free_field_of_a_line_comes_back_as_it_was_sent(api, number):
    body = f'{{"internal_number": "A", "items": [{{"x": {number}}}]}}'

    response = api.post("/orders", body.encode())

    assert f'"items":[{{"x":{number}}}]' in response.text


def test_the_largest_integer_may_be_written_with_a_fraction_of_zero(api):
    response = api.post("/items", b'{"name": "x", "quantity": 9007199254740991.0}')

    assert '"quantity":9007199254740991,' in response.text


def test_no_more_than_a_hundred_problems_are_reported(api):
    body = {str(number): 1 for number in range(80_000)}
    items = [{} for _ in range(101)]

    refused_row = api.post("/items", body, status=400).json
    refused_state = api.put("/mock/state", {"items": items}, status=400).json

    assert len(refused_row["details"]) == len(refused_state["details"]) == 100
    names = list(refused_row["details"])
    assert (names[0], names[1], names[99]) == ("name", "0", "98")
    assert "items[99].name" in refused_state["details"]
    assert api.get("/items").json == []


# ----------------------------------------------------------------------
# Records
# ----------------------------------------------------------------------


def test_two_orders_cannot_have_the_same_internal_number(api):
    api.post("/orders", {"internal_number": "A-1"})
    api.post("/orders", {"internal_number": "A-2"})
    taken = error_with({"internal_number": "Internal number A-1 is taken"})

    refused_post = api.post("/orders", {"internal_number": "A-1"}, status=409)
    refused_patch = api.patch("/orders/2", {"internal_number": "A-1"}, status=409)

    assert refused_post.json == taken
    assert refused_patch.json == taken
    numbers = [order["internal_number"] for order in api.get("/orders").json]
    assert numbers == ["A-1", "A-2"]
    assert api.post("/orders", {"internal_number": "A-3"}).json["id"] == "3"


def test_an_order_can_keep_its_internal_number(api):
    api.post("/orders", {"internal_number": "A-1"})

    order = api.patch("/orders/1", {"internal_number": "A-1", "status": "sent"}).json

    assert (order["internal_number"], order["status"]) == ("A-1", "sent")


def test_an_internal_number_is_free_again_after_a_change_or_a_deletion(api):
    api.post("/orders", {"internal_number": "A-1"})
    api.post("/orders", {"internal_number": "A-2"})

    api.patch("/orders/1", {"internal_number": "A-3"})
    api.delete("/orders/2")

    assert api.post("/orders", {"internal_number": "A-1"}).json["id"] == "3"
    assert api.post("/orders", {"internal_number": "A-2"}).json["id"] == "4"


def test_an_item_that_an_order_names_cannot_be_deleted(api):
    api.post("/items", {"name": "Mug"})
    lines = [{"item_id": "1"}]
    api.post("/orders", {"internal_number": "A-1", "items": lines})
    before = api.everything()

    refused = api.delete("/items/1", status=409)

    assert refused.json == error_with({"id": "Item 1 is named by order 1"})
    assert api.everything() == before


def test_an_item_can_be_deleted_once_no_order_names_it_any_more(api):
    api.post("/items", {"name": "Mug"})
    api.post("/items", {"name": "Pot"})
    mug_twice = [{"item_id": "1"}, {"item_id": "1"}]
    api.post("/orders", {"internal_number": "A-1", "items": mug_twice})
    api.post("/orders", {"internal_number": "A-2", "items": [{"item_id": "1"}]})

    api.delete("/orders/1")
    refused = api.delete("/items/1", status=409)
    api.patch("/orders/2", {"items": [{"item_id": "2"}]})
    api.delete("/items/1")
    api.delete("/items/2", status=409)
    api.patch("/orders/2", {"items": []})
    api.delete("/items/2")

    assert refused.json["error"] == "Item 1 is named by order 2"
    assert api.get("/items").json == []


def test_a_line_must_name_an_item_that_exists(api):
    api.post("/items", {"name": "Mug"})
    api.post("/orders", {"internal_number": "A"})
    before = api.everything()
    lines = [{"item_id": "1"}, {"item_id": "01"}, {}, {"item_id": "2"}]
    missing = "Item id must be the id of one of the items"
    details = {"items[1].item_id": missing, "items[3].item_id": missing}

    body = {"internal_number": "B", "items": lines}
    refused_post = api.post("/orders", body, status=400)
    refused_patch = api.patch("/orders/1", body, status=400)

    assert refused_post.json == error_with(details)
    assert refused_patch.json == error_with(details)
    assert api.everything() == before


def test_missing_items_are_reported_only_when_all_fields_are_right(api):
    body = {"internal_number": "", "items": [{"item_id": "9"}]}

    refused = api.post("/orders", body, status=400)

    assert refused.json == error_with({"internal_number": INTERNAL_NUMBER_SENTENCE})


def test_rows_and_records_cannot_be_changed():
    tables = store.read_state({"items": [{"name": "x"}]}, NOW)
    row = Store(tables).get(RESOURCES["items"], "1")

    with pytest.raises(FrozenInstanceError):
        row.json = b""
    with pytest.raises(FrozenInstanceError):
        row.record.name = ""


def test_a_record_has_an_enum_where_json_has_a_string():
    tables = store.read_state({"items": [{"name": "x", "status": "active"}]}, NOW)
    row = Store(tables).get(RESOURCES["items"], "1")

    assert row.record.status is store.ItemStatus.ACTIVE


# ----------------------------------------------------------------------
# Resources
# ----------------------------------------------------------------------


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Supplier(store.Record):
    """A third resource, whose fields have types that the others lack."""

    rating: float = field(metadata=NUMBER_RULE)
    local: bool = field(default=False, metadata=store.BOOLEAN_RULE)
    colour: Colour | None = field(
        default=None, metadata=store.nullable(store.choice_rule(Colour))
    )
    visited_at: str | None = field(
        default=None, metadata=store.nullable(store.TIME_RULE)
    )


@pytest.fixture
def register():
    """`store.register`, but what it has registered is gone after the test."""
    before = dict(RESOURCES)
    yield store.register
    RESOURCES.clear()
    RESOURCES.update(before)


@pytest.fixture
def suppliers(register):
    register("suppliers", Supplier)
    return Api()


def test_a_new_resource_is_validated(suppliers):
    body = {"rating": -2, "local": "yes", "colour": "pink", "visited_at": "today"}

    response = suppliers.post("/suppliers", body, status=400)

    assert response.json == error_with(
        {
            "rating": "Rating must be a number of at least -1",
            "local": "Local must be true or false",
            "colour": "Colour must be one of red, blue or null",
            "visited_at": f"Visited at {TIME_WANTED} or null",
        }
    )
    assert suppliers.get("/suppliers").json == []


@pytest.mark.parametrize(
    "query, ids",
    [
        ("rating_gt=1.5", ["2"]),
        ("rating=1.5&rating=3", ["1"]),
        ("rating_lt=-0.5", []),
        ("rating=0.15e1", ["1"]),
        ("local=true", ["1"]),
        ("local=false", ["2"]),
        ("local_ne=true", ["2"]),
        ("sort=-rating", ["2", "1"]),
        ("sort=local", ["2", "1"]),
        ("colour=", ["2"]),
        ("colour=red", ["1"]),
        ("colour_gt=blue", ["1"]),
        ("visited_at=2026-01-01T10:30%2B01:00", ["1"]),
        ("visited_at_lt=2026-01-02", ["1"]),
        ("visited_at=", ["2"]),
        ("sort=visited_at", ["2", "1"]),
        ("q=red", ["1"]),
        ("q=2026-01-01T09", ["1"]),
    ],
)
def test_a_new_resource_is_filtered_and_sorted(suppliers, query, ids):
    red = {"local": True, "colour": "red", "visited_at": "2026-01-01T09:30Z"}
    suppliers.post("/suppliers", {"rating": 1.5, **red})
    suppliers.post("/suppliers", {"rating": 10, "colour": None})

    assert ids_of(suppliers.get(f"/suppliers?{query}").json) == ids


def test_a_large_number_is_found_exactly(suppliers):
    suppliers.post("/suppliers", {"rating": 2**53 + 1})

    assert len(suppliers.get(f"/suppliers?rating={2**53 + 1}").json) == 1
    assert suppliers.get(f"/suppliers?rating={2**53}").json == []


def test_the_filters_of_a_new_resource_are_validated(suppliers):
    query = "rating=x&local=1&colour=pink"

    response = suppliers.get(f"/suppliers?{query}", status=400)

    assert response.json == error_with(
        {
            "rating": "Rating must be a number",
            "local": "Local must be true or false",
            "colour": "Colour must be one of red, blue or null",
        }
    )
    suppliers.get("/suppliers?local_gt=true", status=400)  # booleans have no order


def test_a_new_resource_keeps_times_in_one_form(suppliers):
    body = {"rating": 1, "visited_at": "2026-01-01t10:30:00+01:00"}

    assert suppliers.post("/suppliers", body).json["visited_at"] == NOW
    assert suppliers.put("/suppliers/1", body).json["visited_at"] == NOW
    suppliers.put("/mock/state", {"suppliers": [body]}, status=204)
    assert suppliers.get("/suppliers/1").json["visited_at"] == NOW


def test_a_new_resource_is_described_and_in_the_state(suppliers):
    row = suppliers.post("/suppliers", {"rating": 1, "colour": "red"}).json

    document = suppliers.get("/openapi.json").json

    assert "/suppliers/{id}" in document["paths"]
    properties = document["components"]["schemas"]["NewSupplier"]["properties"]
    assert properties["visited_at"]["format"] == "date-time"
    assert properties["colour"]["enum"] == ["red", "blue", None]
    assert suppliers.get("/mock/state").json["suppliers"] == [row]


def test_null_can_stand_in_a_unique_field_more_than_once(register):
    @dataclass(frozen=True, kw_only=True)
    class Shelf(store.Record):
        unique_fields = ("code",)

        code: str | None = field(
            default=None, metadata=store.nullable(store.name_rule(9))
        )

    register("shelves", Shelf)
    api = Api()

    api.post("/shelves", {})
    api.post("/shelves", {"code": None})
    api.post("/shelves", {"code": "A"})
    api.post("/shelves", {"code": "A"}, status=409)
    assert len(api.get("/shelves").json) == 3


def test_a_choice_of_integers_is_filtered_by_integers(register):
    sizes = store.make_rule("integer", "1, 2 or 3", enum=[1, 2, 3])

    @dataclass(frozen=True, kw_only=True)
    class Shirt(store.Record):
        size: int = field(metadata=sizes)

    register("shirts", Shirt)
    api = Api()
    for size in (1, 3):
        api.post("/shirts", {"size": size})

    assert [row["size"] for row in api.get("/shirts?size=1").json] == [1]
    assert [row["size"] for row in api.get("/shirts?size_gt=1").json] == [3]
    api.post("/shirts", {"size": 4}, status=400)


@dataclass(frozen=True, kw_only=True)
class Person(store.Record):
    """A resource whose rows name others of the same kind."""

    references = (Reference(field_name="boss_id", resource_name="people"),)

    boss_id: str | None = field(
        default=None, metadata=store.nullable(store.STRING_RULE)
    )


def test_a_row_can_name_another_of_its_own_kind(register):
    register("people", Person)
    api = Api()
    api.post("/people", {})
    api.post("/people", {"boss_id": "1"})

    unknown = api.post("/people", {"boss_id": "9"}, status=400)
    named = api.delete("/people/1", status=409)

    sentence = "Boss id must be the id of one of the people"
    assert unknown.json == error_with({"boss_id": sentence})
    assert named.json == error_with({"id": "Person 1 is named by person 2"})
    assert ids_of(api.get("/people").json) == ["1", "2"]


def test_a_row_that_names_only_itself_can_be_deleted(register):
    register("people", Person)
    api = Api()
    api.post("/people", {})
    api.patch("/people/1", {"boss_id": "1"})

    api.delete("/people/1")

    assert api.get("/people").json == []


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_merges_fields_and_sets_updated_at(api, example, method):
    before = api.post(example.path, example.body).json
    api.put("/mock/clock", {"now": NOW})

    response = api.request(method, f"{example.path}/1", example.change)

    assert response.json == {**before, **example.change, "updated_at": NOW}
    assert api.get(f"{example.path}/1").data == response.data


def test_an_empty_change_sets_updated_at(api, example):
    before = api.post(example.path, example.body).json
    api.put("/mock/clock", {"now": NOW})

    response = api.put(f"{example.path}/1", {})

    assert response.json == {**before, "updated_at": NOW}


def test_a_row_can_be_sent_back_as_it_was_given(api, example):
    row = api.post(example.path, example.body).json
    api.put("/mock/clock", {"now": NOW})

    response = api.put(f"{example.path}/1", row)

    assert response.json == {**row, "updated_at": NOW}


def test_an_id_and_times_that_a_client_sends_are_ignored(api, example):
    api.put("/mock/clock", {"now": NOW})
    body = {**example.body, "id": "9", "created_at": LATER, "updated_at": LATER}
    strange = {"id": ["9"], "created_at": 5, "updated_at": {"x": 1}}

    created = api.post(example.path, body).json
    changed = api.put(f"{example.path}/1", strange).json

    assert (created["id"], created["created_at"]) == ("1", NOW)
    assert created["updated_at"] is None
    assert changed == {**created, "updated_at": NOW}


# ----------------------------------------------------------------------
# Rows and tables
# ----------------------------------------------------------------------


def tag(api, path):
    """The tag of a row or a list."""
    return api.get(path).headers["ETag"]


TAGGED = ["/items", "/items/1", "/items?page=1", "/orders", "/orders/1"]


@pytest.mark.parametrize("path", TAGGED)
def test_the_same_content_has_the_same_tag(demo, path):
    another_app = Api(seed="demo")

    assert tag(demo, path) == tag(another_app, path)
    assert tag(demo, path) == tag(demo.in_session("another"), path)
    # In double quotes, as every tag is.
    assert re.fullmatch('"[^"]+"', tag(demo, path))


def test_other_content_has_another_tag(demo):
    demo.put("/mock/clock", {"now": NOW})
    contents = {}

    for quantity in range(1, 4):
        demo.put("/items/1", {"quantity": quantity})
        for path in (*TAGGED, "/items/2", "/items?q=mug", "/items?sort=-id"):
            response = demo.get(path)
            contents.setdefault(response.headers["ETag"], set()).add(response.data)

    # The three contents of each: list, page, search, sorted list and row 1; and one
    # each of item 2, the orders and order 1.
    assert len(contents) == 5 * 3 + 3
    assert {len(its_contents) for its_contents in contents.values()} == {1}


def test_a_change_gives_new_tags_to_the_row_and_its_list_only(api, example):
    api.post(example.path, example.body)
    created = api.post(example.path, example.other_body)
    lists = [f"/{name}" for name in RESOURCES]
    paths = [*lists, f"{example.path}/1", f"{example.path}/2"]
    before = {path: tag(api, path) for path in paths}

    written = api.patch(f"{example.path}/1", example.change)

    after = {path: tag(api, path) for path in paths}
    changed = [path for path in paths if before[path] != after[path]]
    assert changed == [example.path, f"{example.path}/1"]
    assert written.headers["ETag"] == after[f"{example.path}/1"]
    assert created.headers["ETag"] == after[f"{example.path}/2"]


def test_a_change_that_changes_nothing_keeps_the_tag(api, example):
    api.put("/mock/clock", {"now": NOW})
    api.post(example.path, example.body)
    changed = api.patch(f"{example.path}/1", example.change)

    unchanged = api.patch(f"{example.path}/1", example.change)

    assert unchanged.headers["ETag"] == changed.headers["ETag"]


@pytest.mark.parametrize(
    "ids, following",
    [
        ([], "1"),
        (["a"], "1"),
        (["7", None], "9"),  # 8 is the id of the second item
        (["007"], "8"),
        (["3", "x4", "2"], "4"),
        (["2", None, "1", "4"], "6"),  # 5 is the id of the second item
        # A number of more than 15 digits is a name, such as a time in nanoseconds.
        (["9" * 15], "1" + "0" * 15),
        (["9" * 16], "1"),
        (["9" * 64, None], "2"),
        (["5", "1" + "0" * 15], "6"),
        # The first number after the largest one that no row has.
        (["9" * 15, "1" + "0" * 15], "1" + "0" * 14 + "1"),
    ],
)
def test_the_next_id_follows_the_largest_number(api, ids, following):
    items = [{"name": "x", "id": id} for id in ids]
    api.put("/mock/state", {"items": items}, status=204)

    created = api.post("/items", {"name": "x"})

    assert created.json["id"] == following
    assert api.get(f"/items/{following}").json == created.json


# ----------------------------------------------------------------------
# Whole states
# ----------------------------------------------------------------------


def test_a_state_replaces_all_rows(demo):
    state = {
        "orders": [{"id": "O", "internal_number": "A", "items": [{"item_id": "X"}]}],
        "items": [{"name": "a"}, {"name": "b", "id": "X"}],
    }

    response = demo.put("/mock/state", state, status=204)

    assert response.data == b""
    assert [row["name"] for row in demo.get("/items").json] == ["a", "b"]
    assert [row["internal_number"] for row in demo.get("/orders").json] == ["A"]
    # Later writes see what ties the new rows to each other.
    refused = demo.delete("/items/X", status=409)
    assert refused.json["error"] == "Item X is named by order O"
    demo.post("/orders", {"internal_number": "A"}, status=409)


def test_what_the_rows_of_a_state_lack_is_filled_in(api):
    api.put("/mock/clock", {"now": NOW})
    items = [
        {"name": "without id"},
        {"name": "with an id", "id": "7", "created_at": None, "updated_at": None},
        {"name": "with times", "id": "x", "created_at": LATER, "updated_at": LATER},
    ]

    api.put("/mock/state", {"items": items}, status=204)

    rows = api.get("/items").json
    assert ids_of(rows) == ["8", "7", "x"]
    assert [row["created_at"] for row in rows] == [NOW, NOW, LATER]
    assert [row["updated_at"] for row in rows] == [None, None, LATER]
    assert [row["status"] for row in rows] == ["pending", "pending", "pending"]


def test_a_new_state_leaves_clock_faults_and_journal_as_they_are(demo):
    demo.put("/mock/clock", {"now": NOW})
    demo.post("/mock/faults", {"path": "/x", "status": 500})
    demo.get("/items")
    before = demo.get("/mock").json

    demo.put("/mock/state", {}, status=204)

    after = demo.get("/mock").json
    assert (after["clock"], after["faults"]) == (before["clock"], before["faults"])
    # Requests to the controls are not recorded.
    assert len(demo.get("/mock/requests").json) == 1


def test_a_missing_array_of_a_state_is_an_empty_one(demo):
    demo.put("/mock/state", {"items": [{"name": "only"}]}, status=204)
    assert demo.get("/mock/state").json["orders"] == []

    demo.put("/mock/state", {}, status=204)
    assert demo.get("/mock/state").json == {name: [] for name in RESOURCES}


def test_a_state_can_be_put_back_as_it_was_read(demo):
    before = demo.get("/mock/state")
    demo.delete("/orders/1")

    demo.put("/mock/state", before.data, status=204)

    assert demo.get("/mock/state").data == before.data


ROW_ID_WANTED = (
    "Id must be a string of 1 to 64 of the characters A-Z a-z 0-9 . _ -,"
    " but not . or .. or null"
)

WRONG_STATES = {
    "every row is looked at": (
        {
            "items": [
                {"name": "a", "id": "1"},
                {"id": ".."},
                5,
                {"name": "e", "id": 1},
                {"name": "d", "created_at": "2026-02-30T00:00:00.000Z", "x": 1},
            ],
            "orders": [{"internal_number": "A", "items": [{"item_id": 1}]}],
            "customers": [],
        },
        {
            "items[1].id": ROW_ID_WANTED,
            "items[1].name": "Name is required",
            "items[2]": "Items[2] must be an object",
            "items[3].id": ROW_ID_WANTED,
            "items[4].created_at": f"Created at {TIME_WANTED} or null",
            "items[4].x": f"x is not known here; allowed are {ITEM_FIELDS}",
            "orders[0].items[0].item_id": "Item id must be a string",
            "customers": "customers is not known here; allowed are "
            + ", ".join(RESOURCES),
        },
    ),
    "rows are looked at together": (
        {
            "items": [
                {"name": "a"},
                {"name": "b", "id": "1"},
                {"name": "c", "id": "1"},
            ],
            "orders": [
                {
                    "internal_number": "A",
                    "items": [{"item_id": "2"}, {"item_id": "99"}],
                },
                {"internal_number": "A", "id": "1"},
                {"internal_number": "B", "id": "2"},
            ],
        },
        {
            "items[2].id": "Id 1 is taken",
            "orders[0].items[1].item_id": "Item id must be the id of one of the items",
            "orders[1].internal_number": "Internal number A is taken",
        },
    ),
    "an array is needed": (
        {"items": 5, "orders": None},
        {"items": "Items must be an array", "orders": "Orders must be an array"},
    ),
    "an integer is needed": (
        {"items": [{"name": "x", "quantity": 3.5}]},
        {"items[0].quantity": QUANTITY_SENTENCE},
    ),
}


@pytest.mark.parametrize("name", WRONG_STATES)
def test_a_wrong_state_is_refused_by_place_and_changes_nothing(demo, name):
    state, details = WRONG_STATES[name]
    before = demo.everything()

    response = demo.put("/mock/state", state, status=400)

    assert response.json == error_with(details)
    assert list(response.json["details"]) == list(details)
    assert demo.everything() == before


@pytest.mark.parametrize("id", ["", ".", "..", "a b", "a/b", "ä", "x" * 65, "x\n", 5])
def test_a_row_of_a_state_cannot_have_such_an_id(demo, id):
    before = demo.everything()

    state = {"items": [{"name": "x", "id": id}]}
    response = demo.put("/mock/state", state, status=400)

    assert response.json == error_with({"items[0].id": ROW_ID_WANTED})
    assert demo.everything() == before


@pytest.mark.parametrize("id", ["...", ".x", "-", "A.z_0-9", "x" * 64])
def test_a_row_of_a_state_can_have_such_an_id(api, id):
    api.put("/mock/state", {"items": [{"name": "x", "id": id}]}, status=204)

    assert api.get(f"/items/{id}").json["name"] == "x"


# ----------------------------------------------------------------------
# The store
#
# Each of these runs many threads, and is named by what would go wrong without the lock.
# Two guard other promises, and hold without it: no state is seen half replaced, because
# it is put in by one assignment, and no store changes the seed of another, because it
# has its own copy.
# ----------------------------------------------------------------------


def new_store(size=0):
    """A store with so many items."""
    return Store(store.read_state({"items": [{"name": "x"}] * size}, NOW))


def create(shared, name, body):
    """The id of a new row, or None if the store refused it."""
    with suppress(store.StoreError):
        return shared.create(RESOURCES[name], body, NOW).record.id


def update(shared, id, body, tags=None):
    """Whether an item could be changed."""
    with suppress(store.StoreError):
        shared.update(RESOURCES["items"], id, body, NOW, tags)
        return True
    return False


def delete(shared, id):
    """Delete an item if the store allows it."""
    with suppress(store.StoreError):
        shared.delete(RESOURCES["items"], id)


def items_of(shared):
    return [row.record for row in shared.rows(RESOURCES["items"])]


def test_no_id_is_given_twice_and_no_row_is_lost():
    shared = new_store()

    def create_items(thread):
        return [create(shared, "items", {"name": "x"}) for _ in range(10)]

    ids = sum(all_at_once(create_items), [])
    assert sorted(ids, key=int) == [str(number) for number in range(1, 81)]
    assert len(items_of(shared)) == 80


def test_no_internal_number_is_given_twice():
    shared = new_store()

    def create_orders(thread):
        bodies = [{"internal_number": str(number)} for number in range(10)]
        return [create(shared, "orders", body) for body in bodies]

    ids = sum(all_at_once(create_orders), [])
    assert len([id for id in ids if id is not None]) == 10


def test_no_update_is_lost_to_another_with_the_same_tag():
    shared = new_store(10)
    tags = {row.record.id: row.tag for row in shared.rows(RESOURCES["items"])}

    def change(thread):
        body = {"quantity": thread + 1}
        return sum(update(shared, id, body, {tag}) for id, tag in tags.items())

    assert sum(all_at_once(change)) == 10


def test_no_field_is_lost_that_another_thread_has_changed():
    shared = new_store(10)

    def change(thread):
        body = {"quantity": 5} if thread % 2 else {"description": "changed"}
        for number in range(1, 11):
            update(shared, str(number), body)

    all_at_once(change)
    for item in items_of(shared):
        assert (item.quantity, item.description) == (5, "changed")


def test_no_deleted_row_comes_back_by_a_change():
    shared = new_store(10)

    def delete_or_change(thread):
        for number in range(1, 11):
            if thread % 4 == 0:
                delete(shared, str(number))
            else:
                update(shared, str(number), {"quantity": 1})

    all_at_once(delete_or_change)
    assert items_of(shared) == []


def test_no_item_is_deleted_under_an_order():
    shared = new_store(10)

    def order_or_delete(thread):
        for id in range(1, 11):
            lines = [{"item_id": str(id)}]
            if thread % 2:
                delete(shared, str(id))
            else:
                body = {"internal_number": f"{id}-{thread}", "items": lines}
                create(shared, "orders", body)

    all_at_once(order_or_delete)
    # Whoever came first, each item was either deleted or ordered, and never both.
    orders = shared.rows(RESOURCES["orders"])
    ordered = {row.record.items[0]["item_id"] for row in orders}
    assert ordered == {item.id for item in items_of(shared)}


def test_no_reader_sees_an_order_without_its_item():
    shared = new_store()

    def write_or_read(thread):
        if thread % 2:
            for number in range(200):
                id = create(shared, "items", {"name": "x"})
                body = {"internal_number": f"{thread}-{number}"}
                create(shared, "orders", {**body, "items": [{"item_id": id}]})
        for _ in range(100):
            state = shared.state()
            ids = {row.record.id for row in state["items"]}
            for row in state["orders"]:
                assert row.record.items[0]["item_id"] in ids

    all_at_once(write_or_read, threads=6, fast=(1, 3, 5))


def test_no_order_of_the_old_state_comes_into_the_new_one():
    shared = new_store()
    full = {"items": [{"name": "x"}]}

    def replace_or_order(thread):
        for turn in range(120):
            if thread % 2:
                shared.replace_state(full if turn % 2 else {}, NOW)
            else:
                lines = [{"item_id": "1"}]
                body = {"internal_number": f"{thread}-{turn}", "items": lines}
                create(shared, "orders", body)
            state = shared.state()
            assert state["items"] or not state["orders"]

    all_at_once(replace_or_order)


def test_no_reader_sees_a_state_half_replaced():
    shared = new_store()
    full = {"items": [{"name": "x"}], "orders": [{"internal_number": "A"}]}

    def replace_or_read(thread):
        for turn in range(400 if thread % 2 else 25):
            if thread % 4 < 2:
                shared.replace_state(full if turn % 2 else {}, NOW)
            state = shared.state()
            assert len(state["items"]) == len(state["orders"])

    all_at_once(replace_or_read, fast=(1, 3, 5, 7))


def test_no_store_changes_the_seed_of_another():
    seed = store.read_state({"items": [{"name": "seed"}]}, NOW)
    stores = [Store(seed) for _ in range(8)]

    def change(thread):
        for _ in range(10):
            update(stores[thread], "1", {"name": str(thread)})
            create(stores[thread], "items", {"name": "new"})

    all_at_once(change)
    for thread, changed in enumerate(stores):
        names = [item.name for item in items_of(changed)]
        assert names == [str(thread)] + ["new"] * 10
    assert [item.name for item in items_of(Store(seed))] == ["seed"]


# ----------------------------------------------------------------------
# Lists
# ----------------------------------------------------------------------


CHANGED = "2026-02-01T00:00:00.000Z"


SHELF = [
    {"id": "1", "name": "Mug", "quantity": 5, "status": "active"},
    {"id": "2", "name": "Pot", "quantity": 0, "status": "pending"},
    {
        "id": "3",
        "name": "Jug",
        "quantity": 7,
        "status": "active",
        "updated_at": CHANGED,
    },
    {"id": "9", "name": "mat", "quantity": 5, "status": "completed"},
    {
        "id": "10",
        "name": "Tray",
        "quantity": 2,
        "status": "pending",
        "description": "Große Straße",
    },
    {
        "id": "11",
        "name": "Tin",
        "quantity": 9,
        "status": "active",
        "description": "a.*b",
    },
]


ALL_IDS = ["1", "2", "3", "9", "10", "11"]


@pytest.fixture
def shelf(api):
    """A client in a session that has the six items of SHELF."""
    api.put("/mock/state", {"items": SHELF}, status=204)
    return api


FILTERS = [
    ("", ALL_IDS),
    ("_=123", ALL_IDS),  # ignored: clients add it so that no cache answers
    ("status=pending", ["2", "10"]),
    ("id=10", ["10"]),
    ("id=010", []),
    ("name=M", []),
    ("description=", ["1", "2", "3", "9"]),
    # Of several values of a field, any will do.
    ("quantity=5&quantity=9", ["1", "9", "11"]),
    # With _ne a row must differ from each value.
    ("quantity_ne=5&quantity_ne=0", ["3", "10", "11"]),
    # In a field that can be null, an empty text stands for null.
    ("updated_at=", ["1", "2", "9", "10", "11"]),
    (f"updated_at=&updated_at={CHANGED}", ALL_IDS),
    ("updated_at_ne=", ["3"]),
    (f"updated_at_ne={CHANGED}", ["1", "2", "9", "10", "11"]),
    # _gt and the like must hold for each value that is given.
    ("quantity_gt=7", ["11"]),
    ("quantity_gte=5&quantity_gte=7", ["3", "11"]),
    ("quantity_lt=2", ["2"]),
    ("quantity_lte=2&quantity_lte=7", ["2", "10"]),
    ("quantity_gte=-1&quantity_lt=0", []),
    (f"quantity_lt={10**30}&quantity_gt=7", ["11"]),
    # Texts are compared by code points, ids by their length first.
    ("name_gt=Tin", ["9", "10"]),
    ("status_gt=active", ["2", "9", "10"]),
    ("id_gt=9", ["10", "11"]),
    ("id_gte=10", ["10", "11"]),
    ("id_lt=3", ["1", "2"]),
    ("id_lte=2", ["1", "2"]),
    # Null is neither larger nor smaller than anything, and contains nothing.
    ("updated_at_gt=2000-01-01", ["3"]),
    ("updated_at_lt=3000-01-01", ["3"]),
    ("updated_at_like=", ["3"]),
    # Times are compared as moments, in whatever form they come. A date alone is its
    # beginning in UTC. _like looks at the text that is answered.
    ("updated_at=2026-02-01T01:00:00%2B01:00", ["3"]),
    ("updated_at=2026-02-01", ["3"]),
    ("updated_at_ne=2026-02-01&updated_at_ne=", []),
    ("updated_at_gte=2026-02-01", ["3"]),
    ("updated_at_gt=2026-02-01", []),
    ("updated_at_gt=2026-01-31T23:59:59.999Z", ["3"]),
    ("updated_at_lt=2026-02-01T00:00:00%2B00:30", []),
    ("updated_at_lt=2026-02-01T00:00:00-00:30", ["3"]),
    ("updated_at_like=02-01t00:00:00.000z", ["3"]),
    ("updated_at_like=%2B01:00", []),
    # A part of a text, in capitals or not; never a pattern.
    ("name_like=M", ["1", "9"]),
    ("name_like=t&name_like=a", ["9", "10"]),
    ("status_like=PEND", ["2", "10"]),
    ("description_like=.*", ["11"]),
    # A search looks into all texts that a client may write.
    ("q=STRASSE", ["10"]),
    ("q=Stra%C3%9Fe", ["10"]),
    ("q=pend", ["2", "10"]),
    ("q=g&q=act", ["1", "3"]),
    ("q=2026", []),
]


SORTS = [
    ("sort=-id", ["11", "10", "9", "3", "2", "1"]),
    ("sort=name", ["3", "1", "2", "11", "10", "9"]),
    # Rows that compare equal stay in the order of creation.
    ("sort=quantity", ["2", "10", "1", "9", "3", "11"]),
    ("sort=-quantity", ["11", "3", "1", "9", "10", "2"]),
    ("sort=-status,-quantity", ["10", "2", "9", "11", "3", "1"]),
    # A field that is named again has no effect.
    ("sort=-quantity,quantity", ["11", "3", "1", "9", "10", "2"]),
    ("sort=status,-quantity,-status", ["11", "3", "1", "9", "10", "2"]),
    ("sort=" + ",".join(["name", "-id"] * 500), ["3", "1", "2", "11", "10", "9"]),
    # Null comes before everything.
    ("sort=updated_at", ["1", "2", "9", "10", "11", "3"]),
    ("sort=-updated_at", ["3", "1", "2", "9", "10", "11"]),
    # The last one counts.
    ("sort=name&sort=-id&id_gt=9", ["11", "10"]),
    ("status=active&quantity_gt=5&sort=-id", ["11", "3"]),
]


@pytest.mark.parametrize("query, ids", FILTERS + SORTS, ids=short)
def test_a_list_is_filtered_sorted_and_counted(shelf, query, ids):
    response = shelf.get(f"/items?{query}")

    assert ids_of(response.json) == ids
    assert response.headers["X-Total-Count"] == str(len(ids))
    assert "Link" not in response.headers


@pytest.mark.parametrize(
    "query, page, per_page, total, ids",
    [
        ("page=1", 1, 10, 6, ALL_IDS),
        ("per_page=1000", 1, 1000, 6, ALL_IDS),
        ("per_page=4&page=1", 1, 4, 6, ["1", "2", "3", "9"]),
        ("per_page=4&page=2", 2, 4, 6, ["10", "11"]),
        ("per_page=4&page=99", 99, 4, 6, []),
        (f"page={10**30}", 10**30, 10, 6, []),
        # The last value of each counts.
        ("per_page=0&per_page=4&page=x&page=2", 2, 4, 6, ["10", "11"]),
        ("per_page=2&status=active&sort=-id", 1, 2, 3, ["11", "3"]),
    ],
)
def test_a_page_comes_in_an_envelope(shelf, query, page, per_page, total, ids):
    response = shelf.get(f"/items?{query}")

    envelope = response.json
    assert list(envelope) == ["data", "total", "page", "per_page"]
    assert (envelope["page"], envelope["per_page"]) == (page, per_page)
    assert envelope["total"] == total
    assert response.headers["X-Total-Count"] == str(total)
    assert ids_of(envelope["data"]) == ids


def links_of(response):
    """The paths in the header Link by their names: first, prev, next, last."""
    links = {}
    for path, name in re.findall(r'<(.*?)>; rel="(\w+)"', response.headers["Link"]):
        links[name] = path
    return links


@pytest.mark.parametrize(
    "query, pages",
    [
        ("per_page=6", {"first": 1, "last": 1}),
        ("per_page=4", {"first": 1, "next": 2, "last": 2}),
        ("per_page=2&page=2", {"first": 1, "prev": 1, "next": 3, "last": 3}),
        ("per_page=4&page=2", {"first": 1, "prev": 1, "last": 2}),
        ("per_page=2&page=99", {"first": 1, "prev": 3, "last": 3}),
        (f"per_page=4&page={10**30}", {"first": 1, "prev": 2, "last": 2}),
        ("per_page=5&id=99", {"first": 1, "last": 1}),
    ],
)
def test_a_page_has_links_to_the_others(shelf, query, pages):
    links = links_of(shelf.get(f"/items?{query}"))

    numbers = {}
    for name, path in links.items():
        numbers[name] = int(re.search(r"[?&]page=(\d+)", path)[1])
    assert numbers == pages


def test_a_link_keeps_the_query(shelf):
    response = shelf.get("/items?page=1&per_page=4&name_like=%26&name_like=a&_=5")

    first = "/api/v1/items?page=1&per_page=4&name_like=%26&name_like=a&_=5"
    assert response.headers["Link"] == f'<{first}>; rel="first", <{first}>; rel="last"'


def test_a_link_keeps_a_parameter_with_any_name(register):
    # `endpoint` would mean something to Flask's `url_for`.
    route_class = make_dataclass(
        "Route",
        [("endpoint", str, field(metadata=store.STRING_RULE))],
        bases=(store.Record,),
        frozen=True,
        kw_only=True,
    )
    register("routes", route_class)

    links = links_of(Api().get("/routes?endpoint=x&page=1"))

    assert links["first"] == "/api/v1/routes?endpoint=x&page=1"


def test_a_link_that_is_too_long_for_clients_is_left_out(demo):
    # The links to the first page, the one before and the last one have the name each.
    name = "x" * 1309
    longest = demo.get(f"/items?name_ne={name}&per_page=1&page=12")
    longer = demo.get(f"/items?name_ne={name}x&per_page=1&page=12")

    assert len(longest.headers["Link"]) == 4096
    assert "Link" not in longer.headers
    assert longer.headers["X-Total-Count"] == "12"
    assert longer.json == longest.json


def test_a_link_leads_to_its_page(shelf):
    links = links_of(shelf.get("/items?per_page=4&sort=-id"))

    response = shelf.get(links["next"].removeprefix("/api/v1"))

    assert ids_of(response.json["data"]) == ["2", "1"]


SORT_SENTENCE = (
    f"Sort must be a comma-separated list of {ITEM_FIELDS}; - before one descends"
)

WRONG_QUERIES = [
    ("quantity=abc", {"quantity": "Quantity must be an integer"}),
    ("quantity=1&quantity=1.0", {"quantity": "Quantity must be an integer"}),
    ("quantity=%D9%A1", {"quantity": "Quantity must be an integer"}),  # Arabic 1
    ("quantity=3.0", {"quantity": "Quantity must be an integer"}),
    ("quantity=%2B3", {"quantity": "Quantity must be an integer"}),
    ("quantity_gt=", {"quantity_gt": "Quantity gt must be an integer"}),
    ("quantity=" + "9" * 1001, {"quantity": "Quantity must be an integer"}),
    ("quantity=" + "9" * 5000, {"quantity": "Quantity must be an integer"}),
    ("status=bogus", {"status": STATUS_SENTENCE}),
    ("sort=size", {"sort": SORT_SENTENCE}),
    ("sort=id,,name", {"sort": SORT_SENTENCE}),
    ("sort=id,--name", {"sort": SORT_SENTENCE}),
    ("page=0", {"page": "Page must be an integer of at least 1"}),
    ("per_page=0", {"per_page": "Per page must be an integer from 1 to 1000"}),
    ("per_page=1001", {"per_page": "Per page must be an integer from 1 to 1000"}),
    ("page=1&page=x", {"page": "Page must be an integer of at least 1"}),
    ("updated_at_gt=", {"updated_at_gt": f"Updated at gt {QUERY_TIME_WANTED}"}),
    ("updated_at=now", {"updated_at": f"Updated at {QUERY_TIME_WANTED} or null"}),
]


@pytest.mark.parametrize("query, details", WRONG_QUERIES, ids=short)
def test_a_wrong_parameter_is_refused_by_its_name(shelf, query, details):
    response = shelf.get(f"/items?{query}", status=400)

    assert response.json == error_with(details)


@pytest.mark.parametrize(
    "name",
    [
        "statuss",
        "_sort",  # as json-server has it
        "_page",
        "_limit",
        "_embed",
        "_dealy",  # _delay, mistyped
        "items",
        "quantity_like",
        "__",
    ],
)
def test_an_unknown_parameter_is_refused_with_the_known_ones(shelf, name):
    response = shelf.get(f"/items?{name}=x", status=400)

    known = (
        f"{name} is not known here; allowed are sort, page, per_page, q, id, id_ne, "
    )
    assert response.json["error"].startswith(known)
    assert list(response.json["details"]) == [name]


def test_all_wrong_parameters_are_reported_at_once(shelf):
    response = shelf.get("/items?page=x&per_page=0&z=1&quantity=1&sort=", status=400)

    assert list(response.json["details"]) == ["page", "per_page", "z", "sort"]
    assert response.json["error"] == response.json["details"]["page"]


def test_the_lines_of_an_order_can_be_neither_filtered_nor_sorted_by(api):
    api.get("/orders?items=1", status=400)
    api.get("/orders?sort=items", status=400)


# ----------------------------------------------------------------------
# What there is
# ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "default, rule, sentence",
    [
        (None, store.TIME_RULE, "breaks its rule: X must be a time with its zone"),
        (-1, store.integer_rule(0), "breaks its rule: X must be an integer from 0"),
        (datetime(2026, 1, 1), store.TIME_RULE, "breaks its rule"),
        ("2026-01-01T09:30Z", store.TIME_RULE, f"must be written '{NOW}'"),
    ],
)
def test_a_default_that_breaks_its_rule_cannot_be_registered(default, rule, sentence):
    thing = make_dataclass(
        "Thing",
        [("x", object, field(default=default, metadata=rule))],
        bases=(store.Record,),
        frozen=True,
        kw_only=True,
    )

    with pytest.raises(ValueError, match=f"the default of x {sentence}"):
        store.Resource("things", thing)


def test_an_enum_with_other_choices_than_its_rule_cannot_be_registered():
    @dataclass(frozen=True, kw_only=True)
    class Paint(store.Record):
        colour: Colour = field(metadata=store.choice_rule(["red", "green"]))

    with pytest.raises(ValueError, match="colour must have a choice_rule of its enum"):
        store.Resource("paints", Paint)


def test_a_read_only_field_without_a_default_cannot_be_registered(register):
    @dataclass(frozen=True, kw_only=True)
    class Part(store.Record):
        code: str = field(metadata={**store.STRING_RULE, **store.READ_ONLY})

    with pytest.raises(ValueError, match="code is read-only, so it must have a def"):
        register("parts", Part)
    assert "parts" not in RESOURCES


def test_two_classes_of_one_name_cannot_be_registered(register):
    @dataclass(frozen=True, kw_only=True)
    class Item(store.Record):
        size: int = field(default=0, metadata=store.INTEGER_RULE)

    with pytest.raises(ValueError, match="another class must not be called Item"):
        register("things", Item)
    assert "things" not in RESOURCES


def test_a_field_without_a_rule_cannot_be_registered(register):
    @dataclass(frozen=True, kw_only=True)
    class Note(store.Record):
        text: str = ""

    with pytest.raises(ValueError, match="text has no rule in its metadata"):
        register("notes", Note)
    assert "notes" not in RESOURCES


def box_with(name, rule):
    """A class of records with the fields `size` and another one."""
    return make_dataclass(
        "Box",
        [
            ("size", int, field(default=0, metadata=store.INTEGER_RULE)),
            (name, int, field(default=0, metadata=rule)),
        ],
        bases=(store.Record,),
        frozen=True,
        kw_only=True,
    )


@pytest.mark.parametrize(
    "name", ["page", "per_page", "sort", "q", "size_gt", "_delay", "references"]
)
def test_a_field_cannot_have_a_name_that_the_service_uses(register, name):
    with pytest.raises(ValueError, match=f"a field must not be called {name}"):
        register("boxes", box_with(name, store.INTEGER_RULE))
    assert "boxes" not in RESOURCES


def test_a_field_must_have_one_type(register):
    rule = {"type": ["string", "integer"], "description": "either"}

    with pytest.raises(ValueError, match="code must have one type, or one and null"):
        register("boxes", box_with("code", rule))


def test_a_class_that_is_no_dataclass_cannot_be_registered(register):
    class Box(store.Record):
        size: int = field(metadata=store.INTEGER_RULE)

    with pytest.raises(ValueError, match="Box has no @dataclass above it"):
        register("boxes", Box)


@pytest.mark.parametrize(
    "name",
    ["mock", "health", "", "Suppliers", "a/b", "<id>", "openapi.json", "1", "a\n"],
)
def test_a_name_that_cannot_be_a_part_of_a_path_cannot_be_registered(register, name):
    with pytest.raises(ValueError, match="a resource must be called by a-z") as refusal:
        register(name, Supplier)

    assert repr(name) in str(refusal.value)
    assert name not in RESOURCES


@pytest.mark.parametrize("name", ["x", "spare-parts", "spare_parts2"])
def test_a_name_that_can_be_a_part_of_a_path_can_be_registered(register, name):
    register(name, Supplier)

    assert Api().get(f"/{name}").json == []


@dataclass(frozen=True, kw_only=True)
class Box(store.Record):
    item_id: str = field(default="1", metadata=store.STRING_RULE)
    size: int = field(default=0, metadata=store.INTEGER_RULE)
    lines: list = field(
        default_factory=list, metadata=store.array_rule(store.ORDER_LINE)
    )


@pytest.mark.parametrize("name", ["itm_id", "lines", "created_at", "page", ""])
def test_a_unique_field_must_be_one_that_clients_send_and_no_array(register, name):
    class Wrong(Box):
        unique_fields = (name,)

    with pytest.raises(ValueError, match=f"boxes has '{name}': no such field"):
        register("boxes", Wrong)
    assert "boxes" not in RESOURCES


@pytest.mark.parametrize(
    "array, name, target, wrong",
    [
        ("", "item_id", "itms", "'itms'"),
        ("", "itm_id", "items", "'itm_id'"),
        ("", "size", "items", "'size'"),
        ("", "lines", "items", "'lines'"),
        ("lines", "id", "items", "'lines[0].id'"),
        ("lins", "item_id", "items", "'lins[0].item_id'"),
        ("size", "item_id", "items", "'size[0].item_id'"),
    ],
)
def test_a_reference_to_no_resource_or_by_no_text_cannot_be_registered(
    register, array, name, target, wrong
):
    class Wrong(Box):
        references = (
            Reference(array_name=array, field_name=name, resource_name=target),
        )

    with pytest.raises(ValueError, match="boxes") as refusal:
        register("boxes", Wrong)

    assert wrong in str(refusal.value)
    assert "boxes" not in RESOURCES


# ----------------------------------------------------------------------
# Faults
#
# Which faults there can be. What they do to requests is tested under Arrival.
# ----------------------------------------------------------------------


FAULT_DEFAULTS = {
    "method": "*",
    "times": 1,
    "delay": 0,
    "hold": False,
    "status": None,
    "retry_after": None,
    "drop": False,
    "after": False,
}


@pytest.mark.parametrize(
    "given",
    [
        {"status": 503},
        {"delay": 30_000},
        {"hold": True, "times": None},
        {"drop": True, "after": True, "method": "POST"},
        {"status": 400, "retry_after": 0},
        {"status": 599, "retry_after": 86_400, "times": MAX_INTEGER},
        {"delay": 1, "status": None},
    ],
)
def test_a_new_fault_is_answered_with_every_field(api, given):
    response = api.post("/mock/faults", {"path": "/x", **given})

    expected = {"id": "1", "path": "/x", **FAULT_DEFAULTS, **given, "held": 0}
    assert list(response.json.items()) == list(expected.items())
    assert api.get("/mock/faults").json == [response.json]


@pytest.mark.parametrize("path", ["/", "*", "?items", "[/]items", "/" + "x" * 999])
def test_the_pattern_of_a_fault_begins_with_what_can_be_a_slash(api, path):
    assert api.post("/mock/faults", {"path": path, "status": 503}).json["path"] == path


FAULT_PATH_SENTENCE = (
    "Path must be a pattern of at most 1000 characters that begins with one of / * ? ["
)
FAULT_METHOD_SENTENCE = "Method must be one of *, GET, HEAD, POST, PUT, PATCH, DELETE"
FAULT_STATUS_SENTENCE = "Status must be an integer from 400 to 599 or null"
FAULT_TIMES_SENTENCE = f"Times must be an integer from 1 to {MAX_INTEGER} or null"
FAULT_DELAY_SENTENCE = "Delay must be an integer from 0 to 30000"
RETRY_AFTER_SENTENCE = "Retry after must be an integer from 0 to 86400 or null"
NO_EFFECT_SENTENCE = "Status is required where there is no delay, hold or drop"
AFTER_SENTENCE = "After must be false where nothing fails; add a status or drop"
NO_STATUS_SENTENCE = "Retry after must be null where there is no status"

WRONG_FAULTS = [
    ({"status": 503}, {"path": "Path is required"}),
    ({"path": "items", "status": 503}, {"path": FAULT_PATH_SENTENCE}),
    ({"path": "", "status": 503}, {"path": FAULT_PATH_SENTENCE}),
    ({"path": "/" * 1001, "status": 503}, {"path": FAULT_PATH_SENTENCE}),
    ({"path": "*", "method": "post", "status": 503}, {"method": FAULT_METHOD_SENTENCE}),
    ({"path": "*", "status": 399}, {"status": FAULT_STATUS_SENTENCE}),
    ({"path": "*", "status": 600}, {"status": FAULT_STATUS_SENTENCE}),
    ({"path": "*", "status": 503.5}, {"status": FAULT_STATUS_SENTENCE}),
    ({"path": "*", "status": 503, "times": 0}, {"times": FAULT_TIMES_SENTENCE}),
    ({"path": "*", "delay": 30_001}, {"delay": FAULT_DELAY_SENTENCE}),
    ({"path": "*", "delay": -1}, {"delay": FAULT_DELAY_SENTENCE}),
    ({"path": "*", "hold": 1}, {"hold": "Hold must be true or false"}),
    (
        {"path": "*", "status": 429, "retry_after": -1},
        {"retry_after": RETRY_AFTER_SENTENCE},
    ),
    (
        {"path": "*", "status": 429, "retry_after": 86_401},
        {"retry_after": RETRY_AFTER_SENTENCE},
    ),
    (
        {"path": "*", "drop": None, "after": "x"},
        {"drop": "Drop must be true or false", "after": "After must be true or false"},
    ),
    ({"path": "*", "delay": 5, "after": True}, {"after": AFTER_SENTENCE}),
    ({"path": "*", "hold": True, "after": True}, {"after": AFTER_SENTENCE}),
    (
        {"path": "*", "drop": True, "retry_after": 5},
        {"retry_after": NO_STATUS_SENTENCE},
    ),
    (
        {"path": "*", "hold": True, "retry_after": 0},
        {"retry_after": NO_STATUS_SENTENCE},
    ),
    ({"path": "*"}, {"status": NO_EFFECT_SENTENCE}),
    (
        {"path": "*", "retry_after": 5, "after": True},
        {
            "after": AFTER_SENTENCE,
            "retry_after": NO_STATUS_SENTENCE,
            "status": NO_EFFECT_SENTENCE,
        },
    ),
    (
        {"path": "*", "status": 500, "x": 1},
        {
            "x": "x is not known here; allowed are id, path, method, times, delay,"
            " hold, status, retry_after, drop, after, held"
        },
    ),
]


@pytest.mark.parametrize("body, details", WRONG_FAULTS, ids=short)
def test_a_wrong_fault_is_refused_and_not_added(demo, body, details):
    demo.post("/mock/faults", {"path": "/kept", "status": 500})
    before = demo.everything()

    response = demo.post("/mock/faults", body, status=400)

    assert response.json == error_with(details)
    assert demo.everything() == before
    assert demo.get("/mock/requests").json == []
    assert demo.post("/mock/faults", {"path": "/x", "status": 500}).json["id"] == "2"


def test_a_listed_fault_can_be_sent_again(api):
    api.post("/mock/faults", {"path": "/x", "status": 500})
    listed = api.get("/mock/faults").json[0]

    again = api.post("/mock/faults", {**listed, "held": "any", "id": None}).json

    assert again == {**listed, "id": "2"}
    assert api.get("/mock/faults").json == [listed, again]


def test_a_fault_makes_the_next_requests_fail_and_is_gone(demo):
    demo.post(
        "/mock/faults", {"path": "/orders", "method": "POST", "status": 503, "times": 2}
    )
    order = {"internal_number": "A"}

    first = demo.post("/orders", order, status=503)
    assert demo.get("/mock/faults").json[0]["times"] == 1
    demo.get("/orders")
    second = demo.post("/orders", order, status=503)

    assert (first.json, second.json) == (UNAVAILABLE, UNAVAILABLE)
    assert demo.get("/mock/faults").json == []
    assert demo.post("/orders", order).json["id"] == "4"


def test_the_first_fault_that_fits_is_used(demo):
    demo.post("/mock/faults", {"path": "/items/?", "status": 500})
    demo.post("/mock/faults", {"path": "/items*", "status": 502, "times": None})
    demo.post("/mock/faults", {"path": "*", "method": "DELETE", "status": 499})

    assert demo.get("/items/1/", status=500).json["error"] == "Internal server error"
    assert demo.get("/items/1", status=502).json["error"] == "Bad gateway"
    demo.get("/orders")
    assert demo.delete("/orders/1", status=499).json["error"] == "Status 499"
    demo.get("/items", status=502)
    assert [fault["status"] for fault in demo.get("/mock/faults").json] == [502]
    demo.delete("/mock/faults")
    demo.get("/items")


@pytest.mark.parametrize("path", ["/items", "/items/", "/items/?q=x", "/items?q=x"])
@pytest.mark.parametrize("pattern", ["/items", "/items/"])
def test_a_slash_at_the_end_makes_no_difference_to_a_fault(api, pattern, path):
    api.post("/mock/faults", {"path": pattern, "status": 503})

    api.get(path, status=503)


@pytest.mark.parametrize(
    "pattern, path, fits",
    [
        ("/items?page=2", "/items?page=2", True),
        ("/items?page=2", "/items/?page=2", True),
        ("/items/?page=2", "/items/?page=2", True),  # as sent
        ("/items?page=2", "/items?page=22", False),
        ("/items?page=2", "/items", False),
        ("*page=2*", "/items?per_page=5&page=2&q=x", True),
        ("*page=2*", "/items?page=1", False),
        ("/items?q=a/", "/items?q=a/", True),
        ("/items?q=a/", "/items?q=a", False),
        ("/items?q=a%20b", "/items?q=a%20b", True),  # as sent
        ("/items?q=a b", "/items?q=a%20b", False),
        ("/items?*", "/items", False),
        ("/items/[12]", "/items/2", True),
        ("/items/[12]", "/items/3", False),
        ("/ITEMS", "/items", False),
    ],
)
def test_a_fault_waits_for_the_paths_and_queries_of_its_pattern(
    api, pattern, path, fits
):
    api.post("/mock/faults", {"path": pattern, "status": 418})

    response = api.app.test_client().get(
        f"/api/v1{path}", headers={"X-Mock-Session": api.session}
    )

    assert (response.status_code == 418) == fits
    assert (api.get("/mock/faults").json == []) == fits


# ----------------------------------------------------------------------
# Sessions
#
# The tests that run many threads go red without the lock of Session or of Sessions.
# They are named by what would go wrong.
# ----------------------------------------------------------------------


def new_session():
    return Session("name", store.make_tables({}))


def take(session, path="/items"):
    return session.take_fault("GET", path, "")


def test_no_request_fails_because_its_session_is_reset():
    sessions = Sessions(store.make_tables({}))

    def get_or_reset(thread):
        for _ in range(20):
            if thread % 2:
                sessions.reset("a")
            else:
                assert sessions.get("a").name == "a"

    all_at_once(get_or_reset)


def test_no_session_begins_twice():
    all_sessions = [Sessions(store.make_tables({})) for _ in range(5)]

    def get(thread):
        found = []
        for sessions in all_sessions:
            found.extend(sessions.get(str(number)) for number in range(5))
        return found

    first, *others = all_at_once(get)
    for other in others:
        assert other == first  # sessions are equal only to themselves


@pytest.mark.parametrize("times", [1, 20])
def test_no_fault_is_used_more_often_than_it_says(times):
    session = new_session()
    session.add_fault(Fault(path="/items", times=times, status=503))

    def use(thread):
        return sum(take(session).status == 503 for _ in range(10))

    assert sum(all_at_once(use)) == times
    assert session.list_faults() == []


def test_no_use_of_a_fault_is_lost_while_others_are_added_and_cleared():
    session = new_session()
    faults = [
        Fault(path="/items", times=20, status=503),
        Fault(path="/items", times=20, hold=True),
        Fault(path="/items", times=20, drop=True),
    ]
    for fault in faults:
        session.add_fault(fault)

    def use_or_clear(thread):
        used = []
        for _ in range(10):
            if thread % 4 == 0:
                added = session.add_fault(Fault(path="/x", hold=True, times=None))
                take(session, "/x")
                session.clear_fault(added["id"])
            else:
                fault = take(session)
                if fault.hold:
                    session.end_hold(fault)
                used.append(fault)
        return used

    used = sum(all_at_once(use_or_clear, threads=16), [])
    assert [used.count(fault) for fault in faults] == [20, 20, 20]
    assert [fault.held for fault in faults] == [0, 0, 0]
    assert session.list_faults() == []


def test_no_fault_that_holds_a_request_is_missing_from_the_list():
    session = new_session()

    def add_and_take(thread):
        for _ in range(10):
            if thread % 4 == 0:
                session.add_fault(Fault(path="/items", hold=True))
            fault = take(session)
            if fault.hold:
                assert fault.id in ids_of(session.list_faults())
                session.end_hold(fault)

    all_at_once(add_and_take)
    assert {fault["held"] for fault in session.list_faults()} <= {0}


def test_no_request_is_held_that_no_clearing_lets_go():
    session = new_session()

    def hold_and_clear(thread):
        for _ in range(100 if thread % 2 else 10):
            session.add_fault(Fault(path="/items", hold=True))
            fault = take(session)
            session.clear_faults()
            assert fault.cleared.is_set() or not fault.hold

    all_at_once(hold_and_clear, fast=(1, 3, 5, 7))
    assert session.list_faults() == []


def test_no_fault_is_cleared_twice():
    session = new_session()
    ids = [session.add_fault(Fault(path="*"))["id"] for _ in range(100)]

    def clear(thread):
        cleared = 0
        for id in ids:
            with suppress(store.NotFoundError):
                session.clear_fault(id)
                cleared += 1
        return cleared

    assert sum(all_at_once(clear, threads=16)) == 100


def test_no_fault_gets_the_id_of_another():
    session = new_session()

    def add(thread):
        return [session.add_fault(Fault(path="*"))["id"] for _ in range(10)]

    ids = sum(all_at_once(add), [])
    assert len(set(ids)) == len(session.list_faults()) == 80


def test_no_entry_of_the_journal_is_lost_or_out_of_order():
    session = new_session()

    def write_and_read(thread):
        for _ in range(10):
            entry = session.add_entry("GET", "/items", "", {})
            session.add_body(entry, {"x": 1})
            session.complete_entry(entry, 200, 1.0)
            for line in session.list_entries():
                known = [line["status"], line["duration_ms"]]
                assert known in ([None, None], [200, 1.0])

    all_at_once(write_and_read)
    entries = session.list_entries()
    assert [entry["number"] for entry in entries] == list(range(1, 81))


def test_no_clock_is_read_in_the_midst_of_a_change():
    session = new_session()

    def freeze_or_read(thread):
        for _ in range(50):
            if thread % 2:
                session.freeze_clock(NOW)
                session.run_clock()
            clock = session.clock()
            assert clock["frozen"] == (clock["now"] == NOW)

    all_at_once(freeze_or_read)


def test_a_request_is_held_from_its_taking_on_until_its_hold_ends():
    session = new_session()
    fault = Fault(path="*", hold=True, delay=1000, times=3)
    session.add_fault(fault)

    for held in (1, 2):
        assert take(session) is fault
        assert session.list_faults()[0]["held"] == held
    session.end_hold(fault)

    assert session.list_faults()[0]["held"] == 1
    assert not fault.cleared.is_set()
    session.clear_faults()
    assert fault.cleared.is_set()
    session.end_hold(fault)
    assert fault.held == 0
    assert take(session).hold is False  # it is gone


def test_sessions_do_not_see_each_other():
    demo = Api(seed="demo")
    a, b = demo.in_session("a"), demo.in_session("b")

    a.post("/items", {"name": "of a"})
    b.post("/items", {"name": "of b"})
    b.delete("/items/1")
    a.put("/mock/clock", {"now": NOW})
    a.post("/mock/faults", {"path": "*", "status": 503, "times": None})

    a.get("/items", status=503)
    assert b.get("/items/13").json["name"] == "of b"
    assert demo.get("/items").headers["X-Total-Count"] == "12"
    assert demo.get("/mock/clock").json["frozen"] is False
    methods = [entry["method"] for entry in a.get("/mock/requests").json]
    assert methods == ["POST", "GET"]
    a.delete("/mock/faults")
    assert a.get("/items/13").json["name"] == "of a"
    assert a.get("/items/1").json["name"] == "Ceramic mug, 350 ml"


def test_the_least_recently_used_of_256_sessions_is_dropped():
    demo = Api(seed="demo")
    demo.post("/items", {"name": "of the default one"})
    for number in range(256):
        demo.in_session(str(number)).post("/items", {"name": "x"})
    demo.in_session("0").get("/items")  # so that 1 is the least recently used

    demo.in_session("one-more").get("/items")

    counts = {}
    for name in (None, "0", "2", "255", "one-more"):
        counts[name] = len(demo.in_session(name).get("/items").json)
    assert counts == {None: 13, "0": 13, "2": 13, "255": 13, "one-more": 12}
    # Asked last, as this begins a new session, which drops another.
    assert len(demo.in_session("1").get("/items").json) == 12


# ----------------------------------------------------------------------
# Arrival
# ----------------------------------------------------------------------


MUST_BE_SESSION_NAME = "must be a string of 1 to 64 of the characters A-Z a-z 0-9 . _ -"


def test_a_session_can_be_named_by_a_cookie_and_a_header_wins():
    demo = Api(seed="demo")
    demo.in_session("a").post("/items", {"name": "x"})

    def count(session, cookie):
        client = demo.in_session(session)
        return len(client.get("/items", headers={"Cookie": cookie}).json)

    assert count(None, "mock_session=a") == 13
    assert count(None, 'mock_session="a"') == 13
    assert count(None, "x=y; mock_session=a; z=1") == 13
    assert count(None, "not_mock_session=a") == 12
    assert count("b", "mock_session=a") == 12
    assert count("a", "mock_session=b") == 13
    assert count("a", "mock_session=not a name!") == 13


@pytest.mark.parametrize("cookie", ["mock_session=", 'mock_session=""', "x=a", ""])
def test_an_empty_cookie_names_no_session(demo, cookie):
    response = demo.in_session(None).get("/mock", headers={"Cookie": cookie})

    assert response.json["session"] is None


@pytest.mark.parametrize("header", [" a", "a ", "\t a \t"])
def test_blanks_around_a_header_are_no_part_of_the_name(demo, header):
    response = demo.get("/mock", headers={"X-Mock-Session": header})

    assert response.json["session"] == "a"


@pytest.mark.parametrize("name", ["", "  ", "a b", "x" * 65, "ä", "a/b", "a\u00b2"])
def test_a_wrong_session_name_in_a_header_is_a_400(demo, name):
    for path in ("/items", "/mock", "/health", ""):
        response = demo.get(path, status=400, headers={"X-Mock-Session": name})

        sentence = f"X-Mock-Session {MUST_BE_SESSION_NAME}"
        assert response.json == error_with({"X-Mock-Session": sentence})


@pytest.mark.parametrize("name", ["x" * 65, "a/b", "%20"])
def test_a_wrong_session_name_in_a_cookie_is_a_400(demo, name):
    headers = {"Cookie": f"mock_session={name}"}

    response = demo.in_session(None).get("/items", status=400, headers=headers)

    sentence = f"Mock session {MUST_BE_SESSION_NAME}"
    assert response.json == error_with({"mock_session": sentence})


@pytest.mark.parametrize("name", ["A-z0.9_", "x" * 64, ".", ".."])
def test_a_right_session_name_is_taken(demo, name):
    assert demo.in_session(name).get("/mock").json["session"] == name


@pytest.mark.parametrize(
    "path, size, status",
    [
        ("/items", 2**20, 201),
        ("/items", 2**20 + 1, 413),
        ("/items", 2**20 + 2, 413),
        ("/nowhere", 2**21, 413),
        ("/mock/state", 2**21, 204),
        ("/mock/state", 2**26 + 1, 413),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_may_have_one_mebibyte_and_a_state_64(api, path, size, status, chunked):
    method, body = "POST", b'{"name": "x"}'
    if path == "/mock/state":
        method, body = "PUT", b"{}"
    options = {}
    if chunked:
        # What Werkzeug's server tells an app of a body that comes in pieces: no length,
        # and that the stream ends by itself.
        options["environ_overrides"] = {
            "HTTP_TRANSFER_ENCODING": "chunked",
            "wsgi.input_terminated": True,
            "CONTENT_LENGTH": "",
        }

    padded = body.ljust(size)  # blanks behind a JSON value are part of JSON
    response = api.request(method, path, padded, status, **options)

    if status == 413:
        assert response.json == {"error": "Request body too large"}
        assert api.get("/mock/state").json == {name: [] for name in RESOURCES}
    if path == "/items":
        entry = api.get("/mock/requests").json[0]
        assert entry["status"] == status
        assert entry["body"] is None  # as it is longer than 10 KiB


@pytest.mark.parametrize(
    "path", ["", "/items", "/items/1", "/nowhere", "/mock/state", "/items/?x=1"]
)
def test_a_preflight_succeeds_on_any_path_with_any_header(api, path):
    # What a browser asks before it lets a page send such a request to another origin.
    headers = {
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "if-match, x-anything",
        "X-Mock-Session": "not a name!",  # which no preflight is refused for
    }
    api.post("/mock/faults", {"path": "*", "status": 503})

    response = api.request("OPTIONS", path, headers=headers)

    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert response.headers["Access-Control-Allow-Headers"] == "if-match, x-anything"
    allowed = response.headers["Access-Control-Allow-Methods"].split(", ")
    assert {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} <= set(allowed)
    assert response.headers["Access-Control-Max-Age"] == "600"
    assert api.get("/mock/requests").json == []


EXPOSED = "ETag, Link, Location, Retry-After, X-Total-Count"


def test_answers_and_errors_can_be_read_by_pages_of_other_origins(api):
    api.post("/mock/faults", {"path": "/items", "status": 503})
    for path, status in [
        ("/items", 503),
        ("/items", 200),
        ("/items/9", 404),
        ("/x", 404),
        ("/items?a=b", 400),
    ]:
        response = api.get(path, status=status)
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert response.headers["Access-Control-Expose-Headers"] == EXPOSED


@pytest.mark.parametrize(
    "setting, origin, allowed",
    [
        # None is the default. An origin is compared as a whole, and is no pattern.
        (None, "http://localhost:5173", True),
        (None, "http://localhost:5174", True),
        (None, "http://localhost:5175", True),
        (None, "http://localhost:5176", True),
        (None, "http://localhost:5177", True),
        (None, "http://localhost:4173", True),
        (None, "http://localhost:3000", True),
        (None, "http://localhost:5178", False),
        (None, "http://localhost:5172", False),
        (None, "http://localhost:51733", False),
        (None, "http://127.0.0.1:5173", False),
        (None, None, False),
        ("*", "http://a.b", True),
        ("*", None, False),
        ("http://[::1]:80, http://b.c", "http://[::1]:80", True),
        ("http://[::1]:80, http://b.c", "http://b.c", True),
        ("http://[::1]:80, http://b.c", "http://bxc", False),
        ("http://[::1]:80, http://b.c", "http://b.c.evil", False),
        ("http://[::1]:80, http://b.c", "http://:80", False),
    ],
)
def test_only_the_origins_of_the_setting_are_allowed(setting, origin, allowed):
    response = Api(cors_origins=setting).get("/items", headers={"Origin": origin})

    expected = origin if allowed else None
    assert response.headers.get("Access-Control-Allow-Origin") == expected


def test_a_plain_options_request_is_answered_with_the_methods(api):
    response = api.request("OPTIONS", "/items")

    allowed = set(response.headers["Allow"].split(", "))
    assert allowed == {"GET", "HEAD", "POST", "OPTIONS"}
    assert api.get("/mock/requests").json[0]["method"] == "OPTIONS"


def test_a_failing_answer_says_when_to_try_again(demo):
    demo.post("/mock/faults", {"path": "/items", "status": 429, "retry_after": 7})
    demo.post("/mock/faults", {"path": "/items", "status": 429})

    assert demo.get("/items", status=429).headers["Retry-After"] == "7"
    assert "Retry-After" not in demo.get("/items", status=429).headers


def test_a_request_with_a_wrong_body_meets_a_fault_as_any_other(api):
    api.post("/mock/faults", {"path": "/items", "status": 503, "times": 2})

    wrong_field = api.post("/items", {"quantity": "3"}, status=503)
    no_json = api.post("/items", b"{", status=503)

    assert (wrong_field.json, no_json.json) == (UNAVAILABLE, UNAVAILABLE)
    assert api.get("/mock/faults").json == []


def test_with_after_a_request_is_carried_out_and_its_answer_is_lost(demo):
    fault = {"path": "/items", "after": True, "status": 504, "times": 2}
    demo.post("/mock/faults", fault)

    response = demo.post("/items", {"name": "x"}, status=504)
    demo.post("/items", {"name": ""}, status=504)

    gone = {"error": "Gateway timeout", "details": {"injected": True}}
    assert response.json == gone
    assert demo.get("/items/13").json["name"] == "x"
    statuses = [entry["status"] for entry in demo.get("/mock/requests").json]
    assert statuses == [504, 504, 200]


def test_a_fault_applies_to_unknown_paths_but_never_to_the_controls():
    demo = Api(seed="demo")
    demo.post("/mock/faults", {"path": "*", "status": 503, "times": None})

    for path in ("/payments", "/items//1", "/health/x", "/mockups"):
        demo.get(path, status=503)
    for path in ("", "/", "/health", "/health/", "/openapi.json", "/openapi.json/"):
        demo.get(path)
    for path in ("/mock", "/mock/", "/mock/state", "/mock/state/"):
        demo.get(path)
    demo.get("/mock/nowhere", status=404)
    demo.request("PUT", "/mock", {}, status=405)
    client = demo.app.test_client()
    assert client.get("/").status_code == 200
    assert client.get("/nowhere").status_code == 404
    assert client.get("/api/v2/items").status_code == 404
    paths = [entry["path"] for entry in demo.get("/mock/requests").json]
    assert paths == ["/payments", "/items//1", "/health/x", "/mockups"]


def test_status_in_a_query_fails_this_request_and_uses_up_no_fault(demo):
    demo.post("/mock/faults", {"path": "*", "status": 503})

    demo.post("/items?_status=400&_status=418", {"name": "x"}, status=418)
    assert demo.get("/items?_status=503", status=503).json == UNAVAILABLE
    demo.get("/payments?_status=500", status=500)

    assert demo.get("/mock/faults").json[0]["times"] == 1
    assert demo.get("/mock").json["rows"]["items"] == 12


QUERY_STATUS_SENTENCE = "Status must be an integer from 400 to 599"


@pytest.mark.parametrize(
    "query, details",
    [
        ("_status=200", {"_status": QUERY_STATUS_SENTENCE}),
        ("_status=600", {"_status": QUERY_STATUS_SENTENCE}),
        ("_status=x", {"_status": QUERY_STATUS_SENTENCE}),
        ("_delay=-1", {"_delay": FAULT_DELAY_SENTENCE}),
        ("_delay=30001", {"_delay": FAULT_DELAY_SENTENCE}),
        ("_delay=", {"_delay": FAULT_DELAY_SENTENCE}),
        (
            "_status=1&_delay=x",
            {"_delay": FAULT_DELAY_SENTENCE, "_status": QUERY_STATUS_SENTENCE},
        ),
    ],
)
def test_a_wrong_delay_or_status_in_a_query_is_refused(demo, query, details):
    demo.post("/mock/faults", {"path": "*", "status": 503})
    before = demo.everything()

    response = demo.post(f"/items?{query}", {"name": "x"}, status=400)

    assert response.json == error_with(details)
    assert demo.everything() == before


def test_the_longest_of_several_delays_counts():
    api = Api(delay="20")
    api.post("/mock/faults", {"path": "/items", "delay": 60})

    api.get("/items")
    api.get("/items")
    api.get("/items?_delay=90")
    api.get("/items?_delay=0")

    durations = [entry["duration_ms"] for entry in api.get("/mock/requests").json]
    for duration, delay in zip(durations, [60, 20, 90, 20], strict=True):
        assert duration >= delay


def test_several_delays_are_not_added_up():
    api = Api(delay="250")
    api.post("/mock/faults", {"path": "/items", "delay": 250})

    api.get("/items?_delay=250")

    assert 250 <= api.get("/mock/requests").json[0]["duration_ms"] < 500


def test_the_controls_are_not_delayed():
    api = Api(delay="5000")
    began = time.monotonic()

    for path in ("", "/", "/health", "/mock", "/mock/state", "/openapi.json"):
        api.get(path)

    assert time.monotonic() - began < 5


@pytest.fixture
def pool():
    """Threads for requests that a test does not wait for."""
    with ThreadPoolExecutor(16) as threads:
        yield threads


def held_by_faults(api):
    """How many requests each of the faults holds."""
    return [fault["held"] for fault in api.get("/mock/faults").json]


def hold(pool, api, method, path, body=None, status=200):
    """Send a request from another thread, and go on once a fault holds it.

    Returns a future: its `result()` waits for the response and returns it.
    """
    before = sum(held_by_faults(api))
    future = pool.submit(api.request, method, path, body, status)
    wait_until(lambda: sum(held_by_faults(api)) > before)
    return future


def test_a_held_request_is_pending_until_the_faults_are_cleared(api, pool):
    api.post("/mock/faults", {"path": "/items", "method": "POST", "hold": True})

    held = hold(pool, api, "POST", "/items", {"name": "held"}, 201)

    entry = api.get("/mock/requests").json[0]
    assert [entry["status"], entry["duration_ms"]] == [None, None]
    assert entry["body"] == {"name": "held"}
    assert not held.done()
    api.delete("/mock/faults")
    assert held.result(timeout=10).json["name"] == "held"
    entry = api.get("/mock/requests").json[0]
    assert (entry["status"], entry["body"]) == (201, {"name": "held"})


def test_a_used_up_fault_is_listed_as_long_as_it_holds_a_request(api, pool):
    fault = api.post("/mock/faults", {"path": "/items", "hold": True}).json

    held = hold(pool, api, "GET", "/items")

    assert api.get("/mock/faults").json == [{**fault, "times": 0, "held": 1}]
    assert api.get("/mock").json["faults"] == [{**fault, "times": 0, "held": 1}]
    api.get("/items")  # which a used-up fault lets pass
    api.delete(f"/mock/faults/{fault['id']}")
    assert api.get("/mock/faults").json == []
    assert held.result(timeout=10).json == []


@pytest.mark.parametrize("order", [("1", "2"), ("2", "1")])
def test_two_held_requests_are_let_go_in_any_order(api, pool, order):
    for query in ("q=a", "q=b"):
        api.post("/mock/faults", {"path": f"/items?{query}", "hold": True})
    held = {
        "1": hold(pool, api, "GET", "/items?q=a"),
        "2": hold(pool, api, "GET", "/items?q=b"),
    }
    first, second = order

    api.delete(f"/mock/faults/{first}")

    assert held[first].result(timeout=10).json == []
    assert not held[second].done()
    assert ids_of(api.get("/mock/faults").json) == [second]
    api.delete(f"/mock/faults/{second}")
    assert held[second].result(timeout=10).json == []


def test_clearing_a_fault_leaves_the_others(api):
    for status in (500, 502, 503):
        api.post("/mock/faults", {"path": "/items", "status": status})

    response = api.delete("/mock/faults/2")

    assert (response.data, response.content_type) == (b"", None)
    assert ids_of(api.get("/mock/faults").json) == ["1", "3"]
    api.get("/items", status=500)
    api.get("/items", status=503)
    api.get("/items")


@pytest.mark.parametrize("id", ["2", "0", "x", "1.0"])
def test_clearing_a_fault_that_does_not_exist_is_a_404(demo, id):
    demo.post("/mock/faults", {"path": "/items", "status": 503})
    before = demo.everything()

    response = demo.delete(f"/mock/faults/{id}", status=404)

    assert response.json == {"error": "Fault not found"}
    assert demo.everything() == before


def test_ids_of_faults_go_on_until_a_reset(api):
    def add():
        return api.post("/mock/faults", {"path": "/items", "status": 503}).json["id"]

    assert [add(), add()] == ["1", "2"]
    api.get("/items", status=503)
    api.delete("/mock/faults/2")
    api.delete("/mock/faults/2", status=404)
    assert add() == "3"
    api.delete("/mock/faults")
    assert add() == "4"
    api.delete("/mock/state")
    assert add() == "1"


def test_after_the_faults_are_cleared_a_new_one_holds_again(api, pool):
    for _ in range(2):
        api.post("/mock/faults", {"path": "/items", "hold": True})
        held = hold(pool, api, "GET", "/items")

        with pytest.raises(TimeoutError):
            held.result(timeout=0.1)

        api.delete("/mock/faults")
        assert held.result(timeout=10).json == []


def test_a_held_request_holds_nobody_else(api, pool):
    api.post("/mock/faults", {"path": "/items", "method": "POST", "hold": True})
    held = hold(pool, api, "POST", "/items", {"name": "held"}, 201)

    assert api.post("/items", {"name": "not held"}).json["id"] == "1"
    assert api.in_session("other").get("/items").json == []

    api.delete("/mock/faults")
    assert held.result(timeout=10).json["id"] == "2"


def test_a_held_request_goes_on_by_itself_in_the_end(api, monkeypatch):
    assert inventory.HOLD_LIMIT == 30  # seconds
    monkeypatch.setattr(inventory, "HOLD_LIMIT", 0.01)
    api.post("/mock/faults", {"path": "/items", "hold": True})
    api.post("/mock/faults", {"path": "/orders", "hold": True, "times": None})

    assert api.get("/items").json == []
    assert api.get("/orders").json == []

    faults = api.get("/mock/faults").json
    assert [(fault["id"], fault["held"]) for fault in faults] == [("2", 0)]


def test_a_held_request_can_fail_in_the_end(api, pool):
    api.post("/mock/faults", {"path": "/items", "hold": True, "status": 500})
    held = hold(pool, api, "GET", "/items", status=500)

    api.delete("/mock/faults")

    assert held.result(timeout=10).json["error"] == "Internal server error"


@pytest.mark.parametrize("session", [None, "named"])
def test_a_reset_lets_held_requests_go_and_they_leave_no_trace(session, pool):
    client = Api(session)
    client.post("/mock/faults", {"path": "/items", "hold": True})
    held = hold(pool, client, "POST", "/items", {"name": "of the test before"}, 201)

    client.delete("/mock/state")

    assert client.get("/mock/faults").json == []
    assert held.result(timeout=10).json["id"] == "1"  # in the data before the reset
    assert client.get("/items").json == []
    paths = [entry["path"] for entry in client.get("/mock/requests").json]
    assert paths == ["/items"]  # the GET of this test


def test_a_session_that_is_dropped_lets_its_held_requests_go(pool):
    api = Api()
    dropped = api.in_session("dropped")
    dropped.post("/mock/faults", {"path": "/items", "hold": True})
    held = hold(pool, dropped, "GET", "/items")

    for number in range(256):
        api.in_session(str(number)).get("/mock")

    assert held.result(timeout=10).json == []
    assert dropped.get("/mock/faults").json == []


def test_sixteen_held_requests_are_let_go_at_once(api, pool):
    api.post("/mock/faults", {"path": "/items", "hold": True, "times": 16})
    held = [pool.submit(api.post, "/items", {"name": "x"}) for _ in range(16)]
    wait_until(lambda: held_by_faults(api) == [16])
    assert api.get("/mock").json["rows"]["items"] == 0

    api.delete("/mock/faults")

    ids = [int(request.result(timeout=10).json["id"]) for request in held]
    assert sorted(ids) == list(range(1, 17))
    assert api.get("/mock/faults").json == []


@pytest.fixture
def slow_post(api, pool):
    """A POST of an item that takes a while, and stands in the journal already."""
    api.post("/mock/faults", {"path": "/items", "method": "POST", "delay": 300})
    future = pool.submit(api.post, "/items", {"name": "slow"})
    wait_until(lambda: api.get("/mock/faults").json == [])
    return future


def test_a_slow_request_slows_nobody_else_down(api, slow_post):
    quick = api.post("/items", {"name": "quick"})

    assert quick.json["id"] == "1"
    assert slow_post.result(timeout=10).json["id"] == "2"


def test_a_slow_request_leaves_no_trace_after_a_reset(api, slow_post):
    api.delete("/mock/state")

    assert slow_post.result(timeout=10).json["name"] == "slow"
    assert api.get("/items").json == []


def test_where_a_connection_cannot_be_dropped_the_answer_is_503(api):
    # Flask's test client has no connection.
    api.post("/mock/faults", {"path": "/items", "drop": True, "status": 500})

    assert api.get("/items", status=503).json == UNAVAILABLE


def test_the_journal_has_the_requests_in_the_order_of_their_arrival(api):
    api.put("/mock/clock", {"now": NOW})

    headers = {"X-Custom": "Ü", "Cookie": "a=b"}
    api.post("/items?x=%20y&q=1", {"name": "Mug"}, headers=headers)
    api.get("/items/9/", status=404)
    api.request("HEAD", "/items")

    first, second, third = api.get("/mock/requests").json
    sent = {
        "origin": ORIGIN,
        "x-mock-session": api.session,
        "x-custom": "Ü",
        "cookie": "a=b",
        "content-type": "application/json",
        "content-length": "15",
    }
    assert sent.items() <= first["headers"].items()
    assert [name for name in first["headers"] if not name.islower()] == []
    assert first["duration_ms"] >= 0
    assert list(first.items()) == [
        ("number", 1),
        ("at", NOW),
        ("method", "POST"),
        ("path", "/items"),
        ("query", "x=%20y&q=1"),
        ("headers", first["headers"]),
        ("body", {"name": "Mug"}),
        ("status", 201),
        ("duration_ms", first["duration_ms"]),
    ]
    assert (second["path"], second["status"]) == ("/items/9/", 404)
    assert (third["method"], third["status"]) == ("HEAD", 200)
    assert (second["number"], third["number"]) == (2, 3)


def test_the_numbers_of_the_journal_go_on_until_a_reset(api):
    def ask_and_read_numbers():
        api.get("/items")
        return [entry["number"] for entry in api.get("/mock/requests").json]

    assert ask_and_read_numbers() == [1]
    assert ask_and_read_numbers() == [1, 2]
    api.delete("/mock/requests")
    assert api.get("/mock/requests").json == []
    assert ask_and_read_numbers() == [3]
    api.delete("/mock/state")
    assert ask_and_read_numbers() == [1]


@pytest.mark.parametrize(
    "body, kept",
    [
        (b"", None),
        (b"[1, 2", None),
        (b"text", None),
        (b"[NaN]", None),
        (b"null", None),
        (b"[1]", [1]),
        (b"[1]".ljust(10_240), [1]),
        (b"[1]".ljust(10_241), None),
        (b"[" * 500 + b"]" * 500, json.loads("[" * 500 + "]" * 500)),
        (b"[" * 501 + b"]" * 501, None),
    ],
    ids=short,
)
@pytest.mark.parametrize("path", ["/nowhere", "/orders"])
def test_the_journal_keeps_bodies_of_json_up_to_ten_kibibytes(api, path, body, kept):
    status = 404 if path == "/nowhere" else 400
    headers = {"Content-Length": str(len(body))}  # browsers send it for no body, too
    api.post(path, body, status=status, headers=headers)

    assert api.get("/mock/requests").json[0]["body"] == kept


def test_the_journal_keeps_the_last_500_requests(api):
    for number in range(501):
        api.get(f"/items?_={number}")

    entries = api.get("/mock/requests").json

    assert [entry["query"] for entry in entries] == [f"_={n}" for n in range(1, 501)]
    assert [entry["number"] for entry in entries] == list(range(2, 502))


# ----------------------------------------------------------------------
# Views of the resources
# ----------------------------------------------------------------------


def test_a_created_row_is_answered_whole_with_its_fields_in_order(api, example):
    api.put("/mock/clock", {"now": NOW})

    response = api.post(example.path, example.body)

    times = {"created_at": NOW, "updated_at": None}
    expected = {"id": "1", **example.body, **example.defaults, **times}
    assert list(response.json.items()) == list(expected.items())
    assert response.headers["Location"] == f"/api/v1{example.path}/1"
    assert api.get(f"{example.path}/1").data == response.data


def test_a_removed_row_is_gone_and_its_id_is_not_used_again(api, example):
    api.post(example.path, example.body)

    response = api.delete(f"{example.path}/1")

    assert (response.data, response.content_type) == (b"", None)
    assert api.get(example.path).json == []
    api.get(f"{example.path}/1", status=404)
    assert api.post(example.path, example.body).json["id"] == "2"


def test_head_answers_as_get_does_without_a_body(api, example):
    api.post(example.path, example.body)

    for path in (example.path, f"{example.path}/1", f"{example.path}?page=1", ""):
        get = api.get(path)
        head = api.request("HEAD", path)
        assert head.data == b""
        assert head.headers == get.headers


def test_a_trailing_slash_makes_no_difference(api, example):
    assert api.post(f"{example.path}/", example.body).json["id"] == "1"
    assert len(api.get(f"{example.path}/").json) == 1
    assert api.get(f"{example.path}/1/").json["id"] == "1"
    assert api.put(f"{example.path}/1/", {}).json["id"] == "1"
    assert api.get("/mock/").json["session"] == api.session
    assert api.get("/").json == api.get("").json


@pytest.mark.parametrize("path", TAGGED)
def test_a_client_that_has_the_content_gets_a_304(demo, path):
    full = demo.get(path)
    tag = full.headers["ETag"]

    # W/ marks a weak tag, which is good enough for a read, and not for a write.
    for known in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        response = demo.get(path, status=304, headers={"If-None-Match": known})
        assert (response.data, response.content_type) == (b"", None)
        assert response.headers["ETag"] == tag
    for other in ('"x"', "", tag.strip('"') + "0"):
        assert demo.get(path, headers={"If-None-Match": other}).data == full.data


def test_if_match_is_ignored_on_a_read(demo):
    demo.get("/items", headers=OTHER_TAG)
    demo.get("/items/1", headers=OTHER_TAG)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_change_of_what_the_client_does_not_know_is_refused(demo, method):
    old_tag = demo.get("/items/1").headers["ETag"]
    new_tag = demo.put("/items/1", {"quantity": 1}).headers["ETag"]
    body = None if method == "DELETE" else {"quantity": 2}
    before = demo.everything()

    for tags in (old_tag, '"x"', f"W/{new_tag}", ""):
        headers = {"If-Match": tags}
        response = demo.request(method, "/items/1", body, status=412, headers=headers)
        assert response.json == {"error": "Precondition failed"}

    assert demo.everything() == before
    status = 204 if method == "DELETE" else 200
    headers = {"If-Match": f'"x", {new_tag}'}
    demo.request(method, "/items/1", body, status=status, headers=headers)


def test_every_tag_matches_a_star(demo):
    changed = demo.patch("/items/1", {"quantity": 5}, headers={"If-Match": "*"})
    demo.delete("/items/1", headers={"If-Match": "*"})

    assert changed.json["quantity"] == 5
    demo.get("/items/1", status=404)


def test_if_none_match_is_ignored_on_a_write(demo):
    changed = demo.patch("/items/1", {"quantity": 5}, headers={"If-None-Match": "*"})

    assert changed.json["quantity"] == 5


# ----------------------------------------------------------------------
# Answers
# ----------------------------------------------------------------------


WRONG_BODIES = {
    "nothing": (b"", "Body is empty"),
    "blanks": (b" ", "Body is not JSON: Expecting value"),
    "truncated": (b'{"name": "x"', "Body is not JSON: "),
    "invalid UTF-8": (b'{"name": "\xff"}', "Body is not JSON: 'utf-8' codec"),
    "byte order mark": (
        b'\xef\xbb\xbf{"name": "x"}',
        "Body is not JSON: Unexpected UTF-8 BOM",
    ),
    "NaN": (b'{"x": NaN}', "Body is not JSON: NaN is not a number"),
    "Infinity": (b'{"x": -Infinity}', "Body is not JSON: -Infinity is not a number"),
    "a number beyond doubles": (
        b'{"x": 1e400}',
        "Body is not JSON: 1e400 is not a number",
    ),
    "5,000 digits": (
        b'{"x": ' + b"9" * 5000 + b"}",
        "Body is not JSON: an integer must not have more than 4000 digits",
    ),
    "4,001 digits": (
        b'{"x": -' + b"9" * 4001 + b"}",
        "Body is not JSON: an integer must not have more than 4000 digits",
    ),
    "deep": (b'{"x": ' + b"[" * 100_000, "Body must not be nested deeper than 50"),
    "503 levels": (
        b'{"x": ' + b"[" * 502 + b"]" * 502 + b"}",
        "Body must not be nested deeper than 50",  # 500, and 502 for a state
    ),
    "null": (b"null", "Body must be a JSON object"),
    "a string": (b'"text"', "Body must be a JSON object"),
    "a number": (b"1", "Body must be a JSON object"),
    "an array": (b"[]", "Body must be a JSON object"),
}


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_a_body_that_is_no_json_object_is_a_clean_400(demo, name):
    body, problem = WRONG_BODIES[name]
    before = demo.everything()

    for method, path in [
        ("POST", "/items"),
        ("PUT", "/orders/1"),
        ("PUT", "/mock/state"),
        ("PUT", "/mock/clock"),
        ("POST", "/mock/faults"),
    ]:
        response = demo.request(method, path, body, status=400)
        details = response.json["details"]
        assert response.json == {"error": "Bad request", "details": details}
        assert list(details) == ["body"]
        assert details["body"].startswith(problem)

    assert demo.everything() == before
    assert len(demo.get("/mock/requests").json) == 2  # the controls are not recorded


def deep_order(levels):
    """The JSON of an order with so many objects and arrays inside one another."""
    # The order, its array of lines and the line are three levels.
    inside = b"[" * (levels - 3) + b"]" * (levels - 3)
    return b'{"internal_number": "deep", "items": [{"x": ' + inside + b"}]}"


def test_what_is_nested_500_levels_deep_comes_back(api, tmp_path):
    response = api.post("/orders", deep_order(500))

    assert api.get("/orders/1").data == response.data
    assert api.get("/mock/requests").json[0]["body"] == json.loads(deep_order(500))
    state = api.get("/mock/state").data
    api.delete("/mock/state")
    api.put("/mock/state", state, status=204)
    assert api.get("/mock/state").data == state
    file = tmp_path / "seed.json"
    file.write_bytes(state)
    assert Api(seed=str(file)).get("/mock/state").data == state


def test_what_is_nested_deeper_is_refused(api):
    state = b'{"orders": [' + deep_order(501) + b"]}"

    refused_row = api.post("/orders", deep_order(501), status=400)
    refused_state = api.put("/mock/state", state, status=400)

    sentence = "Body must not be nested deeper than"
    assert refused_row.json["details"] == {"body": f"{sentence} 500 levels"}
    assert refused_state.json["details"] == {"body": f"{sentence} 502 levels"}
    assert api.get("/orders").json == []


JSON_WANTED = "Body must be declared as JSON, by Content-Type: application/json"


@pytest.mark.parametrize(
    "content_type", ["text/json", "", None, "application/x-www-form-urlencoded"]
)
@pytest.mark.parametrize("body", [b"{}", b""])
def test_only_what_is_declared_as_json_is_taken(api, content_type, body):
    headers = {"Content-Type": content_type}

    response = api.post("/items", body, status=415, headers=headers)

    expected = {"error": "Unsupported media type", "details": {"body": JSON_WANTED}}
    assert response.json == expected
    assert api.get("/items").json == []


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        "application/merge-patch+json",
        "APPLICATION/JSON",
    ],
)
def test_every_media_type_of_json_is_taken(api, content_type):
    headers = {"Content-Type": content_type}

    response = api.post("/items", {"name": "x"}, headers=headers)

    assert response.json["name"] == "x"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_a_row_that_does_not_exist_is_a_404(demo, method):
    body = None if method in ("GET", "DELETE") else {}

    item = demo.request(method, "/items/99", body, status=404)
    order = demo.request(method, "/orders/99", body, status=404)

    assert item.json == {"error": "Item not found"}
    assert order.json == {"error": "Order not found"}


@pytest.mark.parametrize(
    "path", ["/nowhere", "/items//1", "/items/1/x", "/mock/x", "/health/x", "//items"]
)
def test_a_path_that_does_not_exist_is_a_404_that_says_where_the_api_is(demo, path):
    response = demo.get(path, status=404)

    sentence = f"/api/v1{path} is no path here; the API is below /api/v1"
    expected = {"error": "Resource not found", "details": {"path": sentence}}
    assert response.json == expected


def test_a_path_outside_of_the_api_is_a_404_that_says_where_the_api_is(demo):
    response = demo.app.test_client().get("/items?page=1")

    sentence = "/items is no path here; the API is below /api/v1"
    expected = {"error": "Resource not found", "details": {"path": sentence}}
    assert (response.status_code, response.json) == (404, expected)


def test_a_wrong_method_is_a_405_that_names_the_right_ones(api):
    response = api.put("/items", {}, status=405)

    assert response.json == {"error": "Method not allowed"}
    allowed = set(response.headers["Allow"].split(", "))
    assert allowed == {"GET", "HEAD", "POST", "OPTIONS"}
    assert response.content_type == "application/json"


def test_a_bug_is_a_500_whose_traceback_is_logged_and_not_sent(caplog):
    api = Api()

    def broken():
        raise ZeroDivisionError("secret")

    api.app.add_url_rule("/api/v1/bug", view_func=broken)

    response = api.get("/bug", status=500)

    assert response.json == {"error": "Internal server error"}
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "secret" in caplog.text
    assert api.get("/mock/requests").json[0]["status"] == 500


TAKEN = {"internal_number": "ORD-2026-001"}
TAKEN_AND_WRONG = {"internal_number": "ORD-2026-001", "status": 5}
SEVERAL_ERRORS = [  # path, body, headers, status; each time fewer things are wrong
    # The body is not declared as JSON, there is no such row, ...
    ("/orders/99", TAKEN_AND_WRONG, {**OTHER_TAG, **TEXT}, 415),
    # The body is not JSON, there is no such row, and the tag is another.
    ("/orders/99", b"{", OTHER_TAG, 400),
    # There is no such row, the tag is another, and fields are wrong.
    ("/orders/99", TAKEN_AND_WRONG, OTHER_TAG, 404),
    # The tag is another, a field is wrong, and the number is taken.
    ("/orders/2", TAKEN_AND_WRONG, OTHER_TAG, 412),
    # A field is wrong, and the number is taken.
    ("/orders/2", TAKEN_AND_WRONG, {}, 400),
    ("/orders/2", TAKEN, {}, 409),
]


@pytest.mark.parametrize("path, body, headers, status", SEVERAL_ERRORS, ids=short)
def test_body_row_tag_fields_and_conflicts_are_looked_at_in_this_order(
    demo, path, body, headers, status
):
    before = demo.everything()

    demo.put(path, body, status, headers=headers)

    assert demo.everything() == before


@pytest.mark.parametrize(
    "status, phrase",
    [
        (400, "Bad request"),
        (414, "Request URI too long"),
        (418, "I'm a teapot"),
        (429, "Too many requests"),
        (505, "HTTP version not supported"),
        (599, "Status 599"),
    ],
)
def test_an_injected_error_has_the_phrase_of_its_status(demo, status, phrase):
    response = demo.get(f"/items?_status={status}", status=status)

    assert response.json == {"error": phrase, "details": {"injected": True}}


# ----------------------------------------------------------------------
# Mock controls
# ----------------------------------------------------------------------


def test_a_session_is_shown_at_a_glance():
    demo = Api(seed="demo")
    client = demo.in_session("worker-1")
    client.delete("/items/1")
    client.put("/mock/clock", {"now": NOW})
    fault = client.post("/mock/faults", {"path": "/x", "status": 500}).json

    shown = client.get("/mock").json

    counts = dict.fromkeys(RESOURCES, 0)  # more, if a student adds a resource
    counts.update({"items": 11, "orders": 3})
    assert shown == {
        "session": "worker-1",
        "rows": counts,
        "clock": {"now": NOW, "frozen": True},
        "faults": [fault],
    }


def test_the_default_session_is_shown_without_a_name(demo):
    shown = demo.in_session(None).get("/mock").json

    assert shown["session"] is None
    assert shown["rows"]["items"] == 12
    assert shown["faults"] == []
    assert shown["clock"]["frozen"] is False


def test_a_reset_brings_everything_back(demo):
    before = demo.get("/mock/state").data
    demo.delete("/items/1")
    demo.post("/items", {"name": "x"})
    demo.put("/mock/clock", {"now": NOW})
    demo.post("/mock/faults", {"path": "/x", "status": 500})

    demo.delete("/mock/state")
    demo.delete("/mock/state")  # safe to repeat

    assert demo.get("/mock/state").data == before
    assert demo.get("/mock/clock").json["frozen"] is False
    assert demo.get("/mock/faults").json == []
    assert demo.get("/mock/requests").json == []
    assert demo.post("/items", {"name": "x"}).json["id"] == "13"


def test_a_frozen_clock_gives_its_time(api):
    assert api.put("/mock/clock", {"now": NOW}).json == {"now": NOW, "frozen": True}

    row = api.post("/items", {"name": "x"}).json

    assert row["created_at"] == NOW
    assert api.get("/mock/clock").json == {"now": NOW, "frozen": True}
    assert api.get("/mock/requests").json[0]["at"] == NOW


def test_a_running_clock_gives_the_true_time(api):
    api.put("/mock/clock", {"now": NOW})

    api.delete("/mock/clock")

    row = api.post("/items", {"name": "x"}).json
    changed = api.put("/items/1", {}).json
    entry = api.get("/mock/requests").json[0]
    clock = api.get("/mock/clock").json
    assert clock["frozen"] is False
    for moment in (row["created_at"], changed["updated_at"], entry["at"], clock["now"]):
        assert re.fullmatch(TIME_PATTERN, moment)
        age = datetime.now(UTC) - datetime.fromisoformat(moment)
        assert abs(age) < timedelta(minutes=1)


# ----------------------------------------------------------------------
# Description
# ----------------------------------------------------------------------


JSON_TYPES = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


@pytest.fixture(scope="module")
def document():
    """The OpenAPI document."""
    return Api().get("/openapi.json").json


@pytest.fixture(scope="module")
def schemas(document):
    """The schemas of the document by name."""
    return document["components"]["schemas"]


def assert_described(schemas, schema, value):
    """Assert that a value fits a schema: its type, its choices and its names.

    It looks at every depth, but not at other words, such as `maxLength`.
    """
    if "$ref" in schema:
        schema = schemas[schema["$ref"].removeprefix("#/components/schemas/")]
    types = schema.get("type", [])
    if isinstance(types, str):
        types = [types]
    assert any(type(value) in JSON_TYPES[name] for name in types)
    if "enum" in schema:
        assert value in schema["enum"]
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema.get("required", [])) <= set(value)
        for name, part in value.items():
            if name in schema["properties"]:
                assert_described(schemas, schema["properties"][name], part)
            else:
                assert schema["additionalProperties"] is True
    if isinstance(value, list):
        for part in value:
            assert_described(schemas, schema["items"], part)


@pytest.mark.parametrize(
    "wrong", [{"quantity": "3"}, {"status": "lost"}, {"colour": "red"}, {"name": None}]
)
def test_assert_described_finds_wrong_values(demo, schemas, wrong):
    item = demo.get("/items/1").json
    assert_described(schemas, schemas["Item"], item)

    with pytest.raises(AssertionError):
        assert_described(schemas, schemas["Item"], {**item, **wrong})
    with pytest.raises(AssertionError):
        assert_described(schemas, schemas["Item"], {"id": "1"})


WRONG_SESSION = {"X-Mock-Session": "!"}
TOO_LARGE = b" " * (2**20 + 1)

ANSWERS = [  # method, what follows the path of the list, body, headers, status
    ("GET", "", None, {}, 200),
    ("GET", "?page=1", None, {}, 200),
    ("GET", "?page=0", None, {}, 400),
    ("GET", "", None, {"If-None-Match": "*"}, 304),
    ("POST", "", "other_body", {}, 201),
    ("POST", "", {"x": 1}, {}, 400),
    ("POST", "", TOO_LARGE, {}, 413),
    ("POST", "", {}, TEXT, 415),
    ("GET", "/1", None, {}, 200),
    ("GET", "/1", None, {"If-None-Match": "*"}, 304),
    ("GET", "/1", None, WRONG_SESSION, 400),
    ("GET", "/99", None, {}, 404),
    ("PUT", "/1", "change", {}, 200),
    ("PUT", "/99", {}, {}, 404),
    ("PUT", "/1", {}, OTHER_TAG, 412),
    ("PATCH", "/1", {}, {}, 200),
    ("PATCH", "/1", {"x": 1}, {}, 400),
    ("PATCH", "/1", {}, TEXT, 415),
    ("DELETE", "/99", None, {}, 404),
    ("DELETE", "/1", None, OTHER_TAG, 412),
    ("DELETE", "/1", None, {}, 204),
]


@pytest.mark.parametrize("method, suffix, body, headers, status", ANSWERS, ids=short)
def test_every_kind_of_answer_is_described(
    api, example, document, schemas, method, suffix, body, headers, status
):
    api.post(example.path, example.body)
    if isinstance(body, str):
        body = getattr(example, body)

    path = example.path + suffix
    response = api.request(method, path, body, status=status, headers=headers)

    described_path = example.path
    if suffix.startswith("/"):
        described_path = f"{example.path}/{{id}}"
    operation = document["paths"][described_path][method.lower()]
    described = operation["responses"][str(status)]
    if response.data:
        schema = described["content"]["application/json"]["schema"]
        if "anyOf" in schema:  # a list, or a page of one
            list_schema, page_schema = schema["anyOf"]
            schema = page_schema if "page" in suffix else list_schema
        assert_described(schemas, schema, response.json)
    else:
        assert "content" not in described


@pytest.mark.parametrize(
    "headers, status, schema_name", [({}, 200, "Health"), (WRONG_SESSION, 400, "Error")]
)
def test_health_is_described(api, document, schemas, headers, status, schema_name):
    response = api.get("/health", status=status, headers=headers)

    operation = document["paths"]["/health"]["get"]
    (parameter,) = operation["parameters"]
    assert (parameter["in"], parameter["name"]) == ("header", "X-Mock-Session")
    phrases = {}
    for code, described in operation["responses"].items():
        phrases[code] = described["description"]
    assert phrases == {"200": "OK", "400": "Bad request"}
    content = operation["responses"][str(status)]["content"]
    schema = {"$ref": f"#/components/schemas/{schema_name}"}
    assert content == {"application/json": {"schema": schema}}
    assert_described(schemas, schema, response.json)


CHANGE_STATUSES = ["200", "400", "404", "409", "412", "413", "415"]

ROUTES = [  # method, what follows the path, path and headers, body, statuses
    ("get", "", ["If-None-Match"], None, ["200", "304", "400"]),
    ("post", "", [], "New{}", ["201", "400", "409", "413", "415"]),
    ("get", "/{id}", ["id", "If-None-Match"], None, ["200", "304", "400", "404"]),
    ("put", "/{id}", ["id", "If-Match"], "{}Change", CHANGE_STATUSES),
    ("patch", "/{id}", ["id", "If-Match"], "{}Change", CHANGE_STATUSES),
    ("delete", "/{id}", ["id", "If-Match"], None, ["204", "400", "404", "409", "412"]),
]


@pytest.mark.parametrize("method, suffix, names, body, statuses", ROUTES, ids=short)
def test_each_route_says_what_it_takes_and_answers(
    document, example, method, suffix, names, body, statuses
):
    title = RESOURCES[example.path[1:]].title
    path = document["paths"][example.path + suffix]

    operation = path[method]

    others = []
    queries = []
    for parameter in operation["parameters"]:
        if parameter["in"] == "query":
            queries.append(parameter["name"])
        else:
            others.append(parameter["name"])
            assert parameter["in"] == (
                "path" if parameter["name"] == "id" else "header"
            )
            assert parameter["required"] is (parameter["in"] == "path")
            assert parameter["schema"]["type"] == "string"
    assert others == ["X-Mock-Session", *names]
    is_list = (method, suffix) == ("get", "")
    assert queries == (list(RESOURCES[example.path[1:]].parameters) if is_list else [])
    assert sorted(operation["responses"]) == statuses
    for response in operation["responses"].values():
        assert response["description"]  # which OpenAPI requires
    if body is None:
        assert "requestBody" not in operation
    else:
        schema = {"$ref": f"#/components/schemas/{body.format(title)}"}
        content = {"application/json": {"schema": schema}}
        assert operation["requestBody"] == {"required": True, "content": content}


def test_operations_have_ids_and_summaries(document):
    ids = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            ids[method, path] = operation["operationId"]
            assert operation["summary"].endswith(".")

    assert ids["get", "/health"] == "getHealth"
    assert ids["get", "/items"] == "getItemList"
    assert ids["post", "/items"] == "postItem"
    assert ids["get", "/orders/{id}"] == "getOrder"
    assert ids["put", "/orders/{id}"] == "putOrder"
    assert len(set(ids.values())) == len(ids) == 1 + 6 * len(RESOURCES)


def test_the_description_names_the_api_and_where_it_is(document):
    assert document["openapi"] == "3.1.0"
    assert document["info"] == {"title": "Inventory API", "version": "1.0.0"}
    assert document["servers"] == [{"url": "/api/v1"}]
    assert document["security"] == []


@pytest.fixture
def list_parameters(document):
    """The described query parameters of the list of items, by name."""
    parameters = document["paths"]["/items"]["get"]["parameters"]
    return {one["name"]: one for one in parameters if one["in"] == "query"}


def test_the_parameters_of_every_list_come_first_and_those_of_the_mock_do_not(
    list_parameters,
):
    names = list(list_parameters)

    assert names[:4] == ["sort", "page", "per_page", "q"]
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("field_name, more", [("quantity", []), ("name", ["_like"])])
def test_all_filters_of_a_list_are_described(list_parameters, field_name, more):
    described = [name for name in list_parameters if name.startswith(field_name)]

    endings = ["", "_ne", "_gt", "_gte", "_lt", "_lte", *more]
    assert described == [field_name + ending for ending in endings]


def test_a_parameter_that_can_be_repeated_is_an_array(list_parameters):
    for name in ("sort", "page", "per_page"):
        parameter = list_parameters.pop(name)
        assert parameter["schema"]["type"] in ("string", "integer")
        assert "style" not in parameter
    for parameter in list_parameters.values():
        assert parameter["required"] is False
        assert parameter["schema"]["type"] == "array"
        assert (parameter["style"], parameter["explode"]) == ("form", True)


def test_a_filter_is_described_by_the_type_of_its_field(list_parameters):
    def wanted(name):
        return list_parameters[name]["schema"]["items"]

    assert wanted("quantity_lt")["type"] == "integer"
    assert wanted("status")["enum"] == ["pending", "active", "completed"]
    assert wanted("status_like")["type"] == "string"
    assert "enum" not in wanted("status_like")
    # A date alone has not the format of a time.
    assert wanted("created_at_lt")["type"] == "string"
    assert "format" not in wanted("created_at_lt")


def test_a_filter_tells_in_words_that_empty_means_null(suppliers):
    paths = suppliers.get("/openapi.json").json["paths"]

    described = {}
    for parameter in paths["/suppliers"]["get"]["parameters"]:
        described[parameter["name"]] = parameter["schema"].get("items")
    assert described["colour"] == {
        "type": "string",  # and not null, which a query cannot carry
        "description": "one of red, blue; empty: null",
        "enum": ["red", "blue"],
    }
    updated_at = described["updated_at_ne"]
    assert updated_at["type"] == "string"
    assert updated_at["description"].endswith("written %2B; empty: null")
    assert "empty" not in described["updated_at_lt"]["description"]


def test_sorting_is_described_by_a_pattern(list_parameters):
    pattern = list_parameters["sort"]["schema"]["pattern"]

    assert re.fullmatch(pattern, "-quantity,name")
    assert not re.fullmatch(pattern, "size")


def test_each_schema_says_which_fields_are_required(api, schemas):
    row = api.post("/items", {"name": "x"}).json

    assert schemas["NewItem"]["required"] == ["name"]
    assert schemas["NewOrder"]["required"] == ["internal_number"]
    assert schemas["ItemChange"]["required"] == []
    assert schemas["Item"]["required"] == list(row)
    page = schemas["ItemPage"]
    assert page["required"] == ["data", "total", "page", "per_page"]
    assert list(page["properties"]) == page["required"]


def test_only_the_lines_of_an_order_allow_other_names(schemas):
    for name in ("Item", "NewItem", "ItemChange", "ItemPage", "Error", "Health"):
        assert schemas[name]["additionalProperties"] is False
    for name in ("Order", "NewOrder", "OrderChange"):
        line = schemas[name]["properties"]["items"]["items"]
        # Some generators would drop the other fields if this word were not there.
        assert line["additionalProperties"] is True
        assert line["properties"]["quantity"]["minimum"] == 1


def test_defaults_are_described_in_words_and_not_as_default(document, schemas):
    properties = schemas["NewItem"]["properties"]

    sentence = 'one of pending, active, completed; "pending" if left out'
    assert properties["status"]["description"] == sentence
    assert properties["quantity"]["maximum"] == MAX_INTEGER
    assert "ignored" in properties["updated_at"]["description"]
    # Tools that make types would make a field with a `default` mandatory.
    assert '"default"' not in json.dumps(document)


def test_health_answers_exactly_this(api):
    assert api.get("/health").json == {"status": "healthy", "version": "1.0.0"}


# ----------------------------------------------------------------------
# Home page
# ----------------------------------------------------------------------


def get_page(demo, path="/", accept="text/html,*/*;q=0.8", **headers):
    headers["Accept"] = accept
    return demo.app.test_client().get(path, headers=headers)


class Elements(HTMLParser):
    """The elements of a page in their order, each as its name and its attributes."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.open_labels = 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes, in_label=self.open_labels > 0)
        self.found.append((tag, attributes))
        self.open_labels += tag == "label"

    def handle_endtag(self, tag):
        self.open_labels -= tag == "label"


def test_each_control_of_the_page_has_a_label(demo):
    elements = Elements(get_page(demo).text).found

    labelled = {attributes.get("for") for tag, attributes in elements if tag == "label"}
    controls = [
        attributes
        for tag, attributes in elements
        if tag in ("input", "select", "textarea")
    ]
    assert len(controls) > 5
    for control in controls:
        assert control["in_label"] or control["id"] in labelled


def test_the_page_has_a_control_for_each_field_of_a_fault(demo):
    elements = Elements(get_page(demo).text).found

    ids = {attributes.get("id") for _, attributes in elements}
    assert {"path", *FAULT_DEFAULTS} <= ids


def test_the_page_has_the_routes_and_links_to_those_that_a_click_can_open(demo):
    page = get_page(demo)

    elements = Elements(page.text).found
    links = {attributes.get("href") for tag, attributes in elements if tag == "a"}
    for route in get_page(demo, accept="application/json").json["routes"]:
        path = route["path"].replace("<", "&lt;").replace(">", "&gt;")
        assert f"{path}<" in page.text
        if "GET" in route["methods"]:
            assert (path in links) == ("<" not in route["path"])


def test_the_page_uses_all_controls_and_none_that_does_not_exist(demo):
    page = get_page(demo)

    used = {path.rstrip("/") for path in re.findall(r"/mock[a-z/]*", page.text)}
    assert used == {
        "/mock",
        "/mock/state",
        "/mock/clock",
        "/mock/faults",
        "/mock/requests",
    }


def test_the_page_loads_nothing_from_elsewhere(demo):
    page = get_page(demo)

    for _, attributes in Elements(page.text).found:
        for name in ("src", "href", "action", "srcset"):
            target = attributes.get(name, "/")
            assert re.match(r"/(?!/)|#|data:|\?", target)
    assert "@import" not in page.text
    assert not re.search(r"url\(|https?://(?!www\.w3\.org/2000/svg)", page.text)


def test_the_page_tells_changes_to_screen_readers(demo):
    page = get_page(demo)

    assert "aria-live" in page.text
    assert page.mimetype == "text/html"
    assert page.headers["Cache-Control"] == "no-store"


def test_the_page_is_about_the_session_that_it_names(demo):
    page = get_page(demo, "/?session=worker-3")

    assert "<strong>worker-3</strong>" in page.text
    assert "the default session" not in page.text


@pytest.mark.parametrize("path", ["/", "/?session="])
@pytest.mark.parametrize("name", ["worker-3", "not a name!"])
def test_without_a_name_the_page_is_about_the_default_session(demo, path, name):
    named = {"Cookie": f"mock_session={name}", "X-Mock-Session": name}

    page = get_page(demo, path, **named)

    assert "the default session" in page.text
    assert name not in page.text


@pytest.mark.parametrize("name", ["a b", "<script>", "x" * 65])
def test_the_page_of_a_wrong_session_is_refused(demo, name):
    response = get_page(demo, f"/?session={name}")

    sentence = f"Session {MUST_BE_SESSION_NAME}"
    assert response.status_code == 400
    assert response.json == error_with({"session": sentence})


def test_the_page_is_json_for_clients_that_prefer_it(demo):
    response = get_page(demo, accept="text/html;q=0.8, application/json;q=0.9")
    html = get_page(demo, accept="text/html;q=0.9, application/json;q=0.8")

    assert html.mimetype == "text/html"
    assert response.json == demo.get("").json
    assert list(response.json) == ["name", "version", "routes"]
    assert response.json["name"] == "Inventory API"
    assert response.json["version"] == "1.0.0"
    paths = {}
    for route in response.json["routes"]:
        assert list(route) == ["methods", "path", "summary"]
        assert route["summary"].endswith(".")
        paths.setdefault(route["path"], set()).update(route["methods"])
    assert set(paths) == {rule.rule for rule in demo.app.url_map.iter_rules()}
    assert paths["/api/v1/items"] == {"GET", "POST"}
    assert paths["/api/v1/orders/<id>"] == {"GET", "PUT", "PATCH", "DELETE"}


# ----------------------------------------------------------------------
# Settings
# ----------------------------------------------------------------------


PORT_SENTENCE = "PORT must be an integer from 0 to 65535"
DELAY_SENTENCE = "DELAY must be an integer from 0 to 30000"
SEED_SENTENCE = (
    "SEED must be demo, a number of items up to 1000000, or the path of a .json file"
)
HOST_SENTENCE = "HOST must be an address of this machine"
PREFIX_SENTENCE = "API_PREFIX must be a path such as /api"
VERSION_SENTENCE = "API_VERSION must be a part of a path such as v1"
ORIGINS_SENTENCE = (
    "CORS_ORIGINS must be * or origins such as http://localhost:5173,"
    " separated by commas"
)

WRONG_SETTINGS = [
    ("host", "unix:///tmp/x", HOST_SENTENCE),
    ("port", "x", PORT_SENTENCE),
    ("port", 65536, PORT_SENTENCE),
    ("port", -1, PORT_SENTENCE),
    ("port", "5000.0", PORT_SENTENCE),
    ("delay", "200-800", DELAY_SENTENCE),
    ("delay", 30_001, DELAY_SENTENCE),
    ("seed", "many", SEED_SENTENCE),
    ("seed", "1000001", SEED_SENTENCE),
    ("seed", "20261128", SEED_SENTENCE),
    ("seed", "-1", SEED_SENTENCE),
    ("seed", ".json", SEED_SENTENCE),
    ("api_prefix", "api", PREFIX_SENTENCE),
    ("api_prefix", "/api/", PREFIX_SENTENCE),
    ("api_prefix", "/", PREFIX_SENTENCE),
    ("api_version", "a/b", VERSION_SENTENCE),
    ("api_version", "<id>", VERSION_SENTENCE),
    ("api_version", "..", VERSION_SENTENCE),
    ("cors_origins", "localhost:5173", ORIGINS_SENTENCE),
    ("cors_origins", "http://*", ORIGINS_SENTENCE),
    ("cors_origins", "http://a/", ORIGINS_SENTENCE),
    ("cors_origins", "http://a,*", ORIGINS_SENTENCE),
]


@pytest.mark.parametrize("name, value, sentence", WRONG_SETTINGS)
def test_a_wrong_setting_is_refused_with_its_name_and_value(name, value, sentence):
    with pytest.raises(inventory.SettingError) as refusal:
        create_app(**{name: value})

    assert str(refusal.value) == f"{sentence}, not {str(value)!r}"


def test_an_unknown_setting_is_refused():
    with pytest.raises(inventory.SettingError) as refusal:
        create_app(sed="demo")

    known = "host, port, seed, delay, cors_origins, api_prefix, api_version"
    assert str(refusal.value) == f"sed is not known here; allowed are {known}"


def test_the_settings_have_defaults():
    config = create_app().config

    assert (config["HOST"], config["PORT"], config["DELAY"]) == ("127.0.0.1", 5000, 0)


@pytest.mark.parametrize(
    "argument, count",
    [(None, 3), (2, 2), ("", 0)],  # an empty argument is the default: no rows
)
def test_an_argument_wins_over_the_environment(monkeypatch, argument, count):
    monkeypatch.setenv("SEED", "3")

    assert len(Api(seed=argument).get("/items").json) == count


def test_an_empty_variable_is_the_default(monkeypatch):
    monkeypatch.setenv("API_PREFIX", "")
    monkeypatch.setenv("DELAY", "")

    assert Api().get("/items").json == []


def test_a_prefix_moves_the_api():
    client = create_app(api_prefix="/a/b", api_version="v2").test_client()

    response = client.post("/a/b/v2/items", json={"name": "x"})

    assert response.headers["Location"] == "/a/b/v2/items/1"
    assert client.get("/a/b/v2/mock/requests").json[0]["path"] == "/items"
    assert client.get("/a/b/v2/openapi.json").json["servers"] == [{"url": "/a/b/v2"}]
    assert client.get("/api/v1/items").status_code == 404


def test_an_app_can_be_mounted_below_a_path_of_another():
    outer = DispatcherMiddleware(Flask("outer"), {"/mock": create_app(seed="demo")})
    client = Client(outer)

    created = client.post("/mock/api/v1/items", json={"name": "x"})
    page = client.get("/mock/api/v1/items?page=1").headers["Link"]
    description = client.get("/mock/api/v1/openapi.json").json
    missing = client.get("/mock/x").json["details"]["path"]

    assert created.headers["Location"] == "/mock/api/v1/items/13"
    assert page.startswith("</mock/api/v1/items?page=1>; ")
    assert description["servers"] == [{"url": "/mock/api/v1"}]
    assert missing == "/mock/x is no path here; the API is below /mock/api/v1"
    assert 'href="/mock/api/v1/items"' in client.get("/mock/").text


# ----------------------------------------------------------------------
# Seeds
# ----------------------------------------------------------------------


def test_the_demo_has_a_dozen_items_and_item_1_is_in_no_order(demo):
    rows = demo.get("/mock").json["rows"]
    assert (rows["items"], rows["orders"]) == (12, 3)
    assert len({row["status"] for row in demo.get("/items").json}) == 3

    demo.delete("/items/1")
    demo.delete("/items/2", status=409)


def test_the_lines_of_the_demo_name_items_and_quantities(demo):
    for order in demo.get("/orders").json:
        for line in order["items"]:
            assert list(line) == ["item_id", "quantity"]


def test_the_demo_is_the_same_every_time(demo):
    assert demo.get("/mock/state").data == Api(seed="demo").get("/mock/state").data
    rows = demo.get("/items").json + demo.get("/orders").json
    times = [row["created_at"] for row in rows]
    assert times[0] == "2026-01-05T09:30:00.000Z"
    assert times == sorted(set(times))


def test_generated_items_are_the_same_every_time():
    first = Api(seed="250").get("/items")

    assert first.data == Api(seed="250").get("/items").data
    names = [item["name"] for item in first.json]
    assert names[:4] == ["Blue lamp 1", "Green desk 2", "Red vase 3", "Blue mug 4"]
    last = first.json[-1]
    assert (last["id"], last["name"]) == ("250", "Blue desk 250")
    assert last["created_at"] == "2026-01-05T13:40:00.000Z"
    assert {row["status"] for row in first.json} == {"pending", "active", "completed"}
    assert len({row["quantity"] for row in first.json}) > 200


@pytest.mark.parametrize("byte_order_mark", [b"", b"\xef\xbb\xbf"])
def test_a_seed_file_has_the_form_of_a_state(tmp_path, byte_order_mark):
    file = tmp_path / "seed.json"
    item = {"name": "a", "id": "x", "created_at": "2026-01-01T10:30+01:00"}
    rows = {"items": [{**item, "quantity": 3.0}, {"name": "b"}]}
    file.write_bytes(byte_order_mark + json.dumps(rows).encode())
    began = datetime.now(UTC)

    api = Api(seed=str(file))

    given, filled_in = api.get("/items").json
    assert (given["id"], given["created_at"]) == ("x", NOW)
    assert '"quantity":3,' in api.get("/items").text
    created_at = datetime.fromisoformat(filled_in["created_at"])
    assert abs(created_at - began) < timedelta(minutes=1)
    assert filled_in["id"] == "1"
    state = api.get("/mock/state").data
    file.write_bytes(state)
    assert Api(seed=str(file)).get("/mock/state").data == state


@pytest.mark.parametrize(
    "content, problem",
    [
        (
            '{"items": [{"name": "a", "id": 1}, {}]}',
            f"items[0].id: {ROW_ID_WANTED}",
        ),
        (
            '{"items": [{"name": "a", "created_at": "yesterday"}]}',
            f"items[0].created_at: Created at {TIME_WANTED} or null",
        ),
        (
            '{"items": [{"name": "a", "quantity": 3.5}]}',
            f"items[0].quantity: {QUANTITY_SENTENCE}",
        ),
        ('{"items": [{}]}', "items[0].name: Name is required"),
        ("[]", "the file must be a JSON object"),
        ("{", "the file is not JSON: "),
        ("[" * 503 + "]" * 503, "the file must not be nested deeper than 502 levels"),
        ('{"item": []}', "item: item is not known here; allowed are items, orders"),
    ],
    ids=short,
)
def test_a_wrong_seed_file_is_refused_with_the_place(tmp_path, content, problem):
    file = tmp_path / "seed.json"
    file.write_text(content)

    with pytest.raises(inventory.SettingError) as refusal:
        create_app(seed=str(file))

    assert str(refusal.value).startswith(f"SEED {file}: {problem}")


@pytest.mark.parametrize(
    "path, problem",
    [
        ("no.json", "No such file or directory"),
        ("a\0.json", "embedded null byte"),  # a variable cannot have it, but arguments
    ],
)
def test_a_seed_file_that_cannot_be_read_is_refused(path, problem):
    with pytest.raises(inventory.SettingError) as refusal:
        create_app(seed=path)

    assert str(refusal.value) == f"SEED {path}: {problem}"


# ----------------------------------------------------------------------
# Running
# ----------------------------------------------------------------------


class Service:
    """The service as a process of its own, on a free port."""

    def __init__(self, stdout=subprocess.PIPE, command=("inventory",), **settings):
        # PYTHONUNBUFFERED would hide that a line is not flushed.
        environment = {**os.environ, "PORT": "0", "PYTHONUNBUFFERED": "", **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=HERE,
            env=environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.first_line = ""
        if stdout == subprocess.PIPE:
            self.first_line = self.process.stdout.readline()
        found = re.search(r":(\d+)/api", self.first_line)
        self.port = int(found[1]) if found else None

    def request(self, method, path, body=None, host="127.0.0.1"):
        """The response to a request for a path below /api/v1, with its text."""
        connection = http.client.HTTPConnection(host, self.port, timeout=10)
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        with closing(connection):
            connection.request(method, f"/api/v1{path}", data, headers)
            response = connection.getresponse()
            response.text = response.read().decode()
        return response

    def ask(self, method, path, body=None):
        """The value that a request is answered with, or None for no body."""
        text = self.request(method, path, body).text
        return json.loads(text) if text else None

    def send(self, sent):
        """The head and the body of what these bytes are answered with."""
        address = ("127.0.0.1", self.port)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(sent)
            answer = connection.makefile("rb").read().decode()
        head, _, body = answer.partition("\r\n\r\n")
        return head, body

    def end(self, signal_number=signal.SIGTERM):
        """End it, and return what it has printed since, and its exit status."""
        self.process.send_signal(signal_number)
        out, err = self.process.communicate(timeout=5)
        return out, err, self.process.returncode


@pytest.fixture
def start():
    """Start the service; whatever a test has started is ended after it."""
    services = []

    def start_one(**options):
        services.append(Service(**options))
        return services[-1]

    yield start_one
    for service in services:
        service.process.kill()
        service.process.communicate()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_logs_requests_and_ends_cleanly(start, signal_number):
    service = start(SEED="demo")
    line = rf"Inventory API listening on http://127\.0\.0\.1:{service.port}/api/v1\n"
    assert re.fullmatch(line, service.first_line)
    assert service.ask("GET", "")["name"] == "Inventory API"  # the address of the line
    assert len(service.ask("GET", "/items")) == 12
    service.ask("GET", "/mock/requests")
    service.ask("GET", "/mock")
    service.ask("GET", "/mock?x=1")
    service.ask("DELETE", "/mock/requests")
    service.ask("GET", "/mockups")  # not one of the controls

    out, err, status = service.end(signal_number)

    assert (err, status) == ("", 0)
    # Reads of the controls are not logged, because the page makes one each second.
    logged = []
    for line in out.splitlines():
        logged.append(re.sub(r"^\d\d/\w+/\d{4} \d\d:\d\d:\d\d ", "", line))
    assert logged == [
        "'GET /api/v1 HTTP/1.1' 200",
        "'GET /api/v1/items HTTP/1.1' 200",
        "'DELETE /api/v1/mock/requests HTTP/1.1' 204",
        "'GET /api/v1/mockups HTTP/1.1' 404",
    ]


def test_a_tag_is_the_same_after_a_restart(start, demo):
    service = start(SEED="demo")

    for path in TAGGED:
        assert service.request("GET", path).headers["ETag"] == tag(demo, path)


def test_it_ends_while_a_request_is_held(start):
    service = start()
    service.ask("POST", "/mock/faults", {"path": "/items", "hold": True})
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"GET /api/v1/items HTTP/1.1\r\n\r\n")
        wait_until(lambda: service.ask("GET", "/mock/requests"))

        _, err, status = service.end()
        assert (err, status) == ("", 0)


@pytest.mark.parametrize("after, rows", [(False, 0), (True, 1)])
def test_a_dropped_connection_has_no_answer(start, after, rows):
    service = start()
    fault = {"path": "/items", "drop": True, "after": after, "times": 2}
    service.ask("POST", "/mock/faults", fault)

    for method, body in [("POST", {"name": "lost"}), ("HEAD", None)]:
        with pytest.raises(ConnectionError):
            service.ask(method, "/items", body)

    entries = service.ask("GET", "/mock/requests")
    assert [entry["status"] for entry in entries] == [0, 0]
    assert entries[0]["body"] == {"name": "lost"}
    assert len(service.ask("GET", "/items")) == rows
    out, err, status = service.end()
    assert (err, status) == ("", 0)
    assert "'POST /api/v1/items HTTP/1.1' 0\n" in out


@pytest.mark.parametrize("command", [("inventory",), ("flask", "run", "--port=0")])
@pytest.mark.parametrize(
    "settings, line",
    [
        ({"DELAY": "x"}, f"inventory: {DELAY_SENTENCE}, not 'x'\n"),
        ({"SEED": "no.json"}, "inventory: SEED no.json: No such file or directory\n"),
    ],
)
def test_a_wrong_variable_is_reported_in_one_line(start, command, settings, line):
    service = start(command=command, FLASK_APP="inventory", **settings)

    _, err = service.process.communicate(timeout=10)

    assert (err, service.process.returncode) == (line, 1)
    assert "listening" not in service.first_line


def test_a_taken_port_is_reported_with_what_to_do(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = start(PORT=str(port))
        _, err = service.process.communicate(timeout=10)

    assert (service.first_line, service.process.returncode) == ("", 1)
    assert f"Port {port} is in use by another program" in err
    assert err.count("inventory: ") == 1
    assert f"HOST '127.0.0.1' with PORT {port} must be a free address" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "host",
    [
        "192.0.2.1",  # an address that nobody has: it is for documentation
        "::zz",
        "a..b",
        "x" * 64,  # longer than a part of a name can be
        "\udcff",  # a byte in the environment that is not UTF-8
        "a\0b",
        "ä ö",
    ],
)
def test_an_odd_host_is_reported_in_one_line(empty_app, host):
    with pytest.raises(SystemExit) as end:
        inventory.make_listening_server(empty_app, host, 0)

    line = str(end.value)
    must = (
        f"inventory: HOST {host!r} with PORT 0 must be a free address of this machine"
    )
    assert line.startswith(f"{must}: ")
    assert "\n" not in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_behind_stdout_does_not_stop_the_service(start):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with open("/dev/full", "w") as full:
        service = start(stdout=full, PORT=str(port))
    service.port = port

    def answers():
        with suppress(ConnectionError):
            return service.ask("GET", "/health")
        return None

    wait_until(answers)
    _, err, status = service.end()
    assert (err, status) == ("", 0)


def test_two_hundred_connections_are_taken_at_once(start):
    service = start()
    began = time.monotonic()
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda _: service.ask("GET", "/items"), range(200)))

    assert answers == [[]] * 200
    assert time.monotonic() - began < 5


def test_what_comes_in_pieces_or_is_not_http_is_answered_in_json(start):
    service = start()
    head = b"POST /api/v1/items HTTP/1.1\r\nContent-Type: application/json\r\n"
    # A piece is its length as a hexadecimal number, and then its bytes. The last is 0.
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"

    for sent, status in [
        (b"GET " + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (chunked + b"no length\r\n", 400),
        (chunked + b'd\r\n{"name": "x"}\r\n0\r\n\r\n', 201),
        (head + b"Content-Length: 0\r\n\r\n", 400),
    ]:
        answer, body = service.send(sent)
        assert answer.startswith(f"HTTP/1.1 {status} ")
        assert "application/json" in answer
        assert ("name" if status == 201 else "error") in json.loads(body)
    assert [row["name"] for row in service.ask("GET", "/items")] == ["x"]
    _, err, _ = service.end()
    assert err == ""


def test_paths_and_queries_may_be_utf_8_as_typed(start):
    service = start()
    service.ask("POST", "/items", {"name": "Café ü"})
    service.ask("POST", "/items", {"name": "Tea"})
    finds = []

    # é and ü as a terminal sends them, as a browser does, and both.
    for query in ("q=é".encode(), b"q=%C3%A9", "name=Caf%C3%A9%20ü".encode()):
        _, body = service.send(b"GET /api/v1/items?" + query + b" HTTP/1.1\r\n\r\n")
        finds.append(ids_of(json.loads(body)))
    _, body = service.send("GET /api/v1/ü HTTP/1.1\r\n\r\n".encode())

    assert finds == [["1"], ["1"], ["1"]]
    path = "/api/v1/ü is no path here; the API is below /api/v1"
    assert json.loads(body)["details"] == {"path": path}
    entries = service.ask("GET", "/mock/requests")
    assert entries[-1]["path"] == "/ü"
    out, _, _ = service.end()
    assert "'GET /api/v1/\\xc3\\xbc HTTP/1.1' 404" in out  # nothing for a terminal


def test_a_client_that_is_silent_is_let_go(empty_app):
    class Impatient(inventory.RequestHandler):
        timeout = 0.2  # seconds

    assert inventory.RequestHandler.timeout == 60
    api = Api("silent", empty_app)
    server = make_server(
        "127.0.0.1", 0, empty_app, threaded=True, request_handler=Impatient
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        for sent in (
            b"POST /api/v1/it",
            b"POST /api/v1/items HTTP/1.1\r\nX-Mock-Session: silent\r\n"
            b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
        ):
            address = ("127.0.0.1", server.port)
            with socket.create_connection(address, timeout=10) as connection:
                connection.sendall(sent)
                connection.makefile("rb").read()  # until the server closes it
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

    entry = api.get("/mock/requests").json[0]
    assert (entry["path"], entry["status"], entry["body"]) == ("/items", 400, None)
    assert entry["duration_ms"] >= 200
    assert api.get("/items").json == []


@pytest.mark.parametrize("host, shown", [("localhost", "127.0.0.1"), ("::1", "[::1]")])
def test_the_first_line_has_the_address_that_is_listened_on(start, host, shown):
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("needs IPv6")

    service = start(HOST=host)

    url = f"http://{shown}:{service.port}/api/v1"
    assert service.first_line == f"Inventory API listening on {url}\n"
    assert service.request("GET", "", host=shown.strip("[]")).status == 200


def test_flask_finds_the_service():
    run = [sys.executable, "-m", "flask", "--app", "inventory", "routes"]
    done = subprocess.run(run, cwd=HERE, capture_output=True, text=True, timeout=30)

    assert "/api/v1/items/<id>" in done.stdout


# ----------------------------------------------------------------------
# README
# ----------------------------------------------------------------------


def commands_of_readme():
    """The commands in the README with the answers that it shows."""
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    commands = []
    # A block that begins with "$ " has commands, each with the answer below it.
    for block in re.findall(r"```\n(\$ .*?)```", readme, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, answer = part.partition("\n")
            commands.append((command, answer))
    return commands


def without_what_varies(text):
    """A text with its times, durations, ports and the client's name made the same."""
    text = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text)
    text = re.sub(rf'"{TIME_PATTERN}"', '"TIME"', text)
    text = re.sub(r'"duration_ms":[\d.]+', '"duration_ms":0', text)
    text = re.sub(r'"user-agent":"[^"]*"', '"user-agent":"CURL"', text)
    return text.strip()


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_commands_in_the_readme_answer_as_it_shows(start):
    service = start(SEED="demo")
    commands = commands_of_readme()
    assert len(commands) >= 8

    for command, answer in commands:
        if command == "make run":
            came = service.first_line
        else:
            here = command.replace("127.0.0.1:5000", f"127.0.0.1:{service.port}")
            # Without a proxy, if the environment names one.
            here = here.replace("curl ", "curl --silent --noproxy '*' ")
            done = subprocess.run(
                here, shell=True, capture_output=True, text=True, timeout=30
            )
            came = done.stdout
        assert (command, without_what_varies(came)) == (
            command,
            without_what_varies(answer),
        )
