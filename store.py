"""The data: records and their rules, lists, a locked store, and the sessions that keep stores apart.

Read it from top to bottom: each section uses only what stands above it. Only a fault's fields know of HTTP.
"""

import json
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import partial
from itertools import count
from json.encoder import encode_basestring_ascii
from operator import attrgetter, contains, ge, gt, le, lt, ne
from threading import Lock
from types import NoneType
from typing import Any, NamedTuple

# Errors


class StoreError(Exception):
    """A refusal in one sentence: the first of its problems, a sentence by each place, if it has no other."""

    def __init__(self, problems: Mapping[str, str], sentence: str = "") -> None:
        super().__init__(sentence or next(iter(problems.values())))
        self.problems = problems


class InvalidError(StoreError):
    """Raised if something breaks the rules."""


class NotFoundError(StoreError):
    """Raised if there is no row with the id."""


class StaleError(StoreError):
    """Raised if a row is no longer in a version that the caller expects."""


class ConflictError(StoreError):
    """Raised if a valid change collides with another row."""


# Rules: a field's metadata is its JSON Schema; the description says what it allows, x- marks our own keywords

Schema = Mapping[str, Any]


class Claim(NamedTuple):
    """What only the other rows can settle: that a value is unique, or that it is the id of one of them."""

    refers: bool
    of: str  # the resource that it refers to, or else the field in which it is unique
    value: str


Finding = tuple[str, str, Claim | None]  # a place, the sentence of its problem, and what decides if it is one


def rule(kind: str | list[str], words: str, **keywords: Any) -> dict[str, Any]:
    """A schema, and what it allows in words."""
    texts = {word: ", ".join(value) if isinstance(value, list) else value for word, value in keywords.items()}
    return {"type": kind, **keywords, "description": words.format_map(texts)}


def closed(properties: Mapping[str, Schema], needed: Iterable[str] = ()) -> dict[str, Any]:
    """The schema of an object that has these properties and no others."""
    return rule("object", "an object", properties=properties, required=[*needed], additionalProperties=False)


SPACES = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # as str.isspace
TOKEN = rule("string", "1 to 64 of the characters A-Z a-z 0-9 . _ -", pattern=r"^[A-Za-z0-9._-]{1,64}$")
ID = rule("string", TOKEN["description"] + ", but not . or ..", pattern=r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$")
TIME = rule("string", "a UTC time such as 2026-01-01T09:30:00.000Z", format="date-time")
STRING = rule("string", "a string")
TEXT = partial(rule, "string", "a string of at most {maxLength} characters")
NAME = partial(rule, "string", "a string of 1 to {maxLength} characters, not all blank",
               minLength=1, pattern=rf"^[\s\S]*[^{SPACES}][\s\S]*$")
ONE_OF = partial(rule, "string", "one of {enum}")
INTEGER = rule("integer", "an integer")
WHOLE = partial(rule, "integer", "an integer from {minimum} to {maximum}",
                minimum=0, maximum=2**53 - 1)  # the largest that JavaScript holds exactly

TYPES = {str: "string", int: "integer", bool: "boolean", NoneType: "null", dict: "object", list: "array",
         tuple: "array"}
KEYWORDS: dict[str, Callable[[Any, Any], bool]] = {
    "type":      lambda value, names: TYPES.get(type(value), "number") in names,  # one name, or a list
    "enum":      lambda value, names: value in names,
    "minimum":   ge,
    "maximum":   le,
    "minLength": lambda value, least: len(value) >= least,
    "maxLength": lambda value, most: len(value) <= most,
    "maxItems":  lambda value, most: len(value) <= most,
    "pattern":   lambda value, pattern: re.fullmatch(pattern, value) is not None,
    "format":    lambda value, _: is_timestamp(value),
}


def timestamp(moment: datetime | None = None) -> str:
    """A moment (default: now) as JavaScript's `Date.toISOString()` writes it: UTC, milliseconds."""
    return (moment or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_timestamp(text: str) -> bool:
    """Whether it is a moment, in exactly the form that `timestamp` writes."""
    try:
        return text.endswith("Z") and timestamp(datetime.fromisoformat(text)) == text
    except ValueError:
        return False


def label(place: str) -> str:
    """A place as a sentence begins with it: `items[0].item_id` is "Item id", `API_PREFIX` stays as it is."""
    name = place.rpartition(".")[2]
    words = name if name.isupper() else name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def check(schema: Schema, value: Any, place: str = "") -> Iterator[Finding]:
    """Find in the schema's order what breaks it, or does so unless a claim can be granted."""
    if value is None and "null" in schema.get("type", "null"):
        return
    if not all(KEYWORDS[word](value, wanted) for word, wanted in schema.items() if word in KEYWORDS):
        yield place, f"{label(place)} must be {schema['description']}", None
    elif isinstance(value, dict):
        yield from check_properties(schema, value, place and f"{place}.")
    elif isinstance(value, list | tuple) and "items" in schema:
        for index, element in enumerate(value):
            yield from check(schema["items"], element, f"{place}[{index}]")
    elif of := schema.get("x-unique"):
        yield place, f"{label(place)} {value} is taken", Claim(False, of, value)
    elif of := schema.get("x-references"):
        yield place, f"{label(place)} must be the id of one of the {of}", Claim(True, of, value)


def check_properties(schema: Schema, value: Mapping[str, Any], prefix: str) -> Iterator[Finding]:
    """The part of `check` for an object."""
    rules = schema.get("properties", {})
    for name in rules:
        if name in value:
            yield from check(rules[name], value[name], prefix + name)
        elif name in schema.get("required", ()):
            yield prefix + name, f"{label(name)} is required", None
    for name in value if "additionalProperties" in schema else ():
        if name not in rules:
            yield prefix + name, f"{name} is not known here; allowed are {', '.join(rules)}", None


def require(findings: Iterable[Finding], ids: Callable[[str], Container[str]] = lambda of: ()) -> None:
    """Raise InvalidError with the first 100 problems, if any. `ids` gives those of a resource."""
    problems: dict[str, str] = {}
    seen: set[Claim | None] = set()
    for place, sentence, claim in findings:
        if not claim or (claim.value not in ids(claim.of) if claim.refers else claim in seen):
            problems[place] = sentence
        seen.add(claim)
        if len(problems) == 100:
            break
    if problems:
        raise InvalidError(problems)


def read(schema: Schema, text: str) -> int | str:
    """The integer that a text spells where the schema asks for one; otherwise the text."""
    if schema.get("type") == "integer" and re.fullmatch("-?[0-9]{1,1000}", text):
        return int(text)
    return text


# Records


class ItemStatus(StrEnum):
    """Where an item is in its life."""

    PENDING = "pending"
    ACTIVE = "active"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the store itself gives to each row."""

    id: str = field(metadata=ID | {"readOnly": True, "x-unique": True, "x-natural": True})
    created_at: str = field(metadata=TIME | {"readOnly": True})
    updated_at: str | None = field(default=None, metadata=TIME | {
        "readOnly": True, "type": ["string", "null"]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(Record):
    """Something in stock."""

    name: str = field(metadata=NAME(maxLength=255))
    description: str = field(default="", metadata=TEXT(maxLength=10_000))
    status: ItemStatus = field(default=ItemStatus.PENDING, metadata=ONE_OF(enum=list(ItemStatus)))
    quantity: int = field(default=0, metadata=WHOLE())


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Record):
    """What somebody ordered; a line may name an item and say how many, and hold anything else."""

    internal_number: str = field(metadata=NAME(maxLength=50) | {"x-unique": True})
    status: str = field(default="pending", metadata=NAME(maxLength=50))
    items: tuple[dict[str, Any], ...] = field(default=(), metadata=rule(
        "array", "an array of at most {maxItems} elements", maxItems=1000, items=rule(
            "object", "an object", properties={
                "item_id": STRING | {"x-references": "items"}, "quantity": WHOLE(minimum=1)})))


# Resources

IGNORED: Schema = {"description": "ignored, so that a row can be sent back as it came"}
ENCODERS: dict[type, Callable[[Any], str]] = {  # the rest is left to json.dumps
    str: encode_basestring_ascii, ItemStatus: encode_basestring_ascii, int: repr, NoneType: lambda _: "null"}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {  # of a list's filters, by what follows the field's name
    "": lambda value, several: value in several, "_ne": ne, "_gt": gt, "_gte": ge, "_lt": lt, "_lte": le,
    "_like": contains}


class Resource:
    """What follows from a dataclass of records: the schemas of what comes and goes, and a row's JSON."""

    def __init__(self, name: str, model: type[Record]) -> None:
        self.name, self.model, self.title = name, model, model.__name__
        columns = sorted(fields(model), key=lambda each: each.name in ("created_at", "updated_at"))
        rules = self.rules = {each.name: dict(each.metadata) for each in columns}
        for column in rules:
            if "x-unique" in rules[column]:
                rules[column]["x-unique"] = f"{name}.{column}"
        self.writable = [column for column in rules if "readOnly" not in rules[column]]
        self.texts = [column for column in self.writable if rules[column]["type"] == "string"]
        self.claiming = [column for column in self.writable if "x-" in repr(rules[column])]  # or in its items
        self.defaults = {each.name: each.default for each in columns if each.default is not MISSING}

        sent = {column: rules[column] if column in self.writable else IGNORED for column in rules}
        needed = [column for column in self.writable if column not in self.defaults]
        self.row, self.new, self.change = closed(rules, rules), closed(sent, needed), closed(sent)
        self.state = closed({column: each if column in self.writable else each | {"type": ["string", "null"]}
                             for column, each in rules.items()}, needed)
        self.filters = {
            column + suffix: (column, suffix) for column, each in rules.items() for suffix in OPERATORS
            if each["type"] != "array" and not ("integer" in each["type"] and suffix == "_like")}
        self.query = closed(query_rules(self))

        self._types: dict[str, Any] = {
            each.name: each.type for each in columns if {"enum", "items"} & each.metadata.keys()}
        self._template = "{" + ", ".join(f'"{column}": %s' for column in rules) + "}\n"
        self._values = attrgetter(*rules)

    def values(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a checked body that a client may write, in the types of the record."""
        return {name: self._types[name](body[name]) if name in self._types else body[name]
                for name in self.writable if name in body}

    def claims(self, record: Record) -> set[Claim]:
        """What a record takes for itself, and what it refers to."""
        return {claim for name in self.claiming
                for _, _, claim in check(self.rules[name], getattr(record, name)) if claim}

    def json(self, record: Record) -> bytes:
        """A record as a line of JSON, field by field: in less than half the time of `json.dumps`."""
        texts = [ENCODERS.get(type(value), json.dumps)(value) for value in self._values(record)]
        return (self._template % tuple(texts)).encode()


def query_rules(resource: Resource) -> dict[str, Schema]:
    """The schemas of a list's parameters. A filter takes what the field's type has, or a text to look for."""
    rules = {name: INTEGER if "integer" in resource.rules[column]["type"] else
             resource.rules[column] if "enum" in resource.rules[column] and suffix != "_like" else STRING
             for name, (column, suffix) in resource.filters.items()}
    names = dict.fromkeys(column for column, _ in resource.filters.values())
    one = f"-?({'|'.join(names)})"
    return rules | {
        "q": STRING,
        "sort": rule("string", f"a comma-separated list of {', '.join(names)}, with - before one to descend",
                     pattern=f"^{one}(,{one})*$"),
        "page": rule("integer", "an integer of at least {minimum}", minimum=1),
        "per_page": WHOLE(minimum=1, maximum=1000)}


RESOURCES = {each.name: each for each in (Resource("items", Item), Resource("orders", Order))}
STATE = closed({name: rule("array", "an array", items=each.state) for name, each in RESOURCES.items()})

# Rows and lists

versions = count(time.time_ns() // 1000)  # microseconds: above all that an earlier process can have counted


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it is stored, with its JSON. Its version is that of no other content, in any store."""

    record: Record
    version: int
    json: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table's rows at one moment, oldest first, with a version like a row's, and lists made of them."""

    rows: tuple[Row, ...]
    version: int
    lists: dict[Any, Any] = field(default_factory=dict)  # they go with the snapshot, so none is ever stale


def key_of(schema: Schema, suffix: str = "", get: Callable[..., Any] = lambda v: v) -> Callable[..., Any]:
    """What to compare by: ids by length first, so 2 before 10; null before all; `_like` without case."""
    if suffix == "_like":
        return lambda each: get(each).casefold()
    if "x-natural" in schema:
        return lambda each: (len(get(each)), get(each))
    if "null" in schema["type"]:  # which a query spells as nothing
        return lambda each: (False,) if get(each) in (None, "") else (True, get(each))
    return get


def select(resource: Resource, rows: Sequence[Row], query: Mapping[str, Any]) -> Sequence[Row]:
    """The rows that a query (see `resource.query`) asks for, in its order."""
    for name in query.keys() & resource.filters:
        column, suffix = resource.filters[name]
        schema, get, holds = resource.rules[column], attrgetter(f"record.{column}"), OPERATORS[suffix]
        if suffix not in ("", "_ne"):  # only these two know null
            rows = [row for row in rows if get(row) is not None]
        key, wanted = key_of(schema, suffix, get), list(map(key_of(schema, suffix), query[name]))
        for each in wanted if suffix else [wanted]:
            rows = [row for row in rows if holds(key(row), each)]
    for part in map(str.casefold, query.get("q", ())):
        rows = [row for row in rows
                if any(part in getattr(row.record, name).casefold() for name in resource.texts)]
    for name in reversed(query["sort"].split(",") if "sort" in query else ()):
        column = name.lstrip("-")
        key = key_of(resource.rules[column], get=attrgetter(f"record.{column}"))
        rows = sorted(rows, key=key, reverse=name.startswith("-"))
    return rows


# The store

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
STATUS = WHOLE(minimum=400, maximum=599)
DELAY = WHOLE(maximum=30_000)
OR_NULL = partial(rule, ["integer", "null"], "an integer from {minimum} to {maximum}, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What awaits the next `times` requests that fit (None: all of them): `status`, after `delay` ms."""

    method: str = field(default="*", metadata=ONE_OF(enum=["*", *METHODS]))
    path: str = field(metadata=rule("string", "a pattern such as /items/* or *, of 1000 characters at most",
                                    pattern=r"^[/*?\[][\s\S]{0,999}$"))
    status: int | None = field(default=503, metadata=OR_NULL(minimum=400, maximum=599))
    delay: int = field(default=0, metadata=DELAY)
    times: int | None = field(default=1, metadata=OR_NULL(minimum=1, maximum=2**53 - 1))
    after: bool = field(default=False, metadata=rule("boolean", "true or false"))

    def __post_init__(self) -> None:
        if self.after and self.status is None:
            raise InvalidError({"after": "After must be false where status is null"})


FAULT = closed({each.name: each.metadata for each in fields(Fault)}, ["path"])


@dataclass
class Tables:
    """The rows of each resource, oldest first, and what is kept beside them so that no write scans them."""

    rows: dict[str, dict[str, Row]] = field(default_factory=lambda: {name: {} for name in RESOURCES})
    holders: dict[Claim, dict[tuple[str, str], None]] = field(default_factory=dict)  # by resource and id
    numbers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RESOURCES, 1))  # the next new ids
    snapshots: dict[str, Snapshot] = field(default_factory=dict)  # of tables that have not changed since

    def copy(self) -> "Tables":
        """Tables that change by themselves. The rows, which never change, are shared."""
        rows = {name: table.copy() for name, table in self.rows.items()}
        holders = {claim: each.copy() for claim, each in self.holders.items()}
        return Tables(rows, holders, self.numbers.copy(), self.snapshots.copy())

    def put(self, name: str, record: Record) -> Row:
        """Add a record as the newest row, or in the place of the row with its id."""
        row = Row(record, next(versions), RESOURCES[name].json(record))
        self._release(name, record.id)
        self.rows[name][record.id] = row
        for claim in RESOURCES[name].claims(record):
            self.holders.setdefault(claim, {})[name, record.id] = None
        if record.id == str(self.numbers[name]):
            self.numbers[name] += 1
        return row

    def remove(self, name: str, id: str) -> None:
        """Take a row out."""
        self._release(name, id)
        del self.rows[name][id]

    def _release(self, name: str, id: str) -> None:
        """Forget what a change makes old: the snapshot, and the claims of the row that is to go, if any."""
        self.snapshots.pop(name, None)
        if row := self.rows[name].get(id):
            for claim in RESOURCES[name].claims(row.record):
                del self.holders[claim][name, id]
                if not self.holders[claim]:
                    del self.holders[claim]

    def snapshot(self, name: str) -> Snapshot:
        """The rows of a table as they are now."""
        if name not in self.snapshots:
            self.snapshots[name] = Snapshot(tuple(self.rows[name].values()), next(versions))
        return self.snapshots[name]

    def free_id(self, name: str) -> str:
        """The id for a new row."""
        while str(self.numbers[name]) in self.rows[name]:
            self.numbers[name] += 1
        return str(self.numbers[name])


def tables_of(state: Mapping[str, Any], now: str) -> Tables:
    """Tables with the rows of a whole state, with ids and times where it has none.

    Raises InvalidError with every problem by its place, such as `orders[0].items[2].item_id`.
    """
    tables, ids = Tables(), dict[str, dict[str, None]]()
    for name in RESOURCES:
        tables.numbers[name], ids[name] = numbered(state.get(name))
    require(check(STATE, state), ids.__getitem__)
    for name, resource in RESOURCES.items():
        for id, row in zip(ids[name], state.get(name, ()), strict=True):
            tables.put(name, resource.model(id=id, created_at=row.get("created_at") or now,
                                            updated_at=row.get("updated_at"), **resource.values(row)))
    return tables


def numbered(rows: Any) -> tuple[int, dict[str, None]]:
    """The ids of rows that nobody has checked yet, numbers where they have none, and the first of these."""
    given = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    taken = {id for id in given if isinstance(id, str)}
    first = 1 + max((int(id) for id in taken if re.fullmatch("[0-9]{1,15}", id)), default=0)
    free = (id for id in map(str, count(first)) if id not in taken)
    return first, {next(free) if id is None else str(id): None for id in given}


Expected = Container[str] | None  # versions of which a row must have one; None for any


class Store:
    """The rows, clock, faults and journal of one session. Every method may be called from any thread.

    What leaves the lock is nobody's to spoil: a `Row` never changes, a change puts another in its place.
    """

    def __init__(self, seed: Tables) -> None:
        # The lock policy: whoever reads or changes the tables holds this lock, from the first look
        # to the last change, or another thread changes in between what was looked at.
        # It is one for all tables because a rule may span two: an item that an order names stays.
        # Nothing slow happens under it: bodies are checked before, lists are made after.
        self._lock = Lock()
        self._seed = self._tables = seed
        # From outside these are only set, appended to or read as a whole, each of which is one step.
        self.faults: list[Fault] = []
        self.frozen: str | None = None  # the time at which the clock stands
        self.journal: deque[dict[str, Any]] = deque(maxlen=500)

    def get(self, name: str, id: str) -> Row:
        """One row. Raises NotFoundError."""
        with self._lock:
            return self._find(name, id)

    def state(self, *names: str) -> dict[str, Snapshot]:
        """The tables with these names, or all of them, at one moment."""
        with self._lock:
            return {name: self._tables.snapshot(name) for name in names or RESOURCES}

    def create(self, name: str, body: Mapping[str, Any]) -> Row:
        """Add a row. Raises InvalidError, ConflictError."""
        findings = list(check(RESOURCES[name].new, body))
        with self._lock:
            self._settle(findings)
            tables = self._own()
            return tables.put(name, RESOURCES[name].model(
                id=tables.free_id(name), created_at=self.now(), **RESOURCES[name].values(body)))

    def update(self, name: str, id: str, body: Mapping[str, Any], expected: Expected = None) -> Row:
        """Merge fields into a row. Raises NotFoundError, StaleError, InvalidError, ConflictError."""
        findings = list(check(RESOURCES[name].change, body))
        with self._lock:
            row = self._find(name, id, expected)
            self._settle(findings, (name, id))
            values = RESOURCES[name].values(body)
            return self._own().put(name, replace(row.record, updated_at=self.now(), **values))

    def delete(self, name: str, id: str, expected: Expected = None) -> None:
        """Remove a row. Raises NotFoundError, StaleError, ConflictError."""
        with self._lock:
            self._find(name, id, expected)
            if holders := self._tables.holders.get(Claim(True, name, id)):
                other, number = next(iter(holders))
                holder = f"{RESOURCES[other].title.lower()} {number}"
                raise ConflictError({"id": f"{RESOURCES[name].title} {id} is named by {holder}"})
            self._own().remove(name, id)

    def load(self, state: Mapping[str, Any]) -> None:
        """Replace all rows. Raises InvalidError."""
        tables = tables_of(state, self.now())
        with self._lock:
            self._tables = tables

    def _find(self, name: str, id: str, expected: Expected = None) -> Row:
        row = self._tables.rows[name].get(id)
        if row is None:
            raise NotFoundError({}, f"{RESOURCES[name].title} not found")
        if expected is not None and str(row.version) not in expected:
            raise StaleError({}, "Precondition failed")
        return row

    def _settle(self, findings: list[Finding], claimant: tuple[str, str] | None = None) -> None:
        """Raise InvalidError, ConflictError unless the tables grant what a row (None: a new one) claims."""
        require(findings, self._tables.rows.__getitem__)
        for place, sentence, claim in findings:
            if claim and not claim.refers and self._tables.holders.get(claim, {}).keys() - {claimant}:
                raise ConflictError({place: sentence})

    def _own(self) -> Tables:
        """The tables to change: sessions share the seed's, so the first change copies them."""
        if self._tables is self._seed:
            self._tables = self._seed.copy()
        return self._tables

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


class Sessions:
    """A store for each name and the default one, None, which stays; over 256 the least recently used goes."""

    def __init__(self, seed: Tables) -> None:
        self._lock = Lock()  # so that a name's first two requests get one store
        self._seed = seed
        self._stores: OrderedDict[str | None, Store] = OrderedDict({None: Store(seed)})

    def get(self, name: str | None) -> Store:
        """The session's store. The name has to be checked against TOKEN before."""
        with self._lock:
            if name not in self._stores:
                self._stores[name] = Store(self._seed)
            self._stores.move_to_end(name)
            self._stores.move_to_end(None)  # never the least recently used one
            if len(self._stores) > 257:
                self._stores.popitem(last=False)
            return self._stores[name]

    def reset(self, name: str | None) -> None:
        """Give the session the seed's rows, a running clock, no faults and an empty journal."""
        with self._lock:  # a request still under way writes into the old store, where nobody will look again
            self._stores[name] = Store(self._seed)
