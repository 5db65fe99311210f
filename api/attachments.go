package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vtgt/vtgt/daemon"
)

// attachments states the resources of the journals of attachments. Bodies are whole
// records (daemon.Attachment). If-Match or revision: what the record must be at, else
// 409 with the code "conflict".
func (h *handler) attachments(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/attachments", func(w http.ResponseWriter, r *http.Request) {
		h.write(w, http.StatusOK, h.b.Attachments())
	})
	mux.HandleFunc("GET /v1/attachments/{name}", func(w http.ResponseWriter, r *http.Request) {
		for _, a := range h.b.Attachments() {
			if a.ID == r.PathValue("name") {
				tag(w, a.Revision)
				h.write(w, http.StatusOK, a)
				return
			}
		}
		h.missing(w, "attachment", r)
	})
	mux.HandleFunc("POST /v1/attachments", func(w http.ResponseWriter, r *http.Request) {
		a, err := h.attachment(w, r)
		if err == nil {
			a, err = h.b.AddAttachment(*a)
		}
		h.attachmentResult(w, http.StatusCreated, a, err)
	})
	mux.HandleFunc("PUT /v1/attachments/{name}", func(w http.ResponseWriter, r *http.Request) {
		revision, err := wanted(r)
		var a *Attachment
		if err == nil {
			a, err = h.attachment(w, r)
		}
		if err == nil && a.ID != "" && a.ID != r.PathValue("name") {
			err = bad("id", "an attachment cannot change its identifier", "leave it out")
		}
		if err == nil {
			a.ID = r.PathValue("name")
			a, err = h.b.PutAttachment(*a, revision)
		}
		h.attachmentResult(w, http.StatusOK, a, err)
	})
	mux.HandleFunc("DELETE /v1/attachments/{name}", func(w http.ResponseWriter, r *http.Request) {
		revision, err := wanted(r)
		if err == nil {
			err = h.b.DeleteAttachment(r.PathValue("name"), revision)
		}
		if err != nil {
			h.fail(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func (h *handler) attachment(w http.ResponseWriter, r *http.Request) (*Attachment, error) {
	b, err := h.body(w, r)
	if err != nil {
		return nil, err
	}
	a := &Attachment{}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(a); err != nil {
		return nil, bad("body", "cannot be read: "+err.Error(), "send an attachment as GET /v1/attachments shows them")
	}
	return a, nil
}

func (h *handler) attachmentResult(w http.ResponseWriter, status int, a *Attachment, err error) {
	if err != nil {
		h.fail(w, err)
		return
	}
	tag(w, a.Revision)
	h.write(w, status, a)
}

// Attachments lists the journals of attachments, oldest first.
func (c *Client) Attachments(ctx context.Context) ([]Attachment, error) {
	return get[[]Attachment](ctx, c, "attachments")
}

// AddAttachment keeps a new record, and gives it back with its ID and Revision. The
// code is CodeExists where there is one of the same kind, target, LUN and subject.
func (c *Client) AddAttachment(ctx context.Context, a Attachment) (*Attachment, error) {
	return c.attachment(ctx, http.MethodPost, "/v1/attachments", nil, a)
}

// PutAttachment replaces the record of a.ID, which must still be at a.Revision: else
// somebody else works on it, and the code is CodeConflict.
func (c *Client) PutAttachment(ctx context.Context, a Attachment) (*Attachment, error) {
	return c.attachment(ctx, http.MethodPut, "/v1/attachments/"+url.PathEscape(a.ID), url.Values{"revision": {strconv.FormatUint(a.Revision, 10)}}, a)
}

// DeleteAttachment forgets the record of a.ID, which must still be at a.Revision. That
// it is not there is no error.
func (c *Client) DeleteAttachment(ctx context.Context, a Attachment) error {
	q := url.Values{}
	if a.Revision != 0 {
		q.Set("revision", strconv.FormatUint(a.Revision, 10))
	}
	_, err := c.do(ctx, http.MethodDelete, "/v1/attachments/"+url.PathEscape(a.ID), q, nil)
	return err
}

func (c *Client) attachment(ctx context.Context, method, path string, q url.Values, a Attachment) (*Attachment, error) {
	body, err := json.Marshal(a)
	if err != nil {
		return nil, &Error{Code: daemon.CodeInvalid, Object: "request", Message: err.Error()}
	}
	b, err := c.do(ctx, method, path, q, body)
	if err != nil {
		return nil, err
	}
	out := &Attachment{}
	return out, c.decode(b, out)
}
