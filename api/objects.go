package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
)

// objects states the resources by which single objects change. Bodies are JSON
// objects with the keys of the configuration file; PATCH merges (RFC 7396). Query:
// dryRun=1, force=1. If-Match or revision: what the object must be at (for POST the
// whole configuration), else 409 with the code "conflict".
func (h *handler) objects(mux *http.ServeMux) {
	edit := func(pattern string, op func(r *http.Request, v map[string]any) (config.Op, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { h.edit(w, r, op) })
	}
	// named is an op on the object that the path names, or the body where it is new.
	named := func(kind string, a config.Action) func(*http.Request, map[string]any) (config.Op, error) {
		return func(r *http.Request, v map[string]any) (config.Op, error) {
			o := config.Op{Action: a, Kind: kind, Name: r.PathValue("name"), Values: v}
			if a != config.Add {
				if v["name"] == o.Name {
					delete(v, "name")
				} else if _, ok := v["name"]; ok {
					return o, bad("name", "an object cannot change its name", "add one with the new name and remove this one")
				}
				return o, nil
			}
			key := "name"
			if kind == "portal" {
				key = "address"
			}
			name, ok := v[key].(string)
			if !ok || name == "" {
				return o, bad("body", "names no "+kind, "add the key \""+key+"\"")
			}
			delete(v, key)
			if kind == "portal" && len(v) > 0 {
				return o, bad("body", "has keys besides \"address\"", "leave them out")
			}
			o.Name = name
			return o, nil
		}
	}
	for _, kind := range []string{"disk", "target", "portal"} {
		edit("POST /v1/"+kind+"s", named(kind, config.Add))
		edit("DELETE /v1/"+kind+"s/{name}", named(kind, config.Remove))
		if kind != "portal" {
			edit("PATCH /v1/"+kind+"s/{name}", named(kind, config.Modify))
		}
	}
	lun := func(a config.Action) func(*http.Request, map[string]any) (config.Op, error) {
		return func(r *http.Request, v map[string]any) (config.Op, error) {
			o := config.Op{Action: a, Kind: "lun", Name: r.PathValue("name"), Values: v}
			number := r.PathValue("lun")
			if a == config.Add {
				number = fmt.Sprint(v["lun"])
				delete(v, "lun")
			}
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				return o, bad("lun", clip(number)+" is not the number of a LUN", "give one from 0 to 16383")
			}
			o.LUN = uint16(n)
			return o, nil
		}
	}
	edit("POST /v1/targets/{name}/luns", lun(config.Add))
	edit("PATCH /v1/targets/{name}/luns/{lun}", lun(config.Modify))
	edit("DELETE /v1/targets/{name}/luns/{lun}", lun(config.Remove))

	mux.HandleFunc("POST /v1/edit", h.editMany)
	mux.HandleFunc("POST /v1/disks/{name}/resume", func(w http.ResponseWriter, r *http.Request) {
		k, err := h.b.Resume(r.PathValue("name"))
		if err != nil {
			h.fail(w, err)
			return
		}
		h.write(w, http.StatusOK, k)
	})
	mux.HandleFunc("DELETE /v1/disks/{name}/reservations", func(w http.ResponseWriter, r *http.Request) {
		var force bool
		err := flags(r.URL.Query(), map[string]*bool{"force": &force})
		if err == nil {
			err = h.b.ClearReservations(r.PathValue("name"), force)
		}
		if err != nil {
			h.fail(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /v1/disks/{name}", func(w http.ResponseWriter, r *http.Request) {
		for _, k := range h.b.Disks() {
			if k.Name == r.PathValue("name") {
				tag(w, k.Revision)
				h.write(w, http.StatusOK, k)
				return
			}
		}
		h.missing(w, "disk", r)
	})
	mux.HandleFunc("GET /v1/targets/{name}", func(w http.ResponseWriter, r *http.Request) {
		for _, t := range h.b.Targets() {
			if t.Name == r.PathValue("name") {
				tag(w, t.Revision)
				h.write(w, http.StatusOK, t)
				return
			}
		}
		h.missing(w, "target", r)
	})
	mux.HandleFunc("GET /v1/history", func(w http.ResponseWriter, r *http.Request) {
		ks, err := h.b.History()
		if err != nil {
			h.fail(w, err)
			return
		}
		h.write(w, http.StatusOK, ks)
	})
	mux.HandleFunc("GET /v1/history/{revision}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseUint(r.PathValue("revision"), 10, 64)
		if err != nil {
			h.fail(w, bad("revision", "is not a number", "GET /v1/history lists those that are kept"))
			return
		}
		t, err := h.b.ConfigAt(n)
		if err != nil {
			h.fail(w, err)
			return
		}
		h.write(w, http.StatusOK, t)
	})
	mux.HandleFunc("GET /v1/events", h.events)
}

func (h *handler) missing(w http.ResponseWriter, kind string, r *http.Request) {
	h.fail(w, &daemon.Error{Code: daemon.CodeNotFound, Object: kind + " " + r.PathValue("name"), Message: "is not there", Hint: "GET /v1/" + kind + "s lists those there are"})
}

func bad(object, msg, hint string) error {
	return &daemon.Error{Code: daemon.CodeInvalid, Object: object, Message: msg, Hint: hint}
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// tag tells a revision as the entity tag.
func tag(w http.ResponseWriter, revision uint64) {
	w.Header().Set("ETag", fmt.Sprintf("%q", strconv.FormatUint(revision, 10)))
}

// wanted is the revision that a request insists on; 0: none.
func wanted(r *http.Request) (uint64, error) {
	s := r.Header.Get("If-Match")
	if s == "*" {
		s = ""
	}
	if q := r.URL.Query().Get("revision"); q != "" {
		s = q
	}
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(strings.Trim(s, `"`), 10, 64)
	if err != nil || n == 0 {
		return 0, bad("revision", clip(s)+" is not a revision", "give the number that the object's \"revision\" has")
	}
	return n, nil
}

func flags(q url.Values, to map[string]*bool) error {
	for name, p := range to {
		switch q.Get(name) {
		case "", "0", "false":
		case "1", "true":
			*p = true
		default:
			return bad(name, "is neither 1 nor 0", "write "+name+"=1")
		}
	}
	return nil
}

func (h *handler) edit(w http.ResponseWriter, r *http.Request, f func(*http.Request, map[string]any) (config.Op, error)) {
	var e daemon.Edit
	b, err := h.body(w, r)
	if err == nil {
		e.Revision, err = wanted(r)
	}
	if err == nil {
		err = flags(r.URL.Query(), map[string]*bool{"dryRun": &e.DryRun, "force": &e.Force})
	}
	v := map[string]any{}
	if err == nil && len(b) > 0 {
		v, err = daemon.ParseValues(b)
	}
	var o config.Op
	if err == nil {
		o, err = f(r, v)
	}
	if err != nil {
		h.fail(w, err)
		return
	}
	e.Ops = []config.Op{o}
	res, err := h.b.Edit(e)
	h.result(w, res, err)
}

// editMany takes {"ops": [{"action", "kind", "name", "lun", "values"}], "dryRun",
// "force", "revision"}: all of it or nothing.
func (h *handler) editMany(w http.ResponseWriter, r *http.Request) {
	var in EditRequest
	b, err := h.body(w, r)
	if err == nil {
		dec := json.NewDecoder(strings.NewReader(string(b)))
		dec.UseNumber()
		dec.DisallowUnknownFields()
		if jerr := dec.Decode(&in); jerr != nil {
			err = bad("body", "cannot be read: "+jerr.Error(), "send {\"ops\": [{\"action\": \"add\", \"kind\": \"disk\", \"name\": …, \"values\": {…}}]}")
		}
	}
	e := daemon.Edit{DryRun: in.DryRun, Force: in.Force, Revision: in.Revision}
	for _, o := range in.Ops {
		e.Ops = append(e.Ops, config.Op{Action: o.Action, Kind: o.Kind, Name: o.Name, LUN: o.LUN, Values: o.Values})
	}
	if err == nil && len(e.Ops) == 0 {
		err = bad("body", "has no ops", "add at least one")
	}
	if err != nil {
		h.fail(w, err)
		return
	}
	res, err := h.b.Edit(e)
	h.result(w, res, err)
}

// events streams lines of JSON (application/x-ndjson), one event each. Query: since,
// a revision that the client has seen, or all; follow=0 ends the stream with what is known.
func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var since uint64
	var err error
	if s := q.Get("since"); s == "all" {
		since = daemon.SinceAll
	} else if s != "" {
		if since, err = strconv.ParseUint(s, 10, 64); err != nil {
			h.fail(w, bad("since", clip(s)+" is not a revision", "give the revision of the last event that was seen"))
			return
		}
	}
	follow := true
	switch q.Get("follow") {
	case "", "1", "true":
	case "0", "false":
		follow = false
	default:
		h.fail(w, bad("follow", "is neither 1 nor 0", "write follow=0"))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	ctx, cancel := contextOf(r.Context(), h.base)
	defer cancel()
	_ = h.b.Events(ctx, since, follow, func(es []daemon.Event) error {
		for i := range es {
			if err := enc.Encode(&es[i]); err != nil {
				return err
			}
		}
		return rc.Flush()
	})
}
