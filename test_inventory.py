"""What users of the service rely on. Sections are named after those of the modules.

A test sends requests by `api`, a client in a session of its own, and looks at the
answers. `demo` is the same with the rows of the demo. A test that takes `example` runs
once for each resource.
"""

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
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import FrozenInstanceError, dataclass, field, fields, make_dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import pytest

import inventory
import store
from inventory import Settings, create_app
from store import (
    RESOURCES,
    Clock,
    Entry,
    Fault,
    Faults,
    Item,
    Journal,
    Sessions,
    Store,
)

HERE = Path(__file__).parent
NOW = "2026-01-01T09:30:00.000Z"
LATER = "2026-01-02T10:00:00.000Z"
TIME_PATTERN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
ORIGIN = "http://localhost:5173"
TEXT = {"Content-Type": "text/plain"}
OTHER_TAG = {"If-Match": '"x"'}  # a version that no row has
ITEMS = RESOURCES["items"]
ORDERS = RESOURCES["orders"]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    """What the developer's own environment sets is not what is tested."""
    for setting in fields(Settings):
        monkeypatch.delenv(setting.name.upper(), raising=False)


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


def all_at_once(function, threads=16):
    """Call a function in many threads that start together; return what it returned.

    Python switches threads as often as it can meanwhile, so that a step that should
    have been under a lock is interrupted soon.
    """
    before = sys.getswitchinterval()
    barrier = threading.Barrier(threads)

    def run(number):
        barrier.wait()
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


UNAVAILABLE = {"error": "Service unavailable", "details": {"injected": True}}


def short(value):
    """What pytest shows of a value in the name of a case, for long tables."""
    return str(value)[:60] if isinstance(value, (dict, list, str)) else None


def ids_of(rows):
    """The ids of rows, in their order."""
    return [row["id"] for row in rows]


class YieldingClock(Clock):
    """A clock that lets other threads run first, in the midst of a change."""

    def now(self):
        time.sleep(0)
        return super().now()


def new_store(size=0):
    """A store with so many items."""
    items = []
    for number in range(1, size + 1):
        items.append(Item(id=str(number), name="x", created_at=NOW))
    return Store(store.make_tables({"items": items}), YieldingClock())


# ----------------------------------------------------------------------
# Rules
# ----------------------------------------------------------------------


NUMBER_RULE = store.make_rule("number", "a number of at least -1", minimum=-1)


EMAIL_RULE = store.make_rule("string", "an email address", format="email")


@pytest.mark.parametrize(
    "rule, good, bad",
    [
        (store.INTEGER_RULE, [0, -5, 10**20], [True, 3.0, "3", None, [], {}]),
        (NUMBER_RULE, [0, 1.5, -1], [True, "1", None, -1.5]),
        (store.BOOLEAN_RULE, [True, False], [0, 1, "true", None]),
        (store.nullable(store.BOOLEAN_RULE), [True, None], [0, ""]),
        # JavaScript's strings can hold half a surrogate pair, as \ud800 is.
        (store.STRING_RULE, ["", "ü", "\ud800"], [None, 5, [], {}]),
        (
            EMAIL_RULE,
            ["a@b", "ann.lee@mail.example.org"],
            ["", "a", "@b", "a b@c", "a@"],
        ),
        (store.TIMESTAMP_RULE, [NOW, "0001-01-01T00:00:00.000Z"], ["", NOW + "\n"]),
        (store.array_rule(store.INTEGER_RULE), [[], [1, 2]], [{}, [1, "2"], None]),
    ],
)
def test_a_rule_allows_what_it_says_and_nothing_else(rule, good, bad):
    for value in good:
        assert list(store.check(rule, value, "field")) == []
    for value in bad:
        assert list(store.check(rule, value, "field")) != []


def test_what_can_be_null_already_is_not_made_so_twice():
    once = store.nullable(store.INTEGER_RULE)

    assert store.nullable(once) == once
    assert once["description"] == "an integer or null"


@pytest.mark.parametrize(
    "words, wrong",
    [
        ({"type": "string", "minLenght": 3}, "minLenght"),
        ({"type": "text"}, "text"),
        ({"type": "string", "format": "uuid"}, "uuid"),
        ({"type": "array", "items": {"type": "string", "title": "x"}}, "title"),
        ({"type": "object", "properties": {"a": {"const": 1}}}, "const"),
    ],
)
def test_a_rule_with_an_unknown_word_cannot_be_registered(words, wrong):
    @dataclass(frozen=True, kw_only=True)
    class Wrong(store.Record):
        field_name: str = field(metadata={**words, "description": "x"})

    with pytest.raises(ValueError, match=f"'{wrong}'"):
        store.Resource("wrongs", Wrong)


@pytest.mark.parametrize(
    "path, body",
    [
        ("/items", {"name": "x" * 255, "description": "\U0001f600" * 10_000}),
        ("/items", {"name": " x ", "status": "completed", "quantity": 2**53 - 1}),
        # A zero-width space is no white space.
        ("/items", {"name": "\u200b", "status": "active", "quantity": 0}),
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
                "items": [{"quantity": 1}, {"quantity": 2**53 - 1}],
            },
        ),
    ],
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


QUANTITY_SENTENCE = "Quantity must be an integer from 0 to 9007199254740991"


INTERNAL_NUMBER_SENTENCE = (
    "Internal number must be a string of 1 to 50 characters, not all blank"
)


ORDER_STATUS_SENTENCE = "Status must be a string of 1 to 50 characters, not all blank"
LINES_SENTENCE = "Items must be an array of at most 1000 elements"


LINE_QUANTITY_SENTENCE = "Quantity must be an integer from 1 to 9007199254740991"


ITEM_FIELDS = ", ".join(ITEMS.rules)


BLANK = "".join(chr(code) for code in range(0x110000) if chr(code).isspace())


MUST_BE_TIMESTAMP = "must be a UTC time such as 2026-01-01T09:30:00.000Z"


MUST_BE_SESSION_NAME = "must be a string of 1 to 64 of the characters A-Z a-z 0-9 . _ -"


WRONG_FIELDS = [  # method, path, body, details
    ("POST", "/items", {}, {"name": "Name is required"}),
    ("POST", "/items", {"name": ""}, {"name": NAME_SENTENCE}),
    ("POST", "/items", {"name": BLANK}, {"name": NAME_SENTENCE}),
    ("POST", "/items", {"name": "x" * 256}, {"name": NAME_SENTENCE}),
    ("POST", "/items", {"name": None}, {"name": NAME_SENTENCE}),
    ("POST", "/items", {"name": 5}, {"name": NAME_SENTENCE}),
    ("PATCH", "/items/1", {"quantity": -1}, {"quantity": QUANTITY_SENTENCE}),
    ("PATCH", "/items/1", {"quantity": 2**53}, {"quantity": QUANTITY_SENTENCE}),
    ("PATCH", "/items/1", {"quantity": True}, {"quantity": QUANTITY_SENTENCE}),
    ("PATCH", "/items/1", {"quantity": 3.0}, {"quantity": QUANTITY_SENTENCE}),
    ("PATCH", "/items/1", {"quantity": "3"}, {"quantity": QUANTITY_SENTENCE}),
    ("PATCH", "/items/1", {"quantity": None}, {"quantity": QUANTITY_SENTENCE}),
    ("PUT", "/items/1", {"status": "Active"}, {"status": STATUS_SENTENCE}),
    ("PUT", "/items/1", {"status": None}, {"status": STATUS_SENTENCE}),
    ("PUT", "/items/1", {"description": None}, {"description": DESCRIPTION_SENTENCE}),
    (
        "POST",
        "/items",
        {"z": 1, "quantity": "3", "status": "?", "description": "x" * 10_001},
        {
            "name": "Name is required",
            "description": DESCRIPTION_SENTENCE,
            "status": STATUS_SENTENCE,
            "quantity": QUANTITY_SENTENCE,
            "z": f"z is not known here; allowed are {ITEM_FIELDS}",
        },
    ),
    ("POST", "/orders", {}, {"internal_number": "Internal number is required"}),
    (
        "POST",
        "/orders",
        {"internal_number": "x" * 51},
        {"internal_number": INTERNAL_NUMBER_SENTENCE},
    ),
    (
        "PUT",
        "/orders/1",
        {"status": " "},
        {"status": ORDER_STATUS_SENTENCE},
    ),
    ("PUT", "/orders/1", {"items": {}}, {"items": LINES_SENTENCE}),
    ("PUT", "/orders/1", {"items": [{}] * 1001}, {"items": LINES_SENTENCE}),
    (
        "PUT",
        "/orders/1",
        {"items": [{"item_id": 1, "quantity": 0}, 5, {"quantity": 2**53}]},
        {
            "items[0].item_id": "Item id must be a string",
            "items[0].quantity": LINE_QUANTITY_SENTENCE,
            "items[1]": "Items[1] must be an object",
            "items[2].quantity": LINE_QUANTITY_SENTENCE,
        },
    ),
    ("PUT", "/mock/clock", {}, {"now": "Now is required"}),
    ("PUT", "/mock/clock", {"now": None}, {"now": f"Now {MUST_BE_TIMESTAMP}"}),
    ("PUT", "/mock/clock", {"now": 5}, {"now": f"Now {MUST_BE_TIMESTAMP}"}),
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

    assert list(response.json["details"].items()) == list(details.items())
    assert response.json["error"] == next(iter(details.values()))
    assert list(response.json) == ["error", "details"]
    assert demo.everything() == before


@pytest.mark.parametrize(
    "moment",
    [
        "",
        "2026-01-01T09:30:00Z",
        "2026-01-01T09:30:00.000",
        "2026-01-01 09:30:00.000Z",
        "2026-01-01T09:30:00.000z",
        "2026-02-29T00:00:00.000Z",
        "0000-01-01T00:00:00.000Z",
        "2026-01-01T24:00:00.000Z",
        "2026-01-01T00:00:00.000+00:00",
        "2026-01-01T09:30:00.000Z\n",
        "٢٠٢٦-01-01T09:30:00.000Z",
    ],
)
def test_a_moment_has_exactly_one_form(api, moment):
    response = api.put("/mock/clock", {"now": moment}, status=400)

    assert response.json["details"] == {"now": f"Now {MUST_BE_TIMESTAMP}"}
    assert api.get("/mock/clock").json["frozen"] is False


def test_no_more_than_a_hundred_problems_are_reported(api):
    body = {f"wrong_{number}": 1 for number in range(200)}

    details = api.post("/items", body, status=400).json["details"]

    assert len(details) == 100
    assert list(details)[:2] == ["name", "wrong_0"]  # the name is missing


# ----------------------------------------------------------------------
# Records
# ----------------------------------------------------------------------


def test_two_orders_cannot_have_the_same_internal_number(api):
    api.post("/orders", {"internal_number": "A-1"})
    api.post("/orders", {"internal_number": "A-2"})
    taken = {
        "error": "Internal number A-1 is taken",
        "details": {"internal_number": "Internal number A-1 is taken"},
    }

    refused_post = api.post("/orders", {"internal_number": "A-1"}, status=409)
    refused_patch = api.patch("/orders/2", {"internal_number": "A-1"}, status=409)

    assert refused_post.json == taken
    assert refused_patch.json == taken
    numbers = [order["internal_number"] for order in api.get("/orders").json]
    assert numbers == ["A-1", "A-2"]


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

    refused = api.delete("/items/1", status=409)

    assert refused.json == {
        "error": "Item 1 is named by order 1",
        "details": {"id": "Item 1 is named by order 1"},
    }
    assert api.get("/items/1").json["name"] == "Mug"


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
    lines = [{"item_id": "1"}, {"item_id": "01"}, {"item_id": "2"}]
    body = {"internal_number": "A", "items": lines}

    refused = api.post("/orders", body, status=400).json

    missing = "Item id must be the id of one of the items"
    assert refused["error"] == missing
    assert refused["details"] == {
        "items[1].item_id": missing,
        "items[2].item_id": missing,
    }
    assert api.get("/orders").json == []


def test_missing_items_are_reported_only_when_all_fields_are_right(api):
    body = {"internal_number": "", "items": [{"item_id": "9"}]}

    refused = api.post("/orders", body, status=400).json

    assert list(refused["details"]) == ["internal_number"]


def test_rows_records_and_faults_cannot_be_changed():
    row = new_store(1).get(ITEMS, "1")

    with pytest.raises(FrozenInstanceError):
        row.json = b""
    with pytest.raises(FrozenInstanceError):
        row.record.name = ""
    with pytest.raises(FrozenInstanceError):
        Fault(path="*").times = 2


def test_a_record_has_an_enum_and_a_tuple_where_json_has_a_string_and_an_array():
    shared = new_store()

    item = shared.create(ITEMS, {"name": "x", "status": "active"}).record
    order = shared.create(ORDERS, {"internal_number": "x", "items": [{}]}).record

    assert item.status is store.ItemStatus.ACTIVE
    assert order.items == ({},)


# ----------------------------------------------------------------------
# Resources
# ----------------------------------------------------------------------


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@pytest.fixture
def suppliers(monkeypatch):
    """A service with a third resource, whose fields have types that the others lack."""

    @dataclass(frozen=True, kw_only=True)
    class Supplier(store.Record):
        converters = {"colour": Colour}

        email: str = field(metadata=EMAIL_RULE)
        rating: float = field(default=0, metadata=NUMBER_RULE)
        local: bool = field(default=False, metadata=store.BOOLEAN_RULE)
        colour: Colour | None = field(
            default=None, metadata=store.nullable(store.choice_rule(Colour))
        )

    # This is what `register` does, but it ends with the test.
    monkeypatch.setitem(RESOURCES, "suppliers", store.Resource("suppliers", Supplier))
    return Api()


def test_a_new_resource_is_validated(suppliers):
    body = {"email": "x", "rating": -2, "local": "yes"}

    response = suppliers.post("/suppliers", body, status=400)

    assert response.json["details"] == {
        "email": "Email must be an email address",
        "rating": "Rating must be a number of at least -1",
        "local": "Local must be true or false",
    }


@pytest.mark.parametrize(
    "query, ids",
    [
        ("rating_gt=1.5", ["2"]),
        ("rating=1.5&rating=3", ["1"]),
        ("local=true", ["1"]),
        ("local=false", ["2"]),
        ("local_ne=true", ["2"]),
        ("sort=-rating", ["2", "1"]),
        ("sort=local", ["2", "1"]),
        ("colour=", ["2"]),
        ("colour=red", ["1"]),
        ("colour_gt=blue", ["1"]),
    ],
)
def test_a_new_resource_is_filtered_and_sorted(suppliers, query, ids):
    red = {"email": "a@b.c", "rating": 1.5, "local": True, "colour": "red"}
    suppliers.post("/suppliers", red)
    suppliers.post("/suppliers", {"email": "d@e.f", "rating": 10, "colour": None})

    assert ids_of(suppliers.get(f"/suppliers?{query}").json) == ids


def test_a_large_number_is_found_exactly(suppliers):
    suppliers.post("/suppliers", {"email": "a@b.c", "rating": 2**53 + 1})

    assert len(suppliers.get(f"/suppliers?rating={2**53 + 1}").json) == 1
    assert suppliers.get(f"/suppliers?rating={2**53}").json == []


def test_the_filters_of_a_new_resource_are_validated(suppliers):
    query = "rating=x&local=1&colour=pink"

    response = suppliers.get(f"/suppliers?{query}", status=400)

    assert response.json["details"] == {
        "rating": "Rating must be a number",
        "local": "Local must be true or false",
        "colour": "Colour must be one of red, blue or null",
    }
    suppliers.get("/suppliers?local_gt=true", status=400)  # booleans have no order


def test_a_new_resource_is_described_and_in_the_state(suppliers):
    row = suppliers.post("/suppliers", {"email": "a@b.c", "colour": "red"}).json

    document = suppliers.get("/openapi.json").json

    assert "/suppliers/{id}" in document["paths"]
    properties = document["components"]["schemas"]["NewSupplier"]["properties"]
    assert properties["email"]["format"] == "email"
    assert properties["colour"]["enum"] == ["red", "blue", None]
    assert suppliers.get("/mock/state").json["suppliers"] == [row]


def test_null_can_stand_in_a_unique_field_more_than_once(monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class Shelf(store.Record):
        unique_fields = ("code",)

        code: str | None = field(
            default=None, metadata=store.nullable(store.name_rule(9))
        )

    monkeypatch.setitem(RESOURCES, "shelves", store.Resource("shelves", Shelf))
    api = Api()

    api.post("/shelves", {})
    api.post("/shelves", {"code": None})
    api.post("/shelves", {"code": "A"})
    api.post("/shelves", {"code": "A"}, status=409)


def test_a_choice_of_integers_is_filtered_by_integers(monkeypatch):
    sizes = store.make_rule("integer", "1, 2 or 3", enum=[1, 2, 3])

    @dataclass(frozen=True, kw_only=True)
    class Shirt(store.Record):
        size: int = field(metadata=sizes)

    monkeypatch.setitem(RESOURCES, "shirts", store.Resource("shirts", Shirt))
    api = Api()
    for size in (1, 3):
        api.post("/shirts", {"size": size})

    assert [row["size"] for row in api.get("/shirts?size=1").json] == [1]
    assert [row["size"] for row in api.get("/shirts?size_gt=1").json] == [3]
    api.post("/shirts", {"size": 4}, status=400)


def test_a_field_without_a_rule_cannot_be_registered():
    @dataclass(frozen=True, kw_only=True)
    class Note(store.Record):
        text: str = ""

    with pytest.raises(ValueError, match="text has no rule in its metadata"):
        store.Resource("notes", Note)


def test_a_field_with_the_name_of_a_filter_cannot_be_registered():
    @dataclass(frozen=True, kw_only=True)
    class Box(store.Record):
        size: int = field(metadata=store.INTEGER_RULE)
        size_gt: int = field(metadata=store.INTEGER_RULE)

    with pytest.raises(ValueError, match="size_gt is a field and a filter"):
        store.Resource("boxes", Box)


@pytest.mark.parametrize("name", ["page", "per_page", "sort", "q"])
def test_a_field_with_the_name_of_a_parameter_of_lists_cannot_be_registered(name):
    book = make_dataclass(
        "Book",
        [(name, int, field(default=0, metadata=store.INTEGER_RULE))],
        bases=(store.Record,),
        frozen=True,
        kw_only=True,
    )

    with pytest.raises(ValueError, match=f"must not be called {name}"):
        store.Resource("books", book)


def test_a_created_row_is_answered_whole_with_its_fields_in_order(api, example):
    api.put("/mock/clock", {"now": NOW})

    response = api.post(example.path, example.body)

    times = {"created_at": NOW, "updated_at": None}
    expected = {"id": "1", **example.body, **example.defaults, **times}
    assert list(response.json.items()) == list(expected.items())
    assert response.headers["Location"] == f"/api/v1{example.path}/1"
    assert api.get(f"{example.path}/1").data == response.data


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


def test_a_removed_row_is_gone_and_its_id_is_not_used_again(api, example):
    api.post(example.path, example.body)

    response = api.delete(f"{example.path}/1")

    assert (response.data, response.content_type) == (b"", None)
    assert api.get(example.path).json == []
    api.get(f"{example.path}/1", status=404)
    assert api.post(example.path, example.body).json["id"] == "2"


def test_a_row_can_be_sent_back_as_it_was_given(api, example):
    row = api.post(example.path, example.body).json

    response = api.put(f"{example.path}/1", row)

    assert response.json == {**row, "updated_at": response.json["updated_at"]}


def test_an_id_and_times_that_a_client_sends_are_ignored(api, example):
    row = api.post(example.path, {**example.body, "id": "9", "created_at": NOW}).json
    strange = {"id": ["9"], "created_at": 5, "updated_at": {"x": 1}}

    response = api.put(f"{example.path}/1", strange)

    assert row["id"] == response.json["id"] == "1"
    assert row["created_at"] != NOW
    assert response.json["created_at"] == row["created_at"]


def test_head_answers_as_get_does_without_a_body(api, example):
    api.post(example.path, example.body)

    for path in (example.path, f"{example.path}/1", f"{example.path}?page=1"):
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
    # Null is neither larger nor smaller than anything, and contains nothing. An empty
    # text is a text here, and every time is larger than "".
    ("updated_at_gt=2000", ["3"]),
    ("updated_at_lt=3000", ["3"]),
    ("updated_at_gt=", ["3"]),
    ("updated_at_like=", ["3"]),
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
    # Null comes before everything.
    ("sort=updated_at", ["1", "2", "9", "10", "11", "3"]),
    ("sort=-updated_at", ["3", "1", "2", "9", "10", "11"]),
    # The last one counts.
    ("sort=name&sort=-id&id_gt=9", ["11", "10"]),
    ("status=active&quantity_gt=5&sort=-id", ["11", "3"]),
]


@pytest.mark.parametrize("query, ids", FILTERS + SORTS)
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


def test_a_link_keeps_a_parameter_with_any_name(monkeypatch):
    # `endpoint` would mean something to Flask's `url_for`.
    route_class = make_dataclass(
        "Route",
        [("endpoint", str, field(metadata=store.STRING_RULE))],
        bases=(store.Record,),
        frozen=True,
        kw_only=True,
    )
    monkeypatch.setitem(RESOURCES, "routes", store.Resource("routes", route_class))

    links = links_of(Api().get("/routes?endpoint=x&page=1"))

    assert links["first"] == "/api/v1/routes?endpoint=x&page=1"


def test_a_link_leads_to_its_page(shelf):
    links = links_of(shelf.get("/items?per_page=4&sort=-id"))

    response = shelf.get(links["next"].removeprefix("/api/v1"))

    assert ids_of(response.json["data"]) == ["2", "1"]


WRONG_QUERIES = [
    ("quantity=abc", {"quantity": "Quantity must be an integer"}),
    ("quantity=1&quantity=1.0", {"quantity": "Quantity must be an integer"}),
    ("quantity=%D9%A1", {"quantity": "Quantity must be an integer"}),  # Arabic 1
    ("quantity_gt=", {"quantity_gt": "Quantity gt must be an integer"}),
    ("quantity=" + "9" * 5000, {"quantity": "Quantity must be an integer"}),
    ("status=bogus", {"status": STATUS_SENTENCE}),
    (
        "sort=size",
        {
            "sort": f"Sort must be a comma-separated list of {ITEM_FIELDS};"
            " - before one descends"
        },
    ),
    ("page=0", {"page": "Page must be an integer of at least 1"}),
    ("per_page=0", {"per_page": "Per page must be an integer from 1 to 1000"}),
    ("per_page=1001", {"per_page": "Per page must be an integer from 1 to 1000"}),
    ("page=1&page=x", {"page": "Page must be an integer of at least 1"}),
]


@pytest.mark.parametrize("query, details", WRONG_QUERIES, ids=short)
def test_a_wrong_parameter_is_refused_by_its_name(shelf, query, details):
    response = shelf.get(f"/items?{query}", status=400)

    assert response.json == {"error": next(iter(details.values())), "details": details}


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
# Rows and tables
#
# Versions, which clients get as tags.
# ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/items", "/items/1", "/items?page=1", "/orders", "/orders/1"]
)
def test_a_client_that_has_the_version_gets_a_304(demo, path):
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
    demo.get("/items", headers={"If-Match": '"x"'})
    demo.get("/items/1", headers={"If-Match": '"x"'})


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_change_of_an_old_version_is_refused(demo, method):
    old_tag = demo.get("/items/1").headers["ETag"]
    changed = demo.put("/items/1", {"quantity": 1})
    body = None if method == "DELETE" else {"quantity": 2}

    for tags in (old_tag, '"x"', f"W/{changed.headers['ETag']}"):
        headers = {"If-Match": tags}
        response = demo.request(method, "/items/1", body, status=412, headers=headers)
        assert response.json == {"error": "Precondition failed"}

    assert demo.get("/items/1").data == changed.data
    status = 204 if method == "DELETE" else 200
    headers = {"If-Match": f'"x", {changed.headers["ETag"]}'}
    demo.request(method, "/items/1", body, status=status, headers=headers)


def test_any_version_matches_a_star(demo):
    changed = demo.patch("/items/1", {"quantity": 5}, headers={"If-Match": "*"})
    demo.delete("/items/1", headers={"If-Match": "*"})

    assert changed.json["quantity"] == 5
    demo.get("/items/1", status=404)


def test_if_none_match_is_ignored_on_a_write(demo):
    changed = demo.patch("/items/1", {"quantity": 5}, headers={"If-None-Match": "*"})

    assert changed.json["quantity"] == 5


def test_a_change_gives_new_tags_to_the_row_and_its_list_only(api, example):
    api.post(example.path, example.body)
    api.post(example.path, example.other_body)
    paths = [f"/{name}" for name in RESOURCES] + [
        f"{example.path}/1",
        f"{example.path}/2",
    ]
    before = {path: api.get(path).headers["ETag"] for path in paths}

    written = api.patch(f"{example.path}/1", example.change)

    after = {path: api.get(path).headers["ETag"] for path in paths}
    changed = [path for path in paths if before[path] != after[path]]
    assert changed == [example.path, f"{example.path}/1"]
    assert written.headers["ETag"] == after[f"{example.path}/1"]
    api.delete(f"{example.path}/2")
    assert api.get(example.path).headers["ETag"] != after[example.path]


def test_a_new_row_is_answered_with_its_tag(api, example):
    created = api.post(example.path, example.body)

    assert created.headers["ETag"] == api.get(f"{example.path}/1").headers["ETag"]


def test_a_tag_never_comes_back_for_other_content():
    demo = Api(seed="demo")
    content_of_tags = {}
    for name in ("a", "b", "a"):  # two sessions, and one after its reset
        client = demo.in_session(name)
        client.put("/mock/clock", {"now": NOW})
        for quantity in (1, 2):
            client.put("/items/1", {"quantity": quantity})
            for path in ("/items", "/items/1", "/items/2", "/orders", "/orders/1"):
                response = client.get(path)
                tag = response.headers["ETag"]
                if tag in content_of_tags:
                    assert content_of_tags[tag] == (path, response.data)
                content_of_tags[tag] = (path, response.data)
        client.delete("/mock/state")


def test_a_tag_does_not_come_back_after_a_restart(api):
    tag = api.get("/items").headers["ETag"]

    code = "import store; print(next(store.versions))"
    next_start = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True
    )

    assert int(next_start.stdout) > int(tag.strip('"'))


# ----------------------------------------------------------------------
# Whole states
# ----------------------------------------------------------------------


def test_a_state_replaces_all_rows(demo):
    state = {
        "orders": [{"internal_number": "A", "items": [{"item_id": "x-1"}]}],
        "items": [{"name": "a"}, {"name": "b", "id": "x-1"}],
    }

    response = demo.put("/mock/state", state, status=204)

    assert response.data == b""
    assert [row["name"] for row in demo.get("/items").json] == ["a", "b"]
    assert [row["internal_number"] for row in demo.get("/orders").json] == ["A"]
    # Later writes see what ties the new rows to each other.
    demo.delete("/items/x-1", status=409)
    demo.post("/orders", {"internal_number": "A"}, status=409)


def test_what_the_rows_of_a_state_lack_is_filled_in(api):
    api.put("/mock/clock", {"now": NOW})
    items = [
        {"name": "without id"},
        {"name": "with an id", "id": "7", "created_at": None},
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


@pytest.mark.parametrize(
    "ids, following",
    [
        ([], "1"),
        (["a"], "1"),
        (["7", None], "9"),  # 8 is the id of the second item
        (["007"], "8"),
        (["3", "x4", "2"], "4"),
        (["9" * 20], "1" + "0" * 20),
    ],
)
def test_the_next_id_follows_the_largest_number(api, ids, following):
    items = [{"name": "x", "id": id} for id in ids]
    api.put("/mock/state", {"items": items}, status=204)

    assert api.post("/items", {"name": "x"}).json["id"] == following


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
            "items[1].id": f"Id {MUST_BE_SESSION_NAME}, but not . or .. or null",
            "items[1].name": "Name is required",
            "items[2]": "Items[2] must be an object",
            "items[3].id": f"Id {MUST_BE_SESSION_NAME}, but not . or .. or null",
            "items[4].created_at": f"Created at {MUST_BE_TIMESTAMP} or null",
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
}


@pytest.mark.parametrize("name", WRONG_STATES)
def test_a_wrong_state_is_refused_by_place_and_changes_nothing(demo, name):
    state, details = WRONG_STATES[name]
    before = demo.everything()

    response = demo.put("/mock/state", state, status=400)

    assert response.json["details"] == details
    assert response.json["error"] == next(iter(details.values()))
    assert demo.everything() == before


# ----------------------------------------------------------------------
# The store
#
# Each of these runs many threads, and can go red if the lock is taken away.
# ----------------------------------------------------------------------


def attempt(function, *arguments):
    """Call a function; return True, or False if the store refused."""
    try:
        function(*arguments)
    except store.StoreError:
        return False
    return True


def test_ids_are_unique_and_no_row_is_lost():
    shared = new_store()

    def create(number):
        return [shared.create(ITEMS, {"name": "x"}).record.id for _ in range(50)]

    ids = list(itertools.chain.from_iterable(all_at_once(create)))
    assert sorted(ids, key=int) == [str(number) for number in range(1, 801)]
    assert len(shared.snapshot(ITEMS).rows) == 800


def test_of_racing_orders_one_gets_the_number():
    shared = new_store()

    def create(thread):
        created = 0
        for number in range(300):
            body = {"internal_number": str(number)}
            created += attempt(shared.create, ORDERS, body)
        return created

    assert sum(all_at_once(create)) == 300


def test_of_racing_changes_with_one_tag_one_wins():
    shared = new_store(200)
    versions = {row.record.id: str(row.version) for row in shared.snapshot(ITEMS).rows}

    def change(thread):
        changed = 0
        for id, version in versions.items():
            body = {"quantity": thread}
            expected = {version}
            changed += attempt(shared.update, ITEMS, id, body, expected)
        return changed

    assert sum(all_at_once(change)) == 200


def test_an_order_never_names_an_item_that_is_gone():
    stores = [new_store(20) for _ in range(30)]  # many chances to collide

    def create_or_delete(thread):
        for id in range(1, 21):
            lines = [{"item_id": str(id)}]
            body = {"internal_number": f"{id}-{thread}", "items": lines}
            for shared in stores:
                if thread % 2:
                    attempt(shared.delete, ITEMS, str(id))
                else:
                    attempt(shared.create, ORDERS, body)

    all_at_once(create_or_delete)
    # Whoever came first, each item was either deleted or ordered, and never both.
    for shared in stores:
        state = shared.state()
        ordered = {row.record.items[0]["item_id"] for row in state["orders"]}
        assert ordered == {row.record.id for row in state["items"]}


def test_a_reader_sees_all_tables_at_one_moment():
    shared = new_store()

    def write_or_read(thread):
        for _ in range(100):
            if thread % 2:
                id = shared.create(ITEMS, {"name": "x"}).record.id
                body = {"internal_number": id, "items": [{"item_id": id}]}
                shared.create(ORDERS, body)
            state = shared.state()
            ids = {row.record.id for row in state["items"]}
            for row in state["orders"]:
                assert row.record.items[0]["item_id"] in ids

    all_at_once(write_or_read)


def test_a_list_is_never_stale(api):
    def write_and_read(thread):
        for quantity in range(4):
            row = api.post("/items", {"name": str(thread), "quantity": quantity}).json
            page = api.get(f"/items?name={thread}&sort=-id&per_page=1").json
            assert page["data"] == [row]
            assert row in api.get("/items").json

    all_at_once(write_and_read)


# ----------------------------------------------------------------------
# Sessions
#
# The first three go red if the lock of Sessions, of Faults or of Journal is taken away.
# ----------------------------------------------------------------------


def test_a_session_begins_once():
    all_sessions = [Sessions(store.make_tables({})) for _ in range(10)]

    def get(thread):
        found = []
        for sessions in all_sessions:
            found.extend(sessions.get(str(number)) for number in range(250))
        return found

    first, *others = all_at_once(get)
    for other in others:
        assert other == first  # sessions are equal only to themselves


@pytest.mark.parametrize("times", [1, 5])
def test_a_fault_is_used_exactly_as_often_as_it_says(times):
    faults = Faults()

    def take(thread):
        used = 0
        for _ in range(50):
            fault, _ = faults.take("GET", "/items")
            used += fault.status == 503
        return used

    for _ in range(8):
        body = {"path": "/items", "times": times, "status": 503}
        faults.add(store.read_fault(body))
        assert sum(all_at_once(take)) == times
        assert faults.remaining() == []


def test_the_journal_can_be_read_while_requests_come():
    journal = Journal()

    def write_or_read(thread):
        for number in range(60):
            if thread % 2:
                entry = Entry(at=NOW, method="GET", path=str(number), query="")
                journal.add(entry)
                journal.complete(entry, 200, 1.0, {"x": 1})
            for line in journal.entries():
                known = [line["status"], line["duration_ms"], line["body"]]
                assert known in ([None, None, None], [200, 1.0, {"x": 1}])

    all_at_once(write_or_read)
    assert len(journal.entries()) == 8 * 60


def test_what_was_read_of_the_journal_does_not_change_any_more():
    journal = Journal()
    entry = Entry(at=NOW, method="GET", path="/", query="")
    journal.add(entry)

    read = journal.entries()
    journal.complete(entry, 200, 1.0, None)

    assert read[0]["status"] is None
    assert journal.entries()[0]["status"] == 200


def test_a_session_changes_its_own_copy_of_the_seed_only():
    seed = store.make_tables({"items": [Item(id="1", name="seed", created_at=NOW)]})
    stores = [Store(seed, Clock()) for _ in range(16)]

    def change(thread):
        for quantity in range(50):
            stores[thread].update(
                ITEMS, "1", {"quantity": quantity, "name": str(thread)}
            )
            stores[thread].create(ITEMS, {"name": "new"})
        return [row.record.name for row in stores[thread].snapshot(ITEMS).rows]

    for thread, names in enumerate(all_at_once(change)):
        assert names == [str(thread)] + ["new"] * 50
    assert Store(seed, Clock()).get(ITEMS, "1").record.name == "seed"


def test_a_clock_is_read_in_one_step():
    clock = Clock()

    def freeze_or_read(thread):
        for _ in range(2000):
            if thread < 4:
                clock.freeze(NOW)
                clock.run()
            else:
                reading = clock.reading()
                assert reading["frozen"] == (reading["now"] == NOW)

    all_at_once(freeze_or_read)


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
    assert [entry["method"] for entry in a.get("/mock/requests").json] == [
        "POST",
        "GET",
    ]
    a.delete("/mock/faults")
    assert a.get("/items/13").json["name"] == "of a"
    assert a.get("/items/1").json["name"] == "Ceramic mug, 350 ml"


def test_a_session_can_be_named_by_a_cookie_and_a_header_wins():
    demo = Api(seed="demo")
    demo.in_session("a").post("/items", {"name": "x"})

    def count(session, cookie):
        client = demo.in_session(session)
        return len(client.get("/items", headers={"Cookie": cookie}).json)

    assert count(None, "mock_session=a") == 13
    assert count(None, "x=y; mock_session=a; z=1") == 13
    assert count(None, "not_mock_session=a") == 12
    assert count("b", "mock_session=a") == 12
    assert count("a", "mock_session=b") == 13


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "ä", "a/b", "a\u00b2"])
def test_a_wrong_session_name_in_a_header_is_a_400(demo, name):
    response = demo.get("/items", status=400, headers={"X-Mock-Session": name})

    sentence = f"X-Mock-Session {MUST_BE_SESSION_NAME}"
    details = {"X-Mock-Session": sentence}
    assert response.json == {"error": sentence, "details": details}


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b"])
def test_a_wrong_session_name_in_a_cookie_is_a_400(demo, name):
    headers = {"Cookie": f"mock_session={name}"}
    response = demo.in_session(None).get("/items", status=400, headers=headers)

    assert response.json["details"] == {
        "mock_session": f"Mock session {MUST_BE_SESSION_NAME}"
    }


@pytest.mark.parametrize("name", ["A-z0.9_", "x" * 64, ".", ".."])
def test_a_right_session_name_is_taken(demo, name):
    assert demo.in_session(name).get("/mock").json["session"] == name


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
    if path == "/items":
        entry = api.get("/mock/requests").json[0]
        assert entry["status"] == status
        assert entry["body"] is None  # as it is longer than 10 KiB


@pytest.mark.parametrize(
    "path", ["/items", "/items/1", "/nowhere", "/mock/state", "/items/?x=1"]
)
def test_a_preflight_succeeds_on_any_path_with_any_header(api, path):
    # What a browser asks before it lets a page send such a request to another origin.
    headers = {
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "if-match, x-anything",
        "X-Mock-Session": "not a name!",  # which no preflight is refused for
    }

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
        (None, "http://localhost:5177", True),
        (None, "http://localhost:5178", False),
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

    assert set(response.headers["Allow"].split(", ")) == {
        "GET",
        "HEAD",
        "POST",
        "OPTIONS",
    }
    assert api.get("/mock/requests").json[0]["method"] == "OPTIONS"


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


def test_a_failing_answer_says_when_to_try_again(demo):
    demo.post("/mock/faults", {"path": "/items", "status": 429, "retry_after": 7})
    demo.post("/mock/faults", {"path": "/items", "status": 429})

    assert demo.get("/items", status=429).headers["Retry-After"] == "7"
    assert "Retry-After" not in demo.get("/items", status=429).headers


def test_with_after_a_request_is_carried_out_and_its_answer_is_lost(demo):
    fault = {"path": "/items", "after": True, "status": 504, "times": 2}
    demo.post("/mock/faults", fault)

    response = demo.post("/items", {"name": "x"}, status=504)
    demo.post("/items", {"name": ""}, status=504)

    assert response.json["error"] == "Gateway timeout"
    assert demo.get("/items/13").json["name"] == "x"
    assert [entry["status"] for entry in demo.get("/mock/requests").json] == [
        504,
        504,
        200,
    ]


@pytest.mark.parametrize("path", ["/items", "/items/"])
@pytest.mark.parametrize("pattern", ["/items", "/items/"])
def test_a_slash_at_the_end_makes_no_difference_to_a_fault(api, pattern, path):
    api.post("/mock/faults", {"path": pattern, "status": 503})

    api.get(path, status=503)


def test_a_fault_applies_to_unknown_paths_but_never_to_the_controls(demo):
    demo.post("/mock/faults", {"path": "*", "status": 503, "times": None})

    for path in ("/payments", "/items//1", "/", "/health/x"):
        demo.get(path, status=503)
    for path in ("/health", "/openapi.json", "/mock", "/mock/", "/mock/state"):
        demo.get(path)
    demo.get("/mock/nowhere", status=404)
    assert demo.app.test_client().get("/").status_code == 200
    assert demo.app.test_client().get("/nowhere").status_code == 404
    paths = [entry["path"] for entry in demo.get("/mock/requests").json]
    assert paths == ["/payments", "/items//1", "/", "/health/x"]


def test_status_in_a_query_fails_this_request_and_uses_up_no_fault(demo):
    demo.post("/mock/faults", {"path": "*", "status": 503})

    demo.post("/items?_status=400&_status=418", {"name": "x"}, status=418)
    assert demo.get("/items?_status=503", status=503).json == UNAVAILABLE
    demo.get("/payments?_status=500", status=500)

    assert len(demo.get("/mock/faults").json) == 1
    assert demo.get("/mock").json["rows"]["items"] == 12


@pytest.mark.parametrize(
    "query, details",
    [
        ("_status=200", {"_status": "Status must be an integer from 400 to 599"}),
        ("_status=600", {"_status": "Status must be an integer from 400 to 599"}),
        ("_status=x", {"_status": "Status must be an integer from 400 to 599"}),
        ("_delay=-1", {"_delay": "Delay must be an integer from 0 to 30000"}),
        ("_delay=30001", {"_delay": "Delay must be an integer from 0 to 30000"}),
        ("_delay=", {"_delay": "Delay must be an integer from 0 to 30000"}),
    ],
)
def test_a_wrong_delay_or_status_in_a_query_is_refused(demo, query, details):
    response = demo.post(f"/items?{query}", {"name": "x"}, status=400)

    assert response.json == {"error": next(iter(details.values())), "details": details}
    assert demo.get("/mock").json["rows"]["items"] == 12


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

    for path in ("/health", "/mock", "/mock/state", "/openapi.json"):
        api.get(path)

    assert time.monotonic() - began < 5


@pytest.fixture
def pool():
    """Threads for requests that a test does not wait for."""
    with ThreadPoolExecutor(16) as threads:
        yield threads


def send(pool, api, method, path, body=None, status=200):
    """Send a request from another thread, and go on once it stands in the journal.

    Returns a future: its `result()` waits for the response and returns it.
    """
    before = len(api.get("/mock/requests").json)
    future = pool.submit(api.request, method, path, body, status)
    wait_until(lambda: len(api.get("/mock/requests").json) > before)
    return future


def test_a_held_request_is_pending_until_the_faults_are_cleared(api, pool):
    api.post("/mock/faults", {"path": "/items", "method": "POST", "hold": True})

    held = send(pool, api, "POST", "/items", {"name": "held"}, 201)

    entry = api.get("/mock/requests").json[0]
    assert [entry["status"], entry["duration_ms"], entry["body"]] == [None, None, None]
    assert not held.done()
    api.delete("/mock/faults")
    assert held.result(timeout=10).json["name"] == "held"
    entry = api.get("/mock/requests").json[0]
    assert (entry["status"], entry["body"]) == (201, {"name": "held"})


def test_after_the_faults_are_cleared_a_new_one_holds_again(api, pool):
    for _ in range(2):
        api.post("/mock/faults", {"path": "/items", "hold": True})
        held = send(pool, api, "GET", "/items")

        with pytest.raises(TimeoutError):
            held.result(timeout=0.1)

        api.delete("/mock/faults")
        assert held.result(timeout=10).json == []


def test_a_held_request_holds_nobody_else(api, pool):
    api.post("/mock/faults", {"path": "/items", "method": "POST", "hold": True})
    held = send(pool, api, "POST", "/items", {"name": "held"}, 201)

    assert api.post("/items", {"name": "not held"}).json["id"] == "1"
    assert api.in_session("other").get("/items").json == []

    api.delete("/mock/faults")
    assert held.result(timeout=10).json["id"] == "2"


def test_a_held_request_goes_on_by_itself_in_the_end(api, monkeypatch):
    assert inventory.HOLD_LIMIT == 30  # seconds
    monkeypatch.setattr(inventory, "HOLD_LIMIT", 0.01)
    api.post("/mock/faults", {"path": "/items", "hold": True})

    assert api.get("/items").json == []


def test_a_held_request_can_fail_in_the_end(api, pool):
    api.post("/mock/faults", {"path": "/items", "hold": True, "status": 500})
    held = send(pool, api, "GET", "/items", status=500)

    api.delete("/mock/faults")

    assert held.result(timeout=10).json["error"] == "Internal server error"


@pytest.mark.parametrize("session", [None, "named"])
def test_a_reset_lets_held_requests_go_and_they_leave_no_trace(session, pool):
    client = Api(session)
    client.post("/mock/faults", {"path": "/items", "hold": True})
    held = send(pool, client, "POST", "/items", {"name": "of the test before"}, 201)

    client.delete("/mock/state")

    assert held.result(timeout=10).json["id"] == "1"  # in the data before the reset
    assert client.get("/items").json == []
    paths = [entry["path"] for entry in client.get("/mock/requests").json]
    assert paths == ["/items"]  # the GET of this test


def test_a_session_that_is_dropped_lets_its_held_requests_go(pool):
    api = Api()
    dropped = api.in_session("dropped")
    dropped.post("/mock/faults", {"path": "/items", "hold": True})
    held = send(pool, dropped, "GET", "/items")

    for number in range(256):
        api.in_session(str(number)).get("/mock")

    assert held.result(timeout=10).json == []


def test_sixteen_held_requests_are_let_go_at_once(api, pool):
    api.post("/mock/faults", {"path": "/items", "hold": True, "times": 16})
    held = [pool.submit(api.post, "/items", {"name": "x"}) for _ in range(16)]
    wait_until(lambda: len(api.get("/mock/requests").json) == 16)
    assert api.get("/mock").json["rows"]["items"] == 0
    assert api.get("/mock/faults").json == []

    api.delete("/mock/faults")

    ids = [int(request.result(timeout=10).json["id"]) for request in held]
    assert sorted(ids) == list(range(1, 17))


def test_a_slow_request_slows_nobody_else_down(api, pool):
    api.post("/mock/faults", {"path": "/items", "method": "POST", "delay": 1000})
    slow = send(pool, api, "POST", "/items", {"name": "slow"}, 201)

    quick = api.post("/items", {"name": "quick"})

    assert quick.json["id"] == "1"
    assert slow.result(timeout=10).json["id"] == "2"


def test_a_slow_request_leaves_no_trace_after_a_reset(api, pool):
    api.post("/mock/faults", {"path": "/items", "method": "POST", "delay": 200})
    slow = send(pool, api, "POST", "/items", {"name": "slow"}, 201)

    api.delete("/mock/state")

    assert slow.result(timeout=10).json["name"] == "slow"
    assert api.get("/items").json == []


def test_where_a_connection_cannot_be_dropped_the_answer_is_503(api):
    # Flask's test client has no connection.
    api.post("/mock/faults", {"path": "/items", "drop": True, "status": 500})

    assert api.get("/items", status=503).json == UNAVAILABLE


def test_the_journal_has_the_requests_in_the_order_of_their_arrival(api):
    api.put("/mock/clock", {"now": NOW})

    api.post("/items?x=%20y&q=1", {"name": "Mug"})
    api.get("/items/9/", status=404)
    api.request("HEAD", "/items")

    entries = api.get("/mock/requests").json
    duration_ms = entries[0]["duration_ms"]
    assert duration_ms >= 0
    assert entries[0] == {
        "at": NOW,
        "method": "POST",
        "path": "/items",
        "query": "x=%20y&q=1",
        "status": 201,
        "duration_ms": duration_ms,
        "body": {"name": "Mug"},
    }
    others = [(entry["method"], entry["path"], entry["status"]) for entry in entries]
    assert others[1:] == [("GET", "/items/9/", 404), ("HEAD", "/items", 200)]


def test_the_journal_can_be_cleared(api):
    api.get("/items")

    api.delete("/mock/requests")

    assert api.get("/mock/requests").json == []


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
        (b"[" * 499 + b"]" * 499, json.loads("[" * 499 + "]" * 499)),
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

    queries = [entry["query"] for entry in api.get("/mock/requests").json]

    assert queries == [f"_={number}" for number in range(1, 501)]


# ----------------------------------------------------------------------
# Answers
# ----------------------------------------------------------------------


WRONG_BODIES = {
    "nothing": (b"", "Body is not JSON: Expecting value"),
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
    "deep": (b'{"x": ' + b"[" * 100_000, "Body must not be nested deeper than 500"),
    "501 levels": (
        b'{"x": ' + b"[" * 500 + b"]" * 500 + b"}",
        "Body must not be nested deeper than 500 levels",
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
        ("POST", "/mock/faults"),
    ]:
        response = demo.request(method, path, body, status=400)
        assert response.json["error"] == "Bad request"
        assert list(response.json["details"]) == ["body"]
        assert response.json["details"]["body"].startswith(problem)

    assert demo.everything() == before
    assert len(demo.get("/mock/requests").json) == 2  # the controls are not recorded


def test_what_is_nested_500_levels_deep_comes_back(api):
    # The body, its array of lines and the line are three levels more.
    line = b'{"x": ' + b"[" * 497 + b"]" * 497 + b"}"
    body = b'{"internal_number": "deep", "items": [' + line + b"]}"

    response = api.post("/orders", body)

    assert api.get("/orders/1").data == response.data
    assert line in response.data
    assert api.get("/mock/requests").json[0]["body"]["internal_number"] == "deep"


@pytest.mark.parametrize(
    "content_type", ["text/json", "", None, "application/x-www-form-urlencoded"]
)
@pytest.mark.parametrize("body", [b"{}", b""])
def test_only_what_is_declared_as_json_is_taken(api, content_type, body):
    headers = {"Content-Type": content_type}

    response = api.post("/items", body, status=415, headers=headers)

    assert response.json == {
        "error": "Unsupported media type",
        "details": {
            "body": "Body must be declared as JSON, by Content-Type: application/json"
        },
    }


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
    "path", ["/nowhere", "/items//1", "/items/1/x", "/mock/x", "/health/x"]
)
def test_a_route_that_does_not_exist_is_a_404(demo, path):
    assert demo.get(path, status=404).json == {"error": "Resource not found"}


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
        {"status": 599, "retry_after": 86_400, "times": 2**53 - 1},
        {"delay": 1, "status": None},
    ],
)
def test_a_new_fault_is_answered_with_every_field(api, given):
    response = api.post("/mock/faults", {"path": "/x", **given})

    assert response.json == {"path": "/x", **FAULT_DEFAULTS, **given}
    assert list(response.json) == ["path", *FAULT_DEFAULTS]
    assert api.get("/mock/faults").json == [response.json]


FAULT_PATH_SENTENCE = (
    "Path must be a pattern of at most 1000 characters that begins with one of / * ? ["
)


FAULT_METHOD_SENTENCE = "Method must be one of *, GET, HEAD, POST, PUT, PATCH, DELETE"


WRONG_FAULTS = [
    ({"status": 503}, {"path": "Path is required"}),
    ({"path": "items", "status": 503}, {"path": FAULT_PATH_SENTENCE}),
    ({"path": "", "status": 503}, {"path": FAULT_PATH_SENTENCE}),
    ({"path": "/" * 1001, "status": 503}, {"path": FAULT_PATH_SENTENCE}),
    ({"path": "*", "method": "post", "status": 503}, {"method": FAULT_METHOD_SENTENCE}),
    (
        {"path": "*", "status": 399},
        {"status": "Status must be an integer from 400 to 599 or null"},
    ),
    (
        {"path": "*", "status": 600},
        {"status": "Status must be an integer from 400 to 599 or null"},
    ),
    (
        {"path": "*", "status": 503, "times": 0},
        {"times": "Times must be an integer from 1 to 9007199254740991 or null"},
    ),
    (
        {"path": "*", "delay": 30_001},
        {"delay": "Delay must be an integer from 0 to 30000"},
    ),
    ({"path": "*", "hold": 1}, {"hold": "Hold must be true or false"}),
    (
        {"path": "*", "status": 429, "retry_after": -1},
        {"retry_after": "Retry after must be an integer from 0 to 86400 or null"},
    ),
    (
        {"path": "*", "drop": None, "after": "x"},
        {"drop": "Drop must be true or false", "after": "After must be true or false"},
    ),
    (
        {"path": "*", "delay": 5, "after": True},
        {"after": "After must be false where nothing fails; add a status or drop"},
    ),
    (
        {"path": "*"},
        {"status": "Status is required where there is no delay, hold or drop"},
    ),
    (
        {"path": "*", "retry_after": 5, "delay": 0},
        {"status": "Status is required where there is no delay, hold or drop"},
    ),
]


@pytest.mark.parametrize("body, details", WRONG_FAULTS, ids=short)
def test_a_wrong_fault_is_refused_and_not_added(demo, body, details):
    demo.post("/mock/faults", {"path": "/kept", "status": 500})
    before = demo.everything()

    response = demo.post("/mock/faults", body, status=400)

    assert response.json == {"error": next(iter(details.values())), "details": details}
    assert demo.everything() == before
    assert demo.get("/mock/requests").json == []


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


def assert_described(document, schema, value):
    """Assert that a value fits a schema: its type, its choices and its names.

    It looks at every depth, but not at other words, such as `maxLength`.
    """
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        schema = document["components"]["schemas"][name]
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
                assert_described(document, schema["properties"][name], part)
            else:
                assert schema.get("additionalProperties", True) is not False
    if isinstance(value, list):
        for part in value:
            assert_described(document, schema["items"], part)


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantity": "3"},
        {"quantity": True},
        {"status": "lost"},
        {"description": None},
        {"colour": "red"},
        {"updated_at": 5},
    ],
)
def test_assert_described_finds_wrong_values(demo, document, wrong):
    schema = {"$ref": "#/components/schemas/Item"}
    item = demo.get("/items/1").json
    assert_described(document, schema, item)

    with pytest.raises(AssertionError):
        assert_described(document, schema, {**item, **wrong})


def test_assert_described_finds_missing_values(document):
    with pytest.raises(AssertionError):
        assert_described(document, {"$ref": "#/components/schemas/Item"}, {"id": "1"})


WRONG_SESSION = {"X-Mock-Session": "!"}


ANSWERS = [  # method, what follows the path of the list, body, headers, status
    ("GET", "", None, {}, 200),
    ("GET", "?page=0", None, {}, 400),
    ("GET", "", None, {"If-None-Match": "*"}, 304),
    ("POST", "", {"x": 1}, {}, 400),
    ("POST", "", b" " * (2**20 + 1), {}, 413),
    ("POST", "", {}, TEXT, 415),
    ("GET", "/1", None, {}, 200),
    ("GET", "/1", None, {"If-None-Match": "*"}, 304),
    ("GET", "/1", None, WRONG_SESSION, 400),
    ("GET", "/99", None, {}, 404),
    ("PUT", "/1", {}, {}, 200),
    ("PUT", "/99", {}, {}, 404),
    ("PUT", "/1", {}, OTHER_TAG, 412),
    ("PATCH", "/1", {}, {}, 200),
    ("PATCH", "/1", {"x": 1}, {}, 400),
    ("PATCH", "/1", {}, TEXT, 415),
    ("DELETE", "/99", None, {}, 404),
    ("DELETE", "/1", None, OTHER_TAG, 412),
    ("DELETE", "/1", None, {}, 204),
]


def described_response(document, method, path, status):
    """What the description says of an answer."""
    return document["paths"][path][method.lower()]["responses"][str(status)]


@pytest.mark.parametrize("method, suffix, body, headers, status", ANSWERS, ids=short)
def test_every_kind_of_answer_is_described(
    api, example, document, method, suffix, body, headers, status
):
    api.post(example.path, example.body)

    response = api.request(
        method, example.path + suffix, body, status=status, headers=headers
    )

    path = example.path
    if suffix.startswith("/"):
        path = f"{example.path}/{{id}}"
    described = described_response(document, method, path, status)
    if response.data:
        schema = described["content"]["application/json"]["schema"]
        if "anyOf" in schema:
            schema = schema["anyOf"][0]  # a whole list; the other one is for pages
        assert_described(document, schema, response.json)
    else:
        assert "content" not in described


def test_a_created_row_is_described(api, example, document):
    response = api.post(example.path, example.body)

    described = described_response(document, "POST", example.path, 201)
    schema = described["content"]["application/json"]["schema"]
    assert_described(document, schema, response.json)


def test_a_page_is_described(demo, example, document):
    response = demo.get(f"{example.path}?page=1")

    described = described_response(document, "GET", example.path, 200)
    _, page_schema = described["content"]["application/json"]["schema"]["anyOf"]
    assert_described(document, page_schema, response.json)


@pytest.mark.parametrize("headers, status", [({}, 200), (WRONG_SESSION, 400)])
def test_health_is_described(api, document, headers, status):
    response = api.get("/health", status=status, headers=headers)

    described = described_response(document, "GET", "/health", status)
    schema = described["content"]["application/json"]["schema"]
    assert_described(document, schema, response.json)


@pytest.mark.parametrize(
    "method, path, described_path",
    [
        ("POST", "/orders", "/orders"),
        ("PUT", "/orders/2", "/orders/{id}"),
        ("DELETE", "/items/2", "/items/{id}"),
    ],
)
def test_a_conflict_is_described(demo, document, method, path, described_path):
    body = None if method == "DELETE" else {"internal_number": "ORD-2026-001"}

    response = demo.request(method, path, body, status=409)

    described = described_response(document, method, described_path, 409)
    schema = described["content"]["application/json"]["schema"]
    assert_described(document, schema, response.json)


def test_each_route_describes_its_answers(document, example):
    statuses = {}
    for path in (example.path, f"{example.path}/{{id}}"):
        for method, operation in document["paths"][path].items():
            statuses[method, path] = sorted(operation["responses"])

    change = ["200", "400", "404", "409", "412", "413", "415"]
    assert statuses == {
        ("get", example.path): ["200", "304", "400"],
        ("post", example.path): ["201", "400", "409", "413", "415"],
        ("get", f"{example.path}/{{id}}"): ["200", "304", "400", "404"],
        ("put", f"{example.path}/{{id}}"): change,
        ("patch", f"{example.path}/{{id}}"): change,
        ("delete", f"{example.path}/{{id}}"): ["204", "400", "404", "409", "412"],
    }


@pytest.mark.parametrize(
    "method, suffix, names",
    [
        ("get", "", ["X-Mock-Session", "If-None-Match"]),
        ("post", "", ["X-Mock-Session"]),
        ("get", "/{id}", ["X-Mock-Session", "id", "If-None-Match"]),
        ("put", "/{id}", ["X-Mock-Session", "id", "If-Match"]),
        ("patch", "/{id}", ["X-Mock-Session", "id", "If-Match"]),
        ("delete", "/{id}", ["X-Mock-Session", "id", "If-Match"]),
    ],
)
def test_each_route_describes_its_path_and_headers(
    document, example, method, suffix, names
):
    parameters = document["paths"][example.path + suffix][method]["parameters"]

    described = [one for one in parameters if one["in"] != "query"]
    assert [one["name"] for one in described] == names
    for one in described:
        assert one["required"] is (one["in"] == "path")


@pytest.mark.parametrize(
    "method, path, schema_name",
    [
        ("post", "/items", "NewItem"),
        ("put", "/items/{id}", "ItemChange"),
        ("patch", "/items/{id}", "ItemChange"),
        ("post", "/orders", "NewOrder"),
        ("put", "/orders/{id}", "OrderChange"),
    ],
)
def test_each_route_describes_its_body(document, method, path, schema_name):
    body = document["paths"][path][method]["requestBody"]

    assert body["required"] is True
    schema = body["content"]["application/json"]["schema"]
    assert schema == {"$ref": f"#/components/schemas/{schema_name}"}


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
    assert ids["patch", "/orders/{id}"] == "patchOrder"
    assert ids["delete", "/orders/{id}"] == "deleteOrder"
    assert len(set(ids.values())) == len(ids)


def test_the_description_names_the_api_and_where_it_is(document):
    assert document["openapi"] == "3.1.0"
    assert document["info"] == {"title": "Inventory API", "version": "1.0.0"}
    assert document["servers"] == [{"url": "/api/v1"}]


@pytest.fixture
def list_parameters(document):
    """The described query parameters of the list of items, by name."""
    parameters = document["paths"]["/items"]["get"]["parameters"]
    return {one["name"]: one for one in parameters if one["in"] == "query"}


@pytest.mark.parametrize(
    "field_name, names",
    [
        (
            "quantity",
            [
                "quantity",
                "quantity_ne",
                "quantity_gt",
                "quantity_gte",
                "quantity_lt",
                "quantity_lte",
            ],
        ),
        (
            "name",
            [
                "name",
                "name_ne",
                "name_gt",
                "name_gte",
                "name_lt",
                "name_lte",
                "name_like",
            ],
        ),
    ],
)
def test_all_filters_of_a_list_are_described(list_parameters, field_name, names):
    described = [name for name in list_parameters if name.startswith(field_name)]

    assert described == names


def test_the_parameters_of_every_list_come_first_and_those_of_the_mock_do_not(
    list_parameters,
):
    assert list(list_parameters)[:4] == ["sort", "page", "per_page", "q"]
    assert "_delay" not in list_parameters
    assert "_status" not in list_parameters


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
    assert wanted("updated_at_ne")["type"] == ["string", "null"]


def test_sorting_is_described_by_a_pattern(list_parameters):
    pattern = list_parameters["sort"]["schema"]["pattern"]

    assert re.fullmatch(pattern, "-quantity,name")
    assert not re.fullmatch(pattern, "size")


def test_each_schema_says_which_fields_are_required(api, document):
    schemas = document["components"]["schemas"]
    row = api.post("/items", {"name": "x"}).json

    assert schemas["NewItem"]["required"] == ["name"]
    assert schemas["NewOrder"]["required"] == ["internal_number"]
    assert schemas["ItemChange"]["required"] == []
    assert schemas["OrderChange"]["required"] == []
    assert schemas["Item"]["required"] == list(row)
    assert schemas["ItemPage"]["required"] == ["data", "total", "page", "per_page"]


def test_the_schemas_allow_no_other_names(document):
    schemas = document["components"]["schemas"]

    for name in ("Item", "NewItem", "ItemChange", "ItemPage", "Error", "Health"):
        assert schemas[name]["additionalProperties"] is False
    page = schemas["ItemPage"]
    assert list(page["properties"]) == page["required"]


def test_defaults_are_described_in_words_and_not_as_default(document):
    properties = document["components"]["schemas"]["NewItem"]["properties"]

    sentence = 'one of pending, active, completed; "pending" if left out'
    assert properties["status"]["description"] == sentence
    assert properties["quantity"]["maximum"] == 2**53 - 1
    assert "ignored" in properties["updated_at"]["description"]
    # Tools that make types would make a field with a `default` mandatory.
    assert '"default"' not in json.dumps(document)


def test_health_answers_exactly_this(api):
    assert api.get("/health").json == {"status": "healthy", "version": "1.0.0"}


# ----------------------------------------------------------------------
# Home page
# ----------------------------------------------------------------------


def get_page(demo, path="/", accept="text/html,*/*;q=0.8"):
    return demo.app.test_client().get(path, headers={"Accept": accept})


def test_the_page_has_the_routes(demo):
    page = get_page(demo)

    assert page.mimetype == "text/html"
    assert page.headers["Cache-Control"] == "no-store"
    assert 'href="/api/v1/items"' in page.text
    assert "/api/v1/orders/&lt;id&gt;" in page.text
    assert "the default session" in page.text


def test_the_page_has_a_control_for_each_field_of_a_fault(demo):
    page = get_page(demo)

    for name in ("method", "path", "times", "status", "retry_after", "delay", "after"):
        assert f'id="{name}"' in page.text
    for kind in ("error", "delay", "hold", "drop"):
        assert f'<option value="{kind}">' in page.text


def test_each_control_of_the_page_has_a_label(demo):
    page = get_page(demo)

    controls = re.findall(r'<(?:input|select) id="(.*?)"', page.text)
    assert len(controls) == 10
    for control in controls:
        if control == "after":  # a box inside its label
            assert '<label class="check"><input id="after"' in page.text
        else:
            assert f'<label for="{control}"' in page.text


def test_the_page_loads_nothing_from_elsewhere(demo):
    page = get_page(demo)

    for target in re.findall(r'(?:src|href)="(.*?)"', page.text):
        assert target.startswith(("/", "data:"))


def test_the_page_calls_only_controls_that_exist(demo):
    page = get_page(demo)
    # Buttons have what they ask for in data-act; the script has the rest.
    calls = re.findall(r'data-act="(\w+) (.*?)"', page.text)
    calls += re.findall(r'"(GET|PUT|POST|DELETE)", "(/mock.*?)"', page.text)

    assert len(calls) == 8
    routes = demo.app.url_map.bind("")  # as of a request to no certain host
    for method, path in calls:
        routes.match(f"/api/v1{path}", method)  # raises if there is no such route


def test_the_page_is_about_the_session_that_it_names(demo):
    page = get_page(demo, "/?session=worker-3")
    assert "<strong>worker-3</strong>" in page.text
    assert 'const session = "worker-3"' in page.text

    for name in ("a b", "<script>", ""):
        wrong = get_page(demo, f"/?session={name}")
        assert wrong.status_code == 400
        assert wrong.json["error"] == f"Session {MUST_BE_SESSION_NAME}"


def test_the_page_is_json_for_clients_that_prefer_it(demo):
    response = get_page(demo, accept="application/json")

    assert response.json["name"] == "Inventory API"
    assert response.json["version"] == "1.0.0"
    paths = set()
    for route in response.json["routes"]:
        assert route["methods"]
        assert route["summary"].endswith(".")
        paths.add(route["path"])
    assert paths == {rule.rule for rule in demo.app.url_map.iter_rules()}


def test_the_page_is_html_for_clients_that_prefer_it(demo):
    response = get_page(demo, accept="text/html;q=0.9, application/json;q=0.8")

    assert response.mimetype == "text/html"


# ----------------------------------------------------------------------
# Settings
# ----------------------------------------------------------------------


WRONG_SETTINGS = [
    ("port", "x", "PORT must be an integer from 0 to 65535, not 'x'"),
    ("port", 65536, "PORT must be an integer from 0 to 65535, not '65536'"),
    ("port", -1, "PORT must be an integer from 0 to 65535, not '-1'"),
    ("delay", "200-800", "DELAY must be an integer from 0 to 30000, not '200-800'"),
    ("delay", 30_001, "DELAY must be an integer from 0 to 30000, not '30001'"),
    (
        "seed",
        "many",
        "SEED must be demo, a number of items, or the path of a .json file, not 'many'",
    ),
    ("seed", "no.json", "SEED no.json: No such file or directory"),
    ("seed", "a\0.json", "SEED a\0.json: embedded null byte"),
    ("api_prefix", "api", "API_PREFIX must be a path such as /api, not 'api'"),
    ("api_prefix", "/api/", "API_PREFIX must be a path such as /api, not '/api/'"),
    (
        "api_version",
        "a/b",
        "API_VERSION must be a part of a path such as v1, not 'a/b'",
    ),
    ("sed", "demo", "sed is not known here; allowed are host, port, seed, delay, "),
]


@pytest.mark.parametrize("name, value, sentence", WRONG_SETTINGS)
def test_a_wrong_setting_is_refused_with_its_name_and_value(name, value, sentence):
    with pytest.raises(store.InvalidError) as refusal:
        create_app(**{name: value})

    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize(
    "origins", ["localhost:5173", "http://*", "http://a/", "http://a,*"]
)
def test_what_is_no_origin_is_refused(origins):
    with pytest.raises(
        store.InvalidError, match=r"CORS_ORIGINS must be \* or origins such"
    ):
        create_app(cors_origins=origins)


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
    times = [row["created_at"] for row in demo.get("/items").json]
    assert times == sorted(times)


def test_generated_items_are_the_same_every_time():
    first = Api(seed="250").get("/items")

    assert first.data == Api(seed="250").get("/items").data
    last = first.json[-1]
    assert (last["id"], last["name"]) == ("250", "Blue desk 250")
    assert last["created_at"] == "2026-01-05T13:40:00.000Z"
    assert {row["status"] for row in first.json} == {"pending", "active", "completed"}
    assert len({row["quantity"] for row in first.json}) > 200


@pytest.mark.parametrize("byte_order_mark", [b"", b"\xef\xbb\xbf"])
def test_a_seed_file_has_the_form_of_a_state(tmp_path, byte_order_mark):
    file = tmp_path / "seed.json"
    rows = {"items": [{"name": "a", "id": "x"}, {"name": "b"}]}
    file.write_bytes(byte_order_mark + json.dumps(rows).encode())
    began = datetime.now(UTC)

    api = Api(seed=str(file))

    assert [row["id"] for row in api.get("/items").json] == ["x", "1"]
    created_at = datetime.fromisoformat(api.get("/items/1").json["created_at"])
    assert abs(created_at - began) < timedelta(minutes=1)
    state = api.get("/mock/state").data
    file.write_bytes(state)
    assert Api(seed=str(file)).get("/mock/state").data == state


@pytest.mark.parametrize(
    "content, problem",
    [
        (
            '{"items": [{"name": "a", "id": 1}]}',
            "items[0].id is 1: Id must be a string of 1 to 64",
        ),
        (
            '{"items": [{"name": "a", "status": "lost"}]}',
            'items[0].status is "lost": Status must be one of pending',
        ),
        ('{"items": [{}]}', "items[0].name: Name is required"),
        ("[]", "the file must be a JSON object"),
        ("{", "the file is not JSON"),
        ('{"item": []}', "item is []: item is not known here; allowed are items"),
        ('{"items": [], "items[x]": 1}', "items[x]: items[x] is not known here"),
    ],
)
def test_a_wrong_seed_file_is_refused_with_the_place(tmp_path, content, problem):
    file = tmp_path / "seed.json"
    file.write_text(content)

    with pytest.raises(store.InvalidError) as refusal:
        create_app(seed=str(file))

    assert str(refusal.value).startswith(f"SEED {file}: {problem}")


# ----------------------------------------------------------------------
# Running
# ----------------------------------------------------------------------


class Service:
    """The service as a process of its own, on a free port."""

    def __init__(self, stdout=subprocess.PIPE, **settings):
        # PYTHONUNBUFFERED would hide that a line is not flushed.
        environment = {**os.environ, "PORT": "0", "PYTHONUNBUFFERED": "", **settings}
        self.process = subprocess.Popen(
            [sys.executable, "inventory.py"],
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
        self.url = f"http://127.0.0.1:{self.port}/api/v1"

    def ask(self, method, path, body=None):
        """The value that a request is answered with, or None for no body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read()
        return json.loads(text) if text else None

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
    assert len(service.ask("GET", "/items")) == 12
    service.ask("GET", "/mock/requests")
    service.ask("GET", "/mock")
    service.ask("DELETE", "/mock/requests")
    with pytest.raises(urllib.error.HTTPError):
        service.ask("GET", "/mockups")  # not one of the controls

    out, err, status = service.end(signal_number)

    assert (err, status) == ("", 0)
    # Reads of the controls are not logged, because the page makes one each second.
    logged = [
        re.sub(r"^\d\d/\w+/\d{4} \d\d:\d\d:\d\d ", "", line)
        for line in out.splitlines()
    ]
    assert logged == [
        "'GET /api/v1/items HTTP/1.1' 200",
        "'DELETE /api/v1/mock/requests HTTP/1.1' 204",
        "'GET /api/v1/mockups HTTP/1.1' 404",
    ]


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
    service.ask(
        "POST", "/mock/faults", {"path": "/items", "drop": True, "after": after}
    )
    service.ask(
        "POST", "/mock/faults", {"path": "/items", "method": "HEAD", "drop": True}
    )

    with pytest.raises((ConnectionError, urllib.error.URLError)):
        service.ask("POST", "/items", {"name": "lost"})
    with pytest.raises((ConnectionError, urllib.error.URLError)):
        service.ask("HEAD", "/items")

    entries = service.ask("GET", "/mock/requests")
    assert [entry["status"] for entry in entries] == [0, 0]
    assert entries[0]["body"] == {"name": "lost"}
    assert len(service.ask("GET", "/items")) == rows
    out, err, status = service.end()
    assert (err, status) == ("", 0)
    assert "'POST /api/v1/items HTTP/1.1' 0\n" in out


@pytest.mark.parametrize(
    "settings, line",
    [
        (
            {"DELAY": "x"},
            "inventory: DELAY must be an integer from 0 to 30000, not 'x'\n",
        ),
        ({"SEED": "no.json"}, "inventory: SEED no.json: No such file or directory\n"),
    ],
)
def test_a_wrong_variable_is_reported_in_one_line(start, settings, line):
    service = start(**settings)

    _, err = service.process.communicate(timeout=10)

    assert (service.first_line, err, service.process.returncode) == ("", line, 1)


def test_a_taken_port_is_reported_with_what_to_do(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = start(PORT=str(port))
        _, err = service.process.communicate(timeout=10)

    assert (service.first_line, service.process.returncode) == ("", 1)
    assert f"Port {port} is in use by another program" in err
    assert f"inventory: HOST 127.0.0.1 and PORT {port} must be free" in err
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_behind_stdout_does_not_stop_the_service(start):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with open("/dev/full", "w") as full:
        service = start(stdout=full, PORT=str(port))
    service.url = f"http://127.0.0.1:{port}/api/v1"

    def answers():
        with suppress(urllib.error.URLError):
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
        (chunked + b"no length\r\n", 400),
        (chunked + b'd\r\n{"name": "x"}\r\n0\r\n\r\n', 201),
        (head + b"Content-Length: 0\r\n\r\n", 400),
        (b"GET /api/v1/\xc3\xbc HTTP/1.1\r\n\r\n", 404),
    ]:
        address = ("127.0.0.1", service.port)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(sent)
            answer = connection.makefile("rb").read().decode()
        headers, _, body = answer.partition("\r\n\r\n")
        assert headers.startswith(f"HTTP/1.1 {status} ")
        assert "application/json" in headers
        assert ("name" if status == 201 else "error") in json.loads(body)
    assert [row["name"] for row in service.ask("GET", "/items")] == ["x"]
    out, _, _ = service.end()
    assert "'GET /api/v1/\\xc3\\xbc HTTP/1.1' 404" in out  # nothing for a terminal


@pytest.mark.parametrize("host, shown", [("localhost", "127.0.0.1"), ("::1", "[::1]")])
def test_the_first_line_has_the_address_that_is_listened_on(start, host, shown):
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("needs IPv6")

    service = start(HOST=host)

    url = f"http://{shown}:{service.port}/api/v1"
    assert service.first_line == f"Inventory API listening on {url}\n"
    with urllib.request.urlopen(f"{url}/health") as response:
        assert response.status == 200


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
    """A text with its times, durations and ports made the same."""
    text = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text)

    text = re.sub(rf'"{TIME_PATTERN}"', '"TIME"', text)
    text = re.sub(r'"duration_ms":[\d.]+', '"duration_ms":0', text)

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
            here = here.replace("curl ", "curl --silent ")
            done = subprocess.run(
                here, shell=True, capture_output=True, text=True, timeout=30
            )
            came = done.stdout
        assert (command, without_what_varies(came)) == (
            command,
            without_what_varies(answer),
        )
