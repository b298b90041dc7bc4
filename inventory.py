"""The inventory service: a store of items and orders over HTTP, for building frontends.

The sections stand in the order in which a request meets them, after `create_app`:

    Arrival      each request gets its session, is written down, and meets the faults
    Resources    the five views, and how a request's body and query are read
    Answers      how an answer is made, and how an error becomes one
    Mock controls, Description, Home page
    Settings, Seeds, Running: what happens before the first request

The rules for the data, and all locks, are in store.py. Words that both modules use:

    place        where in the data something is, such as `name` or `items[0].item_id`
    rule         what a value must be, in words of JSON Schema.
                 `store.validate(rule, value)` raises an error if it is not;
                 `store.check(rule, value)` lists the problems, and
                 `store.refuse(problems)` raises an error if there are any
    session      the data of one test, chosen by a header or a cookie (not Flask's)
    fault        something that a test has ordered to go wrong, for certain requests
    hold         let a request wait until the faults of its session are cleared. What it
                 waits for is an event, a flag that one thread sets for others
    journal      the list of the requests that have come
    tag          a version of a row or a list in the header ETag. Sent back, it means
                 "tell me only what is newer" (If-None-Match) or "change it only if it
                 is still this one" (If-Match)
    origin       scheme, host and port of a page. A browser lets a page ask another
                 origin only if that allows it (CORS). For some requests it asks first:
                 that OPTIONS request is called a preflight
"""

import codecs
import json
import math
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlencode

import flask_cors
from flask import (
    Blueprint,
    Flask,
    Response,
    after_this_request,
    current_app,
    g,
    render_template_string,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import ETags
from werkzeug.exceptions import (
    HTTPException,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Response as WerkzeugResponse

import store
from store import (
    RESOURCES,
    Fault,
    InvalidError,
    Problem,
    Resource,
    Row,
    Rule,
    StoreError,
)

VERSION = "1.0.0"


def create_app(**arguments: object) -> Flask:
    """Make the service, with data of its own.

    The arguments are settings in lower case, such as `seed="demo"`. Those that are not
    given come from the environment. Raises InvalidError.
    """
    settings = load_settings(arguments)
    sessions = store.Sessions(load_seed(settings.seed))
    app = Flask(__name__, static_folder=None)
    app.config.from_mapping(SETTINGS=settings, SESSIONS=sessions)
    # Fields stay in the order in which they are declared.
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # The path /items/ is the same as /items, and not a 404.
    app.url_map.strict_slashes = False
    # The path //items is a 404, and not redirected to /items: a browser does not accept
    # a redirect as the answer to a preflight (see `is_preflight`).
    app.url_map.merge_slashes = False

    allow_origins(app, settings.origins)
    add_hooks(app, settings, sessions)
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(StoreError, answer_store_error)

    add_routes(app, settings.api)
    return app


def add_routes(app: Flask, api: str) -> None:
    """Register the views. Those of the resources are registered once for each.

    `url_defaults` are arguments that Flask passes to a view beside those in its path.
    They tell the same five views which resource they are to serve.
    """
    for name, resource in RESOURCES.items():
        app.register_blueprint(
            resource_views,
            name=name,
            url_prefix=f"{api}/{name}",
            url_defaults={"resource": resource},
        )
    app.register_blueprint(mock_views, url_prefix=f"{api}/mock")
    app.register_blueprint(description_views, url_prefix=api)
    app.add_url_rule("/", view_func=home)


def allow_origins(app: Flask, origins: list[str]) -> None:
    """Let pages of these origins use the service, and read its headers (CORS)."""
    flask_cors.CORS(
        app,
        origins=origins,
        supports_credentials=True,
        always_send=False,  # only to requests that come from a page
        max_age=600,  # seconds for which a browser may keep a permission
        expose_headers=["ETag", "Link", "Location", "Retry-After", "X-Total-Count"],
    )


# ----------------------------------------------------------------------
# Arrival
#
# Flask calls `arrive` before the view, and also where no route fits, so that 404s and
# 405s are recorded as well. If it returns a response, that is the answer and the view
# is skipped. At last Flask calls `leave` with the response, whoever made it: `arrive`,
# a view, or an error handler; after it, Flask-CORS adds its headers. What one function
# keeps for another is in `g`, which lives as long as the request.
# ----------------------------------------------------------------------

BODY_LIMIT = 2**20  # bytes
STATE_LIMIT = 2**26
JOURNAL_BODY_LIMIT = 10 * 2**10
HOLD_LIMIT = 30  # seconds
DROPPED = 0  # in journal and log, the status of a request whose connection was closed

# What a query may ask of the mock itself, beside the parameters of the resource, and
# the rules for it.
MOCK_PARAMETERS = {"_delay": store.DELAY_RULE, "_status": store.ERROR_STATUS_RULE}


def add_hooks(app: Flask, settings: "Settings", sessions: store.Sessions) -> None:
    """Make each request go through what all requests have in common."""

    @app.before_request
    def arrive() -> Response | None:
        if is_preflight():
            return app.make_default_options_response()
        session = sessions.get(session_name())
        g.mock_session = session
        g.started_at = time.perf_counter()
        path = path_below(settings.api)
        if path is not None:
            # Before the body is read, so that the journal has a request with too large
            # a body as well.
            g.entry = write_down(session, path)
        g.body = read_body()
        if path is None:
            return None  # go on to the view
        return apply_fault(session, path, settings.delay)

    @app.after_request
    def leave(response: Response) -> Response:
        complete_entry(response.status_code)
        # A browser is not to keep copies: a page is to see what the server has now.
        response.headers["Cache-Control"] = "no-store"
        if response.status_code == DROPPED:
            # Only now, so that whoever notices finds the journal complete.
            close_connection()
        return response


def current_session() -> store.Session:
    """The session of this request, which `arrive` has found."""
    session: store.Session = g.mock_session
    return session


def is_preflight() -> bool:
    """Whether this is a preflight: a browser asks if a page of another origin may send
    the request that it has in mind (CORS).

    Flask answers it by itself, but only on routes that exist. On any other path the
    page would then see a network error in place of the 404.
    """
    if request.method != "OPTIONS":
        return False
    return request.access_control_request_method is not None


def session_name() -> str | None:
    """The session that a header or a cookie names. Raises InvalidError."""
    place = "X-Mock-Session"
    name = request.headers.get(place)
    # Most clients send no cookies, and `request.cookies` takes a while even then.
    if name is None and "Cookie" in request.headers:
        place = "mock_session"
        name = request.cookies.get(place)
    if name is not None:
        store.validate(store.SESSION_NAME_RULE, name, place)
    return name


def path_below(api: str) -> str | None:
    """What follows the path of the API, as `/items/1`.

    None for a request that is neither recorded nor made to fail: one to the mock
    controls, to health and the description, or to no part of the API.
    """
    whole_path = request.path
    if not whole_path.startswith(f"{api}/"):
        return None
    path = whole_path.removeprefix(api)
    if path.startswith("/mock/"):
        return None
    if path.rstrip("/") in ("/mock", "/health", "/openapi.json"):
        return None
    return path


def write_down(session: store.Session, path: str) -> store.Entry:
    """Begin an entry in the journal."""
    entry = store.Entry(
        at=session.clock.now(),
        method=request.method,
        path=path,
        query=request.query_string.decode(errors="replace"),
    )
    session.journal.add(entry)
    return entry


def read_body() -> bytes:
    """What the client sends. Raises RequestEntityTooLarge."""
    limit = BODY_LIMIT
    if request.endpoint == "mock.replace_state":
        limit = STATE_LIMIT
    # Werkzeug raises the error if the header Content-Length is above its own limit. But
    # a body can come in pieces, without that header. Then Werkzeug reads as far as its
    # limit, and ignores the rest. With a limit of one byte more than ours, we see by
    # the length of what was read that it is too long.
    request.max_content_length = limit + 1
    body = request.get_data()
    if len(body) > limit:
        raise RequestEntityTooLarge
    return body


def apply_fault(session: store.Session, path: str, least_delay: int) -> Response | None:
    """Decide what becomes of a request: let it wait, then fail, be lost, or go on."""
    asked = read_mock_query()
    if "_status" in asked:
        fault, end_of_hold = Fault(path="*", status=asked["_status"]), None
    else:
        # The first fault for such a request, or NO_FAULT, which does nothing.
        fault, end_of_hold = session.faults.take(request.method, path)

    delay = max(least_delay, asked.get("_delay", 0), fault.delay)
    if delay > 0:
        time.sleep(delay / 1000)  # no lock is held, so other requests go on
    if end_of_hold is not None:  # the fault holds the request until this event
        end_of_hold.wait(HOLD_LIMIT)

    if not fault.fails:
        return None  # go on to the view
    if not fault.after:
        return failure(fault)

    # The request is carried out first. Then Flask calls this function with the answer,
    # before it calls `leave`, and takes what it returns in place of the answer.
    @after_this_request
    def lose_answer(_: Response) -> Response:
        return failure(fault)

    return None


def read_mock_query() -> dict[str, int]:
    """What the query asks of the mock. Raises InvalidError."""
    if not request.query_string:
        return {}  # most requests have none, and reading one takes time
    names = [name for name in MOCK_PARAMETERS if name in request.args]
    return read_query(MOCK_PARAMETERS, names)


def failure(fault: Fault) -> Response:
    """What the client gets in place of an answer.

    Werkzeug's server puts the socket of the connection into the environ. Under another
    server we cannot close the connection, and answer 503 instead.
    """
    if fault.drop and "werkzeug.socket" in request.environ:
        return Response(status=DROPPED)  # `leave` sees it, and closes the connection
    if fault.drop:
        status = 503
    else:
        assert fault.status is not None  # otherwise the fault would not fail
        status = fault.status
    response = error_response(status, status_phrase(status), {"injected": True})
    response.retry_after = fault.retry_after  # None: without that header
    return response


def complete_entry(status: int) -> None:
    """Add to the journal what became of the request, if it is one that is recorded."""
    entry = g.get("entry")
    if entry is not None:
        duration_ms = round(1000 * (time.perf_counter() - g.started_at), 1)
        current_session().journal.complete(entry, status, duration_ms, journal_body())


def close_connection() -> None:
    """Close the connection, so that nothing of the response reaches the client.

    Werkzeug's server logs the response all the same, and then fails to send it.
    """
    with suppress(OSError):  # the client may have closed it
        request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


def journal_body() -> Any:
    """The value that the request has brought, if it is JSON and not too long."""
    body = g.get("body")  # None if it could not be read
    if not body or len(body) > JOURNAL_BODY_LIMIT:
        return None
    try:
        return parse_json(body)
    except ValueError:
        return None


# ----------------------------------------------------------------------
# Resources
#
# The same five views serve every resource. A view asks the store and makes an answer of
# what it gets. There are no errors in a view: what is wrong with a request is raised
# where it is found, and becomes an answer in the section after this one.
# ----------------------------------------------------------------------

resource_views = Blueprint("resource", __name__)


@resource_views.get("")
def list_rows(resource: Resource) -> Response:
    """List the rows, oldest first; filters, sort and page are in the query."""
    query = read_list_query(resource)
    snapshot = current_session().store.snapshot(resource)
    rows = store.select(resource, snapshot.rows, query)
    if "page" in query or "per_page" in query:
        response = page_response(rows, query.get("page", 1), query.get("per_page", 10))
    else:
        response = json_response(json_array(rows))
    response.headers["X-Total-Count"] = str(len(rows))
    response.set_etag(str(snapshot.version))
    return conditional(response)


@resource_views.post("")
def create_row(resource: Resource) -> Response:
    """Create a row."""
    row = current_session().store.create(resource, sent_object())
    response = row_response(row, 201)
    # `.show_row` is the view in the blueprint of this request, such as items.show_row.
    response.location = url_for(".show_row", id=row.record.id)
    return response


@resource_views.get("/<id>")
def show_row(resource: Resource, id: str) -> Response:
    """Read one row."""
    row = current_session().store.get(resource, id)
    return conditional(row_response(row))


@resource_views.route("/<id>", methods=["PUT", "PATCH"])
def update_row(resource: Resource, id: str) -> Response:
    """Merge the given fields into a row."""
    row = current_session().store.update(
        resource, id, sent_object(), expected_versions()
    )
    return row_response(row)


@resource_views.delete("/<id>")
def delete_row(resource: Resource, id: str) -> Response:
    """Remove a row."""
    current_session().store.delete(resource, id, expected_versions())
    return no_content()


def sent_object() -> dict[str, Any]:
    """The JSON object in the request. Raises UnsupportedMediaType, InvalidError."""
    if not request.is_json:
        raise UnsupportedMediaType
    try:
        return parse_object(g.body)
    except ValueError as error:
        raise InvalidError("Bad request", {"body": f"Body {error}"}) from None


def parse_object(raw: bytes) -> dict[str, Any]:
    """The object that a JSON text is. Raises ValueError."""
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")
    return value


DIGITS_LIMIT = 4000
NESTING_LIMIT = 500
TOO_DEEP = f"must not be nested deeper than {NESTING_LIMIT} levels"


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text (RFC 8259) in UTF-8.

    Raises ValueError with the end of a sentence, such as "is not JSON".
    """
    try:
        value = json.loads(
            raw.decode(),
            parse_int=integer,
            parse_float=finite,
            parse_constant=finite,
        )
        levels = nesting(value)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    # Python raises RecursionError if calls are nested too deeply. How deep a value it
    # can read or write depends on how many calls are under way at that moment. A fixed
    # limit, far below that, makes sure that what was read can also be written.
    if levels > NESTING_LIMIT:
        raise ValueError(TOO_DEEP)
    return value


def integer(text: str) -> int:
    """The value of an integer. Raises ValueError for one of thousands of digits.

    Python has a limit near to this one, but its message is meant for programmers.
    """
    if len(text) > DIGITS_LIMIT:
        raise ValueError(f"an integer must not have more than {DIGITS_LIMIT} digits")
    return int(text)


def finite(text: str) -> float:
    """The value of a number. Raises ValueError for NaN, Infinity and the like of 1e400.

    Python reads these, and would write them back in a form that is not JSON.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a number that can be held")
    return number


def nesting(value: Any) -> int:
    """How many arrays and objects are inside one another."""
    if isinstance(value, dict):
        parts: Iterable[Any] = value.values()
    elif isinstance(value, list):
        parts = value
    else:
        return 0
    deepest = 0
    for part in parts:
        deepest = max(deepest, nesting(part))
    return deepest + 1


def read_list_query(resource: Resource) -> dict[str, Any]:
    """The parameters of a list. Raises InvalidError for one that is not known.

    A parameter that is just `_` is ignored: clients add it to get past caches.
    """
    names = [name for name in request.args if name not in ("_", *MOCK_PARAMETERS)]
    return read_query(resource.parameters, names)


def read_query(parameters: Mapping[str, Rule], names: Iterable[str]) -> dict[str, Any]:
    """The values of these names in the query, read by the rules of the parameters.

    Raises InvalidError with a problem for each name that is wrong or not known.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name in names:
        if name not in parameters:
            problems.append((name, store.unknown_name(name, parameters)))
            continue
        rule = parameters[name]
        texts = request.args.getlist(name)
        # A text that `read_text` cannot read stays a text, and `check` refuses it. The
        # values of an array are checked one by one, at the place of their parameter.
        if rule["type"] == "array":
            element_rule = rule["items"]
            values[name] = [store.read_text(element_rule, text) for text in texts]
            for value in values[name]:
                problems.extend(store.check(element_rule, value, name))
        else:
            values[name] = store.read_text(rule, texts[-1])  # the last one counts
            problems.extend(store.check(rule, values[name], name))
    store.refuse(problems)
    return values


def expected_versions() -> ETags | None:
    """The tags in the header If-Match (RFC 9110 §13.1.1), or None without it.

    The store asks whether the version of the row is `in` them. Every version is, if the
    header is a star.
    """
    if "If-Match" not in request.headers:
        return None
    return request.if_match


# ----------------------------------------------------------------------
# Answers
#
# Rows are JSON already when they come from the store, so that a list is one join of
# bytes. Errors of the store and of Flask have the same form, made by `error_body`.
# ----------------------------------------------------------------------


def json_response(body: bytes, status: int = 200) -> Response:
    """A response with a body that is JSON already."""
    return Response(body + b"\n", status, mimetype="application/json")


def json_array(rows: Iterable[Row]) -> bytes:
    """Rows as a JSON array, each in a line of its own."""
    elements = b",\n ".join([row.json for row in rows])
    return b"".join([b"[", elements, b"]"])


def json_object(members: Mapping[str, bytes]) -> bytes:
    """A JSON object of members whose values are JSON already."""
    pairs = []
    for name, value in members.items():
        pairs.append(json.dumps(name).encode() + b": " + value)
    return b"{" + b", ".join(pairs) + b"}"


def row_response(row: Row, status: int = 200) -> Response:
    """A response with a row, and its version as its tag."""
    response = json_response(row.json, status)
    response.set_etag(str(row.version))
    return response


def conditional(response: Response) -> Response:
    """The answer to a read: 304 for a client that has this version already.

    See RFC 9110 §13.1.2. Werkzeug sends no body with a 304. Its `make_conditional` does
    the same, but looks at If-Match as well, which we ignore on a read.
    """
    tag, _ = response.get_etag()
    # Tags that are marked as weak (W/"7") count as well.
    if tag is not None and request.if_none_match.contains_weak(tag):
        response.status_code = 304
    return response


def no_content() -> Response:
    """A response without a body."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def page_response(rows: list[Row], page: int, per_page: int) -> Response:
    """A page of rows, with links to the others (RFC 8288)."""
    start = (page - 1) * per_page
    members = {
        "data": json_array(rows[start : start + per_page]),
        "total": str(len(rows)).encode(),
        "page": str(page).encode(),
        "per_page": str(per_page).encode(),
    }
    response = json_response(json_object(members))
    last_page = max(1, math.ceil(len(rows) / per_page))
    pages = {"first": 1}
    if page > 1:
        pages["prev"] = min(page - 1, last_page)
    if page < last_page:
        pages["next"] = page + 1
    pages["last"] = last_page
    links = [f'<{page_url(pages[name])}>; rel="{name}"' for name in pages]
    response.headers["Link"] = ", ".join(links)
    return response


def page_url(page: int) -> str:
    """The path and query of another page of the same list."""
    parameters: dict[str, Any] = request.args.to_dict(flat=False)
    parameters["page"] = page
    return f"{url_for('.list_rows')}?{urlencode(parameters, doseq=True)}"


STATUSES = {
    InvalidError: 400,
    store.NotFoundError: 404,
    store.ConflictError: 409,
    store.StaleError: 412,
}
# Instead of the phrases of the standard, "Not found" and "Request entity too large".
SENTENCES = {404: "Resource not found", 413: "Request body too large"}
JSON_WANTED = "Body must be declared as JSON, by Content-Type: application/json"


def error_body(sentence: str, details: Mapping[str, Any] | None = None) -> bytes:
    """The body of every error."""
    body: dict[str, Any] = {"error": sentence}
    if details:
        body["details"] = details
    return json.dumps(body).encode()


def error_response(
    status: int, sentence: str, details: Mapping[str, Any] | None = None
) -> Response:
    """A response that tells an error."""
    return json_response(error_body(sentence, details), status)


def answer_store_error(error: StoreError) -> Response:
    """Answer what the store has refused."""
    return error_response(STATUSES[type(error)], str(error), error.problems)


def answer_http_error(error: HTTPException) -> WerkzeugResponse:
    """Answer an error of Flask's in our form, with its headers such as Allow.

    A 500 comes here, too: Flask makes one of any exception that has no handler, and
    logs its traceback.
    """
    response = error.get_response()  # Flask's own, with an HTML body
    status = response.status_code
    sentence = SENTENCES.get(status, status_phrase(status))
    details = {"body": JSON_WANTED} if status == 415 else None
    response.data = error_body(sentence, details) + b"\n"
    response.content_type = "application/json"
    return response


def status_phrase(status: int) -> str:
    """Werkzeug's phrase for a status in sentence case: "Service unavailable"."""
    phrase = HTTP_STATUS_CODES.get(status, f"Status {status}")
    first_word, *other_words = phrase.split()
    words = [first_word]
    for word in other_words:
        words.append(word if word.isupper() else word.lower())
    return " ".join(words)


# ----------------------------------------------------------------------
# Mock controls
#
# What a test, or a person, does to a session from outside.
# ----------------------------------------------------------------------

mock_views = Blueprint("mock", __name__)

CLOCK_RULE = store.object_rule({"now": store.TIMESTAMP_RULE}, required=["now"])


@mock_views.get("")
def show_session() -> ResponseReturnValue:
    """Show the session at a glance: its rows, its clock and its faults."""
    return {
        "session": current_session().name,
        "rows": current_session().store.count_rows(),
        "clock": current_session().clock.reading(),
        "faults": current_session().faults.remaining(),
    }


@mock_views.get("/state")
def show_state() -> Response:
    """Read all rows of the session."""
    state = current_session().store.state()
    return json_response(json_object({name: json_array(state[name]) for name in state}))


@mock_views.put("/state")
def replace_state() -> Response:
    """Replace all rows of the session."""
    current_session().store.replace_state(sent_object())
    return no_content()


@mock_views.delete("/state")
def reset_session() -> Response:
    """Reset the session to the seed: rows, ids, clock, faults and journal."""
    current_app.config["SESSIONS"].reset(current_session().name)
    return no_content()


@mock_views.get("/clock")
def show_clock() -> ResponseReturnValue:
    """Read the session's clock."""
    return current_session().clock.reading()


@mock_views.put("/clock")
def freeze_clock() -> ResponseReturnValue:
    """Freeze the clock at a moment."""
    body = sent_object()
    store.validate(CLOCK_RULE, body)
    current_session().clock.freeze(body["now"])
    return {"now": body["now"], "frozen": True}


@mock_views.delete("/clock")
def run_clock() -> Response:
    """Let the clock run."""
    current_session().clock.run()
    return no_content()


@mock_views.get("/faults")
def list_faults() -> ResponseReturnValue:
    """List the faults that are left."""
    return current_session().faults.remaining()


@mock_views.post("/faults")
def add_fault() -> ResponseReturnValue:
    """Make requests to come fail, wait or lose their connection."""
    fault = store.read_fault(sent_object())
    current_session().faults.add(fault)
    return asdict(fault), 201


@mock_views.delete("/faults")
def clear_faults() -> Response:
    """Clear the faults, and let go the requests that they hold."""
    current_session().faults.clear()
    return no_content()


@mock_views.get("/requests")
def list_requests() -> ResponseReturnValue:
    """List the last 500 requests of the session, oldest first."""
    return current_session().journal.entries()


@mock_views.delete("/requests")
def forget_requests() -> Response:
    """Forget the requests."""
    current_session().journal.clear()
    return no_content()


# ----------------------------------------------------------------------
# Description
#
# The resource routes and health in OpenAPI 3.1 (https://spec.openapis.org), for tools
# that make clients, types or tests. Its schemas are the rules that validate.
# ----------------------------------------------------------------------

description_views = Blueprint("description", __name__)

HEALTH = {"status": "healthy", "version": VERSION}
HEALTH_RULE = store.object_rule(
    {"status": store.STRING_RULE, "version": store.STRING_RULE},
    required=["status", "version"],
)
ERROR_RULE = store.object_rule(
    {"error": store.STRING_RULE, "details": store.ANY_OBJECT_RULE}, required=["error"]
)


@description_views.get("/health")
def show_health() -> ResponseReturnValue:
    """Tell that the service is up."""
    return HEALTH


@description_views.get("/openapi.json")
def show_description() -> ResponseReturnValue:
    """Describe the API in OpenAPI 3.1."""

    paths = {"/health": {"get": describe_health()}}
    schemas: dict[str, Any] = {"Health": HEALTH_RULE, "Error": ERROR_RULE}
    for name, resource in RESOURCES.items():
        paths[f"/{name}"] = {
            "get": describe_operation(resource, "get", list_rows),
            "post": describe_operation(resource, "post", create_row),
        }
        paths[f"/{name}/{{id}}"] = {
            "get": describe_operation(resource, "get", show_row),
            "put": describe_operation(resource, "put", update_row),
            "patch": describe_operation(resource, "patch", update_row),
            "delete": describe_operation(resource, "delete", delete_row),
        }
        schemas.update(describe_schemas(resource))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Inventory API", "version": VERSION},
        "servers": [{"url": current_app.config["SETTINGS"].api}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def describe_health() -> dict[str, Any]:
    """The operation of `show_health`."""
    return {
        "operationId": "getHealth",
        "summary": show_health.__doc__,
        "parameters": [
            describe_parameter("header", "X-Mock-Session", store.SESSION_NAME_RULE)
        ],
        "responses": {
            "200": describe_response(200, "Health"),
            "400": describe_response(400, "Error"),
        },
    }


def describe_operation(
    resource: Resource, method: str, view: Callable[..., Response]
) -> dict[str, Any]:
    """What a resource's route takes under a method, and which answers to expect."""
    title = resource.title
    operation = {
        "operationId": f"{method}{title}",
        "summary": view.__doc__,
        "parameters": describe_parameters(resource, view),
        "responses": describe_responses(resource, view),
    }
    if view is list_rows:
        operation["operationId"] = f"{method}{title}List"
    if view is create_row:
        operation["requestBody"] = {
            "required": True,
            "content": describe_content(f"New{title}"),
        }
    if view is update_row:
        operation["requestBody"] = {
            "required": True,
            "content": describe_content(f"{title}Change"),
        }
    return operation


def describe_parameters(
    resource: Resource, view: Callable[..., Response]
) -> list[dict[str, Any]]:
    """What a route takes beside a body."""
    parameters = [
        describe_parameter("header", "X-Mock-Session", store.SESSION_NAME_RULE)
    ]
    if view in (show_row, update_row, delete_row):
        parameters.append(describe_parameter("path", "id", store.STRING_RULE))
    if view in (list_rows, show_row):
        parameters.append(
            describe_parameter("header", "If-None-Match", store.STRING_RULE)
        )
    if view in (update_row, delete_row):
        parameters.append(describe_parameter("header", "If-Match", store.STRING_RULE))
    if view is list_rows:
        for name, rule in resource.parameters.items():
            parameters.append(describe_parameter("query", name, rule))
    return parameters


def describe_responses(
    resource: Resource, view: Callable[..., Response]
) -> dict[str, Any]:
    """The answers to expect from a route, by their statuses."""
    title = resource.title
    responses = {}
    if view is list_rows:
        responses["200"] = describe_response(200, f"{title}List", f"{title}Page")
    if view is create_row:
        responses["201"] = describe_response(201, title)
    if view in (show_row, update_row):
        responses["200"] = describe_response(200, title)
    if view is delete_row:
        responses["204"] = describe_response(204)
    if view in (list_rows, show_row):
        responses["304"] = describe_response(304)
    for status in describe_errors(view):
        responses[str(status)] = describe_response(status, "Error")
    return responses


def describe_errors(view: Callable[..., Response]) -> list[int]:
    """The statuses of the errors to expect from a route."""
    errors = [400]
    if view in (show_row, update_row, delete_row):
        errors.append(404)
    if view in (create_row, update_row, delete_row):
        errors.append(409)
    if view in (update_row, delete_row):
        errors.append(412)
    if view in (create_row, update_row):
        errors.extend([413, 415])
    return errors


def describe_parameter(place: str, name: str, rule: Rule) -> dict[str, Any]:
    """A parameter in a path, a header or a query."""
    described = {"in": place, "name": name, "required": place == "path", "schema": rule}
    if rule["type"] == "array":
        # The parameter is repeated for each value. That is the default of OpenAPI, but
        # some generators assume another.
        described["style"] = "form"
        described["explode"] = True
    return described


def describe_response(status: int, *schema_names: str) -> dict[str, Any]:
    """A response with a body of one of some schemas, or without a body."""
    described: dict[str, Any] = {"description": status_phrase(status)}
    if schema_names:
        described["content"] = describe_content(*schema_names)
    return described


def describe_content(*schema_names: str) -> dict[str, Any]:
    """A JSON body of one of some schemas."""
    schemas = [reference_to(name) for name in schema_names]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"application/json": {"schema": schema}}


def reference_to(schema_name: str) -> dict[str, str]:
    """A reference to a schema in the description's components."""
    return {"$ref": f"#/components/schemas/{schema_name}"}


def describe_schemas(resource: Resource) -> dict[str, Any]:
    """The schemas of what a resource's routes take and answer."""
    title = resource.title
    list_schema = {"type": "array", "items": reference_to(title)}
    page_properties: dict[str, Any] = {"data": list_schema}
    for name in ("total", "page", "per_page"):
        page_properties[name] = {"type": "integer", "minimum": 0}
    return {
        title: resource.row_schema,
        f"New{title}": {
            **resource.create_schema,
            "properties": describe_defaults(resource),
        },
        f"{title}Change": resource.change_schema,
        f"{title}List": list_schema,
        f"{title}Page": {
            "type": "object",
            "properties": page_properties,
            "required": list(page_properties),
            "additionalProperties": False,
        },
    }


def describe_defaults(resource: Resource) -> dict[str, Rule]:
    """The properties of a new row, which tell in words what is filled in.

    JSON Schema has the word `default` for that. But tools that generate types from a
    description make fields with a default mandatory, and these are optional.
    """
    properties = dict(resource.create_schema["properties"])
    for name in resource.writable:
        if name in resource.defaults:
            rule = dict(properties[name])
            default = json.dumps(resource.defaults[name])
            rule["description"] = f"{rule['description']}; {default} if left out"
            properties[name] = rule
    return properties


# ----------------------------------------------------------------------
# Home page
#
# The template is PAGE, at the end of this module. Its script uses the API like any
# other client.
# ----------------------------------------------------------------------


def home() -> ResponseReturnValue:
    """Show the page for people, with the session that `?session=` names; or as JSON."""
    session = request.args.get("session")
    if session is not None:
        store.validate(store.SESSION_NAME_RULE, session, "session")
    about = {"name": "Inventory API", "version": VERSION, "routes": list_routes()}
    accepted = request.accept_mimetypes
    if accepted.best_match(["text/html", "application/json"]) == "application/json":
        return about
    return render_template_string(
        PAGE,
        api=current_app.config["SETTINGS"].api,
        session=session,
        resources=list(RESOURCES),
        methods=store.METHODS,
        **about,
    )


def list_routes() -> list[dict[str, Any]]:
    """All routes, each with what its view's docstring says first."""
    routes = []
    for route in current_app.url_map.iter_rules():
        allowed = route.methods or set()
        methods = [name for name in store.METHODS if name in allowed and name != "HEAD"]
        docstring = current_app.view_functions[route.endpoint].__doc__ or ""
        summary = docstring.partition("\n")[0]
        routes.append({"methods": methods, "path": route.rule, "summary": summary})
    return routes


# ----------------------------------------------------------------------
# Settings
#
# A setting is a field whose rule stands in its metadata, as in a record. `port` is the
# variable PORT.
# ----------------------------------------------------------------------

VITE_ORIGINS = ",".join([f"http://localhost:{port}" for port in range(5173, 5178)])
ORIGIN_PATTERN = r"[a-z][a-z0-9+.-]*://[^\s/,*]+"
SEGMENT_PATTERN = r"[A-Za-z0-9._~-]+"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set from outside, and its defaults."""

    host: str = field(
        default="127.0.0.1",
        metadata=store.make_rule("string", "an address of this machine"),
    )
    port: int = field(default=5000, metadata=store.integer_rule(0, 65_535))
    seed: str = field(
        default="",
        metadata=store.make_rule(
            "string",
            "demo, a number of items, or the path of a .json file",
            pattern=r"^(demo|[0-9]{1,8}|.+\.json)$",
        ),
    )
    delay: int = field(default=0, metadata=store.DELAY_RULE)
    cors_origins: str = field(
        default=VITE_ORIGINS,
        metadata=store.make_rule(
            "string",
            "* or origins such as http://localhost:5173, separated by commas",
            pattern=rf"^(\*|{ORIGIN_PATTERN}( *, *{ORIGIN_PATTERN})*)$",
        ),
    )
    api_prefix: str = field(
        default="/api",
        metadata=store.make_rule(
            "string", "a path such as /api", pattern=f"^(/{SEGMENT_PATTERN})+$"
        ),
    )
    api_version: str = field(
        default="v1",
        metadata=store.make_rule(
            "string", "a part of a path such as v1", pattern=f"^{SEGMENT_PATTERN}$"
        ),
    )

    @property
    def api(self) -> str:
        """The path below which everything but the home page is."""
        return f"{self.api_prefix}/{self.api_version}"

    @property
    def origins(self) -> list[str]:
        """The allowed origins, as Flask-CORS takes them.

        It takes a text with brackets for a regular expression, and an IPv6 address has
        brackets. So each origin is given as an expression that matches it alone.
        """
        if self.cors_origins == "*":
            return ["*"]
        origins = self.cors_origins.split(",")
        return [f"^{re.escape(origin.strip())}$" for origin in origins]


def load_settings(arguments: Mapping[str, object]) -> Settings:
    """Settings from arguments, else from the environment, else their defaults.

    An empty text means the default. An argument hides the variable also if it is empty:
    with `seed=""` there is no seed, even if SEED is set.
    Raises InvalidError with the name of the setting and the value that came.
    """
    names = [setting.name for setting in fields(Settings)]
    problems: list[Problem] = []
    for name in arguments:
        if name not in names:
            problems.append((name, store.unknown_name(name, names)))
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        variable = setting.name.upper()
        given = arguments.get(setting.name)
        if given is None:
            given = os.environ.get(variable, "")
        if given != "":
            value = store.read_text(setting.metadata, str(given))
            values[setting.name] = value
            for place, sentence in store.check(setting.metadata, value, variable):
                problems.append((place, f"{sentence}, not {str(given)!r}"))
    store.refuse(problems)
    return Settings(**values)


# ----------------------------------------------------------------------
# Seeds
#
# The rows with which every session begins.
# ----------------------------------------------------------------------

DEMO_ITEMS = [  # name, description, status, quantity
    ("Ceramic mug, 350 ml", "Dishwasher-safe, glazed in blue", "active", 120),
    ("Walnut desk organiser", "Five compartments, oiled", "active", 34),
    ("Linen notebook A5", "160 pages, dotted", "active", 260),
    ("Brass desk lamp", "Dimmable, with an E14 bulb", "pending", 8),
    ("Felt laptop sleeve 13 inch", "", "active", 57),
    ("Oak monitor stand", "Carries 20 kg", "completed", 0),
    ("Fountain pen, medium nib", "With a converter", "active", 41),
    ("Ink, midnight blue, 50 ml", "", "active", 95),
    ("Cork pinboard 60 × 40", "Frame of pine", "pending", 12),
    ("Paper clips, box of 100", "Steel, 28 mm", "active", 740),
    ("Wool seat cushion", "Discontinued", "completed", 3),
    ("Whiteboard markers, set of 4", "Four colours", "active", 66),
]
DEMO_ORDERS = [  # internal number, status, item ids with their quantities
    ("ORD-2026-001", "paid", {"2": 1, "3": 5}),
    ("ORD-2026-002", "shipped", {"7": 2, "8": 4}),
    ("ORD-2026-003", "pending", {"10": 12, "3": 20}),
]
SEED_START = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)


def load_seed(seed: str) -> store.Tables:
    """The tables for a value of the setting `seed`. Raises InvalidError."""
    if seed == "":
        return store.make_tables({})
    if seed == "demo":
        return store.read_state(demo_state(), store.timestamp(SEED_START))
    if not seed.endswith(".json"):
        return store.make_tables({"items": generated_items(int(seed))})
    return load_file(seed)


def load_file(path: str) -> store.Tables:
    """The tables for a file in the form of a state. Raises InvalidError."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise bad_seed(path, str(error.strerror)) from None
    except ValueError as error:  # the path has a character that no path can have
        raise bad_seed(path, str(error)) from None
    try:
        # Some editors begin a file with a byte order mark, which is no part of JSON.
        state = parse_object(raw.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise bad_seed(path, f"the file {error}") from None
    try:
        return store.read_state(state, store.timestamp(datetime.now(UTC)))
    except InvalidError as error:
        place, sentence = list(error.problems.items())[0]
        found = describe_value_at(state, place)
        raise bad_seed(path, f"{place}{found}: {sentence}") from None


def describe_value_at(value: Any, place: str) -> str:
    """What is said of the value at a place such as `items[0].name`: " is 5"."""
    try:
        for part in re.findall(r"[^.\[\]]+", place):
            key = int(part) if isinstance(value, list) else part
            value = value[key]
    except (LookupError, TypeError, ValueError):
        return ""  # there is none, as where a field is missing
    return f" is {json.dumps(value)[:100]}"


def bad_seed(path: str, problem: str) -> InvalidError:
    """The error for a seed file that cannot be used."""
    sentence = f"SEED {path}: {problem}"
    return InvalidError(sentence, {"SEED": sentence})


def demo_state() -> dict[str, list[dict[str, Any]]]:
    """A dozen items and a few orders, made a day after one another."""
    items: list[dict[str, Any]] = []
    for name, description, status, quantity in DEMO_ITEMS:
        item = {
            "name": name,
            "description": description,
            "status": status,
            "quantity": quantity,
            "created_at": store.timestamp(SEED_START + timedelta(days=len(items))),
        }
        items.append(item)
    orders: list[dict[str, Any]] = []
    for internal_number, status, quantities in DEMO_ORDERS:
        lines = []
        for item_id, quantity in quantities.items():
            lines.append({"item_id": item_id, "quantity": quantity})
        order = {
            "internal_number": internal_number,
            "status": status,
            "items": lines,
            "created_at": store.timestamp(
                SEED_START + timedelta(days=20 + len(orders))
            ),
        }
        orders.append(order)
    return {"items": items, "orders": orders}


def generated_items(size: int) -> Iterator[store.Item]:
    """So many items, the same every time, made a minute after one another."""
    colours = ("Red", "Blue", "Green")
    things = ("mug", "lamp", "desk", "vase")
    statuses = list(store.ItemStatus)
    for number in range(1, size + 1):
        yield store.Item(
            id=str(number),
            name=f"{colours[number % 3]} {things[number % 4]} {number}",
            status=statuses[number // 2 % 3],
            quantity=number * 37 % 251,
            created_at=store.timestamp(SEED_START + timedelta(minutes=number)),
        )


# ----------------------------------------------------------------------
# Running
# ----------------------------------------------------------------------

# How many connections may wait to be accepted. Werkzeug's own number is 128.
BACKLOG = 1024


class RequestHandler(WSGIRequestHandler):
    """How the server logs a request, and answers what is not HTTP: in JSON.

    The two attributes that begin with `error_` belong to Python's http.server, which
    uses them for requests that it cannot read and so does not give to Flask.
    """

    error_content_type = "application/json"
    error_message_format = '{"error": "%(explain)s"}\n'
    controls = ""  # the path of the mock controls, set by `main`

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log a request in one line, but not a read of the mock controls.

        The home page makes one each second.
        """
        read_of_controls = rf"GET {re.escape(self.controls)}[/? ]"
        if not re.match(read_of_controls, self.requestline):
            # As `ascii` writes it, so that nothing in it can act upon a terminal.
            line = ascii(self.requestline)
            say(f"{self.log_date_time_string()} {line} {code}")


def say(line: str) -> None:
    """Print a line at once, if anybody still reads what we print."""
    with suppress(OSError):
        print(line, flush=True)


def stop(signal_number: int, frame: FrameType | None) -> None:
    """End the process at once, with status 0.

    At SIGINT, Python would raise an exception in the main thread. If that is starting a
    thread for a request, the exception ends in a traceback on stderr. No data has to be
    saved, so nothing is lost by ending at once.
    """
    os._exit(0)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        app = create_app()
    except StoreError as error:
        sys.exit(f"inventory: {error}")
    settings = app.config["SETTINGS"]
    RequestHandler.controls = f"{settings.api}/mock"
    server = make_listening_server(app, settings)
    host = str(server.server_address[0])
    if ":" in host:
        host = f"[{host}]"  # an IPv6 address in a URL
    say(f"Inventory API listening on http://{host}:{server.port}{settings.api}")
    server.serve_forever()


def make_listening_server(app: Flask, settings: Settings) -> BaseWSGIServer:
    """Werkzeug's server, listening. Ends the process if that is not possible."""
    try:
        socket.getaddrinfo(settings.host, settings.port)
    except OSError:
        sentence = f"HOST must be an address of this machine, not {settings.host!r}"
        sys.exit(f"inventory: {sentence}")
    try:
        server = make_server(
            settings.host,
            settings.port,
            app,
            threaded=True,
            request_handler=RequestHandler,
        )
    except SystemExit:
        # Werkzeug has printed the reason, and we add the settings that have led to it.
        address = f"HOST {settings.host} and PORT {settings.port}"
        sys.exit(f"inventory: {address} must be free, and an address of this machine")
    server.socket.listen(BACKLOG)  # it listens already; this only changes the number
    return server


PAGE = r"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }}</title>
<link rel="icon" href="data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'
  viewBox='0 0 16 16'><rect x='1' y='4' width='14' height='11' rx='2' fill='%23197a53'/>
  </svg>">
<style>
  :root {
    color-scheme: light dark;
    --back: #fff; --front: #1c2430; --soft: #596272; --line: #d5dae1; --panel: #f6f7f9;
    --good: #146b48; --bad: #b3263a; --wait: #7a5200; --accent: #146b48;
  }
  @media (prefers-color-scheme: dark) {
    :root {
      --back: #14181f; --front: #e8ebf0; --soft: #a9b2c0; --line: #343c48;
      --panel: #1c222b; --good: #63cf9f; --bad: #ff8f9c; --wait: #efc057;
      --accent: #63cf9f;
    }
  }
  * { box-sizing: border-box }
  body { margin: 0 auto; max-width: 90rem; padding: 1.25rem; background: var(--back);
    color: var(--front); font: 1rem/1.5 system-ui, sans-serif }
  h1 { margin: 0; font-size: 1.6rem }
  h2 { margin: 0 0 .75rem; font-size: 1.1rem }
  p { margin: .25rem 0 .75rem }
  code, pre, .requests, .faults { font: .875rem/1.5 ui-monospace, monospace }
  a { color: var(--accent) }
  .soft { color: var(--soft) }
  .columns { display: grid; gap: 1.25rem; margin: 1.25rem 0 }
  @media (min-width: 62rem) { .columns { grid-template-columns: 3fr 2fr } }
  .column { display: grid; gap: 1.25rem; align-content: start; min-width: 0 }
  section { padding: 1rem; border: 1px solid var(--line); border-radius: .6rem;
    background: var(--panel); min-width: 0 }
  .title { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .5rem }
  .count { font-size: 1.4rem; font-weight: 700 }
  input, select, button { font: inherit; color: inherit; padding: .35rem .6rem;
    border: 1px solid var(--soft); border-radius: .4rem; background: var(--back) }
  button { cursor: pointer }
  button.main { background: var(--accent); border-color: var(--accent);
    color: var(--back); font-weight: 600 }
  :focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
  [aria-invalid=true] { border-color: var(--bad) }
  label { display: block; font-weight: 600 }
  label.check { display: flex; gap: .5rem; align-items: center; font-weight: 400 }
  input, select { width: 100% }
  input[type=checkbox] { width: 1.5rem; height: 1.5rem }
  form.line { display: flex; flex-wrap: wrap; gap: .5rem; align-items: end }
  form.line div { flex: 1 1 12rem; max-width: 24rem }
  .fields { display: grid; gap: .75rem; margin-bottom: .75rem;
    grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)) }
  .wide { grid-column: 1 / -1 }
  .problem { color: var(--bad); margin: 0 }
  .problem:empty { display: none }
  .news { min-height: 1.5rem; margin: .5rem 0 0; font-weight: 600 }
  .requests, .faults { list-style: none; margin: 0; padding: 0 }
  .scroll { height: 24rem; overflow: auto }
  .requests li { border-top: 1px solid var(--line) }
  .requests summary { display: grid; gap: 0 .75rem; padding: .3rem 0; cursor: pointer;
    grid-template-columns: 1rem 5rem 4.5rem minmax(0, 1fr) 7rem 6.5rem }
  .requests summary::before { content: "▸" }
  .requests [open] summary::before { content: "▾" }
  @media (max-width: 40rem) {
    .requests summary { grid-template-columns: 1rem 4rem minmax(0, 1fr) 6.5rem }
    .requests .time, .requests .duration { display: none }
  }
  .path, pre { overflow-wrap: anywhere; white-space: pre-wrap; margin: 0 }
  .duration { text-align: right }
  .good { color: var(--good) } .bad { color: var(--bad); font-weight: 700 }
  .pending { color: var(--wait); font-weight: 700 }
  .faults { margin-top: .5rem }
  td:nth-child(-n+2) { white-space: nowrap }
  table { width: 100%; border-collapse: collapse }
  th { text-align: left }
  td, th { padding: .3rem .8rem .3rem 0; border-top: 1px solid var(--line);
    vertical-align: top; overflow-wrap: anywhere }
  @media (max-width: 40rem) {
    thead { display: none }
    td:nth-child(n) { display: block; padding: 0; border: 0; white-space: normal }
    tr { display: block; border-top: 1px solid var(--line); padding: .3rem 0 }
  }
  .unseen { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%) }
</style>
</head>
<body>
<header>
  <h1>{{ name }}</h1>
  <p>A mock backend for building user interfaces. Its data is in memory, below
    <code>{{ api }}</code>.</p>
  <p>{% for resource in resources %}
    <span class="count" id="count-{{ resource }}">…</span> {{ resource }}
    {% endfor %}
    <span class="soft">in {% if session %}the session <strong>{{ session }}</strong>
    {% else %}<strong>the default session</strong>{% endif %}</span></p>
  <form class="line" id="session-form" action="/">
    <div><label for="session">Session, as in the header X-Mock-Session</label>
      <input id="session" name="session" value="{{ session or "" }}"
        placeholder="the default one" autocomplete="off"></div>
    <button>Show</button>
  </form>
  <p class="news" id="news" role="status"></p>
  <p class="unseen" id="latest" aria-live="polite"></p>
</header>
<main>
<div class="columns">
<div class="column">
  <section aria-labelledby="requests-title">
    <div class="title">
      <h2 id="requests-title">Requests, newest on top</h2>
      <button data-act="DELETE /mock/requests" data-done="The journal is empty.">
        Clear the journal</button>
    </div>
    <div class="scroll" tabindex="0" role="region" aria-label="Journal">
      <p class="soft" id="no-requests">Nothing yet. Each request to the data is shown
        here as it arrives.</p>
      <ol class="requests" id="requests" reversed></ol>
    </div>
  </section>
</div>
<div class="column">
  <section aria-labelledby="fault-title">
    <h2 id="fault-title">Make the next requests fail</h2>
    <form id="fault-form">
      <div class="fields">
        <div><label for="method">Method</label>
          <select id="method" name="method" aria-describedby="method-problem">
            <option value="*">any</option>
            {% for method in methods %}
            <option {{ "selected" if method == "POST" }}>{{ method }}</option>
            {% endfor %}
          </select>
          <p class="problem" id="method-problem"></p></div>
        <div><label for="path">Path</label>
          <input id="path" name="path" list="paths" value="/{{ resources[-1] }}"
            aria-describedby="path-problem">
          <datalist id="paths">
            {% for resource in resources %}
            <option value="/{{ resource }}"><option value="/{{ resource }}/*">
            {% endfor %}
            <option value="*">
          </datalist>
          <p class="problem" id="path-problem"></p></div>
        <div><label for="times">How many times</label>
          <input id="times" name="times" type="number" value="1"
            placeholder="every time" aria-describedby="times-problem">
          <p class="problem" id="times-problem"></p></div>
        <div><label for="kind">What happens</label>
          <select id="kind" name="kind">
            <option value="error">an error</option>
            <option value="delay">a wait</option>
            <option value="hold">held until let go</option>
            <option value="drop">connection lost</option>
          </select></div>
        <div data-kinds="error"><label for="status">Status</label>
          <input id="status" name="status" type="number" value="503"
            aria-describedby="status-problem">
          <p class="problem" id="status-problem"></p></div>
        <div data-kinds="error"><label for="retry_after">Retry-After, s</label>
          <input id="retry_after" name="retry_after" type="number" placeholder="none"
            aria-describedby="retry_after-problem">
          <p class="problem" id="retry_after-problem"></p></div>
        <div data-kinds="delay"><label for="delay">Wait, ms</label>
          <input id="delay" name="delay" type="number" value="2000" min="1"
            aria-describedby="delay-problem">
          <p class="problem" id="delay-problem"></p></div>
        <div data-kinds="error drop" class="wide">
          <label class="check"><input id="after" name="after" type="checkbox"
            aria-describedby="after-problem"> only after it is carried out</label>
          <p class="problem" id="after-problem"></p></div>
      </div>
      <button class="main">Add the fault</button>
    </form>
  </section>
  <section aria-labelledby="faults-title">
    <div class="title">
      <h2 id="faults-title">Faults that are left</h2>
      <button data-act="DELETE /mock/faults"
        data-done="The faults are cleared, and what they held is let go.">
        Clear, and let held requests go</button>
    </div>
    <p class="soft" id="no-faults">None.</p>
    <ul class="faults" id="faults"></ul>
  </section>
  <section aria-labelledby="clock-title">
    <h2 id="clock-title">Clock</h2>
    <p id="clock">…</p>
    <form class="line" id="clock-form">
      <div><label for="now">Freeze at (UTC)</label>
        <input id="now" name="now" autocomplete="off"
          aria-describedby="now-problem"></div>
      <button>Freeze</button>
      <button type="button" data-act="DELETE /mock/clock"
        data-done="The clock runs.">Let it run</button>
    </form>
    <p class="problem" id="now-problem"></p>
  </section>
  <section aria-labelledby="data-title">
    <h2 id="data-title">Data</h2>
    <p class="soft">Back to the seed: rows, ids, clock, faults and journal.</p>
    <button data-act="DELETE /mock/state" data-done="Everything is as it was seeded.">
      Reset the data</button>
  </section>
</div>
</div>
<section aria-labelledby="routes-title">
  <h2 id="routes-title">Routes</h2>
  <table>
    <thead><tr><th scope="col">Method</th><th scope="col">Path</th>
      <th scope="col">What it does</th></tr></thead>
    <tbody>
    {% for route in routes %}
    <tr><td>{{ route.methods | join(", ") }}</td>
      <td><code>
      {%- if "GET" in route.methods and "<" not in route.path and not session -%}
      <a href="{{ route.path }}">{{ route.path }}</a>
      {%- else %}{{ route.path }}{% endif -%}
      </code></td>
      <td>{{ route.summary }}</td></tr>
    {% endfor %}
    </tbody>
  </table>
</section>
</main>
<template id="request-template">
  <li><details>
    <summary><span class="time"></span> <span class="method"></span>
      <span class="path"></span> <span class="status"></span>
      <span class="duration"></span></summary>
    <pre class="more"></pre>
  </details></li>
</template>
<script>
const api = {{ api | tojson }}
const session = {{ session | tojson }}
const resources = {{ resources | tojson }}
const byId = id => document.getElementById(id)

// Ask the service; throw the body of an error, which has a sentence and details.
async function ask(method, path, body) {
  const headers = {}
  if (session) headers["X-Mock-Session"] = session
  if (body) headers["Content-Type"] = "application/json"
  // A cookie could name another session than the one that this page is about.
  const options = { method, headers, credentials: "omit" }
  if (body) options.body = JSON.stringify(body)
  const response = await fetch(api + path, options)
  const answer = response.status === 204 ? null : await response.json()
  if (!response.ok) throw answer
  return answer
}

// Ask, say what was done, and show what has changed; or show what was refused.
async function act(done, method, path, body) {
  clearProblems()
  try {
    await ask(method, path, body)
    byId("news").textContent = done
  } catch (problem) {
    showProblems(problem)
  }
  await refresh(glance, journal)
}

const NO_ANSWER = "The service does not answer."

function clearProblems() {
  for (const place of document.querySelectorAll(".problem")) place.textContent = ""
  for (const field of document.querySelectorAll("[aria-invalid]"))
    field.removeAttribute("aria-invalid")
}

function showProblems(problem) {
  byId("news").textContent = problem.error || NO_ANSWER
  for (const [name, sentence] of Object.entries(problem.details || {})) {
    if (!byId(`${name}-problem`) || byId(name).disabled) continue
    byId(`${name}-problem`).textContent = sentence
    byId(name).setAttribute("aria-invalid", "true")
  }
  document.querySelector("[aria-invalid]")?.focus()
}

for (const button of document.querySelectorAll("[data-act]")) {
  const [method, path] = button.dataset.act.split(" ")
  button.addEventListener("click", () => act(button.dataset.done, method, path))
}

byId("session-form").addEventListener("submit", event => {
  if (byId("session").value) return
  event.preventDefault()
  location.assign("/")
})

byId("clock-form").addEventListener("submit", event => {
  event.preventDefault()
  act("The clock stands.", "PUT", "/mock/clock", { now: byId("now").value })
})
byId("now").value = new Date().toISOString()

byId("fault-form").addEventListener("submit", event => {
  event.preventDefault()
  act("The fault waits for its request.", "POST", "/mock/faults", readFault())
})

// The fault that the form describes, with the fields of the kind that is chosen.
function readFault() {
  const kind = byId("kind").value
  const fault = { method: byId("method").value, path: byId("path").value }
  fault.times = readNumber("times")
  if (kind === "error") fault.status = readNumber("status")
  if (kind === "error") fault.retry_after = readNumber("retry_after")
  if (kind === "delay") fault.delay = readNumber("delay")
  if (kind === "hold") fault.hold = true
  if (kind === "drop") fault.drop = true
  if (kind === "error" || kind === "drop") fault.after = byId("after").checked
  return fault
}

function readNumber(id) {
  const text = byId(id).value
  return text === "" ? null : Number(text)
}

// A field that is not shown is disabled, so that the browser does not validate it.
function showFieldsOfKind() {
  for (const part of document.querySelectorAll("[data-kinds]")) {
    part.hidden = !part.dataset.kinds.split(" ").includes(byId("kind").value)
    part.querySelector("input").disabled = part.hidden
  }
}
byId("kind").addEventListener("change", showFieldsOfKind)
showFieldsOfKind()

// What follows shows the session as it is now.
const glance = async () => showGlance(await ask("GET", "/mock"))
const journal = async () => showRequests(await ask("GET", "/mock/requests"))

async function refresh(...parts) {
  try {
    for (const part of parts) await part()
    if (byId("news").textContent === NO_ANSWER) byId("news").textContent = ""
  } catch (problem) {
    byId("news").textContent = problem.error || NO_ANSWER
  }
}

function showGlance({ rows, clock, faults }) {
  for (const name of resources) byId(`count-${name}`).textContent = rows[name]
  byId("clock").textContent = clock.frozen ? `It stands at ${clock.now}.` : "It runs."
  byId("no-faults").hidden = faults.length > 0
  byId("faults").replaceChildren(...faults.map(fault => {
    const line = document.createElement("li")
    line.textContent = describeFault(fault)
    return line
  }))
}

function describeFault(fault) {
  const parts = []
  if (fault.delay) parts.push(`wait ${fault.delay} ms`)
  if (fault.hold) parts.push("hold until let go")
  if (fault.drop) parts.push("lose the connection")
  else if (fault.status) parts.push(`answer ${fault.status}`)
  if (fault.retry_after !== null) parts.push(`Retry-After ${fault.retry_after} s`)
  if (fault.after) parts.push("after it is carried out")
  const left = fault.times === null ? "every time" : `${fault.times} left`
  return `${fault.method} ${fault.path}: ${parts.join(", ")} (${left})`
}

// The list is changed, not made anew, so that what is open stays open.
const shown = new Map()

function showRequests(entries) {
  const counts = {}
  const keys = entries.map(({ at, method, path, query }) => {
    const key = [at, method, path, query].join(" ")
    counts[key] = (counts[key] || 0) + 1
    return `${key} ${counts[key]}`
  })
  const present = new Set(keys)
  for (const [key, line] of shown) {
    if (present.has(key)) continue
    line.remove()
    shown.delete(key)
  }
  entries.forEach((entry, index) => showRequest(keys[index], entry))
  // While the clock stands, a request can look like one of before a reset.
  const lines = keys.map(key => shown.get(key)).reverse()
  const list = byId("requests")
  if (lines.some((line, index) => list.children[index] !== line))
    list.replaceChildren(...lines)
  byId("no-requests").hidden = entries.length > 0
}

function showRequest(key, entry) {
  if (!shown.has(key)) {
    shown.set(key, byId("request-template").content.cloneNode(true).firstElementChild)
    byId("requests").prepend(shown.get(key))
  }
  const line = shown.get(key)
  const [kind, status] = describeStatus(entry.status)
  const text = JSON.stringify(entry)
  if (line.dataset.entry === text) return
  line.dataset.entry = text
  const query = entry.query ? `?${entry.query}` : ""
  const body = entry.body === null ? "none" : JSON.stringify(entry.body, null, 2)
  const duration = entry.duration_ms === null ? "" : `${entry.duration_ms} ms`
  line.querySelector(".time").textContent = entry.at.slice(11, 19)
  line.querySelector(".method").textContent = entry.method
  line.querySelector(".path").textContent = entry.path + query
  line.querySelector(".status").textContent = status
  line.querySelector(".status").className = `status ${kind}`
  line.querySelector(".duration").textContent = duration
  line.querySelector(".more").textContent =
    `at: ${entry.at}\nquery: ${entry.query || "none"}\nbody: ${body}`
  byId("latest").textContent = `${entry.method} ${entry.path}: ${status}`
}

function describeStatus(status) {
  if (status === null) return ["pending", "… pending"]
  if (status === 0) return ["bad", "✕ no answer"]
  if (status >= 400) return ["bad", `✕ ${status}`]
  return ["good", `✓ ${status}`]
}

// One request a second, of which each third is for the glance.
refresh(glance, journal)
let seconds = 0
setInterval(() => {
  if (document.hidden) return
  seconds += 1
  refresh(seconds % 3 === 0 ? glance : journal)
}, 1000)
</script>
</body>
</html>
"""

if __name__ == "__main__":
    main()
