package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/daemon"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// attached is the part of the fake that keeps attachments: one, at revision 3.
type attached struct {
	got     []daemon.Attachment
	deleted []string
}

func (f *attached) Attachments() []daemon.Attachment {
	return []daemon.Attachment{{ID: "1a", Kind: "libvirt", Target: "t", LUN: daemon.AllLUNs, Subject: "s", State: daemon.Attached, Revision: 3}}
}

func (f *attached) AddAttachment(a daemon.Attachment) (*daemon.Attachment, error) {
	if a.Subject == "s" {
		return nil, &daemon.Error{Code: daemon.CodeExists, Object: "attachment 1a", Message: "m"}
	}
	f.got = append(f.got, a)
	a.ID, a.Revision = "2b", 1
	return &a, nil
}

func (f *attached) PutAttachment(a daemon.Attachment, revision uint64) (*daemon.Attachment, error) {
	if revision != 3 {
		return nil, &daemon.Error{Code: daemon.CodeConflict, Object: "attachment 1a", Message: "m"}
	}
	f.got = append(f.got, a)
	a.Revision = 4
	return &a, nil
}

func (f *attached) DeleteAttachment(id string, revision uint64) error {
	f.deleted = append(f.deleted, id)
	return nil
}

func TestAttachments(t *testing.T) {
	f, c, hc := serve(t)
	ctx, cancel := context.WithTimeout(context.Background(), tempotest.Patience)
	defer cancel()
	as, err := c.Attachments(ctx)
	if err != nil || len(as) != 1 || as[0].LUN != AllLUNs || as[0].State != Attached {
		t.Errorf("%+v %v", as, err)
	}
	a, err := c.AddAttachment(ctx, Attachment{Kind: "xen", Target: "t", Subject: "u", Steps: []AttachmentStep{{Name: "n", Undo: map[string]string{"k": "v"}}}})
	if err != nil || a.ID != "2b" || a.Revision != 1 || f.got[0].Steps[0].Undo["k"] != "v" {
		t.Errorf("%+v %v", a, err)
	}
	var ae *Error
	if _, err = c.AddAttachment(ctx, Attachment{Kind: "xen", Target: "t", Subject: "s"}); !errors.As(err, &ae) || ae.Code != CodeExists || ae.Status != http.StatusConflict {
		t.Errorf("%v", err)
	}
	if a, err = c.PutAttachment(ctx, as[0]); err != nil || a.Revision != 4 || f.got[1].ID != "1a" {
		t.Errorf("%+v %v", a, err)
	}
	as[0].Revision = 2
	if _, err = c.PutAttachment(ctx, as[0]); !errors.As(err, &ae) || ae.Code != CodeConflict {
		t.Errorf("%v", err)
	}
	if err = c.DeleteAttachment(ctx, as[0]); err != nil || len(f.deleted) != 1 {
		t.Errorf("%v %v", err, f.deleted)
	}
	for _, x := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v1/attachments/1a", "", 200},
		{"GET", "/v1/attachments/zz", "", 404},
		{"POST", "/v1/attachments", `{"kindd": 1}`, 400},
		{"POST", "/v1/attachments", `{"kind": "xen", "target": "t", "subject": "u"}`, 201},
		{"PUT", "/v1/attachments/1a", `{"id": "2b"}`, 400},
		{"PUT", "/v1/attachments/1a?revision=x", `{}`, 400},
		{"PATCH", "/v1/attachments/1a", `{}`, 404},
	} {
		req, _ := http.NewRequestWithContext(ctx, x.method, "http://vtgt"+x.path, strings.NewReader(x.body))
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != x.status {
			t.Errorf("%s %s: %s %s", x.method, x.path, resp.Status, b)
		}
	}
}

// A daemon that takes a request and does not answer holds up nobody for good.
func TestLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := NewClient(path)
	defer c.Close()
	c.Limit(10 * time.Millisecond)
	_, err = c.Attachments(context.Background())
	var ae *Error
	if !errors.As(err, &ae) || ae.Code != CodeTimeout {
		t.Errorf("%v", err)
	}
}
