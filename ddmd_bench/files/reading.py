"""What every reader says of a file that it cannot read: which, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddmd_bench.errors import BenchError, Unreadable, said_by

PUT_BACK = "Put a whole one in its place, or delete it and make it again"
FETCH_AGAIN = "Fetch or copy a whole one again"  # of what others have made


@contextmanager
def reading(
    path: Path, kind: str, *damage: type[Exception], remedy: str = PUT_BACK
) -> Iterator[None]:
    """Raise `Unreadable` for a file that is not there, cut or foreign, whatever its library raises.

    damage: what the library raises over a file's content, beside `ValueError` and `OSError`.
    """
    # Some libraries have no word for either.
    if not path.is_file():
        raise Unreadable(f"{path}: {'a folder' if path.is_dir() else 'no such file'}. {remedy}")
    caught: tuple[type[Exception], ...] = (OSError, ValueError, *damage)
    try:
        yield
    except BenchError:
        raise
    except caught as error:
        # Libraries raise an OSError of their own too, without a number, over what a file holds.
        if isinstance(error, OSError) and error.errno is not None:
            raise Unreadable(f"{path}: cannot be read: {error.strerror}. {remedy}") from error
        raise Unreadable(f"{path}: cut, or no {kind} ({said_by(error)}). {remedy}") from error


def refuse(path: Path, found: str, expected: str, remedy: str = PUT_BACK) -> Unreadable:
    """The error for a file that can be read and is not what is asked for."""
    return Unreadable(f"{path}: {found}; expected {expected}. {remedy}")
