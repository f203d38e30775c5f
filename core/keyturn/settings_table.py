"""Settings that carry their own documentation, and its table made from them, so that it cannot lie."""

import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

_HEAD = (
    "| variable | default | meaning | in the reference |\n",
    "| --- | --- | --- | --- |\n",
)


def setting(default: Any, description: str, *, reference: str = "", **options: Any) -> Any:
    """A setting with its text for the documentation and its equivalent in the reference system, if there is one."""
    return Field(default, description=description, json_schema_extra={"reference": reference}, **options)


def render(settings: type[BaseSettings]) -> str:
    """A Markdown table, one line a setting: variable, default, meaning, equivalent in the reference system."""
    prefix = settings.model_config.get("env_prefix", "")
    own = settings.__annotations__
    return "".join(
        (
            *_HEAD,
            # A class's own settings, then those that it has from others.
            *(
                _line(variable(prefix, name, field), field)
                for name, field in sorted(settings.model_fields.items(), key=lambda each: each[0] not in own)
            ),
        )
    )


def variable(prefix: str, name: str, field: FieldInfo) -> str:
    """The environment variable of a field."""
    return field.validation_alias if isinstance(field.validation_alias, str) else f"{prefix}{name.upper()}"


def _line(name: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra
    reference = str(extra.get("reference", "")) if isinstance(extra, Mapping) else ""
    names = ", ".join(f"`{part.strip()}`" for part in reference.split(",") if part.strip())
    meaning = " ".join(filter(None, (field.description, _choices(field.annotation))))
    return f"| `{name}` | {_default(field)} | {meaning} | {names} |\n"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None or field.default == ():
        return "unset"
    if field.default == "":
        return "empty"
    value: Any = field.default
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    if isinstance(value, float):
        value = int(value) if value.is_integer() else value
    return f"`{value}`"


def _choices(annotation: Any) -> str:
    if get_origin(annotation) in (types.UnionType, Union) or annotation is SecretStr or not get_args(annotation):
        return ""
    values = [value for value in get_args(annotation) if isinstance(value, str)]
    return f"One of {', '.join(f'`{value}`' for value in values)}." if values else ""
