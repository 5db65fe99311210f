package vhost

import (
	"fmt"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/vhost/proto"
	"github.com/vtgt/vtgt/vhost/vring"
)

// inflightEntries is for how many entries of a ring we make room at least: what QEMU
// lets any ring have. QEMU asks for its property virtqueue_size (128), but a driver may
// set a ring's size to something else: 256 was seen with QEMU 10.
const inflightEntries = 1024

// inflight is the region in which requests in flight are recorded for the process that
// comes after us. It is mapped like guest memory, since the front end can take it away
// in the same ways. A nil one records nothing.
type inflight struct {
	m      *gmem.Map
	fd     int // of it, with its offset, for a process that takes our place
	off    uint64
	b      []byte
	queues int
	size   int // entries of each
}

// part is ring index's part.
func (f *inflight) part(index int) (*vring.Inflight, error) {
	if f == nil {
		return nil, nil
	}
	if index >= f.queues {
		return nil, fmt.Errorf("ring %d: the inflight region is for %d rings", index, f.queues)
	}
	return vring.OpenInflight(f.b, index, f.size)
}

func (f *inflight) retire() {
	if f != nil {
		f.m.Retire(nil)
		shut(f.fd)
	}
}

// checkInflight bounds what a front end asks for.
func (s *session) checkInflight(d proto.Inflight) error {
	most := min(s.e.conf.Queues+requestQueue, proto.MaxVringFD)
	switch {
	case d.Queues == 0 || int(d.Queues) > most:
		return &violation{fmt.Errorf("an inflight region for %d rings: there are %d, set num_queues=%d or less in QEMU's -device vhost-user-scsi-pci", d.Queues, most, most-requestQueue)}
	case d.QueueSize == 0 || d.QueueSize > vring.MaxSize:
		return &violation{fmt.Errorf("an inflight region for rings of %d entries", d.QueueSize)}
	}
	return nil
}

// getInflightFD makes a new region. Its size is final, so that the front end cannot
// take it from under us; it is the front end's to keep, and comes back by
// SET_INFLIGHT_FD, also after we were restarted.
func (s *session) getInflightFD(m *incoming) error {
	d, err := proto.ParseInflight(m.body)
	if err != nil {
		return broken(m, err)
	}
	if err := s.checkInflight(d); err != nil {
		return err
	}
	// An entry of a packed ring takes twice as much, and QEMU 7.2 asks before it says
	// which kind it is.
	n := vring.InflightSize(int(d.Queues), 2*max(int(d.QueueSize), inflightEntries))
	fd, err := sys.NewMemfd("vtgt-inflight", int64(n))
	if err != nil {
		return fmt.Errorf("making an inflight region of %d bytes: %w", n, err)
	}
	defer shut(fd)
	if err := sys.SealSize(fd); err != nil {
		return fmt.Errorf("making an inflight region: %w", err)
	}
	d.Size, d.Off = uint64(n), 0
	return s.reply(m.Request, d.Append(nil), fd)
}

// setInflightFD takes a region, which need not be one of ours: what stands in it is
// checked when a ring starts with it.
func (s *session) setInflightFD(m *incoming) error {
	d, err := proto.ParseInflight(m.body)
	if err != nil {
		return broken(m, err)
	}
	if err := s.checkInflight(d); err != nil {
		return err
	}
	if len(m.fds) != 1 {
		return &violation{fmt.Errorf("SET_INFLIGHT_FD with %d descriptors instead of one", len(m.fds))}
	}
	size := vring.InflightEntries(d.Size, int(d.Queues))
	if size < int(d.QueueSize) {
		return &violation{fmt.Errorf("SET_INFLIGHT_FD with a region of %d bytes: %d rings of %d entries need %d", d.Size, d.Queues, d.QueueSize,
			vring.InflightSize(int(d.Queues), int(d.QueueSize)))}
	}
	for _, q := range s.rings {
		if q != nil && q.vq.started() {
			return running(m, q)
		}
	}
	f, err := s.d.openInflight(m.fds[0], d.Off, int(d.Queues), size)
	if err != nil {
		return broken(m, err)
	}
	f.fd = m.take(0)
	s.inf.retire()
	s.inf = f
	return nil
}

// openInflight maps a region for rings of size entries. fd stays the caller's.
func (d *device) openInflight(fd int, off uint64, queues, size int) (*inflight, error) {
	n := uint64(vring.InflightSize(queues, size))
	mm, err := d.memory().Map([]gmem.Region{{Size: n, FD: fd, Off: off}})
	if err != nil {
		return nil, fmt.Errorf("the region cannot be mapped: %w", err)
	}
	b, err := mm.Slice(0, n)
	if err == nil {
		f := &inflight{m: mm, fd: -1, off: off, b: b, queues: queues, size: size}
		if _, err = f.part(0); err == nil {
			return f, nil
		}
	}
	mm.Retire(nil)
	return nil, err
}
