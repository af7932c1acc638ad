"""What each user of the bucket may do, as S3 policies.

HEAD counts as reading in S3, and everyone who uploads layers looks with it at what is there already. So an uploader may
read a layer whose digest it knows; it can neither find one that it does not know, nor delete any.

`tests/setup/test_policies.py` holds them to what the services do, at Ceph, which judges by the same documents.
"""

from collections.abc import Sequence

from services.common.object_store.model import KEY_PREFIX

__all__ = ["Policy", "agent_policy", "public_policy", "uploader_policy"]

Policy = dict[str, object]
"""A policy document."""

_VERSION = "2012-10-17"
"""Version of the policy language, of which there is one other, older one."""


def uploader_policy(bucket: str) -> Policy:
    """Put layers and look at one by its name; nothing else."""
    # An upload in parts that fails is aborted, or its parts would stay for ever.
    return _policy(_on_layers(bucket, "s3:PutObject", "s3:AbortMultipartUpload", "s3:GetObject"))


def agent_policy(bucket: str, repository_bucket: str = "") -> Policy:
    """Read, list and delete layers, and end uploads that were abandoned; put none. Do everything to a repository.

    Parameters
    ----------
    bucket
        Bucket of the layers.
    repository_bucket
        Bucket of the repository; empty where that is in a directory.
    """
    statements = [
        _statement(_bucket(bucket), "s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"),
        _on_layers(bucket, "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"),
    ]
    if repository_bucket:
        on_bucket = ("s3:ListBucket", "s3:GetBucketLocation")
        on_objects = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
        # Ceph takes the deletion of several objects at once for something that is done to the bucket.
        places = [*_bucket(repository_bucket), *_objects(repository_bucket)]
        statements.append(_statement(places, *on_bucket, *on_objects))
    return _policy(*statements)


def public_policy(bucket: str) -> Policy:
    """Everybody may read what is in a bucket, and not what there is: a policy of the bucket's own."""
    return _policy(_statement(_objects(bucket), "s3:GetObject") | {"Principal": {"AWS": ["*"]}})


def _on_layers(bucket: str, *actions: str) -> dict[str, object]:
    return _statement([f"arn:aws:s3:::{bucket}/{KEY_PREFIX}*"], *actions)


def _bucket(name: str) -> Sequence[str]:
    return [f"arn:aws:s3:::{name}"]


def _objects(bucket: str) -> Sequence[str]:
    return [f"arn:aws:s3:::{bucket}/*"]


def _statement(resources: Sequence[str], *actions: str) -> dict[str, object]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}


def _policy(*statements: dict[str, object]) -> Policy:
    return {"Version": _VERSION, "Statement": list(statements)}
