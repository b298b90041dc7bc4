"""The data: records and their rules, lists, a locked store, and the sessions that keep stores apart.

Read it from top to bottom; each section uses only what stands above it. Nothing here knows of HTTP.
"""

import gc
import json
import re
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cache, partial
from itertools import count
from json.encoder import encode_basestring_ascii
from math import isfinite
from operator import attrgetter, ge, gt, le, lt
from pathlib import Path
from threading import Lock
from typing import Any

# Errors


class StoreError(Exception):
    """A refusal: one sentence, and where it helps the problems by the place of each."""

    def __init__(self, message: str, problems: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or {}


class InvalidError(StoreError):
    """Raised if values break the rules; `problems` has a sentence for each place, in field order."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(next(iter(problems.values())), problems)


class NotFoundError(StoreError):
    """Raised if there is no row with the id."""


class StaleError(StoreError):
    """Raised if a row is no longer in a version that the caller expects."""


class ConflictError(StoreError):
    """Raised if a valid change collides with another row because of the field at a place."""

    def __init__(self, place: str, sentence: str) -> None:
        super().__init__(sentence, {place: sentence})


class MalformedError(StoreError):
    """Raised if bytes are not JSON."""


# JSON, strictly: RFC 8259 in UTF-8, with numbers that a double can hold


def number(convert: Callable[[str], float], text: str) -> float:
    """A number from its JSON text. Raises ValueError where a double cannot hold it."""
    if not isfinite(float(text)):
        raise ValueError(f"{text[:20]} is not a number that a double can hold")
    return convert(text)


DECODER = json.JSONDecoder(parse_int=partial(number, int), parse_float=partial(number, float),
                           parse_constant=partial(number, float))


def parse(raw: bytes) -> Any:
    """The value that JSON text stands for. Raises MalformedError."""
    try:
        return DECODER.decode(raw.decode())
    except RecursionError:
        raise MalformedError("Bad request", {"body": "Body is nested too deeply"}) from None
    except ValueError as error:
        raise MalformedError("Bad request", {"body": f"Body is not JSON: {error}"}) from None


# Rules: a field's metadata is its JSON Schema; keywords of our own begin with x-

Schema = Mapping[str, Any]

SPACES = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # as str.isspace
NOT_BLANK = rf"^[\s\S]*[^{SPACES}][\s\S]*$"
TOKEN: Any = {"type": "string", "pattern": r"^[A-Za-z0-9._-]{1,64}$",
              "description": "1 to 64 of the characters A-Z a-z 0-9 . _ -"}
ID = TOKEN | {"pattern": r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$",
              "description": TOKEN["description"] + ", but not . or ..",
              "readOnly": True, "x-unique": True, "x-natural": True}
TIME = {"type": "string", "format": "date-time", "description": "a UTC time such as 2026-01-01T09:30:00.000Z"}
TEXT = {"type": "string"}
NAME = TEXT | {"minLength": 1, "pattern": NOT_BLANK}
WHOLE = {"type": "integer", "maximum": 2**53 - 1}  # the largest that JavaScript holds exactly
OBJECT = {"type": "object", "additionalProperties": False}
KINDS = {"string": "a string", "integer": "an integer", "boolean": "true or false", "object": "an object",
         "array": "an array"}
BOUNDS = {"string": " of {} characters", "integer": " from {}", "array": " of {} elements"}


def allowed(schema: Schema) -> str:
    """What a schema allows, in words."""
    if "description" in schema:
        return str(schema["description"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    kind, *null = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    least, most = (next((schema[word] for word in words if word in schema), None)
                   for words in (("minimum", "minLength"), ("maximum", "maxLength", "maxItems")))
    span = f"at most {most}" if least is None else f"{least} to {most}"
    blank = ", not all blank" if schema.get("pattern") == NOT_BLANK else ""
    return KINDS[kind] + (BOUNDS[kind].format(span) if most else "") + blank + ", or null" * len(null)


def timestamp(moment: datetime | None = None) -> str:
    """A moment (default: now) as JavaScript's `Date.toISOString()` writes it: UTC, milliseconds."""
    return (moment or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_timestamp(value: str) -> bool:
    """Whether it is a moment, in exactly the form that `timestamp` writes."""
    try:
        return value.endswith("Z") and timestamp(datetime.fromisoformat(value)) == value
    except ValueError:
        return False


TYPES: dict[str, set[type]] = {  # exactly these: True is an int to Python, not to JSON
    "string": {str}, "integer": {int}, "boolean": {bool}, "null": {type(None)}, "object": {dict},
    "array": {list, tuple}}
KEYWORDS: dict[str, Callable[[Any, Any], bool]] = {
    "type":      lambda value, names: any(type(value) in TYPES[name] for name in names)
                 if isinstance(names, list) else type(value) in TYPES[names],
    "enum":      lambda value, allowed: value in allowed,
    "minimum":   lambda value, least: value >= least,
    "maximum":   lambda value, most: value <= most,
    "minLength": lambda value, least: len(value) >= least,
    "maxLength": lambda value, most: len(value) <= most,
    "maxItems":  lambda value, most: len(value) <= most,
    "pattern":   lambda value, pattern: re.fullmatch(pattern, value) is not None,
    "format":    lambda value, name: name != "date-time" or is_timestamp(value),
}


def fits(schema: Schema, value: Any) -> bool:
    """Whether a value by itself, without what it contains, keeps to a schema whose first word is its type."""
    if value is None:
        return "null" in schema.get("type", "null")
    for word, wanted in schema.items():
        if word in KEYWORDS and not KEYWORDS[word](value, wanted):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Reference:
    """What only a look at the tables can settle: that a resource has a row with this id."""

    resource: str
    id: str


Finding = tuple[str, str | Reference]  # the place, and a problem's sentence or a reference
Claim = Reference | tuple[str, str]  # what a row refers to, or a unique field's name and value


def label(place: str) -> str:
    """A place as a sentence begins with it: `items[0].item_id` is "Item id"."""
    name = place.rpartition(".")[2].replace("_", " ").strip() or "it"
    return name[:1].upper() + name[1:]


def check(schema: Schema, value: Any, place: str = "") -> Iterator[Finding]:
    """Find what breaks the schema, and what has still to be settled, in the schema's order."""
    if not fits(schema, value):
        yield place, f"{label(place)} must be {allowed(schema)}"
    elif "x-references" in schema:
        yield place, Reference(schema["x-references"], value)
    elif isinstance(value, dict):
        yield from check_properties(schema, value, f"{place}." if place else "")
    elif isinstance(value, (list, tuple)) and "items" in schema:
        seen: set[tuple[str, str]] = set()
        for index, element in enumerate(value):
            yield from check(schema["items"], element, f"{place}[{index}]")
            for key in unique_values(schema["items"], element):
                if key in seen:
                    yield f"{place}[{index}].{key[0]}", f"{label(key[0])} {key[1]} is there twice"
                seen.add(key)


def check_properties(schema: Schema, value: Mapping[str, Any], prefix: str) -> Iterator[Finding]:
    """The part of `check` for an object."""
    properties = schema.get("properties", {})
    for name, rule in properties.items():
        if name in value:
            yield from check(rule, value[name], prefix + name)
        elif name in schema.get("required", ()):
            yield prefix + name, f"{label(name)} is required"
    if schema.get("additionalProperties") is False:
        for name in value:
            if name not in properties:
                yield prefix + name, f"{name} is not known here; allowed are {', '.join(properties)}"


def unique_values(schema: Schema, value: Any) -> Iterator[tuple[str, str]]:
    """The name and the text of each field of an object that no other may share."""
    if isinstance(value, dict):
        for name, rule in schema.get("properties", {}).items():
            if rule.get("x-unique") and isinstance(value.get(name), str):
                yield name, value[name]


Ids = Callable[[str], Container[str]]  # the ids of a resource


def problems(findings: Iterable[Finding], ids: Ids = lambda _: ()) -> dict[str, str]:
    """The first 100 problems by place, once references are settled."""
    found: dict[str, str] = {}
    for place, finding in findings:
        if isinstance(finding, str):
            found.setdefault(place, finding)
        elif finding.id not in ids(finding.resource):
            found.setdefault(place, f"{label(place)} must be the id of one of the {finding.resource}")
        if len(found) == 100:
            break
    return found


def require(schema: Schema, value: Any, place: str = "", ids: Ids = lambda _: ()) -> None:
    """Raise InvalidError unless the value keeps to the schema."""
    if found := problems(check(schema, value, place), ids):
        raise InvalidError(found)


def read(schema: Schema, text: str) -> int | str:
    """The integer that a text spells where the schema asks for one; otherwise the text."""
    if schema.get("type") == "integer" and re.fullmatch("-?[0-9]{1,1000}", text):
        return int(text)
    return text


def schema_of(model: type) -> dict[str, Any]:
    """The JSON Schema of a dataclass: its fields, and nothing else."""
    return {**OBJECT, "properties": {each.name: dict(each.metadata) for each in fields(model)},
            "required": [each.name for each in fields(model) if each.default is MISSING]}


# Records


class ItemStatus(StrEnum):
    """Where an item is in its life."""

    PENDING = "pending"
    ACTIVE = "active"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the store itself gives to each row."""

    id: str = field(metadata=ID)
    created_at: str = field(metadata=TIME | {"readOnly": True})
    updated_at: str | None = field(default=None, metadata=TIME | {
        "type": ["string", "null"], "readOnly": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(Record):
    """Something in stock."""

    name: str = field(metadata=NAME | {"maxLength": 255})
    description: str = field(default="", metadata=TEXT | {"maxLength": 10_000})
    status: ItemStatus = field(default=ItemStatus.PENDING, metadata=TEXT | {"enum": list(ItemStatus)})
    quantity: int = field(default=0, metadata=WHOLE | {"minimum": 0})


LINE = {"type": "object", "properties": {
    "item_id": TEXT | {"x-references": "items"}, "quantity": WHOLE | {"minimum": 1}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Record):
    """What somebody ordered; a line may name an item and say how many, and hold anything else."""

    internal_number: str = field(metadata=NAME | {"maxLength": 50, "x-unique": True})
    status: str = field(default="pending", metadata=NAME | {"maxLength": 50})
    items: tuple[dict[str, Any], ...] = field(default=(), metadata={
        "type": "array", "maxItems": 1000, "items": LINE})


# Resources

ENCODERS: dict[type, Callable[[Any], str]] = {
    str: encode_basestring_ascii, ItemStatus: encode_basestring_ascii, int: repr,
    type(None): lambda _: "null"}
IGNORED: Schema = {"description": "ignored, so that a row can be sent back as it came"}
SUFFIXES = ("", "_ne", "_gt", "_gte", "_lt", "_lte", "_like")  # of a field's name in a list's query
SINGLE = ("sort", "page", "per_page")  # what else a query has that counts once; the rest may come again


class Resource:
    """All that follows from a dataclass of records, derived once."""

    def __init__(self, name: str, model: type[Record]) -> None:
        self.name, self.model, self.title = name, model, model.__name__
        schema = schema_of(model)
        columns = sorted(schema["properties"], key=("created_at", "updated_at").__contains__)  # these last
        rules = self.rules = {name: schema["properties"][name] for name in columns}
        self.writable = [name for name in columns if not rules[name].get("readOnly")]
        self.unique = [name for name in self.writable if rules[name].get("x-unique")]
        self.referring = [name for name in self.writable if "x-references" in repr(rules[name])]
        self.texts = [name for name in self.writable if rules[name]["type"] == "string"]

        self.defaults = {each.name: each.default for each in fields(model) if each.name in self.writable
                         and each.default is not MISSING}
        self.row = schema | {"properties": rules, "required": columns}
        self.new = self.row | {
            "properties": {name: rules[name] if name in self.writable else IGNORED for name in columns},
            "required": [name for name in schema["required"] if name in self.writable]}
        self.change = self.new | {"required": []}
        self.state = self.new | {"properties": {
            name: rule if name in self.writable else rule | {"type": ["string", "null"]}
            for name, rule in rules.items()}}
        self.filters = {name + suffix: (name, suffix) for name, rule in rules.items() for suffix in SUFFIXES
                        if rule["type"] != "array" and not (suffix == "_like" and rule["type"] == "integer")}
        self.query = query_schema(self)

        self._template = "{" + ", ".join(f'"{name}": %s' for name in columns) + "}\n"
        self._values = attrgetter(*columns)
        self._convert: dict[str, Any] = {
            each.name: each.type for each in fields(model) if {"enum", "items"} & each.metadata.keys()}

    def values(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a checked body that a client may write, in the types of the record."""
        return {name: self._convert[name](body[name]) if name in self._convert else body[name]
                for name in self.writable if name in body}

    def claims(self, record: Record) -> set[Claim]:
        """What a record takes for itself: its unique values, and the rows that it refers to."""
        unique = {(name, getattr(record, name)) for name in self.unique}
        return unique | {each for name in self.referring
                         for _, each in check(self.rules[name], getattr(record, name))
                         if isinstance(each, Reference)}

    def json(self, record: Record) -> bytes:
        """A record as a line of JSON; field by field takes half the time of `json.dumps` of a dict."""
        values = self._values(record)
        return (self._template % tuple([ENCODERS.get(type(v), json.dumps)(v) for v in values])).encode()


def query_schema(resource: Resource) -> dict[str, Any]:
    """The schema of a list's query, a value each."""
    names = sorted({name for name, _ in resource.filters.values()})
    one = f"-?({'|'.join(names)})"
    return {**OBJECT, "properties": {
        **{name: asked(resource.rules[field], suffix) for name, (field, suffix) in resource.filters.items()},
        "q": TEXT,
        "sort": {"type": "string", "pattern": f"^{one}(,{one})*$", "description":
                 f"a comma-separated list of {', '.join(names)}, with - before one to descend"},
        "page": {"type": "integer", "minimum": 1, "description": "an integer of at least 1"},
        "per_page": {"type": "integer", "minimum": 1, "maximum": 1000}}}


def asked(rule: Schema, suffix: str) -> Schema:
    """What a filter takes: a value of the field's type, in or out of its bounds; any text to look for."""
    if rule["type"] == "integer":
        return {"type": "integer"}
    return {"type": "string", "enum": rule["enum"]} if "enum" in rule and suffix != "_like" else TEXT


RESOURCES = {each.name: each for each in (Resource("items", Item), Resource("orders", Order))}

STATE: Schema = {**OBJECT, "properties": {
    each.name: {"type": "array", "items": each.state} for each in RESOURCES.values()}}


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it is stored, with its JSON. Its version is that of no other content, in any store."""

    record: Record
    version: int
    json: bytes

    @property
    def tag(self) -> str:
        """The version as text."""
        return f"{self.version:x}"


versions = count(time.time_ns() // 1000)  # microseconds: above all that an earlier process can have counted

# Lists


def natural(text: str) -> tuple[int, str]:
    """A key that sorts 2 before 10."""
    return len(text), text


def condition(suffix: str, wanted: list[Any], order: Callable[[Any], Any]) -> Callable[[Any], bool]:
    """What a filter's suffix and its values ask of a field's value."""
    if suffix == "":
        return frozenset(wanted).__contains__
    if suffix == "_ne":
        return lambda value: value not in wanted
    if suffix == "_like":
        parts = [part.casefold() for part in wanted]
        return lambda value: value is not None and all(part in value.casefold() for part in parts)
    compare, strictest = {"_gt": (gt, max), "_gte": (ge, max), "_lt": (lt, min), "_lte": (le, min)}[suffix]
    limit = strictest(map(order, wanted))
    return lambda value: value is not None and compare(order(value), limit)


def select(resource: Resource, rows: list[Row], query: Mapping[str, Any]) -> list[Row]:
    """The rows that a query (see `resource.query`) asks for, in its order."""
    for name in query.keys() & resource.filters:
        field, suffix = resource.filters[name]
        rule, get = resource.rules[field], attrgetter(f"record.{field}")
        null = "null" in rule["type"] and suffix in ("", "_ne")  # an empty text stands for null
        wanted = [value or None for value in query[name]] if null else query[name]
        holds = condition(suffix, wanted, natural if rule.get("x-natural") else lambda value: value)
        rows = [row for row in rows if holds(get(row))]
    for part in query.get("q", ()):
        part = part.casefold()
        rows = [row for row in rows
                if any(part in getattr(row.record, name).casefold() for name in resource.texts)]
    for name in reversed(query["sort"].split(",") if "sort" in query else ()):
        rows = sorted(rows, key=sort_key(resource, name.lstrip("-")), reverse=name.startswith("-"))
    return rows


def sort_key(resource: Resource, field: str) -> Callable[[Row], Any]:
    """By a field's value: null first, ids by length and then by text."""
    rule, get = resource.rules[field], attrgetter(f"record.{field}")
    if rule.get("x-natural"):
        return lambda row: natural(get(row))
    if "null" in rule["type"]:
        return lambda row: ((value := get(row)) is not None, value)
    return get


# The store


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
STATUS = {"type": "integer", "minimum": 400, "maximum": 599}
DELAY = {"type": "integer", "minimum": 0, "maximum": 30_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What awaits the next `times` requests that fit (None: all): `status`, after `delay` ms."""

    method: str = field(default="*", metadata=TEXT | {"enum": ["*", *METHODS]})
    path: str = field(metadata=TEXT | {
        "pattern": r"^[/*?\[][\s\S]{0,999}$",
        "description": "a pattern such as /items/* or *, of 1000 characters at most"})
    status: int | None = field(default=503, metadata=STATUS | {"type": ["integer", "null"]})
    delay: int = field(default=0, metadata=DELAY)
    times: int | None = field(default=1, metadata=WHOLE | {"type": ["integer", "null"], "minimum": 1})
    after: bool = field(default=False, metadata={"type": "boolean"})


def fault_of(body: Mapping[str, Any]) -> Fault:
    """A fault from a client's values. Raises InvalidError."""
    found = problems(check(schema_of(Fault), body))
    if body.get("after") is True and body.get("status", 503) is None:
        found.setdefault("after", "After must be false where status is null")
    if found:
        raise InvalidError(found)
    return Fault(**body)


@dataclass(slots=True)
class Visit:
    """A journal entry: a request, and how it was answered once it is."""

    began: float
    at: str | float  # a frozen clock's time, or seconds since 1970, which cost less to take
    method: str
    path: str
    query: str
    fault: Fault | None = None
    status: int | None = None
    duration_ms: float = 0
    body: bytes | None = None


class Table:
    """The rows of one resource, oldest first, and what is kept beside them so that no write scans them."""

    def __init__(self, resource: Resource, number: int) -> None:
        self.resource = resource
        self.rows: dict[str, Row] = {}
        self.claims: Counter[Claim] = Counter()  # how many rows have each (see Resource.claims)
        self.number = number  # the id of the next new row
        self.version = next(versions)

    def copy(self) -> "Table":
        """A table that changes by itself. Rows never change, so the two share them."""
        twin = copy(self)
        twin.rows, twin.claims = self.rows.copy(), self.claims.copy()
        return twin

    def free_id(self) -> str:
        """The id for a new row."""
        while str(self.number) in self.rows:
            self.number += 1
        return str(self.number)

    def put(self, record: Record) -> Row:
        """Add a record as the newest row, or in the place of the row with its id."""
        row = Row(record, next(versions), self.resource.json(record))
        self._release(record.id)
        for claim in self.resource.claims(record):
            self.claims[claim] += 1
        self.rows[record.id] = row
        self.version = next(versions)  # not the row's: no tag stands for a row and for a list
        if record.id == str(self.number):
            self.number += 1
        return row

    def remove(self, id: str) -> None:
        """Take a row out."""
        self._release(id)
        del self.rows[id]
        self.version = next(versions)

    def holder(self, claim: Claim) -> str | None:
        """The id of the first row with a claim; to find it takes a scan, and only a refusal has one."""
        if claim not in self.claims:
            return None
        return next(id for id, row in self.rows.items() if claim in self.resource.claims(row.record))

    def _release(self, id: str) -> None:
        for claim in self.resource.claims(self.rows[id].record) if id in self.rows else ():
            self.claims[claim] -= 1
            if not self.claims[claim]:
                del self.claims[claim]


def tables_of(state: Mapping[str, Any], now: str) -> dict[str, Table]:
    """Tables with the rows of a whole state; ids and times that it lacks are filled in.

    Raises InvalidError with every problem by its place, such as `orders[0].items[2].item_id`.
    """
    ids = cache(lambda name: dict.fromkeys(fill_ids(state.get(name))))
    require(STATE, state, ids=ids)
    tables = {}
    for name, resource in RESOURCES.items():
        table = tables[name] = Table(resource, next_number(ids(name)))
        for id, row in zip(ids(name), state.get(name, ()), strict=True):
            table.put(resource.model(id=id, created_at=row.get("created_at") or now,
                                     updated_at=row.get("updated_at"), **resource.values(row)))
    return tables


def next_number(ids: Iterable[str]) -> int:
    """One more than the largest id of at most 15 digits, or 1."""
    return 1 + max((int(id) for id in ids if re.fullmatch("[0-9]{1,15}", id)), default=0)


def fill_ids(rows: Any) -> list[str]:
    """The ids of rows that nobody has checked yet, with the next free number where one has none."""
    given = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    taken = {id for id in given if isinstance(id, str)}
    free = (id for id in map(str, count(next_number(taken))) if id not in taken)
    return [next(free) if id is None else str(id) for id in given]


Expected = Container[str] | None  # tags of which a row must have one


class Store:
    """The tables, clock, faults and journal of one session. Every method may be called from any thread.

    Rows come and go as `Row`s, which never change: what leaves the lock is nobody's to spoil.
    """

    def __init__(self, seed: Mapping[str, Table]) -> None:
        # The lock policy: whoever reads or changes the tables holds this lock, from the first look
        # to the last change, or another thread changes in between what was looked at.
        # It is one for all tables because a rule may span two: an item that an order names stays.
        # Nothing slow happens under it: bodies are checked before, lists are made after.
        self._lock = Lock()
        self._seed = seed
        self._tables = dict(seed)
        # From outside these are only set, appended to or read as a whole, each of which is one step;
        # `strike`, which looks at the faults and then changes them, holds the lock.
        self.faults: list[Fault] = []
        self.frozen: str | None = None  # the time at which the clock stands
        self.journal: deque[Visit] = deque(maxlen=500)

    def get(self, name: str, id: str) -> Row:
        """One row. Raises NotFoundError."""
        with self._lock:
            return self._find(name, id)

    def version(self, name: str) -> int:
        """The version of a table; it changes with every change of a row."""
        with self._lock:
            return self._tables[name].version

    def rows(self, name: str) -> tuple[int, list[Row]]:
        """A table's version and its rows, oldest first."""
        with self._lock:
            table = self._tables[name]
            return table.version, list(table.rows.values())

    def state(self) -> dict[str, list[Row]]:
        """All rows of all tables, at one moment."""
        with self._lock:
            return {name: list(table.rows.values()) for name, table in self._tables.items()}

    def create(self, name: str, body: Mapping[str, Any]) -> Row:
        """Add a row. Raises InvalidError, ConflictError."""
        findings = list(check(RESOURCES[name].new, body))
        with self._lock:
            values = self._accept(name, None, body, findings)
            table = self._own(name)
            return table.put(RESOURCES[name].model(id=table.free_id(), created_at=self.now(), **values))

    def update(self, name: str, id: str, body: Mapping[str, Any], expected: Expected = None) -> Row:
        """Merge fields into a row. Raises NotFoundError, StaleError, InvalidError, ConflictError."""
        findings = list(check(RESOURCES[name].change, body))
        with self._lock:
            row = self._find(name, id, expected)
            values = self._accept(name, row, body, findings)
            return self._own(name).put(replace(row.record, updated_at=self.now(), **values))

    def delete(self, name: str, id: str, expected: Expected = None) -> None:
        """Remove a row. Raises NotFoundError, StaleError, ConflictError."""
        with self._lock:
            self._find(name, id, expected)
            for table in self._tables.values():
                if other := table.holder(Reference(name, id)):
                    title, by = RESOURCES[name].title, table.resource.title.lower()
                    raise ConflictError("id", f"{title} {id} is named by {by} {other}")
            self._own(name).remove(id)

    def load(self, state: Mapping[str, Any]) -> None:
        """Replace all rows. Raises InvalidError."""
        tables = tables_of(state, self.now())
        with self._lock:
            self._tables = tables

    def _find(self, name: str, id: str, expected: Expected = None) -> Row:
        row = self._tables[name].rows.get(id)
        if row is None:
            raise NotFoundError(f"{RESOURCES[name].title} not found")
        if expected is not None and row.tag not in expected:
            raise StaleError("Precondition failed")
        return row

    def _accept(self, name: str, row: Row | None, body: Mapping[str, Any],
                findings: list[Finding]) -> dict[str, Any]:
        """The values of a body for a row. Raises InvalidError, ConflictError."""
        if found := problems(findings, lambda name: self._tables[name].rows):
            raise InvalidError(found)
        if RESOURCES[name].unique:
            mine = RESOURCES[name].claims(row.record) if row else ()
            for claim in unique_values(RESOURCES[name].change, body):
                if claim not in mine and (other := self._tables[name].holder(claim)):
                    by = RESOURCES[name].title.lower()
                    raise ConflictError(claim[0], f"{label(claim[0])} {claim[1]} is taken by {by} {other}")
        return RESOURCES[name].values(body)

    def _own(self, name: str) -> Table:
        """The table to change: sessions share the seed's, so the first change copies it."""
        if self._tables[name] is self._seed[name]:
            self._tables[name] = self._seed[name].copy()
        return self._tables[name]

    def now(self) -> str:
        """The time that new timestamps get."""
        return self.frozen or timestamp()

    def strike(self, method: str, path: str) -> Fault | None:
        """Use the first fault that fits a request; one that is used up is gone."""
        with self._lock:
            faults = self.faults
            for index, fault in enumerate(faults):
                if fault.method in ("*", method) and fnmatchcase(path, fault.path):
                    left = fault.times and fault.times - 1
                    faults[index:index + 1] = [] if left == 0 else [replace(fault, times=left)]
                    return fault
        return None


class Cache:
    """Values by key; beyond a total of sizes, the least recently used are forgotten."""

    def __init__(self, most: int) -> None:
        self._lock = Lock()
        self._most, self._size = most, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: Any, size: int) -> Any:
        """Keep a value, and return it."""
        with self._lock:
            self._size += size - self._values.pop(key, (None, 0))[1]
            self._values[key] = (value, size)
            while self._size > self._most:
                self._size -= self._values.popitem(last=False)[1][1]
        return value

    def put_again(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value from its second time on.

        For long ones: few are asked for twice before they change, and to keep each would make
        all of them a fifth slower, as new memory is cold.
        """
        with self._lock:
            seen = key in self._values
        self.put(key, *((value, size) if seen else (None, 200)))


class Sessions:
    """A store for each name, from its first use on: 256 at most, of which the least recently used goes.

    None is the name of the default one, which stays. A reset puts a new store in the place of the
    old one: a request that is still under way writes into a store that nobody will look at again.
    """

    def __init__(self, seed: Mapping[str, Table]) -> None:
        self._lock = Lock()  # so that a name's first two requests get one store
        self._seed = seed
        self._default = Store(seed)
        self._named = Cache(256)

    def get(self, name: str | None) -> Store:
        """The session's store. The name has to be checked against TOKEN before."""
        if name is None:
            return self._default
        with self._lock:
            found: Store = self._named.get(name) or self._named.put(name, Store(self._seed), 1)
            return found

    def reset(self, name: str | None) -> None:
        """Give the session the seed's rows, a running clock, no faults and an empty journal."""
        with self._lock:
            if name is None:
                self._default = Store(self._seed)
            else:
                self._named.put(name, Store(self._seed), 1)


# Seeds

DEMO_ITEMS = [  # name, description, status, quantity
    ("Ceramic mug, 350 ml", "Dishwasher-safe, glazed in blue", "active", 120),
    ("Walnut desk organiser", "Five compartments, oiled by hand", "active", 34),
    ("Linen notebook A5", "160 pages, dotted", "active", 260),
    ("Brass desk lamp", "Dimmable, with an E14 bulb", "pending", 8),
    ("Felt laptop sleeve 13 inch", "", "active", 57),
    ("Oak monitor stand", "Carries 20 kg", "completed", 0),
    ("Fountain pen, medium nib", "With a converter", "active", 41),
    ("Ink, midnight blue, 50 ml", "", "active", 95),
    ("Cork pinboard 60 × 40", "Frame of pine", "pending", 12),
    ("Paper clips, box of 100", "Steel, 28 mm", "active", 740),
    ("Wool seat cushion", "Discontinued", "completed", 3),
    ("Whiteboard markers, set of 4", "Black, red, blue, green", "active", 66),
]
DEMO_ORDERS = [  # internal number, status, lines of item and quantity
    ("ORD-2026-001", "completed", [("2", 1), ("3", 5)]),
    ("ORD-2026-002", "shipped", [("7", 2), ("8", 4)]),
    ("ORD-2026-003", "pending", [("10", 12), ("12", 3), ("3", 20)]),
    ("ORD-2026-004", "pending", [("5", 1)]),
]
COLOURS = ("Red", "Blue", "Green", "White", "Black", "Amber", "Grey")
THINGS = ("mug", "lamp", "desk", "chair", "shelf")
STATUSES = tuple(ItemStatus)
START = datetime(2026, 1, 5, 9, tzinfo=UTC)


def seed(source: str) -> dict[str, Table]:
    """The tables to begin with: `demo`, a number of generated items, a .json file, or empty for none.

    Raises InvalidError or MalformedError for what a file holds, OSError if it cannot be read.
    """
    if source == "demo":
        return tables_of(demo(), timestamp())
    if source.endswith(".json"):
        return tables_of(parse(Path(source).read_bytes()), timestamp())
    tables = tables_of({}, "")
    generate(tables["items"], int(source or 0))
    return tables


def demo() -> dict[str, Any]:
    """A small shop, in the form of a whole state."""
    items: list[dict[str, Any]] = [
        dict(zip(("name", "description", "status", "quantity"), row, strict=True)) for row in DEMO_ITEMS]
    orders: list[dict[str, Any]] = [
        {"internal_number": number, "status": status,
         "items": [{"item_id": id, "quantity": quantity} for id, quantity in lines]}
        for number, status, lines in DEMO_ORDERS]
    for hours, row in enumerate(items + orders):
        row["created_at"] = timestamp(START + timedelta(hours=hours))
    return {"items": items, "orders": orders}


def generate(table: Table, size: int) -> None:
    """Fill a table with items, the same each time."""
    gc.disable()  # nothing here becomes garbage, and looking for it takes a third of the time
    for first in range(1, size + 1, 100):
        created_at = timestamp(START + timedelta(minutes=first // 100))  # one text for a hundred rows
        for number in range(first, min(first + 100, size + 1)):
            name = f"{COLOURS[number % len(COLOURS)]} {THINGS[number % len(THINGS)]} {number}"
            table.put(Item(id=str(number), created_at=created_at, name=name,
                           status=STATUSES[number * 7 % 11 % 3], quantity=number * 37 % 251))
    gc.enable()
