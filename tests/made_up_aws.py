"""A simulated AWS (moto) for the tests of the cluster file: what Ray asks it for, and whose rights.

A person of the group in clusters/aws-role.yaml calls ``ray up``. The head has the template's role,
and starts workers with that role's credentials. moto refuses what the policies do not allow.

moto knows neither the resources nor the conditions of EC2, and asks for no permission for what
``RunInstances`` does on the way (tags, role, image). It is therefore given the policies without
them, except for S3. There it asks for the right to delete a folder's files on the bucket, where AWS
asks for it on each file, so the bucket is added. Every request is noted, so that tests compare it
with the policies as they are.

Tests run this in its own process, because Ray keeps state in globals and in the home folder.
"""

import json
import os
import shutil
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import made_up_nodes
import yaml
from aws_template import VALUES, policy, resources
from botocore.exceptions import ClientError
from click import ClickException
from moto import mock_aws
from moto.core.authorization import enable_iam_authentication
from moto.iam.access_control import IAMRequestBase
from moto.server import ThreadedMotoServer
from ray.autoscaler._private.aws import node_provider
from ray.autoscaler._private.aws.utils import client_cache, resource_cache
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import hash_launch_conf, prepare_config
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import (
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

from scoring import storage
from tune_jobs.cluster import reach

REGION = "us-west-2"  # of the cluster file
REFUSED = (ClientError, ClickException, NodeLaunchException, storage.StoreError, OSError)
node_provider.TAG_BATCH_DELAY = 0
LOADER = botocore.loaders.create_loader()  # reads what EC2 is once, which takes a second


def use(key: dict[str, str]) -> None:
    """Make boto3, Ray and pyarrow use credentials from now on."""
    session = botocore.session.get_session()
    session.register_component("data_loader", LOADER)
    boto3.setup_default_session(botocore_session=session)
    names = {
        "AWS_ACCESS_KEY_ID": "AccessKeyId",
        "AWS_SECRET_ACCESS_KEY": "SecretAccessKey",
        "AWS_SESSION_TOKEN": "SessionToken",
    }
    for variable, name in names.items():
        os.environ.pop(variable, None)
        if name in key:
            os.environ[variable] = key[name]
    resource_cache.cache_clear()
    client_cache.cache_clear()
    storage._opened.cache_clear()


def found_account(stack: dict, missing: str) -> tuple[dict, dict]:
    """Found an account with the template's role, a person of its group, and the bucket.

    Args:
        stack: from :func:`resources`.
        missing: an action that no policy allows; may be empty.

    Returns:
        Credentials of the person, and of a node.
    """
    use({"AccessKeyId": "made-up", "SecretAccessKey": "made-up"})
    place: Any = {"LocationConstraint": REGION}
    bucket = VALUES["Bucket"]
    boto3.client("s3", REGION).create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
    iam = boto3.client("iam", REGION)
    role, profile = stack["Role"], stack["Profile"]
    trust = json.dumps(role["AssumeRolePolicyDocument"])
    arn = iam.create_role(RoleName=role["RoleName"], AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    iam.create_instance_profile(InstanceProfileName=profile["InstanceProfileName"])
    (name,) = profile["Roles"]
    iam.add_role_to_instance_profile(
        InstanceProfileName=profile["InstanceProfileName"], RoleName=stack[name]["RoleName"]
    )
    iam.create_group(GroupName=stack["People"]["GroupName"])
    iam.create_user(UserName="ann")
    iam.add_user_to_group(GroupName=stack["People"]["GroupName"], UserName="ann")
    for name in stack["People"]["ManagedPolicyArns"]:
        allowed = policy(stack, name)
        for one in allowed:
            one["Action"] = [action for action in one["Action"] if action != missing] or ["no:No"]
            if not one["Action"][0].startswith("s3:"):
                one["Resource"] = "*"
                one.pop("Condition", None)
            elif "s3:DeleteObject" in one["Action"]:
                one["Resource"] = [*one["Resource"], f"arn:aws:s3:::{bucket}"]
        made = iam.create_policy(
            PolicyName=stack[name]["ManagedPolicyName"],
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": allowed}),
        )["Policy"]["Arn"]
        iam.attach_group_policy(GroupName=stack["People"]["GroupName"], PolicyArn=made)
        if name in role["ManagedPolicyArns"]:
            iam.attach_role_policy(RoleName=role["RoleName"], PolicyArn=made)
    person = iam.create_access_key(UserName="ann")["AccessKey"]
    session = boto3.client("sts", REGION).assume_role(RoleArn=arn, RoleSessionName="node")
    return dict(person), dict(session["Credentials"])


requests: list[tuple[str, str, dict]] = []  # who, action, parameters
_check = IAMRequestBase.check_action_permitted


def _note(self: Any, resource: str) -> None:
    who = "node" if "assumed-role" in self._access_key.arn else "person"
    values = {k: v[0] if isinstance(v, list) else v for k, v in dict(self._data).items()}
    requests.append((who, self._action, values))
    _check(self, resource)


IAMRequestBase.check_action_permitted = _note


def provider(config: dict) -> node_provider.AWSNodeProvider:
    return node_provider.AWSNodeProvider(config["provider"], config["cluster_name"])


def tags(config: dict, name: str) -> dict[str, str]:
    """The tags with which Ray starts a node of a type."""
    return {
        TAG_RAY_NODE_KIND: "head" if name == config["head_node_type"] else "worker",
        TAG_RAY_USER_NODE_TYPE: name,
        TAG_RAY_NODE_NAME: f"ray-{config['cluster_name']}-{name}",
        TAG_RAY_NODE_STATUS: "uninitialized",
        TAG_RAY_LAUNCH_CONFIG: "none",
    }


def head_node(config: dict) -> dict:
    """The configuration of the head."""
    kind = config["available_node_types"][config["head_node_type"]]
    return kind["node_config"] | config["head_node"]


def ray_up(config: dict) -> dict:
    """What ``ray up`` asks for on the laptop, until the head runs, from a bootstrapped file."""
    nodes = provider(config)
    nodes.create_node(head_node(config), tags(config, config["head_node_type"]), 1)
    (one,) = nodes.non_terminated_nodes({TAG_RAY_NODE_KIND: "head"})
    nodes.set_node_tags(one, {TAG_RAY_NODE_STATUS: "up-to-date"})
    return config


def identity(config: dict) -> str:
    """What Ray compares to find whether the head has to be replaced."""
    return hash_launch_conf(head_node(config), config["auth"])


def second_laptop(asked: dict, key: str | None) -> str:
    """What ``ray up`` compares on another laptop, which has a copy of the key or none."""
    home = os.environ["HOME"]
    with tempfile.TemporaryDirectory() as other:
        os.environ["HOME"] = other
        Path(other, ".ssh").mkdir()
        if key:
            shutil.copy(key, Path(other, ".ssh"))
        try:
            return identity(node_provider.AWSNodeProvider.bootstrap_config(asked))
        finally:
            os.environ["HOME"] = home


def scale(config: dict) -> None:
    """What the autoscaler asks for on the head: a worker of each type, and one goes and comes."""
    nodes, kinds = provider(config), config["available_node_types"]
    for name in kinds.keys() - {config["head_node_type"]}:
        nodes.create_node(kinds[name]["node_config"], tags(config, name), 1)
    (worker,) = nodes.non_terminated_nodes({TAG_RAY_USER_NODE_TYPE: "gpu"})
    nodes.set_node_tags(worker, {TAG_RAY_NODE_STATUS: "setting-up"})
    nodes.terminate_node(worker)
    nodes.create_node(kinds["gpu"]["node_config"], tags(config, "gpu"), 1)


def ray_down(config: dict) -> None:
    """What ``ray down`` asks for on the laptop."""
    nodes = provider(config)
    nodes.terminate_nodes(nodes.non_terminated_nodes({}))


def living(ec2: Any) -> list[dict]:
    """Instances that have not been terminated."""
    found = ec2.describe_instances()["Reservations"]
    nodes = [node for reservation in found for node in reservation["Instances"]]
    return [node for node in nodes if node["State"]["Name"] != "terminated"]


def machines(file: str, stack: dict) -> dict:
    """Nodes, disks and security groups of a cluster, what ``ray down`` leaves, and all requests."""
    with mock_aws():
        person, node = found_account(stack, "")
        with enable_iam_authentication():
            use(person)
            with open(file) as stream:
                asked = prepare_config(yaml.safe_load(stream))
            config = ray_up(_bootstrap_config(asked, no_config_cache=True))
            key = config["auth"]["ssh_private_key"]
            heads = [identity(config), *(second_laptop(asked, one) for one in (key, None))]
            use(node)
            scale(config)
        made = look()
        with enable_iam_authentication():
            use(person)
            ray_down(config)
        return made | {"left": look()["nodes"], "heads": heads}


def look() -> dict:
    """Nodes, disks and security groups that exist."""
    ec2 = boto3.client("ec2", REGION)
    nodes = living(ec2)
    for node in nodes:
        node["Tags"] = {tag["Key"]: tag["Value"] for tag in node["Tags"]}
    groups = sorted({group["GroupId"] for node in nodes for group in node["SecurityGroups"]})
    return {
        "nodes": nodes,
        "disks": [d for d in ec2.describe_volumes()["Volumes"] if d["State"] == "in-use"],
        "groups": groups and ec2.describe_security_groups(GroupIds=groups)["SecurityGroups"],
    }


def machines_without(file: str, stack: dict, missing: str) -> bool:
    """Whether a cluster comes and goes although no policy allows an action."""
    with mock_aws():
        person, node = found_account(stack, missing)
        try:
            with enable_iam_authentication(), open(file) as stream:
                use(person)
                asked = prepare_config(yaml.safe_load(stream))
                config = ray_up(node_provider.AWSNodeProvider.bootstrap_config(asked))
                use(node)
                scale(config)
                use(person)
                ray_down(config)
        except REFUSED:
            return False
        return True


def sweep() -> None:
    """What a sweep does with its folder."""
    root = f"s3://{VALUES['Bucket']}/sweeps/made-up"
    storage.write_file(root, "results/a", b"content")
    storage.write_file(root, "results/b", b"content")
    assert storage.read_file(root, "results/a") == b"content"
    assert storage.read_file(root, "results/c") is None
    assert storage.list_files(root, "results") == ["a", "b"]
    storage.set_aside(root, "results/a")
    storage.delete(root, "results")


def stored_without(server: ThreadedMotoServer, stack: dict, missing: str) -> str:
    """Why a node cannot use a sweep's folder if no policy allows an action; empty if it can."""
    host, port = server.get_host_and_port()
    with urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", b""):
        pass
    os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    try:
        _, node = found_account(stack, missing)
        use(node)
        with enable_iam_authentication():
            sweep()
    except REFUSED as error:
        return str(error)
    finally:
        del os.environ["AWS_ENDPOINT_URL"]
    return ""


def swept(server: ThreadedMotoServer, stack: dict) -> dict:
    """A whole sweep by nodes that have the role, and none by a node that has not; then a fetch.

    Returns:
        What :func:`made_up_nodes.run` returns, and the files that a person has brought home.
    """
    host, port = server.get_host_and_port()
    with urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", b""):
        pass
    root = f"s3://{VALUES['Bucket']}/sweeps/tiny"
    os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    person, node = found_account(stack, "")
    with enable_iam_authentication(), tempfile.TemporaryDirectory() as home:
        made = made_up_nodes.run(root, node)
        use(person)
        reach.fetch(None, root, home)
        made["fetched"] = sorted({path.parent.name for path in Path(home).rglob("*.parquet")})
    del os.environ["AWS_ENDPOINT_URL"]
    return made


def main(file: str, template: str) -> None:
    """Print what a cluster and a sweep ask for, and which of those actions they can do without."""
    stack = resources(template)
    made = machines(file, stack)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    made["stored"] = stored_without(server, stack, "")
    made["sweep"] = swept(server, stack)
    asked = sorted({action for _, action, _ in requests})
    made["requests"] = list(requests)
    made["refused"] = {}
    for action in asked:
        if action.startswith("s3:"):
            made["refused"][action] = bool(stored_without(server, stack, action))
        else:
            made["refused"][action] = not machines_without(file, stack, action)
    server.stop()
    print(json.dumps(made, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
