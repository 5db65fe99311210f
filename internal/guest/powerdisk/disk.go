package powerdisk

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
)

// SectorSize is what is written as a whole or not at all, bytes.
const SectorSize = 512

// Disk is a virtual disk in memory. Its methods may be called from any goroutine.
type Disk struct {
	mu      sync.Mutex
	now     []byte  // what reads see
	stable  []byte  // what a loss of power leaves
	pending []write // since the last flush, in order
	stats   Stats
	dead    bool          // between PowerCut and PowerOn
	left    int           // StallAfter: writes that are answered still
	stalled chan struct{} // closed at the one after
	release chan struct{} // closed at the end of that; nil: there is none

	conns map[net.Conn]bool
	ln    net.Listener
	dir   string
	wg    sync.WaitGroup
}

type write struct {
	off  int64
	data []byte
	fua  bool
}

// Stats count what the guest did.
type Stats struct {
	Reads, Writes, Flushes int64
	// Kept and Lost are the sectors that PowerCuts have kept and dropped of those
	// that no flush had made stable.
	Kept, Lost int64
}

// New makes a disk of the contents of the file image, which is not written.
func New(image string) (*Disk, error) {
	b, err := os.ReadFile(image)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 || len(b)%SectorSize != 0 {
		return nil, fmt.Errorf("powerdisk: %s has %d bytes, not a multiple of %d", image, len(b), SectorSize)
	}
	return &Disk{now: b, stable: append([]byte(nil), b...), conns: map[net.Conn]bool{}}, nil
}

// Size in bytes.
func (d *Disk) Size() int64 { return int64(len(d.now)) }

// Stats are the counters so far.
func (d *Disk) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// PowerCut is the loss of power: connections end, and of the sectors that no flush
// (and no FUA of its write) has made stable each is kept with probability keep, in the
// order of writing. Nothing is served until PowerOn.
func (d *Disk) PowerCut(rng *rand.Rand, keep float64) {
	d.mu.Lock()
	d.dead = true
	for c := range d.conns {
		_ = c.Close()
	}
	d.goOn()
	for _, w := range d.pending {
		for i := 0; i < len(w.data); i += SectorSize {
			if !w.fua && rng.Float64() >= keep {
				d.stats.Lost++
				continue
			}
			if !w.fua {
				d.stats.Kept++
			}
			copy(d.stable[w.off+int64(i):], w.data[i:min(i+SectorSize, len(w.data))])
		}
	}
	d.pending = nil
	copy(d.now, d.stable)
	d.mu.Unlock()
}

// StallAfter has the disk take n writes more and answer them, and then one that it does
// not answer, nor anything else until PowerCut: so the power goes away in the midst of
// what the guest does, and not in a pause. The channel is closed when that is so.
func (d *Disk) StallAfter(n int) (stalled <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.stalled, d.release = n, make(chan struct{}), make(chan struct{})
	return d.stalled
}

// goOn ends StallAfter. Lock held.
func (d *Disk) goOn() {
	if d.release != nil {
		close(d.release)
		d.release = nil
	}
}

// PowerOn lets the disk serve again.
func (d *Disk) PowerOn() {
	d.mu.Lock()
	d.dead = false
	d.mu.Unlock()
}

func (d *Disk) inside(off, n int64) bool {
	return off >= 0 && n >= 0 && off <= d.Size() && n <= d.Size()-off
}

// errOff ends the service of a connection after PowerCut.
var errOff = fmt.Errorf("powerdisk: power is off: %w", io.ErrClosedPipe)

func (d *Disk) read(b []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return errOff
	}
	d.stats.Reads++
	copy(b, d.now[off:])
	return nil
}

// write takes b over.
func (d *Disk) write(b []byte, off int64, fua bool) error {
	d.mu.Lock()
	if d.dead {
		d.mu.Unlock()
		return errOff
	}
	d.stats.Writes++
	copy(d.now[off:], b)
	d.pending = append(d.pending, write{off, b, fua})
	wait := d.release
	if wait != nil {
		if d.left--; d.left >= 0 {
			wait = nil
		} else {
			close(d.stalled)
		}
	}
	d.mu.Unlock()
	if wait != nil { // requests are served one at a time: the next one waits too
		<-wait
		return errOff
	}
	return nil
}

// flush makes stable what was answered before. Requests are served one at a time, so
// that is everything.
func (d *Disk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return errOff
	}
	d.stats.Flushes++
	for _, w := range d.pending {
		copy(d.stable[w.off:], w.data)
	}
	d.pending = nil
	return nil
}
