package libvirt

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
	"github.com/vtgt/vtgt/config"
)

// WatchOptions say what to watch.
type WatchOptions struct {
	// URI is the libvirt's; empty: DefaultURI.
	URI string
	// Clean detaches what domains that were undefined leave behind.
	Clean bool
	// Event hears of everything; it must not be nil.
	Event func(WatchEvent)
	// Again is the time between attempts to reach libvirt; 0: 5 s.
	Again time.Duration
}

// WatchEvent is what has happened to an attachment, or to the watching itself.
type WatchEvent struct {
	Time time.Time `json:"time"`
	// Event is what the domain did: started, stopped, migrated, undefined, …; found:
	// this is how it was when the watching began; connected, lost: libvirt.
	Event      string          `json:"event"`
	Domain     string          `json:"domain,omitempty"`
	Attachment *api.Attachment `json:"attachment,omitempty"`
	View       *attach.View    `json:"view,omitempty"`
	Message    string          `json:"message,omitempty"`
}

// String is one line for people.
func (e WatchEvent) String() string {
	s := e.Time.Local().Format("2006-01-02T15:04:05.000") + "  " + e.Event
	if e.Domain != "" {
		s += "  domain " + e.Domain
	}
	if a := e.Attachment; a != nil {
		s += ", target " + a.Target
		if a.LUN != api.AllLUNs {
			s += fmt.Sprintf(" LUN %d", a.LUN)
		}
	}
	if v := e.View; v != nil {
		s += ": " + v.Now
		if len(v.Problems) > 0 {
			s += ": " + strings.Join(v.Problems, "; ")
		}
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// eventNames are libvirt's lifecycle events (virDomainEventType), by their number.
var eventNames = []string{"defined", "undefined", "started", "suspended", "resumed", "stopped", "shutdown", "pmsuspended", "crashed"}

func eventName(m lv.DomainEventLifecycleMsg) string {
	if lv.DomainEventType(m.Event) == lv.DomainEventStopped && lv.DomainEventStoppedDetailType(m.Detail) == lv.DomainEventStoppedMigrated {
		return "migrated"
	}
	if m.Event >= 0 && int(m.Event) < len(eventNames) {
		return eventNames[m.Event]
	}
	return fmt.Sprintf("event %d", m.Event)
}

// Watch follows the domains that targets are attached to until ctx ends. A libvirt that
// goes is waited for.
func Watch(ctx context.Context, c *api.Client, o WatchOptions) error {
	if o.URI == "" {
		o.URI = DefaultURI()
	}
	if o.Again == 0 {
		o.Again = 5 * time.Second
	}
	told := ""
	for ctx.Err() == nil {
		w := newWorker(c, Options{URI: o.URI})
		err := w.open(ctx)
		if err == nil {
			told = ""
			o.Event(WatchEvent{Time: time.Now(), Event: "connected", Message: "libvirt " + o.URI})
			err = w.follow(ctx, o)
			w.close()
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil && err.Error() != told { // the same thing once
			told = err.Error()
			o.Event(WatchEvent{Time: time.Now(), Event: "lost", Message: told})
		}
		select {
		case <-time.After(o.Again):
		case <-ctx.Done():
		}
	}
	return nil
}

// follow tells of events until the connection or ctx ends.
func (w *worker) follow(ctx context.Context, o WatchOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var events <-chan lv.DomainEventLifecycleMsg
	err := w.c.do(ctx, "libvirt's events", func(l *lv.Libvirt) (err error) {
		events, err = l.LifecycleEvents(ctx)
		return err
	})
	if err != nil {
		return err
	}
	// The stream's goroutine must not be left with an event in its hand.
	defer func() {
		cancel()
		for range events {
		}
	}()
	if err := w.report(ctx, o, "found", ""); err != nil {
		return err
	}
	for {
		select {
		case m, ok := <-events:
			if !ok {
				return fmt.Errorf("libvirt %s: the connection is lost; waiting for it", o.URI)
			}
			if err := w.report(ctx, o, eventName(m), config.FormatUUID(m.Dom.UUID)); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// report tells of the attachments of a domain, of all where uuid is empty.
func (w *worker) report(ctx context.Context, o WatchOptions, event, uuid string) error {
	as, err := w.api.Attachments(ctx)
	if err != nil {
		// vtgt may be restarted: the next event asks again.
		o.Event(WatchEvent{Time: time.Now(), Event: event, Message: err.Error()})
		return nil
	}
	as = slices.DeleteFunc(as, func(a api.Attachment) bool {
		return a.Kind != Kind || uuid != "" && a.Subject != uuid || a.Options[optConnect] != o.URI || a.State == api.Damaged
	})
	if len(as) == 0 {
		return nil
	}
	sessions, err := w.api.Sessions(ctx)
	if err != nil {
		o.Event(WatchEvent{Time: time.Now(), Event: event, Message: err.Error()})
		return nil
	}
	for i := range as {
		a := &as[i]
		v := w.inspect(ctx, a, sessions)
		o.Event(WatchEvent{Time: time.Now(), Event: event, Domain: a.Options[optName], Attachment: a, View: &v})
		if !o.Clean || v.Now != "undefined" {
			continue
		}
		x := newWorker(w.api, Options{URI: o.URI})
		x.c, x.whole = w.c, true
		e := WatchEvent{Time: time.Now(), Event: "cleaned", Domain: a.Options[optName], Attachment: a}
		if err := x.e.Open(*a).Undo(ctx); err != nil {
			e.Event, e.Message = "not cleaned", err.Error()
		}
		o.Event(e)
	}
	return nil
}
