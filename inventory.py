"""The inventory service: items and orders over HTTP, in memory, for those who build user interfaces.

A request goes from top to bottom: `create_app` has put the service together, `add_hooks` finds the session,
delays, fails and records, a view of `resource_routes` asks the store, which has the rules and the locks,
`answer` makes the response, and `add_error_handlers` makes it where something was refused.
"""

import sys

if sys.hexversion < 0x030B0000:  # 3.11; stands before the imports, which an older Python does not get past
    sys.exit(f"inventory: needs Python 3.11 or newer, this is {sys.version.split()[0]}")

import gc
import json
import os
import re
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from ipaddress import ip_address
from math import isfinite
from pathlib import Path
from random import randint
from typing import Any
from urllib.parse import parse_qs, urlencode

from flask import Blueprint, Flask, Response, current_app, g, render_template_string, request
from flask.ctx import after_this_request
from flask.views import MethodView
from flask_cors import CORS
from werkzeug.datastructures import ETags, Headers
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.http import HTTP_STATUS_CODES, parse_etags
from werkzeug.serving import WSGIRequestHandler, is_running_from_reloader, make_server, run_simple

import store

VERSION = "1.0.0"
HEALTH = {"status": "healthy", "version": VERSION}
KIB, MIB = 2**10, 2**20


def create_app(**settings: object) -> Flask:
    """Put the service together, with data of its own.

    `create_app(seed="demo")` sets one of `Settings`; the environment has the others. Raises InvalidError.
    """
    config = Settings.load(settings)
    app = App(__name__, static_folder=None)
    app.extensions["sessions"] = sessions = store.Sessions(config.tables())
    app.debug = config.flask_debug.lower() in ("1", "true")
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # browsers reject a redirected preflight
    CORS(app, origins=config.origins(), supports_credentials=True, always_send=False, max_age=600,
         expose_headers=["ETag", "Link", "Location", "X-Total-Count"])
    add_hooks(app, sessions, config)
    add_error_handlers(app)

    for resource in store.RESOURCES.values():
        app.register_blueprint(resource_routes(resource, f"{config.api}/{resource.name}"))
    for control in (State, Clock, Faults, Requests):
        name = control.__name__.lower()
        app.add_url_rule(f"{config.api}/mock/{name}", view_func=control.as_view(name))
    app.register_blueprint(document_routes(config.api))
    return app


class App(Flask):
    """Flask, but for its own answer to OPTIONS, which is to be like ours."""

    def make_default_options_response(self) -> Response:
        """Tell the allowed methods, without a body."""
        allowed = super().make_default_options_response().headers.get("Allow", "")
        return Answer(b"", 200, [NO_STORE, ("Allow", allowed)])


# Hooks


def add_hooks(app: Flask, sessions: store.Sessions, config: "Settings") -> None:
    """Give each request its session; delay, fail and record those to resources and to unknown paths."""
    recorded = re.compile(
        rf"{re.escape(config.api)}(?!/(?:mock/.*|health/?|openapi\.json/?)\Z)(/.*)", re.DOTALL).fullmatch
    delays = config.delays()

    @app.before_request
    def arrive() -> Response | None:
        environ = request.environ  # a look into this dict is cheap, a use of `request` or `g` is not
        method = environ["REQUEST_METHOD"]
        if method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            return app.make_default_options_response()  # a preflight succeeds on any path
        g.session = session = sessions.get(session_name(environ))
        path = recorded(request.path)
        if path is None:
            return None
        # Until it is `told`, a time is in seconds, a duration is when it began: this saves 4 % of a request.
        visit = {"at": session.frozen or time.time(), "method": method, "path": path[1],
                 "query": environ["QUERY_STRING"], "status": None, "duration_ms": time.perf_counter(),
                 "body": None}
        g.visit = visit
        session.journal.append(visit)  # now, for the order of arrival; it is told once it has a status
        return delay_or_fail(session, visit, randint(*delays))

    @app.after_request
    def leave(response: Response) -> Response:
        if visit := g.get("visit"):
            environ = request.environ
            if environ.get("CONTENT_LENGTH") or environ.get("HTTP_TRANSFER_ENCODING"):
                with suppress(HTTPException):  # it is too large to be kept
                    visit["body"] = sent_bytes(10 * KIB)
            visit["duration_ms"] = 1000 * (time.perf_counter() - visit["duration_ms"])
            visit["status"] = response.status_code
        return response


def session_name(environ: Mapping[str, Any]) -> str | None:
    """The session that a request names in a header or a cookie. Raises InvalidError."""
    place, name = "X-Mock-Session", environ.get("HTTP_X_MOCK_SESSION")
    if name is None and "mock_session" in environ.get("HTTP_COOKIE", ""):
        # Not request.cookies: Werkzeug drops a value that is not well formed without a word.
        cookie = re.search(r"(?:^|;)\s*mock_session=([^;]*)", environ["HTTP_COOKIE"])
        place, name = "mock_session", cookie and cookie[1]
    if name is not None:
        store.require(store.check(store.TOKEN, name, place))
    return name


WISHES = store.closed({"_delay": store.DELAY, "_status": store.STATUS})


def delay_or_fail(session: store.Store, visit: Mapping[str, Any], delay: int) -> Response | None:
    """Wait for the longest delay (ms) that applies; answer in the view's place if the request shall fail."""
    query, wish, fault = visit["query"], {}, None
    if "_delay" in query or "_status" in query:
        texts = arguments(query)
        wish = read_query(WISHES, {name: texts[name] for name in ("_delay", "_status") if name in texts})
    if "_status" not in wish:
        fault = session.strike(visit["method"], visit["path"].rstrip("/") or "/")
    elif not request.routing_exception:
        fault = store.Fault(path="*", status=wish["_status"])
    delay = max(delay, wish.get("_delay", 0), fault.delay if fault else 0)
    if delay:
        time.sleep(delay / 1000)  # holding no lock: other requests go on
    if fault is None or fault.status is None:
        return None
    failure = refusal(fault.status, sentence(fault.status), {"injected": True})
    if not fault.after:
        return failure
    after_this_request(lambda _: failure)
    return None


# Resources


def resource_routes(resource: store.Resource, path: str) -> Blueprint:
    """The five routes of a resource, under a path."""
    name = resource.name
    routes = Blueprint(name, __name__, url_prefix=path)

    @routes.get("")
    def index() -> Response:
        """List the rows, oldest first: filtered, sorted and paged as the query says."""
        return conditional(*listing(resource, path, request.environ["QUERY_STRING"]))

    @routes.post("")
    def create() -> Response:
        """Create a row."""
        row = g.session.create(name, sent_object())
        return answer(row.json, 201, etag(row), ("Location", f"{path}/{row.record.id}"))

    @routes.get("/<id>")
    def show(id: str) -> Response:
        """Read one row."""
        row = g.session.get(name, id)
        return conditional(row.json, etag(row))

    @routes.route("/<id>", methods=["PUT", "PATCH"])
    def update(id: str) -> Response:
        """Merge the given fields into a row."""
        row = g.session.update(name, id, sent_object(), if_match())
        return answer(row.json, 200, etag(row))

    @routes.delete("/<id>")
    def delete(id: str) -> Response:
        """Remove a row."""
        g.session.delete(name, id, if_match())
        return answer(None, 204)

    return routes


def sent_bytes(most: int) -> bytes:
    """The body of the request. Raises RequestEntityTooLarge if it has more than `most` bytes."""
    request.max_content_length = most + 1  # where Werkzeug cuts a chunked body without a word
    try:
        body = request.get_data()
    except HTTPException:
        request.stream = BytesIO()  # another look would wait for a client that may not go on
        raise
    if len(body) > most:
        raise RequestEntityTooLarge
    return body


def sent_object(most: int = MIB) -> dict[str, Any]:
    """The JSON object that the request brings. Raises what becomes a 413, 415 or 400."""
    body = sent_bytes(most)
    if not request.is_json:
        raise UnsupportedMediaType
    return parse_object(body)


def parse_object(raw: bytes) -> dict[str, Any]:
    """The object of a JSON text. Raises InvalidError."""
    value = parse(raw)
    if not isinstance(value, dict):
        raise store.InvalidError({"body": "Body must be a JSON object"}, "Bad request")
    return value


def parse(raw: bytes) -> Any:
    """The value of a JSON text (RFC 8259), in UTF-8 and with finite numbers. Raises InvalidError."""
    try:
        return DECODER.decode(raw.decode())
    except (ValueError, RecursionError) as error:
        raise store.InvalidError({"body": f"Body is not JSON: {error}"}, "Bad request") from None


def number(text: str) -> float:
    """The value of a number. Raises ValueError where a double, all that JavaScript has, cannot hold it."""
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text[:20]} is not a number that a double can hold")
    return int(text) if text.lstrip("-").isdigit() else value


DECODER = json.JSONDecoder(parse_int=number, parse_float=number, parse_constant=number)


def if_match() -> ETags | None:
    """The tags of which a row must have one (RFC 9110 §13.1.1), or None for any row."""
    tags = request.environ.get("HTTP_IF_MATCH")
    return None if tags is None else parse_etags(tags)


# Answers

Header = tuple[str, str]
JSON: Header = ("Content-Type", "application/json")
NO_STORE: Header = ("Cache-Control", "no-store")  # what a page asks for is what the server sees


class Answer(Response):
    """A response whose headers are complete when it is made. To say so saves a tenth of each request."""

    default_mimetype = None

    def get_wsgi_headers(self, environ: Mapping[str, Any]) -> Headers:
        """Return the headers without looking for what could be missing."""
        return self.headers


def answer(body: Any, status: int = 200, *headers: Header) -> Response:
    """A response with JSON: of a value, or as it is in bytes; None for no body."""
    if body is None:
        return Answer(None, status, [NO_STORE, *headers])
    if not isinstance(body, bytes):
        body = json.dumps(body).encode() + b"\n"
    return Answer(body, status, [JSON, NO_STORE, *headers])


def conditional(body: bytes, tag: Header, *headers: Header) -> Response:
    """The answer to a read: 304 if the client names this version's tag (RFC 9110 §13.1.2)."""
    known = request.environ.get("HTTP_IF_NONE_MATCH")
    if known and parse_etags(known).contains_weak(tag[1].strip('"')):
        return answer(None, 304, tag, *headers)
    return answer(body, 200, tag, *headers)


def etag(content: store.Row | store.Snapshot) -> Header:
    """The header that tells a version."""
    return "ETag", f'"{content.version}"'


def array(rows: Sequence[store.Row]) -> bytes:
    """A JSON array with a row a line, in one join: each copy of a long one shows."""
    texts = [row.json for row in rows] or [b""]
    texts[0] = b"[" + texts[0]
    texts[-1] += b"]\n"
    return b",".join(texts)


# Lists

PAGING = {"page", "per_page"}


def listing(resource: store.Resource, path: str, query: str) -> tuple[Any, ...]:
    """The body and the headers of a list, kept for as long as no row changes. Raises InvalidError."""
    snapshot = g.session.state(resource.name)[resource.name]
    place = hash(query) % 16  # each query has one of few: so little is kept, and taking it needs no lock
    kept, *made = snapshot.lists.get(place, (None,))
    if kept != query:
        texts = {name: given for name, given in arguments(query).items() if not name.startswith("_")}
        wanted = read_query(resource.query, texts) if texts else {}
        chosen = repr({name: value for name, value in wanted.items() if name not in PAGING})
        last, rows = snapshot.lists.get("rows", (None, []))
        if last != chosen:  # all the pages of a query come from one list
            rows = store.select(resource, snapshot.rows, wanted)
            snapshot.lists["rows"] = chosen, rows
        body, links = page_of(rows, wanted, path, query) if wanted.keys() & PAGING else (array(rows), [])
        made = [body, etag(snapshot), ("X-Total-Count", str(len(rows))), *links]
        if len(body) < 256 * KIB:
            snapshot.lists[place] = query, *made
    return tuple(made)


def page_of(rows: Sequence[store.Row], wanted: Mapping[str, Any], path: str,
            query: str) -> tuple[bytes, list[Header]]:
    """A page in its envelope, and its Link (RFC 8288): paths, so that they stay behind a proxy."""
    page, size = wanted.get("page", 1), wanted.get("per_page", 10)
    last = max(1, -(-len(rows) // size))
    pages = {"first": 1, "prev": min(page - 1, last), "next": page + 1, "last": last}
    others = [(name, text) for name, texts in arguments(query).items() for text in texts if name != "page"]
    link = ", ".join(f'<{path}?{urlencode([*others, ("page", number)])}>; rel="{rel}"'
                     for rel, number in pages.items() if 1 <= number <= last)
    body = b'{"data": %b, "total": %d, "page": %d, "per_page": %d}\n' % (
        array(rows[(page - 1) * size:page * size]), len(rows), page, size)
    return body, [("Link", link)]


def arguments(query: str) -> dict[str, list[str]]:
    """The values of each parameter of a query string. Raises InvalidError where it is not well encoded."""
    try:
        if re.search("%(?![0-9A-Fa-f]{2})", query):
            raise ValueError
        return parse_qs(query.encode("latin-1").decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        raise store.InvalidError({"query": "Query must be percent-encoded UTF-8"}) from None


ONCE = ("sort", "page", "per_page", "_delay", "_status")  # parameters of which the last counts


def read_query(schema: store.Schema, texts: Mapping[str, list[str]]) -> dict[str, Any]:
    """Parameters, read by type: all values of each, or the last. Raises InvalidError."""
    rules, values = schema["properties"], {}
    for name, given in texts.items():
        counted = given[-1:] if name in ONCE else given
        values[name] = [store.read(rules.get(name, {}), text) for text in counted]
    store.require(found for name, given in values.items() for value in given
                  for found in store.check(schema, {name: value}))
    return {name: given[-1] if name in ONCE else given for name, given in values.items()}


# Errors

CODES = {store.InvalidError: 400, store.NotFoundError: 404, store.ConflictError: 409, store.StaleError: 412}
SENTENCES = {404: "Resource not found", 413: "Request body too large"}


def add_error_handlers(app: Flask) -> None:
    """Give every error the one form."""

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> Response:
        code = error.code or 500
        response = refusal(code, SENTENCES.get(code) or sentence(code))
        response.headers.extend((name, value) for name, value in error.get_response().headers
                                if not name.startswith("Content-"))  # such as the Allow of a 405
        return response

    @app.errorhandler(store.StoreError)
    def refused(error: store.StoreError) -> Response:
        if request.routing_exception:  # that there is no such route is told first
            return failed(request.routing_exception)
        return refusal(CODES[type(error)], str(error), error.problems)

    @app.errorhandler(RecursionError)
    def too_deep(error: RecursionError) -> Response:
        """What could just be read can be too deep to be written."""
        return refusal(400, "Bad request", {"body": "Body is nested too deeply"})


def refusal(code: int, error: str, details: Mapping[str, Any] | None = None) -> Response:
    """The answer that every error is."""
    return answer({"error": error, "details": details} if details else {"error": error}, code)


def sentence(code: int) -> str:
    """The phrase of an HTTP status in sentence case, such as "Service unavailable"."""
    first, *rest = HTTP_STATUS_CODES.get(code, f"Status {code}").split()
    return " ".join([first, *(word.lower() if word.istitle() else word for word in rest)])


# Mock controls


class State(MethodView):
    """Read, replace or reset all rows of the session."""

    def get(self) -> Response:
        parts = [b'"%b": %b' % (name.encode(), array(each.rows)) for name, each in g.session.state().items()]
        return answer(b"{" + b",".join(parts) + b"}\n")

    def put(self) -> Response:
        g.session.load(sent_object(64 * MIB))
        return answer(None, 204)

    def delete(self) -> Response:
        current_app.extensions["sessions"].reset(session_name(request.environ))
        return answer(None, 204)


class Clock(MethodView):
    """Read the session's clock, freeze it, or let it run."""

    def get(self) -> Response:
        return answer({"now": g.session.now(), "frozen": g.session.frozen is not None})

    def put(self) -> Response:
        body = sent_object()
        store.require(store.check(CLOCK, body))
        g.session.frozen = body["now"]
        return self.get()

    def delete(self) -> Response:
        g.session.frozen = None
        return answer(None, 204)


class Faults(MethodView):
    """List the faults that are left, make requests to come fail or wait, or clear the faults."""

    def get(self) -> Response:
        return answer([asdict(fault) for fault in g.session.faults])

    def post(self) -> Response:
        body = sent_object()
        store.require(store.check(store.FAULT, body))
        fault = store.Fault(**body)
        g.session.faults.append(fault)
        return answer(asdict(fault), 201)

    def delete(self) -> Response:
        g.session.faults = []
        return answer(None, 204)


class Requests(MethodView):
    """List the last 500 requests of the session, oldest first, or forget them."""

    def get(self) -> Response:
        return answer(journal())

    def delete(self) -> Response:
        g.session.journal.clear()
        return answer(None, 204)


CLOCK = store.closed({"now": store.TIME}, ["now"])


def journal() -> list[dict[str, Any]]:
    """The requests of the session that have been answered, in the order in which they came."""
    return [told(visit) for visit in g.session.journal.copy() if visit["status"]]


def told(visit: dict[str, Any]) -> dict[str, Any]:
    """A journal entry as it is shown."""
    at, body = visit["at"], None
    with suppress(store.InvalidError):
        body = parse(visit["body"]) if visit["body"] else None
    return visit | {"at": at if isinstance(at, str) else store.timestamp(datetime.fromtimestamp(at, UTC)),
                    "duration_ms": round(visit["duration_ms"], 1), "body": body}


# Documents


def document_routes(api: str) -> Blueprint:
    """What tells about the service itself."""
    routes = Blueprint("documents", __name__)

    @routes.get(f"{api}/health")
    def health() -> Response:
        """Tell that the service is up."""
        return answer(HEALTH)

    @routes.get(f"{api}/openapi.json")
    def openapi() -> Response:
        """Describe the API in OpenAPI 3.1."""
        return answer(document(current_app, api))

    @routes.get("/")
    def home() -> Response:
        """Show this page; in JSON to clients that prefer it."""
        shown = {"name": "Inventory API", "version": VERSION, "routes": routes_of(current_app)}
        if request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json":
            return answer(shown)
        page = render_template_string(PAGE, **shown, tables=g.session.state(), requests=journal()[:-101:-1])
        return Answer(page, 200, [NO_STORE, ("Content-Type", "text/html; charset=utf-8")])

    return routes


def routes_of(app: Flask) -> list[dict[str, Any]]:
    """The routes in the order of their registration, each told by its view's docstring."""
    return [{"methods": [each for each in store.METHODS if each in (rule.methods or ()) and each != "HEAD"],
             "path": rule.rule, "endpoint": rule.endpoint,
             "summary": str(app.view_functions[rule.endpoint].__doc__)} for rule in app.url_map.iter_rules()]


def document(app: Flask, api: str) -> dict[str, Any]:
    """The resource routes and health in OpenAPI 3.1, derived from the routes and from the fields' rules."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes_of(app):
        name, _, verb = route["endpoint"].partition(".")
        if name in store.RESOURCES or verb == "health":
            item = paths.setdefault(route["path"].removeprefix(api).replace("<id>", "{id}"), {})
            for method in route["methods"]:
                item[method.lower()] = operation(store.RESOURCES.get(name), verb, method, route["summary"])
    details = store.rule("object", "sentences by place")
    schemas = {"Error": store.closed({"error": store.STRING, "details": details}, ["error"]),
               "Health": store.closed({"status": store.STRING, "version": store.STRING}, HEALTH)}
    for each in store.RESOURCES.values():
        rows = store.rule("array", "the rows", items={"$ref": REF + each.title})
        page = {"data": rows, "total": COUNT, "page": COUNT, "per_page": COUNT}
        schemas |= {
            each.title: each.row, f"New{each.title}": worded(each), f"{each.title}Change": each.change,
            f"{each.title}List": rows, f"{each.title}Page": store.closed(page, page)}
    return {"openapi": "3.1.0", "info": {"title": "Inventory API", "version": VERSION},
            "servers": [{"url": api}], "paths": paths, "components": {"schemas": schemas}}


REF = "#/components/schemas/"
COUNT = store.rule("integer", "an integer of at least {minimum}", minimum=0)
SUCCESS = {  # by verb: status, what is answered, headers
    "health": (200, [""], []), "index": (200, ["List", "Page"], ["ETag", "X-Total-Count", "Link"]),
    "create": (201, [""], ["ETag", "Location"]), "show": (200, [""], ["ETag"]),
    "update": (200, [""], ["ETag"]), "delete": (204, [], [])}


def operation(resource: store.Resource | None, verb: str, method: str, summary: str) -> dict[str, Any]:
    """A route under one method: what can happen follows from whether it names a row, sends, and writes."""
    title, query = (resource.title, resource.query["properties"]) if resource else ("Health", {})
    by_id, sends, writes = verb in ("show", "update", "delete"), verb in ("create", "update"), method != "GET"
    tagged = resource and verb != "create"
    code, schemas, headers = SUCCESS[verb]
    errors = [400] + [404] * by_id + [409] * writes + [412] * (by_id and writes) + [413, 415] * sends
    described = {
        "operationId": f"{verb}{title}" + method.title() * (verb == "update"), "summary": summary,
        "parameters": [
            parameter("header", "X-Mock-Session", store.TOKEN),
            *[parameter("path", "id", store.STRING)] * by_id,
            *[parameter("header", "If-Match" if writes else "If-None-Match", store.STRING)] * bool(tagged),
            *[parameter("query", *each) for each in query.items() if verb == "index"]],
        "responses": {
            str(code): content(*(title + each for each in schemas), description=sentence(code), headers={
                name: {"schema": store.STRING, "required": name != "Link"} for name in headers}),
            **({"304": content(description=sentence(304))} if tagged and not writes else {}),
            **{str(error): content("Error", description=sentence(error)) for error in errors}}}
    if sends:
        sent = f"New{title}" if verb == "create" else f"{title}Change"
        described["requestBody"] = content(sent, required=True)
    return described


def content(*schemas: str, **more: Any) -> dict[str, Any]:
    """A body in JSON: of one of the document's schemas, or of any of some; none for no body."""
    refs = [{"$ref": REF + schema} for schema in schemas]
    body = {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}
    return more | ({"content": {"application/json": body}} if refs else {})


def parameter(place: str, name: str, schema: store.Schema) -> dict[str, Any]:
    """A parameter; in a query one that may be given more than once is an array."""
    many = place == "query" and name not in ONCE
    return {"in": place, "name": name, "required": place == "path",
            "schema": {"type": "array", "items": schema} if many else schema}


def worded(resource: store.Resource) -> dict[str, Any]:
    """The schema of a new row, its defaults in words: for a keyword, generated types demand the field."""
    sent = resource.new["properties"]
    return {**resource.new, "properties": sent | {
        name: rule | {"description": f"{rule['description']}; {json.dumps(default)} if left out"}
        for name, default in resource.defaults.items() if (rule := sent[name]) is not store.IGNORED}}


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }}</title>
<link rel="icon" href="data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>
<rect x='1' y='4' width='14' height='11' rx='2' fill='%232a9d6f'/></svg>">
<style>
  :root { color-scheme: light dark; --line: 1px solid color-mix(in srgb, currentColor 18%, transparent) }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem }
  h1, p { margin: .2rem 0 } h2 { margin: 2rem 0 .5rem; font-size: 1.1rem }
  table { width: 100%; border-collapse: collapse }
  td { padding: .3rem .8rem .3rem 0; border-top: var(--line); vertical-align: top }
  code, #requests { font: .9rem/1.6 ui-monospace, monospace; overflow-wrap: anywhere }
  #requests td:not(.path) { white-space: nowrap; width: 0 }
  .scroll { max-height: 22rem; overflow: auto }
  b { color: #2a9d6f } .bad { color: #d1495b }
  big { font-size: 2rem; font-weight: 700 } big:not(:first-child) { margin-left: 1rem }
  @media (max-width: 40rem) {
    #requests td:first-child { display: none }
    #routes td { display: block; padding: 0 } #routes td:not(:first-child) { border: 0 }
  }
</style>
<h1>{{ name }}</h1>
<p>A mock backend of items and orders, kept in memory, for those who build user interfaces.</p>
<p id="counts">
{% for name, table in tables.items() %}<big>{{ table.rows | length }}</big> {{ name }} {% endfor %}
<h2>Requests of this session as they come, newest on top</h2>
<div class="scroll"><table id="requests">{% for each in requests %}
<tr class="{{ "bad" if each.status >= 400 }}"><td>{{ each.at[11:19] }}<td>{{ each.method }}
<td class="path">{{ each.path }}{{ "?" + each.query if each.query }}
<td>{{ each.status }}<td>{{ each.duration_ms }} ms
{% endfor %}</table></div>
<h2>Routes</h2>
<table id="routes">{% for route in routes %}
<tr><td><b>{{ route.methods | join(", ") }}</b>
{% set link = "GET" in route.methods and "<" not in route.path %}
<td><code><a {% if link %}href="{{ route.path }}"{% endif %}>{{ route.path }}</a></code>
<td>{{ route.summary }}
{% endfor %}</table>
<script>
setInterval(async () => {
  if (document.hidden) return
  const response = await fetch("/?live").catch(() => null)  // the server may be gone
  const page = new DOMParser().parseFromString(await response?.text(), "text/html")
  for (const id of ["counts", "requests"]) document.getElementById(id).replaceWith(page.getElementById(id))
}, 1000)
</script>
</html>
"""


# Seeds

DEMO: dict[str, Any] = {
    "items": [dict(zip(("name", "description", "status", "quantity", "created_at"), row, strict=True))
              for row in [
        ("Ceramic mug, 350 ml", "Dishwasher-safe, glazed in blue", "active", 120, "2026-01-05T09:00:00.000Z"),
        ("Walnut desk organiser", "Five compartments, oiled", "active", 34, "2026-01-05T10:30:00.000Z"),
        ("Linen notebook A5", "160 pages, dotted", "active", 260, "2026-01-06T08:15:00.000Z"),
        ("Brass desk lamp", "Dimmable, with an E14 bulb", "pending", 8, "2026-01-06T11:00:00.000Z"),
        ("Felt laptop sleeve 13 inch", "", "active", 57, "2026-01-07T09:45:00.000Z"),
        ("Oak monitor stand", "Carries 20 kg", "completed", 0, "2026-01-08T13:20:00.000Z"),
        ("Fountain pen, medium nib", "With a converter", "active", 41, "2026-01-09T09:00:00.000Z"),
        ("Ink, midnight blue, 50 ml", "", "active", 95, "2026-01-09T09:05:00.000Z"),
        ("Cork pinboard 60 × 40", "Frame of pine", "pending", 12, "2026-01-12T15:10:00.000Z"),
        ("Paper clips, box of 100", "Steel, 28 mm", "active", 740, "2026-01-13T08:00:00.000Z"),
        ("Wool seat cushion", "Discontinued", "completed", 3, "2026-01-14T10:40:00.000Z"),
        ("Whiteboard markers, set of 4", "Four colours", "active", 66, "2026-01-15T12:00:00.000Z")]],
    "orders": [
        {"internal_number": "ORD-2026-001", "status": "paid", "created_at": "2026-01-16T09:30:00.000Z",
         "items": [{"item_id": "2", "quantity": 1}, {"item_id": "3", "quantity": 5}]},
        {"internal_number": "ORD-2026-002", "status": "shipped", "created_at": "2026-01-19T14:05:00.000Z",
         "items": [{"item_id": "7", "quantity": 2}, {"item_id": "8", "quantity": 4}]},
        {"internal_number": "ORD-2026-003", "status": "pending", "created_at": "2026-01-20T16:45:00.000Z",
         "items": [{"item_id": "10", "quantity": 12}, {"item_id": "3", "quantity": 20}]}]}


def generated(size: int) -> store.Tables:
    """Items, the same each time."""
    tables, statuses = store.Tables(), list(store.ItemStatus)
    gc.disable()  # nothing here becomes garbage, and looking for it takes a third of the time
    for n in range(1, size + 1):
        minute = f"2026-01-{1 + n // 72_000 % 28:02}T{n // 3_000 % 24:02}:{n // 50 % 60:02}:00.000Z"
        tables.put("items", store.Item(
            id=str(n), name=f"{('Red', 'Blue', 'Green')[n % 3]} {('mug', 'lamp', 'desk', 'vase')[n % 4]} {n}",
            status=statuses[n * 7 % 11 % 3], quantity=n * 37 % 251, created_at=sys.intern(minute)))
    gc.enable()
    return tables


# Settings and running

ORIGIN = r"[a-z][a-z0-9+.-]*://[^\s/,*]+"
ORIGINS = rf"\*|{ORIGIN}( *, *{ORIGIN})*"
VITE = ",".join(f"http://localhost:{port}" for port in range(5173, 5178))
PART = r"[A-Za-z0-9._~-]+"
MATCH = partial(store.rule, "string")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the environment may say, in upper case: `port` is `PORT`."""

    host: str = field(default="127.0.0.1", metadata=store.STRING)
    port: int = field(default=5000, metadata=store.WHOLE(maximum=65535))
    seed: str = field(default="", metadata=MATCH(
        "demo, a number of items, or the path of a .json file", pattern=r"demo|[0-9]{1,8}|.+\.json"))
    delay: str = field(default="0", metadata=MATCH(
        "milliseconds such as 200 or 200-800, up to 30000", pattern=r"[0-9]{1,5}(-[0-9]{1,5})?"))
    cors_origins: str = field(default=VITE, metadata=MATCH(
        "* or origins such as http://localhost:5173, separated by commas", pattern=ORIGINS))
    api_prefix: str = field(default="/api", metadata=MATCH("a path such as /api", pattern=f"(/{PART})+"))
    api_version: str = field(default="v1", metadata=MATCH("a part of a path such as v1", pattern=PART))
    flask_debug: str = field(default="0", metadata=MATCH("0, 1, false or true", pattern="(?i)0|1|false|true"))

    @classmethod
    def load(cls, given: Mapping[str, object]) -> "Settings":
        """What is given, else what the environment says, else the default. Raises InvalidError."""
        rules = {each.name.upper(): each.metadata for each in fields(cls)}
        texts = {name: os.environ.get(name, "") for name in rules}
        texts |= {name.upper(): str(value) for name, value in given.items() if value is not None}
        values: dict[str, Any] = {
            name: store.read(rules.get(name, {}), text) for name, text in texts.items() if text}
        store.require(store.check(store.closed(rules), values))
        return cls(**{name.lower(): value for name, value in values.items()})

    @property
    def api(self) -> str:
        """The path under which everything is."""
        return f"{self.api_prefix}/{self.api_version}"

    def delays(self) -> tuple[int, int]:
        """The least and the most that each request is delayed, in ms. Raises InvalidError."""
        least, most = int(self.delay.partition("-")[0]), int(self.delay.rpartition("-")[2])
        if not least <= most <= 30_000:
            raise store.InvalidError({"DELAY": "DELAY must be milliseconds up to 30000, the lesser first"})
        return least, most

    def origins(self) -> re.Pattern[str]:
        """The allowed origins as a pattern, for which Flask-CORS would take an IPv6 address anyway."""
        origins = map(re.escape, re.split(" *, *", self.cors_origins))
        return re.compile(".*" if self.cors_origins == "*" else rf"(?:{'|'.join(origins)})\Z", re.IGNORECASE)

    def tables(self) -> store.Tables:
        """The rows to begin with. Raises InvalidError."""
        if self.seed == "demo":
            return store.tables_of(DEMO, "")
        if not self.seed.endswith(".json"):
            return generated(int(self.seed or 0))
        try:
            return store.tables_of(parse_object(Path(self.seed).read_bytes()), store.timestamp())
        except OSError as error:
            reason = str(error.strerror)
        except store.InvalidError as error:
            reason = ": ".join(next(iter(error.problems.items())))
        raise store.InvalidError({"SEED": f"SEED {self.seed}: {reason}"})


class RequestHandler(WSGIRequestHandler):
    """Logs a line a request, and refuses what is not HTTP in JSON."""

    error_content_type = "application/json"
    error_message_format = '{"error": "%(explain)s"}\n'

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log the request, unless it is the home page refreshing itself."""
        if not self.requestline.startswith("GET /?live "):
            with suppress(OSError):  # whoever reads our stdout may go away
                print(f"{self.log_date_time_string()} {ascii(self.requestline)} {code}\n", end="", flush=True)


def main() -> None:
    """Serve until SIGINT or SIGTERM; a setting, a seed or an address that will not do ends it with a line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # There is nothing to save. An exception, the usual way, would break what the thread is just doing.
        signal.signal(number, lambda *_: os._exit(0))
    try:
        serve(Settings.load({}))
    except store.StoreError as error:
        sys.exit(f"inventory: {error}")


def serve(config: Settings) -> None:
    """Listen, say where, and answer. Raises InvalidError."""
    reloading: dict[str, Any] = {"use_reloader": True, "use_debugger": True}
    threads: dict[str, Any] = {"threaded": True, "request_handler": RequestHandler}
    if is_running_from_reloader():  # as a child, with the socket of the parent
        tell(config.host, config.port, config.api)
        run_simple(config.host, config.port, create_app(), **reloading, **threads)
    with listen(config.host, config.port) as server:
        host, port = server.getsockname()[:2]
        app = create_app()
        if app.debug and not ip_address(host).is_loopback:
            raise store.InvalidError({"": f"FLASK_DEBUG must be 0 on HOST {host}: the debugger runs code"})
        if not app.debug:
            tell(config.host, port, config.api)
            make_server(host, port, app, fd=server.fileno(), **threads).serve_forever()
    os.environ["PORT"] = str(port)  # for the child
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which ends the child as well
    run_simple(host, port, app, **reloading, **threads)


def tell(host: str, port: int, api: str) -> None:
    """Print the line that says where the service listens, once it does."""
    print(f"Inventory API listening on http://{f'[{host}]' if ':' in host else host}:{port}{api}", flush=True)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises InvalidError."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise store.InvalidError({"": f"PORT {port} on HOST {host}: {error.strerror}"}) from None


def __getattr__(name: str) -> Flask:
    """`inventory:app`, made when a WSGI server first asks for it, so that an import reads no variable."""
    if name != "app":
        raise AttributeError(name)
    app: Flask = globals().setdefault(name, create_app())
    return app


if __name__ == "__main__":
    main()
