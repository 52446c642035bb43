"""What goes wrong on the way to the Hub, as sentences: what happened, what to do; never with a token."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from dreamspace.hub.card import one_line
from dreamspace.jobs.secrecy import redact

_SENTENCES = {
    401: "The Hub does not accept the token (401): it is mistyped, expired or revoked. Make a new one with "
    "write access at {endpoint}/settings/tokens and set HF_TOKEN to it.",
    402: "The Hub wants a plan with more storage for {repo_id} (402). Delete repositories that you no longer "
    "need, or see {endpoint}/settings/billing.",
    403: "The token may not write to {repo_id} (403). Use a token with write access to it, from "
    "{endpoint}/settings/tokens, or a name in your own namespace.",
    404: "The Hub finds no {repo_id} (404): the namespace does not exist, the repository was just deleted, "
    "or the token may not see it. Check the name and the token's rights.",
    409: "Somebody else is changing {repo_id} at this moment (409). Wait a minute, then publish again.",
    413: "A file is too large for the Hub (413). Publish an adapter of a lower rank.",
    429: "The Hub takes no more requests from this account or address for now (429). Wait {wait}, then "
    "publish again.",
}
_SERVER_SENTENCE = (
    "The Hub has a problem of its own ({status}). Your run is safe; publish again later: what has arrived is "
    "not sent twice."
)
_OTHER_SENTENCE = "The Hub refused to publish {repo_id} ({status}). Update Dreamspace or try another name."


@contextmanager
def hub_errors(endpoint: str, repo_id: str, token: str) -> Iterator[None]:
    """Turn every failure of a call to the Hub into a ValueError of one sentence or two.

    The original errors are dropped, not chained: their requests hold the token.

    Args:
        endpoint: address of the Hub, for the sentences.
        repo_id: the repository, for the sentences.
        token: removed from whatever the Hub says.
    """
    try:
        yield
    except HfHubHTTPError as error:
        wait = _waiting_time(error.response.headers.get("Retry-After"))
        sentence = _sentence(error.response.status_code, endpoint, repo_id, wait)
        says = redact(one_line(error.server_message or ""), (token,))[:200]
        raise ValueError(f"{sentence} The Hub says: {says}" if says else sentence) from None
    except OfflineModeIsEnabled:
        raise ValueError(
            "HF_HUB_OFFLINE is set, so nothing can be published. Unset it, then publish again."
        ) from None
    except (ConnectionError, httpx2.TransportError) as error:
        # The xet storage library reports an HTTP status only as words in a ConnectionError.
        status = re.search(r"\((\d{3}) [A-Z]", str(error))
        raise ValueError(
            _sentence(int(status.group(1)), endpoint, repo_id)
            if status
            else f"The Hub at {endpoint} cannot be reached. Check the network connection, then publish again."
        ) from None
    except json.JSONDecodeError:
        raise ValueError(
            f"{endpoint} gave an answer that is not the Hub's. Check HF_ENDPOINT and the network, then "
            "publish again."
        ) from None
    except ValueError as error:
        says = redact(one_line(str(error)), (token,))[:500]
        raise ValueError(
            f"The Hub refused the files of {repo_id}; nothing was published. It says: {says}"
        ) from None


def _sentence(status: int, endpoint: str, repo_id: str, wait: str = "some minutes") -> str:
    sentence = _SENTENCES.get(status, _SERVER_SENTENCE if status >= 500 else _OTHER_SENTENCE)
    return sentence.format(status=status, endpoint=endpoint, repo_id=repo_id, wait=wait)


def _waiting_time(retry_after: str | None) -> str:
    if retry_after is None or not retry_after.isdigit():
        return "some minutes"
    seconds = int(retry_after)
    return f"{seconds} seconds" if seconds < 120 else f"{seconds // 60 + 1} minutes"
