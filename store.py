"""The data: records, the rules that they obey, and a store that threads can share.

Read this module from top to bottom: each section uses only what stands above it.
Nothing in it answers a request. The views in inventory.py call a store, and the store
gives them rows or raises one of the errors with which this module begins.
"""

import json
import re
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import count, islice
from operator import attrgetter, ge, gt, le, lt, ne
from threading import Event, Lock
from types import NoneType
from typing import Any, ClassVar, NamedTuple

# ----------------------------------------------------------------------
# Errors
#
# The store refuses by raising. An error carries what a caller needs for its answer, so
# that nobody has to take its text apart.
# ----------------------------------------------------------------------


class StoreError(Exception):
    """A refusal, told in one sentence.

    `problems` maps places to sentences. A place says where in the data something is
    wrong, such as `name` or `items[0].item_id`.
    """

    def __init__(
        self, sentence: str, problems: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.problems = dict(problems or {})


class InvalidError(StoreError):
    """Raised if data breaks a rule."""


class NotFoundError(StoreError):
    """Raised if there is no row with the given id."""


class StaleError(StoreError):
    """Raised if a row has changed since the version that the caller knows."""


class ConflictError(StoreError):
    """Raised if a change is valid by itself and collides with another row."""


Problem = tuple[str, str]  # a place, and a sentence that says what is wrong there

MAX_PROBLEMS = 100


def refuse(problems: Iterable[Problem]) -> None:
    """Raise InvalidError if there are problems, with the sentence of the first one."""
    first_problems: dict[str, str] = {}
    for place, sentence in islice(problems, MAX_PROBLEMS):
        first_problems.setdefault(place, sentence)
    if first_problems:
        sentences = list(first_problems.values())
        raise InvalidError(sentences[0], first_problems)


# ----------------------------------------------------------------------
# Rules
#
# A rule says what a value must be, in words of JSON Schema (https://json-schema.org).
# The same dictionary validates data and is published in the API's description. Its
# `description` finishes the sentence "Quantity must be ...".
# ----------------------------------------------------------------------

Rule = Mapping[str, Any]

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (NoneType,),
    "object": (dict,),
    "array": (list,),
}


def types_of(rule: Rule) -> list[str]:
    """The names of the types that a rule allows: one, a list of them, or none."""
    types = rule.get("type", [])
    if isinstance(types, str):
        return [types]
    return list(types)


def has_type(rule: Rule, value: Any) -> bool:
    """Whether a value is of one of the types that a rule allows."""
    # The exact type is compared, because in Python True is an instance of int as well.
    return any(type(value) in TYPES[name] for name in types_of(rule))


def is_timestamp(text: str) -> bool:
    """Whether a text is a UTC moment in the form that `timestamp` writes."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return False
    return moment.tzinfo == UTC and timestamp(moment) == text


def timestamp(moment: datetime) -> str:
    """Write a UTC moment as JavaScript's `Date.toISOString()` does, in milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_email(text: str) -> bool:
    """Whether a text looks like an email address: something, an @, and a domain."""
    return re.fullmatch(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)*", text) is not None


# No field of items or orders is an email address. It is there for other resources.
FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": is_timestamp,
    "email": is_email,
}


def is_one_of(value: Any, allowed: Container[Any]) -> bool:
    return value in allowed


def is_long_enough(value: Any, limit: int) -> bool:
    return len(value) >= limit


def is_short_enough(value: Any, limit: int) -> bool:
    return len(value) <= limit


def matches(value: str, pattern: str) -> bool:
    # `fullmatch`, because Python's $ also fits before a line break at the end. Patterns
    # have ^ and $ for other tools, which read them in the API's description.
    return re.fullmatch(pattern, value) is not None


def has_format(value: str, name: str) -> bool:
    return FORMATS[name](value)


# The words that limit a single value, each with its test. It is called with the value
# and with what the rule says for the word, once the value is of the right type.
LIMITS: dict[str, Callable[[Any, Any], bool]] = {
    "enum": is_one_of,
    "minimum": ge,
    "maximum": le,
    "minLength": is_long_enough,
    "maxLength": is_short_enough,
    "maxItems": is_short_enough,
    "pattern": matches,
    "format": has_format,
}
# The words that the functions below handle, and those that only inform.
STRUCTURE = ("type", "properties", "required", "additionalProperties", "items")
ANNOTATIONS = ("description", "readOnly")


def require_known_words(rule: Rule) -> None:
    """Raise ValueError for a word, type or format that is not in the tables above."""
    for word in rule:
        require_known(word, [*LIMITS, *STRUCTURE, *ANNOTATIONS])
    for name in types_of(rule):
        require_known(name, TYPES)
    if "format" in rule:
        require_known(rule["format"], FORMATS)
    for property_rule in rule.get("properties", {}).values():
        require_known_words(property_rule)
    if "items" in rule:
        require_known_words(rule["items"])


def require_known(name: str, known: Collection[str]) -> None:
    """Raise ValueError if a name is none of the known ones."""
    if name not in known:
        raise ValueError(f"a rule has {name!r}; known are {', '.join(known)}")


# JavaScript holds integers exactly up to this one, Number.MAX_SAFE_INTEGER.
MAX_INTEGER = 2**53 - 1

# A pattern for text with at least one character that is no white space.
NOT_BLANK = r"^\s*\S[\s\S]*$"


def make_rule(type_name: str, description: str, **words: Any) -> Rule:
    """Make a rule of its type, its words and its description. Raises ValueError."""
    rule = {"type": type_name, **words, "description": description}
    require_known_words(rule)
    return rule


def text_rule(max_length: int) -> Rule:
    """A string, which may be empty. Lengths count Unicode code points."""
    description = f"a string of at most {max_length} characters"
    return make_rule("string", description, maxLength=max_length)


def name_rule(max_length: int) -> Rule:
    """A string in which there is something to see."""
    return make_rule(
        "string",
        f"a string of 1 to {max_length} characters, not all blank",
        minLength=1,
        maxLength=max_length,
        pattern=NOT_BLANK,
    )


def choice_rule(choices: Iterable[str]) -> Rule:
    """One of a few strings."""
    names = [str(choice) for choice in choices]
    return make_rule("string", f"one of {', '.join(names)}", enum=names)


def integer_rule(minimum: int, maximum: int = MAX_INTEGER) -> Rule:
    """An integer within two limits."""
    description = f"an integer from {minimum} to {maximum}"
    return make_rule("integer", description, minimum=minimum, maximum=maximum)


def array_rule(element_rule: Rule, max_items: int | None = None) -> Rule:
    """An array whose elements all obey one rule."""
    if max_items is None:
        return make_rule("array", "an array", items=element_rule)
    description = f"an array of at most {max_items} elements"
    return make_rule("array", description, items=element_rule, maxItems=max_items)


def object_rule(properties: Mapping[str, Rule], required: Iterable[str] = ()) -> Rule:
    """An object that has these properties and no others."""
    return make_rule(
        "object",
        "an object",
        properties=properties,
        required=list(required),
        additionalProperties=False,
    )


def nullable(rule: Rule) -> Rule:
    """The same rule, but null is allowed as well."""
    types = types_of(rule)
    if "null" in types:
        return rule
    description = f"{rule['description']} or null"
    changed = {**rule, "type": [*types, "null"], "description": description}
    if "enum" in rule:
        changed["enum"] = [*rule["enum"], None]
    return changed


STRING_RULE = make_rule("string", "a string")
INTEGER_RULE = make_rule("integer", "an integer")
NUMBER_RULE = make_rule("number", "a number")
BOOLEAN_RULE = make_rule("boolean", "true or false")
ANY_OBJECT_RULE = make_rule("object", "an object")
TIMESTAMP_RULE = make_rule(
    "string", "a UTC time such as 2026-01-01T09:30:00.000Z", format="date-time"
)
SESSION_NAME_RULE = make_rule(
    "string",
    "a string of 1 to 64 of the characters A-Z a-z 0-9 . _ -",
    pattern=r"^[A-Za-z0-9._-]{1,64}$",
)
# Clients shorten the path /items/.. to / before they send it, so a row with the id ..
# could not be reached. The part (?!...) of the pattern refuses an id that is just one
# dot, or two.
ROW_ID_RULE = make_rule(
    "string",
    f"{SESSION_NAME_RULE['description']}, but not . or ..",
    pattern=r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$",
)


def check(rule: Rule, value: Any, place: str = "") -> Iterator[Problem]:
    """Yield the problems of a JSON value, in the order of the rule.

    `place` is where the value stands in the data of which it is a part. As data can be
    nested, so are the calls; `yield from` hands on what the inner call yields.
    """
    if not obeys(rule, value):
        yield place, f"{label(place)} must be {rule['description']}"
    elif isinstance(value, dict):
        yield from check_properties(rule, value, place)
    elif isinstance(value, list) and "items" in rule:
        for index, element in enumerate(value):
            yield from check(rule["items"], element, f"{place}[{index}]")


def validate(rule: Rule, value: Any, place: str = "") -> None:
    """Raise InvalidError if a JSON value breaks a rule."""
    refuse(check(rule, value, place))


def obeys(rule: Rule, value: Any) -> bool:
    """Whether a value has the rule's type and keeps its limits, not looking inside."""
    if "type" in rule and not has_type(rule, value):
        return False
    if value is None:
        return True  # null has the right type, and nothing that could be limited
    for word, limit in rule.items():
        if word in LIMITS and not LIMITS[word](value, limit):
            return False
    return True


def check_properties(
    rule: Rule, value: dict[str, Any], place: str
) -> Iterator[Problem]:
    """Yield the problems inside an object."""
    prefix = f"{place}." if place else ""
    properties = rule.get("properties", {})
    for name, property_rule in properties.items():
        if name in value:
            yield from check(property_rule, value[name], prefix + name)
        elif name in rule.get("required", ()):
            yield prefix + name, f"{label(name)} is required"
    if rule.get("additionalProperties", True):
        return  # JSON Schema allows other names unless a rule says that it does not
    for name in value:
        if name not in properties:
            yield prefix + name, unknown_name(name, properties)


def unknown_name(name: str, allowed: Iterable[str]) -> str:
    """The sentence for a name that nobody has declared."""
    return f"{name} is not known here; allowed are {', '.join(allowed)}"


def label(place: str) -> str:
    """How a sentence names a place: `items[0].item_id` is "Item id", `_delay` "Delay".

    Names in capitals, as settings have, stay as they are.
    """
    name = place.rpartition(".")[2]
    if name.isupper():
        return name
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def read_text(rule: Rule, text: str) -> Any:
    """Read the value that a text spells. Query strings and settings have only texts.

    A text that spells no value of the rule's type is returned as it is, for `check` to
    refuse. So is a number with too many digits. The limits are below those of Python,
    which raises an error for an integer of more than 4,300 digits, and reads a float of
    more than 308 digits as infinity.
    """
    types = types_of(rule)
    if text == "" and "null" in types:
        return None
    is_integer = re.fullmatch("-?[0-9]{1,1000}", text) is not None
    if is_integer and ("integer" in types or "number" in types):
        return int(text)
    if "number" in types and re.fullmatch(r"-?[0-9]{1,300}(\.[0-9]+)?", text):
        return float(text)
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    return text


# ----------------------------------------------------------------------
# Records
#
# A record is a frozen dataclass: it never changes, so any thread may keep one and read
# it whenever it likes. A change makes a new record. The rule of a field stands in the
# field's metadata, a place that dataclasses offer and do not use themselves. A client
# must send the fields that have no default and are not read-only.
# ----------------------------------------------------------------------

# The store gives these fields their values. What a client sends for them is ignored,
# except in a whole state (see the section of that name).
READ_ONLY = {"readOnly": True}


class Reference(NamedTuple):
    """The row that a record names: the name of its resource, and its id."""

    resource: str
    id: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """What every record has. The times are UTC; `updated_at` is None until a change."""

    # The names of fields in which no two records of a resource may have the same value.
    unique_fields: ClassVar[tuple[str, ...]] = ()
    # Functions that turn a JSON value into that of the field, by the field's name: a
    # string into an enum, or an array into a tuple.
    converters: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}

    id: str = field(metadata={**ROW_ID_RULE, **READ_ONLY})
    created_at: str = field(metadata={**TIMESTAMP_RULE, **READ_ONLY})
    updated_at: str | None = field(
        default=None, metadata={**nullable(TIMESTAMP_RULE), **READ_ONLY}
    )

    def unique_values(self) -> list[tuple[str, Any]]:
        """The names and the values of the unique fields that are not None."""
        values = [(name, getattr(self, name)) for name in self.unique_fields]
        return [(name, value) for name, value in values if value is not None]

    def references(self) -> dict[str, Reference]:
        """The rows that this record names, as `{"items[0].item_id": Reference(...)}`.

        They must exist as long as this record does.
        """
        return {}


class ItemStatus(StrEnum):
    """Where an item is in its life."""

    PENDING = "pending"
    ACTIVE = "active"
    COMPLETED = "completed"


@dataclass(frozen=True, kw_only=True)
class Item(Record):
    """Something in stock."""

    converters = {"status": ItemStatus}

    name: str = field(metadata=name_rule(255))
    description: str = field(default="", metadata=text_rule(10_000))
    status: ItemStatus = field(
        default=ItemStatus.PENDING, metadata=choice_rule(ItemStatus)
    )
    quantity: int = field(default=0, metadata=integer_rule(minimum=0))


# A line may name an item and say how many. What else it holds is the client's own.
ORDER_LINE = make_rule(
    "object",
    "an object",
    properties={"item_id": STRING_RULE, "quantity": integer_rule(minimum=1)},
)


@dataclass(frozen=True, kw_only=True)
class Order(Record):
    """What somebody has ordered, line by line."""

    unique_fields = ("internal_number",)
    converters = {"items": tuple}

    internal_number: str = field(metadata=name_rule(50))
    status: str = field(default="pending", metadata=name_rule(50))
    # The objects in it could be changed. Nobody does, as a record never changes.
    items: tuple[dict[str, Any], ...] = field(
        default=(), metadata=array_rule(ORDER_LINE, max_items=1000)
    )

    def references(self) -> dict[str, Reference]:
        """The items that the lines name."""
        named_items = {}
        for index, line in enumerate(self.items):
            if "item_id" in line:
                named_items[f"items[{index}].item_id"] = Reference(
                    "items", line["item_id"]
                )
        return named_items


# ----------------------------------------------------------------------
# Filters
#
# `quantity_gte=5` filters a list by the field `quantity` and the operator `_gte`: a row
# stays in the list if its quantity is at least 5, which is called the wanted value. The
# table OPERATORS says how each operator compares, and which values can be wanted.
# ----------------------------------------------------------------------


class Operator(NamedTuple):
    """How a filter compares the value that a row has with a wanted one."""

    # Whether a row stays in the list. Called with the row's value and the wanted one.
    holds: Callable[[Any, Any], bool]
    # Makes the rule for a wanted value from the rule of the field. The two differ: a
    # quantity begins at 0, and `quantity_gt=-1` makes sense. None if such a field does
    # not have this operator, as there is no `quantity_like`.
    make_wanted_rule: Callable[[Rule], Rule | None]
    # Whether it compares by size. Null has none, so rows with null are left out.
    ordered: bool = False
    # A parameter can be given several times. True: `holds` is called with a list of all
    # wanted values, as `status=a&status=b` finds rows with a or b. False: it is called
    # with each of them, and must be true every time.
    takes_list: bool = False


def ordering_rule(rule: Rule) -> Rule | None:
    """A wanted value like those of the field, if these can be put in an order."""
    if "enum" in rule and "string" in types_of(rule):
        return choice_rule(name for name in rule["enum"] if name is not None)
    for wanted_rule in (STRING_RULE, INTEGER_RULE, NUMBER_RULE):
        if wanted_rule["type"] in types_of(rule):
            return wanted_rule
    return None


def equality_rule(rule: Rule) -> Rule | None:
    """A wanted value like those of the field. It can be null where the field can."""
    wanted_rule = ordering_rule(rule)
    if "boolean" in types_of(rule):
        wanted_rule = BOOLEAN_RULE  # which has no order, but can be equal
    if wanted_rule is not None and "null" in types_of(rule):
        wanted_rule = nullable(wanted_rule)
    return wanted_rule


def search_rule(rule: Rule) -> Rule | None:
    """A text to look for, if the field holds strings."""
    if "string" in types_of(rule):
        return STRING_RULE
    return None


def contains_text(value: str | None, text: str) -> bool:
    """Whether a text is part of a value, ignoring case."""
    return value is not None and text.casefold() in value.casefold()


OPERATORS = {
    "": Operator(is_one_of, equality_rule, takes_list=True),
    "_ne": Operator(ne, equality_rule),
    "_gt": Operator(gt, ordering_rule, ordered=True),
    "_gte": Operator(ge, ordering_rule, ordered=True),
    "_lt": Operator(lt, ordering_rule, ordered=True),
    "_lte": Operator(le, ordering_rule, ordered=True),
    "_like": Operator(contains_text, search_rule),
}


class Filter(NamedTuple):
    """A field, an operator on it, and the rule for one wanted value."""

    field: str
    operator: Operator
    wanted_rule: Rule


def make_filters(rules: Mapping[str, Rule]) -> dict[str, Filter]:
    """All filters on fields with these rules, by the name of the query parameter.

    Raises ValueError for a field with the name of a filter, as `size_gt` beside `size`.
    """
    filters = {}
    for name, rule in rules.items():
        for suffix, operator in OPERATORS.items():
            wanted_rule = operator.make_wanted_rule(rule)
            if wanted_rule is not None:
                if name + suffix in filters:
                    raise ValueError(f"{name + suffix} is a field and a filter")
                filters[name + suffix] = Filter(name, operator, wanted_rule)
    return filters


def make_parameters(filters: Mapping[str, Filter]) -> dict[str, Rule]:
    """The rules of a list's query parameters.

    One that may be given several times is an array. Of the others the last one counts.
    Raises ValueError for a field called sort, page, per_page or q.
    """
    names: list[str] = []
    for each_filter in filters.values():
        if each_filter.field not in names:
            names.append(each_filter.field)
    sort_item = f"-?({'|'.join(names)})"
    parameters = {
        "sort": make_rule(
            "string",
            f"a comma-separated list of {', '.join(names)}; - before one descends",
            pattern=f"^{sort_item}(,{sort_item})*$",
        ),
        "page": make_rule("integer", "an integer of at least 1", minimum=1),
        "per_page": integer_rule(1, 1000),
        "q": array_rule(STRING_RULE),
    }
    for name, each_filter in filters.items():
        if name in parameters:
            raise ValueError(f"a field must not be called {name}, as lists use it")
        parameters[name] = array_rule(each_filter.wanted_rule)
    return parameters


# ----------------------------------------------------------------------
# Resources
#
# A resource is a named collection of records of one class. All that the service must
# know about it follows from the fields of that class: register another class at the end
# of this section, and the service has its routes, lists, checks and description.
# ----------------------------------------------------------------------

# A rule without a type and limits, which any value obeys.
IGNORED_RULE: Rule = {
    "description": "ignored, so that a row can be sent back as it came"
}


class Resource:
    """A resource's name and record class, and what follows from its fields.

    Raises ValueError if a field has no rule, a wrong one, or a name that is needed.
    """

    def __init__(self, name: str, record_class: type[Record]) -> None:
        self.name = name
        self.record_class = record_class
        self.title = record_class.__name__
        self.rules: dict[str, Rule] = {}  # by field, in the order that a row shows
        self.defaults: dict[str, Any] = {}
        for record_field in ordered_fields(record_class):
            rule: Rule = dict(record_field.metadata)
            if "type" not in rule or "description" not in rule:
                raise ValueError(f"{record_field.name} has no rule in its metadata")
            self.rules[record_field.name] = rule
            # MISSING stands for no default, as None can be one.
            if record_field.default is not MISSING:
                self.defaults[record_field.name] = record_field.default
            if record_field.default_factory is not MISSING:
                self.defaults[record_field.name] = record_field.default_factory()
        self.writable: list[str] = []
        self.searchable: list[str] = []
        for field_name, rule in self.rules.items():
            if "readOnly" not in rule:
                self.writable.append(field_name)
                if "string" in types_of(rule):
                    self.searchable.append(field_name)
        self.filters = make_filters(self.rules)
        self.parameters = make_parameters(self.filters)
        self._make_schemas()

    def _make_schemas(self) -> None:
        """Make four rules for a whole row, each for another use.

        row_schema      what the service answers: it has every field
        create_schema   what a client sends for a new row
        change_schema   what a client sends for a change, which requires nothing
        state_schema    a row of a whole state

        What a client sends for read-only fields is ignored. In a state, id and times
        count. An id or a time of creation that is missing or null is filled in.
        """
        sent: dict[str, Rule] = {}
        in_state: dict[str, Rule] = {}
        for name, rule in self.rules.items():
            if name in self.writable:
                sent[name] = rule
                in_state[name] = rule
            else:
                sent[name] = IGNORED_RULE
                in_state[name] = nullable(rule)
        required = [name for name in self.writable if name not in self.defaults]
        self.row_schema = object_rule(self.rules, required=list(self.rules))
        self.create_schema = object_rule(sent, required)
        self.change_schema = object_rule(sent)
        self.state_schema = object_rule(in_state, required)

    def values(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The writable fields of a checked body, as the record class holds them."""
        converters = self.record_class.converters
        values = {}
        for name in self.writable:
            if name in body:
                values[name] = body[name]
                if name in converters and body[name] is not None:
                    values[name] = converters[name](body[name])
        return values

    def to_json(self, record: Record) -> bytes:
        """A record as JSON, with its fields in the order of `rules`."""
        values = {name: getattr(record, name) for name in self.rules}
        return json.dumps(values).encode()


def ordered_fields(record_class: type[Record]) -> list[Field[Any]]:
    """The fields of a record class; the times, which it inherits, come last."""
    others = []
    times = []
    for record_field in fields(record_class):
        if record_field.name in ("created_at", "updated_at"):
            times.append(record_field)
        else:
            others.append(record_field)
    return others + times


RESOURCES: dict[str, Resource] = {}


def register(name: str, record_class: type[Record]) -> None:
    """Make the service offer the records of a class under a name."""
    RESOURCES[name] = Resource(name, record_class)


register("items", Item)
register("orders", Order)

# ----------------------------------------------------------------------
# Rows and tables
#
# A row is a record as it is stored, a table has the rows of one resource. Rows do not
# change: a table puts a new row in the place of the old one. So a row that was read
# under the store's lock can be used after it without a copy.
#
# Each row and each table has a version, a number that stands for its content. Clients
# get it as a tag, and may keep it while we restart. So no other content may ever have
# the same number, not even after a restart: versions count up from the time of the
# start in microseconds. A process makes fewer than a million of them a second, so the
# next process starts higher, unless the computer's clock is set back.
# ----------------------------------------------------------------------

# Taking the next one needs no lock: in CPython, `next` on a `count` is a single step,
# in which no other thread can come between.
versions = count(time.time_ns() // 1000)


@dataclass(frozen=True)
class Row:
    """A record, its version, and its JSON, which is made once, when it is written."""

    record: Record
    version: int
    json: bytes


class Table:
    """The rows of one resource by id, oldest first. It has no lock of its own."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.rows: dict[str, Row] = {}
        self.next_number = 1  # the id of the next new row
        self.version = next(versions)
        # Two indexes, so that a check need not look at every row. The first has the id
        # of the row that owns a unique value, by the name of the field and the value.
        # The second counts how often the rows of this table name another row.
        self.owners: dict[tuple[str, Any], str] = {}
        self.reference_counts: Counter[Reference] = Counter()

    def copy(self) -> "Table":
        """Another table with the same rows."""
        table = Table(self.resource)
        table.rows = self.rows.copy()
        table.next_number = self.next_number
        table.owners = self.owners.copy()
        table.reference_counts = self.reference_counts.copy()
        return table

    def put(self, record: Record) -> Row:
        """Add a record, or put it in the place of the one with its id."""
        # Made first: if that failed, the table would still be as it was.
        row = Row(record, next(versions), self.resource.to_json(record))
        if record.id in self.rows:
            self._leave_indexes(self.rows[record.id].record)
        self.rows[record.id] = row
        self._enter_indexes(record)
        self.version = next(versions)
        return row

    def remove(self, id: str) -> None:
        """Take a row away."""
        self._leave_indexes(self.rows[id].record)
        del self.rows[id]
        self.version = next(versions)

    def first_naming(self, reference: Reference) -> Row | None:
        """The first row that names another one; None if there is none."""
        if self.reference_counts[reference] == 0:  # a Counter says 0 for unknown keys
            return None
        for row in self.rows.values():
            if reference in row.record.references().values():
                return row
        return None

    def _enter_indexes(self, record: Record) -> None:
        for unique_value in record.unique_values():
            self.owners[unique_value] = record.id
        for reference in record.references().values():
            self.reference_counts[reference] += 1

    def _leave_indexes(self, record: Record) -> None:
        for unique_value in record.unique_values():
            del self.owners[unique_value]
        for reference in record.references().values():
            self.reference_counts[reference] -= 1


Tables = dict[str, Table]  # by the name of the resource


def make_tables(records: Mapping[str, Iterable[Record]]) -> Tables:
    """Tables of the given records; both are by the name of the resource."""
    tables = {}
    for name, resource in RESOURCES.items():
        table = Table(resource)
        for record in records.get(name, ()):
            table.put(record)
        table.next_number = number_after(table.rows)
        tables[name] = table
    return tables


def number_after(ids: Iterable[str]) -> int:
    """One more than the largest id that is all digits, or 1."""
    largest = 0
    for id in ids:
        if id.isdecimal():
            largest = max(largest, int(id))
    return largest + 1


# ----------------------------------------------------------------------
# Whole states
#
# A state has all rows of all resources, as `{"items": [...], "orders": [...]}`. Each of
# its rows is checked by itself first, and then what ties the rows to each other.
# ----------------------------------------------------------------------


def state_rule() -> Rule:
    """The rule for a whole state."""
    arrays = {}
    for name, resource in RESOURCES.items():
        arrays[name] = array_rule(resource.state_schema)
    return object_rule(arrays)


def read_state(state: Mapping[str, Any], now: str) -> Tables:
    """Tables with the rows of a state; a missing id or creation time is filled in.

    Raises InvalidError with problems by place, such as `orders[0].items[2].item_id`.
    """
    validate(state_rule(), state)
    records = {}
    for name, resource in RESOURCES.items():
        records[name] = read_records(resource, state.get(name, []), now)
    refuse(check_state_ties(records))
    return make_tables(records)


def read_records(
    resource: Resource, rows: list[dict[str, Any]], now: str
) -> list[Record]:
    """The records of a state's checked rows."""
    given_ids = [row["id"] for row in rows if row.get("id") is not None]
    next_number = number_after(given_ids)
    records = []
    for row in rows:
        id = row.get("id")
        if id is None:
            id = str(next_number)
            next_number += 1
        record = resource.record_class(
            id=id,
            created_at=row.get("created_at") or now,
            updated_at=row.get("updated_at"),
            **resource.values(row),
        )
        records.append(record)
    return records


def check_state_ties(records: Mapping[str, list[Record]]) -> Iterator[Problem]:
    """Yield what is wrong between records: values used twice, references to no row."""
    ids = {}
    for resource_name, its_records in records.items():
        ids[resource_name] = {record.id for record in its_records}
    for resource_name, its_records in records.items():
        taken = set()
        for index, record in enumerate(its_records):
            row_place = f"{resource_name}[{index}]"
            for field_name, value in [("id", record.id), *record.unique_values()]:
                if (field_name, value) in taken:
                    yield f"{row_place}.{field_name}", taken_sentence(field_name, value)
                taken.add((field_name, value))
            for place, reference in record.references().items():
                if reference.id not in ids[reference.resource]:
                    yield f"{row_place}.{place}", missing_sentence(place, reference)


def taken_sentence(name: str, value: Any) -> str:
    """What is said of a value in a unique field that another row has."""
    return f"{label(name)} {value} is taken"


def missing_sentence(place: str, reference: Reference) -> str:
    """What is said of a reference to a row that does not exist."""
    return f"{label(place)} must be the id of one of the {reference.resource}"


# ----------------------------------------------------------------------
# Lists
#
# A list is made in steps that take rows and give rows: filters, searches, and a sort.
# ----------------------------------------------------------------------


def select(resource: Resource, rows: list[Row], query: Mapping[str, Any]) -> list[Row]:
    """The rows that a query asks for, in the order for which it asks.

    `query` has checked values by the names in `resource.parameters`.
    """
    for name in query:
        if name in resource.filters:
            rows = apply_filter(resource.filters[name], rows, query[name])
    for text in query.get("q", []):
        rows = search(rows, resource.searchable, text)
    if "sort" in query:
        # Sorting keeps the order of rows that compare equal. So the rows are sorted by
        # the least important field first.
        for name in reversed(query["sort"].split(",")):
            key = sort_key(resource, name.removeprefix("-"))
            rows = sorted(rows, key=key, reverse=name.startswith("-"))
    return rows


def apply_filter(each_filter: Filter, rows: list[Row], wanted: list[Any]) -> list[Row]:
    """The rows that pass a filter for which these values are wanted."""
    operator = each_filter.operator
    holds = operator.holds
    get_value = value_getter(each_filter.field)
    if operator.takes_list:
        return [row for row in rows if holds(get_value(row), wanted)]
    if operator.ordered:
        rows = [row for row in rows if get_value(row) is not None]
    if operator.ordered and each_filter.field == "id":
        # Ids are filtered in the order in which they are sorted.
        get_value = id_sort_key
        wanted = [natural_order(id) for id in wanted]
    for value in wanted:
        rows = [row for row in rows if holds(get_value(row), value)]
    return rows


def value_getter(name: str) -> Callable[[Row], Any]:
    """A function that gets the value of a field from a row, as `row.record.name`."""
    return attrgetter(f"record.{name}")


def natural_order(id: str) -> tuple[int, str]:
    """What ids are compared by: the length first, so that 2 comes before 10."""
    return len(id), id


def id_sort_key(row: Row) -> tuple[int, str]:
    return natural_order(row.record.id)


def search(rows: list[Row], names: list[str], text: str) -> list[Row]:
    """The rows that contain a text in any of the named fields, ignoring case."""
    found = []
    for row in rows:
        for name in names:
            if contains_text(getattr(row.record, name), text):
                found.append(row)
                break
    return found


def sort_key(resource: Resource, name: str) -> Callable[[Row], Any]:
    """What rows are compared by if they are sorted by a field. Null is the smallest."""
    get_value = value_getter(name)

    def null_first(row: Row) -> tuple[bool, Any]:
        # False comes before True, so null comes before every value. The second parts
        # of two tuples are compared only if the first are equal: two values, or None
        # and None, which are equal as well.
        value = get_value(row)
        return value is not None, value

    if name == "id":
        return id_sort_key
    if "null" in types_of(resource.rules[name]):
        return null_first
    return get_value


# ----------------------------------------------------------------------
# The store
#
# A store has the tables of one session, and the one lock that guards them. Data is
# checked by its rules before the lock is taken; what needs a look at other rows is
# checked under it.
# ----------------------------------------------------------------------


class Clock:
    """The time that new timestamps get. It runs until it is frozen at a moment.

    It needs no lock, as it has one attribute, which each method uses only once.
    """

    def __init__(self) -> None:
        self._frozen_at: str | None = None

    def freeze(self, moment: str) -> None:
        """Stand still at a moment, which is written as `timestamp` does."""
        self._frozen_at = moment

    def run(self) -> None:
        """Tell the true time from now on."""
        self._frozen_at = None

    def now(self) -> str:
        """The time in UTC."""
        return self._frozen_at or timestamp(datetime.now(UTC))

    def reading(self) -> dict[str, Any]:
        """The time, and whether the clock is frozen, as a JSON object."""
        frozen_at = self._frozen_at  # used once, as another thread may change it
        if frozen_at is None:
            return {"now": timestamp(datetime.now(UTC)), "frozen": False}
        return {"now": frozen_at, "frozen": True}


class Snapshot(NamedTuple):
    """The rows of a table at one moment, and the table's version at that moment."""

    rows: list[Row]
    version: int


# What a caller expects of a row that is to be changed: that its version, written as
# text, is `in` a container. None stands for any version.
Expected = Container[str] | None


class Store:
    """The rows of one session. Every method may be called from any thread."""

    def __init__(self, seed: Tables, clock: Clock) -> None:
        self._clock = clock
        # Whoever reads or changes the tables of this store holds this lock, from the
        # first look to the last change, so that what was looked at is still true when
        # the change is made. There is one lock for all tables because a rule may span
        # two of them: an item that an order names must not be deleted. Bodies are
        # checked before it is taken; lists are filtered, sorted and made after it.
        self._lock = Lock()
        self._tables = dict(seed)
        # All sessions begin with the same tables, those of the seed. They are never
        # changed, so that they can be read under different locks. Before the first
        # change to one, a store puts a copy in its place. These are the names of those
        # that are still the seed's.
        self._shared = set(seed)

    def get(self, resource: Resource, id: str) -> Row:
        """One row. Raises NotFoundError."""
        with self._lock:
            return self._find(resource, id)

    def snapshot(self, resource: Resource) -> Snapshot:
        """The rows of a resource, oldest first."""
        with self._lock:
            table = self._tables[resource.name]
            return Snapshot(list(table.rows.values()), table.version)

    def state(self) -> dict[str, list[Row]]:
        """All rows of all resources at one moment, by the name of the resource."""
        with self._lock:
            state = {}
            for name, table in self._tables.items():
                state[name] = list(table.rows.values())
            return state

    def count_rows(self) -> dict[str, int]:
        """How many rows each resource has."""
        with self._lock:
            return {name: len(table.rows) for name, table in self._tables.items()}

    def create(self, resource: Resource, body: Mapping[str, Any]) -> Row:
        """Add a row. Raises InvalidError, ConflictError."""
        validate(resource.create_schema, body)
        values = resource.values(body)
        with self._lock:
            number = self._tables[resource.name].next_number
            record = resource.record_class(
                id=str(number), created_at=self._clock.now(), **values
            )
            self._check_ties(resource, record)
            # Asked for only now, so that a refused row makes no copy of a table.
            table = self._table_to_change(resource)
            # Only counted up, so that the id of a deleted row does not come back before
            # a reset, or a new state.
            table.next_number = number + 1
            return table.put(record)

    def update(
        self,
        resource: Resource,
        id: str,
        body: Mapping[str, Any],
        expected: Expected = None,
    ) -> Row:
        """Merge fields into a row that has an expected version.

        Raises NotFoundError, StaleError, InvalidError, ConflictError: the first that
        applies. The body is checked before the lock is taken, as that may take a while;
        what is wrong with it is told only if the row is there and as expected.
        """
        problems = list(check(resource.change_schema, body))
        with self._lock:
            row = self._find(resource, id, expected)
            refuse(problems)
            values = resource.values(body)
            record = replace(row.record, updated_at=self._clock.now(), **values)
            self._check_ties(resource, record)
            return self._table_to_change(resource).put(record)

    def delete(self, resource: Resource, id: str, expected: Expected = None) -> None:
        """Remove a row that has an expected version.

        Raises NotFoundError, StaleError, ConflictError: the first that applies.
        """
        with self._lock:
            self._find(resource, id, expected)
            self._check_not_referenced(resource, id)
            self._table_to_change(resource).remove(id)

    def replace_state(self, state: Mapping[str, Any]) -> None:
        """Put the rows of a state in the place of all rows. Raises InvalidError."""
        tables = read_state(state, self._clock.now())
        with self._lock:
            self._tables = tables
            self._shared = set()

    # The methods below are called by those above, with the lock held.

    def _find(self, resource: Resource, id: str, expected: Expected = None) -> Row:
        row = self._tables[resource.name].rows.get(id)
        if row is None:
            raise NotFoundError(f"{resource.title} not found")
        if expected is not None and str(row.version) not in expected:
            raise StaleError("Precondition failed")
        return row

    def _check_ties(self, resource: Resource, record: Record) -> None:
        """Check what ties a record that is about to be stored to other rows."""
        missing = {}
        for place, reference in record.references().items():
            if reference.id not in self._tables[reference.resource].rows:
                missing[place] = missing_sentence(place, reference)
        refuse(missing.items())
        owners = self._tables[resource.name].owners
        for name, value in record.unique_values():
            owner = owners.get((name, value))
            if owner is not None and owner != record.id:
                sentence = taken_sentence(name, value)
                raise ConflictError(sentence, {name: sentence})

    def _check_not_referenced(self, resource: Resource, id: str) -> None:
        """Check that no row names the one that is about to be deleted."""
        reference = Reference(resource.name, id)
        for table in self._tables.values():
            naming_row = table.first_naming(reference)
            if naming_row is not None:
                holder = f"{table.resource.title.lower()} {naming_row.record.id}"
                sentence = f"{resource.title} {id} is named by {holder}"
                raise ConflictError(sentence, {"id": sentence})

    def _table_to_change(self, resource: Resource) -> Table:
        """The store's own table, which is a copy of the seed's at the first change."""
        if resource.name in self._shared:
            self._tables[resource.name] = self._tables[resource.name].copy()
            self._shared.remove(resource.name)
        return self._tables[resource.name]


# ----------------------------------------------------------------------
# Sessions
#
# A session is what one test, or one person, has to itself: a store, a clock, the faults
# that wait for requests to come, and a journal of the requests that came. The classes
# Faults, Journal and Sessions have a lock each. It is held for a few steps, and never
# together with another lock.
# ----------------------------------------------------------------------

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
MAX_DELAY = 30_000  # milliseconds
DELAY_RULE = integer_rule(0, MAX_DELAY)
ERROR_STATUS_RULE = integer_rule(400, 599)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that a test has ordered to go wrong, and for which requests."""

    # A shell-style pattern for the path below the API; * stands for slashes, too. It
    # begins with a slash, as all paths do, or with * ? [ that can stand for one.
    path: str = field(
        metadata=make_rule(
            "string",
            "a pattern of at most 1000 characters that begins with one of / * ? [",
            maxLength=1000,
            pattern=r"^[/*?\[][\s\S]*$",
        )
    )
    method: str = field(default="*", metadata=choice_rule(["*", *METHODS]))
    # For how many requests it is there; None: for all.
    times: int | None = field(default=1, metadata=nullable(integer_rule(1)))
    # The request waits so many milliseconds before anything else.
    delay: int = field(default=0, metadata=DELAY_RULE)
    # The request waits until the faults are cleared, or for 30 seconds.
    hold: bool = field(default=False, metadata=BOOLEAN_RULE)
    # The request fails with this status; None: it does not. A drop counts more.
    status: int | None = field(default=None, metadata=nullable(ERROR_STATUS_RULE))
    # Let the failing answer say in how many seconds the client may try again.
    retry_after: int | None = field(
        default=None, metadata=nullable(integer_rule(0, 86_400))
    )
    # The connection is closed in place of an answer.
    drop: bool = field(default=False, metadata=BOOLEAN_RULE)
    # The request is carried out before it fails.
    after: bool = field(default=False, metadata=BOOLEAN_RULE)

    @property
    def fails(self) -> bool:
        """Whether the client is not to see the true answer."""
        return self.status is not None or self.drop

    def fits(self, method: str, path: str) -> bool:
        """Whether it waits for such a request. A slash at the end does not matter."""
        if self.method not in ("*", method):
            return False
        return fnmatchcase(path.rstrip("/") or "/", self.path.rstrip("/") or "/")


FAULT_RULE = object_rule(
    {fault_field.name: dict(fault_field.metadata) for fault_field in fields(Fault)},
    required=["path"],
)
NO_FAULT = Fault(path="*")  # it does nothing


def read_fault(body: Mapping[str, Any]) -> Fault:
    """A fault from a JSON object. Raises InvalidError."""
    validate(FAULT_RULE, body)
    fault = Fault(**body)
    if fault.after and not fault.fails:
        problem = "After must be false where nothing fails; add a status or drop"
        refuse([("after", problem)])
    if not (fault.fails or fault.delay or fault.hold):
        problem = "Status is required where there is no delay, hold or drop"
        refuse([("status", problem)])
    return fault


class Faults:
    """The faults of a session, of which the first that fits a request is used."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._faults: list[Fault] = []
        self._cleared = Event()

    def add(self, fault: Fault) -> None:
        """Add a fault behind the others."""
        with self._lock:
            self._faults.append(fault)

    def take(self, method: str, path: str) -> tuple[Fault, Event | None]:
        """Use the first fault that fits a request; return NO_FAULT if none does.

        With a fault that holds comes an event to wait for, which the next `clear` sets.
        Both are taken in one step under the lock: if a `clear` came between the two,
        the request would have a fault that is cleared, and wait for another `clear`.
        """
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.fits(method, path):
                    self._use(index)
                    if fault.hold:
                        return fault, self._cleared
                    return fault, None
            return NO_FAULT, None

    def _use(self, index: int) -> None:
        """Count a fault down; one that is used up is gone."""
        fault = self._faults[index]
        if fault.times == 1:
            del self._faults[index]
        elif fault.times is not None:
            self._faults[index] = replace(fault, times=fault.times - 1)

    def remaining(self) -> list[dict[str, Any]]:
        """The faults that are not used up, as JSON objects."""
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def clear(self) -> None:
        """Remove all faults, and let go the requests that they hold."""
        with self._lock:
            self._faults = []
            self._cleared.set()
            self._cleared = Event()  # for the requests to come


@dataclass
class Entry:
    """A request in the journal. The last three are None until it is answered."""

    at: str
    method: str
    path: str
    query: str
    status: int | None = None
    duration_ms: float | None = None
    body: Any = None


class Journal:
    """The last 500 requests of a session in the order of their arrival."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._entries: deque[Entry] = deque(maxlen=500)

    def add(self, entry: Entry) -> None:
        """Write down a request that has just arrived."""
        with self._lock:
            self._entries.append(entry)

    def complete(
        self, entry: Entry, status: int, duration_ms: float, body: Any
    ) -> None:
        """Add what is known once the request is answered."""
        with self._lock:
            entry.status = status
            entry.duration_ms = duration_ms
            entry.body = body

    def entries(self) -> list[dict[str, Any]]:
        """All entries as JSON objects, oldest first."""
        with self._lock:
            # Copies, as `complete` may change an entry while its JSON is made.
            return [dict(vars(entry)) for entry in self._entries]

    def clear(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._entries.clear()


class Session:
    """The data of one test. The default session, for all who name none, is None."""

    def __init__(self, name: str | None, seed: Tables) -> None:
        self.name = name
        self.clock = Clock()
        self.store = Store(seed, self.clock)
        self.faults = Faults()
        self.journal = Journal()


class Sessions:
    """All sessions. Of the named ones the 256 that were used last are kept."""

    MAX_NAMED = 256

    def __init__(self, seed: Tables) -> None:
        # Held so that two first requests with one name get the same session.
        self._lock = Lock()
        self._seed = seed
        self._default = Session(None, seed)
        self._named: OrderedDict[str, Session] = OrderedDict()  # last used is last

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
            # session. So what they hold is let go here.
            dropped.faults.clear()
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
            old.faults.clear()
