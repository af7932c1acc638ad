"""Notifications exactly as object stores send them (MinIO by its source, the others as recorded)."""

import json
from typing import Any

__all__ = ["ceph_event", "minio_event", "seaweedfs_event"]


def minio_event(bucket: str, key: str, *, name: str = "s3:ObjectCreated:Put", size: int | None = 1230) -> bytes:
    """MinIO: the key is form-encoded in the record, and the size is left out where it is 0."""
    created = name.startswith("s3:ObjectCreated")
    encoded = key.replace("/", "%2F").replace(" ", "+")
    item: dict[str, Any] = {"key": encoded, "sequencer": "17C0A8E9A2B3C4D5"}
    if created:
        item |= {
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "contentType": "application/vnd.oci.image.layer.v1.tar+zstd",
            "userMetadata": {
                "content-type": "application/vnd.oci.image.layer.v1.tar+zstd",
                "x-amz-meta-repository": "test.cern.ch",
            },
        }
        if size:
            item["size"] = size
    record = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "awsRegion": "",
        "eventTime": "2026-11-24T08:00:00.123Z",
        "eventName": name,
        "userIdentity": {"principalId": "layers-user"},
        "requestParameters": {"principalId": "layers-user", "region": "", "sourceIPAddress": "172.17.0.1"},
        "responseElements": {
            "x-amz-id-2": "dd9025bab4ad464b049177c95eb6ebf374d3b3fd1af9251148b658df7ac2e3e8",
            "x-amz-request-id": "17C0A8E9A2B3C4D5",
            "x-minio-deployment-id": "f6f8a7f6-5f5f-4a3c-8f0f-3a3f3c3b3a39",
            "x-minio-origin-endpoint": "http://172.17.0.2:9000",
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "Config",
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"principalId": "layers-user"},
                "arn": f"arn:aws:s3:::{bucket}",
            },
            "object": item,
        },
        "source": {"host": "172.17.0.1", "port": "", "userAgent": "aiobotocore/3.1.0"},
    }
    return json.dumps({"EventName": name, "Key": f"{bucket}/{key}", "Records": [record]}).encode()


def ceph_event(bucket: str, *keys: str, name: str = "ObjectCreated:Put") -> bytes:
    """Ceph RGW 18.2: no `s3:`, the key as it is, metadata as a list."""
    records = [
        {
            "eventVersion": "2.2",
            "eventSource": "ceph:s3",
            "awsRegion": "default",
            "eventTime": "2026-11-24T08:00:00.123456Z",
            "eventName": name,
            "userIdentity": {"principalId": "layers-user"},
            "requestParameters": {"sourceIPAddress": ""},
            "responseElements": {
                "x-amz-request-id": "4b1c1f1e-1.4155.12345",
                "x-amz-id-2": "103b-default-default",
            },
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "layers",
                "bucket": {
                    "name": bucket,
                    "ownerIdentity": {"principalId": "layers-user"},
                    "arn": f"arn:aws:s3:default::{bucket}",
                    "id": "4b1c1f1e.4155.1",
                },
                "object": {
                    "key": key,
                    "size": 1230,
                    "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                    "versionId": "",
                    "sequencer": "7B8C1F6512345678",
                    "metadata": [
                        {"key": "x-amz-content-sha256", "val": "UNSIGNED-PAYLOAD"},
                        {"key": "x-amz-meta-repository", "val": "test.cern.ch"},
                    ],
                    "tags": [],
                },
            },
            "eventId": "1700000000.123456.d41d8cd98f00b204e9800998ecf8427e",
            "opaqueData": "",
        }
        for key in keys
    ]
    return json.dumps({"Records": records}).encode()


def seaweedfs_event(bucket: str, key: str, *, event: str = "create", chunks: int = 1) -> bytes:
    """SeaweedFS 4.48: an event of its filer, which names every chunk of the file."""
    parent, _, name = f"/buckets/{bucket}/{key}".rpartition("/")
    entry = {
        "name": name,
        "chunks": [
            {
                "file_id": f"3,{number:08x}a1b2c3d4",
                "offset": number << 23,
                "size": 1 << 23,
                "modified_ts_ns": 1763971200123456789 + number,
                "e_tag": "1B2M2Y8AsgTpgAmY7PhCfg==",
                "fid": {"volume_id": 3, "file_key": number, "cookie": 2712847316},
            }
            for number in range(chunks)
        ],
        "attributes": {
            "file_size": chunks << 23,
            "mtime": 1763971200,
            "file_mode": 432,
            "crtime": 1763971200,
            "mime": "application/vnd.oci.image.layer.v1.tar+zstd",
            "md5": "1B2M2Y8AsgTpgAmY7PhCfg==",
        },
        "extended": {"x-amz-meta-repository": "dGVzdC5jZXJuLmNo"},
    }
    message: dict[str, Any] = {"delete_chunks": event == "delete", "signatures": [-1234567]}
    if event in ("delete", "update", "rename"):
        message["old_entry"] = entry
    if event in ("create", "update", "rename"):
        message |= {"new_entry": entry, "new_parent_path": parent}
    path = "/buckets/elsewhere/old" if event == "rename" else f"{parent}/{name}"
    return json.dumps({"event_type": event, "key": path, "message": message}).encode()
