package loop

// Poller is work that appears in memory, without an event for as long as nobody has
// asked for one: a ring that it shares with somebody. Both calls come on the loop
// while it has nothing else to do.
type Poller interface {
	// Poll looks for work. When there is some it serves it, or posts what does.
	Poll() Found
	// Arm asks for an event and then looks: the loop is about to sleep. When there
	// is work it posts what serves it and returns true.
	Arm() bool
}

// Found is what Poller.Poll found.
type Found uint8

const (
	Nothing Found = iota
	// Served: work that is done. What was deferred meanwhile may wait for some
	// microseconds.
	Served
	// Posted: work that the round does.
	Posted
)

// PollNode is a Poller's place among those that its loop looks at. It is embedded in
// its owner and costs nothing while it is not hot.
type PollNode struct {
	p    Poller
	hot  bool
	idle uint8 // rounds in which Poll found nothing
}

// coldAfter is how many rounds without work a poller stays hot on a loop that others
// keep busy.
const coldAfter = 32

// Init sets who polls.
func (n *PollNode) Init(p Poller) { n.p = p }

// Hot has the loop look at n each round and while it spins, until it sleeps: then, and
// when nothing has come for some rounds, n is armed and hot no more. On the loop only.
func (l *Loop) Hot(n *PollNode) {
	n.idle = 0
	if !n.hot {
		n.hot = true
		l.hot = append(l.hot, n)
	}
}

// Cold ends that, without arming. On the loop only.
func (l *Loop) Cold(n *PollNode) {
	for i, o := range l.hot {
		if o == n {
			l.cool(i)
			return
		}
	}
}

// cool takes entry i off the list.
func (l *Loop) cool(i int) {
	k := len(l.hot) - 1
	l.hot[i].hot = false
	l.hot[i], l.hot[k] = l.hot[k], nil
	l.hot = l.hot[:k]
}

// poll looks at what is hot, once a round.
func (l *Loop) poll() (found Found) {
	for i := len(l.hot) - 1; i >= 0; i-- {
		n := l.hot[i]
		if f := n.p.Poll(); f != Nothing {
			n.idle = 0
			found = max(found, f)
			continue
		}
		if n.idle++; n.idle < coldAfter {
			continue
		}
		if n.idle = 0; n.p.Arm() {
			found = Posted
		} else {
			l.cool(i)
		}
	}
	return found
}

// glance looks at what is hot while the loop spins.
func (l *Loop) glance() (found Found) {
	for _, n := range l.hot {
		found = max(found, n.p.Poll())
	}
	return found
}

// arm has all that is hot ask for events; true: there is work, so the loop must not
// sleep.
func (l *Loop) arm() (found bool) {
	for i := len(l.hot) - 1; i >= 0; i-- {
		if l.hot[i].p.Arm() {
			found = true
		} else {
			l.cool(i)
		}
	}
	return found
}
