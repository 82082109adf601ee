"""python-hl7's own MLLP server (`hl7.mllp`), as its documentation shows it: parses, answers AA, stores nothing.

It runs on uvloop, as the engine does. Prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib

import hl7.mllp
import uvloop


async def answer(reader: hl7.mllp.HL7StreamReader, writer: hl7.mllp.HL7StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while not writer.is_closing():
            message = await reader.readmessage()
            writer.writemessage(message.create_ack())
            await writer.drain()
    writer.close()


async def serve() -> None:
    server = await hl7.mllp.start_hl7_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
