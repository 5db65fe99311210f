package api

import (
	"context"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// Footprint is what the daemon takes of its host after a garbage collection: the answer
// to POST /v1/debug/gc, for tests that look for leaks.
type Footprint struct {
	Goroutines  int    `json:"goroutines"`
	Descriptors int    `json:"descriptors"` // open files
	Maps        int    `json:"maps"`        // lines of /proc/self/maps
	HeapBytes   uint64 `json:"heapBytes"`   // live
	HeapObjects uint64 `json:"heapObjects"`
	Allocated   uint64 `json:"allocated"`  // objects since the start
	MemoryUsed  int64  `json:"memoryUsed"` // payload buffers in use, bytes
}

// gc collects garbage, gives memory back to the system, and tells what is left.
func (h *handler) gc(w http.ResponseWriter, _ *http.Request) {
	runtime.GC() // what finalizers and pools let go of goes in the second
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f := Footprint{
		Goroutines: runtime.NumGoroutine(), HeapBytes: m.HeapAlloc, HeapObjects: m.HeapObjects, Allocated: m.Mallocs,
		MemoryUsed: h.b.Status().Traffic.MemoryUsed,
	}
	if d, err := os.ReadDir("/proc/self/fd"); err == nil {
		f.Descriptors = len(d) - 1 // the folder itself
	}
	if b, err := os.ReadFile("/proc/self/maps"); err == nil {
		f.Maps = strings.Count(string(b), "\n")
	}
	h.write(w, http.StatusOK, f)
}

// Footprint has the daemon collect garbage and tells what it takes.
func (c *Client) Footprint(ctx context.Context) (*Footprint, error) {
	b, err := c.do(ctx, http.MethodPost, "/v1/debug/gc", nil, nil)
	if err != nil {
		return nil, err
	}
	f := new(Footprint)
	return f, c.decode(b, f)
}
