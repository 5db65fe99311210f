package config

import (
	"fmt"
	"strings"
)

// Pos is a place in the file, counted from 1. The zero value is an unknown place.
type Pos struct{ Line, Col int }

// Error is one thing wrong with a configuration.
type Error struct {
	// File as it was given to Parse; may be empty.
	File string
	Pos
	// Path of the value, such as "disks[0].size".
	Path string
	// Msg says what is wrong, Hint what to do about it.
	Msg, Hint string
}

// Error is "file:line:col: message: hint".
func (e *Error) Error() string {
	s := e.Msg
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return e.Where() + ": " + s
}

// Where is "file:line:col", or the path of the value where there is no file.
func (e *Error) Where() string {
	if e.Line == 0 {
		switch {
		case e.File != "":
			return e.File
		case e.Path != "":
			return e.Path
		}
		return "configuration"
	}
	return fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Col)
}

// Errors is everything that is wrong with a configuration, in the order of the
// file.
type Errors []*Error

// Error is one line for each error.
func (es Errors) Error() string {
	var b strings.Builder
	for i, e := range es {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.Error())
	}
	return b.String()
}

// Unwrap gives the single errors to errors.As and errors.Is.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}
