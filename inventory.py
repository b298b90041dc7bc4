"""The inventory service: items and orders over HTTP, in memory, for those who build user interfaces.

A request goes from top to bottom: `create_app` has put the service together, `add_hooks` finds the
session, delays, fails and records, a view of `resource_routes` asks the store, `answer` makes the
response, and `add_error_handlers` makes it where something was refused. The rules of the fields and
the locks are in store.py.
"""

import sys

if sys.hexversion < 0x030B0000:  # 3.11; stands before the imports, which an older Python does not get past
    sys.exit(f"inventory: needs Python 3.11 or newer, this is {sys.version.split()[0]}")

import json
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO
from ipaddress import ip_address
from random import randint
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlencode

from flask import Blueprint, Flask, Response, current_app, g, render_template_string, request
from flask_cors import CORS
from werkzeug.datastructures import ETags, Headers
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.http import parse_etags
from werkzeug.serving import WSGIRequestHandler, is_running_from_reloader, make_server, run_simple

import store

VERSION = "1.0.0"
KIB, MIB = 2**10, 2**20


def create_app(**settings: object) -> Flask:
    """Put the service together, with data of its own.

    The settings are those of `Settings`, such as `create_app(seed="demo")`; one that is not given
    is taken from the environment. Raises InvalidError if one is wrong.
    """
    config = Settings.load(settings)
    api = config.api
    sessions, cache = store.Sessions(seed_tables(config.seed)), store.Cache(32 * MIB)

    app = App(__name__, static_folder=None)
    app.debug = config.flask_debug in ("1", "true")
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # browsers reject a redirected preflight
    CORS(app, origins=config.origins(), supports_credentials=True, always_send=False, max_age=600,
         expose_headers=["ETag", "Link", "Location", "X-Total-Count"])
    app.extensions["sessions"] = sessions
    add_hooks(app, sessions, api, config.delays())
    add_error_handlers(app)

    for resource in store.RESOURCES.values():
        app.register_blueprint(resource_routes(resource, f"{api}/{resource.name}", cache))
    app.register_blueprint(mock, url_prefix=f"{api}/mock")
    app.register_blueprint(document_routes(api))
    return app


class App(Flask):
    """Flask, but for its own answer to OPTIONS, which is to be like ours."""

    def make_default_options_response(self) -> Response:
        """Tell the allowed methods, without a body."""
        return answer(b"", 200, ("Allow", super().make_default_options_response().headers.get("Allow", "")))


# Hooks


def add_hooks(app: Flask, sessions: store.Sessions, api: str, delays: tuple[int, int]) -> None:
    """Give each request its session; delay, fail and record those to resources and to unknown paths."""
    recorded = re.compile(
        rf"{re.escape(api)}(?!/(?:mock/.*|health/?|openapi\.json/?)\Z)(/.*)", re.DOTALL).fullmatch

    @app.before_request
    def arrive() -> Response | None:
        environ = request.environ  # a look into this dict is cheap, a use of `request` or `g` is not
        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            return app.make_default_options_response()  # a preflight succeeds on any path
        try:
            g.session = session = sessions.get(session_name(environ))
        except store.InvalidError:
            if request.routing_exception:
                return None  # that there is no such route is told first
            raise
        path = recorded(request.path)
        if path is None:
            return None
        g.visit = visit = store.Visit(time.perf_counter(), session.frozen or time.time(),
                                      environ["REQUEST_METHOD"], path[1], environ["QUERY_STRING"])
        session.journal.append(visit)  # now, for the order of arrival; it is shown once it has a status
        return delay_or_fail(session, visit, randint(*delays))

    @app.after_request
    def leave(response: Response) -> Response:
        visit: store.Visit | None = g.get("visit")
        if visit:
            if visit.fault and visit.fault.status and visit.fault.after:
                response = injected(visit.fault.status)
            visit.body = small_body(request.environ)
            visit.duration_ms = 1000 * (time.perf_counter() - visit.began)
            visit.status = response.status_code
        return response


def session_name(environ: Mapping[str, Any]) -> str | None:
    """The session that a request names in a header or a cookie. Raises InvalidError."""
    place, name = "X-Mock-Session", environ.get("HTTP_X_MOCK_SESSION")
    if name is None and "mock_session" in environ.get("HTTP_COOKIE", ""):
        # Not request.cookies: Werkzeug drops a value that is not well formed without a word.
        cookie = re.search(r"(?:^|;)\s*mock_session=([^;]*)", environ["HTTP_COOKIE"])
        place, name = "mock_session", cookie and cookie[1]
    if name is not None:
        store.require(store.TOKEN, name, place)
    return name


def delay_or_fail(session: store.Store, visit: store.Visit, delay: int) -> Response | None:
    """Wait for the longest delay (ms) that applies; answer in the view's place if the request shall fail."""
    wish = wishes(visit.query)
    if "_status" not in wish:
        visit.fault = session.strike(visit.method, visit.path.rstrip("/") or "/")
    elif not request.routing_exception:
        visit.fault = store.Fault(path=visit.path, status=wish["_status"])
    delay = max(delay, wish.get("_delay", 0), visit.fault.delay if visit.fault else 0)
    if delay:
        time.sleep(delay / 1000)  # holding no lock: other requests go on
    if visit.fault and visit.fault.status and not visit.fault.after:
        return injected(visit.fault.status)
    return None


WISHES: dict[str, Any] = {"type": "object", "properties": {"_delay": store.DELAY, "_status": store.STATUS}}


def wishes(query: str) -> dict[str, Any]:
    """What a request asks for in its own query: `_delay` (ms) and `_status`. Raises InvalidError."""
    if "_delay" not in query and "_status" not in query:
        return {}
    texts, rules = arguments(query), WISHES["properties"]
    values = {name: store.read(rules[name], texts[name][-1]) for name in rules if name in texts}
    found = store.problems(store.check(WISHES, values))
    if found and not request.routing_exception:
        raise store.InvalidError(found)
    return {} if found else values


def small_body(environ: Mapping[str, Any]) -> bytes | None:
    """The body of the request, if there is one of at most 10 KiB."""
    if not environ.get("CONTENT_LENGTH") and not environ.get("HTTP_TRANSFER_ENCODING"):
        return None
    try:
        return sent_bytes(10 * KIB)
    except HTTPException:
        return None


# Resources


def resource_routes(resource: store.Resource, path: str, cache: store.Cache) -> Blueprint:
    """The five routes of a resource, under a path."""
    name = resource.name
    routes = Blueprint(name, __name__, url_prefix=path)

    @routes.get("")
    def index() -> Response:
        """List the rows, oldest first: filtered, sorted and paged as the query says."""
        return conditional(*listing(resource, path, request.environ["QUERY_STRING"], cache))

    @routes.post("")
    def create() -> Response:
        """Create a row."""
        row = g.session.create(name, sent_object())
        return answer(row.json, 201, etag(row.tag), ("Location", f"{path}/{row.record.id}"))

    @routes.get("/<id>")
    def show(id: str) -> Response:
        """Read one row."""
        row = g.session.get(name, id)
        return conditional(row.json, etag(row.tag))

    @routes.route("/<id>", methods=["PUT", "PATCH"])
    def update(id: str) -> Response:
        """Merge the given fields into a row."""
        row = g.session.update(name, id, sent_object(), if_match())
        return answer(row.json, 200, etag(row.tag))

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
    value = store.parse(body)
    if not isinstance(value, dict):
        raise store.MalformedError("Bad request", {"body": "Body must be a JSON object"})
    return value


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


def answer(body: bytes | None, status: int = 200, *headers: Header) -> Response:
    """A response with a JSON body, or without any."""
    return Answer(body, status, [*([JSON] if body else []), NO_STORE, *headers])


def answer_json(value: Any, status: int = 200) -> Response:
    """A response with a value as its JSON body."""
    return answer(json.dumps(value).encode() + b"\n", status)


def conditional(body: bytes, tag: Header, *headers: Header) -> Response:
    """The answer to a read: 304 if the client names this version's tag (RFC 9110 §13.1.2)."""
    known = request.environ.get("HTTP_IF_NONE_MATCH")
    if known and parse_etags(known).contains_weak(tag[1].strip('"')):
        return answer(None, 304, tag, *headers)
    return answer(body, 200, tag, *headers)


def etag(tag: str) -> Header:
    """The header that tells a version."""
    return "ETag", f'"{tag}"'


def array(rows: list[store.Row]) -> bytes:
    """A JSON array with a row a line, in one join: each copy of a long one shows."""
    texts = [row.json for row in rows] or [b""]
    texts[0] = b"[" + texts[0]
    texts[-1] += b"]\n"
    return b",".join(texts)


# Lists

PAGING = ("page", "per_page")


def listing(resource: store.Resource, path: str, query: str, cache: store.Cache) -> tuple[Any, ...]:
    """The body and the headers of a list. Raises InvalidError.

    A version is that of one content only: with the query it makes a key that is never stale.
    """
    session: store.Store = g.session
    made: tuple[Any, ...] | None = cache.get((session.version(resource.name), query))
    if made is None:
        wanted = read_query(resource, arguments(query)) if query else {}
        version, rows = session.rows(resource.name)
        chosen = {name: value for name, value in wanted.items() if name not in PAGING}
        if chosen:  # all the pages of a query come from one list
            key = version, "rows", repr(chosen)
            rows = cache.get(key) or store.select(resource, rows, chosen)
            cache.put(key, rows, 512 * len(rows))
        body, links = page_of(rows, wanted, path, query) if wanted.keys() & PAGING else (array(rows), [])
        made = body, etag(f"{version:x}"), ("X-Total-Count", str(len(rows))), *links
        cache.put_again((version, query), made, len(body) + len(query))
    return made


def page_of(rows: list[store.Row], wanted: Mapping[str, Any], path: str,
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
        if not query.isascii() or re.search("%(?![0-9A-Fa-f]{2})", query):
            raise ValueError
        return parse_qs(query, keep_blank_values=True, errors="strict")
    except ValueError:
        raise store.InvalidError({"query": "Query must be percent-encoded UTF-8"}) from None


def read_query(resource: store.Resource, texts: Mapping[str, list[str]]) -> dict[str, Any]:
    """A list's parameters, read by type: all its values, or the last. Raises InvalidError."""
    rules = resource.query["properties"]
    counted = {name: given[-1:] if name in store.SINGLE else given for name, given in texts.items()}
    values = {name: [store.read(rules.get(name, store.TEXT), text) for text in given]
              for name, given in counted.items() if not name.startswith("_")}
    store.require(resource.query, {  # of several values one that does not fit stands for all
        name: next((value for value in given if not store.fits(rules.get(name, {}), value)), given[-1])
        for name, given in values.items()})
    return {name: given[-1] if name in store.SINGLE else given for name, given in values.items()}


# Errors

CODES = {store.InvalidError: 400, store.MalformedError: 400, store.NotFoundError: 404,
         store.ConflictError: 409, store.StaleError: 412}
SENTENCES = {404: "Resource not found", 413: "Request body too large"}


def add_error_handlers(app: Flask) -> None:
    """Give every error the one form."""

    @app.errorhandler(store.StoreError)
    def refused(error: store.StoreError) -> Response:
        return refusal(CODES[type(error)], str(error), error.problems)

    @app.errorhandler(RecursionError)
    def too_deep(error: RecursionError) -> Response:
        """What could just be read can be too deep to be written."""
        return refusal(400, "Bad request", {"body": "Body is nested too deeply"})

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> Response:
        headers = error.get_response().headers  # such as the Allow of a 405
        code = error.code or 500
        response = refusal(code, SENTENCES.get(code) or sentence(code))
        response.headers.extend((name, value) for name, value in headers if not name.startswith("Content-"))
        return response


def refusal(code: int, error: str, details: Mapping[str, Any] | None = None) -> Response:
    """The answer that every error is."""
    body = {"error": error, "details": details} if details else {"error": error}
    return answer_json(body, code)


def injected(code: int) -> Response:
    """The error that a client has asked for."""
    return refusal(code, sentence(code), {"injected": True})


def sentence(code: int) -> str:
    """The phrase of an HTTP status in sentence case, such as "Service unavailable"."""
    try:
        first, *rest = HTTPStatus(code).phrase.split()
    except ValueError:
        return f"Status {code}"
    return " ".join([first, *(word.lower() if word.istitle() else word for word in rest)])


# Mock controls

mock = Blueprint("mock", __name__)


@mock.get("/state")
def show_state() -> Response:
    """Read all rows of the session."""
    parts = [b'"%b": %b' % (name.encode(), array(rows)) for name, rows in g.session.state().items()]
    return answer(b"{" + b",".join(parts) + b"}\n")


@mock.put("/state")
def replace_state() -> Response:
    """Replace all rows of the session."""
    g.session.load(sent_object(64 * MIB))
    return answer(None, 204)


@mock.delete("/state")
def reset_state() -> Response:
    """Reset the session: rows, ids, clock, faults, journal."""
    current_app.extensions["sessions"].reset(session_name(request.environ))
    return answer(None, 204)


@mock.get("/clock")
def show_clock() -> Response:
    """Read the session's clock."""
    return answer_json({"now": g.session.now(), "frozen": g.session.frozen is not None})


@mock.put("/clock")
def freeze_clock() -> Response:
    """Freeze the session's clock at a time."""
    body = sent_object()
    store.require(CLOCK, body)
    g.session.frozen = body["now"]
    return answer_json({"now": body["now"], "frozen": True})


@mock.delete("/clock")
def release_clock() -> Response:
    """Let the session's clock run."""
    g.session.frozen = None
    return answer(None, 204)


@mock.get("/faults")
def list_faults() -> Response:
    """List the faults that are left."""
    return answer_json([asdict(fault) for fault in g.session.faults])


@mock.post("/faults")
def add_fault() -> Response:
    """Make requests to come fail or wait."""
    fault = store.fault_of(sent_object())
    g.session.faults.append(fault)
    return answer_json(asdict(fault), 201)


@mock.delete("/faults")
def clear_faults() -> Response:
    """Clear the faults."""
    g.session.faults = []
    return answer(None, 204)


@mock.get("/requests")
def list_requests() -> Response:
    """List the last 500 requests of the session, oldest first."""
    return answer(b"[" + b",".join(map(entry, finished(g.session))) + b"]\n")


@mock.delete("/requests")
def clear_requests() -> Response:
    """Forget the requests of the session."""
    g.session.journal.clear()
    return answer(None, 204)


CLOCK = {**store.OBJECT, "properties": {"now": store.TIME}, "required": ["now"]}


def entry(visit: store.Visit) -> bytes:
    """A journal entry's JSON; the body stands in it as it was sent, if it is JSON at all."""
    body = visit.body or b"null"
    try:
        store.parse(body)
    except store.StoreError:
        body = b"null"
    return json.dumps(told(visit))[:-1].encode() + b', "body": ' + body + b"}\n"


def told(visit: store.Visit) -> dict[str, Any]:
    """A journal entry without the body."""
    at = visit.at if isinstance(visit.at, str) else store.timestamp(datetime.fromtimestamp(visit.at, UTC))
    return {"at": at, "method": visit.method, "path": visit.path, "query": visit.query,
            "status": visit.status, "duration_ms": round(visit.duration_ms, 1)}


def finished(session: store.Store) -> list[store.Visit]:
    """The requests that have been answered, in the order in which they came."""
    return [visit for visit in session.journal.copy() if visit.status]


# Documents


def document_routes(api: str) -> Blueprint:
    """What tells about the service itself."""
    routes = Blueprint("documents", __name__)

    @routes.get(f"{api}/health")
    def health() -> Response:
        """Tell that the service is up."""
        return answer_json({"status": "healthy", "version": VERSION})

    @routes.get(f"{api}/openapi.json")
    def openapi() -> Response:
        """Describe the API in OpenAPI 3.1."""
        return answer_json(document(current_app, api))

    @routes.get("/")
    def home() -> Response | str:
        """Show this page; in JSON to clients that prefer it."""
        shown = {"name": "Inventory API", "version": VERSION, "api": api, "routes": routes_of(current_app),
                 "counts": {name: len(rows) for name, rows in g.session.state().items()},
                 "requests": [told(visit) for visit in finished(g.session)[:-101:-1]]}
        if request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json":
            return answer_json(shown)
        return render_template_string(PAGE, **shown)

    return routes


def routes_of(app: Flask) -> list[dict[str, Any]]:
    """The routes in the order of their registration, each told by its view's docstring."""
    return [{"methods": sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}), "path": rule.rule,
             "summary": str(app.view_functions[rule.endpoint].__doc__), "endpoint": rule.endpoint}
            for rule in app.url_map.iter_rules()]


def document(app: Flask, api: str) -> dict[str, Any]:
    """The resource routes and health in OpenAPI 3.1, derived from the routes and from the fields' rules."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes_of(app):
        name, _, verb = route["endpoint"].partition(".")
        if name in store.RESOURCES or verb == "health":
            item = paths.setdefault(route["path"].removeprefix(api).replace("<id>", "{id}"), {})
            for method in route["methods"]:
                item[method.lower()] = operation(store.RESOURCES.get(name), verb, method, route["summary"])
    schemas = {"Error": closed(error=store.TEXT, details={"type": "object"}) | {"required": ["error"]},
               "Health": closed(status={"enum": ["healthy"]}, version=store.TEXT)}
    for each in store.RESOURCES.values():
        rows = {"type": "array", "items": ref(each.title)}
        page = closed(data=rows, total=COUNT, page=COUNT, per_page=COUNT)
        title = each.title
        schemas |= {title: each.row, f"New{title}": worded(each), f"{title}Change": each.change,
                    f"{title}List": rows, f"{title}Page": page}
    return {"openapi": "3.1.0", "info": {"title": "Inventory API", "version": VERSION},
            "servers": [{"url": api}], "paths": paths, "components": {"schemas": schemas}}


SUCCESS = {"index": (200, ("ETag", "X-Total-Count", "Link")), "create": (201, ("ETag", "Location")),
           "show": (200, ("ETag",)), "update": (200, ("ETag",)), "delete": (204, ()), "health": (200, ())}
COUNT = {"type": "integer", "minimum": 0}


def operation(resource: store.Resource | None, verb: str, method: str, summary: str) -> dict[str, Any]:
    """A route under one method: what can happen follows from whether it names a row, sends, and writes."""
    title = resource.title if resource else "Health"
    by_id, sends, writes = verb in ("show", "update", "delete"), verb in ("create", "update"), method != "GET"
    parameters = [parameter("header", "X-Mock-Session", store.TOKEN)]
    if by_id:
        parameters.append(parameter("path", "id", store.TEXT))
    if resource and (by_id or not writes):
        parameters.append(parameter("header", "If-Match" if writes else "If-None-Match", store.TEXT))
    if resource and verb == "index":
        parameters += [parameter("query", *each) for each in resource.query["properties"].items()]

    code, headers = SUCCESS[verb]
    body = {"anyOf": [ref(f"{title}List"), ref(f"{title}Page")]} if verb == "index" else ref(title)
    responses = {str(code): {"description": sentence(code)} | (content(body) if code != 204 else {}) | {
        "headers": {name: {"schema": store.TEXT, "required": name != "Link"} for name in headers}}}
    if resource and not writes:
        responses["304"] = {"description": sentence(304)}
    for error in [400] + [404] * by_id + [409] * writes + [412] * (by_id and writes) + [413, 415] * sends:
        responses[str(error)] = {"description": sentence(error)} | content(ref("Error"))

    described: dict[str, Any] = {
        "operationId": f"{verb}{title}" + method.title() * (verb == "update"), "summary": summary,
        "parameters": parameters, "responses": responses}
    if sends:
        schema = ref(f"New{title}" if verb == "create" else f"{title}Change")
        described["requestBody"] = {"required": True, **content(schema)}
    return described


def closed(**properties: Any) -> dict[str, Any]:
    """The schema of an object that has just these properties."""
    return {**store.OBJECT, "properties": properties, "required": list(properties)}


def worded(resource: store.Resource) -> dict[str, Any]:
    """The schema of a new row, its defaults in words: for a keyword, generated types demand the field."""
    return {**resource.new, "properties": {
        name: {**rule, "description": f"left out: {json.dumps(resource.defaults[name])}"}
        if name in resource.defaults else rule for name, rule in resource.new["properties"].items()}}


def ref(schema: str) -> dict[str, str]:
    """A reference to one of the document's schemas."""
    return {"$ref": f"#/components/schemas/{schema}"}


def content(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A body in JSON."""
    return {"content": {"application/json": {"schema": schema}}}


def parameter(place: str, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter; in a query one that may be given more than once is an array."""
    many = place == "query" and name not in store.SINGLE
    return {"in": place, "name": name, "required": place == "path",
            "schema": {"type": "array", "items": schema} if many else schema}


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
  code, #requests { font-family: ui-monospace, monospace; font-size: .9rem }
  code, .path { overflow-wrap: anywhere }
  .scroll { max-height: 22rem; overflow: auto }
  #requests td:not(.path) { white-space: nowrap; width: 0 }
  b { color: #2a9d6f } .bad { color: #d1495b }
  .count { margin-right: 2rem } .count span { font-size: 2rem; font-weight: 700 }
  @media (max-width: 40rem) {
    #requests td:first-child { display: none }
    #routes tr { display: block; padding: .4rem 0; border-top: var(--line) }
    #routes td { display: block; border: 0; padding: 0 }
  }
</style>
<h1>{{ name }}</h1>
<p>A mock backend of items and orders, kept in memory, for those who build user interfaces.</p>
<p>{% for resource, size in counts.items() %}
<span class="count"><span id="{{ resource }}">{{ size }}</span> {{ resource }}</span>{% endfor %}
<h2>Requests of this session as they come, newest on top</h2>
<div class="scroll"><table id="requests"></table></div>
<h2>Routes</h2>
<table id="routes">{% for route in routes %}
<tr><td><b>{{ route.methods | join(", ") }}</b>
{% if "GET" in route.methods and "<" not in route.path %}
<td><code><a href="{{ route.path }}">{{ route.path }}</a></code>
{% else %}
<td><code>{{ route.path }}</code>
{% endif %}
<td>{{ route.summary }}{% endfor %}
</table>
<script>
const table = document.getElementById("requests")
async function refresh() {
  if (document.hidden) return
  const response = await fetch("/?live", { headers: { Accept: "application/json" } })
  const { counts, requests } = await response.json()
  for (const name in counts) document.getElementById(name).textContent = counts[name]
  const rows = requests.map(({ at, method, path, query, status, duration_ms }) => {
    const row = document.createElement("tr")
    const cells = [at.slice(11, 19), method, path + (query && "?" + query), status, duration_ms + " ms"]
    for (const text of cells) row.insertCell().textContent = text
    row.cells[2].className = "path"
    row.classList.toggle("bad", status >= 400)
    return row
  })
  table.replaceChildren(...rows)
}
refresh()
setInterval(() => refresh().catch(() => {}), 1000)  // the server may be gone
</script>
</html>
"""


# Settings and running


ORIGIN = r"[a-z][a-z0-9+.-]*://[^\s/,*]+"
VITE = ",".join(f"http://localhost:{port}" for port in range(5173, 5178))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the environment may say, in upper case: `port` is `PORT`. Times are in milliseconds."""

    host: str = field(default="127.0.0.1", metadata=store.TEXT)
    port: int = field(default=5000, metadata={"type": "integer", "minimum": 0, "maximum": 65535})
    seed: str = field(default="", metadata=store.TEXT | {
        "pattern": r"^(demo|[0-9]{1,8}|.+\.json)$",
        "description": "demo, a number of items, or the path of a .json file"})
    delay: str = field(default="0", metadata=store.TEXT | {
        "pattern": r"^[0-9]{1,5}(-[0-9]{1,5})?$",
        "description": "milliseconds such as 200 or 200-800, up to 30000"})
    cors_origins: str = field(default=VITE, metadata=store.TEXT | {
        "pattern": rf"^(\*|{ORIGIN}( *, *{ORIGIN})*)$",
        "description": "* or origins such as http://localhost:5173, separated by commas"})
    api_prefix: str = field(default="/api", metadata=store.TEXT | {
        "pattern": r"^(/[A-Za-z0-9._~-]+)+$", "description": "a path such as /api"})
    api_version: str = field(default="v1", metadata=store.TEXT | {
        "pattern": r"^[A-Za-z0-9._~-]+$", "description": "a part of a path such as v1"})
    flask_debug: str = field(default="0", metadata=store.TEXT | {"enum": ["0", "1", "false", "true"]})

    @property
    def api(self) -> str:
        """The path under which everything is."""
        return f"{self.api_prefix}/{self.api_version}"

    @classmethod
    def load(cls, given: Mapping[str, object]) -> "Settings":
        """What is given, else what the environment says, else the default. Raises InvalidError."""
        rules = {each.name: each.metadata for each in fields(cls)}
        if unknown := given.keys() - rules.keys():
            raise TypeError(f"there is no setting {', '.join(unknown)}")
        values: dict[str, Any] = {}
        for name, rule in rules.items():
            value = os.environ.get(name.upper(), "") if given.get(name) is None else given[name]
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if text:
                values[name] = store.read(rule, text)
                if not store.fits(rule, values[name]):
                    wrong(name, f"must be {store.allowed(rule)}, not {text!r}")
        return cls(**values)

    def delays(self) -> tuple[int, int]:
        """The least and the most that each request is delayed, in ms. Raises InvalidError."""
        least, _, most = self.delay.partition("-")
        if not int(least) <= int(most or least) <= 30_000:
            wrong("delay", f"must be milliseconds up to 30000, the lesser first, not {self.delay!r}")
        return int(least), int(most or least)

    def origins(self) -> str | list[re.Pattern[str]]:
        """The allowed origins as patterns: Flask-CORS would take an IPv6 address for one."""
        if self.cors_origins == "*":
            return "*"
        origins = map(re.escape, re.split(" *, *", self.cors_origins))
        return [re.compile(origin + r"\Z", re.IGNORECASE) for origin in origins]


def wrong(name: str, problem: str) -> NoReturn:
    """Refuse a setting."""
    raise store.InvalidError({name.upper(): f"{name.upper()} {problem}"}) from None


def seed_tables(source: str) -> dict[str, store.Table]:
    """The rows to begin with. Raises InvalidError."""
    try:
        return store.seed(source)
    except OSError as error:
        reason = str(error.strerror)
    except store.StoreError as error:
        reason = ": ".join(filter(None, next(iter(error.problems.items()))))
    wrong("seed", f"{source}: {reason}")


class RequestHandler(WSGIRequestHandler):
    """Logs a line a request, and refuses what is not HTTP in JSON."""

    error_content_type = "application/json"
    error_message_format = '{"error": "%(explain)s"}\n'

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log the request, unless it is the home page refreshing itself."""
        if not self.requestline.startswith("GET /?live "):
            self.log("info", "%s %s", ascii(self.requestline), code)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log a line with the time."""
        getattr(logging.getLogger("inventory"), type)(message, *args)


def log_to_streams() -> None:
    """Problems to stderr, all else to stdout."""
    out, err = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    out.addFilter(lambda record: record.levelno < logging.WARNING)
    err.setLevel(logging.WARNING)
    logging.basicConfig(handlers=[out, err], format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("inventory").setLevel(logging.INFO)
    logging.raiseExceptions = False  # whoever reads our stdout may go away


def main() -> None:
    """Serve until SIGINT or SIGTERM; a setting, a seed or an address that will not do ends it with a line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # There is nothing to save. An exception, the usual way, would break what the thread is just doing.
        signal.signal(number, lambda *_: os._exit(0))
    log_to_streams()
    try:
        serve(Settings.load({}))
    except store.StoreError as error:
        sys.exit(f"inventory: {error}")


def serve(config: Settings) -> None:
    """Listen, say where, and answer. Raises InvalidError."""
    reloading: dict[str, Any] = {"use_reloader": True, "use_debugger": True}
    threads: dict[str, Any] = {"threaded": True, "request_handler": RequestHandler}
    if is_running_from_reloader():  # with the socket of the run before, which Werkzeug hands on
        run_simple(config.host, config.port, create_app(), **reloading, **threads)
    with listen(config.host, config.port) as server:
        host, port = server.getsockname()[:2]
        app = create_app()
        if app.debug and not ip_address(host).is_loopback:
            wrong("flask_debug", f"must be 0 where HOST is {host}: the debugger runs code")
        name = f"[{config.host}]" if ":" in config.host else config.host
        print(f"Inventory API listening on http://{name}:{port}{config.api}", flush=True)
        if not app.debug:
            make_server(host, port, app, fd=server.fileno(), **threads).serve_forever()
    if app.debug:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which ends the reloader's child as well
        run_simple(host, port, app, **reloading, **threads)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises InvalidError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)  # clients try IPv4
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        wrong("port", f"{port} on HOST {host}: {error.strerror}")


def __getattr__(name: str) -> Flask:
    """`inventory:app`, made when a WSGI server first asks for it, so that an import reads no variable."""
    if name != "app":
        raise AttributeError(name)
    app: Flask = globals().setdefault(name, create_app())
    return app


if __name__ == "__main__":
    main()
