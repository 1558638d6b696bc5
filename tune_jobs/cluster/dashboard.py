"""Ray's client of a cluster's Jobs API, which sends the cluster's token with every request."""

import re
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

from models.messages import first_line
from tune_jobs.errors import SweepError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ANSWER = 60.0  # seconds for the dashboard to answer; by default Ray's client waits for ever
REFUSED = r"\b40[13]\b|[Uu]nauthenticated|[Aa]uthentication|[Ii]nvalid .*token"


def client(url: str, given: str) -> "JobSubmissionClient":
    """A client, after it was seen that the dashboard answers.

    Args:
        url: of the dashboard.
        given: how messages name the cluster.

    Raises:
        SweepError: nothing answers there, or not a dashboard of Ray, or it refuses the token.
    """
    from ray.job_submission import JobSubmissionClient
    from requests import Timeout

    class Client(JobSubmissionClient):
        """Gives up when there is no answer, and keeps the token from proxies."""

        def _check_connection_and_version(self, *words: Any, **rest: Any) -> None:
            try:
                super()._check_connection_and_version(*words, **rest)
            except (LookupError, TypeError) as error:  # JSON without a version of Ray
                raise ConnectionError("what answers is no dashboard") from error

        def _do_request(self, method: str, endpoint: str, **rest: Any) -> Any:
            if rest.get("data") is None:  # an upload may take as long as it takes
                rest.setdefault("timeout", ANSWER)
            # A proxy reads plain HTTP, and most proxies cannot reach an SSH tunnel on this machine.
            direct = {"no_proxy": "*"} if url.startswith("http:") else {}
            return super()._do_request(method, endpoint, proxies=direct, **rest)

    try:
        found = Client(url)
        found.list_jobs()
        return found
    except Timeout as error:
        raise SweepError(f"{given}: {no_answer()}") from error
    except Exception as error:  # Ray raises its own and those of requests.
        said = first_line(error)
        if re.search(REFUSED, str(error)):
            said = "refused: not the cluster's token; copy ~/.ray/auth_token from where it was made"
        elif (
            isinstance(error, ConnectionError | JSONDecodeError)
            or "connect" in said.lower()
            or "returned 404" in said
        ):
            said = "no Ray dashboard answers there"
        raise SweepError(f"{given}: {said}") from error


def no_answer() -> str:
    """What is said when a dashboard does not answer in time."""
    return f"no answer in {ANSWER:g} s"
