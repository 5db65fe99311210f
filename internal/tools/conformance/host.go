package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/vtgt/vtgt/internal/tools/peer"
)

// A host keeps the target running: a test that kills it costs that test, not the rest.
type host struct {
	launch func(dir string) (*peer.Server, error)
	dir    string

	mu     sync.Mutex
	srv    *peer.Server
	starts int
	deaths int
}

// server returns the running target, started again if it has died.
func (h *host) server() (*peer.Server, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.srv != nil && !h.srv.Exited() {
		return h.srv, nil
	}
	if h.srv != nil {
		fmt.Fprintf(os.Stderr, "%s died:\n%s\n", h.srv.Name, indent(h.srv.Log()))
		h.deaths++
		if h.deaths > 5 {
			return nil, fmt.Errorf("%s died %d times: giving up", h.srv.Name, h.deaths)
		}
	}
	h.starts++
	dir := filepath.Join(h.dir, fmt.Sprintf("run%d", h.starts))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	srv, err := h.launch(dir)
	if err != nil {
		return nil, err
	}
	h.srv = srv
	return srv, nil
}

func (h *host) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.srv == nil {
		return nil
	}
	err := h.srv.Close()
	h.srv = nil
	return err
}
