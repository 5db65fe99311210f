package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// Every way to change an object, as a program without our client sees it.
func TestObjects(t *testing.T) {
	f, _, hc := serve(t)
	for _, tc := range []struct {
		method, path, body, match string
		status                    int
		want                      daemon.Edit // of which the first op counts
	}{
		{"POST", "/v1/disks", `{"name": "b", "store": "mem:", "size": "1MiB"}`, "", 200,
			daemon.Edit{Ops: []config.Op{{Action: config.Add, Kind: "disk", Name: "b", Values: map[string]any{"store": "mem:", "size": "1MiB"}}}}},
		{"PATCH", "/v1/disks/b?dryRun=1", `{"size": "2MiB", "serial": null}`, `"7"`, 200,
			daemon.Edit{Ops: []config.Op{{Action: config.Modify, Kind: "disk", Name: "b", Values: map[string]any{"size": "2MiB", "serial": nil}}}, DryRun: true, Revision: 7}},
		{"DELETE", "/v1/disks/b?force=1&revision=8", "", "", 200,
			daemon.Edit{Ops: []config.Op{{Action: config.Remove, Kind: "disk", Name: "b", Values: map[string]any{}}}, Force: true, Revision: 8}},
		{"POST", "/v1/targets/t/luns", `{"lun": 7, "disk": "b"}`, "", 200,
			daemon.Edit{Ops: []config.Op{{Action: config.Add, Kind: "lun", Name: "t", LUN: 7, Values: map[string]any{"disk": "b"}}}}},
		{"PATCH", "/v1/targets/t/luns/7", `{"readOnly": true}`, "*", 200,
			daemon.Edit{Ops: []config.Op{{Action: config.Modify, Kind: "lun", Name: "t", LUN: 7, Values: map[string]any{"readOnly": true}}}}},
		{"DELETE", "/v1/targets/t/luns/7", "", "", 200,
			daemon.Edit{Ops: []config.Op{{Action: config.Remove, Kind: "lun", Name: "t", LUN: 7, Values: map[string]any{}}}}},
		{"POST", "/v1/portals", `{"address": "[::1]:3260"}`, "", 200,
			daemon.Edit{Ops: []config.Op{{Action: config.Add, Kind: "portal", Name: "[::1]:3260", Values: map[string]any{}}}}},
		{"DELETE", "/v1/portals/%5B::1%5D:3260", "", "", 200,
			daemon.Edit{Ops: []config.Op{{Action: config.Remove, Kind: "portal", Name: "[::1]:3260", Values: map[string]any{}}}}},
		{"DELETE", "/v1/disks/b", "", `"99"`, 409, daemon.Edit{Ops: []config.Op{{Action: config.Remove, Kind: "disk", Name: "b", Values: map[string]any{}}}, Revision: 99}},
		{"POST", "/v1/disks", `{"store": "mem:"}`, "", 400, daemon.Edit{}},
		{"POST", "/v1/disks", `[]`, "", 400, daemon.Edit{}},
		{"POST", "/v1/disks", `{"name": "b"} {}`, "", 400, daemon.Edit{}},
		{"PATCH", "/v1/disks/b", `{"name": "c"}`, "", 400, daemon.Edit{}},
		{"PATCH", "/v1/disks/b", `{}`, "x", 400, daemon.Edit{}},
		{"DELETE", "/v1/disks/b?force=2", "", "", 400, daemon.Edit{}},
		{"DELETE", "/v1/targets/t/luns/x", "", "", 400, daemon.Edit{}},
		{"POST", "/v1/edit", `{"ops": []}`, "", 400, daemon.Edit{}},
		{"POST", "/v1/edit", `{"opps": []}`, "", 400, daemon.Edit{}},
		{"PUT", "/v1/edit", `{}`, "", 405, daemon.Edit{}},
		{"GET", "/v1/events?since=x", "", "", 400, daemon.Edit{}},
		{"GET", "/v1/disks/zz", "", "", 404, daemon.Edit{}},
		{"GET", "/v1/history/x", "", "", 400, daemon.Edit{}},
		{"POST", "/v1/disks/zz/resume", "", "", 404, daemon.Edit{}},
	} {
		f.edits = nil
		req, err := http.NewRequest(tc.method, "http://vtgt"+tc.path, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		if tc.match != "" {
			req.Header.Set("If-Match", tc.match)
		}
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		name := tc.method + " " + tc.path
		if resp.StatusCode != tc.status {
			t.Errorf("%s: %s\n%s", name, resp.Status, b)
		}
		if tc.status != 200 {
			var e map[string]any
			if err := json.Unmarshal(b, &e); err != nil || e["code"] == "" || e["object"] == nil || e["message"] == "" {
				t.Errorf("%s: %s", name, b)
			}
			if tc.status == 409 && e["code"] != "conflict" {
				t.Errorf("%s: %s", name, b)
			}
		} else if resp.Header.Get("ETag") != `"4"` {
			t.Errorf("%s: ETag %q", name, resp.Header.Get("ETag"))
		}
		if tc.want.Ops == nil {
			if len(f.edits) > 0 {
				t.Errorf("%s: %+v", name, f.edits)
			}
			continue
		}
		got, _ := json.Marshal(f.edits)
		want, _ := json.Marshal([]daemon.Edit{tc.want})
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n%s, want\n%s", name, got, want)
		}
	}
}

func TestObjectClient(t *testing.T) {
	f, c, _ := serve(t)
	ctx, cancel := context.WithTimeout(context.Background(), tempotest.Patience)
	defer cancel()
	e := EditRequest{Ops: []EditOp{{Action: config.Add, Kind: "lun", Name: "t", LUN: 3, Values: map[string]any{"disk": "a"}}}, Force: true, Revision: 5}
	if r, err := c.Edit(ctx, e); err != nil || r.Revision != 4 || len(f.edits) != 1 || f.edits[0].Ops[0].LUN != 3 || !f.edits[0].Force || f.edits[0].Revision != 5 {
		t.Errorf("%+v %v %+v", r, err, f.edits)
	}
	if rs, err := c.Reservations(ctx); err != nil || len(rs) != 1 || rs[0].Disk != "a" || !rs[0].Registrations[0].Holder {
		t.Errorf("%+v %v", rs, err)
	}
	if err := c.ClearReservations(ctx, "a", true); err != nil {
		t.Error(err)
	}
	var ae *Error
	if err := c.ClearReservations(ctx, "a", false); !errors.As(err, &ae) || ae.Code != daemon.CodeBusy {
		t.Error(err)
	}
	if k, err := c.Resume(ctx, "a"); err != nil || k.Name != "a" {
		t.Errorf("%+v %v", k, err)
	}
	if ks, err := c.History(ctx); err != nil || len(ks) != 1 {
		t.Errorf("%+v %v", ks, err)
	}
	if x, err := c.ConfigAt(ctx, 2); err != nil || x.Revision != 2 {
		t.Errorf("%+v %v", x, err)
	}
	var got []Event
	if err := c.Events(ctx, 7, false, func(e Event) error { got = append(got, e); return nil }); err != nil || len(got) != 2 || got[1].Revision != 8 {
		t.Errorf("%+v %v", got, err)
	}
	// A stream ends with its reader.
	stop := errors.New("stop")
	if err := c.Events(ctx, 7, true, func(Event) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// A stream that nobody ends does not hold up Close (serve's clean-up fails if so).
func TestOpenStream(t *testing.T) {
	_, c, _ := serve(t)
	begun := make(chan struct{})
	var once bool
	go func() {
		_ = c.Events(context.Background(), 0, true, func(Event) error {
			if !once {
				once = true
				close(begun)
			}
			return nil
		})
	}()
	<-begun
}
