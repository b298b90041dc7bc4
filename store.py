"""The data: records, the rules that they obey, and a store that threads can share.

Read this module first, from top to bottom: a section uses what stands above it (only
`Resource` calls functions of the section Lists), and the last one puts the parts
together. Who asks for data, and why, is told in inventory.py.

    record     the values of one item or one order. It never changes
    row        a record as it is stored: the record, and its text in JSON
    resource   a kind of records with a name, such as `items`
    rule       what a value must be, such as an integer from 0 to 100
    place      where in the data something is, such as `name` or `items[0].item_id`
    state      all rows of all resources at one moment
    seed       the rows with which a store begins
    thread     one of several runs through the program at the same time. The service has
               one for each request that is under way, and many use the same data
    lock       what only one thread can have at a time. Others that want it wait until
               it is given back, which happens at the end of the block `with lock:`
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from operator import attrgetter, ge, gt, le, lt
from threading import Lock
from types import NoneType
from typing import Any, ClassVar, NamedTuple, get_args

# ----------------------------------------------------------------------
# Errors
#
# The store refuses by raising. An error carries what a caller needs for its answer, so
# that nobody has to take its text apart.
# ----------------------------------------------------------------------

Problems = dict[str, str]  # sentences that say what is wrong, by place


class StoreError(Exception):
    """A refusal, told in one sentence, with the problems that led to it."""

    def __init__(
        self, sentence: str, problems: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.problems = dict(problems or {})


class InvalidError(StoreError):
    """Raised if data breaks a rule."""


class NotFoundError(StoreError):
    """Raised if there is nothing with the given id."""


class StaleError(StoreError):
    """Raised if a row is no longer as the caller knows it."""


class ConflictError(StoreError):
    """Raised if a change is valid by itself and collides with another row."""


# A client that sends a million wrong rows is not helped by a million sentences.
MAX_PROBLEMS = 100


def raise_for_problems(problems: Problems) -> None:
    """Raise InvalidError if there are problems, with the sentence of the first one."""
    if problems:
        first_problems = dict(list(problems.items())[:MAX_PROBLEMS])
        sentences = list(first_problems.values())
        raise InvalidError(sentences[0], first_problems)


# ----------------------------------------------------------------------
# Times
#
# All times are texts of one form, in UTC, so that comparing two texts compares the
# moments. Clients may send other forms; `read_time` makes this form of them.
# ----------------------------------------------------------------------

# `fromisoformat` also reads what we do not want. These patterns keep out a wrong
# character before the zone or at the end, as the whole text must fit; 09.5, as only
# seconds have a fraction; and +01:60, as the minutes of a zone end at 59. What is left,
# such as 25 o'clock, `fromisoformat` refuses itself.
TIME_OF_DAY = r"[0-9]{2}(:?[0-9]{2}(:?[0-9]{2}([.,][0-9]+)?)?)?"  # 09:30, 093000.5
ZONE = r"(Z|[+-][0-9]{2}(:?[0-5][0-9]){0,2})"  # Z, +01, +0100, -03:30
TIME_WITH_ZONE = rf"[0-9W-]+[T ]{TIME_OF_DAY}{ZONE}"  # W is for weeks, as 2026-W02-1


def timestamp(moment: datetime) -> str:
    """Write a UTC moment as JavaScript's `Date.toISOString()` does, in milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_time(text: str) -> str:
    """The moment that a text tells, in the form of `timestamp`. Raises ValueError.

    The text names its zone. It may have any form of RFC 3339 (but no leap second, and
    not the year 0), such as 2026-01-05T10:30:00+01:00, and those that
    `datetime.fromisoformat` knows besides, such as one without seconds.
    """
    text = text.upper()  # RFC 3339 allows t and z as well
    if not re.fullmatch(TIME_WITH_ZONE, text):
        raise ValueError("not a time with its zone")
    try:
        return timestamp(datetime.fromisoformat(text).astimezone(UTC))
    except OverflowError:
        # `from None`: without telling of the OverflowError as well.
        raise ValueError("in UTC, its year is not one of 1 to 9999") from None


# ----------------------------------------------------------------------
# Rules
#
# A rule says what a value must be, in words of JSON Schema (https://json-schema.org):
#
#     {"type": "integer", "minimum": 0, "description": "an integer of at least 0"}
#     {"type": "object", "properties": {"name": ...}, "required": ["name"], ...}
#     {"type": "array", "items": ...}
#
# `properties` and `items` have the rules for what is inside. The same dictionary
# validates data and is published in the API's description. Its `description` finishes
# the sentence "Quantity must be ...".
# ----------------------------------------------------------------------

Rule = Mapping[str, Any]  # a dictionary that is only read

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


# What `format` can say of a string. Each function raises ValueError if a string has not
# the format. Else it returns the string in the form in which it is kept (see `check`).
FORMATS: dict[str, Callable[[str], str]] = {"date-time": read_time}


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
    try:
        FORMATS[name](value)
    except ValueError:
        return False
    return True


# The words that limit a single value, each with its test. The test is called with the
# value, once that has the right type, and with what the rule says for the word. `ge`
# and `le` are Python's >= and <= as functions.
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
        # A star puts in the keys of a dictionary, or the elements of a tuple.
        require_known(word, [*LIMITS, *STRUCTURE, *ANNOTATIONS])
    for name in types_of(rule):
        require_known(name, TYPES)
    if "format" in rule:
        require_known(rule["format"], FORMATS)


def require_known(name: str, known: Collection[str]) -> None:
    """Raise ValueError if a name is none of the known ones."""
    if name not in known:
        # !r writes a text in quotes.
        raise ValueError(f"a rule has {name!r}; known are {', '.join(known)}")


# JavaScript holds integers exactly up to this one, Number.MAX_SAFE_INTEGER.
MAX_INTEGER = 2**53 - 1

# Anything, one character that is no white space, and anything. Not all mean the same by
# \s: Python's has \x1c to \x1f and \x85, JavaScript's has \ufeff. Here the former are
# blank to both, and \ufeff is visible to both.
NOT_BLANK = r"^[\s\S]*([^\s\x1c-\x1f\x85]|\ufeff)[\s\S]*$"


def make_rule(type_name: str, description: str, **words: Any) -> Rule:
    """Make a rule of its type, its words and its description. Raises ValueError."""
    rule = {"type": type_name, **words, "description": description}
    require_known_words(rule)
    return rule


def text_rule(max_length: int) -> Rule:
    """A string, which may be empty.

    Lengths count Unicode code points: 😀 is one, although JavaScript's length says 2.
    """
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
        # For those who read the description. `obeys` does not compare null with it.
        changed["enum"] = [*rule["enum"], None]
    return changed


STRING_RULE = make_rule("string", "a string")
INTEGER_RULE = make_rule("integer", "an integer")
NUMBER_RULE = make_rule("number", "a number")
BOOLEAN_RULE = make_rule("boolean", "true or false")
ANY_OBJECT_RULE = make_rule("object", "an object", additionalProperties=True)
TIME_RULE = make_rule(
    "string",
    "a time with its zone, such as 2026-01-01T09:30:00.000Z",
    format="date-time",
)
# Clients shorten the path /items/.. to / before they send it, so a row with the id ..
# could not be reached. An id has at least one character that is no dot, or three dots.
ROW_ID_RULE = make_rule(
    "string",
    "a string of 1 to 64 of the characters A-Z a-z 0-9 . _ -, but not . or ..",
    maxLength=64,
    pattern=r"^(\.*[A-Za-z0-9_-][A-Za-z0-9._-]*|\.{3,})$",
)


def validate(rule: Rule, value: Any, place: str = "") -> Any:
    """The same as `check`, but problems are raised, as InvalidError."""
    problems: Problems = {}
    kept = check(rule, value, place, problems)
    raise_for_problems(problems)
    return kept


def check(rule: Rule, value: Any, place: str, problems: Problems) -> Any:
    """Check a JSON value, and return it as it is kept: 3.0 as 3, a time in our form.

    What is wrong goes into `problems`, a dictionary that the caller has made, in the
    order of the rule. For what is inside a value, `check` calls itself and hands the
    same dictionary on, so that one answer can tell everything. `place` is where the
    value stands; the outermost has "".
    """
    if len(problems) >= MAX_PROBLEMS:
        return value  # no more will be told
    if isinstance(value, float) and value.is_integer() and "integer" in types_of(rule):
        value = int(value)  # in JSON Schema, 3.0 is an integer
    if not obeys(rule, value):
        problems[place] = f"{label(place)} must be {rule['description']}"
        return value
    if isinstance(value, dict):
        return check_properties(rule, value, place, problems)
    if isinstance(value, list) and "items" in rule:
        elements = []
        for index, element in enumerate(value):
            element_place = f"{place}[{index}]"
            elements.append(check(rule["items"], element, element_place, problems))
        return elements
    if isinstance(value, str) and "format" in rule:
        return FORMATS[rule["format"]](value)
    return value


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
    rule: Rule, value: dict[str, Any], place: str, problems: Problems
) -> dict[str, Any]:
    """Check what is inside an object, and return a copy of it as it is kept."""
    prefix = f"{place}." if place else ""
    properties = rule.get("properties", {})
    kept = dict(value)
    for name, property_rule in properties.items():
        if name in value:
            kept[name] = check(property_rule, value[name], prefix + name, problems)
        elif name in rule.get("required", ()):
            problems[prefix + name] = f"{label(name)} is required"
    # JSON Schema allows other names unless a rule says that it does not. A body can
    # have a million of them.
    if not rule.get("additionalProperties", True):
        for name in value:
            if name not in properties and len(problems) < MAX_PROBLEMS:
                problems[prefix + name] = unknown_name(name, properties)
    return kept


def unknown_name(name: str, allowed: Iterable[str]) -> str:
    """The sentence for a name that nobody has declared."""
    return f"{name} is not known here; allowed are {', '.join(allowed)}"


def label(place: str) -> str:
    """How a sentence names a place: `items[0].item_id` is "Item id", `_delay` "Delay".

    Names in capitals, as settings have, stay as they are.
    """
    name = place.rpartition(".")[2]  # what follows the last dot
    if name.isupper():
        return name
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


# ----------------------------------------------------------------------
# Records
#
# A record is a frozen dataclass: Python refuses to change its attributes once it is
# made. A change makes another record. So any thread may keep a record and read it
# whenever it likes. With `kw_only` its values are given by name and not by position, so
# that a field without a default may follow one that has one.
#
# The metadata of a field are our own notes about it, which dataclasses ignore. Here
# they are the rule of the field. A client must send the fields that have no default and
# are not read-only.
# ----------------------------------------------------------------------

# The store gives these fields their values. What a client sends for them is ignored,
# except in a whole state (see the section of that name).
READ_ONLY = {"readOnly": True}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where a record has the id of a row, and which resource that row is of.

    Reference(field_name="owner_id", resource_name="people") is the record's own field
    owner_id. With array_name="parts" besides, it is the owner_id in each object of the
    record's array parts, as `parts[0].owner_id`.
    """

    field_name: str
    array_name: str = ""
    resource_name: str

    # "Record" is in quotes because that class comes further down.
    def ids(self, record: "Record") -> list[str | None]:
        """The ids that a record has there: one, or one for each object in the array.

        None stands where no row is named.
        """
        if self.array_name == "":
            return [getattr(record, self.field_name)]
        elements = getattr(record, self.array_name)
        return [element.get(self.field_name) for element in elements]

    def place(self, index: int) -> str:
        """The place of the id with this index."""
        if self.array_name == "":
            return self.field_name
        return f"{self.array_name}[{index}].{self.field_name}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What every record has. `updated_at` is None until the first change."""

    # A ClassVar belongs to the class and is no field. Subclasses put their own in its
    # place.
    #
    # No two records may have the same value in one of these fields, unless it is None.
    unique_fields: ClassVar[tuple[str, ...]] = ()
    # Where a record names other rows. They must exist while it does.
    references: ClassVar[tuple[Reference, ...]] = ()

    id: str = field(metadata={**ROW_ID_RULE, **READ_ONLY})
    created_at: str = field(metadata={**TIME_RULE, **READ_ONLY})
    updated_at: str | None = field(
        default=None, metadata={**nullable(TIME_RULE), **READ_ONLY}
    )


class ItemStatus(StrEnum):
    """Where an item is in its life. A loop over this class gives its three strings."""

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
    properties={"item_id": STRING_RULE, "quantity": integer_rule(minimum=1)},
    additionalProperties=True,
)


@dataclass(frozen=True, kw_only=True)
class Order(Record):
    """What somebody has ordered, line by line."""

    unique_fields = ("internal_number",)
    # The first "items" is the field below, the second the resource of items.
    references = (
        Reference(array_name="items", field_name="item_id", resource_name="items"),
    )

    internal_number: str = field(metadata=name_rule(50))
    status: str = field(default="pending", metadata=name_rule(50))
    # Python would allow to change the list in a frozen record. Nothing here does so: a
    # change of an order brings a new list. A `default` would be one list for all
    # orders; a `default_factory` makes one for each.
    items: list[dict[str, Any]] = field(
        default_factory=list, metadata=array_rule(ORDER_LINE, max_items=1000)
    )


def check_named_rows(
    record: Record,
    reference: Reference,
    ids: Container[str],
    prefix: str,
    problems: Problems,
) -> None:
    """Check that the rows that a record names are among those with these ids.

    `prefix` is where the record stands in a whole state, such as `orders[0].`.
    """
    for index, id in enumerate(reference.ids(record)):
        if id is not None and id not in ids:
            place = prefix + reference.place(index)
            sentence = f"must be the id of one of the {reference.resource_name}"
            problems[place] = f"{label(place)} {sentence}"


def taken_sentence(name: str, value: Any) -> str:
    """What is said of a unique field if another row has the same value in it."""
    return f"{label(name)} {value} is taken"


# ----------------------------------------------------------------------
# Resources
#
# A resource is a kind of records with a name. All that the service must know about it
# follows from the fields of its record class. The last section registers items and
# orders, and whoever adds another class there has its routes, lists, checks and
# description.
# ----------------------------------------------------------------------

# A rule without a type and limits, which any value obeys.
IGNORED_RULE: Rule = {
    "description": "ignored, so that a row can be sent back as it came"
}


class Resource:
    """A resource's name and record class, and what follows from its fields.

    Raises ValueError if a field has no rule or a wrong one, or a name that lists use
    for a parameter, such as `page`.
    """

    def __init__(self, name: str, record_class: type[Record]) -> None:
        self.name = name
        self.record_class = record_class
        self.title = record_class.__name__
        self.rules: dict[str, Rule] = {}  # by field, in the order that a row shows
        self.defaults: dict[str, Any] = {}
        self.enums: dict[str, type[StrEnum]] = {}
        for record_field in ordered_fields(record_class):
            self._add_field(record_field)
        self.writable: list[str] = []
        self.searchable: list[str] = []
        for field_name, rule in self.rules.items():
            if "readOnly" not in rule:
                self.writable.append(field_name)
                if "string" in types_of(rule):
                    self.searchable.append(field_name)
        self._make_rules()
        # How lists are filtered. The functions for that are in the section Lists.
        self.filters: list[Filter] = []
        for field_name, rule in self.rules.items():
            self.filters.extend(filters_of(field_name, rule))
        self.parameters = make_parameters(self.filters)

    def _add_field(self, record_field: Field[Any]) -> None:
        """Note the rule of a field, its default, and the enum that it holds, if any."""
        name = record_field.name
        if name.startswith("_") or name in ("unique_fields", "references"):
            raise ValueError(f"a field must not be called {name}")
        rule: Rule = dict(record_field.metadata)
        if "type" not in rule or "description" not in rule:
            raise ValueError(f"{name} has no rule in its metadata")
        require_known_words(rule)
        types = [type_name for type_name in types_of(rule) if type_name != "null"]
        if len(types) != 1:
            raise ValueError(f"{name} must have one type, or one and null")
        self.rules[name] = rule
        # A default is kept to know which fields may be left out, and to tell it in the
        # API's description. Each record makes its own. MISSING means that a field has
        # none.
        if record_field.default is not MISSING:
            self.defaults[name] = record_field.default
        if record_field.default_factory is not MISSING:
            self.defaults[name] = record_field.default_factory()
        if name in self.defaults:
            check_default(name, rule, self.defaults[name])
        elif "readOnly" in rule and name not in ("id", "created_at"):
            raise ValueError(f"{name} is read-only, so it must have a default")
        enum = enum_of(record_field.type)
        if enum is not None:
            choices = [choice for choice in rule.get("enum", ()) if choice is not None]
            if choices != list(enum):
                raise ValueError(f"{name} must have a choice_rule of its enum")
            self.enums[name] = enum

    def _make_rules(self) -> None:
        """Make four rules for a whole row, each for another use.

        row_rule      what the service answers: it has every field
        create_rule   what a client sends for a new row
        change_rule   what a client sends for a change, which requires nothing
        state_rule    a row of a whole state

        What a client sends for read-only fields is ignored, except in a state. There,
        null stands for a value that the store is to fill in.
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
        self.row_rule = object_rule(self.rules, required=list(self.rules))
        self.create_rule = object_rule(sent, required)
        self.change_rule = object_rule(sent)
        self.state_rule = object_rule(in_state, required)

    def field_values(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The writable fields of a checked body.

        Texts become members of an enum where the record class promises one.
        """
        values = {}
        for name in self.writable:
            if name in body:
                values[name] = body[name]
                if name in self.enums and body[name] is not None:
                    enum = self.enums[name]
                    values[name] = enum(body[name])
        return values

    def record_json(self, record: Record) -> bytes:
        """A record as JSON, with its fields in the order of `rules`."""
        return to_json({name: getattr(record, name) for name in self.rules})


def check_default(name: str, rule: Rule, default: Any) -> None:
    """Raise ValueError if the default of a field is not as the rule says."""
    try:
        value = json.loads(to_json(default))  # a member of an enum becomes a string
        kept = validate(rule, value, name)
    except (TypeError, InvalidError) as error:
        raise ValueError(f"the default of {name} breaks its rule: {error}") from None
    if kept != value:
        raise ValueError(f"the default of {name} must be written {kept!r}")


def enum_of(field_type: Any) -> type[StrEnum] | None:
    """The enum that a field of this type holds, also if it is `Colour | None`."""
    types = [field_type]
    types.extend(get_args(field_type))  # of `Colour | None`, the two types in it
    for each_type in types:
        # `issubclass` takes classes only, and list[str] is not a class.
        if isinstance(each_type, type) and issubclass(each_type, StrEnum):
            return each_type
    return None


def to_json(value: Any) -> bytes:
    """A value as JSON, without blanks."""
    return json.dumps(value, separators=(",", ":")).encode()


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


RESOURCES: dict[str, Resource] = {}  # by name; the last section fills it


# ----------------------------------------------------------------------
# Rows and tables
#
# Rows do not change: a table puts a new row in the place of the old one. So a row that
# was read with the store's lock held can be used without it, and needs no copy.
# ----------------------------------------------------------------------


def tag_of(content: bytes) -> str:
    """A short text that stands for a content: whoever has it can ask "still the same?".

    It is a hash, computed from all bytes of the content. The same content always gives
    the same text. Two contents could in theory give the same one, but nobody will ever
    find such a pair.
    """
    return hashlib.sha256(content).hexdigest()[:32]


@dataclass(frozen=True)
class Row:
    """A record as it is stored. Its JSON is made once, its tag when somebody asks."""

    record: Record
    json: bytes

    @property
    def tag(self) -> str:
        """What stands for the content of this row. A property: `row.tag` calls this."""
        return tag_of(self.json)


@dataclass
class Table:
    """The rows of one resource by id, in the order in which they were added.

    It has no lock of its own.
    """

    rows: dict[str, Row]
    last_number: int  # the largest number that was given to a row as its id

    def copy(self) -> "Table":
        """Another table with the same rows."""
        return Table(self.rows.copy(), self.last_number)


def first_naming(table: Table, reference: Reference, row: Row) -> Row | None:
    """The first row of a table, other than `row` itself, that names it so."""
    for other in table.rows.values():
        if other is not row and row.record.id in reference.ids(other.record):
            return other
    return None


Tables = dict[str, Table]  # by the name of the resource


def make_tables(records: Mapping[str, Iterable[Record]]) -> Tables:
    """Tables of the given records; both are by the name of the resource."""
    tables = {}
    for name, resource in RESOURCES.items():
        rows = {}
        for record in records.get(name, ()):
            rows[record.id] = Row(record, resource.record_json(record))
        tables[name] = Table(rows, largest_number(rows))
    return tables


def largest_number(ids: Iterable[str]) -> int:
    """The largest id that is a number of at most 15 digits, or 0.

    A longer one is a name, such as a time in nanoseconds, and no number to count on
    from.
    """
    largest = 0
    for id in ids:
        if id.isdecimal() and len(id) <= 15:
            largest = max(largest, int(id))
    return largest


def next_number(last_number: int, ids: Container[str]) -> int:
    """The first number after the last one that is not among some ids."""
    number = last_number + 1
    while str(number) in ids:
        number += 1
    return number


# ----------------------------------------------------------------------
# Whole states
#
# A state has all rows of all resources, as `{"items": [...], "orders": [...]}`. Each of
# its rows is checked by itself first, and then what ties the rows to each other: values
# that must be unique, and the rows that they name.
# ----------------------------------------------------------------------


def read_state(state: Mapping[str, Any], now: str) -> Tables:
    """Tables with the rows of a state; a missing id or creation time is filled in.

    Raises InvalidError with problems by place, such as `orders[0].items[2].item_id`.
    """
    arrays = {}
    for name, resource in RESOURCES.items():
        arrays[name] = array_rule(resource.state_rule)
    kept = validate(object_rule(arrays), state)
    records = {}
    for name, resource in RESOURCES.items():
        records[name] = read_records(resource, kept.get(name, []), now)
    problems: Problems = {}
    check_state_ties(records, problems)
    raise_for_problems(problems)
    return make_tables(records)


def read_records(
    resource: Resource, bodies: list[dict[str, Any]], now: str
) -> list[Record]:
    """The records of a state's checked rows.

    Rows without an id get the numbers that follow: of rows with the ids 7, none and 8,
    the second gets 9.
    """
    given_ids = set()
    for body in bodies:
        if body.get("id") is not None:
            given_ids.add(body["id"])
    number = largest_number(given_ids)
    records = []
    for body in bodies:
        id = body.get("id")
        if id is None:
            number = next_number(number, given_ids)
            id = str(number)
        record = resource.record_class(
            id=id,
            created_at=body.get("created_at") or now,
            updated_at=body.get("updated_at"),
            **resource.field_values(body),
        )
        records.append(record)
    return records


def check_state_ties(records: Mapping[str, list[Record]], problems: Problems) -> None:
    """Check for values that are used twice, and for references to no row."""
    ids = {}
    for resource_name, resource_records in records.items():
        ids[resource_name] = {record.id for record in resource_records}
    for resource_name, resource_records in records.items():
        taken = set()  # pairs such as ("id", "1"), of the records before
        for index, record in enumerate(resource_records):
            prefix = f"{resource_name}[{index}]."
            unique_names = ["id", *record.unique_fields]
            for name in unique_names:
                value = getattr(record, name)
                if value is not None and (name, value) in taken:
                    problems[prefix + name] = taken_sentence(name, value)
                taken.add((name, value))
            for reference in record.references:
                named_ids = ids[reference.resource_name]
                check_named_rows(record, reference, named_ids, prefix, problems)


# ----------------------------------------------------------------------
# The store
#
# A store has the tables of one test, or one person, and the one lock that guards them.
# Data is checked by its rules before the lock is taken. What needs a look at other rows
# is checked with the lock held, by looking at every row: who builds or tests a user
# interface has few.
# ----------------------------------------------------------------------

# A client may want a change only if the row is as it knows it: the row's tag must be
# `in` the tags that it expects. None means that it expects nothing.
Expected = Container[str] | None


class Store:
    """The rows of all resources. Its public methods may be called from any thread.

    Callers give the time `now` in the form of `timestamp`.
    """

    def __init__(self, seed: Tables) -> None:
        # Whoever reads or changes the tables holds this lock, from the first look to
        # the last change, so that what was looked at is still true when the change is
        # made. There is one lock for all tables because a rule may span two of them: an
        # item that an order names must not be deleted. Bodies are checked before it is
        # taken; lists are filtered, sorted and put into JSON after it is given back.
        self._lock = Lock()
        # Copies, so that nothing that happens here is seen by others with this seed.
        self._tables: Tables = {}
        for name, table in seed.items():
            self._tables[name] = table.copy()

    def get(self, resource: Resource, id: str) -> Row:
        """One row. Raises NotFoundError."""
        with self._lock:
            return self._find(resource, id)

    def rows(self, resource: Resource) -> list[Row]:
        """The rows of a resource, in the order in which they were added."""
        with self._lock:
            return list(self._tables[resource.name].rows.values())

    def state(self) -> dict[str, list[Row]]:
        """All rows of all resources at one moment, by the name of the resource."""
        with self._lock:
            state = {}
            for name, table in self._tables.items():
                state[name] = list(table.rows.values())
            return state

    def create(self, resource: Resource, body: Mapping[str, Any], now: str) -> Row:
        """Add a row. Raises InvalidError, ConflictError."""
        values = resource.field_values(validate(resource.create_rule, body))
        with self._lock:
            table = self._tables[resource.name]
            number = next_number(table.last_number, table.rows)
            record = resource.record_class(id=str(number), created_at=now, **values)
            self._check_ties(resource, record)
            # Only counted up, so that the id of a deleted row does not come back. A
            # reset or a new state brings other tables, which count for themselves.
            table.last_number = number
            return self._put(resource, record)

    def update(
        self,
        resource: Resource,
        id: str,
        body: Mapping[str, Any],
        now: str,
        expected: Expected = None,
    ) -> Row:
        """Merge fields into a row that has an expected tag.

        Raises NotFoundError, StaleError, InvalidError, ConflictError: the first that
        applies. The body is checked before the lock is taken, as that may take a while;
        what is wrong with it is told only if the row is there and as expected.
        """
        problems: Problems = {}
        kept = check(resource.change_rule, body, "", problems)
        with self._lock:
            row = self._find(resource, id, expected)
            raise_for_problems(problems)
            # A copy of the record, but with these values.
            record = replace(row.record, updated_at=now, **resource.field_values(kept))
            self._check_ties(resource, record)
            return self._put(resource, record)

    def delete(self, resource: Resource, id: str, expected: Expected = None) -> None:
        """Remove a row that has an expected tag.

        Raises NotFoundError, StaleError, ConflictError: the first that applies.
        """
        with self._lock:
            row = self._find(resource, id, expected)
            self._check_not_named(resource, row)
            del self._tables[resource.name].rows[id]

    def replace_state(self, state: Mapping[str, Any], now: str) -> None:
        """Put the rows of a state in the place of all rows. Raises InvalidError."""
        tables = read_state(state, now)
        with self._lock:
            self._tables = tables

    # The methods below are called by those above, with the lock held. They must not
    # take it again: a thread that asks for a lock which it has waits for ever.

    def _find(self, resource: Resource, id: str, expected: Expected = None) -> Row:
        row = self._tables[resource.name].rows.get(id)
        if row is None:
            raise NotFoundError(f"{resource.title} not found")
        if expected is not None and row.tag not in expected:
            raise StaleError("Precondition failed")
        return row

    def _put(self, resource: Resource, record: Record) -> Row:
        """Add a record, or put it in the place of the one with its id."""
        row = Row(record, resource.record_json(record))
        self._tables[resource.name].rows[record.id] = row
        return row

    def _check_ties(self, resource: Resource, record: Record) -> None:
        """Check what ties a record that is about to be stored to other rows."""
        problems: Problems = {}
        for reference in record.references:
            ids = self._tables[reference.resource_name].rows  # a dictionary, by id
            check_named_rows(record, reference, ids, "", problems)
        raise_for_problems(problems)
        for name in record.unique_fields:
            value = getattr(record, name)
            if value is None:
                continue  # any number of rows may have none
            for row in self._tables[resource.name].rows.values():
                if getattr(row.record, name) == value and row.record.id != record.id:
                    sentence = taken_sentence(name, value)
                    raise ConflictError(sentence, {name: sentence})

    def _check_not_named(self, resource: Resource, row: Row) -> None:
        """Check that no other row names the one that is about to be deleted."""
        for name, table in self._tables.items():
            for reference in RESOURCES[name].record_class.references:
                if reference.resource_name != resource.name:
                    continue
                other = first_naming(table, reference, row)
                if other is not None:
                    named = f"{resource.title} {row.record.id} is named by"
                    sentence = (
                        f"{named} {RESOURCES[name].title.lower()} {other.record.id}"
                    )
                    raise ConflictError(sentence, {"id": sentence})


# ----------------------------------------------------------------------
# Lists
#
# `quantity_gte=5` filters a list by the field `quantity`: a row stays in the list if
# its quantity is at least 5, which is called the wanted value. `_gte` is the ending of
# the filter. `filters_of` says which endings a field has, and `filter_rows` what they
# mean:
#
#     no ending, _ne          fields of all types, but arrays and objects
#     _gt, _gte, _lt, _lte    those whose values have an order: not true and false
#     _like                   strings
# ----------------------------------------------------------------------

# Python has its comparisons as functions, too: gt(a, b) is `a > b`.
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "_gt": gt,
    "_gte": ge,
    "_lt": lt,
    "_lte": le,
}

# inventory.py makes a time of a date before this rule is used. In a query, a + stands
# for a blank.
WANTED_TIME_RULE = make_rule(
    "string",
    "a time with its zone, such as 2026-01-01T09:30:00.000Z, or a date, such as"
    " 2026-01-01; a + is written %2B",
    format="date-time",
)


class Filter(NamedTuple):
    """A field, the ending of the filter's name, and the rule for a wanted value.

    A NamedTuple is a tuple whose parts have names.
    """

    field: str
    ending: str
    wanted_rule: Rule


def filters_of(name: str, rule: Rule) -> list[Filter]:
    """The filters of a field with this rule."""
    types = types_of(rule)
    wanted_rule = make_wanted_rule(rule)
    if wanted_rule is None:
        return []
    equal_rule = nullable(wanted_rule) if "null" in types else wanted_rule
    filters = [Filter(name, "", equal_rule), Filter(name, "_ne", equal_rule)]
    if "boolean" not in types:
        for ending in COMPARISONS:
            filters.append(Filter(name, ending, wanted_rule))
    if "string" in types:
        filters.append(Filter(name, "_like", STRING_RULE))
    return filters


def make_wanted_rule(rule: Rule) -> Rule | None:
    """The rule for a value to compare a field with, or None if there is no such thing.

    It has no minimum or maximum: a quantity begins at 0, and yet `quantity_gt=-1` makes
    sense.
    """
    types = types_of(rule)
    if "format" in rule:
        return WANTED_TIME_RULE
    if "enum" in rule and "string" in types:
        return choice_rule(name for name in rule["enum"] if name is not None)
    for simple_rule in (STRING_RULE, INTEGER_RULE, NUMBER_RULE, BOOLEAN_RULE):
        if simple_rule["type"] in types:
            return simple_rule
    return None


def make_parameters(filters: Iterable[Filter]) -> dict[str, Rule]:
    """The rules of a list's parameters, by name.

    One that may be given several times is an array. Of the others the last one counts.
    Raises ValueError for a field whose name is a parameter already: sort, page,
    per_page, q, or the filter of another field, as a field size_gt where there is size.
    """
    # Every field that can be compared has one filter without an ending.
    names = [each_filter.field for each_filter in filters if each_filter.ending == ""]
    choices = "|".join(names)
    sort_item = f"-?({choices})"  # name or -name; more may follow after commas
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
    for each_filter in filters:
        parameter = each_filter.field + each_filter.ending
        if parameter in parameters:
            raise ValueError(f"a field must not be called {parameter}: lists use it")
        parameters[parameter] = array_rule(each_filter.wanted_rule)
    return parameters


def select(resource: Resource, rows: list[Row], query: Mapping[str, Any]) -> list[Row]:
    """The rows that a query asks for, in the order for which it asks.

    `query` has checked values by the names in `resource.parameters`.
    """
    for name, ending, _ in resource.filters:
        if name + ending in query:
            rows = filter_rows(rows, name, ending, query[name + ending])
    for text in query.get("q", []):
        rows = search_rows(rows, resource.searchable, text)
    if "sort" in query:
        rows = sort_rows(resource, rows, query["sort"].split(","))
    return rows


def filter_rows(
    rows: list[Row], name: str, ending: str, wanted: list[Any]
) -> list[Row]:
    """The rows that pass one filter, for which one or more values are wanted."""
    # A function: if `name` is quantity, value_of(row) is row.record.quantity.
    value_of: Callable[[Row], Any] = attrgetter(f"record.{name}")
    if ending == "":
        accepted = set(wanted)
        return [row for row in rows if value_of(row) in accepted]
    if ending == "_ne":
        refused = set(wanted)
        return [row for row in rows if value_of(row) not in refused]
    # Null is neither smaller nor larger than anything, and contains no text.
    rows = [row for row in rows if value_of(row) is not None]
    if ending == "_like":
        for text in wanted:
            rows = search_rows(rows, [name], text)
        return rows
    if name == "id":  # ids are compared by their length first
        value_of = id_order
        wanted = [natural_order(id) for id in wanted]
    compare = COMPARISONS[ending]
    for limit in wanted:
        rows = [row for row in rows if compare(value_of(row), limit)]
    return rows


def natural_order(id: str) -> tuple[int, str]:
    """What ids are compared by: the length first, so that 2 comes before 10."""
    return len(id), id


def id_order(row: Row) -> tuple[int, str]:
    return natural_order(row.record.id)


def search_rows(rows: list[Row], names: list[str], text: str) -> list[Row]:
    """The rows that contain a text in any of the named fields, ignoring case."""
    text = text.casefold()
    found = []
    for row in rows:
        for name in names:
            value = getattr(row.record, name)
            if value is not None and text in value.casefold():
                found.append(row)
                break
    return found


def sort_rows(resource: Resource, rows: list[Row], parts: list[str]) -> list[Row]:
    """The rows in an order that is told as `["-status", "name"]`."""
    descending: dict[str, bool] = {}
    for part in parts:
        # In `name,-name` the second changes nothing: the rows that it could put in
        # order have the same name.
        name = part.removeprefix("-")
        if name not in descending:
            descending[name] = part.startswith("-")
    # Sorting keeps the order of rows that compare equal. So the rows are sorted by the
    # least important field first, which is the last one: a dictionary keeps its order.
    for name in reversed(descending):
        key = sort_key(resource, name)
        rows = sorted(rows, key=key, reverse=descending[name])
    return rows


def sort_key(resource: Resource, name: str) -> Callable[[Row], Any]:
    """What rows are compared by if they are sorted by a field. Null is the smallest."""
    if name == "id":
        return id_order
    value_of = attrgetter(f"record.{name}")
    if "null" not in types_of(resource.rules[name]):
        return value_of

    def null_first(row: Row) -> tuple[bool, Any]:
        # False comes before True, so null comes before every value. The second parts
        # of two tuples are compared only if the first are equal: two values, or None
        # and None, which are equal as well.
        value = value_of(row)
        return value is not None, value

    return null_first


# ----------------------------------------------------------------------
# What there is
#
# The resources of this service. A declaration that cannot work is to stop the program
# at its start, and not to fail in a request.
# ----------------------------------------------------------------------

# The name of a resource is a part of paths. These two are such parts already.
TAKEN_NAMES = ("mock", "health")


def register(name: str, record_class: type[Record]) -> None:
    """Make the service offer the records of a class under a name. Raises ValueError."""
    resource = Resource(name, record_class)
    check_names(resource)
    check_declarations(resource)
    RESOURCES[name] = resource


def check_names(resource: Resource) -> None:
    """Raise ValueError for a name of a resource, or of its class, that cannot work."""
    name = resource.name
    if not re.fullmatch("[a-z][a-z0-9_-]*", name) or name in TAKEN_NAMES:
        taken = " or ".join(TAKEN_NAMES)
        raise ValueError(
            f"a resource must be called by a-z 0-9 _ -, but not {taken}; not {name!r}"
        )
    taken_titles = ["Error", "Health"]  # the API's description has these already
    for other in RESOURCES.values():
        if other.name != name:
            taken_titles.append(other.title)
    if resource.title in taken_titles:
        raise ValueError(f"another class must not be called {resource.title}")


def check_declarations(resource: Resource) -> None:
    """Raise ValueError for a class, unique field or reference that cannot work."""
    name = resource.name
    # @dataclass takes out of a class what `field(...)` has put into it. If something is
    # still there, it is missing.
    if any(isinstance(value, Field) for value in vars(resource.record_class).values()):
        raise ValueError(f"{resource.title} has no @dataclass above it")
    for field_name in resource.record_class.unique_fields:
        # Arrays and objects are no parameters of lists, and cannot be compared here.
        is_parameter = field_name in resource.parameters
        if field_name not in resource.writable or not is_parameter:
            raise ValueError(
                f"unique_fields of {name} has {field_name!r}: no such field"
            )
    for reference in resource.record_class.references:
        target = reference.resource_name
        if target != name and target not in RESOURCES:
            raise ValueError(f"{name} refers to {target!r}: no such resource")
        if "string" not in types_of(rule_of_reference(resource, reference)):
            raise ValueError(f"{name} has no string {reference.place(0)!r}")


def rule_of_reference(resource: Resource, reference: Reference) -> Rule:
    """The rule for the ids that a reference has, or an empty one if there is none.

    For the field `item_id` in the array `items`, it stands in the rule for the elements
    of `items`, under `properties`.
    """
    if reference.array_name == "":
        return resource.rules.get(reference.field_name, {})
    array: Rule = resource.rules.get(reference.array_name, {})
    element: Rule = array.get("items", {})
    if types_of(array) != ["array"] or types_of(element) != ["object"]:
        return {}
    rule: Rule = element.get("properties", {}).get(reference.field_name, {})
    return rule


register("items", Item)
register("orders", Order)
