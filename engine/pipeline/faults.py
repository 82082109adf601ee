"""The reasons for which a message is refused at intake, each with its stable code.

Those of an MSH that can't be read are `engine.hl7v2.header`'s. Answers: `engine.pipeline.acceptance`.
"""

from __future__ import annotations

from typing import Final

from engine.errors import (
    DATA_TYPE,
    DUPLICATE_KEY,
    INTERNAL_ERROR,
    REQUIRED_FIELD_MISSING,
    UNKNOWN_KEY,
    UNSUPPORTED_EVENT,
    UNSUPPORTED_PROCESSING_ID,
    UNSUPPORTED_TYPE,
    UNSUPPORTED_VERSION,
    VALUE_TOO_LONG,
    Fault,
)

OVERSIZE: Final = Fault(error="frame-too-long", text="the frame is over this channel's limit", hl7_code=VALUE_TOO_LONG)
BATCH_TOO_LONG: Final = Fault(
    error="batch-too-long", text="the batch holds more messages than this channel takes", hl7_code=VALUE_TOO_LONG
)
STORE_UNAVAILABLE: Final = Fault(
    error="store-unavailable", text="could not be stored, send it again later", hl7_code=INTERNAL_ERROR
)
TOO_MANY_CONNECTIONS: Final = Fault(error="too-many-connections", text="too many connections", hl7_code=INTERNAL_ERROR)
NOT_PROCESSED_YET: Final = Fault(
    error="not-processed-yet", text="stored, but not processed in time, send it again later", hl7_code=INTERNAL_ERROR
)
BROKEN: Final = Fault(error="internal", text="an error of ours, the message was kept", hl7_code=INTERNAL_ERROR)
VERSION: Final = Fault(
    error="version-not-accepted",
    text="this channel does not accept this HL7 version",
    hl7_code=UNSUPPORTED_VERSION,
    location="MSH-12",
)
PROCESSING_ID: Final = Fault(
    error="processing-id-not-accepted",
    text="this channel does not accept this processing id",
    hl7_code=UNSUPPORTED_PROCESSING_ID,
    location="MSH-11",
)
TYPE: Final = Fault(
    error="type-not-accepted",
    text="this channel does not accept this message type",
    hl7_code=UNSUPPORTED_TYPE,
    location="MSH-9.1",
)
EVENT: Final = Fault(
    error="event-not-accepted",
    text="this channel does not accept this event",
    hl7_code=UNSUPPORTED_EVENT,
    location="MSH-9.2",
)
EVENT_MISSING: Final = Fault(
    error="event-missing",
    text="this message type needs a trigger event",
    hl7_code=UNSUPPORTED_EVENT,
    location="MSH-9.2",
)
CHARSET: Final = Fault(
    error="charset-not-accepted",
    text="MLLP can't carry UTF-16 or UTF-32: send UTF-8",
    hl7_code=DATA_TYPE,
    location="MSH-18",
)
FRAME_CUT: Final = Fault(
    error="frame-cut",
    text="1C 0D inside of the message ended its frame: leave these bytes out of the text",
    hl7_code=DATA_TYPE,
)
FRAME_REST: Final = Fault(
    error="frame-rest", text="the rest of the message before it, behind the end of its frame", hl7_code=DATA_TYPE
)
SEQUENCE_NUMBER_MISSING: Final = Fault(
    error="sequence-number-missing",
    text="this channel needs a sequence number",
    hl7_code=REQUIRED_FIELD_MISSING,
    location="MSH-13",
)
SEQUENCE_NUMBER_LOW: Final = Fault(
    error="sequence-number-low",
    text="this sequence number was used before",
    hl7_code=DUPLICATE_KEY,
    location="MSH-13",
)
SEQUENCE_NUMBER_HIGH: Final = Fault(
    error="sequence-number-high",
    text="messages before this sequence number are missing",
    hl7_code=UNKNOWN_KEY,
    location="MSH-13",
)
CONFLICT: Final = Fault(
    error="duplicate-conflict",
    text="this control id was used before, for a message with other content",
    hl7_code=DUPLICATE_KEY,
    location="MSH-10",
)
