"""A headless Chromium spoken to over its DevTools pipe (NUL-terminated JSON on file descriptors 3 and 4): no port, no library.

https://chromedevtools.github.io/devtools-protocol
"""
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find():
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page. Use as a context; every call raises when the browser does not answer in time or answers with an error."""

    def __init__(self, path, timeout_s=60):
        self.timeout_s, self.events, self._buffer, self._id, self._session = timeout_s, [], b"", 0, None
        self._home = tempfile.mkdtemp(prefix="satin-browser-")
        # Descriptors above 4, so that none is overwritten before it is copied to 3 or 4.
        high = lambda fd: (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10), os.close(fd))[0]
        child_in, self._out = map(high, os.pipe())
        self._in, child_out = map(high, os.pipe())
        self._log = os.path.join(self._home, "log.txt")
        log = high(os.open(self._log, os.O_WRONLY | os.O_CREAT))
        arguments = [path, "--headless", "--remote-debugging-pipe", f"--user-data-dir={self._home}", "--disable-gpu",
                     "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check", "--disable-extensions",
                     "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
                     # Chromium cannot have its sandbox as root, nor in most containers; the pages are our own.
                     "--no-sandbox", "about:blank"]
        self._pid = os.posix_spawn(path, arguments, {**os.environ, "HOME": self._home}, setpgroup=0, file_actions=[
            (os.POSIX_SPAWN_DUP2, child_in, 3), (os.POSIX_SPAWN_DUP2, child_out, 4), (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2)])
        for fd in (child_in, child_out, log):
            os.close(fd)

    def __enter__(self):
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(domain + ".enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self._pid, 0)
        shutil.rmtree(self._home, ignore_errors=True)

    def call(self, method, **parameters):
        self._id += 1
        message = {"id": self._id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data):]
        deadline = time.monotonic() + self.timeout_s
        while True:
            answer = self._read(deadline, method)
            if answer.get("id") != self._id:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']}")
            else:
                return answer["result"]

    def wait_for(self, method):
        deadline = time.monotonic() + self.timeout_s
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._read(deadline, method))

    def evaluate(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:2000])
        return result["result"].get("value")

    def _read(self, deadline, what):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self._in, 1 << 20) if ready else b""
            if not chunk:
                why = "has ended" if ready else "does not answer"
                raise RuntimeError(f"the browser {why} ({what}):\n{open(self._log).read()[-2000:]}")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)
