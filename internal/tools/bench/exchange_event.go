package main

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"golang.org/x/sys/unix"
)

// serveEvents is the least that a device which sleeps can do: it waits for its kick
// eventfd, an edge, and writes the call eventfd.
func serveEvents(kick, call int) error {
	ep, err := sys.NewEpoll()
	if err != nil {
		return err
	}
	ev := sys.EpollEvent{Events: sys.EPOLLIN | sys.EPOLLET}
	if e := sys.EpollCtl(ep, sys.EpollAdd, kick, &ev); e != 0 {
		return e
	}
	fmt.Println("ready")
	var evs [4]sys.EpollEvent
	var ts sys.Timespec
	for {
		n, e := sys.EpollWait(ep, evs[:], -1, &ts)
		if e != 0 {
			return e
		}
		if n > 0 {
			if e := sys.EventfdSignal(call); e != 0 {
				return e
			}
		}
	}
}

// eventExchange is the bare eventfd exchange with a client that sleeps, too.
type eventExchange struct {
	h          *helper
	kick, call int
	ep         int
	files      []*os.File // of kick and call
}

func newEventExchange() (*eventExchange, error) {
	x := &eventExchange{kick: -1, call: -1, ep: -1}
	var err error
	if x.kick, err = sys.NewEventfd(); err != nil {
		return nil, err
	}
	if x.call, err = sys.NewEventfd(); err != nil {
		return nil, err
	}
	if x.ep, err = sys.NewEpoll(); err != nil {
		return nil, err
	}
	ev := sys.EpollEvent{Events: sys.EPOLLIN}
	if e := sys.EpollCtl(x.ep, sys.EpollAdd, x.call, &ev); e != 0 {
		return nil, e
	}
	x.files = []*os.File{os.NewFile(uintptr(x.kick), "kick"), os.NewFile(uintptr(x.call), "call")}
	if x.h, err = startHelper("eventfd", 0, x.files...); err != nil {
		return nil, err
	}
	// os/exec has made their descriptions block.
	for _, fd := range []int{x.kick, x.call} {
		if err := unix.SetNonblock(fd, true); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func (x *eventExchange) close() {
	x.h.close()
	for _, f := range x.files {
		f.Close()
	}
	sys.Close(x.ep)
}

// run exchanges for d.
func (x *eventExchange) run(d time.Duration) (sample, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var evs [1]sys.EpollEvent
	var ts sys.Timespec
	k, err := startClocks(x.h.cpu)
	if err != nil {
		return sample{}, err
	}
	cpu := threadCPU()
	n := 0
	begin := time.Now()
	for time.Since(begin) < d {
		sys.EventfdSignal(x.kick)
		for {
			if c, _ := sys.EventfdDrain(x.call); c > 0 {
				break
			}
			if _, e := sys.EpollWait(x.ep, evs[:], int64(runLimit), &ts); e != 0 {
				return sample{}, e
			}
			if time.Since(begin) > runLimit {
				return sample{}, fmt.Errorf("the eventfd exchange does not answer")
			}
		}
		n++
	}
	took := time.Since(begin)
	cpu = threadCPU() - cpu
	return k.sample(n, took, cpu, cpu)
}
