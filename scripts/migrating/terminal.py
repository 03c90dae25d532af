"""What the programs here say at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def say(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """Print fields as one JSON object, or as aligned lines without those that are empty."""
    if as_json:
        print(json.dumps(fields))
        return
    shown = {name: value for name, value in fields.items() if value not in ("", [], {}, None)}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        print(f"{name:<{width}}  {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(each)}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
