"""Shared by the tests of families: no network."""

from collections.abc import Iterator

import pytest

from dreamspace.models import tiny_vae


@pytest.fixture(scope="module", autouse=True)
def _no_decoder_of_the_hub() -> Iterator[None]:
    """Previews of a random model are a linear map's, on a machine with a network too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_vae, "PREVIEW_MODELS", {})
        yield
