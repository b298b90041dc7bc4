"""What a client of the inventory service relies on, section by section in the words of the two modules."""

import gc
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

import inventory
from inventory import Settings, create_app, generated
from store import Fault, Item, Order, Row, Sessions, Snapshot, Store, StoreError, check

for each in fields(Settings):
    os.environ.pop(
        each.name.upper(), None
    )  # what the developer has set is not what is tested

NOW = "2026-01-01T09:30:00.000Z"
ORIGIN = "http://localhost:5173"


class Api:
    """A client for paths below the API's own: `api('worker-1: PUT /items/1 If-Match: "7"', {"quantity": 3})`.

    A body is JSON, unless it is bytes. What holds for every answer is asserted of whatever a test gets.
    """

    def __init__(self, **settings):
        self.app = create_app(**settings)

    def __call__(self, line, body=None, environ=None, **headers):
        session, method, path, name, value = re.fullmatch(
            r"(?:(.*?): )?([A-Z]+) (\S+)(?: ([\w-]+): (.*))?", line
        ).groups()
        data = (
            json.dumps(body).encode()
            if body is not None and not isinstance(body, bytes)
            else body
        )
        kind = None if body is None else "application/json"
        headers = {
            "Origin": ORIGIN,
            "X-Mock-Session": session,
            "Content-Type": kind,
        } | headers
        length = (
            {}
            if method in ("GET", "HEAD")
            else {"CONTENT_LENGTH": str(len(data or b""))}
        )  # as browsers do
        response = self.app.test_client(use_cookies=False).open(
            path if path == "/" else f"/api/v1{path}",
            method=method,
            data=data,
            environ_overrides=length | (environ or {}),
            headers=[
                each
                for each in (headers | {name: value}).items()
                if each[1] is not None
            ],
        )
        assert response.headers["Cache-Control"] == "no-store"
        if headers["Origin"] == ORIGIN:
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert (
                response.headers["Access-Control-Expose-Headers"]
                == "ETag, Link, Location, X-Total-Count"
            )
        if (
            threading.current_thread() is threading.main_thread()
            and '"injected": true' not in response.text
        ):
            assert_described(method, path, response)
        return response

    def state(self):
        return self("GET /mock/state").data


@cache
def description():
    """The API's own description, its references replaced by what they refer to."""
    text = create_app().test_client().get("/api/v1/openapi.json").text
    schemas = json.loads(text)["components"]["schemas"]
    while "$ref" in text:
        text = re.sub(
            r'{"\$ref": "#/components/schemas/(\w+)"}',
            lambda ref: json.dumps(schemas[ref[1]]),
            text,
        )
    return json.loads(text)


def assert_described(method, path, response):
    """Whatever a test gets from a resource route is what the description says."""
    template = re.sub(r"(?<=.)/[^/]+$", "/{id}", path.partition("?")[0].rstrip("/"))
    if operation := description()["paths"].get(template, {}).get(method.lower()):
        told = operation["responses"][str(response.status_code)]
        assert all(
            name in response.headers
            for name, each in told.get("headers", {}).items()
            if each["required"]
        )
        assert bool(response.data) == bool(response.content_type) == ("content" in told)
        for schema in [each["schema"] for each in told.get("content", {}).values()]:
            assert any(
                all(claim for *_, claim in check(each, response.json))
                for each in schema.get("anyOf", [schema])
            )


@pytest.fixture
def api():
    return Api()


@pytest.fixture
def demo():
    return Api(seed="demo")


KINDS = {  # by resource: two rows with what they need, a change, what the service fills in
    "items": (
        [{"name": "Mug"}, {"name": "Pot"}],
        {"quantity": 3},
        {"description": "", "status": "pending", "quantity": 0},
    ),
    "orders": (
        [
            {"internal_number": "A-1"},
            {"internal_number": "A-2", "items": [{"item_id": "2"}]},
        ],
        {"status": "sent"},
        {"status": "pending", "items": []},
    ),
}


@pytest.fixture(
    params=[(f"/{name}", rows[0], *others) for name, (rows, *others) in KINDS.items()],
    ids=KINDS,
)
def kind(request):
    """A resource: its path, what a row needs, a change, what the service fills in."""
    return request.param


@pytest.fixture
def stocked(tmp_path):
    """Two rows of each kind, from a file that has only what they need; order 2 names item 2."""
    file = tmp_path / "seed.json"
    file.write_text(json.dumps({name: rows for name, (rows, *_) in KINDS.items()}))
    return Api(seed=str(file))


def all_at_once(function):
    """Run a function in 16 threads that start together and are switched as often as can be."""
    before, barrier = sys.getswitchinterval(), threading.Barrier(16)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as pool:
            return list(
                pool.map(
                    lambda number: (barrier.wait(), function(number))[1], range(16)
                )
            )
    finally:
        sys.setswitchinterval(before)


# Stories


def refused(sentence, **details):
    return {"error": sentence, "details": details} if details else {"error": sentence}


TAKEN = "Internal number ORD-2026-001 is taken"
NUMBER_1 = {"internal_number": "ORD-2026-001"}
NAMED = "Item 7 is named by order 2"
INJECTED = refused("Service unavailable", injected=True)
FAULT = {"method": "*", "status": 503, "delay": 0, "times": 1, "after": False}
# {tag} in a request stands for the ETag of the answer before it, {tags[0]} for that of the first.
STORIES = {  # with the demo's rows: requests, maybe with a body, the status, what the answer has (...: what was sent)
    "health is told exactly": [
        ("GET /health", 200, {"status": "healthy", "version": "1.0.0"})
    ],
    "a removed row is gone, and its id is not used again": [
        ("POST /items", {"name": "x"}, 201, {"id": "13"}),
        ("DELETE /items/13", 204),
        ("GET /items/13", 404, refused("Item not found")),
        ("POST /items", {"name": "x"}, 201, {"id": "14"}),
    ],
    "only JSON is taken": [
        *(
            (f"POST /items{kind}", body, 415, refused("Unsupported media type"))
            for kind, body in (
                (" Content-Type: text/json", b"{}"),
                (" Content-Type: ", b"{}"),
                ("", None),
            )
        ),
        ("PATCH /items/1 Content-Type: application/merge-patch+json", {}, 200),
    ],
    "a row can be sent back as it was given": [
        (
            f"PUT /{name}/1",
            {"id": ["9"], "created_at": 5, "updated_at": {"x": 1}},
            200,
            {"id": "1", "created_at": at},
        )
        for name, at in (
            ("items", "2026-01-05T09:00:00.000Z"),
            ("orders", "2026-01-16T09:30:00.000Z"),
        )
    ],
    "what the rules allow is stored as it was sent": [
        (
            "POST /items",
            {
                "name": "x" * 255,
                "description": "\U0001f600" * 10_000,
                "quantity": 2**53 - 1,
            },
            201,
            ...,
        ),
        ("GET /items/13", 200, ...),
        (
            "PUT /items/1",
            {"name": " x ", "status": "completed", "quantity": 0},
            200,
            ...,
        ),
        ("PUT /items/1", {"name": "\u200b"}, 200, ...),
        ("PUT /items/1", {"name": "\ud800"}, 200, ...),
        (
            "POST /orders",
            {"internal_number": "x" * 50, "status": "x" * 50, "items": [{}] * 1000},
            201,
            ...,
        ),
        (
            "PUT /orders/1",
            {
                "items": [
                    {"note": {"deep": [1, -2.5, 1e300, None, True, "ü"]}},
                    {},
                    {"quantity": 1},
                ]
            },
            200,
            ...,
        ),
        ("GET /orders/1", 200, ...),
        ("POST /mock/faults", {"path": "/x", "status": 400, "delay": 30_000}, 201, ...),
        (
            "POST /mock/faults",
            {"path": "/" * 1000, "status": 599, "times": 2**53 - 1},
            201,
            ...,
        ),
    ],
    "no such row": [
        (f"{method} /{name}s/99", {}, 404, refused(f"{name.title()} not found"))
        for method in ("GET", "PUT", "PATCH", "DELETE")
        for name in ("item", "order")
    ],
    "no such route, and no such method": [
        *(
            (line, 404, refused("Resource not found"))
            for line in (
                "GET /x",
                "GET /x?_status=503",
                "GET /items//1",
                "GET /items/1/x",
            )
        ),
        ("PUT /items?_status=503", {}, 405, refused("Method not allowed")),
    ],
    "a trailing slash makes no difference": [
        ("GET /items/", 200, 12),
        ("GET /items/1/", 200, {"id": "1"}),
        ("PUT /orders/1/", {}, 200, {"id": "1"}),
    ],
    "an internal number is taken until it is free": [
        ("POST /orders", NUMBER_1, 409, refused(TAKEN, internal_number=TAKEN)),
        ("PATCH /orders/2", NUMBER_1, 409, refused(TAKEN, internal_number=TAKEN)),
        ("PATCH /orders/1", NUMBER_1, 200, {"status": "paid"}),
        ("PATCH /orders/1", {"internal_number": "other"}, 200),
        ("POST /orders", NUMBER_1, 201, {"items": []}),
        ("DELETE /orders/1", 204),
        ("POST /orders", {"internal_number": "other"}, 201, {"status": "pending"}),
    ],
    "an item stays as long as a line names it": [
        ("DELETE /items/7", 409, refused(NAMED, id=NAMED)),
        (
            "PATCH /orders/2",
            {"items": [{"item_id": "8"}]},
            200,
            {"items": [{"item_id": "8"}]},
        ),
        ("DELETE /items/7", 204),
        ("DELETE /orders/2", 204),
        ("DELETE /items/8", 204),
        ("DELETE /items/3", 409),
        ("DELETE /orders/1", 204),
        ("DELETE /items/3", 409),
        ("DELETE /orders/3", 204),
        ("DELETE /items/3", 204),
    ],
    "a tag protects a newer version": [
        ("GET /items/1", 200),
        ("PUT /items/1", {"quantity": 1}, 200),
        *(
            (
                f"{method} /items/1 If-Match: {{tags[0]}}",
                {"quantity": "x"},
                412,
                refused("Precondition failed"),
            )
            for method in ("PUT", "PATCH", "DELETE")
        ),
        ('PATCH /items/1 If-Match: "x", {tags[1]}', {}, 200),
        ("DELETE /items/1 If-Match: *", 204),
    ],
    "a known version is a 304": [
        step
        for path in ("/items", "/items/1", "/items?page=1", "/orders", "/orders/1")
        for step in [
            (f"GET {path}", 200),
            *(
                (f"GET {path} If-None-Match: {known}", 304)
                for known in ("{tag}", '"x", {tag}', "W/{tag}", "*")
            ),
            (f'GET {path} If-None-Match: "x"', 200),
            (f'GET {path} If-Match: "x"', 200),
        ]
    ],
    "sessions do not see each other": [
        ("a: POST /items", {"name": "a"}, 201, {"id": "13"}),
        ("b: POST /items", {"name": "b"}, 201, {"id": "13"}),
        ("a: PUT /mock/clock", {"now": NOW}, 200, {"now": NOW, "frozen": True}),
        (
            "a: POST /mock/faults",
            {"path": "*", "times": None},
            201,
            FAULT | {"path": "*", "times": None},
        ),
        ("GET /items", 200, 12),
        ("a: GET /items", 503, INJECTED),
        ("a: GET /mock/requests", 200, 2),
        ("b: GET /items", 200, 13),
        ("b: GET /mock/clock", 200, {"frozen": False}),
    ],
    "a session can be named by a cookie, and a header wins": [
        ("a: POST /items", {"name": "a"}, 201),
        ("GET /items Cookie: mock_session=a", 200, 13),
        ("GET /items Cookie: x=y; mock_session=a; z=1", 200, 13),
        ("GET /items Cookie: not_mock_session=a", 200, 12),
        ("b: GET /items Cookie: mock_session=a", 200, 12),
    ],
    "the least recently used of 256 sessions goes, and the default one stays": [
        ("POST /items", {"name": "x"}, 201),
        *((f"{name}: POST /items", {"name": "x"}, 201) for name in range(256)),
        ("0: GET /items", 200, 13),
        ("one-more: GET /items", 200, 12),
        ("GET /items", 200, 13),
        *((f"{name}: GET /items", 200, 13) for name in (0, 2, 255)),
        ("1: GET /items", 200, 12),
    ],
    "a state is put, and what is missing in it filled in": [
        ("PUT /mock/clock", {"now": NOW}, 200),
        (
            "PUT /mock/state",
            {
                "items": [
                    {"name": "a"},
                    {"name": "b", "id": "7", "created_at": None},
                    {"name": "c", "id": "x-1"},
                ],
                "orders": [
                    {
                        "internal_number": "A",
                        "items": [{"item_id": "8"}],
                        "updated_at": NOW,
                    }
                ],
            },
            204,
        ),
        (
            "GET /items",
            200,
            [
                {"id": id, "created_at": NOW, "updated_at": None}
                for id in ("8", "7", "x-1")
            ],
        ),
        ("GET /orders", 200, [{"id": "1", "status": "pending", "updated_at": NOW}]),
        ("DELETE /items/8", 409),
        ("GET /mock/clock", 200, {"frozen": True}),
        ("GET /mock/requests", 200, 3),
        ("PUT /mock/state", {}, 204),
        ("GET /mock/state", 200, {"items": [], "orders": []}),
    ],
    "the next id follows the largest of 15 digits": [
        step
        for given, following in [
            ([None, "9" * 15], f"{10**15 + 1}"),
            ([f"{10**15 + 1}", None, "9" * 15], f"{10**15 + 2}"),
            ([f"{10**15}", "3"], "4"),
            (["a"], "1"),
            (["007"], "8"),
        ]
        for step in [
            (
                "PUT /mock/state",
                {"items": [{"name": "x", "id": id} for id in given]},
                204,
            ),
            ("POST /items", {"name": "x"}, 201, {"id": following}),
        ]
    ],
    "a reset brings everything back": [
        ("DELETE /items/1", 204),
        ("POST /items", {"name": "x"}, 201),
        ("PUT /mock/clock", {"now": NOW}, 200),
        ("POST /mock/faults", {"path": "/x"}, 201),
        ("DELETE /mock/state", 204),
        ("DELETE /mock/state", 204),
        ("GET /mock/clock", 200, {"frozen": False}),
        ("GET /mock/faults", 200, 0),
        ("GET /mock/requests", 200, 0),
        ("GET /items", 200, 12),
        ("GET /items/1", 200),
        ("POST /items", {"name": "x"}, 201, {"id": "13"}),
    ],
    "a fault makes the next requests fail and is gone": [
        (
            "POST /mock/faults",
            {"path": "/orders", "method": "POST", "times": 2},
            201,
            FAULT | {"path": "/orders", "method": "POST", "times": 2},
        ),
        ("POST /orders", {"internal_number": "A"}, 503, INJECTED),
        ("GET /orders", 200, 3),
        ("POST /orders", {"internal_number": "A"}, 503, INJECTED),
        ("GET /mock/faults", 200, 0),
        ("POST /orders", {"internal_number": "A"}, 201, {"id": "4"}),
        ("GET /mock/requests", 200, 4),
    ],
    "the first fault that fits is used": [
        ("POST /mock/faults", {"path": "/items/?", "status": 500}, 201),
        ("POST /mock/faults", {"path": "/items*", "status": 502, "times": None}, 201),
        ("POST /mock/faults", {"path": "*", "method": "DELETE", "status": 499}, 201),
        ("GET /items/1/", 500, refused("Internal server error", injected=True)),
        ("GET /items/1", 502, refused("Bad gateway", injected=True)),
        ("GET /orders", 200, 3),
        ("DELETE /orders/1", 499, refused("Status 499", injected=True)),
        ("GET /items", 502, refused("Bad gateway", injected=True)),
        ("GET /mock/faults", 200, 1),
        ("DELETE /mock/faults", 204),
        ("GET /items", 200, 12),
    ],
    "a fault after carries the request out": [
        (
            "POST /mock/faults",
            {"path": "/items", "after": True, "status": 504},
            201,
            {"after": True},
        ),
        ("POST /items", {"name": "x"}, 504, refused("Gateway timeout", injected=True)),
        ("GET /items/13", 200, {"name": "x"}),
    ],
    "the journal keeps 500 requests": [
        *((f"GET /items/1?_={number}", 200) for number in range(501)),
        (
            "GET /mock/requests",
            200,
            [{"query": f"_={number}"} for number in range(1, 501)],
        ),
    ],
    "a fault meets unknown paths but not the controls": [
        ("POST /mock/faults", {"path": "*", "times": None}, 201),
        ("GET /payments", 503, INJECTED),
        *((f"GET {path}", 200) for path in ("/health", "/mock/state", "/openapi.json")),
        ("GET /mock/requests", 200, 1),
    ],
    "one request asks for an error, the last it names, and uses up no fault": [
        ("POST /mock/faults", {"path": "*"}, 201),
        (
            "POST /items?_status=400&_status=418",
            {"name": "x"},
            418,
            refused("I'm a teapot", injected=True),
        ),
        ("GET /items?_status=400", 400, refused("Bad request", injected=True)),
        ("GET /items?_status=599", 599, refused("Status 599", injected=True)),
        ("GET /items", 503, INJECTED),
        ("GET /items", 200, 12),
    ],
}


def has(seen, told):
    """Whether an answer has what is told of it: these entries, these elements, or so many of them."""
    if isinstance(told, list):
        return len(seen) == len(told) and all(map(has, seen, told))
    return len(seen) == told if isinstance(told, int) else seen.items() >= told.items()


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_it_goes_as_the_story_tells(demo, story):
    sent, tags = None, []
    for line, *rest in story:
        body = None if isinstance(rest[0], int) else rest.pop(0)
        status, told = (*rest, None)[:2]
        sent, unchanged = body or sent, status in (400, 404, 405, 409, 412, 415)
        before = (
            unchanged and demo.state()
        )  # not always: it would keep the default session in use

        response = demo(line.format(tags=tags, tag=tags and tags[-1]), body)

        tags.append(response.headers.get("ETag"))
        told = sent if told is ... else told
        assert (line, response.status_code) == (line, status)
        assert told is None or (
            has(response.json, told) if status < 400 else response.json == told
        )
        assert not unchanged or demo.state() == before


# Resources


def test_a_created_row_is_answered_whole_in_the_order_of_its_fields(api, kind):
    path, needed, _, filled = kind
    api("PUT /mock/clock", {"now": NOW})

    response = api(f"POST {path}", needed)

    assert (response.status_code, response.headers["Location"]) == (
        201,
        f"/api/v1{path}/1",
    )
    assert list(response.json.items()) == list(
        (
            {"id": "1"} | needed | filled | {"created_at": NOW, "updated_at": None}
        ).items()
    )
    assert api(f"GET {path}/1").data == response.data


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_merges_and_tells_when_even_if_it_is_empty(stocked, kind, method):
    path, _, change, _ = kind
    for fields_, now in ((change, NOW), ({}, "2026-01-02T00:00:00.000Z")):
        before = stocked(f"GET {path}/1").json
        stocked("PUT /mock/clock", {"now": now})

        response = stocked(f"{method} {path}/1", fields_)

        assert (response.status_code, response.json) == (
            200,
            before | fields_ | {"updated_at": now},
        )
        assert stocked(f"GET {path}/1").data == response.data


def test_head_answers_as_get_without_a_body(stocked, kind):
    for path in (kind[0], f"{kind[0]}/1"):
        get, head = stocked(f"GET {path}"), stocked(f"HEAD {path}")
        assert (head.status_code, head.data, head.headers) == (200, b"", get.headers)


# Refusals

WHOLE = "Quantity must be an integer from 0 to 9007199254740991"
STATUS = "Status must be one of pending, active, completed"
NUMBER = "Internal number must be a string of 1 to 50 characters, not all blank"
UNKNOWN = "is not known here; allowed are id, name, description, status, quantity, created_at, updated_at"
SPACES = "".join(filter(str.isspace, map(chr, range(0x110000))))
REFUSALS = [  # a request, its body, and its problems by their places, whole or as a regular expression
    ("POST /items", {}, {"name": "Name is required"}),
    *(
        (
            "POST /items",
            {"name": name},
            {"name": "Name must be a string of 1 to 255 characters, not all blank"},
        )
        for name in ("", SPACES, "x" * 256, None, 5)
    ),
    *(
        ("PATCH /items/1", {"quantity": n}, {"quantity": WHOLE})
        for n in (-1, 2**53, True, 3.0, "3", None)
    ),
    (
        "POST /items",
        {
            "z": 1,
            "quantity": "3",
            "status": "Active",
            "a": 2,
            "description": "x" * 10_001,
        },
        {
            "name": "Name is required",
            "description": "Description must be a string of at most 10000 characters",
            "status": STATUS,
            "quantity": WHOLE,
            "z": f"z {UNKNOWN}",
            "a": f"a {UNKNOWN}",
        },
    ),
    (
        "POST /items",
        {str(n): 1 for n in range(101)},
        {"name": "Name is required", **{str(n): ".*" for n in range(99)}},
    ),
    (
        "POST /orders",
        {"internal_number": "x" * 51, "status": " "},
        {
            "internal_number": NUMBER,
            "status": NUMBER.replace("Internal number", "Status"),
        },
    ),
    *(
        (
            "PUT /orders/1",
            {"items": lines},
            {"items": "Items must be an array of at most 1000 elements"},
        )
        for lines in ({}, [{}] * 1001)
    ),
    (
        "POST /orders",
        {
            "internal_number": "",
            "items": [{"item_id": "99"}, 5, {"item_id": 1, "quantity": 0}],
        },
        {
            "internal_number": NUMBER,
            "items[0].item_id": "Item id must be the id of one of the items",
            "items[1]": "Items[1] must be an object",
            "items[2].item_id": "Item id must be a string",
            "items[2].quantity": "Quantity must be an integer from 1 to 9007199254740991",
        },
    ),
    *(
        (f"GET /items?{query}", None, details)
        for query, details in [
            (
                "statuss=x",
                {
                    "statuss": "statuss is not known here; allowed are id, id_ne, .*, q, sort, page, per_page"
                },
            ),
            ("items=x", {"items": "items is not .*"}),
            ("quantity_like=1", {"quantity_like": "quantity_like is not .*"}),
            *(
                (f"quantity={n}", {"quantity": "Quantity must be an integer"})
                for n in ("abc", "1.0&quantity=2", "%D9%A1")
            ),
            ("quantity_gt=", {"quantity_gt": "Quantity gt must be an integer"}),
            ("status=bogus", {"status": STATUS}),
            (
                "sort=size",
                {
                    "sort": "Sort must be a comma-separated list of id, name, .*, with - before one to descend"
                },
            ),
            ("sort=", {"sort": "Sort must .*"}),
            ("page=0", {"page": "Page must be an integer of at least 1"}),
            (
                "per_page=1001",
                {"per_page": "Per page must be an integer from 1 to 1000"},
            ),
            (
                "page=x&per_page=0&z=1",
                {"page": "Page .*", "per_page": "Per page .*", "z": "z is .*"},
            ),
            *(
                (query, {"query": "Query must be percent-encoded UTF-8"})
                for query in ("q=%ff", "q=100%")
            ),
        ]
    ),
    *(
        (
            f"POST /items?_status={each}",
            {"name": "x"},
            {"_status": "Status must be an integer from 400 to 599"},
        )
        for each in ("200", "600", "abc")
    ),
    *(
        (
            f"POST /items?_delay={each}",
            {"name": "x"},
            {"_delay": "Delay must be an integer from 0 to 30000"},
        )
        for each in ("-1", "30001", "")
    ),
    *(
        (
            f"GET /items {header}{name}",
            None,
            {place: f"{label} must be 1 to 64 of the characters A-Z a-z 0-9 . _ -"},
        )
        for header, place, label in [
            ("X-Mock-Session: ", "X-Mock-Session", "X-Mock-Session"),
            ("Cookie: a=b; mock_session=", "mock_session", "Mock session"),
        ]
        for name in ("", "a b", "x" * 65, "ä", "a\u00b2")
    ),
    (
        "POST /items?_delay=x&_status=9",
        {"name": "x"},
        {"_delay": "Delay must .*", "_status": "Status must .*"},
    ),
    *(
        ("POST /mock/faults", body, dict.fromkeys(places, ".*"))
        for body, places in [
            ({}, ["path"]),
            ({"path": "items"}, ["path"]),
            ({"path": "/" * 1001}, ["path"]),
            ({"path": "*", "method": "post"}, ["method"]),
            ({"path": "*", "status": 399}, ["status"]),
            ({"path": "*", "status": 600}, ["status"]),
            ({"path": "*", "delay": 30_001, "times": 0}, ["delay", "times"]),
            (
                {"path": "*", "times": 2**53, "after": 1, "delay": None, "x": 1},
                ["delay", "times", "after", "x"],
            ),
            ({"path": "*", "after": True, "status": None}, ["after"]),
        ]
    ),
    ("PUT /mock/clock", {}, {"now": "Now is required"}),
    *(
        (
            "PUT /mock/clock",
            {"now": moment},
            {"now": "Now must be a UTC time such as 2026-01-01T09:30:00.000Z"},
        )
        for moment in (
            "2026-01-01T09:30:00Z",
            "2026-01-01T09:30:00.000",
            "2026-01-01 09:30:00.000Z",
            "",
            5,
            None,
            "2026-02-29T00:00:00.000Z",
            "0000-01-01T00:00:00.000Z",
            "2026-01-01T24:00:00.000Z",
            "2026-01-01T00:00:00.000+00:00",
            "2026-01-01T09:30:00.000Z\n",
        )
    ),
    (
        "PUT /mock/state",
        {
            "items": [
                {"name": "a", "id": "1"},
                {"id": ".."},
                5,
                {"name": "e", "id": [1]},
                {"name": "d", "id": "1", "created_at": "2026-02-30T00:00:00.000Z"},
            ],
            "orders": [
                {
                    "internal_number": "A",
                    "items": [{"item_id": "1"}, {"item_id": "99"}],
                },
                {"internal_number": "A", "id": "1", "x": 1},
            ],
            "customers": [],
        },
        {
            "items[1].id": "Id must be .*, but not . or ..",
            "items[1].name": "Name is required",
            "items[2]": "Items[2] must be an object",
            "items[3].id": "Id must .*",
            "items[4].id": "Id 1 is taken",
            "items[4].created_at": "Created at must .*",
            "orders[0].items[1].item_id": "Item id must .*",
            "orders[1].internal_number": "Internal number A is taken",
            "orders[1].x": "x is .*",
            "customers": ".*",
        },
    ),
    (
        "PUT /mock/state",
        {"items": 5, "orders": [{"internal_number": "A", "items": [{"item_id": "1"}]}]},
        {
            "items": "Items must be an array",
            "orders[0].items[0].item_id": "Item id must .*",
        },
    ),
    *(
        (line, body, {"body": reason})
        for line in ("POST /items", "PUT /orders/1", "PUT /mock/state")
        for body, reason in [
            (b"", "Body is not JSON: Expecting value: .*"),
            (b'{"name": "x"', "Body is not JSON: .*"),
            (b'{"name": "\xff"}', "Body is not JSON: .*utf-8.*"),
            *(
                (
                    b'{"x": %b}' % n.encode(),
                    f"Body is not JSON: {n[:20]} is not a number that a double can hold",
                )
                for n in ("NaN", "-Infinity", "1e400", "9" * 5000)
            ),
            (b"[" * 100_000, "Body is not JSON: maximum recursion depth exceeded .*"),
            *(
                (body, "Body must be a JSON object")
                for body in (b"null", b'"text"', b"[]", b"1")
            ),
        ]
    ),
]


@pytest.mark.parametrize("line, body, details", REFUSALS)
def test_what_is_wrong_is_all_told_by_its_place_and_changes_nothing(
    demo, line, body, details
):
    before = (
        demo.state(),
        demo("GET /mock/faults").json,
        demo("GET /mock/clock").json["frozen"],
    )

    response = demo(line, body)

    told = response.json["details"]
    assert (response.status_code, list(told)) == (400, list(details))
    assert all(
        told[place] == each or re.fullmatch(each, told[place])
        for place, each in details.items()
    )
    assert response.json["error"] == (
        "Bad request" if "body" in details else told[next(iter(details))]
    )
    assert (
        demo.state(),
        demo("GET /mock/faults").json,
        demo("GET /mock/clock").json["frozen"],
    ) == before


# Lists


@pytest.fixture
def shelf(api):
    """Items 1 to 12: 10 has the quantity of 2, 3 has been changed, 11 and 12 are the only ones described."""
    more = {
        3: {"updated_at": "2026-02-01T00:00:00.000Z"},
        11: {"description": "Straße"},
        12: {"description": "a.*b"},
    }
    api(
        "PUT /mock/state",
        {
            "items": [
                {
                    "name": f"n{n}",
                    "quantity": n % 8,
                    "status": "active" if n % 3 else "pending",
                    "created_at": NOW,
                }
                | more.get(n, {})
                for n in range(1, 13)
            ]
        },
    )
    return api


@pytest.mark.parametrize(
    "query, expected",
    [
        ("", "1 2 3 4 5 6 7 8 9 10 11 12"),
        ("_=123&_x", "1 2 3 4 5 6 7 8 9 10 11 12"),
        ("status=pending", "3 6 9 12"),
        ("quantity=2&quantity=7", "2 7 10"),
        ("id=10", "10"),
        ("name=n", ""),
        ("description=", "1 2 3 4 5 6 7 8 9 10"),
        ("quantity_ne=1&quantity_ne=2", "3 4 5 6 7 8 11 12"),
        ("updated_at=", "1 2 4 5 6 7 8 9 10 11 12"),
        ("updated_at_ne=", "3"),
        ("updated_at_ne=2026-02-01T00:00:00.000Z", "1 2 4 5 6 7 8 9 10 11 12"),
        ("quantity_gt=5", "6 7"),
        ("quantity_gte=5&quantity_gte=6", "6 7"),
        ("quantity_lt=1", "8"),
        ("quantity_lte=1&quantity_lte=7", "1 8 9"),
        ("quantity_gte=-1&quantity_lt=0", ""),
        ("id_gt=9", "10 11 12"),
        ("id_lte=2", "1 2"),
        ("name_gt=n8", "9"),
        ("updated_at_gt=2000", "3"),
        ("updated_at_lt=3000", "3"),
        ("updated_at_like=", "3"),
        ("name_like=N1", "1 10 11 12"),
        ("name_like=1&name_like=2", "12"),
        ("description_like=.*", "12"),
        ("q=STRASSE", "11"),
        ("q=Stra%C3%9Fe", "11"),
        ("q=Stra\xc3\x9fe", "11"),
        ("q=pend", "3 6 9 12"),
        ("q=n1&q=2", "12"),
        ("sort=-id", "12 11 10 9 8 7 6 5 4 3 2 1"),
        ("sort=name&sort=-id&id_gt=10", "12 11"),
        ("sort=quantity", "8 1 9 2 10 3 11 4 12 5 6 7"),
        ("sort=-quantity", "7 6 5 4 12 3 11 2 10 1 9 8"),
        ("sort=-status,-quantity", "6 12 3 9 7 5 4 11 2 10 1 8"),
        ("sort=updated_at", "1 2 4 5 6 7 8 9 10 11 12 3"),
        ("sort=-updated_at", "3 1 2 4 5 6 7 8 9 10 11 12"),
    ],
)
def test_a_list_is_filtered_sorted_and_counted(shelf, query, expected):
    response = shelf("GET /items", environ={"QUERY_STRING": query})

    assert " ".join(row["id"] for row in response.json) == expected
    assert response.headers["X-Total-Count"] == str(len(response.json))
    assert "Link" not in response.headers


@pytest.mark.parametrize(
    "query, expected",
    [
        ("page=1", "1 2 3 4 5 6 7 8 9 10, page 1 by 10 of 12: first=1 next=2 last=2"),
        (
            "page=x&page=2&per_page=0&per_page=5",
            "6 7 8 9 10, page 2 by 5 of 12: first=1 prev=1 next=3 last=3",
        ),
        ("page=3&per_page=5", "11 12, page 3 by 5 of 12: first=1 prev=2 last=3"),
        ("page=99&per_page=5", ", page 99 by 5 of 12: first=1 prev=3 last=3"),
        (
            "status=pending&sort=-id&per_page=3",
            "12 9 6, page 1 by 3 of 4: first=1 next=2 last=2",
        ),
        ("per_page=5&id=99", ", page 1 by 5 of 0: first=1 last=1"),
        (f"page={10**30}", f", page {10**30} by 10 of 12: first=1 prev=2 last=2"),
    ],
)
def test_a_page_comes_in_an_envelope_with_links(shelf, query, expected):
    response = shelf(f"GET /items?{query}&name_like=n")

    page, links = (
        response.json,
        re.findall(r'<(.*?)[?&]page=([0-9]+)>; rel="(\w+)"', response.headers["Link"]),
    )
    outline = "{}, page {page} by {per_page} of {total}:".format(
        " ".join(row["id"] for row in page["data"]), **page
    )
    assert (
        " ".join([outline, *(f"{rel}={number}" for _, number, rel in links)])
        == expected
    )
    assert list(page) == ["data", "total", "page", "per_page"]
    assert response.headers["X-Total-Count"] == str(page["total"])
    assert all(
        path.startswith("/api/v1/items?") and "name_like=n" in path
        for path, *_ in links
    )


# Conditional requests


def test_a_change_gives_new_tags_to_the_row_and_its_list_only(stocked, kind):
    path, lists = kind[0], [f"/{name}" for name in KINDS]
    before = {
        each: stocked(f"GET {each}").headers["ETag"]
        for each in (f"{path}/1", f"{path}/2", *lists)
    }

    written = stocked(f"PATCH {path}/1 If-None-Match: *", kind[2])

    after = {each: stocked(f"GET {each}").headers["ETag"] for each in before}
    assert {each for each in before if before[each] != after[each]} == {
        path,
        f"{path}/1",
    }
    assert written.headers["ETag"] == after[f"{path}/1"]
    stocked(f"DELETE {path}/1")
    assert stocked(f"GET {path}").headers["ETag"] != after[path]


def test_a_tag_never_comes_back_for_other_content(demo):
    seen = {}
    for name in ("a", "b", "a"):
        for quantity in (1, 2):
            demo(f"{name}: PUT /items/1", {"quantity": quantity})
            for path in ("/items", "/items/1", "/items/2", "/orders", "/orders/1"):
                response = demo(f"{name}: GET {path}")
                assert seen.setdefault(
                    response.headers["ETag"], (path, response.data)
                ) == (path, response.data)
        demo(f"{name}: DELETE /mock/state")


# Errors


def test_a_line_too_deep_to_be_written_is_a_400_or_comes_back(api):
    responses = [
        api(
            "POST /orders",
            b'{"internal_number": "%d", "items": [{"x": %b%b}]}'
            % (depth, b"[" * depth, b"]" * depth),
        )
        for depth in (10, *range(700, 1100), 100_000)
    ]  # some can just be read, and not be written

    assert {each.status_code: each.json.get("error") for each in responses} == {
        201: None,
        400: "Bad request",
    }
    assert (
        api("GET /mock/requests").status_code == api("GET /orders").status_code == 200
    )


@pytest.mark.parametrize(
    "line, size, status",
    [
        ("POST /items", 2**20, 201),
        ("POST /items", 2**20 + 1, 413),
        ("POST /items", 2**20 + 2, 413),
        ("PUT /items/1", 2**21, 413),
        ("PUT /mock/state", 2**21, 400),
        ("PUT /mock/state", 2**26 + 1, 413),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_has_one_mebibyte_at_most_and_a_state_64(
    api, line, size, status, chunked
):
    environ = {
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input_terminated": True,
        "CONTENT_LENGTH": "",
    }

    response = api(
        line, b'{"name": "x"}'.ljust(size), environ=environ if chunked else None
    )

    assert response.status_code == status
    assert status != 413 or response.json == {"error": "Request body too large"}


def test_a_bug_is_a_500_whose_traceback_is_logged_and_not_sent(api, caplog):
    api.app.add_url_rule("/api/v1/bug", view_func=lambda: 1 // 0)

    response = api("GET /bug")

    assert (response.status_code, response.json) == (
        500,
        {"error": "Internal server error"},
    )
    assert "ZeroDivisionError" in caplog.text


def test_of_several_errors_the_first_in_the_order_is_told(demo):
    wrong = {
        "session": "!",
        "path": "/nowhere?_status=503",
        "kind": "x",
        "body": b" " * (2**20 + 1),
        "tag": '"x"',
    }
    for mended, status, error in [
        ({}, 404, "Resource not found"),
        ({"path": "/orders?_status=503"}, 405, "Method not allowed"),
        ({"path": "/orders/99?_status=503"}, 400, "X-Mock-Session must be .*"),
        ({"session": "ok"}, 503, "Service unavailable"),
        ({"path": "/orders/99"}, 413, "Request body too large"),
        ({"body": b"{"}, 415, "Unsupported media type"),
        ({"kind": "application/json"}, 400, "Bad request"),
        ({"body": NUMBER_1 | {"x": 1}}, 404, "Order not found"),
        ({"path": "/orders/2"}, 412, "Precondition failed"),
        ({"tag": "*"}, 400, "x is not known here; .*"),
        ({"body": NUMBER_1}, 409, TAKEN),
    ]:
        wrong |= mended
        response = demo(
            "{session}: PUT {path} If-Match: {tag}".format(**wrong),
            wrong["body"],
            **{"Content-Type": wrong["kind"]},
        )
        assert (
            response.status_code,
            bool(re.fullmatch(error, response.json["error"])),
        ) == (status, True)


def test_options_and_a_wrong_method_are_told_the_allowed_ones(api):
    options, wrong = api("OPTIONS /items"), api("PUT /items", {})

    for response in (options, wrong):
        assert set(response.headers["Allow"].split(", ")) == {
            "GET",
            "HEAD",
            "POST",
            "OPTIONS",
        }
    assert (options.status_code, options.content_type, options.data) == (200, None, b"")
    assert api("OPTIONS /nowhere").status_code == 404
    assert [each["method"] for each in api("GET /mock/requests").json] == [
        "OPTIONS",
        "PUT",
        "OPTIONS",
    ]


# CORS


@pytest.mark.parametrize(
    "path", ["/items", "/items/1", "/nowhere", "/mock/state", "/items/?x=1"]
)
def test_a_preflight_succeeds_on_any_path_with_any_header(api, path):
    response = api(
        f"OPTIONS {path}",
        **{
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "if-match, x-anything",
        },
    )

    told = {
        name.removeprefix("Access-Control-"): value for name, value in response.headers
    }
    assert (response.status_code, told["Allow-Headers"]) == (
        200,
        "if-match, x-anything",
    )
    assert (told["Allow-Origin"], told["Allow-Credentials"], told["Max-Age"]) == (
        ORIGIN,
        "true",
        "600",
    )
    assert "PATCH" in told["Allow-Methods"]


@pytest.mark.parametrize(
    "setting, allowed, others",
    [
        (
            None,
            ["http://localhost:5173", "http://localhost:5177"],
            [None, "http://localhost:5178", "http://localhost:51733", "http://a.b"],
        ),
        ("*", ["http://a.b"], [None]),
        (
            "http://[::1]:80, http://b.c",
            ["http://[::1]:80", "http://b.c"],
            ["http://bxc", "http://b.c.evil", "http://:80"],
        ),
    ],
)
def test_only_the_origins_of_the_setting_are_allowed(setting, allowed, others):
    api = Api(cors_origins=setting)

    seen = [
        api("GET /items", Origin=each).headers.get("Access-Control-Allow-Origin")
        for each in allowed + others
    ]

    assert seen == allowed + [None] * len(others)


# Threads


def test_what_leaves_the_store_cannot_be_changed():
    for model in (Item, Order, Row, Snapshot, Fault):
        with pytest.raises(
            FrozenInstanceError
        ):  # __new__: an instance of any of them, without its arguments
            setattr(model.__new__(model), fields(model)[0].name, None)
    assert isinstance(Store(generated(1)).state()["items"].rows, tuple)


def test_ids_are_unique_and_no_row_is_lost(api):
    made = all_at_once(
        lambda _: [api("POST /items", {"name": "x"}).json["id"] for _ in range(20)]
    )

    assert sorted(int(id) for ids in made for id in ids) == list(range(1, 321))
    assert len(api("GET /items").json) == 320


def done(attempt, names):
    """What 16 threads could do, each attempting it with each name."""

    def run(number):
        for name in names:
            with suppress(StoreError):
                attempt(number, name)
                yield name

    return sorted(
        name for names in all_at_once(lambda number: [*run(number)]) for name in names
    )


def test_of_racing_orders_one_gets_the_number():
    store, numbers = Store(generated(0)), [str(number) for number in range(300)]

    made = done(
        lambda _, number: store.create("orders", {"internal_number": number}), numbers
    )

    assert made == sorted(numbers)


def test_of_racing_changes_with_one_tag_one_wins():
    store = Store(generated(200))
    store.frozen = NOW
    tags = {row.record.id: str(row.version) for row in store.state()["items"].rows}

    won = done(
        lambda number, id: store.update("items", id, {"quantity": number}, {tags[id]}),
        tags,
    )

    assert won == sorted(tags)


def test_an_order_never_names_an_item_that_is_gone():
    stores = [Store(generated(20)) for _ in range(50)]

    def create_or_delete(number, place):
        store, id = stores[place % 50], str(1 + place // 50)
        if number % 2:
            store.delete("items", id)
        else:
            store.create(
                "orders",
                {"internal_number": f"{id}-{number}", "items": [{"item_id": id}]},
            )

    done(create_or_delete, range(1000))
    for store in stores:
        items, orders = (
            table.rows for table in store.state("items", "orders").values()
        )
        assert {row.record.items[0]["item_id"] for row in orders} == {
            row.record.id for row in items
        }


def test_a_fault_strikes_as_often_as_it_says(api):
    for _ in range(40):
        api("POST /mock/faults", {"path": "/items", "times": 2})
        assert all_at_once(lambda _: api("GET /items").status_code).count(503) == 2


def test_a_session_begins_once():
    sessions = [Sessions(generated(0)) for _ in range(20)]

    stores = all_at_once(
        lambda _: [each.get(str(name)) for each in sessions for name in range(250)]
    )

    assert all(len(set(each)) == 1 for each in zip(*stores, strict=True))


def test_a_list_is_never_stale(api):
    def write_and_read(number):
        for quantity in range(10):
            row = api("POST /items", {"name": str(number), "quantity": quantity}).json
            for _ in range(3):
                assert api(f"GET /items?name={number}&sort=-id&page=1&per_page=1").json[
                    "data"
                ] == [row]
                assert row in api("GET /items").json

    all_at_once(write_and_read)


def test_a_reader_sees_a_replaced_state_whole():
    store = Store(generated(0))
    states = [
        {
            "items": [{"name": "x"}] * size,
            "orders": [{"internal_number": str(n)} for n in range(size)],
        }
        for size in (1, 2)
    ]

    def replace_or_read(number):
        for turn in range(600):
            if number % 4 == 0:
                store.load(states[turn % 2])
            assert (
                len(
                    {
                        len(table.rows)
                        for table in store.state("items", "orders").values()
                    }
                )
                == 1
            )

    all_at_once(replace_or_read)


# Mock controls


def test_a_frozen_clock_gives_its_time_until_it_is_let_go(api):
    first = "0001-01-01T00:00:00.000Z"
    assert api("PUT /mock/clock", {"now": first}).json == {"now": first, "frozen": True}
    assert api("POST /items", {"name": "x"}).json["created_at"] == first

    assert api("DELETE /mock/clock").status_code == 204

    moments = [
        api("PUT /items/1", {}).json["updated_at"],
        *(visit["at"] for visit in api("GET /mock/requests").json),
    ]
    assert moments.pop(1) == first
    for moment in moments:
        assert re.fullmatch(
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z", moment
        )
        assert abs(datetime.fromisoformat(moment) - datetime.now(UTC)) < timedelta(
            minutes=1
        )


BESIDE = ThreadPoolExecutor(1)


def begin_slowly(api, *request):
    """Begin a request that takes half a second, and return as soon as it has arrived."""
    api("POST /mock/faults", {"path": "*", "status": None, "delay": 500})
    slow = BESIDE.submit(api, *request)
    while api("GET /mock/faults").json:
        pass
    return slow


def test_a_delayed_request_delays_nobody_else_and_a_reset_leaves_it_behind(api):
    slow = begin_slowly(api, "POST /items", {"name": "of the test before"})

    assert api("POST /items", {"name": "quick"}).json["id"] == "1"
    api("DELETE /mock/state")
    assert slow.result().json["id"] == "2"
    assert api("GET /items").json == []


def test_the_journal_tells_what_came_in_the_order_of_arrival(api):
    api("PUT /mock/clock", {"now": NOW})
    slow = begin_slowly(api, "GET /items?q=x")
    api("POST /items", {"name": "x"})
    slow.result()
    for body in (b"", b"[1, 2", b"[1]".ljust(10_240), b"[1]".ljust(10_241)):
        api("POST /nowhere", body)

    seen = api("GET /mock/requests").json

    assert [
        (each["method"], each["path"], each["status"], each["body"]) for each in seen
    ] == [
        ("GET", "/items", 200, None),
        ("POST", "/items", 201, {"name": "x"}),
        *(("POST", "/nowhere", 404, body) for body in (None, None, [1], None)),
    ]
    assert list(seen[0].items())[:4] == [
        ("at", NOW),
        ("method", "GET"),
        ("path", "/items"),
        ("query", "q=x"),
    ]
    assert 500 <= seen[0]["duration_ms"] < 5000 > seen[1]["duration_ms"] > 0
    assert (
        api("DELETE /mock/requests").status_code,
        api("GET /mock/requests").json,
    ) == (204, [])


def test_of_several_delays_the_longest_counts_and_the_controls_have_none():
    api = Api(delay="20-30")
    api("POST /mock/faults", {"path": "/items", "delay": 60, "status": None})

    for query, least in (("", 60), ("", 20), ("?_delay=90", 90), ("?_delay=0", 20)):
        began = time.perf_counter()
        assert api(f"GET /items{query}").status_code == 200
        assert 1000 * (time.perf_counter() - began) >= least
    api = Api(delay="30000")
    assert {
        api(f"GET {path}").status_code for path in ("/health", "/mock/state", "/")
    } == {200}


# Documents


def test_the_document_describes_what_each_route_takes_and_what_can_come(api, kind):
    document, path, title = (
        api("GET /openapi.json").json,
        kind[0],
        kind[0][1:-1].title(),
    )

    told = {}
    for place in ("/health", path, path + "/{id}"):
        for method, each in document["paths"][place].items():
            taken = [
                one["name"] + "!" * one["required"]
                for one in each["parameters"]
                if one["in"] != "query"
            ]
            body = re.findall(
                r'"required": true, .*/(\w+)"', json.dumps(each.get("requestBody"))
            )
            told[f"{method} {place.removeprefix(path)}"] = " ".join(
                [*taken, *body, *sorted(each["responses"])]
            )
    change = f"X-Mock-Session id! If-Match {title}Change 200 400 404 409 412 413 415"
    assert told == {
        "get /health": "X-Mock-Session 200 400",
        "get ": "X-Mock-Session If-None-Match 200 304 400",
        "post ": f"X-Mock-Session New{title} 201 400 409 413 415",
        "get /{id}": "X-Mock-Session id! If-None-Match 200 304 400 404",
        "put /{id}": change,
        "patch /{id}": change,
        "delete /{id}": "X-Mock-Session id! If-Match 204 400 404 409 412",
    }
    operations = [
        each["operationId"]
        for item in document["paths"].values()
        for each in item.values()
    ]
    assert len(operations) == len(set(operations)) == 1 + 6 * len(KINDS)
    assert document["servers"] == [{"url": "/api/v1"}]


def test_the_document_describes_the_parameters_of_a_list(api):
    listed = api("GET /openapi.json").json["paths"]["/items"]["get"]["parameters"]

    schemas = {each["name"]: each["schema"] for each in listed if each["in"] == "query"}
    assert not any(each["required"] for each in listed)
    assert {name for name, each in schemas.items() if each["type"] != "array"} == {
        "sort",
        "page",
        "per_page",
    }
    assert {
        schemas[f"quantity{each}"]["items"]["type"]
        for each in ("", "_ne", "_gt", "_lte")
    } == {"integer"}
    assert not {"quantity_like", "items", "_delay"} & schemas.keys()
    assert [
        schemas[name]["items"].get("enum") for name in ("status", "status_like")
    ] == [["pending", "active", "completed"], None]
    assert re.fullmatch(schemas["sort"]["pattern"], "-quantity,name")
    assert (schemas["per_page"]["minimum"], schemas["per_page"]["maximum"]) == (1, 1000)


def test_only_what_is_required_is_required_when_it_is_sent(api):
    schemas = api("GET /openapi.json").json["components"]["schemas"]

    assert [
        schemas[name]["required"]
        for name in ("NewItem", "NewOrder", "ItemChange", "OrderChange", "Item")
    ] == [
        ["name"],
        ["internal_number"],
        [],
        [],
        list(api("POST /items", {"name": "x"}).json),
    ]
    new = {
        name: each["description"]
        for name, each in schemas["NewItem"]["properties"].items()
    }
    assert new["status"] == 'one of pending, active, completed; "pending" if left out'
    assert new["updated_at"] == "ignored, so that a row can be sent back as it came"
    assert not re.search('"default"|"additionalProperties": true', json.dumps(schemas))


def test_the_home_page_is_for_people_and_its_json_for_the_rest(demo):
    demo("s: GET /items?q=<script>")

    page = demo("s: GET / Accept: text/html,*/*;q=0.8")
    told = demo("GET / Accept: application/json")

    assert (page.mimetype, told.mimetype) == ("text/html", "application/json")
    assert all(
        text in page.text
        for text in ('href="/api/v1/items"', "<big>12</big> items", "q=&lt;script&gt;")
    )
    assert "http://" not in page.text.replace("http://www.w3.org/2000/svg", "")
    assert {
        each["path"]
        for each in told.json["routes"]
        if each["summary"] and each["methods"]
    } == {rule.rule for rule in demo.app.url_map.iter_rules()}
    assert "q=" not in demo("GET /").text


# Seeds, settings and running


WRONG = {
    "port": ["x", 65536, -1],
    "seed": ["many", "1x"],
    "delay": ["5-1", "30001", "a", "1-2-3"],
    "api_version": ["a/b"],
    "cors_origins": ["localhost:5173", "http://*", "http://a/", "http://a,*"],
    "api_prefix": ["api", "/api/"],
    "flask_debug": ["off"],
    "sed": ["demo"],
}


@pytest.mark.parametrize(
    "name, value", [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_setting_is_told_by_its_name(name, value):
    with pytest.raises(
        StoreError,
        match=f"^{name.upper()} (must be .*|is not known here; allowed are HOST, .*)$",
    ):
        create_app(**{name: value})


def test_a_setting_comes_from_the_argument_then_the_environment_then_the_default(
    monkeypatch,
):
    monkeypatch.setenv("SEED", "3")
    monkeypatch.setenv("API_PREFIX", "")

    assert [len(Api(seed=given)("GET /items").json) for given in (None, 2, "")] == [
        3,
        2,
        0,
    ]
    assert [
        create_app(flask_debug=given).debug for given in (None, 0, False, 1, True)
    ] == [False, False, False, True, True]


def test_a_prefix_moves_the_api():
    client = create_app(api_prefix="/a/b", api_version="v2").test_client()

    assert (
        client.post("/a/b/v2/items", json={"name": "x"}).headers["Location"]
        == "/a/b/v2/items/1"
    )
    assert client.get("/a/b/v2/mock/requests").json[0]["path"] == "/items"
    assert client.get("/api/v1/items").status_code == 404


def test_the_app_for_servers_is_made_once():
    assert inventory.app is inventory.app
    assert not hasattr(inventory, "application")


def test_generated_items_are_the_same_each_time():
    assert Api(seed="250").state() == Api(seed="250").state()
    assert (
        Api(seed="250")("GET /items/250").json.items()
        >= {
            "name": "Blue desk 250",
            "status": "active",
            "quantity": 214,
            "created_at": "2026-01-01T00:05:00.000Z",
        }.items()
    )
    assert gc.isenabled()


def test_a_state_can_be_put_back_or_be_a_seed(demo, tmp_path):
    before, file = demo.state(), tmp_path / "seed.json"
    file.write_bytes(before)

    assert demo("PUT /mock/state", before).status_code == 204
    assert demo.state() == Api(seed=str(file)).state() == before
    for content, reason in (
        ('{"items": [{"name": ""}]}', r"items\[0\].name: Name must be"),
        ("[]", "body: Body must be a JSON object"),
        ("{", "body: Body is not JSON"),
    ):
        file.write_text(content)
        with pytest.raises(StoreError, match=f"^SEED .*seed.json: {reason}"):
            create_app(seed=str(file))


@pytest.fixture
def start():
    """Start the service on a free port and read its first line."""
    running = []

    def start(**settings):
        running.append(
            subprocess.Popen(
                [sys.executable, "inventory.py"],
                cwd=Path(__file__).parent,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"PORT": "0", "PYTHONUNBUFFERED": ""} | settings,
                text=True,
                start_new_session=True,
            )
        )
        return running[-1], running[-1].stdout.readline()

    yield start
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the reloader has a child
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_logs_a_line_a_request_and_ends_cleanly(start, number):
    process, line = start(SEED="demo")
    url = re.fullmatch(
        r"Inventory API listening on (http://127\.0\.0\.1:\d+/api/v1)\n", line
    )[1]
    urllib.request.urlopen(
        url.removesuffix("api/v1") + "?live"
    ).close()  # the page refreshing itself, not logged
    with urllib.request.urlopen(url + "/items") as response:
        assert len(json.load(response)) == 12

    process.send_signal(number)
    out, err = process.communicate(timeout=5)

    assert (process.returncode, err) == (0, "")
    assert re.fullmatch(
        r"\d\d/\w+/\d{4} \d\d:\d\d:\d\d 'GET /api/v1/items HTTP/1.1' 200\n", out
    )


def test_a_debugger_is_there_if_it_is_asked_for(start):
    process, line = start(FLASK_DEBUG="1")

    page = urllib.request.urlopen(
        re.search(r"http://[^/]+/", line)[0]
        + "?__debugger__=yes&cmd=resource&f=style.css"
    )
    process.send_signal(signal.SIGINT)

    assert page.headers["Content-Type"].startswith("text/css")
    process.communicate(timeout=5)  # which waits for the reloader's child as well
    assert process.returncode == 0


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"DELAY": "x"}, "DELAY must .*"),
        ({"SEED": "no.json"}, "SEED no.json: .*"),
        (
            {"FLASK_DEBUG": "1", "HOST": "0.0.0.0"},
            "FLASK_DEBUG must be 0 on HOST 0.0.0.0: .*",
        ),
        ({"PORT": "taken"}, "PORT .* on HOST 127.0.0.1: Address already in use.*"),
    ],
)
def test_what_will_not_do_is_told_in_one_line(start, settings, sentence):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process, line = start(
            **{
                name: port if value == "taken" else value
                for name, value in settings.items()
            }
        )
        _, err = process.communicate(timeout=5)

    assert (line, process.returncode) == ("", 1)
    assert re.fullmatch(f"inventory: {sentence}\n", err)


def test_what_comes_in_pieces_or_is_not_http_is_answered_in_json(start):
    port = int(re.search(r":(\d+)/", start()[1])[1])
    head = b"POST /api/v1/items HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    for sent, status in [
        (b"GET " + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (head + b"no length\r\n", 400),
        (head + b'd\r\n{"name": "x"}\r\n0\r\n\r\n', 201),
    ]:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(sent)
            told, _, body = (
                connection.makefile("rb").read().decode().partition("\r\n\r\n")
            )
        assert told.startswith(f"HTTP/1.1 {status} ")
        assert {"error", "name"} & json.loads(body).keys()
