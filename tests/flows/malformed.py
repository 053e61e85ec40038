"""Requests that nobody should send, drawn by address: the same ones every time."""

from collections.abc import Iterator

import numpy as np

from tasks.core.runtime import address_rng

NAMES = ["x.png", "", "../../x", "x" * 5000, "ÿ\t", 'a"b', "CON", "%00.png", "{x!r}"]
TYPES = [
    "image/png", "", "text/html", "application/json", "multipart/form-data", "multipart/form-data; boundary=", "\xff\xfe",
    "multipart/form-data; boundary=" + "b" * 500, "multipart/form-data; boundary=b; boundary=c",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=ÿ", "multipart/mixed; boundary=b", "image/" + "x" * 2000,
]  # fmt: skip
PATHS = [
    "/predict/",
    "/",
    "/model/../predict",
    "/%ff%fe",
    "/predict?" + "a=b&" * 500,
    "//",
    "/health%00",
    "/openapi.json/x",
    "/..;/",
]
HOSTS = ["x", "[", "[::1", "a b", "x:99999999", "", "ÿ", "x,y"]


def requests_of(n: int, png: bytes, jpeg: bytes, bomb: bytes) -> Iterator[bytes]:
    """Whole HTTP requests as bytes, the kinds in turn."""
    kinds = [
        noise,
        truncated,
        flipped,
        wrong_type,
        huge_header,
        many_files,
        damaged_form,
        bombs,
        wrong_way,
        lying_length,
    ]
    for number in range(n):
        rng = address_rng(0, "malformed", number)
        yield kinds[number % len(kinds)](rng, [png, jpeg, bomb])


def post(body: bytes, content_type: str = "", *more: str, path: str = "/predict", host: str = "x") -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", "Connection: close", *more]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    return "\r\n".join(lines).encode("latin-1", errors="replace") + b"\r\n\r\n" + body


def form(files: list[tuple[str, bytes]], boundary: str = "b") -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


def noise(rng: np.random.Generator, images: list[bytes]) -> bytes:
    return post(rng.bytes(int(rng.integers(0, 3000))), str(rng.choice(["image/png", "", "application/octet-stream"])))


def truncated(rng: np.random.Generator, images: list[bytes]) -> bytes:
    image = images[int(rng.integers(2))]
    return post(image[: int(rng.integers(0, len(image) * 3 // 4))], "image/png")


def flipped(rng: np.random.Generator, images: list[bytes]) -> bytes:
    image = bytearray(images[int(rng.integers(2))])
    for at in rng.integers(0, len(image), 20):
        image[at] ^= int(rng.integers(1, 256))
    return post(bytes(image), "image/jpeg")


def wrong_type(rng: np.random.Generator, images: list[bytes]) -> bytes:
    return post(form([("x.png", images[0])]), str(rng.choice(TYPES)))


def huge_header(rng: np.random.Generator, images: list[bytes]) -> bytes:
    value = "x" * int(rng.choice([1000, 50_000, 70_000, 500_000]))
    return post(b"no image", "image/png", *[f"X-{k}: {value}" for k in range(int(rng.integers(1, 4)))])


def many_files(rng: np.random.Generator, images: list[bytes]) -> bytes:
    return post(form([(str(rng.choice(NAMES)), b"x")] * int(rng.integers(1, 400))), "multipart/form-data; boundary=b")


def damaged_form(rng: np.random.Generator, images: list[bytes]) -> bytes:
    body = bytearray(form([(str(rng.choice(NAMES)), images[0]), ("y", b"")]))
    for at in rng.integers(0, min(len(body), 150), 5):
        body[at] = int(rng.integers(256))
    return post(bytes(body[: int(rng.integers(1, len(body)))]), "multipart/form-data; boundary=b")


def bombs(rng: np.random.Generator, images: list[bytes]) -> bytes:
    if rng.random() < 0.5:
        return post(images[2], "image/png")
    return post(form([("bomb.png", images[2])] * int(rng.integers(1, 4))), "multipart/form-data; boundary=b")


def wrong_way(rng: np.random.Generator, images: list[bytes]) -> bytes:
    """Another path, method or host, with nothing useful in it."""
    kind = int(rng.integers(3))
    if kind == 0:
        return post(b"", path=str(rng.choice(PATHS)), host=str(rng.choice(HOSTS)))
    if kind == 1:
        method = str(rng.choice(["GET", "PUT", "DELETE", "PATCH", "TRACE", "BREW"]))
        return post(b"", host=str(rng.choice(HOSTS))).replace(b"POST", method.encode(), 1)
    return bytes(rng.integers(32, 127, 200, dtype=np.uint8)) + b"\r\n\r\n"


def lying_length(rng: np.random.Generator, images: list[bytes]) -> bytes:
    told = str(rng.choice(["99", "-1", "abc", "9" * 30, "99999999", "0x10", "1, 2"]))
    return post(b"ab").replace(b"Content-Length: 2", f"Content-Length: {told}".encode(), 1)
