"""The documentation's table of settings, made from the settings themselves so that it cannot lie."""

import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from keyturn_api.settings import PREFIX, ApiSettings

_HEAD = (
    "| variable | default | meaning | in the reference |\n",
    "| --- | --- | --- | --- |\n",
)


def render() -> str:
    """A Markdown table, one line a setting."""
    return "".join((*_HEAD, *(_line(name, field) for name, field in ApiSettings.model_fields.items())))


def _line(name: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra
    reference = str(extra.get("reference", "")) if isinstance(extra, Mapping) else ""
    names = ", ".join(f"`{part.strip()}`" for part in reference.split(",") if part.strip())
    meaning = " ".join(filter(None, (field.description, _choices(field.annotation))))
    return f"| `{PREFIX}{name.upper()}` | {_default(field)} | {meaning} | {names} |\n"


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
    if isinstance(value, float):
        value = f"{value:g}"
    return f"`{value}`"


def _choices(annotation: Any) -> str:
    if get_origin(annotation) in (types.UnionType, Union) or annotation is SecretStr or not get_args(annotation):
        return ""
    values = [value for value in get_args(annotation) if isinstance(value, str)]
    return f"One of {', '.join(f'`{value}`' for value in values)}." if values else ""


if __name__ == "__main__":
    print(render(), end="")  # noqa: T201
