"""Settings of buckets and objects that have one fixed state here, and their standard answers.

Clients ask for these as a matter of course, and the answers are true. What they cannot change is refused as not
implemented, by the router's names.
"""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from warp_s3 import xml_output
from warp_s3.access.settings import PAYMENT
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.receiving import read_document
from warp_s3.xml_input import parse

if TYPE_CHECKING:
    from warp_s3.service import Service

ACCELERATION: Final = "s3.accelerate"
"""Name of the volume's document; a label, as every endpoint here is as fast as the next."""

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]

# Operation to the error that says that nothing is set.
_UNSET: Final = {
    "GetObjectTorrent": "NoSuchKey",
}


def _unset(code: str) -> Handler:
    async def answer(service: "Service", call: Call) -> Answer:
        await service.objects.volume(call.bucket)
        raise S3Error(code, details={"BucketName": call.bucket})

    return answer


async def _get_payment(service: "Service", call: Call) -> Answer:
    settings = await service.access.settings(call.bucket)
    payer = "Requester" if settings.requester_pays else "BucketOwner"
    return xml(xml_output.document("RequestPaymentConfiguration", f"<Payer>{payer}</Payer>"))


async def _put_payment(service: "Service", call: Call) -> Answer:
    payer = parse(await read_document(call), "RequestPaymentConfiguration").findtext("Payer")
    if payer not in {"Requester", "BucketOwner"}:
        raise S3Error("MalformedXML")
    kept = payer.encode() if payer == "Requester" else None
    await service.objects.set_document(call.bucket, PAYMENT, kept)
    return empty(200)


async def _get_acceleration(service: "Service", call: Call) -> Answer:
    kept = (await service.objects.volume(call.bucket)).documents.get(ACCELERATION)
    status = f"<Status>{kept.decode()}</Status>" if kept is not None else ""
    return xml(xml_output.document("AccelerateConfiguration", status))


async def _put_acceleration(service: "Service", call: Call) -> Answer:
    status = parse(await read_document(call), "AccelerateConfiguration").findtext("Status")
    if status not in {"Enabled", "Suspended"}:
        raise S3Error("MalformedXML")
    if "." in call.bucket:
        raise S3Error(
            "InvalidRequest",
            "S3 Transfer Acceleration is not supported for buckets with periods (.) in their names",
        )
    kept = (await service.objects.volume(call.bucket)).documents.get(ACCELERATION)
    if status == "Enabled" or kept is not None:  # suspending what never was leaves it so
        await service.objects.set_document(call.bucket, ACCELERATION, status.encode())
    return empty(200)


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        **{name: _unset(code) for name, code in _UNSET.items()},
        "GetBucketRequestPayment": _get_payment,
        "PutBucketRequestPayment": _put_payment,
        "GetBucketAccelerateConfiguration": _get_acceleration,
        "PutBucketAccelerateConfiguration": _put_acceleration,
    }
)
