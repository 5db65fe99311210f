package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/vtgt/vtgt/config"
)

// Actions of an Event besides those of package config.
const (
	// ActionSync begins a stream: whoever reads what is there after it, and then
	// follows, misses nothing.
	ActionSync config.Action = "sync"
	// ActionReset: events since the revision asked for are not known any more.
	// Read everything anew.
	ActionReset config.Action = "reset"
	// ActionState: what runs is in another state; the configuration is the same.
	ActionState config.Action = "state"
)

// Event is one thing that happened.
type Event struct {
	// Revision is that of the configuration which the event is part of; of a
	// state the one in force.
	Revision uint64        `json:"revision"`
	Time     time.Time     `json:"time"`
	Action   config.Action `json:"action"`
	// Kind is disk, target, lun, portal, setting or config; session, where
	// Name is the initiator; export, where it is TARGET/KIND.
	Kind   string `json:"kind"`
	Name   string `json:"name,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// How many events are kept for those who come or read late. Sessions and virtual
// machines come and go as they like: they have a journal of their own, so that they do not drive out what
// was done to the configuration.
const (
	maxEvents        = 4096
	maxSessionEvents = 256
)

const (
	kindSession = "session"
	kindExport  = "export"
)

// journal is the tail of what happened.
type journal struct {
	limit   int // 0: maxEvents
	mu      sync.Mutex
	events  []Event // at most limit
	first   uint64  // number of events[0]
	from    uint64  // events with a revision above this are complete, if first is 0
	lost    uint64  // the highest revision of an event that was dropped
	changed chan struct{}
}

func (j *journal) init(revision uint64) {
	j.from, j.changed = revision, make(chan struct{})
}

func (j *journal) add(es ...Event) {
	if len(es) == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, es...)
	limit := j.limit
	if limit == 0 {
		limit = maxEvents
	}
	if over := len(j.events) - limit; over > 0 {
		j.lost = max(j.lost, j.events[over-1].Revision)
		j.events = append([]Event(nil), j.events[over:]...)
		j.first += uint64(over)
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

// since is the number of the first event after a revision; false: not all of them
// are known.
func (j *journal) since(revision, current uint64) (at uint64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if revision > current || revision < j.from || revision < j.lost {
		return j.first + uint64(len(j.events)), false
	}
	for i := range j.events {
		if j.events[i].Revision > revision {
			return j.first + uint64(i), true
		}
	}
	return j.first + uint64(len(j.events)), true
}

// read gives the events from number at on, and what closes when there are more.
// false: some of them are gone.
func (j *journal) read(at uint64) (es []Event, more <-chan struct{}, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if at < j.first {
		return nil, j.changed, false
	}
	return append([]Event(nil), j.events[at-j.first:]...), j.changed, true
}

func (j *journal) oldest() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.first
}

func (j *journal) next() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.first + uint64(len(j.events))
}

// SinceAll asks for all events that are known.
const SinceAll = ^uint64(0)

// Events calls f with what happens: since a revision that the caller has seen, or,
// where since is 0, from now on; SinceAll: all that is known. The first call has an ActionSync at the revision in
// force, or an ActionReset where the events since then are not all known. Sessions
// have no revision: of them it tells from now on, or all that is known. It returns
// f's error, nil when ctx ends or, without follow, when f has had everything.
func (d *Daemon) Events(ctx context.Context, since uint64, follow bool, f func([]Event) error) error {
	j, sj := &d.events, &d.comings
	now := func(a config.Action, revision uint64) []Event {
		return []Event{{Revision: revision, Time: time.Now(), Action: a, Kind: "config"}}
	}
	// The position first: what happens in between is told twice rather than not.
	at, sat := j.next(), sj.next()
	rev := d.cur.Load().revision
	first := now(ActionSync, rev)
	switch since {
	case 0:
	case SinceAll:
		at, sat = j.oldest(), sj.oldest()
	default:
		p, ok := j.since(since, rev)
		if at = p; !ok {
			first = now(ActionReset, rev)
		} else {
			first[0].Revision = since
		}
	}
	if err := f(first); err != nil {
		return err
	}
	for {
		es, more, ok := j.read(at)
		ss, smore, sok := sj.read(sat)
		if !ok || !sok {
			at, sat = j.next(), sj.next()
			es = now(ActionReset, d.cur.Load().revision)
		} else {
			at, sat = at+uint64(len(es)), sat+uint64(len(ss))
			es = append(es, ss...)
			slices.SortStableFunc(es, func(a, b Event) int { return a.Time.Compare(b.Time) })
		}
		if len(es) > 0 {
			if err := f(es); err != nil {
				return err
			}
			continue
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		case <-smore:
		}
	}
}

// stateEvent tells of a change that is not one of the configuration.
func (d *Daemon) stateEvent(kind, name, detail string) {
	j := &d.events
	if kind == kindSession || kind == kindExport {
		j = &d.comings
	}
	j.add(Event{Revision: d.cur.Load().revision, Time: time.Now(), Action: ActionState, Kind: kind, Name: name, Detail: detail})
}
