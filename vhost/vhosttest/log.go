package vhosttest

import (
	"errors"
	"fmt"

	"github.com/vtgt/vtgt/internal/sys"
)

// A Log is the bitmap in which the back end notes the pages of guest memory that it
// writes, while a machine is migrated.
type Log struct {
	// Bits: bit n%8 of byte n/8 stands for guest physical page n of 4 KiB. Whoever
	// looks while rings run sees what was noted up to then.
	Bits []byte
	FD   int
}

// NewLog makes a log for guest addresses below size, with nothing in it.
func NewLog(size uint64) (*Log, error) {
	n := int((size/pageBytes + 63) / 64 * 8)
	fd, err := sys.NewMemfd("vhosttest-log", int64(n))
	if err != nil {
		return nil, fmt.Errorf("dirty log: %w", err)
	}
	b, err := sys.MapShared(fd, 0, n)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dirty log: %w", err), sys.Close(fd))
	}
	return &Log{b, fd}, nil
}

// Has tells whether guest physical page n is noted.
func (l *Log) Has(n uint64) bool { return n/8 < uint64(len(l.Bits)) && l.Bits[n/8]>>(n%8)&1 != 0 }

// Close gives the log back; the back end may still have it.
func (l *Log) Close() error { return errors.Join(sys.Unmap(l.Bits), sys.Close(l.FD)) }

// StartLog has the back end note writes in l, in QEMU's order: the log, the feature, the
// rings' addresses again. Rings run or not.
func (c *Client) StartLog(l *Log) error {
	r, err := c.Call(SetLogBase, 0, u64s(uint64(len(l.Bits)), 0), l.FD)
	if err != nil {
		return err
	}
	r.closeFDs()
	c.logging = true
	return c.relog()
}

// StopLog ends that.
func (c *Client) StopLog() error {
	c.logging = false
	return c.relog()
}

func (c *Client) relog() error {
	// With an answer: nothing may be missed from then on.
	if err := c.Set(SetFeatures, true, u64s(c.negotiated())); err != nil {
		return err
	}
	for i := range c.queues {
		if err := c.setAddr(i); err != nil {
			return err
		}
	}
	return c.sync()
}

// setAddr says SET_VRING_ADDR for a ring that has been laid out.
func (c *Client) setAddr(i int) error {
	q := c.queues[i]
	if q.ring == nil {
		return nil
	}
	return c.Set(SetVringAddr, false, c.addr(i))
}

// addr is the body of SET_VRING_ADDR.
func (c *Client) addr(i int) []byte {
	l := c.queues[i].ring.Layout
	flags, log := uint32(0), uint64(0)
	if c.logging {
		flags, log = 1, l.Used
	}
	return append(u32s(uint32(i), flags), u64s(c.Mem.user(l.Desc), c.Mem.user(l.Used), c.Mem.user(l.Avail), log)...)
}
