package main

import (
	"log/slog"
	"net"
	"os"
	"slices"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/vtgt/vtgt/daemon"
)

// sockets are those that systemd has bound and handed over (sd_listen_fds(3)).
type sockets struct {
	log   *slog.Logger
	files []*os.File
}

func inheritedSockets(log *slog.Logger) *sockets {
	return &sockets{log, activation.Files(true)}
}

// parking is systemd's store of descriptors, nil where it keeps none for us. systemd says
// so by FDSTORE since version 254; before that, the unit does.
func (s *sockets) parking() *daemon.Parking {
	addr := os.Getenv("NOTIFY_SOCKET")
	if n := os.Getenv("FDSTORE"); n == "" || n == "0" {
		addr = ""
	}
	p, rest, err := daemon.NewParking(addr, s.files, s.log)
	if err != nil {
		s.log.Warn("systemd's store of descriptors cannot be used", "err", err)
	}
	s.files = rest
	return p
}

// api is the UNIX socket at path, nil where it was not handed over; vhost are paths of
// others that are expected.
func (s *sockets) api(path string, vhost []string) net.Listener {
	for _, f := range s.files {
		ln, err := net.FileListener(f)
		if err != nil {
			s.log.Warn("an inherited socket cannot be used: it does not listen", "name", f.Name(), "err", err)
			continue
		}
		if a, ok := ln.Addr().(*net.UnixAddr); ok {
			if a.Name == path {
				return ln
			}
			if !slices.Contains(vhost, a.Name) {
				s.log.Warn("an inherited socket is not used: neither api.socket nor a target's vhost.socket or vio.socket names it", "inherited", a.Name, "api.socket", path)
			}
		}
		ln.Close()
	}
	return nil
}

// rest are all of them; the daemon takes those of its portals and exports, and copies
// them.
func (s *sockets) rest() []*os.File {
	fs := s.files
	s.files = nil // the daemon's now
	return fs
}

// close closes what nobody took.
func (s *sockets) close() {
	for _, f := range s.files {
		f.Close()
	}
	s.files = nil
}
