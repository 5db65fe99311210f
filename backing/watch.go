package backing

import (
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
)

// pollEvery is how often a store looks at its size. It polls instead of asking
// inotify: block devices and files that another host changes give no event, one
// fstat a second costs 0.3 us, and a watch would cost a descriptor and miss the
// change that came before it.
const pollEvery = time.Second

// poller is a store's timer, on one loop.
type poller struct {
	s     *fileStore
	l     *loop.Loop
	timer loop.Timer
	job   loop.Job
	busy  atomic.Bool
	off   bool // the loop's
}

func (p *poller) start(s *fileStore) {
	p.s, p.l = s, s.group.Pick()
	p.timer.Init(p)
	p.job.Init(p)
	p.l.Do(p.next)
}

// next arms the timer for the next whole second of the loops' clock: 1,000 stores wake
// their loops once a second and not 1,000 times (4 % of a processor).
func (p *poller) next() {
	p.l.After(&p.timer, pollEvery-time.Duration(p.l.Now()%int64(pollEvery)))
}

func (p *poller) stop() {
	p.l.Do(func() {
		p.off = true
		p.l.Stop(&p.timer)
	})
}

// Expired looks here where that cannot sleep, else on a worker.
func (p *poller) Expired(*loop.Timer) {
	if p.off {
		return
	}
	p.next()
	if p.s.local {
		p.s.look()
		return
	}
	if p.busy.Swap(true) {
		return // the last look still hangs
	}
	p.s.wg.Add(1)
	p.s.jobs.Submit(&p.job)
}

func (p *poller) RunJob(*loop.Job) {
	p.s.look()
	p.busy.Store(false)
	p.s.wg.Done()
}

// look takes a changed size over.
func (s *fileStore) look() {
	d := s.acquire()
	size, err := s.sizeOf(d.fd)
	d.release(false)
	if err != nil || size == s.Info().Size {
		return
	}
	s.change(func(i *Info) bool {
		changed := i.Size != size
		i.Size = size
		return changed
	})
	s.log.Info("the store's size changed", "store", s.spec, "size", size)
}

// sizeOf is the usable size: a tail below a block belongs to nobody.
func (s *fileStore) sizeOf(fd int) (int64, error) {
	var size int64
	var err error
	if s.block {
		size, err = sys.BlockSize(fd)
	} else {
		var st sys.FileStat
		err = sys.Fstat(fd, &st)
		size = st.Size
	}
	if err != nil {
		return 0, err
	}
	return size - size%s.sizeUnit(), nil
}
