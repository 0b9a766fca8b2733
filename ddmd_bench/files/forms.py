"""What a JSON value has to look like, written as such a value: types where values stand.

    {"suite": {"seeds": [int]}, "table": {...: {"value": NUMBER}}, "written?": {}}

An object has these keys, whatever else it has; one that ends with `?` may be left out, and `...`
stands for each. A list has elements of its one form. A tuple names forms, any of which will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

OBJECT: dict[Any, Any] = {}
NUMBER = float
MAYBE_NUMBER = (float, type(None))  # null: missing
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false",
          type(None): "null", dict: "an object", list: "a list"}  # fmt: skip
_SHOWN = 60  # characters of what was found


def misfit(value: Any, form: Any, where: str = "") -> str:
    """Where a value first is not of its form, and what was expected; '' where it is."""
    forms = form if isinstance(form, tuple) else (form,)
    kinds = [type(one) if isinstance(one, dict | list) else one for one in forms]
    # By its very type: to Python true is a whole number. A whole number is a number too.
    kind = float if type(value) is int and int not in kinds else type(value)
    if kind not in kinds or (kind is float and not math.isfinite(value)):
        found = _WORDS[kind] if kind in (dict, list) else repr(value)[:_SHOWN]
        expected = " or ".join(_WORDS[one] for one in kinds)
        return f"{where or 'it'} is {found}, expected {expected}"
    inside = forms[kinds.index(kind)]
    if isinstance(inside, list):
        parts = (misfit(part, inside[0], f"{where}[{k}]") for k, part in enumerate(value))
        return next(filter(None, parts), "")
    return _misfit_object(value, inside, where) if isinstance(inside, dict) else ""


def _misfit_object(value: Mapping[str, Any], form: Mapping[Any, Any], where: str) -> str:
    for key, part in form.items():
        if key is ...:
            inside = value
        elif (name := key.removesuffix("?")) in value:
            inside = {name: value[name]}
        elif key.endswith("?"):
            continue
        else:
            return f"{where or 'it'} has no {key!r}; expected an object with {_keys(form)}"
        for name, one in inside.items():
            if wrong := misfit(one, part, f"{where}.{name}" if where else name):
                return wrong
    return ""


def _keys(form: Mapping[Any, Any]) -> str:
    return ", ".join(key for key in form if key is not ... and not key.endswith("?"))
