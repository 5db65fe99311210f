package vhost

import (
	"fmt"
	"slices"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/vhost/proto"
)

// file is a region of the present generation and the file that it is a part of: two
// tables are compared by that, since each brings descriptors of its own.
type file struct {
	proto.MemRegion
	dev, ino uint64
	// fd is kept for a process that takes our place; -1: not yet.
	fd int
}

// same tells whether f and o are the same region of the same file.
func (f *file) same(o *file) bool {
	return f.MemRegion == o.MemRegion && f.dev == o.dev && f.ino == o.ino
}

// closeFiles closes the descriptors of those that are not in keep.
func closeFiles(fs, keep []file) {
	for i := range fs {
		if !slices.ContainsFunc(keep, func(o file) bool { return o.fd == fs[i].fd }) {
			shut(fs[i].fd)
		}
	}
}

// maxMemory bounds the guest memory of an export, bytes. A memfd of any size costs its
// owner nothing; mapped, it takes addresses from all of us, 128 TiB on x86-64, and a Go
// heap that finds none ends the process.
const maxMemory = 16 << 40

func newFile(r proto.MemRegion, fd int, had []file) (file, error) {
	sum := uint64(0)
	for _, f := range had {
		sum += f.Size
	}
	if r.Size > maxMemory-sum {
		return file{}, fmt.Errorf("guest memory of more than %d TiB", maxMemory>>40)
	}
	var st sys.FileStat
	if err := sys.Fstat(fd, &st); err != nil {
		return file{}, fmt.Errorf("fstat of a guest memory region: %w", err)
	}
	return file{MemRegion: r, dev: st.Dev, ino: st.Ino, fd: -1}, nil
}

func region(r proto.MemRegion, fd int) gmem.Region {
	return gmem.Region{Guest: r.Guest, Size: r.Size, User: r.User, FD: fd, Off: r.Off}
}

// setMemTable replaces the whole of guest memory. Regions that were there stay where
// they are mapped, so that requests in flight in them are not disturbed.
func (s *session) setMemTable(m *incoming) error {
	var table [proto.MaxTable]proto.MemRegion
	n, err := proto.ParseMemTable(m.body, &table)
	if err != nil {
		return broken(m, err)
	}
	if len(m.fds) != n {
		return &violation{fmt.Errorf("SET_MEM_TABLE of %d regions with %d descriptors: is QEMU's memory backend share=on?", n, len(m.fds))}
	}
	next := make([]file, n)
	for i := range n {
		if next[i], err = newFile(table[i], m.fds[i], next[:i]); err != nil {
			return broken(m, err)
		}
		if contains(next[:i], next[i]) {
			return &violation{fmt.Errorf("SET_MEM_TABLE has the region at guest address %#x twice", table[i].Guest)}
		}
	}
	c := s.change()
	for _, f := range s.files {
		if !contains(next, f) {
			if err := c.remove(f.MemRegion); err != nil {
				return broken(m, err)
			}
		}
	}
	for i, f := range next {
		if had := find(s.files, f); had != nil {
			next[i].fd = had.fd
			continue
		}
		if err := c.add(region(f.MemRegion, m.fds[i])); err != nil {
			return broken(m, err)
		}
	}
	for i := range next {
		if next[i].fd < 0 {
			next[i].fd = m.take(i)
		}
	}
	if n == 0 && c.now == nil {
		return nil
	}
	return s.commit(m, c, next)
}

func contains(fs []file, f file) bool { return find(fs, f) != nil }

// find is f in fs, nil where it is not there.
func find(fs []file, f file) *file {
	for i := range fs {
		if fs[i].same(&f) {
			return &fs[i]
		}
	}
	return nil
}

// addMemReg adds a region. A region that cannot be had is declined: what is there goes
// on, and requests that name the missing addresses end their ring.
func (s *session) addMemReg(m *incoming) error {
	r, err := proto.ParseMemReg(m.body)
	if err != nil {
		return broken(m, err)
	}
	if len(m.fds) != 1 {
		return &violation{fmt.Errorf("ADD_MEM_REG with %d descriptors instead of one: is QEMU's memory backend share=on?", len(m.fds))}
	}
	f, err := newFile(r, m.fds[0], s.files)
	if err != nil {
		return broken(m, err)
	}
	c := s.change()
	if err := c.add(region(r, m.fds[0])); err != nil {
		if s.wantsAck(m) && s.mem != nil {
			return &declined{err}
		}
		return broken(m, err)
	}
	f.fd = m.take(0)
	files := append(s.files[:len(s.files):len(s.files)], f)
	return s.commit(m, c, files)
}

// remMemReg takes a region away and answers when no request uses it any more, or its
// memory is cut off.
func (s *session) remMemReg(m *incoming) error {
	r, err := proto.ParseMemReg(m.body)
	if err != nil {
		return broken(m, err)
	}
	c := s.change()
	if err := c.remove(r); err != nil {
		return broken(m, err)
	}
	var files []file
	for _, f := range s.files {
		if f.Guest != r.Guest || f.User != r.User || f.Size != r.Size {
			files = append(files, f)
		}
	}
	return s.commit(m, c, files)
}

// change is a generation in the making, step by step from the present one.
type change struct {
	space   *gmem.Space
	was     *gmem.Map
	now     *gmem.Map // nil: none yet
	removed bool
}

func (s *session) change() *change { return &change{space: s.d.memory(), was: s.mem, now: s.mem} }

// set makes m the generation; one of our own steps before it was nobody else's.
func (c *change) set(m *gmem.Map, err error) error {
	if err != nil {
		c.drop()
		return err
	}
	c.drop()
	c.now = m
	return nil
}

// drop gives back what was made and is not the present generation.
func (c *change) drop() {
	if c.now != nil && c.now != c.was {
		c.now.Retire(nil)
	}
	c.now = c.was
}

func (c *change) add(r gmem.Region) error {
	if c.now == nil {
		return c.set(c.space.Map([]gmem.Region{r}))
	}
	return c.set(c.space.Add(c.now, r))
}

func (c *change) remove(r proto.MemRegion) error {
	if c.now == nil {
		return fmt.Errorf("guest memory has no region at guest address %#x: there is none", r.Guest)
	}
	c.removed = true
	return c.set(c.space.Remove(c.now, r.Guest, r.User, r.Size))
}

// commit moves the rings to the new generation and ends the old one.
//
// QEMU changes a region by taking it away and adding it anew, also while rings run
// (SeaBIOS opens and closes the memory below 1 MiB after the disk was found). A ring
// whose areas are in no memory for that while is parked: it takes nothing, and goes on
// when they are back.
func (s *session) commit(m *incoming, c *change, files []file) error {
	old := s.mem
	if c.now == old {
		return nil // the same regions again
	}
	closeFiles(s.files, files)
	s.mem, s.files = c.now, files
	s.e.count.MemoryChanges.Add(1)
	done := make(chan struct{})
	parked := false
	for _, q := range s.rings {
		if q == nil || !q.vq.started() {
			continue
		}
		_, err := s.parts(q)
		if q.parked = err != nil; q.parked {
			parked = true
			s.enable(q)
			continue
		}
		// Its failure is the ring's own: it is counted and shown there.
		_ = q.vq.remap(s.mem)
		s.enable(q)
	}
	if old != nil {
		old.Retire(func() { close(done) })
	}
	if err := s.startAll(m); err != nil {
		return err
	}
	if old == nil || !c.removed || parked {
		// What is gone stays mapped until nobody uses it. Nobody waits for
		// that: a parked ring is in it until the next message.
		return nil
	}
	return s.settle(old, done)
}

// settle waits until no request uses the old generation, and takes away what only that
// one has, when the deadline has passed.
func (s *session) settle(old *gmem.Map, done chan struct{}) error {
	t := time.NewTimer(s.e.conf.Deadline)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
	}
	old.Cut()
	if s.d.direct() {
		s.d.fail(errPinned)
		return errPinned
	}
	return nil
}
