"""Managed policies that are always there, under AWS's names: what they allow of what this server has."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from warp_s3.iam.entities import Managed, Version

OWNER: Final = "aws"
"""Stands for an account in ARNs of these policies."""

_CREATED_S: Final = 1_423_785_628  # 2015-02-12, when AWS made the first of them


def _policy(number: int, name: str, *allowed: str) -> Managed:
    document = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": list(allowed), "Resource": "*"}],
        },
        separators=(",", ":"),
    )
    return Managed(
        account=OWNER,
        name=name,
        path="/",
        id=f"ANPAWARPMANAGED{number:06}",
        created_s=_CREATED_S,
        updated_s=_CREATED_S,
        versions=(Version(1, document, _CREATED_S),),
    )


_READS_OF_S3: Final = ("s3:Get*", "s3:List*", "s3:Describe*")
_READS_OF_IAM: Final = ("iam:Get*", "iam:List*", "iam:GenerateCredentialReport")

MANAGED: Final[Mapping[str, Managed]] = MappingProxyType(
    {
        f"arn:aws:iam::aws:policy/{each.name}": each
        for each in (
            _policy(1, "AdministratorAccess", "*"),
            _policy(2, "AmazonS3FullAccess", "s3:*"),
            _policy(3, "AmazonS3ReadOnlyAccess", *_READS_OF_S3),
            _policy(4, "IAMFullAccess", "iam:*"),
            _policy(5, "IAMReadOnlyAccess", *_READS_OF_IAM),
            _policy(6, "PowerUserAccess", "s3:*", "sts:*", *_READS_OF_IAM),
            _policy(7, "ReadOnlyAccess", *_READS_OF_S3, *_READS_OF_IAM, "sts:GetCallerIdentity"),
        )
    }
)
"""By ARN."""
