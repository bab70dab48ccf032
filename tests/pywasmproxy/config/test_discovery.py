"""Listeners, clusters, routes and filters' configurations in files of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywasmproxy.config import ConfigError, load
from pywasmproxy.config.model import Bootstrap, RouteAction, RouterFilter
from tests.pywasmproxy.server.support import HCM

API = "type.googleapis.com/envoy"

BOOTSTRAP = """
dynamic_resources:
  lds_config: {path_config_source: {path: lds.yaml}, resource_api_version: V3}
  cds_config: {path: cds.yaml}
"""

LISTENERS = f"""
version_info: "1"
resources:
- "@type": {API}.config.listener.v3.Listener
  name: main
  address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
  filter_chains:
  - filters:
    - name: hcm
      typed_config:
        "@type": {HCM}
        stat_prefix: test
        rds:
          route_config_name: second
          config_source: {{path_config_source: {{path: rds.yaml}}}}
        http_filters:
        - name: mine
          config_discovery:
            config_source: {{path_config_source: {{path: ecds.yaml}}}}
            type_urls: ["{API}.extensions.filters.http.router.v3.Router"]
"""

CLUSTERS = f"""
resources:
- "@type": {API}.config.cluster.v3.Cluster
  name: up
  type: STATIC
  load_assignment:
    cluster_name: up
    endpoints:
    - lb_endpoints:
      - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 9}}}}}}
"""

ROUTES = f"""
resources:
- "@type": {API}.config.route.v3.RouteConfiguration
  name: first
- "@type": {API}.config.route.v3.RouteConfiguration
  name: second
  virtual_hosts:
  - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: up}}}}]}}
"""

FILTERS = f"""
resources:
- "@type": {API}.config.core.v3.TypedExtensionConfig
  name: mine
  typed_config:
    "@type": {API}.extensions.filters.http.router.v3.Router
    suppress_envoy_headers: true
"""

FILES = {"lds.yaml": LISTENERS, "cds.yaml": CLUSTERS, "rds.yaml": ROUTES, "ecds.yaml": FILTERS}


def read(folder: Path, text: str = BOOTSTRAP, **changed: str) -> Bootstrap:
    for name, content in FILES.items():
        (folder / name).write_text(changed.get(name.partition(".")[0], content))
    return load(text, "test.yaml", directory=folder)


def test_everything_in_files(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert [cluster.name for cluster in found.clusters] == ["up"]
    [listener] = found.listeners
    assert listener.name == "main"
    [host] = listener.http.route_config.virtual_hosts
    assert isinstance(host.routes[0].action, RouteAction)
    assert host.routes[0].action.cluster == "up"
    assert listener.http.http_filters == (RouterFilter("mine", suppress_envoy_headers=True),)
    assert found.warnings == ()
    # All of them are looked at for changes.
    assert {Path(name).name for name in found.files} == set(FILES)


def test_together_with_static_ones(tmp_path: Path) -> None:
    assignment = "load_assignment: {cluster_name: a}"
    text = BOOTSTRAP + f"static_resources: {{clusters: [{{name: more, type: STATIC, {assignment}}}]}}\n"
    assert [one.name for one in read(tmp_path, text).clusters] == ["more", "up"]
    with pytest.raises(ConfigError, match="cluster name 'up' is taken already"):
        read(tmp_path, text.replace("name: more", "name: up"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cds": CLUSTERS.replace("  name: up\n", "  name: upp\n", 1)}, r"rds.yaml:8: .*unknown cluster"),
        ({"cds": CLUSTERS + "  tipe: STATIC\n"}, r"cds.yaml:11: .*unknown field 'tipe'"),
        ({"lds": CLUSTERS}, r"lds.yaml:3: .*a Listener was expected here"),
        ({"lds": "resources: [{}]"}, r"lds.yaml:1: .*a Listener was expected here"),
        ({"rds": "resources: []"}, r"lds.yaml:15: .*the file has no RouteConfiguration called 'second'"),
        ({"ecds": "resources: []"}, r"lds.yaml:19: .*the file has no TypedExtensionConfig called 'mine'"),
        ({"lds": "{"}, r"lds.yaml:"),
    ],
)
def test_what_is_wrong_is_told_with_its_own_file(
    tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, **changed)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"test.yaml:3: .*Invalid path: lds.yaml"):
        load(BOOTSTRAP, "test.yaml", directory=tmp_path)


def test_sources_that_are_servers_warn(tmp_path: Path) -> None:
    text = BOOTSTRAP.replace("{path: cds.yaml}", "{ads: {}}") + "  ads_config: {}\n"
    found = read(tmp_path, text)
    assert {warning.path for warning in found.warnings} == {
        "dynamic_resources.ads_config",
        "dynamic_resources.cds_config.ads",
    }
    assert found.clusters == ()  # routes may name clusters that are still to come
    discovery = "config_discovery:\n            config_source: {ads: {}}\n            default_config: "
    default = f'{{"@type": "{API}.extensions.filters.http.router.v3.Router"}}\n'
    start = LISTENERS.index("config_discovery")
    lds = LISTENERS[:start] + discovery + default
    assert read(tmp_path, lds=lds).listeners[0].http.http_filters == (RouterFilter("mine"),)
