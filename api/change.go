package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
)

// EditRequest is the body of POST /v1/edit: changes of single objects, done together
// or not at all.
type EditRequest struct {
	Ops    []EditOp `json:"ops"`
	DryRun bool     `json:"dryRun,omitempty"`
	// Force ends what initiators use, and cuts stores.
	Force bool `json:"force,omitempty"`
	// Revision is what the only object must be at (where one is added: the whole
	// configuration); 0: any.
	Revision uint64 `json:"revision,omitempty"`
}

// EditOp is one change, see config.Op.
type EditOp struct {
	Action config.Action  `json:"action"` // add, remove, change
	Kind   string         `json:"kind"`   // disk, target, lun, portal
	Name   string         `json:"name"`   // the target's for a lun
	LUN    uint16         `json:"lun,omitempty"`
	Values map[string]any `json:"values,omitempty"`
}

// Edit changes single objects.
func (c *Client) Edit(ctx context.Context, e EditRequest) (*Result, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, &Error{Code: daemon.CodeInvalid, Object: "request", Message: err.Error()}
	}
	b, err := c.do(ctx, http.MethodPost, "/v1/edit", nil, body)
	if err != nil {
		return nil, err
	}
	r := &Result{}
	return r, c.decode(b, r)
}

// Resume has a disk go on after an error.
func (c *Client) Resume(ctx context.Context, disk string) (*Disk, error) {
	b, err := c.do(ctx, http.MethodPost, "/v1/disks/"+url.PathEscape(disk)+"/resume", nil, nil)
	if err != nil {
		return nil, err
	}
	k := &Disk{}
	return k, c.decode(b, k)
}

// ClearReservations removes all registrations and reservations of a disk.
func (c *Client) ClearReservations(ctx context.Context, disk string, force bool) error {
	q := url.Values{}
	if force {
		q.Set("force", "1")
	}
	_, err := c.do(ctx, http.MethodDelete, "/v1/disks/"+url.PathEscape(disk)+"/reservations", q, nil)
	return err
}

// History lists the earlier configurations, latest first.
func (c *Client) History(ctx context.Context) ([]Kept, error) { return get[[]Kept](ctx, c, "history") }

// ConfigAt is the configuration that was in force at a revision.
func (c *Client) ConfigAt(ctx context.Context, revision uint64) (ConfigText, error) {
	return get[ConfigText](ctx, c, "history/"+strconv.FormatUint(revision, 10))
}

// Events calls f with each event since a revision (0: from now on; daemon.SinceAll) until ctx ends,
// the daemon ends, or, without follow, all known ones were told.
func (c *Client) Events(ctx context.Context, since uint64, follow bool, f func(Event) error) error {
	q := url.Values{}
	switch since {
	case 0:
	case daemon.SinceAll:
		q.Set("since", "all")
	default:
		q.Set("since", strconv.FormatUint(since, 10))
	}
	if !follow {
		q.Set("follow", "0")
	}
	resp, err := c.send(ctx, http.MethodGet, "/v1/events", q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var e Event
		if err := c.decode(sc.Bytes(), &e); err != nil {
			return err
		}
		if err := f(e); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil, sc.Err() == nil && !follow:
		return nil
	case sc.Err() != nil:
		return &Error{Code: daemon.CodeUnavailable, Object: c.socket, Message: "the events broke off: " + sc.Err().Error(), Hint: "follow again from the last revision that was seen"}
	}
	return &Error{Code: daemon.CodeUnavailable, Object: c.socket, Message: "the daemon has ended", Hint: "follow again, from the last revision that was seen, when it runs"}
}

// contextOf ends when either of two contexts does.
func contextOf(a, b context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(a)
	stop := context.AfterFunc(b, cancel)
	return ctx, func() { stop(); cancel() }
}

// failure makes an Error of an answer that is not 2xx.
func (c *Client) failure(resp *http.Response, b []byte) error {
	e := &Error{}
	if json.Unmarshal(b, e) != nil || e.Message == "" {
		e = &Error{Code: daemon.CodeInternal, Object: c.socket, Message: fmt.Sprintf("answers %s", resp.Status), Hint: "is it a vtgt socket?"}
	}
	e.Status = resp.StatusCode
	return e
}
