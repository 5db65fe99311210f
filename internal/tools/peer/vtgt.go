package peer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Vtgt starts the binary over disks with a generated configuration, its files in dir.
// env, as "NAME=value", is added to its environment.
func Vtgt(binary, dir string, disks []Disk, env ...string) (*Server, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("%w: run make build", err)
	}
	// The socket's path must fit sockaddr_un: not below a deep dir.
	sockDir, err := os.MkdirTemp("", "vtgt-")
	if err != nil {
		return nil, err
	}
	s := &Server{Name: "vtgt", Version: version(binary, "--version"), sock: sockDir, env: env, Socket: filepath.Join(sockDir, "s")}
	defer s.unlessStarted()
	if s.addr, err = s.reserve(); err != nil {
		os.RemoveAll(sockDir)
		return nil, err
	}
	conf := filepath.Join(dir, "vtgt.yaml")
	if err := os.WriteFile(conf, []byte(vtgtConfig(s, filepath.Join(dir, "state"), disks)), 0o600); err != nil {
		os.RemoveAll(sockDir)
		return nil, err
	}
	s.stop = func() { s.cmd.Process.Signal(syscall.SIGTERM) }
	err = s.start(dir, binary, "serve", "--config", conf)
	if err != nil {
		os.RemoveAll(sockDir)
		return nil, err
	}
	go func() {
		<-s.exit
		os.RemoveAll(sockDir)
	}()
	for _, d := range disks {
		if !d.VHost {
			continue
		}
		if err := s.bound(s.VHostSocket(d.Name)); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// bound waits until a socket is there: they come one after another, and the portal may
// be first.
func (s *Server) bound(socket string) error {
	for end := time.Now().Add(startLimit); ; {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		select {
		case <-s.exit:
			return fmt.Errorf("%s ended at once: %v\n%s", s.Name, s.cmd.ProcessState, s.Log())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s has no socket %s after %v\n%s", s.Name, socket, startLimit, s.Log())
		}
	}
}

// VHostSocket is where vtgt serves a disk with Disk.VHost.
func (s *Server) VHostSocket(disk string) string { return filepath.Join(s.sock, disk) }

func vtgtConfig(s *Server, state string, disks []Disk) string {
	var b strings.Builder
	b.WriteString("version: 1\ndisks:\n")
	for _, d := range disks {
		fmt.Fprintf(&b, "  - {name: %q, blockSize: %d, physicalBlockSize: %d, thin: %t, removable: %t, readOnly: %t, shared: true",
			d.Name, d.BlockSize, d.PhysicalBlockSize, d.Thin, d.Removable, d.ReadOnly)
		if d.KeyFile != "" {
			fmt.Fprintf(&b, ", store: %q, size: %d, create: true, keyFile: %q", "encrypted:"+d.Path, d.Size, d.KeyFile)
		} else if d.Store != "" {
			fmt.Fprintf(&b, ", store: %q, size: %d", d.Store, d.Size)
		} else {
			fmt.Fprintf(&b, ", store: %q", "file:"+d.Path)
		}
		if d.Direct {
			b.WriteString(", cache: direct")
		}
		if d.SanitizeSpeed > 0 {
			fmt.Fprintf(&b, ", sanitizeSpeed: %d", d.SanitizeSpeed)
		}
		b.WriteString("}\n")
	}
	b.WriteString("targets:\n")
	for _, d := range disks {
		fmt.Fprintf(&b, "  - {name: %q, luns: [{lun: 0, disk: %q}], iscsi: {iqn: %q}", d.Name, d.Name, iqn+d.Name)
		if d.VHost {
			fmt.Fprintf(&b, ", vhost: {socket: %q}", s.VHostSocket(d.Name))
		}
		b.WriteString("}\n")
	}
	// iscsi-test-cu sleeps for 60 s without answering a ping, and takes the unit
	// attention of another login for a reason to sleep again.
	fmt.Fprintf(&b, "iscsi: {portals: [%q], pingInterval: 10m}\napi: {socket: %q}\nstate: %q\n", s.addr, s.Socket, state)
	return b.String()
}
