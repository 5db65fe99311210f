package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"sync"
	"time"

	"github.com/vtgt/vtgt/daemon"
)

// maxBody bounds a request's body, bytes.
const maxBody = 16 << 20

// Backend is what the server serves: a *daemon.Daemon.
type Backend interface {
	Status() daemon.Status
	Disks() []daemon.DiskStatus
	Targets() []daemon.TargetStatus
	Exports() []daemon.ExportStatus
	Sessions() []daemon.Session
	Config() daemon.ConfigText
	Apply(file string, text []byte, o daemon.ApplyOptions) (*daemon.Result, error)
	Edit(e daemon.Edit) (*daemon.Result, error)
	Resume(disk string) (*daemon.DiskStatus, error)
	Reservations() []daemon.DiskReservations
	ClearReservations(disk string, force bool) error
	Events(ctx context.Context, since uint64, follow bool, f func([]daemon.Event) error) error
	History() ([]daemon.Kept, error)
	ConfigAt(revision uint64) (*daemon.ConfigText, error)
	Attachments() []daemon.Attachment
	AddAttachment(a daemon.Attachment) (*daemon.Attachment, error)
	PutAttachment(a daemon.Attachment, revision uint64) (*daemon.Attachment, error)
	DeleteAttachment(id string, revision uint64) error
}

// ServerConfig describes a Server.
type ServerConfig struct {
	// Version is what GET /v1/version and vtgt_build_info tell.
	Version string
	// Log hears of failures; nil is silence.
	Log *slog.Logger
}

// Server answers requests on one listener.
type Server struct {
	hs   *http.Server
	ln   net.Listener
	done chan struct{}
	stop context.CancelFunc
	once sync.Once
	err  error
}

// Serve begins to answer on ln, which it takes over. b must stay usable until
// Close returned.
func Serve(ln net.Listener, b Backend, c ServerConfig) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	// Streams end when the server closes; other requests get their time.
	base, stop := context.WithCancel(context.Background())
	s := &Server{ln: ln, done: make(chan struct{}), stop: stop}
	s.hs = &http.Server{
		Handler:           handle(b, c, base),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(s.done)
		if err := s.hs.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			c.Log.Error("the API socket failed", "err", err)
		}
	}()
	return s
}

// Close stops to answer: requests under way get until ctx ends. It is idempotent.
func (s *Server) Close(ctx context.Context) error {
	s.once.Do(func() {
		s.stop()
		s.err = s.hs.Shutdown(ctx)
		if s.err != nil {
			_ = s.hs.Close()
		}
		<-s.done
	})
	return s.err
}

// Handler is the HTTP handler of the interface.
func Handler(b Backend, c ServerConfig) http.Handler { return handle(b, c, context.Background()) }

// handle is Handler; streams end with base.
func handle(b Backend, c ServerConfig, base context.Context) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	h := &handler{b: b, c: c, base: base}
	mux := http.NewServeMux()
	get := func(path string, f func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { h.write(w, http.StatusOK, f()) })
	}
	get("/v1/status", func() any { return b.Status() })
	get("/v1/disks", func() any { return b.Disks() })
	get("/v1/targets", func() any { return b.Targets() })
	get("/v1/exports", func() any { return b.Exports() })
	get("/v1/sessions", func() any { return b.Sessions() })
	get("/v1/reservations", func() any { return b.Reservations() })
	mux.HandleFunc("GET /v1/config", func(w http.ResponseWriter, r *http.Request) {
		t := b.Config()
		tag(w, t.Revision)
		h.write(w, http.StatusOK, t)
	})
	get("/v1/version", func() any {
		return VersionInfo{Version: c.Version, Go: runtime.Version(), API: Version}
	})
	mux.HandleFunc("POST /v1/apply", h.apply)
	mux.HandleFunc("POST /v1/debug/gc", h.gc)
	h.objects(mux)
	h.attachments(mux)
	mux.Handle("GET /metrics", metricsHandler(b, c.Version))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	known := map[string]string{
		"/v1/apply": "POST", "/v1/status": "GET", "/v1/disks": "GET", "/v1/targets": "GET",
		"/v1/debug/gc": "POST", "/v1/edit": "POST", "/v1/events": "GET", "/v1/history": "GET", "/v1/portals": "POST",
		"/v1/exports": "GET", "/v1/sessions": "GET", "/v1/config": "GET", "/v1/version": "GET", "/metrics": "GET",
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if m := known[r.URL.Path]; m != "" {
			w.Header().Set("Allow", m)
			e := &Error{Code: daemon.CodeInvalid, Object: r.URL.Path, Message: "cannot " + r.Method, Hint: "use " + m}
			h.write(w, http.StatusMethodNotAllowed, e)
			return
		}
		h.fail(w, &daemon.Error{Code: daemon.CodeNotFound, Object: r.URL.Path, Message: "there is no such resource",
			Hint: "known are /v1/{status,disks,targets,portals,exports,sessions,config,history,events,attachments,version,apply,edit}, /metrics and /debug/pprof/"})
	})
	return mux
}

type handler struct {
	b    Backend
	c    ServerConfig
	base context.Context
}

func (h *handler) write(w http.ResponseWriter, status int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		h.c.Log.Error("the API cannot encode an answer", "err", err)
		http.Error(w, `{"code":"internal","object":"","message":"the answer cannot be encoded","hint":"report this as a defect"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

func (h *handler) fail(w http.ResponseWriter, err error) {
	e := newError(err)
	h.write(w, e.Status, e)
}

// apply takes the text of a configuration as its body. Query: dryRun=1 changes
// nothing; force=1 ends what initiators use; save=1 has the served file take the
// text over; file names the text in messages; revision (or If-Match) is what the
// configuration in force must be at.
func (h *handler) apply(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var o daemon.ApplyOptions
	err := flags(q, map[string]*bool{"dryRun": &o.DryRun, "force": &o.Force, "save": &o.Save})
	if err == nil {
		o.Revision, err = wanted(r)
	}
	if err != nil {
		h.fail(w, err)
		return
	}
	text, err := h.body(w, r)
	if err != nil {
		h.fail(w, err)
		return
	}
	file := q.Get("file")
	if file == "" {
		file = "body"
	}
	res, err := h.b.Apply(file, text, o)
	h.result(w, res, err)
}

func (h *handler) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, &daemon.Error{Code: daemon.CodeInvalid, Object: "body", Message: "cannot be read: " + err.Error(), Hint: "send at most 16 MiB"}
	}
	return b, nil
}

func (h *handler) result(w http.ResponseWriter, res *daemon.Result, err error) {
	if err != nil {
		h.fail(w, err)
		return
	}
	tag(w, res.Revision)
	h.write(w, http.StatusOK, res)
}
