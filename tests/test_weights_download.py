"""Downloads from a host on the loopback interface that cuts connections, changes files, lies and redirects."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perpixel.engine import weights_download
from perpixel.engine.weights_download import RETRIES, Unreachable, download
from perpixel.errors import InputError
from weights_hosts import FileHost, HostedFile, serving

CONTENT = bytes(range(256)) * 20
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def host() -> Iterator[FileHost]:
    found = FileHost()
    with serving(found):
        yield found


def fetch(host: FileHost, folder: Path, file: HostedFile, sha256: str = "") -> bytes:
    """What comes of a download of `file` into `folder`; nothing else may be left there."""
    host.files["a.pth"] = file
    download(f"{host.address}/a.pth", folder / "a.pth", sha256, pause=0.0)
    assert [path.name for path in folder.iterdir()] == ["a.pth"]
    return (folder / "a.pth").read_bytes()


def half(folder: Path, content: bytes, tag: str = '"one"') -> None:
    """What a download leaves that was killed."""
    (folder / "a.pth.part").write_bytes(content)
    (folder / "a.pth.part.version").write_text(tag)


def test_a_file_comes_whole(host: FileHost, tmp_path: Path):
    assert fetch(host, tmp_path, HostedFile(CONTENT), SHA256[:8]) == CONTENT
    assert host.asked == [("a.pth", None, None)]


def test_a_cut_connection_goes_on_where_it_broke(host: FileHost, tmp_path: Path):
    """5120 bytes in three answers: 1000, 2000 more, the rest; no byte is sent twice."""
    assert fetch(host, tmp_path, HostedFile(CONTENT, cuts=[1000, 2000])) == CONTENT
    assert host.asked == [
        ("a.pth", None, None),
        ("a.pth", "bytes=1000-", '"one"'),
        ("a.pth", "bytes=3000-", '"one"'),
    ]
    assert host.sent == len(CONTENT)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(CONTENT)), max_size=6), tagged=st.booleans())
def test_whatever_the_cuts_the_file_is_right_or_refused(cuts: list[int], tagged: bool, tmp_path_factory):
    """With a tag and without, where every attempt starts anew."""
    folder, host = tmp_path_factory.mktemp("cuts"), FileHost()
    with serving(host):
        try:
            assert fetch(host, folder, HostedFile(CONTENT, '"one"' if tagged else "", list(cuts))) == CONTENT
        except Unreachable:
            assert not (folder / "a.pth").exists() and len(cuts) > 0


def test_a_download_of_yesterday_goes_on(host: FileHost, tmp_path: Path):
    half(tmp_path, CONTENT[:4000])
    assert fetch(host, tmp_path, HostedFile(CONTENT), SHA256) == CONTENT
    assert host.asked == [("a.pth", "bytes=4000-", '"one"')] and host.sent == len(CONTENT) - 4000


def test_half_of_another_version_is_not_continued(host: FileHost, tmp_path: Path):
    """The host answers If-Range with the whole new file."""
    half(tmp_path, b"old" * 1000, '"zero"')
    assert fetch(host, tmp_path, HostedFile(CONTENT)) == CONTENT


def test_half_without_a_version_is_not_continued(host: FileHost, tmp_path: Path):
    (tmp_path / "a.pth.part").write_bytes(b"whose?")
    assert fetch(host, tmp_path, HostedFile(CONTENT)) == CONTENT
    assert host.asked == [("a.pth", None, None)]


@pytest.mark.parametrize("tag", ["", 'W/"one"'])
def test_without_a_strong_tag_every_attempt_starts_anew(host: FileHost, tmp_path: Path, tag: str):
    assert fetch(host, tmp_path, HostedFile(CONTENT, tag, cuts=[1000])) == CONTENT
    assert [asked for _, asked, _ in host.asked] == [None, None]


def test_a_part_longer_than_the_file_is_thrown_away(host: FileHost, tmp_path: Path):
    half(tmp_path, CONTENT * 2)
    assert fetch(host, tmp_path, HostedFile(CONTENT)) == CONTENT


def test_a_damaged_half_is_noticed_and_thrown_away(host: FileHost, tmp_path: Path):
    """A disk that lost 4000 bytes: the sum is wrong, the next attempt starts from nothing."""
    half(tmp_path, bytes(4000))
    with pytest.raises(InputError, match=rf"the one published begins with {SHA256[:16]}: thrown away"):
        fetch(host, tmp_path, HostedFile(CONTENT), SHA256)
    assert list(tmp_path.iterdir()) == []
    assert fetch(host, tmp_path, HostedFile(CONTENT), SHA256) == CONTENT


def test_a_wrong_sum_is_refused(host: FileHost, tmp_path: Path):
    with pytest.raises(InputError, match="the one published begins with 99b0c9b7"):
        fetch(host, tmp_path, HostedFile(CONTENT), "99b0c9b7")
    assert list(tmp_path.iterdir()) == []


def test_what_the_hub_states_on_the_way_is_checked(host: FileHost, tmp_path: Path):
    """The hub answers with a redirect that carries the file's SHA-256 and size."""
    stated = {"X-Linked-Etag": f'"{SHA256}"', "X-Linked-Size": str(len(CONTENT)), "X-Repo-Commit": "c0ffee"}
    host.files = {"a.pth": HostedFile(redirect="/b", headers=stated), "b": HostedFile(CONTENT)}
    found = download(f"{host.address}/a.pth", tmp_path / "a.pth")
    assert (found.sha256, found.size, found.commit) == (SHA256, len(CONTENT), "c0ffee")
    host.files["b"].content = CONTENT[:-1] + b"x"
    with pytest.raises(InputError, match="the one stated by the host begins with"):
        download(f"{host.address}/a.pth", tmp_path / "c.pth")
    host.files["b"].content = CONTENT[:-1]
    with pytest.raises(InputError, match=r"sends 5119 bytes, the host states 5120"):
        download(f"{host.address}/a.pth", tmp_path / "c.pth")
    assert not (tmp_path / "c.pth").exists()


def test_too_few_bytes_are_never_taken_for_a_file(host: FileHost, tmp_path: Path):
    """A host that promises 6000 bytes and has 5120; what came stays for another day."""
    with pytest.raises(Unreachable, match=r"a\.pth cannot be read: ") as caught:
        fetch(host, tmp_path, HostedFile(CONTENT, length=6000))
    assert not (tmp_path / "a.pth").exists() and caught.value.reason


def test_an_overloaded_host_is_asked_again_but_not_for_ever(host: FileHost, tmp_path: Path):
    assert fetch(host, tmp_path, HostedFile(CONTENT, failures=2)) == CONTENT
    with pytest.raises(Unreachable, match="HTTP 503"):
        fetch(host, tmp_path, HostedFile(CONTENT, failures=100))
    assert len(host.asked) == 3 + 1 + RETRIES


def test_no_such_file(host: FileHost, tmp_path: Path):
    with pytest.raises(Unreachable, match="HTTP 404 Not Found"):
        fetch(host, tmp_path, HostedFile(status=404))
    assert len(host.asked) == 1


def test_no_network_is_said_at_once(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(
        weights_download.time, "sleep", lambda seconds: pytest.fail("nobody answered: no use in waiting")
    )
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="refused"):
            download(f"http://127.0.0.1:{taken.getsockname()[1]}/a.pth", tmp_path / "a.pth")


def test_a_lost_network_does_not_lose_what_came(tmp_path: Path):
    half(tmp_path, CONTENT[:100])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable):
            download(f"http://127.0.0.1:{taken.getsockname()[1]}/a.pth", tmp_path / "a.pth", pause=0.0)
    assert (tmp_path / "a.pth.part").read_bytes() == CONTENT[:100]


@pytest.mark.parametrize("to", ["file:///etc/hostname", "ftp://127.0.0.1/a", "data:,weights"])
def test_redirects_leave_the_web_for_nothing(host: FileHost, tmp_path: Path, to: str):
    with pytest.raises(InputError, match="only http and https addresses are read"):
        fetch(host, tmp_path, HostedFile(redirect=to))
    with pytest.raises(InputError, match="only http and https addresses are read"):
        download(to, tmp_path / "a.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_does_not_end_encryption():
    redirects = weights_download._Redirects()
    with pytest.raises(InputError, match="not encrypted any more"):
        redirects.http_error_302(Request("https://host/a"), None, 302, "Found", {"location": "http://host/a"})


def test_endless_redirects_end(host: FileHost, tmp_path: Path):
    with pytest.raises(Unreachable, match="HTTP 302"):
        fetch(host, tmp_path, HostedFile(redirect="/a.pth"))


def test_a_place_that_cannot_be_written(host: FileHost, tmp_path: Path):
    host.files["a.pth"] = HostedFile(CONTENT)
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        download(f"{host.address}/a.pth", tmp_path / "nowhere" / "a.pth")
