"""The first probe: the engine's own framer, header reader and acknowledgment, answering without a store.

What the daemon reaches with a disk under it is set beside this, so that the machine is taken out of the comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from engine.domain.message import AckCode
from engine.hl7v2.ack import Verdict, acknowledge
from engine.hl7v2.header import read_header
from engine.hl7v2.mllp import FrameDecoder, wrap
from engine.simulator.sender import run

_ACCEPTED = Verdict(code=AckCode.AA)


class _Answerer(asyncio.Protocol):
    def __init__(self) -> None:
        self._decoder = FrameDecoder(1 << 20)
        self._transport: asyncio.Transport | None = None
        self._answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        now = datetime.now(UTC)
        for frame in self._decoder.feed(data):
            self._answers += 1
            answer = acknowledge(read_header(frame.payload), _ACCEPTED, now=now, control_id=f"P{self._answers}")
            if self._transport is not None:
                self._transport.write(wrap(answer))


async def serve(certificate: Path | None) -> None:
    """certificate: speak TLS with it; its key stands beside it (`.key`)."""
    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
    server = await asyncio.get_running_loop().create_server(_Answerer, "127.0.0.1", 0, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - tells its parent the port
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--certificate", type=Path)
    run(serve(parser.parse_args().certificate))


if __name__ == "__main__":
    main()
