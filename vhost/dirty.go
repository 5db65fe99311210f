package vhost

import (
	"fmt"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/vhost/proto"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
	"github.com/vtgt/vtgt/vhost/vring"
)

// dirtyPage is what one bit of a dirty log stands for, bytes (vhost-user, "Migration").
const dirtyPage = 4096

// dirtyLog is the bitmap in which a front end that migrates its machine has us note the
// pages of guest memory that we write: bit n%8 of byte n/8 for guest physical page n. It
// is mapped like guest memory, since the front end can take it away in the same ways.
// Loops set bits at the same time; the front end clears them.
type dirtyLog struct {
	m    *gmem.Map
	fd   int // of it, with its offset, for a process that takes our place
	off  uint64
	area gmem.Area
	size uint64 // bytes that are used: a multiple of 4
}

// logWord is what bits are set by, bytes.
const logWord = 4

// openLog maps a log. fd stays the caller's.
func (d *device) openLog(fd int, off, size uint64) (*dirtyLog, error) {
	n := size &^ (logWord - 1)
	if n == 0 {
		return nil, fmt.Errorf("a log of %d bytes", size)
	}
	m, err := d.memory().Map([]gmem.Region{{Size: n, FD: fd, Off: off}})
	if err != nil {
		return nil, fmt.Errorf("the log cannot be mapped: %w", err)
	}
	b, err := m.Slice(0, n)
	if err == nil {
		var a gmem.Area
		if a, err = gmem.NewArea(b, logWord); err == nil {
			return &dirtyLog{m: m, fd: -1, off: off, area: a, size: n}, nil
		}
	}
	m.Retire(nil)
	return nil, fmt.Errorf("the log: %w", err)
}

func (g *dirtyLog) retire() {
	if g != nil {
		g.m.Retire(nil)
		shut(g.fd)
	}
}

// A logError is a page that the log has no bit for.
type logError struct{ addr, size uint64 }

func (e *logError) Error() string {
	return fmt.Sprintf("the dirty log of %d bytes has no bit for guest memory at %#x", e.size, e.addr)
}

// mark notes n bytes at guest physical address a. It touches the front end's memory.
func (g *dirtyLog) mark(a, n uint64) error {
	if n == 0 {
		return nil
	}
	first, last := a/dirtyPage, (a+n-1)/dirtyPage
	if last < first || last >= g.size*8 {
		return &logError{a, g.size}
	}
	for p := first; p <= last; {
		word := p / 32
		end := min(last, word*32+31)
		mask := ^uint32(0) << (p % 32) & (^uint32(0) >> (31 - end%32))
		// A bit that is set needs no locked access, which costs 20 times as much.
		if at := int(word) * logWord; g.area.Load32(at)&mask != mask {
			g.area.Or32(at, mask)
		}
		p = end + 1
	}
	return nil
}

// written notes bufs, of generation m, which the guest was to read into: all of them,
// also where less was read.
func (r *ring) written(m *gmem.Map, bufs [][]byte) {
	if r.log != nil {
		r.mark(m, bufs)
	}
}

// mark is written where writes are noted. It stands alone so that the other is inlined.
func (r *ring) mark(m *gmem.Map, bufs [][]byte) {
	for _, b := range bufs {
		if a, ok := m.Guest(b); ok {
			r.marked(r.log.mark(a, uint64(len(b))))
		}
	}
}

// wroteUsed is the step that notes the used ring, which every step may have written to.
func wroteUsed(r *ring) {
	if !r.logUsed {
		return
	}
	r.marked(r.log.mark(r.usedAt, uint64(r.vr.UsedLen())))
	if virtioscsi.Has(r.features, virtioscsi.FeatureRingPacked) {
		// Used elements lie in the ring of descriptors, of which SET_VRING_ADDR has no
		// guest address.
		if b, err := r.mem.User(r.parts[0], uint64(vring.DescSize(r.vr.Size()))); err == nil {
			if a, ok := r.mem.Guest(b); ok {
				r.marked(r.log.mark(a, uint64(len(b))))
			}
		}
	}
}

// marked fails the ring for a page that could not be noted: the machine would go on
// elsewhere with old contents.
func (r *ring) marked(err error) {
	if err != nil {
		r.fail(err)
	}
}

// setLog has the ring note what it writes from now on in g (nil: no more), the used ring
// at guest physical address used where logUsed says so.
func (r *ring) setLog(g *dirtyLog, logUsed bool, used uint64) {
	r.log, r.logUsed, r.usedAt = g, g != nil && logUsed, used
	if r.logUsed && !r.dead {
		r.guard(wroteUsed)
	}
}

// logNow is what the session's rings note their writes in at present.
func (s *session) logNow() *dirtyLog {
	if s.features&proto.FeatureLogAll == 0 {
		return nil
	}
	return s.log
}

// relog tells the rings that run; when it returns none uses an earlier log, and what is
// written from then on is noted.
func (s *session) relog() {
	for _, q := range s.rings {
		if q != nil {
			q.relog(s.logNow())
		}
	}
}

func (q *setup) relog(g *dirtyLog) {
	q.vq.do(func() { q.vq.r.setLog(g, q.logUsed, q.usedAt) })
}

// setLogBase takes a log. Its answer has no body.
func (s *session) setLogBase(m *incoming) error {
	if s.protocol&proto.ProtocolLogShmFD == 0 {
		return &declined{fmt.Errorf("LOG_SHMFD was not negotiated")}
	}
	l, err := proto.ParseLog(m.body)
	if err != nil {
		return broken(m, err)
	}
	if len(m.fds) != 1 {
		return &violation{fmt.Errorf("SET_LOG_BASE with %d descriptors instead of one", len(m.fds))}
	}
	g, err := s.d.openLog(m.fds[0], l.Off, l.Size)
	if err != nil {
		return broken(m, err)
	}
	g.fd = m.take(0)
	old := s.log
	s.log = g
	s.relog()
	old.retire()
	return s.reply(m.Request, nil, -1)
}
