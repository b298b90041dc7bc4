"""The inventory service: the data of store.py over HTTP, and what a test does to it.

Read store.py first; it explains record, row, resource, rule, place, state, thread and
lock. The sections stand in the order in which one needs them:

    create_app   puts the service together
    Faults, Sessions: what each test has to itself
    Arrival      each request gets its session, is written down, and meets the faults
    Resources    the five views, and how a request's body and query are read
    Answers      how an answer is made, and how an error becomes one
    Mock controls, Description, Home page: the other views
    Settings, Seeds, Running: what happens before the first request

Words that are used here:

    view         the function that answers the requests for a path. Flask calls it
    session      the data of one test, chosen by a header or a cookie (not Flask's)
    fault        something that a test has ordered to go wrong, for certain requests
    hold         let a request wait until its fault is cleared
    journal      the list of the last requests for rows, and to unknown paths
    tag          what stands for the content of a row or a list, in the header ETag.
                 Sent back, it means "answer only if it is another now" (If-None-Match)
                 or "change it only if it is still this one" (If-Match)
    origin       scheme, host and port of a page, such as http://localhost:5173. If
                 that page asks us, at another port, the browser sends its origin along,
                 and gives the page our answer only if we allow that by headers (CORS)
    preflight    the OPTIONS request by which a browser asks for that permission before
                 it sends a request that could change something
"""

import codecs
import io
import json
import math
import os
import re
import signal
import socket
import string
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Event, Lock
from types import FrameType
from typing import IO, Any, NamedTuple
from urllib.parse import quote, urlencode

import click
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
from flask.json.provider import DefaultJSONProvider
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

from store import (
    ANY_OBJECT_RULE,
    BOOLEAN_RULE,
    IGNORED_RULE,
    RESOURCES,
    STRING_RULE,
    TIME_RULE,
    ConflictError,
    InvalidError,
    Item,
    ItemStatus,
    NotFoundError,
    Problems,
    Resource,
    Row,
    Rule,
    StaleError,
    Store,
    StoreError,
    Tables,
    check,
    choice_rule,
    integer_rule,
    make_rule,
    make_tables,
    nullable,
    object_rule,
    raise_for_problems,
    read_state,
    select,
    tag_of,
    timestamp,
    to_json,
    types_of,
    unknown_name,
    validate,
)

VERSION = "1.0.0"


def create_app(**arguments: object) -> Flask:
    """Make the service, with data of its own.

    The arguments are settings in lower case, such as `seed="demo"`. Those that are not
    given come from the environment. Raises SettingError.
    """
    app = Flask(__name__, static_folder=None)
    app.config.update(load_settings(arguments))
    app.config["API"] = f"{app.config['API_PREFIX']}/{app.config['API_VERSION']}"
    app.config["SESSIONS"] = Sessions(load_seed(app.config["SEED"]))
    assert isinstance(app.json, DefaultJSONProvider)  # told for the type checker
    app.json.sort_keys = False  # fields stay in the order in which they are declared
    app.json.compact = True  # no blanks, not even under the debugger
    # The path /items/ is the same as /items, and not a 404.
    app.url_map.strict_slashes = False
    # The path //items is a 404, and not redirected to /items: a browser does not accept
    # a redirect as the answer to a preflight.
    app.url_map.merge_slashes = False

    allow_origins(app, app.config["CORS_ORIGINS"])
    app.before_request(arrive)  # see the section Arrival
    app.after_request(leave)
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(StoreError, answer_store_error)
    add_routes(app, app.config["API"])
    return app


def allow_origins(app: Flask, setting: str) -> None:
    """Let pages of these origins use the service, and read its headers (CORS).

    A browser sends our cookie from a page of another origin only if `credentials` are
    allowed, too: that is what CORS calls cookies.
    """
    origins = ["*"]
    if setting != "*":
        # Flask-CORS takes a text with brackets for a regular expression, and there are
        # brackets in http://[::1]:5173. So each origin is an expression that fits it
        # alone.
        origins = [f"^{re.escape(name.strip())}$" for name in setting.split(",")]
    flask_cors.CORS(
        app,
        origins=origins,
        supports_credentials=True,
        always_send=False,  # only to requests that come from a page
        max_age=600,  # seconds for which a browser may keep a permission
        expose_headers=["ETag", "Link", "Location", "Retry-After", "X-Total-Count"],
    )


def add_routes(app: Flask, api: str) -> None:
    """Register the views. Those of the resources are registered once for each.

    A blueprint is a group of views that is registered as a whole. `url_defaults` are
    arguments that Flask passes to a view beside those in its path. They tell the same
    five views which resource they are to serve.
    """
    for name, resource in RESOURCES.items():
        app.register_blueprint(
            resource_views,
            name=f"resource-{name}",
            url_prefix=f"{api}/{name}",
            url_defaults={"resource": resource},
        )
    app.register_blueprint(mock_views, url_prefix=f"{api}/mock")
    app.register_blueprint(description_views, url_prefix=api)
    app.add_url_rule("/", view_func=show_home)


# ----------------------------------------------------------------------
# Faults
#
# A fault says which requests it waits for, and what becomes of them. Its fields have
# rules in their metadata, like those of a record; but it is no record, as it changes
# with each request that it meets.
# ----------------------------------------------------------------------

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
DELAY_RULE = integer_rule(0, 30_000)  # milliseconds
ERROR_STATUS_RULE = integer_rule(400, 599)


@dataclass(kw_only=True)
class Fault:
    """Something that is to go wrong.

    Its session changes `id`, `times` and `held`, and sets `cleared`. The rest stays.
    """

    id: str = field(default="", metadata=IGNORED_RULE)
    # A shell-style pattern for the path below the API, or for path and query: /items/*
    # fits /items/1 and what is below it. It begins with a slash, as all paths do, or
    # with * ? [ that can stand for one.
    path: str = field(
        metadata=make_rule(
            "string",
            "a pattern of at most 1000 characters that begins with one of / * ? [",
            maxLength=1000,
            pattern=r"^[/*?\[][\s\S]*$",
        )
    )
    method: str = field(default="*", metadata=choice_rule(["*", *METHODS]))
    # How many requests it still waits for; None: all.
    times: int | None = field(default=1, metadata=nullable(integer_rule(1)))
    # The request waits at least so many milliseconds before it goes on.
    delay: int = field(default=0, metadata=DELAY_RULE)
    # The request waits until the fault is cleared, or for 30 seconds.
    hold: bool = field(default=False, metadata=BOOLEAN_RULE)
    # The request fails with this status; None: it does not.
    status: int | None = field(default=None, metadata=nullable(ERROR_STATUS_RULE))
    # Let the failing answer say in how many seconds the client may try again.
    retry_after: int | None = field(
        default=None, metadata=nullable(integer_rule(0, 86_400))
    )
    # The connection is closed in place of an answer. It wins over a status.
    drop: bool = field(default=False, metadata=BOOLEAN_RULE)
    # The request is carried out before it fails.
    after: bool = field(default=False, metadata=BOOLEAN_RULE)
    # How many requests it holds at the moment.
    held: int = field(default=0, metadata=IGNORED_RULE)
    # An event is a flag for which threads can wait until another one sets it. The
    # requests that the fault holds wait for this one, which is set when it is cleared.
    cleared: Event = field(default_factory=Event)

    @property
    def fails(self) -> bool:
        """Whether the client is not to see the true answer."""
        return self.status is not None or self.drop

    def fits(self, method: str, path: str, query: str) -> bool:
        """Whether it waits for such a request. A slash at the end does not matter."""
        if self.times == 0 or self.method not in ("*", method):
            return False
        bare_path = path.rstrip("/") or "/"
        if fnmatchcase(bare_path, self.path.rstrip("/") or "/"):
            return True
        if query == "":
            return False
        # The pattern as it was written: a slash at its end may be one of the query.
        if fnmatchcase(f"{bare_path}?{query}", self.path):
            return True
        return fnmatchcase(f"{path}?{query}", self.path)

    def as_object(self) -> dict[str, Any]:
        """The fault as a JSON object."""
        return {name: getattr(self, name) for name in FAULT_RULE["properties"]}


def make_fault_rule() -> Rule:
    """The rule for a fault that a client sends."""
    properties: dict[str, Rule] = {}
    for fault_field in fields(Fault):
        if fault_field.name != "cleared":
            properties[fault_field.name] = fault_field.metadata
    return object_rule(properties, required=["path"])


FAULT_RULE = make_fault_rule()
# It does nothing. So whoever asks for a fault always gets one.
NO_FAULT = Fault(path="*")


def read_fault(body: Mapping[str, Any]) -> Fault:
    """A fault from a JSON object. Raises InvalidError."""
    values = validate(FAULT_RULE, body)
    values["id"] = ""  # what is sent for these two is ignored
    values["held"] = 0
    fault = Fault(**values)
    problems: Problems = {}
    if fault.after and not fault.fails:
        problems["after"] = (
            "After must be false where nothing fails; add a status or drop"
        )
    if fault.retry_after is not None and fault.status is None:
        problems["retry_after"] = "Retry after must be null where there is no status"
    if not (fault.fails or fault.delay or fault.hold):
        problems["status"] = "Status is required where there is no delay, hold or drop"
    raise_for_problems(problems)
    return fault


# ----------------------------------------------------------------------
# Sessions
#
# A session is what one test, or one person, has to itself: a store, a clock, the faults
# that wait for requests to come, and a journal of the requests that came. The clock is
# the time that new timestamps get. It runs until it is frozen at a moment.
# ----------------------------------------------------------------------


@dataclass
class Entry:
    """A request in the journal. Status and duration are None until it is answered."""

    number: int
    at: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any = None
    status: int | None = None
    duration_ms: float | None = None


class Session:
    """The data of one test. Its public methods may be called from any thread."""

    # Enough to see what a test has done, and little enough to look through.
    JOURNAL_LENGTH = 500

    def __init__(self, name: str | None, seed: Tables) -> None:
        self.name = name  # None for the default session, of all who name none
        self.store = Store(seed)
        # Whoever reads or changes what follows holds this lock: clock, journal, and
        # faults with their `times` and `held` (the rest of one never changes). Only the
        # methods below do. None of them calls the store, which has a lock of its own,
        # or waits for an event.
        self._lock = Lock()
        self._frozen_at: str | None = None
        self._faults: dict[str, Fault] = {}  # by id, oldest first
        self._last_fault_id = 0
        # A deque is a list that drops its first element if it becomes too long.
        self._journal: deque[Entry] = deque(maxlen=self.JOURNAL_LENGTH)
        self._last_entry_number = 0

    def now(self) -> str:
        """The time of the session's clock."""
        with self._lock:
            return self._now()

    def clock(self) -> dict[str, Any]:
        """The time, and whether the clock is frozen, as a JSON object."""
        with self._lock:
            return {"now": self._now(), "frozen": self._frozen_at is not None}

    def freeze_clock(self, moment: str) -> None:
        """Let the clock stand still at a moment, in the form of `timestamp`."""
        with self._lock:
            self._frozen_at = moment

    def run_clock(self) -> None:
        """Let the clock tell the true time from now on."""
        with self._lock:
            self._frozen_at = None

    def add_fault(self, fault: Fault) -> dict[str, Any]:
        """Add a fault behind the others, and return it as a JSON object with its id."""
        with self._lock:
            self._last_fault_id += 1
            fault.id = str(self._last_fault_id)
            self._faults[fault.id] = fault
            return fault.as_object()

    def take_fault(self, method: str, path: str, query: str) -> Fault:
        """Use the first fault that fits a request; return NO_FAULT if none does.

        Finding the fault and counting it is one step. A fault that is cleared before
        this step is not found. One that is cleared later sets its event, for which the
        request waits.
        """
        with self._lock:
            for fault in self._faults.values():
                if fault.fits(method, path, query):
                    if fault.times is not None:
                        fault.times -= 1
                    if fault.hold:
                        fault.held += 1
                    self._remove_if_used_up(fault)
                    return fault  # a loop must not go on once its dictionary changes
        return NO_FAULT

    def end_hold(self, fault: Fault) -> None:
        """Count a request no more among those that a fault holds."""
        with self._lock:
            fault.held -= 1
            self._remove_if_used_up(fault)

    def list_faults(self) -> list[dict[str, Any]]:
        """The faults that are left or hold a request, as JSON objects."""
        with self._lock:
            return [fault.as_object() for fault in self._faults.values()]

    def clear_fault(self, id: str) -> None:
        """Remove a fault, and let go what it holds. Raises NotFoundError."""
        with self._lock:
            if id not in self._faults:
                raise NotFoundError("Fault not found")
            fault = self._faults.pop(id)
            fault.cleared.set()

    def clear_faults(self) -> None:
        """Remove all faults, and let go the requests that they hold."""
        with self._lock:
            for fault in self._faults.values():
                fault.cleared.set()
            self._faults.clear()

    def add_entry(
        self, method: str, path: str, query: str, headers: dict[str, str]
    ) -> Entry:
        """Write down a request that has just arrived."""
        with self._lock:
            self._last_entry_number += 1
            number = self._last_entry_number
            entry = Entry(number, self._now(), method, path, query, headers)
            self._journal.append(entry)
            return entry

    def add_body(self, entry: Entry, body: Any) -> None:
        """Add to an entry the JSON value that the request has brought."""
        with self._lock:
            entry.body = body

    def complete_entry(self, entry: Entry, status: int, duration_ms: float) -> None:
        """Add to an entry what is known once the request is answered."""
        with self._lock:
            entry.status = status
            entry.duration_ms = duration_ms

    def list_entries(self) -> list[dict[str, Any]]:
        """The journal as JSON objects, oldest first."""
        with self._lock:
            # Copies, as an entry may change while its JSON is made. `vars` has the
            # attributes of an object as a dictionary.
            return [dict(vars(entry)) for entry in self._journal]

    def forget_entries(self) -> None:
        """Empty the journal. The numbers of its entries go on."""
        with self._lock:
            self._journal.clear()

    # The methods below are called by those above, with the lock held. They must not
    # take it again: a thread that asks for a lock which it has waits for ever.

    def _now(self) -> str:
        if self._frozen_at is not None:
            return self._frozen_at
        return timestamp(datetime.now(UTC))

    def _remove_if_used_up(self, fault: Fault) -> None:
        """Remove a fault that neither waits for a request nor holds one."""
        if fault.times == 0 and fault.held == 0:
            self._faults.pop(fault.id, None)  # it may have been cleared before


class Sessions:
    """All sessions: the default one, and those with names."""

    # Of the named ones, those that were used last are kept. A run of tests uses far
    # fewer at the same time, and with more the memory would fill up over the days.
    MAX_NAMED = 256

    def __init__(self, seed: Tables) -> None:
        # Held so that two first requests with one name get the same session.
        self._lock = Lock()
        self._seed = seed
        self._default = Session(None, seed)
        # The one that was used last stands last. `popitem` takes the first.
        self._named: OrderedDict[str, Session] = OrderedDict()

    def get(self, name: str | None) -> Session:
        """The session with a name, which begins if there is none."""
        dropped = None  # the session that has to make room for it, if any
        with self._lock:
            if name is None:
                return self._default
            if name not in self._named:
                self._named[name] = Session(name, self._seed)
            self._named.move_to_end(name)
            if len(self._named) > self.MAX_NAMED:
                _, dropped = self._named.popitem(last=False)
            session = self._named[name]
        if dropped is not None:
            # Nobody can clear its faults any more, as its name would begin a new
            # session. So what they hold is let go here. That takes the session's lock,
            # and this one is given back before: if one thread had lock A and wanted
            # lock B, and another had B and wanted A, both would wait for ever.
            dropped.clear_faults()
        return session

    def reset(self, name: str | None) -> None:
        """Forget a session, so that the next request with its name begins a fresh one.

        Requests that are still under way go on in the old one, where nobody looks any
        more. Those that it holds are let go.
        """
        with self._lock:
            if name is None:
                old: Session | None = self._default
                self._default = Session(None, self._seed)
            else:
                old = self._named.pop(name, None)
        if old is not None:
            old.clear_faults()


# ----------------------------------------------------------------------
# Arrival
#
# What Flask calls for each request, in this order:
#
#     arrive         also where no route fits, so that the journal has 404s and 405s. If
#                    it returns a response, that is the answer, and no view is called
#     a view         or an error handler
#     lose_answer    only for a fault with `after`
#     leave          with the response, whoever made it
#     Flask-CORS     adds its headers: Flask calls functions for the end of a request in
#                    the reverse order of their registration
#
# What one function keeps for another is in `g`, which lives as long as the request.
# ----------------------------------------------------------------------

BODY_LIMIT = 2**20  # bytes
STATE_LIMIT = 2**26
JOURNAL_BODY_LIMIT = 10 * 2**10  # larger bodies are left out of the journal
HOLD_LIMIT = 30  # seconds
DROPPED = 0  # in journal and log, the status of a request whose connection was closed

DIGITS_LIMIT = 4000  # Python reads no integer of more than 4,300 digits
# A value can be nested so deep that Python cannot write it, or cannot read it. How deep
# that is depends on how many calls are under way. These limits are far below.
NESTING_LIMIT = 500
STATE_NESTING_LIMIT = NESTING_LIMIT + 2  # rows are in an array, which is in an object

SESSION_NAME_RULE = make_rule(
    "string",
    "a string of 1 to 64 of the characters A-Z a-z 0-9 . _ -",
    pattern=r"^[A-Za-z0-9._-]{1,64}$",
)

# What a query may ask of the mock itself, beside the parameters of the resource, and
# the rules for it.
MOCK_PARAMETERS = {"_delay": DELAY_RULE, "_status": ERROR_STATUS_RULE}


def arrive() -> Response | None:
    """Do what comes before the view; return an answer if there is one already."""
    if is_preflight():
        return current_app.make_default_options_response()  # 200, without a body
    # The endpoint is Flask's name of the view.
    if request.endpoint == "show_home":
        return None  # the page is about the session in its query, if any
    session = current_app.config["SESSIONS"].get(session_name())
    g.mock_session = session
    path = path_below_api()
    if path is None:  # no journal and no faults for this one
        g.body = read_body()
        return None  # go on to the view
    g.started_at = time.perf_counter()
    query = request.query_string.decode(errors="replace")
    headers = {name.lower(): text for name, text in request.headers}
    # Before the body is read, so that the journal has a request with too large a body
    # as well.
    g.entry = session.add_entry(request.method, path, query, headers)
    g.body = read_body()  # a `Body`, see below
    if g.body.size <= JOURNAL_BODY_LIMIT:
        session.add_body(g.entry, g.body.value)
    return apply_fault(session, path, query)


def leave(response: Response) -> Response:
    """Do what comes after the view."""
    entry = g.get("entry")  # None for a request that is not in the journal
    if entry is not None:
        duration_ms = round(1000 * (time.perf_counter() - g.started_at), 1)
        current_session().complete_entry(entry, response.status_code, duration_ms)
    # A browser is not to keep copies: a page is to see what the server has now.
    response.headers["Cache-Control"] = "no-store"
    if response.status_code == DROPPED:
        # Only now, so that whoever notices finds the journal complete.
        close_connection()
    return response


def current_session() -> Session:
    """The session of this request, which `arrive` has found."""
    session: Session = g.mock_session
    return session


def is_preflight() -> bool:
    """Whether a browser asks if a page may send the request that it has in mind (CORS).

    Flask answers it by itself, but only on routes that exist. On any other path the
    browser would get no permission, and would not send the request at all: the page
    would see a network error in place of the 404.
    """
    if request.method != "OPTIONS":
        return False
    return request.access_control_request_method is not None


def session_name() -> str | None:
    """The session that a header or a cookie names. Raises InvalidError."""
    name = request.headers.get("X-Mock-Session")
    if name is not None:
        name = name.strip(" \t")  # blanks around it are no part of a header's value
        validate(SESSION_NAME_RULE, name, "X-Mock-Session")
        return name
    # Most clients send no cookies, and `request.cookies` takes a while even then.
    if "Cookie" not in request.headers:
        return None
    name = request.cookies.get("mock_session")
    if not name:
        return None  # an empty cookie is what is left of one that was cleared
    validate(SESSION_NAME_RULE, name, "mock_session")
    return name


def path_below_api() -> str | None:
    """What follows the path of the API, as `/items/1`.

    That is for requests to a resource, or to an unknown path below the API. None for
    all others: they are not in the journal, and no fault meets them.
    """
    api = current_app.config["API"]
    if not request.path.startswith(f"{api}/"):
        return None
    path = request.path.removeprefix(api)
    if path.startswith("/mock/"):
        return None
    if path.removesuffix("/") in ("", "/mock", "/health", "/openapi.json"):
        return None
    return path


@dataclass(frozen=True)
class Body:
    """What a request has brought: a JSON value, or why there is none."""

    size: int  # bytes
    value: Any = None
    reason: str = ""  # why there is none, as a sentence says it: "is empty"


def read_body() -> Body:
    """Read the body of the request. Raises RequestEntityTooLarge."""
    limit = BODY_LIMIT
    levels = NESTING_LIMIT
    if request.endpoint == "mock.replace_state":
        limit = STATE_LIMIT
        levels = STATE_NESTING_LIMIT
    # If the header Content-Length is above its own limit, Werkzeug raises the error. A
    # body that comes in pieces has no such header, and is cut at the limit without a
    # word. So that limit is one byte above ours: if the byte is there, the body was too
    # long.
    request.max_content_length = limit + 1
    raw = request.get_data()
    if len(raw) > limit:
        raise RequestEntityTooLarge
    if raw == b"":
        return Body(0, reason="is empty")
    try:
        return Body(len(raw), value=parse_json(raw, levels))
    except ValueError as error:
        return Body(len(raw), reason=str(error))


def parse_json(raw: bytes, max_levels: int) -> Any:
    """The value of a JSON text (RFC 8259) in UTF-8.

    Raises ValueError with what a sentence says of it, such as "is not JSON".
    """
    too_deep = f"must not be nested deeper than {max_levels} levels"
    try:
        # `loads` calls these functions with the texts of numbers: parse_int with 12,
        # parse_float with 1.5 or 1e3, and parse_constant with NaN or Infinity.
        value = json.loads(
            raw.decode(),
            parse_int=read_integer,
            parse_float=read_float,
            parse_constant=read_float,
        )
        levels = nesting(value)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(too_deep) from None
    if levels > max_levels:
        raise ValueError(too_deep)
    return value


def read_integer(text: str) -> int:
    """The value of an integer. Raises ValueError for one of thousands of digits.

    Python has a limit near to this one, but its message is meant for programmers.
    """
    if len(text.lstrip("-")) > DIGITS_LIMIT:
        raise ValueError(f"an integer must not have more than {DIGITS_LIMIT} digits")
    return int(text)


def read_float(text: str) -> float:
    """The value of a number. Raises ValueError for NaN, Infinity, and such as 1e400.

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


def apply_fault(session: Session, path: str, query: str) -> Response | None:
    """Decide what becomes of a request: let it wait, then fail, be lost, or go on."""
    asked = read_mock_query()
    if "_status" in asked:
        fault = Fault(path="*", status=asked["_status"])
    else:
        fault = session.take_fault(request.method, path, query)

    delay = max(current_app.config["DELAY"], asked.get("_delay", 0), fault.delay)
    # A sleep of 0 would let other threads run first, and make every request slower.
    if delay > 0:
        time.sleep(delay / 1000)
    if fault.hold:
        fault.cleared.wait(HOLD_LIMIT)
        session.end_hold(fault)

    if not fault.fails:
        return None  # go on to the view
    if not fault.after:
        return failure(fault)

    # The request is carried out first: Flask calls the view, then this function with
    # the view's answer, which is lost, and then `leave` with what this one returns.
    @after_this_request
    def lose_answer(_: Response) -> Response:
        return failure(fault)

    return None


def read_mock_query() -> dict[str, int]:
    """What the query asks of the mock. Raises InvalidError."""
    if not request.query_string:
        return {}  # most requests have none, and `request.args` takes a while even then
    names = [name for name in MOCK_PARAMETERS if name in request.args]
    return read_query(MOCK_PARAMETERS, names)


def failure(fault: Fault) -> Response:
    """What the client gets in place of an answer.

    Werkzeug's server puts the socket of the connection into the environ, the dictionary
    that tells Flask of a request. Under another server we cannot close the connection,
    and answer 503 instead.
    """
    if fault.drop and "werkzeug.socket" in request.environ:
        return Response(status=DROPPED)  # no real status: `leave` closes the connection
    if fault.drop:
        status = 503
    else:
        assert fault.status is not None  # otherwise the fault would not fail
        status = fault.status
    response = error_response(status, status_phrase(status), {"injected": True})
    response.retry_after = fault.retry_after  # None: without that header
    return response


def close_connection() -> None:
    """Close the connection, so that nothing of the response reaches the client.

    Werkzeug's server logs the response all the same, and then fails to send it.
    """
    # Both directions; and no error if the client has closed it already.
    with suppress(OSError):
        request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


# ----------------------------------------------------------------------
# Resources
#
# The same five views serve every resource. A view asks the store and makes an answer of
# what it gets. There are no errors in a view: what is wrong with a request is raised
# where it is found, and becomes an answer in the section after this one. The argument
# `resource` comes from `add_routes`, and `id` from the path.
# ----------------------------------------------------------------------

resource_views = Blueprint("resource", __name__)
NO_OBJECT = "must be a JSON object"


@resource_views.get("")
def list_rows(resource: Resource) -> Response:
    """List the rows, oldest first; filters, sort and page are in the query."""
    query = read_list_query(resource)
    rows = select(resource, current_session().store.rows(resource), query)
    if "page" in query or "per_page" in query:
        response = page_response(rows, query.get("page", 1), query.get("per_page", 10))
    else:
        response = json_response(json_array(rows))
    response.headers["X-Total-Count"] = str(len(rows))
    return conditional(response, tag_of(response.data))


@resource_views.post("")
def create_row(resource: Resource) -> Response:
    """Create a row."""
    session = current_session()
    row = session.store.create(resource, sent_object(), session.now())
    response = row_response(row, 201)
    # `.show_row` is the view in the blueprint of this request.
    response.location = url_for(".show_row", id=row.record.id)
    return response


@resource_views.get("/<id>")
def show_row(resource: Resource, id: str) -> Response:
    """Read one row."""
    row = current_session().store.get(resource, id)
    return conditional(row_response(row), row.tag)


@resource_views.route("/<id>", methods=["PUT", "PATCH"])
def update_row(resource: Resource, id: str) -> Response:
    """Merge the given fields into a row."""
    session = current_session()
    row = session.store.update(
        resource, id, sent_object(), session.now(), expected_tags()
    )
    return row_response(row)


@resource_views.delete("/<id>")
def delete_row(resource: Resource, id: str) -> Response:
    """Remove a row."""
    current_session().store.delete(resource, id, expected_tags())
    return no_content()


def sent_object() -> dict[str, Any]:
    """The JSON object in the request. Raises UnsupportedMediaType, InvalidError."""
    if not request.is_json:
        raise UnsupportedMediaType
    body: Body = g.body
    reason = body.reason
    if reason == "" and not isinstance(body.value, dict):
        reason = NO_OBJECT
    if reason != "":
        raise InvalidError("Bad request", {"body": f"Body {reason}"})
    sent: dict[str, Any] = body.value
    return sent


def read_list_query(resource: Resource) -> dict[str, Any]:
    """The parameters of a list. Raises InvalidError for one that is not known.

    A parameter that is just `_` is ignored: clients add it, with another number each
    time, so that no cache answers.
    """
    names = [name for name in request.args if name not in ("_", *MOCK_PARAMETERS)]
    return read_query(resource.parameters, names)


def read_query(parameters: Mapping[str, Rule], names: Iterable[str]) -> dict[str, Any]:
    """The values of these names in the query, read by the rules of the parameters.

    Raises InvalidError with a problem for each name that is wrong or not known.
    """
    values: dict[str, Any] = {}
    problems: Problems = {}
    for name in names:
        if name not in parameters:
            problems[name] = unknown_name(name, parameters)
            continue
        rule = parameters[name]
        texts = request.args.getlist(name)
        if rule["type"] == "array":
            values[name] = []
            for text in texts:
                value = read_text(rule["items"], text)
                values[name].append(check(rule["items"], value, name, problems))
        else:
            value = read_text(rule, texts[-1])  # the last one counts
            values[name] = check(rule, value, name, problems)
    raise_for_problems(problems)
    return values


FLOAT_PATTERN = r"-?[0-9]{1,200}(\.[0-9]+)?(e-?[0-9]{1,2})?"


def read_text(rule: Rule, text: str) -> Any:
    """The value that a text spells. Queries and settings have only texts.

    A text that spells no value of the rule's type is returned as it is: `check` then
    refuses it by its type, and writes the sentence. So it is with a number of too many
    digits. The limits are below those of Python, which
    raises an error for an integer of more than 4,300 digits, and reads a float of more
    than 308 digits as infinity.
    """
    types = types_of(rule)
    if text == "" and "null" in types:
        return None
    is_integer = re.fullmatch("-?[0-9]{1,1000}", text) is not None
    if is_integer and ("integer" in types or "number" in types):
        return int(text)
    if "number" in types and re.fullmatch(FLOAT_PATTERN, text):
        return float(text)
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    if "format" in rule and re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return f"{text}T00:00Z"  # a date alone stands for its beginning
    return text


def expected_tags() -> ETags | None:
    """The tags in the header If-Match (RFC 9110 §13.1.1), or None without it.

    The store asks whether the tag of the row is `in` them: `tag in request.if_match`.
    Every tag is, if the header is a star.
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
    """Rows as a JSON array."""
    return b"[" + b",".join([row.json for row in rows]) + b"]"


def json_object(members: Mapping[str, bytes]) -> bytes:
    """A JSON object of members whose values are JSON already."""
    pairs = []
    for name, value in members.items():
        pairs.append(to_json(name) + b":" + value)
    return b"{" + b",".join(pairs) + b"}"


def row_response(row: Row, status: int = 200) -> Response:
    """A response with a row and its tag."""
    response = json_response(row.json, status)
    response.set_etag(row.tag)
    return response


def conditional(response: Response, tag: str) -> Response:
    """The answer to a read, with its tag: 304 for a client that has this content.

    See RFC 9110 §13.1.2. Werkzeug leaves out the body of a response that has the status
    304. Its `make_conditional` does the same as this function, but looks at If-Match as
    well, which we ignore on a read.
    """
    response.set_etag(tag)
    # A proxy that has compressed an answer marks its tag as weak, by W/ in front. For
    # a read that is good enough.
    if request.if_none_match.contains_weak(tag):
        response.status_code = 304
    return response


def no_content() -> Response:
    """A response without a body."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


# Clients refuse an answer whose headers are too long: Node, if all are over 16 KiB.
LINK_LIMIT = 4096  # bytes


def page_response(rows: list[Row], page: int, per_page: int) -> Response:
    """A page of rows, with links to the others (RFC 8288)."""
    start = (page - 1) * per_page
    members = {
        "data": json_array(rows[start : start + per_page]),
        "total": to_json(len(rows)),
        "page": to_json(page),
        "per_page": to_json(per_page),
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
    link = ", ".join(links)
    if len(link) <= LINK_LIMIT:
        response.headers["Link"] = link
    return response


def page_url(page: int) -> str:
    """The path and query of another page of the same list."""
    parameters: dict[str, Any] = request.args.to_dict(flat=False)  # lists of texts
    parameters["page"] = page
    # `doseq` makes status=a&status=b of a list.
    return f"{url_for('.list_rows')}?{urlencode(parameters, doseq=True)}"


STATUSES = {
    InvalidError: 400,
    NotFoundError: 404,
    ConflictError: 409,
    StaleError: 412,
}
# Instead of Werkzeug's phrases, "Not found" and "Request entity too large".
SENTENCES = {404: "Resource not found", 413: "Request body too large"}
JSON_WANTED = "Body must be declared as JSON, by Content-Type: application/json"


def error_body(sentence: str, details: Mapping[str, Any] | None = None) -> bytes:
    """The body of every error."""
    body: dict[str, Any] = {"error": sentence}
    if details:
        body["details"] = details
    return to_json(body)


def error_response(
    status: int, sentence: str, details: Mapping[str, Any] | None = None
) -> Response:
    """A response that tells an error."""
    return json_response(error_body(sentence, details), status)


def answer_store_error(error: StoreError) -> Response:
    """Answer what the store has refused."""
    return error_response(STATUSES[type(error)], str(error), error.problems)


def answer_http_error(error: HTTPException) -> WerkzeugResponse:
    """Answer an error of Flask's in our form.

    Its response keeps the headers that it has, such as Allow for a 405. A 500 comes
    here, too: Flask makes one of any exception that has no handler, and logs its
    traceback.
    """
    response = error.get_response()  # Flask's own, with an HTML body
    status = response.status_code
    sentence = SENTENCES.get(status, status_phrase(status))
    details = {}
    if status == 404:
        came = request.root_path + request.path  # see `api_path`
        details["path"] = f"{came} is no path here; the API is below {api_path()}"
    if status == 415:
        details["body"] = JSON_WANTED
    response.data = error_body(sentence, details) + b"\n"
    response.content_type = "application/json"
    return response


def api_path() -> str:
    """The path of the API, below the one at which another app may have mounted us."""
    return request.root_path + str(current_app.config["API"])


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

CLOCK_RULE = object_rule({"now": TIME_RULE}, required=["now"])


@mock_views.get("")
def show_session() -> ResponseReturnValue:
    """Show the session at a glance: its rows, its clock and its faults."""
    session = current_session()
    return {
        "session": session.name,
        "rows": {name: len(rows) for name, rows in session.store.state().items()},
        "clock": session.clock(),
        "faults": session.list_faults(),
    }


@mock_views.get("/state")
def show_state() -> Response:
    """Read all rows of the session."""
    arrays = {}
    for name, rows in current_session().store.state().items():
        arrays[name] = json_array(rows)
    return json_response(json_object(arrays))


@mock_views.put("/state")
def replace_state() -> Response:
    """Replace all rows of the session."""
    session = current_session()
    session.store.replace_state(sent_object(), session.now())
    return no_content()


@mock_views.delete("/state")
def reset_session() -> Response:
    """Reset the session to the seed: rows, ids, clock, faults and journal."""
    current_app.config["SESSIONS"].reset(current_session().name)
    return no_content()


@mock_views.get("/clock")
def show_clock() -> ResponseReturnValue:
    """Read the session's clock."""
    return current_session().clock()


@mock_views.put("/clock")
def freeze_clock() -> ResponseReturnValue:
    """Freeze the clock at a moment."""
    moment = validate(CLOCK_RULE, sent_object())["now"]
    current_session().freeze_clock(moment)
    return {"now": moment, "frozen": True}


@mock_views.delete("/clock")
def run_clock() -> Response:
    """Let the clock run."""
    current_session().run_clock()
    return no_content()


@mock_views.get("/faults")
def list_faults() -> ResponseReturnValue:
    """List the faults that are left, or still hold a request."""
    return current_session().list_faults()


@mock_views.post("/faults")
def add_fault() -> ResponseReturnValue:
    """Make requests to come fail, wait or lose their connection."""
    fault = read_fault(sent_object())
    return current_session().add_fault(fault), 201


@mock_views.delete("/faults")
def clear_faults() -> Response:
    """Clear all faults, and let go the requests that they hold."""
    current_session().clear_faults()
    return no_content()


@mock_views.delete("/faults/<id>")
def clear_fault(id: str) -> Response:
    """Clear one fault, and let go the requests that it holds."""
    current_session().clear_fault(id)
    return no_content()


@mock_views.get("/requests")
def list_requests() -> ResponseReturnValue:
    """List the last 500 requests of the session, oldest first."""
    return current_session().list_entries()


@mock_views.delete("/requests")
def forget_requests() -> Response:
    """Forget the requests."""
    current_session().forget_entries()
    return no_content()


# ----------------------------------------------------------------------
# Description
#
# The resource routes and health in OpenAPI 3.1 (https://spec.openapis.org), for tools
# that make clients, types or tests. There, a rule is called a schema, and a method of a
# path an operation. Schemas have names, and {"$ref": "#/components/schemas/Item"} is a
# link to one. The docstring of a view, `view.__doc__`, is its summary here, so it is
# written for clients.
# ----------------------------------------------------------------------

description_views = Blueprint("description", __name__)

HEALTH = {"status": "healthy", "version": VERSION}
HEALTH_RULE = object_rule(
    {"status": STRING_RULE, "version": STRING_RULE}, required=["status", "version"]
)
ERROR_RULE = object_rule(
    {"error": STRING_RULE, "details": ANY_OBJECT_RULE}, required=["error"]
)


@description_views.get("")
def show_api() -> ResponseReturnValue:
    """Tell what is here."""
    return about()  # as the home page does


@description_views.get("/health")
def show_health() -> ResponseReturnValue:
    """Tell that the service is up."""
    return HEALTH


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What the description says of a view of the resources.

    In names, {} stands for the title of the resource. So {}List is ItemList in the
    description of items, and OrderList in that of orders.
    """

    view: Callable[..., Response]
    methods: tuple[str, ...]
    path: str = ""  # what follows the path of the resource
    name: str = "{}"  # the operation's id is the method and this, as getItemList
    takes_list_query: bool = False
    header: str = ""  # one that the request can have
    body: str = ""  # the schema of what is sent
    answers: Mapping[int, tuple[str, ...]]  # the schemas of the body, by status
    errors: tuple[int, ...]


OPERATIONS = [
    Operation(
        view=list_rows,
        methods=("get",),
        name="{}List",
        takes_list_query=True,
        header="If-None-Match",
        answers={200: ("{}List", "{}Page"), 304: ()},
        errors=(400,),
    ),
    Operation(
        view=create_row,
        methods=("post",),
        body="New{}",
        answers={201: ("{}",)},
        errors=(400, 409, 413, 415),
    ),
    Operation(
        view=show_row,
        methods=("get",),
        path="/{id}",
        header="If-None-Match",
        answers={200: ("{}",), 304: ()},
        errors=(400, 404),
    ),
    Operation(
        view=update_row,
        methods=("put", "patch"),
        path="/{id}",
        header="If-Match",
        body="{}Change",
        answers={200: ("{}",)},
        errors=(400, 404, 409, 412, 413, 415),
    ),
    Operation(
        view=delete_row,
        methods=("delete",),
        path="/{id}",
        header="If-Match",
        answers={204: ()},
        errors=(400, 404, 409, 412),
    ),
]


@description_views.get("/openapi.json")
def show_description() -> ResponseReturnValue:
    """Describe the API in OpenAPI 3.1."""
    paths: dict[str, Any] = {"/health": {"get": describe_health()}}
    schemas: dict[str, Any] = {"Health": HEALTH_RULE, "Error": ERROR_RULE}
    for name, resource in RESOURCES.items():
        for operation in OPERATIONS:
            path = f"/{name}{operation.path}"
            if path not in paths:
                paths[path] = {}
            for method in operation.methods:
                described = describe_operation(resource, operation, method)
                paths[path][method] = described
        schemas.update(describe_schemas(resource))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Inventory API", "version": VERSION},
        "servers": [{"url": api_path()}],
        "security": [],  # nobody has to log in
        "paths": paths,
        "components": {"schemas": schemas},
    }


def describe_health() -> dict[str, Any]:
    """The operation of `show_health`."""
    return {
        "operationId": "getHealth",
        "summary": show_health.__doc__,
        "parameters": [
            describe_parameter("header", "X-Mock-Session", SESSION_NAME_RULE)
        ],
        "responses": {
            "200": describe_response(200, ["Health"]),
            "400": describe_response(400, ["Error"]),
        },
    }


def describe_operation(
    resource: Resource, operation: Operation, method: str
) -> dict[str, Any]:
    """What a route of a resource takes under a method, and which answers to expect."""
    title = resource.title
    responses = {}
    for status, schema_names in operation.answers.items():
        names = [name.format(title) for name in schema_names]
        responses[str(status)] = describe_response(status, names)
    for status in operation.errors:
        responses[str(status)] = describe_response(status, ["Error"])
    described: dict[str, Any] = {
        "operationId": method + operation.name.format(title),
        "summary": operation.view.__doc__,
        "parameters": describe_parameters(resource, operation),
        "responses": responses,
    }
    if operation.body != "":
        content = describe_content([operation.body.format(title)])
        described["requestBody"] = {"required": True, "content": content}
    return described


def describe_parameters(
    resource: Resource, operation: Operation
) -> list[dict[str, Any]]:
    """What a route takes beside a body."""
    parameters = [describe_parameter("header", "X-Mock-Session", SESSION_NAME_RULE)]
    if operation.path != "":
        parameters.append(describe_parameter("path", "id", STRING_RULE))
    if operation.header != "":
        parameters.append(describe_parameter("header", operation.header, STRING_RULE))
    if operation.takes_list_query:
        for name, rule in resource.parameters.items():
            parameters.append(describe_parameter("query", name, rule))
    return parameters


def describe_parameter(location: str, name: str, rule: Rule) -> dict[str, Any]:
    """A parameter in a path, a header or a query."""
    described = {
        "in": location,
        "name": name,
        "required": location == "path",
        "schema": rule,
    }
    if rule["type"] == "array":
        described["schema"] = {**rule, "items": in_query(rule["items"])}
        # The parameter is repeated for each value: ?id=1&id=2. That is the default of
        # OpenAPI, but some generators assume another.
        described["style"] = "form"
        described["explode"] = True
    return described


def in_query(rule: Rule) -> Rule:
    """How a rule for a wanted value is published.

    A query cannot carry null: an empty text stands for it, as told in words. And a date
    alone can be wanted of a time, so the format of a time would be wrong.
    """
    published = dict(rule)
    published.pop("format", None)
    types = types_of(rule)
    if "null" in types:
        types.remove("null")
        published["type"] = types[0]
        description = rule["description"].removesuffix(" or null")
        published["description"] = f"{description}; empty: null"
    if "enum" in rule:
        published["enum"] = [choice for choice in rule["enum"] if choice is not None]
    return published


def describe_response(status: int, schema_names: list[str]) -> dict[str, Any]:
    """A response with a body of one of some schemas, or without a body."""
    described: dict[str, Any] = {"description": status_phrase(status)}
    if schema_names:
        described["content"] = describe_content(schema_names)
    return described


def describe_content(schema_names: list[str]) -> dict[str, Any]:
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
    count_rule = integer_rule(0)
    page_properties = {
        "data": list_schema,
        "total": count_rule,
        "page": count_rule,
        "per_page": count_rule,
    }
    return {
        title: resource.row_rule,
        f"New{title}": {
            **resource.create_rule,
            "properties": describe_defaults(resource),
        },
        f"{title}Change": resource.change_rule,
        f"{title}List": list_schema,
        f"{title}Page": object_rule(page_properties, required=list(page_properties)),
    }


def describe_defaults(resource: Resource) -> dict[str, Rule]:
    """The properties of a new row, which tell in words what is filled in.

    JSON Schema has the word `default` for that. But tools that generate types from a
    description make fields with a default mandatory, and these are optional.
    """
    properties = dict(resource.create_rule["properties"])
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


def show_home() -> ResponseReturnValue:
    """Show the page for people, with the session that `?session=` names; or as JSON."""
    session = request.args.get("session") or None
    if session is not None:
        validate(SESSION_NAME_RULE, session, "session")
    # What the client prefers: browsers text/html, others what their Accept says.
    accepted = request.accept_mimetypes
    if accepted.best_match(["text/html", "application/json"]) == "application/json":
        return about()
    columns = {name: list(resource.rules) for name, resource in RESOURCES.items()}
    return render_template_string(
        PAGE,
        api=api_path(),
        session=session,
        columns=columns,
        methods=METHODS,
        **about(),
    )


def about() -> dict[str, Any]:
    """What this service is, and all its routes."""
    return {"name": "Inventory API", "version": VERSION, "routes": list_routes()}


def list_routes() -> list[dict[str, Any]]:
    """All routes, each with what its view's docstring says first."""
    routes = []
    for route in current_app.url_map.iter_rules():
        allowed = route.methods or set()
        methods = [name for name in METHODS if name in allowed and name != "HEAD"]
        docstring = current_app.view_functions[route.endpoint].__doc__ or ""
        routes.append(
            {
                "methods": methods,
                "path": request.root_path + route.rule,
                "summary": docstring.partition("\n")[0],
            }
        )
    return routes


# ----------------------------------------------------------------------
# Settings
#
# Each is a variable of the environment, or an argument of `create_app` in lower case.
# ----------------------------------------------------------------------


class Setting(NamedTuple):
    """The default of a setting, and the rule for what somebody sets."""

    default: Any
    rule: Rule


# Where tools serve a page while it is developed. Vite takes the first port from 5173 on
# that is free, and 4173 for its preview; Nuxt takes 3000, and so do tests that have no
# browser, under jsdom.
DEFAULT_PORTS = (5173, 5174, 5175, 5176, 5177, 4173, 3000)
DEFAULT_ORIGINS = ",".join([f"http://localhost:{port}" for port in DEFAULT_PORTS])
ORIGIN_PATTERN = r"[a-z][a-z0-9+.-]*://[^\s/,*]+"
SEGMENT_PATTERN = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*"

SETTINGS = {
    # Without a slash, as Werkzeug takes unix:// and a path for an address as well.
    "HOST": Setting(
        "127.0.0.1",
        make_rule("string", "an address of this machine", pattern="^[^/]+$"),
    ),
    "PORT": Setting(5000, integer_rule(0, 65_535)),
    "SEED": Setting(
        "",
        make_rule(
            "string",
            "demo, a number of items up to 1000000, or the path of a .json file",
            pattern=r"^(demo|[0-9]{1,6}|1000000|.+\.json)$",
        ),
    ),
    "DELAY": Setting(0, DELAY_RULE),
    "CORS_ORIGINS": Setting(
        DEFAULT_ORIGINS,
        make_rule(
            "string",
            "* or origins such as http://localhost:5173, separated by commas",
            pattern=rf"^(\*|{ORIGIN_PATTERN}( *, *{ORIGIN_PATTERN})*)$",
        ),
    ),
    "API_PREFIX": Setting(
        "/api",
        make_rule("string", "a path such as /api", pattern=f"^(/{SEGMENT_PATTERN})+$"),
    ),
    "API_VERSION": Setting(
        "v1",
        make_rule(
            "string", "a part of a path such as v1", pattern=f"^{SEGMENT_PATTERN}$"
        ),
    ),
}


class SettingError(click.ClickException):
    """Raised if a setting, or the seed that it names, is wrong.

    The command `flask`, by which `make debug` starts us, is made with click. For a
    ClickException it prints what `show` prints, for any other a traceback.
    """

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error in one line."""
        print(f"inventory: {self}", file=file or sys.stderr)


def load_settings(arguments: Mapping[str, object]) -> dict[str, Any]:
    """Settings from arguments, else from the environment, else their defaults.

    An empty text means the default. An argument hides the variable also if it is empty:
    with `seed=""` there is no seed, even if SEED is set.
    Raises SettingError with the name of the setting and the value that came.
    """
    argument_names = [name.lower() for name in SETTINGS]
    for name in arguments:
        if name not in argument_names:
            raise SettingError(unknown_name(name, argument_names))
    values: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        given = arguments.get(name.lower())
        if given is None:
            given = os.environ.get(name, "")
        if given == "":
            values[name] = setting.default
        else:
            values[name] = read_setting(name, setting.rule, str(given))
    return values


def read_setting(name: str, rule: Rule, text: str) -> Any:
    """The value that a text spells. Raises SettingError."""
    try:
        return validate(rule, read_text(rule, text), name)
    except InvalidError as error:
        raise SettingError(f"{error}, not {text!r}") from None


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


def load_seed(seed: str) -> Tables:
    """The tables for a value of the setting SEED. Raises SettingError."""
    if seed == "":
        return make_tables({})
    if seed == "demo":
        return read_seed(seed, demo_state(), timestamp(SEED_START))
    if not seed.endswith(".json"):
        return make_tables({"items": generated_items(int(seed))})
    return load_file(seed)


def load_file(path: str) -> Tables:
    """The tables for a file in the form of a state. Raises SettingError."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise SettingError(f"SEED {path}: {error.strerror}") from None
    except ValueError as error:  # the path has a character that no path can have
        raise SettingError(f"SEED {path}: {error}") from None
    try:
        # Some editors begin a file with a byte order mark, which is no part of JSON.
        state = parse_json(raw.removeprefix(codecs.BOM_UTF8), STATE_NESTING_LIMIT)
    except ValueError as error:
        raise SettingError(f"SEED {path}: the file {error}") from None
    if not isinstance(state, dict):
        raise SettingError(f"SEED {path}: the file {NO_OBJECT}")
    return read_seed(path, state, timestamp(datetime.now(UTC)))


def read_seed(seed: str, state: Mapping[str, Any], now: str) -> Tables:
    """The tables for the state of a seed. Raises SettingError."""
    try:
        return read_state(state, now)
    except InvalidError as error:
        place = list(error.problems)[0]
        raise SettingError(f"SEED {seed}: {place}: {error}") from None


def demo_state() -> dict[str, list[dict[str, Any]]]:
    """A dozen items and a few orders, made a day after one another."""
    items: list[dict[str, Any]] = []
    for name, description, status, quantity in DEMO_ITEMS:
        item = {
            "name": name,
            "description": description,
            "status": status,
            "quantity": quantity,
            "created_at": timestamp(SEED_START + timedelta(days=len(items))),
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
            "created_at": timestamp(SEED_START + timedelta(days=20 + len(orders))),
        }
        orders.append(order)
    return {"items": items, "orders": orders}


def generated_items(size: int) -> Iterator[Item]:
    """So many items, the same every time, made a minute after one another.

    `yield` hands them over one by one, each when the caller asks for it.
    """
    colours = ("Red", "Blue", "Green")
    things = ("mug", "lamp", "desk", "vase")
    statuses = list(ItemStatus)
    for number in range(1, size + 1):
        yield Item(
            id=str(number),
            name=f"{colours[number % 3]} {things[number % 4]} {number}",
            status=statuses[number // 2 % 3],
            quantity=number * 37 % 251,
            created_at=timestamp(SEED_START + timedelta(minutes=number)),
        )


# ----------------------------------------------------------------------
# Running
#
# Werkzeug's development server takes the connections, begins a thread for each, and
# calls the app with the request that it has read.
# ----------------------------------------------------------------------

# How many connections may wait to be accepted. Werkzeug's own number is 128, and a
# suite with eight workers can open more at the same moment.
BACKLOG = 1024


class RequestHandler(WSGIRequestHandler):
    """How the server reads and logs a request, and answers what is not HTTP: in JSON.

    The server makes one for each connection, so what all share belongs to the class.
    """

    timeout = 60  # seconds; a client that is silent for longer is let go
    controls = ""  # the path of the mock controls, set by `main`
    # Python's http.server answers by itself what it cannot read, so that Flask never
    # sees it. In place of %(explain)s it puts a sentence.
    error_content_type = "application/json"
    error_message_format = '{"error":"%(explain)s"}\n'

    def make_environ(self) -> dict[str, Any]:
        """What Flask is told of the request.

        A browser writes é in a path or query as %C3%A9, by its two bytes in UTF-8. Who
        types curl may send the bytes themselves. Then http.server reads each byte as a
        character, which is called latin-1, and has Ã©. `quote` writes each character
        that is not ASCII as % and its byte: %C3%A9 again.
        """
        self.path = quote(self.path, safe=string.printable, encoding="latin-1")
        try:
            return super().make_environ()
        except ValueError as error:  # that is no address: GET http://[ HTTP/1.1
            self.send_error(400)
            raise ConnectionError from error  # at which the server lets the client go

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log a request in one line, but not a read of the mock controls.

        The home page makes one or two each second.
        """
        read_of_controls = rf"GET {re.escape(self.controls)}[/? ]"
        if not re.match(read_of_controls, self.requestline):
            # As `ascii` writes it, with \x1b for Escape, so that nothing in it can
            # act upon a terminal.
            line = ascii(self.requestline)
            say(f"{self.log_date_time_string()} {line} {code}")

    def log_error(self, format: str, *args: object) -> None:
        """Print nothing on stderr, where the service tells of its own problems.

        This is called for what is not HTTP, which is logged with its answer, and for
        a client that is silent, as browsers are that connect before they need it.
        """


def say(line: str) -> None:
    """Print a line at once, if anybody still reads what we print."""
    with suppress(OSError):
        # With its end in one piece, so that two threads do not mix their lines.
        print(f"{line}\n", end="", flush=True)


def stop(signal_number: int, frame: FrameType | None) -> None:
    """End the process at once, with status 0, and without any cleaning up.

    A signal is how the system asks a program to end: SIGINT when somebody types Ctrl-C,
    SIGTERM when another program wants it. At SIGINT, Python would raise an exception in
    the main thread. If that is starting a thread for a request, the exception ends in a
    traceback on stderr. No data has to be saved, so nothing is lost by ending at once.
    """
    os._exit(0)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        app = create_app()
    except SettingError as error:
        error.show()
        sys.exit(1)
    api = app.config["API"]
    RequestHandler.controls = f"{api}/mock"
    server = make_listening_server(app, app.config["HOST"], app.config["PORT"])
    host = str(server.server_address[0])
    if ":" in host:
        host = f"[{host}]"  # an IPv6 address in a URL
    say(f"Inventory API listening on http://{host}:{server.port}{api}")
    server.serve_forever()


def make_listening_server(app: Flask, host: str, port: int) -> BaseWSGIServer:
    """Werkzeug's server, listening. Ends the process if that is not possible.

    In most such cases the server prints why, and exits; for odd addresses it raises one
    of the other exceptions. Either way, we end with the reason in a line of ours.
    """
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            server = make_server(
                host, port, app, threaded=True, request_handler=RequestHandler
            )
    except (SystemExit, OSError, ValueError, TypeError) as error:
        reason = printed.getvalue().strip() or str(error)
        address = f"HOST {host!r} with PORT {port}"
        sys.exit(
            f"inventory: {address} must be a free address of this machine: {reason}"
        )
    server.socket.listen(BACKLOG)  # it listens already; this only changes the number
    return server


PAGE = r"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }}</title>
<link rel="icon" href="data:,">
<style>
  :root {
    color-scheme: light dark; scroll-padding-top: 2rem;
    --back: light-dark(#fff, #14181f); --panel: light-dark(#f6f7f9, #1c222b);
    --front: light-dark(#1c2430, #e8ebf0); --soft: light-dark(#596272, #a9b2c0);
    --good: light-dark(#146b48, #63cf9f); --bad: light-dark(#b3263a, #ff8f9c);
    --wait: light-dark(#7a5200, #efc057); --mark: light-dark(#ffeeb8, #4a3d14);
    --line: light-dark(#d5dae1, #3a4352);
  }
  * { box-sizing: border-box }
  body { margin: 0 auto; max-width: 100rem; padding: 1rem; background: var(--back);
    color: var(--front); font: 1rem/1.4 system-ui, sans-serif }
  header, form { display: flex; flex-wrap: wrap; gap: .5rem 1rem }
  header { justify-content: space-between }
  main, .column { display: grid; gap: 1rem; align-content: start; min-width: 0 }
  @media (min-width: 64rem) {
    main { grid-template: auto auto 1fr / 5fr 3fr }
    .controls { grid-row: span 2 }
  }
  section { min-width: 0; padding: .75rem 1rem; border: 1px solid var(--line);
    border-radius: .6rem; background: var(--panel) }
  h1, h2 { margin: 0; font-size: 1.1rem }
  h1 { font-size: 1.5rem }
  p { margin: .5rem 0 }
  #news, #latest { min-height: 1.4rem; margin: 0 }
  #news:not(:empty) { position: sticky; top: 0; z-index: 1; background: var(--back) }
  #latest { overflow: hidden; white-space: nowrap; text-overflow: ellipsis }
  [href] { color: var(--good) }
  input, select, button { font: inherit; color: inherit; padding: .3rem .6rem;
    border: 1px solid var(--soft); border-radius: .4rem; background: var(--back) }
  form > div { flex: 1 1 8rem }
  form > button { align-self: start; margin-top: 1.4rem } /* beside an input */
  label { display: block }
  input, select { width: 100% }
  ::placeholder { color: var(--soft) }
  [type=checkbox] { width: 1.5rem; height: 1.5rem }
  [aria-invalid=true] { border-color: var(--bad) }
  :focus-visible { outline: 3px solid var(--good); outline-offset: 2px }
  .scroll { height: 20rem; margin: .5rem 0; overflow: auto; resize: vertical }
  code, pre, ol, ul { font: .8125rem/1.5 ui-monospace, monospace }
  ol, ul { list-style: none; margin: .5rem 0 0; padding: 0 }
  li, th, td { padding: .25rem .75rem .25rem 0; border-top: 1px solid var(--line);
    overflow-wrap: anywhere }
  pre { margin: 0; white-space: pre-wrap }
  summary { cursor: pointer }
  table { width: 100%; border-spacing: 0; font-size: .8125rem; text-align: left }
  thead { position: sticky; top: 0; background: var(--panel) }
  th, td { max-width: 20rem; vertical-align: top; overflow-wrap: break-word }
  /* The id, and the times created_at and updated_at. */
  td:first-child, td:nth-last-child(-n + 2) { white-space: nowrap }
  td:first-child::before { content: ""; display: inline-block; width: 1em }
  [data-mark] { background: var(--mark) }
  [data-mark=new] td:first-child::before { content: "+" }
  [data-mark=changed] td:first-child::before { content: "*" }
  [data-mark=changed] .changed { text-decoration: underline 2px }
  [data-empty]:empty::after { content: attr(data-empty) }
  .soft { color: var(--soft) } .pending { color: var(--wait) }
  .good { color: var(--good) } .bad { color: var(--bad) }
</style>
</head>
<body>
{# A field of a form: its label, its control, and a place for what is wrong with it. The
   control is a select if there are options. Otherwise it is an input, and the other
   arguments, such as `value`, are its attributes. #}
{% macro field(id, label, options=[]) %}
<div>
  <label for="{{ id }}">{{ label }}</label>
  {% if options %}
  <select id="{{ id }}" aria-describedby="{{ id }}-problem">
    {% for option in options %}<option>{{ option }}</option>{% endfor %}
  </select>
  {% else %}
  <input id="{{ id }}" aria-describedby="{{ id }}-problem" {{ kwargs | xmlattr }}>
  {% endif %}
  <p class="bad" id="{{ id }}-problem"></p>
</div>
{% endmacro %}
<header>
  <div>
    <h1>{{ name }} {{ version }}</h1>
    <p>A mock backend for building user interfaces. Its data is in memory, below
      <code>{{ api }}</code>.<br>This page is about
      {% if session %}the session <strong>{{ session }}</strong>.
      {% else %}<strong>the default session</strong>.{% endif %}</p>
  </div>
  <form>
    {{ field("session", "Session, as in X-Mock-Session", name="session",
      value=session or "", placeholder="the default one", autocomplete="off",
      pattern="[A-Za-z0-9._\\-]{1,64}", title="1 to 64 letters, digits, . _ or -") }}
    <button>Show</button>
  </form>
</header>
<main>
<p id="news" role="status"></p>
<p id="latest" class="soft" aria-live="polite"></p>
<div class="column">
  {% for resource, fields in columns.items() %}
  <section>
    <h2 aria-live="polite" aria-atomic="true">
      <a {% if not session %}href="{{ api }}/{{ resource }}"{% endif %}>
        {{- resource }}</a> <span id="count-{{ resource }}"></span></h2>
    <div class="scroll" id="few-{{ resource }}" tabindex="0" role="region"
      aria-label="{{ resource }}, newest on top">
      <table>
        <thead><tr>
          {% for field in fields %}<th scope="col">{{ field }}</th>{% endfor %}
        </tr></thead>
        <tbody id="rows-{{ resource }}" data-empty="There are none."></tbody>
      </table>
    </div>
    <template id="rows-{{ resource }}-template"><tr></tr></template>
  </section>
  {% endfor %}
</div>
<div class="controls column">
  <section>
    <h2>Requests, newest on top</h2>
    <div class="scroll" tabindex="0" role="region" aria-label="Requests">
      <ol id="requests" tabindex="-1" reversed data-empty="There are none."></ol>
    </div>
    <template id="requests-template">
      <li><details><summary><b></b> <span></span></summary><pre></pre></details></li>
    </template>
    <button data-act="DELETE /mock/requests">Clear the journal</button>
  </section>
  <section>
    <h2>Faults for the next requests</h2>
    <p class="soft">The path can be a pattern, as <code>/items/*</code>, and with the
      query, as <code>/items?page=2</code> or <code>*page=2*</code>.</p>
    <form>
      {{ field("method", "Method (*: any)", ["*"] + methods | list) }}
      {{ field("path", "Path", value="/" + columns | first) }}
      {{ field("times", "Times", type="number", value=1, placeholder="all") }}
      {{ field("status", "Fail with status", type="number", placeholder="none") }}
      {{ field("retry_after", "Retry-After, s", type="number", placeholder="none") }}
      {{ field("delay", "Wait first, ms", type="number", value=0) }}
      {{ field("hold", "Hold until let go", type="checkbox") }}
      {{ field("drop", "Lose connection", type="checkbox") }}
      {{ field("after", "Carry it out first", type="checkbox") }}
      <button data-act="POST /mock/faults">Add the fault</button>
      <button data-act="DELETE /mock/faults">Clear all, and let go</button>
    </form>
    <ul id="faults" tabindex="-1" data-empty="There are none."></ul>
    <template id="faults-template"><li><button></button> <span></span></li></template>
  </section>
  <section>
    <h2>Clock and seed</h2>
    <p id="clock">…</p>
    <form>
      {{ field("now", "Freeze it at", autocomplete="off") }}
      <button data-act="PUT /mock/clock">Freeze</button>
      <button data-act="DELETE /mock/clock">Let it run</button>
    </form>
    <p>Back to the seed: rows, ids, clock, faults and requests.</p>
    <button data-act="DELETE /mock/state">Reset the data</button>
  </section>
</div>
<section>
  <h2>Routes</h2>
  <ul>
    {% for route in routes %}
    {% set is_link = "GET" in route.methods and "<" not in route.path and not session %}
    <li>{{ route.methods | join(", ") }}
      <a {% if is_link %}href="{{ route.path }}"{% endif %}>{{ route.path }}</a>
      <span class="soft">{{ route.summary }}</span></li>
    {% endfor %}
  </ul>
</section>
</main>
<script>
const api = {{ api | tojson }}
const session = {{ session | tojson }}
const MOST_ROWS = 1000 // of more, in all tables, only the numbers are shown
const PAUSE = 1700 // ms between two looks, of three requests each
const MARKED = 6000 // ms for which a change is marked
const LONG = 120 // characters of a value that are shown
const NO_ANSWER = "The service does not answer."
const byId = id => document.getElementById(id)

// Ask the service. Throws the body of an error, which has a sentence and details.
async function ask(method, path, body) {
  const headers = {}
  if (session) headers["X-Mock-Session"] = session
  if (body) headers["Content-Type"] = "application/json"
  // A cookie could name another session than the one that this page is about.
  const options = { method, headers, body: JSON.stringify(body), credentials: "omit" }
  let response, answer
  try {
    response = await fetch(api + path, options)
    answer = response.status === 204 ? null : await response.json()
  } catch {
    throw { error: NO_ANSWER }
  }
  if (!response.ok) throw answer
  return answer
}

// Steps wait for one another: what was read before a change is not shown after it.
let lastStep = Promise.resolve()
function inTurn(step) {
  lastStep = lastStep.then(step).catch(problem => {
    say(problem.error ?? String(problem), problem.details)
  })
  return lastStep
}

// Say what was done or is wrong, also beside the fields; go to the first wrong field.
function say(sentence, details = {}) {
  setText("news", sentence)
  for (const field of document.querySelectorAll("input, select")) {
    field.ariaInvalid = field.id in details
    setText(`${field.id}-problem`, details[field.id] ?? "")
  }
  document.querySelector("[aria-invalid=true]")?.focus()
}

// What is set again, even if it is the same, would be read aloud again.
function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text
}

// What a button asks for is in its data-act. Enter in a form is a click on its first.
document.addEventListener("click", event => {
  const button = event.target.closest("[data-act]")
  if (!button) return
  event.preventDefault() // the browser would send the form
  if (event.detail > 1) return // a double click counts once
  const [method, path] = button.dataset.act.split(" ")
  const body = method === "DELETE" ? undefined : readForm(button.form)
  inTurn(async () => {
    await ask(method, path, body)
    say(`${button.textContent}: done.`)
  })
  inTurn(look)
})

// The fields of a form as the API takes them. A number that is left empty is null.
function readForm(form) {
  const body = {}
  for (const { id, type, value, checked } of form.querySelectorAll("input, select")) {
    if (type === "checkbox") body[id] = checked
    else if (type === "number") body[id] = value === "" ? null : Number(value)
    else body[id] = value
  }
  return body
}
byId("now").value = new Date().toISOString()

async function keepLooking() {
  while (true) {
    if (!document.hidden) await inTurn(look)
    await new Promise(resume => setTimeout(resume, PAUSE))
  }
}

// Show the session as it is now. What is asked for this leaves no trace in it.
async function look() {
  const { rows, clock, faults } = await ask("GET", "/mock")
  const entries = await ask("GET", "/mock/requests")
  let total = 0
  for (const name in rows) total += rows[name]
  const few = total <= MOST_ROWS
  const state = few ? await ask("GET", "/mock/state") : {}

  setText("clock", clock.frozen ? `It stands at ${clock.now}.` : "It runs.")
  showList("faults", faults, fault => `${fault.id} ${fault.path}`, fillFault)
  // The time is part of the key, because numbers begin again after a reset.
  const keyOf = entry => `${entry.number} ${entry.at}`
  const [latest] = showList("requests", entries.reverse(), keyOf, fillRequest)
  if (latest) setText("latest", latest.innerText)
  for (const name in rows) {
    setText(`count-${name}`, rows[name] + (few ? "" : ", in all too many to be shown"))
    byId(`few-${name}`).hidden = !few
    if (few) showList(`rows-${name}`, state[name].reverse(), row => row.id, fillRow)
  }
  if (byId("news").textContent === NO_ANSWER) say("")
}

// Show things as the elements of a list, and return the elements that are now marked.
// What is there already is changed in its place: so it stays open, and keeps the focus.
const shown = {} // by the id of a list: its elements by key
function showList(id, things, keyOf, fill) {
  const list = byId(id)
  const template = byId(`${id}-template`).content.firstElementChild
  const old = shown[id] ?? new Map()
  const now = new Map()
  const changed = []
  for (const thing of things) {
    const element = old.get(keyOf(thing)) ?? template.cloneNode(true)
    now.set(keyOf(thing), element)
    const json = JSON.stringify(thing)
    if (element.json === json) continue
    element.json = json
    fill(element, thing)
    changed.push(element)
  }
  // Marks tell nothing on a page just opened, or if all is other data than before.
  const isOther = old.size > 0 && now.size > 1 && changed.length === now.size
  const marked = shown[id] && !isOther ? changed : []
  for (const element of marked) mark(element, element.isConnected ? "changed" : "new")
  for (const [key, element] of old) {
    if (now.has(key)) continue
    if (element.contains(document.activeElement)) list.focus()
    element.remove()
  }
  let place = list.firstElementChild
  for (const element of now.values()) {
    if (element === place) place = place.nextElementSibling
    else list.insertBefore(element, place)
  }
  shown[id] = now
  return marked
}

function mark(element, word) {
  element.dataset.mark = word
  clearTimeout(element.timer)
  element.timer = setTimeout(() => delete element.dataset.mark, MARKED)
}

function fillRow(line, row) {
  Object.values(row).forEach((value, index) => {
    const cell = line.cells[index] ?? line.insertCell()
    let text = typeof value === "string" ? value : JSON.stringify(value)
    if (text.length > LONG) text = `${text.slice(0, LONG)}…`
    cell.className = cell.textContent === text ? "" : "changed"
    cell.textContent = text
  })
}

function fillFault(line, { id, method, path, times, held, ...rest }) {
  const [button, words] = line.children
  const parts = []
  for (const name in rest) if (rest[name]) parts.push(`${name} ${rest[name]}`)
  parts.push(times === null ? "every time" : `${times} left`)
  if (held) parts.push(`holds ${held} now`)
  words.textContent = `${method} ${path}: ${parts.join(", ")}`
  button.textContent = held ? "Let go" : "Clear"
  button.ariaLabel = `${button.textContent}: ${words.textContent}`
  button.dataset.act = `DELETE /mock/faults/${id}`
}

function fillRequest(line, entry) {
  const [summary, more] = line.firstElementChild.children
  const [status, words] = summary.children
  const [kind, text] = describeStatus(entry.status)
  status.className = kind
  status.textContent = text
  words.textContent = `${entry.method} ${entry.path}`
  if (entry.query) words.textContent += `?${entry.query}`
  if (entry.status !== null) words.textContent += ` ${entry.duration_ms} ms`
  more.textContent = JSON.stringify(entry, null, 2)
}

function describeStatus(status) {
  if (status === null) return ["pending", "… pending"]
  if (status === 0) return ["bad", "✕ no answer"]
  if (status >= 400) return ["bad", `✕ ${status}`]
  return ["good", `✓ ${status}`]
}

keepLooking()
</script>
</body>
</html>
"""

if __name__ == "__main__":
    main()
