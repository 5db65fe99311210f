package backing

import (
	"sync"
	"sync/atomic"
)

// infoBox holds a store's present Info and those who want to hear of changes.
type infoBox struct {
	p        atomic.Pointer[Info]
	mu       sync.Mutex
	watchers []*watcher
}

type watcher struct{ f func(*Info) }

func (b *infoBox) Info() *Info { return b.p.Load() }

func (b *infoBox) Watch(f func(*Info)) (stop func()) {
	w := &watcher{f}
	b.mu.Lock()
	b.watchers = append(b.watchers, w)
	b.mu.Unlock()
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for i, v := range b.watchers {
			if v == w {
				// A fresh slice: change may be walking the old one.
				b.watchers = append(append([]*watcher(nil), b.watchers[:i]...), b.watchers[i+1:]...)
				return
			}
		}
	}
}

// change installs what f makes of a copy of the present Info and tells the
// watchers. Changes are serialized; f reports false to leave it as it is.
func (b *infoBox) change(f func(*Info) bool) {
	b.mu.Lock()
	n := *b.p.Load()
	if !f(&n) {
		b.mu.Unlock()
		return
	}
	b.p.Store(&n)
	ws := b.watchers
	b.mu.Unlock()
	for _, w := range ws {
		w.f(&n)
	}
}
