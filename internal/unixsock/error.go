package unixsock

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// Reason is what an Error is about.
type Reason uint8

// The reasons.
const (
	Failed     Reason = iota // of the system, see Err
	NotASocket               // something else is at the path
	Answered                 // somebody listens there
	Busy                     // somebody listens there, but takes no connections
	Denied                   // another user's, or a folder that we may not write
)

// Error says why a socket cannot be had.
type Error struct {
	Path    string
	Reason  Reason
	Problem string
	Err     error
}

func (e *Error) Error() string { return "socket " + e.Path + ": " + e.Problem }

func (e *Error) Unwrap() error { return e.Err }

// failed is the error of a step that the system refused.
func failed(path, what string, err error) *Error {
	e := &Error{Path: path, Problem: what + ": " + cause(err), Err: err}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		e.Reason = Denied
	}
	return e
}

// cause is an error without the path that its message names anyway.
func cause(err error) string {
	var pe *os.PathError
	var le *os.LinkError
	var se *os.SyscallError
	switch {
	case errors.As(err, &pe):
		err = pe.Err
	case errors.As(err, &le):
		err = le.Err
	case errors.As(err, &se):
		err = se.Err
	}
	return err.Error()
}
