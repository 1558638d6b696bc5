"""What each machine that uses a cluster needs: the cluster's token, and its private SSH key."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.files import given_path
from scoring.places import argument
from tune_jobs.errors import SweepError

GENERATE = "(umask 077; ray get-auth-token --generate)"  # else everybody here could read the token


def token() -> None:
    """Make Ray's clients in this process authenticate with the token.

    Raises:
        SweepError: there is no token that only this user can read, and ``RAY_AUTH_MODE`` does not
            turn authentication off.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if found := token_lacks():
        raise SweepError(". ".join(found))


def token_lacks() -> tuple[str, str] | None:
    """What is wrong with the token, and what to do about it; None if nothing is."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    file = given_path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"))
    copy = "copy this file from the machine that started it"
    try:
        there = file.is_file() and file.read_text("utf-8").strip()
        others = there and _open_to_others(file.stat())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        return f"{file}: the token cannot be read: {why}", f"For a running cluster: {copy}"
    if not there:
        make = f"For a new cluster: {GENERATE}, then ray up"
        return f"{file}: no token", f"{make}. For a running one: {copy}"
    if others:
        what = f"{file}: other users of this machine can read the token, and so run code there"
        mend = f"chmod 600 {argument(str(file))} ends that"
        return what, f"{mend}. If it cannot, give the token in the variable RAY_AUTH_TOKEN"
    return None


def _open_to_others(file: os.stat_result) -> int:
    """Whether others can use a file. If another user owns it, we may read it through its group."""
    ours = file.st_uid == os.getuid()
    return file.st_mode & (stat.S_IRWXO | (stat.S_IRWXG if ours else stat.S_IWGRP))


def check(cluster: str, config: Mapping[str, Any]) -> None:
    """Refuse to go on without a cluster's private key.

    On AWS Ray makes a key if it finds none, here and in the account. No node knows that key, and
    the next ``ray up`` replaces the head, because the key's name is part of what a node is.

    Args:
        cluster: the cluster file, for the message.
        config: its content.

    Raises:
        SweepError: the key is not here; the message says where it should be.
    """
    folder, names = Path("~/.ssh").expanduser(), []
    provider = config["provider"]
    if given := config.get("auth", {}).get("ssh_private_key"):
        file = Path(given).expanduser()
        folder, names = file.parent, [file.name]
    elif provider.get("type") == "aws":
        # Ray numbers its keys if the account has others of that name.
        if own := provider.get("key_pair", {}).get("key_name"):
            names = [f"{own}.pem", f"{own}_key-*.pem"]
        else:
            region = provider.get("region")
            names = [f"ray-autoscaler_{region}.pem", f"ray-autoscaler_*_{region}.pem"]
    if names and not any(found for name in names for found in folder.glob(name)):
        raise SweepError(
            f"--cluster {cluster}: no key {folder / names[0]}. If another machine started the "
            "cluster, copy this file and ~/.ray/auth_token from there, before any ray up here"
        )
