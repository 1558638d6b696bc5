"""Reads clusters/aws-role.yaml with its parameters filled in."""

from typing import Any

import yaml

VALUES = {"Bucket": "made-up-bucket", "Cluster": "geosweep"}
VALUES |= {"AWS::Partition": "aws", "AWS::AccountId": "123456789012"}  # moto's account


class Cloud(yaml.SafeLoader):
    """Reads a CloudFormation template; ``!Ref Role`` gives ``Role``."""


def _filled(loader: Cloud, _name: str, node: Any) -> str:
    text = VALUES.get(node.value, node.value)
    for name, value in VALUES.items():
        text = text.replace(f"${{{name}}}", value)
    return text


Cloud.add_multi_constructor("!", _filled)


def resources(file: str) -> dict[str, dict[str, Any]]:
    """The properties of a template's resources."""
    with open(file) as stream:
        content = yaml.load(stream, Cloud)
    return {name: one["Properties"] for name, one in content["Resources"].items()}


def policy(stack: dict, name: str) -> list[dict]:
    """The statements of a managed policy, with lists of actions and resources."""
    return [
        one
        | {
            key: [one[key]] if isinstance(one[key], str) else one[key]
            for key in ("Action", "Resource")
        }
        for one in stack[name]["PolicyDocument"]["Statement"]
    ]
