package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Format is the version of the folder's layout.
const Format = 1

const (
	lockFile     = "lock"
	formatFile   = "format.json"
	identityFile = "identities.json"
)

// Error is a failure of the state folder, for its user.
type Error struct {
	// Path is the file or folder.
	Path string
	// Msg says what failed, Hint what to do about it.
	Msg, Hint string
	Err       error
}

func (e *Error) Error() string {
	s := e.Path + ": " + e.Msg
	if e.Err != nil {
		s += ": " + reason(e.Err)
	}
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// ErrInUse: another daemon has the folder.
var ErrInUse = errors.New("in use")

func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// Dir is a state folder that this process owns until Close. Its methods may be
// called from any goroutine.
type Dir struct {
	path string
	lock *os.File
	ids  *Identities
}

// Open makes the folder where it is missing, takes its lock (waiting at most
// wait for an owner that is about to end) and reads what is there.
func Open(path string, wait time.Duration) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, folderError(path, "cannot make the state folder", err)
	}
	d := &Dir{path: path}
	if err := d.takeLock(wait); err != nil {
		return nil, err
	}
	return d.read()
}

// Adopt is Open with the lock of a process that hands the folder over: both have it until
// that one ends, and which of them may write is for them to know. lock is the Dir's if
// there is no error.
func Adopt(path string, lock *os.File) (*Dir, error) {
	d := &Dir{path: path, lock: lock}
	return d.read()
}

// Lock is the file that has the folder's lock.
func (d *Dir) Lock() *os.File { return d.lock }

// read reads what is there.
func (d *Dir) read() (*Dir, error) {
	if err := d.checkFormat(); err != nil {
		d.Close()
		return nil, err
	}
	d.sweep()
	ids, err := loadIdentities(filepath.Join(d.path, identityFile))
	if err != nil {
		d.Close()
		return nil, err
	}
	d.ids = ids
	return d, nil
}

func folderError(path, msg string, err error) error {
	hint := "name another folder with the key state:"
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		hint = "run as root, or name a folder that you may write with the key state: (to try vtgt out: vtgt run)"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "make room on its file system"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		hint = "a file is in the way: remove it, or name another folder with the key state:"
	}
	return &Error{Path: path, Msg: msg, Hint: hint, Err: err}
}

// takeLock locks the lock file. flock goes with the open file: the kernel lets
// go of it when the process ends, however it ends.
func (d *Dir) takeLock(wait time.Duration) error {
	p := filepath.Join(d.path, lockFile)
	f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return folderError(p, "cannot open the lock", err)
	}
	deadline := time.Now().Add(wait)
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return folderError(p, "cannot lock", err)
		}
		if time.Now().After(deadline) {
			who := holder(f)
			f.Close()
			return &Error{Path: d.path, Msg: "another vtgt" + who + " has this state folder", Err: ErrInUse,
				Hint: "stop it first, or give this one a folder of its own with the key state:"}
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.lock = f
	d.Sign()
	return nil
}

// Sign notes in the lock who has it, for people and for the message above. Open does it.
func (d *Dir) Sign() {
	_ = d.lock.Truncate(0)
	_, _ = d.lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
}

func holder(f *os.File) string {
	var b [32]byte
	n, _ := f.ReadAt(b[:], 0)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n]))); err == nil && pid > 0 {
		return fmt.Sprintf(" (process %d)", pid)
	}
	return ""
}

// checkFormat writes the version into a new folder and refuses a newer one.
func (d *Dir) checkFormat() error {
	type format struct {
		Format int `json:"format"`
	}
	p := filepath.Join(d.path, formatFile)
	b, err := os.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) {
		b, _ := json.Marshal(format{Format})
		return writeFile(p, append(b, '\n'))
	}
	if err != nil {
		return folderError(p, "cannot read", err)
	}
	var f format
	if err := json.Unmarshal(b, &f); err != nil || f.Format < 1 {
		return &Error{Path: p, Msg: "is damaged", Hint: "restore the folder from a backup; or remove this file if the folder was written by this version of vtgt"}
	}
	if f.Format > Format {
		return &Error{Path: d.path, Msg: fmt.Sprintf("was written by a newer vtgt (format %d, this one knows %d)", f.Format, Format), Hint: "use that version again, or name another folder with the key state:"}
	}
	return nil
}

// Path is the folder's path.
func (d *Dir) Path() string { return d.path }

// Identities are the folder's identities.
func (d *Dir) Identities() *Identities { return d.ids }

// Close lets go of the folder. It is idempotent.
func (d *Dir) Close() error {
	if d.lock == nil {
		return nil
	}
	f := d.lock
	d.lock = nil
	return f.Close()
}

// tempPattern is what writeFile calls the file that is to replace path.
func tempPattern(path string) string { return "." + filepath.Base(path) + ".new-*" }

// sweep removes what a daemon that was killed inside writeFile has left in its own
// folder. The lock is held: nobody else is writing there.
func (d *Dir) sweep() {
	dirs := []string{d.path, filepath.Join(d.path, versionFolder), filepath.Join(d.path, attachmentFolder)}
	units, _ := os.ReadDir(filepath.Join(d.path, unitFolder))
	for _, u := range units {
		dirs = append(dirs, filepath.Join(d.path, unitFolder, u.Name()))
	}
	for _, dir := range dirs {
		files, _ := os.ReadDir(dir)
		for _, f := range files {
			if left, _ := filepath.Match(tempPattern("*"), f.Name()); left {
				_ = os.Remove(filepath.Join(dir, f.Name()))
			}
		}
	}
}

// writeFile replaces the file at path by b, for good when it returns nil.
func writeFile(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, tempPattern(path))
	if err != nil {
		return folderError(path, "cannot write", err)
	}
	tmp := f.Name()
	defer func() {
		if err != nil {
			os.Remove(tmp)
			err = folderError(path, "cannot write", err)
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	return syncFolder(dir)
}

// syncFolder makes the entries of the folder dir stable.
func syncFolder(dir string) error {
	df, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer df.Close()
	return df.Sync()
}
