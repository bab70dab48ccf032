"""The admin server's front page: filters, VMs and what they cost, failures, listeners, clusters. No scripts.

State is said in words and marked by shape, never by colour alone; the page follows the reader's light or dark
setting, and tables become cards where the window is narrow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Protocol

from pywasmproxy.server.view import ClusterView, GuestView, PluginView, PortView, View
from pywasmvm import __version__

if TYPE_CHECKING:
    from pywasmproxy.server.proxy import Server

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#5a6675;--line:#dde2e8;
--accent:#0b5cad;--good:#0b5cad;--bad:#a8420f;--bar:#c9dcf0}
@media(prefers-color-scheme:dark){:root{--page:#12171d;--card:#1b222b;--ink:#e6ebf1;--soft:#9aa7b5;
--line:#313b47;--accent:#7db8f5;--good:#7db8f5;--bad:#ffab70;--bar:#2b4a6b}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:20px 24px 48px}
header{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 16px;margin-bottom:16px}
h1{font-size:22px;margin:0}h2{font-size:16px;margin:0 0 10px}h3{font-size:15px;margin:0}
.state{font-weight:600}.state.good{color:var(--good)}.state.bad{color:var(--bad)}
.soft{color:var(--soft)}
.facts{display:grid;grid-template-columns:repeat(8,1fr);gap:10px;margin:0 0 16px}
.facts div,section{background:var(--card);border:1px solid var(--line);border-radius:8px}
.facts div{padding:9px 12px}.facts dt{color:var(--soft);font-size:12.5px;white-space:nowrap}
.facts dd{margin:0;font-size:18px;font-weight:600;white-space:nowrap;font-variant-numeric:tabular-nums}
section{padding:14px 18px;margin:0 0 16px}
table{border-collapse:collapse;width:100%}
th{text-align:left;font-weight:500;color:var(--soft);font-size:13px}
th,td{padding:5px 14px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.n:last-child,th.n:last-child{padding-right:0}
code,pre{font:13px/1.45 ui-monospace,monospace}
code{overflow-wrap:anywhere}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--page);border:1px solid var(--line);
border-left:4px solid var(--bad);border-radius:4px;padding:8px 10px;margin:4px 0 10px}
.guest{padding:10px 0;border-bottom:1px solid var(--line)}.guest:last-child{border:0;padding-bottom:0}
.guest:first-of-type{padding-top:0}
.guest header{margin:0 0 6px}
.share{display:block;background:var(--bar);height:6px;border-radius:3px;min-width:2px;margin-top:8px}
details summary{cursor:pointer;color:var(--accent);padding:6px 0 2px}
details p{margin:6px 0 0;font-size:13px}
a{color:var(--accent)}
ul.links{list-style:none;margin:0;padding:0;columns:2;column-gap:24px}
ul.links li{break-inside:avoid;padding:4px 0}
ul.links form{display:inline}
button{font:13px/1.45 ui-monospace,monospace;color:var(--ink);background:var(--page);
border:1px solid var(--line);border-radius:5px;padding:3px 9px;cursor:pointer}
button:focus-visible,a:focus-visible,summary:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
@media(max-width:960px){.facts{grid-template-columns:repeat(4,1fr)}}
@media(max-width:640px){.facts{grid-template-columns:repeat(2,1fr);gap:8px}
main{padding:14px 12px 32px}section{padding:12px}ul.links{columns:1}
table,tbody,tr,td{display:block}thead{position:absolute;left:-9999px}
tr{padding:7px 0;border-bottom:1px solid var(--line)}tr:last-child{border:0}
td,td.n{border:0;padding:1px 0;text-align:left;display:flex;justify-content:space-between;gap:14px;
white-space:normal}
td::before{content:attr(data-l);color:var(--soft);flex:none}
td:first-child{font-weight:600}td:first-child::before{display:none}
td.wide{display:none}
.guest tr{display:flex;flex-wrap:wrap;gap:0 16px;padding:5px 0}.guest td:first-child{flex:1 0 100%}
.guest td.n{display:block;flex:1 1 auto}.guest td.n::before{display:block;font-size:12px;white-space:nowrap}}
"""


class Described(Protocol):
    """What the page wants to know about an endpoint."""

    @property
    def text(self) -> str: ...

    @property
    def changes(self) -> bool: ...


def size(count: int) -> str:
    """Bytes for people."""
    number, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if number >= 100 or unit == "B" else f"{number:.1f} {unit}"


def duration(seconds: int) -> str:
    """A time for people."""
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


_Row = list[tuple[str, str]]


def _table(columns: list[tuple[str, str]], rows: list[list[str]]) -> str:
    """Columns are (title, class); cells are HTML already."""
    head = "".join(f'<th class="{kind}">{escape(title)}</th>' for title, kind in columns)
    body = ""
    for row in rows:
        cells = (
            f'<td class="{kind}" data-l="{escape(title)}">{cell}</td>'
            for (title, kind), cell in zip(columns, row, strict=True)
        )
        body += f"<tr>{''.join(cells)}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _guest(guest: GuestView) -> str:
    """VMs of one kind: what they are, what their callbacks cost, how they failed."""
    state = '<span class="state">○ ends</span>'
    if guest.failed:
        some = f" ({guest.failed} of {guest.failed + guest.runs})" if guest.runs else ""
        state = f'<span class="state bad">▲ failed{some}</span>'
    elif guest.runs:
        state = '<span class="state good">● runs</span>'
    facts = [f"{size(guest.memory)} of guest memory", f"ABI {guest.abi.replace('_', '.')}"]
    if guest.vm_id:
        facts.append(f"vm_id {guest.vm_id}")
    facts += [f"{guest.vms} VMs"] if guest.vms > 1 else []
    facts += guest.policies
    if guest.failures:
        facts.append(f"{guest.failures} failure{'s' * (guest.failures > 1)}")
    if guest.exhausted:
        facts.append(f"{guest.exhausted} out of budget")
    parts = [
        f'<div class="guest"><header><h3>{escape(guest.name)}</h3>{state}'
        f'<span class="soft">{escape(" · ".join(facts))}</span></header>'
    ]
    uses = sorted(guest.callbacks.items(), key=lambda item: -item[1][1])
    if uses:
        total = sum(nanoseconds for _, (_, nanoseconds, _) in uses) or 1
        counted = any(instructions for _, (_, _, instructions) in uses)
        columns = [("callback", ""), ("calls", "n"), ("µs each", "n"), ("ms in all", "n")]
        columns += [("instructions each", "n")] if counted else []
        columns.append(("share of its time", "wide"))
        rows = []
        for name, (calls, nanoseconds, instructions) in uses:
            row = [f"<code>{escape(name)}</code>", _number(calls)]
            row.append(_number(nanoseconds / 1000 / max(calls, 1)))
            row.append(_number(nanoseconds / 1e6))
            row += [_number(instructions / max(calls, 1))] if counted else []
            row.append(f'<span class="share" style="width:{100 * nanoseconds / total:.1f}%"></span>')
            rows.append(row)
        parts.append(_table(columns, rows))
    if guest.last:
        opened = " open" if guest.failed else ""
        parts.append(f"<details{opened}><summary>last failures: {len(guest.last)}</summary>")
        for at, report in reversed(guest.last):
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
            parts.append(f'<p class="soft">{when}</p><pre>{escape(report)}</pre>')
        parts.append("</details>")
    return "".join([*parts, "</div>"])


def _workers(view: View) -> str:
    rows = []
    for worker in view.workers:
        good = worker.state == "LIVE"
        state = worker.state if good else f'<span class="state bad">▲ {escape(worker.state)}</span>'
        rows.append(
            [
                f"worker {worker.index}",
                str(worker.pid),
                state,
                duration(worker.uptime),
                f"<code>{worker.version}</code>",
                _number(worker.connections),
                _number(worker.streams),
                _number(worker.vms),
                size(worker.memory),
            ]
        )
    columns = [("worker", ""), ("process", "n"), ("state", ""), ("up for", "n"), ("configuration", "")]
    columns += [("connections", "n"), ("in flight", "n"), ("VMs", "n"), ("memory", "n")]
    return _table(columns, rows)


def _filters(plugins: list[PluginView]) -> str:
    rows = [
        [
            escape(plugin.name or "(no name)"),
            escape(plugin.root_id or "–"),
            escape(listener),
            f"<code>{escape(plugin.code)}</code>",
        ]
        for plugin in plugins
        for listener in plugin.listeners
    ]
    if not rows:
        return '<p class="soft">No wasm filters are configured.</p>'
    return _table([("filter", ""), ("root_id", ""), ("listener", ""), ("code", "")], rows)


def _in(view: View, workers: list[int]) -> str:
    """Which workers, where they are not all of them."""
    some = view.some(workers)
    return f" (worker {', '.join(map(str, some))})" if some else ""


def _listeners(ports: list[PortView], view: View) -> str:
    rows = []
    for port in ports:
        requests = answers = "–"
        if port.statuses is not None:
            requests = _number(sum(port.statuses.values()))
            answers = ", ".join(f"{name}: {_number(count)}" for name, count in port.statuses.items() if count)
        state = f"drains{_in(view, port.draining)}" if port.draining else "accepts"
        rows.append(
            [
                escape(port.name),
                f"<code>{escape(port.address)}</code>",
                f"{state}{_in(view, port.workers)}",
                _number(port.connections),
                requests,
                answers or "–",
            ]
        )
    columns = [("listener", ""), ("address", ""), ("state", ""), ("connections", "n"), ("answers", "n")]
    return _table([*columns, ("by status", "n")], rows)


def _clusters(clusters: list[ClusterView], view: View) -> str:
    rows = []
    for cluster in clusters:
        for host in cluster.hosts:
            health = "healthy"
            if host.against:
                said = sorted({index for workers in host.against.values() for index in workers})
                health = f'<span class="state bad">▲ {escape(host.flags)}{_in(view, said)}</span>'
            failures = ("rq_error", "cx_connect_fail", "rq_timeout")
            rows.append(
                [
                    escape(cluster.name),
                    f"<code>{escape(host.name)}</code>{_in(view, host.workers)}",
                    health,
                    _number(host.gauges["cx_active"]),
                    _number(host.counters["rq_total"]),
                    _number(sum(host.counters[name] for name in failures)),
                ]
            )
        if not cluster.hosts:
            rows.append([escape(cluster.name), "–", "no hosts", "0", "0", "0"])
    if not rows:
        return '<p class="soft">No clusters are configured.</p>'
    columns = [("cluster", ""), ("host", ""), ("health", ""), ("connections", "n"), ("requests", "n")]
    return _table([*columns, ("failures", "n")], rows)


def _links(endpoints: Mapping[str, Described]) -> str:
    items = []
    for path, endpoint in endpoints.items():
        if path == "/":
            continue
        target = escape(path)
        if endpoint.changes:
            link = f'<form method="post" action="{target}?html"><button>{target}</button></form>'
        else:
            link = f'<a href="{target}">{target}</a>'
        items.append(f'<li>{link} <span class="soft">{escape(endpoint.text)}</span></li>')
    return f'<ul class="links">{"".join(items)}</ul>'


def page(server: Server, view: View, endpoints: Mapping[str, Described]) -> str:
    """The page as it is now."""
    good = view.state == "LIVE"
    state = f'<span class="state {"good" if good else "bad"}">{"●" if good else "▲"} {view.state}</span>'
    answered = sum(sum(port.statuses.values()) for port in view.ports if port.statuses is not None)
    facts = {
        "up for": duration(server.measures.uptime),
        "answers": _number(answered),
        "in flight": _number(view.total("streams")),
        "connections": _number(view.total("connections")),
        "VMs": _number(view.total("vms")),
        "guest memory": size(view.total("guest_memory")),
        "process memory": size(view.total("memory")),
        "reloads": str(server.generation),
    }
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    source = escape(server.bootstrap.source_name)
    parts = [
        f"<header><h1>pywasmvm proxy</h1>{state}"
        f'<span class="soft">{escape(__version__)} · <code>{source}</code></span></header>',
        f'<dl class="facts">{shown}</dl>',
    ]
    if not view.agree:
        parts.append(
            '<section><span class="state bad">▲ Workers serve different configurations</span></section>'
        )
    parts.append(_section("Filters", _filters(view.plugins)))
    if view.guests:
        parts.append(_section("VMs", "".join(map(_guest, view.guests))))
    parts.append(_section("Listeners", _listeners(view.ports, view)))
    parts.append(_section("Clusters", _clusters(view.clusters, view)))
    if server.seat is not None:
        parts.append(_section("Workers", _workers(view)))
    if view.ignored:
        lines = "".join(f"<li><code>{escape(text)}</code></li>" for text in view.ignored)
        parts.append(_section(f"Ignored in the configuration ({len(view.ignored)})", f"<ul>{lines}</ul>"))
    parts.append(_section("Endpoints", _links(endpoints)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>pywasmvm proxy: {server.state}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
