package daemon

import (
	"errors"
	"strings"

	"github.com/vtgt/vtgt/config"
)

// Code says what kind of failure an Error is, for programs.
type Code string

// The codes.
const (
	CodeInvalid      Code = "invalid"        // the configuration or request is wrong
	CodeNotFound     Code = "not-found"      // a file, object or address is not there
	CodeInUse        Code = "in-use"         // somebody else has it
	CodeBusy         Code = "busy"           // initiators use it
	CodeConflict     Code = "conflict"       // somebody else changed it meanwhile
	CodeExists       Code = "exists"         // an object of this name is there
	CodeDenied       Code = "denied"         // the system does not allow it
	CodeRestart      Code = "restart-needed" // cannot change while the daemon runs
	CodeTimeout      Code = "timeout"        // did not end in time
	CodeUnavailable  Code = "unavailable"    // the daemon is ending
	CodeNotSupported Code = "not-supported"
	CodeInternal     Code = "internal"
)

// Error is a failure for its user: which object, what is wrong, what to do.
type Error struct {
	Code Code `json:"code"`
	// Object is what failed: "disk root1", "portal 127.0.0.1:3260", or the
	// place in a configuration, "vtgt.yaml:3:5".
	Object  string `json:"object"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Err     error  `json:"-"`
}

// Error is "object: message; hint".
func (e *Error) Error() string {
	s := e.Message
	if e.Object != "" {
		s = e.Object + ": " + s
	}
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Errors are several failures of one request, never empty.
type Errors []*Error

// Error is one line for each failure.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the single failures to errors.As and errors.Is.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// AsErrors makes Errors of any error of this package or of package config.
func AsErrors(err error) Errors {
	if err == nil {
		return nil
	}
	var es Errors
	if errors.As(err, &es) {
		return es
	}
	var e *Error
	if errors.As(err, &e) {
		return Errors{e}
	}
	var cs config.Errors
	if errors.As(err, &cs) {
		for _, c := range cs {
			es = append(es, &Error{Code: CodeInvalid, Object: c.Where(), Message: c.Msg, Hint: c.Hint, Err: c})
		}
		return es
	}
	return Errors{{Code: CodeInternal, Message: err.Error(), Err: err}}
}

// collect gathers failures; nil stays nil.
type collect struct{ es Errors }

func (c *collect) add(err error) {
	if err != nil {
		c.es = append(c.es, AsErrors(err)...)
	}
}

func (c *collect) err() error {
	if len(c.es) == 0 {
		return nil
	}
	return c.es
}
