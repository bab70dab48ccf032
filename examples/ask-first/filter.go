// Lets a request pass only if another service says so: that service is asked about the token in `x-token`.
//
// A request without a token is answered at once. For one with a token the filter calls the cluster that its
// configuration names (`auth` without one), and holds the request until the answer is there: 200 lets it go on, all
// else is a 403. What it has learned about a token counts for some seconds, so that not every request waits.
//
// Compiled by the Go toolchain itself, no SDK: `host.go` has the other side.
package main

import (
	"fmt"
	"time"
)

const (
	remembered = 10 * time.Second
	tickPeriod = 1000 // milliseconds
)

type verdict struct {
	allowed bool
	until   time.Time
}

// question is a call that has not been answered: who waits for it, and what it is about.
type question struct {
	stream uint32
	token  string
}

// A module runs on one thread: callbacks never overlap, and plain variables are enough.
var (
	cluster         = "auth"
	verdicts        = map[string]verdict{}
	questions       = map[uint32]question{}
	allowed, denied counter
)

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

//go:wasmexport proxy_on_configure
func onConfigure(plugin, size uint32) uint32 {
	if size > 0 {
		cluster = pluginConfiguration(size)
	}
	allowed, denied = newCounter("ask_first.allowed"), newCounter("ask_first.denied")
	proxySetTickPeriodMilliseconds(tickPeriod)
	return 1
}

//go:wasmexport proxy_on_request_headers
func onRequestHeaders(stream, count, endOfStream uint32) uint32 {
	token, _ := header(mapRequestHeaders, "x-token")
	if token == "" {
		refuse(401, "no token")
		return actionPause
	}
	// The token is between the client and us.
	proxyRemoveHeaderMapValue(mapRequestHeaders, "x-token")
	if known, ok := verdicts[token]; ok && time.Now().Before(known.until) {
		if !known.allowed {
			refuse(403, "not allowed")
			return actionPause
		}
		allowed.increment()
		return actionContinue
	}
	var id uint32
	ask := pairs([2]string{":method", "GET"}, [2]string{":path", "/check"}, [2]string{":authority", cluster},
		[2]string{"x-token", token})
	if status := proxyHTTPCall(cluster, ask, "", pairs(), callTimeoutMillisecond, &id); status != statusOK {
		proxyLog(logWarn, fmt.Sprintf("cannot ask cluster %q: status %d", cluster, status))
		refuse(503, "nobody to ask")
		return actionPause
	}
	questions[id] = question{stream, token}
	return actionPause
}

// The answer comes to the plugin, not to the stream: the effective context says which stream we speak about.
//
//go:wasmexport proxy_on_http_call_response
func onHTTPCallResponse(plugin, id, headers, bodySize, trailers uint32) {
	asked, ok := questions[id]
	if !ok {
		return
	}
	delete(questions, id)
	status, _ := header(mapHTTPCallResponse, ":status")
	proxyLog(logInfo, fmt.Sprintf("asked about a token: %s", status))
	// A server that cannot be reached says nothing about the token.
	if status == "200" || status == "401" || status == "403" {
		verdicts[asked.token] = verdict{status == "200", time.Now().Add(remembered)}
	}
	if proxySetEffectiveContext(asked.stream) != statusOK {
		return // the client did not wait
	}
	if status == "200" {
		allowed.increment()
		proxyContinueStream(streamRequest)
	} else {
		refuse(403, "not allowed")
	}
}

// Without this, tokens that nobody uses any more would stay for ever.
//
//go:wasmexport proxy_on_tick
func onTick(plugin uint32) {
	now := time.Now()
	for token, known := range verdicts {
		if now.After(known.until) {
			delete(verdicts, token)
		}
	}
}

func refuse(status uint32, why string) {
	denied.increment()
	proxySendLocalResponse(status, why, why+"\n", pairs([2]string{"cache-control", "no-store"}), noGRPCStatus)
}

// A library for a host: nothing runs by itself.
func main() {}
