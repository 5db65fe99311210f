package backingtest

import (
	"errors"
	"fmt"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// Timeout bounds every wait of this package.
const Timeout = tempotest.Patience

// ErrTimeout: an operation did not end within Timeout.
var ErrTimeout = errors.New("no end within " + Timeout.String())

// Driver uses one Queue synchronously, from any goroutine that is not a loop. It
// allocates for each call: it is for tests.
type Driver struct {
	L *loop.Loop
	Q backing.Queue
}

// NewDriver makes a queue of st on l.
func NewDriver(st backing.Store, l *loop.Loop) (*Driver, error) {
	q, err := st.Queue(l)
	if err != nil {
		return nil, err
	}
	return &Driver{l, q}, nil
}

type waiter chan struct{}

func (w waiter) OpDone(*backing.Op) { w <- struct{}{} }

// Start submits op; the channel gets one value when it has ended.
func (d *Driver) Start(op *backing.Op) <-chan struct{} {
	w := make(waiter, 2)
	op.Owner = w
	if !d.L.Do(func() {
		if d.Q.Submit(op) {
			w <- struct{}{}
		} else {
			d.Q.Kick()
		}
	}) {
		op.Err = backing.ErrClosed
		w <- struct{}{}
	}
	return w
}

// Do submits op, waits for its end and gives its error.
func (d *Driver) Do(op *backing.Op) error {
	select {
	case <-d.Start(op):
		return op.Err
	case <-time.After(Timeout):
		return fmt.Errorf("kind %d at %d+%d: %w", op.Kind, op.Off, op.Len, ErrTimeout)
	}
}

// Read reads len(p) bytes at off.
func (d *Driver) Read(off int64, p []byte) error {
	return d.moved(&backing.Op{Kind: backing.Read, Off: off, Len: int64(len(p)), Bufs: [][]byte{p}})
}

// Write writes p at off.
func (d *Driver) Write(off int64, p []byte, fl backing.Flags) error {
	return d.moved(&backing.Op{Kind: backing.Write, Flags: fl, Off: off, Len: int64(len(p)), Bufs: [][]byte{p}})
}

func (d *Driver) moved(op *backing.Op) error {
	if err := d.Do(op); err != nil {
		return err
	}
	if op.N != op.Len {
		return fmt.Errorf("N is %d after a transfer of %d bytes without an error", op.N, op.Len)
	}
	return nil
}

// Sync makes everything written stable.
func (d *Driver) Sync() error { return d.Do(&backing.Op{Kind: backing.Sync}) }

// Zero makes [off, off+n) zero.
func (d *Driver) Zero(off, n int64, fl backing.Flags) error {
	return d.Do(&backing.Op{Kind: backing.Zero, Flags: fl, Off: off, Len: n})
}

// Discard gives [off, off+n) back.
func (d *Driver) Discard(off, n int64) error {
	return d.Do(&backing.Op{Kind: backing.Discard, Off: off, Len: n})
}

// Extents gives at most max extents of [off, off+n).
func (d *Driver) Extents(off, n int64, max int) ([]backing.Extent, error) {
	op := &backing.Op{Kind: backing.Extents, Off: off, Len: n, Ext: make([]backing.Extent, max)}
	err := d.Do(op)
	return op.Ext[:op.N], err
}

// Close closes the queue and waits for it.
func (d *Driver) Close() error {
	ended := make(chan struct{})
	if !d.L.Do(func() { d.Q.Close(func() { close(ended) }) }) {
		return backing.ErrClosed
	}
	select {
	case <-ended:
		return nil
	case <-time.After(Timeout):
		return fmt.Errorf("close of a queue: %w", ErrTimeout)
	}
}
