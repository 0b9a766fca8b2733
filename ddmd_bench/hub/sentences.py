"""What the Hub, the network or the disk answered, in words: found, expected, to do."""

from __future__ import annotations

import json

from ddmd_bench.hub.remote import Remote


def failures() -> tuple[type[Exception], ...]:
    """Every class of error that asking the Hub can raise and `sentence` can say."""
    import httpx2
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    # The Hub's own errors over HTTP, and those of a disk, are OSErrors.
    return (
        httpx2.HTTPError,
        OSError,
        EntryNotFoundError,
        HFValidationError,
        json.JSONDecodeError,
    )


def unreachable(error: BaseException | None) -> bool:
    """Whether an error means that no Hub answered, so that asking again is of no use now."""
    import httpx2
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, LocalEntryNotFoundError):  # how the Hub's client wraps it
        return unreachable(error.__cause__)
    return isinstance(error, (OfflineModeIsEnabled, httpx2.TransportError))


def sentence(remote: Remote, error: BaseException) -> str:
    """What was found, what was expected and what to do, for an error while asking for a remote."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return f"{remote.what}: {_answer(remote, error)}"


def _answer(remote: Remote, error: BaseException) -> str:
    import httpx2
    from huggingface_hub import constants, errors, get_token

    page = f"{constants.ENDPOINT}/{'datasets/' * (remote.kind == 'dataset')}{remote.repository}"
    token = "" if get_token() else " (there is no token on this machine)"
    match error:
        case errors.GatedRepoError():
            return (
                f"{remote.repository} is gated and this account has no access{token}. Accept the "
                f"terms at {page}, then log in here with `hf auth login`"
            )
        case errors.RepositoryNotFoundError():
            return (
                f"found no {remote.kind} repository at {page}: renamed, or private{token}? Correct "
                "the name, or log in with `hf auth login` to an account that can see it"
            )
        case errors.DisabledRepoError():
            return f"{page} was disabled. Name another repository, or a folder with its files"
        case errors.RevisionNotFoundError():
            return (
                f"{remote.repository} has no revision {remote.revision!r}. Expected a branch, a "
                f"tag or a full commit hash; they are listed at {page}/commits"
            )
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            return (
                f"{remote.place} is not on this machine, and HF_HUB_OFFLINE is set. Unset it, or "
                "copy the Hub's cache from a machine that has the files"
            )
        case errors.EntryNotFoundError():
            return f"a file of {remote.place} is not there: {_first_line(error)}"
        case errors.HfHubHTTPError() if error.response.status_code == 401:
            return "the Hub refused this machine's token. Log in again with `hf auth login`"
        case errors.HfHubHTTPError():
            status = error.response.status_code
            todo = "Try again later" if status == 429 or status >= 500 else "See the Hub's answer"
            return f"{page} answered {status}: {_first_line(error)}. {todo}"
        case httpx2.HTTPError():
            return (
                f"{remote.place} is not on this machine, or not all of it, and there is no network "
                f"to {constants.ENDPOINT} ({type(error).__name__}: {_first_line(error)}). Connect, "
                "or copy the Hub's cache from a machine that has the files; what has arrived is "
                "kept, and a download goes on from there"
            )
        case errors.HFValidationError():
            return f"{remote.repository} cannot be on the Hub: {_first_line(error)}"
        case json.JSONDecodeError():
            return (
                f"{constants.ENDPOINT} did not answer as a Hub does (a proxy's page?). Check "
                "HF_ENDPOINT and the network's login page"
            )
        case _:
            return f"{remote.place} could not be written or read: {error}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
