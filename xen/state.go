package xen

import (
	"errors"
	"io/fs"
	"strconv"

	"github.com/vtgt/vtgt/xen/nodes"
)

// State is a xenbus state (xen/include/public/io/xenbus.h).
type State uint8

// The states.
const (
	Unknown State = iota
	Initialising
	InitWait
	Initialised
	Connected
	Closing
	Closed
	Reconfiguring
	Reconfigured
)

func (s State) String() string {
	return nodes.StateName(strconv.Itoa(int(s)))
}

// state reads a node with a state in it. A node that is not there, or nonsense, is
// Unknown.
func (h *Host) state(path string) (State, error) {
	v, err := h.xs().Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Unknown, nil
	}
	if err != nil {
		return Unknown, err
	}
	n, err := strconv.ParseUint(v, 10, 8)
	if err != nil || State(n) > Reconfigured {
		return Unknown, nil
	}
	return State(n), nil
}
