package gmem

// A Pin is one queue's hold on one generation. It belongs to the queue's loop,
// which counts its requests in it without atomics; making it and its end are
// known to the Space.
//
// A queue that goes over to another generation pins that one, calls Leave on the
// old pin and lets its old requests run out: the last Drop lets go.
type Pin struct {
	m       *Map
	n       int
	leaving bool
}

// Pin takes a hold on m for one queue, nil if m has been retired.
func (m *Map) Pin() *Pin {
	m.space.mu.Lock()
	defer m.space.mu.Unlock()
	if m.retired {
		return nil
	}
	m.pins++
	return &Pin{m: m}
}

// Map is the generation that p holds.
func (p *Pin) Map() *Map { return p.m }

// Take counts a request that uses addresses of the generation.
func (p *Pin) Take() { p.n++ }

// Held is the number of requests taken and not dropped.
func (p *Pin) Held() int { return p.n }

// Drop counts a request's end: it will not touch the memory again.
func (p *Pin) Drop() {
	if p.n--; p.n == 0 && p.leaving {
		p.off()
	}
}

// Leave says that the queue takes no further request on this pin. The pin is off
// when the last request drops it: now, if there is none.
func (p *Pin) Leave() {
	if p.leaving {
		return
	}
	if p.leaving = true; p.n == 0 {
		p.off()
	}
}

func (p *Pin) off() {
	m := p.m
	m.space.mu.Lock()
	m.pins--
	m.ended()
	m.space.mu.Unlock()
}

// Retire ends m's life as soon as no pin is on it: access to the regions that no
// other generation holds is taken away, their addresses become free for later
// generations, then done is called (nil: nobody asks). That runs on a goroutine of
// its own, since taking access to many GiB away takes milliseconds, which a loop
// does not have. No new pin is given. Retiring again does nothing.
func (m *Map) Retire(done func()) {
	m.space.mu.Lock()
	defer m.space.mu.Unlock()
	if m.retired {
		return
	}
	m.retired, m.done = true, done
	m.unlive()
	m.ended()
}

// Cut takes the memory of m away at once, whoever still works in it: regions that
// a generation neither cut nor retired holds too stay. Afterwards a late system
// call answers EFAULT and Go code faults under its Guard. The addresses stay
// occupied as long as a pin is on. It is for requests that do not come back before
// a deadline; m must still be retired.
func (m *Map) Cut() {
	m.space.mu.Lock()
	defer m.space.mu.Unlock()
	if m.over || m.cut {
		return
	}
	m.cut = true
	m.unlive()
	for _, r := range m.regions {
		if r.live == 0 {
			m.space.hide(r)
		}
	}
}

// unlive counts m out of the generations in service, once. Lock held.
func (m *Map) unlive() {
	if m.retired && m.cut {
		return // it was counted when the first of the two came
	}
	for _, r := range m.regions {
		r.live--
	}
}

// ended gives the regions of m back when its life is over. Lock held.
func (m *Map) ended() {
	if !m.retired || m.pins > 0 || m.over {
		return
	}
	m.over = true
	go m.giveBack()
}

func (m *Map) giveBack() {
	s := m.space
	s.mu.Lock()
	var last []*mapping // in no other generation, and never again
	for _, r := range m.regions {
		if r.users--; r.users == 0 {
			last = append(last, r)
		}
	}
	s.mu.Unlock()
	for _, r := range last {
		s.hide(r) // without the lock: loops wait for it in Drop
	}
	s.mu.Lock()
	for _, r := range last {
		s.release(r.whole)
	}
	delete(s.maps, m)
	s.mu.Unlock()
	if m.done != nil {
		m.done()
	}
}
