"""The page docs/configuration.md, from the configuration's models."""

import json
from typing import Any, get_args

from pydantic import BaseModel

from recsys_spark.config import Config


def reference() -> str:
    """Return docs/configuration.md: every key with its type, default, bounds and meaning.

    >>> "| `als.rank` | 64 | whole number ≥ 1, ≤ 2,048 | Width of the factors. |" in reference()
    True
    """
    lines = [
        "# Configuration",
        "",
        "Every key of a file in `conf/`, from the models of `recsys_spark/config.py`. An unknown key is an error. Any",
        "key can be replaced on the command line: `--set als.rank=32 --set evaluation.k=[10,20]`.",
        "",
        "| key | default | kind | meaning |",
        "|---|---|---|---|",
    ]
    return "\n".join([*lines, *_rows(Config, "", "")]) + "\n"


_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _rows(model: type[BaseModel], prefix: str, optional: str) -> list[str]:
    """Return a row a key; optional: the section around them that may be left out, if there is one."""
    rows = []
    for name, field in model.model_fields.items():
        section = [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_section(kind)]
        if section:
            may_be_none = type(None) in get_args(field.annotation)
            rows += _rows(section[0], f"{prefix}{name}.", f"{prefix}{name}" if may_be_none else optional)
            continue
        schema = model.model_json_schema()["properties"][name]
        required = f"(required if there is `{optional}`)" if optional else "(required)"
        default = required if field.is_required() else json.dumps(schema.get("default"), ensure_ascii=False)
        meaning = " ".join((field.description or "").split())
        rows.append(f"| `{prefix}{name}` | {default} | {_kind(schema)} | {meaning} |")
    return rows


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kind(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"] if choice.get("type") != "null")
    if "enum" in schema:
        return " or ".join(f"`{choice}`" for choice in schema["enum"])
    if schema.get("format") in ("duration", "date-time"):
        return {"duration": "duration such as 36h", "date-time": "time"}[schema["format"]]
    if schema.get("type") == "array":
        parts = schema.get("prefixItems")
        return ", ".join(map(_kind, parts)) if parts else f"list of {_kind(schema['items'])}"
    if schema.get("type") == "object":
        return f"mapping to {_kind(schema.get('additionalProperties', {}))}"
    bounds = [f"{sign} {_number(schema[key])}" for key, sign in _BOUNDS.items() if key in schema]
    return " ".join([_KINDS.get(schema.get("type", ""), "value"), ", ".join(bounds)]).strip()


def _number(bound: float) -> str:
    """A bound as people write it.

    >>> _number(0.5), _number(2147483647), _number(1.0)
    ('0.5', '2,147,483,647', '1')
    """
    return f"{bound:,.0f}" if bound == int(bound) else f"{bound:g}"
