package main

// The proxy's functions of ABI 0.2.1 that this filter uses, declared by hand, and the memory that passes between
// the two. A string is passed as its address and its size; the compiler does that.

import "unsafe"

const (
	statusOK = 0

	actionContinue = 0
	actionPause    = 1

	logInfo = 2
	logWarn = 3

	mapRequestHeaders      = 0
	mapHTTPCallResponse    = 6
	bufferPluginConfig     = 7
	streamRequest          = 0
	metricCounter          = 0
	noGRPCStatus           = -1
	callTimeoutMillisecond = 5000
)

//go:wasmimport env proxy_log
func proxyLog(level uint32, text string) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBufferBytes(buffer, start, length uint32, data, size *uint32) uint32

//go:wasmimport env proxy_get_header_map_value
func proxyGetHeaderMapValue(mapType uint32, name string, data, size *uint32) uint32

//go:wasmimport env proxy_remove_header_map_value
func proxyRemoveHeaderMapValue(mapType uint32, name string) uint32

//go:wasmimport env proxy_send_local_response
func proxySendLocalResponse(status uint32, details, body, headers string, grpcStatus int32) uint32

//go:wasmimport env proxy_http_call
func proxyHTTPCall(cluster, headers, body, trailers string, milliseconds uint32, token *uint32) uint32

//go:wasmimport env proxy_continue_stream
func proxyContinueStream(streamType uint32) uint32

//go:wasmimport env proxy_set_effective_context
func proxySetEffectiveContext(context uint32) uint32

//go:wasmimport env proxy_set_tick_period_milliseconds
func proxySetTickPeriodMilliseconds(milliseconds uint32) uint32

//go:wasmimport env proxy_define_metric
func proxyDefineMetric(metricType uint32, name string, id *uint32) uint32

//go:wasmimport env proxy_increment_metric
func proxyIncrementMetric(id uint32, offset int64) uint32

// handedOut keeps the blocks that the proxy is about to fill: the collector does not see that the proxy has them.
var handedOut = map[uint32][]byte{}

// The proxy asks for memory here, for each value that it returns.
//
//go:wasmexport malloc
func malloc(size uint32) uint32 {
	if size == 0 {
		return 0
	}
	block := make([]byte, size)
	address := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(block))))
	handedOut[address] = block
	return address
}

// received is what a call has left at an address, now ours alone; nothing when the call failed.
func received(status, address, size uint32) (string, bool) {
	block := handedOut[address]
	delete(handedOut, address)
	if status != statusOK || int(size) > len(block) {
		return "", status == statusOK
	}
	return string(block[:size]), true
}

func header(mapType uint32, name string) (string, bool) {
	var address, size uint32
	status := proxyGetHeaderMapValue(mapType, name, &address, &size)
	return received(status, address, size)
}

func pluginConfiguration(length uint32) string {
	var address, size uint32
	status := proxyGetBufferBytes(bufferPluginConfig, 0, length, &address, &size)
	text, _ := received(status, address, size)
	return text
}

// pairs is a list of header fields as the ABI has it: how many, the sizes of all names and values, then the texts,
// each with a zero byte behind it.
func pairs(fields ...[2]string) string {
	number := func(out []byte, n int) []byte { return append(out, byte(n), byte(n>>8), byte(n>>16), byte(n>>24)) }
	out := number(nil, len(fields))
	for _, field := range fields {
		out = number(number(out, len(field[0])), len(field[1]))
	}
	for _, field := range fields {
		out = append(append(out, field[0]...), 0)
		out = append(append(out, field[1]...), 0)
	}
	return string(out)
}

type counter uint32

func newCounter(name string) counter {
	var id uint32
	proxyDefineMetric(metricCounter, name, &id)
	return counter(id)
}

func (c counter) increment() { proxyIncrementMetric(uint32(c), 1) }
