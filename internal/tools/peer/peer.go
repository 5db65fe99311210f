package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/hosttest"
)

// ErrMissing says that a peer's program is not installed.
var ErrMissing = errors.New("not installed")

// A Disk is what a Server serves as one target.
type Disk struct {
	// Name is the last part of the target's name, unique in the Server.
	Name string
	// Path of an image file that is there already, absolute.
	Path string
	// Store, for vtgt, is used instead of Path: "mem:", "null:"; Size is its size in
	// bytes.
	Store string
	Size  int64
	// Direct has the target bypass the page cache.
	Direct bool
	// VHost, for vtgt, serves the disk at a vhost-user socket, too.
	VHost bool
	// BlockSize and PhysicalBlockSize in bytes.
	BlockSize, PhysicalBlockSize int
	Thin, Removable, ReadOnly    bool
	// SanitizeSpeed bounds SANITIZE OVERWRITE, bytes a second; 0: any. vtgt's only.
	SanitizeSpeed int
	// KeyFile, where set, has the disk be an encrypted store of Size bytes that is made
	// at Path. vtgt's only.
	KeyFile string
}

// A Server is a running target.
type Server struct {
	// Name is "vtgt" or "tgtd", Version what the program says of itself.
	Name, Version string
	// PID of the process that serves.
	PID int
	// Socket is vtgt's API socket, empty for a peer.
	Socket string

	addr string
	sock string // folder of vtgt's sockets
	lun  int
	env  []string // added to the process's environment
	log  string
	cmd  *exec.Cmd
	exit chan struct{} // closed when the process has ended
	stop func()        // asks it to end

	release []func() // of the ports that are its own
}

// startLimit and endLimit are for what hangs: on a busy machine a start has been seen
// to take several seconds.
const (
	startLimit = 2 * time.Minute
	endLimit   = time.Minute
)

const iqn = "iqn.2026-11.org.vtgt.tools:"

// URL is how libiscsi names a disk.
func (s *Server) URL(disk string) string {
	return fmt.Sprintf("iscsi://%s/%s%s/%d", s.addr, iqn, disk, s.lun)
}

// Addr is where it listens for iSCSI, "host:port".
func (s *Server) Addr() string { return s.addr }

// LUN is the number by which each target shows its disk.
func (s *Server) LUN() int { return s.lun }

// IQN is the name of a disk's target.
func (s *Server) IQN(disk string) string { return iqn + disk }

// Log is the end of what the process has printed, for error messages.
func (s *Server) Log() string {
	b, _ := os.ReadFile(s.log)
	if len(b) > 4000 {
		b = append([]byte("…"), b[len(b)-4000:]...)
	}
	return string(bytes.TrimSpace(b))
}

// Exited tells whether the process has ended, which it should not by itself.
func (s *Server) Exited() bool {
	select {
	case <-s.exit:
		return true
	default:
		return false
	}
}

// Close ends the process, by force after a while. It returns an error when force
// was needed or the process had ended before.
func (s *Server) Close() error {
	if s.Exited() {
		return fmt.Errorf("%s had ended by itself: %v\n%s", s.Name, s.cmd.ProcessState, s.Log())
	}
	s.stop()
	select {
	case <-s.exit:
		return nil
	case <-time.After(endLimit):
	}
	s.cmd.Process.Kill()
	<-s.exit
	return fmt.Errorf("%s did not end within %v when asked to and was killed\n%s", s.Name, endLimit, s.Log())
}

// start runs the program with its output in dir, and waits until it listens.
func (s *Server) start(dir, program string, args ...string) error {
	s.log = filepath.Join(dir, s.Name+".log")
	out, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer out.Close()
	s.cmd = exec.Command(program, args...)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.Env = append(os.Environ(), s.env...)
	// It dies with us, whatever happens to us, and ^C reaches us alone.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.PID = s.cmd.Process.Pid
	s.exit = make(chan struct{})
	go func() {
		s.cmd.Wait()
		s.free()
		close(s.exit)
	}()
	for end := time.Now().Add(startLimit); ; {
		c, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err == nil {
			c.Close()
			return nil
		}
		select {
		case <-s.exit:
			return fmt.Errorf("%s ended at once: %v\n%s", s.Name, s.cmd.ProcessState, s.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			s.cmd.Process.Kill()
			<-s.exit
			return fmt.Errorf("%s does not listen on %s after %v\n%s", s.Name, s.addr, startLimit, s.Log())
		}
	}
}

// reserve gives the server a port of its own until it has ended.
func (s *Server) reserve() (addr string, err error) {
	port, release, err := hosttest.Reserve()
	if err != nil {
		return "", err
	}
	s.release = append(s.release, release)
	return port.String(), nil
}

// unlessStarted lets go of the ports of a server that did not get so far.
func (s *Server) unlessStarted() {
	if s.exit == nil {
		s.free()
	}
}

// free lets go of what reserve took.
func (s *Server) free() {
	for _, f := range s.release {
		f()
	}
	s.release = nil
}

// find looks a program up, also where only root's PATH looks.
func find(program, pkg string) (string, error) {
	if p, err := exec.LookPath(program); err == nil {
		return p, nil
	}
	if p, err := exec.LookPath("/usr/sbin/" + program); err == nil {
		return p, nil
	}
	return "", fmt.Errorf("%s is %w (package %s): run make deps", program, ErrMissing, pkg)
}

func version(program string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	l, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return l
}

// cutAddr divides what reserve gives.
func cutAddr(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(p)
	return host, port, err
}
