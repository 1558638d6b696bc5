"""What a user of a cluster has and sees: a token, and the message of a command that was refused."""

import sys
from pathlib import Path
from unittest import mock

import pytest

from tune_jobs import cli


def write_token(home: Path, mode: int = 0o600, content: bytes = b"0" * 64) -> Path:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    file.chmod(mode)
    return file


def said(capsys, *words: str) -> str:
    with mock.patch.object(sys, "argv", ["geosweep", *words]), pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text
