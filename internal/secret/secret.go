package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Max is the longest secret, bytes.
const Max = 255

// Error is a file that cannot be used, with what to do about it.
type Error struct {
	Path, Problem, Hint string
	Err                 error // of the system, or nil
}

func (e *Error) Error() string { return "secret file " + e.Path + " " + e.Problem + "; " + e.Hint }

// Unwrap gives the system's error.
func (e *Error) Unwrap() error { return e.Err }

// Read is the secret in the file at path, without one line break at its end. The file
// is a regular one of root's or of this process's user, closed to group and others
// (0600 or 0400), in a folder where nobody else can put another in its place; a
// symbolic link on the way is root's or our own too. The error is an *Error; nothing
// of the file's contents is in it.
func Read(path string) ([]byte, error) {
	fail := func(problem, hint string) ([]byte, error) {
		return nil, &Error{Path: path, Problem: problem, Hint: hint}
	}
	mine := func(fi fs.FileInfo) bool {
		st, ok := fi.Sys().(*syscall.Stat_t)
		return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
	}
	if !filepath.IsAbs(path) {
		return fail("is not an absolute path", "write it from the root on")
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err == nil && dir.Mode()&0o002 != 0 && dir.Mode()&fs.ModeSticky == 0 {
		return fail("is in a folder that everybody may write", "keep it in a folder of root's, such as /etc/vtgt")
	}
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&fs.ModeSymlink != 0 && !mine(fi) {
		return fail("is a symbolic link of another user's", "name the file itself")
	}
	// Without O_NONBLOCK a pipe would keep us waiting.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		var pe *os.PathError
		cause := err
		if errors.As(err, &pe) {
			cause = pe.Err
		}
		hint := "write the secret into it: (umask 077; head -c 12 /dev/urandom | base64 | tr -d '\\n' > " + path + ")"
		if errors.Is(err, fs.ErrPermission) {
			hint = "let the user that vtgt runs as own it (chown, mode 0600)"
		}
		return nil, &Error{Path: path, Problem: "cannot be opened: " + cause.Error(), Hint: hint, Err: err}
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, &Error{Path: path, Problem: "cannot be examined: " + err.Error(), Hint: "look at its file system", Err: err}
	case !fi.Mode().IsRegular():
		return fail("is no regular file", "name a file that holds the secret")
	case fi.Mode().Perm()&0o177 != 0:
		return fail(fmt.Sprintf("has mode %04o: others could read it, or it is a program", fi.Mode().Perm()), "chmod 600 "+path)
	case !mine(fi):
		return fail("belongs to another user", "chown it to root or to the user that vtgt runs as")
	}
	b, err := io.ReadAll(io.LimitReader(f, Max+3))
	if err != nil {
		return nil, &Error{Path: path, Problem: "cannot be read: " + err.Error(), Hint: "look at its file system", Err: err}
	}
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
		if n > 1 && b[n-2] == '\r' {
			b = b[:n-2]
		}
	}
	switch {
	case len(b) == 0:
		return fail("is empty", "write the secret into it, 12 to 16 characters suit every initiator")
	case len(b) > Max:
		return fail(fmt.Sprintf("holds more than %d bytes", Max), "write a shorter secret, 12 to 16 characters suit every initiator")
	case bytes.ContainsAny(b, "\n\r\x00"):
		return fail("holds more than one line", "write the secret alone into it, one line")
	}
	return b, nil
}
