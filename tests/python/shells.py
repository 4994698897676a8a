"""Drives a stopped machine through qmp-shell and qmp-tui as people do, on terminals:
python3 shells.py SOCKET. Their programs lie beside this interpreter.

Prints one line for each part; an assertion that fails ends it with status 1.
"""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

# A terminal that would hang fails.
PATIENCE_SECONDS = 120
# Movements of the cursor, colours, titles.
CONTROLS = re.compile(rb"\x1b(\[[0-9;?<>]*[A-Za-z]|\][^\x07]*\x07|[()][0AB]|[=>78M])|[\x0e\x0f\x07]")


class Stream:
    """What comes out of a descriptor."""

    def __init__(self, fd):
        self.fd = fd
        self.raw = b""

    def text(self):
        return CONTROLS.sub(b"", self.raw).decode(errors="replace")


class Terminal:
    """A program on a terminal of 40 lines of 200 columns, and what it logs, where it does."""

    def __init__(self, program, *arguments, log=None):
        path = os.path.join(os.path.dirname(sys.executable), program)
        pid, fd = pty.fork()
        if pid == 0:
            # No history or settings of whoever runs the tests.
            environment = dict(os.environ, TERM="xterm-256color", HOME=os.path.dirname(sys.argv[1]))
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
            os.execve(path, [path, *arguments], environment)
        self.pid = pid
        self.screen = Stream(fd)
        self.log = None if log is None else Stream(log)

    def type(self, text):
        """Types, and forgets what has been shown before."""
        self.screen.raw = b""
        os.write(self.screen.fd, text.encode())

    def more(self, deadline):
        """Reads what comes next; false at the end of the program."""
        streams = {s.fd: s for s in (self.screen, self.log) if s is not None}
        left = deadline - time.monotonic()
        ready = select.select(list(streams), [], [], max(left, 0))[0]
        assert ready, f"silent after {self.screen.text()!r}"
        for fd in ready:
            try:
                read = os.read(fd, 65536)
            except OSError:
                read = b""
            streams[fd].raw += read
            if not read and fd == self.screen.fd:
                return False
        return True

    def wait_for(self, text, stream=None):
        stream = stream or self.screen
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in stream.text():
            assert self.more(deadline), f"{text!r} is not in {stream.text()!r}"

    def wait_for_all(self, *texts):
        """Waits for one after the other."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not re.search(".*".join(map(re.escape, texts)), self.screen.text(), re.DOTALL):
            assert self.more(deadline), f"{texts!r} are not in {self.screen.text()!r}"

    def wait_for_logged(self, text):
        self.wait_for(text, self.log)

    def finish(self):
        """Waits for the end; gives the exit status."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.more(deadline):
            pass
        os.close(self.screen.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def shell(path):
    prompt = "(QEMU) "
    shell = Terminal("qmp-shell", path)
    shell.wait_for_all("Connected to QEMU 10.", prompt)

    def ask(line, *answers):
        shell.type(line + "\r")
        shell.wait_for_all(*answers, "\n" + prompt)

    ask("query-name", '{"return": {"name": "python"}}')
    # Arguments, nested ones too, and completion out of query-commands.
    ask("query-kv\t", '"present": true')
    ask("object-add qom-type=iothread id=shelled", '{"return": {}}')
    ask("qom-get path=/objects/shelled property=poll-max-ns", '"return": ')
    ask("object-del id=shelled", '{"return": {}}')
    ring = '{"type":"ringbuf","data":{"size":64}}'
    ask("chardev-add id=c backend=" + ring, '{"return": {}}')
    ask("chardev-remove id=c", '{"return": {}}')
    ask("object-del id=shelled", '"class": "GenericError"', "object 'shelled' not found")
    ask("nonsense", '"class": "CommandNotFound"')
    # An empty line asks for events.
    ask("cont", '{"return": {}}')
    ask("stop", '{"return": {}}')
    ask("", "'event': 'RESUME'", "'event': 'STOP'")
    shell.type("\x04")
    assert shell.finish() == 0


def human_shell(path):
    prompt = "(QEMU) "
    shell = Terminal("qmp-shell", "-H", path)
    shell.wait_for_all("Welcome to the HMP shell!", prompt)

    def ask(line, answer):
        shell.type(line + "\r")
        # What is typed before the next prompt, when the terminal is not raw, means something else.
        shell.wait_for_all(answer, prompt)

    # Completed out of what `help` and `info` print.
    ask("info nam\t", "python\r\r\n")
    ask("system_wak\t", "wake-up from suspend is not supported by this guest")
    ask("cpu 0", "unknown command: 'cpu'")
    shell.type("\x04")
    assert shell.finish() == 0


def screen(path):
    fifo = path + ".log"
    os.mkfifo(fifo)
    # Open for writing too: no end of file before the program has opened it.
    log = os.open(fifo, os.O_RDWR)
    tui = Terminal("qmp-tui", "--log-file", fifo, "--log-level", "DEBUG", path, log=log)
    # It draws when a key is pressed only: the log says when there is something to be seen. The key
    # that leads to the line of input does nothing there.
    redraw = "\x1b[B"

    def shown(text):
        tui.wait_for_logged(text)
        tui.type(redraw)
        tui.wait_for(text)

    def ask(request, *answers):
        tui.type(request)
        tui.wait_for(request)
        tui.log.raw = b""
        # Escape and enter send it.
        tui.type("\x1b\r")
        for answer in answers:
            shown(answer)

    tui.wait_for_logged("to 'Runstate.RUNNING'")
    tui.type(redraw)
    tui.wait_for("[Connected ")
    ask('{"execute": "query-name"}', '"name": "python"')
    ask('{"execute": "nonsense"}', "The command nonsense has not been found")
    ask('{"execute": "cont"}', '"event": "RESUME"')
    ask('{"execute": "stop"}', '"event": "STOP"')
    tui.type("\x1b")
    assert tui.finish() == 0


def main():
    path = os.path.abspath(sys.argv[1])
    for part in (shell, human_shell, screen):
        part(path)
        print("ok", part.__name__, flush=True)


main()
