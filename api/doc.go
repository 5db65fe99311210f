// Package api is vtgt's control interface: HTTP/1.1 with JSON bodies (RFC 9112, RFC
// 8259) under /v1 over a UNIX socket, the server on a [daemon.Daemon] and the client
// that the commands use. /metrics speaks the Prometheus text format, /debug/pprof is
// Go's profiler, POST /v1/debug/gc collects garbage and tells what the daemon takes.
//
// Whoever may connect to the socket may do everything: its permissions are the
// access control.
package api
