"""Many numbers in one parameter: however many they are, the statement stays the same."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Dialect, Text, bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine


def packed(numbers: Sequence[int], dialect: str) -> str:
    """Many numbers as one parameter in the driver's own words, for `among`."""
    listed = ",".join(map(str, numbers))
    return f"[{listed}]" if dialect == "sqlite" else f"{{{listed}}}"


class _Numbers(TypeDecorator[Sequence[int]]):
    """Many numbers in one parameter, for `among`."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """An array where there are arrays, else JSON."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else ARRAY(BigInteger))

    def process_bind_param(self, value: Sequence[int] | None, dialect: Dialect) -> Any:
        """The numbers as the driver takes them."""
        numbers = value or ()
        return packed(numbers, dialect.name) if dialect.name == "sqlite" else list(numbers)


class _each(FunctionElement[int]):  # named like SQLAlchemy's own functions
    """The numbers of a parameter as a subquery."""

    inherit_cache = True
    type = BigInteger()


@compiles(_each)
def _each_of_an_array(element: Any, compiler: Any, **options: Any) -> str:
    return f"(SELECT unnest({compiler.process(element.clauses, **options)}))"


@compiles(_each, "sqlite")
def _each_of_json(element: Any, compiler: Any, **options: Any) -> str:
    numbers = compiler.process(element.clauses, **options)
    return f"(SELECT value FROM json_each({numbers}))"  # noqa: S608  # the driver binds them


def among(column: Any, name: str) -> ColumnElement[bool]:
    """Is the column one of the numbers that the parameter `name` holds?

    However many they are the statement stays the same, so that its plan is made once and kept.
    """
    found: ColumnElement[bool] = column.bool_op("IN")(_each(bindparam(name, type_=_Numbers())))
    return found
