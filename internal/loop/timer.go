package loop

import "math/bits"

// Timer is a single-shot timer of one loop, embedded in its owner. It must not be
// copied.
type Timer struct {
	h          TimerHandler
	next, prev *Timer // in a circular list; nil when not armed
	when       int64  // tick
	slot       int16  // level*wheelSlots + slot, or expiredSlot
}

// Init sets who hears of the timer's end. It must not be armed.
func (t *Timer) Init(h TimerHandler) { t.h = h }

// Armed reports whether the timer will expire. On the loop only.
func (t *Timer) Armed() bool { return t.next != nil }

// The wheel is hierarchical: level k has 64 slots of 64^k ticks. A timer sits on
// the level of the highest digit in which its tick differs from the present one,
// and comes down a level when that digit is reached. Insert and remove are O(1).
const (
	tickShift   = 16 // a tick is 65.536 us
	wheelBits   = 6
	wheelSlots  = 1 << wheelBits
	wheelLevels = 6 // 64^6 ticks: 52 days
	maxTicks    = 1<<(wheelBits*wheelLevels) - 1
	expiredSlot = -1
)

type wheel struct {
	elapsed  int64 // the tick up to which everything has expired
	occupied [wheelLevels]uint64
	slots    [wheelLevels * wheelSlots]Timer // heads of circular lists
	expired  Timer                           // head: expired, not yet called
	count    int
}

func (w *wheel) init(now int64) {
	w.elapsed = now >> tickShift
	for i := range w.slots {
		h := &w.slots[i]
		h.next, h.prev = h, h
	}
	w.expired.next, w.expired.prev = &w.expired, &w.expired
}

func linkBefore(h, t *Timer) {
	t.next, t.prev = h, h.prev
	h.prev.next = t
	h.prev = t
}

func unlink(t *Timer) {
	t.prev.next = t.next
	t.next.prev = t.prev
	t.next, t.prev = nil, nil
}

// add arms t for the first tick that is not before when (ns).
func (w *wheel) add(t *Timer, when int64) {
	tick := (when + 1<<tickShift - 1) >> tickShift
	t.when = min(max(tick, w.elapsed+1), w.elapsed+maxTicks)
	w.count++
	w.place(t)
}

// place puts t where its tick belongs as seen from elapsed; t.when > elapsed.
func (w *wheel) place(t *Timer) {
	level := min((bits.Len64(uint64(w.elapsed^t.when))-1)/wheelBits, wheelLevels-1)
	slot := int(t.when>>(wheelBits*level)) & (wheelSlots - 1)
	t.slot = int16(level*wheelSlots + slot)
	w.occupied[level] |= 1 << slot
	linkBefore(&w.slots[t.slot], t)
}

// remove disarms t, which is armed.
func (w *wheel) remove(t *Timer) {
	unlink(t)
	w.count--
	if t.slot == expiredSlot {
		return
	}
	if h := &w.slots[t.slot]; h.next == h {
		w.occupied[t.slot>>wheelBits] &^= 1 << (t.slot & (wheelSlots - 1))
	}
}

// nextSlot finds the slot that comes first and the tick at which it begins.
func (w *wheel) nextSlot() (slot int, tick int64, ok bool) {
	for level := range wheelLevels {
		occ := w.occupied[level]
		if occ == 0 {
			continue
		}
		shift := wheelBits * level
		cur := int(w.elapsed>>shift) & (wheelSlots - 1)
		ahead := bits.TrailingZeros64(bits.RotateLeft64(occ, -cur))
		slot = (cur + ahead) & (wheelSlots - 1)
		// Digits above this level are those of elapsed, except on the highest
		// level, which goes round.
		base := w.elapsed >> shift >> wheelBits << wheelBits << shift
		tick = base + int64(slot)<<shift
		if tick <= w.elapsed {
			tick += wheelSlots << shift
		}
		return level<<wheelBits + slot, tick, true
	}
	return 0, 0, false
}

// deadline is the time (ns) at which the wheel wants to be advanced; -1: never.
// It may be earlier than the first timer by a step down the levels.
func (w *wheel) deadline() int64 {
	if w.expired.next != &w.expired {
		return 0
	}
	_, tick, ok := w.nextSlot()
	if !ok {
		return -1
	}
	return tick << tickShift
}

// advance moves everything that ends by now (ns) to the expired list, in the
// order of ticks.
func (w *wheel) advance(now int64) {
	tick := now >> tickShift
	for {
		i, at, ok := w.nextSlot()
		if !ok || at > tick {
			break
		}
		w.elapsed = at
		h := &w.slots[i]
		w.occupied[i>>wheelBits] &^= 1 << (i & (wheelSlots - 1))
		for t := h.next; t != h; t = h.next {
			unlink(t)
			if t.when <= at {
				t.slot = expiredSlot
				linkBefore(&w.expired, t)
			} else {
				w.place(t)
			}
		}
	}
	w.elapsed = max(w.elapsed, tick)
}

// pop takes the next expired timer off its list; nil when there is none.
func (w *wheel) pop() *Timer {
	t := w.expired.next
	if t == &w.expired {
		return nil
	}
	unlink(t)
	w.count--
	return t
}
