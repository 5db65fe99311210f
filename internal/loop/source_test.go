package loop

import (
	"os"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

func eventfd(t testing.TB) int {
	t.Helper()
	fd, err := sys.NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close(fd) })
	return fd
}

// add watches fd on l, and removes it when the test ends.
func add(t testing.TB, l *Loop, s *Source, fd int, ev Events, h ReadyHandler) {
	t.Helper()
	l.Do(func() {
		if err := l.Add(s, fd, ev, h); err != nil {
			t.Error(err)
		}
	})
}

// Of two sources that are ready in the same round, the first to be served removes
// the other, which must then be silent, even where its slot is taken by a third.
func TestRemoveDuringRound(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	for _, reuse := range []bool{false, true} {
		for range 200 {
			fds := [3]int{}
			for i := range fds {
				fds[i], _ = sys.NewEventfd()
			}
			var s [3]Source
			served := 0
			h := func(i int) readyFunc {
				return func(*Source, Events) {
					served++
					sys.EventfdDrain(fds[i])
					l.Remove(&s[1-i])
					if s[1-i].Added() {
						t.Error("Added after Remove")
					}
					if reuse {
						if err := l.Add(&s[2], fds[2], In, readyFunc(func(*Source, Events) {
							t.Error("Ready of a source that is not ready")
						})); err != nil {
							t.Error(err)
						}
					}
				}
			}
			l.Do(func() {
				for i := range 2 {
					if err := l.Add(&s[i], fds[i], In, h(i)); err != nil {
						t.Error(err)
					}
					sys.EventfdSignal(fds[i])
				}
			})
			for range 3 {
				l.Do(func() {})
			}
			l.Do(func() {
				if served != 1 {
					t.Errorf("%d sources served, want 1", served)
				}
				for i := range s {
					l.Remove(&s[i])
					sys.Close(fds[i])
				}
			})
		}
	}
}

func TestSourceRemovesItself(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	fd := eventfd(t)
	var s Source
	n := 0
	ready := make(chan struct{})
	add(t, l, &s, fd, In, readyFunc(func(s *Source, _ Events) {
		if n++; n == 1 {
			close(ready)
		}
		l.Remove(s)
	}))
	sys.EventfdSignal(fd) // stays readable
	within(t, ready, "source")
	for range 3 {
		l.Do(func() {})
	}
	l.Do(func() {
		if n != 1 {
			t.Errorf("Ready %d times, want 1", n)
		}
	})
}

func TestModify(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	fd := eventfd(t)
	var s Source
	got := make(chan Events, 100)
	add(t, l, &s, fd, 0, readyFunc(func(s *Source, ev Events) {
		got <- ev
		l.Modify(s, 0)
	}))
	sys.EventfdSignal(fd)
	time.Sleep(10 * time.Millisecond)
	if len(got) != 0 {
		t.Error("Ready without interest")
	}
	for _, ev := range []Events{In, Out, In | Out} {
		l.Do(func() {
			if err := l.Modify(&s, ev); err != nil {
				t.Error(err)
			}
		})
		if e := within(t, got, "Ready"); e != ev {
			t.Errorf("events %v, want %v", e, ev)
		}
	}
	l.Do(func() { l.Remove(&s) })
}

// A level-triggered source that is never drained is reported again and again, and
// neither it nor an edge-triggered one starves the rest.
func TestLevelAndEdge(t *testing.T) {
	for _, ring := range []bool{false, true} {
		g := group(t, Config{Loops: 1})
		l := g.Loops()[0]
		if ring {
			hold := holdRing(t, l)
			defer hold()
		}
		fd, fe := eventfd(t), eventfd(t)
		var s, e Source
		levels, edges := make(chan int, 1), make(chan int, 10)
		n := 0
		add(t, l, &s, fd, In, readyFunc(func(s *Source, _ Events) {
			if n++; n == 1000 {
				l.Remove(s)
				levels <- n
			}
		}))
		add(t, l, &e, fe, In|Edge, readyFunc(func(*Source, Events) { edges <- 1 }))
		sys.EventfdSignal(fd)
		within(t, levels, "level-triggered source")
		for range 3 {
			sys.EventfdSignal(fe)
			within(t, edges, "edge")
			l.Do(func() {})
			l.Do(func() {})
			if len(edges) != 0 {
				t.Error("an edge was reported twice")
			}
		}
		l.Do(func() { l.Remove(&e) })
	}
}

func TestAddErrors(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	var s Source
	if err := l.Add(&s, eventfd(t), In, nil); err == nil {
		t.Error("Add off the loop")
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l.Do(func() {
		if err := l.Add(&s, int(f.Fd()), In, nil); err == nil {
			t.Error("Add of a regular file")
		}
		if err := l.Add(&s, 1<<20, In, nil); err == nil {
			t.Error("Add of a descriptor that is not open")
		}
		fd := eventfd(t)
		if err := l.Add(&s, fd, In, nil); err != nil {
			t.Error(err)
		}
		if err := l.Add(&s, fd, In, nil); err == nil {
			t.Error("Add of an added source")
		}
		l.Remove(&s)
		l.Remove(&s)
		if err := l.Modify(&s, In); err == nil {
			t.Error("Modify of a removed source")
		}
	})
}

func TestEventsString(t *testing.T) {
	for ev, want := range map[Events]string{0: "0x0", In: "In", In | Hup: "In|Hup", Out | 1<<20: "Out|0x100000"} {
		// 0 has no name at all.
		if got := ev.String(); got != want {
			t.Errorf("%#x: %q, want %q", uint32(ev), got, want)
		}
	}
}
