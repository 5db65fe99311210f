package daemon

import (
	"fmt"
	"sync"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/config"
)

// spaceTick is how often the room below thin disks is looked at.
const spaceTick = 10 * time.Second

// spaceWatch looks now and then how much room the file systems below thin disks have
// left, and tells their units. One look is two system calls; a file system that
// hangs holds up the looks at its own disks only.
type spaceWatch struct {
	mu    sync.Mutex
	units map[*unit]*spaceLook
	end   chan struct{}
	of    func(backing.Store) (backing.Space, error)
}

// spaceLook is what is known of one disk.
type spaceLook struct{ busy, gone bool }

func (w *spaceWatch) start(every time.Duration, of func(backing.Store) (backing.Space, error)) {
	if every == 0 {
		every = spaceTick
	}
	if of == nil {
		of = backing.SpaceOf
	}
	w.of = of
	w.units = map[*unit]*spaceLook{}
	w.end = make(chan struct{})
	go func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-w.end:
				return
			case <-t.C:
				w.lookAtAll()
			}
		}
	}()
}

// stop ends the watch. A look that hangs in the kernel is left behind: it touches a
// unit that nobody uses any more.
func (w *spaceWatch) stop() { close(w.end) }

// add has k looked at from now on, if its store tells what room there is.
func (w *spaceWatch) add(k *unit) {
	if !k.u.Config().Thin {
		return
	}
	s, err := w.of(k.st)
	if err != nil {
		return
	}
	k.setSpace(s)
	w.mu.Lock()
	w.units[k] = &spaceLook{}
	w.mu.Unlock()
}

func (w *spaceWatch) remove(k *unit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.units[k]; l != nil {
		l.gone = true
		delete(w.units, k)
	}
}

func (w *spaceWatch) lookAtAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, l := range w.units {
		if !l.busy {
			l.busy = true
			go w.look(k, l)
		}
	}
}

func (w *spaceWatch) look(k *unit, l *spaceLook) {
	s, err := w.of(k.st)
	w.mu.Lock()
	l.busy = false
	gone := l.gone
	w.mu.Unlock()
	if err == nil && !gone {
		k.setSpace(s)
	}
}

func (k *unit) setSpace(s backing.Space) {
	if k.u.SetSpace(s) {
		k.c.tell("disk", k.name, fmt.Sprintf("low on room: its file system has %s left", config.Size(s.Available)))
	}
}
