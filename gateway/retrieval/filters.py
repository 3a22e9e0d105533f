"""OpenAI's attribute filters as a condition of the query: they hold inside it, not after it.

A document without the attribute equals nothing, hence it passes `ne` and `nin` and no other.
"""

from collections.abc import Callable
from operator import eq, ge, gt, le, lt
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import sqlalchemy as sa
from msgspec import Meta

from gateway.errors import BadRequest
from gateway.store.tables import documents

MAX_DEPTH = 8
# SQLite's JSON paths have no way to write a quote or a backslash.
Key = Annotated[str, Meta(max_length=64, pattern=r'^[^"\\\x00-\x1f]+$')]
Scalar = str | bool | int | float
Condition = sa.ColumnElement[bool]
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": eq, "gt": gt, "gte": ge, "lt": lt, "lte": le,
}  # fmt: skip
S = TypeVar("S", bound=msgspec.Struct)


class Comparison(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: Key
    value: Scalar | Annotated[list[Scalar], Meta(max_length=100)]


class Compound(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["and", "or"]
    filters: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=32)]


def condition(
    given: dict[str, Any], dialect: str, param: str = "filters", depth: int = 0
) -> Condition:
    """Over `documents.attributes`. Raises BadRequest with the path of what is wrong."""
    if given.get("type") not in ("and", "or"):
        return _compare(_read(given, Comparison, param), dialect, param)
    if depth == MAX_DEPTH:
        raise BadRequest("filters nest too deeply", param=param)
    found = _read(given, Compound, param)
    parts = [
        condition(it, dialect, f"{param}.filters[{i}]", depth + 1)
        for i, it in enumerate(found.filters)
    ]
    return sa.and_(*parts) if found.type == "and" else sa.or_(*parts)


def _read(given: dict[str, Any], shape: type[S], param: str) -> S:
    try:
        return msgspec.convert(given, shape)
    except msgspec.ValidationError as error:
        raise BadRequest(f"'{param}' is no filter: {error}", param=param) from error


def _compare(it: Comparison, dialect: str, param: str) -> Condition:
    is_list = isinstance(it.value, list)
    if is_list != (it.type in ("in", "nin")):
        raise BadRequest(f"'{it.type}' does not fit this value", param=f"{param}.value")
    if isinstance(it.value, list):
        among = sa.or_(sa.false(), *(_holds(it.key, "eq", one, dialect) for one in it.value))
        return sa.not_(among) if it.type == "nin" else among
    if it.type == "ne":
        return sa.not_(_holds(it.key, "eq", it.value, dialect))
    if isinstance(it.value, bool) and it.type != "eq":
        raise BadRequest("true and false have no order", param=f"{param}.value")
    return _holds(it.key, it.type, it.value, dialect)


def _holds(key: str, operator: str, value: Scalar, dialect: str) -> Condition:
    """Never NULL. The type is looked at first: a text is not read as a number."""
    field = documents.c.attributes[key]
    column: Any
    if isinstance(value, bool):
        kinds, column = ["boolean", "true", "false"], field.as_boolean()
    elif isinstance(value, str):
        kinds, column = ["string", "text"], field.as_string()
        column = column.collate("C") if dialect == "postgresql" else column
    else:
        kinds, column = ["number", "integer", "real"], field.as_float()
    is_kind = _kind(key, dialect).in_(kinds)
    return sa.case((is_kind, OPERATORS[operator](column, value)), else_=sa.false())


def _kind(key: str, dialect: str) -> sa.ColumnElement[str]:
    if dialect == "postgresql":
        return sa.func.json_typeof(documents.c.attributes[key])
    return sa.func.json_type(documents.c.attributes, f'$."{key}"')
