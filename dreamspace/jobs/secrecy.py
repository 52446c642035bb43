"""Tokens: which environment a child process gets, and how text is cleared of them."""

import re
from collections.abc import Mapping

# Names whose values are secrets, as `child_environment` tells its child; the names themselves are no secret.
HANDED_SECRETS_VARIABLE = "DREAMSPACE_SECRETS"

# Hub tokens are `hf_` and 34 letters and digits; OAuth tokens go on with a JWT. A capital or a digit is
# asked for (or great length), so that `hf_hub_download` in a traceback stays readable.
_TOKEN = re.compile(
    r"hf_(?:(?=[a-z_]*[A-Z0-9])[A-Za-z0-9_]{8,}(?:[.-][A-Za-z0-9_-]+)*|[a-z]{16,})",
)
_REDACTED = "hf_***"

_ALLOWED_NAMES = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "TEMP", "TMP"),
    *("VIRTUAL_ENV", "LD_LIBRARY_PATH", "CC", "CXX", "CUDA_HOME"),
    *("HF_HOME", "HF_ENDPOINT", "HF_ASSETS_CACHE", "HF_MODULES_CACHE", "HF_TOKEN_PATH"),
    *("HF_HUB_DISABLE_IMPLICIT_TOKEN", "HUGGINGFACE_HUB_CACHE"),
    *("SYSTEM", "SPACE_ID", "SPACE_HOST", "ACCELERATOR", "CPU_CORES", "MEMORY"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
_ALLOWED_PREFIXES = (
    *("DREAMSPACE_", "PYTHON", "XDG_", "LC_"),
    *("HF_HUB_", "HF_XET_", "HF_DATASETS_", "TRANSFORMERS_", "DIFFUSERS_", "TOKENIZERS_", "ACCELERATE_"),
    *("TORCH", "PYTORCH_", "TRITON_", "BNB_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "HIP_", "HSA_", "ROCR_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_"),
)
_SECRET_ENDINGS = ("TOKEN", "SECRET", "PASSWORD", "KEY")


def redact(text: str, secret_values: tuple[str, ...] = ()) -> str:
    """`text` with Hub tokens, and every one of `secret_values`, replaced by `hf_***`."""
    for value in secret_values:
        text = text.replace(value, _REDACTED)
    return _TOKEN.sub(_REDACTED, text)


def refuse_tokens(text: str, what: str, secret_values: tuple[str, ...] = ()) -> None:
    """Refuse text that is about to be written to disk if it holds a Hub token or one of `secret_values`.

    Args:
        text: what would be written.
        what: names it in words, as the sentence begins: "The settings of run x".

    Raises:
        ValueError: if it holds one; the sentence does not repeat it.
    """
    if redact(text, secret_values) != text:
        raise ValueError(
            f"{what} hold an access token, and they are written to disk. "
            "Take it out, and give the token where Dreamspace asks for it."
        )


def handed_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The secrets that a parent handed over in `environment`: name to value."""
    names = environment.get(HANDED_SECRETS_VARIABLE, "").split(",")
    return {name: environment[name] for name in names if environment.get(name)}


def child_environment(environment: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process: what the allow-list takes from `environment`, and `secrets`.

    A token that merely happens to be in `environment` is left out.
    """
    child = {
        name: value
        for name, value in environment.items()
        if name in _ALLOWED_NAMES
        or (name.startswith(_ALLOWED_PREFIXES) and not name.upper().endswith(_SECRET_ENDINGS))
    }
    child.update(secrets)
    child[HANDED_SECRETS_VARIABLE] = ",".join(sorted(secrets))
    return child
