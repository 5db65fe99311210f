package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/daemon"
)

// Client talks to a daemon. Its methods may be called from any goroutine; their
// errors are *Error.
type Client struct {
	socket string
	hc     *http.Client
}

// NewClient makes a client of the daemon whose socket is at path. Nothing is
// connected yet.
func NewClient(path string) *Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableCompression: true,
	}
	return &Client{socket: path, hc: &http.Client{Transport: tr}}
}

// Limit bounds each request from now on, streams of events as well; 0: not at all.
func (c *Client) Limit(d time.Duration) { c.hc.Timeout = d }

// Close drops idle connections.
func (c *Client) Close() { c.hc.CloseIdleConnections() }

// Socket is the path of the daemon's socket.
func (c *Client) Socket() string { return c.socket }

// Get fetches the resource ("disks", "status", …) as JSON text.
func (c *Client) Get(ctx context.Context, resource string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, "/v1/"+resource, nil, nil)
}

func get[T any](ctx context.Context, c *Client, resource string) (T, error) {
	var v T
	b, err := c.Get(ctx, resource)
	if err != nil {
		return v, err
	}
	return v, c.decode(b, &v)
}

// Status describes the daemon.
func (c *Client) Status(ctx context.Context) (Status, error) { return get[Status](ctx, c, "status") }

// Version tells the daemon's version.
func (c *Client) Version(ctx context.Context) (VersionInfo, error) {
	return get[VersionInfo](ctx, c, "version")
}

// Disks lists the disks.
func (c *Client) Disks(ctx context.Context) ([]Disk, error) { return get[[]Disk](ctx, c, "disks") }

// Targets lists the targets.
func (c *Client) Targets(ctx context.Context) ([]Target, error) {
	return get[[]Target](ctx, c, "targets")
}

// Exports lists the exports.
func (c *Client) Exports(ctx context.Context) ([]Export, error) {
	return get[[]Export](ctx, c, "exports")
}

// Sessions lists the sessions.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	return get[[]Session](ctx, c, "sessions")
}

// Reservations lists the disks that have registrations or are reserved.
func (c *Client) Reservations(ctx context.Context) ([]DiskReservations, error) {
	return get[[]DiskReservations](ctx, c, "reservations")
}

// Config is the configuration in force.
func (c *Client) Config(ctx context.Context) (ConfigText, error) {
	return get[ConfigText](ctx, c, "config")
}

// Apply applies the configuration in text, which messages call file.
func (c *Client) Apply(ctx context.Context, file string, text []byte, o daemon.ApplyOptions) (*Result, error) {
	q := url.Values{"file": {file}}
	for name, on := range map[string]bool{"dryRun": o.DryRun, "force": o.Force, "save": o.Save} {
		if on {
			q.Set(name, "1")
		}
	}
	if o.Revision != 0 {
		q.Set("revision", strconv.FormatUint(o.Revision, 10))
	}
	b, err := c.do(ctx, http.MethodPost, "/v1/apply", q, text)
	if err != nil {
		return nil, err
	}
	r := &Result{}
	return r, c.decode(b, r)
}

func (c *Client) decode(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return &Error{Code: daemon.CodeInternal, Object: c.socket, Message: "the answer is not understood: " + err.Error(), Hint: "use a vtgt of the same version as the daemon"}
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, q url.Values, body []byte) ([]byte, error) {
	resp, err := c.send(ctx, method, path, q, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, c.brokeOff(err)
	}
	return b, nil
}

func (c *Client) brokeOff(err error) error {
	return &Error{Code: daemon.CodeUnavailable, Object: c.socket, Message: "the answer broke off: " + err.Error(), Hint: "look at the daemon's log"}
}

// send gives the answer where it is 2xx; its body is the caller's to close.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "vtgt", RawQuery: q.Encode()}
	u.Path, _ = url.PathUnescape(path)
	u.RawPath = path
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, &Error{Code: daemon.CodeInternal, Object: path, Message: err.Error()}
	}
	if body != nil {
		kind := "application/json"
		if path == "/v1/apply" {
			kind = "application/yaml"
		}
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.hc.Do(req)
	if err != nil {
		return nil, c.connectError(err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, c.brokeOff(err)
	}
	return nil, c.failure(resp, b)
}

func (c *Client) connectError(err error) error {
	e := &Error{Code: daemon.CodeUnavailable, Object: c.socket}
	const where = "or name its socket with --socket or VTGT_SOCKET"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Message, e.Hint = "no vtgt daemon is here: the socket does not exist", "start one with: vtgt serve --config FILE; "+where
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Message, e.Hint = "no vtgt daemon answers here: the socket is left over from one that ended", "start one with: vtgt serve --config FILE; "+where
	case errors.Is(err, fs.ErrPermission):
		e.Code, e.Message, e.Hint = daemon.CodeDenied, "you may not use this socket", "run as root or as a member of the socket's group; "+where
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		e.Code, e.Message, e.Hint = daemon.CodeTimeout, "the daemon did not answer in time", "look at its log"
	default:
		e.Message, e.Hint = "the daemon cannot be asked: "+err.Error(), "look at its log"
	}
	return e
}
