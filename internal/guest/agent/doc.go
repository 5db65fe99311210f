// Package agent is the line protocol between a test and the init program of its
// guest: one JSON object a line each way over a serial port, one request at a time.
package agent
