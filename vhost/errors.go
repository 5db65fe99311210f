package vhost

import "errors"

// ErrClosed: the export was closed.
var ErrClosed = errors.New("vhost-user export is closed")

// violation is what a front end did against the protocol, or what we refuse to do: the
// connection ends.
type violation struct{ err error }

func (v *violation) Error() string { return v.err.Error() }
func (v *violation) Unwrap() error { return v.err }

// declined is a request that is answered with failure and does no harm: the connection
// goes on.
type declined struct{ err error }

func (d *declined) Error() string { return d.err.Error() }
func (d *declined) Unwrap() error { return d.err }
