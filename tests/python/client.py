"""Drives a machine through the qemu.qmp library: python3 client.py SOCKET.

Prints one line for each part; an assertion that fails ends it with status 1.
"""

import asyncio
import json
import os
import sys
import tempfile

from qemu.qmp import ExecuteError, QMPClient


async def connected(path, name):
    client = QMPClient(name)
    await client.connect(path)
    return client


async def negotiation(path):
    client = await connected(path, "negotiation")
    assert client.greeting.QMP.version["qemu"]["major"] == 10
    assert "oob" in client.greeting.QMP.capabilities
    try:
        await client.execute("qmp_capabilities")
        raise AssertionError("negotiated twice")
    except ExecuteError as error:
        assert error.error_class == "CommandNotFound", error
    await client.disconnect()


async def queries(path):
    client = await connected(path, "queries")
    schema = await client.execute("query-qmp-schema")
    entries = {entry["name"]: entry for entry in schema}

    def takes_nothing(command):
        members = entries[command["arg-type"]].get("members", [])
        return all("default" in member for member in members)

    commands = [e for e in schema if e["meta-type"] == "command"]
    listed = {c["name"] for c in await client.execute("query-commands")}
    assert listed == {c["name"] for c in commands}
    asked = 0
    for command in commands:
        name = command["name"]
        if name.startswith("query-") and takes_nothing(command):
            try:
                await client.execute(name)
            except ExecuteError as error:
                # A machine without such a thing says so.
                assert error.error_class in ("GenericError", "DeviceNotActive"), name
                assert str(error), name
            asked += 1
    assert asked > 15, asked
    await client.disconnect()


async def events(path):
    client = await connected(path, "events")
    with client.listener(("STOP", "RESUME")) as listener:
        await client.execute("cont")
        await client.execute("stop")
        seen = []
        while seen[-2:] != ["RESUME", "STOP"]:
            event = await asyncio.wait_for(listener.get(), 30)
            assert event["timestamp"]["seconds"] > 1_700_000_000
            seen.append(event["event"])
    await client.disconnect()


async def out_of_band(path):
    # By hand, for errors that the library does not let through; then through the library.
    reader, writer = await asyncio.open_unix_connection(path)

    async def ask(request):
        writer.write(json.dumps(request).encode())
        await writer.drain()
        return json.loads(await asyncio.wait_for(reader.readline(), 30))

    await reader.readline()
    enable = {"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}
    assert await ask(enable) == {"return": {}}
    reply = await ask({"exec-oob": "query-monitors", "id": 7})
    assert reply["id"] == 7 and any(monitor["oob"] for monitor in reply["return"]), reply
    refused = await ask({"exec-oob": "query-status"})
    assert "does not support OOB" in refused["error"]["desc"]
    writer.close()
    await writer.wait_closed()
    client = await connected(path, "oob")
    assert await client.execute("query-monitors", oob=True)
    await client.disconnect()


async def descriptors(path):
    client = await connected(path, "descriptors")
    with tempfile.TemporaryFile() as file:
        client.send_fd_scm(file.fileno())
        await client.execute("getfd", {"fdname": "passed"})
        client.send_fd_scm(file.fileno())
        added = await client.execute("add-fd", {"fdset-id": 5, "opaque": "text"})
    assert added["fdset-id"] == 5
    sets = await client.execute("query-fdsets")
    assert sets[0]["fds"][0]["opaque"] == "text"
    await client.execute("remove-fd", {"fdset-id": 5})
    await client.execute("closefd", {"fdname": "passed"})
    try:
        await client.execute("closefd", {"fdname": "passed"})
        raise AssertionError("closed twice")
    except ExecuteError as error:
        assert "passed" in str(error)
    await client.disconnect()


async def disconnects(path):
    watcher = await connected(path, "watcher")
    before = len(await watcher.execute("query-monitors"))
    for _ in range(50):
        client = await connected(path, "short")
        await client.execute("query-status")
        await client.disconnect()
    for _ in range(50):
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"execute": "qmp_cap')
        writer.transport.abort()
    for _ in range(1000):
        if len(await watcher.execute("query-monitors")) == before:
            break
    else:
        raise AssertionError("sessions stay behind")
    await watcher.disconnect()


async def end(path):
    client = await connected(path, "end")
    with client.listener("SHUTDOWN") as listener:
        await client.execute("quit")
        event = await asyncio.wait_for(listener.get(), 30)
        assert event["data"] == {"guest": False, "reason": "host-qmp-quit"}
    # The server closes the connection; the library reports that as the end of the session.
    try:
        await client.disconnect()
    except EOFError:
        pass


async def main():
    path = os.path.abspath(sys.argv[1])
    for part in (negotiation, queries, events, out_of_band, descriptors, disconnects, end):
        await asyncio.wait_for(part(path), 120)
        print("ok", part.__name__, flush=True)


asyncio.run(main())
