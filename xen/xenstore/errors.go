package xenstore

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vtgt/vtgt/xen/xenstore/wire"
)

// What callers compare with, by errors.Is. fs.ErrNotExist, fs.ErrExist and
// fs.ErrPermission stand for ENOENT, EEXIST and EACCES.
var (
	// ErrClosed: Close was called.
	ErrClosed = errors.New("xenstore: the connection is closed")
	// ErrLost: xenstored has ended the connection, or has ended itself.
	ErrLost = errors.New("xenstore: the connection is lost")
	// ErrAgain: another change was faster than the transaction (EAGAIN).
	ErrAgain = errors.New("xenstore: conflict with another transaction")
	// ErrBusy: Update has met conflicts only.
	ErrBusy = errors.New("xenstore: other changes were faster every time")
)

// An Error is xenstored's refusal of a request.
type Error struct {
	Op   wire.Type
	Path string
	Code string // the name of an errno: "ENOENT"
}

func (e *Error) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("xenstore %v: %s", e.Op, e.Code)
	}
	return fmt.Sprintf("xenstore %v %s: %s", e.Op, e.Path, e.Code)
}

// Is maps the names of errors.
func (e *Error) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return e.Code == "ENOENT"
	case fs.ErrExist:
		return e.Code == "EEXIST"
	case fs.ErrPermission:
		return e.Code == "EACCES" || e.Code == "EPERM"
	case ErrAgain:
		return e.Code == "EAGAIN"
	}
	return false
}
