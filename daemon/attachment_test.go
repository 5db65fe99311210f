package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAttachments(t *testing.T) {
	dir := t.TempDir()
	text := fakeConfig(dir, "", "", "")
	begin := func() *Daemon {
		t.Helper()
		d, err := fakeStart(t, &fakeEngine{open: map[string]bool{}}, text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	code := func(err error) Code {
		if err == nil {
			return ""
		}
		return AsErrors(err)[0].Code
	}
	d := begin()
	if as := d.Attachments(); as == nil || len(as) != 0 {
		t.Errorf("%v", as)
	}
	in := Attachment{ID: "mine", Kind: "libvirt", Target: "t", LUN: AllLUNs, Subject: "s", State: Attaching, Revision: 7}
	a, err := d.AddAttachment(in)
	if err != nil || a.ID == "" || a.ID == "mine" || a.Revision != 1 || a.Created.IsZero() {
		t.Fatalf("%+v %v", a, err)
	}
	if _, err := d.AddAttachment(in); code(err) != CodeExists || !strings.Contains(err.Error(), a.ID) {
		t.Errorf("%v", err)
	}
	for _, bad := range []Attachment{
		{}, {Kind: "x", Target: "t", Subject: "s"},
		{Kind: "x", Target: "t", Subject: "s", LUN: -2, State: Attached},
		{Kind: "x", Target: "t", Subject: "s", State: Damaged},
		{Kind: "x", Target: "t", Subject: "s", State: Attached, Steps: []AttachmentStep{{Name: "n"}}},
		{Kind: "x", Target: "t", Subject: "s", State: Attached, Steps: make([]AttachmentStep, maxSteps+1)},
	} {
		if _, err := d.AddAttachment(bad); code(err) != CodeInvalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	up := *a
	up.Steps = []AttachmentStep{{Name: "n", Args: map[string]string{"a": "b"}, Undo: map[string]string{"c": "d"}, State: Planned}}
	b, err := d.PutAttachment(up, 1)
	if err != nil || b.Revision != 2 || b.Changed.Before(a.Changed) || !b.Created.Equal(a.Created) {
		t.Errorf("%+v %v", b, err)
	}
	if _, err := d.PutAttachment(up, 1); code(err) != CodeConflict {
		t.Errorf("%v", err)
	}
	other := up
	other.Subject = "somebody else"
	if _, err := d.PutAttachment(other, 0); code(err) != CodeInvalid {
		t.Errorf("%v", err)
	}
	other.ID = "../x"
	if _, err := d.PutAttachment(other, 0); code(err) != CodeNotFound {
		t.Errorf("%v", err)
	}
	if err := d.DeleteAttachment(a.ID, 1); code(err) != CodeConflict {
		t.Errorf("%v", err)
	}
	if err := d.DeleteAttachment("../x", 0); err != nil {
		t.Errorf("%v", err)
	}

	// What was answered is there after a restart, and what a killed writer left is not.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.AddAttachment(other); code(err) != CodeUnavailable {
		t.Errorf("%v", err)
	}
	folder := filepath.Join(dir, "state", "attachments")
	left := filepath.Join(folder, "."+a.ID+".json.new-1")
	if err := os.WriteFile(left, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for n, s := range map[string]string{"01": "{", "02": `{"version": 2, "id": "02"}`, "03": `{"version": 1, "id": "04"}`} {
		if err := os.WriteFile(filepath.Join(folder, n+".json"), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d = begin()
	if _, err := os.Lstat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	as := d.Attachments()
	if len(as) != 4 || as[3].ID != a.ID || as[3].Revision != 2 || len(as[3].Steps) != 1 || as[3].Steps[0].Undo["c"] != "d" || as[3].LUN != AllLUNs {
		t.Errorf("%+v", as)
	}
	for i, id := range []string{"01", "02", "03"} {
		if as[i].ID != id || as[i].State != Damaged {
			t.Errorf("%+v", as[i])
		}
		up.ID = id
		if _, err := d.PutAttachment(up, 0); code(err) != CodeInvalid {
			t.Errorf("%v", err)
		}
		if err := d.DeleteAttachment(id, 0); err != nil {
			t.Error(err)
		}
	}
	if err := d.DeleteAttachment(a.ID, 2); err != nil {
		t.Error(err)
	}
	if es, err := os.ReadDir(folder); err != nil || len(es) != 0 || len(d.Attachments()) != 0 {
		t.Errorf("%v %v", es, err)
	}

	// What cannot be written has not happened.
	if a, err = d.AddAttachment(in); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PutAttachment(*a, 0); err == nil || !strings.Contains(err.Error(), folder) {
		t.Errorf("%v", err)
	}
	if as := d.Attachments(); len(as) != 1 || as[0].Revision != 1 {
		t.Errorf("%+v", as)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
