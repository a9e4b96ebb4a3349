"""What `make check` takes of a row of cases that are one behaviour in several places."""

from __future__ import annotations

from typing import Any

import pytest


def first_fast(first: Any, *others: Any) -> list[Any]:
    """Values for ``parametrize``: the first for every run, the others only where slow tests run too.

    A tuple is a row of several arguments. For tests of a second and more whose first case finds most of what the others find.
    """
    return [
        first,
        *(pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow) for value in others),
    ]
