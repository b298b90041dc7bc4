"""The data: records, the rules that they obey, and a store that threads can share.

Read this module from top to bottom: each section uses only what stands above it.
Nothing in it answers a request. The views in inventory.py call a store, and the store
gives them rows or raises one of the errors with which this module begins.
"""

import json
import operator
import re
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import count, islice
from operator import attrgetter
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
    """Raise InvalidError if there are problems. Its sentence is that of the first.

    `check`, below, finds the problems of a value; the two are used together.
    """
    first_problems = dict(islice(problems, MAX_PROBLEMS))
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
    """Whether a text is a moment in the form that `timestamp` writes."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return False
    # A time without zone would be written without the Z, another zone with +02:00.
    return text.endswith("Z") and timestamp(moment) == text


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
    return re.fullmatch(pattern, value) is not None


def has_format(value: str, name: str) -> bool:
    return FORMATS[name](value)


# The words that limit a single value. A test is called with the value and with what
# stands beside the word in the rule, once the value is known to have the right type.
TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "enum": is_one_of,
    "minimum": operator.ge,
    "maximum": operator.le,
    "minLength": is_long_enough,
    "maxLength": is_short_enough,
    "maxItems": is_short_enough,
    "pattern": matches,
    "format": has_format,
}
# The words that the functions below handle, and those that only inform.
STRUCTURE = ("type", "properties", "required", "additionalProperties", "items")
ANNOTATIONS = ("description", "readOnly")


def verify(rule: Rule) -> None:
    """Look at a rule itself: raise ValueError for a part that `check` would ignore."""
    for word in rule:
        require_known(word, [*TESTS, *STRUCTURE, *ANNOTATIONS])
    for name in types_of(rule):
        require_known(name, TYPES)
    if "format" in rule:
        require_known(rule["format"], FORMATS)
    for property_rule in rule.get("properties", {}).values():
        verify(property_rule)
    if "items" in rule:
        verify(rule["items"])


def require_known(name: str, known: Collection[str]) -> None:
    """Raise ValueError if a name is none of the known ones."""
    if name not in known:
        raise ValueError(f"a rule has {name!r}; known are {', '.join(known)}")


# JavaScript holds integers exactly up to this one, Number.MAX_SAFE_INTEGER.
MAX_INTEGER = 2**53 - 1

# A pattern for text with at least one character that is no white space.
NOT_BLANK = r"^\s*\S[\s\S]*$"


def make_rule(types: str | list[str], description: str, **words: Any) -> Rule:
    """Make a rule of its types, its words and its description. Raises ValueError."""
    rule = {"type": types, **words, "description": description}
    verify(rule)
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
    description = f"{rule['description']} or null"
    return {**rule, "type": [rule["type"], "null"], "description": description}


STRING = make_rule("string", "a string")
INTEGER = make_rule("integer", "an integer")
NUMBER = make_rule("number", "a number")
BOOLEAN = make_rule("boolean", "true or false")
ANY_OBJECT = make_rule("object", "an object")
TIMESTAMP = make_rule(
    "string", "a UTC time such as 2026-01-01T09:30:00.000Z", format="date-time"
)
SESSION_NAME = make_rule(
    "string",
    "a string of 1 to 64 of the characters A-Z a-z 0-9 . _ -",
    pattern=r"^[A-Za-z0-9._-]{1,64}$",
)
# A client that is given the path /items/.. asks for / instead. So the pattern begins by
# looking ahead that there is no more than one dot, or two, up to the end.
ROW_ID = make_rule(
    "string",
    f"{SESSION_NAME['description']}, but not . or ..",
    pattern=r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$",
)


def check(rule: Rule, value: Any, place: str = "") -> Iterator[Problem]:
    """Yield the problems of a JSON value, in the order of the rule.

    `place` is where the value stands in the data of which it is a part.
    """
    if not obeys(rule, value):
        yield place, f"{label(place)} must be {rule['description']}"
    elif isinstance(value, dict):
        yield from check_properties(rule, value, place)
    elif isinstance(value, list) and "items" in rule:
        for index, element in enumerate(value):
            yield from check(rule["items"], element, f"{place}[{index}]")


def obeys(rule: Rule, value: Any) -> bool:
    """Whether a value has the rule's type and passes its tests, not looking inside."""
    if "type" in rule and not has_type(rule, value):
        return False
    if value is None:
        return True  # null has the right type, and nothing that could be tested
    for word, limit in rule.items():
        if word in TESTS and not TESTS[word](value, limit):
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
    """Read the value that a text spells, as a query string or a setting has only texts.

    A text that spells no value of the rule's type is returned as it is, for `check` to
    refuse. So are numbers too long for anything that we compare them with.
    """
    types = types_of(rule)
    if text == "" and "null" in types:
        return None
    if "integer" in types and re.fullmatch("-?[0-9]{1,1000}", text):
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
# field's metadata, a place that dataclasses offer and do not use themselves.
# ----------------------------------------------------------------------

# The store gives these fields their values. What a client sends for them is ignored.
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

    id: str = field(metadata={**ROW_ID, **READ_ONLY})
    created_at: str = field(metadata={**TIMESTAMP, **READ_ONLY})
    updated_at: str | None = field(
        default=None, metadata={**nullable(TIMESTAMP), **READ_ONLY}
    )

    def unique_values(self) -> list[tuple[str, Any]]:
        """The names and the values of the unique fields."""
        return [(name, getattr(self, name)) for name in self.unique_fields]

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
    properties={"item_id": STRING, "quantity": integer_rule(minimum=1)},
)


@dataclass(frozen=True, kw_only=True)
class Order(Record):
    """What somebody has ordered, line by line."""

    unique_fields = ("internal_number",)

    internal_number: str = field(metadata=name_rule(50))
    status: str = field(default="pending", metadata=name_rule(50))
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
# `quantity_gte=5` filters a list by the field `quantity` and the operator `_gte`: a
# row stays in the list if `operator.ge(row's quantity, 5)` is true. The table OPERATORS
# says how each operator compares, and which values may stand behind the equals sign.
# ----------------------------------------------------------------------


class Operator(NamedTuple):
    """How a filter compares the value that a row has with a wanted one."""

    # Called with the row's value and the wanted one: whether the row stays in the list.
    holds: Callable[[Any, Any], bool]
    # Which values may stand behind the equals sign. It is called with the rule of a
    # field, and returns the rule for a wanted value: for `quantity_gt` an integer, even
    # a negative one that the field could not have. It returns None for a field without
    # this operator, as a number has no `_like`.
    value_rule: Callable[[Rule], Rule | None]
    # Whether it compares by size. Null has none, so rows with null are left out.
    ordered: bool = False
    # `status=a&status=b` is for rows with a or b: `holds` is given a list of both.
    # `quantity_gt=1&quantity_gt=5` is for rows that pass both: `holds` is asked twice.
    takes_list: bool = False


def equality_rule(rule: Rule) -> Rule | None:
    """A value like those of the field, null too; a query spells null as nothing.

    What can be put in an order can be compared for equality, and so can booleans.
    """
    value_rule = ordering_rule(rule)
    if value_rule is None and "boolean" in types_of(rule):
        value_rule = BOOLEAN
    if value_rule is not None and "null" in types_of(rule):
        return nullable(value_rule)
    return value_rule


def ordering_rule(rule: Rule) -> Rule | None:
    """A value like those of the field, if they can be put in an order."""
    if "enum" in rule:
        return choice_rule(rule["enum"])
    for value_rule in (STRING, INTEGER, NUMBER):
        if value_rule["type"] in types_of(rule):
            return value_rule
    return None


def search_rule(rule: Rule) -> Rule | None:
    """A text to look for, if the field holds strings."""
    if "string" in types_of(rule):
        return STRING
    return None


def contains_text(value: str | None, text: str) -> bool:
    """Whether a text is part of a value, ignoring case."""
    return value is not None and text.casefold() in value.casefold()


OPERATORS = {
    "": Operator(is_one_of, equality_rule, takes_list=True),
    "_ne": Operator(operator.ne, equality_rule),
    "_gt": Operator(operator.gt, ordering_rule, ordered=True),
    "_gte": Operator(operator.ge, ordering_rule, ordered=True),
    "_lt": Operator(operator.lt, ordering_rule, ordered=True),
    "_lte": Operator(operator.le, ordering_rule, ordered=True),
    "_like": Operator(contains_text, search_rule),
}


class Filter(NamedTuple):
    """A field, an operator on it, and the rule for one wanted value."""

    field: str
    operator: Operator
    value_rule: Rule


def make_filters(rules: Mapping[str, Rule]) -> dict[str, Filter]:
    """All filters on fields with these rules, by the name of the query parameter."""
    filters = {}
    for name, rule in rules.items():
        for suffix, each_operator in OPERATORS.items():
            value_rule = each_operator.value_rule(rule)
            if value_rule is not None:
                filters[name + suffix] = Filter(name, each_operator, value_rule)
    return filters


def make_parameters(filters: Mapping[str, Filter]) -> dict[str, Rule]:
    """The rules of a list's query parameters.

    One that may be given several times is an array. Of the others the last one counts.
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
        "q": array_rule(STRING),
    }
    for name, each_filter in filters.items():
        parameters[name] = array_rule(each_filter.value_rule)
    return parameters


# ----------------------------------------------------------------------
# Resources
#
# A resource is a named collection of records of one class. All that the service must
# know about it follows from the fields of that class: register another class at the end
# of this section, and the service has its routes, lists, checks and description.
# ----------------------------------------------------------------------

# A rule without type and tests, which any value obeys.
IGNORED: Rule = {"description": "ignored, so that a row can be sent back as it came"}


class Resource:
    """A resource's name and record class, and what follows from its fields."""

    def __init__(self, name: str, record_class: type[Record]) -> None:
        self.name = name
        self.record_class = record_class
        self.title = record_class.__name__
        self.rules: dict[str, Rule] = {}  # by field, in the order that a row shows
        self.defaults: dict[str, Any] = {}
        self.converters: dict[str, Callable[[Any], Any]] = {}
        self.writable: list[str] = []
        for column in columns_of(record_class):
            self._add(column)
        self.searchable = [name for name in self.writable if self._is_text(name)]
        self.filters = make_filters(self.rules)
        self.parameters = make_parameters(self.filters)
        self._make_schemas()

    def _add(self, column: Field[Any]) -> None:
        rule = dict(column.metadata)
        self.rules[column.name] = rule
        if "readOnly" not in rule:
            self.writable.append(column.name)
        if column.default is not MISSING:
            self.defaults[column.name] = column.default
        # JSON has neither enums nor tuples, so what comes as JSON is converted: a
        # string by the enum class, which is the field's type, and a list by tuple.
        if "enum" in rule:
            self.converters[column.name] = column.type  # type: ignore[assignment]
        elif rule["type"] == "array":
            self.converters[column.name] = tuple

    def _is_text(self, name: str) -> bool:
        return "string" in types_of(self.rules[name])

    def _make_schemas(self) -> None:
        """Make four rules for a whole row.

        They are for a row as it is answered, as a client creates it, as a client
        changes it, and as it stands in a whole state. Only in the last the read-only
        fields count. They may be missing or null there, and are then filled in.
        """
        sent: dict[str, Rule] = {}
        in_state: dict[str, Rule] = {}
        required = []
        for name, rule in self.rules.items():
            if name in self.writable:
                sent[name] = in_state[name] = rule
                if name not in self.defaults:
                    required.append(name)
            else:
                sent[name] = IGNORED
                in_state[name] = rule if "null" in types_of(rule) else nullable(rule)
        self.row_schema = object_rule(self.rules, required=list(self.rules))
        self.create_schema = object_rule(sent, required)
        self.change_schema = object_rule(sent)
        self.state_schema = object_rule(in_state, required)

    def values(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The writable fields of a checked body, as the record class holds them."""
        values = {}
        for name in self.writable:
            if name in body:
                convert = self.converters.get(name)
                values[name] = convert(body[name]) if convert else body[name]
        return values

    def to_json(self, record: Record) -> bytes:
        """A record as a line of JSON, with its fields in the order of `rules`."""
        values = {name: getattr(record, name) for name in self.rules}
        return json.dumps(values).encode() + b"\n"


def columns_of(record_class: type[Record]) -> list[Field[Any]]:
    """The fields of a record class; the times, which it inherits, come last."""
    columns = []
    times = []
    for column in fields(record_class):
        if column.name in ("created_at", "updated_at"):
            times.append(column)
        else:
            columns.append(column)
    return columns + times


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
# start in microseconds. A process makes far fewer than a million of them a second, so
# the next process starts higher.
# ----------------------------------------------------------------------

# Taking the next one needs no lock: `next` on a `count` cannot be interrupted.
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
        # Two indexes, so that a write need not look at every row: the id of the row
        # that owns a unique value, and how often rows of this table name another row.
        self.owners: dict[tuple[str, Any], str] = {}
        self.reference_counts: Counter[Reference] = Counter()

    def copy(self) -> "Table":
        """Another table with the same rows."""
        table = Table(self.resource)
        table.rows = self.rows.copy()
        table.next_number = self.next_number
        table.version = self.version  # as its content is the same
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
    refuse(check(state_rule(), state))
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
    """Yield what is wrong between records: values used twice, and names of no row."""
    ids = {}
    for name, named_records in records.items():
        ids[name] = {record.id for record in named_records}
    for resource_name, named_records in records.items():
        taken = set()
        for index, record in enumerate(named_records):
            place = f"{resource_name}[{index}]"
            for unique_value in [("id", record.id), *record.unique_values()]:
                name, value = unique_value
                if unique_value in taken:
                    yield f"{place}.{name}", taken_sentence(name, value)
                taken.add(unique_value)
            for naming_place, reference in record.references().items():
                if reference.id not in ids[reference.resource]:
                    yield (
                        f"{place}.{naming_place}",
                        missing_sentence(naming_place, reference),
                    )


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


def apply_filter(each_filter: Filter, rows: list[Row], values: list[Any]) -> list[Row]:
    """The rows that pass a filter which was given with these values."""
    get_value: Callable[[Row], Any] = attrgetter(f"record.{each_filter.field}")
    holds = each_filter.operator.holds
    if each_filter.operator.takes_list:
        return [row for row in rows if holds(get_value(row), values)]
    if each_filter.operator.ordered and each_filter.field == "id":
        get_value = id_sort_key
        values = [natural_order(value) for value in values]
    elif each_filter.operator.ordered:
        rows = [row for row in rows if get_value(row) is not None]
    for value in values:
        rows = [row for row in rows if holds(get_value(row), value)]
    return rows


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
    """What rows are compared by if they are sorted by a field. Null comes first."""
    get_value = attrgetter(f"record.{name}")

    def null_first(row: Row) -> tuple[bool, Any]:
        # Tuples are compared by their first parts first, and False comes before True.
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

    It needs no lock, as it has one attribute, which each method reads only once.
    """

    def __init__(self) -> None:
        self.frozen_at: str | None = None

    def now(self) -> str:
        """The time in UTC."""
        now: str = self.reading()["now"]
        return now

    def reading(self) -> dict[str, Any]:
        """The time, and whether the clock is frozen, as a JSON object."""
        frozen_at = self.frozen_at  # read once, as another thread may set it meanwhile
        now = frozen_at or timestamp(datetime.now(UTC))
        return {"now": now, "frozen": frozen_at is not None}


class Snapshot(NamedTuple):
    """The rows of a table at one moment, and the table's version at that moment."""

    rows: list[Row]
    version: int


# The versions, written as texts, of which a row must have one; None means any version.
Versions = Container[str] | None


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
        # change to one, a store puts a copy in its place.
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
        refuse(check(resource.create_schema, body))
        values = resource.values(body)
        with self._lock:
            number = self._tables[resource.name].next_number
            record = resource.record_class(
                id=str(number), created_at=self._clock.now(), **values
            )
            self._check_ties(resource, record)
            # Asked for only now, so that a refused row makes no copy of a table.
            table = self._table_to_change(resource)
            # Counted up here, and never down: the id of a deleted row does not return.
            table.next_number = number + 1
            return table.put(record)

    def update(
        self,
        resource: Resource,
        id: str,
        body: Mapping[str, Any],
        expected: Versions = None,
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

    def delete(self, resource: Resource, id: str, expected: Versions = None) -> None:
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

    def _find(self, resource: Resource, id: str, expected: Versions = None) -> Row:
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
            if table.reference_counts[reference] == 0:
                continue
            for row in table.rows.values():
                if reference in row.record.references().values():
                    holder = f"{table.resource.title.lower()} {row.record.id}"
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
# that wait for requests to come, and a journal of the requests that came. The last two
# have a lock each, which is held for a step or two and never together with another.
# ----------------------------------------------------------------------

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
MAX_DELAY = 30_000  # milliseconds
DELAY = integer_rule(0, MAX_DELAY)
ERROR_STATUS = integer_rule(400, 599)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that a test has ordered to go wrong, and for which requests."""

    # A shell-style pattern for the path below the API.
    path: str = field(
        metadata=make_rule(
            "string",
            "a pattern such as /items/* or *, of at most 1000 characters",
            pattern=r"^[/*?\[][\s\S]{0,999}$",
        )
    )
    method: str = field(default="*", metadata=choice_rule(["*", *METHODS]))
    # For how many requests it is there; None: for all.
    times: int | None = field(default=1, metadata=nullable(integer_rule(1)))
    # The request waits so many milliseconds before anything else.
    delay: int = field(default=0, metadata=DELAY)
    # The request waits until the faults are cleared, or for 30 seconds.
    hold: bool = field(default=False, metadata=BOOLEAN)
    # The request fails with this status; None: it does not.
    status: int | None = field(default=None, metadata=nullable(ERROR_STATUS))
    # Let the failing answer say in how many seconds the client may try again.
    retry_after: int | None = field(
        default=None, metadata=nullable(integer_rule(0, 86_400))
    )
    # The connection is closed in place of an answer.
    drop: bool = field(default=False, metadata=BOOLEAN)
    # The request is carried out before it fails.
    after: bool = field(default=False, metadata=BOOLEAN)

    @property
    def fails(self) -> bool:
        """Whether the client is not to see the true answer."""
        return self.status is not None or self.drop

    def fits(self, method: str, path: str) -> bool:
        """Whether it waits for such a request."""
        return self.method in ("*", method) and fnmatchcase(path, self.path)


FAULT = object_rule(
    {column.name: dict(column.metadata) for column in fields(Fault)}, required=["path"]
)
NO_FAULT = Fault(path="*")  # it does nothing


def read_fault(body: Mapping[str, Any]) -> Fault:
    """A fault from a JSON object. Raises InvalidError."""
    refuse(check(FAULT, body))
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

    def take(self, method: str, path: str) -> tuple[Fault, Event]:
        """Use the first fault that fits a request, or NO_FAULT.

        The event is a flag that `clear` sets, for which a held request waits. Fault and
        event are got under one lock: if the faults were cleared in between, the request
        would wait for the next clearing.
        """
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.fits(method, path):
                    self._use(index)
                    return fault, self._cleared
            return NO_FAULT, self._cleared

    def _use(self, index: int) -> None:
        """Count a fault down; one that is used up is gone."""
        fault = self._faults[index]
        if fault.times == 1:
            del self._faults[index]
        elif fault.times is not None:
            self._faults[index] = replace(fault, times=fault.times - 1)

    def left(self) -> list[dict[str, Any]]:
        """The faults that are left, as JSON objects."""
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def clear(self) -> None:
        """Remove all faults, and let go the requests that they hold."""
        with self._lock:
            self._faults = []
            self._cleared.set()
            self._cleared = Event()  # for the faults to come


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
            return [vars(entry).copy() for entry in self._entries]

    def clear(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._entries.clear()


class Session:
    """The data of one test, or of all who name no session: its name is then None."""

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
        # Held so that the first two requests of a session get the same one.
        self._lock = Lock()
        self._seed = seed
        self._default = Session(None, seed)
        self._named: OrderedDict[str, Session] = OrderedDict()  # last used is last

    def get(self, name: str | None) -> Session:
        """The session with a name, which begins if there is none."""
        dropped = None
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
            # Its name leads to a new session now, so no client could let go what the
            # faults of this one hold.
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
