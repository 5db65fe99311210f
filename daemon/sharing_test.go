package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// logText is a log that may be read while it is written.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logText) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// await waits for a word.
func (l *logText) await(t *testing.T, s string) {
	t.Helper()
	if !tempotest.Settles(func() bool { return strings.Contains(l.String(), s) }) {
		t.Fatalf("the log does not say %q:\n%s", s, l.String())
	}
}

// wantNotShared tries to log in where somebody else may write.
func wantNotShared(t *testing.T, d *Daemon, target, initiator string) {
	t.Helper()
	var le *iscsitest.LoginError
	if _, err := tryDial(d, target, initiator); !errors.As(err, &le) || le.Status != pdu.LoginAuthorizationFailure {
		t.Errorf("%s at %s: %v, want %v", initiator, target, err, pdu.LoginAuthorizationFailure)
	}
}

func wantBusy(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil || AsErrors(err)[0].Code != CodeBusy {
		t.Errorf("%v, want one of code %s", err, CodeBusy)
		return
	}
	for _, s := range words {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%v: does not say %q", err, s)
		}
	}
}

func TestNotShared(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	var log logText
	d := w.startWith(w.config(w.one()), Options{Log: log.logger()})
	dial(t, d, iqn1, host)
	wantNotShared(t, d, iqn1, host+"2")
	log.await(t, "level=WARN") // after the answer
	for _, s := range []string{"initiator " + host + "2 may not write it while " + host + " can", "kind=authorization"} {
		if !strings.Contains(log.String(), s) {
			t.Errorf("the log does not say %q:\n%s", s, log.String())
		}
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings for one refused login:\n%s", n, log.String())
	}
	// Several sessions of one name are several paths.
	if _, st := tryLogin(t, d, iscsitest.Login{InitiatorName: host, TargetName: iqn1, ISID: [6]byte{0x80, 9}}); st != 0 {
		t.Error("a second path:", st)
	}
	awaitSessions(t, d, 2)

	shared := []byte(strings.Replace(string(w.config(w.one())), "a.img\"", "a.img\", shared: true", 1))
	if _, err := apply(d, shared); err != nil {
		t.Fatal(err)
	}
	two := dial(t, d, iqn1, host+"2")
	awaitSessions(t, d, 3)
	_, err := apply(d, w.config(w.one()))
	wantBusy(t, err, "disk a: is not shared", host+", "+host+"2", "shared: true")
	_, err = d.Apply("f.yaml", w.config(w.one()), ApplyOptions{Force: true})
	wantBusy(t, err)
	if err := two.NOP(nil, false); err != nil {
		t.Error(err)
	}
	// Somebody else may still come: nothing has changed.
	three := dial(t, d, iqn1, host+"3")
	for _, c := range []*iscsitest.Conn{two, three} {
		if r, err := c.Logout(pdu.LogoutCloseSession, 0); err != nil || r != pdu.LogoutSuccess {
			t.Fatal(r, err)
		}
	}
	awaitSessions(t, d, 2)
	if _, err := apply(d, w.config(w.one())); err != nil {
		t.Fatal(err)
	}
	wantNotShared(t, d, iqn1, host+"2")
}

// Initiators that are masked to disks of their own do not harm each other, and what
// one of them does not see it does not use.
func TestNotSharedMasks(t *testing.T) {
	w := newWorld(t)
	body := func(a, b string) []byte {
		return w.config("disks: [{name: a, store: \"mem:\", size: 1MiB}, {name: b, store: \"mem:\", size: 2MiB}, {name: c, store: \"mem:\", size: 1MiB, readOnly: true}]\ntargets:\n" +
			"- name: one\n  luns: [" + a + b + "{lun: 2, disk: c}]\n  iscsi: {iqn: " + iqn1 + "}\n")
	}
	a, b := "{lun: 0, disk: a, initiators: [\"*:test-host\"]}, ", "{lun: 1, disk: b, initiators: [\"*:test-host2\"]}, "
	both := body(a, b)
	d := w.start(both)
	one, two := dial(t, d, iqn1, host), dial(t, d, iqn1, host+"2")
	awaitSessions(t, d, 2)
	dial(t, d, iqn1, host+"3") // sees what is read-only
	awaitSessions(t, d, 3)
	for lun, c := range []*iscsitest.Conn{one, two} {
		w := iscsitest.Command{LUN: uint16(lun), CDB: []byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, Out: make([]byte, 512)}
		r, err := c.Run(&w)
		for range 3 {
			if err == nil && r.Status == 2 { // unit attentions
				r, err = c.Run(&w)
			}
		}
		if err != nil || r.Status != 0 {
			t.Errorf("LUN %d: %v %+v", lun, err, r)
		}
	}
	// A mask that would let two write one disk.
	_, err := apply(d, body("{lun: 0, disk: a, initiators: [\"*\"]}, ", b))
	wantBusy(t, err, "disk a: is not shared", host+", "+host+"2, "+host+"3")
	// So would a disk that comes.
	_, err = d.Apply("f.yaml", []byte(strings.Replace(string(both), "{lun: 2,", "{lun: 3, disk: d}, {lun: 2,", 1)), ApplyOptions{})
	if err == nil {
		t.Error("no disk d, no error")
	}
	four := strings.Replace(strings.Replace(string(both), "{lun: 2,", "{lun: 3, disk: d}, {lun: 2,", 1), "disks: [", "disks: [{name: d, store: \"mem:\", size: 1MiB}, ", 1)
	_, err = apply(d, []byte(four))
	wantBusy(t, err, "disk d: is not shared")

	// LUN 0 is in use by the first one alone.
	_, err = apply(d, body("", b))
	wantBusy(t, err, "lun one/0: is in use by "+host+",i,0x")
	if err != nil && (strings.Contains(err.Error(), "test-host2") || strings.Contains(err.Error(), "test-host3")) {
		t.Errorf("named although they do not see it: %v", err)
	}
	_, err = apply(d, []byte(strings.Replace(string(both), "size: 2MiB}", "size: 2MiB, blockSize: 4096}", 1)))
	wantBusy(t, err, "disk b", host+"2,i,0x")
	if err != nil && strings.Contains(err.Error(), host+",i,") {
		t.Errorf("named although it does not see it: %v", err)
	}
	if r, err := one.Logout(pdu.LogoutCloseSession, 0); err != nil || r != pdu.LogoutSuccess {
		t.Fatal(r, err)
	}
	awaitSessions(t, d, 2)
	if _, err := apply(d, body("", b)); err != nil {
		t.Error("nobody sees the LUN that goes:", err)
	}
	if err := two.NOP(nil, false); err != nil {
		t.Error(err)
	}
}

// The core's refusal, where the daemon's look was too early for it.
func TestSharingError(t *testing.T) {
	w := newWorld(t)
	shared := w.config("disks: [{name: a, store: \"mem:\", size: 1MiB, shared: true}]\ntargets:\n- {name: one, luns: [{lun: 0, disk: a}], iscsi: {iqn: " + iqn1 + "}}\n")
	d := w.start(shared)
	dial(t, d, iqn1, host)
	dial(t, d, iqn1, host+"2")
	awaitSessions(t, d, 2)
	k := d.cur.Load().disks["a"].obj
	wantBusy(t, k.setShared(false), "disk a: is not shared", host, host+"2")
	if !k.(*unit).u.Shared() {
		t.Error("refused and done")
	}
	o := d.cur.Load().targets["one"].obj
	if err := o.unmapLUN(0, 1e9); err != nil {
		t.Fatal(err)
	}
	if err := k.setShared(false); err != nil {
		t.Fatal(err)
	}
	wantBusy(t, o.mapLUN(config.LUN{Disk: "a"}, k, false), "lun one/0: disk a is not shared")
	if err := o.mapLUN(config.LUN{Disk: "a"}, k, true); err != nil {
		t.Error(err)
	}
	wantBusy(t, o.remapLUN(0, false, 1e9), "lun one/0: disk a is not shared")
}

// Who comes and goes is told.
func TestSessionEvents(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	d := w.start(w.config(w.one()))
	ctx, cancel := context.WithTimeout(t.Context(), tempotest.Patience)
	defer cancel()
	var got []string
	enough := errors.New("enough")
	err := d.Events(ctx, 0, true, func(es []Event) error {
		for _, e := range es {
			if e.Action == ActionSync {
				c := dial(t, d, iqn1, host)
				wantNotShared(t, d, iqn1, host+"2") // never was one
				if r, err := c.Logout(pdu.LogoutCloseSession, 0); err != nil || r != pdu.LogoutSuccess {
					t.Error(r, err)
				}
				continue
			}
			if e.Action != ActionState || e.Kind != "session" || e.Revision != 1 {
				t.Errorf("%+v", e)
			}
			detail, _, _ := strings.Cut(e.Detail, " from 127.0.0.1:")
			if got = append(got, e.Name+" "+detail); len(got) == 2 {
				return enough
			}
		}
		return nil
	})
	want := []string{host + " logged in to target t1", host + " logged out of target t1"}
	if !errors.Is(err, enough) || !slices.Equal(got, want) {
		t.Errorf("%v, %q, want %q", err, got, want)
	}
	// Many of them do not drive out what was done to the configuration.
	for range maxSessionEvents + 10 {
		d.stateEvent(kindSession, host, "logged in to target one")
	}
	d.stateEvent("disk", "a", "x")
	got = nil
	if err := d.Events(ctx, SinceAll, false, func(es []Event) error {
		for _, e := range es {
			got = append(got, e.Kind)
		}
		return nil
	}); err != nil || len(got) != maxSessionEvents+2 || got[len(got)-1] != "disk" {
		t.Error(err, len(got))
	}
}
