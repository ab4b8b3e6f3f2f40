"""Many backends that answer like a Prometheus, at once: the time measured is the program's, not theirs.

``python -m benchmarks.backends ADDRESS ...`` listens on port 9090 of each address until it is ended.
"""

import asyncio
import json
import sys

BUILD = {"version": "3.0.0", "revision": "0", "branch": "HEAD", "buildUser": "-", "buildDate": "-", "goVersion": "go"}
BODIES = {
    b"/api/v1/status/buildinfo": json.dumps({"status": "success", "data": BUILD}).encode(),
    b"/-/healthy": b"Prometheus Server is Healthy.\n",
}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            body = BODIES.get(head.split(b" ", 2)[1])
            status = b"200 OK" if body is not None else b"404 Not Found"
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body or b""), body or b""))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(addresses: list[str]) -> None:
    await asyncio.gather(*(asyncio.start_server(answer, address, 9090) for address in addresses))
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
