"""What would go wrong if a cluster were started now. ``geosweep doctor`` prints the findings.

Each check is a function that yields findings, and :data:`CHECKS` says which provider needs which.
They only read: they start, make and change nothing. A check that is not allowed to look says so.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from scoring.places import argument
from tune_jobs.cluster import keys
from tune_jobs.cluster.aws import (
    FORBIDDEN,
    NOTE,
    OK,
    WRONG,
    Account,
    Finding,
    client,
    usable,
)
from tune_jobs.cluster.reach import cluster_file
from tune_jobs.cluster.rights import image, launch, quotas, roles
from tune_jobs.errors import SweepError

Check = Callable[[Account], Iterator[Finding]]


def secret(account: Account) -> Iterator[Finding]:
    """Is there a token, which the nodes get?"""
    found, fix = keys.token_lacks() or ("", "")
    yield Finding(WRONG, found, fix) if found else Finding(OK, "~/.ray/auth_token is there")


def credentials(account: Account) -> Iterator[Finding]:
    """Who is asking? AWS has no answer without a region."""
    if not account.region.strip():
        yield Finding(WRONG, "the file has no region", "provider: region: in the file")
        return
    yield Finding(OK, account.caller)


def region(account: Account) -> Iterator[Finding]:
    """Does the region exist, and does the account use it?"""
    import boto3

    session, name = boto3.Session(), account.region
    known = [
        r
        for p in session.get_available_partitions()
        for r in session.get_available_regions("ec2", p)
    ]
    if name not in known:
        yield Finding(WRONG, f"{name or 'none'}: no such region", "provider: region: in the file")
        return
    zones = account.ec2.describe_availability_zones()["AvailabilityZones"]
    there = {zone["ZoneName"] for zone in zones}
    wanted = account.config["provider"].get("availability_zone", "")
    for zone in filter(None, (z.strip() for z in wanted.split(","))):
        if zone not in there:
            yield Finding(WRONG, f"{zone}: not in {name}", f"one of {', '.join(sorted(there))}")
            return
    yield Finding(OK, name)


def bucket(account: Account) -> Iterator[Finding]:
    """Is there a bucket for results, in the cluster's region?"""
    from botocore.exceptions import ClientError

    storage = account.storage
    if not storage.startswith("s3://"):
        fix = "GEOSWEEP_STORAGE=s3://... in setup_commands, unless every node mounts that path"
        yield Finding(NOTE, f"{storage or 'no GEOSWEEP_STORAGE'}: not a bucket", fix)
        return
    name = storage.removeprefix("s3://").partition("/")[0]
    make = f"aws s3 mb s3://NAME --region {account.region}"
    if name == "BUCKET":
        yield Finding(
            WRONG, f"{storage}: BUCKET is a placeholder", f"your bucket; {make} makes one"
        )
        return
    try:
        headers = client("s3", account.region).head_bucket(Bucket=name)["ResponseMetadata"]
    except ClientError as error:
        headers, code = error.response["ResponseMetadata"], error.response["Error"]["Code"]
        if code == "404":
            yield Finding(WRONG, f"s3://{name}: does not exist", make.replace("NAME", name))
            return
        if code == "403":
            yield Finding(WRONG, f"s3://{name}: refused", "a bucket of this account")
            return
    there = headers.get("HTTPHeaders", {}).get("x-amz-bucket-region", account.region)
    if there != account.region:
        fix = f"a bucket in {account.region} ({make}), or provider: region: {there}"
        yield Finding(WRONG, f"s3://{name}: in {there}, not {account.region}", fix)
        return
    said = account.variable("AWS_DEFAULT_REGION")
    if said and said != there:
        yield Finding(WRONG, f"AWS_DEFAULT_REGION={said}", f"AWS_DEFAULT_REGION={there}")
        return
    yield Finding(OK, f"s3://{name} in {there}")


def key(account: Account) -> Iterator[Finding]:
    """Is the key for SSH on this machine, and does AWS know it?"""
    auth = account.config.get("auth", {})
    if "ssh_private_key" not in auth:
        yield Finding(OK, f"Ray makes one, ~/.ssh/ray-autoscaler_{account.region}.pem")
        return
    file = Path(auth["ssh_private_key"]).expanduser()
    if not file.is_file():
        fix = "auth: ssh_private_key: in the file; without that line Ray makes one"
        yield Finding(WRONG, f"{file}: no such file", fix)
        return
    kinds = [config for config in account.kinds.values() if "ssh" not in config.get("UserData", "")]
    names = {config.get("KeyName") for config in kinds}  # the others bring their keys themselves
    if None in names:
        fix = "KeyName: in each node_config, or no ssh_private_key, so that Ray makes one"
        yield Finding(WRONG, "a node has no KeyName", fix)
        return
    known = {pair["KeyName"] for pair in account.ec2.describe_key_pairs()["KeyPairs"]}
    for name in sorted(map(str, names - known)):
        fix = f"aws ec2 import-key-pair --region {account.region} --key-name {argument(name)} ..."
        yield Finding(WRONG, f"{name}: AWS has no such key in {account.region}", fix)
        return
    yield Finding(OK, str(file))


def subnets(account: Account) -> Iterator[Finding]:
    """Is there a network for each type of node?"""
    without = [
        n
        for n, c in account.kinds.items()
        if "NetworkInterfaces" not in c and not usable(account, n)
    ]
    if without:
        fix = f"aws ec2 create-default-vpc --region {account.region}, or SubnetIds: in node_config"
        yield Finding(WRONG, f"{', '.join(without)}: no subnet that gives public addresses", fix)
        return
    yield Finding(OK, "every type of node has one")


TOKEN: dict[str, Check] = {"token": secret}
CHECKS: dict[str, dict[str, Check]] = {  # for each provider; the order is that of the output
    "aws": {
        **TOKEN,
        "credentials": credentials,
        "region": region,
        "bucket": bucket,
        "key": key,
        "subnet": subnets,
        "quota": quotas,
        "image": image,
        "role": roles,
        "launch": launch,
    },
}
NEEDED = ("credentials", "region")  # Without these no other check can look.


def examine(file: str) -> Iterator[tuple[str, Finding]]:
    """Run the checks that a cluster file needs.

    Args:
        file: path of the cluster file.

    Yields:
        The name of the check, and a finding; as soon as there is one.

    Raises:
        SweepError: there is no such file, or boto3 is missing.
    """
    provider = cluster_file(file)["provider"].get("type")
    account = Account(file)
    for name, check in CHECKS.get(provider, TOKEN).items():
        wrong = False
        for finding in attempt(check, account):
            wrong = wrong or finding.mark == WRONG
            yield name, finding
        if wrong and name in NEEDED:
            yield "rest", Finding(NOTE, "not looked at", f"first mend {name}")
            return


def attempt(check: Check, account: Account) -> Iterator[Finding]:
    """The findings of a check; an error of AWS is one, too."""
    try:
        yield from check(account)
    except ImportError as error:
        raise SweepError(f"{error.name} is missing: python -m pip install boto3") from error
    except Exception as error:
        response = getattr(error, "response", {}).get("Error", {})
        said = " ".join(str(error).split())[:300]
        if check is not credentials and FORBIDDEN.search(response.get("Code", "")):
            yield Finding(NOTE, f"may not look: {said}", "allow it, or ignore this check")
        else:
            fix = "aws configure" if check in (credentials, region) else ""
            yield Finding(WRONG, said or type(error).__name__, fix)
