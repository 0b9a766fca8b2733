"""What a JSON value has to look like, written as such a value: types where values stand.

    {"suite": {"seeds": [int]}, "table": {...: {"value": NUMBER}}, "written?": {}}

An object has these keys, whatever else it has; one that ends with `?` may be left out, and `...`
stands for each. A list has elements of its one form. A tuple names types, any of which will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NUMBER = float
MAYBE_NUMBER = (float, type(None))  # null: missing
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false",
          type(None): "null", dict: "an object", list: "a list"}  # fmt: skip
_SHOWN = 60  # characters of what was found


def misfit(value: Any, form: Any, where: str = "") -> str:
    """Where a value first is not of its form, and what was expected; '' where it is."""
    if isinstance(form, Mapping):
        return _misfit_object(value, form, where)
    if isinstance(form, list):
        if not isinstance(value, list):
            return _told(value, [list], where)
        parts = (misfit(part, form[0], f"{where}[{k}]") for k, part in enumerate(value))
        return next(filter(None, parts), "")
    types = form if isinstance(form, tuple) else (form,)
    # By its very type: to Python true is a whole number. A whole number is a number too.
    fits = type(value) in types or (type(value) is int and float in types)
    if fits and not (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return _told(value, types, where)


def _misfit_object(value: Any, form: Mapping[Any, Any], where: str) -> str:
    if not isinstance(value, dict):
        return _told(value, [dict], where)
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


def _told(value: Any, types: Any, where: str) -> str:
    found = _WORDS[type(value)] if isinstance(value, dict | list) else repr(value)[:_SHOWN]
    return f"{where or 'it'} is {found}, expected {' or '.join(_WORDS[kind] for kind in types)}"
