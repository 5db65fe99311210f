package api

import (
	"net/http"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
)

// What the resources hold; see package daemon for the fields.
type (
	Disk    = daemon.DiskStatus
	Target  = daemon.TargetStatus
	Export  = daemon.ExportStatus
	Session = daemon.Session
	// DiskReservations are the registrations and the reservation of a disk.
	DiskReservations = daemon.DiskReservations
	Status           = daemon.Status
	ConfigText       = daemon.ConfigText
	Result           = daemon.Result
	Event            = daemon.Event
	Kept             = daemon.Kept
	Op               = config.Op
	// Attachment is what vtgt has set up outside of itself, see package attach.
	Attachment = daemon.Attachment
	// AttachmentStep is one thing of that.
	AttachmentStep  = daemon.AttachmentStep
	AttachmentState = daemon.AttachmentState
	StepState       = daemon.StepState
)

// What attachments and their steps have come to.
const (
	Attaching = daemon.Attaching
	Attached  = daemon.Attached
	Detaching = daemon.Detaching
	Damaged   = daemon.Damaged
	Planned   = daemon.Planned
	Done      = daemon.Done
	Undone    = daemon.Undone

	AllLUNs = daemon.AllLUNs
)

// Codes of errors that clients act on.
const (
	CodeInvalid      = daemon.CodeInvalid
	CodeNotFound     = daemon.CodeNotFound
	CodeConflict     = daemon.CodeConflict
	CodeExists       = daemon.CodeExists
	CodeBusy         = daemon.CodeBusy
	CodeDenied       = daemon.CodeDenied
	CodeTimeout      = daemon.CodeTimeout
	CodeUnavailable  = daemon.CodeUnavailable
	CodeNotSupported = daemon.CodeNotSupported
)

// Version is the version of this interface, the /v1 of its paths.
const Version = 1

// VersionInfo is the answer to GET /v1/version.
type VersionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	API     int    `json:"api"`
}

// Error is the body of every answer that is not 2xx. Where there are several
// failures, the first four fields are those of the first, and All holds all.
type Error struct {
	Code    daemon.Code   `json:"code"`
	Object  string        `json:"object"`
	Message string        `json:"message"`
	Hint    string        `json:"hint"`
	All     daemon.Errors `json:"all,omitempty"`
	// Status is the HTTP status code.
	Status int `json:"-"`
}

// Error is one line for each failure.
func (e *Error) Error() string {
	if len(e.All) > 1 {
		return e.All.Error()
	}
	return (&daemon.Error{Code: e.Code, Object: e.Object, Message: e.Message, Hint: e.Hint}).Error()
}

// newError is the body for err.
func newError(err error) *Error {
	es := daemon.AsErrors(err)
	f := es[0]
	e := &Error{Code: f.Code, Object: f.Object, Message: f.Message, Hint: f.Hint, Status: httpStatus(f.Code)}
	if len(es) > 1 {
		e.All = es
	}
	return e
}

func httpStatus(c daemon.Code) int {
	switch c {
	case daemon.CodeInvalid:
		return http.StatusBadRequest
	case daemon.CodeNotFound:
		return http.StatusNotFound
	case daemon.CodeInUse, daemon.CodeBusy, daemon.CodeRestart, daemon.CodeConflict, daemon.CodeExists:
		return http.StatusConflict
	case daemon.CodeDenied:
		return http.StatusForbidden
	case daemon.CodeTimeout:
		return http.StatusGatewayTimeout
	case daemon.CodeUnavailable:
		return http.StatusServiceUnavailable
	case daemon.CodeNotSupported:
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}
