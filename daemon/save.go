package daemon

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/vtgt/vtgt/config"
)

// staged is a configuration that lies beside the served file, stable, and will take
// its place.
type staged struct {
	d        *Daemon
	path     string // of the file itself, links followed
	tmp      string // empty: the file has the text already
	old      []byte // what the file has
	was      []byte // what is in force
	revision uint64
	stable   chan error // tells once that tmp is; nil: it was told
}

// stage writes text beside the served file and begins to make it stable. expect is what
// the file must have; nil: whatever it has is kept as an earlier version.
func (d *Daemon) stage(g *graph, text, expect []byte) (*staged, error) {
	object := "file " + d.served
	path, err := filepath.EvalSymlinks(d.served)
	var old []byte
	var fi fs.FileInfo
	if err == nil {
		fi, err = os.Stat(path)
	}
	if err == nil {
		old, err = config.ReadFile(path)
	}
	if err != nil {
		return nil, saveError(object, "the configuration file cannot be read", err)
	}
	if expect != nil && !bytes.Equal(old, expect) {
		return nil, &Error{Code: CodeConflict, Object: object,
			Message: "holds another configuration than the one in force: it was edited and not applied, or another one was applied without saving it",
			Hint:    "look at: vtgt apply -f " + d.served + " --dry-run; then apply it, or save what is in force with: vtgt get config | vtgt apply -f -"}
	}
	s := &staged{d: d, path: path, old: old, was: g.text, revision: g.revision}
	if bytes.Equal(old, text) {
		return s, nil
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, saveError(object, "the configuration file cannot be written", err)
	}
	s.tmp = f.Name()
	_, err = f.Write(text)
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && err == nil && (int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid()) {
		// Where that is not allowed the file becomes the daemon's own.
		_ = f.Chown(int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = f.Chmod(fi.Mode().Perm())
	}
	if err != nil {
		_ = f.Close()
		s.abort()
		return nil, saveError(object, "the configuration file cannot be written", err)
	}
	s.stable = make(chan error, 1)
	go func() {
		err := f.Sync()
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		s.stable <- err
	}()
	return s, nil
}

// settle waits until the text beside the file is stable.
func (s *staged) settle() error {
	if s == nil || s.stable == nil {
		return nil
	}
	err := <-s.stable
	if s.stable = nil; err != nil {
		return saveError("file "+s.d.served, "the configuration file cannot be written", err)
	}
	return nil
}

// abort leaves the file as it was.
func (s *staged) abort() {
	if s == nil {
		return
	}
	_ = s.settle()
	if s.tmp != "" {
		_ = os.Remove(s.tmp)
		s.tmp = ""
	}
}

// commit puts the text, which has settled, in its place. It is stable when commit returns
// nil; else the file is as it was, except that the folder may not have been synced.
func (s *staged) commit() error {
	object := "file " + s.d.served
	if s.tmp == "" {
		// Somebody else wrote it: have it stable all the same.
		for _, p := range []string{s.path, filepath.Dir(s.path)} {
			if err := syncPath(p); err != nil {
				return saveError(object, "the configuration file cannot be made stable", err)
			}
		}
		return nil
	}
	if !bytes.Equal(s.old, s.was) {
		if err := s.d.st.Keep(s.revision, true, s.old); err != nil {
			return stateError(err)
		}
	}
	if err := os.Rename(s.tmp, s.path); err != nil {
		return saveError(object, "the configuration file cannot be replaced", err)
	}
	s.tmp = ""
	if err := syncPath(filepath.Dir(s.path)); err != nil {
		return saveError(object, "the configuration file cannot be made stable", err)
	}
	return nil
}

func syncPath(p string) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func saveError(object, msg string, err error) error {
	e := &Error{Code: CodeInternal, Object: object, Message: msg + ": " + cause(err), Err: err,
		Hint: "nothing was changed; see to the cause and try again"}
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EBUSY):
		e.Code = CodeDenied
		e.Hint = "nothing was changed: a change that is not in the file would be forgotten. Make the file and its folder writable for vtgt; or change the file yourself, then: vtgt apply -f FILE; or change only what runs: vtgt apply -f OTHERFILE --no-save"
	case errors.Is(err, fs.ErrNotExist):
		e.Code = CodeNotFound
		e.Hint = "nothing was changed; put the file back: vtgt get config prints what is in force"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.Hint = "nothing was changed; make room on its file system"
	}
	var ce config.Errors
	if errors.As(err, &ce) && len(ce) > 0 {
		e.Message = msg + ": " + ce[0].Msg
	}
	return e
}

func sum(text []byte) string {
	h := sha256.Sum256(text)
	return hex.EncodeToString(h[:])
}

// revisionError refuses a change of what has changed meanwhile.
func revisionError(object string, have, want uint64) error {
	return &Error{Code: CodeConflict, Object: object,
		Message: fmt.Sprintf("is at revision %d, not %d: somebody changed it", have, want),
		Hint:    "look at it again, then give the revision that it has"}
}
