"""The private SSH key of a cluster, which has to be on each machine that uses the cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tune_jobs.errors import SweepError


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
    if given := (config.get("auth") or {}).get("ssh_private_key"):
        file = Path(given).expanduser()
        folder, names = file.parent, [file.name]
    elif provider.get("type") == "aws":
        # Ray numbers its keys if the account has others of that name.
        if own := (provider.get("key_pair") or {}).get("key_name"):
            names = [f"{own}.pem", f"{own}_key-*.pem"]
        else:
            region = provider.get("region")
            names = [f"ray-autoscaler_{region}.pem", f"ray-autoscaler_*_{region}.pem"]
    if names and not any(found for name in names for found in folder.glob(name)):
        raise SweepError(
            f"--cluster {cluster}: no key {folder / names[0]}. If another machine started the "
            "cluster, copy this file and ~/.ray/auth_token from there, before any ray up here"
        )
