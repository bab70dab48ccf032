"""Which route a request takes."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model import Redirect, Route, RouteAction, RouteConfig, RouteMatch, VirtualHost
from pywasmproxy.sansio.router import Router, location
from tests.pywasmproxy.sansio.driver import request


def host(name: str, *domains: str) -> VirtualHost:
    return VirtualHost(name, domains, (Route(RouteMatch(prefix="/"), RouteAction(name)),))


HOSTS = RouteConfig(
    virtual_hosts=(
        host("exact", "a.test", "B.Test:8080"),
        host("suffix", "*.a.test", "*-x.a.test"),
        host("longer", "*.b.a.test"),
        host("prefix", "a.*"),
        host("longer-prefix", "a.b.*"),
        host("any", "*"),
        host("never", "*"),
    )
)


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("a.test", "exact"),
        ("A.TEST", "exact"),
        ("b.test:8080", "exact"),
        ("b.test", "any"),
        ("c.a.test", "suffix"),
        ("c.b.a.test", "longer"),
        ("c-x.a.test", "suffix"),
        (".a.test", "any"),  # a wildcard stands for something
        ("a.example", "prefix"),
        ("a.b.example", "longer-prefix"),
        ("a.", "any"),
        ("", "any"),
    ],
)
def test_domains(authority: str, name: str) -> None:
    found = Router(HOSTS).virtual_host(authority.encode())
    assert found is not None
    assert found.name == name


def test_no_domain() -> None:
    router = Router(RouteConfig(virtual_hosts=(host("one", "a.test"),)))
    assert router.virtual_host(b"b.test") is None
    assert router.choose(routed("/")) is None


@pytest.mark.parametrize(("ignore", "found"), [(True, True), (False, False)])
def test_ports_can_be_ignored(ignore: bool, found: bool) -> None:
    config = RouteConfig(virtual_hosts=(host("one", "a.test"),), ignore_port_in_host_matching=ignore)
    assert (Router(config).virtual_host(b"a.test:8080") is not None) is found


def routed(path: str, *lines: tuple[str, str]) -> HeaderMap:
    return request(path, ("x-forwarded-proto", "http"), *lines)


def matched(match: RouteMatch, path: str) -> bytes | None:
    table = RouteConfig(virtual_hosts=(VirtualHost("v", ("*",), (Route(match, RouteAction("c")),)),))
    choice = Router(table).choose(routed(path))
    return choice.matched if choice is not None else None


@pytest.mark.parametrize(
    ("match", "path", "part"),
    [
        (RouteMatch(prefix="/"), "/", b"/"),
        (RouteMatch(prefix="/a"), "/abc?x", b"/a"),
        (RouteMatch(prefix="/a"), "/b/a", None),
        (RouteMatch(prefix="/A", case_sensitive=False), "/abc", b"/a"),
        (RouteMatch(prefix="/A"), "/abc", None),
        (RouteMatch(prefix="/a?"), "/a?x", None),  # the query is no part of the path
        (RouteMatch(path="/a"), "/a?x=1", b"/a"),
        (RouteMatch(path="/a"), "/a/", None),
        (RouteMatch(path="/a", case_sensitive=False), "/A", b"/A"),
        (RouteMatch(path_separated_prefix="/a"), "/a", b"/a"),
        (RouteMatch(path_separated_prefix="/a"), "/a/b", b"/a"),
        (RouteMatch(path_separated_prefix="/a"), "/a?x", b"/a"),
        (RouteMatch(path_separated_prefix="/a"), "/ab", None),
        (RouteMatch(safe_regex="/a+/\\d"), "/aa/1?x", b"/aa/1"),
        (RouteMatch(safe_regex="/a"), "/ab", None),
    ],
)
def test_paths(match: RouteMatch, path: str, part: bytes | None) -> None:
    assert matched(match, path) == part


def test_the_first_route_that_fits() -> None:
    routes = tuple(
        Route(RouteMatch(prefix=prefix), RouteAction("c"), name=prefix) for prefix in ("/a", "/ab", "/")
    )
    router = Router(RouteConfig(virtual_hosts=(VirtualHost("v", ("*",), routes),)))
    names = [choice.route.name for p in ("/abc", "/x") if (choice := router.choose(routed(p))) is not None]
    assert names == ["/a", "/"]


def test_a_request_that_names_its_cluster() -> None:
    route = Route(RouteMatch(prefix="/"), RouteAction("", timeout=3.0, cluster_header="x-to"))
    router = Router(RouteConfig(virtual_hosts=(VirtualHost("v", ("*",), (route,)),)))
    named = {
        lines: choice.cluster
        for lines in ((), (("x-to", "a|b"),), (("x-to", "one"), ("x-to", "two")))
        if (choice := router.choose(routed("/", *lines))) is not None
    }
    assert list(named.values()) == ["", "a|b", "one"]


@pytest.mark.parametrize("name", [":path", "x-forwarded-proto"])
def test_what_a_route_needs(name: str) -> None:
    headers = routed("/")
    router = Router(RouteConfig(virtual_hosts=(host("any", "*"),)))
    assert router.choose(headers) is not None
    headers.remove(name)
    assert router.choose(headers) is None


@pytest.mark.parametrize(
    ("redirect", "authority", "path", "target"),
    [
        (Redirect(https_redirect=True), "a.test", "/x?y", "https://a.test/x?y"),
        (Redirect(https_redirect=True), "a.test:80", "/", "https://a.test/"),
        (Redirect(https_redirect=True), "a.test:8080", "/", "https://a.test:8080/"),
        (Redirect(scheme_redirect="ftp"), "a.test:80", "/", "ftp://a.test/"),
        (Redirect(scheme_redirect="http"), "a.test:80", "/", "http://a.test:80/"),
        (Redirect(host_redirect="b.test"), "a.test:8080", "/x", "http://b.test/x"),
        (Redirect(port_redirect=1), "a.test:8080", "/x", "http://a.test:1/x"),
        (Redirect(host_redirect="b.test", port_redirect=1), "[::1]:2", "/x", "http://b.test:1/x"),
        (Redirect(), "[::1]", "/x", "http://[::1]/x"),
        (Redirect(path_redirect="/new"), "a.test", "/x?y", "http://a.test/new?y"),
        (Redirect(path_redirect="/new?z"), "a.test", "/x?y", "http://a.test/new?z"),
        (Redirect(prefix_rewrite="/v2"), "a.test", "/x/1?y", "http://a.test/v2/1?y"),
        (Redirect(strip_query=True), "a.test", "/x?y", "http://a.test/x"),
    ],
)
def test_redirects(redirect: Redirect, authority: str, path: str, target: str) -> None:
    headers = HeaderMap([(":authority", authority), (":path", path), (":method", "GET"), (":scheme", "http")])
    assert location(redirect, headers, b"/x").decode() == target
