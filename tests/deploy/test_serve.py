"""The HTTP server, with real requests: what it answers, what it refuses, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf_deploy import conditions, load
from bssl_tf_deploy.bundle import read_bundle, write_bundle
from bssl_tf_deploy.embedding import bundle_features
from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.head_commands import learned
from bssl_tf_deploy.heads import changing, write_head
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.serving.server import listen
from bssl_tf_deploy.serving.settings import ServeSettings
from tests.deploy import bundles, test_detection

ZOO = Path(__file__).parents[2] / "bssl_tf" / "zoo" / "fashion-mnist-28" / "bundle"
EXAMPLE = min((ZOO / "examples").iterdir())
PROGRAM = "from bssl_tf_deploy.cli import main; main()"
TOKEN = "correct-horse-battery"
PNG = {"Content-Type": "image/png"}


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The line, which is one and has a code and a next step."""
        line: str = self.json["error"]
        assert re.fullmatch(r"error\[[a-z]+\]: .+\. .+\.", line)
        return line


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named, encode_chunked=not isinstance(body, (bytes, type(None))))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def predict(port: int, content: bytes, **headers: str) -> Answer:
    return ask(port, "POST", "/predict", content, **({"Content_Type": "image/png"} | headers))


def form(*parts: tuple[str, bytes], boundary: str = "frontier") -> tuple[bytes, str]:
    """Parts by what follows `form-data`, and the type of it all."""
    head = 'Content-Disposition: form-data; name="image"'
    body = b"".join(f"--{boundary}\r\n{head}{more}\r\n\r\n".encode() + content + b"\r\n" for more, content in parts)
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def png(rng: np.random.Generator, height: int = 40, width: int = 60) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@dataclass
class Served:
    process: subprocess.Popen[str]
    port: int
    said: list[str]


@contextlib.contextmanager
def served(*options: str, program: str = PROGRAM, **environment: str) -> Iterator[Served]:
    """The command in a process of its own, at a port that is free."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", str(ZOO), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        assert process.stdout and process.stderr
        first = process.stdout.readline()
        found = re.search(r":(\d+)/; Ctrl-C", first)
        assert found, process.stderr.read()
        said = [first]
        if "--host" in options and not environment and "--token-file" not in options:
            said += [process.stdout.readline(), process.stdout.readline()]
        yield Served(process, int(found[1]), said)
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def in_thread(predictor: Predictor, **settings: Any) -> Iterator[int]:
    """The server in a thread of this process, for interpreters that are made here; its port."""
    made = listen(predictor, ServeSettings(port=0, **settings))
    thread = threading.Thread(target=made.server.run, args=([made.listener],))
    thread.start()
    try:
        yield made.listener.getsockname()[1]
    finally:
        made.server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """One that waits a second for clients, and takes a megabyte."""
    with served("--max-mb", "1", "--timeout", "1") as started:
        yield started


@pytest.fixture(scope="module")
def port(server: Served) -> int:
    return server.port


def test_answers_are_those_of_python_in_the_schema_of_the_command(
    port: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    photo = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    # Turned by its Exif, and so large that it is decoded smaller.
    Image.fromarray(rng.integers(0, 256, (600, 500, 3), dtype=np.uint8)).save(photo, exif=exif)
    files = [*sorted((ZOO / "examples").iterdir()), photo]
    predictor = load(ZOO)
    command = [sys.executable, "-c", PROGRAM, "run", str(ZOO), "--jsonl", *map(str, files)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for file, line in zip(files, lines, strict=True):
        [best] = predictor.classify(file)
        expected = json.loads(line)
        raw = predict(port, file.read_bytes())
        assert (raw.status, raw.headers["Content-Type"]) == (200, "application/json")
        assert raw.json == expected | {"image": "upload"}
        assert raw.json["classes"] == [{"label": label, "score": score} for label, score in best]
        body, kind = form((f'; filename="{file.name}"\r\nContent-Type: image/png', file.read_bytes()))
        assert predict(port, body, Content_Type=kind).json == expected | {"image": file.name}
        assert re.fullmatch(r"image;dur=[\d.]+, network;dur=[\d.]+", raw.headers["Server-Timing"])


def test_a_head_that_was_learned_answers(tmp_path: Path, rng: np.random.Generator) -> None:
    bundle = shutil.copytree(ZOO, tmp_path / "bundle")
    for name in ("one", "other"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(png(rng))
    head, _ = learned(bundle_features(load(bundle)), tmp_path / "photos", "prototypes")
    opened = read_bundle(bundle)
    with changing(opened):
        write_head(opened, "mine", head)
    with in_thread(load(bundle, head="mine")) as port:
        found = predict(port, EXAMPLE.read_bytes()).json
    assert {one["label"] for one in found["classes"]} & {"one", "other"}
    command = [sys.executable, "-c", PROGRAM, "serve", str(bundle), "--port", "0", "--head", "theirs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == BundleError.exit_status and "theirs" in done.stderr


def test_what_is_not_an_image_is_refused_with_one_line(port: int) -> None:
    good = EXAMPLE.read_bytes()
    cut = predict(port, good[: len(good) // 2])
    assert cut.status == 400 and cut.json["image"] == "upload"
    assert cut.error.startswith("error[image]: the image cannot be read: ")
    assert "Pillow knows" in predict(port, b"no image").error
    assert "the upload is empty" in predict(port, b"").error
    for kind in ("text/plain", "application/json", "application/x-www-form-urlencoded"):
        refused = predict(port, good, Content_Type=kind)
        assert refused.status == 415 and "--data-binary @photo.jpg" in refused.error
    file = ('; filename="a.png"', good)
    for parts, words in (([("", good)], "the form has no file"), ([file, file], "Too many files"), ([], "has no file")):
        body, kind = form(*parts)
        refused = predict(port, body, Content_Type=kind)
        assert refused.status == 400 and words in refused.error
    for body, kind in ((form(file)[0], "multipart/form-data"), (b"spoilt", "multipart/form-data; boundary=frontier")):
        refused = predict(port, body, Content_Type=kind)
        assert refused.status == 400 and "the form" in refused.error
    # A form that was cut: its file has no end.
    body, kind = form(file)
    assert predict(port, body[:-200], Content_Type=kind).status == 400
    assert predict(port, good).status == 200


def test_an_upload_that_is_too_large_is_refused_before_it_is_read(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000001\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
    # All of it is sent before the answer is read; it is still there.
    assert predict(port, bytes(20_000_000)).status == 413
    # Of unknown length.
    chunks = ask(port, "POST", "/predict", (bytes(100_000) for _ in range(50)), Content_Type="image/png")
    assert chunks.status == 413 and "more than 1000000 bytes" in chunks.error
    body, kind = form(('; filename="a.png"', bytes(1_000_000)))
    assert ask(port, "POST", "/predict", iter([body]), Content_Type=kind).status == 413


def test_only_this_site_is_answered_and_nothing_else_is_there(port: int) -> None:
    for path in ("/nothing", "/predict/", "//etc/passwd", "/../page.html", "/%2e%2e/page.html", "/openapi.json"):
        found = ask(port, "GET", path)
        assert found.status == 404 and "nothing at this path" in found.error
    for method, path in (("GET", "/predict"), ("OPTIONS", "/predict"), ("DELETE", "/"), ("POST", "/health")):
        assert ask(port, method, path).status == 405
    good = EXAMPLE.read_bytes()
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "[::1",
        "[::1].a",
        "",
    ):
        refused = predict(port, good, Host=host)
        assert refused.status == 400 and "another host" in refused.error
    # A tunnel has a port of its own.
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:9000", f"[::1]:{port}"):
        assert predict(port, good, Host=host).status == 200
        assert predict(port, good, Host=host, Origin=f"http://{host}").status == 200
    for origin in ("http://evil.example", "null", f"http://localhost:{port + 1}"):
        refused = predict(port, good, Host=f"localhost:{port}", Origin=origin)
        assert refused.status == 403 and "another site" in refused.error
    for answer in (predict(port, good, Origin="http://evil.example"), predict(port, good), ask(port, "GET", "/")):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_its_own_state(port: int) -> None:
    before = ask(port, "GET", "/health").json
    predict(port, EXAMPLE.read_bytes())
    after = ask(port, "GET", "/health").json
    assert after["answered"] == before["answered"] + 1 and after["in_queue"] == 0
    assert (after["status"], after["task"]) == ("ok", "classification")
    assert ("temperature_c" in after) == ("temperature_c" in conditions.state())


def test_the_boards_temperature_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    zone = tmp_path / "sys" / "class" / "thermal" / "thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("61500\n")
    state = conditions.state
    monkeypatch.setattr(conditions, "state", lambda: state(tmp_path))
    with in_thread(Predictor(read_bundle(ZOO), Slow())) as port:
        assert ask(port, "GET", "/health").json["temperature_c"] == 61.5


def test_a_slow_client_is_given_up_and_keeps_nobody_waiting(port: int) -> None:
    starts = (b"", b"POST /predict HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
    uploads = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n"
    again = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            for _ in range(len(starts) + 2)
        ]
        for client, start in zip(clients, (*starts, uploads), strict=False):
            client.sendall(start)
        clients[-1].sendall(again)
        first = b""
        while not first.endswith(b"}"):
            first += clients[-1].recv(65536)
        assert first.startswith(b"HTTP/1.1 200 ")
        clients[-1].sendall(again[:20])
        assert predict(port, EXAMPLE.read_bytes()).status == 200
        # A byte now and then changes nothing.
        for _ in range(6):
            time.sleep(0.2)
            with contextlib.suppress(OSError):
                clients[1].sendall(b"T")
                clients[3].sendall(b"x")
        received = [read_all(client) for client in clients]
    assert received[:3] == [b"", b"", b""] and received[4] == b""
    assert received[3].startswith(b"HTTP/1.1 408 ") and b"did not come within 1 s" in received[3]


def read_all(client: socket.socket) -> bytes:
    """All until the other side closes; it has ten seconds."""
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            content += part
    return content


def test_beyond_this_machine_a_token_is_needed(tmp_path: Path) -> None:
    good = EXAMPLE.read_bytes()
    with served("--host", "0.0.0.0") as server:
        token = server.said[1].removeprefix("token: ").strip()
        assert len(token) >= 32 and "new at each start" in server.said[2]
        right = {"Authorization": f"Bearer {token}"}
        # Any name is this machine's: only who knows the token gets an answer.
        assert predict(server.port, good, Host="board.local", **right).status == 200
        assert ask(server.port, "GET", "/health", **right).status == 200
        assert ask(server.port, "GET", "/").status == 200
        for wrong in ({}, {"Authorization": "Bearer " + token[:-1]}, {"Authorization": f"Basic {token}"}):
            refused = predict(server.port, good, **wrong)
            assert refused.status == 401 and refused.headers["WWW-Authenticate"] == "Bearer"
            assert "Authorization: Bearer TOKEN" in refused.error
            assert ask(server.port, "GET", "/health", **wrong).status == 401
        assert predict(server.port, good, Authorization=f"Bearer {token}\xe4").status == 401
        assert ask(server.port, "GET", f"/health?token={token}").status == 401
        # Nothing of the body is waited for, and who has sent all of it reads the answer.
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 401 ")
        assert predict(server.port, bytes(12_000_000)).status == 401
        server.process.terminate()
        out, err = server.process.communicate(timeout=30)
        assert token not in out + err


def test_the_token_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    for options, environment in (
        (("--token-file", str(file)), {"BSSL_TF_TOKEN": "another-one-for-this-machine"}),
        ((), {"BSSL_TF_TOKEN": TOKEN}),
    ):
        with served(*options, **environment) as server:
            assert ask(server.port, "GET", "/health").status == 401
            assert ask(server.port, "GET", "/health", Authorization=f"bearer {TOKEN}").status == 200
    file.write_text("too short")
    done = command("--token-file", str(file))
    assert done.returncode == 2 and "the token in" in done.stderr and "too short" not in done.stderr
    assert command("--token-file", str(tmp_path / "none")).returncode == 8


def command(*options: str, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, "serve", str(ZOO), *options], capture_output=True, text=True, timeout=60
    )


def test_what_cannot_be_served_ends_with_one_line(port: int) -> None:
    for done, status, words in (
        (command("--port", str(port)), 19, f"cannot listen at 127.0.0.1, port {port} ("),
        (command("--host", "no.such.host.invalid"), 19, "cannot listen at no.such.host.invalid"),
        (command("--host", "x" * 80 + ".invalid"), 19, "(not a host name)"),
        (command("--port", "65536"), 2, "--port 65536 is not from 0 to 65535"),
        (command("--timeout", "nan"), 2, "--timeout nan is not from"),
        (command(program=f"import sys; sys.modules['starlette'] = None; {PROGRAM}"), 10, "bssl-tf-deploy[serve]"),
    ):
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert words in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_signal_ends_it_when_what_was_begun_is_answered(number: signal.Signals, status: int) -> None:
    content = EXAMPLE.read_bytes()
    with served() as server, socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content[:100])
        while ask(server.port, "GET", "/health").json["in_queue"] == 0:
            time.sleep(0.05)
        server.process.send_signal(number)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
            except OSError:
                break
            time.sleep(0.05)
        client.sendall(content[100:])
        assert read_all(client).startswith(b"HTTP/1.1 200 ")
        _, err = server.process.communicate(timeout=30)
        assert server.process.returncode == status
        assert err.splitlines() == (["error[interrupted]: stopped. Run the same command again."] * (status > 0))


class Slow:
    """An interpreter that waits until it is let go, and counts how often it was called at once."""

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self.at_once = self.most = self.calls = 0
        self._wait = wait

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.at_once += 1
        self.calls += 1
        self.most = max(self.most, self.at_once)
        self._wait()
        self.at_once -= 1
        return [inputs[0].mean(axis=(1, 2))]


def test_one_image_at_a_time_and_a_short_queue(tmp_path: Path, rng: np.random.Generator) -> None:
    go = threading.Event()
    slow = Slow(lambda: go.wait(30))
    content = png(rng)
    with (
        in_thread(Predictor(read_bundle(bundles.write(tmp_path / "bundle")), slow), queue=3) as port,
        ThreadPoolExecutor(3) as pool,
    ):
        first = [pool.submit(predict, port, content) for _ in range(3)]
        while ask(port, "GET", "/health").json["in_queue"] < 3:
            time.sleep(0.02)
        beyond = predict(port, content)
        assert (beyond.status, beyond.headers["Retry-After"]) == (503, "1")
        assert beyond.error.startswith("error[server]: 3 images are in the queue")
        go.set()
        answers = [future.result() for future in first]
        assert [answer.status for answer in answers] == [200] * 3
        assert len({answer.body for answer in answers}) == 1
        assert predict(port, content).status == 200
    assert (slow.calls, slow.most) == (4, 1)


def test_many_at_once_get_each_its_own_answer(tmp_path: Path, rng: np.random.Generator) -> None:
    predictor = Predictor(read_bundle(bundles.write(tmp_path / "bundle")), Slow())
    contents = [png(rng) for _ in range(12)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.png").write_bytes(content)
    expected = predictor.classify([tmp_path / f"{number}.png" for number in range(12)])
    with in_thread(predictor, queue=12) as port, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda content: predict(port, content).json["classes"], contents * 3))
    assert answers == [[{"label": label, "score": score} for label, score in best] for best in expected] * 3


def test_boxes_are_in_pixels_of_the_upload(tmp_path: Path) -> None:
    path = tmp_path / "wide.jpg"
    Image.new("RGB", (1280, 640), "white").save(path)
    rng = np.random.default_rng(0)
    outputs = [rng.normal(size=(2, *shape)).astype(np.float32) for shape in test_detection.SHAPES.values()]
    inputs = rng.random((2, test_detection.SIZE, test_detection.SIZE, 3)).astype(np.float32)
    write_bundle(tmp_path / "bundle", test_detection.manifest(), b"model", [inputs], outputs, ["a", "b"])
    predictor = Predictor(read_bundle(tmp_path / "bundle"), test_detection.Fixed())
    [expected] = predictor.detect(path)
    for top, count in ((None, 2), (1, 1)):
        with in_thread(predictor, top=top) as port:
            found = predict(port, path.read_bytes()).json["boxes"]
            assert found == [{"label": one.label, "score": one.score, "box": list(one[2:])} for one in expected[:count]]
            assert ask(port, "GET", "/health").json["task"] == "detection"


def test_a_fault_ends_one_request_alone(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    faults: list[Exception | None] = [RuntimeError("it broke"), MemoryError(), None]

    def fail() -> None:
        if (fault := faults.pop(0)) is not None:
            raise fault

    content = png(rng)
    with in_thread(Predictor(read_bundle(bundles.write(tmp_path / "bundle")), Slow(fail))) as port:
        broken, short, good = (predict(port, content) for _ in range(3))
    assert (broken.status, short.status, good.status) == (500, 500, 200)
    # Where it happened is for whoever runs the server.
    assert broken.error.startswith("error[unexpected]: ") and "broke" not in broken.error
    assert "RuntimeError: it broke (" in caplog.text and Path(__file__).name in caplog.text
    assert short.error.startswith("error[memory]: ")


def test_nothing_of_a_client_reaches_the_disk(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Starlette puts uploads of more than a megabyte into files, which this server holds in memory."""

    def fail(*_: object) -> None:
        raise AssertionError("a file for an upload")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", fail)
    content = png(rng, 1000, 1000)
    assert len(content) > 2_000_000
    name = "../../etc/passwd; rm -rf ~"
    body, kind = form((f'; filename="{name}"', content))
    with in_thread(Predictor(read_bundle(bundles.write(tmp_path / "bundle")), Slow())) as other:
        assert predict(other, body, Content_Type=kind).json["image"] == name
    # Not even where it names a file that is there.
    body, kind = form((f'; filename="{EXAMPLE}"', b"no image"))
    assert predict(port, body, Content_Type=kind).status == 400


def test_no_answer_waits_for_an_acknowledgement(port: int) -> None:
    """Systems hold one back for 40 ms, once a connection has made its first few exchanges."""
    content, times = EXAMPLE.read_bytes(), []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        for _ in range(40):
            start = time.perf_counter()
            connection.request("POST", "/predict", content, PNG)
            connection.getresponse().read()
            times.append(time.perf_counter() - start)
    # The fastest, since a busy machine proves nothing.
    assert min(times[20:]) < 0.035


@pytest.mark.slow  # Half a minute of load.
def test_load(capsys: pytest.CaptureFixture[str]) -> None:
    """Requests per second and latency, for one client and for as many as the queue has places."""
    content, seconds = EXAMPLE.read_bytes(), 10.0

    def client(port: int, end: float) -> list[tuple[int, float]]:
        found = []
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            while time.monotonic() < end:
                start = time.perf_counter()
                connection.request("POST", "/predict", content, PNG)
                response = connection.getresponse()
                response.read()
                found.append((response.status, 1000 * (time.perf_counter() - start)))
        return found

    with served() as server:
        for clients in (1, 8, 16):
            end = time.monotonic() + seconds
            with ThreadPoolExecutor(clients) as pool:
                answers = [one for found in pool.map(client, [server.port] * clients, [end] * clients) for one in found]
            statuses = {status for status, _ in answers}
            assert statuses <= ({200} if clients <= 8 else {200, 503})
            times = [taken for status, taken in answers if status == 200]
            cuts = statistics.quantiles(times, n=100)
            with capsys.disabled():
                print(
                    f"\n{clients} clients: {len(times) / seconds:.0f} answers/s, p50 {cuts[49]:.1f} ms, "
                    f"p95 {cuts[94]:.1f} ms, p99 {cuts[98]:.1f} ms, {len(answers) - len(times)} refused"
                )
            assert len(times) > 10 * seconds
        assert ask(server.port, "GET", "/health").json["in_queue"] == 0
