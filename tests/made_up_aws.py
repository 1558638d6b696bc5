"""Ask a simulated AWS (moto) for the nodes of a cluster file, as Ray does, and print the result.

Tests run this in its own process, because Ray keeps state in globals and in the home folder.
"""

import json
import sys

import boto3
import yaml
from moto import mock_aws
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.tags import (
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)


def ask(file: str) -> dict:
    """Nodes, disks and security groups with one node of each type, and what termination leaves."""
    with open(file) as stream:
        config = _bootstrap_config(prepare_config(yaml.safe_load(stream)), no_config_cache=True)
    ec2 = boto3.client("ec2", config["provider"]["region"])
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    for name, kind in config["available_node_types"].items():
        tags = {
            TAG_RAY_NODE_KIND: "head" if name == config["head_node_type"] else "worker",
            TAG_RAY_USER_NODE_TYPE: name,
            TAG_RAY_NODE_NAME: f"ray-{config['cluster_name']}-{name}",
            TAG_RAY_NODE_STATUS: "uninitialized",
            TAG_RAY_LAUNCH_CONFIG: "none",
        }
        provider.create_node(kind["node_config"], tags, 1)
    nodes = living(ec2)
    for node in nodes:
        node["Tags"] = {tag["Key"]: tag["Value"] for tag in node["Tags"]}
    names = {group["GroupId"] for node in nodes for group in node["SecurityGroups"]}
    made = {
        "nodes": nodes,
        "disks": ec2.describe_volumes()["Volumes"],
        "groups": ec2.describe_security_groups(GroupIds=sorted(names))["SecurityGroups"],
    }
    provider.terminate_nodes(provider.non_terminated_nodes({}))
    return made | {"left": living(ec2)}


def living(ec2) -> list[dict]:
    """Instances that have not been terminated."""
    found = ec2.describe_instances()["Reservations"]
    nodes = [node for reservation in found for node in reservation["Instances"]]
    return [node for node in nodes if node["State"]["Name"] != "terminated"]


if __name__ == "__main__":
    with mock_aws():
        print(json.dumps(ask(sys.argv[1]), default=str))
