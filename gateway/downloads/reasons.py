"""Reasons why a repository cannot be fetched, as sentences with the next step; runs in the download child."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from gateway.disk import fault_of
from gateway.downloads.wire import NotFetched, offline_sentence
from gateway.errors import StorageFull

LOGIN = "(`hf auth login`, or HF_TOKEN)"


class CannotFetch(Exception):
    """A failed download. `answer` has the reason and the next step; `is_of_the_disk`: the models folder is at fault."""

    def __init__(
        self, message: str, code: str = "model_missing", *, is_of_the_disk: bool = False, needed_bytes: int = 0
    ) -> None:
        self.answer = NotFetched.model_validate(
            {"code": code, "message": message, "is_of_the_disk": is_of_the_disk, "needed_bytes": needed_bytes}
        )
        super().__init__(message)


class Damaged(Exception):
    """A file differs from the hub's list."""


@contextmanager
def as_cannot_fetch(repo: str, endpoint: str) -> Iterator[None]:
    """Convert errors of the hub and the disk into a sentence with the next step. Raises: CannotFetch."""
    try:
        yield
    except OfflineModeIsEnabled:
        raise CannotFetch(offline_sentence(repo)) from None
    except GatedRepoError:
        raise CannotFetch(
            f"{repo} is gated: accept its licence at {endpoint}/{repo}, then give the gateway a token of that account "
            f"{LOGIN}, and try again."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise _unknown(repo) from None
    except RevisionNotFoundError:
        raise gone(repo, None, is_here=False) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise _unknown(repo) from None
        if status == 403:
            raise CannotFetch(
                f"The hub refuses {repo} to the gateway's token: renew it {LOGIN}, and try again."
            ) from None
        raise CannotFetch(f"The hub answered {status} for {repo}; try again later.") from None
    except httpx.HTTPError:
        raise CannotFetch(
            f"The hub at {httpx.URL(endpoint).host} cannot be reached for {repo}: check the network, then try again; "
            "what has come is kept."
        ) from None
    except OSError as error:
        raise of_the_disk(error, f"; {repo} has come in part") from error


def gone(repo: str, commit: str | None, *, is_here: bool) -> CannotFetch:
    """The error of a missing commit. `is_here`: the models folder has files of it, not to be mixed with others."""
    which = "" if commit is None else f" {commit[:12]}"
    if is_here:
        step = "remove what came of the model, then pull it again"
    else:
        step = (
            f"to have what its main is now, set models.fall_back_to_main: [{repo}] "
            f"(MFLUX_GATEWAY__MODELS__FALL_BACK_TO_MAIN={repo}) and start the gateway anew"
        )
    return CannotFetch(
        f"The hub no longer has the commit{which} of {repo} that is asked for: {step}, or name another repository in "
        "models.hub."
    )


@contextmanager
def on_disk() -> Iterator[None]:
    """Convert errors of the models folder into a sentence. Raises: CannotFetch."""
    try:
        yield
    except OSError as error:
        raise of_the_disk(error) from error


def of_the_disk(error: OSError, what: str = "") -> CannotFetch:
    """The error of the models folder; `what` was fetched so far ends the sentence of a full disk."""
    fault = fault_of(error, "the models folder")
    if isinstance(fault, StorageFull):
        message = f"The disk of the models folder is full{what}. Make room, then try again."
        return CannotFetch(message, "disk_full", is_of_the_disk=True)
    message = f"The models folder cannot be written ({error.strerror or 'unknown reason'})."
    return CannotFetch(message, is_of_the_disk=fault is not None)


def _unknown(repo: str) -> CannotFetch:
    """The error of a repository that is unknown or private, which the hub does not distinguish."""
    return CannotFetch(
        f"The hub has no repository {repo}, or it is private: give the gateway a token that may read it {LOGIN}, "
        "and try again."
    )
