"""The authenticator: who is known, and that nobody else is."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from warp_core.contexts import AuthContext
from warp_core.errors import Unauthenticated
from warp_skeleton.authenticator import Skeleton
from warp_skeleton.config import Config


async def test_the_root_key_is_known_and_others_are_not(tmp_path: Path) -> None:
    context = AuthContext(tmp_path, Mock(), ("ROOTKEY", "root-secret"))
    async with Skeleton(Config(), context) as subject:
        assert (await subject.lookup("ROOTKEY")).principal.admin
        with pytest.raises(Unauthenticated):
            await subject.lookup("NOBODY")
